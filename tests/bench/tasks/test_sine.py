import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from bench.cases import ChoiceError
from bench.tasks.cli import app
from bench.tasks.sine import ARTICLE, DEFAULT, TARGET_RMSE, Lesson, baselines, continuation, load
from bench.tasks.training import Learner

ROOT = Path(__file__).parents[3]


def train(*options):
    """Run the command in this process, which spares the imports."""
    return CliRunner().invoke(app, ["sine", *map(str, options)], catch_exceptions=False)


def test_records():
    data = load(np.float64)
    assert (data.train.x.shape, data.train.y.shape) == ((50, 100, 1), (100, 1))
    assert (data.validation.x.shape, data.validation.y.shape) == ((50, 50, 1), (50, 1))
    np.testing.assert_array_equal(data.train.x[:, 3, 0], np.sin(np.arange(3, 53)))
    np.testing.assert_array_equal(data.train.y[:, 0], np.sin(np.arange(50, 150)))
    np.testing.assert_array_equal(data.validation.x[:, 0, 0], np.sin(np.arange(100, 150)))
    np.testing.assert_array_equal(data.validation.y[:, 0], np.sin(np.arange(150, 200)))
    assert load().train.x.dtype == np.float32


def test_baselines():
    found = baselines(load(np.float64).validation)
    assert found["predict zero"] == pytest.approx(0.705, abs=5e-4)
    assert found["persistence"] == pytest.approx(0.680, abs=5e-4)
    assert found["two-lag rule"] < 1e-14


@pytest.mark.parametrize("activation", ["sigmoid", "tanh"])
def test_the_default_settings_learn_it(activation):
    lesson = Lesson(replace(DEFAULT, activation=activation), ["numba-simd"])
    lesson.train()
    assert lesson.learners[0].history.validation_rmse[-1] <= TARGET_RMSE


def test_continuation_reads_its_own_output():
    class TwoLagRule:
        data = load(np.float64)

        def predict(self, x):
            return 2 * np.cos(1) * x[-1] - x[-2]

    prediction, truth = continuation(TwoLagRule(), 70)
    np.testing.assert_allclose(prediction, np.sin(np.arange(150, 220)), atol=1e-12)
    np.testing.assert_array_equal(truth, np.sin(np.arange(150, 220)))


def test_the_articles_weights_leave_no_gradient():
    lesson = Lesson(replace(ARTICLE, epochs=8), ["numpy"])
    learner = lesson.learners[0]
    before = {name: a.copy() for name, a in learner.weights.items()}
    assert lesson.saturation.in_reach == 1
    assert 0.9 < lesson.saturation.all_steps < 1
    assert lesson.saturation.largest_gradients["U"] == lesson.saturation.largest_gradients["W"] == 0
    lesson.train()
    np.testing.assert_array_equal(learner.weights["W"], before["W"])
    np.testing.assert_array_equal(learner.weights["U"], before["U"])
    assert np.ptp(learner.predict(lesson.data.validation.x)) < 1e-4
    assert Lesson(DEFAULT, ["numpy"]).saturation.all_steps == 0


def test_choices_of_the_task():
    with pytest.raises(ChoiceError, match=r"^--implementation: expected numpy or numba-jit or numba-simd, got 'jax'$"):
        Lesson(DEFAULT, ["jax"])
    with pytest.raises(ChoiceError, match=r"^--batch: expected at most 100, the training records, got 101$"):
        Lesson(replace(DEFAULT, batch=101), ["numpy"])


def test_command_line_writes_the_report(tmp_path):
    done = train("--epochs", 3, "--output", tmp_path / "out", "--activation", "sigmoid")
    assert done.exit_code == 0, done.output
    assert Path(done.stdout.splitlines()[-1]) == tmp_path / "out" / "report.html"

    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["outcome"] == "finished"
    assert metrics["settings"]["activation"] == "sigmoid"
    assert set(metrics["implementations"]) == {"numpy", "numba-simd"}
    for entry in metrics["implementations"].values():
        assert entry["epochs"] == len(entry["history"]["seconds"]) == 3
        assert entry["seconds"] == pytest.approx(sum(entry["history"]["seconds"]))
        assert entry["validation_rmse"] == entry["history"]["validation_rmse"][-1]
    (comparison,) = metrics["comparisons"]
    assert comparison["largest_relative_difference"] < 1e-4
    assert comparison["epoch_speedup"]["low"] <= comparison["epoch_speedup"]["high"]
    assert metrics["baselines"]["validation"]["persistence"] == pytest.approx(0.680, abs=5e-4)

    charts = {path.name for path in (tmp_path / "out" / "charts").iterdir()}
    assert len(charts) == 12
    assert {"error-by-time.png", "validation-records.svg", "continuation.png"} <= charts
    html = (tmp_path / "out" / "report.html").read_text()
    assert html.count("<figure>") == 6
    assert "settings lead to" not in html
    assert not re.search(
        r"\bnan\b", re.sub(r"<svg.*?</svg>|<script.*?</script>|<style.*?</style>", "", html, flags=re.S)
    )


def test_the_article_cut_short_by_ctrl_c(tmp_path, monkeypatch):
    epoch = Learner.epoch

    def pressed(learner, batches):
        epoch(learner, batches)
        if len(learner.history.seconds) == 3:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Learner, "epoch", pressed)
    done = train("--article", "--implementation", "numpy", "--seed", 5, "--output", tmp_path)
    assert done.exit_code == 130
    assert done.stdout.startswith("Interrupted after 3 epochs of 25")
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["outcome"] == "interrupted"
    assert metrics["settings"] == vars(replace(ARTICLE, seed=5))
    assert list(metrics["implementations"]) == ["numpy"]
    assert "What the article&#39;s settings lead to" in (tmp_path / "report.html").read_text()


def test_a_training_that_diverges_is_reported(tmp_path):
    options = ("--optimizer", "sgd", "--learning-rate", 1e30, "--clip", 1e30, "--hidden", 4)
    done = train(*options, "--implementation", "numpy", "--output", tmp_path)
    assert done.exit_code == 0
    assert "diverged" in done.stdout
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["implementations"]["numpy"]["train_rmse"] is None


def test_output_is_a_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ChoiceError, match=r"^--output: expected a folder, got the file "):
        train("--output", tmp_path / "file")


def test_a_bad_choice_is_one_line(tmp_path):
    words = [sys.executable, "-m", "bench", "train", "sine", "--hidden", "many", "--output", str(tmp_path / "out")]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: --hidden: expected a whole number, got 'many'\n"
    assert not (tmp_path / "out").exists()
