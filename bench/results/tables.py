"""What the rows of runs amount to, as data frames: speedups, duels, scaling with threads, shares of the roofline.

Speedups are of rows of one run: only those were timed in turns. Where several runs hold the same row of the same
machine, the last run given counts.
"""

from collections.abc import Sequence
from functools import cached_property
from itertools import count

import numpy as np
import pandas as pd

from bench.implementations import BESIDE, OURS, RUNGS, base, is_ours
from bench.machine import roofline
from bench.results import latencies
from bench.results.formats import in_order, network, typical
from bench.results.latencies import QUANTILES, quantile
from bench.results.runs import ALIKE, KEY, Run
from bench.results.statistics import Interval, median_interval, paired_ratio, verdict

SCHEMA = [
    *(name for name in KEY if name not in ("model", "activation")),
    "version",
    "status",
    "max_error",
    "loss",
    "compile_s",
    "repeats",
    "median_s",
    "low_s",
    "high_s",
    "p99_s",
    "baseline",
    "speedup",
    "speedup_low",
    "speedup_high",
    "gflops",
    "peak_fraction",
]
TAILS = ["p90_s", "p999_s", "worst_s", "paced_s", "paced_p99_s", "paced_p999_s", "paced_worst_s"]
STREAM = [*TAILS, "paced_calls", "missed", "period_s", "clock_s"]
MORE = [
    "model",
    "activation",
    "verdict",
    "left",
    "overhead_s",
    *STREAM,
    "memory_level",
    "bound_by",
    "calls_to_pay",
    "calls",
    "peak_memory_bytes",
    "flops",
    "bytes",
    "stopped",
    "message",
    "run",
    "machine",
    "host",
    "network",
]
CASE = [name for name in KEY if name != "implementation"]
SPEEDUP = ["speedup", "speedup_low", "speedup_high"]
DUEL = [*CASE, "machine", "network", "against", *SPEEDUP, "verdict", "median_s", "other_s"]
FLOAT32 = f"{OURS}-float32"  # ours in float32, beside a case below it
FULL = ("numpy", "numba-jit", FLOAT32)  # what computes in float32 there
FASTEST = "the fastest other"
VERDICTS = ("faster", "no difference", "slower")
ORDER = (*RUNGS, *BESIDE, "torch", "torch-compile", "jax", "onnxruntime", "openvino")


class Facts:
    """All that a report says and shows: the runs and what they amount to. Runs of one name get a number behind it."""

    def __init__(self, runs: Sequence[Run]):
        self.runs = _told_apart(runs)
        self.rows = table(self.runs)
        self.baseline: str = self.runs[-1].info["baseline"]
        self.machines = list(dict.fromkeys(map(machine_name, self.runs)))

    @cached_property
    def ok(self) -> pd.DataFrame:
        """The rows that have a time."""
        return self.rows[self.rows["median_s"].notna()]

    @cached_property
    def implementations(self) -> list[str]:
        """Those that have a time, in their usual order."""
        order = {name: n for n, name in enumerate(ORDER)}
        names = self.ok["implementation"].unique()
        return sorted(names, key=lambda name: (order.get(base(name), len(order)), base(name), name))

    @cached_property
    def ours(self) -> str:
        """The one that is set against the others: ours, or the first that is not the baseline, or ""."""
        others = [name for name in self.implementations if name != self.baseline]
        return OURS if OURS in self.implementations else next(iter(others), "")

    @cached_property
    def duels(self) -> pd.DataFrame:
        return duels(self.runs, self.ours)

    @cached_property
    def versions(self) -> pd.DataFrame:
        return versions(self.runs)

    @cached_property
    def below(self) -> pd.DataFrame:
        return below(self.runs)

    @cached_property
    def losses(self) -> pd.DataFrame:
        """The duels that ours loses, the worst first."""
        lost = self.duels[(self.duels["verdict"] == "slower") & (self.duels["against"] != FASTEST)]
        return lost.sort_values("speedup")

    @cached_property
    def rooflines(self) -> dict[str, dict]:
        """The limits of each machine that were measured, by its name; of several measurements the last."""
        limits = ((machine_name(run), run.info["machine"].get("roofline")) for run in self.runs)
        return {name: limit for name, limit in limits if limit}

    @cached_property
    def streams(self) -> pd.DataFrame:
        """The rows of streams, whose calls were timed one by one, with `latencies`, their histograms."""
        kept = {
            (machine_name(run), *(row[name] for name in KEY)): row["latencies"]
            for run in self.runs
            for row in run.rows
            if row.get("latencies")
        }
        rows = self.ok[self.ok["p90_s"].notna()]
        keys = rows[["machine", *KEY]].itertuples(index=False, name=None)
        return rows.assign(latencies=[kept[key] for key in keys])

    @cached_property
    def scaling(self) -> pd.DataFrame:
        return scaling(self.ok)

    def varied(self) -> set[str]:
        """Return which of these differ between the rows, so that they must be named."""
        return {name for name in ("cell", "dtype", "threads", "machine") if self.rows[name].nunique() > 1}


