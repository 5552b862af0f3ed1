"""The references against definitions that share nothing with them: loops, differences of the loss, and PyTorch."""

import math
from importlib import import_module

import numpy as np
import pytest

from reference.layouts import to_torch
from tests.kernels.compare import Size, draw, named, rebuild

T, B, I, H = 7, 2, 3, 5
# Every cell, with the options of its functions.
VARIANTS = {f"rnn-{name}": ("rnn", name) for name in ("tanh", "relu", "sigmoid")} | {"gru": ("gru",), "lstm": ("lstm",)}

by_variant = pytest.mark.parametrize("variant", VARIANTS)
by_cell = pytest.mark.parametrize("variant", ["rnn-tanh", "gru", "lstm"])


@pytest.fixture
def cell(variant):
    return import_module(f"reference.{VARIANTS[variant][0]}")


@pytest.fixture
def options(variant):
    return VARIANTS[variant][1:]


@pytest.fixture
def inputs(cell):
    return draw(cell, Size(H, I, T, B), np.float64)


def assert_same(comp, ref, tolerance):
    comp, ref = (value if isinstance(value, dict) else named(value) for value in (comp, ref))
    assert comp.keys() == ref.keys()
    for name in ref:
        assert comp[name].shape == ref[name].shape, name
        error, largest = (np.abs(a).max(initial=0) for a in (comp[name] - ref[name], ref[name]))
        assert error <= tolerance * largest, f"{name}: error {error:.1e} beside values up to {largest:.1e}"


# --- forward -----------------------------------------------------------------------------------------------------


def logistic(a):
    return 1 / (1 + math.exp(-a))


def dot(row, v):
    return sum(m * n for m, n in zip(row, v, strict=True))


def rnn_unit(params, x, h, k, activation):
    act = {"tanh": math.tanh, "relu": lambda a: max(a, 0.0), "sigmoid": logistic}[activation]
    return (act(dot(params.U[k], x) + dot(params.W[k], h) + params.b[k]),)


def gru_unit(params, x, h, k):
    U, W, b, c = params
    r = logistic(dot(U[k], x) + dot(W[k], h) + b[k])
    z = logistic(dot(U[H + k], x) + dot(W[H + k], h) + b[H + k])
    n = math.tanh(dot(U[2 * H + k], x) + b[2 * H + k] + r * (dot(W[2 * H + k], h) + c[k]))
    return ((1 - z) * n + z * h[k],)


def lstm_unit(params, x, h, c, k):
    i, f, g, o = (
        act(dot(params.U[m], x) + dot(params.W[m], h) + params.b[m])
        for act, m in zip((logistic, logistic, math.tanh, logistic), range(k, 4 * H, H), strict=True)
    )
    c = f * c[k] + i * g
    return o * math.tanh(c), c


@by_variant
def test_forward_is_the_equations(variant, cell, options, inputs):
    params, x, state, *_ = inputs
    unit = {"rnn": rnn_unit, "gru": gru_unit, "lstm": lstm_unit}[VARIANTS[variant][0]]
    hs, last = np.empty((T, B, H)), cell.State(*map(np.empty_like, state))
    for n in range(B):
        before = [part[n] for part in state]
        for t in range(T):
            units = [unit(params, x[t, n], *before, k, *options) for k in range(H)]
            before = list(zip(*units, strict=True))
            hs[t, n] = before[0]
        for part, value in zip(last, before, strict=True):
            part[n] = value

    trace = cell.forward(params, x, state, *options)
    np.testing.assert_allclose(trace.hs, hs, rtol=1e-14, atol=1e-14)
    assert_same(trace.state, last, 1e-14)
    np.testing.assert_array_equal(trace.state.h, trace.hs[-1])
    np.testing.assert_array_equal(trace.x, x)
    assert_same(trace.initial, state, 0)

    output = cell.infer(params, x, state, *options)
    np.testing.assert_array_equal(output.hs, trace.hs)
    assert_same(output.state, trace.state, 0)

    for t in range(T):
        state = cell.forward_step(params, x[t], state, *options)
        np.testing.assert_allclose(state.h, hs[t], rtol=1e-14, atol=1e-14)
    assert_same(state, last, 1e-14)


