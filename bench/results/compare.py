"""What changed from one run to another, row by row, in words.

The rounds of two runs were not taken in turns, so their times differ by whatever the machine did in between: 10 to
30 % is usual, a factor of three has been seen on a shared one. Within a run, an implementation and the baseline did
take turns. So each implementation is compared by its speedup over the baseline, new over old, with a bootstrap
interval that resamples both runs apart. The baseline's own times are compared as they are, and what they say counts
only if it changed against every other implementation beside it as well, two at least.

Rounds of one process cannot see what differs between processes (where memory came to lie, what else was loaded), so
an interval that excludes 1 is not enough. A change must also be at least `threshold`, and beyond what the peers do:
libraries of the same version in both runs, whose changes against one another can only be noise. A change within three
standard deviations of theirs is "no difference".
"""

from textwrap import shorten
from typing import NamedTuple

import numpy as np
import pandas as pd
from rich.table import Table
from rich.text import Text
from scipy import stats

from bench.grid.cases import ChoiceError, harmless
from bench.implementations import BESIDE, RUNGS, base
from bench.results.formats import network, seconds, short
from bench.results.runs import KEY, Run, key
from bench.results.statistics import Interval, ratio_of_medians, round_ratios, verdict
from bench.results.tables import machine_name, pair

THRESHOLD = 0.05
DRIFT = 0.3  # up to which a baseline's times may differ where there is nothing beside it
ENOUGH_PEERS = 6  # rows of unchanged libraries, from which on their changes tell the noise

SAME, INCOMPARABLE = "no difference", "not comparable"
COLUMNS = [*KEY, "old_s", "new_s", "change", "change_low", "change_high", "relative_to", "verdict", "why"]


class Sides(NamedTuple):
    """What is set against each other in a row: the speedups over the baseline of both runs, or their times."""

    old: np.ndarray
    new: np.ndarray


def compare(old: Run, new: Run, threshold: float = THRESHOLD) -> pd.DataFrame:
    """Return a row for each (case, implementation) of either run.

    Columns: those of `bench.results.runs.KEY`; `old_s`, `new_s`, median times in seconds a call; `change`,
    `change_low`, `change_high`, how many times as fast the new one is; `relative_to`, the baseline, or "" where the
    times themselves are compared; `verdict`: faster, slower, no difference or not comparable; `why`.
    """
    before, after = {key(row): row for row in old.rows}, {key(row): row for row in new.rows}
    found = []
    for name in dict.fromkeys([*before, *after]):
        row: dict = dict(zip(KEY, name, strict=True))
        for column, rows in (("old_s", before), ("new_s", after)):
            times = rows[name]["times"] if name in rows else None
            row[column] = float(np.median(times)) if times else np.nan
        if why := _obstacle(name, before, after, old, new):
            row |= {"verdict": INCOMPARABLE, "why": why}
        else:
            relative = name[-1] != old.info["baseline"]
            row["relative_to"] = old.info["baseline"] if relative else ""
            sides = _sides(name, before, after, old.info["baseline"]) if relative else _times(name, before, after)
            row |= zip(["change", "change_low", "change_high"], ratio_of_medians(*sides), strict=True)
        found.append(row)

    floor = max(threshold, noise(pd.DataFrame(found, columns=COLUMNS)))
    beside: dict[tuple, list[str]] = {}  # the verdicts on the other implementations of a case
    for row in (row for row in found if row.get("relative_to")):
        row["verdict"], row["why"] = _judge(_change(row), floor)
        beside.setdefault(_case(row), []).append(row["verdict"])
    for row in (row for row in found if row.get("relative_to") == ""):
        row["verdict"], row["why"] = _judge_baseline(_change(row), floor, beside.get(_case(row), []))
    return pd.DataFrame(found, columns=COLUMNS)


