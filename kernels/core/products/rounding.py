"""Weights below float32, rounded as `reference.quantized` defines it, and packed into units of 32 bits."""

from typing import NamedTuple

import numpy as np

from kernels.core.vectors.dots import BEHIND, LEAST, OFFSET, PAIRS, QUADS, TOGETHER


class Kind(NamedTuple):
    """What prepared weights of a dtype are."""

    dtype: np.dtype  # of x, the states and the biases
    together: int  # numbers in an element: more than one below float32
    behind: int  # rows behind those of a panel


FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
UNITS = {"int8": np.dtype(np.int32), "bfloat16": np.dtype(np.uint32)}
KINDS = {
    FLOAT32: Kind(FLOAT32, 1, 0),
    FLOAT64: Kind(FLOAT64, 1, 0),
    UNITS["int8"]: Kind(FLOAT32, TOGETHER[QUADS], BEHIND[QUADS]),
    UNITS["bfloat16"]: Kind(FLOAT32, TOGETHER[PAIRS], 0),
}


def panel_rows(K, dtype):
    """Return how many rows a panel of K rows of numbers has as prepared weights of this dtype."""
    kind = KINDS[dtype]
    return -(-K // kind.together) + kind.behind


def packed_units(name, a, dtype):
    """Return the weights a (rows, K) as units (rows, depth), behind them what belongs there; `a` itself for None."""
    if dtype is None:
        return a
    if not isinstance(dtype, str) or dtype not in UNITS:
        raise ValueError(
            f"dtype: expected None, {' or '.join(map(repr, UNITS))}, got {getattr(dtype, '__name__', repr(dtype))}"
        )
    if a.dtype != np.float32:
        raise TypeError(f"{name}: expected dtype float32 to be prepared as {dtype}, got {a.dtype}")
    return _quads(name, a) if dtype == "int8" else _pairs(a)


def _pairs(a):
    bits = a.view(np.uint32)
    nearest = (bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))) >> np.uint32(16)
    halves = np.where(np.isnan(a), bits >> np.uint32(16) | np.uint32(0x40), nearest).astype(np.uint16)
    return _filled(halves, 2).view(np.uint32)


def _quads(name, a):
    if not np.isfinite(a).all():
        raise ValueError(f"{name}: expected finite numbers to be prepared as int8, got others")
    largest = np.abs(a).max(axis=1)
    zero = largest < LEAST
    steps = np.where(zero, np.float32(0), np.float32(127) / np.where(zero, np.float32(1), largest))
    scales = np.where(zero, np.float32(0), largest * np.float32(1 / 127))
    integers = np.rint(a * steps[:, np.newaxis]).astype(np.int8)
    corrections = -OFFSET * integers.sum(axis=1, dtype=np.int32)
    behind = np.stack([corrections, scales.view(np.int32)], axis=1)
    return np.ascontiguousarray(np.concatenate([_filled(integers, 4).view(np.int32), behind], axis=1))


def _filled(a, together):
    """Return `a` with zeros up to whole units in each row."""
    return np.ascontiguousarray(np.pad(a, ((0, 0), (0, -a.shape[1] % together))))
