from dataclasses import replace
from importlib import import_module
from itertools import product

import numba
import numpy as np
import pytest

from bench.grid import inputs
from bench.grid.cases import BUDGETS, DTYPES, GATES, LOW, LOW_OPERATIONS, OPERATIONS, Case
from bench.implementations import UnsupportedError, find, named, numba_simd
from bench.timing import verify
from bench.timing.rounding import disturbing
from tests.bench.timing.planted import planted, planted_low, planted_network, second_call


def case(operation="train", dtype="float32", H=8, T=4):
    return Case("rnn", operation, H, 3, T, 2, dtype, 1)


def rounded(expected):
    return {name: one.values.astype(np.float32) for name, one in expected.items()}


GRADIENTS = ["params.U", "params.W", "params.b", "x", "state.h"]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("operation", "names"),
    [("forward_step", ["state.h"]), ("forward", ["hs", "state.h"]), ("bptt", GRADIENTS), ("train", GRADIENTS)],
)
@pytest.mark.parametrize(("H", "T"), [(1, 1), (8, 4), (100, 50)])
def test_numpy_is_right_by_name(operation, names, dtype, H, T):
    c = case(operation, dtype, H, 1 if operation == "forward_step" else T)
    arrays = inputs.make(c, 0)
    errors, message = verify.compare(c, second_call(c, arrays), verify.reference(c, arrays))
    assert message is None
    assert list(errors) == names
    assert verify.largest(errors) < 0.5


@pytest.mark.parametrize("name", GRADIENTS)
@pytest.mark.parametrize("factor", [1.0001, np.nan, np.inf, 0.0])
def test_a_wrong_gradient_is_named(name, factor):
    c = case()
    expected = verify.reference(c, inputs.make(c, 0))
    outputs = rounded(expected)
    outputs[name] = outputs[name] * np.float32(factor)
    _, message = verify.compare(c, outputs, expected)
    assert message.startswith(f"{name}: error")
    assert ";" not in message


def activated(operation, activation, dtype="float32", **sizes):
    return replace(case(operation, dtype, **sizes), activation=activation)


@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
@pytest.mark.parametrize("operation", ["forward", "bptt", "train"])
def test_other_activations_are_right_and_wrong_by_name(operation, activation):
    c = activated(operation, activation, H=20, T=10)
    arrays = inputs.make(c, 0)
    expected = verify.reference(c, arrays)
    assert share(c, second_call(c, arrays), expected) < 0.5
    for what, outputs in planted(c, arrays).items():
        assert verify.compare(c, outputs, expected)[1], what
    assert verify.compare(c, second_call(replace(c, activation="tanh"), arrays), expected)[1]


@pytest.mark.parametrize("side", [-1, 1])
@pytest.mark.parametrize("operation", ["bptt", "train"])
def test_the_slope_of_a_relu_at_zero_may_be_either(operation, side):
    """Where float32 has a sum of 0 and float64 one a little above or below."""
    c = activated(operation, "relu", H=20, T=10)
    arrays = inputs.make(c, 0)
    x = np.ones_like(arrays.x)
    params = tuple(one._replace(U=one.U.copy(), W=one.W.copy(), b=one.b.copy()) for one in arrays.params)
    for one in params:
        one.U[3], one.W[3], one.b[3] = 0, 0, -1
        one.U[3, 0] = 1
        one.U[3, 1] = side * 1e-9  # beside 1 nothing in float32
    arrays = arrays._replace(params=params, x=x)
    expected = verify.reference(c, arrays)
    assert share(c, second_call(c, arrays), expected) < 1
    wide = verify.over(arrays, lambda a: a.astype(np.float64))
    slopes = [verify._run(c, one)["params.U"][3] for one in (wide, verify.over(arrays, np.array))]
    assert np.array_equal(*slopes) == (side < 0)


def test_a_relu_that_grows_without_end_is_nobodys():
    c = activated("forward", "relu", T=50)
    arrays = inputs.make(c, 0)
    grown = tuple(one._replace(W=np.full_like(one.W, 10)) for one in arrays.params)
    with pytest.raises(UnsupportedError, match="with relu and these weights its numbers grow beyond float32"):
        verify.reference(c, arrays._replace(params=grown))


@pytest.mark.parametrize("low", LOW)
def test_below_float32_a_sigmoid_is_held_to_its_twin(low):
    c = activated("forward", "sigmoid", low, H=20, T=10)
    arrays = inputs.make(c, 0)
    prepared = numba_simd.prepare(c, arrays)
    assert verify.judge(c, arrays, prepared.outputs(prepared.call()), prepared.follows).message is None


