"""Small models, weights and batches to try everything on."""

import numpy as np

from bench.tasks.learning.model import Batch, Model
from bench.tasks.learning.weights import init_weights


def example(cell="rnn", loss="last", dtype=np.float64, T=7, B=3, I=2, H=5, O=4, one_hot=False, **choices):
    """Return a model, weights whose biases are not zero, and two batches, the second going on from the first."""
    rng = np.random.default_rng(3)
    model = Model(cell, I, H, O, loss, **choices)
    weights = init_weights(model, rng, dtype)
    weights["d"] += np.linspace(-0.3, 0.3, O, dtype=dtype)

    def batch(fresh):
        x = rng.integers(I, size=(T, B)) if one_hot else rng.standard_normal((T, B, I)).astype(dtype)
        if loss == "softmax":
            return Batch(x, rng.integers(O, size=(T, B)), fresh)
        return Batch(x, rng.standard_normal((B, O) if loss == "last" else (T, B, O)).astype(dtype), fresh)

    return model, weights, [batch(True), batch(False)]
