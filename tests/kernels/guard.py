"""`python -m tests.kernels.guard CELL DTYPE some|many|all`: a cell's kernels and their networks on guarded memory.

Each array, given or made, starts right behind a page that faults on touch, or ends right before one. Inputs
lie in memory that cannot be written to. Threads share whatever can be shared, however small. A fault ends the
process, after a traceback that names the call.
"""

import ctypes
import faulthandler
import itertools
import mmap
import sys
from unittest.mock import patch

import numpy as np

from kernels.core.doors import streams
from tests import networks
from tests.kernels.cells import find
from tests.kernels.compare import Size, calls, draw, rebuild, results
from tests.kernels.sharing import share_everything
from tests.kernels.test_stack import CELL, every_call

PAGE = mmap.PAGESIZE
NO_ACCESS, READ = 0, mmap.PROT_READ
_mprotect = ctypes.CDLL(None, use_errno=True).mprotect


def _protect(address, length, protection):
    if _mprotect(ctypes.c_void_p(address), ctypes.c_size_t(length), protection):
        raise OSError(ctypes.get_errno(), "mprotect failed")


def guarded(shape, dtype, at_end, content=None):
    """Return an array between two pages without access: NaN to be written to, or a copy of `content` to be read."""
    dtype = np.dtype(dtype)
    count = int(np.prod(shape))
    length = max(-(-count * dtype.itemsize // PAGE), 1) * PAGE
    memory = mmap.mmap(-1, length + 2 * PAGE)
    # All of it is NaN, so that what is read around the array within its pages shows in the result.
    np.frombuffer(memory, np.uint8).fill(0xFF)
    offset = PAGE + (length - count * dtype.itemsize if at_end else 0)
    a = np.frombuffer(memory, dtype, count, offset).reshape(shape)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    if content is not None:
        a[...] = content
        _protect(start + PAGE, length, READ)
    _protect(start, PAGE, NO_ACCESS)
    _protect(start + PAGE + length, PAGE, NO_ACCESS)
    return a


def given(at_end):
    return lambda a: guarded(a.shape, a.dtype, at_end, a)


def check(cell, size, dtype, one_hot, options, at_end):
    inputs = draw(cell, size, dtype, one_hot=one_hot)
    guards = calls(cell, rebuild(inputs, cell, given(at_end)), *options, array=given(at_end))
    compare(calls(cell, inputs, *options), guards, results, at_end, f"{size}, {options}")


def check_stream(cell, size, dtype, one_hot, options, at_end):
    """Compare a stream's steps on guarded memory, its own and the weights' included, with those of `forward_step`."""

    def lay_out(*parts):
        found = []
        for kind, count in parts:
            found.append(guarded(count, kind, at_end))
            found[-1].fill(0)
        return found

    params, x, state, *_ = draw(cell, size, dtype, one_hot=one_hot)
    for low in (None, "int8", "bfloat16") if dtype == np.float32 else (None,):
        if low == "int8" and "relu" in options:
            continue
        weights = cell.prepare(params, low)
        with patch.object(streams, "_lay_out", lay_out):
            stream = cell.stream(weights._replace(weights=given(at_end=False)(weights.weights)), size.B, *options)
        stream.state = last = state
        for x_t in x:
            last = cell.forward_step(weights, x_t, last, *options)
            np.testing.assert_array_equal(stream.step(given(at_end)(x_t)), last.h, err_msg=f"stream, {size}, {low}")


def check_network(cell, shape, dtype, one_hot, at_end):
    inputs = networks.draw(cell, shape, dtype, one_hot=one_hot)
    guards = every_call(cell, networks.Inputs(*rebuild(tuple(inputs), cell, given(at_end))), array=given(at_end))
    compare(every_call(cell, inputs), guards, networks.arrays, at_end, str(shape))


def compare(plain, on_guarded, results, at_end, what):
    """Call each function on plain memory and then on guarded memory, and compare their `results`."""

    def made(shape, dtype=float, *_, **__):
        return guarded(shape, dtype, at_end)

    def zeros(shape, dtype=float, *_, **__):
        a = made(shape, dtype)
        a.fill(0)
        return a

    def made_like(a, *_, **__):
        return made(a.shape, a.dtype)

    for name, call in plain.items():
        ref = results(call())
        with patch.multiple(np, empty=made, empty_like=made_like, zeros=zeros):
            comp = results(on_guarded[name]())
        for key, a in comp.items():
            np.testing.assert_array_equal(a, ref[key], err_msg=f"{name}: {key} ({what}, {at_end=})")


def sizes(amount):
    H, I, T, B = (1, 3, 7, 8, 15, 16, 17, 31, 33, 63, 65, 100), (1, 3, 17), (1, 2, 5), (1, 2, 3, 5, 9, 33)
    every = [Size(*size) for size in itertools.product(H, I, T, B)]
    wide = [Size(193, 3, 12, 1), Size(257, 5, 4, 3), Size(200, 201, 5, 1)]  # enough for threads to share the units
    # 11 and 29 divide no axis: each size of each has its turn.
    return wide + every[:: {"some": 29, "many": 11, "all": 1}[amount]]


def shapes(amount):
    """Return networks whose sequences end at different steps, and ones whose layers follow each other."""
    lengths, H, T, B = ("full", "ragged"), (1, 7, 17, 33, 65), (1, 5, 13), (1, 2, 3, 9, 33)
    every = [networks.Shape(*size) for size in itertools.product((1, 2, 3), (1, 2), H, (1, 5), T, B, lengths)]
    return every[:: {"some": 97, "many": 37, "all": 1}[amount]]  # which divide no axis, either


def main(cell, dtype, amount):
    faulthandler.enable()
    share_everything()
    cell = find(cell)
    cases = list(itertools.product(sizes(amount), (False, True)))
    for n, (size, at_end) in enumerate(cases):
        options = cell.options[n % len(cell.options)]
        # As `test_one_hot` has it compiled.
        index = {"float32": np.int64, "float64": None if amount == "some" else np.int32}[dtype]
        one_hot = index if n // 2 % 3 == 2 else None
        print(size, *options, "at the end" if at_end else "at the start", "one-hot" if one_hot else "", flush=True)
        check(cell.kernels, size, np.dtype(dtype), one_hot, options, at_end)
        if n % (7 if amount == "some" else 3) == 0 or amount == "all":
            check_stream(cell.kernels, size, np.dtype(dtype), one_hot, options, at_end)
    if amount == "some" and dtype == "float64" and cell.name != CELL:
        return
    for n, (shape, at_end) in enumerate(itertools.product(shapes(amount), (False, True))):
        one_hot = np.int64 if dtype == "float32" and cell.name == CELL and n // 2 % 3 == 2 else None
        print(shape, "at the end" if at_end else "at the start", "one-hot" if one_hot else "", flush=True)
        check_network(cell.kernels, shape, np.dtype(dtype), one_hot, at_end)


if __name__ == "__main__":
    main(*sys.argv[1:])
