"""The LSTM (Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000), and its BPTT:

    i = sigmoid(U_i x_t + W_i h_{t-1} + b_i)
    f = sigmoid(U_f x_t + W_f h_{t-1} + b_f)
    g = tanh(U_g x_t + W_g h_{t-1} + b_g)
    o = sigmoid(U_o x_t + W_o h_{t-1} + b_o)
    c_t = f c_{t-1} + i g
    h_t = o tanh(c_t)

Sizes: T steps, B sequences in a batch, I inputs, H hidden units; the gates i, f, g, o lie in this order in blocks of H.
Every array is C-contiguous, all of one dtype, float32 or float64; a row vector is a state, so `W h` is `h @ W.T`.
One-hot input may come as indices: x (T, B) integers in [0, I) instead of (T, B, I), and x_t (B,) instead of (B, I).
"""

from typing import NamedTuple

import numpy as np

from reference.parts import project, project_all, project_back, sigmoid
from reference.quantized import quantize


class Params(NamedTuple):
    U: np.ndarray  # (4H, I)  input to gates
    W: np.ndarray  # (4H, H)  hidden to gates
    b: np.ndarray  # (4H,)    bias


class State(NamedTuple):
    h: np.ndarray  # (B, H)
    c: np.ndarray  # (B, H)  the memory


class Output(NamedTuple):
    hs: np.ndarray  # (T, B, H)  h after every step
    state: State  # the state after the last step


class Trace(NamedTuple):
    hs: np.ndarray  # (T, B, H)  h after every step
    state: State  # the state after the last step
    x: np.ndarray  # (T, B, I) or (T, B)  the input
    initial: State  # the state before the first step
    gates: np.ndarray  # (T, B, 4H)  i, f, g, o
    cs: np.ndarray  # (T, B, H)  c after every step


class Gradients(NamedTuple):
    params: Params  # dL/dU, dL/dW, dL/db
    x: np.ndarray | None  # (T, B, I)  dL/dx, None for indices
    state: State  # dL/d(initial state)


def init_params(input_size, hidden_size, rng, dtype=np.float32):
    """Draw U, W and b from the uniform distribution on ±1/sqrt(H), as PyTorch does."""
    bound = 1 / np.sqrt(hidden_size)
    return Params(
        U=rng.uniform(-bound, bound, (4 * hidden_size, input_size)).astype(dtype),
        W=rng.uniform(-bound, bound, (4 * hidden_size, hidden_size)).astype(dtype),
        b=rng.uniform(-bound, bound, 4 * hidden_size).astype(dtype),
    )


def init_state(params, batch_size):
    """Return the zero state, h and c (B, H)."""
    shape, dtype = (batch_size, params.W.shape[1]), params.W.dtype
    return State(np.zeros(shape, dtype), np.zeros(shape, dtype))


def prepare(params, dtype=None):
    """Return the weights as `infer`, `forward` and `forward_step` like them best: here, as they are.

    Of dtype "bfloat16" or "int8" they are rounded, for `infer` and `forward_step`: see `reference.quantized`.
    """
    return params if dtype is None else quantize(params, dtype)


def forward_step(params, x_t, state):
    """Return the state after one more step, from x_t (B, I) or (B,)."""
    inputs = project(params, x_t)
    h, c = _step(params, inputs, state.h, state.c, np.empty_like(inputs))
    return State(h, c)


def forward(params, x, state=None):
    """Run over x (T, B, I) or (T, B) from `state` (zero if None) and return the trace that `bptt` needs."""
    T, B = x.shape[:2]
    H = params.W.shape[1]
    initial = init_state(params, B) if state is None else state
    inputs = project_all(params, x)
    h, c = initial.h, initial.c
    hs, gates = np.empty_like(inputs[:, :, :H]), np.empty_like(inputs)
    cs = np.empty_like(hs)
    for t in range(T):
        h, c = _step(params, inputs[t], h, c, gates[t])
        hs[t], cs[t] = h, c
    return Trace(hs, State(h, c), x, initial, gates, cs)


def infer(params, x, state=None):
    """Run over x (T, B, I) or (T, B) from `state` (zero if None) and keep only what the user sees."""
    T, B = x.shape[:2]
    initial = init_state(params, B) if state is None else state
    inputs = project_all(params, x)
    h, c = initial.h, initial.c
    hs, gates = np.empty((T, B, params.W.shape[1]), inputs.dtype), np.empty_like(inputs[0])
    for t in range(T):
        h, c = _step(params, inputs[t], h, c, gates)
        hs[t] = h
    return Output(hs, State(h, c))


