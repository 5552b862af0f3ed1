"""A worker computes on as many threads as it was told, though its library would like more and nothing pins it.

What counts is how the CPU time of a busy product is spread over the process's threads: unlike CPU time over wall time,
this can be told on a machine that has other things to do.
"""

from contextlib import closing
from dataclasses import asdict
from importlib import import_module

import psutil
import pytest

from bench.grid.cases import Case
from bench.implementations import IF_ASKED, find
from bench.timing.worker import Worker
from kernels.core.threads.cpus import usable_cpus

BUSY = Case("rnn", "forward", 512, 512, 20, 64, "float32", 1)
MODULES = {name: module for name, module in find().items() if name not in IF_ASKED}


def share_of_the_busiest(name, threads):
    """Return the share of the CPU time that one thread of a worker has."""
    if import_module(MODULES[name]).version() is None:
        pytest.skip(f"{name} is not installed")
    with closing(Worker(MODULES[name], threads)) as worker:
        process = psutil.Process(worker._process.pid)

        def used():
            return {thread.id: thread.user_time + thread.system_time for thread in process.threads()}

        worker.ask("start")
        worker.ask("build", case=asdict(BUSY), seed=0)
        calls = worker.ask("calibrate", round_s=0.3)["calls"]
        before = used()
        worker.ask("round", calls=calls)
        spent = [seconds - before.get(thread, 0) for thread, seconds in used().items()]
    return max(spent) / sum(spent)


needs_two = pytest.mark.skipif(usable_cpus() < 2 or not psutil.LINUX, reason="needs two CPUs and the times of threads")


@needs_two
@pytest.mark.parametrize("name", MODULES)
def test_one_thread_does_all_the_work(name):
    assert share_of_the_busiest(name, 1) > 0.9


@needs_two
def test_two_threads_of_xla_share_it():
    assert share_of_the_busiest("jax", 2) < 0.8
