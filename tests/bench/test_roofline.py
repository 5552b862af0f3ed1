"""The roofline: its rule on made-up rates, and a short look at the real ones."""

import json

import numpy as np
import pytest

from bench import roofline

LEVELS = {"L1": 32 * 2**10, "L2": 2**20, "L3": 2**25}
RATES = [
    {"dtype": dtype, "threads": threads, "gflops": 100.0 * threads, "bytes_per_s": bandwidths}
    for dtype in ("float32", "float64")
    for threads, bandwidths in (
        (1, {"L1": 2e11, "L2": 1e11, "L3": 2e10, "memory": 1e10}),
        (2, {"L1": 4e11, "L2": 2e11, "L3": 3e10, "memory": 1e10}),
    )
]
KNOWN = {"measured": "2026-01-02T03:04:05+00:00", "levels": LEVELS, "rates": RATES}


def row(**about):
    sizes = {"cell": "rnn", "hidden_size": 64, "input_size": 1, "dtype": "float32", "threads": 1}
    return sizes | {"flops": 1e6, "bytes": 1e3} | about


@pytest.mark.parametrize(
    ("about", "level"),
    [
        ({"hidden_size": 64}, "L1"),
        ({"hidden_size": 100}, "L2"),
        ({"hidden_size": 100, "threads": 2}, "L1"),
        ({"hidden_size": 64, "dtype": "float64"}, "L2"),
        ({"cell": "lstm", "hidden_size": 64}, "L2"),
        ({"hidden_size": 600, "input_size": 600}, "L3"),
        ({"hidden_size": 600, "input_size": 600, "threads": 2}, "L3"),
        ({"hidden_size": 500, "input_size": 500, "threads": 2}, "L2"),
        ({"hidden_size": 2048, "input_size": 2048, "threads": 2}, "memory"),  # the last cache is shared
    ],
)
def test_the_level_that_holds_the_weights(about, level):
    assert roofline.holding_level(row(**about), KNOWN) == level


def test_the_bound_is_the_longer_of_the_two():
    assert roofline.bound_s(row(flops=1e9, bytes=1e9), KNOWN) == pytest.approx(1e-2)
    assert roofline.bound_s(row(flops=1e9, bytes=1e10), KNOWN) == pytest.approx(5e-2)
    assert roofline.bound_s(row(flops=1e9, bytes=1e10, threads=2), KNOWN) == pytest.approx(2.5e-2)
    assert np.isnan(roofline.bound_s(row(cell="something new"), KNOWN))


def test_between_two_numbers_of_threads_rates_are_interpolated():
    rates = [*KNOWN["rates"], {**RATES[0], "threads": 4, "gflops": 400.0}]
    assert roofline.ceilings(KNOWN | {"rates": rates}, "float32", 3, "L1")[0] == pytest.approx(3e11)


@pytest.mark.parametrize(
    ("rates", "said"),
    [
        ([100.0] * 20, []),
        ([100.0] * 18 + [60.0] * 2, []),
        ([100.0] * 12 + [60.0] * 8, ["The clock jumps"]),
        ([70.0] * 20, ["The CPU is slowed down"]),
    ],
)
def test_doubts(rates, said):
    found = roofline.doubts(rates, KNOWN)
    assert len(found) == len(said)
    assert all(text.startswith(start) for text, start in zip(found, said, strict=True))


def test_a_roofline_that_is_exceeded_is_too_low():
    assert roofline.too_low([90.0, 120.0], KNOWN)
    assert not roofline.too_low([90.0, 105.0], KNOWN)


def test_arrays_lie_in_their_levels():
    one, many = roofline._array_bytes(LEVELS, 1), roofline._array_bytes(LEVELS, 16)
    assert list(one) == ["L1", "L2", "L3", "memory"]
    assert list(many) == ["L1", "L2", "memory"]  # a share of L3 is no larger than L2
    sizes = [0, *LEVELS.values()]
    for name, before, size in zip(LEVELS, sizes, sizes[1:], strict=False):
        assert before < one[name] < size
    assert one["memory"] > LEVELS["L3"]
    assert list(roofline._array_bytes({}, 1)) == ["memory"]


def test_it_is_measured_and_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("numba.config.CACHE_DIR", "")
    assert roofline.known() is None
    found = roofline.measure(each_s=0.01)
    assert roofline.known() == json.loads(json.dumps(found)) == found
    for rate in found["rates"]:
        assert rate["gflops"] > 1
        assert 2 * rate["bytes_per_s"]["memory"] < rate["bytes_per_s"]["L1"] if "L1" in rate["bytes_per_s"] else True
    single = {rate["dtype"]: rate["gflops"] for rate in found["rates"] if rate["threads"] == 1}
    assert 1.3 < single["float32"] / single["float64"] < 3
    assert len(roofline.table(found)) == len(found["rates"])
    assert len(roofline.clock(3)) == 3
