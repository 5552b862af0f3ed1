import json
import os
import re
import signal

import numpy as np
import pytest
from typer.testing import CliRunner

from bench.grid.cases import ChoiceError
from bench.tasks.cli import app
from bench.tasks.learning import checkpoint
from bench.tasks.learning.learners.apart import Apart
from bench.tasks.memory.data import ADDING, COPIED, COPY, SYMBOLS, Adding, Copy


def test_adding_asks_for_the_sum_of_the_two_marked():
    course = Adding(ADDING, 10)
    x, y = course.draw(200, np.random.default_rng(0))
    assert x.shape == (10, 200, 2)
    np.testing.assert_array_equal(x[:5, :, 1].sum(axis=0), 1)
    np.testing.assert_array_equal(x[5:, :, 1].sum(axis=0), 1)
    np.testing.assert_allclose((x[..., 0] * x[..., 1]).sum(axis=0), y[:, 0], rtol=1e-6)
    large = course.draw(20_000, np.random.default_rng(1)).y
    assert course.error(np.ones_like(large), large) == pytest.approx(course.constant, rel=0.03)


def test_copy_asks_for_the_symbols_after_the_sign():
    course = Copy(COPY, 7)
    x, y = course.draw(50, np.random.default_rng(0))
    assert x.shape == y.shape == (2 * COPIED + 7, 50)
    np.testing.assert_array_equal(x[:COPIED], y[-COPIED:])
    assert (x[-COPIED - 1] == SYMBOLS + 1).all()
    assert (x[-COPIED:] == SYMBOLS).all()
    assert (y[:-COPIED] == SYMBOLS).all()
    guess = np.zeros((*y.shape, SYMBOLS + 1))
    guess[..., SYMBOLS] = -np.inf
    assert course.error(guess, y) == pytest.approx(course.constant)
    assert course.error(100.0 * np.eye(SYMBOLS + 1)[y], y) == pytest.approx(0, abs=1e-9)


def test_batches_are_drawn_anew():
    course = Copy(COPY, 5)
    rng = np.random.default_rng(0)
    first, second = course.batches(rng), course.batches(rng)
    assert len(first) == 20
    assert not np.array_equal(first[0].x, second[0].x)


