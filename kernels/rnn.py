"""The Elman RNN: `h_t = act(U x_t + W h_{t-1} + b)` (Elman 1990), and its BPTT (Werbos 1990).

The names, shapes and results of `reference.rnn`. Sizes: T steps, B sequences in a batch, I inputs, H hidden units.
Every array of a call is C-contiguous and of one dtype, float32 or float64, and no size is 0; anything else is refused
with a ValueError or a TypeError that names the argument (`kernels.checks`). `activation` is "tanh", "relu" or
"sigmoid". No input is written to, and every array that is returned owns its memory.

Work is shared by as many threads as `numba.set_num_threads` allows, where there is enough of it (`_threads`).
"""

from functools import lru_cache
from typing import NamedTuple

import numba
import numpy as np

from kernels.activations import CODES, activate, slope
from kernels.cache import compiled
from kernels.checks import (
    check_array,
    check_dtype,
    check_fields,
    check_params,
    check_sequence,
    check_size,
    check_truncate,
)
from kernels.simd import align, at, lanes, load, pointer, store, vector_lanes
from kernels.team import meet, new_meetings, on_a_team, part
from kernels.tiles import (
    ONE,
    TILE,
    ZERO,
    add_rows,
    copy_rows,
    fill_rows_zero,
    fill_zero,
    get,
    multiply,
    multiply_transposed,
    pack_columns,
    pack_part,
    pack_rows,
    pack_tiles,
    packed_size,
    padded,
    panel_count,
    panel_start,
    put,
    whole,
    write_rows,
)


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
    """Weights as the kernels read them; they stay the same when the arrays they came from change."""

    weights: np.ndarray  # U, W and b in the panels of `kernels.tiles`
    input_size: int
    hidden_size: int


def init_params(input_size, hidden_size, rng, dtype=np.float32):
    """Draw U, W and b from the uniform distribution on ±1/sqrt(H), as PyTorch does."""
    check_size("input_size", input_size)
    check_size("hidden_size", hidden_size)
    check_dtype("dtype", dtype)
    bound = 1 / np.sqrt(hidden_size)
    return Params(
        U=rng.uniform(-bound, bound, (hidden_size, input_size)).astype(dtype),
        W=rng.uniform(-bound, bound, (hidden_size, hidden_size)).astype(dtype),
        b=rng.uniform(-bound, bound, hidden_size).astype(dtype),
    )


def init_state(params, batch_size):
    """Return the zero state, h (B, H), for Params or Prepared."""
    check_size("batch_size", batch_size)
    if isinstance(params, Prepared):
        return State(np.zeros((batch_size, params.hidden_size), params.weights.dtype))
    return State(np.zeros((batch_size, params.W.shape[0]), params.W.dtype))


def prepare(params):
    """Lay the weights out for the kernels once, for any number of calls of `infer`, `forward` and `forward_step`."""
    check_fields("params", params, Params)
    H, I = check_params(params, gates=1)
    n = vector_lanes(params.W.dtype)
    weights = _scratch((I + H + 1) * whole.py_func(H, n) * n, params.W.dtype)
    _pack(params.U, params.W, params.b, weights)
    return Prepared(weights, I, H)


def forward_step(params, x_t, state, activation="tanh"):
    """Return the state after one more step, from x_t (B, I)."""
    prepared = params if isinstance(params, Prepared) else prepare(params)
    dtype = prepared.weights.dtype
    check_fields("state", state, State)
    B = x_t.shape[0] if isinstance(x_t, np.ndarray) and x_t.ndim else "B"
    check_array("x_t", x_t, (B, prepared.input_size), dtype)
    check_array("state.h", state.h, (B, prepared.hidden_size), dtype)
    h = np.empty((B, prepared.hidden_size), dtype)
    _run(prepared, x_t[None], state.h, h[None], _code(activation))
    return State(h)


def forward(params, x, state=None, activation="tanh"):
    """Run over x (T, B, I) from `state` (zero if None) and return the trace that `bptt` needs."""
    hs, last, initial = _forward(params, x, state, activation)
    return Trace(hs, last, x, initial)


def infer(params, x, state=None, activation="tanh"):
    """Run over x (T, B, I) from `state` (zero if None) and keep only what the user sees."""
    hs, last, _ = _forward(params, x, state, activation)
    return Output(hs, last)


