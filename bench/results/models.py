"""What the rows of models amount to: who is the fastest in each layer, in all together, and what it brings the whole.

A model is a name in rows: a network that people run (preset `models`), or a layer of a file (`--model`). The latter's
layers are told together as well, each as often as a run of the whole calls it, by whoever has a time for all of them;
and where runtimes took the whole model, its time, the share that ONNX Runtime's recurrent layers have in it, and what
the fastest in their place would make of it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from bench.implementations import BESIDE
from bench.results.formats import network
from bench.results.runs import Run
from bench.results.statistics import Interval, paired_ratio, sums_ratio
from bench.results.tables import CASE, machine_name

SHARED = ["operation", "dtype", "threads"]  # what the layers that are told together have in common


class Race(NamedTuple):
    """Who was the fastest of those who computed the same, and by how much."""

    seconds: dict[str, float]  # medians by implementation, the fastest first
    ratio: Interval | None  # how many times as fast the first is as the second; None: there is none
    loss: float | None  # of the first, below float32

    @property
    def first(self) -> str:
        return next(iter(self.seconds))

    @property
    def second(self) -> str | None:
        return next(iter(list(self.seconds)[1:]), None)


class Whole(NamedTuple):
    """A whole model with a number of threads."""

    seconds: dict[str, float]  # medians by runtime, the fastest first
    ratio: Interval | None  # how many times as fast the first is as the second
    share: float | None  # of ONNX Runtime's time that its recurrent layers have
    gain: float | None  # how many times as fast it were with the fastest of all in the place of those measured
    failed: dict[str, str]  # why a runtime has no time
    within: float | None = None  # seconds of ONNX Runtime's time that the measured layers have
    longer: dict[str, float] = {}  # noqa: RUF012 - seconds of the layers together, of runtimes whose whole takes less


def layers(run: Run) -> pd.DataFrame:
    """Return a row for each case of a model with a time: its columns, `machine`, `network` and `race`."""
    found = []
    for rows in _by_case(run):
        if race := _race([rows]):
            about = {name: rows[0][name] for name in CASE}
            found.append(about | {"machine": machine_name(run), "network": network(rows[0]), "race": race})
    return pd.DataFrame(found, columns=[*CASE, "machine", "network", "race"])


def together(run: Run) -> dict[tuple, Race]:
    """Return the race over the layers of a file that a run of the whole calls, by what they share: see `SHARED`."""
    if not run.info.get("model"):
        return {}
    groups: dict[tuple, list] = {}
    for rows in _by_case(run):
        if calls(run, rows[0]["model"]):
            groups.setdefault(tuple(rows[0][name] for name in SHARED), []).append(rows)
    weights = {shared: [calls(run, rows[0]["model"]) or 0 for rows in group] for shared, group in groups.items()}
    return {shared: race for shared, group in groups.items() if (race := _race(group, weights[shared]))}


def calls(run: Run, layer: str) -> int | None:
    """Return how often a run of the whole file calls a layer of it; None: nobody knows."""
    return ((run.info.get("model") or {}).get("calls") or {}).get(layer, 1)


def whole(run: Run) -> dict[int, Whole]:
    """Return what is known of the whole model of a file, by the number of threads."""
    races = together(run)
    counted = {name for name in _names(run) if calls(run, name)}
    return {
        int(threads): _whole(found, races.get(("forward", "float32", int(threads))), counted)
        for threads, found in sorted((run.info.get("whole") or {}).items(), key=lambda item: int(item[0]))
    }


def _whole(found: dict[str, dict], race: Race | None, measured: set[str]) -> Whole:
    times = {name: row["times"] for name, row in found.items() if row["status"] == "ok" and row["times"]}
    seconds = _sorted({name: float(np.median(rounds)) for name, rounds in times.items()})
    first = list(seconds)[:2]
    ratio = paired_ratio(times[first[1]], times[first[0]]) if len(first) > 1 else None
    share = gain = within = None
    profile = (found.get("onnxruntime") or {}).get("recurrent") or {}
    if profile.get(""):
        share = min(1.0, sum(value for name, value in profile.items() if name) / profile[""])
        within = sum(value for name, value in profile.items() if name in measured)
        mine = within / profile[""]
        if race and "onnxruntime" in race.seconds and measured <= profile.keys() and mine <= 1:
            gain = 1 / (1 - mine + mine * race.seconds[race.first] / race.seconds["onnxruntime"])
    failed = {name: f"{row['status']}: {row['message']}" for name, row in found.items() if row["status"] != "ok"}
    longer = {name: race.seconds[name] for name in seconds if race and race.seconds.get(name, 0) > seconds[name]}
    return Whole(seconds, ratio, share, gain, failed, within, longer)


def _names(run: Run) -> list[str]:
    return list(dict.fromkeys(row["model"] for row in run.rows))


def _by_case(run: Run) -> list[list[dict]]:
    """Return the rows of each case that is of a model."""
    cases: dict[tuple, list[dict]] = {}
    for row in run.rows:
        if row["model"]:
            cases.setdefault(tuple(row[name] for name in CASE), []).append(row)
    return list(cases.values())


def _race(cases: Sequence[list[dict]], weights: Sequence[int] = (1,)) -> Race | None:
    """Return the race of those who have a time in all of the cases, each so many times, or None if nobody has."""
    by_name = [
        {row["implementation"]: row for row in rows if row["status"] == "ok" and row["implementation"] not in BESIDE}
        for rows in cases
    ]
    names = [name for name in by_name[0] if all(name in rows for rows in by_name)]
    if not names:
        return None
    times = {
        name: [weight * np.asarray(rows[name]["times"]) for rows, weight in zip(by_name, weights, strict=True)]
        for name in names
    }
    seconds = _sorted({name: float(sum(np.median(one) for one in times[name])) for name in names})
    first, *others = seconds
    ratio = None
    if others:
        lives = [min(rows[first]["lives"], rows[others[0]]["lives"]) for rows in by_name]
        both = times[others[0]], times[first]
        one = both[0][0], both[1][0]
        ratio = paired_ratio(*one, lives=lives[0]) if len(cases) == 1 else sums_ratio(*both)
    losses = [rows[first]["loss"] for rows in by_name if rows[first].get("loss") is not None]
    return Race(seconds, ratio, max(losses, default=None))


def _sorted(seconds: dict[str, float]) -> dict[str, float]:
    return dict(sorted(seconds.items(), key=lambda item: item[1]))
