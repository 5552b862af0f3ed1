"""`python -m tests.tables`: tables are drawn as they say they are, hints are followed, and a lie is told."""

import csv
import io
from datetime import UTC, datetime

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from bench.grid.cases import ChoiceError
from tests import refusals, tables
from tests.drawn.dates import FORMS, NAMES
from tests.drawn.table import draw_table

app = typer.Typer()
app.command()(tables.main)


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_there_are_many_names_and_forms():
    assert len(set(NAMES)) == len(NAMES) >= 30
    texts = {tuple(form.write(datetime(2016, 2, 5, 16, 35))) for forms in FORMS.values() for form in forms}
    assert len(texts) >= 100


def owner_reads(drawn, one):
    """Return the dates and numbers of one series as who knows everything about the file would read them."""
    skipped = {int(line) for lines in drawn.known["--skip-rows"] for line in lines.split(",")}
    text = drawn.data.decode("utf-8-sig")
    lines = [line for number, line in enumerate(text.splitlines(), 1) if number not in skipped]
    mark = drawn.known["--separator"][0]
    rows = list(csv.DictReader(io.StringIO("\n".join(lines)), delimiter="\t" if mark == "tab" else mark))
    rows = [row for row in rows if all(row[key] == one.rows[0][key] for key in drawn.keys)]
    rows = [row for row in rows if row[drawn.target] not in drawn.known["--missing"]]
    decimal = drawn.known["--decimal"][0]
    names = [name for name in one.rows[0] if name in drawn.dated]
    form = (drawn.known["--date-format"] or [None])[0]
    found = []
    for row in rows:
        digits = "".join(c for c in row[drawn.target] if c.isdigit() or c in f"-e{decimal}")
        date = datetime.strptime(" ".join(row[name] for name in names), form).replace(tzinfo=UTC) if names else None
        if date and "%y" in form and date > datetime.now(UTC):
            date = date.replace(year=date.year - 100)
        found.append((date, float(digits.replace(decimal, "."))))
    return sorted(found, key=lambda pair: pair[0]) if names else found


def of_strptime(drawn):
    return not drawn.dated or any(form.startswith("%") for form in drawn.known["--date-format"])


@pytest.mark.parametrize("seed", [seed for seed in range(32) if of_strptime(draw_table(seed))])
def test_a_table_holds_what_it_is_said_to_hold(seed):
    drawn = draw_table(seed)
    for one in drawn.series:
        found = owner_reads(drawn, one)
        assert [level for _, level in found] == one.levels[drawn.target].tolist()
        if one.begins is not None:
            dates = np.array([date.replace(tzinfo=None) for date, _ in found], "datetime64[us]")
            assert (one.begins <= dates).all()
            assert (dates < one.ends).all()


@pytest.mark.parametrize(
    ("message", "found"),
    [
        ("t.csv, line 2: expected a date, got 'x; --without a'; --without b leaves it out", [[("--without", "b")]]),
        ("t.csv: expected x, got y", []),
        ("--column: expected a column of t.csv (a, b), got 'c'", []),
        (
            "t.csv: expected a date, got '1'; --date-column 'a b' --date-format %d.%m.%y, or --without a",
            [[("--date-column", "a b"), ("--date-format", "%d.%m.%y")], [("--without", "a")]],
        ),
        (
            "t.csv: expected a number, got '1,2'; --decimal . or --decimal , tells which",
            [[("--decimal", ".")], [("--decimal", ",")]],
        ),
        (
            "t.csv: expected a number, got '-9'; --missing -9, or --missing=***",
            [[("--missing", v)] for v in ("-9", "***")],
        ),
        ("t.csv: expected a date, got '1'; --date-format tells how it is written", [[("--date-format", None)]]),
        ("t.csv: expected x, got 'y'; --where 'a b=c d' picks them", [[("--where", "a b=c d")]]),
    ],
)
def test_hints_are_read_as_a_shell_does(message, found):
    assert tables.hints(message) == found


def drawn_with(feature, without=()):
    """Return the first table drawn that has a feature, and none of some others."""
    for seed in range(1000):
        drawn = draw_table(seed)
        told = " ".join(drawn.features)
        if feature in told and not any(word in told for word in without):
            return drawn
    raise AssertionError(feature)


ODD = (
    "long:",
    "missing:",
    "no data:",
    "file: titles",
    "file: units",
    "command: stocks",
    "beyond",
    "numbers: thousands",
    "numbers: large",
)