def test_one_nan_never_passes():
    c = case("forward")
    expected = verify.reference(c, inputs.make(c, 0))
    outputs = rounded(expected)
    outputs["hs"][3, 1, 7] = np.nan
    errors, message = verify.compare(c, outputs, expected)
    assert message.startswith("hs: error nan")
    assert errors["hs"]["error"] is None
    assert verify.largest(errors) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda out: out.pop("x"), "outputs: expected"),
        (lambda out: out.update(x=out["x"][:1]), "x: expected float32"),
        (lambda out: out.update(x=out["x"].astype(np.float64)), "x: expected float32"),
    ],
)
def test_missing_or_misshapen_is_wrong(change, message):
    c = case()
    expected = verify.reference(c, inputs.make(c, 0))
    outputs = rounded(expected)
    change(outputs)
    assert message in verify.compare(c, outputs, expected)[1]


@pytest.mark.parametrize("operation", ["forward", "bptt"])
@pytest.mark.parametrize("cell", GATES)
def test_a_network_that_is_wrong_is_called_wrong(cell, operation):
    c = Case(cell, operation, 9, 3, 6, 4, "float32", 1, 2, 2, "ragged")
    assert c.steps.min() < c.seq_len
    arrays = inputs.make(c, 0)
    expected = verify.reference(c, arrays)
    assert share(c, second_call(c, arrays), expected) < 0.5
    for what, outputs in planted_network(c, arrays).items():
        assert verify.compare(c, outputs, expected)[1], what


def test_an_output_rounded_to_a_lower_precision_is_wrong():
    c = case("forward", "float64", H=100, T=50)
    arrays = inputs.make(c, 0)
    outputs = {key: value.astype(np.float32).astype(np.float64) for key, value in second_call(c, arrays).items()}
    assert verify.compare(c, outputs, verify.reference(c, arrays))[1]


def share(case, outputs, expected):
    """Return the largest error of the outputs as a share of its bound."""
    return verify.largest(verify.compare(case, outputs, expected)[0])


def test_a_unit_that_saturates_is_right():
    c = Case("rnn", "bptt", 1, 16, 1, 1, "float32", 1)
    arrays = inputs.make(c, 0)
    assert share(c, second_call(c, arrays), verify.reference(c, arrays)) < 0.5


def draw(seed):
    """Return a small case, its inputs, and how many times as large as usual its weights are: 10 saturate."""
    rng = np.random.default_rng(seed)
    cell, operation, dtype = (str(rng.choice(names)) for names in (list(GATES), OPERATIONS, DTYPES))
    H, I, T, B = (int(rng.integers(1, end)) for end in (21, 9, 9, 5))
    times = int(rng.choice([1, 1, 3, 10, 100]))
    c = Case(cell, operation, H, I, 1 if operation == "forward_step" else T, B, dtype, 1)
    arrays = inputs.make(c, seed)
    return c, arrays._replace(params=inputs.over(arrays.params, lambda array: array * array.dtype.type(times))), times


@pytest.fixture
def threads_of_their_own():
    """Leave as many threads to the tests that come after as there were before."""
    before = numba.get_num_threads()
    yield
    numba.set_num_threads(before)


@pytest.mark.usefixtures("threads_of_their_own")
@pytest.mark.parametrize("seeds", [range(60), pytest.param(range(1000), marks=pytest.mark.slow)], ids=len)
def test_right_results_are_called_right_and_wrong_ones_wrong(seeds):
    right, wrong, coarse = [], [], []
    names = [name for name in ("numpy", "numba-simd", "numba-jit") if name != "numba-jit" or len(seeds) > 100]
    modules = {name: import_module(find()[name]) for name in names}
    for module in modules.values():
        module.start(1)
    for seed in seeds:
        c, arrays, times = draw(seed)
        expected = verify.reference(c, arrays)
        for name, module in modules.items():
            if name == "numba-jit" and seed % 20:
                continue
            prepared = module.prepare(c, arrays)
            prepared.call()
            errors, message = verify.compare(c, prepared.outputs(prepared.call()), expected)
            assert message is None, f"{name} is called wrong: seed {seed}, {c.id}: {message}"
            if (name, c.dtype) != ("numpy", "float64"):  # which is the reference
                right.append(verify.largest(errors))
        if times > 3:
            continue
        for what, outputs in planted(c, arrays).items():
            found = share(c, outputs, expected)
            low = what == "sums of a lower precision"
            assert found > (50 if low else 1000), f"{what} is called right: seed {seed}, {c.id}: {found}"
            (coarse if low else wrong).append(found)
    print(f"right: median {np.median(right):.2g}, most {max(right):.2g} of the bound")
    print(f"wrong: least {min(wrong):.2g}; sums of a lower precision: least {min(coarse):.2g}")
    assert 0.05 < np.median(right) < 0.2


@pytest.mark.parametrize(
    "c",
    [
        Case("rnn", "train", 128, 128, 50, 32, "float32", 1),
        Case("gru", "train", 64, 1, 1000, 1, "float32", 1),
        pytest.param(Case("lstm", "train", 512, 1, 25, 64, "float32", 1), marks=pytest.mark.slow),
    ],
    ids=lambda c: c.id,
)
def test_the_bound_of_a_large_case_is_neither_tight_nor_loose(c):
    arrays = inputs.make(c, 0)
    expected = verify.reference(c, arrays)
    assert 0.05 < share(c, second_call(c, arrays), expected) < 0.5
    for what, outputs in planted(c, arrays).items():
        assert share(c, outputs, expected) > 10, what


