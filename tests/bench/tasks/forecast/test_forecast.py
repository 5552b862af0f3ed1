import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from bench.grid.cases import ChoiceError
from bench.tasks.cli import app
from bench.tasks.forecast import page, series, stocks
from bench.tasks.forecast.data import Forecast, judge, walk_forward
from bench.tasks.forecast.sheet import Reading
from bench.tasks.learning.training import History, Race
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
        (
            ["series", "--csv", "{}/wave.csv", "--column", "w"],
            "--column: expected a column of {}/wave.csv (column 1, date, v), got 'w'",
        ),
        (
            ["series", "--csv", "{}/bad.csv", "--column", "v"],
            "{}/bad.csv, line 3, column v: expected a number, got 'x'",
        ),
        (["series", "--csv", "{}/flat.csv", "--column", "v"], "{}/flat.csv: expected v to vary in its first "),
        (["series", "--csv", "{}/bad.csv", "--column", "w"], "{}/bad.csv: expected 102 rows or more, got 3"),
        (
            ["stocks", "--csv", "{}/bad.csv", "--target", "z"],
            "--target: expected a column of {}/bad.csv (v, w), got 'z'",
        ),
        (
            ["stocks", "--csv", "{}/bad.csv", "--target", "w"],
            "{}/bad.csv, line 3, column w: expected a number above 0, whose logarithm is read, got '-1'",
        ),
        (["stocks", "--window", "2000"], "--window: expected 1 to 731, of 1047 rows; got 2000"),
        (["stocks", "--window", "0"], "--window: expected 1 to 731, of 1047 rows; got 0"),
        (["stocks", "--without", "close"], "--target: expected a column of GOOG, as Matplotlib ships it (date, open, "),
        (
            ["stocks", "--csv", "{}/wave.csv", "--target", "v", "--separator", "ab"],
            "--separator: expected a single mark",
        ),
    ],
)
def test_bad_choices_are_one_line(options, message, tmp_path, table):
    (tmp_path / "bad.csv").write_text("v,w\n1,2\nx,-1\n3,4\n")
    (tmp_path / "flat.csv").write_text("v\n" + "1\n" * 200)
    with pytest.raises(ChoiceError) as caught:
        train(*(option.format(tmp_path) for option in options))
    assert str(caught.value).startswith(message.format(tmp_path))
    assert "\n" not in str(caught.value)


def days_of_a_stock(rows=150):
    """A random walk's days, the earliest first, with one holiday."""
    rng = np.random.default_rng(0)
    close = np.round(1000 * np.exp(np.cumsum(rng.normal(0, 0.01, rows))), 2)
    days = pd.bdate_range("2019-09-02", periods=rows + 1).delete(80)
    frame = pd.DataFrame({"Date": days, "Open": close + 1, "High": close + 9, "Low": close - 9, "Close": close})
    return frame.assign(Volume=1000 * rng.integers(10**3, 10**4, rows))


def yahoo(frame):
    later = frame.assign(**{"Adj Close": 0.9 * frame.Close})
    return later[["Date", "Open", "High", "Low", "Close", "Adj Close", "Volume"]].to_csv(index=False)


def yfinance(frame):
    head = "Price,Close,High,Low,Open,Volume\nTicker,AAPL,AAPL,AAPL,AAPL,AAPL\nDate,,,,,\n"
    return head + frame[["Date", "Close", "High", "Low", "Open", "Volume"]].to_csv(index=False, header=False)


def investing(frame):
    lines = ['"Date","Price","Open","High","Low","Vol.","Change %"']
    for day in frame[::-1].itertuples():
        prices = ",".join(f'"{price:,.2f}"' for price in (day.Close, day.Open, day.High, day.Low))
        lines.append(f'"{day.Date:%m/%d/%Y}",{prices},"{day.Volume / 1000:.2f}K","-0.25%"')
    return "\ufeff" + "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    ("vendor", "target", "used", "lay"),
    [
        (yahoo, "Close", "Open, High, Low, Close, Volume, not Adj Close", "the rows lay in their order"),
        (yfinance, "close", "Open, High, Low, Close, Volume", "the rows lay in their order"),
        (investing, "close", "Open, High, Low, Price, Vol., not Change %", "the rows lay newest first and were sorted"),
    ],
)
def test_tables_of_vendors_are_learned_and_the_page_says_what_was_read(vendor, target, used, lay, tmp_path):
    frame = days_of_a_stock()
    (tmp_path / "v.csv").write_text(vendor(frame), encoding="utf-8")
    options = ("--epochs", 1, "--seeds", 1, "--hidden", 4, "--implementation", "numpy", "--output", tmp_path / "out")
    done = train("stocks", "--csv", tmp_path / "v.csv", "--target", target, *options)
    assert done.exit_code == 0, done.output
    words = (
        f"Read: 150 rows of {used}. Dated by Date, 2019-09-02 to 2020-03-30; {lay}. "
        "From row to row it is usually 1 working day, 1 time longer: at most 2, after 2019-12-20."
    )
    assert words in done.output.replace("\n", " ")
    assert words in (tmp_path / "out" / "report.html").read_text()
    table = stocks.load(tmp_path / "v.csv", target)
    np.testing.assert_array_equal(table.level, frame.Close)
    np.testing.assert_allclose(table.values[:, table.column], np.diff(np.log(frame.Close)), atol=1e-12)
    volume = next(name for name in table.names if name.startswith("Vol"))
    changes = np.diff(np.log(frame.Volume))
    np.testing.assert_allclose(table.values[:, table.names.index(volume)], changes, atol=1e-12)
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["features"] == list(table.names)


