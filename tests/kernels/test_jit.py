"""`kernels.jit`: the reference's own source, compiled."""

import numpy as np
import pytest

from kernels import jit
from reference import rnn as reference
from tests.kernels.compare import DTYPES, Size, check_bptt, check_forward

SIZES = [Size(1, 1, 1, 1), Size(7, 1, 13, 1), Size(17, 3, 5, 2), Size(63, 40, 1, 5), Size(65, 3, 13, 33)]

by_activation = pytest.mark.parametrize("activation", ["tanh", "relu", "sigmoid"])
by_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
by_size = pytest.mark.parametrize("size", SIZES, ids=str)


@by_activation
@by_dtype
@by_size
def test_forward(size, dtype, activation):
    check_forward(jit.rnn, reference, size, dtype, activation)


@by_activation
@by_dtype
@by_size
@pytest.mark.parametrize("truncate", [None, 0, 3])
def test_bptt(truncate, size, dtype, activation):
    check_bptt(jit.rnn, reference, size, dtype, truncate, activation)


@pytest.mark.parametrize("name", ["init_state", "prepare", "forward_step", "forward", "infer", "bptt"])
def test_the_source_is_the_references(name):
    assert getattr(jit.rnn, name).py_func.__code__ is getattr(reference, name).__code__


def test_errors_are_the_references():
    params = jit.rnn.init_params(3, 4, np.random.default_rng(0))
    x = np.zeros((5, 2, 3), np.float32)
    with pytest.raises(ValueError, match=r"^activation: expected"):
        jit.rnn.infer(params, x, None, "gelu")
    with pytest.raises(ValueError, match=r"^truncate: expected"):
        jit.rnn.bptt(params, jit.rnn.forward(params, x), np.zeros((5, 2, 4), np.float32), None, -1)