def versions(run: Run, version: str, threshold: float = THRESHOLD) -> pd.DataFrame:
    """Return what `compare` does, of NAME@WHERE as the old and NAME as the new one in a single run.

    They took turns, so that their times are compared as such, round by round.
    """
    before = {key(row)[:-1]: row for row in run.rows if row["implementation"] == version}
    after = {key(row)[:-1]: row for row in run.rows if row["implementation"] == base(version)}
    found = []
    for case in dict.fromkeys([*before, *after]):
        row: dict = dict(zip(KEY, (*case, base(version)), strict=True)) | {"relative_to": version}
        was, now = before.get(case), after.get(case)
        for column, side in (("old_s", was), ("new_s", now)):
            row[column] = float(np.median(side["times"])) if side and side["times"] else np.nan
        if was is None or now is None:
            row |= {"verdict": INCOMPARABLE, "why": f"no row of {version if was is None else base(version)}"}
        elif why := _missing(was, now, f"in {version}", "in both versions"):
            row |= {"verdict": INCOMPARABLE, "why": why}
        else:
            row |= zip(["change", "change_low", "change_high"], pair(was, now), strict=True)
            row["verdict"], row["why"] = _judge(_change(row), threshold)
        found.append(row)
    return pd.DataFrame(found, columns=COLUMNS)


def noise(frame: pd.DataFrame) -> float:
    """Return the share by which unchanged libraries moved apart: three standard deviations, robustly estimated.

    A move of all alike is the baseline's, and no noise. Too few rows of them give 0.
    """
    peers = frame.loc[~frame["implementation"].map(base).isin([*RUNGS, *BESIDE]) & frame["change"].notna(), "change"]
    if len(peers) < ENOUGH_PEERS:
        return 0.0
    return float(np.expm1(3 * stats.median_abs_deviation(np.log(peers), scale="normal")))


def regressions(frame: pd.DataFrame, fail_on: float) -> pd.DataFrame:
    """Return the rows that are slower by more than `fail_on`, as a share, and those that no longer work.

    The baseline's times do not count: a busy machine alone can move them.
    """
    slower = (frame["verdict"] == "slower") & (frame["relative_to"] != "") & (frame["change"] < 1 / (1 + fail_on))
    return frame[slower | _broken(frame)]


