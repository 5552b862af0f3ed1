import io
import json
import os
import re
import signal
import subprocess
import sys
import time

import psutil
import pytest

from bench import __main__ as cli
from bench.results.runs import key
from bench.timing.worker import ROOT

SMALL = (
    "--cell",
    "rnn",
    "--hidden",
    "8",
    "--seq-len",
    "4",
    "--batch",
    "1",
    "--threads",
    "1",
    "--implementations",
    "numpy",
)


def command(*words):
    return [sys.executable, "-m", "bench", *map(str, words)]


def bench(*words, **environment):
    env = {**os.environ, **environment}
    return subprocess.run(command(*words), cwd=ROOT, env=env, capture_output=True, text=True, errors="surrogateescape")


def rows_in(reports):
    (path,) = reports.glob("*/rows.jsonl")
    lines = path.read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def wait_for_rows(process, reports, count):
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline and process.poll() is None:
        if list(reports.glob("*/rows.jsonl")) and len(rows_in(reports)) >= count:
            return
        time.sleep(0.02)
    pytest.fail(f"no {count} rows; exit code {process.poll()}: {process.stderr.read()}")


def test_run_ends_in_a_report(tmp_path):
    done = bench(
        "run", *SMALL, "--operation", "forward", "--reports", tmp_path, "--implementations", "numpy,numba-simd"
    )
    assert done.returncode == 0, done.stderr
    report = done.stdout.splitlines()[-1]
    assert os.path.basename(report) == "report.html"
    assert os.path.exists(report)
    folder = os.path.dirname(report)
    assert {"run.json", "rows.jsonl", "results.csv", "report.md", "pytest-benchmark.json"} <= set(os.listdir(folder))
    assert [row["implementation"] for row in rows_in(tmp_path)] == ["numpy", "numba-simd"]

    again = bench("report", folder)
    assert (again.returncode, again.stdout.splitlines()[-1]) == (0, report)
    compared = bench("compare", folder, folder)
    assert compared.returncode == 0, compared.stderr
    assert "no difference" in compared.stdout


def test_killed_and_resumed(tmp_path):
    words = ("run", *SMALL, "--reports", tmp_path, "--operation", "forward,bptt,train", "--hidden", "8,9,10,11,12,13")
    process = subprocess.Popen(command(*words), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for_rows(process, tmp_path, 4)
    process.kill()
    process.communicate()
    kept = rows_in(tmp_path)
    assert 4 <= len(kept) < 18

    done = bench(*words)
    assert done.returncode == 0, done.stderr
    assert "Going on with" in done.stdout
    rows = rows_in(tmp_path)
    assert rows[: len(kept)] == kept
    assert len({key(row) for row in rows}) == len(rows) == 18


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted(tmp_path, sent, code):
    words = ("run", *SMALL, "--reports", tmp_path)
    process = subprocess.Popen(command(*words), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for_rows(process, tmp_path, 2)
    process.send_signal(sent)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == code
    assert "Traceback" not in errors
    assert "The same command goes on there." in errors
    assert 2 <= len(rows_in(tmp_path)) < 4
    (info,) = tmp_path.glob("*/run.json")
    assert json.loads(info.read_text())["finished"] is None


@pytest.mark.skipif(not psutil.LINUX, reason="needs prlimit")
def test_a_full_disk(tmp_path):
    """A limit on the size of a file, set in the midst of the run, stands in for the disk."""
    words = ("run", *SMALL, "--reports", tmp_path)
    process = subprocess.Popen(command(*words), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for_rows(process, tmp_path, 1)
    psutil.Process(process.pid).rlimit(psutil.RLIMIT_FSIZE, (100, 100))
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 1
    assert "Traceback" not in errors
    kept = len(rows_in(tmp_path))
    assert 1 <= kept < 4
    assert re.match(rf".*/rows\.jsonl: File too large: {kept} rows are kept in ", errors.splitlines()[-1])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("--preset", "quik"),
            "--preset: expected quick, standard, full, limits, low, networks, versions, stream, models or deepbench, "
            "or a .toml file, got 'quik'",
        ),
        (("--hidden", "0"), "--hidden: expected whole numbers of 1 or more, separated by commas, got '0'"),
        (("--implementations", "numpy,nympy"), "--implementations: expected some of numpy, numba-jit, numba-simd, "),
    ],
)
def test_a_bad_choice_is_one_line(words, message):
    done = bench("run", *words)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {message}")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


