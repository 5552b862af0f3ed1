"""Kernels below float32 beside `reference.quantized`, which they follow to the bit wherever something is rounded.

A state near the middle of two steps may be rounded either way by two right computations, and what follows differs by a
whole step. So each step of the twin starts from the kernel's own states: nothing but float32's rounding differs then.
"""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kernels.lstm
import kernels.rnn
from tests.kernels.cells import CELLS, SIZES, by_cell
from tests.kernels.compare import Size, assert_equal, draw, named

LOW = ("bfloat16", "int8")
U = np.finfo(np.float32).eps / 2
by_low = pytest.mark.parametrize("low", LOW)


def cases():
    """Every cell below float32 with every size, its options taking turns; relu's states are beyond int8."""
    for cell, (n, size), low in itertools.product(CELLS, enumerate(SIZES), LOW):
        options = [options for options in cell.options if low != "int8" or options != ("relu",)]
        chosen = options[n % len(options)]
        yield pytest.param(cell, size, low, chosen, id=f"{cell}-{size}-{low}-{'-'.join(chosen)}")


def wide(value):
    """Return a nested NamedTuple with its floating-point arrays in float64."""
    if isinstance(value, np.ndarray):
        return value if value.dtype.kind == "i" else value.astype(np.float64)
    return type(value)(*(wide(part) for part in value))


def largest_sum(params, x_t, h):
    """Return the largest sum of magnitudes behind an element of U x_t + W h."""
    U, W = np.abs(params.U), np.abs(params.W)
    inputs = U.T[x_t] if x_t.dtype.kind == "i" else np.abs(x_t) @ U.T
    return (inputs + np.abs(h) @ W.T).max() + max(np.abs(bias).max() for bias in params[2:])


def check_steps(cell, inputs, low, *options):
    """Check `infer` and `forward_step` against the twin, step by step from the kernel's own states."""
    params, x, state = inputs[:3]
    weights = cell.kernels.prepare(params, low)
    comp = cell.kernels.infer(weights, x, state, *options)
    twin = cell.reference.prepare(wide(cell.reference.Params(*params)), low)
    ref = cell.reference.State(*wide(state))
    n = params.U.shape[1] + params.W.shape[1] + 1
    for t in range(len(x)):
        bound = 6 * np.sqrt(n) * U * largest_sum(params, x[t], ref.h) + 8 * U
        ref = cell.reference.forward_step(twin, wide(x[t]), ref, *options)
        error = np.abs(comp.hs[t] - ref.h).max()
        assert error <= bound, f"step {t}: error {error:.2e}, allowed {bound:.2e}"
        ref = ref._replace(h=wide(comp.hs[t]))
        state = cell.kernels.forward_step(weights, x[t], state, *options)
        if low == "int8":  # the sums of bfloat16 are taken in another order for one step than for many
            np.testing.assert_array_equal(state.h, comp.hs[t])
        state = state._replace(h=comp.hs[t].copy())
    assert_equal(comp.state.h, comp.hs[-1])


@pytest.mark.parametrize(("cell", "size", "low", "options"), list(cases()))
def test_steps(cell, size, low, options):
    check_steps(cell, draw(cell.kernels, size, np.float32), low, *options)


sizes = st.builds(Size, st.integers(1, 70), st.integers(1, 70), st.integers(1, 4), st.integers(1, 35))


@by_cell
@by_low
@settings(max_examples=40, deadline=None)
@given(size=sizes, one_hot=st.booleans(), seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([1e-20, 1, 30]))
def test_any_size(cell, low, size, one_hot, seed, scale):
    inputs = draw(cell.kernels, size, np.float32, seed, one_hot=np.int64 if one_hot else None)
    x = inputs.x if one_hot else inputs.x * np.float32(scale)
    check_steps(cell, inputs._replace(x=x), low)


@by_cell
@by_low
def test_one_hot(cell, low):
    check_steps(cell, draw(cell.kernels, Size(33, 7, 5, 3), np.float32, one_hot=np.int64), low)


@by_cell
@by_low
@pytest.mark.parametrize("hidden", [1, 16, 128, 1024])
def test_the_loss_of_accuracy_is_bounded(cell, low, hidden):
    """Weights within ±1/sqrt(H) hand on less than they get, so what is lost in a step does not pile up."""
    params, x, state, *_ = draw(cell.kernels, Size(hidden, 16, 1000 if hidden < 1024 else 50, 1), np.float32)
    exact = cell.kernels.infer(params, x, state).hs
    loss = np.abs(cell.kernels.infer(cell.kernels.prepare(params, low), x, state).hs - exact).max()
    assert loss <= {"bfloat16": 2**-5, "int8": 0.1}[low]


@by_cell
def test_weights_and_states_at_their_ends(cell):
    """All at once: where sums of 16 bits would overflow, and 32 bits must not."""
    params, x, state, *_ = draw(cell.kernels, Size(300, 300, 3, 9), np.float32)
    signs = [np.where(a < 0, np.float32(-1), np.float32(1)) for a in (*params[:2], x, *state)]
    for U, W, x, h in signs[:4], [np.abs(a) for a in signs[:4]], [-np.abs(a) for a in signs[:4]]:
        check_steps(cell, (params._replace(U=U, W=W), x, state._replace(h=h)), "int8")


