"""`python -m tests.kernels.nested HOST`: calls from within what runs them side by side itself.

HOST is "prange", a user's own loop of Numba's; "joblib", its processes and its threads; "dask", workers of two threads;
"spawn", new processes; "spinning", threads of PyTorch's pool that wait for their next job on every CPU; "quota", a
control group of one CPU's time. Results are those of a call on its own; calls share whatever can be shared.
"""

import contextlib
import multiprocessing
import os
import sys
import threading
from pathlib import Path

import numpy as np

from kernels import gru
from kernels.core.threads.cpus import usable_cpus
from tests.kernels.apart import UNABLE
from tests.kernels.compare import Size, assert_equal, calls, draw
from tests.kernels.sharing import share_everything

SIZES = (Size(17, 3, 20, 5), Size(64, 8, 20, 33), Size(300, 1, 20, 1))
NAMES = ("forward_step", "infer", "forward", "bptt")
CALLS = 24


def work(n):
    """Make the n-th call."""
    share_everything()
    inputs = draw(gru, SIZES[n % len(SIZES)], np.float32)
    return calls(gru, inputs)[NAMES[n % len(NAMES)]]()


def in_prange():
    from numba import njit, objmode, prange

    found = [None] * CALLS

    def one(n):
        found[n] = work(n)

    @njit(parallel=True)
    def every():
        for n in prange(CALLS):
            with objmode():
                one(n)

    every()
    return found


def in_joblib():
    from joblib import Parallel, delayed

    found = [
        Parallel(n_jobs=4, backend=backend)(delayed(work)(n) for n in range(CALLS)) for backend in ("loky", "threading")
    ]
    for one, other in zip(*found, strict=True):
        assert_equal(one, other)
    return found[0]


def in_dask():
    from distributed import Client, LocalCluster

    with LocalCluster(2, threads_per_worker=2, dashboard_address=None) as cluster, Client(cluster) as client:
        return client.gather(client.map(work, range(CALLS)))


def in_spawn():
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        return pool.map(work, range(CALLS))


def beside_spinning():
    os.environ |= {"OMP_WAIT_POLICY": "ACTIVE", "GOMP_SPINCOUNT": "infinite", "KMP_BLOCKTIME": "infinite"}
    import torch

    torch.set_num_threads(os.cpu_count())
    done = threading.Event()

    def keep_spinning():
        a = torch.ones(300, 300)
        while not done.is_set():
            a @ a

    other = threading.Thread(target=keep_spinning)
    other.start()
    try:
        return [work(n) for n in range(CALLS)]
    finally:
        done.set()
        other.join()


def in_a_quota():
    """Of cgroups v2, or of v1 beside it."""
    group = Path(
        "/sys/fs/cgroup", *(["cpu"] if Path("/sys/fs/cgroup/cpu/tasks").exists() else []), f"unrolled-{os.getpid()}"
    )
    limits = {"cpu.cfs_quota_us": "100000"} if group.parent.name == "cpu" else {"cpu.max": "100000 100000"}
    home = group.parent / "cgroup.procs"
    try:
        if group.parent.name != "cpu":
            (group.parent / "cgroup.subtree_control").write_text("+cpu")
        group.mkdir()
        for name, text in limits.items():
            (group / name).write_text(text)
        (group / "cgroup.procs").write_text(str(os.getpid()))
    except OSError as error:
        print(f"no control group of our own: {error}")
        sys.exit(UNABLE)
    try:
        assert usable_cpus() == 1, usable_cpus()
        from bench.machine.describe import describe

        assert describe()["cpu_quota"] == 1
        return [work(n) for n in range(CALLS)]
    finally:
        home.write_text(str(os.getpid()))
        with contextlib.suppress(OSError):
            group.rmdir()


HOSTS = {
    "prange": in_prange,
    "joblib": in_joblib,
    "dask": in_dask,
    "spawn": in_spawn,
    "spinning": beside_spinning,
    "quota": in_a_quota,
}


if __name__ == "__main__":
    results = HOSTS[sys.argv[1]]()
    for n, result in enumerate(results):
        assert_equal(result, work(n), f"call {n}")
