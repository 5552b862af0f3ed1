import numpy as np
import pytest

from reference import head

N, H, O = 6, 5, 4


def example(dtype=np.float64):
    rng = np.random.default_rng(0)
    params = head.Params(rng.standard_normal((O, H)).astype(dtype), rng.standard_normal(O).astype(dtype))
    return params, rng.standard_normal((N, H)).astype(dtype)


def targets(loss, dtype=np.float64):
    rng = np.random.default_rng(1)
    return rng.standard_normal((N, O)).astype(dtype) if loss is head.squared_error else rng.integers(O, size=N)


def test_outputs_are_the_equation():
    params, hs = example()
    ref = [[params.V[o] @ hs[n] + params.d[o] for o in range(O)] for n in range(N)]
    np.testing.assert_allclose(head.outputs(params, hs), ref, rtol=1e-12)


def test_losses_are_their_definitions():
    params, hs = example()
    y = head.outputs(params, hs)
    wanted = targets(head.squared_error)
    ref = np.mean([0.5 * sum((y[n] - wanted[n]) ** 2) for n in range(N)])
    assert head.squared_error(params, hs, wanted)[0] == pytest.approx(ref, rel=1e-12)
    wanted = targets(head.cross_entropy)
    ref = np.mean([-np.log(np.exp(y[n, wanted[n]]) / sum(np.exp(y[n]))) for n in range(N)])
    assert head.cross_entropy(params, hs, wanted)[0] == pytest.approx(ref, rel=1e-12)


@pytest.mark.parametrize("loss", [head.squared_error, head.cross_entropy])
def test_gradients_equal_central_differences(loss):
    params, hs = example()
    y = targets(loss)
    gradients = loss(params, hs, y)[1]
    step = 1e-6
    for name, a, comp in (
        ("V", params.V, gradients.params.V),
        ("d", params.d, gradients.params.d),
        ("hs", hs, gradients.hs),
    ):
        for at in np.ndindex(a.shape):
            kept = a[at]
            a[at] = kept + step
            above = loss(params, hs, y)[0]
            a[at] = kept - step
            ref = (above - loss(params, hs, y)[0]) / (2 * step)
            a[at] = kept
            assert comp[at] == pytest.approx(ref, rel=1e-6, abs=1e-9), f"{name}{at}"


def test_cross_entropy_of_large_scores_is_finite():
    params = head.Params(np.array([[1000.0], [-1000.0]], np.float32), np.zeros(2, np.float32))
    loss, gradients = head.cross_entropy(params, np.ones((1, 1), np.float32), np.array([1]))
    assert loss == 2000
    np.testing.assert_array_equal(gradients.params.d, [1, -1])


@pytest.mark.parametrize("loss", [head.squared_error, head.cross_entropy])
def test_results_have_the_dtype_of_the_states(loss):
    params, hs = example(np.float32)
    found = loss(params, hs, targets(loss, np.float32))[1]
    assert {found.params.V.dtype, found.params.d.dtype, found.hs.dtype} == {np.dtype(np.float32)}
