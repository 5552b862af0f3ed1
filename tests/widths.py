"""`python -m tests.widths [--rounds 30]`: what wide vectors bring, by the same kernels compiled for narrower ones.

Each width is a worker of its own, on one thread; all are verified, before and after, and take turns. Those narrower
than the host's are compiled as for an x86 of SSE2 alone, and for one of AVX2.
"""

import os
import tempfile
from contextlib import ExitStack, closing
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Annotated
from unittest.mock import patch

import typer

from bench.grid.cases import Case
from bench.machine.lock import the_machine
from bench.results.formats import ends, seconds, times
from bench.results.statistics import paired_ratio
from bench.timing.loop import turn
from bench.timing.worker import Worker
from kernels.core.code.host import BITS, X86

MODULE = "bench.implementations.numba_simd"
NARROW = {  # what Numba is to compile for
    128: {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""},
    256: {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx2,+fma"},
}
SIZES = [("forward", 16, 1), ("forward", 64, 1), ("forward", 256, 1), ("forward", 256, 32), ("bptt", 256, 32)]


def cases():
    for operation, H, B in SIZES:
        yield Case("lstm", operation, H, H, 50, B, "float32", 1)
    yield Case("gru", "forward", 256, 256, 50, 32, "float32", 1)
    yield Case("lstm", "forward", 256, 256, 50, 32, "float64", 1)
    yield Case("lstm", "forward", 256, 256, 50, 32, "int8", 1)


def measure(case, workers, rounds, reference):
    """Return the seconds a call in every round, by width."""
    calls, taken = {}, {bits: [] for bits in workers}
    for bits, worker in workers.items():
        reply = worker.ask("build", case=asdict(case), seed=0, reference=str(reference))
        if reply["status"] != "ok":
            raise RuntimeError(f"{case.id} in {bits} bits: {reply['status']}: {reply['message']}")
        calls[bits] = worker.ask("calibrate", round_s=0.02)["calls"]
        worker.rest()
    for n in range(rounds):
        for bits in turn(list(workers), n):
            taken[bits].append(workers[bits].ask("round", calls=calls[bits])["seconds"])
            workers[bits].rest()
    for bits, worker in workers.items():
        if message := worker.ask("check").get("message"):
            raise RuntimeError(f"{case.id} in {bits} bits, when it had been timed: {message}")
        worker.rest()
    return taken


def main(rounds: Annotated[int, typer.Option(min=5, help="Rounds of each case.")] = 30):
    """Time the kernels in vectors of all widths that the host has, side by side."""
    narrower = [bits for bits in NARROW if bits < BITS and X86]
    with the_machine(), ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
        workers = {}
        for bits, variables in [*((bits, NARROW[bits]) for bits in narrower), (BITS, {})]:
            with patch.dict(os.environ, variables):
                workers[bits] = stack.enter_context(closing(Worker(MODULE, 1)))
            workers[bits].ask("start")
        for case in cases():
            taken = measure(case, workers, rounds, Path(folder, f"{case.id}.npz"))
            told = [f"{BITS} bits {seconds(median(taken[BITS]))}"]
            for bits in narrower:
                ratio = paired_ratio(taken[bits], taken[BITS])
                told.append(f"{bits} bits {times(ratio.median)} as long ({ends(ratio)})")
            print(f"{case.id}: {', '.join(told)}", flush=True)


if __name__ == "__main__":
    typer.run(main)
