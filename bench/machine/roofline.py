"""The roofline: how fast this machine could do a row at best, from what `bench.machine.peaks` measured of it.

A row's bound is the longer of two times: its operations at the FMA peak, and its bytes at the bandwidth of the level of
memory that holds its weights (Williams, Waterman and Patterson 2009, "Roofline"). That level is the first one whose
size, over all threads, holds them: each of two threads holds half of the weights, and the last cache is shared by all.
In a network they are those of its largest layer in a direction, which can pass through all steps before the next.
Operations and bytes are those of `bench.grid.cases.Case`. The share of the bound, `peak_fraction`, is the bound over
the measured time; its inverse says how many times as fast the row could still become. The share can exceed 1 where the
weights are a little larger than a level, since a part of them stays in the faster one.
"""

from collections.abc import Callable, Collection

import numpy as np
import pandas as pd

from bench.grid.cases import GATES

MEMORY = "memory"
BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "int8": 1}  # of a weight


def bound_s(row: dict, roofline: dict) -> float:
    """Return the least seconds in which the machine could do a row of a run, NaN where the rates were not measured.

    Between the numbers of threads that were measured, rates are interpolated.
    """
    peak, bandwidth = ceilings(roofline, row["dtype"], row["threads"], holding_level(row, roofline))
    return float(np.maximum(row["flops"] / peak, row["bytes"] / bandwidth))


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
    """Return the name of the level of memory that holds the weights of a row."""
    H, inner = row["hidden_size"], row["directions"] * row["hidden_size"] if row["layers"] > 1 else 0
    numbers = GATES[row["cell"]] * H * (max(row["input_size"], inner) + H + 1)
    weights = numbers * BYTES[row["dtype"]]
    measured, sizes = levels(roofline), roofline["levels"]
    for name in sizes:
        shares = 1 if name == list(sizes)[-1] else row["threads"]
        if name in measured and weights <= shares * sizes[name]:
            return name
    return MEMORY
