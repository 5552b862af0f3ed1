from importlib import import_module

import numpy as np
import pytest

from bench.grid import inputs
from bench.grid.cases import LOW, OPERATIONS, Case, harmless
from bench.implementations import named


def case(operation, cell="rnn", dtype="float32", T=5):
    return Case(cell, operation, 8, 3, T, 2, dtype, 1)


def network(operation="forward", cell="rnn", L=2, D=2, lengths="ragged", T=5):
    return Case(cell, operation, 8, 3, T, 2, "float32", 1, L, D, lengths)


def test_id_reads():
    assert case("train", "gru").id == "gru-train-H8-I3-T5-B2-float32-1t"
    assert network().id == "rnn-L2-D2-forward-H8-I3-T5-B2-ragged-float32-1t"


def test_ragged_lengths_are_from_half_to_all_of_the_steps_and_the_same_for_everybody():
    steps = Case("gru", "train", 16, 1, 9, 1000, "float64", 2, lengths="ragged").steps
    assert (steps.min(), steps.max()) == (5, 9)
    np.testing.assert_array_equal(Case("rnn", "forward", 3, 3, 9, 1000, "float32", 1, 2, 2, "ragged").steps, steps)
    assert network(T=1).steps.tolist() == [1, 1]
    assert case("forward").steps is None
    arrays = inputs.make(network(), 0)
    np.testing.assert_array_equal(arrays.lengths, network().steps)


def test_a_network_is_the_sum_of_its_layers_and_directions_over_the_steps_that_are():
    """Its second layer has 2 H inputs. Bytes: the directions share a layer's input, x or the states below."""
    H, rows = 8, int(network().steps.sum())
    assert network().flops == 2 * rows * 2 * H * ((3 + H) + (2 * H + H))
    assert network("train").flops == 3 * network().flops
    state, weights = 2 * H, network().steps.max() * H * H
    below = 2 * (weights + H * 3 + H + rows * H + state) + rows * 3
    above = 2 * (weights + H * 2 * H + H + rows * H + state) + rows * 2 * H
    assert network().bytes == 4 * (below + above)
    assert network(L=1, D=1, lengths="full").bytes == case("forward").bytes


def test_operations_are_counted():
    step = 2 * 8 * (3 + 8) * 2
    assert case("forward_step", T=1).flops == step
    assert [case(operation).flops for operation in ("forward", "bptt", "train")] == [5 * step, 10 * step, 15 * step]


@pytest.mark.parametrize(("cell", "gates"), [("gru", 3), ("lstm", 4)])
def test_gates_multiply_the_operations(cell, gates):
    for operation in OPERATIONS:
        assert case(operation, cell).flops == gates * case(operation).flops


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_bytes_are_those_of_the_arrays(cell):
    """Of the reference's arrays each once, but W once a step; the last h lies in hs."""
    module, T = import_module(f"reference.{cell}"), 5
    arrays = inputs.make(case("train", cell), 0)
    params, state = module.Params(*arrays.params[0]), module.State(*arrays.state)
    trace = module.forward(params, arrays.x, state)
    gradients = module.bptt(params, trace, arrays.grad_hs)

    def size(*trees):
        return sum(array.nbytes for tree in trees for array in named(tree).values())

    last = trace.state._replace(h=trace.hs[:0, 0])
    known = ("hs", "state", "x", "initial")
    kept = sum(getattr(trace, name).nbytes for name in trace._fields if name not in known)
    forward = T * params.W.nbytes + size(params) - params.W.nbytes + size(arrays.x, state, trace.hs, last)
    read = T * params.W.nbytes + params.U.nbytes + size(arrays.x, trace.hs, state, arrays.grad_hs) + kept
    assert case("forward", cell).bytes == forward
    assert case("bptt", cell).bytes == read + size(gradients)
    assert case("train", cell).bytes == forward + kept + read + size(gradients)
    assert case("train", cell, "float64").bytes == 2 * case("train", cell).bytes
    weights = T * params.W.nbytes + params.U.nbytes
    assert case("forward", cell, "bfloat16").bytes == forward - weights // 2
    assert case("forward", cell, "int8").bytes == forward - weights // 4 * 3
    assert case("forward", cell, "int8").flops == case("forward", cell).flops


@pytest.mark.parametrize("low", LOW)
def test_below_float32_the_inputs_are_those_of_float32(low):
    found, full = (inputs.make(case("forward", "lstm", dtype), 0) for dtype in (low, "float32"))
    for a, b in zip((found.x, *found.state, *found.params[0]), (full.x, *full.state, *full.params[0]), strict=True):
        assert a.dtype == np.float32
        np.testing.assert_array_equal(a, b)


def test_what_a_terminal_obeys_is_not_shown():
    assert harmless("\x1b[31m a\u202eb\x9b\r\a") == "?[31m a?b???"
    assert harmless("ä\tb\u00a0\u3000\n\U0001f600") == "ä\tb\u00a0\u3000\n\U0001f600"
