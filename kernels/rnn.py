"""The Elman RNN: `h_t = act(U x_t + W h_{t-1} + b)` (Elman 1990), and its BPTT (Werbos 1990).

The names, shapes and results of `reference.rnn`.

Sizes: T steps, B sequences in a batch, I inputs, H hidden units.
Every array of a call is C-contiguous and of one dtype, float32 or float64, and no size is 0; anything else is refused
with a ValueError or a TypeError that names the argument (`kernels.core.doors.checks`). For one-hot inputs x may hold
their indices, integers (T, B). `activation` is "tanh", "relu" or "sigmoid". No input is written to, and every array
that is returned owns its memory.

Work is shared by as many threads as `numba.set_num_threads` allows and have a CPU, where there is enough of it.
"""

from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numba.extending import overload

from kernels.core.code.cache import INLINE, compiled
from kernels.core.code.compiler import take_read_only
from kernels.core.doors.calls import (
    FORMS,
    Cell,
    Gradients,
    Output,
    Prepared,
    check_full,
    check_start,
    check_step,
    draw_params,
    lay_out,
    nothing,
    prepared,
    run_bptt,
    run_forward,
    run_step,
    sendable,
    zero_state,
)
from kernels.core.doors.checks import check_array, check_fields, check_input, check_params, check_state, check_truncate
from kernels.core.doors.streams import Stream
from kernels.core.products.tiles import get
from kernels.core.vectors.activations import CODES, activate, slope
from kernels.core.vectors.simd import at, full, load, pointer, store
from kernels.core.walks.backward import back_through, given, retreat, wanted
from kernels.core.walks.forward import advance, ahead_through, layer
from kernels.core.walks.network import backward_cell, forward_cell
from kernels.core.walks.recurrence import is_a
from kernels.core.walks.walk import even

__all__ = ["Gradients", "Output", "Params", "Prepared", "State", "Stream", "Trace"]

GATES = STATES = np.int64(1)
FORM = FORMS[GATES]


@sendable
class Params(NamedTuple):
    U: np.ndarray  # (H, I)  input to hidden
    W: np.ndarray  # (H, H)  hidden to hidden
    b: np.ndarray  # (H,)    bias


@sendable
class State(NamedTuple):
    h: np.ndarray  # (B, H)


@sendable
class Trace(NamedTuple):
    hs: np.ndarray  # (T, B, H)  the state after every step
    state: State  # the state after the last step
    x: np.ndarray  # (T, B, I)  the input
    initial: State  # the state before the first step


def init_params(input_size, hidden_size, rng, dtype=np.float32):
    """Draw U, W and b from the uniform distribution on ±1/sqrt(H), as PyTorch does."""
    return draw_params(Params, GATES, input_size, hidden_size, rng, dtype)


def init_state(params, batch_size):
    """Return the zero state, h (B, H), for Params or Prepared."""
    return zero_state(State, params, batch_size)


def prepare(params, dtype=None):
    """Lay the weights out for the kernels once, for any number of calls of `infer`, `forward` and the like.

    Of dtype "bfloat16" or "int8" U and W are rounded, and so is what they are multiplied with, for `infer`,
    `forward_step` and `stream`; all else stays float32. `reference.quantized` says how, and what int8 refuses with a
    ValueError.
    """
    check_params(params, Params, GATES, aligned=False)
    return lay_out(params.U, params.W, params.b[None], dtype)


def forward_step(params, x_t, state, activation="tanh"):
    """Return the state after one more step, from x_t (B, I)."""
    weights = prepared(params, prepare, GATES)
    check_step(State, weights, x_t, state)
    h = np.empty(state.h.shape, state.h.dtype)
    run_step(_step, weights, x_t, state.h, h, _code(activation))
    return State(h)


def stream(params, batch_size=1, activation="tanh"):
    """Return a Stream, to be called a step at a time, from the zero state of so many sequences.

    `s.step(x_t)` takes x_t (B, I), or indices (B,), and returns h (B, H): the stream's own array, good until the next
    step. `s.run(x)` takes T steps, `s.state` is read and set, `s.reset()` begins anew. See
    `kernels.core.doors.streams`.
    """
    weights = prepared(params, prepare, GATES)
    layers, steps = as_layers(activation), partial(infer, weights, activation=activation)
    return Stream(layers, (weights,), batch_size, steps, (stream, weights, batch_size, activation))


def forward(params, x, state=None, activation="tanh"):
    """Run over x (T, B, I) from `state` (zero if None) and return the trace that `bptt` needs."""
    check_full(params)
    hs, state, initial = _forward(params, x, state, activation)
    return Trace(hs, state, x, initial)


def infer(params, x, state=None, activation="tanh"):
    """Run over x (T, B, I) from `state` (zero if None) and keep only what the user sees."""
    hs, state, _ = _forward(params, x, state, activation)
    return Output(hs, state)


