"""A user's table: a file of separated values, read into columns of numbers, or refused in one line.

What the table does not tell for certain is asked for and never guessed; nothing behind this door checks again. Names
stay with their columns, rows with a date are in the order of their dates, each date once, and whatever was not read,
or not as it lay, is told in `Columns.told`.
"""

import bz2
import csv
import gzip
import io
import lzma
import re
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, BinaryIO, NamedTuple, NoReturn

import numpy as np

from bench.grid.cases import ChoiceError
from bench.tasks.forecast import cells
from bench.tasks.forecast.cells import MisfitError

SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
TOP = 100  # lines that titles and header end in
MOST_BYTES = 2**27  # of a table, unpacked: as lists of texts they take some tens of times the memory
MOST_LINES = 2**22
PACKED: dict[bytes, Callable[[BinaryIO], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
    b"PK\x03\x04": lambda file: _only_file(file),
}
CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f]")  # what a terminal obeys
DATED = ("date", "datetime", "timestamp", "time", "year", "month")  # names of what must be dates
DIGITS = ("date", "year")  # of those, what may be written in digits alone


class Reading(NamedTuple):
    """How to read a table, where that cannot be told from it: as the command line has it."""

    separator: str | None = None
    decimal: str | None = None
    date_format: str | None = None
    without: str | None = None  # names of columns, with commas between


AS_IT_LIES = Reading()


class Columns(NamedTuple):
    """Some columns of a table, all of it finite numbers."""

    source: str  # where they come from, for the reader
    names: tuple[str, ...]  # as the table has them
    values: np.ndarray  # (N, F) float64
    labels: np.ndarray  # (N,) dates, each later than the one before, or the numbers of the rows
    told: tuple[str, ...]  # what was read and what was not, a sentence each


