"""The weights of a model: the cell's own (U, W and b; the GRU's c) and the head's, V (O, H) and d (O,), by name."""

import math
from typing import Any

import numpy as np

from bench.tasks.learning.model import Model, cell

Weights = dict[str, np.ndarray]


def init_weights(model: Model, rng: np.random.Generator, dtype: Any = np.float32) -> Weights:
    """Draw every weight of the cell and of the head uniformly from ±1/sqrt(H), but d: it is zero."""
    bound = 1 / math.sqrt(model.hidden_size)
    V = rng.uniform(-bound, bound, (model.output_size, model.hidden_size)).astype(dtype)
    params = cell("numpy", model.cell).init_params(model.input_size, model.hidden_size, rng, dtype)
    return params._asdict() | {"V": V, "d": np.zeros(model.output_size, dtype)}


def init_weights_unit(model: Model, rng: np.random.Generator, dtype: Any = np.float32) -> Weights:
    """Draw the matrices U, W and V uniformly from 0 to 1; the biases are zero."""
    return {
        name: rng.uniform(0, 1, a.shape).astype(dtype) if a.ndim == 2 else np.zeros_like(a)
        for name, a in init_weights(model, rng, dtype).items()
    }
