"""What a table leaves open is asked for, and each hint that is printed leads on: never to another order or number."""

import io
import json
import shlex
import zipfile

import numpy as np
import pandas as pd
import pytest

from bench.grid.cases import ChoiceError
from bench.tasks.forecast import sheet
from bench.tasks.forecast.sheet import Reading

ROWS = 120
WALK = np.round(100 + np.cumsum(np.random.default_rng(1).normal(size=ROWS)), 2)
OTHER = np.round(50 + np.cumsum(np.random.default_rng(2).normal(size=ROWS)), 2)
DAYS = pd.bdate_range("2016-02-05", periods=ROWS)
OPTIONS = [f"--{name.replace('_', '-')}" for name in Reading._fields]


def read(text, **reading):
    found = sheet.parse(text, "t.csv", Reading(**reading))
    return found.columns([found.expect("--column", "v")])


def refusal(text, **reading):
    with pytest.raises(ChoiceError) as caught:
        read(text, **reading)
    message = str(caught.value)
    assert "\n" not in message
    return message


def hints(message):
    """Return what the options of each hint change."""
    found = []
    for part in message.split("; ", 1)[-1].split(", --"):
        words, changes = shlex.split(part if part.startswith("--") else f"--{part}"), {}
        while len(words) > 1 and words[0] in OPTIONS and words[1] not in ("tells", "leaves"):
            name = words[0][2:].replace("-", "_")
            several = name in ("where", "missing")
            changes[name] = (*changes.get(name, ()), words[1]) if several else words[1]
            del words[:2]
        if changes:
            found.append(changes)
    return found


def endings(text, reading=(), depth=0):
    """Follow every hint to the end and return what was read; none goes on for ever."""
    assert depth < 6
    try:
        return [read(text, **dict(reading))]
    except ChoiceError as error:
        found = []
        for changes in hints(str(error)):
            more = dict(reading)
            for name, value in changes.items():
                more[name] = (*more.get(name, ()), *value) if name in ("where", "missing") else value
            found += endings(text, more.items(), depth + 1)
        return found


def table(names, *columns, order=slice(None)):
    rows = [",".join(map(str, row)) for row in zip(*columns, strict=True)]
    return "\n".join([names, *np.array(rows)[order].tolist()]) + "\n"


