"""The LSTM (Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000), and its BPTT:

    i = sigmoid(U_i x_t + W_i h_{t-1} + b_i)
    f = sigmoid(U_f x_t + W_f h_{t-1} + b_f)
    g = tanh(U_g x_t + W_g h_{t-1} + b_g)
    o = sigmoid(U_o x_t + W_o h_{t-1} + b_o)
    c_t = f c_{t-1} + i g
    h_t = o tanh(c_t)

The names, shapes and results of `reference.lstm`.

Sizes: T steps, B sequences in a batch, I inputs, H hidden units; the gates i, f, g, o lie in this order in blocks of H.
Every array of a call is C-contiguous and of one dtype, float32 or float64, and no size is 0; anything else is refused
with a ValueError or a TypeError that names the argument (`kernels.core.doors.checks`). For one-hot inputs x may hold
their indices, integers (T, B). No input is written to, and every array that is returned owns its memory.

Work is shared by as many threads as `numba.set_num_threads` allows and have a CPU, where there is enough of it.
"""

from functools import cache, partial
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
from kernels.core.products.tiles import get, put
from kernels.core.vectors.activations import sigmoid, tanh
from kernels.core.vectors.simd import at, full, load, multiply_add, pointer, store
from kernels.core.walks.backward import back_through, given, retreat, wanted
from kernels.core.walks.forward import advance, ahead_through, layer
from kernels.core.walks.network import backward_cell, forward_cell
from kernels.core.walks.recurrence import is_a
from kernels.core.walks.walk import even

__all__ = ["Gradients", "Output", "Params", "Prepared", "State", "Stream", "Trace"]

GATES = np.int64(4)
FORM = FORMS[GATES]
STATES = np.int64(2)


@sendable
class Params(NamedTuple):
    U: np.ndarray  # (4H, I)  input to gates
    W: np.ndarray  # (4H, H)  hidden to gates
    b: np.ndarray  # (4H,)    bias


@sendable
class State(NamedTuple):
    h: np.ndarray  # (B, H)
    c: np.ndarray  # (B, H)  the memory


@sendable
class Trace(NamedTuple):
    hs: np.ndarray  # (T, B, H)  h after every step
    state: State  # the state after the last step
    x: np.ndarray  # (T, B, I)  the input
    initial: State  # the state before the first step
    gates: np.ndarray  # (T, B, 4H)  i, f, g, o
    cs: np.ndarray  # (T, B, H)  c after every step


def init_params(input_size, hidden_size, rng, dtype=np.float32):
    """Draw U, W and b from the uniform distribution on ±1/sqrt(H), as PyTorch does."""
    return draw_params(Params, GATES, input_size, hidden_size, rng, dtype)


def init_state(params, batch_size):
    """Return the zero state, h and c (B, H), for Params or Prepared."""
    return zero_state(State, params, batch_size)


def prepare(params, dtype=None):
    """Lay the weights out for the kernels once, for any number of calls of `infer`, `forward` and the like.

    Of dtype "bfloat16" or "int8" U and W are rounded, and so is what they are multiplied with, for `infer`,
    `forward_step` and `stream`; all else stays float32. `reference.quantized` says how, and what int8 refuses with a
    ValueError.
    """
    H, _ = check_params(params, Params, GATES, aligned=False)
    return lay_out(params.U, params.W, params.b.reshape(GATES, H), dtype)


def forward_step(params, x_t, state):
    """Return the state after one more step, from x_t (B, I)."""
    weights = prepared(params, prepare, GATES)
    check_step(State, weights, x_t, state)
    h, c = np.empty(state.h.shape, state.h.dtype), np.array(state.c)
    run_step(_step, weights, x_t, state.h, h, c)
    return State(h, c)


def stream(params, batch_size=1):
    """Return a Stream, to be called a step at a time, from the zero state of so many sequences.

    `s.step(x_t)` takes x_t (B, I), or indices (B,), and returns h (B, H): the stream's own array, good until the next
    step. `s.run(x)` takes T steps, `s.state` is read and set, `s.reset()` begins anew. See
    `kernels.core.doors.streams`.
    """
    weights = prepared(params, prepare, GATES)
    return Stream(as_layers(), (weights,), batch_size, partial(infer, weights), (stream, weights, batch_size))


