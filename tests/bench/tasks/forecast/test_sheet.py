import bz2
import gzip
import io
import lzma
import random
import shlex
import tracemalloc
import warnings
import zipfile
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from bench.grid.cases import ChoiceError
from bench.tasks.forecast import kinds, sheet
from bench.tasks.forecast.sheet import Reading


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def read(text, *names, **reading):
    found = sheet.parse(text, "t.csv", Reading(**reading))
    return found.columns([found.expect("--column", name) for name in names])


def column(text, name="v", **reading):
    return read(text, name, **reading).values[:, 0].tolist()


def days(text, **reading):
    return [str(day)[:10] for day in read(text, "v", **reading).labels]


def texts(found):
    return [
        [found.table.grid.text(row, at) for at in range(len(found.names))] for row in range(len(found.table.grid.lines))
    ]


def refusal(text, *names, **reading):
    with pytest.raises(ChoiceError) as caught:
        read(text, *(names or ("v",)), **reading)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Structure


def test_names_stay_with_their_columns_when_rows_end_in_a_comma():
    text = "date,open,high,low,close,volume\n2020-01-01,1,2,3,4,5,\n2020-01-02,6,7,8,9,10,\n"
    assert column(text, "open") == [1, 6]
    assert column(text, "volume") == [5, 10]
    assert column(text.replace("volume\n", "volume,\n"), "open") == [1, 6]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("date,v\n2020-01-01,1\n2020-01-02,2,3\n", "t.csv, line 3: expected 2 fields as in the header, got 3"),
        ("date,v\n2020-01-01,1,,\n", "t.csv, line 2: expected 2 fields as in the header, got 4"),
        ("date,v\n2020-01-01\n", "t.csv, line 2: expected 2 fields as in the header, got 1"),
        ("v,w\na,1,2\nb,3,4\n", "t.csv, line 2: expected 2 fields as in the header, got 3"),  # R's row names
        ('d,v\n1,"2\n3,4"\n', "t.csv, line 2: expected quotation marks around whole fields of this line"),
        ('d,v\n1,2\n3,"4\n', "t.csv, line 3: expected quotation marks around whole fields of this line"),
        ("v\n1,5\n2,5\n", "t.csv, line 2: expected 1 field as in the header, got 2"),
        ("a;b,v\n1;2,3\n", "t.csv, line 1: expected one kind of separator, got comma and semicolon"),
    ],
)
def test_rows_of_another_width_are_refused_with_their_line(text, expected):
    message = refusal(text)
    assert message.startswith(expected)
    assert "--separator" in message


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
def test_separators_are_read_from_the_header(mark):
    assert column("d,v,w\n1,1.5,3\n2,2.5,4\n".replace(",", mark), "w") == [3, 4]


def test_separators_can_be_told():
    assert column("a b:v\n1:2\n", separator=":") == [2]
    assert column("a   v\n1  2\n  3 4\n", separator=" ") == [2, 4]
    assert column("a\tv;w\n1\t2\n", "v;w", separator="tab") == [2]
    for wrong in ("::", "", '"', "5"):
        assert refusal("v\n1", separator=wrong).startswith("--separator: expected a single mark, or tab, got ")


@pytest.mark.parametrize("first", ["1,2", "2020-01-01,2", "a,5", "x,01/31/2020"])
def test_a_file_without_a_header_is_refused(first):
    assert refusal(f"{first}\n3,4\n").startswith("t.csv, line 1: expected a header, the names of the columns, got ")


@pytest.mark.parametrize("header", ["v,v", "v, V ", "Adj  Close,adj close"])
def test_names_that_stand_twice_are_refused(header):
    assert refusal(f"{header}\n1,2\n").startswith("t.csv: expected a name for each column, got ")


def test_three_lines_of_header_are_read():
    rows = "2020-01-02,1.5,2,3\n2020-01-03,1.6,2,4\n"
    one = f"Price,Close,High,Volume\nTicker,AAPL,AAPL,AAPL\nDate,,,\n{rows}"
    assert read(one, "close").names == ("Close",)
    assert column(one, "volume") == [3, 4]
    assert days(one.replace("Volume", "v")) == ["2020-01-02", "2020-01-03"]
    two = f"Ticker,AAPL,MSFT,MSFT\nPrice,Close,Close,High\nDatetime,,,\n{rows}"
    assert column(two, "close msft") == [2, 2]


