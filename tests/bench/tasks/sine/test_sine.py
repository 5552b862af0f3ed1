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

from bench.grid.cases import ChoiceError
from bench.tasks.cli import app
from bench.tasks.learning import checkpoint
from bench.tasks.learning.learners.apart import Apart
from bench.tasks.learning.training import Race
from bench.tasks.sine.data import ARTICLE, DEFAULT, Sine, Wave, load

ROOT = Path(__file__).parents[4]


def train(*options):
    """Run the command in this process, which spares the imports."""
    return CliRunner().invoke(app, ["sine", *map(str, options)], catch_exceptions=False)


def test_records():
    data = load(dtype=np.float64)
    assert (data.train.x.shape, data.train.y.shape) == ((50, 100, 1), (100, 1))
    assert (data.validation.x.shape, data.validation.y.shape) == ((50, 50, 1), (50, 1))
    np.testing.assert_array_equal(data.train.x[:, 3, 0], np.sin(np.arange(3, 53)))
    np.testing.assert_array_equal(data.train.y[:, 0], np.sin(np.arange(50, 150)))
    np.testing.assert_array_equal(data.validation.x[:, 0, 0], np.sin(np.arange(100, 150)))
    np.testing.assert_array_equal(data.validation.y[:, 0], np.sin(np.arange(150, 200)))
    assert load().train.x.dtype == np.float32


def test_a_horizon_has_several_targets_and_none_of_the_validation_part_is_learned():
    data = load(Wave(horizon=3), np.float64)
    assert data.train.y.shape == (98, 3)
    np.testing.assert_array_equal(data.train.y[-1], np.sin(np.arange(147, 150)))
    np.testing.assert_array_equal(data.validation.y[0], np.sin(np.arange(150, 153)))
    np.testing.assert_array_equal(data.validation.y[-1], np.sin(np.arange(197, 200)))


def test_waves():
    wave = Wave((1.0, 0.3), noise=0.1)
    clean = (np.sin(np.arange(200)) + np.sin(0.3 * np.arange(200))) / 2
    np.testing.assert_allclose(wave.truth(0, 200), clean, atol=1e-12)
    assert np.std(wave.series(np.float64) - clean) == pytest.approx(0.1, rel=0.2)
    np.testing.assert_array_equal(wave.series(), wave.series())


def test_baselines():
    course = Sine(DEFAULT)
    found = course.baselines(load(dtype=np.float64).validation)
    assert found["predict zero"] == pytest.approx(0.705, abs=5e-4)
    assert found["persistence"] == pytest.approx(0.680, abs=5e-4)
    assert found["lag rule"] < 1e-14
    wave = Wave((1.0, 0.3, 2.0), horizon=4)
    assert Sine(DEFAULT, wave).baselines(load(wave, np.float64).train)["lag rule"] < 1e-10


@pytest.mark.parametrize("choices", [{"activation": "sigmoid"}, {"activation": "tanh"}])
def test_the_default_settings_learn_it(choices):
    race = Race(Sine(replace(DEFAULT, seeds=1, **choices)), ["numba-simd"])
    race.run()
    assert race.history("numba-simd").validation[-1] <= DEFAULT.goal


def test_continuation_reads_its_own_output(monkeypatch):
    course = Sine(DEFAULT)
    monkeypatch.setattr(course, "predict", lambda weights, x: 2 * np.cos(1) * x[-1] - x[-2])
    prediction, truth = course.continuation({}, 70)
    np.testing.assert_allclose(prediction, np.sin(np.arange(150, 220)), atol=1e-3)
    np.testing.assert_allclose(truth, np.sin(np.arange(150, 220)), atol=1e-12)


def test_the_articles_weights_leave_no_gradient():
    course = Sine(replace(ARTICLE, epochs=8, seeds=1))
    before = course.init_weights(0)
    assert course.saturation.in_reach == 1
    assert 0.9 < course.saturation.all_steps < 1
    assert course.saturation.largest_gradients["U"] == course.saturation.largest_gradients["W"] == 0
    race = Race(course, ["numpy"])
    race.run()
    np.testing.assert_array_equal(race.weights["numpy"]["W"], before["W"])
    np.testing.assert_array_equal(race.weights["numpy"]["U"], before["U"])
    assert np.ptp(race.predict("numpy", course.data.validation.x)) < 1e-4
    assert Sine(DEFAULT).saturation.all_steps == 0


