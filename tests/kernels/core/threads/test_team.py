"""Jobs for a team's threads: awake or asleep, failing, or never coming."""

import ctypes
import math
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numba
import numpy as np
import pytest
from numba.np.ufunc import parallel

from kernels.core.threads import team
from kernels.core.threads.team import assembled, meet, most_threads, on_a_team, share_out
from kernels.core.vectors.simd import pointer

ROOT = Path(__file__).parents[4]

pytestmark = pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two CPUs")

WAIT, GO_ON = (2, team.FOREVER), (2, 1000)


@pytest.fixture(autouse=True)
def never_crowded(monkeypatch):
    """Let other tests that run meanwhile not have ours be alone."""
    monkeypatch.setattr(team, "_CROWDED", math.inf)
    monkeypatch.setattr(team, "_alone_until", 0.0)


@numba.njit(nogil=True)
def _count(member, team, counts, numbers):
    for n in range(100):
        counts[member] += numbers[n % 2]
        meet(pointer(team), len(team))


@numba.njit(nogil=True)
def _fail(member, team, failing):
    if member == failing:
        raise ValueError


@numba.njit(nogil=True)
def count(team, counts, numbers):
    team = assembled(team)
    share_out(_count, team, (team, counts, numbers))


@numba.njit(nogil=True)
def fail(team, failing):
    share_out(_fail, assembled(team), (team, failing))


@pytest.fixture
def counts():
    """Let a helper exist, have nothing to do, and be awake."""
    counts = np.zeros(2, np.int64)
    count_to_300(counts)
    counts[:] = 0
    return counts


def count_to_300(counts, size=WAIT):
    on_a_team(count, size, (counts, (1, 5)))


def fall_asleep():
    deadline = time.monotonic() + 600
    while team._helpers[0].awake:
        assert time.monotonic() < deadline, "the helper does not sleep"
        time.sleep(0.001)


def test_every_member_does_its_part(counts):
    for _ in range(100):
        count_to_300(counts)
    np.testing.assert_array_equal(counts, 30_000)


def test_a_sleeping_thread_is_woken(counts):
    for _ in range(20):
        fall_asleep()
        count_to_300(counts)
    np.testing.assert_array_equal(counts, 6_000)


def test_small_calls_do_not_wait_for_a_sleeping_thread(counts, monkeypatch):
    fall_asleep()
    monkeypatch.setattr(team, "_SOON", 0)
    count_to_300(counts, GO_ON)
    np.testing.assert_array_equal(counts, [300, 0])
    assert not team._helpers[0].awake

    monkeypatch.setattr(team, "_SOON", 3600)  # from now on the next call is always near
    deadline = time.monotonic() + 600
    while counts[1] == 0:
        assert time.monotonic() < deadline, "the helper does not wake"
        count_to_300(counts, GO_ON)


@pytest.mark.parametrize("failing", [0, 1])
def test_failure_of_a_member_is_raised(counts, failing):
    for _ in range(3):
        with pytest.raises(RuntimeError, match="a thread of the team has failed"):
            on_a_team(fail, WAIT, (failing,))
        count_to_300(counts)
    np.testing.assert_array_equal(counts, 900)


def test_a_thread_sleeps_and_works_on_after_a_call_without_a_job(counts):
    def no_job(team):
        raise ZeroDivisionError

    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            on_a_team(no_job, WAIT, ())
        fall_asleep()
        count_to_300(counts)
    np.testing.assert_array_equal(counts, 900)


def test_who_does_not_come_is_not_waited_for():
    """Awake, it may have lost its CPU to somebody else."""
    deserted = np.zeros_like(team._board[:2])
    deserted[0, team._PATIENCE] = 1000
    counts = np.zeros(2, np.int64)
    count(deserted, counts, (1, 5))
    np.testing.assert_array_equal(counts, [300, 0])
    assert deserted[1, team._STATE] == team._IDLE


def test_where_others_want_the_cpus_calls_are_alone_for_a_while(counts, monkeypatch):
    waited = 0.0
    monkeypatch.setattr(team, "waited", lambda thread: waited)
    monkeypatch.setattr(team, "_CROWDED", 0.3)
    monkeypatch.setattr(team, "_LOOK", 0)  # after every call
    team._helpers[0].waited = 0.0

    def members():
        counts[:] = 0
        count_to_300(counts)
        return np.count_nonzero(counts)

    assert [members() for _ in range(3)] == [2, 2, 2]
    waited = 3600.0  # longer than the call took
    monkeypatch.setattr(team, "_ALONE", 1e9)
    assert [members() for _ in range(3)] == [2, 1, 1]
    assert team._alone_until > time.monotonic()
    monkeypatch.setattr(team, "_alone_until", 0.0)  # the while is over, and nobody has had to wait since
    assert [members() for _ in range(3)] == [2, 2, 2]