def table(runs: Sequence[Run]) -> pd.DataFrame:
    """Return a row for each (case, implementation), DESIGN's columns first; times in seconds a call.

    `speedup` is over the run's baseline. `max_error` is the largest error of an output as a share of its bound, so
    1 or less is right, and `loss`, below float32, the largest error of h against the float64 reference of the weights
    as they were given. `calls_to_pay` is the number of calls after which compiling has paid for itself against the
    baseline, infinite for never: the longest compile time of the operation, over what a call of this case saves.
    `overhead_s` is what a call of a single step takes beyond a step within a long `forward` of the same implementation.
    `p99_s` and its like are of the calls of a stream, back to back, those that begin with `paced` of its calls at a
    fixed pace, of which `missed` were not done in time.
    `left` is the inverse of `peak_fraction`, the share of the bound of `bench.machine.roofline`: how many times as
    fast this row could still become. Both are missing where the roofline of the run's machine is.
    """
    rows = [_row(row, case, run) for run in runs for case in _cases(run) for row in case.values()]
    frame = pd.DataFrame(rows, columns=[*SCHEMA, *MORE])
    # Code is compiled for the first case that needs it: that is what a user pays whose only case is any of these.
    alike = ["run", "machine", "implementation", "cell", "network", "operation", "dtype", "threads"]
    compile_s = frame.groupby(alike)["compile_s"].transform("max").astype(float)
    calls = compile_s / (frame["median_s"] * (frame["speedup"] - 1))
    others = frame["verdict"].isin(VERDICTS) & compile_s.notna()
    frame["calls_to_pay"] = calls.where(frame["verdict"] == "faster", np.inf).where(others)
    return frame.drop_duplicates(["machine", *KEY], keep="last", ignore_index=True)


def duels(runs: Sequence[Run], ours: str) -> pd.DataFrame:
    """Return a row for each (case, other implementation): how many times as fast as that one ours is.

    `against` names the other. Where there are several, a row for `FASTEST` repeats that of the one with the
    least median time; ours in float32, beside a case below it, is an other, but never this one.
    """
    found = []
    for run in runs:
        for case in _cases(run):
            times = {name: row["times"] for name, row in case.items() if row["status"] == "ok"}
            mine = times.pop(ours, None)
            if mine is None or not times:
                continue
            ratios = {name: pair(case[name], case[ours]) for name in times}
            rivals = [name for name in times if not is_ours(name)]
            if len(rivals) > 1:
                fastest = min(rivals, key=lambda name: float(np.median(times[name])))
                ratios[FASTEST], times[FASTEST] = ratios[fastest], times[fastest]
            for name, ratio in ratios.items():
                found.append(_duel(case[ours], name, times[name], ratio, run))
    return pd.DataFrame(found, columns=DUEL).drop_duplicates(["machine", *CASE, "against"], keep="last")


