"""Networks by the kernels: as by the reference, at every size, in both dtypes, on any number of threads."""

import itertools
from importlib import import_module
from types import SimpleNamespace

import numpy as np
import pytest

from bench.implementations import named
from kernels import lstm, stack
from kernels.core.threads import team
from reference import stack as reference_stack
from tests.kernels.cells import CELLS, by_cell, label
from tests.kernels.compare import DTYPES, assert_close, handed_on, poison, rebuild
from tests.kernels.sharing import share_everything
from tests.networks import Shape, arrays, assert_equal_arrays, draw, in_torch

LENGTHS = ("ragged", "full")
SIZES = [
    Shape(L, D, H, I, T, B, lengths)
    for (L, D, lengths), H, I, T, B in zip(
        itertools.product((1, 2, 3), (1, 2), LENGTHS),
        itertools.cycle((17, 1, 65, 7, 100, 63)),
        itertools.cycle((3, 1, 40)),
        itertools.cycle((13, 40, 1, 20, 5)),
        itertools.cycle((5, 33, 1, 2, 17, 8, 70)),
        strict=False,
    )
]
ALL_SIZES = [
    Shape(*size)
    for size in itertools.product((1, 2, 3), (1, 2), (1, 7, 17, 65, 100), (1, 3), (1, 13, 40), (1, 2, 5, 33), LENGTHS)
]
EDGES = [Shape(2, 2, 17, 3, 6, 5, "ragged"), Shape(3, 1, 33, 16, 20, 1), Shape(2, 1, 48, 5, 20, 33, "ragged")]
# What is compiled where time is short: float64 and below float32 for one cell, and for `slow` all.
CELL = "lstm"
LOW = ("bfloat16", "int8")


def slow(cell):
    return [] if cell.name == CELL else pytest.mark.slow


by_dtype = pytest.mark.parametrize(
    ("dtype", "cell"),
    [
        pytest.param(dtype, cell, marks=[] if dtype == np.float32 else slow(cell), id=f"{label(dtype)}-{cell}")
        for cell, dtype in itertools.product(CELLS, DTYPES)
    ],
)
by_size = pytest.mark.parametrize("shape", SIZES, ids=str)
by_edge = pytest.mark.parametrize("shape", EDGES, ids=str)


def options(cell, n):
    """Return the options of a cell in turn, by name."""
    chosen = cell.options[n % len(cell.options)]
    return {"activation": chosen[0]} if chosen else {}


def check(cell, shape, dtype, one_hot=None, **options):
    inputs = draw(cell.kernels, shape, dtype, one_hot=one_hot)
    lengths, n = inputs.lengths, shape.D * shape.H + shape.H + shape.I + 1

    def run(function):
        def called(module, inputs):
            functions = stack if module is cell.kernels else reference_stack
            result = getattr(functions, function)(module, *inputs[:3], lengths, **options)
            return stack.Output(result.hs, result.state)

        return called

    def gradients(module, inputs):
        functions = stack if module is cell.kernels else reference_stack
        params, x, state, _, grad_hs, grad_state = inputs
        trace = functions.forward(module, params, x, state, lengths, **options)
        if module is not cell.kernels:
            trace = handed_on(trace)
        return functions.bptt(module, params, trace, grad_hs, grad_state, **options)

    inputs = inputs._replace(lengths=None)
    for call in (run("infer"), run("forward")):
        assert_close(call(cell.kernels, inputs), cell.reference, inputs, call, n * shape.L)
    if options.get("activation") != "relu":  # whose slopes differ where a sum is almost 0
        everything = n * shape.L + shape.T * shape.B
        assert_close(gradients(cell.kernels, inputs), cell.reference, inputs, gradients, everything)


@by_dtype
@by_size
def test_as_the_reference(shape, dtype, cell):
    check(cell, shape, dtype, **options(cell, shape.L + shape.D))


