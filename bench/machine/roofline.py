"""The roofline: how fast this machine could do a row at best, from what `bench.machine.peaks` measured of it.

A row's bound is the longest of three times.

- Its operations, at the FMA peak (Williams, Waterman and Patterson 2009, "Roofline").
- Its bytes, each at the bandwidth of the memory that it can lie in: caches are filled from the fastest on, first with
  a recurrent matrix W, which is read in every step and of which so much stays, then with all that a call touches once.
  So a W that is a little larger than a cache is read from there but for the rest. Caches of a core hold as much for
  each thread, the last one is shared by all. In a network each layer and direction can pass through all steps before
  the next.
- Its steps, one after the other: a step's state is a product with the last one, and what the cell makes of it. How long
  that takes for a single vector of units, in which nothing else is to be done, was measured for each cell. The way back
  has a product and a sum in each step at least.

Operations, bytes and steps are those of `bench.grid.cases.Case`. The share of the bound, `peak_fraction`, is the bound
over the measured time; its inverse says how many times as fast the row could still become. Rates are measured again
beside the rounds, between two cases and up to six times a minute, and the best of two minutes counts: a machine whose
clock moves is told by what it does at the time. What lies in memory is taken to be as fast as it was. Where a row is
faster than its bound by more than the noise of measuring it, all are measured again at once, the memory as well; if it
still is, the report says that the bound does not hold. For a call of a
single step the bound is that of the step, and what the call takes beside it is told apart (`overhead_s`).
"""

from collections.abc import Callable, Collection

import numpy as np
import pandas as pd

from bench.grid.cases import GATES, Case

MEMORY = "memory"
BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "int8": 1}  # of a weight
BACK = "back"  # the chain of a step of BPTT
NOISE = 0.1  # by which two measurements of a machine's limits differ


def bound_s(row: dict, roofline: dict) -> float:
    """Return the least seconds in which the machine could do a row of a run, NaN where the rates were not measured.

    Between the numbers of threads that were measured, rates are interpolated.
    """
    return float(np.max(list(bounds_s(row, roofline).values())))


def bounds_s(row: dict, roofline: dict) -> dict[str, float]:
    """Return the least seconds of a row's operations, of its bytes and of its steps one after the other."""
    limits = beside(row, roofline)
    peak, _ = ceilings(limits, row["dtype"], row["threads"], MEMORY)
    return {"operations": row["flops"] / peak, "bytes": _moving_s(row, limits), "steps": chain_s(row, limits)}


def beside(row: dict, roofline: dict) -> dict:
    """Return the roofline with the rates that were measured beside a row's rounds, where there are some."""
    found = row.get("limits")
    if not found:
        return roofline
    rates = []
    for rate in roofline["rates"]:
        if (rate["dtype"], rate["threads"]) == (row["dtype"], row["threads"]):
            rate = rate | found | {"bytes_per_s": rate["bytes_per_s"] | found["bytes_per_s"]}
        rates.append(rate)
    return roofline | {"rates": rates}


def chain_s(row: dict, roofline: dict) -> float:
    """Return the seconds that a row's steps take one after the other, 0 where that was not measured."""
    ahead, back = _case(row).chain

    def each(kind: str) -> float:
        return _rate(roofline, row["dtype"], row["threads"], lambda rate: (rate.get("chains") or {}).get(kind))

    found = [steps * each(kind) for kind, steps in ((row["cell"], ahead), (BACK, back)) if steps]
    return float(np.nan_to_num(sum(found)))


def _case(row: dict) -> Case:
    return Case(**{name: row[name] for name in Case.__dataclass_fields__})


def _moving_s(row: dict, roofline: dict) -> float:
    """Return the seconds that a row's bytes take."""
    walks = _case(row).walks
    recurrent = sum(times * _reading_s(size, row, roofline) for size, times in walks)
    most = max(size for size, _ in walks)
    once = max(row["bytes"] - sum(size * times for size, times in walks), 0)
    return recurrent + _reading_s(most + once, row, roofline) - _reading_s(most, row, roofline)


