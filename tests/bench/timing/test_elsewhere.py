"""Versions that take turns: revisions of a repository made here, environments that borrow this one's libraries."""

import json
import shutil
import site
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bench.grid.cases import Case, ChoiceError
from bench.grid.presets import find_preset
from bench.timing.elsewhere import Elsewhere, elsewhere
from bench.timing.worker import ROOT

SMALL = ("--cell=rnn", "--operation=forward", "--hidden=8", "--seq-len=4", "--batch=1", "--threads=1")
WRONG = """
_infer = infer


def infer(params, x, state=None, **options):
    out = _infer(params, x, state, **options)
    out.hs[...] *= 1.01
    return out
"""
SLOWER = """
import time as _time


def _slower(call):
    def slower(*arguments, **options):
        start = _time.perf_counter()
        result = call(*arguments, **options)
        end = start + (_time.perf_counter() - start) * {factor}
        while _time.perf_counter() < end:
            pass
        return result

    return slower


infer = _slower(infer)
"""


def git(project, *words):
    who = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
    return subprocess.run(["git", *who, *words], cwd=project, check=True, capture_output=True, text=True).stdout


def commit(project, tag):
    git(project, "add", ".")
    git(project, "commit", "-qm", tag)
    git(project, "tag", tag)


@pytest.fixture
def project(tmp_path):
    """A copy of this project in a repository, whose commit is tagged "first"."""
    folder = tmp_path / "project"
    ignored = shutil.ignore_patterns("__pycache__", "tests")
    for name in ("bench", "kernels", "reference"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", folder)
    git(folder, "init", "-q")
    commit(folder, "first")
    return folder


def bench(project, *words):
    command = [sys.executable, "-m", "bench", *map(str, words)]
    return subprocess.run(command, cwd=project, capture_output=True, text=True)


def rows(reports):
    (path,) = reports.glob("*/rows.jsonl")
    found = [json.loads(line) for line in path.read_text().splitlines()]
    return {row["implementation"]: row for row in found}


def edit(path, old, new):
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


def test_revisions_take_turns_and_are_verified_against_todays_reference(project, tmp_path):
    cell = project / "reference" / "rnn.py"
    right = cell.read_text()
    cell.write_text(right + WRONG)
    commit(project, "wrong")
    cell.write_text(right)
    edit(project / "bench" / "grid" / "cases.py", "    @property\n    def id(", (
        '    colour: str = "grey"\n\n    @property\n    def id('))  # fmt: skip
    commit(project, "newer")

    names = "numpy,numpy@first,numpy@wrong"
    done = bench(project, "run", *SMALL, "--implementations", names, "--reports", tmp_path / "reports")
    assert done.returncode == 0, done.stderr
    found = rows(tmp_path / "reports")
    assert {name: row["status"] for name, row in found.items()} == {
        "numpy": "ok",
        "numpy@first": "ok",  # which knows no colour, and need not
        "numpy@wrong": "wrong",
    }
    assert len(found["numpy"]["times"]) == len(found["numpy@first"]["times"]) > 0
    assert found["numpy@wrong"]["times"] == []
    first = git(project, "rev-parse", "first")[:7]
    assert found["numpy@first"]["version"] == f"{found['numpy']['version']}, revision {first}"
    (report,) = (tmp_path / "reports").glob("*/report.md")
    assert f"as fast as NumPy@first ({found['numpy']['version']}, revision {first})" in report.read_text()


def test_an_environment_takes_part_with_its_libraries(tmp_path):
    venv = environment(tmp_path)
    done = bench(ROOT, "run", *SMALL, "--implementations", f"numpy@{venv}", "--reports", tmp_path / "reports")
    assert done.returncode == 0, done.stderr
    found = rows(tmp_path / "reports")
    assert {name: row["status"] for name, row in found.items()} == {"numpy": "ok", f"numpy@{venv}": "ok"}


def environment(tmp_path):
    """Return a virtual environment that finds this one's libraries."""
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    (packages,) = venv.glob("lib/*/site-packages")
    (packages / "these.pth").write_text("\n".join(site.getsitepackages()))
    return venv


def refused(name, where):
    with pytest.raises(ChoiceError) as error:
        elsewhere(name, str(where), f"bench.implementations.{name.replace('-', '_')}", "--implementations")
    text = str(error.value)
    assert "\n" not in text
    return text.removeprefix(f"--implementations: {name}@{where}: ")


def test_what_is_no_version_is_refused(tmp_path):
    neither = (
        "expected a git revision of this project, such as main~5, or the folder of a virtual environment, got neither"
    )
    assert refused("torch", "main") == "expected the folder of a virtual environment, got one without bin/python"
    if (ROOT / ".git").exists():
        assert refused("numpy", "no-such") == refused("numpy", tmp_path) == refused("numpy", "") == neither
        assert refused("numba-simd", "--help") == neither

    venv = environment(tmp_path)
    (module,) = venv.glob("lib/*/site-packages")
    (module / "these.pth").unlink()
    said = "expected an environment that can run a worker, got: ModuleNotFoundError: No module named 'numpy'"
    assert refused("numpy", venv) == said
    shutil.rmtree(venv / "bin")
    (venv / "bin").mkdir()
    (venv / "bin" / "python").write_text("#!/bin/sh\nexit 3\n")
    assert refused("torch", venv).startswith("expected an environment whose Python runs, got: ")
    (venv / "bin" / "python").chmod(0o755)
    assert refused("torch", venv) == "expected an environment that can run a worker, got: no word"


def test_an_environment_without_the_library_is_refused(tmp_path):
    venv = environment(tmp_path)
    (packages,) = venv.glob("lib/*/site-packages")
    (packages / "these.pth").unlink()
    shutil.copytree(Path(site.getsitepackages()[0], "numpy"), packages / "numpy", symlinks=True)
    libraries = Path(site.getsitepackages()[0], "numpy.libs")
    if libraries.exists():
        (packages / "numpy.libs").symlink_to(libraries)
    assert refused("jax", venv) == "expected an environment with the library, got one without"


def test_a_revision_too_old_for_the_worker_is_refused(project, tmp_path):
    edit(project / "bench" / "timing" / "worker.py", "def build(self, case, seed, reference=None, weights=None)", (
        "def build(self, case, seed)"))  # fmt: skip
    commit(project, "old")
    shutil.rmtree(project / "reference")
    commit(project, "older")
    git(project, "checkout", "-q", "first")
    done = bench(project, "run", *SMALL, "--implementations", "numpy@old")
    assert (done.returncode, done.stderr) == (
        2,
        "error: --implementations: numpy@old: too old for today's worker, which asks for build(self, case, seed, "
        "reference)\n",
    )
    done = bench(project, "run", *SMALL, "--implementations", "numpy@older")
    assert (done.returncode, done.stderr) == (
        2,
        "error: --implementations: numpy@older: too old for today's worker: expected bench, kernels, reference in it\n",
    )


def test_the_name_of_a_model_need_not_be_known_but_weights_must():
    case = Case("gru", "forward", 8, 8, 4, 1, "float32", 1, model="a network")
    names = tuple(name for name in Case.__dataclass_fields__ if name != "model")
    old = Elsewhere("python", ROOT, "1.0", "abcdefg", (*names, "pace", "reference"))
    assert old.lacks(case) == ""
    assert "model" not in old.told(case)
    assert old.lacks(case, weights=True) == "weights of a file"
    assert old._replace(knows=(*old.knows, "weights")).lacks(case, weights=True) == ""


def test_what_a_version_does_not_know_of_a_case_is_said():
    old = Elsewhere("python", ROOT, "1.0", "abcdefg", ("cell", "operation", "hidden_size", "input_size", "seq_len",
                    "batch_size", "dtype", "threads"))  # fmt: skip
    case = Case("rnn", "forward", 8, 1, 4, 1, "float32", 1)
    assert old.lacks(case) == ""
    assert "layers" not in old.told(case)
    assert old.lacks(Case("rnn", "forward", 8, 1, 4, 1, "float32", 1, layers=2, directions=2)) == "layers, directions"
    assert old.lacks(replace(case, activation="relu")) == "activation"
    assert "activation" not in old.told(case)


@pytest.mark.slow
def test_compare_against_finds_what_became_slower_and_nothing_else(project, tmp_path):
    grid = tmp_path / "grid.toml"
    grid.write_text('[effort]\nlives = 2\nround_s = 0.005\nfewest = 7\ncase_s = 0.3\n[[grids]]\ncell = ["rnn"]\n'
                    'hidden = [32]\nbatch = [1]\noperation = ["forward"]\n')  # fmt: skip
    # What is planted takes more than twice the time; of a hundred that are the same five come out a little different.
    asked = ("compare", "--against", "first", "--preset", grid, "--fail-on", "20%", "--reports")
    same = bench(project, *asked, tmp_path / "same")
    assert same.returncode == 0, same.stdout + same.stderr

    with (project / "kernels" / "rnn.py").open("a") as file:
        file.write(SLOWER.format(factor=1.3))
    slower = bench(project, *asked, tmp_path / "slower")
    assert slower.returncode == 1, slower.stdout + slower.stderr
    assert "1 rows are slower by more than 20% or no longer work." in slower.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "compare: expected two runs, or --against, got none"),
        (("a",), "compare: expected two runs, or --against, got one run"),
        (("a", "--against", "main"), "--against: expected no run beside it, got a"),
        (
            ("a", "b", "--preset", "quick"),
            "--preset, --reports, --no-wait: expected --against beside them, got two runs",
        ),
    ],
)
def test_compare_takes_two_runs_or_a_revision(words, said):
    done = bench(ROOT, "compare", *words)
    assert (done.returncode, done.stderr) == (2, f"error: {said}\n")


def test_the_workflow_for_a_hosted_runner_asks_for_what_is_tested_here():
    lines = (ROOT / ".github" / "workflows" / "benchmark.yml").read_text().splitlines()
    commands = [line.partition("run: ")[2] for line in lines if "- run: " in line]
    assert commands == ["pip install -e .", "python -m bench compare --against origin/$GITHUB_BASE_REF --fail-on 5%"]
    assert find_preset("versions").effort.lives > 1
