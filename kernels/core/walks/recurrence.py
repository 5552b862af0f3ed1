"""What the walks through time, forward and back, have in common: a step's blocks, who computes what, weights laid out.

T steps, B sequences in a batch, I inputs, H hidden units. A step adds up blocks of H numbers, each from a bias on:
`Form` says which products go where. Where the input and the state come together in every sum, as in the LSTM, a block
is a gate. The GRU has one block more, for its n keeps them apart: the inputs' products go to its blocks 0, 1, 2 = n, r,
z, the state's to its blocks 1, 2, 3 = r, z, n.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.extending import overload

from kernels.core.code.cache import INLINE, compiled
from kernels.core.code.compiler import take_read_only
from kernels.core.products.tiles import ZERO, copy_rows, pack_columns, packed_size, panel_count, panel_start, whole
from kernels.core.threads.team import part
from kernels.core.vectors.dots import like
from kernels.core.vectors.simd import align, at, lanes, pointer


class Form(NamedTuple):
    """The blocks of a step's sums, in runs: those of U alone, of U and W, of W alone, of W and middles."""

    u: Any  # gates of U: of the first blocks
    w: Any  # gates of W, multiplied with h: of the last blocks, but for those
    later: Any  # whose gates of W are multiplied with what the cell makes of the others' sums, a middle
    middles: Any  # how many of these there are, one after the other
    blocks: Any
    vectors: Any  # (H,) each, that the cell has beside biases


@compiled
def gates_of(form):
    """Return by how many gates to reckon the work of a step."""
    return max(form.u, form.w + form.later)


def count_middles(cell):
    """Return how many middles a step has, by the type of a cell (its attribute `LATER`: the gates of W of each)."""


@overload(count_middles, jit_options=INLINE)
def _count_middles(cell):
    count = np.int64(len(later_of(cell)))
    return lambda cell: count


def gates_behind(cell, which):
    """Return how many gates of W a middle is multiplied with."""


@overload(gates_behind, jit_options=INLINE)
def _gates_behind(cell, which):
    gates = tuple(map(np.int64, later_of(cell)))
    if len(gates) < 2:
        only = gates[0] if gates else np.int64(0)
        return lambda cell, which: only
    return lambda cell, which: gates[which]


def later_of(cell):
    """Return the gates of W of each middle, of the type of a cell."""
    return _about(cell, "LATER", ())


def gate_of_u(cell, n):
    """Return which gate of U goes to the n-th block, by the type of a cell (its attribute `INPUTS`, if not in turn)."""


@overload(gate_of_u, jit_options=INLINE)
def _gate_of_u(cell, n):
    return _turned(_about(cell, "INPUTS", ()))


def gate_of_w(cell, n):
    """Return which gate of W is the n-th to be multiplied, by the type of a cell (its attribute `RECURRENT`)."""


@overload(gate_of_w, jit_options=INLINE)
def _gate_of_w(cell, n):
    return _turned(_about(cell, "RECURRENT", ()))


def _about(cell, name, otherwise):
    """Return an attribute of a cell's class, or of that of its first field: what cells from equations are told by."""
    first = cell[0] if len(cell) else None
    kind = first.instance_class if isinstance(first, types.BaseNamedTuple) else cell.instance_class
    return getattr(kind, name, otherwise)


def _turned(order):
    """Return the function (cell, n) -> order[n], or n if there is no order."""
    order = tuple(map(np.int64, order))
    if order == tuple(range(len(order))):
        return lambda cell, n: n
    return lambda cell, n: order[n]


def is_a(cell, kind):
    """Tell whether `cell`, the type of an argument, is that of the NamedTuple `kind`.

    Numba takes two such classes of one name and the same fields' types for one, so each has a name of its own.
    """
    return isinstance(cell, types.BaseNamedTuple) and cell.instance_class is kind


# The strategy. With a batch of at least a few rows for each thread, every thread takes its rows through all of time
# and waits for nobody; with less, the hidden units are shared out, and the threads meet after each step.

