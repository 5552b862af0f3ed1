"""The kernels of every cell against its reference, and one way of calling them against another.

Sizes sit where vectors, tiles and threads have their edges.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kernels.lstm
import reference.lstm
from tests.kernels.cells import ALL_SIZES, SMALL, by_case, by_cell, by_dtype, by_edge, by_variant, label
from tests.kernels.compare import (
    DTYPES,
    Size,
    assert_same,
    calls,
    check_bptt,
    check_forward,
    draw,
    named,
)

# --- against the reference ---------------------------------------------------------------------------------------


@by_case
def test_forward(cell, size, dtype, options):
    check_forward(cell.kernels, cell.reference, size, dtype, *options)


@by_case
def test_bptt(cell, size, dtype, options):
    check_bptt(cell.kernels, cell.reference, size, dtype, None, *options)


@by_case
def test_bptt_truncated(cell, size, dtype, options):
    check_bptt(cell.kernels, cell.reference, size, dtype, size.T // 3, *options)


@pytest.mark.slow
@by_variant
@by_dtype
@pytest.mark.parametrize("size", ALL_SIZES, ids=label)
def test_all_sizes(size, dtype, cell, options):
    check_forward(cell.kernels, cell.reference, size, dtype, *options)
    for truncate in (None, 0, 1, 5):
        check_bptt(cell.kernels, cell.reference, size, dtype, truncate, *options)


@pytest.mark.slow
@by_cell
@by_dtype
@pytest.mark.parametrize("size", [Size(256, 256, 20, 64), Size(512, 1, 50, 1), Size(33, 2, 9, 1000)], ids=label)
def test_large(size, dtype, cell):
    check_forward(cell.kernels, cell.reference, size, dtype)
    check_bptt(cell.kernels, cell.reference, size, dtype, None)


sizes = st.builds(Size, H=st.integers(1, 140), I=st.integers(1, 70), T=st.integers(1, 20), B=st.integers(1, 70))


def check_any(cell, data, size, dtype, truncate):
    options = data.draw(st.sampled_from(cell.options))
    check_forward(cell.kernels, cell.reference, size, dtype, *options)
    check_bptt(cell.kernels, cell.reference, size, dtype, truncate, *options)


any_case = given(st.data(), sizes, st.sampled_from(DTYPES), st.none() | st.integers(0, 25))


@by_cell
@settings(max_examples=25, deadline=None)
@any_case
def test_any_size(cell, data, size, dtype, truncate):
    check_any(cell, data, size, dtype, truncate)


def test_an_almost_closed_gate():
    """With these weights the LSTM's i is 3e-5."""
    check_forward(kernels.lstm, reference.lstm, Size(1, 60, 1, 1), np.float64)


@pytest.mark.slow
@by_cell
@settings(max_examples=300, deadline=None)
@any_case
def test_any_size_at_length(cell, data, size, dtype, truncate):
    check_any(cell, data, size, dtype, truncate)


@by_cell
@by_dtype
@pytest.mark.parametrize("truncate", [4, 5, np.int64(1000)])
def test_a_window_over_all_steps_is_full_bptt(truncate, dtype, cell):
    inputs = draw(cell.kernels, SMALL, dtype)
    trace = cell.kernels.forward(*inputs[:3])
    full = named(cell.kernels.bptt(inputs.params, trace, *inputs[3:]))
    for name, comp in named(cell.kernels.bptt(inputs.params, trace, *inputs[3:], truncate)).items():
        np.testing.assert_array_equal(comp, full[name], err_msg=name)


@by_cell
@by_dtype
def test_init_params_are_those_of_the_reference(dtype, cell):
    comp = cell.kernels.init_params(3, 17, np.random.default_rng(5), dtype)
    ref = cell.reference.init_params(3, 17, np.random.default_rng(5), dtype)
    for name, a in named(comp).items():
        np.testing.assert_array_equal(a, named(ref)[name], err_msg=name)
        assert a.dtype == dtype
    for weights in (comp, cell.kernels.prepare(comp)):
        for name, a in named(cell.kernels.init_state(weights, 4)).items():
            assert a.shape == (4, 17), name
            assert a.dtype == dtype, name
            assert not a.any(), name


