import json

from bench.machine import hardware, peaks
from bench.machine.describe import describe, words

RATE = {"dtype": "float32", "threads": 1, "gflops": 100.0, "bytes_per_s": {"memory": 1e10}}


def test_the_description_is_complete_json():
    description = json.loads(json.dumps(describe()))
    assert set(description) == {
        "cpu",
        "cores",
        "logical_cpus",
        "caches",
        "memory_bytes",
        "os",
        "python",
        "governor",
        "frequency_mhz",
        "simd",
        "load_average",
        "blas",
        "versions",
        "roofline",
        "warnings",
    }
    assert description["cpu"]
    assert description["memory_bytes"] > 2**28
    assert description["versions"]["numpy"]
    assert description["blas"]


def test_every_part_is_told_in_words():
    told = words(describe())
    assert set(told) > {"CPU", "Cores", "Vectors", "Caches", "Memory", "Frequency", "BLAS", "Python", "numpy"}
    assert told["BLAS"] != "unknown"
    assert all(isinstance(text, str) for text in told.values())
    assert set(words({}).values()) == {"unknown"}


def test_a_slow_clock_is_warned_of(monkeypatch):
    monkeypatch.setattr(peaks, "known", lambda: {"measured": "2026-01-02", "rates": [RATE]})
    monkeypatch.setattr(peaks, "clock", lambda: [50.0] * 20)
    assert not any("slowed down" in warning for warning in describe()["warnings"])
    assert any("slowed down" in warning for warning in describe(measure=True)["warnings"])


def test_what_cannot_be_read_is_none(monkeypatch):
    monkeypatch.setattr(hardware, "_read", lambda path: None)
    description = describe()
    assert description["governor"] is None
    assert description["caches"] == {}
    assert description["cpu"]


def test_a_busy_machine_is_warned_of(monkeypatch):
    monkeypatch.setattr(hardware.os, "getloadavg", lambda: (1.7, 1.0, 1.0))
    assert "load average 1.7" in describe()["warnings"][0]
    monkeypatch.setattr(hardware.os, "getloadavg", lambda: (0.1, 1.0, 1.0))
    monkeypatch.setattr(hardware, "governor", lambda: "powersave")
    assert "'powersave'" in describe()["warnings"][0]