@by_cell
def test_no_state_is_the_zero_state(cell, inputs):
    params, x, *_ = inputs
    zero = cell.State(*(np.zeros((B, H)) for _ in cell.State._fields))
    for function in (cell.forward, cell.infer):
        assert_same(function(params, x), function(params, x, zero), 0)


@pytest.mark.parametrize("variant", ["rnn-tanh", "rnn-sigmoid", "gru", "lstm"])
def test_saturation_is_silent(cell, options, inputs):
    params = cell.Params(*(1e4 * p for p in inputs.params))
    with np.errstate(all="raise"):
        trace = cell.forward(params, inputs.x, inputs.state, *options)
        cell.bptt(params, trace, inputs.grad_hs, None, None, *options)
    assert np.abs(trace.hs).max() <= 1


@by_variant
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_result_keeps_the_dtype(cell, options, dtype):
    params, x, state, grad_hs, grad_state = draw(cell, Size(H, I, T, B), dtype)
    trace = cell.forward(params, x, state, *options)
    results = [trace, cell.infer(params, x, None, *options), cell.forward_step(params, x[0], state, *options)]
    results += [cell.bptt(params, trace, grad_hs, grad_state, truncate, *options) for truncate in (None, 2)]
    for result in results:
        assert {a.dtype for a in named(result).values()} == {np.dtype(dtype)}
        assert all(a.flags.c_contiguous for a in named(result).values())


@by_cell
def test_init_params_draws_within_one_over_root_h(cell, variant):
    gates = {"rnn": 1, "gru": 3, "lstm": 4}[VARIANTS[variant][0]]
    params = cell.init_params(300, 100, np.random.default_rng(0))
    shapes = [(gates * 100, 300), (gates * 100, 100), (gates * 100,), (100,)]
    assert [p.shape for p in params] == shapes[: len(params)]
    for p in params:
        assert p.dtype == np.float32
        assert 0.09 < np.abs(p).max() <= 0.1
        assert abs(p.mean()) < 0.02


# --- bptt --------------------------------------------------------------------------------------------------------


def differences(cell, loss, inputs, step=1e-5):
    """Return the gradients of loss(params, x, state) by name, from central differences."""
    at = rebuild(cell.Gradients(inputs.params, inputs.x, inputs.state), cell)
    gradients = {}
    for name, a in named(at).items():
        gradients[name] = np.empty_like(a)
        for index in np.ndindex(a.shape):
            value, sides = a[index], []
            for sign in (1, -1):
                a[index] = value + sign * step
                sides.append(loss(*at))
            a[index] = value
            gradients[name][index] = (sides[0] - sides[1]) / (2 * step)
    return gradients


# The difference errs by step^2 / 6 times the loss's third derivative, and by its rounding over the step: about 1e-10
# of a loss of the size of 10. relu has a kink, so its states must keep away from it by more than a step.
TOLERANCE = 1e-8


def assert_off_the_kink(options, params, trace):
    if options == ("relu",):
        previous = np.concatenate((trace.initial.h[None], trace.hs[:-1]))
        assert np.abs(trace.x @ params.U.T + previous @ params.W.T + params.b).min() > 1e-4


def weighed(output, grad_hs, grad_state):
    """Return a loss whose gradients by hs and by the last state are these."""
    last = 0 if grad_state is None else sum((g * a).sum() for g, a in zip(grad_state, output.state, strict=True))
    return (grad_hs * output.hs).sum() + last