def _step(params, inputs, h, c, gates):
    """Return the next h and c (B, H), from inputs = U x_t + b (B, 4H); write gates (B, 4H), i, f, g, o."""
    H = h.shape[1]
    a = inputs + h @ params.W.T
    gates[:, : 2 * H] = sigmoid(a[:, : 2 * H])
    gates[:, 2 * H : 3 * H] = np.tanh(a[:, 2 * H : 3 * H])
    gates[:, 3 * H :] = sigmoid(a[:, 3 * H :])
    i, f, g, o = gates[:, :H], gates[:, H : 2 * H], gates[:, 2 * H : 3 * H], gates[:, 3 * H :]
    c = f * c + i * g
    return o * np.tanh(c), c


def bptt(params, trace, grad_hs, grad_state=None, truncate=None):
    """Return the gradients of a loss L, given how it depends on the states.

    grad_hs (T, B, H) is dL/dhs, and grad_state, where given, dL/d(last state), which is added to it.
    With `truncate=k` the loss gradient of each step flows back through k earlier steps, so that it
    reaches k + 1 of them; None is full BPTT, and so is any k >= T - 1. A negative k is a ValueError.
    """
    if truncate is not None and truncate < 0:
        raise ValueError("truncate: expected None or an integer >= 0, got a negative one")
    T, B, H = trace.hs.shape
    f = np.ascontiguousarray(trace.gates[:, :, H : 2 * H])
    slopes, slope_c = _slopes(trace)
    grad = init_state(params, B) if grad_state is None else grad_state

    # delta_t = dL/d(U x_t + W h_{t-1} + b), of the gates i, f, g, o
    if truncate is None or truncate >= T - 1:
        delta = np.empty_like(slopes)
        for t in range(T - 1, -1, -1):
            delta[t], grad = _step_back(params.W, State(grad_hs[t] + grad.h, grad.c), f[t], slopes[t], slope_c[t])
    else:
        delta, grad = _windowed(params.W, grad_hs, grad, f, slopes, slope_c, truncate)

    rows = delta.reshape(T * B, 4 * H)
    grad_U, grad_x = project_back(params.U, trace.x, delta)
    return Gradients(
        params=Params(U=grad_U, W=rows.T @ _previous(trace.initial.h, trace.hs), b=rows.sum(axis=0)),
        x=grad_x,
        state=grad,
    )


def _previous(first, states):
    """Return the states before each step, (T B, H)."""
    T, B, H = states.shape
    return np.concatenate((first, states[:-1].reshape((T - 1) * B, H)))


def _slopes(trace):
    """Return what dL/dc_t (for i, f, g) and dL/dh_t (for o) are multiplied by to give delta_t, (T, B, 4H), and dh/dc.

    dh/dc (T, B, H) is the slope of h_t by c_t.
    """
    T, B, H = trace.hs.shape
    gates = trace.gates.reshape(T * B, 4 * H)
    i, f, g, o = gates[:, :H], gates[:, H : 2 * H], gates[:, 2 * H : 3 * H], gates[:, 3 * H :]
    one = gates.dtype.type(1)
    previous, tanh_c = _previous(trace.initial.c, trace.cs), np.tanh(trace.cs.reshape(T * B, H))
    by_gate = (g * i * (one - i), previous * f * (one - f), i * (one - g * g), tanh_c * o * (one - o))
    return np.concatenate(by_gate, axis=1).reshape(T, B, 4 * H), (o * (one - tanh_c * tanh_c)).reshape(T, B, H)


def _step_back(W, grad, f, slopes, slope_c):
    """Return delta_t (N, 4H), and dL/d(state) before the step from dL/d(state) after it, both of N rows."""
    grad_c = grad.c + grad.h * slope_c
    delta = np.concatenate((grad_c, grad_c, grad_c, grad.h), axis=1) * slopes
    return delta, State(delta @ W, grad_c * f)


def _windowed(W, grad_hs, grad_last, f, slopes, slope_c, window):
    """Return delta (T, B, 4H), where each loss gradient flows back through `window` steps, and dL/d(initial state).

    `lagged` is what each loss sends `lag` steps back; all steps take one more step back in one product.
    """
    T, B, H = grad_hs.shape
    f, slopes, slope_c = f.reshape(T * B, H), slopes.reshape(T * B, 4 * H), slope_c.reshape(T * B, H)
    lagged = State(grad_hs.copy().reshape(T * B, H), np.zeros_like(f))
    lagged.h[-B:] += grad_last.h
    lagged.c[-B:] += grad_last.c
    delta = np.zeros_like(slopes)
    initial = State(np.zeros_like(grad_last.h), np.zeros_like(grad_last.c))
    for lag in range(window + 1):
        n = (T - lag) * B
        part, before = _step_back(W, lagged, f[:n], slopes[:n], slope_c[:n])
        delta[:n] += part
        initial = State(initial.h + before.h[:B], initial.c + before.c[:B])
        lagged = State(before.h[B:], before.c[B:])
    return delta.reshape(T, B, 4 * H), initial
