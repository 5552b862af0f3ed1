import numpy as np

from bench.tasks.optimizers import Adam, Sgd, clip


def test_clip_limits_every_element():
    gradients = {"W": np.array([[-20.0, 3.0]]), "b": np.array([0.5, 11.0])}
    clip(gradients, 10)
    np.testing.assert_array_equal(gradients["W"], [[-10, 3]])
    np.testing.assert_array_equal(gradients["b"], [0.5, 10])


def test_sgd_leaves_alone_what_has_no_gradient():
    weights = {"W": np.array([1.0, 2.0], np.float32), "b": np.array([3.0], np.float32)}
    Sgd(0.5).step(weights, {"W": np.array([2.0, -2.0], np.float32)})
    np.testing.assert_array_equal(weights["W"], [0, 3])
    np.testing.assert_array_equal(weights["b"], [3])
    assert weights["W"].dtype == np.float32


def test_adam_follows_its_paper():
    """Algorithm 1 of Kingma and Ba, written out."""
    rng = np.random.default_rng(0)
    weights = {"W": rng.standard_normal((3, 4))}
    ref, m, v = weights["W"].copy(), np.zeros((3, 4)), np.zeros((3, 4))
    adam = Adam(0.01)
    for t in range(1, 6):
        g = rng.standard_normal((3, 4))
        adam.step(weights, {"W": g})
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g**2
        ref -= 0.01 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        np.testing.assert_allclose(weights["W"], ref, rtol=1e-12)
