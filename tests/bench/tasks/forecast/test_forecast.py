import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from bench.grid.cases import ChoiceError
from bench.tasks.cli import app
from bench.tasks.forecast import series, stocks
from bench.tasks.forecast.data import Forecast, judge, walk_forward
from bench.tasks.learning.windows import windows


def train(*options):
    return CliRunner().invoke(app, list(map(str, options)), catch_exceptions=False)


@pytest.fixture
def table(tmp_path):
    """A wave on a slope: with its changes known, each next one follows from the two before."""
    path = tmp_path / "wave.csv"
    t = np.arange(300)
    pd.DataFrame({"date": pd.date_range("2020-01-01", periods=300), "v": 10 + 0.1 * t + np.sin(t)}).to_csv(path)
    return path


def test_windows_hold_the_rows_before_their_targets():
    values = np.arange(20.0).reshape(10, 2)
    x, y = windows(values, 3, 5, 9, horizon=2)
    assert x.shape == (3, 3, 2)
    np.testing.assert_array_equal(x[:, 0], values[2:5])
    np.testing.assert_array_equal(y[0], values[5:7].ravel())
    np.testing.assert_array_equal(y[-1], values[7:9].ravel())


def test_google_is_read_as_logarithms_of_ratios():
    table = stocks.load()
    assert table.names == ("open", "high", "low", "close", "volume")
    assert table.values.shape == (1046, 5)
    assert str(table.labels[0])[:10] == "2004-08-19"
    np.testing.assert_allclose(
        table.values[0],
        np.log([101.01 / 100.34, 109.08 / 100.34, 100.5 / 100.34, 108.31 / 100.34, 11428600 / 22351900]),
    )
    np.testing.assert_allclose(table.moved(table.level[:-1], table.values[:, 3]), table.level[1:])


def test_the_scale_is_of_the_training_part_alone():
    table = stocks.load()
    course = stocks.course(stocks.DEFAULT, table)
    assert course.train_rows == 732
    np.testing.assert_allclose(course.scaled[:732].mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(course.scaled[:732].std(axis=0), 1, rtol=1e-5)
    later = table.values.copy()
    later[732:] *= 100
    other = stocks.course(stocks.DEFAULT, table._replace(values=later))
    np.testing.assert_array_equal(other.data.train.x, course.data.train.x)
    np.testing.assert_array_equal(other.data.train.y, course.data.train.y)
    assert course.data.validation.y.shape == (314, 5)


def test_walking_forward_never_sees_what_it_foretells(table):
    course = series.course(replace(series.DEFAULT, epochs=1, hidden=4), series.load(table, "v"))
    predicted, came = walk_forward(course)
    assert len(predicted) == len(came) == 299 - course.train_rows
    changed = course.table.values.copy()
    changed[-1] = 99
    other = Forecast("series", course.settings, course.table._replace(values=changed), course.window)
    np.testing.assert_array_equal(walk_forward(other)[0], predicted)


def test_free_running_reads_its_own_output(table, monkeypatch):
    course = series.course(series.DEFAULT, series.load(table, "v"))
    monkeypatch.setattr(course, "predict", lambda weights, x: x[-1] + 1)
    changes = course.free_running({}, 100, 3)
    first = course.table.values[99, 0]
    np.testing.assert_allclose(changes, first + course.deviation[0] * np.array([1, 2, 3]), rtol=1e-5)


def test_judgements():
    rng = np.random.default_rng(0)
    came = rng.standard_normal(400)
    still = judge(np.full(400, 1e-9), came)
    assert still.skill == pytest.approx(0, abs=1e-6)
    assert still.direction == pytest.approx(still.up)
    good = judge(came + 0.3 * rng.standard_normal(400), came)
    assert good.verdict == "beat persistence"
    assert good.skill == pytest.approx(0.91, abs=0.03)
    bad = judge(2 * rng.standard_normal(400), came)
    assert bad.verdict == "was worse than persistence"
    assert bad.direction_low < 0.5 < bad.direction_high
    assert judge(0.02 * rng.standard_normal(400), came).verdict == "did not beat persistence"


def test_stocks_from_the_command_line(tmp_path):
    done = train(
        "stocks", "--epochs", 2, "--seeds", 1, "--hidden", 4, "--implementation", "numba-simd", "--output", tmp_path
    )
    assert done.exit_code == 0, done.output
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["task"] == "stocks"
    assert metrics["beat_persistence"] == (metrics["judgements"]["walk-forward"]["skill_low"] > 0)
    html = (tmp_path / "report.html").read_text()
    verdict = "The network beat" if metrics["beat_persistence"] else "The network did not beat"
    assert f"{verdict} persistence" in html
    assert html.count("<figure>") == 6
    assert {"one-step-ahead.png", "left-to-itself.svg"} <= {path.name for path in (tmp_path / "charts").iterdir()}


def test_a_series_that_can_be_foretold_is(tmp_path, table):
    options = ("--epochs", 15, "--seeds", 1, "--implementation", "numba-simd", "--learning-rate", 0.02)
    done = train("series", "--csv", table, "--column", "v", *options, "--output", tmp_path / "out")
    assert done.exit_code == 0, done.output
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["beat_persistence"]
    assert metrics["judgements"]["walk-forward"]["skill"] > 0.9

    moved = table.rename(tmp_path / "moved.csv")
    with pytest.raises(ChoiceError, match=r"^--csv: expected a file, found none at "):
        train("series", "--resume", tmp_path / "out")
    moved.write_text(moved.read_text().replace("10.0", "10.5"))
    with pytest.raises(ChoiceError, match=r"^--resume: expected the records that were learned, got others$"):
        train("series", "--resume", tmp_path / "out", "--csv", moved)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["series"], "--csv: expected a table, got none"),
        (["series", "--csv", "{}/none.csv", "--column", "v"], "--csv: expected a file, found none at "),
        (["series", "--csv", "{}/wave.csv", "--column", "w"], "--column: expected one of Unnamed: 0, date, v in "),
        (["series", "--csv", "{}/bad.csv", "--column", "v"], "{}/bad.csv: expected numbers in v, got x in row 2"),
        (["series", "--csv", "{}/flat.csv", "--column", "v"], "{}/flat.csv: expected v to vary in its first "),
        (["series", "--csv", "{}/bad.csv", "--column", "w"], "{}/bad.csv: expected more than 100 rows, got 2"),
        (
            ["stocks", "--csv", "{}/bad.csv", "--target", "z"],
            "--target: expected a column of {}/bad.csv (v, w), got 'z'",
        ),
        (
            ["stocks", "--csv", "{}/bad.csv", "--target", "w"],
            "{}/bad.csv: expected numbers above 0 in w, got -1 in row 2",
        ),
        (["stocks", "--window", "2000"], "--window: expected 1 to 946, of 1046 rows; got 2000"),
    ],
)
def test_bad_choices_are_one_line(options, message, tmp_path, table):
    (tmp_path / "bad.csv").write_text("v,w\n1,2\nx,-1\n3,4\n")
    (tmp_path / "flat.csv").write_text("v\n" + "1\n" * 200)
    with pytest.raises(ChoiceError) as caught:
        train(*(option.format(tmp_path) for option in options))
    assert str(caught.value).startswith(message.format(tmp_path))
    assert "\n" not in str(caught.value)
