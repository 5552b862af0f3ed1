from collections import namedtuple
from typing import NamedTuple

import numpy as np
import pytest

from kernels.core.doors.checks import check_array, check_fields, check_float, check_size, check_truncate

F32 = np.dtype(np.float32)


def test_check_array_takes_what_fits():
    a = np.zeros((3, 4), np.float32)
    check_array("a", a, (3, 4), F32)
    check_array("a", a, ("N", 4), F32)
    check_array("a", a, ("N", "M"), F32)
    check_array("a", np.zeros((1, 1)), (1, "M"), np.dtype(np.float64))


@pytest.mark.parametrize(
    ("a", "error", "message"),
    [
        ([1.0], TypeError, "a: expected a numpy.ndarray, got list"),
        (np.zeros(4), TypeError, "a: expected dtype float32, got float64"),
        (np.zeros(4, ">f4"), TypeError, "a: expected dtype float32, got >f4"),
        (np.zeros((4, 2), F32), ValueError, r"a: expected shape \(N, 4\), got \(4, 2\)"),
        (np.zeros(4, F32), ValueError, r"a: expected shape \(N, 4\), got \(4,\)"),
        (np.zeros((0, 4), F32), ValueError, r"a: expected shape \(N, 4\), got \(0, 4\) \(no size may be 0\)"),
        (np.zeros((2, 8), F32)[:, ::2], ValueError, r"a: expected a C-contiguous array .*, got strides \(32, 8\)"),
        (np.zeros(33, np.uint8)[1:].view(F32).reshape(2, 4), ValueError, "a: expected an aligned array .*, got .*0x"),
    ],
)
def test_check_array_says_what_is_wrong(a, error, message):
    with pytest.raises(error, match=rf"\A{message}"):
        check_array("a", a, ("N", 4), F32)


def test_check_array_writes_a_vector_as_numpy_does():
    with pytest.raises(ValueError, match=r"\Ab: expected shape \(3,\), got \(4,\)\Z"):
        check_array("b", np.zeros(4, F32), (3,), F32)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_check_float_takes_both_floats(dtype):
    check_float("a", np.zeros(1, dtype))


@pytest.mark.parametrize("a", [None, 1.0, [1.0], np.float32(1), np.zeros(1, int), np.zeros(1, ">f8")], ids=repr)
def test_check_float_refuses_the_rest(a):
    with pytest.raises(TypeError, match=r"\Aa: expected .*, got "):
        check_float("a", a)


@pytest.mark.parametrize("n", [1, 7, np.int64(3), np.uint8(1)])
def test_check_size_takes_integers_from_1(n):
    check_size("n", n)


@pytest.mark.parametrize(
    ("n", "error"), [(0, ValueError), (-1, ValueError), (True, TypeError), (1.0, TypeError), ("1", TypeError)]
)
def test_check_size_refuses_the_rest(n, error):
    with pytest.raises(error, match=r"\An: expected an integer >= 1, got "):
        check_size("n", n)


@pytest.mark.parametrize("k", [None, 0, 1, np.int32(5)])
def test_check_truncate_takes_none_and_integers_from_0(k):
    check_truncate(k)


@pytest.mark.parametrize(("k", "error"), [(-1, ValueError), (False, TypeError), (0.0, TypeError)])
def test_check_truncate_refuses_the_rest(k, error):
    with pytest.raises(error, match=r"\Atruncate: expected None or an integer >= 0, got "):
        check_truncate(k)


class Pair(NamedTuple):
    a: float
    b: float


def test_check_fields_goes_by_the_names():
    check_fields("pair", Pair(1, 2), Pair)
    check_fields("pair", namedtuple("Other", "a b")(1, 2), Pair)
    for value, given in ((None, "NoneType"), ((1, 2), "tuple"), (namedtuple("Other", "b a")(1, 2), "Other")):
        with pytest.raises(TypeError, match=rf"\Apair: expected Pair, got {given}\Z"):
            check_fields("pair", value, Pair)
