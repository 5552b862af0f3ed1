"""A model at work on one of the rungs."""

from collections.abc import Callable
from typing import Any

import numpy as np

import reference.head
from bench.tasks.learning.model import Model, cell, stack
from bench.tasks.learning.weights import Weights
from reference.quantized import DTYPES as BELOW

DTYPES = ("float32", *BELOW)  # of the cell's U and W, as a network predicts with them


class Network:
    """A model on one of the rungs: what it says, and the gradients of its loss."""

    def __init__(self, model: Model, implementation: str):
        self.model = model
        self._one = cell(implementation, model.cell)  # of one layer and direction
        self._cell = stack(implementation, model.cell) if model.network else self._one
        self.head = reference.head
        self.squared_error = reference.head.squared_error
        if implementation == "numba-simd":
            from bench.tasks.learning import fused

            self.squared_error = fused.squared_error
        self._options = {"activation": model.activation} if model.cell == "rnn" else {}

    def state(self, arrays: dict[str, np.ndarray]) -> Any:
        """Return the state from its arrays by name."""
        return self._tree(self._one.State, arrays)

    def named(self, state: Any) -> dict[str, np.ndarray]:
        """Return the arrays of a state by name: "h", the LSTM's "c", "h_l1"..."""
        return self._by_name(state)

    def prepare(self, weights: Weights, dtype: str = "float32") -> Any:
        """Lay the cells' weights out once for many calls of `predict`, in the place of the weights.

        Of the dtype "bfloat16" or "int8" its U and W are rounded; the biases and the head stay as they are.
        """
        below = dtype if dtype != "float32" else None
        return self._cell.prepare(self._params(weights), below), self._head(weights)

    def nbytes(self, prepared: Any) -> int:
        """Return the bytes of what `prepare` of numba-simd has laid out."""
        params, head = prepared
        return sum(one.weights.nbytes for one in self._parts(params)) + sum(a.nbytes for a in head)

    def predict(self, weights: Any, x: np.ndarray, state: Any = None) -> tuple[np.ndarray, Any]:
        """Return the head's outputs and the last state.

        The outputs are (B, O) after the last step for the loss "last", and else (T, B, O); for "softmax" they are
        the logarithms of probabilities up to a constant.
        """
        params, head = weights if isinstance(weights, tuple) else self.prepare(weights)
        hs, state = self._cell.infer(params, x, state, **self._options)
        if self.model.loss == "last":
            return self.head.outputs(head, self._last(hs)), state
        T, B, H = hs.shape
        return self.head.outputs(head, hs.reshape(T * B, H)).reshape(T, B, -1), state

    def step(self, weights: Any, x_t: np.ndarray, state: Any) -> tuple[np.ndarray, Any]:
        """Return the outputs (B, O) after one more step, from x_t (B, I) or (B,), and the state; see `prepare`."""
        params, head = weights
        state = self._cell.forward_step(params, x_t, state, **self._options)
        return self.head.outputs(head, (state[-1][0] if self.model.network else state).h), state

    def stream(self, weights: Any, state: Any) -> Callable[[np.ndarray], np.ndarray]:
        """Return a function that goes on from a state: it takes x_t as `step` does, and gives the outputs."""
        if not hasattr(self._cell, "stream"):

            def step(x_t: np.ndarray) -> np.ndarray:
                nonlocal state
                outputs, state = self.step(weights, x_t, state)
                return outputs

            return step
        params, head = weights
        batch = (state[-1][0] if self.model.network else state).h.shape[0]
        stream = self._cell.stream(params, batch, **self._options)
        stream.state = state
        return lambda x_t: self.head.outputs(head, stream.step(x_t))

    def gradients(
        self, weights: Weights, x: np.ndarray, y: np.ndarray, state: Any = None
    ) -> tuple[float, Weights, Any]:
        """Return the loss on x and y (see `Batch`), its gradient by each weight that learns, and the last state."""
        params, head = self._params(weights), self._head(weights)
        if self.model.loss == "last":
            prepared = self._cell.prepare(params)
            reach = len(x) if self.model.truncate is None else self.model.truncate + 1
            if reach < len(x):  # the loss sees the last state alone, so no gradient goes further back
                state = self._cell.infer(prepared, x[:-reach], state, **self._options).state
                x = x[-reach:]
            trace = self._cell.forward(prepared, x, state, **self._options)
            loss, head_gradients = self.squared_error(head, self._last(trace.hs), y)
            H, grad_hs = self.model.hidden_size, np.zeros_like(trace.hs)
            grad_hs[-1, :, :H] = head_gradients.hs[:, :H]
            grad_hs[0, :, H:] = head_gradients.hs[:, H:]
        else:
            trace = self._cell.forward(params, x, state, **self._options)
            T, B, H = trace.hs.shape
            hs = trace.hs.reshape(T * B, H)
            if self.model.loss == "every":
                loss, head_gradients = self.squared_error(head, hs, y.reshape(T * B, -1))
            else:
                loss, head_gradients = self.head.cross_entropy(head, hs, y.reshape(T * B))
            grad_hs = head_gradients.hs.reshape(T, B, H)
        cell_gradients = self._cell.bptt(params, trace, grad_hs, **self._options).params
        gradients = self._by_name(cell_gradients) | head_gradients.params._asdict()
        return float(loss), {name: gradients[name] for name in self.model.weight_names}, trace.state

    def slopes(self, weights: Weights, x: np.ndarray) -> np.ndarray:
        """Return the derivative (T, B, H) of the rnn's activation at every step: what BPTT multiplies by."""
        hs = self._cell.infer(self._params(weights), x, None, **self._options).hs
        return hs * (1 - hs) if self.model.activation == "sigmoid" else 1 - hs * hs

    def _last(self, hs):
        """Return each direction's last state side by side (B, D H): the backward one's is that of the first step."""
        if self.model.directions == 1:
            return hs[-1]
        H = self.model.hidden_size
        return np.concatenate((hs[-1, :, :H], hs[0, :, H:]), axis=-1)

    def _params(self, weights):
        return self._tree(self._one.Params, weights)

    def _tree(self, kind, arrays):
        """Return the Params or the State of the cell, or of the network's layers and directions."""
        chains = [kind(*(arrays[name + chain] for name in kind._fields)) for chain in self.model.chains]
        D = self.model.directions
        layers = tuple(tuple(chains[q : q + D]) for q in range(0, len(chains), D))
        return layers if self.model.network else chains[0]

    def _by_name(self, tree):
        """Return the arrays of what `_tree` returns."""
        pairs = zip(self.model.chains, self._parts(tree), strict=True)
        return {name + chain: array for chain, part in pairs for name, array in part._asdict().items()}

    def _parts(self, tree):
        """Return what a tree has of each layer and direction."""
        return [one for layer in tree for one in layer] if self.model.network else [tree]

    def _head(self, weights):
        return self.head.Params(weights["V"], weights["d"])
