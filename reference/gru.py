"""The GRU, its reset gate after the product, and its BPTT (Cho et al. 2014; the reset as in cuDNN and PyTorch):

    r = sigmoid(U_r x_t + W_r h_{t-1} + b_r)
    z = sigmoid(U_z x_t + W_z h_{t-1} + b_z)
    n = tanh(U_n x_t + b_n + r * inner),  inner = W_n h_{t-1} + c
    h_t = (1 - z) n + z h_{t-1}

Sizes: T steps, B sequences in a batch, I inputs, H hidden units; the gates r, z, n lie in this order in blocks of H.
Every array is C-contiguous, all of one dtype, float32 or float64; a row vector is a state, so `W h` is `h @ W.T`.
One-hot input may come as indices: x (T, B) integers in [0, I) instead of (T, B, I), and x_t (B,) instead of (B, I).
"""

from typing import NamedTuple

import numpy as np

from reference.parts import project, project_all, project_back, sigmoid
from reference.quantized import quantize


class Params(NamedTuple):
    U: np.ndarray  # (3H, I)  input to gates
    W: np.ndarray  # (3H, H)  hidden to gates
    b: np.ndarray  # (3H,)    bias
    c: np.ndarray  # (H,)     bias inside the reset product


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
    gates: np.ndarray  # (T, B, 3H)  r, z, n
    inner: np.ndarray  # (T, B, H)  W_n h_{t-1} + c


class Gradients(NamedTuple):
    params: Params  # dL/dU, dL/dW, dL/db, dL/dc
    x: np.ndarray | None  # (T, B, I)  dL/dx, None for indices
    state: State  # dL/d(initial state)


def init_params(input_size, hidden_size, rng, dtype=np.float32):
    """Draw U, W, b and c from the uniform distribution on ±1/sqrt(H), as PyTorch does."""
    bound = 1 / np.sqrt(hidden_size)
    return Params(
        U=rng.uniform(-bound, bound, (3 * hidden_size, input_size)).astype(dtype),
        W=rng.uniform(-bound, bound, (3 * hidden_size, hidden_size)).astype(dtype),
        b=rng.uniform(-bound, bound, 3 * hidden_size).astype(dtype),
        c=rng.uniform(-bound, bound, hidden_size).astype(dtype),
    )


def init_state(params, batch_size):
    """Return the zero state, h (B, H)."""
    return State(np.zeros((batch_size, params.W.shape[1]), params.W.dtype))


def prepare(params, dtype=None):
    """Return the weights as `infer`, `forward` and `forward_step` like them best: here, as they are.

    Of dtype "bfloat16" or "int8" they are rounded, for `infer` and `forward_step`: see `reference.quantized`.
    """
    return params if dtype is None else quantize(params, dtype)


def forward_step(params, x_t, state):
    """Return the state after one more step, from x_t (B, I) or (B,)."""
    inputs = project(params, x_t)
    return State(_step(params, inputs, state.h, np.empty_like(inputs), np.empty_like(state.h)))


def forward(params, x, state=None):
    """Run over x (T, B, I) or (T, B) from `state` (zero if None) and return the trace that `bptt` needs."""
    T, B = x.shape[:2]
    H = params.W.shape[1]
    initial = init_state(params, B) if state is None else state
    inputs = project_all(params, x)
    h = initial.h
    hs, gates = np.empty_like(inputs[:, :, :H]), np.empty_like(inputs)
    inner = np.empty_like(hs)
    for t in range(T):
        h = _step(params, inputs[t], h, gates[t], inner[t])
        hs[t] = h
    return Trace(hs, State(h), x, initial, gates, inner)


def infer(params, x, state=None):
    """Run over x (T, B, I) or (T, B) from `state` (zero if None) and keep only what the user sees."""
    T, B = x.shape[:2]
    h = init_state(params, B).h if state is None else state.h
    inputs = project_all(params, x)
    hs, gates = np.empty((T, B, params.W.shape[1]), inputs.dtype), np.empty_like(inputs[0])
    inner = np.empty_like(h)
    for t in range(T):
        h = _step(params, inputs[t], h, gates, inner)
        hs[t] = h
    return Output(hs, State(h))