@pytest.mark.parametrize("words", [("report", "nowhere"), ("compare", "nowhere", "nowhere")])
def test_no_run_is_one_line(words):
    done = bench(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: nowhere: no run here (No such file or directory: run.json)\n"


@pytest.mark.parametrize("words", [("report",), ("compare", ROOT / "reports" / "sample")])
def test_a_run_with_a_row_that_is_none_is_one_line(tmp_path, words):
    (tmp_path / "run.json").write_bytes((ROOT / "reports" / "sample" / "run.json").read_bytes())
    (tmp_path / "rows.jsonl").write_text("[]\n")
    done = bench(*words, tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: {tmp_path}/rows.jsonl, line 1: expected a table of names and values, got []\n"


def test_a_file_in_the_place_of_a_folder_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    done = bench("run", *SMALL, "--reports", tmp_path / "file")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: --reports: expected a folder, got the file {tmp_path}/file\n"


def test_machine_is_told():
    done = bench("machine")
    assert done.returncode == 0, done.stderr
    for word in ("CPU", "Caches", "Memory", "Vectors", "BLAS", "numpy", "FMA peak", "L1", "LSTM"):
        assert word in done.stdout
    assert "…" not in done.stdout


def test_help_is_quick():
    script = (
        "import sys, bench.__main__; print([m for m in ('numpy', 'numba', 'matplotlib', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize("words", [["run", "--nonsense"], ["nonsense"], ["run", "--hidden"], ["train", "sine", "--no"]])
def test_unknown_words_are_one_line(words):
    done = bench(*words)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: ")


@pytest.mark.parametrize(
    ("encoding", "written"),
    [
        ("ascii", rb"\xfc \u015f \u2013 " + b"\xff\n"),
        ("cp1252", b"\xfc \\u015f \x96 \xff\n"),
        ("utf-8", "ü ş – ".encode() + b"\xff\n"),
    ],
)
def test_any_text_can_be_printed(monkeypatch, encoding, written):
    """What an output has no code for is escaped, and a byte of a path that is no UTF-8 stays that byte."""
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    monkeypatch.setattr(cli, "_run", lambda output: print("ü ş – \udcff"))
    with pytest.raises(SystemExit):
        cli.main()
    sys.stdout.flush()
    assert raw.getvalue() == written


def test_nothing_is_printed_by_echo():
    """Which has its own idea of what an output can show."""
    assert [
        path for path in (ROOT / "bench").rglob("*.py") if re.search(r"typer\.echo|click\.echo", path.read_text())
    ] == []


def test_a_run_may_lie_anywhere(tmp_path):
    reports = os.fsdecode(os.fsencode(tmp_path) + b"/a [b] \xc3\xbc \xff")
    try:
        os.mkdir(reports)
    except OSError:
        pytest.skip("paths are UTF-8 here")
    done = bench("run", *SMALL, "--operation", "forward", "--reports", reports, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert r"/a [b] \xfc " in done.stdout.splitlines()[-1]
    (folder,) = os.listdir(reports)
    (ROOT / reports / folder / "run.json").write_text(
        json.dumps(json.loads((ROOT / reports / folder / "run.json").read_text()) | {"preset": reports})
    )
    again = bench("report", os.path.join(reports, folder), PYTHONIOENCODING="utf-8")
    printed = os.fsencode(again.stdout)  # bytes, since what is no text cannot be told of a failure
    assert (again.returncode, printed) == (0, os.fsencode(os.path.join(reports, folder, "report.html")) + b"\n")


@pytest.mark.parametrize("buffered", ["", "1"])
def test_a_reader_that_leaves_is_no_error(buffered):
    """And not exit code 1, by which `compare --fail-on` says that something became slower."""
    words = command("--version")
    process = subprocess.Popen(
        words,
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": buffered},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 128 + signal.SIGPIPE


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_output_is_one_line():
    with open("/dev/full", "w") as full:
        words = command("--version")
        done = subprocess.run(words, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr == "error: No space left on device\n"


def test_a_numba_cache_dir_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    done = bench("run", *SMALL, "--reports", tmp_path / "reports", NUMBA_CACHE_DIR=str(tmp_path / "file"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: NUMBA_CACHE_DIR: expected a folder that can be written, got ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "reports").exists()


def test_numba_disable_jit_leaves_what_is_compiled_out_of_a_run(tmp_path):
    words = (*SMALL[:-1], "numpy,numba-jit,numba-simd", "--operation", "forward", "--reports", tmp_path)
    done = bench("run", *words, NUMBA_DISABLE_JIT="1")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    told = {row["implementation"]: (row["status"], row["message"]) for row in rows_in(tmp_path)}
    nothing = "unsupported", "NUMBA_DISABLE_JIT is set: nothing is compiled"
    assert told == {"numpy": ("ok", None), "numba-jit": nothing, "numba-simd": nothing}
