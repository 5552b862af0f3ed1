"""The gallery: each cell beside its paper's own notation, and its gradients beside differences, JAX and PyTorch."""

import ast
import inspect

import numpy as np
import pytest
from scipy.special import expit as logistic
from scipy.special import log_expit, logsumexp

from reference import cells, stack
from tests import peers
from tests.kernels.compare import Size, draw, named
from tests.reference.test_cells import T, assert_same, differences, weighed

CELLS = [cells.find(name) for name in cells.names()]
ROUNDING = 1e-12  # float64, sums of some tens of numbers of about 1
SIZE = Size(5, 3, 7, 2)
by_cell = pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.__name__)


def inputs_of(cell, size=SIZE, dtype=np.float64):
    inputs = draw(cell, size, dtype)
    # Vectors that begin as told are moved off it, so that no two units are alike.
    rng = np.random.default_rng(1)
    vectors = {name: getattr(inputs.params, name) for name in cell.vectors}
    moved = {name: (a + rng.uniform(-0.3, 0.3, a.shape)).astype(dtype) for name, a in vectors.items()}
    inputs = inputs._replace(params=inputs.params._replace(**moved))
    if cell.__name__ == "slstm":  # whose normalizer is a sum of positive weights
        inputs = inputs._replace(state=inputs.state._replace(n=np.abs(inputs.state.n) + dtype(0.5)))
    return inputs


# --- the equations as the papers write them: a step of h (B, H) and of what else is handed on, matrices by name -------


def matrices(cell, params):
    """Return W_g x + b_g, a function of x, and R_g of each gate by its name: U and W here."""
    H = params.W.shape[1]
    inputs = {
        g: (lambda x, n=n: x @ params.U[n * H : (n + 1) * H].T + params.b[n * H : (n + 1) * H])
        for n, g in enumerate(cell.gates_u)
    }
    return inputs, {g: params.W[n * H : (n + 1) * H].T for n, g in enumerate(cell.gates_w)}


def peephole_lstm(x, R, v, h, c):
    i, f = (logistic(x[g] + h @ R[g] + getattr(v, f"p_{g}") * c) for g in "if")
    after = i * np.tanh(x["g"] + h @ R["g"]) + f * c
    return logistic(x["o"] + h @ R["o"] + v.p_o * after) * np.tanh(after), after


def coupled_lstm(x, R, v, h, c):
    i, o = (logistic(x[g] + h @ R[g]) for g in "io")
    after = i * np.tanh(x["g"] + h @ R["g"]) + c - i * c
    return o * np.tanh(after), after


def layer_norm_lstm(x, R, v, h, c):
    def normed(a, name):
        mean, deviation = a.mean(axis=1)[:, None], np.sqrt(a.var(axis=1) + 1e-5)[:, None]
        return getattr(v, f"gain_{name}") / deviation * (a - mean) + getattr(v, f"shift_{name}")

    i, f, g, o = (normed(x[g] + h @ R[g], g) for g in "ifgo")
    after = logistic(f) * c + logistic(i) * np.tanh(g)
    return logistic(o) * np.tanh(normed(after, "c")), after


def slstm(x, R, v, h, c, n, m):
    """The paper's equations 8 to 17 before they are stabilized: c e^m and n e^m are what it calls c and n."""
    i, f = np.exp(x["i"] + h @ R["i"]), logistic(x["f"] + h @ R["f"])
    c, n = (a * np.exp(m) for a in (c, n))
    c, n = f * c + i * np.tanh(x["z"] + h @ R["z"]), f * n + i
    log_f = log_expit(x["f"] + h @ R["f"]) + m
    m = np.where(log_f > np.log(i), log_f, np.log(i))
    return logistic(x["o"] + h @ R["o"]) * (c / n), c / np.exp(m), n / np.exp(m), m


def janet(x, R, v, h):
    s = x["f"] + h @ R["f"]
    return (logistic(s) * h + (1 - logistic(s - 1)) * np.tanh(x["n"] + h @ R["n"]),)


def gru_reset_before(x, R, v, h):
    r, z = (logistic(x[g] + h @ R[g]) for g in "rz")
    return (z * h + (1 - z) * np.tanh(x["n"] + (r * h) @ R["n"]),)


