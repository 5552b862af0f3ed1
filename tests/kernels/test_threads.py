"""The kernels of every cell on several threads, among several threads, and in a forked process."""

import sys
from concurrent.futures import ThreadPoolExecutor

import numba
import pytest
from numba.np.ufunc import parallel

from kernels.core.threads import team
from kernels.core.walks import recurrence
from tests.kernels.apart import run_apart
from tests.kernels.cells import CELLS, SMALL, by_cell, by_dtype, by_edge
from tests.kernels.compare import DTYPES, assert_equal, calls, draw
from tests.kernels.sharing import share_everything


@pytest.mark.skipif(numba.get_num_threads() < 2, reason="needs two threads")
@by_cell
@by_dtype
@by_edge
def test_two_threads_give_what_one_gives(size, dtype, cell, monkeypatch):
    """To the bit: how many threads share a call depends on who is awake, and its result must not."""
    share_everything(monkeypatch.setattr)
    monkeypatch.setattr(team, "usable_cpus", lambda: 2)
    by_name = calls(cell.kernels, draw(cell.kernels, size, dtype))
    threads = numba.get_num_threads()
    for call, function in by_name.items():
        found = []
        try:
            for n in (1, 2):
                numba.set_num_threads(n)
                found.append(function())
        finally:
            numba.set_num_threads(threads)
        ref, comp = found
        assert_equal(comp, ref, call)


@by_cell
@pytest.mark.parametrize("threads", [2, 8, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 16))])
def test_calls_from_anywhere(threads, cell):
    """Eight threads are more than most machines that run this have cores: slower, and right."""
    fork = ["fork"] if sys.platform == "linux" else []
    run_apart("tests.kernels.concurrent", cell.name, *fork, timeout=900, NUMBA_NUM_THREADS=str(threads))


def test_no_call_takes_a_lock_of_numbas(monkeypatch):
    """A process that is forked meanwhile would find it locked for ever."""
    monkeypatch.setattr(recurrence, "WORTH_SHARING", 1)
    inputs = draw(CELLS[0].kernels, SMALL, DTYPES[0])
    for call in calls(CELLS[0].kernels, inputs).values():
        call()
        with ThreadPoolExecutor(1) as pool, parallel._backend_init_thread_lock:
            pool.submit(call).result(timeout=600)


@pytest.mark.skipif(sys.platform != "linux", reason="needs a fork that threads survive")
def test_a_child_forked_beside_first_calls_does_not_hang():
    run_apart("tests.kernels.forking", timeout=900)


@pytest.mark.parametrize("host", ["prange", "joblib", "dask", "spawn", "spinning", "quota"])
def test_calls_from_within_what_runs_them_side_by_side(host):
    if package := {"joblib": "joblib", "dask": "distributed", "spinning": "torch"}.get(host):
        pytest.importorskip(package)
    if host == "quota" and sys.platform != "linux":
        pytest.skip("needs control groups")
    run_apart("tests.kernels.nested", host, timeout=900)