def test_choices_of_the_task():
    with pytest.raises(ChoiceError, match=r"^--implementation: expected numpy, .*, jax, got 'nump'$"):
        Race(Sine(DEFAULT), ["nump"])
    with pytest.raises(ChoiceError, match=r"^--batch: expected at most 100, the training records, got 101$"):
        Sine(replace(DEFAULT, batch=101))
    with pytest.raises(ChoiceError, match=r"^--horizon: expected a whole number from 1 to 25, got 26$"):
        Wave(horizon=26)
    with pytest.raises(ChoiceError, match=r"^--frequencies: expected numbers between 0 and pi"):
        Wave((4.0,))


def test_command_line_writes_the_report(tmp_path):
    done = train(
        *("--epochs", 3, "--seeds", 2, "--output", tmp_path / "out", "--activation", "sigmoid"),
        *("--implementation", "numpy,numba-simd", "--horizon", 2, "--noise", 0.05, "--frequencies", "1,0.3"),
    )
    assert done.exit_code == 0, done.output
    assert Path(done.stdout.splitlines()[-1]).resolve() == tmp_path / "out" / "report.html"

    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["outcome"] == "finished"
    assert metrics["settings"]["activation"] == "sigmoid"
    assert set(metrics["implementations"]) == {"numpy", "numba-simd"}
    for entry in metrics["implementations"].values():
        first, second = entry["histories"]
        assert entry["epochs"] == len(first["seconds"]) == len(second["seconds"]) == 3
        assert entry["seconds"] == pytest.approx(sum(first["seconds"]))
        assert entry["validation"] == first["validation"][-1]
        assert entry["seconds_to_goal"] == [None, None]
    (comparison,) = metrics["comparisons"]
    assert (comparison["implementation"], comparison["baseline"]) == ("numba-simd", "numpy")
    assert comparison["largest_relative_difference"] < 1e-4
    assert comparison["epoch_speedup"]["low"] <= comparison["epoch_speedup"]["high"]
    assert metrics["wave"] == {"frequencies": [1.0, 0.3], "noise": 0.05, "horizon": 2}

    charts = {path.name for path in (tmp_path / "out" / "charts").iterdir()}
    assert len(charts) == 14
    assert {"error-by-time.png", "validation-records.svg", "continuation.png"} <= charts
    html = (tmp_path / "out" / "report.html").read_text()
    assert html.count("<figure>") == 7
    assert "settings lead to" not in html
    assert not re.search(
        r"\bnan\b", re.sub(r"<svg.*?</svg>|<script.*?</script>|<style.*?</style>", "", html, flags=re.S)
    )


def test_the_article_cut_short_by_ctrl_c(tmp_path, monkeypatch):
    learn, epochs = Apart.learn, []

    def pressed(learner, batches):
        losses = learn(learner, batches)
        epochs.append(len(losses))
        if len(epochs) == 5:  # after two passes to warm up
            os.kill(os.getpid(), signal.SIGINT)
        return losses

    monkeypatch.setattr(Apart, "learn", pressed)
    done = train("--article", "--implementation", "numpy", "--seed", 5, "--output", tmp_path)
    assert done.exit_code == 130
    assert done.stdout.startswith("Interrupted after 3 epochs of 25")
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["outcome"] == "interrupted"
    assert metrics["settings"] == vars(replace(ARTICLE, seed=5)) | {"clip_norm": None}
    assert list(metrics["implementations"]) == ["numpy"]
    assert "What the article&#39;s settings lead to" in (tmp_path / "report.html").read_text()


TIMES = ("written", "command", "machine", "compile_s")


