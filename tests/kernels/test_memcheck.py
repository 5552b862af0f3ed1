"""The kernels under valgrind: nothing is read that was never written, and nothing outside of what was allocated."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernels.cells import by_cell

# The widest vectors that valgrind surely knows, one thread, and Python's own blocks from the C library, too.
ENVIRONMENT = {
    "NUMBA_CPU_NAME": "generic",
    "NUMBA_CPU_FEATURES": "",
    "NUMBA_NUM_THREADS": "1",
    "PYTHONMALLOC": "malloc",
}


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("valgrind"), reason="needs valgrind")
@by_cell
def test_memory_is_written_before_it_is_read_and_within_its_bounds(cell, monkeypatch):
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    words = [sys.executable, "-m", "tests.kernels.memcheck", cell.name]
    root = Path(__file__).parents[2]
    subprocess.run(words, cwd=root, check=True, stdout=subprocess.DEVNULL, timeout=1800)  # compiles
    valgrind = ["valgrind", "--error-limit=no", "--num-callers=12", "--log-fd=1"]
    done = subprocess.run([*valgrind, *words, "plant"], cwd=root, capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, done.stderr
    calls, planted = done.stdout[done.stdout.index(f"\n{cell.name} H") :].split("never written", 1)
    assert errors(calls) == []
    assert "not finite" not in calls
    unwritten, short = planted.split("too short", 1)
    assert any("uninitialised" in error for error in errors(unwritten))
    assert any("Invalid write" in error for error in errors(short))


def errors(log):
    """Return valgrind's errors in compiled code or NumPy's: Python itself reads integers that were never written."""
    found = re.findall(r"(?:^==\d+== (?! *\n).*\n)+", log, re.MULTILINE)
    return [error for error in found if re.search(r" at 0x", error) and re.search(r"\?\?\?|_multiarray_umath", error)]