class Sheet(NamedTuple):
    """A table as it was written: texts, in as many columns as it has names."""

    source: str
    names: tuple[str, ...]  # all different, whatever their case
    rows: list[list[str]]
    lines: list[int]  # of the file, for each row
    told: tuple[str, ...]  # what was left out
    reading: Reading

    def find(self, *names: str) -> int | None:
        """Return the number of the column with the first of these names that is found; case and blanks do not count."""
        numbers = {_key(name): at for at, name in enumerate(self.names)}
        return next((numbers[_key(name)] for name in names if _key(name) in numbers), None)

    def expect(self, option: str, name: str) -> int:
        """Return the number of the column that an option names, or raise a ChoiceError."""
        found = self.find(name)
        if found is None:
            raise ChoiceError(f"{option}: expected a column of {self.source} ({', '.join(self.names)}), got {name!r}")
        return found

    def columns(self, wanted: Sequence[int], positive: bool = False) -> Columns:
        """Return columns by their numbers, by date where the table has dates; above 0 all of them if `positive`.

        Rows with nothing in any of them are left out. A ChoiceError names the line that cannot be read.
        """
        names = tuple(self.names[at] for at in wanted)

        def leave_out(column: int) -> str:
            return f"--without {names[column]!r} leaves the column out" if len(wanted) > 1 else ""

        try:
            values = cells.numbers([[row[at] for row in self.rows] for at in wanted], self.reading.decimal)
        except MisfitError as misfit:
            way_out = misfit.way_out or leave_out(misfit.column)
            self._refuse(misfit.row, wanted[misfit.column], misfit.expected, way_out)
        empty = np.isnan(values).all(axis=1)
        filled = np.flatnonzero(~empty)
        if not len(filled):
            raise ChoiceError(f"{self.source}: expected numbers in {', '.join(names)}, got nothing")
        values = values[filled]
        expected = "a number above 0, whose logarithm is read" if positive else "a number"
        for row, column in np.argwhere(~(values > 0) if positive else np.isnan(values)):
            self._refuse(filled[row], wanted[column], expected, leave_out(column))
        labels, told = self._labels(filled)
        order = np.argsort(labels, kind="stable")
        told = (self._used(wanted, len(filled)), *told, *self.told)
        if empty.any():
            first = self.lines[int(empty.argmax())]
            told += (f"{_count(int(empty.sum()), 'row')} with nothing to read left out, line {first} the first.",)
        return Columns(self.source, names, values[order], labels[order], told)

    def _used(self, wanted: Sequence[int], count: int) -> str:
        others = [name for at, name in enumerate(self.names) if at not in {*wanted, *self._dated()}]
        rest = f", not {', '.join(others)}" if others else ""
        read = f"Read: {_count(count, 'row')} of {', '.join(self.names[at] for at in wanted)}{rest}"
        return f"{read.removesuffix('.')}."  # as in Vol.

    def _dated(self) -> list[int]:
        """Return the columns that say when, none or one, or a date and a time: known by name, or by what they hold."""
        named = [at for name in DATED if (at := self.find(name)) is not None]
        if named:
            return named[:2] if [_key(self.names[at]) for at in named[:2]] == ["date", "time"] else named[:1]
        firsts = [next((row[at] for row in self.rows if row[at]), "") for at in range(len(self.names))]
        found = [at for at, text in enumerate(firsts) if cells.is_date(text, self.reading.date_format)]
        if self.reading.date_format and not found:
            raise ChoiceError(
                f"--date-format: expected dates of {self.reading.date_format} in a column of {self.source}, "
                f"named {', '.join(DATED[:-1])} or {DATED[-1]} if they are numbers; got none"
            )
        if len(found) > 1:
            names = ", ".join(self.names[at] for at in found)
            raise ChoiceError(f"{self.source}: expected dates in one column, got {names}; --without leaves one out")
        return found

    def _labels(self, filled: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
        """Return what the rows `filled` are labelled with, and what is to be told of it."""
        dated = self._dated()
        if not dated:
            return np.arange(len(filled)), ("It has no dates: rows are taken as they lie, the first as the earliest.",)
        name = " and ".join(self.names[at] for at in dated)
        as_they_lie = f"--without {','.join(self.names[at] for at in dated)!r} takes rows as they lie"
        try:
            texts = [" ".join(self.rows[row][at] for at in dated) for row in filled]
            dates = cells.dates(texts, self.reading.date_format, _key(self.names[dated[0]]) in DIGITS)
        except MisfitError as misfit:
            way_out = misfit.way_out or "--date-format tells how it is written"
            self._refuse(filled[misfit.row], dated[0], misfit.expected, f"{way_out}, {as_they_lie}")
        order = np.argsort(dates, kind="stable")
        again = np.flatnonzero(dates[order][1:] == dates[order][:-1])
        if len(again):
            first, second = (filled[order[again[0] + step]] for step in (0, 1))
            self._refuse(second, dated[0], f"each date once, and line {self.lines[first]} has it", as_they_lie)
        return dates, (_order(name, dates, order), _pace(dates[order]))

    def _refuse(self, row: int, column: int, expected: str, way_out: str = "") -> NoReturn:
        place = f"{self.lines[row]}, column {self.names[column]}"
        _refuse(self.source, place, f"{expected}, got {self.rows[row][column]!r}", way_out)


def read(path: Path, reading: Reading = AS_IT_LIES) -> Sheet:
    """Return the table in a file, which may be compressed; a ChoiceError says in one line what is wrong with it."""
    return parse(_text(path), str(path), reading)


def parse(text: str, source: str, reading: Reading = AS_IT_LIES) -> Sheet:
    """Return the table that a text holds.

    Lines that are blank or begin with # are no part of it, nor are lines of one text above the names or at the end.
    """
    if reading.decimal not in (None, ".", ","):
        raise ChoiceError(f"--decimal: expected . or , and got {reading.decimal!r}")
    numbered = list(enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), 1))
    lines = [(number, line) for number, line in numbered if line.strip() and not line.lstrip().startswith("#")]
    if not lines:
        raise ChoiceError(f"{source}: expected a table with a header, got nothing")
    comments = sum(line.lstrip().startswith("#") for _, line in numbered)
    told = [f"{_count(comments, 'line')} with # left out."] if comments else []
    rows = _rows(lines, _separator(lines, reading, source), source)
    names, header, titles = _header(rows, source)
    del rows[:header]
    told += [f"Line {number} left out: {row[0]}" for number, row in titles]
    while len(names) > 1 and len(rows) > 1 and _is_note(rows[-1][1]):
        number, row = rows.pop()
        told.append(f"Line {number}, the last, left out: {row[0]}")
    width = max((at for at, name in enumerate(names, 1) if name), default=0)
    for number, row in rows:
        if not width <= len(row) <= len(names) + 1 or any(row[len(names) :]):
            expected = f"{_count(len(names), 'field')} as in the header, got {len(row)}"
            _refuse(source, number, expected, "--separator and --decimal tell how it is written")
        row[len(names) :] = [""] * (len(names) - len(row))
    kept = [at for at, name in enumerate(names) if name or any(row[at] for _, row in rows)]
    names = [names[at] or f"column {at + 1}" for at in kept]
    keys = [_key(name) for name in names]
    for name in names:
        if keys.count(_key(name)) > 1:
            raise ChoiceError(f"{source}: expected a name for each column, got {name} twice")
    cut = [[row[at] for at in kept] for _, row in rows]
    return _without(Sheet(source, tuple(names), cut, [number for number, _ in rows], tuple(told), reading))


