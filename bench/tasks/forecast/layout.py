"""Where everything stands in a table's text: its names, and of each cell the place, which takes no Python per cell."""

import csv
import re
from collections.abc import Callable, Container, Sequence
from typing import NamedTuple

import numpy as np

from bench.tasks.forecast import cells
from bench.tasks.forecast.hints import Hint, Reading, RefusalError, count, key, refusal

SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
TOP = 100  # lines that titles and header end in
MOST_WIDTH = 256  # bytes of a cell that are looked at: neither numbers nor dates are longer
BLOCK = 2**16  # rows that are taken from the text at once
NEWLINE, QUOTE = 10, 34
BLANK = np.zeros(256, bool)
BLANK[list(b" \t\r\x0b\x0c")] = True

Row = tuple[int, list[str]]  # the number of its line, and its fields


class Grid(NamedTuple):
    """The cells of R rows in C columns, as places in a text."""

    data: np.ndarray  # (bytes,) uint8
    begins: np.ndarray  # (R,) int32, of each row
    cuts: np.ndarray  # (R, C) int32, where each field ends
    lines: np.ndarray  # (R,) of the file, for each row
    separator: str
    quoted: bool  # some fields are in quotation marks
    fields: tuple[int, ...]  # of each column, among the C

    def column(self, at: int) -> np.ndarray:
        """Return the texts of a column (R,), in UTF-8, without blanks and quotation marks around."""
        begins, ends = self._places(at, slice(None))
        width = min(max(int((ends - begins).max(initial=1)), 1), MOST_WIDTH)
        texts = np.zeros((len(begins), width), np.uint8)
        offsets = np.arange(width)
        for first in range(0, len(begins), BLOCK):
            block = slice(first, first + BLOCK)
            places = begins[block, np.newaxis] + offsets
            inside = places < ends[block, np.newaxis]
            np.copyto(texts[block], self.data.take(places, mode="clip"), where=inside)
        return texts.view(f"S{width}")[:, 0]

    def text(self, row: int, at: int) -> str:
        """Return the whole text of a cell."""
        (begin,), (end,) = self._places(at, slice(row, row + 1))
        return self.data[begin:end].tobytes().decode().strip().replace('""', '"' if self.quoted else '""')

    def picked(self, rows: np.ndarray) -> "Grid":
        return self._replace(begins=self.begins[rows], cuts=self.cuts[rows], lines=self.lines[rows])

    def _places(self, at: int, rows: slice) -> tuple[np.ndarray, np.ndarray]:
        field = self.fields[at]
        ends = self.cuts[rows, field].copy()
        begins = self.cuts[rows, field - 1] + np.int32(1) if field else self.begins[rows].copy()
        begins = np.minimum(begins, ends)  # of a row that ends before
        self._strip(begins, ends)
        if self.quoted:
            last = len(self.data) - 1
            within = (ends - begins >= 2) & (self.data[np.minimum(begins, last)] == QUOTE)
            within &= self.data[ends - 1] == QUOTE
            begins[within] += 1
            ends[within] -= 1
            self._strip(begins, ends)
        return begins, ends

    def _strip(self, begins: np.ndarray, ends: np.ndarray) -> None:
        for places, step, edge in ((begins, 1, 0), (ends, -1, -1)):
            rows = np.flatnonzero(begins < ends)
            while len(rows):
                rows = rows[BLANK[self.data[places[rows] + edge]]]
                places[rows] += step
                rows = rows[begins[rows] < ends[rows]]


