"""Back-propagation through time, one layer in one direction: the deltas of each step, and the gradients they add up to.

A cell says by overloading `retreat` for its own type how dL/dh_t becomes its deltas, the gradients of the sums of step
t; see `kernels.lstm` for an example. T steps, B sequences in a batch, I inputs, H hidden units, G gates; the blocks of
a step's sums are explained in `kernels.core.walks.recurrence`.

Time is taken in chunks: while the deltas of a chunk are in the cache, they are multiplied with the states and inputs
that went in. Members share the way through time by rows or by columns, and those products by units, for which each
needs the deltas of all; where the weights are narrow, that takes longer than the products. There the sequences are cut
into lots, each with sums of its own, that meet at the very end: as many as their sizes say, whoever takes them, so that
the sums are the same to the bit.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.extending import overload

from kernels.core.code.cache import INLINE, compiled, inlined
from kernels.core.products.tiles import (
    ADD,
    ONE,
    REPLACE,
    TILE,
    ZERO,
    add_rows,
    copy_rows,
    fill_rows_zero,
    get,
    multiply,
    multiply_transposed,
    pack_rows,
    pack_tiles,
    packed_size,
    padded,
    panel_count,
    put,
    whole,
    write_rows,
)
from kernels.core.threads.team import assembled, available, meet, part, post, share_out
from kernels.core.vectors.simd import ALIGNMENT, align, at, full, lanes, load, pointer, store
from kernels.core.walks.recurrence import (
    by_rows,
    chunk_rows,
    columns_of,
    count_middles,
    gate_of_u,
    gate_of_w,
    gates_behind,
    gates_of,
    later_of,
)
from kernels.core.walks.walk import all_rows_at, row_at, rows_at, section, sequence, side_by_side, steps_of

ROWS = np.int64(256)  # of the weights' gradients at a time: enough to hide their sums' way to memory and back

_LOT = 8  # sequences: a tile's rows
_MOST_LOTS = 8
_LONG = 16  # steps, from which on it pays to pack the weights for every lot
_NARROW = 200_000  # weights: what keeps in a core's own cache


def retreat(cell, vectors, grad_h, middles, middle_apart, carry, carry_apart, deltas, apart, row, before, b, c):
    """Write the deltas of a step, dL/d(each block's sums), of the units from c on, of sequence b.

    grad_h is dL/dh_t, complete; dL/d(each middle) lie at `middles`. Behind the blocks come the deltas of the cell's
    vectors, which lie at `vectors` in rows of H.
    `carry` is where the gradients lie that reach the state past the products, one for each array of the state: dL/dc_t
    for the LSTM; they are to be replaced by those of step t-1, and that of h is zero unless the cell says otherwise.
    `row` is that of the step in arrays (T B, ...), `before` that of the step before, negative for the first.
    Overloaded for the type of `cell`.
    """
    raise NotImplementedError


def retreat_last(
    cell, which, vectors, grad_h, middles, middle_apart, carry, carry_apart, deltas, apart, row, before, b, c
):
    """Write the deltas of the blocks of one middle alone, from which dL/d(middle) follows; those after it are there.

    Overloaded for the type of a `cell` that has some.
    """
    raise NotImplementedError


def middle_of(cell, hs, which, row):
    """Return where row `row` of a middle was kept (H numbers); hs is an address like it.

    Overloaded for the type of a `cell` that has some.
    """
    raise NotImplementedError


@overload(retreat_last, jit_options=INLINE)
def _retreat_last(
    cell, which, vectors, grad_h, middles, middle_apart, carry, carry_apart, deltas, apart, row, before, b, c
):
    if not later_of(cell):

        def skip(
            cell, which, vectors, grad_h, middles, middle_apart, carry, carry_apart, deltas, apart, row, before, b, c
        ):
            pass

        return skip


@overload(middle_of, jit_options=INLINE)
def _middle_of(cell, hs, which, row):
    if not later_of(cell):
        return lambda cell, hs, which, row: hs


class Given(NamedTuple):
    """What BPTT goes back through, and from where: addresses and sizes, since a reference is counted at every touch."""

    x: Any  # (T, B, I), or (T, B) indices
    U: Any  # (G H, I)
    W: Any  # (G H, H)
    vectors: Any  # (vectors, H)
    h0: Any  # (B, H)
    hs: Any  # (T, B, hs_row)
    grad_hs: Any  # (T, B, hs_row)
    more: Any  # (T, B, hs_row)  to be added to it, if `has_more`
    has_more: Any
    hs_row: Any
    grad_last: Any  # (states, B, H)  of the last state
    I: Any
    H: Any
    form: Any  # `kernels.core.recurrence.Form`
    states: Any


class Wanted(NamedTuple):
    """The addresses of the gradients that BPTT is to write."""

    U: Any  # (G H, I)
    W: Any  # (G H, H)
    biases: Any  # (blocks + vectors, H)
    x: Any  # (T, B, I), or nothing if x is one-hot
    first: Any  # (states, B, H)  of the initial state


class Crew(NamedTuple):
    """A member, and those with whom it takes a walk back: by rows, each some sequences, or by columns."""

    me: Any
    among: Any
    by_rows: Any
    meetings: Any


@compiled
def given(x, U, W, vectors, h0, hs, grad_hs, grad_last, form, states):
    """Return the Given of these arrays, hs (T, B, H)."""
    H = hs.shape[2]
    weights = (pointer(x), pointer(U), pointer(W), pointer(vectors))
    addresses = (pointer(h0), pointer(hs), pointer(grad_hs), pointer(grad_hs))
    return Given(*weights, *addresses, ZERO, H, pointer(grad_last), U.shape[1], H, form, states)


@compiled
def wanted(grad_U, grad_W, grad_biases, grad_x, grad_first):
    """Return the Wanted of these arrays."""
    return Wanted(pointer(grad_U), pointer(grad_W), pointer(grad_biases), pointer(grad_x), pointer(grad_first))


def is_one_hot(x):
    """Tell whether x, an address, is that of indices."""


@overload(is_one_hot, jit_options=INLINE)
def _is_one_hot(x):
    answer = isinstance(x.dtype, types.Integer)
    return lambda x: answer


class _Sizes(NamedTuple):
    I: Any
    H: Any
    u: Any  # gates of U,
    w: Any  # of W in the first stage,
    later: Any  # and behind middles,
    middles: Any  # of which there are so many
    first_w: Any  # the block of W's first gate
    blocks: Any
    sums: Any  # the blocks, and the vectors behind them
    states: Any
    one_hot: Any
    rows: Any  # of a step, at most,
    most: Any  # and of a chunk
    n: Any  # lanes
    row: Any  # the distance of rows of H numbers,
    x_row: Any  # of rows of I numbers,
    block: Any  # of a step's rows,
    apart: Any  # and of the blocks' deltas


class _Places(NamedTuple):
    """Where things lie in `scratch`; also in the user's arrays, for sums whose rows are whole vectors."""

    W: Any  # packed, gate by gate
    later_W: Any  # those behind middles
    U: Any
    sum_W: Any  # (G H, W_row)
    W_row: Any
    sum_U: Any  # (G H, U_row), or for indices (I, gates, row)
    U_row: Any
    sum_b: Any  # (blocks + vectors, row)
    inputs: Any  # packed x_t of a chunk
    states_in: Any  # packed h_{t-1}
    middle_in: Any  # packed, each middle
    grad_x: Any  # (most, x_row)
    tiles: Any  # the deltas, transposed
    deltas: Any  # (blocks + vectors, most + rows, row): the last rows are the later chunk's
    carry: Any  # (states, rows, row)
    lagged: Any  # (blocks + vectors, most + rows, row), of one lag
    lagged_carry: Any  # (states, most + rows, row)
    edges: Any  # (window, blocks + vectors + states, rows, row): the first rows of each lag
    grad_middles: Any  # (middles, rows, row)
    lagged_middles: Any  # (middles, most + rows, row), of one lag


class _Part(NamedTuple):
    """A member's part: through time by rows or by columns; of the weights' gradients always by units."""

    first: Any  # row of a step that is this member's,
    stride: Any  # and from one to the next
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
    w = ZERO if size.H % size.n == 0 else (size.w + size.later) * size.H * size.row
    u = ZERO if size.I % size.n == 0 else size.u * size.H * size.x_row
    return w, size.u * size.I * size.row if size.one_hot else u


@compiled
def _sizes(steps, rows, I, H, form, states, one_hot, at_a_time, n):
    most, row = chunk_rows(steps, rows, at_a_time), padded(H, n)
    first_w, sums = form.blocks - form.w - form.later, form.blocks + form.vectors
    blocks = (form.u, form.w, form.later, form.middles, first_w, form.blocks, sums)
    return _Sizes(I, H, *blocks, states, one_hot, rows, most, n, row, padded(I, n), rows * row, (most + rows) * row)


@compiled
def _size(size, window):
    """Return the size of the scratch of a walk back, through a window if it is not negative: see `_places`."""
    k, row, rows, n = size.most, size.row, size.rows, size.n
    H, I, blocks, states = size.H, size.I, size.sums, size.states
    weights = (size.w + size.later) * packed_size(H, H, n) + size.u * packed_size(H, I, n)
    sum_w, sum_u = _sums_size(size)
    sums = sum_w + blocks * row + sum_u
    walk = blocks * (k + rows) + (states + size.middles) * rows
    if window >= 0:
        walk += (blocks + states) * (k + rows) + window * rows * (blocks + states) + size.middles * (k + rows)
    products = (1 + size.middles) * packed_size(k, H, n) + packed_size(k, I, n) + k * size.x_row + size.blocks * k * row
    return weights + sums + walk * row + products


@compiled
def memory(steps, rows, I, H, form, states, one_hot, at_a_time, n):
    """Return how much memory a walk back through time needs: the `scratch` of `backward`."""
    return _size(_sizes(steps, rows, I, H, form, states, one_hot, at_a_time, n), -1)


@compiled
def _places(size, wanted, scratch):
    most, row, n = size.most, size.row, size.n
    W = scratch
    later_W = at(W, size.w * packed_size(size.H, size.H, n))
    U = at(later_W, size.later * packed_size(size.H, size.H, n))
    sums = at(U, size.u * packed_size(size.H, size.I, n))
    spare_w, spare_u = _sums_size(size)
    sum_W, W_row = (sums, row) if spare_w else (wanted.W, size.H)
    sum_b = at(sums, spare_w)
    more = at(sum_b, size.sums * row)
    sum_U, U_row = (more, size.x_row) if spare_u else (wanted.U, size.I)
    inputs = at(more, spare_u)
    states_in = at(inputs, packed_size(most, size.I, n))
    middle_in = at(states_in, packed_size(most, size.H, n))
    grad_x = at(middle_in, size.middles * packed_size(most, size.H, n))
    tiles = at(grad_x, most * size.x_row)
    grad_middles = at(tiles, size.blocks * most * row)
    deltas = at(grad_middles, size.middles * size.block)
    carry = at(deltas, size.sums * size.apart)
    lagged = at(carry, size.states * size.block)
    lagged_carry = at(lagged, size.sums * size.apart)
    lagged_middles = at(lagged_carry, size.states * size.apart)
    edges = at(lagged_middles, size.middles * size.apart)
    return _Places(
        W, later_W, U, sum_W, W_row, sum_U, U_row, sum_b, inputs, states_in, middle_in, grad_x, tiles, deltas, carry,
        lagged, lagged_carry, edges, grad_middles, lagged_middles,
    )  # fmt: skip


@compiled
def _part(crew, size, first, stride):
    me, among = (ZERO, ONE) if crew.by_rows else (crew.me, crew.among)
    w0, w1, c0, c1 = columns_of(size.H, me, among, size.n)
    p0, p1, v0, v1 = columns_of(size.H, crew.me, crew.among, size.n)
    q0, q1, _, _ = columns_of(size.I, crew.me, crew.among, size.n)
    u0, u1 = part((size.H + TILE - 1) // TILE, crew.me, crew.among)
    u0, u1 = u0 * TILE, u1 * TILE
    return _Part(first, stride, among, w0, w1, c0, c1, p0, p1, v0, v1, q0, q1, u0, u1, min(u1, size.H) - u0)


# Lots.


@compiled
def lots_of(steps, rows, I, H, gates):
    """Return in how many lots to sum the gradients of the weights."""
    if steps < _LONG or gates * H * (H + I) > _NARROW:
        return 1
    return max(1, min(rows // _LOT, _MOST_LOTS))


@compiled
def sums_size(I, H, form):
    """Return how many elements the gradients of a layer's params are, in a direction."""
    return (form.u * I + (form.w + form.later) * H + form.blocks + form.vectors) * H


@compiled
def sums_at(wanted, p, I, H, form):
    """Return `wanted` with the gradients of the params at p."""
    W = at(p, form.u * H * I)
    return Wanted(p, W, at(W, (form.w + form.later) * H * H), wanted.x, wanted.first)


@compiled
def add_lots(member, members, wanted, p, apart, lots, I, H, form):
    """Add one member's part of the other lots' sums, `apart` elements from one to the next, to those of the first."""
    source = sums_at(wanted, p, I, H, form)
    _add_lots(member, members, wanted.U, source.U, apart, lots, form.u * H * I)
    _add_lots(member, members, wanted.W, source.W, apart, lots, (form.w + form.later) * H * H)
    _add_lots(member, members, wanted.biases, source.biases, apart, lots, (form.blocks + form.vectors) * H)


@compiled
def _add_lots(member, members, to, source, apart, lots, size):
    first, last = part(size, member, members)
    for c in range(first, last, lanes(to)):
        sums = get(to, c, last)
        for lot in range(lots - 1):
            sums = sums + get(at(source, lot * apart), c, last)
        put(to, c, sums, last)


# One layer alone.


@compiled
def layer_memory(T, B, I, H, form, states, one_hot, window, members, n):
    """Return the size of the `scratch` of `back_through`; what is enough for more members is enough for one."""
    lots = lots_of(T, B, I, H, gates_of(form)) if window < 0 else 1
    each = _size(_sizes(T, (B + lots - 1) // lots, I, H, form, states, one_hot, ROWS, n), window)
    return min(lots, members) * aligned(each) + (lots - 1) * sums_size(I, H, form)


@compiled
def back_through(team, walk, given, cell, wanted, window, scratch):
    """Compute the gradients of one layer alone, as a team; through a window if it is not negative."""
    team = assembled(team)
    if window < 0:
        share_out(_backward_layer, team, (team, walk, given, cell, wanted, scratch))
    else:
        share_out(_look_back_layer, team, (team, walk, given, cell, wanted, window, scratch))


@compiled
def aligned(size):
    return (size + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT


@compiled
def _backward_layer(member, team, walk, given, cell, wanted, scratch):
    """Compute one member's part of the gradients of one layer alone, by full BPTT."""
    members, meetings = len(team), pointer(team)
    B, I, H, form = walk.B, given.I, given.H, given.form
    lots = lots_of(walk.steps, B, I, H, gates_of(form))
    scratch = align(pointer(scratch))
    if lots == 1:
        crew = Crew(member, members, by_rows(B, members, H, gates_of(form), False), meetings)
        backward(crew, walk, given, cell, wanted, scratch, ROWS, None, None)
        return
    rows = (B + lots - 1) // lots
    n = lanes(scratch)
    each = aligned(memory(walk.steps, rows, I, H, form, given.states, is_one_hot(given.x), ROWS, n))
    sums, apart = at(scratch, min(lots, members) * each), sums_size(I, H, form)
    crew = Crew(ZERO, ONE, True, meetings)
    for lot in range(member, lots, members):
        to = wanted if lot == 0 else sums_at(wanted, at(sums, (lot - 1) * apart), I, H, form)
        own = section(walk, lot, lots)
        backward(crew, own, given, cell, to, at(scratch, member * each), ROWS, None, None)
    meet(meetings, members)
    add_lots(member, members, wanted, sums, apart, lots, I, H, form)


@compiled
def backward(crew, walk, given, cell, wanted, scratch, at_a_time, leader, follower):
    """Compute one member's part of the gradients, from the last step to the first.

    `leader` counts the steps, from the end, whose grad_hs are there, and `follower` those of dL/dx.
    """
    steps = steps_of(walk)
    I, H, among, meetings = given.I, given.H, crew.among, crew.meetings
    size = _sizes(walk.steps, walk.rows, I, H, given.form, given.states, is_one_hot(given.x), at_a_time, lanes(scratch))
    own, first, stride = walk, ZERO, ONE
    if crew.by_rows and among > 1:
        own = section(walk, crew.me, among)
        first, stride = own.first, own.stride
    mine, places = _part(crew, size, first, stride), _places(size, wanted, scratch)

    _begin(size, mine, own, places, given, cell)
    meet(meetings, among)
    t1 = steps
    while t1 > 0:
        t0, many = _chunk_before(walk, t1, size.most)
        available(leader, steps - t0 - 1, steps)
        _walk_back(t0, t1, many, steps, size, mine, own, walk, places, given, cell, meetings)
        meet(meetings, among if crew.by_rows else ONE)
        _multiply_inputs(t0, t1, many, steps, crew, size, mine, walk, places, given, cell, wanted)
        meet(meetings, among)
        post(follower, steps - t0, crew.me)
        t1 = t0
    _end(size, mine, own, places, cell, wanted)
    meet(meetings, among)


@compiled
def _chunk_before(walk, t1, most):
    """Return where a chunk begins that ends before step t1, and its rows."""
    t0 = t1 - 1
    many = rows_at(walk, t0)
    while t0 > 0 and many + rows_at(walk, t0 - 1) <= most:
        t0 -= 1
        many += rows_at(walk, t0)
    return t0, many


@compiled
def _begin(size, mine, own, places, given, cell):
    """Pack the weights, start the sums from zero, and the carries from dL/d(last state)."""
    I, H, row, n = size.I, size.H, size.row, size.n
    for g in range(size.w + size.later):
        w, to = at(given.W, gate_of_w(cell, g) * H * H), at(places.W, g * packed_size(H, H, n))
        pack_rows(to, w, H, ZERO, H, H, H, mine.p0, mine.p1)
    for g in range(size.u):
        u = at(given.U, gate_of_u(cell, g) * H * I)
        pack_rows(at(places.U, g * packed_size(H, I, n)), u, I, ZERO, H, H, I, mine.q0, mine.q1)
    fill_rows_zero(places.sum_b, row, size.sums, mine.v0, mine.v1)
    if size.one_hot:
        fill_rows_zero(places.sum_U, row, size.u * I, mine.v0, mine.v1)
    for i in range(size.states):
        for r in range(own.rows):
            to = at(places.carry, i * size.block + (mine.first + r * mine.stride) * row)
            source = at(given.grad_last, (i * own.B + sequence(own, r)) * H)
            copy_rows(to, row, source, H, ONE, mine.c0, min(mine.c1, H))


@compiled
def _walk_back(t0, t1, many, steps, size, mine, own, walk, places, given, cell, meetings):
    """Compute the deltas of a chunk, step by step: dL/dh_t = what the loss sees of it + delta_{t+1} W."""
    H, row, apart, block = size.H, size.row, size.apart, size.block
    deltas, carry, grad_middles, vectors = places.deltas, places.carry, places.grad_middles, given.vectors
    start, stride = mine.first * row, mine.stride * row
    if t1 < steps:
        for g in range(size.sums):
            to = at(deltas, g * apart + start)
            copy_rows(at(to, many * row), stride, to, stride, rows_at(own, t1), mine.c0, mine.c1)
        meet(meetings, mine.among)
    here = many  # the row of the step in this chunk
    for t in range(t1 - 1, t0 - 1, -1):
        if t < steps - 1:
            a, rows = at(deltas, size.first_w * apart + here * row + start), rows_at(own, t + 1)
            to, everyone = at(carry, start), all_rows_at(walk, t + 1)
            multiply(to, ZERO, stride, a, apart, stride, places.W, size.w, rows, H, H, mine.w0, mine.w1, t, everyone)
        here -= rows_at(walk, t)
        first, w = size.blocks, at(places.later_W, size.later * packed_size(H, H, size.n))
        for k in range(count_middles(cell) - 1, -1, -1):
            for r in range(rows_at(own, t)):
                b, at_t = sequence(own, r), row_at(own, t, r)
                before = row_at(own, t - 1, r) if t > 0 else -1
                to = start + r * stride
                for c in range(mine.c0, mine.c1, size.n):
                    past, delta, seen = at(carry, to + c), at(deltas, here * row + to + c), at(grad_middles, to + c)
                    grad_h = _seen(given, past, at_t, c, H)
                    retreat_last(cell, k, vectors, grad_h, seen, block, past, block, delta, apart, at_t, before, b, c)
                    store(at(seen, k * block), 0, full(grad_h, 0.0))
            meet(meetings, mine.among)
            more = gates_behind(cell, k)
            first, w = first - more, at(w, -more * packed_size(H, H, size.n))
            a, to = at(deltas, first * apart + here * row + start), at(grad_middles, k * block + start)
            rows, everyone = rows_at(own, t), all_rows_at(walk, t)
            multiply(to, ZERO, stride, a, apart, stride, w, more, rows, H, H, mine.w0, mine.w1, t, everyone)
        for r in range(rows_at(own, t)):
            b, at_t = sequence(own, r), row_at(own, t, r)
            before = row_at(own, t - 1, r) if t > 0 else -1
            to = start + r * stride
            for c in range(mine.c0, mine.c1, size.n):
                past, delta, seen = at(carry, to + c), at(deltas, here * row + to + c), at(grad_middles, to + c)
                grad_h = _seen(given, past, at_t, c, H)
                retreat(cell, vectors, grad_h, seen, block, past, block, delta, apart, at_t, before, b, c)
        meet(meetings, mine.among)


@inlined
def _seen(given, past, at_t, c, H):
    """Return dL/dh_t: what comes back through time, and what the loss sees of h_t."""
    grad_h = load(past, 0) + get(at(given.grad_hs, at_t * given.hs_row), c, H)
    if given.has_more:
        grad_h = grad_h + get(at(given.more, at_t * given.hs_row), c, H)
    return grad_h


@compiled
def _multiply_inputs(t0, t1, many, steps, crew, size, mine, walk, places, given, cell, wanted):
    """Multiply a chunk's deltas: dW += deltaᵀ h_{t-1}, dU += deltaᵀ x_t, db += sum of delta, dx = delta U."""
    I, H, row, apart, n = size.I, size.H, size.row, size.apart, size.n
    most = size.most
    if size.w:
        _pack_states(t0, t1, many, size, mine, walk, places, given)
    for i in range(count_middles(cell)):
        to, k = at(places.middle_in, i * packed_size(most, H, n)), ZERO
        for t in range(t0, t1):
            for r in range(rows_at(walk, t)):
                source = middle_of(cell, given.hs, i, row_at(walk, t, r))
                pack_rows(to, source, ZERO, k, k + 1, many, H, mine.p0, mine.p1)
                k += 1
    for g in range(size.sums):
        to = at(places.sum_b, g * row)
        for k in range(many):
            add_rows(to, ZERO, at(places.deltas, g * apart + k * row), ZERO, ONE, mine.v0, mine.v1)
    take_inputs(t0, t1, many, size, mine, walk, places, given)
    meet(crew.meetings, crew.among)
    how = REPLACE if t1 == steps else ADD
    for g in range(size.blocks):
        tile = at(places.tiles, size.blocks * most * mine.u0 + g * most * (mine.u1 - mine.u0))
        pack_tiles(tile, at(places.deltas, g * apart + mine.u0), row, many, mine.own)
        if g >= size.first_w:
            to = at(places.sum_W, (gate_of_w(cell, g - size.first_w) * H + mine.u0) * places.W_row)
            by, last = places.states_in, size.first_w + size.w
            for i in range(count_middles(cell)):
                if g >= last:
                    by = at(places.middle_in, i * packed_size(most, H, n))
                last += gates_behind(cell, i)
            multiply_transposed(to, places.W_row, tile, by, mine.own, many, H, ZERO, panel_count(H, n), how)
        if g < size.u and not size.one_hot:
            to = at(places.sum_U, (gate_of_u(cell, g) * H + mine.u0) * places.U_row)
            multiply_transposed(to, places.U_row, tile, places.inputs, mine.own, many, I, ZERO, panel_count(I, n), how)
    if not size.one_hot:
        k0, k1 = part(many, crew.me, crew.among)
        to, x_row = at(places.grad_x, k0 * size.x_row), size.x_row
        fill_rows_zero(to, x_row, k1 - k0, ZERO, whole(I, n) * n)
        a, panels = at(places.deltas, k0 * row), panel_count(I, n)
        multiply(to, ZERO, x_row, a, apart, row, places.U, size.u, k1 - k0, H, I, ZERO, panels, ZERO, many)
        _write_grad_x(t0, t1, k0, k1, size, walk, places, wanted)


@compiled
def _pack_states(t0, t1, many, size, mine, walk, places, given):
    H, k = size.H, ZERO
    for t in range(t0, t1):
        rows = rows_at(walk, t)
        if t == 0:
            for r in range(rows):
                source = at(given.h0, sequence(walk, r) * H)
                pack_rows(places.states_in, source, ZERO, r, r + 1, many, H, mine.p0, mine.p1)
        else:
            beside = side_by_side(walk, rows)
            for r in range(0, rows, beside):
                source = at(given.hs, (row_at(walk, t - 1, r) - k - r) * given.hs_row)
                last = k + r + beside
                pack_rows(places.states_in, source, given.hs_row, k + r, last, many, H, mine.p0, mine.p1)
        k += rows


def take_inputs(t0, t1, many, size, mine, walk, places, given):
    """Pack the inputs of a chunk's steps, or for indices add the deltas to dU at once."""


@overload(take_inputs)
def _take_inputs(t0, t1, many, size, mine, walk, places, given):
    return _add_to_indices if isinstance(given[Given._fields.index("x")].dtype, types.Integer) else _pack_inputs


def _pack_inputs(t0, t1, many, size, mine, walk, places, given):
    I, k = size.I, ZERO
    for t in range(t0, t1):
        rows = rows_at(walk, t)
        beside = side_by_side(walk, rows)
        for r in range(0, rows, beside):
            source = at(given.x, (row_at(walk, t, r) - k - r) * I)
            pack_rows(places.inputs, source, I, k + r, k + r + beside, many, I, mine.q0, mine.q1)
        k += rows


def _add_to_indices(t0, t1, many, size, mine, walk, places, given):
    row, k = size.row, ZERO
    for t in range(t0, t1):
        for r in range(rows_at(walk, t)):
            to = at(places.sum_U, given.x[row_at(walk, t, r)] * size.u * row)
            for g in range(size.u):
                delta = at(places.deltas, g * size.apart + k * row)
                add_rows(at(to, g * row), ZERO, delta, ZERO, ONE, mine.v0, mine.v1)
            k += 1


@compiled
def _write_grad_x(t0, t1, k0, k1, size, walk, places, wanted):
    """Write the rows from k0 up to k1 of a chunk's dL/dx."""
    I, k = size.I, ZERO
    for t in range(t0, t1):
        rows = rows_at(walk, t)
        beside = side_by_side(walk, rows)
        for r in range(0, rows, beside):
            first, last = max(k + r, k0), min(k + r + beside, k1)
            if first < last:
                to = at(wanted.x, (row_at(walk, t, r) + first - k - r) * I)
                write_rows(to, I, at(places.grad_x, first * size.x_row), size.x_row, last - first, ZERO, I, I)
        k += rows


@compiled
def _end(size, mine, own, places, cell, wanted):
    """Write dL/dh_0 = delta_1 W, with what comes past the products, and the sums that are not in their place yet."""
    I, H, row = size.I, size.H, size.row
    stride = mine.stride * row
    for i in range(size.states):
        to = at(places.carry, i * size.block + mine.first * row)
        if i == 0:
            a = at(places.deltas, size.first_w * size.apart + mine.first * row)
            w, rows = places.W, own.rows
            multiply(to, ZERO, stride, a, size.apart, stride, w, size.w, rows, H, H, mine.w0, mine.w1, ZERO, own.B)
        for r in range(own.rows):
            first = at(wanted.first, (i * own.B + sequence(own, r)) * H)
            write_rows(first, H, at(to, r * stride), row, ONE, mine.c0, mine.c1, H)

    spare_w, spare_u = _sums_size(size)
    for g in range(size.w + size.later if spare_w else ZERO):
        for r in range(g * H + mine.u0, g * H + mine.u0 + mine.own):
            write_rows(at(wanted.W, r * H), H, at(places.sum_W, r * row), ZERO, ONE, ZERO, H, H)
    for g in range(size.u if spare_u and not size.one_hot else ZERO):
        for r in range(g * H + mine.u0, g * H + mine.u0 + mine.own):
            write_rows(at(wanted.U, r * I), I, at(places.sum_U, r * size.x_row), ZERO, ONE, ZERO, I, I)
    write_rows(wanted.biases, H, places.sum_b, row, size.sums, mine.v0, mine.v1, H)
    if size.one_hot:
        for g in range(size.u):
            for c in range(mine.v0, min(mine.v1, H)):
                for i in range(I):
                    unit = gate_of_u(cell, g) * H + c
                    wanted.U[unit * I + i] = places.sum_U[(i * size.u + g) * row + c]


# Through a window: what the loss of a step reaches.


@compiled
def _look_back_layer(member, team, walk, given, cell, wanted, window, scratch):
    """Compute one member's part of the gradients where the loss of a step reaches `window` earlier ones."""
    members, meetings, steps = len(team), pointer(team), walk.steps
    scratch = align(pointer(scratch))
    n = lanes(scratch)
    crew = Crew(member, members, False, meetings)
    size = _sizes(steps, walk.rows, given.I, given.H, given.form, given.states, is_one_hot(given.x), ROWS, n)
    mine, places = _part(crew, size, ZERO, ONE), _places(size, wanted, scratch)
    _begin(size, mine, walk, places, given, cell)
    meet(meetings, members)
    t1 = steps
    while t1 > 0:
        t0, many = _chunk_before(walk, t1, size.most)
        _look_back(t0, t1, steps, size, mine, walk, places, given, cell, window, meetings)
        _multiply_inputs(t0, t1, many, steps, crew, size, mine, walk, places, given, cell, wanted)
        meet(meetings, members)
        t1 = t0
    _end(size, mine, walk, places, cell, wanted)


@compiled
def _look_back(t0, t1, steps, size, mine, walk, places, given, cell, window, meetings):
    """Compute the deltas of a chunk.

    All steps that a loss reaches from `lag` steps later are taken at once. The chunk's last one hears of a loss beyond
    its end by way of the edge; at the very end there is none.
    """
    B, H, row, block, apart, count = size.rows, size.H, size.row, size.block, size.apart, t1 - t0
    blocks, states, c0, c1 = size.sums, size.states, mine.c0, mine.c1
    carry, lagged, lagged_carry, vectors = places.carry, places.lagged, places.lagged_carry, given.vectors
    middles_back = places.lagged_middles
    fill_rows_zero(lagged_carry, row, states * (size.most + B), c0, c1)
    if t1 == steps:
        for i in range(states):
            to, source = at(lagged_carry, i * apart + (count - 1) * block), at(carry, i * block)
            copy_rows(to, row, source, row, B, c0, c1)
    if t0 == 0:
        fill_rows_zero(carry, row, states * B, c0, c1)
    for lag in range(window + 1):
        reached = count
        if lag > 0:
            reached = max(0, min(count, steps - lag - t0))
            many = reached * B
            edge = at(places.edges, (lag - 1) * (blocks + states) * block)
            for g in range(blocks + states):
                chunk = at(lagged, g * apart)  # the lagged deltas, and the carries behind them
                if t1 < steps:
                    copy_rows(at(chunk, count * block), row, at(edge, g * block), row, B, c0, c1)
                copy_rows(at(edge, g * block), row, chunk, row, B, c0, c1)
            meet(meetings, mine.among)
            for i in range(states):
                to = at(lagged_carry, i * apart)
                copy_rows(to, row, at(to, block), row, many, c0, c1)
            a = at(lagged, size.first_w * apart + block)
            multiply(
                lagged_carry, ZERO, row, a, apart, row, places.W, size.w, many, H, H, mine.w0, mine.w1, ZERO, many
            )  # fmt: skip
            meet(meetings, mine.among)
        first, w = size.blocks, at(places.later_W, size.later * packed_size(H, H, size.n))
        for k in range(count_middles(cell) - 1, -1, -1):
            for t in range(t0, t0 + reached):
                for r in range(B):
                    here, to = row_at(walk, t, r), (t - t0) * block + r * row
                    before = row_at(walk, t - 1, r) if t > 0 else -1
                    for c in range(c0, c1, size.n):
                        past, delta, seen = at(lagged_carry, to + c), at(lagged, to + c), at(middles_back, to + c)
                        grad_h = load(past, 0)
                        if lag == 0:
                            grad_h = grad_h + get(at(given.grad_hs, here * given.hs_row), c, H)
                        retreat_last(
                            cell, k, vectors, grad_h, seen, apart, past, apart, delta, apart, here, before, r, c
                        )  # fmt: skip
                        store(at(seen, k * apart), 0, full(grad_h, 0.0))
            meet(meetings, mine.among)
            more = gates_behind(cell, k)
            first, w = first - more, at(w, -more * packed_size(H, H, size.n))
            a, to, rows = at(lagged, first * apart), at(middles_back, k * apart), reached * B
            multiply(to, ZERO, row, a, apart, row, w, more, rows, H, H, mine.w0, mine.w1, ZERO, rows)
        for t in range(t0, t0 + reached):
            for r in range(B):
                here = row_at(walk, t, r)
                before = row_at(walk, t - 1, r) if t > 0 else -1
                seen, to = at(given.grad_hs, here * given.hs_row), (t - t0) * block + r * row
                for c in range(c0, c1, size.n):
                    past = at(lagged_carry, to + c)
                    grad_h = load(past, 0)
                    if lag == 0:
                        grad_h = grad_h + get(seen, c, H)
                    delta, later = at(lagged, to + c), at(middles_back, to + c)
                    retreat(cell, vectors, grad_h, later, apart, past, apart, delta, apart, here, before, r, c)
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
