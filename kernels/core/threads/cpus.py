"""How many CPUs the caller may keep busy: those it may run on, or fewer where it gets less of their time.

A system may tell anything, wrongly or not at all: what it keeps back limits nothing.
"""

import os
import re
from functools import cache
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")


def usable_cpus():
    """Return how many CPUs the caller may keep busy: by those it may run on now, and by the quota when first asked."""
    cpus = len(allowed()) or os.cpu_count() or 1
    quota = cpu_quota()
    return cpus if quota is None else max(1, min(cpus, int(quota)))


def allowed():
    """Return the set of CPUs that the caller may run on, empty where the system does not tell."""
    try:
        return os.sched_getaffinity(0) or set()
    except Exception:
        return set()


def waited(thread):
    """Return for how many seconds a thread of this process has been ready to run and had no CPU: 0 if nobody tells."""
    try:
        return int((_read(f"/proc/self/task/{thread}/schedstat") or "0 0").split()[1]) / 1e9
    except (ValueError, IndexError):
        return 0.0


@cache
def cpu_quota():
    """Return how many CPUs' time this process and those it is grouped with may take, or None if nobody limits it."""
    limits = []
    for controllers, path in re.findall("^[0-9]+:(.*?):/*(.*)$", _read("/proc/self/cgroup") or "", re.MULTILINE):
        if not controllers or "cpu" in controllers.split(","):
            top = GROUPS / "cpu" if controllers else GROUPS  # of cgroups v1, or v2
            above = [folder for folder in (top / path, *(top / path).parents) if folder.is_relative_to(top)]
            limits += map(_limit, above)
    return min(filter(None, limits), default=None)


def _limit(group):
    """Return the limit of one control group in CPUs, or None."""
    text = _read(group / "cpu.max")  # of cgroups v2
    if text is None:
        text = f"{_read(group / 'cpu.cfs_quota_us')} {_read(group / 'cpu.cfs_period_us')}"
    try:
        quota, period = map(int, text.split())
        return max(0.0, quota / period)
    except (ValueError, ArithmeticError):  # "max", or what makes no sense
        return None


def _read(path):
    """Return the text of a file of the system's, or None where there is none, or nothing in it."""
    try:
        return Path(path).read_text(encoding="utf-8").strip() or None
    except Exception:
        return None
