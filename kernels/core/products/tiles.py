"""Matrix products on register tiles: out += a w, for a `w` packed in panels.

A tile of ROWS x VECTORS accumulators stays in registers while the product walks along k: each step loads VECTORS
vectors of w and broadcasts ROWS numbers of a. The sizes fill the register file, and leave both load ports enough
time even where w comes from the second-level cache. The rows that are left over have tiles of their own sizes, as few
as may be: each reads w again, and those of one or two rows keep the multipliers waiting.

A packed matrix of K rows is cut into panels of at most VECTORS vectors of columns, equal as far as may be, since a
narrow panel keeps the multipliers waiting. In its panel each row is contiguous, padded with zeros to whole vectors:

    panel 0: row 0, row 1, ... row K-1;  panel 1: row 0, ...

The rows of every buffer that tiles are read from lie an odd number of cache lines apart (`padded`): at a power of two
they would all fall into the same few sets of the cache.
"""

import numpy as np
from numba.extending import overload

from kernels.core.code import host
from kernels.core.code.cache import INLINE, compiled, inlined, named
from kernels.core.products.matrices import (
    KINDS,
    SIDE,
    begin_matrices,
    begin_rows,
    multiply_matrices,
    room,
    rows_at_once,
    takes_one_row,
)
from kernels.core.products.registers import (
    fold,
    load_square,
    partial_sums,
    rank1,
    settle_tile,
    store_square,
    sums_before,
    tile_at,
    transpose,
    zero_tile,
)
from kernels.core.vectors import simd
from kernels.core.vectors.dots import PAIRS, QUADS, behind, like, unpacked
from kernels.core.vectors.simd import at, full, lanes, load, load_first, prefetch, store, store_first

ROWS = 8 if host.REGISTERS == 32 else 4
VECTORS = 3

# Rows of w that are asked for before they are needed: hardware stops at the end of every page. A tile of few registers
# has no time for it: it loads as much for half of the multiplications.
_AHEAD = 12 if host.REGISTERS == 32 else 0

# Numba compiles a function anew for every literal number that it is called with, but not for these.
ZERO, ONE, TILE = np.int64(0), np.int64(1), np.int64(ROWS)
REPLACE, ADD = ZERO, ONE  # what a product does to what is there


@compiled
def whole(columns, n):
    """Return how many vectors hold `columns` numbers."""
    return (columns + n - 1) // n


