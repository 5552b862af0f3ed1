import json
import os
import subprocess
import sys

import pytest

from bench.timing.worker import ROOT

SMALL = ("--cell=rnn", "--hidden=8", "--seq-len=4", "--batch=1", "--threads=1")


def run_pytest(*words):
    words = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *map(str, words)]
    # As a process of its own, and not as a worker of the pytest-xdist that may run this test.
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    return subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True)


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
            "ERROR: --preset: expected quick, standard, full, limits or deepbench, or a .toml file, got 'quik'",
        ),
        ("-n2", "ERROR: --benchmark: expected one process, got -n: benchmarks would disturb each other"),
    ],
)
def test_a_bad_choice_is_one_line(word, message):
    done = run_pytest("--benchmark", word)
    assert done.returncode == 4
    assert done.stderr.strip() == message
