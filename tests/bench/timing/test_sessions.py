"""A stream's sessions, on a clock that the test turns: what a busy machine does is no part of them."""

import numpy as np
import pytest

from bench.grid.cases import Case
from bench.implementations import Prepared, numba_simd, numpy, streaming
from bench.timing import sessions
from bench.timing.verify import Verdict

STEPS = 40
MICRO, MILLI = 1_000, 1_000_000  # nanoseconds


class Clock:
    """A clock that moves by what is slept and by what a step takes, and by a nanosecond whenever it is read."""

    def __init__(self, monkeypatch):
        self.now, self.slept = 0, 0
        monkeypatch.setattr(sessions.time, "perf_counter_ns", self.read)
        monkeypatch.setattr(sessions.time, "perf_counter", lambda: self.read() / 1e9)
        monkeypatch.setattr(sessions.time, "sleep", self.sleep)

    def read(self):
        self.now += 1
        return self.now

    def sleep(self, seconds):
        self.slept += 1
        self.now += round(seconds * 1e9)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def stepping(clock, taken, late=()):
    """Return a stream whose steps take so many nanoseconds, and those at some places ten times as many."""
    calls = []

    def step(n):
        calls.append(n)
        clock.now += (10 if n in late else 1) * taken
        return np.zeros((1, 1))

    return streaming(calls.clear, step, list(range(STEPS)), np.asarray, dict), calls


def test_every_call_is_timed_by_itself_and_in_order(clock):
    prepared, calls = stepping(clock, 100 * MICRO, late={7})
    taken = sessions.back_to_back(prepared, 3 * STEPS)
    assert calls == list(range(STEPS))
    session = [(1000 if n == 7 else 100) * MICRO + 1 for n in range(STEPS)]
    assert taken.tolist() == 3 * session


def test_calls_at_a_fixed_pace_sleep_between(clock):
    prepared, _ = stepping(clock, 100 * MICRO)
    taken, missed = sessions.paced(prepared, 0.003)
    assert taken.tolist() == [100 * MICRO + 1] * STEPS
    assert missed == 0
    assert clock.slept == STEPS
    assert 0 <= clock.now - STEPS * 3 * MILLI - (sessions.WARM + 1) * 100 * MICRO < MICRO


def test_a_call_that_takes_several_periods_misses_as_many_deadlines(clock):
    prepared, _ = stepping(clock, 2.1 * MILLI, late={5, 20})
    taken, missed = sessions.paced(prepared, 0.005)
    assert missed == 2 * 4  # within 21 ms from its tick four others pass
    assert [n for n, one in enumerate(taken) if one > 20 * MILLI] == [5, 20]


def test_the_clock_is_read_around_a_step_that_does_nothing(clock):
    prepared, _ = stepping(clock, 100 * MICRO)
    assert sessions.clock_s(prepared) == pytest.approx(1e-9)


def test_calls_of_a_round_are_whole_sessions(clock):
    prepared, _ = stepping(clock, 100 * MICRO)
    assert sessions.calls_in(prepared, 1e-6) == STEPS
    assert sessions.calls_in(prepared, 0.1) == 25 * STEPS


def test_a_step_inside_is_what_is_left_without_the_call(clock, monkeypatch):
    class Planted:
        @staticmethod
        def prepare(case, arrays):
            def call():
                clock.now += 70 * MICRO + 3 * MICRO * case.seq_len

            return Prepared(call, lambda _: {})

    monkeypatch.setattr(sessions.verify, "judge", lambda *_: Verdict({}, None, None))
    case = Case("lstm", "stream", 16, 1, 200, 1, "float32", 1)
    assert sessions.inside_s(Planted, case, 0) == pytest.approx(3e-6)


@pytest.mark.parametrize("implementation", [pytest.param(numpy, id="numpy"), pytest.param(numba_simd, id="numba-simd")])
def test_a_step_inside_is_measured_of_what_is_right(implementation):
    case = Case("lstm", "stream", 16, 1, 200, 1, "float32", 1)
    inside = sessions.inside_s(implementation, case, 0)
    assert inside is None or inside > 0  # beside others the longer call may be the quicker one
