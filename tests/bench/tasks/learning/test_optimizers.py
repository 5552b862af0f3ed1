import numpy as np
import pytest

from bench.tasks.learning import fused
from bench.tasks.learning.optimizers import SLOTS, Optimizer, init_slots, limit, update


def test_limits():
    gradients = {"W": np.array([[-20.0, 3.0]]), "b": np.array([0.5, 11.0])}
    limit(gradients, 10, None)
    np.testing.assert_array_equal(gradients["W"], [[-10, 3]])
    np.testing.assert_array_equal(gradients["b"], [0.5, 10])

    gradients = {"W": np.array([[3.0, 0.0]]), "b": np.array([4.0])}
    limit(gradients, None, 5.1)
    np.testing.assert_array_equal(gradients["W"], [[3, 0]])
    limit(gradients, None, 1.0)
    np.testing.assert_allclose(gradients["W"], [[0.6, 0]])
    np.testing.assert_allclose(gradients["b"], [0.8])

    gradients = {"W": np.array([-20.0]), "b": np.array([4.0])}
    limit(gradients, 3, 2.5)  # ±3 each have a norm of 3 sqrt(2)
    np.testing.assert_allclose(gradients["W"], [-2.5 / np.sqrt(2)])


def test_what_has_no_gradient_stays():
    weights = {"W": np.array([1.0, 2.0], np.float32), "b": np.array([3.0], np.float32)}
    sgd = Optimizer("sgd", 0.5)
    update(sgd, weights, {"W": np.array([2.0, -2.0], np.float32)}, init_slots(sgd, weights), 1)
    np.testing.assert_array_equal(weights["W"], [0, 3])
    np.testing.assert_array_equal(weights["b"], [3])
    assert weights["W"].dtype == np.float32


def papers_adam(rate):
    """Algorithm 1 of Kingma and Ba, written out."""
    m = v = 0.0
    t = 0

    def step(weight, g):
        nonlocal m, v, t
        t += 1
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g**2
        return weight - rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)

    return step


def papers_adagrad(rate):
    total = 0.0

    def step(weight, g):
        nonlocal total
        total = total + g**2
        return weight - rate * g / (np.sqrt(total) + 1e-10)

    return step


@pytest.mark.parametrize(("name", "paper"), [("adam", papers_adam), ("adagrad", papers_adagrad)])
def test_optimizers_follow_their_papers(name, paper):
    rng = np.random.default_rng(0)
    weights = {"W": rng.standard_normal((3, 4))}
    ref, optimizer = weights["W"].copy(), Optimizer(name, 0.01)
    slots, step = init_slots(optimizer, weights), paper(0.01)
    for t in range(1, 6):
        g = rng.standard_normal((3, 4))
        update(optimizer, weights, {"W": g.copy()}, slots, t)
        ref = step(ref, g)
        np.testing.assert_allclose(weights["W"], ref, rtol=1e-12)


def test_unknown_name():
    with pytest.raises(ValueError, match="name: expected sgd, adagrad, adam, got 'lion'"):
        Optimizer("lion", 0.1)


@pytest.mark.parametrize("name", SLOTS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_compiled_update_is_the_same(name, dtype):
    rng = np.random.default_rng(0)
    for clip, clip_norm in ((None, None), (0.5, None), (None, 1.0), (0.5, 1.0), (9.0, 99.0)):
        optimizer = Optimizer(name, 0.1, clip, clip_norm)
        ref = {"W": rng.standard_normal((5, 7)).astype(dtype), "b": rng.standard_normal(3).astype(dtype)}
        comp = {key: a.copy() for key, a in ref.items()}
        ref_slots, comp_slots = init_slots(optimizer, ref), init_slots(optimizer, comp)
        for step in range(1, 5):
            gradients = {key: rng.standard_normal(a.shape).astype(dtype) for key, a in ref.items()}
            fused.update(optimizer, comp, gradients, comp_slots, step)
            update(optimizer, ref, gradients, ref_slots, step)
        few = 50 * np.finfo(dtype).eps  # four steps of a dozen roundings
        for key, a in ref.items():
            np.testing.assert_allclose(comp[key], a, rtol=few, atol=few, err_msg=f"{key} {clip} {clip_norm}")


def test_the_compiled_update_keeps_nan():
    weights, optimizer = {"W": np.ones(40, np.float32)}, Optimizer("sgd", 0.1, clip=1.0)
    fused.update(optimizer, weights, {"W": np.full(40, np.nan, np.float32)}, {}, 1)
    assert np.isnan(weights["W"]).all()
