"""A short look at the real peaks, and what is made of a clock that is not steady."""

import json

import pytest

from bench.machine import peaks, roofline
from tests.bench.synthetic import ROOFLINE as KNOWN

LEVELS = KNOWN["levels"]


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
    found = peaks.doubts(rates, KNOWN)
    assert len(found) == len(said)
    assert all(text.startswith(start) for text, start in zip(found, said, strict=True))


def test_a_roofline_that_is_exceeded_is_too_low():
    assert peaks.too_low([90.0, 120.0], KNOWN)
    assert not peaks.too_low([90.0, 105.0], KNOWN)


def test_arrays_lie_in_their_levels():
    one, many = peaks._array_bytes(LEVELS, 1), peaks._array_bytes(LEVELS, 16)
    assert list(one) == ["L1", "L2", "L3", "memory"]
    assert list(many) == ["L1", "L2", "memory"]  # a share of L3 is no larger than L2
    sizes = [0, *LEVELS.values()]
    for name, before, size in zip(LEVELS, sizes, sizes[1:], strict=False):
        assert all(before < length < size for length in one[name])
    assert len(one["L3"]) == 2  # just beyond L2, and well within L3
    assert one["memory"][0] > LEVELS["L3"]
    assert list(peaks._array_bytes({}, 1)) == ["memory"]


def test_it_is_measured_and_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("numba.config.CACHE_DIR", "")
    assert peaks.known() is None
    found = peaks.measure(each_s=0.01)
    assert peaks.known() == json.loads(json.dumps(found)) == found
    assert {rate["dtype"] for rate in found["rates"]} == set(peaks.KINDS)
    for rate in found["rates"]:
        assert min(rate["gflops"], *rate["bytes_per_s"].values()) > 0
    for rate in found["rates"]:
        full = next(one for one in found["rates"] if (one["dtype"], one["threads"]) == ("float32", rate["threads"]))
        if rate["dtype"] in ("int8", "bfloat16"):
            assert rate["bytes_per_s"] == full["bytes_per_s"]
            assert rate["chains"] == full["chains"]
        assert list(rate["chains"]) == ["rnn", "gru", "lstm", "back"]
        assert min(rate["chains"].values()) > 0
    assert len(roofline.table(found)) == len(found["rates"])
    assert len(peaks.clock(3)) == 3


@pytest.mark.parametrize(("dtype", "threads"), [("float32", 1), ("int8", 2), ("float64", 1)])
def test_a_look_is_a_roofline_of_the_moment(dtype, threads):
    found = peaks.look(dtype, threads)
    again = peaks.look(dtype, threads)
    best = peaks.better(found, again)
    assert best["gflops"] == max(found["gflops"], again["gflops"])
    assert list(best["chains"]) == ["rnn", "gru", "lstm", "back"]
    assert "memory" not in best["bytes_per_s"]
    for name, chain in best["chains"].items():
        assert chain == min(found["chains"][name], again["chains"][name])


def test_a_roofline_that_cannot_be_kept_is_measured_all_the_same(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr("numba.config.CACHE_DIR", str(tmp_path / "file"))
    monkeypatch.setattr(peaks, "_rates", lambda dtype, threads, levels, each_s: dict(KNOWN["rates"][0]))
    assert peaks.known() is None
    assert peaks.measure()["rates"]