# --- one way of calling against another --------------------------------------------------------------------------


def state_after(cell, trace, t):
    """Return the state after step t, of which a trace has every part: h in hs, c in cs."""
    return cell.State(*(getattr(trace, field + "s")[t] for field in cell.State._fields))


def assert_equal(comp, ref):
    for name, a in named(ref).items():
        np.testing.assert_array_equal(named(comp)[name], a, err_msg=name)


@by_variant
@by_dtype
@by_edge
def test_infer_and_steps_are_forward(size, dtype, cell, options):
    kernels = cell.kernels
    params, x, state, *_ = draw(kernels, size, dtype)
    trace = kernels.forward(params, x, state, *options)
    assert_equal(trace.state, state_after(kernels, trace, -1))
    assert_equal(trace.initial, state)
    np.testing.assert_array_equal(trace.x, x)

    assert_same(kernels.infer(params, x, state, *options), kernels.Output(trace.hs, trace.state), size)
    for t in range(size.T):
        state = kernels.forward_step(params, x[t], state, *options)
        assert_same(state, state_after(kernels, trace, t), size)


@by_cell
@by_dtype
@by_edge
def test_prepared_params_give_the_same(size, dtype, cell):
    by_name = calls(cell.kernels, draw(cell.kernels, size, dtype))
    for name in ("forward_step", "infer", "forward"):
        assert_equal(by_name[name + " prepared"](), by_name[name]())


@by_cell
@by_dtype
@by_edge
def test_prepared_params_are_a_snapshot(size, dtype, cell):
    """`prepare` lays out a copy, so weights that change later do not show, whatever the layout."""
    inputs = draw(cell.kernels, size, dtype)
    before = cell.kernels.infer(inputs.params, inputs.x)
    prepared = cell.kernels.prepare(inputs.params)
    for a in inputs.params:
        a[...] = 0
    assert_equal(cell.kernels.infer(prepared, inputs.x), before)


@by_cell
@by_dtype
@pytest.mark.parametrize(
    "size",
    [SMALL, Size(65, 40, 4, 33), Size(100, 1, 9, 1), pytest.param(Size(3, 1, 100_000, 1), marks=pytest.mark.slow)],
    ids=label,
)
def test_two_chunks_are_one_sequence(size, dtype, cell):
    kernels, cut = cell.kernels, size.T // 2
    params, x, state, grad_hs, grad_state = draw(kernels, size, dtype)
    whole = kernels.forward(params, x, state)
    head = kernels.forward(params, x[:cut].copy(), state)
    tail = kernels.forward(params, x[cut:].copy(), head.state)
    hs = np.concatenate((head.hs, tail.hs))
    assert_same(kernels.Output(hs, tail.state), kernels.Output(whole.hs, whole.state), size)

    later = kernels.bptt(params, tail, grad_hs[cut:].copy(), grad_state)
    earlier = kernels.bptt(params, head, grad_hs[:cut].copy(), later.state)
    both = kernels.Params(*(a + b for a, b in zip(earlier.params, later.params, strict=True)))
    comp = kernels.Gradients(both, np.concatenate((earlier.x, later.x)), earlier.state)
    assert_same(comp, kernels.bptt(params, whole, grad_hs, grad_state), size)


@by_cell
def test_the_references_own_tuples_are_taken(cell):
    inputs = draw(cell.reference, SMALL, np.float32)
    trace = cell.reference.forward(inputs.params, inputs.x, inputs.state)
    assert isinstance(cell.kernels.forward(inputs.params, inputs.x, inputs.state), cell.kernels.Trace)
    gradients = cell.kernels.bptt(inputs.params, trace, inputs.grad_hs, inputs.grad_state)
    assert isinstance(gradients, cell.kernels.Gradients)
