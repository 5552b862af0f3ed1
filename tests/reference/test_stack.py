"""Networks by NumPy: equal to PyTorch, to the definition of ONNX's operators, to central differences, and to cells."""

from importlib import import_module

import numpy as np
import pytest

from reference import stack
from reference.layouts import to_onnx
from tests.networks import Shape, arrays, assert_equal_arrays, draw, in_torch

CELLS = [import_module(f"reference.{name}") for name in ("rnn", "gru", "lstm")]
ROUNDING = 1e-12  # float64, sums of some hundred numbers of about 1
SHAPES = [
    Shape(1, 1, 4, 3, 7, 5, "ragged"),
    Shape(1, 2, 5, 3, 7, 4),
    Shape(2, 1, 1, 1, 6, 1),
    Shape(2, 2, 4, 3, 7, 5, "ragged"),
    Shape(3, 2, 3, 2, 5, 1, "ragged"),
    Shape(3, 1, 7, 2, 1, 3),
]
by_cell = pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.__name__.split(".")[-1])
by_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def both(cell, inputs):
    """Return the arrays of an inference and of the gradients, by name."""
    params, x, state, lengths, grad_hs, grad_state = inputs
    trace = stack.forward(cell, params, x, state, lengths)
    return arrays(stack.infer(cell, params, x, state, lengths)), arrays(
        stack.bptt(cell, params, trace, grad_hs, grad_state)
    )


@by_cell
@by_shape
def test_equal_to_pytorch(shape, cell):
    pytest.importorskip("torch")
    inputs = draw(cell, shape)
    for found, expected in zip(both(cell, inputs), in_torch(cell, inputs), strict=True):
        assert_equal_arrays(found, expected, ROUNDING)


def in_onnx(cell, inputs):
    """Return hs and the last states by the ONNX operators, as their reference evaluator computes them.

    It takes one direction and no lengths. The operators define the other direction as the first over the reversed
    sequence, and `sequence_lens` as each sequence by itself, with zeros behind it.
    """
    from onnx import TensorProto, helper
    from onnx.reference import ReferenceEvaluator

    params, x, state, lengths, *_ = inputs
    H, kind = params[0][0].W.shape[1], cell.__name__.split(".")[-1].upper()
    fields = cell.State._fields
    options = {"linear_before_reset": 1} if kind == "GRU" else {}
    last_names = [f"last.{field}" for field in fields]
    node = helper.make_node(kind, ["x", "W", "R", "B", "", *fields], ["hs", *last_names], hidden_size=H, **options)
    values = [helper.make_tensor_value_info(name, TensorProto.DOUBLE, None) for name in ("x", "W", "R", "B", *fields)]
    outs = [helper.make_tensor_value_info(name, TensorProto.DOUBLE, None) for name in ("hs", *last_names)]
    run = ReferenceEvaluator(helper.make_model(helper.make_graph([node], "cell", values, outs))).run
    T, B = x.shape[:2]
    last = []
    for layer, before in zip(params, state, strict=True):
        outputs, after = [], []
        for d, (one, start) in enumerate(zip(layer, before, strict=True)):
            W, R, bias = to_onnx(one)
            hs, ends = np.zeros((T, B, H)), [np.empty((B, H)) for _ in fields]
            for b in range(B):
                n = T if lengths is None else lengths[b]
                turn = slice(None, None, -1) if d else slice(None)
                given = {"x": np.ascontiguousarray(x[:n, b : b + 1][turn]), "W": W, "R": R, "B": bias}
                given |= {field: a[None, b : b + 1] for field, a in zip(fields, start, strict=True)}
                found, *parts = run(None, given)
                hs[:n, b] = found.reshape(n, H)[turn]
                for end, part in zip(ends, parts, strict=True):
                    end[b] = part.reshape(H)
            outputs.append(hs)
            after.append(cell.State(*ends))
        x = np.concatenate(outputs, axis=2)
        last.append(tuple(after))
    return arrays(stack.Output(x, tuple(last)))


@by_shape
@by_cell
def test_equal_to_the_onnx_operators(shape, cell):
    pytest.importorskip("onnx")
    inputs = draw(cell, shape)
    assert_equal_arrays(both(cell, inputs)[0], in_onnx(cell, inputs), ROUNDING)


@by_cell
@pytest.mark.parametrize("shape", [SHAPES[3], SHAPES[4]._replace(T=4)], ids=str)
def test_gradients_are_central_differences(shape, cell):
    inputs = draw(cell, shape)
    _, gradients = both(cell, inputs)

    def loss():
        output = stack.infer(cell, *inputs[:4])
        total = (output.hs * inputs.grad_hs).sum()
        grads = arrays(stack.Output(inputs.grad_hs, inputs.grad_state))
        return total + sum((a * grads[name]).sum() for name, a in arrays(output).items() if name != "hs")

    given = arrays(stack.Gradients(inputs.params, inputs.x, inputs.state))
    assert given.keys() == gradients.keys()
    rng, step = np.random.default_rng(0), 1e-6
    for name, a in given.items():
        for index in rng.choice(a.size, min(a.size, 6), replace=False):
            kept = a.flat[index]
            a.flat[index] = kept + step
            above = loss()
            a.flat[index] = kept - step
            slope = (above - loss()) / (2 * step)
            a.flat[index] = kept
            assert slope == pytest.approx(gradients[name].flat[index], rel=1e-6, abs=1e-7), f"{name}[{index}]"