def bptt(params, trace, grad_hs, grad_state=None, truncate=None, activation="tanh"):
    """Return the gradients of a loss L, given how it depends on the states.

    grad_hs (T, B, H) is dL/dhs, and grad_state, where given, dL/d(last state), which is added to it.
    With `truncate=k` the loss gradient of each step flows back through k earlier steps, so that it
    reaches k + 1 of them; None is full BPTT, and so is any k >= T - 1.
    """
    check_fields("params", params, Params)
    H, I = check_params(params, gates=1)
    dtype = params.W.dtype
    check_fields("trace", trace, Trace)
    check_fields("trace.initial", trace.initial, State)
    T, B = check_sequence("trace.hs", trace.hs, H, dtype)
    check_array("trace.x", trace.x, (T, B, I), dtype)
    check_array("trace.initial.h", trace.initial.h, (B, H), dtype)
    check_array("grad_hs", grad_hs, (T, B, H), dtype)
    if grad_state is not None:
        check_fields("grad_state", grad_state, State)
        check_array("grad_state.h", grad_state.h, (B, H), dtype)
    check_truncate(truncate)
    code = _code(activation)

    window = T - 1 if truncate is None else min(int(truncate), T - 1)
    last = np.zeros((B, H), dtype) if grad_state is None else grad_state.h
    grads = tuple(np.empty(shape, dtype) for shape in ((H, I), (H, H), (H,), (T, B, I), (B, H)))

    threads = _threads(T * B * H * (H + I), B, H)
    scratch = _scratch(_sizes(_bptt_size, T, B, I, H, window, threads, vector_lanes(dtype)), dtype)
    given = (*params[:2], trace.x, trace.initial.h, trace.hs, grad_hs, last)
    on_a_team(_bptt, threads, (*given, window, *grads, scratch, new_meetings(threads), code))
    U, W, b, x, h = grads
    return Gradients(Params(U, W, b), x, State(h))


def _forward(params, x, state, activation):
    prepared = params if isinstance(params, Prepared) else prepare(params)
    H = prepared.hidden_size
    dtype = prepared.weights.dtype
    T, B = check_sequence("x", x, prepared.input_size, dtype)
    if state is None:
        state = State(np.zeros((B, H), dtype))
    else:
        check_fields("state", state, State)
        check_array("state.h", state.h, (B, H), dtype)
    hs = np.empty((T, B, H), dtype)
    _run(prepared, x, state.h, hs, _code(activation))
    return hs, State(hs[-1].copy()), State(*state)


def _run(prepared, x, h0, hs, code):
    """Write the states of every step to hs (T, B, H)."""
    T, B, I = x.shape
    H = prepared.hidden_size
    threads = _threads(T * B * H * (H + I), B, H)
    scratch = _scratch(_sizes(_infer_size, T, B, I, H, threads, vector_lanes(hs.dtype)), hs.dtype)
    given = (prepared.weights, x, h0, hs, scratch, new_meetings(threads), code)
    on_a_team(_infer, threads, given)


def _code(activation):
    code = CODES.get(activation) if isinstance(activation, str) else None
    if code is None:
        raise ValueError(f"activation: expected {', '.join(map(repr, CODES))}, got {activation!r}")
    return code


@lru_cache(maxsize=4096)
def _sizes(function, *shape):
    """Return function(*shape): to call compiled code takes as long as a small step."""
    return function(*shape)


