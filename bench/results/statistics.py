"""Medians, paired ratios and their 95 % intervals: what may be said about times, and what may not.

Every interval is a percentile bootstrap by `scipy.stats.bootstrap`. BCa, its usual refinement, estimates its
acceleration by the jackknife, which is inconsistent for a median. The plain percentile interval is too short for few
rounds; Hesterberg's expanded percentiles (2015, "What teachers should know about the bootstrap") mend that. The
bootstrap of a median still jumps from one round to the next: at 11 or 19 rounds it would miss in 6.5 % of all cases.
So its ends are moved outwards, where needed, to the rounds between which the median lies with at least 95 % (the
inverted sign test).

Few rounds cannot speak so: the range of n values misses their median with probability 2^(1-n), more than 5 % below
six. There the interval is Student's, of the mean of the logarithms. One round has none: its ends are NaN, and so the
verdict is "no difference". Rounds that are all equal have an interval without width. The draws are seeded: the same
rows give the same report.

Rounds of one process say nothing of what differs between processes: where memory comes to lie makes one faster than
its twin for its whole life (Mytkowicz et al. 2009, "Producing wrong data without doing anything obviously wrong!").
In 200 null comparisons of small cases (`python -m bench null`) the ratios of twins had a standard deviation of 2.6 %
for NumPy, 1.9 % for numba-simd and 0.8 % for PyTorch beyond what their rounds explain, and called without regard to
it, 72 came out different. So the ratio of two processes has an interval widened by it, and no difference
below about 5 % is ever claimed, but where a case was measured by several pairs of processes.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

CONFIDENCE = 0.95
ENOUGH = 6  # rounds, from which on the bootstrap is used
RESAMPLES = 999
TWINS = 0.025  # standard deviation of the logarithm of the ratio of two processes that do the same


class Interval(NamedTuple):
    """An estimate and the ends of its interval."""

    median: float
    low: float
    high: float


def median_interval(times: ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """Return the median of positive times and its interval, in their unit; no times at all give NaN."""
    return _interval([times], np.median, confidence)


def paired_ratio(base_times: ArrayLike, times: ArrayLike, lives: int = 1, confidence: float = CONFIDENCE) -> Interval:
    """Return base / this as `rounds_ratio` does, with an interval that allows for the luck of the two processes.

    The rounds' part and the processes' are independent, so that their squares add up, on the logarithmic scale. Where
    the rounds are those of several `lives`, pairs of processes one after the other, luck is as rare as their number is
    large.
    """
    ratio = rounds_ratio(base_times, times, confidence)
    luck = stats.norm.ppf((1 + confidence) / 2) * TWINS / np.sqrt(lives)
    down, up = (np.hypot(np.log(end / ratio.median), luck) for end in (ratio.low, ratio.high))
    return Interval(ratio.median, float(ratio.median * np.exp(-down)), float(ratio.median * np.exp(up)))


def sums_ratio(base_times: Sequence, times: Sequence, confidence: float = CONFIDENCE) -> Interval:
    """Return base / this of the sums over several cases of their median times, each case's rounds paired.

    The rounds of each case are resampled in pairs, and the luck of processes is allowed for as by `paired_ratio`.
    """
    rng, sums, whole = np.random.default_rng(0), np.zeros((2, RESAMPLES)), np.zeros(2)
    for pair in zip(base_times, times, strict=True):
        rounds = min(map(len, pair))
        both = np.array([side[:rounds] for side in pair], float)
        drawn = both[:, rng.integers(rounds, size=(RESAMPLES, rounds))]
        sums += np.median(drawn, axis=2)
        whole += np.median(both, axis=1)
    ratio, luck = float(whole[0] / whole[1]), stats.norm.ppf((1 + confidence) / 2) * TWINS
    ends = np.quantile(sums[0] / sums[1], [(1 - confidence) / 2, (1 + confidence) / 2])
    down, up = (np.hypot(np.log(end / ratio), luck) for end in ends)
    return Interval(ratio, float(ratio * np.exp(-down)), float(ratio * np.exp(up)))


def rounds_ratio(base_times: ArrayLike, times: ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """Return base / this as the median of the ratios of like rounds, with an interval for these two processes alone.

    Round i of both was taken in the same turn i, so that what slows the machine slows both; rounds that only one of
    them has, at the end, are left out.
    """
    return median_interval(round_ratios(base_times, times), confidence)


def round_ratios(base_times: ArrayLike, times: ArrayLike) -> np.ndarray:
    """Return base / this for every round that both have."""
    base, this = np.asarray(base_times, float), np.asarray(times, float)
    rounds = min(len(base), len(this))
    return base[:rounds] / this[:rounds]


def quick_width(base_times: ArrayLike, times: ArrayLike, confidence: float = CONFIDENCE) -> float:
    """Return half the width of the interval of `rounds_ratio`, as a share: 0.03 is ±3 %. Fewer than two rounds: inf.

    It is meant for asking after every round whether to go on, so it draws no resamples: the sign test's ends alone,
    below `ENOUGH` rounds Student's. The bootstrap of the report may come out a little wider.
    """
    logs = np.sort(np.log(round_ratios(base_times, times)))
    if len(logs) < 2:
        return np.inf
    rank = _rank(len(logs), confidence)
    low, high = _student([logs], confidence) if len(logs) < ENOUGH else (logs[rank - 1], logs[-rank])
    return float(np.expm1((high - low) / 2))


def ratio_of_medians(old: ArrayLike, new: ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """Return median(new) / median(old) of two samples that have nothing to do with one another."""
    return _interval([new, old], np.median, confidence)


def geometric_mean(ratios: ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """Return the geometric mean of the cases' ratios.

    The cases are resampled, not their rounds: the interval says how far another choice of cases from the same kind
    could move the mean, which is far more than the noise of the rounds.
    """
    return _interval([ratios], np.mean, confidence)


def tells(ratio: Interval) -> bool:
    """Tell whether the interval of a ratio ends within a factor of two of it: else the ratio is not worth a word."""
    return ratio.low >= ratio.median / 2 and ratio.high <= 2 * ratio.median


def verdict(ratio: Interval) -> str:
    """Say what a speedup amounts to: "faster", "slower", or "no difference" if the interval holds 1 or is unknown."""
    if ratio.low > 1:
        return "faster"
    if ratio.high < 1:
        return "slower"
    return "no difference"


def _interval(samples: Sequence[ArrayLike], centre: Callable, confidence: float) -> Interval:
    """Return exp of the centre of the first sample's logarithms, less that of the second's if there is one."""
    logs = [np.log(np.asarray(sample, float)) for sample in samples]
    if any(sample.size == 0 for sample in logs):
        return Interval(np.nan, np.nan, np.nan)

    def estimate(*samples, axis=-1):
        centres = [centre(sample, axis=axis) for sample in samples]
        return centres[0] - centres[1] if len(centres) == 2 else centres[0]

    # The logarithms serve the interval; the estimate of one sample's median is the median itself, to the last bit.
    exact = len(samples) == 1 and centre is np.median
    value = float(np.median(np.asarray(samples[0])) if exact else np.exp(estimate(*logs)))
    rounds = min(sample.size for sample in logs)
    if all(np.ptp(sample) == 0 for sample in logs) and rounds > 1:
        return Interval(value, value, value)
    if rounds == 1:
        return Interval(value, np.nan, np.nan)

    if rounds < ENOUGH:
        ends = np.exp(_student(logs, confidence))
    else:
        t = stats.t.ppf((1 - confidence) / 2, rounds - 1)
        expanded = 1 - 2 * stats.norm.cdf(t * np.sqrt(rounds / (rounds - 1)))
        found = stats.bootstrap(
            logs,
            estimate,
            n_resamples=RESAMPLES,
            vectorized=True,
            confidence_level=expanded,
            method="percentile",
            rng=np.random.default_rng(0),
        )
        ends = np.exp(found.confidence_interval)
        if exact:
            rank = _rank(rounds, confidence)
            ordered = np.exp(np.sort(logs[0]))
            ends = min(ends[0], ordered[rank - 1]), max(ends[1], ordered[-rank])
    return Interval(value, float(min(ends[0], value)), float(max(ends[1], value)))


def _rank(rounds: int, confidence: float) -> int:
    """Return k so that the median lies between the k-th lowest and the k-th highest round (the inverted sign test)."""
    return max(1, int(stats.binom.ppf((1 - confidence) / 2, rounds, 0.5)))


def _student(logs: Sequence[np.ndarray], confidence: float) -> np.ndarray:
    """Return the ends of Student's interval of the mean (Welch's, of the difference of two samples' means)."""
    mean = logs[0].mean() - (logs[1].mean() if len(logs) == 2 else 0)
    variances = np.array([sample.var(ddof=1) / sample.size for sample in logs])
    if not variances.any():
        return np.array([mean, mean])
    degrees = variances.sum() ** 2 / sum(v**2 / (sample.size - 1) for v, sample in zip(variances, logs, strict=True))
    half = stats.t.ppf((1 + confidence) / 2, degrees) * np.sqrt(variances.sum())
    return np.array([mean - half, mean + half])
