"""One-hot input by index: x (T, B) of integers, where the one is, in place of (T, B, I) of zeros and ones."""

import numpy as np
import pytest

from tests.kernels.cells import SMALL, by_cell, by_variant, label
from tests.kernels.compare import Size, assert_same, calls, check_bptt, check_forward, draw
from tests.kernels.test_arguments import refused

SIZES = [Size(1, 1, 1, 1), SMALL, Size(65, 40, 4, 33), Size(100, 65, 9, 1), Size(257, 50, 8, 1), Size(17, 100, 6, 33)]

by_size = pytest.mark.parametrize("size", SIZES, ids=label)
# Each pair is compiled for.
by_types = pytest.mark.parametrize(
    ("dtype", "index"), [(np.float32, np.int64), pytest.param(np.float64, np.int32, marks=pytest.mark.slow)]
)
by_index = pytest.mark.parametrize("index", [np.int32, np.int64])


@by_variant
@by_types
@by_size
def test_against_the_reference(size, dtype, index, cell, options):
    check_forward(cell.kernels, cell.reference, size, dtype, *options, one_hot=index)
    for truncate in (None, 2):
        check_bptt(cell.kernels, cell.reference, size, dtype, truncate, *options, one_hot=index)


@by_cell
@by_types
@by_size
def test_as_if_written_out(size, dtype, index, cell):
    inputs = draw(cell.kernels, size, dtype, one_hot=index)
    before = inputs.x.copy()
    written_out = calls(cell.kernels, inputs._replace(x=np.eye(size.I, dtype=dtype)[before]))
    for call, function in calls(cell.kernels, inputs).items():
        if call.endswith("int8"):  # which rounds the scale of what is written out: `test_low.py` has its indices
            continue
        comp, ref = function(), written_out[call]()
        assert_same(comp, ref._replace(x=None) if hasattr(ref, "x") else ref, size, call)
        if call.startswith("bptt"):
            assert comp.x is None
        np.testing.assert_array_equal(inputs.x, before, err_msg=call)


def given(cell, function, x):
    """Return arguments for a function with this x, whatever it calls it, and the name."""
    params, _, state, grad_hs, grad_state = draw(cell.kernels, SMALL, np.float32)
    if function == "forward_step":
        return {"params": params, "x_t": x[0], "state": state}, "x_t"
    if function == "bptt":
        trace = cell.reference.forward(params, np.zeros((SMALL.T, SMALL.B), np.int64), state)._replace(x=x)
        return {"params": params, "trace": trace, "grad_hs": grad_hs, "grad_state": grad_state}, "trace.x"
    return {"params": params, "x": x, "state": state}, "x"


@by_cell
@by_index
@pytest.mark.parametrize("bad", [-1, SMALL.I, 2**31 - 1, -(2**31), 2**62])
@pytest.mark.parametrize("function", ["forward_step", "infer", "forward", "bptt"])
def test_an_index_that_is_none_is_refused(function, bad, index, cell):
    """Behind the door it would be read from memory that is not there."""
    for place in ((0, 0), (0, -1), *([] if function == "forward_step" else [(-1, 0), (-1, -1)])):
        x = np.zeros((SMALL.T, SMALL.B), index)
        x[place] = np.array(bad).astype(index) or -1
        arguments, name = given(cell, function, x)
        with refused(ValueError, name):
            getattr(cell.kernels, function)(**arguments)


@by_cell
@pytest.mark.parametrize("function", ["forward_step", "infer", "forward", "bptt"])
@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.uint64, np.bool_, ">i4", np.float32, object])
def test_indices_of_another_type_are_refused(dtype, function, cell):
    arguments, name = given(cell, function, np.zeros((SMALL.T, SMALL.B), dtype))
    error = ValueError if dtype is np.float32 else TypeError  # floats of the wrong rank
    with refused(error, name):
        getattr(cell.kernels, function)(**arguments)


@by_cell
@pytest.mark.parametrize("function", ["forward_step", "infer", "forward", "bptt"])
def test_indices_must_lie_as_they_are_read(function, cell):
    x = np.zeros((SMALL.T, SMALL.B), np.int64)
    for bad in (np.repeat(x, 2, axis=1)[:, ::2], np.asfortranarray(x), x[:, :, None], x[:0], x[:, :0]):
        if function == "forward_step" and (bad.flags.f_contiguous or not len(bad)):
            continue
        arguments, name = given(cell, function, bad)
        with refused(ValueError, name):
            getattr(cell.kernels, function)(**arguments)
