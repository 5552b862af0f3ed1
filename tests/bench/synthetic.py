"""Runs made up for the tests of the report: times with known ratios, noise, and drift common to all."""

from itertools import product

import numpy as np

from bench.grid.cases import STEPS, Case
from bench.results.latencies import gather
from bench.results.runs import Run

SPEEDUPS = {"numpy": 1.0, "numba-jit": 1.3, "numba-simd": 4.0, "torch": 0.8}
# Below float32.
LOW_SPEEDUPS = {"numpy": 1.0, "numba-simd-float32": 4.0, "numba-simd": 10.0, "torch": 3.0, "onnxruntime": 6.0}
LOSSES = {"numba-simd": 0.012, "torch": 0.02, "onnxruntime": 0.03}
LOW = {"operation": ["forward"], "dtype": ["int8", "bfloat16"], "speedups": LOW_SPEEDUPS, "losses": LOSSES}
CHAINS = {"rnn": 2e-8, "gru": 4e-8, "lstm": 5e-8, "back": 1e-9}
ROOFLINE = {
    "measured": "2026-01-02T03:04:05+00:00",
    "levels": {"L1": 2**15, "L2": 2**20, "L3": 2**25},
    "rates": [
        {"dtype": dtype, "threads": threads, "gflops": peak * threads, "bytes_per_s": bandwidths, "chains": CHAINS}
        for dtype, peak in (("float32", 100.0), ("float64", 50.0), ("int8", 400.0), ("bfloat16", 60.0))
        for threads, bandwidths in (
            (1, {"L1": 2e11, "L2": 1e11, "L3": 2e10, "memory": 1e10}),
            (2, {"L1": 4e11, "L2": 2e11, "L3": 3e10, "memory": 1e10}),
        )
    ],
}
MACHINE = {
    "cpu": "Imaginary 9000 16-Core Processor",
    "cores": 16,
    "logical_cpus": 32,
    "caches": {"L1d": 2**15, "L2": 2**20, "L3": 2**25},
    "memory_bytes": 24 * 2**30,
    "os": "Linux-6.1.0-x86_64-with-glibc2.36",
    "python": "3.12.1",
    "governor": None,
    "simd": {"name": "AVX-512", "bits": 512},
    "load_average": [0.1, 0.2, 0.3],
    "blas": [{"internal_api": "openblas", "version": "0.3.30", "architecture": "SkylakeX"}],
    "versions": {"numpy": "2.4.6", "numba": "0.68.1"},
    "roofline": ROOFLINE,
    "warnings": [],
}


def make_run(
    folder,
    *,
    speedups=SPEEDUPS,
    losses=None,
    seed=0,
    rounds=15,
    noise=0.02,
    drift=0.02,
    machine=None,
    absent=(),
    **grid,
):
    """Return a run of a grid of cases, whose implementations are `speedups` times as fast as numpy.

    A speedup may be a function of the row. `noise` is that of each round, `drift` that of the machine between rounds,
    both as shares. Large cases gain by threads. `grid` takes lists: cell, operation, hidden_size, seq_len, batch_size,
    dtype, threads, layers, directions, lengths, activation. `losses` are the largest in int8 by implementation; what
    is not there computes in float32.
    """
    rng = np.random.default_rng(seed)
    grid = {
        "cell": ["rnn"],
        "operation": ["forward_step", "forward", "bptt", "train"],
        "hidden_size": [16, 64, 256],
        "seq_len": [10, 50],
        "batch_size": [1, 32],
        "dtype": ["float32"],
        "threads": [1],
        "layers": [1],
        "directions": [1],
        "lengths": ["full"],
        "model": [""],
        "activation": ["tanh"],
    } | grid
    rows = []
    for values in product(*grid.values()):
        case = dict(zip(grid, values, strict=True))
        if case["operation"] == "forward_step":
            if case["seq_len"] != grid["seq_len"][0]:
                continue
            case["seq_len"] = 1
        case["input_size"] = 1 if case["batch_size"] == 1 else case["hidden_size"]
        slow = np.exp(np.cumsum(rng.normal(0, drift, rounds)))
        for name, speedup in speedups.items():
            row = case | {"implementation": name}
            row |= _timed(row, speedup(row) if callable(speedup) else speedup, slow, rng, noise)
            if losses is not None and case["dtype"] in ("int8", "bfloat16"):
                finer = 1 if case["dtype"] == "int8" else 8
                row["loss"] = losses.get(name, 1e-7) * case["hidden_size"] / max(grid["hidden_size"]) / finer
            rows.append(row)
        for name in absent:
            untimed = {"status": "absent", "message": "not installed", "version": None, "times": [], "calls": None}
            rows.append(_timed(case, 1, slow, rng, noise) | case | {"implementation": name, **untimed, "errors": {}})
    info = {
        "preset": "synthetic",
        "command": "python -m bench run --preset synthetic",
        "grid": {},
        "seed": 0,
        "baseline": "numpy",
        "machine": MACHINE | (machine or {}),
        "implementations": {
            name: {"version": "1.0", "status": "ok", "message": None, "contains": f"What {name} does."}
            for name in speedups
        }
        | {name: {"version": None, "status": "absent", "message": "not installed"} for name in absent},
    }
    run = Run.create(folder, info)
    if rows:
        run.append(*rows)
    run.finish()
    run.unlock()
    return run


def _latencies(seconds, rng):
    """Return those of a stream whose median call takes so many seconds."""
    steady = seconds * 1e9 * np.exp(rng.exponential(0.1, 20_000))
    paced = 2 * seconds * 1e9 * np.exp(rng.exponential(0.3, 1000))
    found = {"steady": gather(steady.astype(int)), "paced": gather(paced.astype(int))}
    return found | {"missed": int((paced > 1e6).sum()) + 1, "period_s": 0.001, "clock_s": 6e-8}


def _timed(row, speedup, slow, rng, noise):
    case = Case(**{name: row[name] for name in Case.__dataclass_fields__})
    seconds = (3e-6 * case.seq_len + case.flops / 1.5e10) / speedup
    if case.flops > 1e6:
        seconds /= case.threads**0.7
    if case.operation == "stream":
        seconds = 3e-6 / speedup
    times = seconds * slow * np.exp(rng.normal(0, noise, len(slow)))
    return {
        "version": "1.0",
        "status": "ok",
        "message": None,
        "max_error": 0.1,
        "loss": 0.004 if case.low else None,
        "errors": {"hs": {"error": 1e-6, "bound": 1e-5}, "params.U": {"error": 2e-7, "bound": 2e-5}},
        "compile_s": float(rng.lognormal(-1, 0.5)) if row.get("implementation") != "numpy" else 1e-5,
        "calls": 3,
        "times": times.tolist(),
        "lives": 1,
        "stopped": "precision",
        "peak_memory_bytes": 150 * 2**20,
        "flops": case.flops,
        "bytes": case.bytes,
        "inside_s": seconds / 3 if case.operation in STEPS else None,
        "latencies": _latencies(seconds, rng) if case.operation == "stream" else None,
    }