def test_what_the_first_worker_wrote_is_what_the_next_one_reads(tmp_path):
    c = case()
    arrays = inputs.make(c, 0)
    written = verify.reference(c, arrays, tmp_path / "case.npz")
    for name, one in verify.reference(c, None, tmp_path / "case.npz").items():
        np.testing.assert_array_equal(one.values, written[name].values)
        assert one.bound == written[name].bound > 0


@pytest.mark.parametrize("cell", GATES)
def test_no_array_of_the_reference_is_spared_from_erring(cell):
    """An array made by `np.empty` would be: what is computed from it alone would be taken for exact."""
    c = Case(cell, "train", 4, 3, 2, 2, "float32", 1)
    arrays = inputs.over(inputs.make(c, 0), lambda array: array.astype(np.float64))
    disturb = disturbing("float32", np.random.default_rng(0))
    params, x, state, grad_hs, _ = inputs.over(arrays, disturb)
    module = import_module(f"reference.{cell}")
    trace = module.forward(params[0], x, state)
    for name, array in (named(trace) | named(module.bptt(params[0], trace, grad_hs))).items():
        assert type(array) is type(x), name


def low_cases():
    for low, cell, operation in product(LOW, GATES, LOW_OPERATIONS):
        steps = 1 if operation == "forward_step" else 6
        yield pytest.param(Case(cell, operation, 33, 9, steps, 4, low, 1), id=f"{cell}-{operation}-{low}")


@pytest.mark.parametrize("c", [*low_cases()])
def test_below_float32_ours_is_held_to_its_twin(c):
    arrays = inputs.make(c, 0)
    ours = second_call(c, arrays, numba_simd)
    errors, message, loss = verify.judge(c, arrays, ours, follows=c.low)
    assert message is None
    assert verify.largest(errors) < 0.5
    assert 1e-4 < loss < BUDGETS[c.low]
    for what, outputs in planted_low(c, arrays).items():
        assert share(c, outputs, verify.twin(c, arrays, outputs)) > 50, what
        assert "error" in verify.judge(c, arrays, outputs, follows=c.low).message, what


@pytest.mark.parametrize("low", LOW)
def test_below_float32_a_long_sequence_of_ours_is_right(low):
    c = Case("lstm", "forward", 64, 1, 300, 8, low, 1)
    arrays = inputs.make(c, 0)
    assert verify.judge(c, arrays, second_call(c, arrays, numba_simd), follows=low).message is None


def test_below_float32_what_computes_in_float32_is_verified_as_ever():
    c = Case("gru", "forward", 33, 9, 6, 4, "int8", 1)
    arrays = inputs.make(c, 0)
    errors, message, loss = verify.judge(c, arrays, second_call(c, arrays), follows="float32")
    assert message is None
    assert verify.largest(errors) < 0.5
    assert loss < 1e-5
    rounded = second_call(c, arrays, numba_simd)
    assert verify.judge(c, arrays, rounded, follows="float32").message.startswith("hs: error")


@pytest.mark.parametrize("low", LOW)
def test_below_float32_a_librarys_own_rounding_has_a_budget(low):
    c = Case("lstm", "forward", 33, 9, 6, 4, low, 1)
    arrays = inputs.make(c, 0)
    for share, right in ((0.9, True), (1.1, False)):
        outputs = second_call(c, arrays)
        outputs["hs"][3, 1, 7] += np.float32(share * BUDGETS[low])
        _, message, loss = verify.judge(c, arrays, outputs)
        assert (message is None) == right
        assert loss == pytest.approx(share * BUDGETS[low], rel=1e-3)
    outputs["hs"][3, 1, 7] = np.nan
    assert verify.judge(c, arrays, outputs)[1:] == ("hs: error nan, bound" + message.split("bound")[1], None)


def test_in_full_precision_nothing_is_lost():
    c = case("forward")
    arrays = inputs.make(c, 0)
    assert verify.judge(c, arrays, second_call(c, arrays)).loss is None


def test_inputs_are_the_seeds():
    a, b, other = inputs.make(case(), 0), inputs.make(case("forward"), 0), inputs.make(case(), 1)
    for name, value in named(a.params[1]).items():
        np.testing.assert_array_equal(value, named(b.params[1])[name])
        assert value.dtype == np.float32
    assert not np.array_equal(a.x, other.x)
    assert not np.array_equal(a.params[0].W, a.params[1].W)
    assert np.abs(a.params[0].W).max() <= 1 / np.sqrt(8)


def test_implementations_are_found_by_their_files():
    names = list(find())
    assert names[:3] == ["numpy", "numba-jit", "numba-simd"]
    assert "torch" in names
