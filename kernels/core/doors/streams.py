"""Streams: layers of cells that are called a step at a time. What a step does: `kernels.core.walks.streaming`."""

from functools import cache

import numpy as np
from numba import types
from numba.np.numpy_support import from_dtype
from numpy import ndarray

from kernels.core.code.compiler import take_read_only
from kernels.core.doors.checks import INDICES, check_array, check_input, check_size, check_state, check_states
from kernels.core.threads.team import most_threads, on_a_team
from kernels.core.vectors.simd import ALIGNMENT
from kernels.core.walks.recurrence import WORTH_SHARING, team_size
from kernels.core.walks.streaming import (
    ADDRESS,
    LAYERS,
    NOT_FINITE,
    OPTION,
    OTHER,
    TAKEN,
    WEIGHTS,
    hold,
    let_go,
    room,
    steps,
)


class Stream:
    """Layers that are called a step at a time, from `stream` of a cell or of `kernels.stack`.

    All it needs is laid out once. It is one caller's at a time: whoever comes while another thread's call is at work
    gets a RuntimeError. A forked process goes on with a stream of its own, and so does who unpickles or copies one.
    """

    __slots__ = (
        "_address",
        "_again",
        "_begins",
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
        inside = (max(I, H) if L > 1 else I, H, cell.form)
        scratch = max(room(first.weights, B, members, *inside) for members in range(1, most + 1))
        numbers = -(-states * L * B * H * number.itemsize // ALIGNMENT) * ALIGNMENT // number.itemsize  # whole vectors
        head, own, before, rest = _lay_out((ADDRESS, WEIGHTS + L), *((number, n) for n in (numbers, numbers, scratch)))
        head[LAYERS:WEIGHTS] = L, B, I, H, numbers, *map(_address, (own, before, rest)), *cell.form
        head[OPTION] = cell.kind[0]
        head[WEIGHTS:] = [_address(one.weights) for one in weights]
        self._address, self._keeps = _address(head), (head, before, rest, weights)
        arrays = own[: states * L * B * H].reshape(states, L, B, H)
        self._states = [self._kind(*arrays[:, l]) for l in range(L)]
        self._h = self._states[-1][0]
        self._begins = cell.begins or (0,) * states
        self.reset()

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
        """Begin anew: from the zero state, or where the cell has its states begin."""
        with _Held(self._address):
            for state in self._states:
                for a, number in zip(state, self._begins, strict=True):
                    a[:] = number

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
        if not hold(self._address):
            raise RuntimeError(_BUSY)

    def __exit__(self, *_):
        let_go(self._address)


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


@cache
def _steps(kind, unit, number):
    """Return the `steps` of a stream, which take x_t of dtype `number`, or indices, and nothing else."""
    x = from_dtype(number)
    inputs = (types.Array(x, 2, "C"), *(types.Array(from_dtype(dtype), 1, "C") for dtype in INDICES))
    alone, together = steps(kind, unit, number)
    alone = _taking(inputs, 1, alone)
    alone.compile((types.int64, inputs[0]))
    return alone, _taking(inputs, 2, together)


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
