"""`kernels.jit`: the reference's own source, compiled.

Every further type of an argument takes seconds to compile, so there are few: float32, and always a state. As a rung,
`tests/bench/test_implementations.py` tries the others.
"""

from importlib import import_module

import numpy as np
import pytest

from kernels import jit
from tests.kernels.compare import Backward, Size, assert_close, draw

SIZES = [Size(1, 1, 1, 1), Size(7, 1, 13, 1), Size(17, 3, 5, 2), Size(63, 40, 1, 5), Size(65, 3, 13, 33)]
WHOLE = 100  # as a window: longer than any sequence here, so that bptt is the full one


def check(cell, reference, size, inputs, options):
    """Check forward and bptt of a compiled cell against its source, full and truncated."""
    n = size.H + size.I + 1

    def forward(cell, inputs):
        return cell.forward(inputs.params, inputs.x, inputs.state, *options)

    trace = forward(cell, inputs)
    assert_close(trace, reference, inputs, forward, n)
    backward = Backward(inputs.params, trace, inputs.grad_hs, inputs.grad_state)
    for truncate in (WHOLE, 0, 3):

        def bptt(cell, inputs, truncate=truncate):
            return cell.bptt(*inputs, truncate, *options)

        assert_close(bptt(cell, backward), reference, backward, bptt, n + size.T * size.B)


# Each takes most of a minute to compile; the benchmarks' own gate tries them all (tests/bench/test_implementations.py).
@pytest.mark.parametrize("name", ["rnn", "gru", pytest.param("lstm", marks=pytest.mark.slow)])
def test_equals_the_reference(name):
    reference, compiled = import_module(f"reference.{name}"), getattr(jit, name)
    for size in SIZES:
        inputs = draw(compiled, size, np.float32)
        for options in (("tanh",), ("relu",), ("sigmoid",)) if name == "rnn" else ((),):
            check(compiled, reference, size, inputs, options)


def test_indices_are_one_hot_input():
    size = Size(17, 3, 5, 2)
    params, _, state, grad_hs, grad_state = draw(jit.rnn, size, np.float32)
    x = np.random.default_rng(0).integers(0, size.I, (size.T, size.B))
    ones = np.eye(size.I, dtype=np.float32)[x]
    trace, dense = (jit.rnn.forward(params, inputs, state, "tanh") for inputs in (x, ones))
    np.testing.assert_array_equal(trace.hs, dense.hs)

    comp, ref = (jit.rnn.bptt(params, t, grad_hs, grad_state, WHOLE, "tanh") for t in (trace, dense))
    assert comp.x is None
    # Products with 0 and 1 round nothing, so U's gradients differ by the order of T B additions of nearby numbers.
    terms = np.einsum("tb,tbi->i", np.ones((size.T, size.B)), ones).max()
    error = 2 * terms * np.finfo(np.float32).eps * np.abs(ref.params.U).max()
    np.testing.assert_allclose(comp.params.U, ref.params.U, rtol=0, atol=error)
    np.testing.assert_array_equal(comp.params.W, ref.params.W)


@pytest.mark.parametrize("name", ["init_state", "prepare", "forward_step", "forward", "infer", "bptt"])
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_the_source_is_the_references(cell, name):
    source = getattr(import_module(f"reference.{cell}"), name)
    assert getattr(getattr(jit, cell), name).py_func.__code__ is source.__code__


def test_errors_are_the_references():
    params, x, state, grad_hs, grad_state = draw(jit.rnn, Size(17, 3, 5, 2), np.float32)
    trace = jit.rnn.forward(params, x, state, "tanh")
    with pytest.raises(ValueError, match=r"^activation: expected"):
        jit.rnn.forward(params, x, state, "gelu")
    with pytest.raises(ValueError, match=r"^truncate: expected"):
        jit.rnn.bptt(params, trace, grad_hs, grad_state, -1, "tanh")
