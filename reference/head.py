"""The linear head on the states of a cell, `V h + d`, and the losses on what it says.

Sizes: N states (of the last step, or of all steps, of every sequence in the batch), H hidden units, O outputs. Every
array is C-contiguous, all of one dtype, float32 or float64. A loss is a float64, averaged over the N states; its
gradients are of that mean.
"""

from typing import NamedTuple

import numpy as np


class Params(NamedTuple):
    V: np.ndarray  # (O, H)  hidden to output
    d: np.ndarray  # (O,)    bias


class Gradients(NamedTuple):
    params: Params  # dL/dV, dL/dd
    hs: np.ndarray  # (N, H)  dL/dhs


def outputs(params, hs):
    """Return V h + d (N, O) for hs (N, H)."""
    return hs @ params.V.T + params.d


def squared_error(params, hs, y):
    """Return half the squared error of the outputs from y (N, O), summed over O, and its gradients."""
    error = outputs(params, hs) - y
    loss = 0.5 * np.sum(np.square(error, dtype=np.float64)) / len(y)
    return loss, _gradients(params, hs, error / error.dtype.type(len(y)))


def cross_entropy(params, hs, targets):
    """Return the cross-entropy, in nats, of softmax(outputs) with the targets (N,), and its gradients.

    A target is the index of the output that should have been likely, an integer from 0 to O - 1.
    """
    N = len(targets)
    scores = outputs(params, hs)
    scores -= scores.max(axis=1, keepdims=True)  # which changes no softmax, and no exponential overflows
    grad = np.exp(scores)
    sums = grad.sum(axis=1, keepdims=True)
    rows = np.arange(N)
    loss = np.mean(np.log(sums[:, 0]) - scores[rows, targets], dtype=np.float64)
    grad /= sums
    grad[rows, targets] -= 1
    grad /= grad.dtype.type(N)
    return loss, _gradients(params, hs, grad)


def _gradients(params, hs, grad):
    """Return all gradients from dL/d(outputs) (N, O)."""
    return Gradients(Params(V=grad.T @ hs, d=grad.sum(axis=0)), hs=grad @ params.V)
