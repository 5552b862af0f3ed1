"""The sums of int8 are exact, at every width of vectors: so they are the same to the bit on every host."""

import numpy as np
import pytest

from kernels.core.code.cache import compiled
from kernels.core.products.tiles import ONE, ZERO, multiply, pack_columns, padded, panel_count
from kernels.core.vectors.dots import OFFSET, like
from kernels.core.vectors.simd import align, at, lanes, pointer


@compiled
def product(a, w, out, scratch):
    """Write a w into `out` (rows, columns), from a (rows, 1 + depth) of units and w (columns, depth + 2)."""
    rows, columns = out.shape
    K = w.shape[1]
    packed = align(pointer(scratch))
    n = lanes(packed)
    sums = like(at(packed, K * padded(columns, n)), pointer(out))
    for i in range(rows * padded(columns, n)):
        sums[i] = 0
    pack_columns(packed, pointer(w), K, K, columns, ZERO, panel_count(columns, n))
    first = at(pointer(a), 1)
    multiply(
        sums, ZERO, padded(columns, n), first, ZERO, a.shape[1], packed, ONE, rows, K - 2, columns,
        ZERO, panel_count(columns, n), ZERO, rows,
    )  # fmt: skip
    for r in range(rows):
        for c in range(columns):
            out[r, c] = sums[r * padded(columns, n) + c]


def units(a):
    """Return int8 (rows, K) in units of four, with zeros behind."""
    return np.ascontiguousarray(np.pad(a, ((0, 0), (0, -a.shape[1] % 4)))).view(np.int32)


def sums_of(a, w):
    """Return a wᵀ by the tiles, for a and w (rows, K) of int8."""
    one = np.array([1], np.float32).view(np.int32)[0]
    row = np.full((len(a), 1), one, np.int32)  # the scale before it
    entered = np.ascontiguousarray(
        np.hstack([row, units((a.astype(np.int16) + OFFSET).astype(np.uint8).view(np.int8))])
    )
    corrections = -OFFSET * w.sum(axis=1, dtype=np.int32)
    scales = np.full(len(w), one, np.int32)
    packed = np.ascontiguousarray(np.hstack([units(w), corrections[:, np.newaxis], scales[:, np.newaxis]]))
    out = np.empty((len(a), len(w)), np.float32)
    product(entered, packed, out, np.empty(4 * (packed.size + 64 * len(a)) + 100_000, np.int32))
    return out


@pytest.mark.parametrize("kind", ["random", "largest", "smallest", "opposite"])
@pytest.mark.parametrize(("rows", "K", "columns"), [(1, 1, 1), (1, 70, 100), (2, 7, 33), (3, 64, 48), (9, 1000, 17)])
def test_sums_of_int8_are_exact(rows, K, columns, kind):
    """Also where every product is the largest: a sum of two of them does not fit 16 bits with its sign."""
    rng = np.random.default_rng([rows, K, columns])
    a, w = (rng.integers(-127, 128, (n, K)).astype(np.int8) for n in (rows, columns))
    if kind != "random":
        a[:], w[:] = {"largest": (127, 127), "smallest": (-127, 127), "opposite": (127, -127)}[kind]
    ref = (a.astype(np.int64) @ w.astype(np.int64).T).astype(np.float32)
    np.testing.assert_array_equal(sums_of(a, w), ref)