def test_a_second_header_line_is_refused():
    assert refusal("date,v\n-,degC\n2020-01-01,5\n") == (
        "t.csv, line 2: expected numbers below the names in line 1, got -, degC; "
        "--skip-rows 2 takes the names date, v, --skip-rows 1 takes the names -, degC"
    )


def test_titles_comments_blank_lines_and_footers_are_no_rows():
    text = "\nMy prices\n# made today\ndate,v\n\n2020-01-02,1.5\n,\n# one, two\n2020-01-03,1.6\nSource: X\n\n"
    found = read(text, "v")
    assert found.values.ravel().tolist() == [1.5, 1.6]
    assert found.told[-3:] == (
        "2 lines with # left out.",
        "Line 2 left out: My prices",
        "Line 10, the last, left out: Source: X",
    )
    assert column("A title\nv\n1\n2\n") == [1, 2]
    assert column("sep=;\nd;v\n1;1,5\n") == [1.5]
    assert refusal("v\n1\n2\ntotal\n").startswith("t.csv, line 4, column v: expected a number, got 'total'")


def test_names_are_matched_without_case_and_blanks():
    found = sheet.parse(" Date , Adj  Close ,V\n2020-01-01,1,2\n", "t.csv")
    assert (found.find("adj close"), found.find(" v"), found.find("w")) == (1, 2, None)
    with pytest.raises(ChoiceError, match=r"^--column: expected a column of t.csv \(Date, Adj  Close, V\), got 'w'$"):
        found.expect("--column", "w")


def test_columns_can_be_left_out():
    text = "date,v,w\n2020-01-01,1,x\n"
    assert read(text, "v", without="W").told[-1] == "Left out as told: w."
    assert refusal(text, without="u").startswith("--without: expected a column of t.csv (date, v, w), got 'u'")
    assert refusal(text, without="V").startswith("--column: expected a column of t.csv (date, w), got 'v'")


def test_a_column_without_a_name_is_counted():
    assert column(",v\n0,5\n1,6\n", "column 1") == [0, 1]
    assert days(",v\n2020-01-02,5\n2020-01-01,6\n") == ["2020-01-01", "2020-01-02"]


@pytest.mark.parametrize(
    "text", ["", "\n\n", "# only\n", "v", "v\n", "Some prose. No numbers\nat all, here.\n", "a b\n1 2"]
)
def test_a_file_without_a_table_is_refused(text):
    assert refusal(text).startswith("t.csv: expected ")


# Numbers


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["1", "-2", "+3", "1e3", "1.5E-3", ".5", "5."], [1, -2, 3, 1000, 0.0015, 0.5, 5]),
        (["1,234", "0.5"], [1234, 0.5]),
        (["1,234.5", "1,234,567"], [1234.5, 1234567]),
        (["1.234", "0,5"], [1234, 0.5]),
        (["1.234.567,5", "2"], [1234567.5, 2]),
        (["1'234.5", "1’234"], [1234.5, 1234]),
        (["1\u00a0234,5", "12\u202f345"], [1234.5, 12345]),
        (["0.123", "1.234"], [0.123, 1.234]),
        (["68.18K", "1.2M", "3B", "1T", "950"], [68180, 1.2e6, 3e9, 1e12, 950]),
        (["1.5%", "-0.25 %"], [0.015, -0.0025]),
        (["$1,234.50", "-$2.5"], [1234.5, -2.5]),
        (["1.234,50 €", "2,5 €"], [1234.5, 2.5]),
        (["−1.5", "2.5"], [-1.5, 2.5]),
    ],
)
def test_numbers_are_read_where_one_decimal_mark_fits_all(texts, expected):
    assert column("\n".join(["d;v", *(f"x;{text}" for text in texts)])) == expected


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["1,234", "2,345"], "line 2, column v: expected a number that can be read in one way, got '1,234'; --decimal"),
        (["1", "1.234"], "line 3, column v: expected a number that can be read in one way, got '1.234'; --decimal"),
        (["1.5", "1,25"], "line 3, column v: expected a number, got '1,25'"),
        (["1.5", "2.5%"], "line 3, column v: expected a number with no unit as in the rows before it, got '2.5%'"),
        (["$1", "€2"], "line 3, column v: expected a number with $ as in the rows before it, got '€2'"),
        (["1e999"], "line 2, column v: expected a number that float64 can hold, got '1e999'"),
        *(
            (["1", text], f"line 3, column v: expected a number, got {text!r}")
            for text in ("True", "x", "inf", "1_000", "0x1F", "1 234", "12,34,567", "1,2345.6", "(1.5)", "1.5.2", "٣")
        ),
    ],
)
def test_numbers_that_could_be_others_are_refused(texts, message):
    assert refusal("\n".join(["d;v", *(f"x;{text}" for text in texts)])).startswith(f"t.csv, {message}")


