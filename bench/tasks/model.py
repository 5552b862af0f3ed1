"""The model: a recurrent cell and a linear head, `V h + d`, on its last state or on every state.

The weights are a dict of arrays by name: the cell's own (U, W and b; the GRU's c) and the head's, V (O, H) and d (O,).
"""

import math
from dataclasses import dataclass
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np

import reference.head

CELLS = ("rnn", "gru", "lstm")
ACTIVATIONS = ("sigmoid", "tanh")  # of the rnn; the other cells have theirs built in
LOSSES = ("last", "every", "softmax")
RUNGS = ("numpy", "numba-jit", "numba-simd")

Weights = dict[str, np.ndarray]


class Batch(NamedTuple):
    """What one training step sees.

    The targets y are (B, O) for the loss "last", (T, B, O) for "every", and (T, B) indices of outputs for "softmax".
    """

    x: np.ndarray  # (T, B, I) numbers, or (T, B) the index of the one in each one-hot input
    y: np.ndarray
    fresh: bool = True  # starts from the zero state; else from the one that the batch before ended in


@dataclass(frozen=True)
class Model:
    """What is learned, whoever learns it.

    The losses are half the squared error of the "last" step's outputs or of those of "every" step (summed over the
    outputs, averaged over the rest), and the cross-entropy of a "softmax" on every step, in nats.
    With `truncate=k` the loss of the last step flows back through k earlier steps. A loss on every step is truncated
    by chunks: batches that are not `fresh`.
    """

    cell: str  # of CELLS
    input_size: int
    hidden_size: int
    output_size: int
    loss: str = "last"
    activation: str = "tanh"
    truncate: int | None = None
    bias: bool = True  # the biases learn; else they stay

    def __post_init__(self) -> None:
        if self.truncate is not None and self.loss != "last":
            raise ValueError(f"truncate: expected None with the loss {self.loss!r}, got {self.truncate}")

    @property
    def weight_names(self) -> tuple[str, ...]:
        """The names of the weights that learn."""
        names = (*cell("numpy", self.cell).Params._fields, *reference.head.Params._fields)
        return names if self.bias else tuple(name for name in names if name.isupper())


def cell(implementation: str, name: str) -> Any:
    """Return a cell of one of the rungs: the names of `reference.rnn`. A ValueError if there is none."""
    if name not in CELLS:
        raise ValueError(f"cell: expected {', '.join(CELLS)}, got {name!r}")
    if implementation == "numpy":
        return import_module(f"reference.{name}")
    if implementation == "numba-jit":
        return getattr(import_module("kernels.jit"), name)
    if implementation == "numba-simd":
        return import_module(f"kernels.{name}")
    raise ValueError(f"implementation: expected {', '.join(RUNGS)}, got {implementation!r}")


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


class Network:
    """A model on one of the rungs: what it says, and the gradients of its loss."""

    def __init__(self, model: Model, implementation: str):
        self.model = model
        self.cell = cell(implementation, model.cell)
        self.head = reference.head
        fused = implementation == "numba-simd"
        self.squared_error = (import_module("bench.tasks.fused") if fused else reference.head).squared_error
        self._activation = (model.activation,) if model.cell == "rnn" else ()

    def state(self, arrays: dict[str, np.ndarray]) -> Any:
        """Return the cell's State from its arrays by name."""
        return self.cell.State(**arrays)

    def prepare(self, weights: Weights) -> Any:
        """Lay the cell's weights out once for many calls of `predict`, in the place of the weights."""
        return self.cell.prepare(self._params(weights)), self._head(weights)

    def predict(self, weights: Any, x: np.ndarray, state: Any = None) -> tuple[np.ndarray, Any]:
        """Return the head's outputs and the last state.

        The outputs are (B, O) after the last step for the loss "last", and else (T, B, O); for "softmax" they are
        the logarithms of probabilities up to a constant.
        """
        params, head = weights if isinstance(weights, tuple) else self.prepare(weights)
        output = self.cell.infer(params, x, state, *self._activation)
        if self.model.loss == "last":
            return self.head.outputs(head, output.state.h), output.state
        T, B, H = output.hs.shape
        return self.head.outputs(head, output.hs.reshape(T * B, H)).reshape(T, B, -1), output.state

    def step(self, weights: Any, x_t: np.ndarray, state: Any) -> tuple[np.ndarray, Any]:
        """Return the outputs (B, O) after one more step, from x_t (B, I) or (B,), and the state; see `prepare`."""
        params, head = weights
        state = self.cell.forward_step(params, x_t, state, *self._activation)
        return self.head.outputs(head, state.h), state

    def gradients(
        self, weights: Weights, x: np.ndarray, y: np.ndarray, state: Any = None
    ) -> tuple[float, Weights, Any]:
        """Return the loss on x and y (see `Batch`), its gradient by each weight that learns, and the last state."""
        params, head = self._params(weights), self._head(weights)
        if self.model.loss == "last":
            prepared = self.cell.prepare(params)
            reach = len(x) if self.model.truncate is None else self.model.truncate + 1
            if reach < len(x):  # the loss sees the last state alone, so no gradient goes further back
                state = self.cell.infer(prepared, x[:-reach], state, *self._activation).state
                x = x[-reach:]
            trace = self.cell.forward(prepared, x, state, *self._activation)
            loss, head_gradients = self.squared_error(head, trace.state.h, y)
            grad_hs = np.zeros_like(trace.hs)
            grad_hs[-1] = head_gradients.hs
        else:
            trace = self.cell.forward(params, x, state, *self._activation)
            T, B, H = trace.hs.shape
            hs = trace.hs.reshape(T * B, H)
            if self.model.loss == "every":
                loss, head_gradients = self.squared_error(head, hs, y.reshape(T * B, -1))
            else:
                loss, head_gradients = self.head.cross_entropy(head, hs, y.reshape(T * B))
            grad_hs = head_gradients.hs.reshape(T, B, H)
        cell_gradients = self.cell.bptt(params, trace, grad_hs, None, None, *self._activation).params
        gradients = cell_gradients._asdict() | head_gradients.params._asdict()
        return float(loss), {name: gradients[name] for name in self.model.weight_names}, trace.state

    def slopes(self, weights: Weights, x: np.ndarray) -> np.ndarray:
        """Return the derivative (T, B, H) of the rnn's activation at every step: what BPTT multiplies by."""
        hs = self.cell.infer(self._params(weights), x, None, *self._activation).hs
        return hs * (1 - hs) if self.model.activation == "sigmoid" else 1 - hs * hs

    def _params(self, weights):
        return self.cell.Params(*(weights[name] for name in self.cell.Params._fields))

    def _head(self, weights):
        return self.head.Params(weights["V"], weights["d"])