@by_cell
@pytest.mark.parametrize(
    "shape", [SHAPES[3], SHAPES[4], SHAPES[0]._replace(lengths=np.array([1, 7, 1, 3, 2]))], ids=str
)
def test_a_ragged_batch_is_its_sequences_one_by_one(shape, cell):
    inputs = draw(cell, shape)
    output, gradients = both(cell, inputs)
    total = {}
    for b, n in enumerate(inputs.lengths):
        one = slice(b, b + 1)

        def cut(tree, one=one):
            return tuple(tuple(cell.State(*(a[one].copy() for a in s)) for s in layer) for layer in tree)

        x, grad_hs = inputs.x[:n, one].copy(), inputs.grad_hs[:n, one].copy()
        states = {"state": cut(inputs.state), "grad_state": cut(inputs.grad_state)}
        alone = inputs._replace(x=x, lengths=None, grad_hs=grad_hs, **states)
        found, back = both(cell, alone)
        np.testing.assert_allclose(output["hs"][:n, one], found.pop("hs"), atol=ROUNDING)
        assert not output["hs"][n:, b].any()
        for name, a in found.items():
            np.testing.assert_allclose(output[name][one], a, atol=ROUNDING, err_msg=name)
        np.testing.assert_allclose(gradients["x"][:n, one], back.pop("x"), atol=ROUNDING)
        assert not gradients["x"][n:, b].any()
        for name, a in back.items():
            if name.startswith("state"):
                np.testing.assert_allclose(gradients[name][one], a, atol=ROUNDING, err_msg=name)
            else:
                total[name] = total.get(name, 0) + a
    assert_equal_arrays({name: gradients[name] for name in total}, total, ROUNDING)


@by_cell
def test_what_lies_behind_a_sequences_end_is_never_seen(cell):
    inputs = draw(cell, SHAPES[3])
    hidden = inputs._replace(x=inputs.x.copy(), grad_hs=inputs.grad_hs.copy())
    for b, n in enumerate(inputs.lengths):
        hidden.x[n:, b], hidden.grad_hs[n:, b] = np.nan, np.nan
    for found, expected in zip(both(cell, hidden), both(cell, inputs), strict=True):
        for name, a in expected.items():
            np.testing.assert_array_equal(found[name], a, err_msg=name)


@by_cell
def test_all_lengths_alike_are_none(cell):
    inputs = draw(cell, SHAPES[3]._replace(lengths="full"))
    alike = inputs._replace(lengths=np.full(5, 7))
    for found, expected in zip(both(cell, alike), both(cell, inputs), strict=True):
        assert_equal_arrays(found, expected, ROUNDING)


@by_cell
def test_layers_are_cells_upon_each_other(cell):
    inputs = draw(cell, Shape(2, 1, 4, 3, 5, 2))
    x = inputs.x
    for (one,), (start,) in zip(inputs.params, inputs.state, strict=True):
        x = cell.infer(one, x, start).hs
    np.testing.assert_array_equal(stack.infer(cell, *inputs[:4]).hs, x)
    state = inputs.state
    for x_t, h in zip(inputs.x, x, strict=True):
        state = stack.forward_step(cell, inputs.params, x_t, state)
        np.testing.assert_allclose(state[1][0].h, h, atol=ROUNDING)


@by_cell
def test_indices_are_one_hot_inputs(cell):
    inputs = draw(cell, SHAPES[3], one_hot=np.int64)
    full = inputs._replace(x=np.eye(3)[inputs.x])
    (found, gradients), (expected, wanted) = both(cell, inputs), both(cell, full)
    assert_equal_arrays(found, expected, ROUNDING)
    assert "x" not in gradients
    del wanted["x"]
    assert_equal_arrays(gradients, wanted, ROUNDING)


def test_an_activation_is_handed_on():
    cell = CELLS[0]
    inputs = draw(cell, SHAPES[3])
    relu = stack.forward(cell, *inputs[:4], activation="relu")
    assert (relu.hs >= 0).all()
    assert relu.hs.max() > 0
    gradients = stack.bptt(cell, inputs.params, relu, inputs.grad_hs, activation="relu")
    assert np.abs(gradients.x).max() > 0


@pytest.mark.parametrize(
    "lengths", [np.array([1, 2]), np.array([0, 1, 2]), np.array([1, 2, 6]), np.array([1.0, 2, 3]), np.array([-1, 2, 3])]
)
def test_bad_lengths_are_refused(lengths):
    inputs = draw(CELLS[0], Shape(1, 1, 2, 2, 5, 3))
    with pytest.raises(ValueError, match="lengths: expected 3 integers from 1 to 5"):
        stack.infer(CELLS[0], inputs.params, inputs.x, lengths=lengths)


def test_two_directions_take_no_single_step():
    inputs = draw(CELLS[0], SHAPES[1])
    with pytest.raises(ValueError, match="params: expected one direction"):
        stack.forward_step(CELLS[0], inputs.params, inputs.x[0], inputs.state)
