"""A stream's sessions, whose calls are timed one by one: back to back, or at a fixed pace.

A session begins with the first state, after some steps that warm the caches. Back to back, a call takes from when the
one before it was done, so that reading the clock is a part of it; `clock_s` says how long that takes.

At a fixed pace a call is due at a tick, and the process sleeps until then. How long a call took is counted from when
the process was awake, but the deadline, the next tick, from the tick. A call that is not done by then has missed it;
ticks that pass meanwhile are misses, too, and have no call of their own.
"""

import gc
import time
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from bench.grid import inputs
from bench.implementations import UnsupportedError
from bench.results.latencies import gather
from bench.timing import verify

__all__ = ["back_to_back", "calls_in", "clock_s", "gather", "inside_s", "median_s", "paced"]

WARM = 20  # steps
INSIDE_STEPS, INSIDE_CALLS = 500, 15


def calls_in(prepared, round_s):
    """Return how many calls, in whole sessions, take about `round_s`."""
    T = len(prepared.session.inputs)
    taken = min(back_to_back(prepared, T).sum() / 1e9 for _ in range(2))
    return max(1, round(round_s / taken)) * T


def back_to_back(prepared, calls):
    """Return the nanoseconds of so many calls, in whole sessions."""
    begin, step, xs = prepared.session
    found = []
    with _ready(prepared):
        for _ in range(calls // len(xs)):
            begin()
            found.append(_marks(step, xs))
    return np.concatenate(found)


def paced(prepared, period_s):
    """Return the nanoseconds of each call of a session that comes every `period_s`, and how many missed deadlines."""
    begin, step, xs = prepared.session
    clock, sleep, taken, missed, period = time.perf_counter_ns, time.sleep, [], 0, max(1, round(period_s * 1e9))
    with _ready(prepared):
        begin()
        tick = clock() + period
        for x_t in xs:
            while (left := tick - clock()) > 0:
                sleep(left / 1e9)
            start = clock()
            step(x_t)
            end = clock()
            taken.append(end - start)
            late = max(0, (end - tick) // period)
            missed += late
            tick += (1 + late) * period
    return np.array(taken), missed


def clock_s(prepared):
    """Return the seconds that it takes to read the clock around a call: the median where a step does nothing."""
    return median_s(_marks(_nothing, prepared.session.inputs))


def median_s(nanoseconds):
    return float(np.median(nanoseconds)) / 1e9


def inside_s(implementation, case, seed):
    """Return the seconds of a step within a long `forward` of an implementation, None if it has none that is right.

    That is the difference of two calls of some hundred steps and of twice as many, so that what a call takes beside its
    steps falls out.
    """
    calls = []
    for steps in (INSIDE_STEPS, 2 * INSIDE_STEPS):
        longer = replace(case, operation="forward", seq_len=steps)
        arrays = inputs.make(longer, seed)
        try:
            prepared = implementation.prepare(longer, arrays)
        except UnsupportedError:
            return None
        calls.append(prepared.call)
    with prepared.context():
        if verify.judge(longer, arrays, prepared.outputs(prepared.call()), prepared.follows).message:
            return None
        times = [[_seconds(call) for call in calls] for _ in range(INSIDE_CALLS)]
    short, long = np.median(times, axis=0)
    return float(long - short) / INSIDE_STEPS if long > short else None


@contextmanager
def _ready(prepared):
    """Enter the context of many calls, warm, and without a garbage collection in their midst."""
    _, step, xs = prepared.session
    gc.collect()
    gc.disable()
    try:
        with prepared.context():
            for x_t in xs[:WARM]:
                step(x_t)
            yield
    finally:
        gc.enable()


def _marks(step, xs):
    clock, marks, numbered = time.perf_counter_ns, [0] * (len(xs) + 1), list(enumerate(xs, 1))
    marks[0] = clock()
    for n, x_t in numbered:
        step(x_t)
        marks[n] = clock()
    return np.diff(marks)


def _nothing(x_t):
    """Take a step that is none."""


def _seconds(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
