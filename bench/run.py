"""The loop: for each case, build and verify every implementation, then time them turn by turn."""

import hashlib
import shlex
import time
from dataclasses import asdict
from datetime import datetime
from importlib import import_module
from inspect import getdoc
from pathlib import Path
from typing import NamedTuple

from bench import implementations, machine
from bench.cases import ChoiceError, Effort, choose, find_preset
from bench.results import Run, key, unfinished
from bench.worker import ROOT, TIME_LIMIT_S, Worker, WorkerError

REPORTS = ROOT / "reports"
SEED = 0


class Plan(NamedTuple):
    """What a run is to measure."""

    preset: str
    grid: dict  # the choices as given
    cases: list
    implementations: dict  # the module of each by its name
    effort: Effort


def plan(preset="quick", implementations=None, **choices):
    """Return the Plan for a preset and choices (texts, as `bench.cases.choose` takes them), or raise a ChoiceError."""
    grid = {name: text for name, text in (choices | {"implementations": implementations}).items() if text is not None}
    cases = choose(preset, **choices)
    effort, names = find_preset(preset).effort, find_preset(preset).implementations
    return Plan(preset, grid, cases, _find_implementations(implementations, names), effort)


def open_run(plan, reports=REPORTS, fresh=False):
    """Return (run, resumed): the newest unfinished run of the same plan on the same code and machine, or a new one."""
    about = {name: _about(module) for name, module in plan.implementations.items()}
    wanted = {"preset": plan.preset, "grid": plan.grid, "seed": SEED, "implementations": about, "source": _source()}
    run = None if fresh else unfinished(reports, wanted)
    if run is not None:
        _drop_torn_case(run, plan)
        return run, True
    name = f"{datetime.now():%Y%m%d-%H%M%S}-{plan.preset}"
    folder, copy = Path(reports, name), 1
    while folder.exists():
        folder, copy = Path(reports, f"{name}-{copy + 1}"), copy + 1
    baseline = "numpy" if "numpy" in about else next(iter(about))
    info = {"command": _command(plan), "baseline": baseline, "machine": machine.describe(), **wanted}
    run = Run.create(folder, info)
    run.lock()
    return run, False