@pytest.mark.slow
@by_dtype
def test_as_the_reference_at_every_size(dtype, cell):
    """In float64 but one cell has every size, the others one of four: what depends on the size is the same code."""
    some = 1 if dtype == np.float32 or cell.name == CELL else 4
    for n, shape in enumerate(ALL_SIZES[::some]):
        check(cell, shape, dtype, **options(cell, n))


@pytest.mark.parametrize(
    ("cell", "index", "dtype"),
    [
        pytest.param(CELLS[2], np.int64, np.float32, id="lstm-int64"),
        *(pytest.param(*given, marks=pytest.mark.slow) for given in itertools.product(CELLS, [np.int32], [np.float64])),
    ],
)
def test_one_hot_as_the_reference(cell, index, dtype):
    check(cell, EDGES[0], dtype, one_hot=index)


@pytest.mark.parametrize("cell", [pytest.param(cell, marks=slow(cell), id=str(cell)) for cell in CELLS])
@by_edge
def test_equal_to_pytorch(shape, cell):
    _equal_to_pytorch(cell, shape, 0)


@pytest.mark.parametrize("seed", [pytest.param(seed, marks=slow(CELLS[seed % 3])) for seed in range(10)])
def test_ten_stacks_drawn_at_random_are_equal_to_pytorch(seed):
    """By every gradient, in float64."""
    rng = np.random.default_rng(seed)
    L, D, H, I, T, B = (int(rng.integers(1, most, endpoint=True)) for most in (4, 2, 70, 40, 30, 40))
    lengths = str(rng.choice(LENGTHS))
    _equal_to_pytorch(CELLS[seed % 3], Shape(L, D, H, I, T, B, lengths), seed)


def _equal_to_pytorch(cell, shape, seed):
    pytest.importorskip("torch")
    inputs = draw(cell.kernels, shape, seed=seed)
    params, x, state, lengths, grad_hs, grad_state = inputs
    trace = stack.forward(cell.kernels, params, x, state, lengths)
    gradients = stack.bptt(cell.kernels, params, trace, grad_hs, grad_state)
    for found, expected in zip((trace, gradients), in_torch(cell.kernels, inputs), strict=True):
        assert_equal_arrays(arrays(found), expected, 1e-11)


def flat(tree):
    """Return the arrays in nested tuples."""
    if tree is None:
        return []
    return [tree] if isinstance(tree, np.ndarray) else [a for part in tree for a in flat(part)]


def every_call(cell, inputs, array=np.copy):
    """Return every function of a network with these inputs, by name; `array` copies what lies between two calls."""
    params, x, state, lengths, grad_hs, grad_state = inputs
    prepared = stack.prepare(cell, params)
    trace = rebuild(stack.forward(cell, params, x, state, lengths), stack, array)
    found = {
        "infer": lambda: stack.infer(cell, params, x, state, lengths),
        "infer prepared": lambda: stack.infer(cell, prepared, x, None, lengths),
        "forward": lambda: stack.forward(cell, params, x, state, lengths),
        "bptt": lambda: stack.bptt(cell, params, trace, grad_hs, grad_state),
        "bptt without grad_state": lambda: stack.bptt(cell, params, trace, grad_hs),
    }
    if x.dtype == np.float32 and cell.__name__.endswith(CELL):
        for low in LOW:
            weights = stack.prepare(cell, params, low)
            found[low] = lambda weights=weights: stack.infer(cell, weights, x, state, lengths)
    return found


@by_edge
@by_dtype
def test_as_many_threads_as_there_are_give_what_one_gives(shape, dtype, cell, monkeypatch):
    """To the bit."""
    monkeypatch.setattr(team, "_board", np.zeros((5, team._ROW), np.int64))
    monkeypatch.setattr(team, "_helpers", [])
    share_everything(monkeypatch.setattr)
    calls = every_call(cell.kernels, draw(cell.kernels, shape, dtype))
    found = []
    for n in (1, 2, 3, 5):
        monkeypatch.setattr(stack, "most_threads", lambda n=n: n)
        found.append({call: arrays(function()) for call, function in calls.items()})
    for others in found[1:]:
        for call, ref in found[0].items():
            for name, a in ref.items():
                np.testing.assert_array_equal(others[call][name], a, err_msg=f"{call} {name}")