@by_variant
@pytest.mark.parametrize("with_grad_state", [False, True], ids=["", "grad_state"])
def test_bptt_is_the_gradient_of_the_loss(cell, options, inputs, with_grad_state):
    params, x, state, grad_hs, grad_state = inputs
    if not with_grad_state:
        grad_state = None

    def loss(params, x, state):
        return weighed(cell.infer(params, x, state, *options), grad_hs, grad_state)

    trace = cell.forward(params, x, state, *options)
    assert_off_the_kink(options, params, trace)
    comp = cell.bptt(params, trace, grad_hs, grad_state, None, *options)
    assert_same(comp, differences(cell, loss, inputs), TOLERANCE)


def windows(cell, options, inputs, truncate):
    """Return for each step's loss its window of x, the state before it, and the loss's gradients by what it gives.

    The last state is a loss of the last step.
    """
    params, x, state, grad_hs, grad_state = inputs
    found = []
    for t in range(T):
        first = max(t - truncate, 0)
        before = cell.infer(params, x[:first], state, *options).state if first else state
        grad_window = np.zeros((t + 1 - first, B, H))
        grad_window[-1] = grad_hs[t]
        found.append((slice(first, t + 1), before, grad_window, grad_state if t == T - 1 else None))
    return found


@by_variant
@pytest.mark.parametrize("truncate", [0, 2])
def test_truncated_bptt_is_the_gradient_of_the_windows(cell, options, inputs, truncate):
    """What lies before a window is a constant."""
    params, x, state, grad_hs, grad_state = inputs
    parts = windows(cell, options, inputs, truncate)

    def loss(params, x, state):
        return sum(
            weighed(cell.infer(params, x[steps], before if steps.start else state, *options), *grads)
            for steps, before, *grads in parts
        )

    trace = cell.forward(params, x, state, *options)
    assert_off_the_kink(options, params, trace)
    comp = cell.bptt(params, trace, grad_hs, grad_state, truncate, *options)
    assert_same(comp, differences(cell, loss, inputs), TOLERANCE)


@by_variant
@pytest.mark.parametrize("truncate", [*range(T), 10 * T])
def test_truncated_bptt_is_the_sum_over_windows(cell, options, inputs, truncate):
    params, x, state, grad_hs, grad_state = inputs
    comp = cell.bptt(params, cell.forward(params, x, state, *options), grad_hs, grad_state, truncate, *options)

    ref = {name: np.zeros_like(a) for name, a in named(comp).items()}
    for steps, before, *grads in windows(cell, options, inputs, truncate):
        gradients = cell.bptt(params, cell.forward(params, x[steps], before, *options), *grads, None, *options)
        for name, a in named(gradients).items():
            if name == "x":
                ref[name][steps] += a
            elif name.startswith("params") or steps.start == 0:
                ref[name] += a
    assert_same(comp, ref, 1e-13)


@by_cell
def test_the_widest_window_joins_full_bptt(cell, inputs):
    """The windowed code, which bptt leaves at T - 1, gives the full gradient there: with a last step of no weight."""
    params, x, state, grad_hs, _ = inputs
    longer = cell.forward(params, np.concatenate((x, x[:1])), state)
    comp = cell.bptt(params, longer, np.concatenate((grad_hs, np.zeros((1, B, H)))), None, T - 1)
    ref = cell.bptt(params, cell.forward(params, x, state), grad_hs)
    assert not comp.x[-1].any()
    assert_same(comp._replace(x=comp.x[:-1]), ref, 1e-13)


@by_cell
def test_a_chunk_carries_on(cell, inputs):
    """The state of one chunk starts the next, and the gradients of both chunks are those of one run."""
    params, x, state, grad_hs, grad_state = inputs
    whole = cell.forward(params, x, state)
    head = cell.forward(params, x[:3], state)
    tail = cell.forward(params, x[3:], head.state)
    np.testing.assert_allclose(np.concatenate((head.hs, tail.hs)), whole.hs, rtol=1e-13, atol=1e-14)

    later = cell.bptt(params, tail, grad_hs[3:], grad_state)
    earlier = cell.bptt(params, head, grad_hs[:3], later.state)
    both = cell.Params(*(a + b for a, b in zip(earlier.params, later.params, strict=True)))
    comp = cell.Gradients(both, np.concatenate((earlier.x, later.x)), earlier.state)
    assert_same(comp, cell.bptt(params, whole, grad_hs, grad_state), 1e-13)


