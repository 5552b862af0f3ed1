"""`kernels/` in float32, beside a case below it: what the rounded weights of numba-simd are to be compared with.

The same kernels, inputs and timings as those of numba-simd in a case of float32. It takes part in cases below float32
alone, and as it is this project's own, it is never the fastest other.
"""

from dataclasses import replace

from bench.implementations import numba_simd
from bench.implementations.numba_simd import start, version

__all__ = ["prepare", "start", "version"]


def prepare(case, inputs):
    return numba_simd.prepare(replace(case, dtype=case.number), inputs)