@by_cell
@by_edge
def test_inputs_stay_and_results_are_their_own(shape, cell):
    inputs = draw(cell.kernels, shape, np.float32)
    before = [a.copy() for a in flat(inputs)]
    for a in flat(inputs):
        a.flags.writeable = False
    for call, function in every_call(cell.kernels, inputs).items():
        made = arrays(function())
        for name, a in made.items():
            assert a.flags.owndata, f"{call}: {name}"
            others = [*flat(inputs), *(b for other, b in made.items() if other != name)]
            assert not any(np.shares_memory(a, b) for b in others), f"{call}: {name}"
    for a, b in zip(flat(inputs), before, strict=True):
        np.testing.assert_array_equal(a, b)


@by_cell
@by_edge
def test_old_memory_does_not_show(shape, cell, monkeypatch):
    calls = every_call(cell.kernels, draw(cell.kernels, shape, np.float32))
    refs = {call: arrays(function()) for call, function in calls.items()}
    poison(monkeypatch)
    for call, function in calls.items():
        for name, a in arrays(function()).items():
            np.testing.assert_array_equal(a, refs[call][name], err_msg=f"{call}: {name}")


@by_cell
def test_what_lies_behind_a_sequences_end_is_never_seen(cell):
    inputs = draw(cell.kernels, EDGES[0], np.float32)
    hidden = inputs._replace(x=inputs.x.copy(), grad_hs=inputs.grad_hs.copy())
    for b, n in enumerate(inputs.lengths):
        hidden.x[n:, b], hidden.grad_hs[n:, b] = np.nan, np.nan
    seen, plain = (every_call(cell.kernels, given) for given in (hidden, inputs))
    for call, function in plain.items():
        found = arrays(seen[call]())
        for name, a in arrays(function()).items():
            np.testing.assert_array_equal(found[name], a, err_msg=f"{call}: {name}")


@by_cell
def test_a_nan_reaches_its_own_sequence_alone(cell):
    inputs = draw(cell.kernels, EDGES[0], np.float32)
    inputs.x[0, 1, 0] = np.nan
    hs = stack.infer(cell.kernels, *inputs[:4]).hs
    assert np.isnan(hs[: inputs.lengths[1], 1]).any()
    assert np.isfinite(np.delete(hs, 1, axis=1)).all()


@pytest.mark.parametrize("cell", [pytest.param(cell, marks=slow(cell), id=str(cell)) for cell in CELLS])
@pytest.mark.parametrize("low", LOW)
@pytest.mark.parametrize("shape", [EDGES[0], Shape(2, 1, 65, 40, 4, 17, "ragged"), Shape(2, 2, 33, 5, 3, 1)], ids=str)
def test_below_float32_a_layer_is_as_close_to_its_twin_as_a_cell(shape, low, cell):
    """Each layer from the inputs that it had, which are what the layers below it give."""
    inputs = draw(cell.kernels, shape, np.float32)
    params, x, state, lengths, *_ = inputs
    state = tuple(tuple(one._replace(h=one.h * np.float32(0.5)) for one in layer) for layer in state)
    for l in range(shape.L):
        below = (
            x
            if l == 0
            else stack.infer(cell.kernels, stack.prepare(cell.kernels, params[:l], low), x, state[:l], lengths).hs
        )
        weights = stack.prepare(cell.kernels, params[l : l + 1], low)
        comp = stack.infer(cell.kernels, weights, below, state[l : l + 1], lengths)
        whole = stack.infer(cell.kernels, stack.prepare(cell.kernels, params[: l + 1], low), x, state[: l + 1], lengths)
        np.testing.assert_array_equal(comp.hs, whole.hs)
        module = SimpleNamespace(**vars(cell.reference))
        twin = reference_stack.prepare(module, rebuild(params[l : l + 1], cell.reference), low)
        ref = reference_stack.infer(module, twin, below, rebuild(state[l : l + 1], cell.reference), lengths)
        # A state that is rounded the other way moves a sum by a step of one weight: rare, and small in so few steps.
        np.testing.assert_allclose(comp.hs, ref.hs, atol=2e-3 if low == "bfloat16" else 4e-3)
        assert np.median(np.abs(comp.hs - ref.hs)) < 1e-6
        below = whole.hs


