"""Optimizers: SGD, Adagrad and Adam, with the gradients limited by element and by norm.

An optimizer changes the weights, a dict of arrays by name, in place. What it remembers of earlier steps are its
`slots`: for each of its memories a dict of arrays by the names of the weights.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bench.tasks.learning.weights import Weights

SLOTS = {"sgd": (), "adagrad": ("square",), "adam": ("mean", "square")}

Slots = dict[str, Weights]


@dataclass(frozen=True)
class Optimizer:
    """How weights follow from gradients; the formulas are PyTorch's."""

    name: str  # of SLOTS
    learning_rate: float
    clip: float | None = None  # bound on each element of the gradients
    clip_norm: float | None = None  # bound on the norm of all gradients together, after `clip`

    def __post_init__(self) -> None:
        if self.name not in SLOTS:
            raise ValueError(f"name: expected {', '.join(SLOTS)}, got {self.name!r}")


def init_slots(optimizer: Optimizer, weights: Weights) -> Slots:
    return {slot: {name: np.zeros_like(a) for name, a in weights.items()} for slot in SLOTS[optimizer.name]}


def limit(gradients: Weights, clip: float | None, clip_norm: float | None) -> None:
    """Limit every element to ±clip, then scale all together so that their norm is at most clip_norm; in place."""
    if clip is not None:
        for gradient in gradients.values():
            np.clip(gradient, -clip, clip, out=gradient)
    if clip_norm is not None:
        norm = math.sqrt(sum(float(np.vdot(gradient, gradient)) for gradient in gradients.values()))
        if norm > clip_norm:
            for gradient in gradients.values():
                gradient *= gradient.dtype.type(clip_norm / norm)


def update(optimizer: Optimizer, weights: Weights, gradients: Weights, slots: Slots, steps: int) -> None:
    """Take a step, in place; `steps` counts it: the first is 1. A weight without a gradient stays as it is."""
    limit(gradients, optimizer.clip, optimizer.clip_norm)
    for name, gradient in gradients.items():
        of_name = [slots[slot][name] for slot in SLOTS[optimizer.name]]
        _RULES[optimizer.name](weights[name], gradient, *of_name, optimizer.learning_rate, steps)


def _sgd(weight, gradient, learning_rate, steps):
    weight -= learning_rate * gradient


def _adagrad(weight, gradient, square, learning_rate, steps):
    """Duchi, Hazan and Singer 2011, with epsilon 1e-10."""
    square += gradient * gradient
    weight -= learning_rate * gradient / (np.sqrt(square) + 1e-10)


def _adam(weight, gradient, mean, square, learning_rate, steps):
    """Kingma and Ba 2015, with their decays 0.9 and 0.999, and epsilon 1e-8."""
    mean += 0.1 * (gradient - mean)
    square += 0.001 * (gradient * gradient - square)
    # The shares say how much of the gradients a start from zero has let in so far.
    mean_share, square_share = 1 - 0.9**steps, 1 - 0.999**steps
    weight -= learning_rate / mean_share * mean / (np.sqrt(square / square_share) + 1e-8)


_RULES: dict[str, Callable[..., None]] = {"sgd": _sgd, "adagrad": _adagrad, "adam": _adam}
