"""The GRU, its reset gate after the product, and its BPTT (Cho et al. 2014; the reset as in cuDNN and PyTorch):

    r = sigmoid(U_r x_t + W_r h_{t-1} + b_r)
    z = sigmoid(U_z x_t + W_z h_{t-1} + b_z)
    n = tanh(U_n x_t + b_n + r * inner),  inner = W_n h_{t-1} + c
    h_t = (1 - z) n + z h_{t-1}

The names, shapes and results of `reference.gru`.

Sizes: T steps, B sequences in a batch, I inputs, H hidden units; the gates r, z, n lie in this order in blocks of H.
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

GATES = np.int64(3)
FORM = FORMS[GATES]  # with four blocks of sums: n's of the inputs, r, z, n's of the state
BLOCKS = FORM.blocks
STATES = np.int64(1)


@sendable
class Params(NamedTuple):
    U: np.ndarray  # (3H, I)  input to gates
    W: np.ndarray  # (3H, H)  hidden to gates
    b: np.ndarray  # (3H,)    bias
    c: np.ndarray  # (H,)     bias inside the reset product


@sendable
class State(NamedTuple):
    h: np.ndarray  # (B, H)


@sendable
class Trace(NamedTuple):
    hs: np.ndarray  # (T, B, H)  the state after every step
    state: State  # the state after the last step
    x: np.ndarray  # (T, B, I)  the input
    initial: State  # the state before the first step
    gates: np.ndarray  # (T, B, 3H)  r, z, n
    inner: np.ndarray  # (T, B, H)  W_n h_{t-1} + c


def init_params(input_size, hidden_size, rng, dtype=np.float32):
    """Draw U, W, b and c from the uniform distribution on ±1/sqrt(H), as PyTorch does."""
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
    H, _ = check_params(params, Params, GATES, aligned=False)
    biases = np.concatenate((params.b[2 * H :], params.b[: 2 * H], params.c))
    return lay_out(params.U, params.W, biases.reshape(BLOCKS, H), dtype)


def forward_step(params, x_t, state):
    """Return the state after one more step, from x_t (B, I)."""
    weights = prepared(params, prepare, GATES)
    check_step(State, weights, x_t, state)
    h = np.empty(state.h.shape, state.h.dtype)
    run_step(_step, weights, x_t, state.h, h)
    return State(h)


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
    hs, last, initial, gates, inner = _forward(params, x, state, keep=True)
    return Trace(hs, last, x, initial, gates, inner)


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
    for name, shape in (("hs", (T, B, H)), ("gates", (T, B, 3 * H)), ("inner", (T, B, H))):
        check_array(f"trace.{name}", getattr(trace, name), shape, dtype)
    check_state("trace.initial", trace.initial, State, (B, H), dtype)
    check_array("grad_hs", grad_hs, (T, B, H), dtype)
    if grad_state is None:
        grad_state = State(np.zeros((B, H), dtype))
    check_state("grad_state", grad_state, State, (B, H), dtype)
    check_truncate(truncate)

    U, W = (np.empty(p.shape, dtype) for p in params[:2])
    biases = np.empty((BLOCKS, H), dtype)
    x = np.empty(trace.x.shape, dtype) if trace.x.ndim == 3 else nothing(dtype)
    h = np.empty((B, H), dtype)
    wanted = (U, W, biases, x, h[None])
    kept = (trace.gates, trace.inner)
    run_bptt(_bptt, FORM, STATES, truncate, params, trace, grad_hs, grad_state.h[None], wanted, *kept)
    return Gradients(_merge(U, W, biases), x if x.size else None, State(h))


@cache
def as_layers():
    """Return what `kernels.stack` needs to know of the cell."""
    return Cell(_GruKind(0), Params, State, FORM, (3, 1), prepare, _merge)


def _merge(U, W, biases):
    """Return Params of these weights, and of the biases (BLOCKS, H) as they are packed."""
    return Params(U, W, np.concatenate((biases[1], biases[2], biases[0])), biases[3].copy())


def _forward(params, x, state, keep):
    weights = prepared(params, prepare, GATES)
    state = check_start(State, weights, x, state)
    (T, B), H, dtype = x.shape[:2], weights.hidden_size, weights.dtype
    hs = np.empty((T, B, H), dtype)
    gates = np.empty((T, B, 3 * H), dtype) if keep else nothing(dtype)
    inner = np.empty((T, B, H), dtype) if keep else nothing(dtype)
    run_forward(_infer, weights, x, state.h, hs, gates, inner)
    return hs, State(hs[-1].copy()), state, gates, inner


class _GruForward(NamedTuple):
    """Addresses and sizes: an array's reference is counted whenever it is touched, which takes as long as a tanh."""

    gates: Any  # (T, B, 3H)
    inner: Any  # (T, B, H)
    keep: bool  # gates and inner
    H: int


