"""A model at work on one of the rungs."""

from typing import Any

import numpy as np

import reference.head
from bench.tasks.learning.model import Model, cell
from bench.tasks.learning.weights import Weights
from reference.quantized import DTYPES as BELOW

DTYPES = ("float32", *BELOW)  # of the cell's U and W, as a network predicts with them


class Network:
    """A model on one of the rungs: what it says, and the gradients of its loss."""

    def __init__(self, model: Model, implementation: str):
        self.model = model
        self.cell = cell(implementation, model.cell)
        self.head = reference.head
        self.squared_error = reference.head.squared_error
        if implementation == "numba-simd":
            from bench.tasks.learning import fused

            self.squared_error = fused.squared_error
        self._activation = (model.activation,) if model.cell == "rnn" else ()

    def state(self, arrays: dict[str, np.ndarray]) -> Any:
        """Return the cell's State from its arrays by name."""
        return self.cell.State(**arrays)

    def prepare(self, weights: Weights, dtype: str = "float32") -> Any:
        """Lay the cell's weights out once for many calls of `predict`, in the place of the weights.

        Of the dtype "bfloat16" or "int8" its U and W are rounded; the biases and the head stay as they are.
        """
        below = dtype if dtype != "float32" else None
        return self.cell.prepare(self._params(weights), below), self._head(weights)

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
