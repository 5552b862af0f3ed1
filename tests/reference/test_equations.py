"""A cell from its equations: beside the cells written by hand, JAX and PyTorch; what is refused, and where."""

import copy
import pickle
from importlib import import_module
from textwrap import dedent

import numpy as np
import pytest

import reference.equations as equations
from reference import stack
from reference.equations import EquationError, cell, layer_norm, maximum, minimum, relu, sigmoid, softplus, tanh, where
from tests import peers
from tests.kernels.compare import Size, draw, named, rebuild
from tests.reference.test_cells import assert_same

ROUNDING = {np.float64: 1e-13, np.float32: 2e-5}  # of the largest; sums of some hundred numbers, handed on 13 times


@cell(gates="h_", states="h")
def rnn(u, w, h):
    return tanh(u.h_ + w.h_(h))


@cell(gates="r z n", states="h", vectors="c")
def gru(u, w, v, h):
    r = sigmoid(u.r + w.r(h))
    z = sigmoid(u.z + w.z(h))
    n = tanh(u.n + r * (w.n(h) + v.c))
    return (1 - z) * n + z * h


@cell(gates="i f g o", states="h c")
def lstm(c, h, w, u):
    """Its arguments, and the gates within it, in another order."""
    o = sigmoid(u.o + w.o(h))
    g = tanh(w.g(h) + u.g)
    f, i = sigmoid(u.f + w.f(h)), sigmoid(u.i + w.i(h))
    c = f * c + i * g
    return o * tanh(c), c


@cell(gates="a k c", states={"h": 0, "m": -1, "s": 2}, vectors="p q", biases={"k": 1})
def everything(u, w, v, h, m, s):
    """Every operation, two stages, gates with a u or a w alone, and ties."""
    a = sigmoid(u.a + w.a(h * v.p))
    n = where(a > 0.5, equations.exp(-a), equations.log(a + 2) ** v.q)
    n = where(n >= m, n, where(m <= 3, m / (1 + s**2), 0.1))
    k = w.k(layer_norm(n + s) + u.k)
    d = maximum(relu(k), minimum(s, abs(m))) + softplus(-k) * 2 ** (v.q * h)
    h = tanh(d - w.c(m)) * equations.sqrt(1 + equations.abs(s)) + np.float32(0.5) * maximum(a, a)
    return h, where(k < 0, 0.5 * m, -m + a), (s - h) / 3


BY_HAND = {name: import_module(f"reference.{name}") for name in ("rnn", "gru", "lstm")}
WRITTEN = {"rnn": rnn, "gru": gru, "lstm": lstm}
by_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])


# --- beside the cells written by hand ----------------------------------------------------------------------------


@by_dtype
@pytest.mark.parametrize("size", [Size(1, 1, 1, 1), Size(7, 3, 13, 1), Size(17, 3, 5, 33), Size(65, 1, 2, 5)], ids=str)
@pytest.mark.parametrize("name", WRITTEN)
@pytest.mark.parametrize("one_hot", [None, np.int64], ids=["", "one-hot"])
def test_equals_the_one_by_hand(name, size, dtype, one_hot):
    ref_cell, comp_cell = BY_HAND[name], WRITTEN[name]
    inputs = draw(ref_cell, size, dtype, one_hot=one_hot)
    assert_same(comp_cell.init_params(size.I, size.H, np.random.default_rng([0, *size]), dtype), inputs.params, 0)

    def results(cell, inputs):
        params, x, state, grad_hs, grad_state = rebuild(inputs, cell)
        trace = cell.forward(params, x, state)
        found = {"infer": cell.infer(params, x), "step": cell.forward_step(params, x[0], state)}
        found["trace"] = cell.Output(trace.hs, trace.state)
        for truncate in (None, 0, 1, 3, 100):
            found[f"bptt {truncate}"] = cell.bptt(params, trace, grad_hs, grad_state, truncate)
            found[f"bptt {truncate} alone"] = cell.bptt(params, trace, grad_hs, None, truncate)
        return found

    comp, ref = results(comp_cell, inputs), results(ref_cell, inputs)
    for call in ref:
        assert_same(comp[call], ref[call], ROUNDING[dtype])


