"""One benchmark at a time on a machine, whoever starts it and however it ends."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bench.grid.cases import ChoiceError
from bench.machine.lock import the_machine

ROOT = Path(__file__).parents[3]
HOLDER = "from bench.machine.lock import the_machine\nwith the_machine():\n    print('held', flush=True)\n    input()"


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setenv("UNROLLED_LOCK", str(tmp_path / "lock"))
    return tmp_path / "lock"


def start(program, *words):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, *words, "-c", program], cwd=ROOT, text=True, **pipes)


@pytest.fixture
def holder(file):
    process = start(HOLDER)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_who_does_not_wait_is_told_who_holds_it(holder):
    said = rf"^--no-wait: expected no other benchmark here, got process {holder.pid} of \S+ since \d\d:\d\d:\d\d, -c$"
    with pytest.raises(ChoiceError, match=said), the_machine(wait=False):
        pass


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, None])
def test_who_waits_says_so_and_goes_on_when_the_holder_ends(holder, end):
    waiting = start(HOLDER)
    line = waiting.stderr.readline()
    assert re.match(rf"Waiting for another benchmark on this machine: process {holder.pid} of ", line)
    if end:
        holder.send_signal(end)
    else:
        holder.stdin.write("\n")
        holder.stdin.flush()
    assert waiting.stdout.readline() == "held\n"
    waiting.communicate("\n", timeout=600)
    assert waiting.returncode == 0


def test_ctrl_c_ends_the_waiting(holder):
    waiting = start(HOLDER)
    waiting.stderr.readline()
    waiting.send_signal(signal.SIGINT)
    assert "KeyboardInterrupt" in waiting.communicate(timeout=600)[1]


def test_who_holds_it_may_take_it_again(file):
    with the_machine():
        with the_machine(wait=False):
            assert f"process {os.getpid()} of " in file.read_text()
        assert file.read_text()
    assert file.read_text() == ""
    with the_machine(wait=False):
        pass


def test_an_error_lets_go_of_it(file):
    with pytest.raises(ZeroDivisionError), the_machine():
        raise ZeroDivisionError
    with the_machine(wait=False):
        pass


def test_the_file_is_for_all_users_whatever_the_umask(file):
    before = os.umask(0o077)
    try:
        with the_machine():
            assert file.stat().st_mode & 0o777 == 0o666
    finally:
        os.umask(before)


@pytest.mark.skipif(os.getuid() == 0, reason="root may write to every file")
def test_a_file_that_cannot_be_written_to_is_locked_all_the_same(file):
    file.touch(0o444)
    with the_machine():
        waiting = start("from bench.machine.lock import the_machine\nwith the_machine(wait=False): pass")
        assert "got somebody who does not say who it is" in waiting.communicate()[1]


@pytest.mark.parametrize("place", ["folder", "link", "pipe"])
def test_what_is_no_file_is_no_lock(file, place):
    make = {"folder": file.mkdir, "link": lambda: file.symlink_to("/dev/null"), "pipe": lambda: os.mkfifo(file)}
    make[place]()
    with pytest.raises(OSError, match="lock"), the_machine():
        pass


def test_a_holder_that_writes_nonsense_is_quoted_in_one_line(holder, file):
    file.write_bytes(b"\x1b[31m\n\xff" * 300)
    with pytest.raises(ChoiceError) as error, the_machine(wait=False):
        pass
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 600


@pytest.mark.parametrize(
    "words",
    [
        ["run", "--preset", "quick"],
        ["null"],
        ["machine"],
        ["train", "adding"],
        ["train", "text", "--file", "README.md"],
    ],
    ids=" ".join,
)
def test_every_command_that_measures_takes_it(holder, tmp_path, words):
    command = [sys.executable, "-m", "bench", *words, "--no-wait"]
    reports = ["--output" if words[0] == "train" else "--reports", tmp_path / "out"] if words[0] != "machine" else []
    done = subprocess.run([*command, *reports], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: --no-wait: expected no other benchmark here, got process ")


def test_benchmarks_of_pytest_take_it(holder, tmp_path):
    words = ["--benchmark", "--hidden=8", "--no-wait", f"--reports={tmp_path}", "-x", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run([sys.executable, "-m", "pytest", *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0
    assert "--no-wait: expected no other benchmark here" in done.stdout
