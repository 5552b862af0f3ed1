"""The model: a recurrent cell and a linear head on its last state, `y = V h_T + d`.

The weights are a dict of arrays by name: the cell's own (U, W and b) and the head's, V (O, H) and d (O,).
The loss is half the squared error, `0.5 (prediction - y)²` summed over O and averaged over the batch.
"""

import math
from typing import Any

import numpy as np

import reference.rnn

IMPLEMENTATIONS = ("numpy", "numba-jit", "numba-simd")

Weights = dict[str, np.ndarray]


def cell(implementation: str) -> Any:
    """Return the Elman RNN of an implementation: the names of `reference.rnn`. A ValueError if there is none."""
    if implementation == "numpy":
        return reference.rnn
    if implementation == "numba-jit":
        import kernels.jit

        return kernels.jit.rnn
    if implementation == "numba-simd":
        import kernels.rnn

        return kernels.rnn
    raise ValueError(f"implementation: expected {', '.join(IMPLEMENTATIONS)}, got {implementation!r}")


def init_weights(input_size: int, hidden_size: int, rng: np.random.Generator, dtype: Any = np.float32) -> Weights:
    """Draw every weight of the cell and of a head with one output uniformly from ±1/sqrt(H), but d: it is zero."""
    bound = 1 / math.sqrt(hidden_size)
    head = {"V": rng.uniform(-bound, bound, (1, hidden_size)).astype(dtype), "d": np.zeros(1, dtype)}
    return reference.rnn.init_params(input_size, hidden_size, rng, dtype)._asdict() | head


def init_weights_unit(input_size: int, hidden_size: int, rng: np.random.Generator, dtype: Any = np.float32) -> Weights:
    """Draw the matrices U, W and V uniformly from 0 to 1; the biases are zero."""
    return {
        name: rng.uniform(0, 1, a.shape).astype(dtype) if a.ndim == 2 else np.zeros_like(a)
        for name, a in init_weights(input_size, hidden_size, rng, dtype).items()
    }


class Model:
    """A cell of one implementation with its activation, its window of BPTT, and biases that learn or stay."""

    def __init__(self, cell: Any, activation: str = "tanh", truncate: int | None = None, bias: bool = True):
        self.cell = cell
        self.activation = activation
        self.truncate = truncate
        self.bias = bias

    def predict(self, weights: Weights, x: np.ndarray) -> np.ndarray:
        """Return the head's output (B, O) after the last step of x (T, B, I)."""
        h = self.cell.infer(self._params(weights), x, None, self.activation).state.h
        return h @ weights["V"].T + weights["d"]

    def gradients(self, weights: Weights, x: np.ndarray, y: np.ndarray) -> tuple[float, Weights]:
        """Return the loss on x (T, B, I) and y (B, O), and its gradient by each weight that learns."""
        params = self._params(weights)
        trace = self.cell.forward(params, x, None, self.activation)
        h = trace.state.h
        error = h @ weights["V"].T + weights["d"] - y
        loss = 0.5 * float(np.sum(error * error)) / len(y)

        error /= len(y)
        grad_state = self.cell.State(error @ weights["V"])
        trace = self._window(trace)
        cell_gradients = self.cell.bptt(
            params, trace, np.zeros_like(trace.hs), grad_state, self.truncate, self.activation
        ).params
        gradients = cell_gradients._asdict() | {"V": error.T @ h, "d": error.sum(axis=0)}
        if not self.bias:
            del gradients["b"], gradients["d"]
        return loss, gradients

    def slopes(self, weights: Weights, x: np.ndarray) -> np.ndarray:
        """Return the activation's derivative (T, B, H) at every step: what BPTT multiplies by."""
        hs = self.cell.infer(self._params(weights), x, None, self.activation).hs
        return hs * (1 - hs) if self.activation == "sigmoid" else 1 - hs * hs

    def _params(self, weights):
        return self.cell.Params(*(weights[name] for name in self.cell.Params._fields))

    def _window(self, trace):
        """Return the last truncate + 1 steps: the loss depends on the last state alone, so no gradient goes further."""
        steps = len(trace.hs) if self.truncate is None else self.truncate + 1
        if steps >= len(trace.hs):
            return trace
        return trace._replace(hs=trace.hs[-steps:], x=trace.x[-steps:], initial=self.cell.State(trace.hs[-steps - 1]))