def _scratch(size, dtype):
    """Return memory for `size` elements from where a cache line starts."""
    return np.empty(size + 64 // dtype.itemsize, dtype)


# The strategy. With a batch of at least a few rows for each thread, every thread takes its rows through all of time
# and waits for nobody; with less, the hidden units are shared out, and the threads meet after each step.

_ROWS_EACH = 4


def _threads(products, B, H):
    """Return how many threads are worth their start for so many multiplications."""
    threads = numba.get_num_threads() if products > 400_000 else 1
    by_rows = min(threads, B // _ROWS_EACH)
    by_columns = min(threads, H // 96) if H >= 192 else 1
    return max(1, by_rows, by_columns)


@compiled
def _by_rows(B, members):
    return _ROWS_EACH * members <= B or members == 1


_FORWARD_ROWS = 128  # of the input projection at a time: it stays in the cache until the recurrence has used it
_BACKWARD_ROWS = 256  # of the weights' gradients at a time: enough to hide their sums' way to memory and back


@compiled
def _groups(B, members):
    """Return how many groups there are, each with its own memory, and how many rows of the batch they take at most."""
    if _by_rows(B, members):
        return members, (B + members - 1) // members
    return 1, B


@compiled
def _place(member, B, members):
    """Return a member's group, its number in that group, and how many are in it."""
    if _by_rows(B, members):
        return member, 0, 1
    return 0, member, members


@compiled
def _chunk(T, rows, most):
    """Return how many steps of `rows` rows to take at a time."""
    return min(T, max(1, most // rows))


@compiled
def _columns(columns, me, team, n):
    """Return the panels, and the columns, that are one member's part."""
    first, last = part(panel_count(columns, n), me, team)
    return first, last, panel_start(first, columns, n) * n, panel_start(last, columns, n) * n


# Forward.


@compiled
def _infer_memory(T, B, I, H, members, n):
    """Return the size of a group's memory: see `_infer`."""
    _, rows = _groups(B, members)
    steps = _chunk(T, rows, _FORWARD_ROWS)
    return (steps + 1) * rows * padded(H, n) + steps * rows * padded(I, n)


@compiled
def _infer_size(T, B, I, H, members, n):
    """Return the size of `scratch`; what is enough for more members is enough for one."""
    return _groups(B, members)[0] * _infer_memory(T, B, I, H, members, n)


@compiled
def _pack(U, W, b, weights):
    """Lay out U and W as the forward products need them, and b behind them."""
    H, I = U.shape
    w = align(pointer(weights))
    n = lanes(w)
    count = panel_count(H, n)
    pack_columns(w, pointer(U), I, I, H, ZERO, count)
    pack_columns(at(w, packed_size(I, H, n)), pointer(W), H, H, H, ZERO, count)
    pack_rows(at(w, packed_size(I + H, H, n)), pointer(b), H, ONE, H, ZERO, count)


@compiled
def _infer(member, members, weights, x, h0, hs, scratch, meetings, activation):
    """Compute one member's rows or columns of hs."""
    T, B, I = x.shape
    H = hs.shape[2]
    groups, most_rows = _groups(B, members)
    group, me, team = _place(member, B, members)
    first, last = part(B, group, groups)
    rows = last - first
    steps = _chunk(T, most_rows, _FORWARD_ROWS)

    U = align(pointer(weights))
    n = lanes(U)
    W, b = at(U, packed_size(I, H, n)), at(U, packed_size(I + H, H, n))
    p0, p1, c0, c1 = _columns(H, me, team, n)

    row, x_row = padded(H, n), padded(I, n)
    block = rows * row
    a = at(align(pointer(scratch)), group * _infer_memory(T, B, I, H, members, n))
    now = at(a, block)  # (steps, rows, row): U x_t + b becomes h_t; the block before it is h_{t-1}
    xs = at(now, steps * block)  # (steps, rows, x_row)

    copy_rows(a, row, at(pointer(h0), first * H), H, rows, c0, min(c1, H))
    for t0 in range(0, T, steps):
        count = min(steps, T - t0)
        if t0 > 0:
            copy_rows(a, row, at(a, steps * block), row, rows, c0, c1)
        s0, s1 = part(count, me, team)
        for s in range(s0, s1):
            copy_rows(at(xs, s * rows * x_row), x_row, at(pointer(x), ((t0 + s) * B + first) * I), I, rows, ZERO, I)
        copy_rows(now, row, b, ZERO, count * rows, c0, c1)
        meet(meetings, team)
        multiply(now, row, xs, x_row, U, count * rows, I, H, p0, p1)
        for s in range(count):
            h = at(now, s * block)
            multiply(h, row, at(a, s * block), row, W, rows, H, H, p0, p1)
            for r in range(rows):
                out = at(pointer(hs), ((t0 + s) * B + first + r) * H)
                for c in range(c0, c1, n):
                    value = activate(load(h, r * row + c), activation)
                    store(h, r * row + c, value)
                    put(out, c, value, H)
            meet(meetings, team)


# Backward.


@compiled
def _sums_size(I, H, n):
    return H * padded(H, n) + H * padded(I, n) + padded(H, n)


@compiled
def _bptt_memory(T, B, I, H, window, members, n):
    """Return the size of a group's memory: see `_bptt`."""
    _, rows = _groups(B, members)
    k = _chunk(T, rows, _BACKWARD_ROWS) * rows
    blocks = (k + rows) + (2 * (k + rows) + window * rows if window < T - 1 else 0)
    products = (
        packed_size(k, H, n) + packed_size(k, I, n) + k * padded(I, n) + k * (padded(H, n) + members * padded(TILE, n))
    )
    return _sums_size(I, H, n) + blocks * padded(H, n) + products


@compiled
def _bptt_size(T, B, I, H, window, members, n):
    """Return the size of `scratch`, the packed W and U, and every group's memory; see `_infer_size`."""
    weights = packed_size(H, H, n) + packed_size(H, I, n)
    return weights + _groups(B, members)[0] * _bptt_memory(T, B, I, H, window, members, n)


@compiled
def _times_slope(delta, row, h, H, rows, c0, c1, activation):
    """Multiply rows of dL/dh_t by act'(a_t), so that they become delta_t = dL/da_t."""
    n = lanes(h)
    for r in range(rows):
        for c in range(c0, c1, n):
            value = load(delta, r * row + c) * slope(get(at(h, r * H), c, H), activation)
            store(delta, r * row + c, value)


@compiled
def _bptt(
    member,
    members,
    U,
    W,
    x,
    h0,
    hs,
    grad_hs,
    grad_last,
    window,
    grad_U,
    grad_W,
    grad_b,
    grad_x,
    grad_h0,
    scratch,
    meetings,
    activation,
):
    """Compute one member's rows or columns of the gradients, from the last step to the first.

    Time is taken in chunks: while the deltas of a chunk are in the cache, they are multiplied with the states and
    inputs that went in, and the sums are kept at the start of the group's memory until the end.
    """
    T, B, H = hs.shape
    I = x.shape[2]
    groups, most_rows = _groups(B, members)
    group, me, team = _place(member, B, members)
    first, last = part(B, group, groups)
    rows = last - first
    steps = _chunk(T, most_rows, _BACKWARD_ROWS)
    full = window >= T - 1

    packed_W = align(pointer(scratch))
    n = lanes(packed_W)
    packed_U = at(packed_W, packed_size(H, H, n))
    memory = at(packed_U, packed_size(H, I, n))
    p0, p1, _, _ = _columns(H, member, members, n)
    pack_rows(packed_W, pointer(W), H, H, H, p0, p1)
    p0, p1, _, _ = _columns(I, member, members, n)
    pack_rows(packed_U, pointer(U), I, H, I, p0, p1)
    meet(meetings, members)

    p0, p1, c0, c1 = _columns(H, me, team, n)
    q0, q1, _, _ = _columns(I, me, team, n)
    own_rows = min(c1, H) - c0

    row, x_row = padded(H, n), padded(I, n)
    block = rows * row
    # The sums of dL/dW (H, row), dL/dU (H, x_row) and dL/db (row,), in the user's arrays if nobody else adds to them
    # and their rows are whole vectors.
    sums = at(memory, group * _bptt_memory(T, B, I, H, window, members, n))
    direct_w, direct_u = groups == 1 and H % n == 0, groups == 1 and I % n == 0
    sum_w, w_row = (pointer(grad_W), H) if direct_w else (sums, row)
    sum_u, u_row = (pointer(grad_U), I) if direct_u else (at(sums, H * row), x_row)
    sum_b = at(sums, H * (row + x_row))
    states = at(sum_b, row)  # packed h_{t-1} of the chunk
    inputs = at(states, packed_size(steps * rows, H, n))  # packed x_t
    grad_xs = at(inputs, packed_size(steps * rows, I, n))  # (steps * rows, x_row)
    deltas = at(grad_xs, steps * rows * x_row)  # packed, and transposed
    # (steps + 1, rows, row), each: the deltas, whose last block is the later chunk's,
    delta = at(deltas, steps * rows * (row + team * padded(TILE, n)))
    lagged = at(delta, (steps + 1) * block)  # the same, of one lag,
    further = at(lagged, (steps + 1) * block)  # and of the next
    edges = at(further, (steps + 1) * block)  # (window, rows, row): the first block of each lag

    fill_zero(at(sum_w, c0 * w_row), own_rows * w_row)
    fill_zero(at(sum_u, c0 * u_row), own_rows * u_row)
    fill_zero(at(sum_b, c0), c1 - c0)

    for t0 in range((T - 1) // steps * steps, -1, -steps):
        count = min(steps, T - t0)
        k = count * rows

        if full:
            if t0 + count < T:
                copy_rows(at(delta, count * block), row, delta, row, rows, c0, c1)
                meet(meetings, team)
            for s in range(count - 1, -1, -1):
                t = t0 + s
                now = at(delta, s * block)
                copy_rows(now, row, at(pointer(grad_hs), (t * B + first) * H), H, rows, c0, min(c1, H))
                if t == T - 1:
                    add_rows(now, row, at(pointer(grad_last), first * H), H, rows, c0, min(c1, H))
                else:
                    multiply(now, row, at(now, block), row, packed_W, rows, H, H, p0, p1)
                _times_slope(now, row, at(pointer(hs), (t * B + first) * H), H, rows, c0, c1, activation)
                meet(meetings, team)
        else:
            for s in range(count):
                t = t0 + s
                now = at(lagged, s * block)
                copy_rows(now, row, at(pointer(grad_hs), (t * B + first) * H), H, rows, c0, min(c1, H))
                if t == T - 1:
                    add_rows(now, row, at(pointer(grad_last), first * H), H, rows, c0, min(c1, H))
                _times_slope(now, row, at(pointer(hs), (t * B + first) * H), H, rows, c0, c1, activation)
            copy_rows(delta, row, lagged, row, k, c0, c1)
            for lag in range(1, window + 1):
                # All steps that a loss reaches from `lag` steps later, at once. The chunk's last one hears of a loss
                # beyond its end by way of the edge; at the very end there is none.
                reached = min(count, T - lag - t0)
                edge = at(edges, (lag - 1) * block)
                if t0 + count < T:
                    copy_rows(at(lagged, count * block), row, edge, row, rows, c0, c1)
                copy_rows(edge, row, lagged, row, rows, c0, c1)
                meet(meetings, team)
                fill_rows_zero(further, row, count * rows, c0, c1)
                multiply(further, row, at(lagged, block), row, packed_W, max(reached, 0) * rows, H, H, p0, p1)
                for s in range(reached):
                    h = at(pointer(hs), ((t0 + s) * B + first) * H)
                    _times_slope(at(further, s * block), row, h, H, rows, c0, c1, activation)
                add_rows(delta, row, further, row, max(reached, 0) * rows, c0, c1)
                lagged, further = further, lagged
                meet(meetings, team)

        # dW += deltaᵀ h_{t-1}, dU += deltaᵀ x_t, db += sum of delta, dx = delta U
        skip = rows if t0 == 0 else 0
        pack_part(states, at(pointer(h0), first * H), rows, B, H, ZERO, skip, k, p0, p1)
        pack_part(states, at(pointer(hs), ((t0 - 1) * B + first) * H), rows, B, H, skip, k, k, p0, p1)
        pack_part(inputs, at(pointer(x), (t0 * B + first) * I), rows, B, I, ZERO, k, k, q0, q1)
        for r in range(k):
            add_rows(sum_b, ZERO, at(delta, r * row), ZERO, ONE, c0, c1)
        meet(meetings, team)
        own = at(deltas, (c0 + me * padded(TILE, n)) * steps * rows)
        pack_tiles(own, at(delta, c0), row, k, own_rows)
        multiply_transposed(at(sum_w, c0 * w_row), w_row, own, states, own_rows, k, H, ZERO, panel_count(H, n))
        multiply_transposed(at(sum_u, c0 * u_row), u_row, own, inputs, own_rows, k, I, ZERO, panel_count(I, n))
        s0, s1 = part(count, me, team)
        fill_zero(at(grad_xs, s0 * rows * x_row), (s1 - s0) * rows * x_row)
        to = at(grad_xs, s0 * rows * x_row)
        multiply(to, x_row, at(delta, s0 * block), row, packed_U, (s1 - s0) * rows, H, I, ZERO, panel_count(I, n))
        for s in range(s0, s1):
            to = at(pointer(grad_x), ((t0 + s) * B + first) * I)
            write_rows(to, I, at(grad_xs, s * rows * x_row), x_row, rows, ZERO, I, I)
        meet(meetings, team)

    grad_h = at(delta, steps * block)  # dL/dh_0 = delta_1 W
    fill_rows_zero(grad_h, row, rows, c0, c1)
    multiply(grad_h, row, delta, row, packed_W, rows, H, H, p0, p1)
    write_rows(at(pointer(grad_h0), first * H), H, grad_h, row, rows, c0, c1, H)

    meet(meetings, members)
    r0, r1 = part(H, member, members)
    size = _bptt_memory(T, B, I, H, window, members, n)
    for r in range(r0, r1):
        if not direct_w:
            _write_sum(at(pointer(grad_W), r * H), at(memory, r * row), groups, size, H)
        if not direct_u:
            _write_sum(at(pointer(grad_U), r * I), at(memory, H * row + r * x_row), groups, size, I)
    if member == 0:
        _write_sum(pointer(grad_b), at(memory, H * (row + x_row)), groups, size, H)


@compiled
def _write_sum(to, source, groups, size, columns):
    """Add up the groups' rows, `size` elements apart, and write them where the user gets them."""
    for c in range(0, columns, lanes(to)):
        total = load(source, c)
        for group in range(1, groups):
            total = total + load(source, group * size + c)
        put(to, c, total, columns)
