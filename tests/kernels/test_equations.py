"""Kernels of cells from their equations: those of the gallery, each against its reference."""

import pickle

import numpy as np
import pytest

import kernels.core.walks.recurrence as recurrence
from kernels import stack
from kernels.equations import kernels_of
from reference import stack as reference_stack
from reference.cells import find, names
from reference.equations import cell, sigmoid, tanh
from tests.kernels.compare import DTYPES, Size, assert_close, assert_equal, check_forward, draw, rebuild

WITHOUT = ("layer_norm_lstm",)  # kernels
FEW = ("mgu", "peephole_lstm", "rg_lru")  # a middle; vectors and a memory; no w
SIZES = (Size(1, 1, 1, 1), Size(17, 3, 7, 5), Size(65, 40, 4, 33), Size(63, 3, 5, 2))


def cells(*few):
    slow = [pytest.param(name, marks=pytest.mark.slow) for name in names() if name not in (*few, *WITHOUT)]
    return pytest.mark.parametrize("name", [*few, *slow])


def check_train(kernels, reference, size, dtype, truncate):
    """Check `forward` and `bptt` together, since each keeps in its trace what it likes best."""
    inputs = draw(kernels, size, dtype)

    def train(one, inputs):
        trace = one.forward(inputs.params, inputs.x, inputs.state)
        return one.bptt(inputs.params, trace, inputs.grad_hs, inputs.grad_state, truncate)

    n = size.H + size.I + 1 + size.T * size.B
    assert_close(train(kernels, inputs), reference, inputs, train, n)


@cells(*FEW)
@pytest.mark.parametrize("dtype", [np.float32, pytest.param(np.float64, marks=pytest.mark.slow)])
def test_gallery(name, dtype):
    reference = find(name)
    kernels = kernels_of(reference)
    for size in SIZES:
        check_forward(kernels, reference, size, dtype)
        for truncate in (None, 2):
            check_train(kernels, reference, size, dtype, truncate)


@cells("mgu")
def test_a_stream_and_one_call_after_another_are_the_same_to_the_bit(name):
    kernels = kernels_of(find(name))
    params, x, state, *_ = draw(kernels, Size(17, 3, 6, 2), np.float32)
    stream = kernels.stream(params, 2)
    assert_equal(stream.state, kernels.init_state(params, 2))
    stream.state = state
    for x_t in x:
        state = kernels.forward_step(params, x_t, state)
        assert_equal(stream.step(x_t), state[0])
        assert_equal(stream.state, state)
    again = pickle.loads(pickle.dumps(stream))
    assert_equal(again.step(x[0]), stream.step(x[0]))
    stream.reset()
    assert_equal(stream.state, kernels.init_state(params, 2))


@cells("peephole_lstm")
def test_networks(name):
    """Layers, directions and lengths of any cell, as `reference.stack` has them."""
    reference = find(name)
    kernels = kernels_of(reference)
    rng = np.random.default_rng(0)
    params = stack.init_params(kernels, 3, 17, 2, bidirectional=True, rng=rng)
    x = rng.standard_normal((6, 4, 3), dtype=np.float32)
    lengths = np.array([6, 2, 5, 1])
    trace = stack.forward(kernels, params, x, lengths=lengths)
    ref = reference_stack.forward(
        reference, rebuild(params, reference, lambda a: a.astype(np.float64)), x, lengths=lengths
    )
    np.testing.assert_allclose(trace.hs, ref.hs, atol=2e-6)
    comp = stack.bptt(kernels, params, trace, trace.hs)
    back = reference_stack.bptt(reference, rebuild(params, reference, lambda a: a.astype(np.float64)), ref, ref.hs)
    np.testing.assert_allclose(comp.x, back.x, atol=2e-5)
    for ours, theirs in zip(comp.params, back.params, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            for a, b in zip(one, other, strict=True):
                np.testing.assert_allclose(a, b, atol=2e-5 * max(1, np.abs(b).max()))


@cells("mgu", "rg_lru")
def test_any_number_of_threads_gives_the_same_to_the_bit(name, monkeypatch):
    import numba

    monkeypatch.setattr(recurrence, "WORTH_SHARING", 1)
    kernels = kernels_of(find(name))
    for size in (Size(65, 3, 9, 2), Size(48, 5, 9, 16)):
        params, x, state, grad_hs, grad_state = draw(kernels, size, np.float32)

        def run(threads, params=params, x=x, state=state, grads=(grad_hs, grad_state)):
            numba.set_num_threads(threads)
            try:
                trace = kernels.forward(params, x, state)
                found = [kernels.bptt(params, trace, *grads, truncate) for truncate in (None, 2)]
                return trace.hs, trace.state, found[0].params, found[0].state, found[1].params
            finally:
                numba.set_num_threads(numba.config.NUMBA_NUM_THREADS)

        assert_equal(run(2), run(1))


def test_a_cell_of_ones_own_and_what_is_none():
    @cell(gates="f n", states="h c", vectors="p")
    def own(u, w, v, h, c):
        f = sigmoid(u.f + w.f(c) + v.p)
        n = tanh(u.n + w.n(f * h))
        return f * n, h + f * (n - c)

    kernels = kernels_of(own)
    check_forward(kernels, own, Size(17, 3, 5, 3), np.float32)
    check_train(kernels, own, Size(17, 3, 5, 3), np.float32, None)
    with pytest.raises(TypeError, match=r"cell: expected a cell from reference\.equations, got dict"):
        kernels_of({})
    with pytest.raises(ValueError, match="weights prepared for"):
        kernels.infer(
            kernels_of(find("mgu")).prepare(kernels_of(find("mgu")).init_params(3, 17, np.random.default_rng(0))),
            np.zeros((5, 3, 3), np.float32),
        )
    with pytest.raises(NotImplementedError, match="layer_norm has no kernel yet"):
        kernels_of(find("layer_norm_lstm"))


def test_what_is_no_number_goes_where_numpy_has_it_go():
    reference = find("peephole_lstm")
    kernels = kernels_of(reference)
    params, x, state, *_ = draw(kernels, Size(17, 3, 6, 5), np.float32)
    x[1, 0], x[2, 1, 0], x[3, 2] = np.nan, np.inf, 1e30
    comp, ref = kernels.infer(params, x, state), reference.infer(params, x, state)
    np.testing.assert_allclose(comp.hs, ref.hs, atol=1e-5)
    assert np.isnan(comp.hs[1:, 0]).all()
    assert DTYPES
