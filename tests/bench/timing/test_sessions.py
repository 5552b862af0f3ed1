import time

import numpy as np
import pytest

from bench.grid import inputs
from bench.grid.cases import Case
from bench.implementations import numba_simd, numpy, streaming
from bench.timing import sessions

STEPS = 40


def waiting(seconds, late=()):
    """Return a stream whose steps take so long, and those at some places ten times as long."""
    calls = []

    def step(n):
        calls.append(n)
        end = time.perf_counter() + (10 if n in late else 1) * seconds
        while time.perf_counter() < end:
            pass
        return np.zeros((1, 1))

    prepared = streaming(calls.clear, step, list(range(STEPS)), np.asarray, dict)
    return prepared, calls


def test_every_call_is_timed_by_itself_and_in_order():
    prepared, calls = waiting(1e-4, late={7})
    taken = sessions.back_to_back(prepared, 3 * STEPS)
    assert len(taken) == 3 * STEPS
    assert calls == list(range(STEPS))
    by_step = taken.reshape(3, STEPS).min(axis=0)
    assert by_step.argmax() == 7
    assert (taken >= 1e5).all()


def test_calls_at_a_fixed_pace_sleep_between():
    prepared, _ = waiting(1e-4)
    begin = time.perf_counter()
    taken, missed = sessions.paced(prepared, 0.003)
    assert time.perf_counter() - begin >= STEPS * 0.003
    assert len(taken) == STEPS
    assert np.median(taken) < 1e6
    assert missed < STEPS / 4  # of a machine that others use


def test_a_call_that_takes_several_periods_misses_as_many_deadlines():
    prepared, _ = waiting(2e-3, late={5, 20})  # of 20 ms
    taken, missed = sessions.paced(prepared, 0.005)
    assert 6 <= missed <= STEPS  # each passes four ticks, or three and its own
    assert taken[5] >= 20e6
    assert taken[20] >= 20e6


def test_the_clock_takes_less_than_any_step():
    prepared, _ = waiting(1e-4)
    assert 0 < sessions.clock_s(prepared) < 1e-5


def test_calls_of_a_round_are_whole_sessions():
    prepared, _ = waiting(1e-4)
    assert sessions.calls_in(prepared, 1e-6) == STEPS
    assert sessions.calls_in(prepared, 0.1) % STEPS == 0


@pytest.mark.parametrize(
    ("implementation", "most"), [pytest.param(numpy, 4, id="numpy"), pytest.param(numba_simd, 1, id="numba-simd")]
)
def test_a_step_inside_takes_less_than_a_call(implementation, most):
    """Where a call is as long as NumPy's, others who use the machine may make up for the difference."""
    case = Case("lstm", "stream", 16, 1, 200, 1, "float32", 1)
    arrays = inputs.make(case, 0)
    prepared = implementation.prepare(case, arrays)
    called, inside = [], []
    for _ in range(3):  # in turn, for others use the machine as well
        called.append(sessions.median_s(sessions.back_to_back(prepared, 20 * case.seq_len)))
        inside.append(sessions.inside_s(implementation, case, 0))
    assert 0 < min(inside) < most * max(called)
