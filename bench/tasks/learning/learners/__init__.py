"""Who learns: the same model, weights, batches and optimizer, one file for each way to compute them.

`make` returns a `Learner`, and `apart.Apart` is one in a process of its own, for races. Its whole state is a dict of
NumPy arrays, so that a training can be kept and gone on with.
"""

import os
from collections.abc import Collection, Iterable
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np

from bench.grid.cases import ChoiceError
from bench.tasks.learning.forms import expect
from bench.tasks.learning.model import RUNGS, Batch, Model
from bench.tasks.learning.optimizers import SLOTS, Optimizer
from bench.tasks.learning.weights import Weights, shapes
from bench.tasks.learning.weights import check as check_weights

PEERS = ("torch", "jax")
IMPLEMENTATIONS = (*RUNGS, *PEERS)


class Learner(Protocol):
    def learn(self, batches: Iterable[Batch]) -> list[float]:
        """Take a training step for each batch and return the loss of each, before its step."""

    def weights(self) -> Weights:
        """Return a copy of the weights."""

    def arrays(self) -> dict[str, np.ndarray]:
        """Return all that `restore` needs: "weights.U", the optimizer's "mean.U", "state.h", "steps"..."""

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Go on from what `arrays` returned, also that of another implementation."""


def obstacle(implementation: str, model: Model | None = None) -> str | None:
    """Return why an implementation cannot learn, or cannot learn this model; None if it can."""
    if implementation in RUNGS:
        off = implementation != "numpy" and os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0")
        return "NUMBA_DISABLE_JIT is set: nothing is compiled" if off else None
    if find_spec(implementation) is None:
        return "not installed"
    if implementation == "torch" and model is not None and model.cell == "rnn" and model.activation != "tanh":
        return f"its RNN has no {model.activation}"
    return None


def check(implementation: str, model: Model | None = None) -> None:
    """Raise a ChoiceError unless this is an implementation that is installed and can learn the model."""
    if implementation not in IMPLEMENTATIONS:
        raise ChoiceError(f"--implementation: expected {', '.join(IMPLEMENTATIONS)}, got {implementation!r}")
    if reason := obstacle(implementation, model):
        raise ChoiceError(f"--implementation: {implementation} cannot take part: {reason}")


def check_arrays(
    arrays: dict[str, Any], model: Model, optimizer: Optimizer, batches: Collection[int], where: str
) -> None:
    """Raise a ChoiceError unless a learner of this model, on batches of these sizes, can have had these `arrays`."""
    known = shapes(model)
    expected = {f"weights.{name}": shape for name, shape in known.items()}
    expected |= {f"{slot}.{name}": known[name] for slot in SLOTS[optimizer.name] for name in model.weight_names}
    steps, state = (np.asarray(arrays.get(name)) for name in ("steps", "state.h"))
    counted = steps.shape == () and steps.dtype.kind == "i" and bool(steps >= 0)
    expect(counted, f"{where}: steps", "a count", str(steps))
    batch = next((size for size in batches if state.shape[:1] == (size,)), max(batches))
    parts = "hc" if model.cell == "lstm" else "h"
    expected |= {f"state.{name}{chain}": (batch, model.hidden_size) for chain in model.chains for name in parts}
    check_weights(arrays, expected, where, finite=False)  # a memory of the optimizer may have run over


def make(implementation: str, model: Model, optimizer: Optimizer, weights: Weights) -> Learner:
    """Return a learner in this process that begins with a copy of these weights; see `check`."""
    check(implementation, model)
    if implementation in RUNGS:
        from bench.tasks.learning.learners.rungs import RungLearner

        return RungLearner(implementation, model, optimizer, weights)
    return import_module(f"{__name__}.{implementation}").make(model, optimizer, weights)