@compiled
def padded(columns, n):
    """Return the distance of rows in a buffer, in elements: whole vectors and an odd number of cache lines."""
    line = n * 8 * simd.ALIGNMENT // host.BITS  # elements
    return ((columns + line - 1) // line | 1) * line


@compiled
def packed_size(K, columns, n):
    """Return how many elements a packed matrix takes."""
    return K * whole(columns, n) * n


@compiled
def panel_count(columns, n):
    return (whole(columns, n) + VECTORS - 1) // VECTORS


@compiled
def panel_start(panel, columns, n):
    """Return the first vector of a panel; that of the panel after the last is the number of vectors."""
    vectors = whole(columns, n)
    count = (vectors + VECTORS - 1) // VECTORS
    # vectors // count, without the division, which takes as long as a small product
    width = VECTORS if vectors == VECTORS * count else (2 if vectors >= 2 * count else 1)
    return panel * width + min(panel, vectors - width * count)


@compiled
def pack_rows(packed, source, row, k0, k1, K, columns, first_panel, last_panel):
    """Pack the rows from k0 up to k1 of panels of a matrix of K rows, of which row k starts at source[k row]."""
    n = lanes(packed)
    for k in range(k0, k1):  # row by row, as the source lies: by panels each row would be another page
        for panel in range(first_panel, last_panel):
            start = panel_start(panel, columns, n)
            width = panel_start(panel + 1, columns, n) - start
            to = at(packed, (start * K + k * width) * n)
            for v in range(width):
                store(to, v * n, get(at(source, k * row), (start + v) * n, columns))


@compiled
def pack_columns(packed, source, row, K, columns, first_panel, last_panel):
    """Pack panels of the matrix whose column c starts at source[c row]: the transpose of how it lies."""
    n = lanes(packed)
    for panel in range(first_panel, last_panel):
        start = panel_start(panel, columns, n)
        width = panel_start(panel + 1, columns, n) - start
        to = at(packed, start * n * K)
        for v in range(width):
            column = (start + v) * n
            for k in range(0, K, n):
                square = load_square(at(source, column * row + k), row, columns - column, K - k)
                store_square(at(to, (k * width + v) * n), width * n, transpose(square), K - k)


def _make_tile(rows, vectors):
    @compiled
    @named(f"tile_{rows}x{vectors}")
    def tile(out, out_row, a, a_row, a_k, w, K, how):
        n = lanes(out)
        scales = at(like(a, out), -1)
        sums = zero_tile(w, rows, vectors)
        if how == ADD:
            sums = sums_before(sums, out, out_row)
        for _ in range(K):
            sums = rank1(sums, a, a_row, w)
            if _AHEAD:
                for v in range(vectors):
                    prefetch(w, (_AHEAD * vectors + v) * n)
            a = at(a, a_k)
            w = at(w, vectors * n)
        settle_tile(out, out_row, sums, scales, a_row, w)

    return tile


def _make_row(vectors):
    """A lone row has too few accumulators to hide the latency of a multiplication: sum every fourth product apart."""
    apart = 8 if vectors == 1 else 4

    @inlined
    @named(f"row_{vectors}")
    def row(out, a, w, K):
        total = sums_before(zero_tile(w, 1, vectors), out, 0)
        sums = zero_tile(w, apart, vectors)
        k = 0
        while k + apart <= K:
            sums = partial_sums(sums, at(a, k), 1, at(w, k * vectors * lanes(w)))
            k += apart
        total = fold(sums, total)
        while k < K:
            total = rank1(total, at(a, k), 0, at(w, k * vectors * lanes(w)))
            k += 1
        settle_tile(out, 0, total, at(like(a, out), -1), 0, at(w, K * vectors * lanes(w)))

    return row


def _make_rest(rows, vectors):
    """What `multiply_matrices` leaves to be done with integer sums: the rest of K, and to settle them."""

    @compiled
    @named(f"rest_{rows}x{vectors}")
    def rest(out, out_row, a, a_row, w, done, K, sums):
        n = lanes(out)
        scales = at(like(a, out), -1)
        tile = tile_at(zero_tile(w, rows, vectors), sums, vectors * n)
        for k in range(done, K):
            tile = rank1(tile, at(a, k), a_row, at(w, k * vectors * n))
        settle_tile(out, out_row, tile, scales, a_row, at(w, K * vectors * n))

    return rest


@inlined
def _next_rows(rows, first, most):
    """Return how many rows come next, and make the matrix registers ready if they are fewer: that takes a while."""
    count = min(most, rows - first)
    if count < most:
        begin_rows(count)
    return count


def _make_blocks(vectors, full, last):
    rest, rest_of_one = _make_rest(ROWS, vectors), _make_rest(1, vectors)

    @compiled
    @named(f"blocks_of_numbers_{vectors}")
    def of_numbers(out, out_row, a, a_row, w, rows, K):
        n, blocks = lanes(out), K // SIDE
        done = blocks * SIDE
        left = at(w, done * vectors * n)
        most = rows_at_once(rows)
        for first in range(0, rows if blocks else 0, most):
            count = _next_rows(rows, first, most)
            to, by = at(out, first * out_row), at(a, first * a_row)
            multiply_matrices(to, out_row, by, a_row, w, blocks, vectors)
            r = count if done == K else 0
            while count - r >= ROWS:
                full(at(to, r * out_row), out_row, at(by, r * a_row + done), a_row, ONE, left, K - done, ADD)
                r += ROWS
            while r < count:
                last(at(to, r * out_row), out_row, at(by, r * a_row + done), a_row, ONE, left, K - done, ADD)
                r += 1
            if count < most:
                begin_rows(most)
        return rows if blocks else 0

    @compiled
    @named(f"blocks_of_integers_{vectors}")
    def of_integers(out, out_row, a, a_row, w, rows, K):
        n, blocks = lanes(out), K // SIDE
        done = blocks * SIDE
        sums = room(w, vectors)
        most = rows_at_once(rows)
        for first in range(0, rows if blocks else 0, most):
            count = _next_rows(rows, first, most)
            to, by = at(out, first * out_row), at(a, first * a_row)
            multiply_matrices(sums, vectors * n, by, a_row, w, blocks, vectors)
            r = 0
            while count - r >= ROWS:
                some = at(sums, r * vectors * n)
                rest(at(to, r * out_row), out_row, at(by, r * a_row), a_row, w, done, K, some)
                r += ROWS
            while r < count:
                some = at(sums, r * vectors * n)
                rest_of_one(at(to, r * out_row), out_row, at(by, r * a_row), a_row, w, done, K, some)
                r += 1
            if count < most:
                begin_rows(most)
        return rows if blocks else 0

    return {PAIRS: of_numbers, QUADS: of_integers}


def in_blocks(out, out_row, a, a_row, w, rows, K, vectors):
    """Do the rows up to sixteen at once where that can be, and return how many: none in full precision."""


@overload(in_blocks, jit_options=INLINE, prefer_literal=True)
def _in_blocks(out, out_row, a, a_row, w, rows, K, vectors):
    if w.dtype not in KINDS:
        return lambda out, out_row, a, a_row, w, rows, K, vectors: 0
    blocks = _blocks[vectors.literal_value][w.dtype]
    return lambda out, out_row, a, a_row, w, rows, K, vectors: blocks(out, out_row, a, a_row, w, rows, K)


_blocks: dict = {}  # by how many vectors, and by kind


def _make_panel(vectors):
    full, last = _make_tile(ROWS, vectors), _make_tile(1, vectors)
    five, four, three, two = (_make_tile(rows, vectors) for rows in (5, 4, 3, 2))
    _blocks[vectors] = _make_blocks(vectors, full, last)

    @compiled
    @named(f"panel_{vectors}")
    def panel(out, out_row, a, a_row, a_k, a_tile, w, rows, K, how):
        done = in_blocks(out, out_row, a, a_row, w, rows, K, vectors)
        out, a, left = at(out, done * out_row), at(a, done * a_row), rows - done
        # 9 rows are 5 and 4 rather than 8 and 1, unless `a` is packed in tiles of ROWS.
        fewest = ROWS + 3 if ROWS > 5 and a_tile == ROWS * a_row else ROWS
        while left == ROWS or left >= fewest:
            for ahead in range(ROWS, min(2 * ROWS, left)):
                for v in range(vectors):
                    prefetch(out, ahead * out_row + v * lanes(out))
            full(out, out_row, a, a_row, a_k, w, K, how)
            out, a = at(out, ROWS * out_row), at(a, a_tile)
            left -= ROWS
        while ROWS > 5 and left in (5, 9, 10):
            five(out, out_row, a, a_row, a_k, w, K, how)
            out, a = at(out, 5 * out_row), at(a, 5 * a_row)
            left -= 5
        if ROWS > 4 and left in (4, 7):
            four(out, out_row, a, a_row, a_k, w, K, how)
            out, a = at(out, 4 * out_row), at(a, 4 * a_row)
            left -= 4
        while left >= 3:
            three(out, out_row, a, a_row, a_k, w, K, how)
            out, a = at(out, 3 * out_row), at(a, 3 * a_row)
            left -= 3
        if left == 2:
            two(out, out_row, a, a_row, a_k, w, K, how)
        if left == 1:
            last(out, out_row, a, a_row, a_k, w, K, how)

    return panel


_panel1, _panel2, _panel3 = (_make_panel(vectors) for vectors in (1, 2, 3))
_row1, _row2, _row3 = (_make_row(vectors) for vectors in (1, 2, 3))


@compiled
def _multiply_tiles(out, out_row, a, a_row, a_k, a_tile, w, rows, K, columns, first_panel, last_panel, how, turn):
    n = lanes(out)
    for i in range(last_panel - first_panel):
        panel = first_panel + i if turn % 2 == 0 else last_panel - 1 - i
        start = panel_start(panel, columns, n)
        width = panel_start(panel + 1, columns, n) - start
        to, packed = at(out, start * n), at(w, start * n * (K + behind(w)))
        if width == 3:
            _panel3(to, out_row, a, a_row, a_k, a_tile, packed, rows, K, how)
        elif width == 2:
            _panel2(to, out_row, a, a_row, a_k, a_tile, packed, rows, K, how)
        else:
            _panel1(to, out_row, a, a_row, a_k, a_tile, packed, rows, K, how)


@inlined
def _multiply_row(out, a, w, K, columns, first_panel, last_panel, turn):
    n = lanes(out)
    for i in range(last_panel - first_panel):
        panel = first_panel + i if turn % 2 == 0 else last_panel - 1 - i
        start = panel_start(panel, columns, n)
        width = panel_start(panel + 1, columns, n) - start
        to, packed = at(out, start * n), at(w, start * n * (K + behind(w)))
        if width == 3:
            _row3(to, a, packed, K)
        elif width == 2:
            _row2(to, a, packed, K)
        else:
            _row1(to, a, packed, K)


@compiled
def multiply(
    out, out_apart, out_row, a, a_apart, a_row, w, gates, rows, K, columns, first_panel, last_panel, turn, all_rows
):
    """Add a w to `out` for each gate, in the columns of the panels from `first_panel` up to `last_panel`.

    out[g out_apart + r out_row + c] += sum over k of a[g a_apart + r a_row + k] w[g, k, c], where each gate's w is
    packed and has K rows (of units, below float32) and `columns` columns. The rows of `out` are padded to whole
    vectors, which are written. At an odd `turn` gates and panels are taken from the last to the first: if the same w
    was just read, and is too large for the cache, its end is still there.

    Every sum is made in the order of k, so that it is the same to the bit however the rows are cut into tiles and
    shared by threads; but for a row that is the only one of `all_rows`, which is summed in an order of its own.
    """
    size = packed_size(K + behind(w), columns, lanes(w))
    alone = rows == 1 and all_rows == 1 and not takes_one_row(w, K)
    if not alone:
        begin_matrices(w, rows)
    for i in range(gates):
        g = i if turn % 2 == 0 else gates - 1 - i
        to, by, packed = at(out, g * out_apart), at(a, g * a_apart), at(w, g * size)
        if alone:  # compiled in: a call takes as long as a small row
            _multiply_row(to, by, packed, K, columns, first_panel, last_panel, turn)
        else:
            _multiply_tiles(
                to, out_row, by, a_row, ONE, ROWS * a_row, packed, rows, K, columns, first_panel, last_panel, ADD, turn
            )


@compiled
def multiply_transposed(out, out_row, a, w, rows, K, columns, first_panel, last_panel, how):
    """Do the same for one `a` that `pack_tiles` has transposed; `how` is ADD, or REPLACE for whatever is in `out`."""
    _multiply_tiles(out, out_row, a, ONE, TILE, K * TILE, w, rows, K, columns, first_panel, last_panel, how, ZERO)


@compiled
def pack_tiles(packed, source, row, K, columns):
    """Pack the transpose of the matrix whose row k starts at source[k row]: ROWS columns after ROWS columns.

    As it lies, a tile would take each of its k from another page.
    """
    for first in range(0, columns, ROWS):
        count = min(TILE, columns - first)
        for k in range(K):
            p, q = at(source, k * row + first), at(packed, first * K + k * ROWS)
            for c in range(0, count, lanes(p)):
                put(q, c, get(p, c, count), count)


@inlined
def get(p, column, columns):
    """Return the vector at p[column] of a row of so many columns, with zeros behind the row's end."""
    if column + lanes(p) <= columns:
        return load(p, column)
    return load_first(p, column, columns - column)


@inlined
def put(p, column, vector, columns):
    """Write the vector to p[column], but nothing behind the end of a row of so many columns."""
    if column + lanes(p) <= columns:
        store(p, column, vector)
    else:
        store_first(p, column, vector, columns - column)


@compiled
def copy_rows(to, to_row, source, row, rows, first, last):
    """Copy the columns from `first` to `last` of each row into a padded buffer, filled up with zeros."""
    for r in range(rows):
        p, q = at(source, r * row), at(to, r * to_row)
        for c in range(first, last, lanes(p)):
            store(q, c, get(p, c, last))


@compiled
def add_rows(to, to_row, source, row, rows, first, last):
    """Add the columns from `first` to `last` of each row to those of a padded buffer."""
    for r in range(rows):
        p, q = at(source, r * row), at(to, r * to_row)
        for c in range(first, last, lanes(p)):
            store(q, c, load(q, c) + get(p, c, last))


@compiled
def write_rows(to, to_row, source, row, rows, first, last, columns):
    """Copy the columns from `first` to `last` of each row of a padded buffer to rows of so many columns and no more."""
    for r in range(rows):
        p, q = at(source, r * row), at(to, r * to_row)
        for c in range(first, last, lanes(p)):
            put(q, c, load(p, c), columns)


@compiled
def fill_zero(p, size):
    """Write zeros to so many elements, whole vectors."""
    for c in range(0, size, lanes(p)):
        store(p, c, full(load(p, c), 0.0))


@compiled
def fill_rows_zero(p, row, rows, first, last):
    """Write zeros to the columns from `first` to `last` of each row."""
    for r in range(rows):
        fill_zero(at(p, r * row + first), last - first)


@compiled
def add_packed_row(to, packed, k, K, columns, first_panel, last_panel):
    """Add row k of the matrix that panels hold, in K rows (of units, below float32), to a padded row."""
    n, rows = lanes(to), K + behind(packed)
    for panel in range(first_panel, last_panel):
        start = panel_start(panel, columns, n)
        width = panel_start(panel + 1, columns, n) - start
        first = at(packed, start * rows * n)
        for v in range(width):
            c = (start + v) * n
            before = load(to, c)
            store(to, c, before + unpacked(first, k, K, width, v, before))
