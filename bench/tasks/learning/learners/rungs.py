"""numpy, numba-jit and numba-simd: the cell's forward pass and BPTT from that rung.

With numba-simd the squared error and the optimizer are compiled code, too; with the others they are NumPy's.
"""

from collections.abc import Iterable

import numpy as np

from bench.tasks.learning.model import Batch, Model
from bench.tasks.learning.network import Network
from bench.tasks.learning.optimizers import SLOTS, Optimizer, init_slots, update
from bench.tasks.learning.weights import Weights


class RungLearner:
    def __init__(self, implementation: str, model: Model, optimizer: Optimizer, weights: Weights):
        self.network = Network(model, implementation)
        self.optimizer = optimizer
        self._update = update
        if implementation == "numba-simd":
            from bench.tasks.learning import fused

            self._update = fused.update
        self.steps = 0
        self.state = None  # of the cell, after the last batch
        self._weights = {name: a.copy() for name, a in weights.items()}
        self._slots = init_slots(optimizer, {name: weights[name] for name in model.weight_names})

    def learn(self, batches: Iterable[Batch]) -> list[float]:
        losses = []
        for x, y, fresh in batches:
            start = None if fresh else self.state
            loss, gradients, self.state = self.network.gradients(self._weights, x, y, start)
            self.steps += 1
            self._update(self.optimizer, self._weights, gradients, self._slots, self.steps)
            losses.append(loss)
        return losses

    def weights(self) -> Weights:
        return {name: a.copy() for name, a in self._weights.items()}

    def arrays(self) -> dict[str, np.ndarray]:
        arrays = {"steps": np.array(self.steps)}
        for part, named in {"weights": self._weights, **self._slots}.items():
            arrays |= {f"{part}.{name}": a.copy() for name, a in named.items()}
        if self.state is not None:
            arrays |= {f"state.{name}": a.copy() for name, a in self.network.named(self.state).items()}
        return arrays

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        self.steps = int(arrays["steps"])
        for part in ("weights", *SLOTS[self.optimizer.name]):
            named = self._weights if part == "weights" else self._slots[part]
            for name, a in named.items():
                a[...] = arrays[f"{part}.{name}"]
        state = {name.removeprefix("state."): a for name, a in arrays.items() if name.startswith("state.")}
        self.state = self.network.state(state) if state else None
