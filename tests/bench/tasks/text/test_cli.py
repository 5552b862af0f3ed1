import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from bench.__main__ import app
from bench.grid.cases import ChoiceError
from bench.tasks.learning import training
from bench.tasks.learning.learners.apart import Apart
from bench.tasks.text import precision
from bench.tasks.text import training as text_training

ROOT = Path(__file__).parents[4]
TINY = ("--hidden", 8, "--seq-len", 10, "--batch", 4)


@pytest.fixture
def tale(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(precision, "TURN", 0.001)
    words = np.random.default_rng(0).choice(["once\n", "upon ", "a ", "time "], 700)
    (tmp_path / "tale.txt").write_text("".join(words))
    return tmp_path / "tale.txt"


def bench(*words):
    return CliRunner().invoke(app, [*map(str, words)], catch_exceptions=False)


def test_train_then_resume_then_generate(tale, monkeypatch):
    monkeypatch.setattr(text_training, "ROUND", 20)
    folder = tale.parent / "out"
    done = bench("train", "text", "--file", tale, *TINY, "--implementation", "numpy", "--steps", 30, "--output", folder)
    assert done.exit_code == 0, done.output
    assert Path(done.stdout.splitlines()[-1]).resolve() == folder / "report.html"
    assert "After 20 steps" in done.stderr

    done = bench("train", "text", "--resume", folder, "--steps", 50, "--hidden", 8)  # which is known, as is the file
    assert done.exit_code == 0, done.output
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["outcome"] == "finished"
    assert metrics["text"]["name"] == "tale.txt"
    assert set(metrics["baselines"]["test"]) == {"uniform", "unigram", "order-3 n-gram"}
    (ours,) = metrics["implementations"].values()
    assert ours["steps"] == len(ours["history"]["losses"]) == 50
    assert ours["characters"] == 50 * 40
    assert set(metrics["bits"]) == {"validation", "test"}
    assert {sample["temperature"] for sample in metrics["samples"]} == set(text_training.TEMPERATURES)
    html = (folder / "report.html").read_text()
    assert "not better than the order-3 n-gram" in html
    assert html.count("<figure>") == 3
    assert html.count("<pre") >= 6
    assert [one["dtype"] for one in metrics["precisions"]] == ["float32", "bfloat16", "int8"]
    for one in metrics["precisions"]:
        assert one["characters_per_s"] > 0
        assert f"{one['bits']:.5g}" in html
    assert "With its weights in float32, bfloat16 and int8 the network takes" in done.stdout

    written = [
        bench("generate", model, "--length", 60, "--seed", 3, "--seed-text", "upon ")
        for model in (folder, folder / "model.npz")
    ]
    assert written[0].exit_code == 0, written[0].output
    assert written[0].stdout == written[1].stdout
    assert written[0].stdout.startswith("upon ")
    assert len(written[0].stdout) == 5 + 60 + 1
    assert re.search(r"^\d+ characters a second in float32$", written[0].stderr, re.MULTILINE)
    with pytest.raises(ChoiceError, match=r"^--seed-text: expected characters of the text learned, got 'X'$"):
        bench("generate", folder, "--seed-text", "X")


def test_a_terminal_is_not_told_what_to_do(tale):
    """By a text that holds its commands; a file gets the text as it is."""
    tale.write_text("once\x1b[31m\n" * 500)
    folder = tale.parent / "out"
    done = bench("train", "text", "--file", tale, *TINY, "--implementation", "numpy", "--steps", 5, "--output", folder)
    assert done.exit_code == 0, done.output
    assert "\x1b[31m" not in done.output
    options = ("generate", str(folder), "--temperature", "100", "--length", "200")
    as_it_is = bench(*options).stdout
    assert "\x1b" in as_it_is
    ours, terminal = pty.openpty()
    try:
        subprocess.run([sys.executable, "-m", "bench", *options], stdout=terminal, cwd=ROOT, check=True, timeout=1800)
        shown = os.read(ours, 2**12).decode()
    finally:
        os.close(ours)
        os.close(terminal)
    assert shown.replace("\r\n", "\n") == as_it_is.replace("\x1b", "?")


def test_text_is_written_in_every_dtype(tale):
    """After "ti" the text has always "me", so that the likeliest character is as clear as can be."""
    folder = tale.parent / "out"
    learning = ("--learning-rate", 0.03, "--implementation", "numba-simd", "--steps", 300)
    done = bench("train", "text", "--file", tale, *TINY, *learning, "--output", folder)
    assert done.exit_code == 0, done.output
    for dtype in ("float32", "bfloat16", "int8"):
        options = ("--dtype", dtype, "--seed-text", "once\nti", "--temperature", 0, "--length", 40)
        done = bench("generate", folder, *options)
        assert done.exit_code == 0, done.output
        assert done.stdout.startswith("once\ntime ")
        assert len(done.stdout) == 7 + 40 + 1
        assert re.search(rf"^\d+ characters a second in {dtype}$", done.stderr, re.MULTILINE)
    for dtype in ("float16", "int4", ""):
        with pytest.raises(ChoiceError, match=f"^--dtype: expected float32, bfloat16, int8, got '{dtype}'$"):
            bench("generate", folder, "--dtype", dtype)


@pytest.mark.slow
def test_layers_are_trained_told_of_and_write(tale):
    folder = tale.parent / "out"
    done = bench("train", "text", "--file", tale, *TINY, "--layers", 2, "--steps", 10, "--output", folder)
    assert done.exit_code == 0, done.output
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["settings"]["layers"] == 2
    assert [one["dtype"] for one in metrics["precisions"] if one["characters_per_s"]] == ["float32", "bfloat16", "int8"]
    assert "2 layers of " in (folder / "report.html").read_text()
    assert len(bench("generate", folder, "--length", 30).stdout) == 30 + 1


def test_where_nothing_is_compiled_the_dtypes_are_left_out(tale, monkeypatch):
    monkeypatch.setattr("numba.config.DISABLE_JIT", 1)
    folder = tale.parent / "out"
    steps = ("--implementation", "numpy", "--steps", 10)
    done = bench("train", "text", "--file", tale, *TINY, *steps, "--output", folder)
    assert done.exit_code == 0, done.output
    assert json.loads((folder / "metrics.json").read_text())["precisions"] == []
    assert "With its weights" not in (folder / "report.html").read_text()


def test_a_race_is_reported(tale):
    folder = tale.parent / "out"
    implementations = ("--implementation", "numpy,numba-simd", "--goal", 3)
    done = bench("train", "text", "--file", tale, *TINY, *implementations, "--seeds", 2, "--output", folder)
    assert done.exit_code == 0, done.output
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["goal"] == 3
    (comparison,) = metrics["comparisons"]
    assert (comparison["baseline"], comparison["implementation"]) == ("numpy", "numba-simd")
    assert comparison["speedup_to_goal"]["low"] <= comparison["speedup_to_goal"]["high"]
    assert comparison["largest_relative_difference"] < 1e-3
    both = metrics["implementations"]
    assert both["numpy"]["steps_to_goal"] == both["numba-simd"]["steps_to_goal"] == 100
    assert len(both["numpy"]["seconds_to_goal"]) == 2
    assert both["numpy"]["seconds_to_goal"][0] == pytest.approx(sum(both["numpy"]["history"]["seconds"][:10]))
    assert both["numpy"]["steps"] == 100, "the race is over when all are at the goal"


def test_an_interrupt_before_the_first_step_leaves_no_folder(tale, monkeypatch):
    def pressed(learner, *arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(Apart, "begin", pressed)
    done = bench("train", "text", "--file", tale, *TINY, "--output", tale.parent / "out")
    assert done.exit_code == 130
    assert "Interrupted before the first step: there is nothing to report." in done.stderr
    assert not (tale.parent / "out").exists()


@pytest.mark.parametrize("work", ["training.Lesson.judge", "precision.measure", "page.write"])
def test_an_interrupt_while_the_report_is_written_tells_where_the_training_is(tale, monkeypatch, work):
    def pressed(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(f"bench.tasks.text.{work}", pressed)
    folder = tale.parent / "out"
    steps = ("--implementation", "numpy", "--steps", 10)
    done = bench("train", "text", "--file", tale, *TINY, *steps, "--output", folder)
    assert done.exit_code == 130
    assert done.stderr.endswith(f"Interrupted: the training is kept in {folder}.\n")
    assert (folder / "training.npz").exists()


def test_a_training_without_a_step_to_the_goal_or_that_diverged_is_reported(tale):
    diverging = ("--optimizer", "sgd", "--learning-rate", 1e30, "--steps", 10)
    for name, options, words in (
        ("met", ("--goal", 100), "It took no more than the goal, 100 bits per character, before its first step."),
        ("brief", ("--minutes", 1e-9), "10 steps"),
        ("diverged", diverging, "The training diverged: after 10 steps the loss in bits per character of numpy is "),
    ):
        folder = tale.parent / name
        file = ("train", "text", "--file", tale, *TINY, "--implementation", "numpy")
        done = bench(*file, *options, "--output", folder)
        assert done.exit_code == 0, done.output
        assert words in (folder / "report.html").read_text()
        assert re.search(r"^Took [\d.]+ s: [\d.]+ s reading the text, .* the report\.$", done.stderr, re.MULTILINE)
        assert json.loads((folder / "metrics.json").read_text())["implementations"]["numpy"]["steps"] == 10


def test_the_default_threads_are_those_that_may_be_used(tale, monkeypatch):
    monkeypatch.setattr(training, "usable_cpus", lambda: 1)
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    bench("train", "text", "--file", tale, *TINY, "--steps", 10, "--output", tale.parent / "out")
    assert json.loads((tale.parent / "out" / "metrics.json").read_text())["settings"]["threads"] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--hidden", "many"], "--hidden: expected a whole number, got 'many'"),
        (["--layers", "0"], "--layers: expected a whole number of 1 or more, got 0"),
        (["--minutes", "0"], "--minutes: expected a number above 0, got 0.0"),
        (["--implementation", "numpie"], "--implementation: expected numpy, "),
        (["--resume", "nowhere"], "nowhere/training.npz: expected a saved text training: No such file or directory"),
        (["--batch", "5000"], "--batch: expected stretches of more than --seq-len 64 characters, got 5000 of 0"),
    ],
)
def test_bad_choices(tale, options, message):
    with pytest.raises(ChoiceError, match=f"^{re.escape(message)}"):
        bench("train", "text", "--file", tale, *options)


def test_a_damaged_model(tmp_path):
    (tmp_path / "model.npz").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(ChoiceError, match=r"model\.npz: expected a saved text model, got a damaged file or one of an"):
        bench("generate", tmp_path)
