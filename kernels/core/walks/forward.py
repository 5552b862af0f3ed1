"""Forward through time, one layer in one direction: a step's products, and what the cell makes of their sums.

A cell differs from another by what it does with the sums of a step, one vector of hidden units at a time. It says so
by overloading `advance` for its own type; see `kernels.lstm` for an example. T steps, B sequences in a batch, I
inputs, H hidden units, G gates; the blocks of a step's sums are explained in `kernels.core.walks.recurrence`.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.extending import overload

from kernels.core.code.cache import INLINE, compiled
from kernels.core.products.entering import (
    NOTES,
    before_row,
    begin_states,
    enter_inputs,
    enter_middle,
    enter_state,
    enter_states,
    entered_row,
    entered_states,
    is_rounded,
    note,
    refuse,
)
from kernels.core.products.matrices import end_matrices
from kernels.core.products.tiles import (
    ONE,
    ZERO,
    add_packed_row,
    copy_rows,
    multiply,
    packed_size,
    padded,
    put,
    whole,
)
from kernels.core.threads.team import assembled, available, count_steps, is_heard, meet, post, share_out, steps_before
from kernels.core.vectors.dots import behind, depth, like
from kernels.core.vectors.simd import ALIGNMENT, align, at, full, lanes, load, pointer, store
from kernels.core.walks.recurrence import (
    by_rows,
    chunk_rows,
    columns_of,
    count_middles,
    gates_behind,
    gates_of,
    later_of,
)
from kernels.core.walks.walk import all_rows_at, row_at, rows_at, section, sequence, side_by_side, steps_of

ROWS = np.int64(128)  # of the input projection at a time: it stays in the cache until the recurrence has used it
FOLLOWED = np.int64(8)  # where the layer above waits for them: a tile's rows
_FOLLOWING = 4  # steps that it waits for where it can: to multiply by U a step at a time takes as long as by W


class Layer(NamedTuple):
    """Addresses and sizes, since a reference is counted at every touch."""

    weights: Any  # as `pack` lays them out
    x: Any  # (T, B, I), or (T, B) indices
    h0: Any  # (B, H)
    hs: Any  # (T, B, hs_row)
    hs_row: Any
    I: Any
    H: Any
    form: Any  # `kernels.core.recurrence.Form`


class Share(NamedTuple):
    """A member's columns of the hidden units, and whom it meets after each step, since they have the others."""

    me: Any
    among: Any
    meetings: Any


def advance(cell, vectors, sums, apart, previous, row, b, c):
    """Return h_t of the units from c on, of sequence b, and keep what the cell wants to keep.

    `sums` is where the first block of these units lies, the next ones `apart` elements on; `previous` is their
    h_{t-1}; `vectors` is where the cell's vectors lie, in whole vectors each. `row` is that of the step in arrays (T B,
    ...). Overloaded for the type of `cell`.
    """
    raise NotImplementedError


def between(cell, which, vectors, sums, apart, previous, row, b, c):
    """Return a middle of the same units: what W is multiplied with next, from the sums that are there by then.

    Overloaded for the type of a `cell` that has some.
    """
    raise NotImplementedError


@overload(between, jit_options=INLINE)
def _between(cell, which, vectors, sums, apart, previous, row, b, c):
    if not later_of(cell):
        return lambda cell, which, vectors, sums, apart, previous, row, b, c: previous


@compiled
def layer(weights, I, x, h0, hs, form):
    """Return the Layer of these arrays, hs (T, B, H)."""
    H = hs.shape[2]
    return Layer(pointer(weights), pointer(x), pointer(h0), pointer(hs), H, I, H, form)


@compiled
def memory(w, steps, rows, among, I, H, form, at_a_time):
    """Return how much memory so many members need to walk through time together: see `forward`."""
    n = lanes(w)
    most = chunk_rows(steps, rows, at_a_time)
    staged = 1 if form.later else 0
    rounded = ((1 + staged) * among + 2) * rows * entered_row(w, H) if is_rounded(w) else 0
    buffers = most * form.blocks + (2 + form.middles + among) * rows
    return buffers * padded(H, n) + among * most * entered_row(w, I) + rounded