@pytest.mark.parametrize("low", ["bfloat16", "int8"])
@pytest.mark.parametrize("name", WRITTEN)
def test_rounded_weights_are_those_of_the_one_by_hand(name, low):
    inputs = draw(BY_HAND[name], Size(7, 3, 5, 2), np.float32)
    outputs = []
    for kind in (WRITTEN[name], BY_HAND[name]):
        params, x, state, *_ = rebuild(inputs, kind)
        outputs.append(kind.infer(kind.prepare(params, low), x, state))
    assert_same(*outputs, 2e-2)  # a step of int8, where a rounding in float32 tips it over
    assert np.median(np.abs(outputs[0].hs - outputs[1].hs)) < 1e-6


def test_rounded_weights_of_a_second_stage():
    params, x, state, *_ = draw(everything, Size(7, 3, 5, 2), np.float32)
    exact, rounded = (everything.infer(everything.prepare(params, low), x, state).hs for low in (None, "bfloat16"))
    assert 0 < np.abs(exact - rounded).max() < 0.1


@pytest.mark.parametrize("name", WRITTEN)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_goes_where_the_one_by_hand_has_it(name, value):
    results = []
    for kind in (WRITTEN[name], BY_HAND[name]):
        params, x, state, grad_hs, _ = rebuild(draw(BY_HAND[name], Size(7, 3, 5, 3), np.float32), kind)
        x[2, 1, 0] = value
        with np.errstate(all="ignore"):
            trace = kind.forward(params, x, state)
            results.append([trace.hs, kind.bptt(params, trace, grad_hs).x])
    for comp, ref in zip(*results, strict=True):
        np.testing.assert_array_equal(np.isnan(comp), np.isnan(ref))
        finite = np.isfinite(ref)
        np.testing.assert_allclose(comp[finite], ref[finite], atol=1e-5)
    assert not np.isnan(results[0][0][:, [0, 2]]).any()


def test_no_warning_reaches_the_user():
    """Saturated, and with a branch that is not a number where it is not taken."""

    @cell(gates="n", states="h")
    def branches(u, w, h):
        a = 1e4 * (u.n + w.n(h))
        return where(a > 0, equations.log(maximum(a, 1e-30)), tanh(equations.exp(-a)) + equations.sqrt(a) * 0)

    params, x, state, grad_hs, grad_state = draw(branches, Size(7, 3, 5, 2), np.float32)
    with np.errstate(all="raise"):
        trace = branches.forward(params, x, state)
        branches.forward_step(params, x[0], state)
        branches.bptt(params, trace, grad_hs, grad_state, 1)


# --- every operation ---------------------------------------------------------------------------------------------


def test_every_operation_equals_jax():
    pytest.importorskip("jax")
    inputs = draw(everything, Size(7, 3, 4, 2), np.float64)
    params, x, state, grad_hs, grad_state = inputs
    output, gradients = peers.in_jax(everything, inputs)
    trace = everything.forward(params, x, state)
    assert_same(everything.Output(trace.hs, trace.state), output, 1e-12)
    assert_same(everything.bptt(params, trace, grad_hs, grad_state), gradients, 1e-12)


@pytest.mark.parametrize("size", [Size(1, 1, 1, 1), Size(17, 3, 5, 1), Size(7, 1, 4, 3)], ids=str)
def test_every_operation_equals_torch(size):
    pytest.importorskip("torch")
    inputs = draw(everything, size, np.float64)
    params, x, state, grad_hs, grad_state = inputs
    comp = everything.bptt(params, everything.forward(params, x, state), grad_hs, grad_state)
    assert_same(comp, peers.in_torch(everything, inputs), 1e-12)


def test_the_function_on_arrays_of_numpy_is_the_trace():
    params, x, state, *_ = draw(everything, Size(7, 3, 1, 2), np.float64)
    comp = everything.step(params, x[0] @ params.U.T + params.b, state)
    assert_same(comp, everything.forward_step(params, x[0], state), 1e-14)