def _step(params, inputs, h, gates, inner):
    """Return the next h (B, H), from inputs = U x_t + b (B, 3H); write gates (B, 3H), r, z, n, and inner (B, H)."""
    H = h.shape[1]
    one = h.dtype.type(1)
    recurrent = h @ params.W.T
    gates[:, : 2 * H] = sigmoid(inputs[:, : 2 * H] + recurrent[:, : 2 * H])
    r, z, n = gates[:, :H], gates[:, H : 2 * H], gates[:, 2 * H :]
    inner[:] = recurrent[:, 2 * H :] + params.c
    n[:] = np.tanh(inputs[:, 2 * H :] + r * inner)
    return (one - z) * n + z * h


def bptt(params, trace, grad_hs, grad_state=None, truncate=None):
    """Return the gradients of a loss L, given how it depends on the states.

    grad_hs (T, B, H) is dL/dhs, and grad_state, where given, dL/d(last state), which is added to it.
    With `truncate=k` the loss gradient of each step flows back through k earlier steps, so that it
    reaches k + 1 of them; None is full BPTT, and so is any k >= T - 1. A negative k is a ValueError.
    """
    if truncate is not None and truncate < 0:
        raise ValueError("truncate: expected None or an integer >= 0, got a negative one")
    T, B, H = trace.hs.shape
    r = np.ascontiguousarray(trace.gates[:, :, :H])
    z = np.ascontiguousarray(trace.gates[:, :, H : 2 * H])
    previous = np.concatenate((trace.initial.h, trace.hs[:-1].reshape((T - 1) * B, H)))  # h_{t-1}
    slopes = _slopes(trace, previous)
    grad_h = init_state(params, B).h if grad_state is None else grad_state.h

    # delta_t = dL/d(U x_t + b), of the gates r, z, n
    if truncate is None or truncate >= T - 1:
        delta = np.empty_like(slopes)
        for t in range(T - 1, -1, -1):
            delta[t], grad_h = _step_back(params.W, grad_hs[t] + grad_h, r[t], z[t], slopes[t])
    else:
        delta, grad_h = _windowed(params.W, grad_hs, grad_h, r, z, slopes, truncate)

    rows = delta.reshape(T * B, 3 * H)
    recurrent = _behind_reset(rows, r.reshape(T * B, H))
    grad_U, grad_x = project_back(params.U, trace.x, delta)
    return Gradients(
        params=Params(
            U=grad_U,
            W=recurrent.T @ previous,
            b=rows.sum(axis=0),
            c=recurrent[:, 2 * H :].sum(axis=0),
        ),
        x=grad_x,
        state=State(grad_h),
    )


def _slopes(trace, previous):
    """Return what dL/dh_t is multiplied by to give delta_t, (T, B, 3H)."""
    T, B, H = trace.hs.shape
    gates, inner = trace.gates.reshape(T * B, 3 * H), trace.inner.reshape(T * B, H)
    r, z, n = gates[:, :H], gates[:, H : 2 * H], gates[:, 2 * H :]
    one = gates.dtype.type(1)
    of_n = (one - z) * (one - n * n)
    by_gate = (of_n * inner * r * (one - r), (previous - n) * z * (one - z), of_n)
    return np.concatenate(by_gate, axis=1).reshape(T, B, 3 * H)


def _step_back(W, grad_h, r, z, slopes):
    """Return delta_t (N, 3H) and dL/dh_{t-1} (N, H) from dL/dh_t (N, H)."""
    delta = np.concatenate((grad_h, grad_h, grad_h), axis=1) * slopes
    return delta, grad_h * z + _behind_reset(delta, r) @ W


def _behind_reset(delta, r):
    """Return dL/d(W h_{t-1} + c) from delta, both (N, 3H): r stands before the part of n."""
    recurrent = delta.copy()
    recurrent[:, 2 * r.shape[1] :] *= r
    return recurrent


def _windowed(W, grad_hs, grad_last, r, z, slopes, window):
    """Return delta (T, B, 3H), where each loss gradient flows back through `window` steps, and dL/d(initial h).

    `lagged` is what each loss sends `lag` steps back; all steps take one more step back in one product.
    """
    T, B, H = grad_hs.shape
    r, z, slopes = r.reshape(T * B, H), z.reshape(T * B, H), slopes.reshape(T * B, 3 * H)
    lagged = grad_hs.copy().reshape(T * B, H)
    lagged[-B:] += grad_last
    delta, grad_h = np.zeros_like(slopes), np.zeros_like(grad_last)
    for lag in range(window + 1):
        n = (T - lag) * B
        part, before = _step_back(W, lagged, r[:n], z[:n], slopes[:n])
        delta[:n] += part
        grad_h += before[:B]
        lagged = before[B:]
    return delta.reshape(T, B, 3 * H), grad_h