@by_cell
def test_a_single_step_of_a_stack(cell):
    inputs = draw(cell.kernels, Shape(3, 1, 17, 3, 1, 5), np.float32)
    comp = stack.forward_step(cell.kernels, inputs.params, inputs.x[0], inputs.state)
    ref = stack.infer(cell.kernels, *inputs[:3]).state
    for name, a in named(ref, "state").items():
        np.testing.assert_allclose(named(comp, "state")[name], a, atol=1e-6, err_msg=name)


INPUTS = draw(lstm, Shape(2, 2, 5, 3, 4, 3, "ragged"), np.float32)
P, S = INPUTS.params, INPUTS.state
OTHER = draw(lstm, Shape(2, 2, 6, 3, 4, 3), np.float32).params
DOUBLE = draw(lstm, Shape(2, 2, 5, 3, 4, 3), np.float64).params
gru = import_module("kernels.gru")
REFUSED = [
    ({"lengths": [1, 2, 3]}, TypeError, "lengths: expected a numpy.ndarray or None, got list"),
    ({"lengths": np.ones(3)}, TypeError, "lengths: expected integers, got dtype float64"),
    ({"lengths": np.array([1, 2])}, ValueError, r"lengths: expected shape \(3,\), got \(2,\)"),
    ({"lengths": np.array([0, 1, 2])}, ValueError, "lengths: expected integers from 1 to 4, got 0 to 2"),
    ({"lengths": np.array([-1, 1, 2])}, ValueError, "lengths: expected integers from 1 to 4, got -1 to 2"),
    ({"lengths": np.array([1, 5, 2])}, ValueError, "lengths: expected integers from 1 to 4, got 1 to 5"),
    ({"params": list(P)}, TypeError, "params: expected a tuple of layers, got list"),
    ({"params": P[0][0]}, TypeError, "params: expected a tuple of layers, got Params"),
    ({"params": ()}, ValueError, "params: expected one or more layers, got 0"),
    ({"params": (P[0], P[1][:1])}, ValueError, r"params\[1\]: expected 2 directions, got 1"),
    ({"params": ((),)}, ValueError, r"params\[0\]: expected 1 or 2 directions, got 0"),
    ({"params": (P[0] * 2,)}, ValueError, r"params\[0\]: expected 1 or 2 directions, got 4"),
    ({"params": (P[0], P[0])}, ValueError, r"params\[1\]\[0\]: expected 10 inputs and 5 hidden units, got 3 inputs"),
    ({"params": (P[0], OTHER[1])}, ValueError, r"params\[1\]\[0\]: expected 10 inputs and 5 hidden units, got 12"),
    ({"params": (P[0], DOUBLE[1])}, TypeError, r"params\[1\]\[0\]: expected weights of float32, as before it, got"),
    ({"params": (P[0], (P[1][0], None))}, TypeError, r"params\[1\]\[1\]: expected Params, got NoneType"),
    ({"params": (P[0], (P[1][0]._replace(W=P[1][0].W[:-1]), P[1][1]))}, ValueError, r"params\[1\]\[0\].W: expected"),
    ({"params": stack.prepare(lstm, P)[:1] + P[1:]}, TypeError, r"params\[1\]\[0\]: expected weights prepared for 4"),
    ({"cell": gru}, TypeError, r"params\[0\]\[0\]: expected kernels.gru.Params, got kernels.lstm.Params"),
    ({"cell": import_module("reference.lstm")}, TypeError, "cell: expected kernels.rnn, kernels.gru or kernels.lstm"),
    ({"x": INPUTS.x[:, :, :2].copy()}, ValueError, "x: expected shape"),
    ({"x": INPUTS.x.astype(np.float64)}, TypeError, "x: expected dtype float32"),
    ({"x": np.full((4, 3), 3)}, ValueError, "x: expected indices from 0 to 2, got 3 to 3"),
    ({"state": S[:1]}, ValueError, "state: expected 2 layers, got 1"),
    ({"state": (S[0], S[1][:1])}, ValueError, r"state\[1\]: expected 2 directions, got 1"),
    ({"state": (S[0], (S[1][0], S[1][1]._replace(c=S[1][1].c[:2])))}, ValueError, r"state\[1\]\[1\].c: expected shape"),
]