# Each at the tie, and where JAX has a rule of its own.
TIES = {
    "relu": lambda h, p: relu(h),
    "abs": lambda h, p: equations.abs(h),
    "maximum": lambda h, p: maximum(h, p),
    "minimum": lambda h, p: minimum(p, h),
    "maximum of a number": lambda h, p: maximum(0.0, h),
    "less": lambda h, p: where(h < p, 2 * h, 3 * h),
    "less or equal": lambda h, p: where(h <= p, 2 * h, 3 * h),
    "equal": lambda h, p: where(h == p, 2 * h, 3 * h),
    "not equal": lambda h, p: where(h != p, 2 * h, 3 * h),
    "power 0": lambda h, p: h**0 * h,
    "power 2": lambda h, p: h**2,
    "power 3.0": lambda h, p: h**3.0,
    "power -3": lambda h, p: (h + 2) ** -3,
    "power 0.5": lambda h, p: (h + 2) ** 0.5,
    "power of a number": lambda h, p: 3**h,
    "power of 0": lambda h, p: (h * h) ** (p + 2),
    "power to 0": lambda h, p: (h + 2) ** p,
    "softplus": lambda h, p: softplus(1e3 * h),
    "layer norm": lambda h, p: layer_norm(h),
}


@pytest.mark.parametrize("name", TIES)
def test_ties_are_as_in_jax(name):
    pytest.importorskip("jax")

    @cell(states="h", vectors="p")
    def tied(v, h):
        return TIES[name](h, v.p)

    h = np.array([[0.0, 0.0, 1.0, -1.0], [-0.0, 0.5, -0.5, 1.0]])
    inputs = draw(tied, Size(4, 1, 1, 2), np.float64)
    p = np.array([0.0, 0.5, 0.0, -1.0])
    inputs = inputs._replace(params=inputs.params._replace(p=p), state=tied.State(h), grad_hs=np.full((1, 2, 4), 1.5))
    output, gradients = peers.in_jax(tied, inputs)
    params, x, state, grad_hs, grad_state = inputs
    trace = tied.forward(params, x, state)
    np.testing.assert_allclose(trace.hs, output.hs, rtol=1e-14)
    comp = tied.bptt(params, trace, grad_hs, grad_state)
    for part, a in named(gradients).items():
        np.testing.assert_allclose(named(comp)[part], a, rtol=1e-12, atol=1e-14, err_msg=part)


# --- cells at the edges ------------------------------------------------------------------------------------------


def test_cells_without_u_or_w_or_what_is_unused():
    @cell(states="h c d", vectors="p")
    def delays(c, v, h, d):
        """h is what c was, c what d was; nothing comes in."""
        return c, d, h * v.p

    @cell(gates="a k")
    def half(u, w, h):
        u.k, w.a(h)  # named, so they have parameters, whose gradients are zero
        return h + where(u.a > 0, 1.0, 2.0)

    for kind in (delays, half):
        inputs = draw(kind, Size(7, 3, 5, 2), np.float64)
        params, x, state, grad_hs, grad_state = inputs
        trace = kind.forward(params, x, state)
        for truncate in (None, 1):
            kind.bptt(params, trace, grad_hs, grad_state, truncate)
        if pytest.importorskip("torch"):
            assert_same(kind.bptt(params, trace, grad_hs, grad_state), peers.in_torch(kind, inputs), 1e-13)
    params = delays.init_params(3, 7, np.random.default_rng(0))
    assert [a.shape for a in params] == [(0, 3), (0, 7), (0,), (7,)]
    params = half.init_params(3, 7, np.random.default_rng(0))
    assert [a.shape for a in params] == [(14, 3), (7, 7), (14,)]
    assert not named(half.bptt(params, half.forward(params, x.astype("f")), grad_hs.astype("f")))["params.U"].any()


def test_states_vectors_and_biases_begin_as_told():
    @cell(gates="f n", states={"h": 0, "m": -np.inf, "k": 2}, vectors={"gain": 1, "p": -0.5}, biases={"n": 1})
    def begun(u, w, v, h, m, k):
        return tanh(u.n + w.f(h)) * v.gain + v.p, maximum(u.f, m), k * 0.5

    params = begun.init_params(3, 50, np.random.default_rng(0), np.float64)
    np.testing.assert_array_equal(params.b[50:], 1)
    assert 0 < np.abs(params.b[:50]).max() <= 50**-0.5
    np.testing.assert_array_equal(params.gain, 1)
    np.testing.assert_array_equal(params.p, -0.5)
    state = begun.init_state(params, 4)
    assert [float(a[3, 49]) for a in state] == [0, -np.inf, 2]
    x = np.random.default_rng(1).standard_normal((3, 4, 3))
    output = begun.infer(params, x)
    assert_same(output, begun.infer(params, x, state), 0)
    np.testing.assert_allclose(output.state.m, (x @ params.U[:50].T + params.b[:50]).max(axis=0))
    # Where the last state has no loss, its gradient is zero, not what the state begins as; in networks too.
    grad_hs = np.ones((3, 4, 50))
    alone = begun.bptt(params, begun.forward(params, x), grad_hs)
    trace = stack.forward(begun, ((params,),), x)
    assert_same(stack.bptt(begun, ((params,),), trace, grad_hs).params[0][0], alone.params, 1e-14)
    assert all(np.isfinite(a).all() for a in alone.params)