WRITTEN = {
    "%d.%m.%y": DAYS.strftime("%d.%m.%y"),
    "%m/%d/%Y %I:%M:%S %p": DAYS.strftime("%m/%d/%Y %I:%M:%S %p"),
    "%Y%m%d": DAYS.strftime("%Y%m%d"),
    "%a %d %b %Y": DAYS.strftime("%a %d %b %Y"),
    "%G-W%V": pd.date_range("2016-01-04", periods=ROWS, freq="W-MON").strftime("%G-W%V"),
    "quarters": [f"{1950 + n // 4}Q{n % 4 + 1}" for n in range(ROWS)],
    "milliseconds": [day.value // 10**6 for day in DAYS],
    "microseconds": [day.value // 10**3 for day in DAYS],
    "excel": [(day - pd.Timestamp("1899-12-30")).days for day in DAYS],
    "years": [f"{1950 + (n + 0.5) / 12:.3f}" for n in range(ROWS)],
    "number": [7 * n + 3 for n in range(ROWS)],
}


@pytest.mark.parametrize("order", ["oldest first", "newest first", "shuffled"])
@pytest.mark.parametrize("name", ["Tag", "<DATE>", "open_time"])
@pytest.mark.parametrize("form", WRITTEN)
def test_dates_under_any_name_in_any_form_are_read_or_asked_for(form, name, order):
    places = np.arange(ROWS) if order == "oldest first" else np.arange(ROWS)[::-1]
    if order == "shuffled":
        places = np.random.default_rng(3).permutation(ROWS)
    found = endings(table(f"{name},v", WRITTEN[form], WALK, order=places))
    assert found
    for columns in found:
        np.testing.assert_array_equal(columns.values[:, 0], WALK)


@pytest.mark.parametrize("names", ["date,ticker,v", "when,store,v", "ticker,v"])
def test_rows_of_several_series_are_picked(names):
    keys = [["AAA", "BBB"] if "ticker" in names else [1, 2]] * ROWS
    dates = np.repeat(DAYS.strftime("%Y-%m-%d"), 2)
    columns = [dates, np.ravel(keys), np.stack([WALK, OTHER], axis=1).ravel()]
    text = table(names, *(columns if names.count(",") == 2 else columns[1:]))
    message = refusal(text)
    key, value = names.split(",")[-2], np.ravel(keys)[0]
    assert f"; --where {key}={value} picks one of 2" in message
    assert "--without date" not in message
    found = read(text, where=[f"{key}={value}"])
    np.testing.assert_array_equal(found.values[:, 0], WALK)
    assert f"Picked as told: {ROWS} of {2 * ROWS} rows, whose {key} is {value}." in found.told
    assert refusal(text, where=["x"]) == "--where: expected COLUMN=VALUE, got 'x'"
    assert refusal(text, where=[f"{key}=C"]).startswith(f"--where: expected {key} as it is in t.csv ({value}, ")


def test_dates_that_are_left_out_must_not_speak_against_the_order():
    text = table("date,v", DAYS.strftime("%Y-%m-%d"), WALK, order=slice(None, None, -1))
    expected = "--without: expected rows in order of time, and date says that they are not; --date-column date reads it"
    assert refusal(text, without="date") == expected
    np.testing.assert_array_equal(read(text, without="date", date_column="date").values[:, 0], WALK)
    in_order = table("date,v", DAYS.strftime("%Y-%m-%d"), WALK)
    np.testing.assert_array_equal(read(in_order, without="date").values[:, 0], WALK)


@pytest.mark.parametrize("text", ["-999", "-9999", "9999", "-99", "1e20", "***", "unavailable", "ND", r"\N", "#DIV/0!"])
def test_what_means_missing_is_asked_for(text):
    cells = [text if row in (20, 70) else cell for row, cell in enumerate(WALK)]
    whole = table("date,v", DAYS.strftime("%Y-%m-%d"), cells, order=slice(None, None, -1))
    message = refusal(whole)
    assert message.endswith(f"; --missing {shlex.quote(text)} leaves out such rows")
    found = read(whole, missing=[text])
    np.testing.assert_array_equal(found.values[:, 0], np.delete(WALK, [20, 70]))
    assert f"Missing as told: {text.lower()} in 2 cells." in found.told
    if text == "-999":
        assert len(read(whole, missing=["none"]).values) == ROWS


def test_numbers_that_are_like_the_others_mean_what_they_say():
    for values in (WALK - 99, np.arange(ROWS) % 12 - 9, np.linspace(-2000, 2000, ROWS).round() * 1.0, -999 + WALK / 9):
        text = table("date,v", DAYS.strftime("%Y-%m-%d"), values)
        np.testing.assert_array_equal(read(text).values[:, 0], values)


def test_totals_and_units_are_no_rows():
    total = table("name,v", ["", *[""] * (ROWS - 2), "Total"], WALK)
    assert refusal(total).endswith(f"got 'Total'; --skip-rows {ROWS + 1} skips it")
    assert len(read(total, skip_rows=str(ROWS + 1)).values) == ROWS - 1
    alone = table("v", [*WALK, WALK.sum().round(2)])
    assert refusal(alone).endswith(f"; --skip-rows {ROWS + 2} skips it")
    units = table("date,v,w", ["UTC", *DAYS.strftime("%Y-%m-%d")], ["degC", *WALK], ["m3", *WALK])
    assert refusal(units) == (
        "t.csv, line 2: expected numbers below the names in line 1, got UTC, degC, m3; "
        "--skip-rows 2 takes the names date, v, w, --skip-rows 1 takes the names UTC, degC, m3"
    )
    np.testing.assert_array_equal(read(units, skip_rows="2").values[:, 0], WALK)
    head = '"TOA5","stn","CR1000","7"\n"TIMESTAMP","v","RECORD"\n"TS","Volts","RN"\n"","Avg",""\n'
    logger = head + units.split("\n", 2)[2]
    assert "--skip-rows 1,3-4 takes the names TIMESTAMP, v, RECORD" in refusal(logger)
    np.testing.assert_array_equal(read(logger, skip_rows="1,3-4").values[:, 0], WALK)
    for wrong in ("0", "x", "3-2", "2,", "999999"):
        assert refusal(units, skip_rows=wrong).startswith("--skip-rows: expected numbers of lines of t.csv, 1 to ")


def test_the_time_is_blamed_where_it_is_to_blame():
    message = refusal("Date,Time,v\n2020-01-31,13:00,1\n2020-02-01,noon,2\n", date_column="Date,Time")
    assert message.startswith("t.csv, line 3, column Time: expected a time such as 16:30, got 'noon'")
    assert str(read("Date,Time,v\n03/31/2020,01:00 PM,1\n").labels[0])[:16] == "2020-03-31T13:00"


def test_a_point_is_the_decimal_mark_where_commas_are_between_fields():
    assert read("x,v\na,59.855\nb,61.250\n").values[:, 0].tolist() == [59.855, 61.25]
    assert "--decimal . is one way, --decimal , is one way" in refusal("x;v\na;59.855\nb;61.250\n")


def archive(*names):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as packed:
        for name in names:
            packed.writestr(name, "x")
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"PAR1\x15\x04", "a Parquet file"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\x00", "an old Excel workbook"),
        (archive("[Content_Types].xml", "xl/workbook.xml"), "an Excel workbook (.xlsx)"),
        (archive("a.npy", "b.npy"), "a file of NumPy arrays (.npz)"),
        (b"\n<!DOCTYPE html>\n<html><body>404</body></html>", "a page of HTML"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n", "a Git LFS pointer"),
        (b"%PDF-1.7\n", "a PDF document"),
        (json.dumps([{"v": 1}]).encode(), "a JSON file"),
        (b'{"v": [1, 2]}\n', "a JSON file"),
        (b"SQLite format 3\x00", "an SQLite database"),
        (b"\x80\x05\x95\x10\x00", "a pickle"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    ],
)
def test_files_of_other_kinds_are_named(data, kind, tmp_path):
    (tmp_path / "t.csv").write_bytes(data)
    with pytest.raises(ChoiceError) as caught:
        sheet.read(tmp_path / "t.csv")
    assert f"--csv: expected a table of separated values, got {tmp_path}/t.csv: {kind}" in str(caught.value)


def test_a_key_is_no_time_of_day():
    dates = np.tile(DAYS.strftime("%Y-%m-%d"), 2)
    text = table("sensor_id,date,v", np.repeat([1017, 2001], ROWS), dates, [*WALK, *OTHER])
    assert "--where sensor_id=1017 picks one of 2" in refusal(text)


def test_numbers_of_several_places_are_no_series():
    text = table("lat,v", np.repeat([47.5, -3.25], ROWS), [*WALK, *OTHER])
    assert "--where lat=-3.25 picks one of 2" in refusal(text)
    assert "expected rows of one series" in refusal(table("x,v", np.resize([3, 1, 12, 7, 9, 3, 1], ROWS), WALK))


def test_series_at_different_times_are_told_apart():
    walks = np.stack([WALK, WALK + 500], axis=1).ravel()
    dates = pd.date_range("2020-01-01", periods=2 * ROWS, freq="h").strftime("%Y-%m-%d %H:%M")
    text = table("date,ticker,v", dates, ["AAA", "BBB"] * ROWS, walks)
    assert "--where ticker=AAA picks one of 2" in refusal(text)
    assert len(read(text, where=["ticker=BBB"]).values) == ROWS


def test_parts_of_dates_in_other_languages_are_read():
    days = DAYS[::-1]
    found = read(table("Tag,Monat,Jahr,v", days.day, days.month, days.year, WALK))
    np.testing.assert_array_equal(found.labels, DAYS.to_numpy())


def test_digits_with_the_even_pace_of_dates_count_no_seconds():
    hours = pd.date_range("2014-08-01", periods=ROWS, freq="h").strftime("%y%m%d%H%M")
    message = refusal(table("date,v", hours, WALK))
    assert "--date-format %y%m%d%H%M" in message


def test_a_last_row_far_from_all_others_is_asked_for():
    text = table("v", [*WALK, 12345.0])
    assert f"--skip-rows {ROWS + 2} skips it" in refusal(text)
    assert len(read(text, missing=["none"]).values) == ROWS + 1


def test_names_that_come_again_are_skipped():
    text = table(
        "date,v", [*DAYS.strftime("%Y-%m-%d")[:9], "date", *DAYS.strftime("%Y-%m-%d")[9:]], [*WALK[:9], "v", *WALK[9:]]
    )
    assert "--skip-rows 11 skips the names that come again" in refusal(text)


def test_names_in_angle_brackets_are_no_xml():
    assert len(read(table("<DATE>\t<X>\tv", DAYS.strftime("%Y%m%d"), OTHER, WALK).replace(",", "\t")).values) == ROWS