def test_the_decimal_mark_can_be_told():
    assert column("d;v\nx;1,234\n", decimal=",") == [1.234]
    assert column("d;v\nx;1,234\n", decimal=".") == [1234]
    assert column("v\n1,5\n2,5\n", decimal=",") == [1.5, 2.5]
    assert refusal("d;v\nx;1.5\n", decimal=",").startswith(
        "t.csv, line 2, column v: expected a number, got '1.5'; --dec"
    )
    assert refusal("v\n1\n", decimal="x") == "--decimal: expected . or , and got 'x'"


@pytest.mark.parametrize("nothing", ["", "-", "?", "N/A", "nan", "NULL", "."])
def test_rows_with_nothing_are_left_out_and_told(nothing):
    found = read(f"date,v\n2020-01-01,1\n2020-01-02,{nothing}\n2020-01-03,3\n", "v")
    assert found.values.ravel().tolist() == [1, 3]
    assert found.told[-1] == "1 row with nothing to read left out, line 3 the first."
    message = refusal(f"v,w\n1,2\n{nothing},4\n", "v", "w")
    assert (
        message == f"t.csv, line 3, column v: expected a number, got {nothing!r}; "
        f"--without v leaves the column out, --missing {shlex.quote(nothing)} leaves out such rows"
    )


def test_a_zero_where_a_logarithm_is_read_says_how_to_leave_the_column_out():
    found = sheet.parse("close,volume\n1,2\n3,0\n", "t.csv")
    with pytest.raises(ChoiceError) as caught:
        found.columns([0, 1], positive=True)
    assert str(caught.value) == (
        "t.csv, line 3, column volume: expected a number above 0, whose logarithm is read, got '0'; "
        "--without volume leaves the column out, --missing 0 leaves out such rows"
    )


# Dates


@pytest.mark.parametrize(
    ("name", "texts", "expected"),
    [
        ("date", ["2020-01-31", "2020-2-1"], ["2020-01-31", "2020-02-01"]),
        ("date", ["2020/01/31", "2020/02/01"], ["2020-01-31", "2020-02-01"]),
        ("date", ["20200102", "20200103"], ["2020-01-02", "2020-01-03"]),
        ("date", ["1850", "1851"], ["1850-01-01", "1851-01-01"]),
        ("Year", ["1850", "1851"], ["1850-01-01", "1851-01-01"]),
        ("Month", ["1949-01", "1949-02"], ["1949-01-01", "1949-02-01"]),
        ("Month", ["Jan-1949", "Feb-1949"], ["1949-01-01", "1949-02-01"]),
        ("date", ["03/04/2020", "13/04/2020"], ["2020-04-03", "2020-04-13"]),
        ("date", ["03/04/2020", "03/14/2020"], ["2020-03-04", "2020-03-14"]),
        ("Datum", ["31.01.2020", "01.02.2020"], ["2020-01-31", "2020-02-01"]),
        ("date", ["Jan 31, 2020", "Feb 1, 2020"], ["2020-01-31", "2020-02-01"]),
        ("date", ["31-Jan-2020", "01-Feb-2020"], ["2020-01-31", "2020-02-01"]),
        ("date", ["2020-01-31T10:00:00Z", "2020-01-31T11:30:00.5Z"], ["2020-01-31", "2020-01-31"]),
        ("date", ["2020-01-01 23:00-05:00", "2020-06-01 00:00-04:00"], ["2020-01-02", "2020-06-01"]),
    ],
)
def test_dates_that_can_be_read_in_one_way_are(name, texts, expected):
    text = "\n".join([f"{name};v", *(f"{text};{row}" for row, text in enumerate(texts))])
    assert days(text) == expected


IN_ORDER = "--without date says that rows lie in order of time"


