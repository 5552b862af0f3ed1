import numpy as np
import pytest

from bench.tasks.learning import fused
from bench.tasks.learning.model import CELLS, LOSSES, Model, cell
from bench.tasks.learning.network import Network
from bench.tasks.learning.weights import init_weights, init_weights_unit, shapes
from reference import head
from tests.bench.tasks.learning.examples import example


def there(implementation, name):
    """Skip the test where a rung has not got a cell."""
    try:
        cell(implementation, name)
    except (ImportError, AttributeError):
        pytest.skip(f"{implementation} has no {name}")


NETWORKS = [("gru", "last", {"layers": 2, "directions": 2}), ("lstm", "softmax", {"layers": 3})]


@pytest.mark.parametrize(
    ("name", "loss", "network"), [*((name, loss, {}) for name in CELLS for loss in LOSSES), *NETWORKS]
)
def test_gradients_equal_central_differences(name, loss, network):
    there("numpy", name)
    model, weights, batches = example(name, loss, **network)
    network = Network(model, "numpy")

    def chunks():
        """Return the loss of the second batch, from the state after the first, as of constant initial state."""
        return network.gradients(weights, batches[1].x, batches[1].y, state)[0]

    state = network.gradients(weights, batches[0].x, batches[0].y)[2]
    _, gradients, _ = network.gradients(weights, batches[1].x, batches[1].y, state)
    assert tuple(gradients) == model.weight_names
    step = 1e-6
    for name, gradient in gradients.items():
        assert np.abs(gradient).max() > 1e-4, f"{name}: zeros prove nothing"
        for at in np.ndindex(gradient.shape):
            kept = weights[name][at]
            weights[name][at] = kept + step
            above = chunks()
            weights[name][at] = kept - step
            numeric = (above - chunks()) / (2 * step)
            weights[name][at] = kept
            assert gradient[at] == pytest.approx(numeric, rel=1e-6, abs=1e-9), f"{name}{at}"


