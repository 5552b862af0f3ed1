"""The weights of a model: the cells' own (U, W and b; the GRU's c) and the head's, V (O, D H) and d (O,), by name.

Those of the first layer's forward direction have these names, and the others' end in PyTorch's "_l1" or "_l0_reverse".
"""

import math
from typing import Any

import numpy as np

from bench.grid.cases import GATES, ChoiceError
from bench.tasks.learning.forms import expect
from bench.tasks.learning.model import Model, cell

Weights = dict[str, np.ndarray]


def shapes(model: Model) -> dict[str, tuple[int, ...]]:
    """Return the shape of every weight by its name."""
    H, D, rows = model.hidden_size, model.directions, GATES[model.cell] * model.hidden_size
    found: dict[str, tuple[int, ...]] = {}
    for q, chain in enumerate(model.chains):
        found |= {f"U{chain}": (rows, D * H if q >= D else model.input_size), f"W{chain}": (rows, H)}
        found |= {f"b{chain}": (rows,)} | ({f"c{chain}": (H,)} if model.cell == "gru" else {})
    return found | {"V": (model.output_size, D * H), "d": (model.output_size,)}


def check(arrays: dict[str, Any], expected: dict[str, tuple[int, ...]], where: str, finite: bool = True) -> None:
    """Raise a ChoiceError that begins with `where` unless the arrays expected are there, in float32."""
    for name, shape in expected.items():
        array = arrays.get(name)
        if not isinstance(array, np.ndarray):
            raise ChoiceError(f"{where}: expected an array {name}, got none")
        expect(array.dtype == np.float32, f"{where}: {name}", "float32", array.dtype.name)
        expect(array.shape == shape, f"{where}: {name}", f"the shape {shape}", str(array.shape))
        expect(not finite or bool(np.isfinite(array).all()), f"{where}: {name}", "finite numbers", "others")


def init_weights(model: Model, rng: np.random.Generator, dtype: Any = np.float32) -> Weights:
    """Draw every weight of the cells and of the head uniformly from ±1/sqrt(H), but d: it is zero."""
    bound, D, H = 1 / math.sqrt(model.hidden_size), model.directions, model.hidden_size
    V = rng.uniform(-bound, bound, (model.output_size, D * H)).astype(dtype)
    weights: Weights = {}
    for q, chain in enumerate(model.chains):
        inputs = D * H if q >= D else model.input_size
        params = cell("numpy", model.cell).init_params(inputs, H, rng, dtype)
        weights |= {name + chain: array for name, array in params._asdict().items()}
    return weights | {"V": V, "d": np.zeros(model.output_size, dtype)}


def init_weights_unit(model: Model, rng: np.random.Generator, dtype: Any = np.float32) -> Weights:
    """Draw the matrices U, W and V uniformly from 0 to 1; the biases are zero."""
    return {
        name: rng.uniform(0, 1, a.shape).astype(dtype) if a.ndim == 2 else np.zeros_like(a)
        for name, a in init_weights(model, rng, dtype).items()
    }