class Layout(NamedTuple):
    """A table as it was written."""

    source: str
    names: tuple[str, ...]  # all different, whatever their case
    grid: Grid
    told: tuple[str, ...]  # what was left out

    def find(self, *names: str) -> int | None:
        """Return the number of the column with the first of these names that is found; case and blanks do not count."""
        numbers = {key(name): at for at, name in enumerate(self.names)}
        return next((numbers[key(name)] for name in names if key(name) in numbers), None)

    def expect(self, option: str, name: str, gone: Container[int] = ()) -> int:
        """Return the number of the column that an option names, but none of `gone`, or raise a RefusalError."""
        found = self.find(name)
        if found is None or found in gone:
            names = ", ".join(name for at, name in enumerate(self.names) if at not in gone)
            raise RefusalError(f"{option}: expected a column of {self.source} ({names}), got {name!r}")
        return found

    def all(self, option: str, names: str | None) -> list[int]:
        """Return the numbers of the columns that an option names with commas between; a name may hold commas, too."""
        parts = names.split(",") if names is not None else []
        found = []
        while parts:
            several = [",".join(parts[:many]) for many in range(len(parts), 0, -1)]
            name = next((name for name in several if self.find(name) is not None), parts[0])
            found.append(self.expect(option, name))
            del parts[: name.count(",") + 1]
        return found


def lay_out(data: bytes, source: str, reading: Reading) -> Layout:
    """Return the table that a text in UTF-8 holds, or raise a RefusalError.

    Lines that are blank or begin with # are no part of it, nor are lines of one text above the names or at the end.
    """
    if b"\r" in data and b"\n" not in data:
        data = data.replace(b"\r", b"\n")
    lines = Lines(data, source, reading)
    if not len(lines.kept):
        raise RefusalError(f"{source}: expected a table with a header, got nothing")
    separator = _separator(lines, reading, source)
    if separator == " ":
        lines = lines.collapsed()
    top = _rows(lines, range(min(len(lines.kept), TOP + 2)), separator, source)
    names, header, titles, told = _header(top, separator, source)
    told = [*lines.told, *(f"Line {number} left out: {row[0]}" for number, row in titles), *told]
    first, last = int(np.searchsorted(lines.kept, top[header][0] - 1)), len(lines.kept)
    while len(names) > 1 and last - first > 1:
        bottom = _rows(lines, range(last - 1, last), separator, source)
        if bottom and not _is_note(bottom[0][1]):
            break
        last -= 1
        told += [f"Line {number}, the last, left out: {row[0]}" for number, row in bottom]
    grid = _grid(lines, lines.kept[first:last], separator, names, source)
    kept = [at for at, name in enumerate(names) if name or grid.column(at).any()]
    names = [names[at] or f"column {at + 1}" for at in kept]
    keys = [key(name) for name in names]
    for name in names:
        if keys.count(key(name)) > 1:
            raise RefusalError(f"{source}: expected a name for each column, got {name} twice")
    return Layout(source, tuple(names), grid._replace(fields=tuple(kept)), tuple(told))


class Lines:
    """The lines of a text, and which of them belong to a table."""

    def __init__(self, data: bytes, source: str, reading: Reading):
        self.bytes = data
        self.data = np.frombuffer(data, np.uint8)
        ends = places(self.data, NEWLINE)
        if not data.endswith(b"\n"):
            ends = np.append(ends, np.int32(len(data)))
        self.begins = np.concatenate([np.zeros(1, np.int32), ends[:-1] + np.int32(1)])
        self.ends = ends
        odd = (self.begins == ends) | self._first_is(BLANK) | self._first_is(COMMENT)
        comments: list[int] = []
        blank: list[int] = []
        for at in np.flatnonzero(odd).tolist():
            line = self.text(at).lstrip()
            (comments if line.startswith("#") else [] if line else blank).append(at)
        kept = np.ones(len(ends), bool)
        kept[[*comments, *blank]] = False
        skipped = _skipped(reading.skip_rows, len(ends), source)
        kept[skipped] = False
        self.kept = np.flatnonzero(kept).astype(np.int32)
        self.told = [f"{count(len(comments), 'line')} with # left out."] if comments else []
        if reading.skip_rows:
            self.told.append(f"Lines skipped as told: {reading.skip_rows}.")

    def text(self, at: int) -> str:
        return self.bytes[self.begins[at] : self.ends[at]].decode()

    def _first_is(self, kinds: np.ndarray) -> np.ndarray:
        if not len(self.data):
            return np.zeros(len(self.begins), bool)
        return kinds[self.data.take(self.begins, mode="clip")]

    def collapsed(self) -> "Lines":
        """Return the same lines with one blank where there are several, and none around."""
        whole = b"\n".join(b" ".join(line.split()) for line in self.bytes.split(b"\n"))
        lines = object.__new__(Lines)
        lines.bytes, lines.data = whole, np.frombuffer(whole, np.uint8)
        lines.ends = np.append(places(lines.data, NEWLINE), np.int32(len(whole)))[: len(self.ends)]
        lines.begins = np.concatenate([np.zeros(1, np.int32), lines.ends[:-1] + np.int32(1)])
        lines.kept, lines.told = self.kept, self.told
        return lines


