"""Networks: chains of steps, one for each layer and direction, and the order in which a team takes them.

A chain needs what the layer below has made of its steps, and no more; the directions of a layer need nothing of each
other. With a batch of many rows for each thread, every thread takes its rows through all chains and waits for nobody.
With less, threads form groups, and these share the chains: each direction has one, or each layer, which then follows
the one below by the count of its steps; so the weights of a chain stay in the cache of those who use them.

Chain q = l D + d is direction d of layer l, of L layers and D directions. What it works on is a row of a table of
addresses. Sizes as in `kernels.core.walks.forward`.
"""

from typing import Any, NamedTuple

import numpy as np

from kernels.core.code.cache import compiled
from kernels.core.products.entering import NOTES, is_rounded, refuse
from kernels.core.products.tiles import ONE, ZERO, get, put
from kernels.core.threads.team import FOREVER, assembled, available, count_steps, meet, part, share_out, steps_before
from kernels.core.vectors.simd import ALIGNMENT, align, at, lanes, pointer, reach
from kernels.core.walks.backward import (
    ROWS,
    Crew,
    Given,
    Wanted,
    add_lots,
    aligned,
    backward,
    is_one_hot,
    lots_of,
    sums_at,
    sums_size,
)
from kernels.core.walks.backward import memory as backward_memory
from kernels.core.walks.forward import FOLLOWED, Layer, Share, forward, workspace
from kernels.core.walks.forward import ROWS as FORWARD_ROWS
from kernels.core.walks.forward import memory as forward_memory
from kernels.core.walks.recurrence import KEPT, by_rows, gates_of
from kernels.core.walks.walk import Walk, heading, length_of, ragged, row_at, section, sequence

# Columns of a table.
WEIGHTS, H0, HS, C, GATES, MORE, LAST_H = range(7)  # forward, and backward
U, W, VECTORS, BACK_H0, BACK_HS, LAST, GRAD_U, GRAD_W, BIASES, GRAD_X, FIRST, BACK_GATES, BACK_MORE, C0 = range(14)

ROW = 16  # of a table, and of the counters: two cache lines
_DIRECTION_ROWS = 16  # sequences for each member, from which on the directions need no member of their own
_FEW = 8  # sequences: with fewer, layers are shared by two members or more,
_FOLLOWED_ROWS = np.int64(16)  # and a layer waits for no more than so many rows of the one above


class Net(NamedTuple):
    layers: Any
    directions: Any
    I: Any
    H: Any
    form: Any  # `kernels.core.recurrence.Form`
    states: Any


def forward_cell(kind, H, c, apart, gates, more, keep):
    """Return what `advance` takes for its cell, from the addresses of c (B, H), gates (T, B, ...) and another array.

    Of states beyond h and c, each lies `apart` elements behind the one before. Overloaded for the type of `kind`.
    """
    raise NotImplementedError


def backward_cell(kind, H, hs, hs_row, h0, c0, apart, gates, more):
    """Return what `retreat` takes for its cell. Overloaded for the type of `kind`."""
    raise NotImplementedError


@compiled
def note_forward(table, q, weights, h0, hs, c, gates, more, last_h):
    """Write the addresses of a chain's arrays to its row of a table."""
    row = table[q]
    row[WEIGHTS], row[H0], row[HS] = weights.ctypes.data, h0.ctypes.data, hs.ctypes.data
    row[C], row[GATES], row[MORE], row[LAST_H] = c.ctypes.data, gates.ctypes.data, more.ctypes.data, last_h.ctypes.data


@compiled
def note_backward(table, q, u, w, vectors, h0, hs, last, grad_u, grad_w, biases, grad_x, first, gates, more, c0):
    """Write the addresses of a chain's arrays to its row of a table."""
    row = table[q]
    row[U], row[W], row[VECTORS], row[LAST] = u.ctypes.data, w.ctypes.data, vectors.ctypes.data, last.ctypes.data
    row[BACK_H0], row[BACK_HS] = h0.ctypes.data, hs.ctypes.data
    row[GRAD_U], row[GRAD_W], row[BIASES] = grad_u.ctypes.data, grad_w.ctypes.data, biases.ctypes.data
    row[GRAD_X], row[FIRST] = grad_x.ctypes.data, first.ctypes.data
    row[BACK_GATES], row[BACK_MORE], row[C0] = gates.ctypes.data, more.ctypes.data, c0.ctypes.data