@by_cell
@by_low
def test_rows_of_all_kinds(cell, low):
    """Zeros, a constant, one huge weight among small ones, and magnitudes whose scale is small or none."""
    params, x, state, *_ = draw(cell.kernels, Size(20, 9, 4, 3), np.float32)
    U, W = params.U.copy(), params.W.copy()
    for a in (U, W):
        a[0], a[1], a[2, 1:] = 0, 0.25, a[2, 1:] * np.float32(1e-6)
        a[3] *= np.float32(1e-25)
        a[4] *= np.float32(2.0**-99)
        a[5] *= np.float32(1e-38)
    x[0, 0], x[1, 1] = 0, x[1, 1] * np.float32(1e-35)
    check_steps(cell, (params._replace(U=U, W=W), x, state), low)


@by_cell
def test_bfloat16_hands_on_what_is_not_a_number(cell):
    params, x, state, *_ = draw(cell.kernels, Size(17, 5, 6, 3), np.float32)
    x[2, 1, 3], x[3, 0, 0] = np.nan, np.inf
    comp = cell.kernels.infer(cell.kernels.prepare(params, "bfloat16"), x, state).hs
    assert np.isnan(comp[2:, 1]).all()
    assert np.isfinite(comp[:, 2]).all()
    assert np.isfinite(comp[:3, 0]).all()
    full = cell.kernels.infer(params, x, state).hs
    np.testing.assert_array_equal(np.isnan(comp[3]), np.isnan(full[3]))


REFUSED = "expected finite numbers for weights of int8"


@by_cell
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_int8_refuses_inputs_that_are_not_finite(cell, bad):
    params, x, state, *_ = draw(cell.kernels, Size(17, 5, 6, 3), np.float32)
    weights = cell.kernels.prepare(params, "int8")
    for t, b, i in ((0, 0, 0), (5, 2, 4)):
        wrong = x.copy()
        wrong[t, b, i] = bad
        with pytest.raises(ValueError, match=f"x: {REFUSED}"):
            cell.kernels.infer(weights, wrong, state)
    assert np.isfinite(cell.kernels.infer(weights, x, state).hs).all()  # nothing is left of it


@by_cell
@pytest.mark.parametrize("bad", [np.nan, 1.0000001, -2])
def test_int8_refuses_states_beyond_one(cell, bad):
    params, x, state, *_ = draw(cell.kernels, Size(17, 5, 6, 3), np.float32)
    state.h[2, 16] = bad
    weights = cell.kernels.prepare(params, "int8")
    with pytest.raises(ValueError, match="state: expected values from -1 to 1 for weights of int8"):
        cell.kernels.infer(weights, x, state)
    with pytest.raises(ValueError, match="state: expected values from -1 to 1 for weights of int8"):
        cell.kernels.forward_step(weights, x[0], state)
    state.h[2, 16] = 1
    cell.kernels.infer(weights, x, state)


def test_int8_refuses_a_relu_that_goes_beyond_one():
    params, x, state, *_ = draw(kernels.rnn, Size(17, 5, 6, 3), np.float32)
    weights = kernels.rnn.prepare(params, "int8")
    with pytest.raises(ValueError, match="state: expected values from -1 to 1"):
        kernels.rnn.infer(weights, 100 * x, state, "relu")
    kernels.rnn.infer(weights, x / 1000, kernels.rnn.State(state.h / 1000), "relu")


@by_cell
def test_what_is_refused_at_the_door(cell):
    params, x, state, *_ = draw(cell.kernels, Size(17, 5, 6, 3), np.float32)
    for dtype in ("int4", "float32", np.int8, 8):
        with pytest.raises(ValueError, match="dtype: expected None, 'int8' or 'bfloat16', got"):
            cell.kernels.prepare(params, dtype)
    with pytest.raises(TypeError, match=r"params\.U: expected dtype float32 to be prepared as int8, got float64"):
        cell.kernels.prepare(type(params)(*(a.astype(np.float64) for a in params)), "int8")
    for bad in (np.nan, np.inf):
        broken = params._replace(W=np.where(params.W[3, 4] == params.W, np.float32(bad), params.W))
        with pytest.raises(ValueError, match=r"params\.W: expected finite numbers to be prepared as int8"):
            cell.kernels.prepare(broken, "int8")
    for low in LOW:
        weights = cell.kernels.prepare(params, low)
        with pytest.raises(ValueError, match="params: expected weights of float32 for forward, got"):
            cell.kernels.forward(weights, x, state)
        with pytest.raises(TypeError, match="params: expected Params, got Prepared"):
            cell.kernels.bptt(weights, cell.kernels.forward(params, x, state), np.ones_like(x[..., :1]))
        with pytest.raises(TypeError, match="x: expected dtype float32, got float64"):
            cell.kernels.infer(weights, x.astype(np.float64), None)
        for name, a in named(cell.kernels.init_state(weights, 3)).items():
            assert (a.shape, a.dtype) == ((3, 17), np.float32), name


def test_another_cells_weights_are_refused_below_float32_too():
    params, x, *_ = draw(kernels.lstm, Size(17, 5, 6, 3), np.float32)
    with pytest.raises(ValueError, match="params: expected weights of 1 gates, got weights prepared for 4"):
        kernels.rnn.infer(kernels.lstm.prepare(params, "int8"), x)


@by_cell
@by_low
def test_prepared_weights_are_smaller(cell, low):
    params = cell.kernels.init_params(512, 512, np.random.default_rng(0))
    size = {dtype: cell.kernels.prepare(params, dtype).weights.nbytes for dtype in (None, low)}
    assert size[None] / size[low] > {"bfloat16": 1.95, "int8": 3.8}[low]
