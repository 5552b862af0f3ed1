"""More machines than anybody here has: Dask's scheduler and workers in this process, and waiting in place of measuring.

    python -m tests.bench.fleet.simulation 200 300 chart.png

measures 300 cases on each of 200 machines, and draws what a case costs who writes them all, and the memory it takes.
"""

import asyncio
import random
import sys
import tempfile
import time
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
    if request == "describe":
        wish, host = arguments
        grids = wish.chosen.grids
        cases = [case for grid in grids for case in grid.cases()]
        plan = Plan("simulated", {}, cases, dict.fromkeys(NAMES, ""), wish.chosen.effort)
        return plan, {"preset": "simulated", "implementations": ABOUT, "host": host, "cpus": {}}, MACHINE
    _, case, _ = arguments
    await asyncio.sleep(random.uniform(*_SECONDS) * (_SLOW[0] if get_worker().name == 0 else 1))
    rng = np.random.default_rng(0)
    return [new_row(case, name, ABOUT[name]) | {"times": rng.uniform(1e-3, 2e-3, 30).tolist()} for name in NAMES]


_SLOW = [1]  # times as slow is the first machine
_SECONDS = [1.0, 3.0]  # that a case takes, from and to


def simulate(machines, cases, seconds, reports, share=False, slow=1):
    """Return the runs and, every so many cases, (cases, seconds of the client's thread a case, bytes of memory)."""
    _SECONDS[:], _SLOW[:] = seconds, [slow]
    wish = Wish("simulated", find_preset("quick")._replace(grids=(grid_of(cases),)), {})
    found, begin = [], [0.0, 0]

    def watch(fleet):
        done, used = sum(kind.done for kind in fleet.kinds), time.thread_time()
        if done - begin[1] >= max(100, machines * cases // 60):
            found.append((done, (used - begin[0]) / (done - begin[1]), psutil.Process().memory_info().rss))
            begin[:] = used, done

    options = {"processes": False, "threads_per_worker": 1, "dashboard_address": ":0", "memory_limit": 0}
    with LocalCluster(n_workers=machines, **options) as cluster, cluster.get_client() as client:
        fleet = Fleet(client, Grid(wish, reports, share), lambda text: None, watch, introduce, ask)
        begin[0] = time.thread_time()
        runs = [kind.run for kind in fleet.work()]
    return runs, found


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
        runs, found = simulate(machines, cases, (1.0, 3.0), Path(folder))
        took = time.monotonic() - begin
        check(runs, machines, cases)
    done, cost, memory = map(np.array, zip(*found, strict=True))
    print(f"{machines * cases} cases of {machines} machines in {took:.0f} s, all rows there.")
    first, last = (1e3 * part.mean() for part in (cost[: len(cost) // 4], cost[-(len(cost) // 4) :]))
    print(f"A case costs {first:.2f} ms at first and {last:.2f} ms at last,")
    print(f"the memory of all is {memory[0] / 2**20:.0f} MiB at first and {memory[-1] / 2**20:.0f} MiB at last.")
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    for axes, y, label in zip(
        figure.subplots(1, 2),
        (1e3 * cost, memory / 2**20),
        ("client's CPU time a case in ms", "memory of all in MiB"),
        strict=True,
    ):
        axes.plot(done, y, ".-")
        axes.set(xlabel="cases done", ylabel=label, ylim=(0, None))
        axes.grid(alpha=0.3)
    figure.suptitle(f"{machines} machines, {cases} cases each")
    figure.savefig(chart, dpi=130)


if __name__ == "__main__":
    main()