def bptt(params, trace, grad_hs, grad_state=None, truncate=None, activation="tanh"):
    """Return the gradients of a loss L, given how it depends on the states.

    grad_hs (T, B, H) is dL/dhs, and grad_state, where given, dL/d(last state), which is added to it.
    With `truncate=k` the loss gradient of each step flows back through k earlier steps, so that it
    reaches k + 1 of them; None is full BPTT, and so is any k >= T - 1.
    """
    H, I = check_params(params, Params, GATES)
    dtype = params.W.dtype
    check_fields("trace", trace, Trace)
    T, B = check_input("trace.x", trace.x, ("T", "B"), I, dtype)
    check_array("trace.hs", trace.hs, (T, B, H), dtype)
    check_state("trace.initial", trace.initial, State, (B, H), dtype)
    check_array("grad_hs", grad_hs, (T, B, H), dtype)
    if grad_state is None:
        grad_state = State(np.zeros((B, H), dtype))
    check_state("grad_state", grad_state, State, (B, H), dtype)
    check_truncate(truncate)
    code = _code(activation)

    U, W = (np.empty(p.shape, dtype) for p in params[:2])
    biases = np.empty((1, H), dtype)
    x = np.empty(trace.x.shape, dtype) if trace.x.ndim == 3 else nothing(dtype)
    h = np.empty((B, H), dtype)
    wanted = (U, W, biases, x, h[None])
    run_bptt(_bptt, FORM, STATES, truncate, params, trace, grad_hs, grad_state.h[None], wanted, code)
    return Gradients(_merge(U, W, biases), x if x.size else None, State(h))


def as_layers(activation="tanh"):
    """Return what `kernels.stack` needs to know of the cell."""
    return Cell(_RnnKind(_code(activation)), Params, State, FORM, (), prepare, _merge)


def _merge(U, W, biases):
    """Return Params of these weights, and of the biases (1, H) as they are packed."""
    return Params(U, W, biases.flatten())


def _forward(params, x, state, activation):
    weights = prepared(params, prepare, GATES)
    state = check_start(State, weights, x, state)
    hs = np.empty((*x.shape[:2], weights.hidden_size), weights.dtype)
    run_forward(_infer, weights, x, state.h, hs, _code(activation))
    return hs, State(hs[-1].copy()), state


def _code(activation):
    code = CODES.get(activation) if isinstance(activation, str) else None
    if code is None:
        raise ValueError(f"activation: expected {', '.join(map(repr, CODES))}, got {activation!r}")
    return code


class _RnnForward(NamedTuple):
    activation: int


class _RnnBackward(NamedTuple):
    hs: Any  # the address of (T, B, hs_row)
    hs_row: int
    H: int
    activation: int


@take_read_only
@compiled
def _infer(team, weights, I, x, h0, hs, activation):
    cell = _RnnForward(activation)
    ahead_through(team, even(hs, pointer(team)), layer(weights, I, x, h0, hs, FORM), cell, weights, hs)


@take_read_only
@compiled
def _step(team, weights, I, x_t, h0, h, activation):
    x, hs = x_t.reshape((1, *x_t.shape)), h.reshape((1, *h.shape))
    _infer(team, weights, I, x, h0, hs, activation)


@overload(advance, jit_options=INLINE)
def _advance(cell, vectors, sums, apart, previous, row, b, c):
    if is_a(cell, _RnnForward):
        return lambda cell, vectors, sums, apart, previous, row, b, c: activate(load(sums, 0), cell.activation)


@take_read_only
@compiled
def _bptt(
    team, x, U, W, h0, hs, grad_hs, grad_last, window,
    grad_U, grad_W, grad_biases, grad_x, grad_first, scratch, activation,
):  # fmt: skip
    source = given(x, U, W, U, h0, hs, grad_hs, grad_last, FORM, STATES)
    to = wanted(grad_U, grad_W, grad_biases, grad_x, grad_first)
    cell = _RnnBackward(pointer(hs), hs.shape[2], hs.shape[2], activation)
    back_through(team, even(hs, pointer(team)), source, cell, to, window, scratch)


@overload(retreat, jit_options=INLINE)
def _retreat(cell, vectors, grad_h, middles, middle_apart, carry, carry_apart, deltas, apart, row, before, b, c):
    if is_a(cell, _RnnBackward):

        def retreat(cell, vectors, grad_h, middles, middle_apart, carry, carry_apart, deltas, apart, row, before, b, c):
            """delta = dL/dh_t act'(a_t)"""
            h = get(at(cell.hs, row * cell.hs_row), c, cell.H)
            store(deltas, 0, grad_h * slope(h, cell.activation))
            store(carry, 0, full(grad_h, 0.0))

        return retreat


class _RnnKind(NamedTuple):
    activation: int


@overload(forward_cell, jit_options=INLINE)
def _forward_cell(kind, H, c, apart, gates, more, keep):
    if is_a(kind, _RnnKind):
        return lambda kind, H, c, apart, gates, more, keep: _RnnForward(kind.activation)


@overload(backward_cell, jit_options=INLINE)
def _backward_cell(kind, H, hs, hs_row, h0, c0, apart, gates, more):
    if is_a(kind, _RnnKind):
        return lambda kind, H, hs, hs_row, h0, c0, apart, gates, more: _RnnBackward(hs, hs_row, H, kind.activation)
