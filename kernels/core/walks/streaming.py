"""A stream's step through all of its layers, in memory that is laid out once.

A call of compiled code takes as long as a small step for every array that it is given. So the call of a stream has one,
x_t, beside the address of a table of all else: sizes, and the addresses of weights, states and scratch. What types lie
there is settled with the function (`steps`); that of x_t is looked at by Numba anyway, its shape by the compiled code.

A small step keeps the interpreter's lock: to give it up and have it back takes as long, and others could keep it for
milliseconds. One that is worth sharing gives it up, and is done by a team.
"""

import numpy as np
from numba import types
from numba.extending import overload

from kernels.core.code.cache import INLINE, compiled, inlined, named
from kernels.core.code.compiler import take_read_only
from kernels.core.products.entering import INPUT, NOTES, begin_notes, is_rounded, noted
from kernels.core.products.tiles import ONE, ZERO, copy_rows
from kernels.core.threads.team import assembled, meet, put_down, share_out, take_up
from kernels.core.vectors.simd import at, pointer, reach
from kernels.core.walks.forward import ROWS, Layer, Share, forward, memory
from kernels.core.walks.network import forward_cell
from kernels.core.walks.recurrence import Form, by_rows, gates_of
from kernels.core.walks.walk import Walk, section

# The table: what it holds, and behind it the address of each layer's weights.
BUSY, TURN, OPTION, LAYERS, BATCH, INPUTS, UNITS, NUMBERS, STATES, BEFORE, SCRATCH, FORM = range(12)
WEIGHTS = FORM + len(Form._fields)

OTHER, TAKEN, NOT_FINITE, BEYOND = (np.int64(n) for n in range(1, 5))  # why a step is refused

ADDRESS = np.dtype(np.int64)


