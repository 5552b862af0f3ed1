"""The compiled code on disk: found by the next process, and never used for other sources."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

# A kernel as small as it can be, in a module of the package, so that compiling it takes no time.
MODULE = """
from kernels.core.cache import compiled

@compiled
def double(x):
    return x + x
"""
PROGRAM = """
from kernels.probe import double
double(1.0)
print(sum(double.stats.cache_hits.values()), sum(double.stats.cache_misses.values()), double.stats.cache_path)
"""


@pytest.fixture
def checkout(tmp_path):
    """A copy of the package with the small kernel added to it."""
    shutil.copytree(ROOT / "kernels", tmp_path / "kernels", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "kernels" / "probe.py").write_text(MODULE)
    return tmp_path


def run(checkout, program=PROGRAM, **environment):
    """Call the kernel in a new process; return its cache's hits, misses and folder."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(checkout / "cache"), **environment}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=checkout, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    hits, misses, folder = done.stdout.split()
    return int(hits), int(misses), Path(folder)


def test_the_second_process_compiles_nothing(checkout):
    assert run(checkout)[:2] == (0, 1)
    assert run(checkout)[:2] == (1, 0)


@pytest.mark.parametrize("source", ["probe.py", "core/checks.py"])
def test_a_change_of_any_source_has_a_folder_of_its_own(checkout, source):
    """checks.py stands for a file that the kernel's own only imports: Numba alone would not look at it."""
    *_, first = run(checkout)
    path = checkout / "kernels" / source
    path.write_text(path.read_text() + "\n# changed\n")
    hits, misses, second = run(checkout)
    assert (hits, misses) == (0, 1)
    assert second != first


def test_the_compiled_reference_outlives_changes_of_the_kernels(checkout):
    """It takes longest to compile, and does not know the kernels."""
    (checkout / "outside").mkdir()
    (checkout / "outside" / "probe.py").write_text(MODULE)
    program = PROGRAM.replace("kernels.probe", "outside.probe")
    *_, first = run(checkout, program)
    (checkout / "kernels" / "core" / "checks.py").write_text("# changed\n")
    assert run(checkout, program) == (1, 0, first)


def test_the_folder_is_the_users(checkout):
    assert run(checkout)[2].is_relative_to(checkout / "cache")
    home = {"NUMBA_CACHE_DIR": "", "XDG_CACHE_HOME": str(checkout / "xdg")}
    assert run(checkout, **home)[2].is_relative_to(checkout / "xdg" / "unrolled")


def test_the_kernels_are_cached():
    """The compiled reference, in two processes: what the first has compiled, the second loads."""
    program = """
import numpy as np
from kernels import jit
params = jit.rnn.init_params(1, 1, np.random.default_rng(0))
jit.rnn.forward_step(params, np.ones((1, 1), np.float32), jit.rnn.init_state(params, 1), "tanh")
stats = jit.rnn.forward_step.stats
print(sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))
"""
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "0"]


def test_no_function_is_taken_for_another(tmp_path):
    """Numba tells functions of the same name and types apart by a number, which another process gives to another one.

    Here all have the same number, which is the worst that may come of several processes that fill one cache.
    """
    program = """
from itertools import repeat
from numba.core.bytecode import FunctionIdentity
assert next(FunctionIdentity._unique_ids) > 0
FunctionIdentity._unique_ids = repeat(1)

import numpy as np
import kernels.rnn, reference.rnn
from tests.kernels.compare import Size, check_bptt, check_forward
for size in Size(100, 8, 3, 15), Size(33, 1, 5, 1):  # panels of 1 to 3 vectors, tiles of 1 to 8 rows, and a lone row
    check_forward(kernels.rnn, reference.rnn, size, np.float32)
    check_bptt(kernels.rnn, reference.rnn, size, np.float32, None)
"""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
