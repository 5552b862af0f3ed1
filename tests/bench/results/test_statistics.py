"""The intervals keep their word: on made-up rounds whose true ratio is known."""

import numpy as np
import pytest
from scipy import stats

from bench.results.statistics import (
    TWINS,
    Interval,
    geometric_mean,
    median_interval,
    paired_ratio,
    quick_width,
    ratio_of_medians,
    rounds_ratio,
    verdict,
)


def skewed(rng, rounds):
    """Noise as timings have it: mostly small, with now and then a slow round."""
    return 1 + rng.normal(0, 0.005, rounds) + rng.exponential(0.05, rounds) * (rng.random(rounds) < 0.3)


def normal(rng, rounds):
    return np.exp(rng.normal(0, 0.02, rounds))


@pytest.mark.parametrize("rounds", [2, 3, 5, 7, 11, 31])
@pytest.mark.parametrize("noise", [skewed, normal])
def test_a_and_a_are_no_different_whatever_drifts_with_both(noise, rounds):
    rng = np.random.default_rng(0)
    trials = 300
    different = 0
    for _ in range(trials):
        drift = np.exp(np.cumsum(rng.normal(0, 0.05, rounds)))  # each round's slowness goes on from the last one's
        ratio = rounds_ratio(drift * noise(rng, rounds), drift * noise(rng, rounds))
        different += verdict(ratio) != "no difference"
    assert different <= stats.binom.ppf(0.99, trials, 0.05)


@pytest.mark.parametrize("rounds", [5, 7, 15])
def test_the_interval_holds_the_true_ratio_and_finds_a_difference(rounds):
    rng = np.random.default_rng(rounds)
    held = found = 0
    for _ in range(100):
        drift = np.exp(np.cumsum(rng.normal(0, 0.1, rounds)))
        ratio = rounds_ratio(1.2 * drift * normal(rng, rounds), drift * normal(rng, rounds))
        held += ratio.low <= 1.2 <= ratio.high
        found += verdict(ratio) == "faster"
    assert held >= 90
    assert found >= 90


def test_twins_are_no_different_though_each_has_its_luck():
    rng = np.random.default_rng(0)
    trials, rounds = 300, 11
    luck = np.exp(rng.normal(0, TWINS, trials))
    ratios = [(normal(rng, rounds) * lucky, normal(rng, rounds)) for lucky in luck]
    different, deluded = (
        sum(verdict(ratio(*times)) != "no difference" for times in ratios) for ratio in (paired_ratio, rounds_ratio)
    )
    assert different <= stats.binom.ppf(0.99, trials, 0.05)
    assert deluded > 0.2 * trials  # the rounds alone would have said otherwise


def test_luck_widens_an_interval_to_both_sides_and_bounds_what_can_be_said():
    same = [1.0] * 9
    assert paired_ratio(same, same) == pytest.approx((1, np.exp(-1.96 * TWINS), np.exp(1.96 * TWINS)), rel=1e-4)
    rng = np.random.default_rng(0)
    times = 2 * normal(rng, 9), normal(rng, 9)
    narrow, wide = rounds_ratio(*times), paired_ratio(*times)
    assert wide.low < narrow.low < narrow.median == wide.median < narrow.high < wide.high
    assert np.isnan(paired_ratio([2.0], [1.0])[1:]).all()
    half = np.exp(1.96 * TWINS / 2)
    assert paired_ratio(same, same, lives=4) == pytest.approx((1, 1 / half, half), rel=1e-4)


def test_a_speedup_is_base_over_this_round_by_round():
    assert rounds_ratio([1, 4, 9, 16], [1, 2, 3, 4]).median == 2.5
    # A drift that would swamp the ratio of the medians leaves the paired ratio alone.
    drift = np.array([1.0, 10.0, 100.0, 1000.0, 1.0, 10.0, 100.0])
    assert rounds_ratio(3 * drift, drift) == pytest.approx((3, 3, 3))


@pytest.mark.parametrize("rounds", [3, 5, 6, 7, 11, 31, 101])
def test_the_quick_width_is_about_that_of_the_report(rounds):
    rng = np.random.default_rng(rounds)
    drift = np.exp(np.cumsum(rng.normal(0, 0.1, rounds)))
    base, times = drift * normal(rng, rounds), 3 * drift * normal(rng, rounds)
    ratio = rounds_ratio(base, times)
    assert (
        0.7 * np.log(ratio.high / ratio.low) / 2 < quick_width(base, times) < 1.05 * np.log(ratio.high / ratio.low) / 2
    )


def test_the_quick_width_of_too_few_and_of_equal_rounds():
    assert quick_width([], []) == quick_width([1.0], [2.0]) == np.inf
    assert quick_width([3.0] * 2, [1.0] * 2) == quick_width([3.0] * 9, [1.0] * 9) == 0


def test_rounds_that_only_one_side_has_are_left_out():
    assert rounds_ratio([2.0, 2.0, 2.0, 50.0], [1.0, 1.0, 1.0]) == Interval(2, 2, 2)


def test_intervals_are_the_same_every_time_and_in_order():
    times = np.random.default_rng(1).lognormal(size=12)
    median, low, high = median_interval(times)
    assert median_interval(times) == (median, low, high)
    assert low <= median == np.median(times) <= high


def test_more_confidence_is_wider():
    times = np.random.default_rng(1).lognormal(size=20)
    narrow, wide = median_interval(times, 0.5), median_interval(times, 0.99)
    assert wide.low < narrow.low < narrow.high < wide.high


def test_one_round_has_no_interval_and_makes_no_difference():
    ratio = rounds_ratio([10.0], [1.0])
    assert ratio.median == 10
    assert np.isnan([ratio.low, ratio.high]).all()
    assert verdict(ratio) == "no difference"


def test_no_rounds_are_nan():
    assert np.isnan(median_interval([])).all()


@pytest.mark.parametrize("rounds", [2, 5, 6, 40])
def test_equal_rounds_have_an_interval_without_width(rounds):
    assert median_interval([0.3] * rounds) == Interval(0.3, 0.3, 0.3)
    same = np.random.default_rng(0).random(rounds) + 1
    assert rounds_ratio(same, same) == Interval(1, 1, 1)
    assert verdict(rounds_ratio(same, same)) == "no difference"


def test_two_samples_need_not_pair():
    rng = np.random.default_rng(3)
    ratio = ratio_of_medians(normal(rng, 9), 2 * normal(rng, 30))
    assert ratio.low <= 2 <= ratio.high
    assert ratio.low > 1.8
    assert ratio.high < 2.2


def test_the_geometric_mean_weighs_gain_and_loss_alike():
    mean = geometric_mean([0.5, 2.0, 0.5, 2.0, 0.5, 2.0])
    assert mean.median == pytest.approx(1)
    assert mean.low < 0.8
    assert mean.high > 1.25
    assert geometric_mean([3.0, 3.0]) == pytest.approx((3, 3, 3))
    assert np.isnan(geometric_mean([3.0]).low)


@pytest.mark.parametrize(
    ("interval", "said"),
    [
        (Interval(2, 1.5, 2.5), "faster"),
        (Interval(0.5, 0.4, 0.6), "slower"),
        (Interval(1.1, 0.9, 1.3), "no difference"),
        (Interval(1.1, 1.0, 1.3), "no difference"),
        (Interval(5, np.nan, np.nan), "no difference"),
    ],
)
def test_verdicts(interval, said):
    assert verdict(interval) == said