class _GruBackward(NamedTuple):
    INPUTS = (2, 0, 1)

    gates: Any  # (T, B, 3H)
    inner: Any  # (T, B, H)
    hs: Any  # (T, B, hs_row)
    hs_row: int
    initial: Any  # (B, H)  h_0
    H: int


@take_read_only
@compiled
def _infer(team, weights, I, x, h0, hs, gates, inner):
    cell = _GruForward(pointer(gates), pointer(inner), gates.size > 0, h0.shape[1])
    ahead_through(team, even(hs, pointer(team)), layer(weights, I, x, h0, hs, FORM), cell, weights, hs)


@take_read_only
@compiled
def _step(team, weights, I, x_t, h0, h):
    nothing = np.empty((0, 0, 0), h0.dtype)
    x, hs = x_t.reshape((1, *x_t.shape)), h.reshape((1, *h.shape))
    _infer(team, weights, I, x, h0, hs, nothing, nothing)


@overload(advance, jit_options=INLINE)
def _advance(cell, vectors, sums, apart, previous, row, b, c):
    if is_a(cell, _GruForward):

        def advance(cell, vectors, sums, apart, previous, row, b, c):
            r, z = sigmoid(load(sums, apart)), sigmoid(load(sums, 2 * apart))
            inner = load(sums, 3 * apart)
            n = tanh(multiply_add(r, inner, load(sums, 0)))
            if cell.keep:
                H = cell.H
                gates = at(cell.gates, row * 3 * H)
                put(gates, c, r, H)
                put(at(gates, H), c, z, H)
                put(at(gates, 2 * H), c, n, H)
                put(at(cell.inner, row * H), c, inner, H)
            return multiply_add(z, previous - n, n)

        return advance


@take_read_only
@compiled
def _bptt(
    team, x, U, W, h0, hs, grad_hs, grad_last, window,
    grad_U, grad_W, grad_biases, grad_x, grad_first, scratch, gates, inner,
):  # fmt: skip
    source = given(x, U, W, U, h0, hs, grad_hs, grad_last, FORM, STATES)
    to = wanted(grad_U, grad_W, grad_biases, grad_x, grad_first)
    cell = _GruBackward(pointer(gates), pointer(inner), pointer(hs), hs.shape[2], pointer(h0), h0.shape[1])
    back_through(team, even(hs, pointer(team)), source, cell, to, window, scratch)


@overload(retreat, jit_options=INLINE)
def _retreat(cell, vectors, grad_h, middles, middle_apart, carry, carry_apart, deltas, apart, row, before, b, c):
    if is_a(cell, _GruBackward):

        def retreat(cell, vectors, grad_h, middles, middle_apart, carry, carry_apart, deltas, apart, row, before, b, c):
            H = cell.H
            gates = at(cell.gates, row * 3 * H)
            r, z, n = get(gates, c, H), get(at(gates, H), c, H), get(at(gates, 2 * H), c, H)
            inner = get(at(cell.inner, row * H), c, H)
            previous = at(cell.hs, before * cell.hs_row) if before >= 0 else at(cell.initial, b * H)

            one = full(r, 1.0)
            delta_n = grad_h * (one - z) * (one - n * n)
            store(deltas, 0, delta_n)
            store(deltas, apart, delta_n * inner * (r - r * r))
            store(deltas, 2 * apart, grad_h * (get(previous, c, H) - n) * (z - z * z))
            store(deltas, 3 * apart, delta_n * r)
            store(carry, 0, grad_h * z)

        return retreat


class _GruKind(NamedTuple):
    nothing: int


@overload(forward_cell, jit_options=INLINE)
def _forward_cell(kind, H, c, apart, gates, more, keep):
    if is_a(kind, _GruKind):
        return lambda kind, H, c, apart, gates, more, keep: _GruForward(gates, more, keep, H)


@overload(backward_cell, jit_options=INLINE)
def _backward_cell(kind, H, hs, hs_row, h0, c0, apart, gates, more):
    if is_a(kind, _GruKind):
        return lambda kind, H, hs, hs_row, h0, c0, apart, gates, more: _GruBackward(gates, more, hs, hs_row, h0, H)