def _without(sheet: Sheet) -> Sheet:
    """Return the table without the columns that the user wants left out."""
    left_out = sheet.reading.without.split(",") if sheet.reading.without else []
    gone = {sheet.expect("--without", name) for name in left_out}
    kept = [at for at in range(len(sheet.names)) if at not in gone]
    told = (f"Left out as told: {', '.join(sheet.names[at] for at in sorted(gone))}.",) if gone else ()
    return sheet._replace(
        names=tuple(sheet.names[at] for at in kept),
        rows=[[row[at] for at in kept] for row in sheet.rows],
        told=told + sheet.told,
    )


def _text(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read(MOST_BYTES + 1)
        unpack = next((PACKED[start] for start in PACKED if data.startswith(start)), None)
        if unpack and len(data) <= MOST_BYTES:
            with unpack(io.BytesIO(data)) as inside:
                data = inside.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES or data.count(b"\n") > MOST_LINES:
            raise ValueError(f"it has more than {MOST_BYTES >> 20} MiB, or {MOST_LINES:,} lines")
    except FileNotFoundError:
        address = "; an address has to be downloaded first" if re.match("[a-z]+:/", str(path)) else ""
        raise ChoiceError(f"--csv: expected a file, found none at {path}{address}") from None
    except (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ChoiceError(f"--csv: expected a table that can be read, got {path}: {reason}") from None
    wide = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        text = data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = 1 + data[: error.start].count(b"\n")
        _refuse(str(path), line, f"a text in UTF-8, got the byte 0x{data[error.start]:02x}", "save it as UTF-8")
    if wrong := CONTROL.search(text):
        line = 1 + text.count("\n", 0, wrong.start())
        got = f"the byte 0x{ord(wrong[0]):02x}" if wrong[0] < "\x80" else f"the character U+{ord(wrong[0]):04X}"
        _refuse(str(path), line, f"a text in UTF-8, got {got}", "save it as UTF-8")
    return text


def _only_file(file: BinaryIO) -> IO[bytes]:
    archive = zipfile.ZipFile(file)
    names = [name for name in archive.namelist() if not name.endswith("/")]
    if len(names) != 1:
        raise zipfile.BadZipFile(f"it holds {len(names)} files, not one; a workbook has to be saved as CSV")
    return archive.open(names[0])


def _separator(lines: Sequence[tuple[int, str]], reading: Reading, source: str) -> str:
    """Return what is between fields: as told, or what the first line that has one of SEPARATORS has alone."""
    told = "\t" if reading.separator in ("tab", r"\t") else reading.separator
    if told is not None:
        if len(told) != 1 or told in '"#\n\r' or told.isalnum():
            raise ChoiceError(f"--separator: expected a single mark, or tab, got {told!r}")
        return told
    for number, line in lines:
        unquoted = re.sub('"[^"]*"', "", line)
        found = [mark for mark in SEPARATORS if mark in unquoted and mark != reading.decimal]
        if len(found) > 1:
            names = " and ".join(SEPARATORS[mark] for mark in found)
            _refuse(source, number, f"one kind of separator, got {names}", "--separator tells which")
        if found:
            return found[0]
    return next(mark for mark in SEPARATORS if mark != reading.decimal)  # of a single column, which has none


def _rows(lines: Sequence[tuple[int, str]], separator: str, source: str) -> list[tuple[int, list[str]]]:
    """Return the fields of each line that has any, with its number. No field goes on in another line."""
    texts = [" ".join(line.split()) if separator == " " else line for _, line in lines]
    reader = csv.reader(texts, delimiter=separator, strict=True, skipinitialspace=separator != " ")
    rows: list[tuple[int, list[str]]] = []
    for number, _ in lines:
        try:
            row = next(reader)
        except (csv.Error, StopIteration):
            row = None
        if row is None or reader.line_num != len(rows) + 1:
            _refuse(source, number, "quotation marks around whole fields of this line", "--separator tells between")
        rows.append((number, [field.strip() for field in row]))
    return [(number, row) for number, row in rows if any(row)]


def _header(
    rows: Sequence[tuple[int, list[str]]], source: str
) -> tuple[list[str], int, Sequence[tuple[int, list[str]]]]:
    """Return the names, how many rows there are above the first of numbers or dates, and the titles among them.

    Names stand in one row, or in yfinance's three: price, ticker (a part of the names if there are several), date.
    """
    count = next((at for at, (_, row) in enumerate(rows[:TOP]) if any(map(cells.is_datum, row))), None)
    if count is None:
        way_out = "--separator and --decimal tell how they are written"
        raise ChoiceError(f"{source}: expected rows of numbers or dates below a header, got none; {way_out}")
    if count == 0:
        number, row = rows[0]
        datum = next(filter(cells.is_datum, row))
        _refuse(source, number, f"a header, the names of the columns, got {datum!r}", "write one above it")
    titles = 0
    while titles < count - 1 and _is_note(rows[titles][1]):
        titles += 1
    head = [row for _, row in rows[titles:count]]
    if len(head) == 3 and {"price", "ticker"} == {_key(row[0]) for row in head[:2]} and _is_note(head[2]):
        prices, tickers = sorted(head[:2], key=lambda row: _key(row[0]))
        several = len(set(tickers[1:])) > 1
        both = zip(prices[1:], tickers[1:], strict=False)
        names = [head[2][0], *(f"{price} {ticker}" if several else price for price, ticker in both)]
    elif len(head) == 1:
        names = head[0]
    else:
        number, row = rows[titles + 1]
        _refuse(source, number, f"numbers below the names in line {rows[titles][0]}, got {', '.join(row)}")
    return names, count, rows[:titles]


def _is_note(row: Sequence[str]) -> bool:
    """Tell whether a row is a text alone, as titles and sources are."""
    return not any(row[1:]) and any(map(str.isalpha, row[0])) and not cells.is_datum(row[0])


def _order(name: str, dates: np.ndarray, order: np.ndarray) -> str:
    first, last = map(_day, (dates[order[0]], dates[order[-1]]))
    if (order[1:] > order[:-1]).all():
        lay = "the rows lay in their order"
    elif (order[1:] < order[:-1]).all():
        lay = "the rows lay newest first and were sorted"
    else:
        lay = "the rows lay in another order and were sorted"
    return f"Dated by {name}, {first} to {last}; {lay}."


def _pace(dates: np.ndarray) -> str:
    """Return in words how far one row usually is from the next, and what is farther."""
    if len(dates) == 1:
        return "It is a single row."
    days = dates.astype("datetime64[D]")
    if (days == dates).all() and np.is_busday(days).all():
        steps, unit = np.busday_count(days[:-1], days[1:]).astype(float), "working day"
    else:
        seconds = np.diff(dates) / np.timedelta64(1, "s")
        units = {"day": 86400, "hour": 3600, "minute": 60, "second": 1}
        unit = next((unit for unit, size in units.items() if np.median(seconds) >= size), "second")
        steps = seconds / units[unit]
    usual = float(np.median(steps))
    longer = np.flatnonzero(steps > 1.5 * usual)
    if not len(longer):
        return f"From row to row it is usually {_count(usual, unit)}, nowhere much longer."
    longest = int(steps.argmax())
    return (
        f"From row to row it is usually {_count(usual, unit)}, {_count(len(longer), 'time')} longer: at most "
        f"{steps[longest]:.4g}, after {_day(dates[longest])}."
    )


def _day(date: np.datetime64) -> str:
    """Return a date, with its time if it has one."""
    return str(date.astype("datetime64[s]")).removesuffix("T00:00:00").replace("T", " ")


def _count(number: float, what: str) -> str:
    return f"{number:.7g} {what}{'' if number == 1 else 's'}"


def _key(name: str) -> str:
    return " ".join(name.split()).casefold()


def _refuse(source: str, line: int | str, expected: str, way_out: str = "") -> NoReturn:
    raise ChoiceError(f"{source}, line {line}: expected {expected}" + (f"; {way_out}" if way_out else ""))
