import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bench.grid.cases import ChoiceError
from bench.results.files import expect_folder
from bench.tasks.options import expect_as_kept, report_folder

ROOT = Path(__file__).parents[3]


def test_two_trainings_that_begin_at_once_have_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len({report_folder("sine", None) for _ in range(3)}) == 3
    assert report_folder("sine", tmp_path / "mine") == report_folder("sine", tmp_path / "mine")


def test_a_report_of_something_else_is_not_written_over(tmp_path):
    (tmp_path / "report.html").write_text("somebody's")
    with pytest.raises(ChoiceError, match="--output: expected a folder without another report, got "):
        report_folder("sine", tmp_path)
    (tmp_path / "metrics.json").touch()  # a training's own
    assert report_folder("sine", tmp_path) == tmp_path


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs a folder in which nobody can write")
@pytest.mark.parametrize("folder", ["/proc", "/proc/reports/deeper"])
def test_a_folder_that_cannot_be_written_is_refused_at_once(folder):
    with pytest.raises(ChoiceError, match=f"--reports: expected a folder that can be written, got {folder} "):
        expect_folder("--reports", Path(folder))
    words = [sys.executable, "-m", "bench", "--reports", folder]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: --reports: expected a folder that can be written, got {folder} ")


@pytest.mark.parametrize("given", [4, "4", "4.0", None])
def test_what_was_kept_may_be_given_again(given):
    expect_as_kept({"hidden": given}, {"hidden": 4})


@pytest.mark.parametrize(
    ("given", "kept", "message"),
    [
        ("5", 4, "--learning-rate: expected 4, as the training of --resume has it, got '5'"),
        ("a", "b", "--learning-rate: expected 'b', as the training of --resume has it, got 'a'"),
        ("a", None, "--learning-rate: expected none beside --resume, got 'a'"),
        (["a", "b"], ["a"], r"--learning-rate: expected \['a'\], as the training of --resume has it, got \['a', 'b'\]"),
    ],
)
def test_what_differs_from_what_was_kept_is_refused_with_both(given, kept, message):
    with pytest.raises(ChoiceError, match=f"^{message}$"):
        expect_as_kept({"learning_rate": given}, {"learning_rate": kept})


def test_ctrl_c_ends_a_report_at_once(tmp_path):
    """Though it is in compiled code that hears no signal: `finish` leaves that to the system."""
    program = """
import ctypes, sys
from pathlib import Path
from bench.tasks.options import Laps, finish

def write():
    print("writing", flush=True)
    ctypes.PyDLL(None).sleep(600)  # which keeps the interpreter's lock

finish(write, Path("here"), Laps(), True)
"""
    words = [sys.executable, "-c", program]
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "writing\n"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=300)
    assert process.returncode == -signal.SIGINT
    assert said == "Writing the report; the training is kept in here, and Ctrl-C ends at once.\n"
