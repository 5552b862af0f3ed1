import numpy as np
import pytest

from bench.results import latencies
from bench.results.latencies import gather, merged, quantile

NANOSECONDS = np.random.default_rng(0).lognormal(7, 1, 100_000).astype(np.int64)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99, 0.999, 0.9999])
def test_quantiles_are_within_half_a_percent(share):
    true = np.quantile(NANOSECONDS, share, method="inverted_cdf") / 1e9
    assert quantile(gather(NANOSECONDS), share) == pytest.approx(true, rel=0.0051)


def test_the_worst_call_is_kept_as_it_is():
    found = gather(NANOSECONDS)
    assert found["worst_s"] == NANOSECONDS.max() / 1e9
    assert quantile(found, 1 - 1e-5) <= found["worst_s"]
    assert latencies.calls(found) == len(NANOSECONDS)


def test_merging_is_as_good_as_gathering_all():
    parts = None
    for part in np.array_split(NANOSECONDS, 7):
        parts = merged(parts, gather(part))
    assert parts["bins"] == gather(NANOSECONDS)["bins"]
    assert parts["worst_s"] == gather(NANOSECONDS)["worst_s"]


def test_too_few_calls_tell_no_tail():
    found = gather(NANOSECONDS[:500])
    assert np.isnan(quantile(found, 0.999))
    assert np.isfinite(quantile(found, 0.99))


def test_a_curve_falls_from_all_to_one():
    seconds, longer = latencies.curve(gather(NANOSECONDS))
    assert longer[0] == 1
    assert longer[-1] >= 1 / len(NANOSECONDS)
    assert (np.diff(seconds) > 0).all()
    assert (np.diff(longer) < 0).all()