def incomparable(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that nothing can be said of, but for those that have no time in either run, or no longer work."""
    silent = (frame["verdict"] == INCOMPARABLE) & frame["change"].isna()
    return frame[silent & ~_broken(frame) & ~_nowhere(frame)]


def expect_comparable(frame: pd.DataFrame, all_rows: bool) -> None:
    """Raise a ChoiceError if no row can be compared, or not `all_rows`, as --require-all asks."""
    left = incomparable(frame)
    reason = f": {left['why'].value_counts().index[0]}" if len(left) else ""
    if not (frame["change"].notna() | _broken(frame)).any():
        raise ChoiceError(f"compare: expected rows that can be compared, got none of {len(frame)}{reason}")
    if all_rows and len(left):
        raise ChoiceError(f"--require-all: expected all {len(frame)} rows, got {len(left)} not comparable{reason}")


def _broken(frame: pd.DataFrame) -> pd.Series:
    return frame["why"].str.startswith("no longer works")


def _nowhere(frame: pd.DataFrame) -> pd.Series:
    return frame["why"].str.fullmatch(r"(unsupported|absent) in both \w+")


def tables(frame: pd.DataFrame, threshold: float = THRESHOLD) -> list[Table]:
    """Return what the terminal shows: the counts by implementation, what cannot be compared and why, what changed.

    The caption says which noise was found.
    """
    counts = pd.crosstab(frame["implementation"], frame["verdict"])
    summary = Table("Implementation", *counts.columns, title="Verdicts")
    for name, of in counts.iterrows():
        summary.add_row(Text(str(name)), *map(str, of))
    floor = noise(frame)
    summary.caption = f"A change counts from {max(threshold, floor):.0%} on."
    if floor:
        summary.caption += f" Unchanged libraries moved by up to {floor:.1%}."

    found, left = [summary], incomparable(frame)
    if len(left):
        reasons = Table("Rows", "Why", "Such as", title="Not comparable")
        for why, of in sorted(left.groupby("why"), key=lambda group: -len(group[1])):
            first = next(of.itertuples())
            reasons.add_row(
                str(len(of)), Text(harmless(shorten(why, 100))), Text(f"{_named(first)} {first.implementation}")
            )
        found.append(reasons)
    changed = frame.drop(index=left.index)
    changed = changed[(changed["verdict"] != SAME) & ~_nowhere(changed)].sort_values("change", na_position="last")
    if changed.empty:
        return found
    rows = Table("Case", "Implementation", "Old", "New", "Times as fast", "Verdict", title="Changes")
    colours = {"faster": "green", "slower": "red"}
    for row in changed.itertuples():
        change = "" if pd.isna(row.change) else f"{row.change:.2f}"
        if pd.notna(row.change_low):
            change += f" ({short(row.change_low)} – {short(row.change_high)})"
        said = f"{row.verdict}: {shorten(row.why, 100)}" if row.why else row.verdict
        rows.add_row(
            _named(row),
            Text(row.implementation),
            *("" if pd.isna(time) else seconds(time) for time in (row.old_s, row.new_s)),
            change,
            Text(harmless(said), style=colours.get(row.verdict, "yellow")),
        )
    return [*found, rows]


def _named(row) -> str:
    """Return a row's case in words."""
    sizes = f"H{row.hidden_size} I{row.input_size} T{row.seq_len} B{row.batch_size}"
    case = " ".join(filter(None, (row.cell, network(row._asdict()), row.operation, sizes)))
    return f"{case} {row.dtype} {row.threads}t"


def _obstacle(name: tuple, before: dict, after: dict, old: Run, new: Run) -> str | None:
    """Return why a row cannot be compared, or None."""
    if name not in after or name not in before:
        return f"not in the {'new' if name not in after else 'old'} run"
    was, now = before[name], after[name]
    if why := _missing(was, now, "in the old run", "in both runs"):
        return why
    if machine_name(old) != machine_name(new):
        return f"another machine: {machine_name(old)} / {machine_name(new)}"
    if was["version"] != now["version"]:
        return f"other versions: {was['version']} / {now['version']}"

    baseline = old.info["baseline"]
    if new.info["baseline"] != baseline:
        return f"other baselines: {baseline} / {new.info['baseline']}"
    bases = [rows.get((*name[:-1], baseline)) for rows in (before, after)]
    if any(base is None or base["status"] != "ok" for base in bases):
        return f"no time of {baseline} beside it"
    versions = [base["version"] for base in bases if base]
    if versions[0] != versions[1]:
        return f"other versions of {baseline}: {versions[0]} / {versions[1]}"
    return None


def _missing(was: dict, now: dict, old: str, both: str) -> str | None:
    """Return which of two rows has no time, and why, or None."""
    if was["status"] != "ok" and now["status"] != "ok":
        return f"{now['status']} {both}"
    if now["status"] != "ok":
        return f"no longer works: {now['status']}" + (f", {now['message']}" if now["message"] else "")
    return f"{was['status']} {old}" if was["status"] != "ok" else None


def _sides(name: tuple, before: dict, after: dict, baseline: str) -> Sides:
    base = (*name[:-1], baseline)
    return Sides(*(round_ratios(rows[base]["times"], rows[name]["times"]) for rows in (before, after)))


def _times(name: tuple, before: dict, after: dict) -> Sides:
    """Return calls a second, which grow as speedups do."""
    return Sides(*(1 / np.array(rows[name]["times"]) for rows in (before, after)))


def _judge(change: Interval, floor: float) -> tuple[str, str]:
    """Return the verdict on a change and why."""
    found = verdict(change)
    if found != SAME and not 1 / (1 + floor) <= change.median <= 1 + floor:
        return found, ""
    return SAME, "" if found == SAME else f"less than {floor:.0%}"


def _judge_baseline(change: Interval, floor: float, beside: list[str]) -> tuple[str, str]:
    """Return the verdict on a baseline's change of time and why, given the verdicts on the others in its case."""
    found, why = _judge(change, floor)
    if found == SAME:
        return found, why
    if len(beside) > 1:
        opposite = {"faster": "slower", "slower": "faster"}[found]
        return (found, "") if set(beside) == {opposite} else (SAME, "the others moved with it")
    if 1 / (1 + DRIFT) <= change.median <= 1 + DRIFT:
        return SAME, f"less than {DRIFT:.0%}, with too little beside it"
    return INCOMPARABLE, "too little beside it to tell a change from the machine's drift"


def _change(row: dict) -> Interval:
    return Interval(row["change"], row["change_low"], row["change_high"])


def _case(row: dict) -> tuple:
    return tuple(row[name] for name in KEY[:-1])