KEPT = 200_000  # numbers of W, of all gates: what stays in a core's own cache from step to step
WORTH_SHARING = 2_000_000  # multiplications: fewer are done before another thread, awake, has done its part
_PATIENCE = 300  # spins that so many are worth: half of the time that they take
_FEWEST_ROWS = 8  # fewer take as long as these do: it is the time that the weights take to come
_WORTH_FOLLOWING = 9_216  # recurrent weights of a layer: with fewer a step is done before another thread hears of it
_ACTIVATION = 64  # multiplications take as long


def rows_each(H, gates, rounded):
    """Return how many rows a thread is to have at least, to take them alone.

    Below float32 a product takes as long for many rows as for two.
    """
    return 2 if gates * H * H <= KEPT and not rounded else 4


def team_size(most, T, B, I, H, gates, together=1):
    """Return how many threads, of `most()`, have enough to do, and for how many spins they are worth waiting.

    A small call need not ask for the most, which takes as long as a small step. Multiplications that are done
    `together` take as long as one.
    """
    work = T * max(B, _FEWEST_ROWS) * gates * H * ((H + I) // together + _ACTIVATION)
    if work < WORTH_SHARING:
        return 1, 0
    most = most()
    by_rows = min(most, B // rows_each(H, gates, together > 1))
    by_columns = min(most, H // 24, gates * H * H // (18_432 * together))
    return max(1, by_rows, by_columns), _PATIENCE * work // WORTH_SHARING


def network_size(most, L, D, T, B, I, H, gates, together=1):
    """Return the same for a network of L layers of D directions: there, members can have chains of their own."""
    inputs = I + (L - 1) * D * H  # of all layers
    work = D * T * max(B, _FEWEST_ROWS) * gates * H * ((L * H + inputs) // together + L * _ACTIVATION)
    if work < WORTH_SHARING:
        return 1, 0
    most = most()
    by_rows = min(most, B // rows_each(H, gates, together > 1))
    by_columns = max(1, min(H // 24, gates * H * H // (18_432 * together)))
    chains = D if D > 1 else (L if gates * H * H >= _WORTH_FOLLOWING * together else 1)
    return max(1, by_rows, min(most, chains * by_columns)), _PATIENCE * work // WORTH_SHARING


_rows_each = compiled(rows_each)


@compiled
def by_rows(B, members, H, gates, rounded):
    return members == 1 or _rows_each(H, gates, rounded) * members <= B


@compiled
def chunk_rows(steps, rows, most):
    """Return how many rows a chunk of steps of `rows` rows has at most: one step at least."""
    return min(steps * rows, max(most, rows))


@compiled
def columns_of(columns, me, team, n):
    """Return the panels, and the columns, that are one member's part."""
    first, last = part(panel_count(columns, n), me, team)
    return first, last, panel_start(first, columns, n) * n, panel_start(last, columns, n) * n


@take_read_only
@compiled
def pack(U, W, biases, order, weights):
    """Lay out U and W as the forward products need them, gate by gate in their `order`, then the biases and vectors.

    `order` has the gates of U, then those of W. Below float32 a row of U and W holds units, and what lies behind a
    panel.
    """
    rows, H = biases.shape
    w = align(pointer(weights))
    n = lanes(w)
    count, turn = panel_count(H, n), 0
    K = U.shape[1]
    for _ in range(U.shape[0] // H):
        pack_columns(w, at(pointer(U), order[turn] * H * K), K, K, H, ZERO, count)
        w = at(w, packed_size(K, H, n))
        turn += 1
    K = W.shape[1]
    for _ in range(W.shape[0] // H):
        pack_columns(w, at(pointer(W), order[turn] * H * K), K, K, H, ZERO, count)
        w = at(w, packed_size(K, H, n))
        turn += 1
    copy_rows(like(w, pointer(biases)), whole(H, n) * n, pointer(biases), H, rows, ZERO, H)