def test_only_compiled_code_is_a_job():
    @numba.njit
    def call(team):
        share_out(len, team, (team,))

    with pytest.raises(numba.TypingError, match="expected compiled code"):
        call(team.alone)


@pytest.mark.parametrize("allowed", ["1", "2"])
def test_the_interpreter_can_leave_while_threads_spin(allowed):
    """Those of a team that was asked for by its size, as a benchmark does, whatever Numba allows to others."""
    code = (
        "from tests.kernels.core.threads.test_team import *; count_to_300(np.zeros(2, np.int64)); assert team._helpers"
    )
    for _ in range(3):
        environment = os.environ | {"NUMBA_NUM_THREADS": allowed}
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True, timeout=900)


def test_a_call_after_the_threads_have_left_is_alone():
    """As a function for the exit that was registered before the kernels were imported."""
    code = """
import atexit

@atexit.register
def call_late():
    counts = np.zeros(2, np.int64)
    count_to_300(counts)
    print(counts)

from tests.kernels.core.threads.test_team import *
count_to_300(np.zeros(2, np.int64))
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=900)
    assert (done.stdout, done.stderr) == ("[300   0]\n", "")


def test_without_more_threads_from_the_system_a_call_is_alone(counts, monkeypatch):
    def start(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(team, "_helpers", [])
    monkeypatch.setattr(threading.Thread, "start", start)
    count_to_300(counts)
    np.testing.assert_array_equal(counts, [300, 0])


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs threads that can be pinned")
def test_where_threads_may_not_be_pinned_they_work_all_the_same(counts, monkeypatch):
    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr(team, "_place", None)
    monkeypatch.setattr(os, "sched_setaffinity", refuse)
    count_to_300(counts)
    np.testing.assert_array_equal(counts, 300)


@pytest.mark.skipif(numba.get_num_threads() < 2, reason="needs two threads")
def test_most_threads_is_the_mask_of_numba(monkeypatch):
    monkeypatch.setattr(team, "usable_cpus", lambda: 1000)
    threads = numba.get_num_threads()
    try:
        for n in (1, 2):
            numba.set_num_threads(n)
            assert most_threads() == n
    finally:
        numba.set_num_threads(threads)
    monkeypatch.setattr(parallel, "_is_initialized", False)
    assert most_threads() == numba.config.NUMBA_NUM_THREADS


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs threads that can be pinned")
def test_a_team_is_no_larger_than_the_cpus_it_may_run_on():
    found = []

    def ask(cpus):
        os.sched_setaffinity(0, cpus)  # of this thread alone
        found.append(most_threads())

    cpus = os.sched_getaffinity(0)
    for some in ({min(cpus)}, cpus):
        thread = threading.Thread(target=ask, args=(some,))
        thread.start()
        thread.join()
    assert found == [1, min(len(cpus), numba.config.NUMBA_NUM_THREADS)]  # a new thread has the mask of none


class Interrupt:
    """A Ctrl-C that comes before one of the instructions of `team.py`, to be heard wherever Python listens next."""

    def __init__(self, before):
        self.left = before
        # No Python function: the interpreter would hear the signal there.
        self.press = ctypes.PYFUNCTYPE(None, *[ctypes.py_object] * 3)(("PyErr_SetInterrupt", ctypes.pythonapi))

    def trace(self, frame, event, arg):
        if frame.f_code.co_filename != team.__file__:
            return None
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        if event == "opcode":
            self.left -= 1
        return self.press if self.left < 0 else self.trace

    def hear(self, number, frame):
        sys.settrace(None)
        raise KeyboardInterrupt


@pytest.mark.parametrize("size", [WAIT, GO_ON], ids=["wait", "go on"])
def test_an_interrupt_leaves_no_team_behind(counts, size):
    before, tracer = signal.getsignal(signal.SIGINT), sys.gettrace()
    heard = n = 0
    while n == heard:
        interrupt = Interrupt(n)
        signal.signal(signal.SIGINT, interrupt.hear)
        n += 1
        try:
            sys.settrace(Interrupt(10**9).trace)  # Python 3.14 tells of instructions from a second call on
            count_to_300(counts, size)
            sys.settrace(interrupt.trace)
            count_to_300(counts, size)
            sys.settrace(None)
        except KeyboardInterrupt:
            heard += 1
        finally:
            sys.settrace(tracer)
            signal.signal(signal.SIGINT, before)
        assert not team._at_work, f"before instruction {n}"
        assert not team._wanted
        counts[:] = 0
        count_to_300(counts)
        np.testing.assert_array_equal(counts, 300)
    assert heard > 100
