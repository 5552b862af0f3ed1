"""A worker for one thread computes on one thread, though its library would like more and nothing pins it to one CPU."""

from contextlib import closing
from dataclasses import asdict
from importlib import import_module

import psutil
import pytest

from bench.cases import Case, usable_cpus
from bench.implementations import find
from bench.worker import Worker

BUSY = Case("rnn", "forward", 512, 512, 20, 64, "float32", 1)
MODULES = {name: module for name, module in find().items() if name != "torch-compile"}  # which is torch's threads


@pytest.mark.skipif(usable_cpus() < 2, reason="needs two CPUs")
@pytest.mark.parametrize("name", MODULES)
def test_one_thread_takes_the_time_of_one_cpu(name):
    if import_module(MODULES[name]).version() is None:
        pytest.skip(f"{name} is not installed")
    with closing(Worker(MODULES[name], threads=1)) as worker:
        worker.ask("start")
        worker.ask("build", case=asdict(BUSY), seed=0)
        calls = worker.ask("calibrate", round_s=0.2)["calls"]
        process = psutil.Process(worker._process.pid)
        before = process.cpu_times()
        wall = worker.ask("round", calls=calls)["seconds"] * calls
        after = process.cpu_times()
    used = after.user + after.system - before.user - before.system
    assert used <= 1.1 * wall + 0.02, f"{used:.2f} s of CPU time in {wall:.2f} s"  # which counts in steps of 0.01 s
