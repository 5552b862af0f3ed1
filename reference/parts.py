"""What the cells share: the logistic function, and the product of U and the input, in both directions.

An input is I numbers, or, for one-hot input, the index of its one: an integer in [0, I).
"""

import numpy as np


def sigmoid(a):
    """Return 1 / (1 + exp(-a)) to within a rounding unit of 1, written so that nothing overflows."""
    half = a.dtype.type(0.5)
    return half + half * np.tanh(half * a)


def project(params, x_t):
    """Return U x_t + b (B, G) of one step, from U (G, I), b (G,) and x_t (B, I) or (B,)."""
    if x_t.ndim == 1:
        return params.U.T[x_t] + params.b
    return x_t @ params.U.T + params.b


def project_all(params, x):
    """Return U x_t + b (T, B, G) of all steps, from x (T, B, I) or (T, B): as it waits for no state, in one product."""
    T, B = x.shape[:2]
    return project(params, x.reshape((T * B, *x.shape[2:]))).reshape(T, B, -1)


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