def read_as(monkeypatch, message, changed=None):
    """Have the program refuse without options, and read with any: the series as it is, or changed."""
    from bench.tasks.forecast.data import Table

    def read(drawn, path, options):
        if not options:
            raise ChoiceError(message)
        one = drawn.series[0]
        level = one.levels[drawn.target]
        level = level if changed is None else changed(level)
        labels = np.arange(len(level)) if one.begins is None else one.begins[: len(level)]
        values = np.diff(level)[:, np.newaxis]
        table = Table("t.csv", (drawn.target,), values, drawn.target, level, labels, (), logarithmic=False)
        return type("Course", (), {"table": table})

    monkeypatch.setattr(tables, "read", read)


@pytest.mark.parametrize(
    ("changed", "failure"),
    [
        (None, None),
        (lambda level: level[::-1], "lie: --decimal .: in another order"),
        (lambda level: level[:-1], "lie: --decimal .: "),
        (lambda level: np.append(level, 5.0), "lie: --decimal .: "),
        (lambda level: level * 1000, "lie: --decimal .: other numbers"),
    ],
)
def test_what_is_read_is_held_to_the_walk(changed, failure, monkeypatch, tmp_path):
    read_as(monkeypatch, "t.csv, line 2: expected a number, got 'x'; --decimal . tells", changed)
    outcome = tables.follow(drawn_with("command: series", ODD), tmp_path / "t.csv")
    assert outcome.how == ("by hint" if failure is None else "never")
    assert [one.startswith(failure) for one in outcome.failures] == ([] if failure is None else [True])


@pytest.mark.parametrize(
    ("message", "failure"),
    [
        ("t.csv: expected x, got 'y'", "never read: "),
        ("t.csv: expected x, got 'y'; --decimal", "never read: "),
        ("t.csv: expected <class 'str'>, got 'y'; --decimal .", "foreign words: "),
    ],
)
def test_refusals_are_held_to_their_words(message, failure, monkeypatch, tmp_path):
    read_as(monkeypatch, message)
    drawn = drawn_with("command: series", ODD)
    drawn.known["--decimal"].clear()
    assert tables.follow(drawn, tmp_path / "t.csv").failures[0].startswith(failure)
    refusals.told.clear()  # its words are foreign on purpose


def test_a_chain_without_an_end_is_told(monkeypatch, tmp_path):
    def read(drawn, path, options):
        times = sum(name == "--missing" for name, _ in options)
        raise ChoiceError(f"t.csv: expected x, got 'y'; --missing {times} leaves it out")

    monkeypatch.setattr(tables, "read", read)
    drawn = drawn_with("command: series", ODD)
    assert any(one.startswith("more than 8 hints") for one in tables.follow(drawn, tmp_path / "t.csv").failures)

    def go_round(drawn, path, options):
        raise ChoiceError(f"t.csv: expected x, got 'y'; --without {'b' if ('--without', 'a') in options else 'a'}")

    monkeypatch.setattr(tables, "read", go_round)
    assert any(one.startswith("in circles") for one in tables.follow(drawn, tmp_path / "t.csv").failures)


@pytest.mark.parametrize("draws", [8, pytest.param(100, marks=pytest.mark.slow)])
def test_no_table_is_misread_whatever_hint_is_followed(draws, tmp_path):
    """That a table is refused for good is no lie, and not judged here: the command tells it."""
    failures = {seed: tables.run(seed, tmp_path)[1].failures for seed in range(draws)}
    lies = {seed: [one for one in found if not one.startswith("never read")] for seed, found in failures.items()}
    assert {seed: found for seed, found in lies.items() if found} == {}


@pytest.mark.slow
def test_verdicts_are_compared(tmp_path):
    drawn = drawn_with("command: stocks", [*(word for word in ODD if word != "command: stocks"), "dates: none"])
    path = tmp_path / "t.csv"
    path.write_bytes(drawn.data)
    right = [end for end in tables.follow(drawn, path).ends if end.message is None and end.wrong is None]
    assert tables.verdict_lies(drawn, path, right[0].options, tmp_path) is None
    one = drawn.series[0]
    other = one._replace(levels={name: level[::-1] for name, level in one.levels.items()})
    (tmp_path / "again").mkdir()
    different = tables.verdict_lies(drawn._replace(series=[other]), path, right[0].options, tmp_path / "again")
    assert different is not None
    assert different.startswith("verdict: ")


def test_a_failure_is_told_and_had_again(monkeypatch, tmp_path):
    monkeypatch.setattr(tables, "lie", lambda drawn, table, options: "planted")
    output = run("--draws", 3, "--seed", 2, "--write", tmp_path).output
    seeds = {line.split(":")[0] for line in output.splitlines() if "planted" in line}
    assert seeds
    assert {f"--draws 1 --seed {path.stem.removeprefix('table-')}" for path in tmp_path.iterdir()} >= seeds
    again = run(*seeds.pop().split())
    assert again.exit_code == 1
    assert "planted" in again.output
