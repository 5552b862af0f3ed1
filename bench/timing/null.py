"""The harness put to the test: two workers of one implementation, of which neither may come out faster.

A null comparison is a case measured as any other, by two workers of the same implementation that take turns. It is
called different if the 95 % interval of their ratio excludes 1, which a good interval does in no more than 5 of 100.
Processes differ even so: where the memory of one comes to lie can make it faster for its whole life. Whoever compares
two implementations has such luck in the result, and `bench.results.statistics` allows for it in every interval. Here
that is put to the test: every comparison starts two new processes, and none is repeated until it pleases.

The harness fails if more comparisons come out different than `allowed`, or if the median of all ratios is off 1 by
more than 1 %, and by more than chance can do: then one of the two places in the turn is better than the other.
"""

import random
from collections.abc import Iterator
from importlib import import_module
from itertools import product
from typing import NamedTuple

import numpy as np
from scipy import stats

from bench import implementations
from bench.grid.cases import CALLS, GATES, Case
from bench.grid.presets import Effort
from bench.results.statistics import Interval, median_interval, verdict
from bench.results.tables import pair
from bench.timing.loop import Bench
from bench.timing.plan import Plan, open_run

IMPLEMENTATIONS = ("numpy", "numba-simd", "torch")
EFFORT = Effort(round_s=0.01, case_s=1.0)
OFF = 0.01  # the share by which the median ratio may differ from 1


class Comparison(NamedTuple):
    case: Case
    implementation: str
    ratio: Interval  # the first one's time over the second one's
    rounds: int

    @property
    def different(self) -> bool:
        return verdict(self.ratio) != "no difference"


def allowed(comparisons: int) -> int:
    """Return how many of so many comparisons may come out different.

    From 200 on it is 5 %. Fewer say less: up to 10 pass, unless so many had a chance of less than 1 % at a rate of 5 %.
    """
    return max(comparisons // 20, min(10, int(stats.binom.ppf(0.99, comparisons, 0.05))))


def passes(found: list[Comparison]) -> bool:
    """Tell whether the harness stands the test."""
    ratio = median_ratio(found)
    unfair = abs(ratio.median - 1) > OFF and (ratio.low > 1 or ratio.high < 1)
    return not unfair and sum(one.different for one in found) <= allowed(len(found))


def median_ratio(found: list[Comparison]) -> Interval:
    """Return the median of the ratios and its 99 % interval."""
    return median_interval([one.ratio.median for one in found], 0.99)


def spread(found: list[Comparison]) -> float:
    """Return the standard deviation of the ratios' logarithms, of which the rounds' noise is a part."""
    return float(np.std(np.log([one.ratio.median for one in found])))


def compare(comparisons: int, reports, names=IMPLEMENTATIONS, cells=tuple(GATES)) -> Iterator[Comparison]:
    """Measure so many null comparisons and yield each; a run folder in `reports` keeps those of an implementation.

    The cases are small ones of all kinds. Implementations that are not installed are left out.
    """
    modules = implementations.find()
    names = [name for name in names if import_module(modules[name]).version()]
    cases = [
        Case(cell, operation, H, 1 if B == 1 else H, 1 if operation == "forward_step" else T, B, "float32", 1)
        for cell, operation, H, B, T in product(cells, CALLS, (8, 16, 32, 64), (1, 4, 16), (5, 10))
    ]
    cases = list(dict.fromkeys(cases))
    random.Random(0).shuffle(cases)
    for n, name in enumerate(names):
        some = cases[n * comparisons // len(names) : (n + 1) * comparisons // len(names)]
        twins = dict.fromkeys((name, f"{name} again"), modules[name])
        plan = Plan("null", {"implementations": name}, some, twins, EFFORT, f"{name} against itself")
        run, _ = open_run(plan, reports, fresh=True, command=f"python -m bench null --comparisons {comparisons}")
        with Bench(run, plan) as bench:
            for case in some:
                bench.restart()
                bench.measure(case)
                one, other = run.rows[-2:]
                if one["status"] == other["status"] == "ok":
                    ratio = pair(one, other)
                    yield Comparison(case, name, ratio, len(one["times"]))
        run.finish()