@pytest.mark.parametrize(("change", "error", "message"), REFUSED, ids=[str(n) for n in range(len(REFUSED))])
@pytest.mark.parametrize("function", [stack.infer, stack.forward])
def test_bad_arguments_are_refused(function, change, error, message):
    arguments = {"cell": lstm, "params": P, "x": INPUTS.x, "state": S, "lengths": INPUTS.lengths} | change
    with pytest.raises(error, match=message):
        function(**arguments)


def test_bad_arguments_of_bptt_are_refused():
    trace = stack.forward(lstm, *INPUTS[:4])
    kept = trace.kept[0][0]
    for change, error, message in (
        ({"grad_hs": INPUTS.grad_hs[:-1]}, ValueError, "grad_hs: expected shape"),
        ({"grad_state": S[:1]}, ValueError, "grad_state: expected 2 layers, got 1"),
        ({"params": stack.prepare(lstm, P)}, TypeError, r"params\[0\]\[0\]: expected Params, got Prepared"),
        ({"trace": trace._replace(below=())}, ValueError, "trace.below: expected 1 arrays, got 0"),
        (
            {"trace": trace._replace(kept=((kept[:1], kept), trace.kept[1]))},
            ValueError,
            r"trace.kept\[0\]\[0\]: expected 2",
        ),
        ({"trace": trace._replace(lengths=np.array([1, 2, 9]))}, ValueError, "trace.lengths: expected integers from 1"),
        ({"trace": trace._replace(hs=trace.hs[:, :, :5].copy())}, ValueError, "trace.hs: expected shape"),
        ({"trace": None}, TypeError, "trace: expected Trace, got NoneType"),
    ):
        arguments = {"cell": lstm, "params": P, "trace": trace, "grad_hs": INPUTS.grad_hs} | change
        with pytest.raises(error, match=message):
            stack.bptt(**arguments)


def test_below_float32_there_is_no_trace():
    with pytest.raises(ValueError, match="params: expected weights of float32 for forward"):
        stack.forward(lstm, stack.prepare(lstm, P, "int8"), INPUTS.x)


def test_two_directions_take_no_single_step():
    with pytest.raises(ValueError, match="params: expected one direction"):
        stack.forward_step(lstm, P, INPUTS.x[0], S)


def test_an_unknown_option_is_refused():
    with pytest.raises(TypeError, match="activation"):
        stack.infer(lstm, P, INPUTS.x, activation="tanh")
    with pytest.raises(ValueError, match="activation: expected 'tanh', 'relu', 'sigmoid', got 'swish'"):
        stack.infer(import_module("kernels.rnn"), P, INPUTS.x, activation="swish")


@pytest.mark.parametrize("dtype", DTYPES, ids=label)
def test_params_and_state_are_drawn_as_cells_do(dtype):
    params = stack.init_params(lstm, 3, 5, layers=2, bidirectional=True, rng=np.random.default_rng(0), dtype=dtype)
    assert [[one.U.shape for one in layer] for layer in params] == [[(20, 3)] * 2, [(20, 10)] * 2]
    state = stack.init_state(lstm, params, 4)
    assert all(a.shape == (4, 5) and a.dtype == dtype and not a.any() for a in flat(state))
