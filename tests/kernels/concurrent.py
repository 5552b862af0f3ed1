"""`python -m tests.kernels.concurrent CELL [fork]`: calls give the same wherever they come from.

From one thread, from several Python threads at once, while a team is at work already, and from a forked child
of a process whose team has been at work; compared with a call on one thread. Threads share whatever can be
shared, however small, wait for whoever is late, and may be more than there are CPUs.
"""

import importlib
import multiprocessing
import sys
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np

from kernels.core.threads import team
from tests.kernels.compare import Size, assert_equal, calls, draw
from tests.kernels.sharing import share_everything

SIZES = (Size(17, 3, 20, 5), Size(64, 8, 20, 33), Size(100, 1, 50, 1), Size(300, 1, 20, 1), Size(800, 1, 5, 1))


def check(work, refs, run):
    """Compare run(call) for every call with what one thread gave."""
    for (size, name, call), ref in zip(work, refs, strict=True):
        assert_equal(run(call), ref, f"{size} {name}")


def on_many_threads(work, refs):
    repeats = 10
    with ThreadPoolExecutor(4) as pool:
        jobs = [[pool.submit(call) for _, _, call in work] for _ in range(repeats)]
        for round_ in jobs:
            results = iter(round_)
            check(work, refs, lambda _: next(results).result())  # noqa: B023


def beside_a_team(call):
    found = []
    team.on_a_team(lambda _: found.append(call()), (2, team.FOREVER), ())
    return found.pop()


def in_a_fork(work, refs):
    child = multiprocessing.get_context("fork").Process(target=check, args=(work, refs, lambda call: call()))
    child.start()
    child.join(60)
    assert child.exitcode == 0, f"exit code {child.exitcode}"


def main(cell, *options):
    share_everything()
    team.usable_cpus = numba.get_num_threads
    cell = importlib.import_module(f"kernels.{cell}")
    by_size = {size: calls(cell, draw(cell, size, np.float32)) for size in SIZES}
    work = [(size, name, call) for size, by_name in by_size.items() for name, call in by_name.items()]
    threads = numba.get_num_threads()
    numba.set_num_threads(1)
    refs = [call() for _, _, call in work]
    numba.set_num_threads(threads)

    check(work, refs, lambda call: call())
    check(work, refs, beside_a_team)
    on_many_threads(work, refs)
    if "fork" in options:
        in_a_fork(work, refs)


if __name__ == "__main__":
    main(*sys.argv[1:])
