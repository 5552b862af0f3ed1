"""The walk through time that all cells share: a step's products, who computes what, and the order of it all.

A cell differs from another by what it does with the sums of a step, one vector of hidden units at a time. It says so
by overloading `advance` (forward) and `retreat` (BPTT) for its own type; see `kernels.lstm` for an example. All else
is here: T steps, B sequences in a batch, I inputs, H hidden units, G gates.

A step adds up `blocks` vectors of H numbers. Where the input and the state come together in every sum, a block is a
gate. The GRU has one block more, for its n keeps them apart: the inputs' products go to its blocks 0, 1, 2 = n, r, z,
the state's to its blocks 1, 2, 3 = r, z, n. So gate g of W belongs to block g + blocks - G, and a U whose rows are
stacked in W's order is read from another gate on (`_input_gate`).
"""

from typing import Any, NamedTuple

import numpy as np
from numba import types

from kernels.core.cache import compiled
from kernels.core.dots import behind, depth, like
from kernels.core.entering import (
    NOTES,
    before_row,
    begin_states,
    enter_inputs,
    enter_state,
    enter_states,
    entered_row,
    entered_states,
    is_rounded,
    note,
)
from kernels.core.matrices import end_matrices
from kernels.core.simd import ALIGNMENT, align, at, full, lanes, load, pointer, store
from kernels.core.team import count_steps, meet, part, steps_before
from kernels.core.tiles import (
    ADD,
    ONE,
    REPLACE,
    TILE,
    ZERO,
    add_packed_row,
    add_rows,
    copy_rows,
    fill_rows_zero,
    get,
    multiply,
    multiply_transposed,
    pack_columns,
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


def is_a(cell, kind):
    """Tell whether `cell`, the type of an argument, is that of the NamedTuple `kind`."""
    return isinstance(cell, types.BaseNamedTuple) and cell.instance_class is kind


def advance(cell, sums, apart, previous, t, b, c):
    """Return h_t of the units from c on, of sequence b, and keep what the cell wants to keep.

    `sums` is where the first block of these units lies, the next ones `apart` elements on; `previous` is their
    h_{t-1}. Overloaded for the type of `cell`.
    """
    raise NotImplementedError


def retreat(cell, grad_h, carry, carry_apart, deltas, apart, t, b, c):
    """Write the deltas of step t, dL/d(each block's sums), of the units from c on, of sequence b.

    grad_h is dL/dh_t, complete. `carry` is where the gradients lie that reach the state past the products, one for
    each array of the state: dL/dc_t for the LSTM; they are to be replaced by those of step t-1, and that of h is
    zero unless the cell says otherwise. Overloaded for the type of `cell`.
    """
    raise NotImplementedError


# The strategy. With a batch of at least a few rows for each thread, every thread takes its rows through all of time
# and waits for nobody; with less, the hidden units are shared out, and the threads meet after each step.

_ROWS_EACH = 4


WORTH_SHARING = 2_000_000  # multiplications: fewer are done before another thread, awake, has done its part
_PATIENCE = 300  # spins that so many are worth: half of the time that they take
_FEWEST_ROWS = 8  # fewer take as long as these do: it is the time that the weights take to come
_ACTIVATION = 64  # multiplications take as long


def team_size(most, T, B, I, H, gates, together=1):
    """Return how many threads, of `most()`, have enough to do, and for how many spins they are worth waiting.

    A small call need not ask for the most, which takes as long as a small step. Multiplications that are done
    `together` take as long as one.
    """
    work = T * max(B, _FEWEST_ROWS) * gates * H * ((H + I) // together + _ACTIVATION)
    if work < WORTH_SHARING:
        return 1, 0
    most = most()
    by_rows = min(most, B // _ROWS_EACH)
    by_columns = min(most, H // 24, gates * H * H // (18_432 * together))
    return max(1, by_rows, by_columns), _PATIENCE * work // WORTH_SHARING


@compiled
def _by_rows(B, members):
    return _ROWS_EACH * members <= B or members == 1


_FORWARD_ROWS = 128  # of the input projection at a time: it stays in the cache until the recurrence has used it
_BACKWARD_ROWS = 256  # of the weights' gradients at a time: enough to hide their sums' way to memory and back


@compiled
def _chunk(T, rows, most):
    """Return how many steps of `rows` rows to take at a time."""
    return min(T, max(1, most // rows))


@compiled
def _columns(columns, me, team, n):
    """Return the panels, and the columns, that are one member's part."""
    first, last = part(panel_count(columns, n), me, team)
    return first, last, panel_start(first, columns, n) * n, panel_start(last, columns, n) * n


@compiled
def _input_gate(block, gates, blocks):
    """Return the gate of U whose products go to a block."""
    return (block + 2 * gates - blocks) % gates


@compiled
def pack(U, W, biases, weights):
    """Lay out U and W as the forward products need them, gate by gate in the order of the blocks, then the biases.

    Below float32 a row of U and W holds units, and what lies behind a panel.
    """
    blocks, H = biases.shape
    gates = W.shape[0] // H
    w = align(pointer(weights))
    n = lanes(w)
    count = panel_count(H, n)
    K = U.shape[1]
    for g in range(gates):
        u = at(pointer(U), _input_gate(g, gates, blocks) * H * K)
        pack_columns(at(w, g * packed_size(K, H, n)), u, K, K, H, ZERO, count)
    w = at(w, gates * packed_size(K, H, n))
    K = W.shape[1]
    for g in range(gates):
        pack_columns(at(w, g * packed_size(K, H, n)), at(pointer(W), g * H * K), K, K, H, ZERO, count)
    w = at(w, gates * packed_size(K, H, n))
    copy_rows(like(w, pointer(biases)), whole(H, n) * n, pointer(biases), H, blocks, ZERO, H)


# Forward.


@compiled
def _forward_memory(w, T, B, I, H, blocks, members):
    """Return how much memory is walked through time with, by a member alone or by all together: see `forward`."""
    n, by_rows = lanes(w), _by_rows(B, members)
    rows, alone = ((B + members - 1) // members, 1) if by_rows else (B, members)
    steps = _chunk(T, rows, _FORWARD_ROWS)
    rounded = (alone + 2) * rows * entered_row(w, H) if is_rounded(w) else 0
    return (steps * blocks + 2) * rows * padded(H, n) + alone * steps * rows * entered_row(w, I) + rounded


@compiled
def workspace(team, weights, I, hs, blocks):
    """Return the `scratch` of `forward`; what is enough for more members is enough for one."""
    (T, B, H), members, w = hs.shape, len(team), pointer(weights)
    size = (members if _by_rows(B, members) else 1) * _forward_memory(w, T, B, I, H, blocks, members)
    scratch = np.empty(NOTES + size + ALIGNMENT // hs.itemsize, hs.dtype)
    if is_rounded(w):
        scratch[: 2 * NOTES] = 0
    return scratch


@compiled
def forward(member, team, gates, blocks, weights, I, x, h0, hs, cell, scratch):
    """Compute one member's rows or columns of hs (T, B, H) from x (T, B, I), or (T, B) if it is one-hot.

    What is multiplied is `entered` before: below float32 it is rounded into a buffer of its own, else it is there.
    """
    T, B, H = hs.shape
    U = align(pointer(weights))
    n = lanes(U)
    members, meetings = len(team), pointer(team)
    by_rows = _by_rows(B, members)
    me, among = (ZERO, ONE) if by_rows else (member, members)
    first, last = part(B, member, members) if by_rows else (ZERO, B)
    rows = last - first
    steps = _chunk(T, (B + members - 1) // members if by_rows else B, _FORWARD_ROWS)
    p0, p1, c0, c1 = _columns(H, me, among, n)
    extra = blocks - gates

    u_depth, w_depth = depth(U, I), depth(U, H)
    u_size, w_size = packed_size(u_depth + behind(U), H, n), packed_size(w_depth + behind(U), H, n)
    W = at(U, gates * u_size)
    b = like(at(W, gates * w_size), pointer(hs))

    row, x_row, h_row = padded(H, n), entered_row(U, I), entered_row(U, H)
    block = rows * row
    apart = steps * block
    notes = align(pointer(scratch))
    size = _forward_memory(U, T, B, I, H, blocks, members)
    sums = at(notes, NOTES + (member * size if by_rows else ZERO))  # (blocks, steps, rows, row)
    before = at(sums, blocks * apart)  # (rows, row): h_{t-1},
    now = at(before, block)  # and h_t
    entered = at(like(at(now, block), U), before_row(U))  # (rows, h_row): h_t as it is multiplied, below float32,
    entering = at(entered, rows * h_row if is_rounded(U) else ZERO)
    start = at(entering, (1 + me) * rows * h_row if is_rounded(U) else ZERO)  # and h_0, of this member
    xs = at(start, (among - me) * rows * h_row if is_rounded(U) else ZERO)
    xs = at(xs, me * steps * rows * x_row)  # (steps, rows, x_row), of this member

    # complete, while `before` has a member's columns alone
    state, state_row, fault = enter_states(U, at(pointer(h0), first * H), H, rows, start, h_row)
    begin_states(entered, 2 * rows, h_row, pointer(hs))
    copy_rows(before, row, at(pointer(h0), first * H), H, rows, c0, min(c1, H))
    mark = full(load(before, 0), 0.0)
    turn = steps_before(team)
    for t0 in range(0, T, steps):
        count = min(steps, T - t0)
        for g in range(blocks):
            copy_rows(at(sums, g * apart), row, at(b, g * whole(H, n) * n), ZERO, count * rows, c0, c1)
        if x.ndim == 3:
            for s in range(count):
                source = at(pointer(x), ((t0 + s) * B + first) * I)
                fault |= enter_inputs(at(xs, s * rows * x_row), x_row, source, rows, I)
            many = count * rows
            multiply(sums, apart, row, xs, ZERO, x_row, U, gates, many, u_depth, H, p0, p1, ZERO, many)
        else:
            indices = pointer(x)
            for k in range(count * rows):
                i = indices[(t0 + k // rows) * B + first + k % rows]
                for g in range(gates):
                    add_packed_row(at(sums, g * apart + k * row), at(U, g * u_size), i, u_depth, H, p0, p1)
        for s in range(count):
            step = at(sums, s * block)
            to = at(step, extra * apart)
            multiply(to, apart, row, state, ZERO, state_row, W, gates, rows, w_depth, H, p0, p1, turn, B)
            turn += 1
            for r in range(rows):
                out = at(pointer(hs), ((t0 + s) * B + first + r) * H)
                for c in range(c0, c1, n):
                    at_c = r * row + c
                    h = advance(cell, at(step, at_c), apart, load(before, at_c), t0 + s, first + r, c)
                    store(now, at_c, h)
                    put(out, c, h, H)
                    mark = enter_state(at(entering, r * h_row), c, h, mark)
            before, now = now, before
            entered, entering = entering, entered
            state, state_row = entered_states(U, before, row, entered, h_row)
            if t0 + s < T - 1:
                meet(meetings, among)
    end_matrices(U)
    note(U, notes, fault, mark)
    if member == 0:
        count_steps(team, T)


# Backward.


class Given(NamedTuple):
    """What BPTT goes back through, and from where: addresses and sizes, since a reference is counted at every touch."""

    U: Any  # (G H, I)
    W: Any  # (G H, H)
    h0: Any  # (B, H)
    hs: Any  # (T, B, H)
    grad_hs: Any  # (T, B, H)
    grad_last: Any  # (states, B, H)  of the last state
    window: Any  # the loss of a step reaches so many earlier ones
    T: Any
    B: Any
    I: Any
    H: Any


class Wanted(NamedTuple):
    """The addresses of the gradients that BPTT is to write."""

    U: Any  # (G H, I)
    W: Any  # (G H, H)
    biases: Any  # (blocks, H)
    x: Any  # (T, B, I), or nothing if x is one-hot
    first: Any  # (states, B, H)  of the initial state


@compiled
def given(U, W, h0, hs, grad_hs, grad_last, window):
    """Return the Given of these arrays."""
    T, B, H = hs.shape
    addresses = (pointer(U), pointer(W), pointer(h0), pointer(hs), pointer(grad_hs), pointer(grad_last))
    return Given(*addresses, window, T, B, U.shape[1], H)


@compiled
def wanted(grad_U, grad_W, grad_biases, grad_x, grad_first):
    """Return the Wanted of these arrays."""
    return Wanted(pointer(grad_U), pointer(grad_W), pointer(grad_biases), pointer(grad_x), pointer(grad_first))


class _Sizes(NamedTuple):
    T: Any
    B: Any
    I: Any
    H: Any
    gates: Any
    blocks: Any
    states: Any
    one_hot: Any
    steps: Any  # of a chunk
    n: Any  # lanes
    row: Any  # the distance of rows of H numbers,
    x_row: Any  # of rows of I numbers,
    block: Any  # of a step's B rows,
    apart: Any  # and of the blocks' deltas


class _Places(NamedTuple):
    """Where things lie in `scratch`; also in the user's arrays, for sums whose rows are whole vectors."""

    W: Any  # packed, gate by gate
    U: Any
    sum_W: Any  # (G H, W_row)
    W_row: Any
    sum_U: Any  # (G H, U_row), or for indices (I, gates, row)
    U_row: Any
    sum_b: Any  # (blocks, row)
    inputs: Any  # packed x_t of a chunk
    states_in: Any  # packed h_{t-1}
    grad_x: Any  # (steps B, x_row)
    tiles: Any  # the deltas, transposed
    deltas: Any  # (blocks, steps + 1, B, row): the last is the later chunk's
    carry: Any  # (states, B, row)
    lagged: Any  # (blocks, steps + 1, B, row), of one lag
    lagged_carry: Any  # (states, steps + 1, B, row)
    edges: Any  # (window, blocks + states, B, row): the first block of each lag


class _Part(NamedTuple):
    """A member's part: through time by rows or by columns; of the weights' gradients always by units."""

    first: Any  # row of the batch,
    rows: Any  # and how many
    among: Any  # how many members meet after each step
    w0: Any  # panels of W, and columns, on the way through time
    w1: Any
    c0: Any
    c1: Any
    p0: Any  # panels of H, and columns, in the products
    p1: Any
    v0: Any
    v1: Any
    q0: Any  # panels of I
    q1: Any
    u0: Any  # units whose weights' gradients are summed,
    u1: Any  # a whole number of tiles,
    own: Any  # of which so many are there


@compiled
def _sums_size(size):
    """Return the room for the sums of dL/dW and dL/dU: none in the user's arrays, if their rows are whole vectors.

    For indices the latter are (I, gates, H), transposed.
    """
    w = ZERO if size.H % size.n == 0 else size.gates * size.H * size.row
    u = ZERO if size.I % size.n == 0 else size.gates * size.H * size.x_row
    return w, size.gates * size.I * size.row if size.one_hot else u


@compiled
def _sizes(T, B, I, H, gates, blocks, states, one_hot, n):
    steps, row = _chunk(T, B, _BACKWARD_ROWS), padded(H, n)
    block = B * row
    apart = (steps + 1) * block
    return _Sizes(T, B, I, H, gates, blocks, states, one_hot, steps, n, row, padded(I, n), block, apart)


@compiled
def bptt_size(T, B, I, H, gates, blocks, states, one_hot, window, n):
    """Return the size of `scratch`: see `_places`."""
    size = _sizes(T, B, I, H, gates, blocks, states, one_hot, n)
    k, row = size.steps * B, size.row
    weights = gates * (packed_size(H, H, n) + packed_size(H, I, n))
    sum_w, sum_u = _sums_size(size)
    sums = sum_w + blocks * row + sum_u
    walk = blocks * (k + B) + states * B
    if window < T - 1:
        walk += (blocks + states) * (k + B) + window * B * (blocks + states)
    products = packed_size(k, H, n) + packed_size(k, I, n) + k * size.x_row + blocks * k * row
    return weights + sums + walk * row + products


@compiled
def _places(size, wanted, scratch):
    most, row, n = size.steps * size.B, size.row, size.n
    W = align(pointer(scratch))
    U = at(W, size.gates * packed_size(size.H, size.H, n))
    sums = at(U, size.gates * packed_size(size.H, size.I, n))
    spare_w, spare_u = _sums_size(size)
    sum_W, W_row = (sums, row) if spare_w else (wanted.W, size.H)
    sum_b = at(sums, spare_w)
    more = at(sum_b, size.blocks * row)
    sum_U, U_row = (more, size.x_row) if spare_u else (wanted.U, size.I)
    inputs = at(more, spare_u)
    states_in = at(inputs, packed_size(most, size.I, n))
    grad_x = at(states_in, packed_size(most, size.H, n))
    tiles = at(grad_x, most * size.x_row)
    deltas = at(tiles, size.blocks * most * row)
    carry = at(deltas, size.blocks * size.apart)
    lagged = at(carry, size.states * size.block)
    lagged_carry = at(lagged, size.blocks * size.apart)
    edges = at(lagged_carry, size.states * size.apart)
    return _Places(
        W, U, sum_W, W_row, sum_U, U_row, sum_b, inputs, states_in, grad_x, tiles, deltas, carry, lagged, lagged_carry,
        edges,
    )  # fmt: skip


@compiled
def _part(member, members, size, by_rows):
    me, among = (ZERO, ONE) if by_rows else (member, members)
    first, last = part(size.B, member, members) if by_rows else (ZERO, size.B)
    w0, w1, c0, c1 = _columns(size.H, me, among, size.n)
    p0, p1, v0, v1 = _columns(size.H, member, members, size.n)
    q0, q1, _, _ = _columns(size.I, member, members, size.n)
    u0, u1 = part((size.H + TILE - 1) // TILE, member, members)
    u0, u1 = u0 * TILE, u1 * TILE
    return _Part(first, last - first, among, w0, w1, c0, c1, p0, p1, v0, v1, q0, q1, u0, u1, min(u1, size.H) - u0)


@compiled
def bptt(member, team, gates, blocks, states, x, given, cell, wanted, scratch):
    """Compute one member's part of the gradients, from the last step to the first, for x (T, B, I) or one-hot (T, B).

    Time is taken in chunks: while the deltas of a chunk are in the cache, they are multiplied with the states and
    inputs that went in, each member making the sums of some units.
    """
    T, B, I, H = given.T, given.B, given.I, given.H
    members, meetings = len(team), pointer(team)
    full_bptt = given.window >= T - 1
    by_rows = full_bptt and _by_rows(B, members)
    size = _sizes(T, B, I, H, gates, blocks, states, x.ndim == 2, lanes(align(pointer(scratch))))
    mine, places = _part(member, members, size, by_rows), _places(size, wanted, scratch)

    _begin(size, mine, places, given)
    meet(meetings, members)
    for t0 in range((T - 1) // size.steps * size.steps, -1, -size.steps):
        count = min(size.steps, T - t0)
        if full_bptt:
            _walk_back(t0, count, size, mine, places, given.grad_hs, cell, meetings)
        else:
            _look_back(t0, count, size, mine, places, given.grad_hs, cell, given.window, meetings)
        meet(meetings, members if by_rows else ONE)
        _multiply_inputs(t0, count, member, members, size, mine, places, x, given, wanted, meetings)
        meet(meetings, members)
    _end(size, mine, places, wanted)


@compiled
def _begin(size, mine, places, given):
    """Pack the weights, start the sums from zero, and the carries from dL/d(last state)."""
    I, H, row, n = size.I, size.H, size.row, size.n
    for g in range(size.gates):
        w, to = at(given.W, g * H * H), at(places.W, g * packed_size(H, H, n))
        pack_rows(to, w, H, ZERO, H, H, H, mine.p0, mine.p1)
        u = at(given.U, _input_gate(g, size.gates, size.blocks) * H * I)
        pack_rows(at(places.U, g * packed_size(H, I, n)), u, I, ZERO, H, H, I, mine.q0, mine.q1)
    fill_rows_zero(places.sum_b, row, size.blocks, mine.v0, mine.v1)
    if size.one_hot:
        fill_rows_zero(places.sum_U, row, size.gates * I, mine.v0, mine.v1)
    for i in range(size.states):
        to = at(places.carry, i * size.block + mine.first * row)
        source = at(given.grad_last, (i * size.B + mine.first) * H)
        copy_rows(to, row, source, H, mine.rows, mine.c0, min(mine.c1, H))


@compiled
def _multiply_inputs(t0, count, member, members, size, mine, places, x, given, wanted, meetings):
    """Multiply a chunk's deltas: dW += deltaᵀ h_{t-1}, dU += deltaᵀ x_t, db += sum of delta, dx = delta U."""
    T, B, I, H, row, apart, n = size.T, size.B, size.I, size.H, size.row, size.apart, size.n
    most, k, extra = size.steps * B, count * B, size.blocks - size.gates
    skip = B if t0 == 0 else 0
    pack_rows(places.states_in, given.h0, H, ZERO, skip, k, H, mine.p0, mine.p1)
    pack_rows(places.states_in, at(given.hs, (t0 - 1) * B * H), H, skip, k, k, H, mine.p0, mine.p1)
    for g in range(size.blocks):
        for r in range(k):
            delta = at(places.deltas, g * apart + r * row)
            add_rows(at(places.sum_b, g * row), ZERO, delta, ZERO, ONE, mine.v0, mine.v1)
    if x.ndim == 3:
        pack_rows(places.inputs, at(pointer(x), t0 * B * I), I, ZERO, k, k, I, mine.q0, mine.q1)
    else:
        indices = pointer(x)
        for r in range(k):
            to = at(places.sum_U, indices[t0 * B + r] * size.gates * row)
            for g in range(size.gates):
                delta = at(places.deltas, g * apart + r * row)
                add_rows(at(to, g * row), ZERO, delta, ZERO, ONE, mine.v0, mine.v1)
    meet(meetings, members)
    how = REPLACE if t0 + count == T else ADD
    for g in range(size.blocks):
        tile = at(places.tiles, size.blocks * most * mine.u0 + g * most * (mine.u1 - mine.u0))
        pack_tiles(tile, at(places.deltas, g * apart + mine.u0), row, k, mine.own)
        if g >= extra:
            to = at(places.sum_W, ((g - extra) * H + mine.u0) * places.W_row)
            multiply_transposed(
                to, places.W_row, tile, places.states_in, mine.own, k, H, ZERO, panel_count(H, n), how
            )  # fmt: skip
        if g < size.gates and x.ndim == 3:
            to = at(places.sum_U, (_input_gate(g, size.gates, size.blocks) * H + mine.u0) * places.U_row)
            multiply_transposed(to, places.U_row, tile, places.inputs, mine.own, k, I, ZERO, panel_count(I, n), how)
    if x.ndim == 3:
        r0, r1 = part(k, member, members)
        to, x_row = at(places.grad_x, r0 * size.x_row), size.x_row
        fill_rows_zero(to, x_row, r1 - r0, ZERO, whole(I, n) * n)
        a, panels = at(places.deltas, r0 * row), panel_count(I, n)
        multiply(to, ZERO, x_row, a, apart, row, places.U, size.gates, r1 - r0, H, I, ZERO, panels, ZERO, k)
        write_rows(at(wanted.x, (t0 * B + r0) * I), I, to, x_row, r1 - r0, ZERO, I, I)


@compiled
def _end(size, mine, places, wanted):
    """Write dL/dh_0 = delta_1 W, with what comes past the products, and the sums that are not in their place yet."""
    B, I, H, row = size.B, size.I, size.H, size.row
    for i in range(size.states):
        to = at(places.carry, i * size.block + mine.first * row)
        if i == 0:
            a = at(places.deltas, (size.blocks - size.gates) * size.apart + mine.first * row)
            multiply(
                to, ZERO, row, a, size.apart, row, places.W, size.gates, mine.rows, H, H, mine.w0, mine.w1, ZERO, B
            )  # fmt: skip
        first = at(wanted.first, (i * B + mine.first) * H)
        write_rows(first, H, to, row, mine.rows, mine.c0, mine.c1, H)

    spare_w, spare_u = _sums_size(size)
    for g in range(size.gates):
        for r in range(g * H + mine.u0, g * H + mine.u0 + mine.own):
            if spare_w:
                write_rows(at(wanted.W, r * H), H, at(places.sum_W, r * row), ZERO, ONE, ZERO, H, H)
            if spare_u and not size.one_hot:
                write_rows(at(wanted.U, r * I), I, at(places.sum_U, r * size.x_row), ZERO, ONE, ZERO, I, I)
    write_rows(wanted.biases, H, places.sum_b, row, size.blocks, mine.v0, mine.v1, H)
    if size.one_hot:
        for g in range(size.gates):
            for c in range(mine.v0, min(mine.v1, H)):
                for i in range(I):
                    unit = _input_gate(g, size.gates, size.blocks) * H + c
                    wanted.U[unit * I + i] = places.sum_U[(i * size.gates + g) * row + c]


@compiled
def _walk_back(t0, count, size, mine, places, grad_hs, cell, meetings):
    """Compute the deltas of a chunk by full BPTT, step by step: dL/dh_t = what the loss sees of it + delta_{t+1} W."""
    B, H, row, block, apart = size.B, size.H, size.row, size.block, size.apart
    deltas, carry = places.deltas, places.carry
    start = mine.first * row
    if t0 + count < size.T:
        for g in range(size.blocks):
            to = at(deltas, g * apart + start)
            copy_rows(at(to, count * block), row, to, row, mine.rows, mine.c0, mine.c1)
        meet(meetings, mine.among)
    for s in range(count - 1, -1, -1):
        t = t0 + s
        if t < size.T - 1:
            a = at(deltas, (size.blocks - size.gates) * apart + (s + 1) * block + start)
            to = at(carry, start)
            multiply(to, ZERO, row, a, apart, row, places.W, size.gates, mine.rows, H, H, mine.w0, mine.w1, s, B)
        for r in range(mine.first, mine.first + mine.rows):
            seen = at(grad_hs, (t * B + r) * H)
            for c in range(mine.c0, mine.c1, size.n):
                past = at(carry, r * row + c)
                grad_h = load(past, 0) + get(seen, c, H)
                retreat(cell, grad_h, past, block, at(deltas, s * block + r * row + c), apart, t, r, c)
        meet(meetings, mine.among)


@compiled
def _look_back(t0, count, size, mine, places, grad_hs, cell, window, meetings):
    """Compute the deltas of a chunk where the loss of a step reaches `window` steps back.

    All steps that a loss reaches from `lag` steps later are taken at once. The chunk's last one hears of a loss beyond
    its end by way of the edge; at the very end there is none.
    """
    T, B, H, row, block, apart = size.T, size.B, size.H, size.row, size.block, size.apart
    blocks, states, steps, c0, c1 = size.blocks, size.states, size.steps, mine.c0, mine.c1
    carry, lagged, lagged_carry = places.carry, places.lagged, places.lagged_carry
    fill_rows_zero(lagged_carry, row, states * (steps + 1) * B, c0, c1)
    if t0 + count == T:
        for i in range(states):
            to, source = at(lagged_carry, i * apart + (count - 1) * block), at(carry, i * block)
            copy_rows(to, row, source, row, B, c0, c1)
    if t0 == 0:
        fill_rows_zero(carry, row, states * B, c0, c1)
    for lag in range(window + 1):
        reached = count
        if lag > 0:
            reached = max(0, min(count, T - lag - t0))
            many = reached * B
            edge = at(places.edges, (lag - 1) * (blocks + states) * block)
            for g in range(blocks + states):
                chunk = at(lagged, g * apart)  # the lagged deltas, and the carries behind them
                if t0 + count < T:
                    copy_rows(at(chunk, count * block), row, at(edge, g * block), row, B, c0, c1)
                copy_rows(at(edge, g * block), row, chunk, row, B, c0, c1)
            meet(meetings, mine.among)
            for i in range(states):
                to = at(lagged_carry, i * apart)
                copy_rows(to, row, at(to, block), row, many, c0, c1)
            a = at(lagged, (blocks - size.gates) * apart + block)
            multiply(
                lagged_carry, ZERO, row, a, apart, row, places.W, size.gates, many, H, H, mine.w0, mine.w1, ZERO, many
            )  # fmt: skip
            meet(meetings, mine.among)
        for s in range(reached):
            for r in range(B):
                seen = at(grad_hs, ((t0 + s) * B + r) * H)
                for c in range(c0, c1, size.n):
                    past = at(lagged_carry, s * block + r * row + c)
                    grad_h = load(past, 0)
                    if lag == 0:
                        grad_h = grad_h + get(seen, c, H)
                    retreat(cell, grad_h, past, apart, at(lagged, s * block + r * row + c), apart, t0 + s, r, c)
        for g in range(blocks):
            to, source = at(places.deltas, g * apart), at(lagged, g * apart)
            if lag == 0:
                copy_rows(to, row, source, row, reached * B, c0, c1)
            else:
                add_rows(to, row, source, row, reached * B, c0, c1)
        if t0 == 0 and reached > 0:
            for i in range(states):
                add_rows(at(carry, i * block), row, at(lagged_carry, i * apart), row, B, c0, c1)
    meet(meetings, mine.among)