def forward(params, x, state=None):
    """Run over x (T, B, I) from `state` (zero if None) and return the trace that `bptt` needs."""
    check_full(params)
    hs, last, initial, gates, cs = _forward(params, x, state, keep=True)
    return Trace(hs, last, x, initial, gates, cs)


def infer(params, x, state=None):
    """Run over x (T, B, I) from `state` (zero if None) and keep only what the user sees."""
    hs, last, *_ = _forward(params, x, state, keep=False)
    return Output(hs, last)


def bptt(params, trace, grad_hs, grad_state=None, truncate=None):
    """Return the gradients of a loss L, given how it depends on the states.

    grad_hs (T, B, H) is dL/dhs, and grad_state, where given, dL/d(last state), which is added to it.
    With `truncate=k` the loss gradient of each step flows back through k earlier steps, so that it
    reaches k + 1 of them; None is full BPTT, and so is any k >= T - 1.
    """
    H, I = check_params(params, Params, GATES)
    dtype = params.W.dtype
    check_fields("trace", trace, Trace)
    T, B = check_input("trace.x", trace.x, ("T", "B"), I, dtype)
    for name, shape in (("hs", (T, B, H)), ("gates", (T, B, 4 * H)), ("cs", (T, B, H))):
        check_array(f"trace.{name}", getattr(trace, name), shape, dtype)
    check_state("trace.initial", trace.initial, State, (B, H), dtype)
    check_array("grad_hs", grad_hs, (T, B, H), dtype)
    grad_last = np.zeros((STATES, B, H), dtype)
    if grad_state is not None:
        check_state("grad_state", grad_state, State, (B, H), dtype)
        grad_last[0], grad_last[1] = grad_state
    check_truncate(truncate)

    U, W = (np.empty(p.shape, dtype) for p in params[:2])
    biases = np.empty((GATES, H), dtype)
    x = np.empty(trace.x.shape, dtype) if trace.x.ndim == 3 else nothing(dtype)
    first = np.empty((STATES, B, H), dtype)
    wanted = (U, W, biases, x, first)
    kept = (trace.gates, trace.cs, trace.initial.c)
    run_bptt(_bptt, FORM, STATES, truncate, params, trace, grad_hs, grad_last, wanted, *kept)
    return Gradients(_merge(U, W, biases), x if x.size else None, State(*(a.copy() for a in first)))


@cache
def as_layers():
    """Return what `kernels.stack` needs to know of the cell."""
    return Cell(_LstmKind(0), Params, State, FORM, (4, 1), prepare, _merge)


def _merge(U, W, biases):
    """Return Params of these weights, and of the biases (GATES, H) as they are packed."""
    return Params(U, W, biases.flatten())


def _forward(params, x, state, keep):
    weights = prepared(params, prepare, GATES)
    state = check_start(State, weights, x, state)
    (T, B), H, dtype = x.shape[:2], weights.hidden_size, weights.dtype
    hs, c = np.empty((T, B, H), dtype), np.array(state.c)
    gates = np.empty((T, B, 4 * H), dtype) if keep else nothing(dtype)
    cs = np.empty((T, B, H), dtype) if keep else nothing(dtype)
    run_forward(_infer, weights, x, state.h, hs, c, gates, cs)
    return hs, State(hs[-1].copy(), c), state, gates, cs


class _LstmForward(NamedTuple):
    """Addresses and sizes: an array's reference is counted whenever it is touched, which takes as long as a tanh."""

    c: Any  # (B, H)  of the step before, and then of this one
    gates: Any  # (T, B, 4H)
    cs: Any  # (T, B, H)
    keep: bool  # gates and cs
    H: int


class _LstmBackward(NamedTuple):
    gates: Any  # (T, B, 4H)
    cs: Any  # (T, B, H)
    initial: Any  # (B, H)  c_0
    H: int


