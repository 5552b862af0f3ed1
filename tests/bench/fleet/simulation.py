"""More machines than anybody here has, with waiting in place of measuring.

Dask's own scheduler and workers, all in this process, or, where these are too many for one, a `Pretender` in its place.

    python -m tests.bench.fleet.simulation 200 300 chart.png

measures 300 cases on each of 200 machines, and draws what a case costs who writes them all, and the memory it takes.
"""

import asyncio
import heapq
import random
import sys
import tempfile
import threading
import time
from concurrent.futures import Future
from itertools import count
from pathlib import Path

import numpy as np
import psutil
from distributed import LocalCluster, get_worker

from bench.fleet.far import Wish
from bench.fleet.fleet import Fleet
from bench.fleet.runs import Grid
from bench.grid import cases as cases_of
from bench.grid.presets import find_preset
from bench.results.runs import Run
from bench.timing.loop import new_row
from bench.timing.plan import Plan, source
from tests.bench.synthetic import MACHINE

NAMES = ("numpy", "numba-simd", "torch")
ABOUT = {name: {"version": "1.0", "status": "ok", "message": None} for name in NAMES}


def introduce(dask_worker):
    name = f"machine {dask_worker.name}"
    return {"name": name, "identity": name, "source": source()}


async def ask(_, request, *arguments):
    if request == "measure":
        await asyncio.sleep(random.uniform(*_SECONDS) * (_SLOW[0] if get_worker().name == 0 else 1))
    return answer(request, *arguments)


def answer(request, *arguments):
    if request == "describe":
        wish, host = arguments
        cases = [case for grid in wish.chosen.grids for case in grid.cases()]
        plan = Plan("simulated", {}, cases, dict.fromkeys(NAMES, ""), wish.chosen.effort)
        return plan, {"preset": "simulated", "implementations": ABOUT, "host": host, "cpus": {}}, dict(MACHINE)
    _, case, _ = arguments
    times = np.random.default_rng(0).uniform(1e-3, 2e-3, 30).tolist()
    return [new_row(case, name, ABOUT[name]) | {"times": times} for name in NAMES]


class Answer(Future):
    """A future as Dask has it, as far as a fleet asks."""

    @property
    def status(self):
        return "finished" if self.done() else "pending"

    def release(self):
        """Nobody else holds it."""


class Pretender:
    """In the place of Dask's client: so many workers, whose answers come after a while."""

    def __init__(self, machines, seconds):
        self.machines, self.seconds = [f"tcp://machine-{n}" for n in range(machines)], seconds
        self._due, self._ids, self._over = [], count(), threading.Event()
        self._clock = threading.Thread(target=self._deliver, daemon=True)

    def __enter__(self):
        self._clock.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._clock.join()

    def nthreads(self):
        return dict.fromkeys(self.machines, 1)

    def run(self, function, workers, on_error):
        return {name: {"name": name, "identity": name, "source": source()} for name in workers}

    def submit(self, function, name, request, *arguments, **options):
        future = Answer()
        wait = random.uniform(*self.seconds) if request == "measure" else 0
        heapq.heappush(self._due, (time.monotonic() + wait, next(self._ids), future, request, arguments))
        return future

    def cancel(self, futures, force):
        """It is the end."""

    def _deliver(self):
        while not self._over.wait(0.002):
            while self._due and self._due[0][0] <= time.monotonic():
                _, _, future, request, arguments = heapq.heappop(self._due)
                future.set_result(answer(request, *arguments))


_SLOW = [1]  # times as slow is the first machine
_SECONDS = [1.0, 3.0]  # that a case takes, from and to


def simulate(machines, cases, seconds, reports, share=False, slow=1, pretend=False):
    """Return the runs and, every so many cases, (cases, seconds of the client's thread a case, bytes of memory)."""
    _SECONDS[:], _SLOW[:] = seconds, [slow]
    wish = Wish("simulated", find_preset("quick")._replace(grids=(grid_of(cases),)), {})
    found, begin = [], [0.0, 0]

    def watch(fleet):
        done, used = sum(kind.done for kind in fleet.kinds), time.thread_time()
        if done - begin[1] >= max(100, machines * cases // 60):
            found.append((done, (used - begin[0]) / (done - begin[1]), psutil.Process().memory_info().rss))
            begin[:] = used, done

    def work(client):
        fleet = Fleet(client, Grid(wish, reports, share), lambda text: None, watch, introduce, ask)
        begin[0] = time.thread_time()
        return [kind.run for kind in fleet.work()]

    if pretend:
        with Pretender(machines, seconds) as client:
            return work(client), found
    options = {"processes": False, "threads_per_worker": 1, "dashboard_address": ":0", "memory_limit": 0}
    with LocalCluster(n_workers=machines, **options) as cluster, cluster.get_client() as client:
        return work(client), found


def grid_of(cases):
    return cases_of.Grid(hidden=tuple(range(1, cases + 1)), batch=(1,), operation=("forward",))


def check(runs, machines, cases):
    """Raise an AssertionError unless every row of every machine is on the disk, once."""
    assert len(runs) == machines
    for run in runs:
        rows = Run.load(run.folder).rows
        assert len({(row["hidden_size"], row["implementation"]) for row in rows}) == len(rows) == cases * len(NAMES)
        assert {row["host"] for row in rows} == {run.info["host"]}


def main():
    from matplotlib.figure import Figure

    machines, cases, chart = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    with tempfile.TemporaryDirectory() as folder:
        begin = time.monotonic()
        runs, found = simulate(machines, cases, (0.5, 1.5), Path(folder), pretend=True)
        took = time.monotonic() - begin
        check(runs, machines, cases)
    done, cost, memory = map(np.array, zip(*found, strict=True))
    print(f"{machines * cases} cases of {machines} machines in {took:.0f} s, all rows there.")
    first, last = (1e3 * part.mean() for part in (cost[: len(cost) // 4], cost[-(len(cost) // 4) :]))
    print(f"A case costs {first:.2f} ms at first and {last:.2f} ms at last,")
    print(f"the memory is {memory[0] / 2**20:.0f} MiB at first and {memory[-1] / 2**20:.0f} MiB at last.")
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    for axes, y, label in zip(
        figure.subplots(1, 2),
        (1e3 * cost, memory / 2**20),
        ("client's CPU time a case in ms", "memory in MiB"),
        strict=True,
    ):
        axes.plot(done, y, ".-")
        axes.set(xlabel="cases done", ylabel=label, ylim=(0, None))
        axes.grid(alpha=0.3)
    figure.suptitle(f"{machines} machines, {cases} cases each")
    figure.savefig(chart, dpi=130)


if __name__ == "__main__":
    main()