def mgu(x, R, v, h):
    f = logistic(x["f"] + h @ R["f"])
    return ((1 - f) * h + f * np.tanh(x["n"] + (f * h) @ R["n"]),)


def light_gru(x, R, v, h):
    z, a = logistic(x["z"] + h @ R["z"]), x["n"] + h @ R["n"]
    return (z * h + (1 - z) * (a * (a > 0)),)


def ugrnn(x, R, v, h):
    g = logistic(x["g"] + h @ R["g"])
    return (g * h + (1 - g) * np.tanh(x["n"] + h @ R["n"]),)


def fastgrnn(x, R, v, h):
    shared = x["z"] + h @ R["z"]
    z, candidate = logistic(shared), np.tanh(shared + v.p)
    return ((logistic(v.zeta) * (1 - z) + logistic(v.nu)) * candidate + z * h,)


def leaky_rnn(x, R, v, h):
    return (h + v.leak * (np.tanh(x["n"] + h @ R["n"]) - h),)


def indrnn(x, R, v, h):
    a = x["n"] + h * v.p
    return (a * (a > 0),)


def sru(x, R, v, h, c):
    f, r = logistic(x["f"] + v.p_f * c), logistic(x["r"] + v.p_r * c)
    after = x["n"] + f * (c - x["n"])
    return x["k"] + r * (after - x["k"]), after


def mingru(x, R, v, h):
    return (h + logistic(x["z"]) * (x["n"] - h),)


def minlstm(x, R, v, h):
    """By the paper's log-space form: f / (f + i) is the logistic of the difference of logarithms."""
    share = logistic(log_expit(x["f"]) - log_expit(x["i"]))
    return (share * h + (1 - share) * x["n"],)


def rg_lru(x, R, v, h):
    """The paper's a = sigmoid(Lambda)^(8 r), with Lambda = -decay."""
    a = logistic(-v.decay) ** (8 * logistic(x["r"]))
    return (a * h + np.sqrt(1 - a**2) * (logistic(x["i"]) * x["n"]),)


PAPERS = {function.__name__: function for function in list(globals().values()) if inspect.isfunction(function)}


@by_cell
def test_forward_is_the_papers_equations(cell):
    params, x, state, *_ = inputs_of(cell)
    inputs, R = matrices(cell, params)
    after, hs = tuple(state), []
    for x_t in x:
        after = PAPERS[cell.__name__]({g: of(x_t) for g, of in inputs.items()}, R, params, *after)
        hs.append(after[0])
    output = cell.infer(params, x, state)
    assert_same(output, cell.Output(np.array(hs), cell.State(*after)), ROUNDING)
    trace = cell.forward(params, x, state)
    assert_same(cell.Output(trace.hs, trace.state), output, 0)
    for x_t in x:
        state = cell.forward_step(params, x_t, state)
    assert_same(state, output.state, ROUNDING)


def test_the_xlstm_package_has_the_same_slstm():
    """Its authors' plain code, from the zero state, which it tells by n = 0 and ours by m = -inf."""
    torch, cell = pytest.importorskip("torch"), cells.find("slstm")
    plain = pytest.importorskip("xlstm.blocks.slstm.src.vanilla.slstm").slstm_forward_pointwise
    params, x, *_ = inputs_of(cell)
    states = torch.zeros(4, SIZE.B, SIZE.H, dtype=torch.float64)
    U, W, b = map(torch.from_numpy, params)
    hs = []
    for x_t in torch.from_numpy(x):
        states, _ = plain(x_t @ U.T, states[0] @ W.T, b[None], states, {})
        hs.append(states[0].numpy())
    assert_same(cell.infer(params, x), cell.Output(np.array(hs), cell.State(*states.numpy())), ROUNDING)


