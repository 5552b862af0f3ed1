"""The roofline: how fast this machine could do a row at best, from what `bench.machine.peaks` measured of it.

A row's bound is the longer of two times: its operations at the FMA peak, and its bytes at the bandwidth of the level of
memory that holds its weights (Williams, Waterman and Patterson 2009, "Roofline"). That level is the first one whose
size, over all threads, holds them: each of two threads holds half of the weights, and the last cache is shared by all.
Operations and bytes are those of `bench.grid.cases.Case`. The share of the bound, `peak_fraction`, is the bound over
the measured time; its inverse says how many times as fast the row could still become. The share can exceed 1 where the
weights are a little larger than a level, since a part of them stays in the faster one.
"""

import numpy as np
import pandas as pd

from bench.grid.cases import GATES

MEMORY = "memory"


def bound_s(row: dict, roofline: dict) -> float:
    """Return the least seconds in which the machine could do a row of a run.

    Between the numbers of threads that were measured, rates are interpolated.
    """
    peak, bandwidth = ceilings(roofline, row["dtype"], row["threads"], holding_level(row, roofline))
    return max(row["flops"] / peak, row["bytes"] / bandwidth)


def table(roofline: dict) -> pd.DataFrame:
    """Return a row for each dtype and number of threads: the FMA peak and the bandwidth of each level, as texts."""
    rates = roofline["rates"]
    return pd.DataFrame(
        {
            "dtype": [rate["dtype"] for rate in rates],
            "Threads": [rate["threads"] for rate in rates],
            "FMA peak": [f"{rate['gflops']:.0f} GFLOP/s" for rate in rates],
        }
        | {
            level: [f"{rate['bytes_per_s'].get(level, np.nan) / 1e9:.0f} GB/s" for rate in rates]
            for level in rates[0]["bytes_per_s"]
        }
    )


def ceilings(roofline: dict, dtype: str, threads: int, level: str) -> tuple[float, float]:
    """Return the operations and the bytes a second that so many threads reach at most."""
    rates = [rate for rate in roofline["rates"] if rate["dtype"] == dtype]
    counts = [rate["threads"] for rate in rates]
    gflops = np.interp(threads, counts, [rate["gflops"] for rate in rates])
    bandwidth = np.interp(threads, counts, [rate["bytes_per_s"].get(level, np.nan) for rate in rates])
    return float(gflops) * 1e9, float(bandwidth)


def holding_level(row: dict, roofline: dict) -> str:
    """Return the name of the level of memory that holds the weights of a row."""
    size = 4 if row["dtype"] == "float32" else 8
    weights = GATES[row["cell"]] * row["hidden_size"] * (row["input_size"] + row["hidden_size"] + 1) * size
    measured = next(rate["bytes_per_s"] for rate in roofline["rates"])
    levels = roofline["levels"]
    for name in levels:
        shares = 1 if name == list(levels)[-1] else row["threads"]
        if name in measured and weights <= shares * levels[name]:
            return name
    return MEMORY
