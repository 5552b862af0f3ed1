"""`python -m tests.fuzz`: its cases are right, and one that is not is told so that it can be had again."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from tests import fuzz

app = typer.Typer()
app.command()(fuzz.main)


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words]).output


@pytest.mark.parametrize("cases", [100, pytest.param(1500, marks=pytest.mark.slow)])
def test_cases_of_another_seed_each_time_are_right(cases):
    """In a process of its own, which may crash."""
    words = [sys.executable, "-m", "tests.fuzz", str(cases)]
    done = subprocess.run(words, cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{cases} right" in done.stdout


def test_a_wrong_case_is_told_and_had_again(monkeypatch):
    def kind(case):
        assert case.size.H < 20, f"H = {case.size.H}"

    monkeypatch.setattr(fuzz, "KINDS", (kind,))
    output = run(50, "--seed", 7)
    told = re.findall(r"wrong: (--seed 7 --only \d+): AssertionError: (H = \d+)", output)
    assert 5 < len(told) < 45
    assert f"{50 - len(told)} right ({50 - len(told)} kind), {len(told)} wrong" in output
    words, message = told[-1]
    assert message in run(*words.split())
