"""`python -m tests.soak [--minutes 60] [--runs 1000]`: calls of all sizes, and runs of one case: nothing grows.

The calls are those of `tests.fuzz`, each beside its reference, and between them ever larger ones. A run is what `python
-m bench run` does: workers started, verified, timed and ended, a report every tenth time. Told every minute: memory,
open files, threads, processes below this one, and entries in the folder for temporary files.
"""

import gc
import os
import tempfile
from itertools import count
from pathlib import Path
from time import monotonic
from typing import Annotated, NamedTuple

import numpy as np
import psutil
import typer

from bench.grid.presets import Effort, choose, find_preset
from bench.implementations import find
from bench.report import report
from bench.timing.loop import Bench
from bench.timing.plan import Plan, open_run
from tests import fuzz
from tests.kernels.cells import CELLS
from tests.kernels.compare import Size, draw

ROOM = 48 * 2**20  # bytes by which memory may differ: the allocator keeps what it likes
SETTLED = 300  # s: before, code is still being loaded


class Gauge(NamedTuple):
    memory: int
    files: int
    threads: int
    processes: int
    temporary: int

    @classmethod
    def read(cls):
        gc.collect()
        me = psutil.Process()
        temporary = sum(1 for _ in Path(tempfile.gettempdir()).iterdir())
        return cls(me.memory_info().rss, me.num_fds(), me.num_threads(), len(me.children(recursive=True)), temporary)

    def __str__(self):
        rest = ", ".join(f"{n} {name}" for name, n in self._asdict().items() if name != "memory")
        return f"{self.memory / 2**20:.0f} MiB, {rest}"


class Watch:
    """Reads the gauge now and then, and tells whether what is left at the end is more than at the start."""

    def __init__(self, what, every_s):
        self.what, self.every_s, self.begin, self.readings = what, every_s, monotonic(), []

    def look(self, done):
        if monotonic() - self.begin >= self.every_s * (len(self.readings) + 1):
            self.readings.append(Gauge.read())
            print(f"{monotonic() - self.begin:5.0f} s, {done} {self.what}: {self.readings[-1]}", flush=True)

    def grown(self):
        """Return what has grown since a fifth of the time, when all code is compiled, by name.

        Memory is what it is at least for a while: a large call before the reading may have left some to the allocator.
        It is not told within five minutes.
        """
        n = len(self.readings)
        first, last = self.readings[n // 5], self.readings[-1]
        others = ("files", "threads", "processes", "temporary")
        found = [name for name in others if getattr(last, name) > getattr(first, name)]
        before, after = (
            min(one.memory for one in some) for some in (self.readings[n // 5 : n // 2 + 1], self.readings[n // 2 :])
        )
        settled = monotonic() - self.begin >= SETTLED
        return found + (["memory"] if settled and after > before + ROOM else [])


def call(minutes):
    """Call for so many minutes; return what has grown."""
    watch = Watch("calls", min(60, 6 * minutes))
    for n in count():
        fuzz.run(0, n)
        if n % 50 == 49:
            call_large(n // 50)
        watch.look(n + 1)
        if monotonic() - watch.begin >= 60 * minutes:
            return watch.grown()


def call_large(n):
    """Call one cell at the n-th of ever larger sizes, and the largest once more: three ways to the same states."""
    cell = CELLS[n % len(CELLS)].kernels
    size = Size(H=min(1024, 16 + 16 * (n % 80)), I=1 + 37 * n % 400, T=1 + 13 * n % 60, B=1 + 7 * n % 50)
    inputs = draw(cell, size, np.float32, seed=n)
    trace = cell.forward(*inputs[:3])
    np.testing.assert_array_equal(cell.infer(*inputs[:3]).hs, trace.hs)
    stream = cell.stream(cell.prepare(inputs.params), size.B)
    stream.state = inputs.state
    np.testing.assert_array_equal(stream.run(inputs.x), trace.hs)
    assert np.isfinite(cell.bptt(inputs.params, trace, inputs.grad_hs).params.W).all()


def run(runs, folder):
    """Make so many runs of one case in a folder; return what has grown."""
    choices = {"cell": "gru", "operation": "forward", "hidden": "16", "seq_len": "10", "batch": "1", "threads": "1"}
    modules = {name: find()[name] for name in ("numpy", "numba-simd")}
    cases = choose(find_preset("quick"), 8, **choices)
    planned = Plan("quick", choices, cases, modules, Effort(round_s=0.001, fewest=3, case_s=0.05))
    watch = Watch("runs", 30 if runs > 50 else 0.1)
    for n in range(runs):
        made, _ = open_run(planned, folder, fresh=True)
        with Bench(made, planned) as bench:
            for case in planned.cases:
                bench.measure(case)
        made.finish()
        assert [row["status"] for row in made.rows] == ["ok"] * len(modules)
        if n % 10 == 0:
            report.write([made], made.folder)
        made.unlock()
        watch.look(n + 1)
    return watch.grown()


def main(
    minutes: Annotated[float, typer.Option(min=0.01, help="How long to call; from 5 on memory is judged.")] = 60,
    runs: Annotated[int, typer.Option(min=0, help="How many runs.")] = 1000,
):
    """Call and run for long, and tell what has grown."""
    with tempfile.TemporaryDirectory() as reports, tempfile.TemporaryDirectory() as temporary:
        tempfile.tempdir = os.environ["TMPDIR"] = temporary
        grown = call(minutes) + (run(runs, Path(reports)) if runs else [])
    print(f"grown: {', '.join(grown)}" if grown else "nothing has grown")
    raise typer.Exit(1 if grown else 0)


if __name__ == "__main__":
    typer.run(main)
