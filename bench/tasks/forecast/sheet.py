"""A user's table: a file of separated values, read into columns of numbers, or refused in one line.

What the table does not tell for certain is asked for and never guessed; nothing behind this door checks again. Names
stay with their columns, rows with a date are in the order of their dates, each date once, and whatever was not read,
or not as it lay, is told in `Columns.told`.
"""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np

from bench.grid.cases import ChoiceError
from bench.tasks.forecast import cells, doubts, kinds
from bench.tasks.forecast.hints import AS_IT_LIES, Hint, Reading, RefusalError, count, refusal
from bench.tasks.forecast.layout import Layout, lay_out, ranges
from bench.tasks.forecast.order import Order

__all__ = ["AS_IT_LIES", "Columns", "Reading", "Sheet", "parse", "read"]

FEW_TEXTS = 5  # that may all mean nothing
FEW_LINES = 20


class Columns(NamedTuple):
    """Some columns of a table, all of it finite numbers."""

    source: str  # where they come from, for the reader
    names: tuple[str, ...]  # as the table has them
    values: np.ndarray  # (N, F) float64
    labels: np.ndarray  # (N,) dates, each later than the one before, or numbers that ascend
    told: tuple[str, ...]  # what was read and what was not, a sentence each


class Sheet(NamedTuple):
    """A table as it was written."""

    table: Layout
    gone: tuple[int, ...]  # the columns that were left out
    told: tuple[str, ...]  # what was left out
    reading: Reading
    data: bytes  # of the file

    @property
    def source(self) -> str:
        return self.table.source

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for at, name in enumerate(self.table.names) if at not in self.gone)

    def find(self, *names: str) -> int | None:
        """Return the number of the column with the first of these names that is found; case and blanks do not count."""
        found = (self.table.find(name) for name in names)
        return next((at for at in found if at is not None and at not in self.gone), None)

    def expect(self, option: str, name: str) -> int:
        """Return the number of the column that an option names, or raise a ChoiceError."""
        return self.table.expect(option, name, self.gone)

    def columns(self, wanted: Sequence[int], positive: bool = False) -> Columns:
        """Return columns by their numbers, by date where the table has dates; above 0 all of them if `positive`.

        Rows with nothing in any of them are left out, and those with nothing in one if `--missing` was told. A
        ChoiceError names the line that cannot be read, and the options that lead on.
        """
        try:
            return self._columns(wanted, positive)
        except RefusalError as refused:
            names = [self.table.names[at] for at in wanted]
            raise refused.tried(self.reading, partial(self._again, names, positive)) from None

    def _again(self, names: Sequence[str], positive: bool, reading: Reading) -> None:
        """Read the table in another way."""
        sheet = _sheet(self.data, self.source, reading)
        wanted = [at for name in names if (at := sheet.find(name)) is not None]
        if not wanted:
            raise ChoiceError("a hint that takes what is wanted")
        sheet._columns(wanted, positive)

    def _columns(self, wanted: Sequence[int], positive: bool) -> Columns:
        values, told = self._numbers(wanted)
        empty = np.isnan(values)
        lacking = any(text != NONE for text in self.reading.missing or ())
        left_out = empty.any(axis=1) if lacking else empty.all(axis=1)
        table = self.table
        if left_out.any():
            rows = np.flatnonzero(~left_out)
            if not len(rows):
                names = ", ".join(table.names[at] for at in wanted)
                raise RefusalError(f"{self.source}: expected numbers in {names}, got nothing")
            first = table.grid.lines[int(left_out.argmax())]
            what = "that lack a number" if lacking else "with nothing to read"
            told += (f"{count(int(left_out.sum()), 'row')} {what} left out, line {first} the first.",)
            table = table._replace(grid=table.grid.picked(rows))
            values, empty = values[rows], empty[rows]
        for row, column in np.argwhere(empty)[:1]:
            at = wanted[column]
            hints = [*self._without(wanted, at), Hint({"missing": [table.grid.text(row, at)]}, "leaves out such rows")]
            self._refuse(table, row, at, "a number", hints)
        rows_of = Order(table, self.reading, wanted, self.gone)
        time = rows_of.time()
        order = np.argsort(time.labels, kind="stable")
        in_order = bool((order[1:] > order[:-1]).all())
        labels = time.labels if in_order else time.labels[order]
        values = values if in_order else values[order]
        rows_of.expect_one(time, values[:, 0], order)
        self._expect_numbers(table, wanted, values, order, dated=bool(time.columns))
        if positive:
            for row, column in np.argwhere(~(values > 0))[:1]:
                at, row = wanted[column], int(order[row])
                text = table.grid.text(row, at)
                hints = self._without(wanted, at)
                if values[order == row, column] == 0:
                    hints.append(Hint({"missing": [text]}, "leaves out such rows"))
                self._refuse(table, row, at, "a number above 0, whose logarithm is read", hints)
        told = (self._used(wanted, time.columns, len(values)), *time.told, *self.told, *told)
        return Columns(self.source, tuple(table.names[at] for at in wanted), values, labels, told)

    def _numbers(self, wanted: Sequence[int]) -> tuple[np.ndarray, tuple[str, ...]]:
        """Return the numbers of columns, NaN for what means nothing, and what is to be told of that."""
        grid = self.table.grid
        missing = [text.strip().lower() for text in self.reading.missing or () if text != NONE]
        nothing = cells.NOTHING | frozenset(missing)
        plain = grid.separator == "," and not grid.quoted
        marks = self.reading.decimal or ("." if plain else ".,")
        try:
            values = cells.numbers([partial(grid.column, at) for at in wanted], marks, nothing)
        except cells.MisfitError as misfit:
            at = wanted[misfit.column]
            hints = misfit.hints or self._odd(wanted, at, misfit.row, marks)
            self._refuse(self.table, misfit.row, at, misfit.expected, hints)
        counts = []
        for text in missing:
            same = np.zeros(values.shape, bool)
            for number in {cells.number(text, mark) for mark in marks} - {None}:
                same |= values == number
            for column, at in enumerate(wanted):
                if np.isnan(values[:, column]).any():
                    same[:, column] |= np.char.lower(grid.column(at)) == text.encode()
            values[same] = np.nan
            counts.append(f"{text or 'nothing'} in {count(int(same.sum()), 'cell')}")
        return values, (f"Missing as told: {', '.join(counts)}.",) if counts else ()

    def _odd(self, wanted: Sequence[int], at: int, row: int, marks: str) -> list[Hint]:
        """Return what leads on from a text that is no number: it is no row, or means nothing, or the column goes."""
        grid = self.table.grid
        texts = grid.column(at)
        _, plain = cells.plain(texts)
        odd: dict[str, int] = {}
        for data in texts[~plain].tolist():
            text = data.decode(errors="replace").strip()
            if text in odd or not any(cells.number(text, mark) is not None for mark in marks):
                odd[text] = odd.get(text, 0) + 1
        odd = {text: times for text, times in odd.items() if text.lower() not in cells.NOTHING}
        hints = self._without(wanted, at)
        heads = np.flatnonzero(texts == self.table.names[at].encode())
        odd.pop(self.table.names[at], None)
        if row in heads and len(heads) <= min(FEW_LINES, len(texts) // 4):
            lines = ranges(grid.lines[heads].tolist())
            return [Hint({"skip_rows": lines}, "skips the names that come again"), *hints]
        edge = [place for place in (0, len(texts) - 1) if place == row]
        words = all(re.fullmatch(r"[^0-9]+|#.+|\?[0-9.,]+|[0-9.,]+\?", text) for text in odd)
        if edge and odd.get(grid.text(row, at), 0) <= 1 and not re.search("[0-9]", grid.text(row, at)):
            hints.insert(0, Hint({"skip_rows": str(grid.lines[row])}, "skips a row of no data"))
        elif (words or len(odd) == 1) and len(odd) <= FEW_TEXTS and 2 * sum(odd.values()) < len(texts):
            hints.insert(0, Hint({"missing": list(odd)}, "leaves out such rows"))
        if self.reading.decimal:
            hints.append(Hint({"decimal": {",": ".", ".": ","}[self.reading.decimal]}, "reads them"))
        return hints

    def _without(self, wanted: Sequence[int], at: int) -> list[Hint]:
        if len(wanted) == 1:
            return []
        return [Hint({"without": self.table.names[at]}, "leaves the column out")]

    def _expect_numbers(
        self, table: Layout, wanted: Sequence[int], values: np.ndarray, order: np.ndarray, dated: bool
    ) -> None:
        """Raise a RefusalError for numbers that stand for nothing, and for a row that is the sum of the others."""
        if not dated and any(doubts.is_total(column) for column in values.T):
            hint = Hint({"skip_rows": str(table.grid.lines[-1])}, "skips it")
            self._refuse(table, len(values) - 1, wanted[0], "a row of data, not the sum of those before it", [hint])
        if NONE in (self.reading.missing or ()):
            return
        if not dated and any(doubts.ends_apart(column) for column in values.T):
            hint = Hint({"skip_rows": str(table.grid.lines[-1])}, "skips it")
            words = "--missing none says that every number is one"
            self._refuse(table, len(values) - 1, wanted[0], "a row of data like the others", [hint], words)
        found: dict[str, tuple[int, int]] = {}
        for column, at in enumerate(wanted):
            for number in doubts.stand_ins(values[:, column]):
                row = int(order[int((values[:, column] == number).argmax())])
                found.setdefault(table.grid.text(row, at), (row, at))
        if found:
            row, at = next(iter(found.values()))
            hint = Hint({"missing": list(found)}, "leaves out such rows")
            self._refuse(table, row, at, "a number among the others, not one that may stand for nothing", [hint])

    def _used(self, wanted: Sequence[int], dated: Sequence[int], rows: int) -> str:
        others = [name for at, name in enumerate(self.table.names) if at not in {*wanted, *dated, *self.gone}]
        rest = f", not {', '.join(others)}" if others else ""
        read = f"Read: {count(rows, 'row')} of {', '.join(self.table.names[at] for at in wanted)}{rest}"
        return f"{read.removesuffix('.')}."  # as in Vol.

    def _refuse(
        self, table: Layout, row: int, at: int, expected: str, hints: Sequence[Hint] = (), words: str = ""
    ) -> NoReturn:
        place = f"{table.grid.lines[row]}, column {table.names[at]}"
        raise refusal(self.source, place, f"{expected}, got {table.grid.text(row, at)!r}", hints, words)


NONE = "none"  # of --missing: every number is one


def read(path: Path, reading: Reading = AS_IT_LIES) -> Sheet:
    """Return the table in a file, which may be compressed; a ChoiceError says in one line what is wrong with it."""
    return _tried(kinds.contents(path), str(path), reading)


def parse(text: str, source: str, reading: Reading = AS_IT_LIES) -> Sheet:
    """Return the table that a text holds."""
    return _tried(text.encode(), source, reading)


def _tried(data: bytes, source: str, reading: Reading) -> Sheet:
    try:
        return _sheet(data, source, reading)
    except RefusalError as refused:
        raise refused.tried(reading, partial(_sheet, data, source)) from None


def _sheet(data: bytes, source: str, reading: Reading) -> Sheet:
    if reading.decimal not in (None, ".", ","):
        raise RefusalError(f"--decimal: expected . or , and got {reading.decimal!r}")
    table = lay_out(data, source, reading)
    told = table.told
    gone = tuple(sorted(table.all("--without", reading.without)))
    if gone:
        told = (f"Left out as told: {', '.join(table.names[at] for at in gone)}.", *told)
    for where in reading.where or ():
        table, words = _picked(table, where)
        told = (words, *told)
    return Sheet(table, gone, told, reading, data)


def _picked(table: Layout, where: str) -> tuple[Layout, str]:
    """Return the rows of a table in which a column has a value, of COLUMN=VALUE, and what is to be told."""
    signs = [match.start() for match in re.finditer("=", where)]
    at = next((sign for sign in reversed(signs) if table.find(where[:sign]) is not None), signs[0] if signs else None)
    if at is None:
        raise RefusalError(f"--where: expected COLUMN=VALUE, got {where!r}")
    column, value = table.expect("--where", where[:at]), where[at + 1 :].strip()
    texts = table.grid.column(column)
    rows = np.flatnonzero(texts == value.encode())
    if not len(rows):
        some = [text.decode(errors="replace") for text in dict.fromkeys(texts[:10000].tolist())]
        more = ", ..." if len(some) > FEW_TEXTS else ""
        name = table.names[column]
        raise RefusalError(
            f"--where: expected {name} as it is in {table.source} ({', '.join(some[:FEW_TEXTS])}{more}), got {value!r}"
        )
    words = f"Picked as told: {len(rows)} of {count(len(texts), 'row')}, whose {table.names[column]} is {value}."
    return table._replace(grid=table.grid.picked(rows)), words
