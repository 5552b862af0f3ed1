"""Streams: layers of cells that are called a step at a time, in memory that is laid out once.

A call of compiled code takes as long as a small step for every array that it is given. So the call of a stream has one,
x_t, beside the address of a table of all else: sizes, and the addresses of weights, states and scratch. What types lie
there is settled with the function (`_steps`); that of x_t is looked at by Numba anyway, its shape by the compiled code.

A small step keeps the interpreter's lock: to give it up and have it back takes as long, and others could keep it for
milliseconds. One that is worth sharing gives it up, and is done by a team.
"""

from functools import cache

import numpy as np
from numba import types
from numba.extending import overload
from numba.np.numpy_support import from_dtype
from numpy import ndarray

from kernels.core.code.cache import INLINE, compiled, inlined, named
from kernels.core.code.compiler import take_read_only
from kernels.core.doors.checks import INDICES, check_array, check_input, check_size, check_state, check_states
from kernels.core.products.entering import INPUT, NOTES, begin_notes, is_rounded, noted
from kernels.core.products.tiles import ONE, ZERO, copy_rows
from kernels.core.threads.team import assembled, meet, most_threads, on_a_team, put_down, share_out, take_up
from kernels.core.vectors.simd import ALIGNMENT, at, pointer, reach
from kernels.core.walks.forward import ROWS, Layer, Share, forward, memory
from kernels.core.walks.network import forward_cell
from kernels.core.walks.recurrence import WORTH_SHARING, by_rows, team_size
from kernels.core.walks.walk import Walk, section

# The table: what it holds, and behind it the address of each layer's weights.
BUSY, TURN, OPTION, LAYERS, BATCH, INPUTS, UNITS, GATES, BLOCKS, NUMBERS, STATES, BEFORE, SCRATCH, WEIGHTS = range(14)

OTHER, TAKEN, NOT_FINITE, BEYOND = (np.int64(n) for n in range(1, 5))  # why a step is refused

_ADDRESS = np.dtype(np.int64)


