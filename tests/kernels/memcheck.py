"""`python -m tests.kernels.memcheck CELL [plant]`: small calls of every kind, for valgrind to look at.

Every array is a block of its own of the C library's, as large as its numbers and no larger. All results are read, as a
user would. Two mistakes may come last, which valgrind must find, and nothing else survives.
"""

import ctypes
import gc
import sys
from functools import partial
from unittest.mock import patch

import numpy as np

from tests import networks
from tests.kernels.cells import find
from tests.kernels.compare import Size, calls, draw, rebuild, results
from tests.kernels.test_stack import CELL, every_call

SIZES = (Size(1, 1, 1, 1), Size(7, 3, 2, 2), Size(33, 9, 2, 9))
SHAPES = (networks.Shape(2, 2, 7, 3, 3, 2, "ragged"), networks.Shape(2, 1, 17, 5, 4, 3, "ragged"))
_libc = ctypes.CDLL(None)
_libc.malloc.restype, _libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]


def block(shape, dtype=float, *_, missing=0, **__):
    """Return an array in a block of its own, without content, which may miss some bytes at its end."""
    dtype = np.dtype(dtype)
    count = int(np.prod(shape))
    length = max(1, count * dtype.itemsize)
    memory = (ctypes.c_char * length).from_address(_libc.malloc(length - missing))
    return np.frombuffer(memory, dtype, count).reshape(shape)


def given(a):
    copy = block(a.shape, a.dtype)
    copy[...] = a
    return copy


def blocks(a, *_, **__):
    return block(a.shape, a.dtype)


def look(what, call, results):
    """Call once to have it compiled, and once on blocks, and read every number of what that gives.

    Valgrind tells of one that was never written when something depends on it.
    """
    print(*what, flush=True)
    call()
    with patch.multiple(np, empty=block, empty_like=blocks):
        found = results(call())
    for name, a in found.items():
        if not np.isfinite(a).all():
            print(f"{name} is not finite")


def main(cell, planted=""):
    gc.disable()  # whose looking around in Python's own memory valgrind tells of
    cell = find(cell)
    for n, size in enumerate(SIZES):
        options = cell.options[n % len(cell.options)]
        inputs = rebuild(draw(cell.kernels, size, np.float32), cell.kernels, given)
        for name, call in calls(cell.kernels, inputs, *options, array=given).items():
            look((cell, size, name), call, results)
        stream = cell.kernels.stream(inputs.params, size.B, *options)
        for x_t in map(given, inputs.x):
            look((cell, size, "stream"), lambda: {"h": stream.step(x_t)}, dict)  # noqa: B023
    if cell.name == CELL:
        for shape in SHAPES:
            drawn = networks.draw(cell.kernels, shape, np.float32)
            inputs = networks.Inputs(*rebuild(tuple(drawn), cell.kernels, given))
            for name, call in every_call(cell.kernels, inputs, array=given).items():
                look((cell, shape, name), call, networks.arrays)
    if planted:
        plant(cell)


def plant(cell):
    """An input that was never written, and results that are a number larger than their memory."""
    params, x, *_ = draw(cell.kernels, SIZES[-1], np.float32)
    infer = cell.kernels.infer
    look(("never written",), lambda: infer(params, block(x.shape, x.dtype)), results)
    infer(params, x)
    print("too short", flush=True)
    with patch.object(np, "empty", partial(block, missing=4)):
        infer(params, x)


if __name__ == "__main__":
    main(*sys.argv[1:])
