import numpy as np
import pytest

from bench.tasks.model import Model, cell, init_weights, init_weights_unit


def example(dtype, T=7, B=3, I=2, H=5):
    rng = np.random.default_rng(3)
    weights = init_weights(I, H, rng, dtype)
    weights["d"] += 0.3
    return weights, rng.standard_normal((T, B, I)).astype(dtype), rng.standard_normal((B, 1)).astype(dtype)


def loss_at(model, weights, x, y):
    return 0.5 * np.sum((model.predict(weights, x) - y) ** 2) / len(y)


@pytest.mark.parametrize("activation", ["sigmoid", "tanh"])
@pytest.mark.parametrize("implementation", ["numpy", "numba-simd", pytest.param("numba-jit", marks=pytest.mark.slow)])
def test_gradients_equal_central_differences(implementation, activation):
    weights, x, y = example(np.float64)
    model = Model(cell(implementation), activation)
    loss, gradients = model.gradients(weights, x, y)
    assert loss == pytest.approx(loss_at(model, weights, x, y), rel=1e-12)
    assert set(gradients) == {"U", "W", "b", "V", "d"}
    step = 1e-6
    for name, gradient in gradients.items():
        numeric = np.zeros_like(gradient)
        for at in np.ndindex(gradient.shape):
            moved = {n: a.copy() for n, a in weights.items()}
            moved[name][at] += step
            above = loss_at(model, moved, x, y)
            moved[name][at] -= 2 * step
            numeric[at] = (above - loss_at(model, moved, x, y)) / (2 * step)
        assert np.abs(gradient).max() > 1e-4, f"{name}: zeros prove nothing"
        np.testing.assert_allclose(gradient, numeric, rtol=1e-6, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("truncate", [0, 2, 6, None])
def test_truncation_is_the_sum_over_its_window(truncate):
    weights, x, y = example(np.float64)
    T = len(x)
    _, gradients = Model(cell("numpy"), "tanh", truncate).gradients(weights, x, y)

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


@pytest.mark.parametrize("implementation", ["numpy", "numba-simd"])
def test_truncation_is_the_cells(implementation):
    """The model hands BPTT only the steps that the loss can reach; the cell, given all, finds the same."""
    weights, x, y = example(np.float64)
    _, gradients = Model(cell(implementation), "sigmoid", 3).gradients(weights, x, y)

    ref = cell(implementation)
    params = ref.Params(weights["U"], weights["W"], weights["b"])
    trace = ref.forward(params, x, None, "sigmoid")
    error = (trace.state.h @ weights["V"].T + weights["d"] - y) / len(y)
    grad_state = ref.State(error @ weights["V"])
    expected = ref.bptt(params, trace, np.zeros_like(trace.hs), grad_state, 3, "sigmoid").params
    for name in ("U", "W", "b"):
        np.testing.assert_allclose(gradients[name], getattr(expected, name), rtol=1e-10, atol=1e-14, err_msg=name)


def test_without_biases_they_get_no_gradient():
    weights, x, y = example(np.float32)
    _, gradients = Model(cell("numpy"), bias=False).gradients(weights, x, y)
    assert set(gradients) == {"U", "W", "V"}


def test_slopes_are_the_derivatives():
    weights, x, _ = example(np.float64)
    for activation in ("sigmoid", "tanh"):
        model = Model(cell("numpy"), activation)
        nudged = weights | {"b": weights["b"] + 1e-6}
        first = [model.cell.infer(model._params(w), x[:1], None, activation).hs for w in (weights, nudged)]
        np.testing.assert_allclose(model.slopes(weights, x[:1]), (first[1] - first[0]) / 1e-6, rtol=1e-4)


def test_weights_are_drawn_from_their_range():
    drawn = init_weights(1, 100, np.random.default_rng(0))
    assert max(np.abs(a).max() for a in drawn.values()) <= 0.1
    unit = init_weights_unit(1, 100, np.random.default_rng(0))
    assert all(unit[name].min() >= 0 and unit[name].max() > 0.9 for name in "UWV")
    assert not unit["b"].any()
    assert not unit["d"].any()


def test_unknown_implementation():
    with pytest.raises(ValueError, match="implementation: expected numpy, numba-jit, numba-simd, got 'nump'"):
        cell("nump")
