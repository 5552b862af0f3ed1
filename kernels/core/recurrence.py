"""The walk through time that all cells share: a step's products, who computes what, and the order of it all.

A cell differs from another by what it does with the sums of a step, one vector of hidden units at a time. It says so
by overloading `advance` (forward) and `retreat` (BPTT) for its own type; see `kernels.lstm` for an example. All else
is here: T steps, B sequences in a batch, I inputs, H hidden units, G gates.

A step adds up `blocks` vectors of H numbers. Where the input and the state come together in every sum, a block is a
gate. The GRU has one block more, for its n keeps them apart: the inputs' products go to its blocks 0, 1, 2 = n, r, z,
the state's to its blocks 1, 2, 3 = r, z, n. So gate g of W belongs to block g + blocks - G, and a U whose rows are
stacked in W's order is read from another gate on (`_input_gate`).
"""

import numpy as np
from numba import types

from kernels.core.cache import compiled
from kernels.core.simd import ALIGNMENT, align, at, lanes, load, pointer, store
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


def team_size(most, T, B, I, H, gates):
    """Return how many threads, of `most()`, have enough to do, and for how many spins they are worth waiting.

    A small call need not ask for the most, which takes as long as a small step.
    """
    work = T * max(B, _FEWEST_ROWS) * gates * H * (H + I + _ACTIVATION)
    if work < WORTH_SHARING:
        return 1, 0
    most = most()
    by_rows = min(most, B // _ROWS_EACH)
    by_columns = min(most, H // 24, gates * H * H // 18_432)
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
    """Lay out U and W as the forward products need them, gate by gate in the order of the blocks, then the biases."""
    blocks, H = biases.shape
    gates = W.shape[0] // H
    I = U.shape[1]
    w = align(pointer(weights))
    n = lanes(w)
    count = panel_count(H, n)
    for g in range(gates):
        u = at(pointer(U), _input_gate(g, gates, blocks) * H * I)
        pack_columns(at(w, g * packed_size(I, H, n)), u, I, I, H, ZERO, count)
    w = at(w, gates * packed_size(I, H, n))
    for g in range(gates):
        pack_columns(at(w, g * packed_size(H, H, n)), at(pointer(W), g * H * H), H, H, H, ZERO, count)
    w = at(w, gates * packed_size(H, H, n))
    copy_rows(w, whole(H, n) * n, pointer(biases), H, blocks, ZERO, H)


# Forward.


@compiled
def _forward_memory(T, B, I, H, blocks, members, n):
    """Return how much memory is walked through time with, by a member alone or by all together: see `forward`."""
    by_rows = _by_rows(B, members)
    rows = (B + members - 1) // members if by_rows else B
    steps = _chunk(T, rows, _FORWARD_ROWS)
    return (steps * blocks + 2) * rows * padded(H, n) + (1 if by_rows else members) * steps * rows * padded(I, n)


@compiled
def forward_size(T, B, I, H, blocks, members, n):
    """Return the size of `scratch`; what is enough for more members is enough for one."""
    return (members if _by_rows(B, members) else 1) * _forward_memory(T, B, I, H, blocks, members, n)


@compiled
def workspace(team, I, hs, blocks):
    """Return the `scratch` of `forward`."""
    T, B, H = hs.shape
    size = forward_size(T, B, I, H, blocks, len(team), lanes(pointer(hs)))
    return np.empty(size + ALIGNMENT // hs.itemsize, hs.dtype)


@compiled
def forward(member, team, gates, blocks, weights, I, x, h0, hs, cell, scratch):
    """Compute one member's rows or columns of hs (T, B, H) from x (T, B, I), or (T, B) if it is one-hot."""
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

    u_size, w_size = packed_size(I, H, n), packed_size(H, H, n)
    W = at(U, gates * u_size)
    b = at(W, gates * w_size)

    row, x_row = padded(H, n), padded(I, n)
    block = rows * row
    apart = steps * block
    size = _forward_memory(T, B, I, H, blocks, members, n)
    sums = at(align(pointer(scratch)), member * size if by_rows else ZERO)  # (blocks, steps, rows, row)
    before = at(sums, blocks * apart)  # (rows, row): h_{t-1},
    now = at(before, block)  # and h_t
    xs = at(now, block + me * steps * rows * x_row)  # (steps, rows, x_row), of this member

    state, state_row = at(pointer(h0), first * H), H  # complete, while `before` has a member's columns alone
    copy_rows(before, row, state, H, rows, c0, min(c1, H))
    turn = steps_before(team)
    for t0 in range(0, T, steps):
        count = min(steps, T - t0)
        for g in range(blocks):
            copy_rows(at(sums, g * apart), row, at(b, g * whole(H, n) * n), ZERO, count * rows, c0, c1)
        if x.ndim == 3:
            for s in range(count):
                copy_rows(at(xs, s * rows * x_row), x_row, at(pointer(x), ((t0 + s) * B + first) * I), I, rows, ZERO, I)
            many = count * rows
            multiply(sums, apart, row, xs, ZERO, x_row, U, gates, many, I, H, p0, p1, ZERO, many)
        else:
            indices = pointer(x)
            for k in range(count * rows):
                i = indices[(t0 + k // rows) * B + first + k % rows]
                for g in range(gates):
                    add_packed_row(at(sums, g * apart + k * row), at(U, g * u_size), i, I, H, p0, p1)
        for s in range(count):
            step = at(sums, s * block)
            to = at(step, extra * apart)
            multiply(to, apart, row, state, ZERO, state_row, W, gates, rows, H, H, p0, p1, turn, B)
            turn += 1
            for r in range(rows):
                out = at(pointer(hs), ((t0 + s) * B + first + r) * H)
                for c in range(c0, c1, n):
                    at_c = r * row + c
                    h = advance(cell, at(step, at_c), apart, load(before, at_c), t0 + s, first + r, c)
                    store(now, at_c, h)
                    put(out, c, h, H)
            before, now = now, before
            state, state_row = before, row
            if t0 + s < T - 1:
                meet(meetings, among)
    if member == 0:
        count_steps(team, T)


# Backward.


@compiled
def _sums_size(I, H, gates, one_hot, n):
    """Return the room for the sums of dL/dW and dL/dU: none in the user's arrays, if their rows are whole vectors.

    For indices the latter are (I, gates, H), transposed.
    """
    w = ZERO if H % n == 0 else gates * H * padded(H, n)
    u = ZERO if I % n == 0 else gates * H * padded(I, n)
    return w, gates * I * padded(H, n) if one_hot else u


@compiled
def bptt_size(T, B, I, H, gates, blocks, states, one_hot, window, n):
    """Return the size of `scratch`: see `bptt`."""
    row, x_row = padded(H, n), padded(I, n)
    steps = _chunk(T, B, _BACKWARD_ROWS)
    k = steps * B
    weights = gates * (packed_size(H, H, n) + packed_size(H, I, n))
    sum_w, sum_u = _sums_size(I, H, gates, one_hot, n)
    sums = sum_w + blocks * row + sum_u
    walk = blocks * (k + B) + states * B
    if window < T - 1:
        walk += (blocks + states) * (k + B) + window * B * (blocks + states)
    products = packed_size(k, H, n) + packed_size(k, I, n) + k * x_row + blocks * k * row
    return weights + sums + walk * row + products


@compiled
def bptt(
    member,
    team,
    gates,
    blocks,
    states,
    U,
    W,
    x,
    h0,
    hs,
    window,
    cell,
    grad_hs,
    grad_last,
    grad_U,
    grad_W,
    grad_biases,
    grad_x,
    grad_first,
    scratch,
):
    """Compute one member's part of the gradients, from the last step to the first.

    grad_last and grad_first (states, B, H) are those of the last state and of the initial one, grad_biases is
    (blocks, H). Time is taken in chunks: while the deltas of a chunk are in the cache, they are multiplied with the
    states and inputs that went in, each member making the sums of some units.
    """
    T, B, H = hs.shape
    I = U.shape[1]
    members, meetings = len(team), pointer(team)
    steps = _chunk(T, B, _BACKWARD_ROWS)
    most = steps * B
    extra = blocks - gates
    full_bptt = window >= T - 1

    packed_W = align(pointer(scratch))
    n = lanes(packed_W)
    w_size, u_size = packed_size(H, H, n), packed_size(H, I, n)
    packed_U = at(packed_W, gates * w_size)
    p0, p1, v0, v1 = _columns(H, member, members, n)
    q0, q1, _, _ = _columns(I, member, members, n)
    for g in range(gates):
        u = at(pointer(U), _input_gate(g, gates, blocks) * H * I)
        pack_rows(at(packed_W, g * w_size), at(pointer(W), g * H * H), H, ZERO, H, H, H, p0, p1)
        pack_rows(at(packed_U, g * u_size), u, I, ZERO, H, H, I, q0, q1)
    meet(meetings, members)

    # Through time by rows or columns; the weights' gradients always by units, u0 to u1.
    by_rows = full_bptt and _by_rows(B, members)
    me, among = (ZERO, ONE) if by_rows else (member, members)
    first, last = part(B, member, members) if by_rows else (ZERO, B)
    rows = last - first
    w0, w1, c0, c1 = _columns(H, me, among, n)
    u0, u1 = part((H + TILE - 1) // TILE, member, members)
    u0, u1 = u0 * TILE, u1 * TILE
    own = min(u1, H) - u0

    row, x_row = padded(H, n), padded(I, n)
    block = B * row
    sums = at(packed_U, gates * u_size)
    spare_w, spare_u = _sums_size(I, H, gates, x.ndim == 2, n)
    sum_w, w_row = (sums, row) if spare_w else (pointer(grad_W), H)  # (G H, w_row)
    sum_b = at(sums, spare_w)  # (blocks, row)
    more = at(sum_b, blocks * row)
    sum_u, u_row = (more, x_row) if spare_u else (pointer(grad_U), I)  # (G H, u_row), or for indices `more`
    inputs = at(more, spare_u)  # packed x_t
    states_in = at(inputs, packed_size(most, I, n))  # packed h_{t-1}
    grad_xs = at(states_in, packed_size(most, H, n))  # (most, x_row)
    tiles = at(grad_xs, most * x_row + blocks * most * u0)  # a member's deltas, transposed
    deltas = at(grad_xs, most * (x_row + blocks * row))  # (blocks, steps + 1, B, row): the last is the later chunk's
    apart = (steps + 1) * block
    carry = at(deltas, blocks * apart)  # (states, B, row)
    lagged = at(carry, states * block)  # (blocks, steps + 1, B, row), of one lag
    lagged_carry = at(lagged, blocks * apart)  # (states, steps + 1, B, row)
    edges = at(lagged_carry, states * apart)  # (window, blocks + states, B, row): the first block of each lag

    fill_rows_zero(sum_b, row, blocks, v0, v1)
    if x.ndim == 2:
        fill_rows_zero(more, row, gates * I, v0, v1)
    for i in range(states):
        to, source = at(carry, i * block + first * row), at(pointer(grad_last), (i * B + first) * H)
        copy_rows(to, row, source, H, rows, c0, min(c1, H))

    for t0 in range((T - 1) // steps * steps, -1, -steps):
        count = min(steps, T - t0)
        k = count * B
        if full_bptt:
            _walk_back(
                t0, count, steps, first, rows, w0, w1, c0, c1, gates, blocks, packed_W, grad_hs, cell, carry, deltas,
                meetings, among,
            )  # fmt: skip
        else:
            _look_back(
                t0, count, steps, window, w0, w1, c0, c1, gates, blocks, states, packed_W, grad_hs, cell, carry,
                deltas, lagged, lagged_carry, edges, meetings, among,
            )  # fmt: skip
        meet(meetings, members if by_rows else ONE)

        # dW += deltaᵀ h_{t-1}, dU += deltaᵀ x_t, db += sum of delta, dx = delta U
        skip = B if t0 == 0 else 0
        pack_rows(states_in, pointer(h0), H, ZERO, skip, k, H, p0, p1)
        pack_rows(states_in, at(pointer(hs), (t0 - 1) * B * H), H, skip, k, k, H, p0, p1)
        for g in range(blocks):
            for r in range(k):
                add_rows(at(sum_b, g * row), ZERO, at(deltas, g * apart + r * row), ZERO, ONE, v0, v1)
        if x.ndim == 3:
            pack_rows(inputs, at(pointer(x), t0 * B * I), I, ZERO, k, k, I, q0, q1)
        else:
            indices = pointer(x)
            for r in range(k):
                to = at(more, indices[t0 * B + r] * gates * row)
                for g in range(gates):
                    add_rows(at(to, g * row), ZERO, at(deltas, g * apart + r * row), ZERO, ONE, v0, v1)
        meet(meetings, members)
        how = REPLACE if t0 + count == T else ADD
        for g in range(blocks):
            tile = at(tiles, g * most * (u1 - u0))
            pack_tiles(tile, at(deltas, g * apart + u0), row, k, own)
            if g >= extra:
                to = at(sum_w, ((g - extra) * H + u0) * w_row)
                multiply_transposed(to, w_row, tile, states_in, own, k, H, ZERO, panel_count(H, n), how)
            if g < gates and x.ndim == 3:
                to = at(sum_u, (_input_gate(g, gates, blocks) * H + u0) * u_row)
                multiply_transposed(to, u_row, tile, inputs, own, k, I, ZERO, panel_count(I, n), how)
        if x.ndim == 3:
            r0, r1 = part(k, member, members)
            to = at(grad_xs, r0 * x_row)
            fill_rows_zero(to, x_row, r1 - r0, ZERO, whole(I, n) * n)
            a, panels = at(deltas, r0 * row), panel_count(I, n)
            multiply(to, ZERO, x_row, a, apart, row, packed_U, gates, r1 - r0, H, I, ZERO, panels, ZERO, k)
            write_rows(at(pointer(grad_x), (t0 * B + r0) * I), I, to, x_row, r1 - r0, ZERO, I, I)
        meet(meetings, members)

    for i in range(states):  # dL/dh_0 = delta_1 W, and what comes past the products
        to = at(carry, i * block + first * row)
        if i == 0:
            a = at(deltas, extra * apart + first * row)
            multiply(to, ZERO, row, a, apart, row, packed_W, gates, rows, H, H, w0, w1, ZERO, B)
        write_rows(at(pointer(grad_first), (i * B + first) * H), H, to, row, rows, c0, c1, H)

    for g in range(gates):
        for r in range(g * H + u0, g * H + u0 + own):
            if spare_w:
                write_rows(at(pointer(grad_W), r * H), H, at(sum_w, r * w_row), ZERO, ONE, ZERO, H, H)
            if x.ndim == 3 and spare_u:
                write_rows(at(pointer(grad_U), r * I), I, at(sum_u, r * u_row), ZERO, ONE, ZERO, I, I)
    write_rows(at(pointer(grad_biases), ZERO), H, sum_b, row, blocks, v0, v1, H)
    if x.ndim == 2:
        for g in range(gates):
            for c in range(v0, min(v1, H)):
                for i in range(I):
                    grad_U[_input_gate(g, gates, blocks) * H + c, i] = more[(i * gates + g) * row + c]


@compiled
def _walk_back(
    t0, count, steps, first, rows, p0, p1, c0, c1, gates, blocks, W, grad_hs, cell, carry, deltas, meetings, among
):  # fmt: skip
    """Compute the deltas of a chunk by full BPTT, step by step: dL/dh_t = what the loss sees of it + delta_{t+1} W."""
    T, B, H = grad_hs.shape
    n = lanes(W)
    row = padded(H, n)
    block = B * row
    apart = (steps + 1) * block
    carry_apart = block
    mine = first * row
    if t0 + count < T:
        for g in range(blocks):
            to = at(deltas, g * apart + mine)
            copy_rows(at(to, count * block), row, to, row, rows, c0, c1)
        meet(meetings, among)
    for s in range(count - 1, -1, -1):
        t = t0 + s
        if t < T - 1:
            a = at(deltas, (blocks - gates) * apart + (s + 1) * block + mine)
            multiply(at(carry, mine), ZERO, row, a, apart, row, W, gates, rows, H, H, p0, p1, s, B)
        for r in range(first, first + rows):
            seen = at(pointer(grad_hs), (t * B + r) * H)
            for c in range(c0, c1, n):
                past = at(carry, r * row + c)
                grad_h = load(past, 0) + get(seen, c, H)
                retreat(cell, grad_h, past, carry_apart, at(deltas, s * block + r * row + c), apart, t, r, c)
        meet(meetings, among)


@compiled
def _look_back(
    t0, count, steps, window, p0, p1, c0, c1, gates, blocks, states, W, grad_hs, cell, carry, deltas, lagged,
    lagged_carry, edges, meetings, among,
):  # fmt: skip
    """Compute the deltas of a chunk where the loss of a step reaches `window` steps back.

    All steps that a loss reaches from `lag` steps later are taken at once. The chunk's last one hears of a loss beyond
    its end by way of the edge; at the very end there is none.
    """
    T, B, H = grad_hs.shape
    n = lanes(W)
    row = padded(H, n)
    block = B * row
    apart = (steps + 1) * block
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
            edge = at(edges, (lag - 1) * (blocks + states) * block)
            for g in range(blocks + states):
                chunk = at(lagged, g * apart)  # the lagged deltas, and the carries behind them
                if t0 + count < T:
                    copy_rows(at(chunk, count * block), row, at(edge, g * block), row, B, c0, c1)
                copy_rows(at(edge, g * block), row, chunk, row, B, c0, c1)
            meet(meetings, among)
            for i in range(states):
                to = at(lagged_carry, i * apart)
                copy_rows(to, row, at(to, block), row, many, c0, c1)
            a = at(lagged, (blocks - gates) * apart + block)
            multiply(lagged_carry, ZERO, row, a, apart, row, W, gates, many, H, H, p0, p1, ZERO, many)
            meet(meetings, among)
        for s in range(reached):
            for r in range(B):
                seen = at(pointer(grad_hs), ((t0 + s) * B + r) * H)
                for c in range(c0, c1, n):
                    past = at(lagged_carry, s * block + r * row + c)
                    grad_h = load(past, 0)
                    if lag == 0:
                        grad_h = grad_h + get(seen, c, H)
                    retreat(cell, grad_h, past, apart, at(lagged, s * block + r * row + c), apart, t0 + s, r, c)
        for g in range(blocks):
            to, source = at(deltas, g * apart), at(lagged, g * apart)
            if lag == 0:
                copy_rows(to, row, source, row, reached * B, c0, c1)
            else:
                add_rows(to, row, source, row, reached * B, c0, c1)
        if t0 == 0 and reached > 0:
            for i in range(states):
                add_rows(at(carry, i * block), row, at(lagged_carry, i * apart), row, B, c0, c1)
    meet(meetings, among)
