import json
import os
import shutil
import subprocess
import sys

import pytest

from bench.timing.worker import ROOT

SMALL = ("--cell=rnn", "--hidden=8", "--seq-len=4", "--batch=1", "--threads=1")


def run_pytest(*words, cwd=ROOT, **environment):
    words = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *map(str, words)]
    # As a process of its own, and not as a worker of the pytest-xdist that may run this test.
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")} | environment
    return subprocess.run(words, cwd=cwd, env=env, capture_output=True, text=True)


def test_benchmarks_feed_pytest_benchmark_and_end_in_a_report(tmp_path):
    done = run_pytest(
        "--benchmark",
        *SMALL,
        "--operation=forward",
        "--implementations=numpy,numba-simd",
        f"--reports={tmp_path}",
        f"--benchmark-json={tmp_path / 'saved.json'}",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    assert f"{folder}/report.html" in done.stdout
    assert (folder / "report.html").exists()
    assert json.loads((folder / "run.json").read_text())["finished"]

    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    saved = json.loads((tmp_path / "saved.json").read_text())
    assert "simd" in saved["machine_info"]["unrolled"]
    assert len(rows) == 2
    for row, entry in zip(rows, saved["benchmarks"], strict=True):
        assert entry["name"] == f"test_cell[rnn-forward-H8-I1-T4-B1-float32-1t-{row['implementation']}]"
        assert entry["group"] == "rnn-forward-H8-I1-T4-B1-float32-1t"
        assert entry["stats"]["data"] == pytest.approx(row["times"], rel=1e-6)
        assert entry["extra_info"]["compile_s"] == row["compile_s"]

    compared = run_pytest(
        "--benchmark",
        *SMALL,
        "--operation=forward",
        "--implementations=numpy",
        f"--reports={tmp_path}",
        "--benchmark-storage",
        tmp_path,
        "--benchmark-autosave",
        "--fresh",
        "-k",
        "numpy",
    )
    assert compared.returncode == 0, compared.stdout
    assert list(tmp_path.glob("*/0001_*.json"))


def test_a_stream_has_its_percentiles_as_extra_info(tmp_path):
    done = run_pytest(
        "--benchmark",
        "--cell=rnn",
        "--operation=stream",
        "--hidden=8",
        "--seq-len=100",
        "--batch=1",
        "--threads=1",
        "--period=1ms",
        "--implementations=numba-simd",
        f"--reports={tmp_path}",
        f"--benchmark-json={tmp_path / 'saved.json'}",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (entry,) = json.loads((tmp_path / "saved.json").read_text())["benchmarks"]
    found = entry["extra_info"]
    assert 0 < found["p90_s"] <= found["p99_s"] <= found["p999_s"] <= found["worst_s"]
    assert found["paced_s"] <= found["paced_worst_s"]
    assert found["paced_calls"] % 100 == 0
    assert found["period_s"] == 0.001
    assert found["missed"] >= 0
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    (own,) = json.loads((folder / "pytest-benchmark.json").read_text())["benchmarks"]
    assert own["extra_info"] == found


def test_wrong_fails_and_absent_is_skipped(tmp_path):
    """With implementations of the tests in place of the real ones."""
    (tmp_path / "stand_in.py").write_text(
        "import bench.timing.plan\n"
        "bench.timing.plan.implementations.find = lambda: {\n"
        "    name: f'tests.bench.timing.broken.{name}'\n"
        "    for name in ('wrong', 'quits', 'absent', 'unsupported', 'noisy')\n"
        "}\n"
    )
    names = "--implementations=wrong,quits,absent,unsupported,noisy"
    path = f"sys.path[:0] = ['', {str(tmp_path)!r}]"
    script = f"import sys, pytest; {path}; import stand_in; sys.exit(pytest.main(sys.argv[1:]))"
    words = ["--benchmark", *SMALL, "--operation=bptt", names, f"--reports={tmp_path / 'reports'}", "-rfs"]
    done = subprocess.run([sys.executable, "-c", script, *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "2 failed, 1 passed, 2 skipped" in done.stdout
    assert "wrong: state.h: error 0.001" in done.stdout
    assert "error: build: ended with exit code 3" in done.stdout
    assert "absent: not installed" in done.stdout
    assert "unsupported: no gradients" in done.stdout


def test_plain_pytest_knows_no_benchmark():
    done = run_pytest("--collect-only", "-q", "tests/bench/machine/test_describe.py", "bench")
    assert "test_describe.py::" in done.stdout
    assert "numpy" not in done.stdout.replace("what_cannot", "")
    named = run_pytest("-q", "-rs", "bench/test_cells.py")
    assert "a benchmark: run with --benchmark" in named.stdout


def collected(done):
    """Return the names of the tests that were collected, without the paths of their files."""
    return [line.rpartition("/")[2] for line in done.stdout.splitlines() if "::" in line]


CELLS = ["test_cells.py::test_cell[rnn-forward-H8-I1-T4-B1-float32-1t-numpy]"]
ONE = ("--benchmark", "--collect-only", "-q", *SMALL, "--operation=forward", "--implementations=numpy")


@pytest.mark.parametrize(
    "words", [[ROOT], [ROOT / "tests"], [ROOT / "bench" / "test_cells.py"]], ids=["checkout", "tests", "file"]
)
def test_benchmarks_run_from_another_folder(words, tmp_path):
    assert collected(run_pytest(*words, *ONE, cwd=tmp_path)) == CELLS


def test_a_benchmark_can_be_named():
    assert collected(run_pytest(*ONE, f"bench/{CELLS[0]}")) == CELLS
    assert "ERROR: not found" in run_pytest(*ONE, f"bench/{CELLS[0].replace('H8', 'H9')}").stderr


def test_a_checkout_may_lie_anywhere(tmp_path):
    checkout = tmp_path / "a [b] ü"
    for name in ("bench", "kernels", "reference"):
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("conftest.py", "pyproject.toml"):
        shutil.copy(ROOT / name, checkout)
    assert collected(run_pytest(*ONE, cwd=checkout)) == CELLS


def test_without_pytest_benchmark_nothing_is_missed():
    assert "1 skipped" in run_pytest("-p", "no:benchmark", "-q", "bench").stdout


def test_the_report_does_not_wait_for_what_pytest_benchmark_saves(tmp_path):
    """Which fails here: the JSON's path is a folder's."""
    words = ("--operation=forward", "--implementations=numpy", f"--reports={tmp_path}", f"--benchmark-json={tmp_path}")
    done = run_pytest("--benchmark", *SMALL, *words)
    assert "IsADirectoryError" in done.stderr
    (info,) = tmp_path.glob("*/run.json")
    assert json.loads(info.read_text())["finished"]
    assert (info.parent / "report.html").exists()


def test_a_numba_cache_dir_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    done = run_pytest("--benchmark", NUMBA_CACHE_DIR=str(tmp_path / "file"))
    assert done.returncode == 4
    assert done.stderr.startswith("ERROR: NUMBA_CACHE_DIR: expected a folder that can be written, got ")
    assert len(done.stderr.strip().splitlines()) == 1


def test_slow_tests_wait_for_their_option(tmp_path):
    (tmp_path / "test_it.py").write_text("import pytest\n\n@pytest.mark.slow\ndef test_it():\n    pass\n")
    arguments = ("-q", "-rs", "-c", ROOT / "pyproject.toml", "-p", "bench.plugin", tmp_path)
    assert "slow: run with --slow" in run_pytest(*arguments).stdout
    assert "1 passed" in run_pytest(*arguments, "--slow").stdout


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("--hidden=x", "ERROR: --hidden: expected whole numbers of 1 or more, separated by commas, got 'x'"),
        (
            "--preset=quik",
            "ERROR: --preset: expected quick, standard, full, limits, low, networks, versions, stream, models "
            "or deepbench, or a .toml file, got 'quik'",
        ),
        ("-n2", "ERROR: --benchmark: expected one process, got -n: benchmarks would disturb each other"),
        ("-pno:benchmark", "ERROR: --benchmark: expected pytest-benchmark, got none: is it off by -p no:benchmark?"),
        ("--reports=pyproject.toml", "ERROR: --reports: expected a folder, got the file pyproject.toml"),
        (
            "--benchmark-cprofile=cumtime",
            "ERROR: --benchmark-cprofile: expected none: what is timed runs in processes of its own",
        ),
        (
            "--benchmark-json=nowhere/saved.json",
            "ERROR: --benchmark-json: expected a file in a folder that exists, got nowhere/saved.json",
        ),
        (
            "--benchmark-group-by=colour",
            "ERROR: --benchmark-group-by: expected some of group, name, func, fullname, fullfunc, param, param:case, "
            "param:implementation, got 'colour'",
        ),
    ],
)
def test_a_bad_choice_is_one_line(word, message):
    done = run_pytest("--benchmark", word)
    assert done.returncode == 4
    assert done.stderr.strip() == message
