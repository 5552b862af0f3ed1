"""A training step's work around the cell in compiled code: `update` of `optimizers.py`, and the squared error.

Each is one pass over memory where NumPy takes ten, and one call where it makes as many. The cross-entropy stays
NumPy's, whose exponential is vectorized.
"""

import math
from collections.abc import Callable

import numpy as np

import reference.head
from bench.tasks.learning.optimizers import SLOTS, Optimizer, Slots
from bench.tasks.learning.weights import Weights
from kernels.core.code.cache import compiled


def update(optimizer: Optimizer, weights: Weights, gradients: Weights, slots: Slots, steps: int) -> None:
    """Take a step, in place, as `optimizers.update` does, but leave the gradients as they are."""
    clip = math.inf if optimizer.clip is None else optimizer.clip
    scale = 1.0
    if optimizer.clip_norm is not None:
        norm = math.sqrt(sum(_square(gradient.reshape(-1), clip) for gradient in gradients.values()))
        if norm > optimizer.clip_norm:
            scale = optimizer.clip_norm / norm
    for name, gradient in gradients.items():
        arrays = [weights[name], gradient, *(slots[slot][name] for slot in SLOTS[optimizer.name])]
        flat = (a.reshape(-1) for a in arrays)
        _RULES[optimizer.name](*flat, clip, scale, optimizer.learning_rate, steps)


def squared_error(params, hs, y):
    """Return the loss and its gradients, as `reference.head.squared_error` does."""
    loss, V, d, grad_hs = _squared_error(params.V, params.d, hs, y)
    return loss, reference.head.Gradients(reference.head.Params(V, d), grad_hs)


@compiled
def _limited(gradient, clip, scale):
    """Return one element limited to ±clip, then scaled; NaN stays NaN."""
    return min(max(gradient, -clip), clip) * scale


@compiled
def _square(gradient, clip):
    """Return the sum of the squares of a flat array's elements, each limited to ±clip."""
    bound = gradient.dtype.type(clip)
    sums = np.zeros(16)  # side by side, so that they need not wait for one another
    whole = gradient.size // 16 * 16
    for i in range(0, whole, 16):
        for lane in range(16):
            g = min(max(gradient[i + lane], -bound), bound)
            sums[lane] += g * g
    for i in range(whole, gradient.size):
        g = min(max(gradient[i], -bound), bound)
        sums[0] += g * g
    return sums.sum()


@compiled
def _sgd(weight, gradient, clip, scale, learning_rate, steps):
    """Take a step, in place, with flat arrays. The gradient is limited to ±clip and then scaled on the way."""
    number = weight.dtype.type
    bound, factor, rate = number(clip), number(scale), number(learning_rate)
    for i in range(weight.size):
        weight[i] -= rate * _limited(gradient[i], bound, factor)


@compiled
def _adagrad(weight, gradient, square, clip, scale, learning_rate, steps):
    """Take a step, in place; see `_sgd`."""
    number = weight.dtype.type
    bound, factor, rate, epsilon = number(clip), number(scale), number(learning_rate), number(1e-10)
    for i in range(weight.size):
        g = _limited(gradient[i], bound, factor)
        square[i] += g * g
        weight[i] -= np.divide(rate * g, np.sqrt(square[i]) + epsilon)  # `/` would ask for zeros, one by one


@compiled
def _adam(weight, gradient, mean, square, clip, scale, learning_rate, steps):
    """Take a step, in place; see `_sgd`. `steps` counts it: the first is 1."""
    number = weight.dtype.type
    bound, factor = number(clip), number(scale)
    rate, share = number(learning_rate / (1 - 0.9**steps)), number(1 / math.sqrt(1 - 0.999**steps))
    tenth, thousandth, epsilon = number(0.1), number(0.001), number(1e-8)
    for i in range(weight.size):
        g = _limited(gradient[i], bound, factor)
        m = mean[i] + tenth * (g - mean[i])
        s = square[i] + thousandth * (g * g - square[i])
        mean[i] = m
        square[i] = s
        weight[i] -= np.divide(rate * m, np.sqrt(s) * share + epsilon)


_RULES: dict[str, Callable[..., None]] = {"sgd": _sgd, "adagrad": _adagrad, "adam": _adam}


@compiled
def _squared_error(V, d, hs, y):
    """Return the loss and its gradients by V, d and hs."""
    N, O = y.shape
    grad = np.dot(hs, V.T)
    loss = 0.0
    grad_d = np.zeros_like(d)
    share = d.dtype.type(1 / N)
    for n in range(N):
        for o in range(O):
            error = grad[n, o] + d[o] - y[n, o]
            loss += float(error) * float(error)
            error *= share
            grad[n, o] = error
            grad_d[o] += error
    return 0.5 * loss / N, np.dot(grad.T, hs), grad_d, np.dot(grad, V)