def test_adding_from_the_command_line(tmp_path):
    options = ["adding", "--length", "4", "--epochs", "2", "--seeds", "2", "--hidden", "4", "--output", str(tmp_path)]
    done = CliRunner().invoke(app, options, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("The RNN ")
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert list(metrics["cells"]) == ["rnn", "gru", "lstm"]
    assert metrics["without_memory"] == pytest.approx(1 / 6)
    assert (tmp_path / "report.html").read_text().count("<figure>") == 2


def test_copy_resumed_with_the_cell_that_ctrl_c_was_pressed_at(tmp_path, monkeypatch):
    learn, passes = Apart.learn, []

    def pressed(learner, batches):
        passes.append(learner)
        if len(passes) == 4 + 3:  # with each cell two to warm up, and two epochs
            os.kill(os.getpid(), signal.SIGINT)
        return learn(learner, batches)

    monkeypatch.setattr(Apart, "learn", pressed)
    options = ["--length", "3", "--epochs", "2", "--seeds", "1", "--hidden", "4", "--implementation", "numpy"]
    done = CliRunner().invoke(app, ["copy", *options, "--output", str(tmp_path)], catch_exceptions=False)
    assert done.exit_code == 130
    assert done.stdout.startswith("Interrupted")
    assert list(json.loads((tmp_path / "metrics.json").read_text())["cells"]) == ["rnn", "gru"]
    done = CliRunner().invoke(app, ["copy", "--resume", str(tmp_path)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    cells = json.loads((tmp_path / "metrics.json").read_text())["cells"]
    epochs = {name: cell["implementations"]["numpy"]["epochs"] for name, cell in cells.items()}
    assert epochs == {"rnn": 2, "gru": 2, "lstm": 2}
    assert len(passes) == 4 + 3 + 3 + 4


def test_a_cell_that_diverges_is_told_of_beside_those_that_learn(tmp_path):
    options = ["--length", "3", "--epochs", "1", "--seeds", "1", "--hidden", "4", "--implementation", "numpy"]
    diverging = ["--optimizer", "sgd", "--learning-rate", "1e30", "--clip-norm", "1e30", "--output", str(tmp_path)]
    done = CliRunner().invoke(app, ["adding", *options, *diverging], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    for cell, words in zip(("RNN", "GRU", "LSTM"), done.stdout.splitlines(), strict=False):
        assert words.startswith(f"The {cell}: The training diverged: after 1 epoch with seed 0 ")
    assert "nan" not in done.stdout
    assert not re.search(
        r">nan<|\bnan\b", re.sub(r"<svg.*?</svg>", "", (tmp_path / "report.html").read_text(), flags=re.S)
    )


def test_a_goal_met_before_any_training_is_told(tmp_path):
    options = ["--length", "3", "--epochs", "1", "--seeds", "1", "--hidden", "4", "--implementation", "numpy"]
    goal = ["--cell", "rnn", "--goal", "100", "--output", str(tmp_path)]
    done = CliRunner().invoke(app, ["adding", *options, *goal], catch_exceptions=False)
    assert done.stdout.startswith("The RNN was at the goal of 100 before any training. Lower --goal.")


def test_an_interrupt_before_the_first_epoch_leaves_no_folder(tmp_path, monkeypatch):
    def pressed(learner, *arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(Apart, "begin", pressed)
    done = CliRunner().invoke(app, ["adding", "--output", str(tmp_path / "out")], catch_exceptions=False)
    assert done.exit_code == 130
    assert "there is nothing to report" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"options": {"length": "4"}, "races": {}}, "options: length: expected a whole number, got '4'"),
        (
            {"options": {"cells": "rnn"}, "races": {}},
            "options: expected length, layers, bidirectional, implementation, .*, got cells",
        ),
        ({"options": {"cell": "rnn"}, "races": {"gru": {}}}, "races: expected rnn, got gru"),
        ({"options": {}, "races": {"gru": {}}}, "races: gru: expected settings, records, .*, got none"),
        ({"options": {}}, "expected options, races, got options"),
    ],
)
def test_a_forged_training_is_refused_in_one_line(tmp_path, about, message):
    checkpoint.save_training(tmp_path, "adding", about, {})
    with pytest.raises(ChoiceError, match=f"training.npz: {message}$"):
        CliRunner().invoke(app, ["adding", "--resume", str(tmp_path)], catch_exceptions=False)


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("adding", "is asked after the first step"),
        pytest.param("copy", "count the answers left", marks=pytest.mark.slow),
    ],
)
def test_a_network_of_layers_and_directions(tmp_path, task, words):
    options = ["--layers", "2", "--bidirectional", "--cell", "lstm", "--length", "4", "--hidden", "4", "--seeds", "1"]
    course = [task, *options, "--epochs", "3", "--output", str(tmp_path)]
    done = CliRunner().invoke(app, course, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["cells"]["lstm"]["settings"]["layers"] == 2
    assert metrics["cells"]["lstm"]["settings"]["bidirectional"] is True
    html = (tmp_path / "report.html").read_text()
    assert "steps, in 2 layers and both directions, on 1 thread" in html
    assert words in html
    _, kept = checkpoint.load_training(tmp_path, task)
    assert kept["lstm"]["weights"]["numba-simd"]["U_l1_reverse"].shape == (16, 8)
    again = CliRunner().invoke(app, [task, "--resume", str(tmp_path)], catch_exceptions=False)
    assert again.exit_code == 0, again.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--layers", "0"], "--layers: expected a whole number of 1 or more, got 0"),
        (["--layers", "two"], "--layers: expected a whole number, got 'two'"),
        (["--layers", "2", "--truncate", "3"], "--truncate: expected 29 or more, full BPTT, in such a network, got 3"),
    ],
)
def test_networks_that_are_refused(options, message):
    with pytest.raises(ChoiceError, match=f"^{message}$"):
        CliRunner().invoke(app, ["adding", *options], catch_exceptions=False)


def test_a_length_too_short():
    with pytest.raises(ChoiceError, match=r"^--length: expected a whole number of 2 or more, got 1$"):
        Adding(ADDING, 1)
