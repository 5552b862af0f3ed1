import numpy as np
import pytest

from bench.grid import inputs
from bench.grid.cases import Case
from bench.implementations import find, named, numpy
from bench.timing import verify


def case(operation="train", dtype="float32", H=8, T=4):
    return Case("rnn", operation, H, 3, T, 2, dtype, 1)


def second_call(case, arrays):
    prepared = numpy.prepare(case, arrays)
    prepared.call()
    return prepared.outputs(prepared.call())


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
    outputs = {key: value.astype(np.float32) for key, value in expected.items()}
    outputs[name] = outputs[name] * np.float32(factor)
    _, message = verify.compare(c, outputs, expected)
    assert message.startswith(f"{name}: error")
    assert ";" not in message


def test_one_nan_never_passes():
    c = case("forward")
    expected = verify.reference(c, inputs.make(c, 0))
    outputs = {key: value.astype(np.float32) for key, value in expected.items()}
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
    outputs = {key: value.astype(np.float32) for key, value in expected.items()}
    change(outputs)
    assert message in verify.compare(c, outputs, expected)[1]


def test_a_lower_precision_is_wrong():
    c = case("forward", "float64", H=100, T=50)
    arrays = inputs.make(c, 0)
    outputs = {key: value.astype(np.float32).astype(np.float64) for key, value in second_call(c, arrays).items()}
    assert verify.compare(c, outputs, verify.reference(c, arrays))[1]


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
