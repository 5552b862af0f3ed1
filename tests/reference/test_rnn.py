"""The reference against definitions that share nothing with it: plain loops, and differences of the loss."""

import math

import numpy as np
import pytest

from reference import rnn
from reference.rnn import Params, State, Trace

ACTIVATIONS = ("tanh", "relu", "sigmoid")
T, B, I, H = 7, 2, 3, 5
NAMES = ("params.U", "params.W", "params.b", "x", "state.h")


@pytest.fixture
def arrays():
    """Params, x, the state and the gradients of the loss by hs and by the last state."""
    rng = np.random.default_rng(0)
    params = rnn.init_params(I, H, rng, np.float64)
    x, grad_hs = rng.standard_normal((T, B, I)), rng.standard_normal((T, B, H))
    return params, x, State(rng.uniform(-1, 1, (B, H))), grad_hs, State(rng.standard_normal((B, H)))


def flat(gradients):
    return dict(zip(NAMES, (*gradients.params, gradients.x, gradients.state.h), strict=True))


def assert_same(comp, ref, tolerance):
    for name in NAMES:
        error = np.abs(comp[name] - ref[name]).max() / np.abs(ref[name]).max()
        assert error <= tolerance, f"{name}: relative error {error:.1e}"


# --- forward -----------------------------------------------------------------------------------------------------


