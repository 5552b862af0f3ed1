"""What the cells share: the logistic function, and the product of the input's weights in both directions.

An input is a row of I numbers, or, for one-hot input, the index of its one: an integer in [0, I).
"""

import numpy as np


def sigmoid(a):
    """Return 1 / (1 + exp(-a)), written so that nothing overflows."""
    half = a.dtype.type(0.5)
    return half + half * np.tanh(half * a)


def project(U, x):
    """Return U x for each of N inputs, (N, G), from U (G, I) and x, N rows (N, I) or indices (N,)."""
    if x.ndim == 1:
        return U.T[x]
    return x @ U.T


def project_back(U, x, delta):
    """Return dL/dU (G, I) and dL/dx (T, B, I), from x (T, B, I) or (T, B), and delta = dL/d(U x), (T, B, G).

    Indices have no gradient: dL/dx is None then.
    """
    T, B, G = delta.shape
    I = U.shape[1]
    delta = delta.reshape(T * B, G)
    if x.ndim == 2:
        grad_U = np.zeros((I, G), U.dtype)
        for n, index in enumerate(x.ravel()):
            grad_U[index] += delta[n]
        return np.ascontiguousarray(grad_U.T), None
    return delta.T @ x.reshape(T * B, I), (delta @ U).reshape(T, B, I)
