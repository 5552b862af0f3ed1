"""`kernels/`: this project's SIMD kernels, compiled by Numba.

forward_step and forward run from weights laid out beforehand by `prepare`; forward includes the input projection.
bptt starts from a trace and returns the gradients of the weights, the biases, x and the initial state. train is forward
with its trace and bptt, from plain arrays that change with every call, so that laying out the weights is inside.
Argument checks and the allocation of the results are inside every timing. Compiled code is kept on disk, so
compile times shrink from a second run on. Below float32 `prepare` rounds the weights; what is multiplied with them is
rounded as it comes, inside every timing, and everything else is float32. A network is one call of compiled code, and
placing the sequences by their lengths is inside it.
"""

from importlib import import_module
from importlib.metadata import version as package_version

from bench.grid.cases import GATES
from bench.implementations import UnsupportedError, prepare_cell


def version():
    return package_version("numba")


def start(threads):
    import numba

    for cell in GATES:
        import_module(f"kernels.{cell}")
    numba.set_num_threads(threads)


def prepare(case, inputs):
    import numba

    if numba.config.DISABLE_JIT:
        raise UnsupportedError("NUMBA_DISABLE_JIT is set: nothing is compiled")
    from kernels import stack

    return prepare_cell(import_module(f"kernels.{case.cell}"), stack, case, inputs, case.low)
