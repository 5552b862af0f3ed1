"""How long each call of a stream took: a histogram whose bins are 1 % wide, small enough to be kept with a row.

`bins` holds the number of calls by the bin's number: bin n lies around 1.01^n nanoseconds. `worst_s` is the longest
call itself.
"""

import numpy as np

QUANTILES = {"p90": 0.9, "p99": 0.99, "p999": 0.999}
_WIDTH = np.log(1.01)


def gather(nanoseconds: np.ndarray) -> dict:
    """Return the histogram of these calls, whole nanoseconds."""
    kept = np.maximum(nanoseconds, 1)
    bins, counts = np.unique(np.rint(np.log(kept) / _WIDTH).astype(int), return_counts=True)
    return {
        "bins": {str(n): int(count) for n, count in zip(bins, counts, strict=True)},
        "worst_s": float(kept.max()) / 1e9,
    }


def merged(one: dict | None, other: dict) -> dict:
    """Return the histogram of the calls of both."""
    if one is None:
        return other
    bins = dict(one["bins"])
    for n, count in other["bins"].items():
        bins[n] = bins.get(n, 0) + count
    return {"bins": bins, "worst_s": max(one["worst_s"], other["worst_s"])}


def calls(histogram: dict) -> int:
    """Return how many calls there were."""
    return sum(histogram["bins"].values())


def quantile(histogram: dict, share: float) -> float:
    """Return the seconds that this share of the calls took at most, to within half a percent; of all of them `worst_s`.

    NaN where there are too few calls to tell: less than one beyond it.
    """
    total = calls(histogram)
    if total * (1 - share) < 1 - 1e-9:
        return np.nan
    numbers = sorted(map(int, histogram["bins"]))
    below = np.cumsum([histogram["bins"][str(n)] for n in numbers])
    found = numbers[int(np.searchsorted(below, share * total - 1e-9))]
    return min(float(np.exp(found * _WIDTH)) / 1e9, histogram["worst_s"])


def curve(histogram: dict) -> tuple[np.ndarray, np.ndarray]:
    """Return the seconds of each bin, rising, and which share of the calls took as long or longer."""
    numbers = np.array(sorted(map(int, histogram["bins"])))
    counts = np.array([histogram["bins"][str(n)] for n in numbers])
    longer = np.cumsum(counts[::-1])[::-1] / counts.sum()
    return np.minimum(np.exp(numbers * _WIDTH) / 1e9, histogram["worst_s"]), longer