@pytest.mark.parametrize(
    ("texts", "line", "expected", "hints"),
    [
        (["1577836800", "1577923200"], 2, "a date such as 2020-01-31", f"--date-format seconds reads them, {IN_ORDER}"),
        (["43832", "43831"], 2, "a date such as 2020-01-31", "--date-format excel reads them"),
        (["Jan-49", "Feb-49"], 2, "a date such as 2020-01-31", "--date-format %b-%y reads them"),
        (["02/01/20", "01/31/20"], 2, "a date such as 2020-01-31", "--date-format %m/%d/%y reads them"),
        (["1850", "185"], 3, "a date written as 1850", "--date-format tells how it is written"),
        (["2020-01-31", "2020-02-30"], 3, "a date written as 2020-01-31", IN_ORDER),
        (["2020-01-31", "now"], 3, "a date written as 2020-01-31", "--date-format tells how it is written"),
        (["2020-01-31", ""], 3, "a date written as 2020-01-31", "--date-format tells how it is written"),
        (["20200102", "2020112"], 3, "a date written as 20200102", "--date-format tells how it is written"),
        (["13/01/2020", "01/13/2020"], 3, "a date written as 13/01/2020", "--date-format tells how it is written"),
        (["2020-01-31 10:00Z", "2020-01-31 11:00"], 3, "a date written as 2020-01-31 10:00Z", IN_ORDER),
        (
            ["04/04/2020", "03/04/2020"],
            3,
            "a date that can be read in one way",
            "--date-format %d/%m/%Y is one way, --date-format %m/%d/%Y is one way",
        ),
    ],
)
def test_other_dates_are_refused(texts, line, expected, hints):
    message = refusal("\n".join(["date;v", *(f"{text};{row}" for row, text in enumerate(texts))]))
    assert message == f"t.csv, line {line}, column date: expected {expected}, got {texts[line - 2]!r}; {hints}"


@pytest.mark.parametrize(
    ("form", "text", "expected"),
    [
        ("%d/%m/%Y", "03/04/2020", "2020-04-03"),
        ("%b-%y", "Jan-49", "1949-01-01"),
        ("%b-%y", "Jan-20", "2020-01-01"),
        ("seconds", "1577836800", "2020-01-01"),
        ("milliseconds", "1577836800000", "2020-01-01"),
        ("excel", "43831", "2020-01-01"),
    ],
)
def test_the_form_of_dates_can_be_told(form, text, expected):
    assert days(f"date,v\n{text},1\n", date_format=form) == [expected]
    assert refusal("date,v\nx,1\n", date_format=form).startswith("t.csv, line 2, column date: expected ")


@pytest.mark.parametrize("form", ["%d", "%Y-%Q", "%", "iso"])
def test_a_form_of_dates_that_is_none_is_refused(form):
    assert refusal("date,v\n2020-01-01,1\n", date_format=form).startswith("--date-format: expected one of strptime's")


def test_a_form_of_dates_finds_their_column_or_is_refused():
    assert days("when,v\nFeb-20,1\nJan-20,2\n", date_format="%b-%y") == ["2020-01-01", "2020-02-01"]
    assert refusal("t,v\n1577836800,1\n", date_format="seconds").startswith("--date-format: expected dates of seconds ")


def test_times_of_a_day_are_no_years():
    assert refusal("time,v\n1000,1\n1030,2\n").startswith("t.csv, line 2, column time: expected a date such as ")


def test_counts_that_lie_too_far_away_are_no_dates():
    assert "less than a thousand years" in refusal("date,v\n1577836800000,1\n", date_format="seconds")


@pytest.mark.parametrize(
    ("order", "told"),
    [
        ([0, 1, 2], "the rows lay in their order"),
        ([2, 1, 0], "the rows lay newest first and were sorted"),
        ([1, 2, 0], "the rows lay in another order and were sorted"),
    ],
)
def test_rows_are_sorted_by_date_and_that_is_told(order, told):
    text = "\n".join(["v;when", *(f"{row};2020-01-0{row + 1}" for row in order)])
    found = read(text, "v")
    assert found.values.ravel().tolist() == [0, 1, 2]
    assert found.told[1] == f"Dated by when, 2020-01-01 to 2020-01-03; {told}."


def test_without_dates_rows_are_taken_as_they_lie_and_that_is_told():
    assert (
        read("v\n3\n1\n2\n", "v").told[1] == "It has no dates: rows are taken as they lie, the first as the earliest."
    )


def test_a_day_that_comes_twice_is_refused():
    assert refusal("date,v\n2020-01-01,1\n2020-01-02,2\n2020-01-01,3\n").startswith(
        "t.csv, line 4, column date: expected each date once, and line 2 has it, got '2020-01-01'"
    )


