import importlib.metadata
import json
import os
import platform
import subprocess
from pathlib import Path

import psutil
import pytest
import threadpoolctl
from llvmlite import binding

from bench.machine import describe as description_of
from bench.machine import hardware, peaks
from bench.machine.describe import describe, words
from kernels.core.threads.cpus import usable_cpus

RATE = {"dtype": "float32", "threads": 1, "gflops": 100.0, "bytes_per_s": {"memory": 1e10}}


def test_the_description_is_complete_json():
    description = json.loads(json.dumps(describe()))
    assert set(description) == {
        "cpu",
        "cores",
        "logical_cpus",
        "kinds",
        "cpu_quota",
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


SOURCES = [
    (Path, "read_text"),
    (Path, "glob"),
    (subprocess, "run"),
    (os, "getloadavg"),
    (os, "sched_getaffinity"),
    (platform, "platform"),
    (platform, "processor"),
    (platform, "machine"),
    (psutil, "cpu_count"),
    (psutil, "cpu_freq"),
    (psutil, "virtual_memory"),
    (binding, "get_host_cpu_features"),
    (threadpoolctl, "threadpool_info"),
    (description_of, "version"),
    (peaks, "clock"),
]
FAILURES = [
    OSError("none"),
    RuntimeError("none"),
    ValueError("none"),
    ZeroDivisionError(),
    NotImplementedError(),
    AttributeError("none"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "none"),
    importlib.metadata.PackageNotFoundError("none"),
    subprocess.TimeoutExpired("lscpu", 5),
    psutil.AccessDenied(),
    None,  # an answer, but an empty one
]


def silence(monkeypatch, source, failure):
    def fail(*_, **__):
        if failure is not None:
            raise failure

    monkeypatch.setattr(*source, fail, raising=False)


def check_description():
    description = json.loads(json.dumps(describe(measure=True)))
    assert all(isinstance(text, str) and text for text in words(description).values())
    assert usable_cpus() >= 1
    assert isinstance(hardware.cpus_for(1), tuple)


@pytest.fixture
def quick(monkeypatch):
    """No peak is measured."""
    monkeypatch.setattr(peaks, "clock", lambda: [100.0] * 20)
    monkeypatch.setattr(peaks, "measure", lambda: {"measured": "2026-01-02", "rates": [RATE]})


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source[1])
def test_a_source_that_fails_stops_nothing(source, quick, monkeypatch):
    for failure in FAILURES:
        with monkeypatch.context() as patch:
            silence(patch, source, failure)
            check_description()


def test_a_system_that_tells_nothing_stops_nothing(quick, monkeypatch):
    for source in SOURCES:
        silence(monkeypatch, source, RuntimeError("none"))
    check_description()
    told = words(describe())
    assert told["CPU"] == told["Cores"] == told["Load at the start"] == "unknown"


@pytest.mark.parametrize("text", ["", "nonsense", "1:2:3", "-1", "\0"])
def test_files_that_make_no_sense_stop_nothing(text, quick, monkeypatch):
    monkeypatch.setattr(hardware, "_read", lambda path: text)
    check_description()


def test_peaks_that_cannot_be_measured_are_said(monkeypatch):
    silence(monkeypatch, (peaks, "clock"), NotImplementedError("no vectors\nhere"))
    assert describe(measure=True)["warnings"][-1] == (
        "What this machine can do at most was not measured: no vectors here"
    )


def test_kinds_of_cores_and_quotas_are_told_where_there_are_any(monkeypatch):
    assert not {"Kinds of cores", "CPU quota"} & words({"kinds": [[0, 1]], "cpu_quota": None}).keys()
    told = words({"kinds": [[2, 3], [0], [1]], "cpu_quota": 1.5})
    assert told["Kinds of cores"] == "the fastest, taken first: CPUs 2, 3; slower: CPUs 0, 1"
    assert told["CPU quota"] == "the time of 1.5 CPUs"


def test_a_busy_machine_is_warned_of(monkeypatch):
    monkeypatch.setattr(hardware.os, "getloadavg", lambda: (1.7, 1.0, 1.0))
    assert "load average 1.7" in describe()["warnings"][0]
    monkeypatch.setattr(hardware.os, "getloadavg", lambda: (0.1, 1.0, 1.0))
    monkeypatch.setattr(hardware, "governor", lambda: "powersave")
    assert "'powersave'" in describe()["warnings"][0]