class Stream:
    """Layers that are called a step at a time, from `stream` of a cell or of `kernels.stack`.

    All it needs is laid out once. It is one caller's at a time: whoever comes while another thread's call is at work
    gets a RuntimeError. A forked process goes on with a stream of its own, and so does who unpickles or copies one.
    """

    __slots__ = (
        "_address",
        "_again",
        "_h",
        "_infer",
        "_keeps",
        "_kind",
        "_network",
        "_number",
        "_shape",
        "_states",
        "_step",
    )

    def __init__(self, cell, weights, batch_size, infer, again, network=False):
        """Open a stream of the layers' Prepared `weights`.

        `infer(x, state)` is theirs, and again[0](*again[1:]) makes the same stream.
        """
        check_size("batch_size", batch_size)
        self._kind, self._infer, self._again, self._network = cell.State, infer, again, network
        B, L, first = int(batch_size), len(weights), weights[0]
        I, H, number = first.input_size, first.hidden_size, np.dtype(first.dtype)
        self._shape, self._number = (B, I, H), number
        self._step, shared = _steps(type(cell.kind), first.weights.dtype, number)
        most, (members, _) = 1, team_size(most_threads, 1, B, max(I, H), H, cell.gates, first.together)
        if members > 1 or B * cell.gates * H * (I + H) > WORTH_SHARING:
            most = most_threads()
            self._step = Shared(shared, most, (1, B, I, H, cell.gates, first.together))

        states = len(cell.State._fields)
        inside = (max(I, H) if L > 1 else I, H, cell.gates, cell.blocks)
        scratch = max(_room(first.weights, B, members, *inside) for members in range(1, most + 1))
        numbers = -(-states * L * B * H * number.itemsize // ALIGNMENT) * ALIGNMENT // number.itemsize  # whole vectors
        head, own, before, rest = _lay_out((_ADDRESS, WEIGHTS + L), *((number, n) for n in (numbers, numbers, scratch)))
        head[LAYERS:WEIGHTS] = L, B, I, H, cell.gates, cell.blocks, numbers, *map(_address, (own, before, rest))
        head[OPTION] = cell.kind[0]
        head[WEIGHTS:] = [_address(one.weights) for one in weights]
        self._address, self._keeps = _address(head), (head, before, rest, weights)
        arrays = own[: states * L * B * H].reshape(states, L, B, H)
        self._states = [self._kind(*arrays[:, l]) for l in range(L)]
        self._h = self._states[-1].h

    def step(self, x_t):
        """Return h (B, H) of the last layer after one more step, from x_t (B, I), or from indices (B,).

        It is the stream's own array and good until the next step; `numpy.copy` keeps it. What is refused is a
        ValueError or a TypeError, and the state stays as it was. The first step from indices compiles for them.
        """
        # Numba would take what derives from an array for one, and turned bytes for right ones where it has seen others.
        if type(x_t) is not ndarray or ((number := x_t.dtype) is not self._number and not number.isnative):
            x_t = self._as_array(x_t)
        try:
            fault = self._step(self._address, x_t)
        except _OtherTypeError:
            fault = OTHER
        if fault:
            self._refuse(fault, x_t)
        return self._h

    def run(self, x):
        """Return hs (T, B, H) of the last layer after T more steps, from x (T, B, I) or indices (T, B)."""
        hs, self.state = self._infer(x, self.state)
        return hs

    @property
    def state(self):
        """The state, a copy: the cell's State, or of a network those of its layers, as `kernels.stack` has them.

        What is set is checked as everywhere, and copied.
        """
        with _Held(self._address):
            copies = [self._kind(*(a.copy() for a in state)) for state in self._states]
        return tuple((one,) for one in copies) if self._network else copies[0]

    @state.setter
    def state(self, state):
        B, _, H = self._shape
        if self._network:
            check_states("state", state, self._kind, len(self._states), 1, (B, H), self._number)
        else:
            check_state("state", state, self._kind, (B, H), self._number)
        with _Held(self._address):
            for own, (one,) in zip(self._states, state if self._network else ((state,),), strict=True):
                for to, a in zip(own, one, strict=True):
                    to[:] = a

    def reset(self):
        """Begin anew, from the zero state."""
        with _Held(self._address):
            for state in self._states:
                for a in state:
                    a[:] = 0

    def _as_array(self, x_t):
        check_input("x_t", x_t, ("B",), self._shape[1], self._number)
        return x_t.view(ndarray)

    def _refuse(self, fault, x_t):
        """Raise the error of a fault."""
        if fault == TAKEN:
            raise RuntimeError(_BUSY)
        if fault == OTHER:
            B, I, _ = self._shape
            one_hot = isinstance(x_t, ndarray) and x_t.dtype in INDICES
            check_array("x_t", x_t, (B,) if one_hot else (B, I), x_t.dtype if one_hot else self._number)
            check_input("x_t", x_t, (B,), I, self._number)
        if fault == NOT_FINITE:
            raise ValueError("x_t: expected finite numbers for weights of int8, got others")
        raise ValueError("state: expected values from -1 to 1 for weights of int8, got others, or they came so")

    def __reduce__(self):
        return _revive, (self._again, self.state)


_BUSY = "stream: expected one caller at a time, got a call while another thread's is at work"


def _revive(again, state):
    make, *arguments = again
    stream = make(*arguments)
    stream.state = state
    return stream


class _Held:
    """Keeps steps away from the states of a stream."""

    def __init__(self, address):
        self._address = address

    def __enter__(self):
        if not _hold(self._address):
            raise RuntimeError(_BUSY)

    def __exit__(self, *_):
        _let_go(self._address)


class Shared:
    """The step of a team, called like that of one thread."""

    def __init__(self, work, most, sizes):
        self._work, self._most, self._sizes = work, most, sizes

    def __call__(self, address, x_t):
        fault = np.zeros(1, np.int64)
        size = team_size(lambda: min(self._most, most_threads()), *self._sizes)
        on_a_team(self._work, size, (address, x_t, fault))
        return fault[0]


class _OtherTypeError(TypeError):
    """x_t is of a type that the step is not compiled for."""


def _lay_out(*parts):
    """Return arrays of zeros of these dtypes and sizes, each from a cache line on.

    All lie in one bytearray, which cannot be resized as long as there is one of them.
    """
    lengths = [size * dtype.itemsize for dtype, size in parts]
    lines = [-(-length // ALIGNMENT) for length in lengths]
    memory = np.frombuffer(bytearray((1 + sum(lines)) * ALIGNMENT), np.uint8)
    start, found = -_address(memory) % ALIGNMENT, []
    for (dtype, _), length, count in zip(parts, lengths, lines, strict=True):
        found.append(memory[start : start + length].view(dtype))
        start += count * ALIGNMENT
    return found


def _address(a):
    return a.ctypes.data


@take_read_only
@compiled
def _room(weights, B, members, I, H, gates, blocks):
    """Return how many numbers a step of so many members works with: see `kernels.core.walks.forward`."""
    w = pointer(weights)
    if by_rows(B, members, H, gates, is_rounded(w)):
        return NOTES + members * memory(w, ONE, (B + members - 1) // members, ONE, I, H, blocks, ROWS)
    return NOTES + memory(w, ONE, B, members, I, H, blocks, ROWS)


@compiled
def _hold(address):
    return take_up(at(reach(_ADDRESS, address), BUSY))


@compiled
def _let_go(address):
    put_down(at(reach(_ADDRESS, address), BUSY))


@cache
def _steps(kind, unit, number):
    """Return the compiled step of one thread, step(address, x_t), and that of a team, step(team, address, x_t, fault).

    `kind` is the type of a cell's kind (`kernels.core.walks.network`), the weights are of dtype `unit`, all else of
    dtype `number`. A fault is why a step is refused, or 0.
    """
    name = f"{kind.__name__}_{unit}_{number}"

    @named(f"step_{name}")
    def alone(address, x_t):
        head = reach(_ADDRESS, address)
        fault = _begin(head, x_t)
        if fault == 0:
            w, states = reach(unit, head[WEIGHTS]), reach(number, head[STATES])
            _save(head, w, states)
            _take_layers(ZERO, ONE, head, head, kind(head[OPTION]), w, states, _input(head, x_t))
            fault = _end(head, w, states)
        return fault

    @named(f"step_together_{name}")
    def together(team, address, x_t, fault):
        head = reach(_ADDRESS, address)
        fault[0] = _begin(head, x_t)
        if fault[0] == 0:
            w, states = reach(unit, head[WEIGHTS]), reach(number, head[STATES])
            _save(head, w, states)
            members = assembled(team)
            share_out(_take_part, members, (members, head, kind(head[OPTION]), w, states, _input(head, x_t)))
            fault[0] = _end(head, w, states)

    x = from_dtype(number)
    inputs = (types.Array(x, 2, "C"), *(types.Array(from_dtype(dtype), 1, "C") for dtype in INDICES))
    alone = _taking(inputs, 1, compiled(alone, nogil=False))
    alone.compile((types.int64, inputs[0]))
    return alone, _taking(inputs, 2, compiled(together))


def _taking(inputs, position, dispatcher):
    """Have compiled code take no other inputs."""
    take_read_only(dispatcher)
    compile_for = dispatcher.compile

    def compile_known(signature):
        x_t = signature[position]
        if not (isinstance(x_t, types.Array) and x_t.copy(readonly=False) in inputs):
            raise _OtherTypeError
        return compile_for(signature)

    dispatcher.compile = compile_known
    return dispatcher


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
    L, B, I, H, gates, blocks = head[LAYERS], head[BATCH], head[INPUTS], head[UNITS], head[GATES], head[BLOCKS]
    notes, before, turn = reach(states, head[SCRATCH]), reach(states, head[BEFORE]), head[TURN]
    here = at(notes, NOTES)
    walk = Walk(ONE, B, ZERO, ZERO, ONE, B, False, head, head, head)
    share = Share(member, members, meetings)
    if members > 1 and by_rows(B, members, H, gates, is_rounded(w)):
        rows, widest = (B + members - 1) // members, max(I, H) if L > 1 else I
        here = at(here, member * memory(w, ONE, rows, ONE, widest, H, blocks, ROWS))
        share, walk = Share(ZERO, ONE, meetings), section(walk, member, members)
    layer = Layer(w, x, before, states, H, I, H, gates, blocks)
    forward(share, turn, walk, layer, _cell(head, kind, states, ZERO), notes, here, ROWS, None, None)
    for l in range(1, L):
        meet(share.meetings, share.among)
        below, row = at(states, (l - 1) * B * H), l * B * H
        upper = Layer(reach(w, head[WEIGHTS + l]), below, at(before, row), at(states, row), H, H, H, gates, blocks)
        forward(share, turn, walk, upper, _cell(head, kind, states, l), notes, here, ROWS, None, None)


@inlined
def _cell(head, kind, states, l):
    H = head[UNITS]
    c = at(states, (head[LAYERS] + l) * head[BATCH] * H)
    return forward_cell(kind, H, c, states, states, False)