def scalar_step(params, x_t, h, activation):
    """Return the next state of one sequence, a number at a time, from the article's own formulas."""
    act = {"tanh": math.tanh, "relu": lambda a: max(a, 0.0), "sigmoid": lambda a: 1 / (1 + math.exp(-a))}[activation]
    a = [
        sum(u * x for u, x in zip(params.U[i], x_t, strict=True))
        + sum(w * h_j for w, h_j in zip(params.W[i], h, strict=True))
        + params.b[i]
        for i in range(len(params.b))
    ]
    return [act(a_i) for a_i in a]


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_forward_is_the_equation(arrays, activation):
    params, x, state, *_ = arrays
    ref = np.empty((T, B, H))
    for n in range(B):
        h = list(state.h[n])
        for t in range(T):
            h = scalar_step(params, x[t, n], h, activation)
            ref[t, n] = h

    trace = rnn.forward(params, x, state, activation)
    np.testing.assert_allclose(trace.hs, ref, rtol=1e-14, atol=1e-14)
    np.testing.assert_array_equal(trace.state.h, trace.hs[-1])
    np.testing.assert_array_equal(trace.x, x)
    np.testing.assert_array_equal(trace.initial.h, state.h)

    output = rnn.infer(params, x, state, activation)
    np.testing.assert_array_equal(output.hs, trace.hs)
    np.testing.assert_array_equal(output.state.h, trace.state.h)

    for t in range(T):
        state = rnn.forward_step(params, x[t], state, activation)
        np.testing.assert_allclose(state.h, ref[t], rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("function", [rnn.forward, rnn.infer])
def test_no_state_is_the_zero_state(arrays, function):
    params, x, *_ = arrays
    comp, ref = function(params, x), function(params, x, State(np.zeros((B, H))))
    np.testing.assert_array_equal(comp.hs, ref.hs)


@pytest.mark.parametrize("activation", ["tanh", "sigmoid"])
def test_saturation_is_silent(activation):
    params = Params(np.full((1, 1), 1e3), np.zeros((1, 1)), np.zeros(1))
    with np.errstate(all="raise"):
        hs = rnn.infer(params, np.array([-1.0, 1.0]).reshape(2, 1, 1), None, activation).hs
    assert hs.ravel().tolist() == [{"tanh": -1, "sigmoid": 0}[activation], 1]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_result_keeps_the_dtype(arrays, dtype):
    params, x, state, grad_hs, grad_state = arrays
    params, x, grad_hs = Params(*(p.astype(dtype) for p in params)), x.astype(dtype), grad_hs.astype(dtype)
    state, grad_state = State(state.h.astype(dtype)), State(grad_state.h.astype(dtype))
    for activation in ACTIVATIONS:
        trace = rnn.forward(params, x, state, activation)
        assert trace.hs.dtype == trace.state.h.dtype == dtype
        assert rnn.forward_step(params, x[0], state, activation).h.dtype == dtype
        for truncate in (None, 2):
            gradients = rnn.bptt(params, trace, grad_hs, grad_state, truncate, activation)
            assert {a.dtype for a in flat(gradients).values()} == {np.dtype(dtype)}


def test_init_params_draws_within_one_over_root_h():
    params = rnn.init_params(300, 100, np.random.default_rng(0))
    assert [p.shape for p in params] == [(100, 300), (100, 100), (100,)]
    for p in params:
        assert p.dtype == np.float32
        assert 0.09 < np.abs(p).max() <= 0.1
        assert abs(p.mean()) < 0.02


# --- bptt --------------------------------------------------------------------------------------------------------


def differences(loss, params, x, state, step=1e-5):
    """Return the gradients of loss(params, x, state) by name, from central differences."""
    arrays = [a.copy() for a in (*params, x, state.h)]
    gradients = {}
    for name, a in zip(NAMES, arrays, strict=True):
        gradients[name] = np.empty_like(a)
        for at in np.ndindex(a.shape):
            value, sides = a[at], []
            for sign in (1, -1):
                a[at] = value + sign * step
                sides.append(loss(Params(*arrays[:3]), arrays[3], State(arrays[4])))
            a[at] = value
            gradients[name][at] = (sides[0] - sides[1]) / (2 * step)
    return gradients


# The difference errs by step^2 / 6 times the loss's third derivative, and by its rounding over the step: about 1e-10
# of a loss of the size of 10. relu has a kink, so its states must keep away from it by more than a step.
TOLERANCE = 1e-8


def assert_off_the_kink(params, trace):
    previous = np.concatenate((trace.initial.h[None], trace.hs[:-1]))
    assert np.abs(trace.x @ params.U.T + previous @ params.W.T + params.b).min() > 1e-3


@pytest.mark.parametrize("with_grad_state", [False, True], ids=["", "grad_state"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_bptt_is_the_gradient_of_the_loss(arrays, activation, with_grad_state):
    params, x, state, grad_hs, grad_state = arrays
    if not with_grad_state:
        grad_state = None

    def loss(params, x, state):
        hs = rnn.infer(params, x, state, activation).hs
        return (grad_hs * hs).sum() + (0 if grad_state is None else (grad_state.h * hs[-1]).sum())

    trace = rnn.forward(params, x, state, activation)
    assert_off_the_kink(params, trace)
    comp = flat(rnn.bptt(params, trace, grad_hs, grad_state, activation=activation))
    assert_same(comp, differences(loss, params, x, state), TOLERANCE)


def windows_loss(params, x, state, trace, grad_hs, truncate, activation):
    """Return the sum of the losses of all steps, where that of step t sees the last `truncate` + 1 steps alone.

    What lies before a window is a constant, taken from the trace.
    """
    total = 0.0
    for t in range(len(x)):
        first = t - truncate
        before = state if first <= 0 else State(trace.hs[first - 1])
        h = rnn.infer(params, x[max(first, 0) : t + 1], before, activation).hs[-1]
        total += (grad_hs[t] * h).sum()
    return total


@pytest.mark.parametrize("truncate", [0, 1, 2, T - 2, T - 1])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_truncated_bptt_is_the_gradient_of_the_windows(arrays, activation, truncate):
    params, x, state, grad_hs, grad_state = arrays
    trace = rnn.forward(params, x, state, activation)
    assert_off_the_kink(params, trace)
    comp = flat(rnn.bptt(params, trace, grad_hs, grad_state, truncate, activation))

    grad_hs[-1] += grad_state.h

    def loss(params, x, state):
        return windows_loss(params, x, state, trace, grad_hs, truncate, activation)

    assert_same(comp, differences(loss, params, x, state), TOLERANCE)


@pytest.mark.parametrize("truncate", range(T))
def test_truncated_bptt_is_the_sum_over_windows(arrays, truncate):
    """Each step's loss on its own: through the steps of its window one by one."""
    params, x, state, grad_hs, grad_state = arrays
    trace = rnn.forward(params, x, state)
    comp = flat(rnn.bptt(params, trace, grad_hs, grad_state, truncate))

    grad_hs[-1] += grad_state.h
    ref = {name: np.zeros_like(a) for name, a in comp.items()}
    for t in range(T):
        grad_h = grad_hs[t]
        for k in range(t, max(t - truncate, 0) - 1, -1):
            h_before = trace.hs[k - 1] if k > 0 else state.h
            delta = grad_h * (1 - trace.hs[k] ** 2)
            ref["params.U"] += np.einsum("bh,bi->hi", delta, x[k])
            ref["params.W"] += np.einsum("bh,bj->hj", delta, h_before)
            ref["params.b"] += delta.sum(axis=0)
            ref["x"][k] += np.einsum("bh,hi->bi", delta, params.U)
            grad_h = np.einsum("bh,hj->bj", delta, params.W)
            if k == 0:
                ref["state.h"] += grad_h
    assert_same(comp, ref, 1e-13)


@pytest.mark.parametrize("truncate", [T - 1, T, 10 * T])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_window_over_all_steps_is_full_bptt(arrays, activation, truncate):
    params, x, state, grad_hs, grad_state = arrays
    trace = rnn.forward(params, x, state, activation)
    full = flat(rnn.bptt(params, trace, grad_hs, grad_state, None, activation))
    comp = flat(rnn.bptt(params, trace, grad_hs, grad_state, truncate, activation))
    for name in NAMES:
        np.testing.assert_array_equal(comp[name], full[name], err_msg=name)


def test_the_widest_window_joins_full_bptt(arrays):
    """The windowed code itself, which bptt leaves at T - 1, gives the full gradient there."""
    params, x, state, grad_hs, _ = arrays
    trace = rnn.forward(params, x, state)
    slope = 1 - trace.hs**2
    delta = rnn._windowed(grad_hs, slope, params.W, T - 1)
    np.testing.assert_allclose(
        np.einsum("tbh,tbi->hi", delta, x), rnn.bptt(params, trace, grad_hs).params.U, rtol=1e-12
    )


def test_inputs_are_not_written_to(arrays):
    params, x, state, grad_hs, grad_state = arrays
    for a in (*params, x, *state, grad_hs, *grad_state):
        a.flags.writeable = False
    trace = rnn.forward(params, x, state)
    for a in (trace.hs, *trace.state):
        a.flags.writeable = False
    rnn.forward_step(params, x[0], state)
    for truncate in (None, 0, 3):
        rnn.bptt(params, trace, grad_hs, grad_state, truncate)


# --- errors ------------------------------------------------------------------------------------------------------


def test_unknown_activation(arrays):
    params, x, state, grad_hs, _ = arrays
    trace = rnn.forward(params, x, state)
    for call in (
        lambda: rnn.forward(params, x, state, "gelu"),
        lambda: rnn.infer(params, x, state, "gelu"),
        lambda: rnn.forward_step(params, x[0], state, "gelu"),
        lambda: rnn.bptt(params, trace, grad_hs, activation="gelu"),
    ):
        with pytest.raises(ValueError, match=r"^activation: expected 'tanh', 'relu' or 'sigmoid'"):
            call()


def test_negative_truncate(arrays):
    params, x, state, grad_hs, _ = arrays
    with pytest.raises(ValueError, match=r"^truncate: expected None or an integer >= 0"):
        rnn.bptt(params, rnn.forward(params, x, state), grad_hs, truncate=-1)


# --- PyTorch -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_equals_torch(arrays, activation):
    torch = pytest.importorskip("torch")
    params, x, state, grad_hs, grad_state = arrays
    layer = torch.nn.RNN(I, H, nonlinearity=activation, dtype=torch.float64)
    with torch.no_grad():
        for weight, value in zip(layer.parameters(), (params.U, params.W, params.b, np.zeros(H)), strict=True):
            weight.copy_(torch.from_numpy(value))
    x_, h_ = (torch.from_numpy(a).requires_grad_() for a in (x, state.h[None]))
    hs, last = layer(x_, h_)
    torch.autograd.backward((hs, last), (torch.from_numpy(grad_hs), torch.from_numpy(grad_state.h[None])))

    trace = rnn.forward(params, x, state, activation)
    np.testing.assert_allclose(trace.hs, hs.detach().numpy(), rtol=1e-13, atol=1e-14)
    ref = (layer.weight_ih_l0.grad, layer.weight_hh_l0.grad, layer.bias_ih_l0.grad, x_.grad, h_.grad[0])
    comp = flat(rnn.bptt(params, trace, grad_hs, grad_state, activation=activation))
    assert_same(comp, dict(zip(NAMES, (a.numpy() for a in ref), strict=True)), 1e-13)


def test_trace_of_a_chunk_carries_on(arrays):
    """The state of one chunk starts the next, and the gradients of both chunks are those of one run."""
    params, x, state, grad_hs, grad_state = arrays
    whole = rnn.forward(params, x, state)
    head = rnn.forward(params, x[:3], state)
    tail = rnn.forward(params, x[3:], head.state)
    assert isinstance(tail, Trace)
    np.testing.assert_allclose(np.concatenate((head.hs, tail.hs)), whole.hs, rtol=1e-13, atol=1e-14)

    later = rnn.bptt(params, tail, grad_hs[3:], grad_state)
    earlier = rnn.bptt(params, head, grad_hs[:3], later.state)
    ref = flat(rnn.bptt(params, whole, grad_hs, grad_state))
    comp = {
        "x": np.concatenate((earlier.x, later.x)),
        "state.h": earlier.state.h,
        **{f"params.{n}": getattr(earlier.params, n) + getattr(later.params, n) for n in Params._fields},
    }
    assert_same(comp, ref, 1e-13)
