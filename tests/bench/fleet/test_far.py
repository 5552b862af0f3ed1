import time
from contextlib import closing

import numpy as np
import psutil
import pytest

pytest.importorskip("cloudpickle")

from bench.fleet.far import FarError, Process


@pytest.fixture
def process():
    with closing(Process("tests.bench.fleet.end")) as process:
        yield process


def ask(process, request, *arguments, wanted=lambda: True):
    return process.ask((request, arguments), wanted)


def test_one_process_answers_until_it_is_left_alone(process):
    first = ask(process, "who")
    big = np.arange(1_000_000)
    assert np.array_equal(ask(process, "echo", big), big)
    assert ask(process, "who") == first
    psutil.Process(first).wait(10)
    assert ask(process, "who") != first


def test_what_it_raises_and_how_it_dies_is_said_and_the_next_one_is_asked(process):
    first = ask(process, "who")
    with pytest.raises(FarError, match=r"^so it goes$"):
        ask(process, "fail")
    assert ask(process, "who") == first
    with pytest.raises(FarError, match=r"^its process was killed by signal 9: a last word$"):
        ask(process, "die")
    assert ask(process, "echo", 1) == 1


def test_what_is_no_longer_wanted_ends_with_its_process(process):
    who, begin = ask(process, "who"), time.monotonic()
    with pytest.raises(FarError, match="no longer wanted"):
        ask(process, "sleep", 60, wanted=lambda: time.monotonic() < begin + 0.5)
    assert not psutil.pid_exists(who)
