import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from numba import config
from numba.np.ufunc import parallel

from kernels.core.threads import cpus, team


@pytest.fixture(autouse=True)
def asked_anew():
    """Forget what was read before, and after."""
    cpus.cpu_quota.cache_clear()
    yield
    cpus.cpu_quota.cache_clear()


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """Return a function that says which control groups this process is in; its folder stands for /sys/fs/cgroup."""
    read = cpus._read
    monkeypatch.setattr(cpus, "GROUPS", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)

    def enter(text):
        monkeypatch.setattr(cpus, "_read", lambda path: text if path == "/proc/self/cgroup" else read(path))

    enter("0::/outer/inner")
    return tmp_path, enter


def limit(group, **texts):
    """Write files of one line each, named cpu.<name>."""
    group.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (group / f"cpu.{name}").write_text(f"{text}\n")


def cpu_quota():
    cpus.cpu_quota.cache_clear()
    return cpus.cpu_quota()


def usable_cpus():
    cpus.cpu_quota.cache_clear()
    return cpus.usable_cpus()


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="needs a kernel that counts it")
def test_a_thread_waits_where_another_has_its_cpu():
    """Of three processes on one CPU each waits for most of the time, and this one has no CPU but that."""
    cpu = min(os.sched_getaffinity(0))
    busy = [sys.executable, "-c", f"import os\nos.sched_setaffinity(0, {{{cpu}}})\nwhile True: pass"]
    found = []

    def compete():
        os.sched_setaffinity(0, {cpu})  # of this thread alone
        before, deadline = cpus.waited(threading.get_native_id()), time.monotonic() + 600
        while time.monotonic() < deadline and not found:
            if cpus.waited(threading.get_native_id()) - before > 0.05:
                found.append(True)

    others = [subprocess.Popen(busy) for _ in range(2)]
    try:
        thread = threading.Thread(target=compete)
        thread.start()
        thread.join()
    finally:
        for other in others:
            other.kill()
            other.wait()
    assert found


@pytest.mark.parametrize("text", ["", "no numbers", "1 x 3", "7"])
def test_where_nobody_tells_no_thread_has_waited(text, monkeypatch):
    monkeypatch.setattr(cpus, "_read", lambda path: text or None)
    assert cpus.waited(1) == 0
    monkeypatch.setattr(cpus, "_read", lambda path: "70 2000000 3")
    assert cpus.waited(1) == 0.002


@pytest.mark.parametrize(
    ("outer", "inner", "quota", "usable"),
    [
        ("max 100000", "max 100000", None, 8),
        ("max 100000", "250000 100000", 2.5, 2),
        ("150000 100000", "400000 100000", 1.5, 1),  # the tightest group counts, wherever it is
        ("max 100000", "50000 100000", 0.5, 1),
        ("max 100000", "1600000 100000", 16, 8),
        ("", "nonsense", None, 8),
    ],
)
def test_a_quota_of_time_counts_as_cpus(groups, outer, inner, quota, usable):
    folder, _ = groups
    limit(folder / "outer", max=outer)
    limit(folder / "outer/inner", max=inner)
    assert cpu_quota() == quota
    assert usable_cpus() == usable


def test_a_container_sees_its_quota_at_the_top(groups):
    folder, enter = groups
    limit(folder, max="300000 100000")
    for text in ("0::/", "0::/not/seen/from/here", "0::/../above"):
        enter(text)
        assert usable_cpus() == 3


def test_quotas_of_the_older_control_groups(groups):
    folder, enter = groups
    enter("9:memory:/box\n3:cpu,cpuacct:/box\n0::/")
    assert cpu_quota() is None
    limit(folder / "cpu" / "box", cfs_quota_us=200000, cfs_period_us=100000)
    assert usable_cpus() == 2
    limit(folder / "cpu" / "box", cfs_quota_us=-1)
    assert cpu_quota() is None


def test_control_groups_that_make_no_sense_limit_nothing(groups):
    _, enter = groups
    for text in (None, "", "what", "0:", "::", "1:cpu"):
        enter(text)
        assert usable_cpus() == 8


def test_no_call_reads_the_quota_again(groups, monkeypatch):
    folder, _ = groups
    limit(folder, max="200000 100000")
    assert cpus.usable_cpus() == 2
    monkeypatch.setattr(cpus, "_read", None)
    assert cpus.usable_cpus() == 2


def test_a_team_is_no_larger_than_the_quota_allows(groups, monkeypatch):
    folder, _ = groups
    monkeypatch.setattr(config, "NUMBA_NUM_THREADS", 8)
    monkeypatch.setattr(parallel, "_is_initialized", False)  # so that no mask is set
    for quota, threads in (("300000 100000", 3), ("50000 100000", 1), ("max 100000", 8)):
        limit(folder, max=quota)
        cpus.cpu_quota.cache_clear()
        assert team.most_threads() == threads
