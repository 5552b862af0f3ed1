"""The kernels of every cell on NaN, infinity and large numbers: what NumPy makes of them."""

import numpy as np
import pytest

from tests.kernels.cells import SMALL, by_dtype, by_variant, label
from tests.kernels.compare import Backward, Size, draw, named, rebuild

by_value = pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])


def assert_as_numpy_has_them(comp, ref, what):
    """Assert that NaN and the infinities lie in the same places, and that the rest is close."""
    for name, a in named(ref).items():
        # Reported apart from the values, so that a place tells more than a number.
        np.testing.assert_array_equal(np.isnan(named(comp)[name]), np.isnan(a), err_msg=f"NaN in {name} {what}")
        np.testing.assert_allclose(named(comp)[name], a, rtol=1e-3, atol=1e-4, err_msg=f"{name} {what}")


def put_in_the_middle(a, value):
    a[tuple(n // 2 for n in a.shape)] = value


@by_variant
@by_dtype
@by_value
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_nan_and_infinity_in_forward(value, dtype, cell, options):
    def drawn():
        params, x, state, *_ = draw(cell.kernels, SMALL, dtype)
        return {"params": params, "x": x, "state": state}

    for where in (name for argument, part in drawn().items() for name in named(part, argument)):
        inputs = drawn()
        arrays = {name: a for argument, part in inputs.items() for name, a in named(part, argument).items()}
        put_in_the_middle(arrays[where], value)
        what = f"from {value} in {where}"
        params, x, state = inputs.values()
        given = rebuild(params, cell.reference), x, rebuild(state, cell.reference)
        assert_as_numpy_has_them(
            cell.kernels.forward(params, x, state, *options), cell.reference.forward(*given, *options), what
        )
        ref = cell.reference.forward_step(given[0], x[-1], given[2], *options)
        assert_as_numpy_has_them(cell.kernels.forward_step(params, x[-1], state, *options), ref, what)


@by_variant
@by_dtype
@by_value
@pytest.mark.parametrize("truncate", [None, 2])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_nan_and_infinity_in_bptt(truncate, value, dtype, cell, options):
    def drawn():
        params, x, state, grad_hs, grad_state = draw(cell.kernels, SMALL, dtype)
        trace = cell.kernels.forward(params, x, state, *options)._replace(state=None)  # which BPTT does not read
        return Backward(params, trace, grad_hs, grad_state)

    bounded = {"trace.gates"} if options == ("relu",) else {"trace.gates", "trace.hs"}
    for where in named(drawn()):
        if where in bounded and np.isinf(value):
            continue
        inputs = drawn()
        put_in_the_middle(named(inputs)[where], value)
        comp = cell.kernels.bptt(*inputs, truncate, *options)
        ref = cell.reference.bptt(*rebuild(inputs, cell.reference), truncate, *options)
        assert_as_numpy_has_them(comp, ref, f"from {value} in {where}")


@by_variant
@by_dtype
@pytest.mark.parametrize("scale", [1e3, 1e30])
def test_saturation(scale, dtype, cell, options):
    """Large numbers: tanh and sigmoid reach their ends exactly, relu stays right."""
    inputs = draw(cell.kernels, SMALL, dtype)
    inputs.x[...] *= dtype(scale)
    comp = cell.kernels.infer(inputs.params, inputs.x, inputs.state, *options)
    ref = cell.reference.infer(*rebuild(inputs, cell.reference)[:3], *options)
    np.testing.assert_allclose(comp.hs, ref.hs, rtol=1e-4, atol=4 * np.finfo(dtype).eps)


@by_variant
@by_dtype
@pytest.mark.parametrize("size", [SMALL, Size(65, 40, 4, 33), Size(7, 1, 3, 2)], ids=label)
def test_one_bad_sequence_leaves_the_others_alone(size, dtype, cell, options):
    kernels = cell.kernels
    inputs = draw(kernels, size, dtype)
    good = kernels.forward(inputs.params, inputs.x, inputs.state, *options)
    bad_row = size.B // 2
    others = np.arange(size.B) != bad_row
    spoilt = inputs.x.copy()
    spoilt[:, bad_row] = np.nan
    bad = kernels.forward(inputs.params, spoilt, inputs.state, *options)
    np.testing.assert_array_equal(bad.hs[:, others], good.hs[:, others])
    assert np.isnan(bad.hs[:, bad_row]).all()

    grad_hs = inputs.grad_hs.copy()
    grad_hs[:, bad_row] = np.nan
    ref = kernels.bptt(inputs.params, good, inputs.grad_hs, inputs.grad_state, None, *options)
    comp = kernels.bptt(inputs.params, good, grad_hs, inputs.grad_state, None, *options)
    np.testing.assert_array_equal(comp.x[:, others], ref.x[:, others])
    for name, a in named(ref.state, "state").items():
        np.testing.assert_array_equal(named(comp.state, "state")[name][others], a[others], err_msg=name)
    assert np.isnan(comp.x[:, bad_row]).all()
