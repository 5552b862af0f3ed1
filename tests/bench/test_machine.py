import json

import pytest

from bench import machine, peaks

RATE = {"dtype": "float32", "threads": 1, "gflops": 100.0, "bytes_per_s": {"memory": 1e10}}


def test_the_description_is_complete_json():
    description = json.loads(json.dumps(machine.describe()))
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
    words = machine.words(machine.describe())
    assert set(words) > {"CPU", "Cores", "Vectors", "Caches", "Memory", "Frequency", "BLAS", "Python", "numpy"}
    assert words["BLAS"] != "unknown"
    assert all(isinstance(text, str) for text in words.values())
    assert set(machine.words({}).values()) == {"unknown"}


@pytest.mark.parametrize(
    ("number", "text"), [(48 * 2**30, "48 GiB"), (1.5 * 2**20, "1.5 MiB"), (2**15, "32 KiB"), (7, "7 B")]
)
def test_sizes(number, text):
    assert machine.size(number) == text


def test_a_slow_clock_is_warned_of(monkeypatch):
    monkeypatch.setattr(peaks, "known", lambda: {"measured": "2026-01-02", "rates": [RATE]})
    monkeypatch.setattr(peaks, "clock", lambda: [50.0] * 20)
    assert not any("slowed down" in warning for warning in machine.describe()["warnings"])
    assert any("slowed down" in warning for warning in machine.describe(measure=True)["warnings"])


def test_what_cannot_be_read_is_none(monkeypatch):
    monkeypatch.setattr(machine, "_read", lambda path: None)
    description = machine.describe()
    assert description["governor"] is None
    assert description["caches"] == {}
    assert description["cpu"]


def test_a_busy_machine_is_warned_of(monkeypatch):
    monkeypatch.setattr(machine.os, "getloadavg", lambda: (1.7, 1.0, 1.0))
    assert "load average 1.7" in machine.describe()["warnings"][0]
    monkeypatch.setattr(machine.os, "getloadavg", lambda: (0.1, 1.0, 1.0))
    monkeypatch.setattr(machine, "_governor", lambda: "powersave")
    assert "'powersave'" in machine.describe()["warnings"][0]