@take_read_only
@compiled
def _infer(team, weights, I, x, h0, hs, c, gates, cs):
    cell = _LstmForward(pointer(c), pointer(gates), pointer(cs), gates.size > 0, c.shape[1])
    ahead_through(team, even(hs, pointer(team)), layer(weights, I, x, h0, hs, FORM), cell, weights, hs)


@take_read_only
@compiled
def _step(team, weights, I, x_t, h0, h, c):
    nothing = np.empty((0, 0, 0), h0.dtype)
    x, hs = x_t.reshape((1, *x_t.shape)), h.reshape((1, *h.shape))
    _infer(team, weights, I, x, h0, hs, c, nothing, nothing)


@overload(advance, jit_options=INLINE)
def _advance(cell, vectors, sums, apart, previous, row, b, c):
    if is_a(cell, _LstmForward):

        def advance(cell, vectors, sums, apart, previous, row, b, c):
            H = cell.H
            i, f = sigmoid(load(sums, 0)), sigmoid(load(sums, apart))
            g, o = tanh(load(sums, 2 * apart)), sigmoid(load(sums, 3 * apart))
            memory = at(cell.c, b * H)
            c_t = multiply_add(f, get(memory, c, H), i * g)
            put(memory, c, c_t, H)
            if cell.keep:
                gates = at(cell.gates, row * 4 * H)
                put(gates, c, i, H)
                put(at(gates, H), c, f, H)
                put(at(gates, 2 * H), c, g, H)
                put(at(gates, 3 * H), c, o, H)
                put(at(cell.cs, row * H), c, c_t, H)
            return o * tanh(c_t)

        return advance


@take_read_only
@compiled
def _bptt(
    team, x, U, W, h0, hs, grad_hs, grad_last, window,
    grad_U, grad_W, grad_biases, grad_x, grad_first, scratch, gates, cs, c0,
):  # fmt: skip
    source = given(x, U, W, U, h0, hs, grad_hs, grad_last, FORM, STATES)
    to = wanted(grad_U, grad_W, grad_biases, grad_x, grad_first)
    cell = _LstmBackward(pointer(gates), pointer(cs), pointer(c0), c0.shape[1])
    back_through(team, even(hs, pointer(team)), source, cell, to, window, scratch)


@overload(retreat, jit_options=INLINE)
def _retreat(cell, vectors, grad_h, middles, middle_apart, carry, carry_apart, deltas, apart, row, before, b, c):
    if is_a(cell, _LstmBackward):

        def retreat(cell, vectors, grad_h, middles, middle_apart, carry, carry_apart, deltas, apart, row, before, b, c):
            H = cell.H
            gates = at(cell.gates, row * 4 * H)
            i, f = get(gates, c, H), get(at(gates, H), c, H)
            g, o = get(at(gates, 2 * H), c, H), get(at(gates, 3 * H), c, H)
            squashed = tanh(get(at(cell.cs, row * H), c, H))
            memory = at(cell.cs, before * H) if before >= 0 else at(cell.initial, b * H)
            c_before = get(memory, c, H)

            one = full(i, 1.0)
            grad_c = multiply_add(grad_h * o, one - squashed * squashed, load(carry, carry_apart))
            store(deltas, 0, grad_c * g * (i - i * i))
            store(deltas, apart, grad_c * c_before * (f - f * f))
            store(deltas, 2 * apart, grad_c * i * (one - g * g))
            store(deltas, 3 * apart, grad_h * squashed * (o - o * o))
            store(carry, 0, full(i, 0.0))
            store(carry, carry_apart, grad_c * f)

        return retreat


class _LstmKind(NamedTuple):
    nothing: int


@overload(forward_cell, jit_options=INLINE)
def _forward_cell(kind, H, c, apart, gates, more, keep):
    if is_a(kind, _LstmKind):
        return lambda kind, H, c, apart, gates, more, keep: _LstmForward(c, gates, more, keep, H)


@overload(backward_cell, jit_options=INLINE)
def _backward_cell(kind, H, hs, hs_row, h0, c0, apart, gates, more):
    if is_a(kind, _LstmKind):
        return lambda kind, H, hs, hs_row, h0, c0, apart, gates, more: _LstmBackward(gates, more, c0, H)