COMMENT = np.zeros(256, bool)
COMMENT[ord("#")] = True


def places(data: np.ndarray, byte: int) -> np.ndarray:
    """Return where a byte stands in data, as int32."""
    step = 2**22
    found = [(np.flatnonzero(data[at : at + step] == byte) + at).astype(np.int32) for at in range(0, len(data), step)]
    return np.concatenate(found) if found else np.zeros(0, np.int32)


def _skipped(told: str | None, count: int, source: str) -> list[int]:
    """Return the lines that are to be skipped, counted from 0."""
    found: list[int] = []
    for part in told.split(",") if told is not None else []:
        match = re.fullmatch(r"\s*([0-9]{1,9})\s*(?:-\s*([0-9]{1,9})\s*)?", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 1 <= first <= last <= count:
            raise RefusalError(
                f"--skip-rows: expected numbers of lines of {source}, 1 to {count}, such as 2,40-42; got {told!r}"
            )
        found += range(first - 1, last)
    return found


def _separator(lines: Lines, reading: Reading, source: str) -> str:
    """Return what is between fields: as told, or what the first line that has one of SEPARATORS has alone."""
    told = "\t" if reading.separator in ("tab", r"\t") else reading.separator
    if told is not None:
        if len(told) != 1 or told in '"#\n\r' or told.isalnum() or ord(told) > 127:
            raise RefusalError(f"--separator: expected a single mark, or tab, got {reading.separator!r}")
        return told
    likely = [mark for mark in _likely_separators(lines) if mark != reading.decimal]
    hints = [Hint({"separator": "tab" if mark == "\t" else mark}, f"takes the {SEPARATORS[mark]}") for mark in likely]
    for at in lines.kept.tolist():
        found = [mark for mark in SEPARATORS if mark in _unquoted(lines.text(at)) and mark != reading.decimal]
        if len(found) > 1 or (found and likely and found[0] not in likely):
            names = " and ".join(SEPARATORS[mark] for mark in dict.fromkeys([*found, *likely]))
            way_out = "" if hints else "--separator tells which"
            raise refusal(source, int(at) + 1, f"one kind of separator, got {names}", hints, way_out)
        if found:
            return found[0]
    return next(mark for mark in SEPARATORS if mark != reading.decimal)  # of a single column, which has none


def _likely_separators(lines: Lines) -> list[str]:
    """Return the marks that most of the lines on top have as often as one another."""
    texts = [_unquoted(lines.text(at)) for at in lines.kept[:TOP].tolist()]
    found = []
    for mark in SEPARATORS:
        counts = [text.count(mark) for text in texts]
        usual = max(set(counts), key=counts.count)
        if usual and counts.count(usual) >= 0.8 * len(counts):
            found.append(mark)
    return found


def _unquoted(text: str) -> str:
    return re.sub('"[^"]*"', "", text)


def _rows(lines: Lines, ats: range, separator: str, source: str) -> list[Row]:
    """Return the fields of some lines that have any, with their numbers. No field goes on in another line."""
    rows: list[Row] = []
    for at in lines.kept[ats.start : ats.stop]:
        reader = csv.reader([lines.text(at)], delimiter=separator, strict=True, skipinitialspace=separator != " ")
        try:
            fields = [field.strip() for field in next(reader)]
        except (csv.Error, StopIteration):
            raise _misquoted(source, int(at) + 1) from None
        if any(fields):
            rows.append((int(at) + 1, fields))
    return rows


def _misquoted(source: str, line: int) -> RefusalError:
    expected = "quotation marks around whole fields of this line"
    return refusal(source, line, expected, words="--separator tells between")


def _grid(lines: Lines, kept: np.ndarray, separator: str, names: Sequence[str], source: str) -> Grid:
    """Return the cells of lines that are all to have as many fields as there are names, or fewer of empty ones."""
    data, mark = lines.data, ord(separator)
    begins, ends = lines.begins[kept], lines.ends[kept]
    marks, quotes = places(data, mark), places(data, QUOTE)
    if len(quotes):
        quotes = _quotes(data, quotes, begins, ends, mark, lambda row: _misquoted(source, int(kept[row]) + 1))
        marks = marks[np.searchsorted(quotes, marks) % 2 == 0]
    low, high = np.searchsorted(marks, begins), np.searchsorted(marks, ends)
    counts = high - low
    filled = np.ones(len(kept), bool)
    firsts = data[begins]
    bare = BLANK[firsts] | (firsts == mark) | ((firsts == QUOTE) & (data.take(begins + 1, mode="clip") == QUOTE))
    for row in np.flatnonzero(bare):
        fields = lines.bytes[begins[row] : ends[row]].replace(b'"', b"").split(separator.encode())
        filled[row] = any(map(bytes.strip, fields))
    kept, begins, ends, low, counts = (array[filled] for array in (kept, begins, ends, low, counts))
    cuts = np.empty((len(kept), len(names)), np.int32)
    for field in range(len(names)):
        there = counts > field
        np.copyto(cuts[:, field], ends)
        cuts[there, field] = marks[low[there] + field]
    grid = Grid(data, begins, cuts, kept + np.int32(1), separator, bool(len(quotes)), tuple(range(len(names))))
    width = max((at for at, name in enumerate(names, 1) if name), default=0)
    misfit = (counts + 1 < width) | (counts > len(names))
    for row in np.flatnonzero(counts == len(names)):  # of which nothing stands behind the last separator
        misfit[row] = lines.bytes[cuts[row, -1] + 1 : ends[row]].strip() != b""
    if misfit.any():
        first = int(misfit.argmax())
        expected = f"{count(len(names), 'field')} as in the header, got {counts[first] + 1}"
        raise refusal(source, int(kept[first]) + 1, expected, words="--separator and --decimal tell how it is written")
    return grid


def _quotes(
    data: np.ndarray, quotes: np.ndarray, begins: np.ndarray, ends: np.ndarray, mark: int, refuse: Callable
) -> np.ndarray:
    """Return the quotation marks of lines, which must be around whole fields."""
    rows = np.searchsorted(begins, quotes, side="right") - 1
    of_rows = (rows >= 0) & (quotes < ends[rows])
    quotes, rows = quotes[of_rows], rows[of_rows]
    odd = np.bincount(rows, minlength=1) % 2
    if odd.any():
        raise refuse(int(odd.argmax()))
    edge = np.zeros(256, bool)
    edge[[mark, NEWLINE, QUOTE]] = True
    before = BLANK | edge if mark != ord(" ") else edge
    behind = edge.copy()
    behind[ord("\r")] = True
    opening, closing = quotes[::2], quotes[1::2]
    wrong = ~((opening == 0) | before[data[opening - 1]])
    wrong |= ~behind[np.append(data, np.uint8(NEWLINE))[closing + 1]] if closing[-1:].any() else False
    if wrong.any():
        raise refuse(int(rows[2 * int(wrong.argmax())]))
    return quotes


def _header(rows: Sequence[Row], separator: str, source: str) -> tuple[list[str], int, Sequence[Row], list[str]]:
    """Return the names, how many rows there are above the data, the titles among them, and what to tell.

    Names stand in one row, or in yfinance's three: price, ticker (a part of the names if there are several), date. A
    table without any has them counted, if its first row can be nothing but numbers and dates as those below it.
    """
    count = next((at for at, (_, row) in enumerate(rows[:TOP]) if any(map(cells.is_datum, row))), None)
    if count is None:
        hints = _preamble(rows)
        if separator in SEPARATORS and all(len(row) == 1 for _, row in rows):
            hints += [Hint({"separator": " "}, "tells that blanks are between fields")]
        way_out = "" if hints else "--separator and --decimal tell how they are written"
        raise RefusalError(f"{source}: expected rows of numbers or dates below a header, got none", hints, way_out)
    if count == 0 and _is_headless(rows):
        return [f"column {at + 1}" for at in range(len(rows[0][1]))], 0, [], ["It has no header: columns are counted."]
    if count == 0:
        number, row = rows[0]
        datum = next(filter(cells.is_datum, row))
        expected = f"a header, the names of the columns, got {datum!r}"
        raise refusal(source, number, expected, _preamble(rows), "write one above it")
    titles = 0
    while titles < count - 1 and _is_note(rows[titles][1]):
        titles += 1
    head = [row for _, row in rows[titles:count]]
    if len(head) == 3 and {"price", "ticker"} == {key(row[0]) for row in head[:2]} and _is_note(head[2]):
        prices, tickers = sorted(head[:2], key=lambda row: key(row[0]))
        several = len(set(tickers[1:])) > 1
        both = zip(prices[1:], tickers[1:], strict=False)
        names = [head[2][0], *(f"{price} {ticker}" if several else price for price, ticker in both)]
    elif len(head) == 1:
        names = head[0]
    else:
        number, row = rows[titles + 1]
        got = " ".join(", ".join(row).split())
        expected = f"numbers below the names in line {rows[titles][0]}, got {got}"
        raise refusal(source, number, expected, _preamble(rows))
    return names, count, rows[:titles], []


def _preamble(rows: Sequence[Row]) -> list[Hint]:
    """Return how to skip what stands above and below the names, so that data follow them at once."""
    widths = [len(row) for _, row in rows]
    width = max(set(widths), key=widths.count)
    data = [at for at, (_, row) in enumerate(rows) if len(row) == width and any(map(cells.is_datum, row))]
    first = next((at for at in data if at + 1 in data or at + 1 == len(rows)), None)
    if first is None:
        return []
    hints = []
    for at, (_, row) in enumerate(rows[:first]):
        if len(row) == width and len({*map(key, row)}) == width and not any(map(cells.is_datum, row)):
            others = [number for other, (number, _) in enumerate(rows[:first]) if other != at]
            hints += [Hint({"skip_rows": ranges(others)}, f"takes the names {', '.join(row)[:40]}")] if others else []
    return hints


def ranges(numbers: Sequence[int]) -> str:
    """Return numbers that ascend in a text such as 2,40-42."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(f"{first}" if first == last else f"{first}-{last}" for first, last in parts)


def _is_headless(rows: Sequence[Row]) -> bool:
    """Tell whether the first row is of data: numbers and dates as in the rows below, which no names look like."""
    first, *others = [row for _, row in rows[:10]]
    if len(first) < 2 or len(others) < 2 or any(len(row) != len(first) for row in others):
        return False
    kinds = [cells.kind(text) for text in first]
    if None in kinds or any([cells.kind(text) for text in row] != kinds for row in others):
        return False
    broken = any(
        kind == "number" and re.search("[0-9][.,][0-9]", text) for kind, text in zip(kinds, first, strict=True)
    )
    return broken or len(set(kinds)) > 1


def _is_note(row: Sequence[str]) -> bool:
    """Tell whether a row is a text alone, as titles and sources are."""
    return not any(row[1:]) and any(map(str.isalpha, row[0])) and not cells.is_datum(row[0])
