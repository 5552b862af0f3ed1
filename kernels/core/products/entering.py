"""What enters a product, the inputs and the states: as it is, or below float32 rounded once a step.

The functions here look at the type of packed weights (`kernels.core.vectors.dots`), so that the walk through time is
the same for all. In full precision they cost nothing. As int8 a row is written with its scale before it. A state beyond
±1, for which int8 has no room, and an input that is not finite are noted at the start of the scratch, and `refuse`
tells.
"""

import numpy as np
from numba.extending import overload

from kernels.core.code.cache import INLINE, compiled
from kernels.core.products.tiles import copy_rows, get, padded
from kernels.core.vectors.dots import LEAST, PAIRS, QUADS, TOGETHER, enter, largest_lane, like
from kernels.core.vectors.simd import absolute, align, at, full, lanes, multiply_add, pointer, where_less

NOTES = np.int64(16)  # elements at the start of the scratch
INPUT, STATE = np.int64(1), np.int64(2)  # faults

_ZERO, _ONE, _MOST = np.float32(0), np.float32(1), np.float32(127)
_STATE_SCALE = np.float32(1 / 127)
_BEYOND = np.nextafter(_ONE, np.float32(2))


def is_rounded(w):
    """Tell whether what is multiplied with `w` is rounded before."""


@overload(is_rounded, jit_options=INLINE)
def _is_rounded(w):
    answer = w.dtype in TOGETHER
    return lambda w: answer


def entered_row(w, K):
    """Return the distance of rows of K numbers that are multiplied with `w`, in its elements."""