def _reading_s(size: float, row: dict, roofline: dict) -> float:
    """Return the seconds to read so many bytes, as many as can from each cache, the fastest first."""
    found, names = 0.0, levels(roofline, [row["dtype"]])
    for name in names:
        held = size if name == MEMORY else min(size, _room(name, row["threads"], roofline))
        found += held / ceilings(roofline, row["dtype"], row["threads"], name)[1] if held else 0
        size -= held
    return found if names else np.nan


def _room(level: str, threads: int, roofline: dict) -> float:
    """Return how much a cache holds for so many threads."""
    return roofline["levels"][level] * (1 if level == list(roofline["levels"])[-1] else threads)


def table(roofline: dict) -> pd.DataFrame:
    """Return a row for each dtype and number of threads: the FMA peak and the bandwidth of each level, as texts."""
    rates = roofline["rates"]
    return pd.DataFrame(
        {
            "dtype": [rate["dtype"] for rate in rates],
            "Threads": [rate["threads"] for rate in rates],
            "FMA peak": [f"{rate['gflops']:.0f} {unit(rate['dtype'])}" for rate in rates],
        }
        | {level: [_bandwidth(rate["bytes_per_s"].get(level)) for rate in rates] for level in levels(roofline)}
    )


def unit(dtype: str) -> str:
    """Return what billions of operations a second are called."""
    return "Gop/s" if dtype == "int8" else "GFLOP/s"


def _bandwidth(rate: float | None) -> str:
    return "–" if rate is None else f"{rate / 1e9:.0f} GB/s"


def chains(roofline: dict) -> pd.DataFrame:
    """Return a row for each dtype in full precision: how long a step of each cell takes at least, as texts."""
    rates = [rate for rate in roofline["rates"] if rate["threads"] == 1 and rate.get("chains")]
    rates = [rate for rate in rates if BYTES[rate["dtype"]] >= BYTES["float32"]]
    kinds = [kind for kind in GATES if all(kind in rate["chains"] for rate in rates)]
    steps = {kind.upper(): [f"{1e9 * rate['chains'][kind]:.0f} ns" for rate in rates] for kind in kinds}
    return pd.DataFrame({"dtype": [rate["dtype"] for rate in rates]} | steps)


def levels(roofline: dict, dtypes: Collection[str] = BYTES) -> list[str]:
    """Return the names of the levels of memory that were measured with any of these dtypes."""
    measured = {name for rate in roofline["rates"] if rate["dtype"] in dtypes for name in rate["bytes_per_s"]}
    return [name for name in [*roofline["levels"], MEMORY] if name in measured]


def ceilings(roofline: dict, dtype: str, threads: int, level: str) -> tuple[float, float]:
    """Return the operations and the bytes a second that so many threads reach at most, NaN if none were measured.

    Numbers below float32 can be widened: their operations are bound by the faster one of their own peak and float32's.
    (Intel's instruction for bfloat16 is slower than float32's on some CPUs.)
    """
    peak = _rate(roofline, dtype, threads, lambda rate: rate["gflops"])
    if BYTES[dtype] < BYTES["float32"]:
        peak = float(np.maximum(peak, _rate(roofline, "float32", threads, lambda rate: rate["gflops"])))
    return peak * 1e9, _rate(roofline, dtype, threads, lambda rate: rate["bytes_per_s"].get(level))


def _rate(roofline: dict, dtype: str, threads: int, of: Callable) -> float:
    """Return the rate with so many threads, from those at other numbers of them."""
    rates = {rate["threads"]: of(rate) for rate in roofline["rates"] if rate["dtype"] == dtype}
    counts = sorted(count for count, rate in rates.items() if rate is not None)
    return float(np.interp(threads, counts, [rates[count] for count in counts])) if counts else np.nan


def holding_level(row: dict, roofline: dict) -> str:
    """Return the name of the level of memory where the last of a recurrent matrix lies."""
    size = max(size for size, _ in _case(row).walks)
    measured = levels(roofline)
    for name in roofline["levels"]:
        if name in measured:
            size -= _room(name, row["threads"], roofline)
            if size <= 0:
                return name
    return MEMORY
