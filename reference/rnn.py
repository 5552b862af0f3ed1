"""The Elman RNN: `h_t = act(U x_t + W h_{t-1} + b)` (Elman 1990), and its BPTT (Werbos 1990).

Sizes: T steps, B sequences in a batch, I inputs, H hidden units. Every array is C-contiguous, all of
one dtype, float32 or float64; a row vector is a state, so `W h` is written `h @ W.T`.
The activation is "tanh", "relu" or "sigmoid"; any other name raises a ValueError.
One-hot input may come as indices: x (T, B) integers in [0, I) instead of (T, B, I), and x_t (B,) instead of (B, I).
"""

from typing import NamedTuple

import numpy as np

from reference.parts import project, project_all, project_back, sigmoid
from reference.quantized import quantize


class Params(NamedTuple):
    U: np.ndarray  # (H, I)  input to hidden
    W: np.ndarray  # (H, H)  hidden to hidden
    b: np.ndarray  # (H,)    bias


class State(NamedTuple):
    h: np.ndarray  # (B, H)


class Output(NamedTuple):
    hs: np.ndarray  # (T, B, H)  the state after every step
    state: State  # the state after the last step


class Trace(NamedTuple):
    hs: np.ndarray  # (T, B, H)  the state after every step
    state: State  # the state after the last step
    x: np.ndarray  # (T, B, I) or (T, B)  the input
    initial: State  # the state before the first step


class Gradients(NamedTuple):
    params: Params  # dL/dU, dL/dW, dL/db
    x: np.ndarray | None  # (T, B, I)  dL/dx, None for indices
    state: State  # dL/d(initial state)


def init_params(input_size, hidden_size, rng, dtype=np.float32):
    """Draw U, W and b from the uniform distribution on ±1/sqrt(H), as PyTorch does."""
    bound = 1 / np.sqrt(hidden_size)
    return Params(
        U=rng.uniform(-bound, bound, (hidden_size, input_size)).astype(dtype),
        W=rng.uniform(-bound, bound, (hidden_size, hidden_size)).astype(dtype),
        b=rng.uniform(-bound, bound, hidden_size).astype(dtype),
    )


def init_state(params, batch_size):
    """Return the zero state, h (B, H)."""
    return State(np.zeros((batch_size, params.W.shape[0]), params.W.dtype))


def prepare(params, dtype=None):
    """Return the weights as `infer`, `forward` and `forward_step` like them best: here, as they are.

    Of dtype "bfloat16" or "int8" they are rounded, for `infer` and `forward_step`: see `reference.quantized`.
    """
    return params if dtype is None else quantize(params, dtype)


def forward_step(params, x_t, state, activation="tanh"):
    """Return the state after one more step, from x_t (B, I) or (B,)."""
    return State(_activate(project(params, x_t) + state.h @ params.W.T, activation))


def forward(params, x, state=None, activation="tanh"):
    """Run over x (T, B, I) or (T, B) from `state` (zero if None) and return the trace that `bptt` needs."""
    initial = init_state(params, x.shape[1]) if state is None else state
    output = infer(params, x, initial, activation)
    return Trace(output.hs, output.state, x, initial)


def infer(params, x, state=None, activation="tanh"):
    """Run over x (T, B, I) or (T, B) from `state` (zero if None) and keep only what the user sees."""
    h = init_state(params, x.shape[1]).h if state is None else state.h
    inputs = project_all(params, x)
    hs = np.empty_like(inputs)
    for t in range(len(x)):
        h = _activate(inputs[t] + h @ params.W.T, activation)
        hs[t] = h
    return Output(hs, State(h))


def bptt(params, trace, grad_hs, grad_state=None, truncate=None, activation="tanh"):
    """Return the gradients of a loss L, given how it depends on the states.

    grad_hs (T, B, H) is dL/dhs, and grad_state, where given, dL/d(last state), which is added to it.
    With `truncate=k` the loss gradient of each step flows back through k earlier steps, so that it
    reaches k + 1 of them; None is full BPTT, and so is any k >= T - 1. A negative k is a ValueError.
    """
    if truncate is not None and truncate < 0:
        raise ValueError("truncate: expected None or an integer >= 0, got a negative one")
    T, B, H = trace.hs.shape

    grad_h = grad_hs.copy()  # dL/dh_t, as far as the loss sees h_t directly
    if grad_state is not None:
        grad_h[-1] += grad_state.h
    slope = _slope(trace.hs.reshape(T * B, H), activation).reshape(T, B, H)  # act'(a_t), a_t = U x_t + W h_{t-1} + b

    # delta_t = dL/da_t
    if truncate is None or truncate >= T - 1:
        delta = np.empty_like(grad_h)
        delta[-1] = grad_h[-1] * slope[-1]
        for t in range(T - 2, -1, -1):
            delta[t] = (grad_h[t] + delta[t + 1] @ params.W) * slope[t]
    else:
        delta = _windowed(grad_h, slope, params.W, truncate)

    previous = np.concatenate((trace.initial.h, trace.hs[:-1].reshape((T - 1) * B, H)))  # h_{t-1}
    rows = delta.reshape(T * B, H)
    grad_U, grad_x = project_back(params.U, trace.x, delta)
    return Gradients(
        params=Params(U=grad_U, W=rows.T @ previous, b=rows.sum(axis=0)),
        x=grad_x,
        state=State(delta[0] @ params.W),
    )


def _windowed(grad_h, slope, W, window):
    """Return delta (T, B, H) where every loss gradient flows back through `window` earlier steps.

    `lagged` is what each loss sends `lag` steps back; one product takes the losses of all steps a step further.
    """
    T, B, H = grad_h.shape
    slope_rows = slope.reshape(T * B, H)
    lagged = grad_h.reshape(T * B, H) * slope_rows
    delta = lagged.copy()
    for lag in range(1, window + 1):
        n = (T - lag) * B
        lagged = lagged[B:] @ W * slope_rows[:n]
        delta[:n] += lagged
    return delta.reshape(T, B, H)


def _activate(a, activation):
    """Return act(a)."""
    if activation == "tanh":
        return np.tanh(a)
    if activation == "relu":
        return np.maximum(a, a.dtype.type(0))
    if activation == "sigmoid":
        return sigmoid(a)
    raise ValueError("activation: expected 'tanh', 'relu' or 'sigmoid', got another name")


def _slope(h, activation):
    """Return act'(a) where h = act(a)."""
    one = h.dtype.type(1)
    if activation == "tanh":
        return one - h * h
    if activation == "relu":
        return (h > 0).astype(h.dtype)
    if activation == "sigmoid":
        return h * (one - h)
    raise ValueError("activation: expected 'tanh', 'relu' or 'sigmoid', got another name")
