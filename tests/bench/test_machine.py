import json

from bench import machine


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
        "simd",
        "load_average",
        "blas",
        "versions",
        "warnings",
    }
    assert description["cpu"]
    assert description["memory_bytes"] > 2**28
    assert description["versions"]["numpy"]
    assert description["blas"]


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