def test_a_date_and_a_time_are_read_together():
    found = read("Date;Time;v\n16/12/2006;17:24:00;4.2\n16/12/2006;17:25:00;0.2\n", "v")
    assert str(found.labels[1]) == "2006-12-16T17:25:00.000000"


def test_two_columns_of_dates_are_refused():
    message = refusal("born,died,v\n2020-01-01,2020-02-01,1\n")
    assert message == (
        "t.csv: expected dates in one column, got born, died; "
        "--date-column born dates rows by born, --date-column died dates rows by died"
    )
    assert days("born,died,v\n2020-01-01,2020-02-01,1\n", without="died") == ["2020-01-01"]


def test_gaps_are_told():
    weeks = "\n".join(f"2020-01-{day:02},1" for day in (2, 3, 6, 7, 13, 14))
    assert read(f"date,v\n{weeks}\n", "v").told[2] == (
        "From row to row it is usually 1 working day, 1 time longer: at most 4, after 2020-01-07."
    )
    hours = "\n".join(f"2020-01-04 0{hour}:00,1" for hour in (1, 2, 3, 6))
    assert read(f"date,v\n{hours}\n", "v").told[2] == (
        "From row to row it is usually 1 hour, 1 time longer: at most 3, after 2020-01-04 03:00:00."
    )


# Files


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings(tmp_path, encoding):
    (tmp_path / "t.csv").write_bytes("Größe;v\r\n1;2,5\r\n".encode(encoding))
    assert texts(sheet.read(tmp_path / "t.csv")) == [["1", "2,5"]]
    assert sheet.read(tmp_path / "t.csv").names == ("Größe", "v")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("a,v\n1,2\nä,3\n".encode("latin-1"), "t.csv, line 3: expected a text in UTF-8, got the byte 0xe4; save it"),
        ("a,v\n1,2\n".encode("utf-16-le"), "t.csv, line 1: expected a text in UTF-8, got the byte 0x00; save it"),
        (b"\x28\xb5\x2f\xfd\x00", "t.csv: a file that zstd packed; save its table as CSV"),
        (b"a,v\n1,2\n\x1b]0;me\x07,3\n", "t.csv, line 3: expected a text in UTF-8, got the byte 0x1b; save it"),
        ("a,v\n\x9b31m,3\n".encode(), "t.csv, line 2: expected a text in UTF-8, got the character U+009B; save it"),
        (gzip.compress(b"v\n1\n", mtime=0)[:-9], "t.csv: "),
        (b"PK\x03\x04 damaged", "t.csv: "),
    ],
)
def test_what_is_no_text_is_refused(tmp_path, data, expected):
    (tmp_path / "t.csv").write_bytes(data)
    with pytest.raises(ChoiceError) as caught:
        sheet.read(tmp_path / "t.csv")
    assert expected in str(caught.value)


def test_compressed_files_are_read(tmp_path):
    one, two = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(one, "w") as archive:
        archive.writestr("v.csv", "v\n1\n")
    with zipfile.ZipFile(two, "w") as archive:
        archive.writestr("v.csv", "v\n1\n")
        archive.writestr("w.csv", "v\n1\n")
    path = tmp_path / "t"
    for data in (gzip.compress(b"v\n1\n"), bz2.compress(b"v\n1\n"), lzma.compress(b"v\n1\n"), one.getvalue()):
        path.write_bytes(data)
        assert texts(sheet.read(path)) == [["1"]]
    path.write_bytes(two.getvalue())
    with pytest.raises(
        ChoiceError, match=r"^--csv: expected a table .* got .*t: it holds 2 files, not one; a workbook"
    ):
        sheet.read(path)


