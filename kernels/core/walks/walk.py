"""The way through time: how many sequences are under way at a step, and where a step of each lies in memory.

Arrays lie as the user has them, (T, B, ...), and are reached by their rows, t B + b. A walk has steps t and sequences r
of its own: the r-th one that it takes is the user's b = `sequence(walk, r)`, and its step t is the row
`row_at(walk, t, r)`. The backward direction begins where a sequence ends.

Sequences of several lengths are placed by their length, the longest first, so that those that are under way at a step
are always the first ones, fewer and fewer.
"""

from typing import Any, NamedTuple

import numpy as np

from kernels.core.code.cache import compiled, inlined
from kernels.core.products.tiles import ONE, ZERO
from kernels.core.threads.team import part
from kernels.core.vectors.simd import at


class Walk(NamedTuple):
    """Some of B sequences, in one direction. `order`, `lengths` and `live` are looked at if they are ragged alone."""

    steps: Any  # of the longest of all
    B: Any
    backward: Any
    first: Any  # place of the first sequence of this walk,
    stride: Any  # from a place to the next,
    rows: Any  # and how many they are
    ragged: Any  # whether their lengths differ
    order: Any  # (B,)  the address of the sequences by their place,
    lengths: Any  # (B,)  of their lengths,
    live: Any  # (steps,)  and of how many have each step


@compiled
def even(hs, anywhere):
    """Return the walk through sequences of one length, hs (T, B, H); `anywhere` is an address of integers."""
    T, B, _ = hs.shape
    return Walk(T, B, ZERO, ZERO, ONE, B, False, anywhere, anywhere, anywhere)


@compiled
def ragged(order, B, steps):
    """Return the walk through sequences whose `order`, lengths and live ones, (B + B + steps), lie at an address."""
    return Walk(steps, B, ZERO, ZERO, ONE, B, True, order, at(order, B), at(order, 2 * B))


@compiled
def place_by_length(lengths, T):
    """Return the order (B,) of sequences by their lengths (B,), these lengths, and how many have each of T steps.

    All in one array. Where the sequences of a length begin follows from how many are longer.
    """
    B = len(lengths)
    places = np.zeros(2 * B + T, np.int64)
    live = places[2 * B :]
    for length in lengths:
        live[length - 1] += 1
    for t in range(T - 2, -1, -1):
        live[t] += live[t + 1]
    begins = np.zeros(T, np.int64)
    begins[: T - 1] = live[1:]
    for b in range(B):
        length = lengths[b]
        place = begins[length - 1]
        places[place], places[B + place] = b, length
        begins[length - 1] += 1
    return places


@inlined
def sequence(walk, r):
    """Return which of the user's sequences is the r-th of a walk."""
    place = walk.first + r * walk.stride
    return walk.order[place] if walk.ragged else place


@inlined
def length_of(walk, r):
    """Return how many steps the r-th sequence of a walk has."""
    return walk.lengths[walk.first + r * walk.stride] if walk.ragged else walk.steps


@inlined
def row_at(walk, t, r):
    """Return the row of step t of the r-th sequence of a walk."""
    return (length_of(walk, r) - 1 - t if walk.backward else t) * walk.B + sequence(walk, r)


@inlined
def rows_at(walk, t):
    """Return how many sequences of a walk have a step t: its first ones."""
    return (walk.live[t] - walk.first + walk.stride - 1) // walk.stride if walk.ragged else walk.rows


@inlined
def all_rows_at(walk, t):
    """Return how many sequences have a step t, those of others included."""
    return walk.live[t] if walk.ragged else walk.B


@inlined
def side_by_side(walk, rows):
    """Return how many of so many sequences in turn have their steps side by side."""
    return ONE if walk.ragged else rows


@inlined
def steps_of(walk):
    """Return how many steps the longest sequence of a walk has."""
    return length_of(walk, 0)


@compiled
def section(walk, i, of):
    """Return the i-th of so many walks that share the sequences of this one, which has all of them.

    Sequences of several lengths are dealt out, so that each has as much to do.
    """
    first, last = part(walk.B, i, of)
    stride, rows = ONE, last - first
    if walk.ragged:
        first, stride, rows = i, of, (walk.B - i + of - 1) // of
    part_of = (first, stride, rows, walk.ragged)
    return Walk(walk.steps, walk.B, walk.backward, *part_of, walk.order, walk.lengths, walk.live)


@compiled
def heading(walk, backward):
    """Return the walk in the forward (0) or the backward direction (1)."""
    whole = (walk.first, walk.stride, walk.rows, walk.ragged)
    return Walk(walk.steps, walk.B, backward, *whole, walk.order, walk.lengths, walk.live)