def test_newest_first_is_learned_as_earliest_first(tmp_path):
    frame = days_of_a_stock()
    for name, rows in (("a", frame), ("b", frame[::-1]), ("c", frame.sample(frac=1, random_state=0))):
        (tmp_path / name).write_text(yahoo(rows))
    first, *others = (stocks.load(tmp_path / name) for name in "abc")
    for other in others:
        np.testing.assert_array_equal(other.values, first.values)
        np.testing.assert_array_equal(other.labels, first.labels)


def test_a_zero_volume_can_be_left_out(tmp_path):
    frame = days_of_a_stock()
    frame.loc[7, "Volume"] = 0
    (tmp_path / "v.csv").write_text(yahoo(frame))
    with pytest.raises(
        ChoiceError, match=r"line 9, column Volume: .* got '0'; --without Volume leaves the column out, --missing 0"
    ):
        stocks.load(tmp_path / "v.csv")
    table = stocks.load(tmp_path / "v.csv", reading=Reading(without="volume"))
    assert table.names == ("Open", "High", "Low", "Close")
    assert "Left out as told: Volume." in table.told


def course_of(values, folder, window=30, name="v", **settings):
    path = folder / "series.csv"
    path.write_text("\n".join([f'"{name}"', *map(repr, np.asarray(values, float).tolist())]))
    return series.course(
        replace(series.DEFAULT, hidden=4, epochs=1, seeds=1, **settings), series.load(path, name), window
    )


def walk(rows):
    return 100 + np.cumsum(np.random.default_rng(0).normal(size=rows))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            walk(200) * 1e200,
            r"expected changes of v whose squares are finite and above 0, .* got -.*e\+200 to .*e\+200$",
        ),
        (
            walk(200) * 1e-170,
            r"expected changes of v whose squares are finite and above 0, .* got -.*e-170 to .*e-170$",
        ),
        (np.r_[walk(150), walk(50) * 1e30], r"expected changes of v whose squares are finite and above 0, "),
        (
            0.1 * np.arange(200),
            r"expected v to vary in its first 140 rows, and not as a straight line; each change is 0.1$",
        ),
        (np.full(200, 3.0), r"expected v to vary in its first 140 rows, and not as a straight line; each change is 0$"),
        (
            np.r_[walk(150), np.full(60, 100.0)],
            r"expected 10 changes or more of v in its last 63 rows, which the forecast is judged by; got 4$",
        ),
        (walk(101), r"expected 102 rows or more, got 101$"),
        (walk(130), r"^--window: expected 1 to 29, of 130 rows; got 30$"),
    ],
)
def test_series_that_no_report_can_be_made_of_are_refused_before_the_training(values, message, tmp_path):
    with pytest.raises(ChoiceError, match=message):
        course_of(values, tmp_path)


def report(course, folder, weight=None):
    """Write the report on a network that has not learned anything."""
    race = Race(course, ["numpy"])
    weights = course.init_weights(0)
    if weight is not None:
        weights = {name: np.full_like(array, weight) for name, array in weights.items()}
    race.weights["numpy"] = weights
    race.histories["numpy"] = [History([0.1], [1.0, 1.0], [1.0, 1.0])]
    race.compile_s["numpy"] = 0.1
    return page.write(race, folder, "")


@pytest.mark.parametrize(("rows", "window", "steps"), [(131, 30, 19), (102, 1, 15), (300, 199, 45)])
def test_a_short_series_has_a_report(rows, window, steps, tmp_path):
    path = report(course_of(walk(rows), tmp_path, window, batch=1), tmp_path)
    assert f"for {steps} rows each" in path.read_text()


@pytest.mark.filterwarnings("error")
def test_a_column_may_have_any_name(tmp_path):
    path = report(course_of(walk(199), tmp_path, name="a $x_$ b $\\foo$ 收盘 <b>"), tmp_path)
    assert "<b>" not in path.read_text()


@pytest.mark.filterwarnings("error")
def test_forecasts_that_diverged_are_not_judged(tmp_path, monkeypatch):
    course = course_of(walk(140), tmp_path)
    monkeypatch.setattr(page, "walk_forward", lambda course: (np.full(42, np.inf), course.table.values[97:, 0]))
    path = report(course, tmp_path, weight=np.nan)
    assert "The network diverged: its forecasts are not finite." in path.read_text()
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert (metrics["verdict"], metrics["beat_persistence"], metrics["judgements"]) == ("diverged", False, {})


@pytest.mark.filterwarnings("error")
def test_a_judgement_by_few_changes_has_finite_ends():
    came = np.zeros(300)
    came[::30] = 1
    found = judge(np.full(300, 0.01), came)
    assert -1 < found.skill_low < found.skill_high < 1
