"""What the kernels of every cell read, write and take: memory is raw behind their doors."""

import sys
from unittest.mock import patch

import numpy as np
import pytest

from tests.kernels.apart import run_apart
from tests.kernels.cells import by_cell, by_dtype, by_edge, label
from tests.kernels.compare import Size, calls, draw, named, poison, rebuild, results


@by_cell
@by_dtype
@by_edge
def test_inputs_stay_as_they_are(size, dtype, cell):
    inputs = draw(cell.kernels, size, dtype)
    before = named(rebuild(inputs, cell.kernels))
    for call, function in calls(cell.kernels, inputs).items():
        function()
        for name, a in named(inputs).items():
            np.testing.assert_array_equal(a, before[name], err_msg=f"{name} after {call}")


@by_cell
@by_dtype
@by_edge
def test_bptt_keeps_the_trace(size, dtype, cell):
    inputs = draw(cell.kernels, size, dtype)
    trace = cell.kernels.forward(inputs.params, inputs.x, inputs.state)
    before = named(rebuild(trace, cell.kernels))
    for truncate in (None, 0, 2):
        cell.kernels.bptt(inputs.params, trace, inputs.grad_hs, inputs.grad_state, truncate)
    for name, a in named(trace).items():
        np.testing.assert_array_equal(a, before[name], err_msg=name)


@by_cell
@by_edge
def test_results_own_their_memory(size, cell):
    inputs = draw(cell.kernels, size, np.float32)
    for call, function in calls(cell.kernels, inputs).items():
        first, second = results(function()), results(function())
        others = {**named(inputs), **{f"another call's {name}": a for name, a in second.items()}}
        for name, a in first.items():
            assert a.base is None, f"{call}: {name}"
            assert a.flags.owndata, f"{call}: {name}"
            assert a.flags.writeable, f"{call}: {name}"
            for other, b in {**others, **{n: b for n, b in first.items() if n != name}}.items():
                assert not np.shares_memory(a, b), f"{call}: {name} lies in {other}"


@by_cell
@by_dtype
@by_edge
def test_old_memory_does_not_show(size, dtype, cell, monkeypatch):
    """Whatever the arrays' memory held before: zeros the first time, as good as sure, and NaN the second."""
    inputs = draw(cell.kernels, size, dtype)
    refs = {call: named(function()) for call, function in calls(cell.kernels, inputs).items()}
    poison(monkeypatch)
    for call, function in calls(cell.kernels, inputs).items():
        for elements in {a.size for a in refs[call].values()}:  # the allocator gives these to the compiled code
            for freed in [np.full(elements, np.nan, dtype) for _ in range(4)]:
                del freed
        for name, a in named(function()).items():
            np.testing.assert_array_equal(a, refs[call][name], err_msg=f"{call}: {name}")


@pytest.mark.skipif(sys.platform == "win32", reason="needs mprotect")
@by_cell
@by_dtype
@pytest.mark.parametrize("amount", ["some", pytest.param("many", marks=pytest.mark.slow)])
def test_nothing_is_touched_outside_of_the_arrays(amount, dtype, cell):
    """Memory that the C library hands out is filled with 0x7f as well, a huge number in both dtypes."""
    run_apart("tests.kernels.guard", cell.name, label(dtype), amount, MALLOC_PERTURB_="128")


def allocated_by_bptt(cell, size, truncate):
    """Return how many bytes a call of `bptt` takes on top of the gradients that it returns."""
    inputs = draw(cell.kernels, size, np.float32)
    trace = cell.kernels.forward(*inputs[:3])
    taken = 0
    empty = np.empty

    def counted(*args, **kwargs):
        nonlocal taken
        a = empty(*args, **kwargs)
        taken += a.nbytes
        return a

    with patch.object(np, "empty", counted):
        gradients = cell.kernels.bptt(inputs.params, trace, *inputs[3:], truncate)
    return taken - sum(a.nbytes for a in named(gradients).values())


@by_cell
@pytest.mark.parametrize("truncate", [None, 7])
@pytest.mark.parametrize("size", [Size(17, 3, 1000, 1), Size(17, 3, 300, 33), Size(100, 1, 500, 2)], ids=label)
def test_bptt_takes_no_more_memory_for_longer_sequences(size, truncate, cell):
    """The trace grows with time, and what BPTT takes beside it does not."""
    longer = size._replace(T=3 * size.T)
    assert allocated_by_bptt(cell, longer, truncate) <= allocated_by_bptt(cell, size, truncate)
