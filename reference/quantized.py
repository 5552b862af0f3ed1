"""Weights below float32: what enters a product is rounded, and everything else is the cells' own.

`quantize(params, "int8" or "bfloat16")` returns Params whose U and W are a `Matrix`, for `forward_step` and `infer` of
their cell. x, the state, hs, the biases, the gates and the LSTM's c stay as they are.

bfloat16: U, W, x_t and h_{t-1} are rounded to 8 bits of precision, to nearest even (Kalamkar et al. 2019). Their
products are exact in float32, and so are the sums here. NaN and infinities stay what they are.

int8: the rows of U and W are integers q from -127 to 127, with a scale s for each row (a unit of a gate), w = s q,
where s is the row's largest magnitude over 127 (symmetric, Jacob et al. 2018). h_{t-1} is rounded to steps of 1/127,
and x_t to steps of its own row's largest magnitude over 127, found as it comes. The sums of the products are integers;
each is then multiplied by both scales. A row whose largest magnitude is below 2^-100 counts as zeros. A state beyond
±1, which only a given one or a relu's can be, and a number that is not finite are a ValueError. One-hot inputs are
exact.
"""

import numpy as np

DTYPES = ("bfloat16", "int8")
LEAST = np.float32(2.0**-100)  # a largest magnitude below it counts as zero: its scale would have no precision left


def quantize(params, dtype):
    """Return `params`, any cell's Params, with U and W rounded; a ValueError if that cannot be.

    Those of float64 are rounded to float32 first, and only the sums and what follows them are more precise.
    """
    if dtype not in DTYPES:
        raise ValueError(
            f"dtype: expected {' or '.join(map(repr, DTYPES))}, got {getattr(dtype, '__name__', repr(dtype))}"
        )
    kinds = {"bfloat16": (Bfloat16, Bfloat16), "int8": (InputInt8, StateInt8)}[dtype]
    return params._replace(U=kinds[0](params.U, "params.U"), W=kinds[1](params.W, "params.W"))


class Matrix:
    """A rounded matrix M (rows, columns), of which `a @ M.T` rounds a as well and takes exact sums.

    The result has the dtype of `a`, whose numbers are first rounded to float32 if they are float64: the same numbers
    in float64 give the same result to within its own rounding.
    """

    __array_ufunc__ = None  # so that `a @ M.T` is asked of the matrix, not of the array

    def __init__(self, values, dtype):
        self.values = values  # (rows, columns) float64: what the rounded numbers stand for
        self.shape, self.dtype = values.shape, dtype
        self.T = _Transposed(self)


class _Transposed:
    __array_ufunc__ = None

    def __init__(self, matrix):
        self.matrix = matrix

    def __rmatmul__(self, a):
        return self.matrix.product(a.astype(np.float32)).astype(a.dtype)

    def __getitem__(self, indices):
        """Return the columns of the matrix at these indices, as rows: its product with one-hot inputs."""
        return self.matrix.values.T[indices].astype(self.matrix.dtype)


class Bfloat16(Matrix):
    def __init__(self, values, name):
        super().__init__(round_bfloat16(values).astype(np.float64), values.dtype)

    def product(self, a):
        return round_bfloat16(a).astype(np.float64) @ self.values.T


class _Int8(Matrix):
    def __init__(self, values, name):
        if not np.isfinite(values).all():
            raise ValueError(f"{name}: expected finite numbers for int8, got others")
        self.integers, self.scales = quantize_rows(values.astype(np.float32))
        super().__init__(self.integers * self.scales[:, np.newaxis].astype(np.float64), values.dtype)

    def sums(self, integers):
        """Return the integer sums of products (N, rows), as float64, which holds them exactly."""
        return integers.astype(np.float64) @ self.integers.T.astype(np.float64)


class InputInt8(_Int8):
    """U: each row of its inputs has a scale of its own."""

    def product(self, x):
        if not np.isfinite(x).all():
            raise ValueError("x: expected finite numbers for int8, got others")
        integers, scales = quantize_rows(x)
        return self.sums(integers) * (self.scales * scales[:, np.newaxis].astype(np.float64))


class StateInt8(_Int8):
    """W: states lie within ±1 and are rounded to steps of 1/127."""

    def product(self, h):
        if not (np.abs(h) <= 1).all():
            raise ValueError("state: expected values from -1 to 1 for int8, got others")
        return self.sums(np.rint(h * np.float32(127))) * (self.scales * np.float64(STATE_SCALE))


STATE_SCALE = np.float32(1 / 127)


def quantize_rows(values):
    """Return the integers (N, columns), from -127 to 127, and the scales (N,) of each row of `values`, all float32.

    Every operation is one of float32: that is the definition, for whoever wants the same integers.
    """
    largest = np.abs(values).max(axis=1)
    zero = largest < LEAST
    largest = np.where(zero, np.float32(1), largest)
    steps = np.where(zero, np.float32(0), np.float32(127) / largest)
    scales = np.where(zero, np.float32(0), largest * STATE_SCALE)
    return np.rint(values * steps[:, np.newaxis]), scales


def round_bfloat16(values):
    """Return float32 values rounded to nearest even in bfloat16, as float32; NaN stays NaN."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) & np.uint32(0xFFFF0000)
    return np.where(np.isnan(values), values, rounded.view(np.float32)).astype(np.float32)
