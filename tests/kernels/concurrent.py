"""`python -m tests.kernels.concurrent CELL`: calls from several Python threads at once give what one thread gets."""

import importlib
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from tests.kernels.compare import Size, assert_same, calls, draw

SIZES = (Size(17, 3, 20, 5), Size(64, 8, 20, 33), Size(100, 1, 50, 1), Size(300, 1, 20, 1))


def main(cell):
    cell = importlib.import_module(f"kernels.{cell}")
    by_size = {size: calls(cell, draw(cell, size, np.float32)) for size in SIZES}
    work = [(size, name, call) for size, by_name in by_size.items() for name, call in by_name.items()]
    refs = [call() for _, _, call in work]
    repeats = 20
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(call) for _ in range(repeats) for _, _, call in work]
        for job, ref, (size, name, _) in zip(jobs, refs * repeats, work * repeats, strict=True):
            try:
                assert_same(job.result(), ref, size)
            except AssertionError as error:
                raise AssertionError(f"{size} {name}: {error}") from error


if __name__ == "__main__":
    main(*sys.argv[1:])
