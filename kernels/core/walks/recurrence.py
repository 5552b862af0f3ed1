"""What the walks through time, forward and back, have in common: a step's blocks, who computes what, weights laid out.

T steps, B sequences in a batch, I inputs, H hidden units, G gates. A step adds up `blocks` vectors of H numbers. Where
the input and the state come together in every sum, a block is a gate. The GRU has one block more, for its n keeps them
apart: the inputs' products go to its blocks 0, 1, 2 = n, r, z, the state's to its blocks 1, 2, 3 = r, z, n. So gate g
of W belongs to block g + blocks - G, and a U whose rows are stacked in W's order is read from another gate on
(`input_gate`).
"""

from numba import types

from kernels.core.code.cache import compiled
from kernels.core.code.compiler import take_read_only
from kernels.core.products.tiles import ZERO, copy_rows, pack_columns, packed_size, panel_count, panel_start, whole
from kernels.core.threads.team import part
from kernels.core.vectors.dots import like
from kernels.core.vectors.simd import align, at, lanes, pointer


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


@compiled
def input_gate(block, gates, blocks):
    """Return the gate of U whose products go to a block."""
    return (block + 2 * gates - blocks) % gates


@take_read_only
@compiled
def pack(U, W, biases, weights):
    """Lay out U and W as the forward products need them, gate by gate in the order of the blocks, then the biases.

    Below float32 a row of U and W holds units, and what lies behind a panel.
    """
    blocks, H = biases.shape
    gates = W.shape[0] // H
    w = align(pointer(weights))
    n = lanes(w)
    count = panel_count(H, n)
    K = U.shape[1]
    for g in range(gates):
        u = at(pointer(U), input_gate(g, gates, blocks) * H * K)
        pack_columns(at(w, g * packed_size(K, H, n)), u, K, K, H, ZERO, count)
    w = at(w, gates * packed_size(K, H, n))
    K = W.shape[1]
    for g in range(gates):
        pack_columns(at(w, g * packed_size(K, H, n)), at(pointer(W), g * H * K), K, K, H, ZERO, count)
    w = at(w, gates * packed_size(K, H, n))
    copy_rows(like(w, pointer(biases)), whole(H, n) * n, pointer(biases), H, blocks, ZERO, H)
