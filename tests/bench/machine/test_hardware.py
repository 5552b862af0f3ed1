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


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """Return a function that says which control groups this process is in; its folder stands for /sys/fs/cgroup."""
    read = hardware._read
    monkeypatch.setattr(hardware, "GROUPS", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)

    def enter(text):
        monkeypatch.setattr(hardware, "_read", lambda path: text if path == "/proc/self/cgroup" else read(path))

    enter("0::/outer/inner")
    return tmp_path, enter


def set_limit(group, text):
    group.mkdir(parents=True, exist_ok=True)
    (group / "cpu.max").write_text(f"{text}\n")


@pytest.mark.parametrize(
    ("outer", "inner", "quota", "cpus"),
    [
        ("max 100000", "max 100000", None, 8),
        ("max 100000", "250000 100000", 2.5, 2),
        ("150000 100000", "400000 100000", 1.5, 1),  # the tightest group counts, wherever it is
        ("max 100000", "50000 100000", 0.5, 1),
        ("max 100000", "1600000 100000", 16, 8),
        ("", "nonsense", None, 8),
    ],
)
def test_a_quota_of_time_counts_as_cpus(groups, outer, inner, quota, cpus):
    folder, _ = groups
    set_limit(folder / "outer", outer)
    set_limit(folder / "outer/inner", inner)
    assert hardware.cpu_quota() == quota
    assert hardware.usable_cpus() == cpus


def test_a_container_sees_its_quota_at_the_top(groups):
    folder, enter = groups
    set_limit(folder, "300000 100000")
    for text in ("0::/", "0::/not/seen/from/here", "0::/../above"):
        enter(text)
        assert hardware.usable_cpus() == 3


def test_quotas_of_the_older_control_groups(groups):
    folder, enter = groups
    enter("9:memory:/box\n3:cpu,cpuacct:/box\n0::/")
    assert hardware.cpu_quota() is None
    write(folder / "cpu" / "box", **{"cpu.cfs_quota_us": 200000, "cpu.cfs_period_us": 100000})
    assert hardware.usable_cpus() == 2
    write(folder / "cpu" / "box", **{"cpu.cfs_quota_us": -1})
    assert hardware.cpu_quota() is None


def test_control_groups_that_make_no_sense_limit_nothing(groups):
    _, enter = groups
    for text in (None, "", "what", "0:", "::", "1:cpu"):
        enter(text)
        assert hardware.usable_cpus() == 8