@compiled
def _whole_walk(places, hs, steps):
    """Return the walk through all sequences: of one length if `places` is empty, else see `kernels.core.walks.walk`."""
    B = hs.shape[1]
    if places.size:
        return ragged(pointer(places), B, steps)
    nowhere = pointer(places)
    return Walk(steps, B, ZERO, ZERO, ONE, B, False, nowhere, nowhere, nowhere)


@compiled
def _inputs(net, q):
    """Return how many inputs a chain has."""
    return net.I if q < net.directions else net.directions * net.H


@compiled
def _widest(net):
    """Return the most inputs that a layer has."""
    return max(net.I, net.directions * net.H if net.layers > 1 else ZERO)


@compiled
def _counters(net, groups):
    """Return a row for the steps of each chain, one for what is there already, one for nobody, and the groups' own."""
    chains = net.layers * net.directions
    counters = np.zeros((chains + 2 + groups, ROW), np.int64)
    counters[chains, 0] = FOREVER
    return counters


@compiled
def _group(member, members, groups):
    """Return a member's group, where it stands in there, and of how many."""
    for group in range(groups):
        first, last = part(members, group, groups)
        if first <= member < last:
            return group, member - first, last - first
    return groups, ZERO, ZERO  # never: the parts are all


@compiled
def _await(net, counters, layer, steps):
    """Wait until both directions of a layer are complete."""
    for d in range(net.directions):
        available(at(pointer(counters), (layer * net.directions + d) * ROW), steps - 1, steps)


@compiled
def _layers_at_once(net):
    """Return how many layers may be at work, each a step behind the one below.

    Where a core cannot keep its W, several would only take the shared cache from each other.
    """
    return net.layers if gates_of(net.form) * net.H * net.H <= KEPT else ONE


# Forward.


@compiled
def _forward_groups(net, B, members, rounded):
    """Return how many groups share the chains, 0 if every member takes its rows through all of them."""
    alone = by_rows(B, members, net.H, gates_of(net.form), rounded)
    if members == 1 or (alone and (net.directions == 1 or _DIRECTION_ROWS * members <= B)):
        return ZERO
    return min(members, net.directions if net.directions > 1 else _layers_at_once(net))


@compiled
def ahead(team, kind, net, table, weights, x, hs, places, steps, keep):
    """Compute the states of a network, as a team: of the last layer hs (T, B, D H), and all that the table names.

    `weights` are those of any chain.
    """
    team = assembled(team)
    members, walk = len(team), _whole_walk(places, hs, steps)
    groups = _forward_groups(net, walk.B, members, is_rounded(pointer(weights)))
    if groups:
        parts, rows, among = groups, walk.B, (members + groups - 1) // groups
    else:
        parts, rows, among = members, (walk.B + members - 1) // members, ONE
    at_a_time = FOLLOWED if groups > 1 and net.directions == 1 else FORWARD_ROWS
    each = forward_memory(pointer(weights), steps, rows, among, _widest(net), net.H, net.form, at_a_time)
    scratch = workspace(parts * each, weights, hs)
    counters = _counters(net, groups)
    addresses = (pointer(table), pointer(weights), pointer(x), pointer(hs))
    share_out(_ahead_part, team, (team, kind, net, walk, *addresses, each, groups, at_a_time, keep, counters, scratch))
    refuse(weights, scratch)


@compiled
def _ahead_part(member, team, kind, net, walk, table, weights, x, hs, each, groups, at_a_time, keep, counters, scratch):
    """Take one member's chains, or its rows through all of them."""
    members, turn, (L, D) = len(team), steps_before(team), (net.layers, net.directions)
    chains, steps = L * D, walk.steps
    notes = align(pointer(scratch))
    here = at(notes, NOTES)
    share, group = Share(ZERO, ONE, pointer(team)), ZERO
    if groups:
        group, me, among = _group(member, members, groups)
        share = Share(me, among, at(pointer(counters), (chains + 2 + group) * ROW))
        here = at(here, group * each)
    else:
        walk, here = section(walk, member, members), at(here, member * each)
    for q in range(group, chains, max(groups, ONE)):
        l, d = q // D, q % D
        leader, follower = at(pointer(counters), chains * ROW), at(pointer(counters), (chains + 1) * ROW)
        if groups:
            follower = at(pointer(counters), q * ROW)
            if l > 0 and D > 1:
                _await(net, counters, l - 1, steps)
            elif l > 0:
                leader = at(pointer(counters), (q - 1) * ROW)
        row = at(table, q * ROW)
        w, h0, out = reach(weights, row[WEIGHTS]), reach(hs, row[H0]), at(reach(hs, row[HS]), d * net.H)
        c, gates, more = reach(hs, row[C]), reach(hs, row[GATES]), reach(hs, row[MORE])
        cell, way = forward_cell(kind, net.H, c, walk.B * net.H, gates, more, keep), heading(walk, d)
        if l == 0:
            layer = Layer(w, x, h0, out, D * net.H, net.I, net.H, net.form)
            forward(share, turn, way, layer, cell, notes, here, at_a_time, leader, follower)
        else:
            below = reach(hs, at(table, (l - 1) * D * ROW)[HS])
            upper = Layer(w, below, h0, out, D * net.H, D * net.H, net.H, net.form)
            forward(share, turn, way, upper, cell, notes, here, at_a_time, leader, follower)
        if share.me == 0:
            _keep_last(way, out, D * net.H, net.H, reach(hs, row[LAST_H]))
    if member == 0:
        count_steps(team, steps)