def versions(runs: Sequence[Run]) -> pd.DataFrame:
    """Return a row for each (case, NAME@WHERE): how many times as fast as that version NAME is, as `duels` does."""
    found = []
    for run in runs:
        for case in _cases(run):
            timed = {name: row for name, row in case.items() if row["status"] == "ok"}
            for name, row in timed.items():
                if base(name) != name and base(name) in timed:
                    this = timed[base(name)]
                    found.append(_duel(this, name, row["times"], pair(row, this), run))
    return pd.DataFrame(found, columns=DUEL).drop_duplicates(["machine", *CASE, "against"], keep="last")


def below(runs: Sequence[Run]) -> pd.DataFrame:
    """Return a row for each (case, implementation) below float32 that has a time, as our own float32 has.

    `speedup` is over that, `loss` the largest error of a state. What computes in float32 is left out.
    """
    found = []
    for run in runs:
        for case in _cases(run):
            timed = {name: row for name, row in case.items() if row["status"] == "ok"}
            for name, row in timed.items():
                if FLOAT32 in timed and name not in FULL and row.get("loss") is not None:
                    ratio = pair(timed[FLOAT32], row)
                    about = {column: row[column] for column in KEY} | {"machine": machine_name(run)}
                    found.append(about | _speedup(ratio) | {"verdict": verdict(ratio), "loss": row["loss"]})
    columns = [*KEY, "machine", *SPEEDUP, "verdict", "loss"]
    return pd.DataFrame(found, columns=columns).drop_duplicates(["machine", *KEY], keep="last")


def _duel(row: dict, against: str, theirs: Sequence[float], ratio: Interval, run: Run) -> dict:
    """Return a row of `duels`."""
    about = {name: row[name] for name in CASE} | {"machine": machine_name(run), "network": network(row)}
    medians = {"median_s": np.median(row["times"]), "other_s": np.median(theirs)}
    return {**about, "against": against, **_speedup(ratio), "verdict": verdict(ratio), **medians}