@overload(entered_row, jit_options=INLINE)
def _entered_row(w, K):
    together = TOGETHER.get(w.dtype, 1)
    if together == 1:
        return lambda w, K: padded(K, lanes(w))

    def entered_row(w, K):
        n = lanes(w)
        return padded((K + n - 1) // n * n // together + 1, n)

    return entered_row


def before_row(w):
    """Return how many elements lie before a row that is multiplied with `w`: a scale."""


@overload(before_row, jit_options=INLINE)
def _before_row(w):
    answer = 1 if w.dtype == QUADS else 0
    return lambda w: answer


def enter_inputs(to, to_row, source, rows, K):
    """Write rows of K inputs as they are multiplied, and return INPUT if that cannot be, else 0."""


@overload(enter_inputs, jit_options=INLINE)
def _enter_inputs(to, to_row, source, rows, K):
    if to.dtype == QUADS:
        return lambda to, to_row, source, rows, K: _enter_quads(to, to_row, source, rows, K)
    if to.dtype == PAIRS:

        def enter_pairs(to, to_row, source, rows, K):
            _enter_pairs(to, to_row, source, rows, K)
            return 0

        return enter_pairs

    def copy(to, to_row, source, rows, K):
        copy_rows(to, to_row, source, K, rows, 0, K)
        return 0

    return copy


@compiled
def _enter_pairs(to, to_row, source, rows, K):
    for r in range(rows):
        for c in range(0, K, lanes(source)):
            numbers = get(at(source, r * K), c, K)
            enter(at(to, r * to_row), c, numbers, numbers)


@compiled
def _enter_quads(to, to_row, source, rows, K):
    """Each row has its own scale, from its largest magnitude."""
    n, fault = lanes(source), 0
    for r in range(rows):
        p, q = at(source, r * K), at(to, r * to_row)
        largest = nothing = full(get(p, 0, K), 0.0)
        for c in range(0, K, n):
            numbers = get(p, c, K)
            size = absolute(numbers)
            largest = where_less(largest, size, size, largest)
            nothing = multiply_add(numbers, full(numbers, 0.0), nothing)  # NaN from then on if one is not finite
        top = largest_lane(largest)
        steps = scale = _ZERO
        if top >= LEAST:
            steps, scale = _MOST / top, top * _STATE_SCALE
        like(q, source)[-1] = scale
        one = full(largest, 1.0)
        if largest_lane(where_less(absolute(nothing), one, nothing, one)) > _ZERO:
            fault = INPUT
        for c in range(0, K, n):
            enter(q, c, get(p, c, K), full(largest, steps))
    return fault


def enter_states(w, h0, h0_row, H, rows, to, to_row):
    """Return where the initial states (rows, H) lie as they are multiplied with `w`, their rows' distance, a fault."""


@overload(enter_states, jit_options=INLINE)
def _enter_states(w, h0, h0_row, H, rows, to, to_row):
    if w.dtype not in TOGETHER:
        return lambda w, h0, h0_row, H, rows, to, to_row: (h0, h0_row, 0)

    def enter_states(w, h0, h0_row, H, rows, to, to_row):
        mark = full(get(h0, 0, H), 0.0)
        begin_states(to, rows, to_row, h0)
        for r in range(rows):
            for c in range(0, H, lanes(h0)):
                mark = enter_state(at(to, r * to_row), c, get(at(h0, r * h0_row), c, H), mark)
        return to, to_row, STATE if largest_lane(mark) > _ZERO else 0

    return enter_states


def enter_middle(w, middle, middle_row, H, rows, to, to_row):
    """Return where rows (rows, H) of a second stage lie as they are multiplied with `w`, their distance, a fault."""


@overload(enter_middle, jit_options=INLINE)
def _enter_middle(w, middle, middle_row, H, rows, to, to_row):
    if w.dtype not in TOGETHER:
        return lambda w, middle, middle_row, H, rows, to, to_row: (middle, middle_row, 0)

    def enter_middle(w, middle, middle_row, H, rows, to, to_row):
        fault = 0
        for r in range(rows):
            fault |= enter_inputs(at(to, r * to_row), to_row, at(middle, r * middle_row), 1, H)
        return to, to_row, STATE if fault else 0

    return enter_middle


def begin_states(to, rows, to_row, numbers):
    """Write the scale of states before each row that is to hold some."""


@overload(begin_states, jit_options=INLINE)
def _begin_states(to, rows, to_row, numbers):
    if to.dtype != QUADS:
        return lambda to, rows, to_row, numbers: None

    def begin_states(to, rows, to_row, numbers):
        for r in range(rows):
            like(to, numbers)[r * to_row - 1] = _STATE_SCALE

    return begin_states


def enter_state(to, c, h, mark):
    """Write the states of the units from c on as they are multiplied, and return `mark`, with the lanes beyond ±1."""


@overload(enter_state, jit_options=INLINE)
def _enter_state(to, c, h, mark):
    if to.dtype == QUADS:

        def enter_quads(to, c, h, mark):
            enter(to, c, h, full(h, _MOST))
            one = full(h, 1.0)
            return where_less(absolute(h), full(h, _BEYOND), mark, one)

        return enter_quads
    if to.dtype == PAIRS:

        def enter_pairs(to, c, h, mark):
            enter(to, c, h, h)
            return mark

        return enter_pairs
    return lambda to, c, h, mark: mark


def entered_states(w, numbers, numbers_row, entered, entered_row):
    """Return where the states lie as they are multiplied with `w`, and their rows' distance."""


@overload(entered_states, jit_options=INLINE)
def _entered_states(w, numbers, numbers_row, entered, entered_row):
    if w.dtype in TOGETHER:
        return lambda w, numbers, numbers_row, entered, entered_row: (entered, entered_row)
    return lambda w, numbers, numbers_row, entered, entered_row: (numbers, numbers_row)


def note(w, notes, fault, mark):
    """Keep a fault of the inputs, or a state beyond ±1 in `mark`, for `refuse`."""


@overload(note, jit_options=INLINE)
def _note(w, notes, fault, mark):
    if w.dtype != QUADS:
        return lambda w, notes, fault, mark: None

    def note(w, notes, fault, mark):
        slots = like(notes, w)
        if fault & INPUT:
            slots[0] = 1
        if fault & STATE or largest_lane(mark) > _ZERO:
            slots[1] = 1

    return note


def begin_notes(w, notes):
    """Forget what was noted."""


@overload(begin_notes, jit_options=INLINE)
def _begin_notes(w, notes):
    if w.dtype != QUADS:
        return lambda w, notes: None

    def begin_notes(w, notes):
        slots = like(notes, w)
        slots[0] = slots[1] = 0

    return begin_notes


def noted(w, notes):
    """Return the faults that were noted."""


@overload(noted, jit_options=INLINE)
def _noted(w, notes):
    if w.dtype != QUADS:
        return lambda w, notes: 0

    def noted(w, notes):
        slots = like(notes, w)
        return (INPUT if slots[0] else 0) | (STATE if slots[1] else 0)

    return noted


@compiled
def refuse(weights, scratch):
    """Raise a ValueError if something was noted."""
    faults = noted(pointer(weights), align(pointer(scratch)))
    if faults & INPUT:
        raise ValueError("x: expected finite numbers for weights of int8, got others")
    if faults & STATE:
        raise ValueError("state: expected values from -1 to 1 for weights of int8, got others, or they came so")
