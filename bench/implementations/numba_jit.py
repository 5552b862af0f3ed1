"""`reference/` compiled by Numba as it stands: what a person gets from `@njit` above NumPy code.

The same work as numpy's timings. Products go to SciPy's BLAS, with the threads of the case; elementwise loops
are compiled for this CPU. Compiled code is kept on disk, so compile times shrink from a second run on. Full
precision alone. Of a network the cells are compiled; what puts them together stays Python, as in numpy's.
"""

from importlib.metadata import version as package_version

from bench.implementations import UnsupportedError, prepare_cell


def version():
    return package_version("numba")


def start(threads):
    import numba

    import kernels.jit  # noqa: F401

    numba.set_num_threads(threads)


def prepare(case, inputs):
    import numba

    from kernels import jit
    from reference import stack

    if numba.config.DISABLE_JIT:
        raise UnsupportedError("NUMBA_DISABLE_JIT is set: nothing is compiled")
    if case.low:
        raise UnsupportedError("the reference has no compiled form below float32")

    return prepare_cell(getattr(jit, case.cell), stack, case, inputs)
