"""Who learns: the same model, weights, batches and optimizer, one file for each way to compute them.

`make` returns a `Learner`, and `apart.Apart` is one in a process of its own, for races. Its whole state is a dict of
NumPy arrays, so that a training can be kept and gone on with.
"""

from collections.abc import Iterable
from importlib import import_module
from importlib.util import find_spec
from typing import Protocol

import numpy as np

from bench.grid.cases import ChoiceError
from bench.tasks.learning.model import RUNGS, Batch, Model
from bench.tasks.learning.optimizers import Optimizer
from bench.tasks.learning.weights import Weights

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
        return None
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


def make(implementation: str, model: Model, optimizer: Optimizer, weights: Weights) -> Learner:
    """Return a learner in this process that begins with a copy of these weights; see `check`."""
    check(implementation, model)
    if implementation in RUNGS:
        from bench.tasks.learning.learners.rungs import RungLearner

        return RungLearner(implementation, model, optimizer, weights)
    return import_module(f"{__name__}.{implementation}").make(model, optimizer, weights)