def scaling(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that have more threads than the fewest of their case, with `times`, how many times as fast.

    `few` is that fewest number, `few_s` its time. Thread counts did not take turns, so this is a ratio of medians,
    without an interval.
    """
    alike = ["machine", *(name for name in KEY if name != "threads")]
    fewest = rows.loc[rows.groupby(alike)["threads"].idxmin(), [*alike, "threads", "median_s"]]
    fewest = fewest.rename(columns={"threads": "few", "median_s": "few_s"})
    more = rows.merge(fewest, on=alike)
    more = more[more["threads"] > more["few"]]
    return more.assign(times=more["few_s"] / more["median_s"])


def by_kind(duels: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each kind of case and other implementation: `mean`, `typical` and how often ours is what.

    `mean` is the geometric mean, `typical` what may be said of it.
    `kind` names what the cases have in common, a column of `duels` and its value in `value`, for all columns of which
    there are several values; all cases together come first.
    """
    kinds = ["machine", "cell", "network", "operation", "batch_size", "threads", "dtype"]
    groups = [("all", "all cases", duels)]
    for kind in kinds:
        if duels[kind].nunique() > 1:
            groups += [
                (kind, value, duels[duels[kind] == value]) for value in sorted(duels[kind].unique(), key=in_order)
            ]
    found = []
    for kind, value, group in groups:
        for against, of in group.groupby("against"):
            counts = of["verdict"].value_counts()
            found.append(
                {"kind": kind, "value": value, "against": against}
                | {"mean": float(np.exp(np.log(of["speedup"]).mean())), "typical": typical(of["speedup"])}
                | {name: int(counts.get(name, 0)) for name in VERDICTS}
            )
    return pd.DataFrame(found, columns=["kind", "value", "against", "mean", "typical", *VERDICTS])


def machine_name(run: Run) -> str:
    """Return what tells the machine of a run from others in a line: CPU, cores, vectors, and its name if it must."""
    machine = run.info["machine"]
    simd = (machine.get("simd") or {}).get("name")
    cores = machine.get("cores") or machine.get("logical_cpus")
    counted = f"{cores} core{'s' if cores != 1 else ''}" if cores else None
    kind = ", ".join(filter(None, [machine.get("cpu"), counted, simd])) or "unknown machine"
    return f"{_host(run)}: {kind}" if run.info.get("by name") else kind


def _told_apart(runs: Sequence[Run]) -> list[Run]:
    """Return the runs with names that are all different, and machines that are alike by their names as well."""
    hosts: dict[str, set] = {}
    for run in runs:
        hosts.setdefault(machine_name(run), set()).add(_host(run))
    found: dict[str, Run] = {}
    for run in runs:
        apart = len(hosts[machine_name(run)]) > 1 and _host(run) is not None
        base = name = run.info["name"]
        copies = count(2)
        while name in found:
            name = f"{base} ({next(copies)})"
        found[name] = Run(run.folder, run.info | {"name": name, "by name": apart}, run.rows)
    return list(found.values())


def _host(run: Run) -> str | None:
    """Return the name of a run's machine, or the run's own where machines that are alike shared it."""
    host = run.info.get("host")
    return run.info["name"] if host == ALIKE else host


def _cases(run: Run) -> list[dict[str, dict]]:
    """Return the run's rows by case, each by implementation, the baseline among them."""
    cases: dict[tuple, dict[str, dict]] = {}
    for row in run.rows:
        cases.setdefault(tuple(row[name] for name in CASE), {})[row["implementation"]] = row
    return list(cases.values())


def _row(row: dict, case: dict[str, dict], run: Run) -> dict:
    """Return a row of `table`."""
    baseline = run.info["baseline"]
    columns = {name: row.get(name) for name in [*SCHEMA, *MORE] if name in row}
    columns |= {"baseline": baseline, "repeats": len(row["times"]), "run": run.info["name"]}
    columns |= {"machine": machine_name(run), "network": network(row)}
    if row["status"] != "ok" or not row["times"]:
        return columns
    median, low, high = median_interval(row["times"])
    columns |= {"median_s": median, "low_s": low, "high_s": high, "gflops": row["flops"] / median / 1e9}
    columns |= tail(row)
    if row.get("inside_s"):
        columns["overhead_s"] = max(median - row["inside_s"], 0.0)
    if limits := run.info["machine"].get("roofline"):
        bounds = roofline.bounds_s(row, limits)
        by = max(bounds, key=lambda name: np.nan_to_num(bounds[name]))
        bound, level = float(np.max(list(bounds.values()))), roofline.holding_level(row, limits)
        columns |= {"peak_fraction": bound / median, "left": median / bound, "memory_level": level, "bound_by": by}
    base = case.get(baseline)
    if base and base["status"] == "ok" and base["times"]:
        ratio = Interval(1, 1, 1) if row is base else pair(base, row)
        columns |= {**_speedup(ratio), "verdict": "baseline" if row is base else verdict(ratio)}
    return columns


def tail(row: dict) -> dict[str, float | None]:
    """Return how long the calls of a stream took, back to back and at a fixed pace; nothing of other operations."""
    found = row.get("latencies") or {}
    columns: dict[str, float | None] = {}
    if steady := found.get("steady"):
        columns |= {f"{name}_s": quantile(steady, QUANTILES[name]) for name in ("p90", "p99", "p999")}
        columns["worst_s"] = steady["worst_s"]
    if paced := found.get("paced"):
        columns |= {f"paced_{name}_s": quantile(paced, QUANTILES[name]) for name in ("p99", "p999")}
        columns |= {"paced_s": quantile(paced, 0.5), "paced_worst_s": paced["worst_s"]}
        columns["paced_calls"] = latencies.calls(paced)
    return columns | {name: found.get(name) for name in ("missed", "period_s", "clock_s")}


def pair(base: dict, row: dict) -> Interval:
    """Return how many times as fast as the row `base` another of the same case and run is."""
    return paired_ratio(base["times"], row["times"], min(base["lives"], row["lives"]))


def _speedup(ratio: Interval) -> dict[str, float]:
    return dict(zip(SPEEDUP, ratio, strict=True))
