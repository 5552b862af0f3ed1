"""Optimizers: each takes a step from weights and gradients, dicts of arrays by name, and changes the weights in place.

A weight without a gradient stays as it is.
"""

import numpy as np

from bench.tasks.model import Weights


def clip(gradients: Weights, bound: float) -> None:
    """Limit every element to ±bound, in place."""
    for gradient in gradients.values():
        np.clip(gradient, -bound, bound, out=gradient)


class Sgd:
    def __init__(self, learning_rate: float):
        self.learning_rate = learning_rate

    def step(self, weights: Weights, gradients: Weights) -> None:
        for name, gradient in gradients.items():
            weights[name] -= self.learning_rate * gradient


class Adam:
    """Adam (Kingma and Ba 2015) with its usual decays, 0.9 and 0.999, and epsilon 1e-8."""

    def __init__(self, learning_rate: float):
        self.learning_rate = learning_rate
        self.steps = 0
        self.mean: Weights = {}
        self.square: Weights = {}

    def step(self, weights: Weights, gradients: Weights) -> None:
        self.steps += 1
        mean_share = 1 - 0.9**self.steps  # what the start from zero has let in so far
        square_share = 1 - 0.999**self.steps
        for name, gradient in gradients.items():
            mean = self.mean.setdefault(name, np.zeros_like(gradient))
            square = self.square.setdefault(name, np.zeros_like(gradient))
            mean += 0.1 * (gradient - mean)
            square += 0.001 * (gradient * gradient - square)
            scale = np.sqrt(square / square_share)
            scale += 1e-8
            weights[name] -= self.learning_rate / mean_share * mean / scale


OPTIMIZERS: dict[str, type[Sgd] | type[Adam]] = {"sgd": Sgd, "adam": Adam}