@compiled
def _keep_last(walk, hs, hs_row, H, last):
    """Write the last h (B, H) of each sequence of a walk."""
    for r in range(walk.rows):
        source = at(hs, row_at(walk, length_of(walk, r) - 1, r) * hs_row)
        to = at(last, sequence(walk, r) * H)
        for c in range(0, H, lanes(to)):
            put(to, c, get(source, c, H), H)


# Backward.


@compiled
def _backward_groups(net, B, members):
    """Return how many groups share the chains."""
    if net.directions > 1:
        return min(members, net.directions)
    return ONE if by_rows(B, members, net.H, gates_of(net.form), False) else min(members, _layers_at_once(net))


@compiled
def _plan_back(net, steps, B, one_hot, members, n):
    """Return how much memory a group or a lot needs, how many groups and lots there are, the room for a lot's sums,
    and how many rows to take at a time."""
    lots = lots_of(steps, B, _widest(net), net.H, gates_of(net.form))
    groups = _backward_groups(net, B, members)
    followed = net.directions == 1 and net.layers > 1 and B < _FEW
    at_a_time = _FOLLOWED_ROWS if followed else ROWS  # of however many members: the sums depend on it
    rows, sums = (B + lots - 1) // lots, ZERO
    for q in range(net.layers * net.directions):
        sums += sums_size(_inputs(net, q), net.H, net.form)
    inside = (net.H, net.form, net.states)
    each = backward_memory(steps, rows, net.I, *inside, one_hot, at_a_time, n)
    if net.layers > 1:
        each = max(each, backward_memory(steps, rows, net.directions * net.H, *inside, False, at_a_time, n))
    return aligned(each), groups, lots, sums, at_a_time


@compiled
def back_memory(net, steps, B, one_hot, members, n):
    """Return the size of the `scratch` of `back`; what is enough for more members is enough for fewer."""
    each, _, lots, sums, _ = _plan_back(net, steps, B, one_hot, members, n)
    most = min(lots if lots > 1 else max(net.layers, net.directions), members)
    return most * each + (lots - 1) * sums + ALIGNMENT


@compiled
def back(team, kind, net, table, x, grad_hs, places, steps, scratch):
    """Compute the gradients of a network that the table names, as a team, from grad_hs (T, B, D H)."""
    team = assembled(team)
    walk, n = _whole_walk(places, grad_hs, steps), lanes(pointer(grad_hs))
    plan = _plan_back(net, steps, walk.B, is_one_hot(pointer(x)), len(team), n)
    counters = _counters(net, plan[1])
    addresses = (pointer(table), pointer(x), pointer(grad_hs))
    share_out(_back_part, team, (team, kind, net, walk, *addresses, *plan, grad_hs.shape[0], counters, scratch))