class Bench:
    """Measures cases into a run, with one worker for each implementation and thread count.

    `watch(text, share)` is told what is done at the moment and which share of the case is behind us. Use it as a
    context manager, or call `close`: it ends the workers.
    """

    def __init__(self, run, plan, watch=lambda text, share: None, time_limit_s=TIME_LIMIT_S):
        self.run, self.plan, self.watch, self.time_limit_s = run, plan, watch, time_limit_s
        self._workers = {}
        self._unable = {}  # why a worker could not even start: it would not for the next case either

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """End all workers."""
        while self._workers:
            self._workers.popitem()[1].close()

    def missing(self, case, names=None):
        """Return those of the implementations whose row for this case the run does not have yet."""
        have = {key(row) for row in self.run.rows}
        names = self.plan.implementations if names is None else names
        return [name for name in names if key(asdict(case) | {"implementation": name}) not in have]

    def measure(self, case, names=None):
        """Measure one case by all implementations (or these), together, and save their rows."""
        names = self.missing(case, names)
        if not names:
            return
        rows = {name: self._new_row(case, name) for name in names}
        for n, (name, row) in enumerate(rows.items()):
            if row["status"] == "ok":
                self.watch(f"build and verify {name}", 0.5 * n / len(names))
                row |= self._ask(row, "build", case=asdict(case), seed=SEED)
        self._time({name: row for name, row in rows.items() if row["status"] == "ok"})
        self.run.append(*rows.values())

    def _time(self, rows):
        """Take the rounds: all in turn, each round led by another, so that the machine's drift hits all alike."""
        for name, row in rows.items():
            self.watch(f"warm up {name}", 0.5)
            row |= self._ask(row, "calibrate", round_s=self.plan.effort.round_s)
        effort = self.plan.effort
        done, rounds = 0, 1
        begin = time.perf_counter()
        while done < rounds:
            names = [name for name, row in rows.items() if row["status"] == "ok"]
            if not names:
                return
            lead = done % len(names)
            for name in names[lead:] + names[:lead]:
                row = rows[name]
                reply = self._ask(row, "round", calls=row["calls"])
                if reply:
                    row["times"].append(reply["seconds"])
            done += 1
            turn_s = (time.perf_counter() - begin) / done  # with the wait for idle threads
            rounds = min(effort.most, max(effort.fewest, int(effort.case_s / turn_s)))
            self.watch("time", 0.5 + 0.5 * done / rounds)

    def _ask(self, row, request, **arguments):
        """Return the reply of the row's worker; a worker that fails is closed and the row says why."""
        name, threads = row["implementation"], row["threads"]
        try:
            worker = self._worker(name, threads)
            reply = worker.ask(request, **arguments)
            worker.settle()
            return reply
        except WorkerError as error:
            self._workers.pop((name, threads), None)
            row.update(status="error", message=str(error), times=[])
            return {}

    def _worker(self, name, threads):
        if (name, threads) in self._unable:
            raise WorkerError(self._unable[name, threads])
        for other in [pair for pair in self._workers if pair[1] != threads]:
            self._workers.pop(other).close()
        if (name, threads) not in self._workers:
            worker = self._workers[name, threads] = Worker(self.plan.implementations[name], threads, self.time_limit_s)
            try:
                worker.ask("start")
            except WorkerError as error:
                self._unable[name, threads] = str(error)
                raise
        return self._workers[name, threads]

    def _new_row(self, case, name):
        about = self.run.info["implementations"][name]
        return {
            **asdict(case),
            "implementation": name,
            "version": about["version"],
            "status": about["status"],
            "message": about["message"],
            "max_error": None,
            "errors": {},
            "compile_s": None,
            "calls": None,
            "times": [],
            "peak_memory_bytes": None,
            "flops": case.flops,
            "bytes": case.bytes,
        }


def write_report(run):
    """Write everything that is derived from a run into its folder and return the path of report.html."""
    from bench import plugin, report

    plugin.save_json(run)
    return report.write([run], run.folder)


def expected_seconds(case, plan):
    """Guess how long a case takes, for the estimate of the time left."""
    effort, names = plan.effort, len(plan.implementations)
    call = 1e-5 * case.seq_len + case.flops / 2e10
    turn = names * max(call, effort.round_s)
    return 0.1 * names + 6 * names * call + turn * min(effort.most, max(effort.fewest, effort.case_s / turn))


def _find_implementations(text, preset):
    known = implementations.find()
    names = [name.strip() for name in text.split(",")] if text is not None else preset or known
    for name in names:
        if name not in known:
            raise ChoiceError(f"--implementations: expected some of {', '.join(known)}, got {name!r}")
    return {name: known[name] for name in known if name in names}


def _about(module):
    """Return an implementation's entry in run.json."""
    module = import_module(module)
    version = module.version()
    absent = {"status": "absent", "message": "not installed"}
    return {
        "version": version,
        **({"status": "ok", "message": None} if version else absent),
        "contains": getdoc(module),
    }


def _source():
    """Return a digest of the code under measurement: a run is not continued with other code."""
    digest = hashlib.sha256()
    for path in sorted(path for room in ("kernels", "reference") for path in (ROOT / room).rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _command(plan):
    words = ["python", "-m", "bench", "run", "--preset", plan.preset]
    for name, text in plan.grid.items():
        words += ["--" + name.replace("_", "-"), text]
    return shlex.join(words)


def _drop_torn_case(run, plan):
    """Drop the last case if a crash left some of its rows unwritten: its implementations are timed together."""
    if not run.rows:
        return
    last = key(run.rows[-1])[:-1]
    rows = [row for row in run.rows if key(row)[:-1] == last]
    if len(rows) < len(plan.implementations):
        run.drop_last(len(rows))
