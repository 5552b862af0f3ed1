"""The vector tanh and sigmoid: at most 2 ulp from the true value, in both precisions, and right at the edges."""

import mpmath
import numpy as np
import pytest
from numba import njit

from kernels.core.vectors import activations
from kernels.core.vectors.simd import lanes, load, pointer, store

mpmath.mp.dps = 40


def _over_arrays(function):
    @njit
    def run(x, y):
        source, to = pointer(x), pointer(y)
        for i in range(0, x.size, lanes(source)):
            store(to, i, function(load(source, i)))

    def apply(x):
        whole = np.concatenate((x, np.zeros(-x.size % 16, x.dtype)))
        y = np.full_like(whole, np.nan)
        run(whole, y)
        return y[: x.size]

    return apply


TANH, SIGMOID, RELU = (_over_arrays(f) for f in (activations.tanh, activations.sigmoid, activations.relu))


def _sigmoid(x):
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, e) / (1 + e)


CURVES = pytest.mark.parametrize(
    ("comp", "ref", "exact"),
    [
        pytest.param(TANH, np.tanh, mpmath.tanh, id="tanh"),
        pytest.param(SIGMOID, _sigmoid, lambda x: 1 / (1 + mpmath.exp(-x)), id="sigmoid"),
    ],
)


def _worst_single(comp, ref, bits):
    """Return the largest error in ulp over the finite numbers of these bit patterns; float64 stands for the truth."""
    x = bits.astype(np.uint32).view(np.float32)
    x = x[np.isfinite(x)]
    if not x.size:
        return 0.0
    true = ref(x.astype(np.float64))
    return (np.abs(comp(x) - true) / np.spacing(np.abs(true).astype(np.float32))).max()


@CURVES
def test_single_is_within_2_ulp(comp, ref, exact):
    assert _worst_single(comp, ref, np.arange(0, 2**32, 997, dtype=np.uint64)) <= 2


@pytest.mark.slow
@CURVES
def test_every_finite_single_is_within_2_ulp(comp, ref, exact):
    """Every one from 2^-30 to 2^7; beyond, where both are a constant or x itself, one of 97."""
    step = 2**23  # those of one exponent
    for start in range(0, 2**32, step):
        exponent = (start // step) % 256 - 127
        bits = np.arange(start, start + step, 1 if -30 <= exponent < 7 else 97, dtype=np.uint64)
        assert _worst_single(comp, ref, bits) <= 2, hex(start)


@CURVES
def test_double_is_within_2_ulp(comp, ref, exact):
    rng = np.random.default_rng(0)
    x = np.concatenate(
        [
            rng.uniform(-20, 20, 2000),
            rng.uniform(-1, 1, 2000),
            0.55 + rng.uniform(-1e-3, 1e-3, 500),  # where tanh goes from one formula to the other
            10.0 ** rng.uniform(-300, 0, 500) * rng.choice([-1, 1], 500),
            rng.uniform(-745, 0, 500),
        ]
    )
    for a, b in zip(x, comp(x), strict=True):
        true = exact(mpmath.mpf(float(a)))
        assert abs(mpmath.mpf(float(b)) - true) <= 2 * np.spacing(abs(float(true))), f"at {a!r}"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_edges(dtype):
    tiny = np.finfo(dtype).smallest_subnormal
    x = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, tiny, -tiny, 1000, -1000], dtype)
    comp = TANH(x)
    np.testing.assert_array_equal(comp, np.array([0, -0.0, 1, -1, np.nan, tiny, -tiny, 1, -1], dtype))
    np.testing.assert_array_equal(np.signbit(comp[:2]), [False, True])
    np.testing.assert_array_equal(SIGMOID(x), np.array([0.5, 0.5, 1, 0, np.nan, 0.5, 0.5, 1, 0], dtype))
    np.testing.assert_array_equal(RELU(x), np.maximum(x, 0))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_nan_keeps_being_one_whatever_its_bits(dtype):
    bits = np.uint32 if dtype is np.float32 else np.uint64
    payloads = np.arange(1, 65, dtype=bits) | np.array(np.inf, dtype).view(bits)
    x = payloads.view(dtype)
    assert np.isnan(x).all()
    for function in (TANH, SIGMOID, RELU):
        assert np.isnan(function(x)).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_tanh_is_odd(dtype):
    x = np.random.default_rng(1).uniform(-12, 12, 10_000).astype(dtype)
    np.testing.assert_array_equal(TANH(-x), -TANH(x))
