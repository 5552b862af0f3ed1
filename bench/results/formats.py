"""How results are written: numbers with as many digits and the unit that suit a reader, lists, and orders."""

from collections.abc import Sequence

import numpy as np
from matplotlib.ticker import EngFormatter

from bench.grid.cases import GATES, OPERATIONS
from bench.results.statistics import Interval, geometric_mean, tells


def short(ratio: float) -> str:
    """Return a ratio in as many digits as a reader needs: 0.0012, 0.87, 3.2, 32, 320."""
    return (
        f"{ratio:.2g}"
        if ratio < 0.095
        else f"{ratio:.2f}"
        if ratio < 2
        else f"{ratio:.1f}"
        if ratio < 9.95
        else f"{ratio:.0f}"
    )


def count(value: float, unit: str = "") -> str:
    """Return a number to two digits: 7, 350, 12 k, 3 M."""
    return EngFormatter(unit)(float(f"{value:.2g}")).strip()


def seconds(value: float) -> str:
    """Return a time to three digits in the unit that suits it: 479 µs, 1.20 ms."""
    for unit, scale in (("s", 1), ("ms", 1e3), ("µs", 1e6)):
        if value * scale >= 0.9995:
            return f"{_three(value * scale)} {unit}"
    return f"{_three(value * 1e9)} ns"


def _three(value: float) -> str:
    """Return three significant digits without an exponent."""
    return f"{value:.0f}" if value >= 999.5 else f"{value:#.3g}".rstrip(".")


def in_order(value):
    """Return what a value of a case is sorted by: operations and cells in their own order, the rest as it is."""
    return next((order.index(value) for order in (OPERATIONS, list(GATES)) if value in order), value)


def times(ratio: float) -> str:
    """Return a ratio as "2.7×"."""
    return f"{short(ratio)}×"


def typical(ratios: Sequence[float]) -> str:
    """Return the geometric mean of the cases' ratios as "2.7×", or "1.9× to 4.1×" where they do not tell one."""
    mean = geometric_mean(ratios)
    if len(ratios) == 1 or tells(mean):
        return times(mean.median)
    return f"{times(min(ratios))} to {times(max(ratios))}"


def percent(share: float) -> str:
    """Return a share as "34%", or as "1.2%" where it is small."""
    return f"{share:.0%}" if share >= 0.0995 else f"{share:.1%}"


def ends(interval: Interval) -> str:
    """Return the ends of the interval of a ratio, or a dash where there is none."""
    return "–" if np.isnan(interval.low) else f"{short(interval.low)} – {short(interval.high)}"


def calls(value: float) -> str:
    """Return a number of calls, infinite for "never"."""
    return "never" if np.isinf(value) else count(max(value, 1))


def network(row) -> str:
    """Return what makes a network of a row, "2 layers, ragged", or "" for one layer of one direction, all lengths T.

    An activation that is not the usual one stands before it.
    """
    words = [row["activation"]] if row["activation"] != "tanh" else []
    words += [counted(row["layers"], "layer")] if row["layers"] > 1 else []
    words += ["2 directions"] if row["directions"] > 1 else []
    words += [row["lengths"]] if row["lengths"] != "full" else []
    return ", ".join(words)


def listed(words: Sequence[str]) -> str:
    """Return "a, b and c"."""
    *rest, last = words or [""]
    return f"{', '.join(rest)} and {last}" if rest else last


def counted(number: int, noun: str) -> str:
    """Return "1 case" or "2 cases"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