@pytest.mark.parametrize("loss", LOSSES)
def test_loss_is_of_the_predictions(loss):
    model, weights, (batch, _) = example(loss=loss)
    network = Network(model, "numpy")
    predicted, state = network.predict(weights, batch.x)
    if loss == "softmax":
        shares = np.exp(predicted) / np.exp(predicted).sum(axis=-1, keepdims=True)
        expected = -np.mean(np.log(np.take_along_axis(shares, batch.y[..., np.newaxis], axis=-1)))
    else:
        expected = 0.5 * np.mean(np.sum((predicted - batch.y) ** 2, axis=-1))
    found, _, last = network.gradients(weights, batch.x, batch.y)
    assert found == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(last.h, state.h, rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_compiled_squared_error_is_the_same(dtype):
    rng = np.random.default_rng(0)
    params = head.Params(*(rng.standard_normal(shape).astype(dtype) for shape in ((3, 5), (3,))))
    hs, y = (rng.standard_normal(shape).astype(dtype) for shape in ((7, 5), (7, 3)))
    (ref, expected), (comp, found) = (loss(params, hs, y) for loss in (head.squared_error, fused.squared_error))
    few = 20 * float(np.finfo(dtype).eps)  # sums of seven, each of five products
    assert comp == pytest.approx(ref, rel=few)
    for a, b in zip((*found.params, found.hs), (*expected.params, expected.hs), strict=True):
        np.testing.assert_allclose(a, b, rtol=few, atol=few)


@pytest.mark.parametrize("name", CELLS)
def test_an_index_is_a_one_hot_input(name):
    there("numpy", name)
    model, weights, (batch, _) = example(name, "softmax", one_hot=True)
    network = Network(model, "numpy")
    dense = np.eye(model.input_size)[batch.x]
    (loss, gradients, _), (ref, expected, _) = (network.gradients(weights, x, batch.y) for x in (batch.x, dense))
    assert loss == pytest.approx(ref, rel=1e-12)
    for weight, gradient in expected.items():
        np.testing.assert_allclose(gradients[weight], gradient, rtol=1e-10, atol=1e-14, err_msg=weight)


@pytest.mark.parametrize("truncate", [0, 2, 6, None])
def test_truncation_is_the_sum_over_its_window(truncate):
    model, weights, (batch, _) = example(truncate=truncate)
    x, y = batch.x, batch.y
    T = len(x)
    _, gradients, _ = Network(model, "numpy").gradients(weights, x, y)

    W, U, b = weights["W"], weights["U"], weights["b"]
    hs = [np.zeros((x.shape[1], len(W)))]
    for x_t in x:
        hs.append(np.tanh(x_t @ U.T + hs[-1] @ W.T + b))
    error = (hs[-1] @ weights["V"].T + weights["d"] - y) / len(y)
    delta = error @ weights["V"] * (1 - hs[-1] ** 2)
    grad_U, grad_W, grad_b = np.zeros_like(U), np.zeros_like(W), np.zeros_like(b)
    for t in range(T, max(0, T - 1 - (T if truncate is None else truncate)), -1):
        grad_U += delta.T @ x[t - 1]
        grad_W += delta.T @ hs[t - 1]
        grad_b += delta.sum(axis=0)
        delta = delta @ W * (1 - hs[t - 1] ** 2)
    for name, expected in {"U": grad_U, "W": grad_W, "b": grad_b}.items():
        np.testing.assert_allclose(gradients[name], expected, rtol=1e-10, atol=1e-14, err_msg=name)


def test_truncation_is_of_the_last_steps_loss():
    with pytest.raises(ValueError, match="truncate: expected None with the loss 'every', got 3"):
        Model("rnn", 1, 2, 1, "every", truncate=3)


def test_without_biases_they_get_no_gradient():
    model, weights, (batch, _) = example(bias=False)
    _, gradients, _ = Network(model, "numpy").gradients(weights, batch.x, batch.y)
    assert set(gradients) == {"U", "W", "V"}


def test_slopes_are_the_derivatives():
    for activation in ("sigmoid", "tanh"):
        model, weights, (batch, _) = example(activation=activation)
        network, x = Network(model, "numpy"), batch.x[:1]
        nudged = weights | {"b": weights["b"] + 1e-6}
        first = [network._one.infer(network._params(w), x, None, activation).hs for w in (weights, nudged)]
        np.testing.assert_allclose(network.slopes(weights, x), (first[1] - first[0]) / 1e-6, rtol=1e-4)


def test_weights_are_drawn_from_their_range():
    model = Model("rnn", 1, 100, 1)
    drawn = init_weights(model, np.random.default_rng(0))
    assert max(np.abs(a).max() for a in drawn.values()) <= 0.1
    unit = init_weights_unit(model, np.random.default_rng(0))
    assert all(unit[name].min() >= 0 and unit[name].max() > 0.9 for name in "UWV")
    assert not unit["b"].any()
    assert not unit["d"].any()


def test_unknown_names():
    with pytest.raises(ValueError, match="implementation: expected numpy, numba-jit, numba-simd, got 'nump'"):
        cell("nump", "rnn")
    with pytest.raises(ValueError, match="cell: expected rnn, gru, lstm, got 'rnm'"):
        cell("numpy", "rnm")


def test_the_head_sees_the_last_state_of_both_directions():
    """Each has read the whole sequence: another first or last input changes both."""
    model, weights, (batch, _) = example("lstm", directions=2)
    network = Network(model, "numpy")
    before, state = network.predict(weights, batch.x)
    H = model.hidden_size
    forward, backward = (state[0][d].h @ weights["V"][:, d * H : (d + 1) * H].T for d in (0, 1))
    np.testing.assert_allclose(before, forward + backward + weights["d"], rtol=1e-12)
    for step in (0, -1):
        x = batch.x.copy()
        x[step] += 1
        after = network.predict(weights, x)[1]
        assert all(np.abs(after[0][d].h - state[0][d].h).max() > 1e-3 for d in (0, 1))


def test_names_of_a_networks_weights():
    model = Model("gru", 3, 4, 2, layers=2, directions=2)
    chains = "", "_l0_reverse", "_l1", "_l1_reverse"
    assert model.chains == chains
    assert model.weight_names == (*(name + chain for chain in chains for name in "UWbc"), "V", "d")
    assert {name: a.shape for name, a in init_weights(model, np.random.default_rng(0)).items()} == shapes(model)
    assert shapes(model)["U_l1_reverse"] == (12, 8)
    assert shapes(model)["V"] == (2, 8)
    assert Model("rnn", 3, 4, 2, layers=2, bias=False).weight_names == ("U", "W", "U_l1", "W_l1", "V")


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"layers": 0}, "layers: expected 1 or more, got 0"),
        ({"directions": 3}, "directions: expected 1 or 2, got 3"),
        ({"layers": 2, "truncate": 5}, "truncate: expected None in more than one layer or direction, got 5"),
    ],
)
def test_networks_that_cannot_be(choices, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        Model("gru", 3, 4, 2, **choices)