@take_read_only
@compiled
def room(weights, B, members, I, H, form):
    """Return how many numbers a step of so many members works with: see `kernels.core.walks.forward`."""
    w = pointer(weights)
    if by_rows(B, members, H, gates_of(form), is_rounded(w)):
        return NOTES + members * memory(w, ONE, (B + members - 1) // members, ONE, I, H, form, ROWS)
    return NOTES + memory(w, ONE, B, members, I, H, form, ROWS)


@compiled
def hold(address):
    return take_up(at(reach(ADDRESS, address), BUSY))


@compiled
def let_go(address):
    put_down(at(reach(ADDRESS, address), BUSY))


def steps(kind, unit, number):
    """Return the compiled step of one thread, step(address, x_t), and that of a team, step(team, address, x_t, fault).

    `kind` is the type of a cell's kind (`kernels.core.walks.network`), the weights are of dtype `unit`, all else of
    dtype `number`. A fault is why a step is refused, or 0.
    """
    name = f"{kind.__name__}_{unit}_{number}"

    @named(f"step_{name}")
    def alone(address, x_t):
        head = reach(ADDRESS, address)
        fault = _begin(head, x_t)
        if fault == 0:
            w, states = reach(unit, head[WEIGHTS]), reach(number, head[STATES])
            _save(head, w, states)
            _take_layers(ZERO, ONE, head, head, kind(head[OPTION]), w, states, _input(head, x_t))
            fault = _end(head, w, states)
        return fault

    @named(f"step_together_{name}")
    def together(team, address, x_t, fault):
        head = reach(ADDRESS, address)
        fault[0] = _begin(head, x_t)
        if fault[0] == 0:
            w, states = reach(unit, head[WEIGHTS]), reach(number, head[STATES])
            _save(head, w, states)
            members = assembled(team)
            share_out(_take_part, members, (members, head, kind(head[OPTION]), w, states, _input(head, x_t)))
            fault[0] = _end(head, w, states)

    return compiled(alone, nogil=False), compiled(together)


def _is_other(x_t, B, I):
    """Return OTHER unless x_t is (B, I), or (B,) indices from 0 to I - 1, and aligned, which its type does not tell."""


@overload(_is_other, jit_options=INLINE)
def _is_other_input(x_t, B, I):
    if isinstance(x_t.dtype, types.Integer):

        def is_other(x_t, B, I):
            if len(x_t) != B or x_t.ctypes.data % x_t.itemsize:
                return OTHER
            for i in x_t:
                if i < 0 or i >= I:
                    return OTHER
            return ZERO

        return is_other

    def is_other_shape(x_t, B, I):
        return ZERO if x_t.shape == (B, I) and not x_t.ctypes.data % x_t.itemsize else OTHER

    return is_other_shape


@inlined
def _begin(head, x_t):
    """Return why a step from x_t is refused; if it is not, the stream is taken up."""
    fault = _is_other(x_t, head[BATCH], head[INPUTS])
    if fault == 0 and not take_up(at(head, BUSY)):
        fault = TAKEN
    return fault


@inlined
def _save(head, w, states):
    """Copy the states: members write to them while others read, and a step that is refused must not have been."""
    copy_rows(reach(states, head[BEFORE]), ZERO, states, ZERO, ONE, ZERO, head[NUMBERS])
    begin_notes(w, reach(states, head[SCRATCH]))


@inlined
def _input(head, x_t):
    """Return a pointer to x_t; of an earlier result, which lies where a step writes to, to the copy of it."""
    offset = x_t.ctypes.data - head[STATES]
    if 0 <= offset < head[NUMBERS] * x_t.itemsize:
        return reach(pointer(x_t), head[BEFORE] + offset)
    return pointer(x_t)


@inlined
def _end(head, w, states):
    """Put the stream down and return why the step is refused, or 0; if it is, the states are as they were."""
    found = noted(w, reach(states, head[SCRATCH]))
    if found:
        copy_rows(states, ZERO, reach(states, head[BEFORE]), ZERO, ONE, ZERO, head[NUMBERS])
    head[TURN] += 1
    put_down(at(head, BUSY))
    return ZERO if found == 0 else (NOT_FINITE if found & INPUT else BEYOND)


@compiled
def _take_part(member, team, head, kind, w, states, x):
    _take_layers(member, len(team), pointer(team), head, kind, w, states, x)


@inlined
def _take_layers(member, members, meetings, head, kind, w, states, x):
    """Take one member's part of a step of all layers."""
    L, B, I, H = head[LAYERS], head[BATCH], head[INPUTS], head[UNITS]
    form = Form(head[FORM], head[FORM + 1], head[FORM + 2], head[FORM + 3], head[FORM + 4], head[FORM + 5])
    notes, before, turn = reach(states, head[SCRATCH]), reach(states, head[BEFORE]), head[TURN]
    here = at(notes, NOTES)
    walk = Walk(ONE, B, ZERO, ZERO, ONE, B, False, head, head, head)
    share = Share(member, members, meetings)
    if members > 1 and by_rows(B, members, H, gates_of(form), is_rounded(w)):
        rows, widest = (B + members - 1) // members, max(I, H) if L > 1 else I
        here = at(here, member * memory(w, ONE, rows, ONE, widest, H, form, ROWS))
        share, walk = Share(ZERO, ONE, meetings), section(walk, member, members)
    layer = Layer(w, x, before, states, H, I, H, form)
    forward(share, turn, walk, layer, _cell(head, kind, states, ZERO), notes, here, ROWS, None, None)
    for l in range(1, L):
        meet(share.meetings, share.among)
        below, row = at(states, (l - 1) * B * H), l * B * H
        upper = Layer(reach(w, head[WEIGHTS + l]), below, at(before, row), at(states, row), H, H, H, form)
        forward(share, turn, walk, upper, _cell(head, kind, states, l), notes, here, ROWS, None, None)


@inlined
def _cell(head, kind, states, l):
    apart = head[LAYERS] * head[BATCH] * head[UNITS]
    c = at(states, apart + l * head[BATCH] * head[UNITS])
    return forward_cell(kind, head[UNITS], c, apart, states, states, False)