@pytest.mark.parametrize("name", ["peephole_lstm", "gru_reset_before"])
def test_onnx_has_the_same(name):
    """Their operators, in the order of ONNX's gates: i o f c and z r h."""
    onnx = pytest.importorskip("onnx")
    evaluator = pytest.importorskip("onnx.reference").ReferenceEvaluator
    cell = cells.find(name)
    kind, order, options = (
        ("LSTM", "iofg", {}) if name == "peephole_lstm" else ("GRU", "zrn", {"linear_before_reset": 0})
    )
    params, x, state, *_ = inputs_of(cell)
    H = SIZE.H

    def blocks(a):
        rows = [a[n * H : (n + 1) * H] for n in map(cell.gates.index, order)]
        return np.concatenate(rows)[None]

    given = {"x": x, "W": blocks(params.U), "R": blocks(params.W)}
    given["B"] = np.concatenate((blocks(params.b), np.zeros_like(blocks(params.b))), axis=1)
    names = ["x", "W", "R", "B", ""]
    for field, a in zip(cell.State._fields, state, strict=True):
        given[field] = a[None]
        names.append(field)
    if kind == "LSTM":
        given["P"] = np.concatenate([params.p_i, params.p_o, params.p_f])[None]
        names.append("P")
    node = onnx.helper.make_node(kind, names, ["hs"], hidden_size=H, **options)
    values = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.DOUBLE, None) for n in given]
    outs = [onnx.helper.make_tensor_value_info("hs", onnx.TensorProto.DOUBLE, None)]
    (hs,) = evaluator(onnx.helper.make_model(onnx.helper.make_graph([node], "cell", values, outs))).run(None, given)
    np.testing.assert_allclose(cell.infer(params, x, state).hs, hs[:, 0], atol=ROUNDING)


# --- gradients ---------------------------------------------------------------------------------------------------


@by_cell
def test_bptt_is_the_gradient_of_the_loss(cell):
    """Central differences: their error is that of `test_cells.py`; relu's states keep away from its kink."""
    inputs = inputs_of(cell, Size(3, 2, T, 2))
    params, x, state, grad_hs, grad_state = inputs

    def loss(params, x, state):
        return weighed(cell.infer(params, x, state), grad_hs, grad_state)

    comp = cell.bptt(params, cell.forward(params, x, state), grad_hs, grad_state)
    assert_same(comp, differences(cell, loss, inputs), 1e-7 if cell.__name__ == "slstm" else 1e-8)


@by_cell
def test_equals_jax(cell):
    """At one size for all cells, of which JAX compiles each operation once."""
    pytest.importorskip("jax")
    inputs = inputs_of(cell, Size(7, 3, 4, 2))
    params, x, state, grad_hs, grad_state = inputs
    output, gradients = peers.in_jax(cell, inputs)
    trace = cell.forward(params, x, state)
    assert_same(cell.Output(trace.hs, trace.state), output, ROUNDING)
    assert_same(cell.bptt(params, trace, grad_hs, grad_state), gradients, ROUNDING)


@by_cell
@pytest.mark.parametrize("size", [Size(1, 1, 1, 1), Size(17, 1, 5, 1), Size(7, 3, 1, 3), SIZE], ids=str)
def test_equals_torch(cell, size):
    pytest.importorskip("torch")
    inputs = inputs_of(cell, size)
    params, x, state, grad_hs, grad_state = inputs
    comp = cell.bptt(params, cell.forward(params, x, state), grad_hs, grad_state)
    assert_same(comp, peers.in_torch(cell, inputs), ROUNDING)


@by_cell
@pytest.mark.parametrize("truncate", [0, 2])
def test_truncated_bptt_is_the_sum_over_windows(cell, truncate):
    params, x, state, grad_hs, grad_state = inputs_of(cell)
    comp = named(cell.bptt(params, cell.forward(params, x, state), grad_hs, grad_state, truncate))
    ref = {name: np.zeros_like(a) for name, a in comp.items()}
    for t in range(SIZE.T):
        first = max(t - truncate, 0)
        before = cell.infer(params, x[:first], state).state if first else state
        grad = np.zeros((t + 1 - first, SIZE.B, SIZE.H))
        grad[-1] = grad_hs[t]
        window = cell.forward(params, x[first : t + 1], before)
        for name, a in named(cell.bptt(params, window, grad, grad_state if t == SIZE.T - 1 else None)).items():
            if name == "x":
                ref[name][first : t + 1] += a
            elif not name.startswith("state") or not first:
                ref[name] += a
    assert_same(comp, ref, ROUNDING)


# --- the interface -----------------------------------------------------------------------------------------------