def timeless(value):
    """Return metrics without what another run of the same training may have otherwise."""
    if isinstance(value, list):
        return [timeless(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {key: timeless(item) for key, item in value.items() if key not in TIMES and "seconds" not in key}


def test_resumed_from_the_command_line(tmp_path, monkeypatch):
    choices = ("--epochs", 3, "--seeds", 2, "--hidden", 4, "--implementation", "numpy", "--noise", 0.1)
    assert train(*choices, "--output", tmp_path / "whole").exit_code == 0
    learn, passes = Apart.learn, []

    def pressed(learner, batches):
        passes.append(learner)
        if len(passes) == 2 + 4:  # two to warm up, one seed, and the first epoch of the next
            os.kill(os.getpid(), signal.SIGINT)
        return learn(learner, batches)

    monkeypatch.setattr(Apart, "learn", pressed)
    parted = tmp_path / "parted"
    assert train(*choices, "--output", parted).exit_code == 130
    assert json.loads((parted / "metrics.json").read_text())["outcome"] == "interrupted"
    for options, message in {
        ("--hidden", 5): "--hidden: expected '4', as the training of --resume has it, got '5'",
        ("--noise", 0.2): "--noise: expected 0.1, as the training of --resume has it, got 0.2",
        ("--optimizer", "sgd"): "--optimizer: expected 'adam', as the training of --resume has it, got 'sgd'",
        ("--seeds", 1): "--seeds: expected 2 or more, which have begun, got 1",
    }.items():
        with pytest.raises(ChoiceError, match=f"^{message}$"):
            train("--resume", parted, *options)
    done = train("--resume", parted, "--hidden", 4, "--noise", 0.1)
    assert done.exit_code == 0, done.output
    assert Path(done.stdout.splitlines()[-1]).resolve() == parted / "report.html"
    whole, resumed = (json.loads((folder / "metrics.json").read_text()) for folder in (tmp_path / "whole", parted))
    assert timeless(resumed) == timeless(whole)
    assert len(passes) == 2 + 4 + 2 + 2, "what was done is not done again"


def test_what_cannot_be_resumed(tmp_path):
    file = tmp_path / "training.npz"
    expected = f"{file}: expected a saved sine training"
    for content, got in ((None, ": No such file or directory"), (b"PK", ", got a damaged file or one of another")):
        if content:
            file.write_bytes(content)
        with pytest.raises(ChoiceError, match=f"^{re.escape(expected + got)}"):
            train("--resume", tmp_path)
    checkpoint.save_training(tmp_path, "stocks", {}, {})
    with pytest.raises(ChoiceError, match=f"^{re.escape(expected)} of format 1, got stocks training of format 1$"):
        train("--resume", tmp_path)


def test_a_training_that_diverges_is_reported(tmp_path):
    options = ("--optimizer", "sgd", "--learning-rate", 1e30, "--clip", 1e30, "--hidden", 4)
    done = train(*options, "--implementation", "numpy", "--output", tmp_path)
    assert done.exit_code == 0
    assert "diverged" in done.stdout
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["implementations"]["numpy"]["train"] is None


def test_a_training_that_ends_far_off_is_reported_as_diverged_before_any_number(tmp_path):
    options = ("--optimizer", "sgd", "--learning-rate", 1e6, "--hidden", 4, "--epochs", 2)
    done = train(*options, "--implementation", "numpy", "--output", tmp_path)
    assert done.exit_code == 0
    assert re.match(
        r"The training diverged: after 2 epochs with seed 0 the training RMSE of numpy is [\d.e+]+; ", done.stdout
    )
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["outcome"] == "diverged"
    assert metrics["implementations"]["numpy"]["train"] > 1e3
    html = (tmp_path / "report.html").read_text()
    assert "The training diverged" in html
    assert "Left to itself" not in html


def test_a_command_says_what_it_took(tmp_path):
    done = train("--epochs", 1, "--seeds", 1, "--implementation", "numpy", "--output", tmp_path)
    number = r"[\d.]+ s"
    parts = ("beginning", "starting and compiling", "the race", "the report")
    expected = f"Took {number}: {', '.join(f'{number} {part}' for part in parts)}."
    assert re.search(f"^{expected}$", done.stderr, re.MULTILINE)


def test_without_compiled_code_a_race_is_refused_before_it_begins(monkeypatch):
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    with pytest.raises(ChoiceError, match=r"^train sine: numba-simd cannot measure the errors: NUMBA_DISABLE_JIT is"):
        Sine(DEFAULT)


def test_output_is_a_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ChoiceError, match=r"^--output: expected a folder, got the file "):
        train("--output", tmp_path / "file")


def test_a_bad_choice_is_one_line(tmp_path):
    words = [sys.executable, "-m", "bench", "train", "sine", "--hidden", "many", "--output", str(tmp_path / "out")]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: --hidden: expected a whole number, got 'many'\n"
    assert not (tmp_path / "out").exists()
