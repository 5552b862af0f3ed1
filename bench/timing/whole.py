"""The whole model of a file, in the runtimes that take it as it is, and what share of it its recurrent layers have.

There is no float64 reference of a model whose every operator somebody else has written. So the results are compared
with those of ONNX Runtime without its optimizations: they may differ by `AGREE` of the largest number of an output,
and whole numbers by nothing. Rounds are taken in turns, as those of all cases. The share is told by ONNX Runtime's own
profiler, in runs of their own.
"""

import tempfile
import time
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np

from bench.grid.models import clean
from bench.machine.hardware import cpus_for
from bench.timing.loop import turn
from bench.timing.plan import SEED
from bench.timing.worker import Worker, WorkerError

RUNTIMES = ("onnxruntime", "openvino")
AGREE = 1e-3
PROFILED_S = 0.5  # of runs that are profiled


def error(path, reference):
    """Return the largest difference of two files of outputs, as a share of what it may be; None: not comparable."""
    try:
        with np.load(path) as one, np.load(reference) as other:
            found, wanted = dict(one), dict(other)
        if found.keys() != wanted.keys():
            return None
        return max((_difference(found[name], want) for name, want in wanted.items()), default=0.0)
    except ValueError:  # texts, other shapes, what is not finite
        return None


def _difference(got, want):
    exact = want.dtype.kind != "f"
    got, want = got.astype(np.float64), want.astype(np.float64)
    if got.shape != want.shape or not np.isfinite(got).all() or not np.isfinite(want).all():
        raise ValueError
    if not want.size:
        return 0.0
    scale = AGREE if exact else max(AGREE * float(np.abs(want).max()), float(np.finfo(np.float32).tiny))
    with np.errstate(over="ignore"):
        return float(min(np.abs(got - want).max() / scale, np.finfo(np.float64).max))


def measure(run, plan, watch=lambda text, share: None):
    """Measure the whole model into the run, with each number of threads that it does not have yet."""
    if plan.model is None or plan.model.inputs is None:
        return
    names = [name for name in RUNTIMES if name in plan.implementations]
    for threads in sorted({case.threads for case in plan.cases}):
        whole = run.info.get("whole") or {}
        if names and str(threads) not in whole:
            found = _measured(run, plan, names, threads, watch)
            run.info["whole"] = whole | {str(threads): found}
            run.save_info()


def _measured(run, plan, names, threads, watch):
    """Return what is found of each runtime, by its name."""
    path, inputs = str(plan.model.path.absolute()), plan.model.inputs
    about = run.info["implementations"]
    rows = {
        name: {key: about[name][key] for key in ("version", "status", "message")}
        | {"max_error": None, "compile_s": None, "times": [], "recurrent": None}
        for name in names
    }
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        workers = {}

        def ask(name, request, **arguments):
            row = rows[name]
            try:
                if name not in workers:
                    worker = Worker(plan.implementations[name], threads, cpus=cpus_for(threads))
                    workers[name] = stack.enter_context(closing(worker))
                    worker.ask("start")
                reply = workers[name].ask(request, **arguments)
                workers[name].rest()
                return reply
            except WorkerError as why:
                row |= {"status": "error", "message": str(why), "times": []}
                return {}

        asked = {"path": path, "inputs": inputs, "seed": SEED}
        reference = Path(folder, "reference.npz")
        if rows.get(RUNTIMES[0], {}).get("status") == "ok":
            watch(f"the whole model in {RUNTIMES[0]}, unoptimized", 0)
            ask(RUNTIMES[0], "build_model", **asked, results=str(reference), plain=True)
        for name, row in rows.items():
            if row["status"] != "ok":
                continue
            watch(f"the whole model in {name}", 0.1)
            results = Path(folder, f"{name}.npz")
            row |= ask(name, "build_model", **asked, results=str(results))
            if row["status"] == "ok":
                row["max_error"] = error(results, reference) if reference.exists() else None
                if not reference.exists():
                    row |= {"status": "error", "message": "expected a result of ONNX Runtime to compare with, got none"}
                elif row["max_error"] is None or row["max_error"] > 1:
                    row |= {"status": "wrong", "message": _why(row["max_error"])}
        _time(rows, ask, plan.effort, watch)
        first = rows.get(RUNTIMES[0])
        if first and first["times"]:
            watch(f"profile {RUNTIMES[0]}", 0.95)
            runs = int(np.clip(PROFILED_S / np.median(first["times"]), 3, 1000))
            found = ask(RUNTIMES[0], "recurrent", **asked, runs=runs).get("recurrent", {})
            first["recurrent"] = {name and clean(name): value for name, value in found.items()} or None
    return rows


def _why(found):
    if found is None:
        return "its outputs are others than, or not finite as, those of ONNX Runtime without optimizations"
    return f"{found:.3g} times as far as may be from ONNX Runtime without optimizations"


def _time(rows, ask, effort, watch):
    """Take the rounds of all runtimes in turns."""
    calls = {
        name: ask(name, "calibrate", round_s=effort.round_s) for name, row in rows.items() if row["status"] == "ok"
    }
    begin, done = time.perf_counter(), 0
    while working := [name for name, row in rows.items() if row["status"] == "ok"]:
        for name in turn(working, done):
            if reply := ask(name, "round", **calls[name]):
                rows[name]["times"].append(reply["seconds"])
        done += 1
        passed = time.perf_counter() - begin
        watch("time the whole model", min(1, 0.2 + 0.7 * passed / effort.case_s))
        if done >= effort.fewest and passed >= effort.case_s:
            return