@by_cell
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_result_keeps_the_dtype_and_owns_its_memory(cell, dtype):
    params, x, state, grad_hs, grad_state = inputs_of(cell, dtype=dtype)
    trace = cell.forward(params, x, state)
    results = [trace._replace(x=None, initial=None), cell.infer(params, x), cell.forward_step(params, x[0], state)]
    results += [cell.bptt(params, trace, grad_hs, grad_state, truncate) for truncate in (None, 2)]
    for result in results:
        for name, a in named(result).items():
            assert a.dtype == dtype, name
            assert a.flags.c_contiguous, name
            assert not any(np.shares_memory(a, b) for b in (*params, x, *state, grad_hs, *grad_state)), name


@by_cell
def test_float32_is_float64_but_for_rounding(cell):
    """A relative 2^-24 of each of some hundred terms, grown by seven steps: well below 1e-4 of the largest."""
    size = Size(7, 3, 7, 2)
    single = inputs_of(cell, size, np.float32)
    double = peers.over(tuple(single), lambda a: a.astype(np.float64))
    results = []
    for params, x, state, grad_hs, grad_state in (single, double):
        trace = cell.forward(params, x, state)
        results.append(cell.bptt(params, trace, grad_hs, grad_state)._replace(state=trace.state))
    assert_same(*results, 1e-4)


@by_cell
def test_a_ragged_network_is_its_sequences_one_by_one(cell):
    """Two layers in two directions, from the states as the cell begins them."""
    rng, lengths = np.random.default_rng(0), np.array([3, 5, 1])
    params = stack.init_params(cell, 2, 3, layers=2, bidirectional=True, rng=rng, dtype=np.float64)
    x, grad_hs = rng.standard_normal((5, 3, 2)), rng.standard_normal((5, 3, 6))
    trace = stack.forward(cell, params, x, lengths=lengths)
    whole = stack.bptt(cell, params, trace, grad_hs)
    total = 0
    for b, n in enumerate(lengths):
        alone = stack.forward(cell, params, x[:n, b : b + 1])
        np.testing.assert_allclose(trace.hs[:n, b], alone.hs[:, 0], atol=ROUNDING)
        back = stack.bptt(cell, params, alone, grad_hs[:n, b : b + 1].copy())
        np.testing.assert_allclose(whole.x[:n, b], back.x[:, 0], atol=ROUNDING)
        total = total + back.params[0][1].U
    np.testing.assert_allclose(whole.params[0][1].U, total, atol=ROUNDING)


def test_each_file_is_a_cell_called_as_it_with_its_paper():
    assert len(CELLS) >= 16
    for cell in CELLS:
        assert cell.__module__.endswith(f".{cell.__name__}")
        assert any(year in cell.__doc__ for year in map(str, range(1990, 2030))), cell
        step = ast.parse(inspect.getsource(cell)).body[0]
        assert len(step.body) <= 10, cell
    with pytest.raises(ValueError, match=r"^cell: expected one of coupled_lstm, .*, ugrnn, got foo$"):
        cells.find("foo")


def test_the_slstm_does_not_overflow():
    """Exponential gates of up to e^1000: c / n stays a mean of z, within ±1."""
    cell = cells.find("slstm")
    params, x, *_ = inputs_of(cell, dtype=np.float32)
    trace = cell.forward(params._replace(b=params.b * np.float32(2000)), x)
    assert np.isfinite(trace.hs).all()
    assert np.abs(trace.hs).max() <= 1
    gradients = cell.bptt(params, trace, np.ones_like(trace.hs))
    assert all(np.isfinite(a).all() for name, a in named(gradients).items())


def test_minlstm_is_the_parallel_form():
    """h_T is the sum of what each step puts in, times all later forget gates (the paper's log-space scan)."""
    cell = cells.find("minlstm")
    params, x, state, *_ = inputs_of(cell)
    inputs, _ = matrices(cell, params)
    f, i = log_expit(inputs["f"](x)), log_expit(inputs["i"](x))
    both = logsumexp([f, i], axis=0)
    later = np.cumsum((f - both)[::-1], axis=0)[::-1]
    weights = np.exp((i - both) + np.concatenate((later[1:], np.zeros_like(later[:1]))))
    ref = np.exp(later[0]) * state.h + (weights * inputs["n"](x)).sum(axis=0)
    np.testing.assert_allclose(cell.infer(params, x, state).state.h, ref, atol=ROUNDING)