def test_a_state_that_is_given_is_not_written_to_nor_handed_out():
    @cell(gates="n", states="h c")
    def kept(u, w, h, c):
        return u.n + w.n(h), c

    params, x, state, *_ = draw(kept, Size(3, 2, 4, 2), np.float64)
    last = kept.infer(params, x, state).state
    np.testing.assert_array_equal(last.c, state.c)
    assert not np.shares_memory(last.c, state.c)


def test_negative_truncate():
    params, x, state, grad_hs, _ = draw(rnn, Size(3, 2, 4, 2), np.float64)
    with pytest.raises(ValueError, match=r"^truncate: expected None or an integer >= 0"):
        rnn.bptt(params, rnn.forward(params, x, state), grad_hs, truncate=-1)


def test_pickles():
    params, x, state, grad_hs, grad_state = draw(lstm, Size(3, 2, 4, 2), np.float32)
    trace = lstm.forward(params, x, state)
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        sent = pickle.loads(pickle.dumps((lstm, params, trace), protocol))
        assert sent[0] is lstm
        assert type(sent[1]) is lstm.Params
        assert_same(lstm.bptt(*sent[1:], grad_hs, grad_state), lstm.bptt(params, trace, grad_hs, grad_state), 0)
    assert copy.deepcopy(lstm) is lstm


def test_a_chain_of_a_thousand_operations_takes_no_time_to_follow():
    """Each doubles how many ways lead back to the first: looked at once, that is nothing."""

    @cell(gates="n", states="h")
    def deep(u, h):
        for _ in range(1000):
            h = 0.5 * h + 0.5 * h * h
        return h + u.n

    assert 1000 < len(deep.nodes) < 5000
    params, x, _, grad_hs, _ = draw(deep, Size(1, 1, 2, 1), np.float64)
    assert np.isfinite(deep.bptt(params, deep.forward(params, x), grad_hs).x).all()


# --- the step as data --------------------------------------------------------------------------------------------


def test_stages_blocks_and_degrees():
    @cell(gates="a k c d", states="h", vectors="p")
    def staged(u, w, v, h):
        r = sigmoid(u.c + w.a(h) + w.k(h))
        return u.a * h + w.d(r * h) + v.p

    assert (staged.gates_u, staged.gates_w) == (("a", "c"), ("a", "k", "d"))
    first, second = staged.products
    assert (first.first, first.stop, first.stage) == (0, 2, 1)
    assert (second.first, second.stop, second.stage) == (2, 3, 2)
    assert staged.nodes[first.arg].op == "state"
    assert staged.nodes[second.arg].op == "mul"
    assert staged.degrees[staged.outputs[0]] == 2

    @cell(gates="a k", states="h")
    def affine(u, w, h):
        return sigmoid(u.a) * h - w.k(h) / 2 + where(u.k > 0, -h, 1.0)

    assert affine.degrees[affine.outputs[0]] == 1


def test_equal_cells_have_one_digest_whatever_their_names():
    def make(gates, order):
        source = f"""
            @cell(gates="{gates}", states="h")
            def other(u, w, h):
                f = sigmoid(u.{order[0]} + w.{order[0]}(h))
                unused = f * 2
                return h + f * (tanh(u.{order[1]} + w.{order[1]}(f * h)) - h)
        """
        return define(source, "other")

    assert make("f n", "fn").digest == make("z h_", ("z", "h_")).digest
    assert make("f n", "fn").digest != make("n f", "fn").digest


# --- what is refused ---------------------------------------------------------------------------------------------


def define(source, name="bad"):
    space = vars(equations) | {"np": np, "cell": cell}
    exec(compile(dedent(source).strip(), "cells.py", "exec"), space)
    return space[name]