@by_variant
@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_indices_are_one_hot_input(cell, options, inputs, dtype):
    params, _, state, grad_hs, grad_state = inputs
    x = np.random.default_rng(1).integers(0, I, (T, B)).astype(dtype)
    ones = np.eye(I)[x]
    assert_same(
        cell.forward_step(params, x[0], state, *options), cell.forward_step(params, ones[0], state, *options), 1e-15
    )
    assert_same(cell.infer(params, x, state, *options), cell.infer(params, ones, state, *options), 1e-14)
    trace, ref = cell.forward(params, x, state, *options), cell.forward(params, ones, state, *options)
    assert_same(trace._replace(x=ref.x), ref, 1e-14)
    for truncate in (None, 2):
        comp = cell.bptt(params, trace, grad_hs, grad_state, truncate, *options)
        assert comp.x is None
        dense = cell.bptt(params, ref, grad_hs, grad_state, truncate, *options)
        assert_same(comp, dense._replace(x=None), 1e-13)


@by_cell
def test_inputs_are_not_written_to(cell, inputs):
    inputs = rebuild(inputs, cell, frozen)
    params, x, state, grad_hs, grad_state = inputs
    trace = rebuild(cell.forward(params, x, state), cell, frozen)
    cell.forward_step(params, x[0], state)
    for truncate in (None, 0, 3):
        cell.bptt(params, trace, grad_hs, grad_state, truncate)


def frozen(a):
    a = a.copy()
    a.flags.writeable = False
    return a


@by_cell
def test_negative_truncate(cell, inputs):
    params, x, state, grad_hs, _ = inputs
    with pytest.raises(ValueError, match=r"^truncate: expected None or an integer >= 0"):
        cell.bptt(params, cell.forward(params, x, state), grad_hs, truncate=-1)


# --- PyTorch -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["rnn-tanh", "rnn-relu", "gru", "lstm"])
def test_equals_torch(cell, variant, options, inputs):
    torch = pytest.importorskip("torch")
    params, x, state, grad_hs, grad_state = inputs
    kind = {"nonlinearity": options[0]} if options else {}
    layer = getattr(torch.nn, VARIANTS[variant][0].upper())(I, H, dtype=torch.float64, **kind)
    layer.load_state_dict({name: torch.from_numpy(a) for name, a in to_torch(params).items()})
    x_, *first = (torch.from_numpy(a).requires_grad_() for a in (x, *(part[None] for part in state)))
    hs, last = layer(x_, first[0] if len(first) == 1 else tuple(first))
    lasts = (last,) if len(first) == 1 else last
    torch.autograd.backward((hs, *lasts), [torch.from_numpy(a) for a in (grad_hs, *(g[None] for g in grad_state))])

    trace = cell.forward(params, x, state, *options)
    np.testing.assert_allclose(trace.hs, hs.detach().numpy(), rtol=1e-13, atol=1e-14)
    assert_same(trace.state, cell.State(*(part.detach().numpy()[0] for part in lasts)), 1e-13)
    # PyTorch gives one gradient of a sum of two biases to both; the second of the GRU's n is our c.
    U, W, b, inner = (weight.grad.numpy() for weight in layer.parameters())
    ref = cell.Gradients(
        cell.Params(*(U, W, b, inner[-H:])[: len(params)]),
        x_.grad.numpy(),
        cell.State(*(part.grad.numpy()[0] for part in first)),
    )
    assert_same(cell.bptt(params, trace, grad_hs, grad_state, None, *options), ref, 1e-13)
