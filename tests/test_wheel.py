"""What `pip install .` gives: a wheel, in an environment of its own, used from a folder that holds nothing else."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from kernels.core.code.cache import base_folder

ROOT = Path(__file__).parents[1]
BUILD = "from setuptools import build_meta; print(build_meta.build_wheel('dist'))"
SMALL = ("--cell=rnn", "--operation=forward", "--hidden=8", "--seq-len=4", "--batch=1", "--threads=1")


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The bin folder of an environment with the wheel in it, and beside it what the running one has."""
    folder = tmp_path_factory.mktemp("installed")
    source, environment = folder / "source", folder / "environment"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("bench", "kernels", "reference"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    built = subprocess.run([sys.executable, "-c", BUILD], cwd=source, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    wheel = source / "dist" / built.stdout.splitlines()[-1]

    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    bin = environment / "bin"
    installation = [bin / "python", "-m", "pip", "install", "-q", "--no-deps", "--no-index", wheel]
    subprocess.run(installation, check=True, capture_output=True)
    (packages,) = environment.glob("lib/python*/site-packages")
    (packages / "beside.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return bin


def run(folder, *words):
    environment = os.environ | {"HOME": str(folder), "NUMBA_CACHE_DIR": str(base_folder())}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(list(map(str, words)), cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_run_and_a_training_from_anywhere(installed, tmp_path):
    unrolled = installed / "unrolled"
    told = run(tmp_path, unrolled, "run", *SMALL, "--implementations", "numpy,numba-simd")
    assert (tmp_path / told.splitlines()[-1]).is_relative_to(tmp_path / "reports")
    assert "numba-simd" in (tmp_path / told.splitlines()[-1]).read_text(encoding="utf-8")
    compared = run(tmp_path, unrolled, "compare", *[(tmp_path / told.splitlines()[-1]).parent] * 2)
    assert "no difference" in compared
    small = ("--hidden=4", "--epochs=1", "--seeds=1", "--implementation=numpy")
    assert (tmp_path / run(tmp_path, unrolled, "train", "sine", *small).splitlines()[-1]).exists()


def test_the_kernels_are_those_of_the_environment(installed, tmp_path):
    code = "import bench, reference.lstm; from kernels import lstm; print(bench.__file__, lstm.__file__)"
    for file in run(tmp_path, installed / "python", "-c", code).split():
        assert Path(file).is_relative_to(installed.parent)


def test_the_pytest_plugin(installed, tmp_path):
    words = ["-m", "pytest", "-q", "-p", "bench.plugin", "--benchmark", "--implementations=numpy"]
    assert "1 passed" in run(tmp_path, installed / "python", *words, *SMALL)
    assert list(tmp_path.glob("reports/*/report.html"))


def test_the_command_tells_its_version_and_completes(installed, tmp_path):
    told = run(tmp_path, installed / "unrolled", "--version")
    assert told.startswith("unrolled 0.")
    assert "Numba" in told
    assert "bits" in told
    run(tmp_path, "bash", "-c", f"{installed / 'unrolled'} --install-completion; true")  # which asks who called it
    assert "unrolled" in (tmp_path / ".bashrc").read_text()