STEPS = {  # the line at fault first, within a step of gates f and n, states h and c, vector p
    "a branch": ("if h > 0: h = c", r"control flow on values: expected where\(a > b, x, y\)"),
    "a loop": ("while h < 1: h = h + 1", "control flow on values"),
    "and": ("h = where(h > 0 and c > 0, h, c)", "control flow on values"),
    "max": ("h = max(h, c)", "control flow on values"),
    "a chain": ("h = where(0 < h < 1, h, c)", "control flow on values"),
    "in": ("h in (c, u.f)", "control flow on values"),
    "in a value": ("c in h", "expected operators on all units at once"),
    "an item": ("h = h[0]", "expected operators on all units at once"),
    "a slice": ("h[:, 0] = 1", "expected operators on all units at once"),
    "iteration": ("a, b = h", "expected operators on all units at once"),
    "float": ("float(h)", "got one of numbers"),
    "round": ("round(h)", "got one of numbers"),
    "math": ("import math; h = math.tanh(h)", "got one of numbers"),
    "NumPy": ("h = np.tanh(h)", "np.tanh: expected functions of reference.equations"),
    "NumPy's where": ("h = np.where(h > 0, h, c)", "np.where: expected functions of reference.equations"),
    "NumPy's sum": ("h = np.sum(h)", "expected operators and functions of reference.equations, got .sum|np.sum"),
    "an array": ("h = h + np.ones(3)", r"got an array of shape \(3,\): what each unit has of its own is in vectors"),
    "an array first": ("h = np.ones(3) * h", "and no array"),
    "in place": ("h += c", r"expected a = a \+ b, got a \+= b"),
    "in place on u": ("u.f += h", r"expected a = a \+ b, got a \+= b"),
    "to u": ("u.f = h", "u.f: expected operators, which make something new, got an assignment"),
    "an attribute": ("h = h.T", r"got \.T"),
    "matmul": ("h = h @ c", r"expected w\.g\(a\) for a product with a matrix"),
    "floor": ("h = h // 2", r"expected \+ - \* / \*\*"),
    "bits": ("h = where((h > 0) & (c > 0), h, c)", "expected one where in another"),
    "a name": ("h = foo(h)", "got: name 'foo' is not defined"),
    "a gate": ("h = u.q", r"u\.q: expected one of the gates \(f, n\), got q"),
    "a gate of w": ("h = w.q(h)", r"w\.q: expected one of the gates \(f, n\), got q"),
    "a vector": ("h = v.q * h", r"v\.q: expected one of the vectors \(p\), got q"),
    "a state": ("h = h + m", "got: name 'm' is not defined"),
    "two things": ("h = w.f(h) + w.f(c)", r"w\.f: expected one thing to multiply, got a second"),
    "a number": ("h = w.f(1.0)", r"w\.f: expected a state, or what is computed, \(B, H\), got the number 1.0"),
    "nothing": ("h = w.f()", r"w\.f: expected a state, or what is computed, \(B, H\), got nothing"),
    "a vector alone": ("h = w.f(tanh(v.p))", r"\(B, H\), got \(H,\), the same for all inputs"),
    "a comparison": ("h = h + (c > 0)", "expected numbers, got a comparison"),
    "a comparison in": ("h = sigmoid(c > 0)", "expected numbers, got a comparison"),
    "no comparison": ("h = where(h, c, 1)", "where: expected a comparison such as a > 0 first, got numbers"),
    "a string": ("h = h * 'a'", "expected a number or what the step is given or computes, got str"),
    "none": ("h = tanh(None)", "tanh: expected what the step is given or computes, got NoneType"),
    "a bool": ("h = h * True", "expected a number or what the step is given or computes, got bool"),
    "a key": ("{h: 1}", "got a value as a key"),
    "division": ("h / (1 // 0)", "by zero"),
}


@pytest.mark.parametrize("name", STEPS)
def test_a_step_is_refused_with_the_line(name):
    line, message = STEPS[name]
    source = f"""
        @cell(gates="f n", states="h c", vectors="p")
        def bad(u, w, v, h, c):
            a = tanh(u.n)
            {line}
            return h + a, c
    """
    with pytest.raises(EquationError, match=message) as refused:
        define(source)
    text = str(refused.value)
    assert text.startswith("cells.py:4: ")
    assert "\n" not in text
    assert "<class" not in text


