"""The Elman RNN: placeholder inside (the door is final, the inside becomes SIMD)."""

from typing import NamedTuple

import numpy as np

from kernels.checks import DTYPES, check_array, check_float, check_size, check_truncate
from kernels.jit import rnn as _jit

ACTIVATIONS = ("tanh", "relu", "sigmoid")


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
    x: np.ndarray  # (T, B, I)  the input
    initial: State  # the state before the first step


class Gradients(NamedTuple):
    params: Params  # dL/dU, dL/dW, dL/db
    x: np.ndarray  # (T, B, I)  dL/dx
    state: State  # dL/d(initial state)


class Prepared(NamedTuple):
    U: np.ndarray
    W: np.ndarray
    b: np.ndarray


def init_params(input_size, hidden_size, rng, dtype=np.float32):
    check_size("input_size", input_size)
    check_size("hidden_size", hidden_size)
    if np.dtype(dtype) not in DTYPES:
        raise TypeError(f"dtype: expected float32 or float64, got {np.dtype(dtype)}")
    bound = 1 / np.sqrt(hidden_size)
    return Params(
        U=rng.uniform(-bound, bound, (hidden_size, input_size)).astype(dtype),
        W=rng.uniform(-bound, bound, (hidden_size, hidden_size)).astype(dtype),
        b=rng.uniform(-bound, bound, hidden_size).astype(dtype),
    )


def init_state(params, batch_size):
    check_size("batch_size", batch_size)
    return State(np.zeros((batch_size, params.W.shape[0]), params.W.dtype))


def prepare(params):
    _check_params(params)
    return Prepared(*(a.copy() for a in params))


def forward_step(params, x_t, state, activation="tanh"):
    _check_params(params)
    _check_activation(activation)
    H, I = params.U.shape
    check_array("x_t", x_t, ("B", I), params.W.dtype)
    check_array("state.h", state.h, (x_t.shape[0], H), params.W.dtype)
    return State(_jit.forward_step(_jit.Params(*params), x_t, _jit.State(*state), activation).h)


def forward(params, x, state=None, activation="tanh"):
    output = infer(params, x, state, activation)
    return Trace(output.hs, output.state, x, init_state(params, x.shape[1]) if state is None else state)


def infer(params, x, state=None, activation="tanh"):
    _check_params(params)
    _check_activation(activation)
    H, I = params.U.shape
    check_array("x", x, ("T", "B", I), params.W.dtype)
    state = init_state(params, x.shape[1]) if state is None else state
    check_array("state.h", state.h, (x.shape[1], H), params.W.dtype)
    hs, state = _jit.infer(_jit.Params(*params), x, _jit.State(*state), activation)
    return Output(hs, State(*state))


def bptt(params, trace, grad_hs, grad_state=None, truncate=None, activation="tanh"):
    _check_params(params)
    _check_activation(activation)
    check_truncate(truncate)
    H, I = params.U.shape
    dtype = params.W.dtype
    check_array("trace.hs", trace.hs, ("T", "B", H), dtype)
    T, B, _ = trace.hs.shape
    check_array("trace.x", trace.x, (T, B, I), dtype)
    check_array("trace.initial.h", trace.initial.h, (B, H), dtype)
    check_array("grad_hs", grad_hs, (T, B, H), dtype)
    if grad_state is not None:
        check_array("grad_state.h", grad_state.h, (B, H), dtype)
    trace = _jit.Trace(trace.hs, _jit.State(*trace.state), trace.x, _jit.State(*trace.initial))
    grad_state = None if grad_state is None else _jit.State(*grad_state)
    g = _jit.bptt(_jit.Params(*params), trace, grad_hs, grad_state, truncate, activation)
    return Gradients(Params(*g.params), g.x, State(*g.state))


def _check_params(params):
    check_float("params.W", params.W)
    dtype = params.W.dtype
    check_array("params.W", params.W, ("H", "H"), dtype)
    H = params.W.shape[0]
    check_array("params.W", params.W, (H, H), dtype)
    check_array("params.U", params.U, (H, "I"), dtype)
    check_array("params.b", params.b, (H,), dtype)


def _check_activation(activation):
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation: expected {', '.join(map(repr, ACTIVATIONS))}, got {activation!r}")