@compiled
def _back_part(
    member, team, kind, net, walk, table, x, grad_hs, each, groups, lots, sums, at_a_time, T, counters, scratch
):  # fmt: skip
    """Take one member's part of the chains, from the last layer to the first, or its lots through all of them."""
    members, meetings, (L, D) = len(team), pointer(team), (net.layers, net.directions)
    chains, steps = L * D, walk.steps
    scratch = align(pointer(scratch))
    nobody = at(pointer(counters), (chains + 1) * ROW)
    if lots > 1:
        others = at(scratch, min(lots, members) * each)
        crew, leader = Crew(ZERO, ONE, True, meetings), at(pointer(counters), chains * ROW)
        for lot in range(member, lots, members):
            to = at(others, (lot - 1) * sums)
            own, here = section(walk, lot, lots), at(scratch, member * each)
            for i in range(chains):
                q = (L - 1 - i // D) * D + i % D
                _chain_back(q, crew, kind, net, own, table, x, grad_hs, here, lot, to, at_a_time, leader, nobody)
                to = at(to, sums_size(_inputs(net, q), net.H, net.form))
        meet(meetings, members)
        to = others
        for i in range(chains):
            q = (L - 1 - i // D) * D + i % D
            I = _inputs(net, q)
            wanted = _wanted(table, q, grad_hs)
            add_lots(member, members, wanted, to, sums, lots, I, net.H, net.form)
            to = at(to, sums_size(I, net.H, net.form))
    else:
        group, me, among = _group(member, members, groups)
        crew = Crew(
            me,
            among,
            by_rows(walk.B, among, net.H, gates_of(net.form), False),
            at(pointer(counters), (chains + 2 + group) * ROW),
        )
        here = at(scratch, group * each)
        for i in range(group, chains, groups):
            q = (L - 1 - i // D) * D + i % D
            leader = at(pointer(counters), chains * ROW)
            if i >= D and D > 1:
                _await(net, counters, q // D + 1, steps)
            elif i >= D:
                leader = at(pointer(counters), (q + 1) * ROW)
            follower = at(pointer(counters), q * ROW)
            _chain_back(
                q, crew, kind, net, walk, table, x, grad_hs, here, ZERO, scratch, at_a_time, leader, follower
            )  # fmt: skip
        meet(meetings, members)
    if D > 1 and not is_one_hot(x):
        first, last = part(T * walk.B, member, members)
        one, other = reach(grad_hs, table[GRAD_X]), reach(grad_hs, table[ROW + GRAD_X])
        _add(at(one, first * net.I), at(other, first * net.I), (last - first) * net.I)


@compiled
def _add(to, source, size):
    for c in range(0, size, lanes(to)):
        put(to, c, get(to, c, size) + get(source, c, size), size)


@compiled
def _wanted(table, q, numbers):
    row = at(table, q * ROW)
    u, w, biases = reach(numbers, row[GRAD_U]), reach(numbers, row[GRAD_W]), reach(numbers, row[BIASES])
    return Wanted(u, w, biases, reach(numbers, row[GRAD_X]), reach(numbers, row[FIRST]))


@compiled
def _chain_back(
    q, crew, kind, net, walk, table, x, grad_hs, scratch, lot, sums, at_a_time, leader, follower
):  # fmt: skip
    """Take one member's part of a chain; the sums of a lot but the first go to `sums`."""
    D, H = net.directions, net.H
    l, d = q // D, q % D
    row, numbers = at(table, q * ROW), grad_hs
    h0, hs = reach(numbers, row[BACK_H0]), at(reach(numbers, row[BACK_HS]), d * H)
    more = grad_hs = at(grad_hs, d * H)
    if l < net.layers - 1:
        above = at(table, (l + 1) * D * ROW)
        grad_hs = at(reach(numbers, above[GRAD_X]), d * H)
        more = at(reach(numbers, above[(D - 1) * ROW + GRAD_X]), d * H)
    has_more = ONE if D > 1 and l < net.layers - 1 else ZERO
    gates, kept = reach(numbers, row[BACK_GATES]), reach(numbers, row[BACK_MORE])
    cell = backward_cell(kind, H, hs, D * H, h0, reach(numbers, row[C0]), walk.B * H, gates, kept)
    way, wanted = heading(walk, d), _wanted(table, q, numbers)
    if lot > 0:
        wanted = sums_at(wanted, sums, _inputs(net, q), H, net.form)
    weights = (reach(numbers, row[U]), reach(numbers, row[W]), reach(numbers, row[VECTORS]))
    gradients = (grad_hs, more, has_more, D * H, reach(numbers, row[LAST]))
    sizes = (H, net.form, net.states)
    if l == 0:
        given = Given(x, *weights, h0, hs, *gradients, net.I, *sizes)
        backward(crew, way, given, cell, wanted, scratch, at_a_time, leader, follower)
    else:
        below = reach(numbers, at(table, (l - 1) * D * ROW)[BACK_HS])
        inner = Given(below, *weights, h0, hs, *gradients, D * H, *sizes)
        backward(crew, way, inner, cell, wanted, scratch, at_a_time, leader, follower)