CELLS = {
    "gates of a list": ("gates=['f'], states='h'", "u, h", "h", r"gates: expected names in a text"),
    "no state": ("gates='f', states=''", "u", "u.f", "states: expected h, and whatever else"),
    "h not first": ("states='c h'", "h, c", "h, c", "states: expected h first"),
    "twice": ("gates='f f'", "u, h", "h", "gates: expected each name once, got f twice"),
    "shared": ("gates='f h'", "u, h", "h", "states: expected other names than the gates', got h for both"),
    "u": ("states='h u'", "h, u", "h, u", "states: expected other names than u, w and v"),
    "U": ("vectors='U'", "v, h", "h", "vectors: expected names that Python has, and none of U"),
    "count": ("states='h count'", "h, count", "h, count", "and none of .* got count"),
    "index": ("vectors={'index': 1}", "v, h", "h", "and none of .* got index"),
    "a keyword": ("gates='lambda'", "u, h", "h", "and none of .* got lambda"),
    "a leading _": ("gates='_f'", "u, h", "h", "and none of .* got _f"),
    "a comma": ("gates='f, n'", "u, h", "h", "and none of .* got f,"),
    "a start": ("states={'h': 'zero'}", "h", "h", "states: expected a number where h begins, got 'zero'"),
    "NaN": ("states={'h': float('nan')}", "h", "h", "states: expected a number where h begins, got nan"),
    "a key": ("vectors={1: 2}", "h", "h", "vectors: expected names, got 1"),
    "biases": ("biases='f'", "h", "h", "biases: expected names and numbers"),
    "a bias of none": ("gates='f', biases={'g': 1}", "u, h", "h + u.f", r"biases: expected gates \(f\), got g"),
    "a bias of w": ("gates='f', biases={'f': 1}", "w, h", "w.f(h)", "biases: expected gates whose u the step uses"),
    "an argument": ("states='h'", "u, h, k", "h", "k: expected arguments among u, w, v, h, got k"),
    "any number": ("states='h'", "*h", "h", "h: expected arguments by name"),
    "too few": ("states='h c'", "h, c", "h + c", "return: expected the new h, c, 2 in all, got 1"),
    "too many": ("states='h'", "h", "h, h", "return: expected the new h, 1 in all, got 2"),
    "a list": ("states='h c'", "h, c", "[h, c]", "return: expected the new h, c, 2 in all, got 1"),
    "twice returned": ("states='h c'", "h, c", "h * c, h * c", "got the same for h and c: a state is returned once"),
    "a number": ("states='h c'", "h, c", "h, 1.0", "return: expected the new h, c, got the number 1.0 for c"),
    "no more": ("states='h'", "h", "None", "return: expected the new h, got nothing for h"),
    "a shape": ("states='h', vectors='p'", "v, h", "v.p + 1", r"each \(B, H\), got \(H,\) for h"),
    "a number after all": ("states='h'", "h", "h**0", r"each \(B, H\), got a number for h"),
    "a comparison": ("states='h'", "h", "h > 0", "return: expected the new h, got a comparison for h"),
    "three stages": ("gates='a k c'", "w, h", "w.a(w.k(w.c(h)))", r"w\.a: expected at most 2 products one after"),
}


@pytest.mark.parametrize("name", CELLS)
def test_a_cell_is_refused_in_one_line(name):
    declared, arguments, returned, message = CELLS[name]
    source = f"@cell({declared})\ndef bad({arguments}): return {returned}"
    with pytest.raises(ValueError, match=message) as refused:
        define(source)
    assert str(refused.value).startswith(("cells.py:1: bad: ", "cells.py:2: "))
    assert "\n" not in str(refused.value)


def test_what_is_no_function_is_refused():
    with pytest.raises(EquationError, match=r"^cell: expected a function, got type$"):
        cell(states="h")(int)


def test_a_helper_of_ones_own_is_told_by_its_own_line():
    source = """
        def gate(a):
            return sigmoid(a) if a else a
        @cell(gates="f")
        def bad(u, h):
            return gate(u.f)
    """
    with pytest.raises(EquationError, match=r"^cells\.py:2: control flow"):
        define(source)