def packed(data):
    """Return data in each kind of file that holds it."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("v.csv", data)
    return [data, gzip.compress(data), bz2.compress(data), lzma.compress(data), archive.getvalue()]


def test_a_table_that_would_not_fit_is_refused_before_it_takes_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(kinds, "MOST_BYTES", 2**20)
    for data in packed(b"v\n" + b"1" * 2**25):
        (tmp_path / "t").write_bytes(data)
        tracemalloc.start()
        with pytest.raises(ChoiceError, match=r"got .*t: it has more than 1 MiB, or 4,194,304 lines$"):
            sheet.read(tmp_path / "t")
        assert tracemalloc.get_traced_memory()[1] < 2**24
        tracemalloc.stop()
    monkeypatch.setattr(kinds, "MOST_LINES", 1000)
    for data in packed(b"v\n" + b"1\n" * 1000):
        (tmp_path / "t").write_bytes(data)
        with pytest.raises(ChoiceError, match=r"got .*t: it has more than 1 MiB, or 1,000 lines$"):
            sheet.read(tmp_path / "t")


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs a file without an end")
def test_a_table_without_an_end_is_refused():
    with pytest.raises(ChoiceError, match=r"got /dev/zero: it has more than 128 MiB, or 4,194,304 lines$"):
        sheet.read(Path("/dev/zero"))


def test_folders_and_addresses_are_refused(tmp_path):
    with pytest.raises(ChoiceError, match=r"^--csv: expected a table that can be read, got .*: Is a directory$"):
        sheet.read(tmp_path)
    with pytest.raises(ChoiceError, match=r"; an address has to be downloaded first$"):
        sheet.read(type(tmp_path)("https://example.org/v.csv"))


# Any table, in any dialect: read as it was meant, or refused


class Dialect:
    """A way to write tables, some of them broken: numbers in quotes only now and then, though they hold separators."""

    def __init__(self, rng):
        self.separator = rng.choice(",;\t|")
        self.decimal = rng.choice(".,")
        self.thousands = rng.choice(["", "", ",", ".", "'", "\u00a0", " "])
        if self.thousands == self.decimal:
            self.thousands = ""
        self.places = rng.choice([0, 1, 2, 3])
        self.quotes = rng.choice(["all", "needed", "none"])
        self.form = rng.choice(
            ["%Y-%m-%d", "%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%Y%m%d", "%b %d, %Y", "%d-%b-%y", None]
        )
        self.trailing = rng.random() < 0.2
        self.unit = rng.choice(["", "", "%", "K"])
        self.title = rng.choice([[], [], ["Prices"], ["Prices, daily"], ["# prices; daily"]])
        self.footer = rng.choice([[], [], ["Source: a friend"]])
        self.newline = rng.choice(["\n", "\r\n", "\n\n"])

    def number(self, value):
        text = f"{value:,.{self.places}f}".replace(",", "t").replace(".", self.decimal)
        return text.replace("t", self.thousands) + self.unit

    def line(self, fields):
        needed = [self.separator in field for field in fields]
        quoted = [self.quotes == "all" or (self.quotes == "needed" and need) for need in needed]
        fields = [f'"{field}"' if quote else field for field, quote in zip(fields, quoted, strict=True)]
        return self.separator.join([*fields, *([""] if self.trailing else [])])


def test_random_tables_are_read_as_they_were_meant_or_refused():
    rng = random.Random(0)
    outcomes = []
    for _ in range(80):
        dialect, count = Dialect(rng), rng.randint(2, 20)
        scale = 10 ** rng.randint(0, 6)
        values = [[round(rng.uniform(-0.2, 1) * scale, dialect.places) for _ in range(2)] for _ in range(count)]
        start = datetime(rng.randint(1970, 2019), rng.randint(1, 12), rng.randint(1, 28))
        dates = [start + timedelta(days=row * rng.choice([1, 1, 30])) for row in range(count)]
        rows = [
            dialect.line([*([f"{date:{dialect.form}}"] if dialect.form else []), *map(dialect.number, row)])
            for date, row in zip(dates, values, strict=True)
        ]
        order = list(range(count))
        if dialect.form:
            rng.shuffle(order)
        names = dialect.line([*(["Date"] if dialect.form else []), "V", "W"])
        text = dialect.newline.join([*dialect.title, names, *(rows[row] for row in order), *dialect.footer])
        told = {}
        if rng.random() < 0.5:
            told = {"separator": dialect.separator, "decimal": dialect.decimal, "date_format": dialect.form}
        try:
            found = read(text, "v", "w", **told)
        except ChoiceError:
            outcomes.append("refused")
            continue
        in_order = np.argsort(np.array(dates, "datetime64[D]"), kind="stable") if dialect.form else np.arange(count)
        scaled = np.array(values)[in_order] * {"": 1, "%": 0.01, "K": 1000}[dialect.unit]
        np.testing.assert_allclose(found.values, scaled, rtol=1e-12, err_msg=text)
        if dialect.form:
            assert found.labels.astype("datetime64[D]").tolist() == sorted(date.date() for date in dates), text
        outcomes.append("read")
    assert outcomes.count("read") > 30
    assert outcomes.count("refused") > 10