@compiled
def workspace(size, weights, hs):
    """Return memory for so many elements, with room for the notes before them, which are empty."""
    scratch = np.empty(NOTES + size + ALIGNMENT // hs.itemsize, hs.dtype)
    if is_rounded(pointer(weights)):
        scratch[: 2 * NOTES] = 0
    return scratch


@compiled
def ahead_through(team, walk, layer, cell, weights, hs):
    """Compute the states of one layer alone, as a team."""
    team = assembled(team)
    I, H, form, B, members = layer.I, layer.H, layer.form, walk.B, len(team)
    if by_rows(B, members, H, gates_of(form), is_rounded(layer.weights)):
        size = members * memory(layer.weights, walk.steps, (B + members - 1) // members, ONE, I, H, form, ROWS)
    else:
        size = memory(layer.weights, walk.steps, B, members, I, H, form, ROWS)
    scratch = workspace(size, weights, hs)
    share_out(_forward_layer, team, (team, walk, layer, cell, scratch))
    refuse(weights, scratch)


@compiled
def _forward_layer(member, team, walk, layer, cell, scratch):
    """Compute one member's part of one layer alone."""
    members, turn = len(team), steps_before(team)
    notes = align(pointer(scratch))
    mine = at(notes, NOTES)
    if by_rows(walk.B, members, layer.H, gates_of(layer.form), is_rounded(layer.weights)):
        rows = (walk.B + members - 1) // members
        own = memory(align(layer.weights), walk.steps, rows, ONE, layer.I, layer.H, layer.form, ROWS)
        share, walk, mine = Share(ZERO, ONE, pointer(team)), section(walk, member, members), at(mine, member * own)
    else:
        share = Share(member, members, pointer(team))
    forward(share, turn, walk, layer, cell, notes, mine, ROWS, None, None)
    if member == 0:
        count_steps(team, walk.steps)


@compiled
def forward(share, turn, walk, layer, cell, notes, scratch, at_a_time, leader, follower):
    """Compute one member's columns of hs, of the sequences of a walk.

    What is multiplied is `entered` before: below float32 it is rounded into a buffer of its own, else it is there.
    Of the inputs no more than `at_a_time` rows are multiplied at a time. `leader` counts the steps of x that are there,
    and `follower` those of hs; None for all, and for nobody.
    """
    I, H, form = layer.I, layer.H, layer.form
    me, among, rows, steps = share.me, share.among, walk.rows, steps_of(walk)
    U = align(layer.weights)
    n = lanes(U)
    p0, p1, c0, c1 = columns_of(H, me, among, n)
    first_w = form.blocks - form.w - form.later

    u_depth, w_depth = depth(U, I), depth(U, H)
    u_size, w_size = packed_size(u_depth + behind(U), H, n), packed_size(w_depth + behind(U), H, n)
    W = at(U, form.u * u_size)
    second_W = at(W, form.w * w_size)
    biases = like(at(second_W, form.later * w_size), layer.hs)
    vectors = at(biases, form.blocks * whole(H, n) * n)

    row, x_row, h_row = padded(H, n), entered_row(U, I), entered_row(U, H)
    most = chunk_rows(walk.steps, rows, at_a_time)
    block, apart = rows * row, most * row
    sums = scratch  # (blocks, most, row)
    before = at(sums, form.blocks * apart)  # (rows, row): h_{t-1},
    now = at(before, block)  # and h_t
    between_them = at(now, block)  # and each middle
    begin = at(between_them, (form.middles + me) * block)  # and h_0 of all units, of this member
    rest = at(begin, (among - me) * block)
    entered = at(like(rest, U), before_row(U))  # (rows, h_row): h_t as it is multiplied, below float32,
    entering = at(entered, rows * h_row if is_rounded(U) else ZERO)
    start = at(entering, (1 + me) * rows * h_row if is_rounded(U) else ZERO)  # and h_0, of this member
    halfway = at(start, among * rows * h_row if is_rounded(U) else ZERO)  # (rows, h_row): the middle, of this member
    xs = at(start, ((2 if form.later else 1) * among - me) * rows * h_row if is_rounded(U) else ZERO)
    xs = at(xs, me * most * x_row)  # (most, x_row), of this member

    for r in range(rows):
        copy_rows(at(begin, r * row), row, at(layer.h0, sequence(walk, r) * H), H, ONE, ZERO, H)
    state, state_row, fault = enter_states(U, begin, row, H, rows, start, h_row)
    begin_states(entered, 2 * rows, h_row, layer.hs)
    copy_rows(before, row, begin, row, rows, c0, min(c1, H))
    mark = full(load(before, 0), 0.0)
    t0 = ZERO
    while t0 < steps:
        there = available(leader, min(t0 + _FOLLOWING, steps) - 1, steps)
        count = many = ZERO
        while t0 + count < there and many + rows_at(walk, t0 + count) <= most:
            many += rows_at(walk, t0 + count)
            count += 1
        for g in range(form.blocks):
            copy_rows(at(sums, g * apart), row, at(biases, g * whole(H, n) * n), ZERO, many, c0, c1)
        fault |= project(sums, apart, row, xs, x_row, walk, t0, count, many, layer, U, u_size, p0, p1)
        first = ZERO  # row of the step in this chunk
        for t in range(t0, t0 + count):
            live = rows_at(walk, t)
            step = at(sums, first * row)
            to, everyone = at(step, first_w * apart), all_rows_at(walk, t)
            multiply(to, apart, row, state, ZERO, state_row, W, form.w, live, w_depth, H, p0, p1, turn, everyone)
            to, w = at(to, form.w * apart), second_W
            for k in range(count_middles(cell)):
                middle = at(between_them, k * block)
                for r in range(live):
                    b, at_t = sequence(walk, r), row_at(walk, t, r)
                    for c in range(c0, c1, n):
                        at_c = r * row + c
                        made = between(cell, k, vectors, at(step, at_c), apart, load(before, at_c), at_t, b, c)
                        store(middle, at_c, made)
                meet(share.meetings, among)
                a, a_row, wrong = enter_middle(U, middle, row, H, live, halfway, h_row)
                fault |= wrong
                more = gates_behind(cell, k)
                multiply(to, apart, row, a, ZERO, a_row, w, more, live, w_depth, H, p0, p1, turn, everyone)
                to, w = at(to, more * apart), at(w, more * w_size)
            turn += 1
            for r in range(live):
                b, at_t = sequence(walk, r), row_at(walk, t, r)
                out = at(layer.hs, at_t * layer.hs_row)
                for c in range(c0, c1, n):
                    at_c = r * row + c
                    h = advance(cell, vectors, at(step, at_c), apart, load(before, at_c), at_t, b, c)
                    store(now, at_c, h)
                    put(out, c, h, H)
                    mark = enter_state(at(entering, r * h_row), c, h, mark)
            before, now = now, before
            entered, entering = entering, entered
            state, state_row = entered_states(U, before, row, entered, h_row)
            first += live
            if t < steps - 1 or is_heard(follower):
                meet(share.meetings, among)
            post(follower, t + 1, me)
        t0 += count
    end_matrices(U)
    note(U, notes, fault, mark)


def project(sums, apart, row, xs, x_row, walk, t0, count, many, layer, U, u_size, p0, p1):
    """Add U x_t of a chunk's steps, `many` rows, to the sums, and return a fault of what entered, or 0."""


@overload(project)
def _project(sums, apart, row, xs, x_row, walk, t0, count, many, layer, U, u_size, p0, p1):
    if isinstance(layer[Layer._fields.index("x")].dtype, types.Integer):
        return _project_indices

    return _project_numbers


def _project_numbers(sums, apart, row, xs, x_row, walk, t0, count, many, layer, U, u_size, p0, p1):
    I, H, fault, k = layer.I, layer.H, 0, ZERO
    for t in range(t0, t0 + count):
        live = rows_at(walk, t)
        beside = side_by_side(walk, live)
        for r in range(0, live, beside):
            source = at(layer.x, row_at(walk, t, r) * I)
            fault |= enter_inputs(at(xs, (k + r) * x_row), x_row, source, beside, I)
        k += live
    everything = walk.steps * walk.B
    multiply(
        sums, apart, row, xs, ZERO, x_row, U, layer.form.u, many, depth(U, I), H, p0, p1, ZERO, everything
    )  # fmt: skip
    return fault


def _project_indices(sums, apart, row, xs, x_row, walk, t0, count, many, layer, U, u_size, p0, p1):
    I, H, k = layer.I, layer.H, ZERO
    for t in range(t0, t0 + count):
        for r in range(rows_at(walk, t)):
            i = layer.x[row_at(walk, t, r)]
            for g in range(layer.form.u):
                add_packed_row(at(sums, g * apart + k * row), at(U, g * u_size), i, depth(U, I), H, p0, p1)
            k += 1
    return 0
