import os

import pytest

from bench.machine import hardware


def write(folder, **texts):
    """Write files of one line each; two underlines in a name stand for a slash."""
    for name, text in texts.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A folder in place of /sys/devices/system/cpu, whose CPUs 0 to 5 this process may run on."""
    monkeypatch.setattr(hardware, "CPUS", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)), raising=False)
    monkeypatch.setattr(os, "sched_setaffinity", None, raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("number", "text"), [(48 * 2**30, "48 GiB"), (1.5 * 2**20, "1.5 MiB"), (2**15, "32 KiB"), (7, "7 B")]
)
def test_sizes(number, text):
    assert hardware.size(number) == text


def test_cpus_are_cores_of_their_own_first(machine):
    for cpu, (package, core) in enumerate([(0, 0), (0, 0), (0, 1), (0, 1), (1, 0), (1, 0)]):
        write(machine / f"cpu{cpu}", topology__physical_package_id=package, topology__core_id=core)
    assert [hardware.cpus_for(n) for n in (1, 3, 5)] == [(0,), (0, 2, 4), (0, 2, 4, 1, 3)]
    assert hardware._core(7) == (0, 7)
    write(machine / "cpu7", topology__physical_package_id="", topology__core_id="")
    assert hardware._core(7) == (0, 7)


@pytest.mark.parametrize("source", ["cpu_capacity", "cpufreq__cpuinfo_max_freq"])
def test_the_fastest_kind_of_core_is_taken_first(machine, source):
    """Two efficiency cores, then two performance cores of two threads, one of which is a little faster."""
    for cpu, (core, speed) in enumerate([(0, 3300), (1, 3300), (2, 4900), (2, 4900), (3, 5100), (3, 5100)]):
        write(machine / f"cpu{cpu}", topology__physical_package_id=0, topology__core_id=core, **{source: speed})
    assert hardware.kinds() == [[2, 3, 4, 5], [0, 1]]
    assert [hardware.cpus_for(n) for n in (1, 2, 4, 6)] == [(2,), (2, 4), (2, 4, 0, 1), (2, 4, 0, 1, 3, 5)]


def test_cores_of_which_nothing_is_told_are_alike(machine):
    assert hardware.kinds() == [[0, 1, 2, 3, 4, 5]]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("32K", 2**15),
        ("2M", 2**21),
        ("1G", 2**30),
        ("32768", 2**15),
        ("512k", 2**19),
        ("", None),
        ("-1", None),
        ("much", None),
    ],
)
def test_the_size_of_a_cache(machine, text, found):
    write(machine / "cpu0", cache__index0__level=1, cache__index0__type="Data", cache__index0__size=text)
    write(machine / "cpu0", cache__index1__level=2, cache__index1__type="Unified", cache__index1__size="1M")
    assert hardware.caches() == ({"L1d": found} if found else {}) | {"L2": 2**20}
