"""Which columns say when a row was: known by name, or by what they hold, or asked for. And whether rows are one series.

Rows are taken as they lie only if no column that is left speaks against it.
"""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple, NoReturn

import numpy as np

from bench.tasks.forecast import cells, keys, when
from bench.tasks.forecast.hints import Hint, Reading, RefusalError, count, key, refusal
from bench.tasks.forecast.layout import Layout, ranges

DATES = ("date", "datetime", "date time", "timestamp", "datum", "fecha", "trade date", "observation date", "open time")
TIMES = ("time", "hour", "hr", "hhmm", "clock", "uhrzeit", "zeit", "stunde", "hora", "heure")  # of a day
PARTS = (  # of a date, in columns of their own
    ("year", "yyyy", "yr", "jahr", "année", "annee", "año", "ano", "anno"),
    ("month", "mo", "mm", "mon", "monat", "mois", "mes", "mese"),
    ("day", "dy", "dd", "tag", "jour", "día", "dia", "giorno"),
    ("hour", "hr", "hh", "stunde", "heure", "hora", "ora"),
    ("minute", "min", "mi"),
    ("second", "sec", "ss"),
)
WEAK = ("time", "month")
KNOWN = {*DATES, *WEAK, *PARTS[0]}
WITH_DIGITS = {*DATES, *PARTS[0]}  # of those, what may be written in digits alone
SAMPLE = 1000  # rows that show what a column holds
WITHOUT = "--without leaves out what says nothing of it, if rows lie in order of time"
DAYS = ("doy", "dayofyear", "day of year", "yday")
FEW_LINES = 20
SOME = when.SOME
TOTALS = re.compile(  # as the last row of some columns has it
    r"(grand |sub)?-?(totals?|sum|summe|gesamt|mean|average|durchschnitt|avg|median|count|min|max)\b.*", re.I
)


class Time(NamedTuple):
    """When each row was (N,), or its number; and what is to be told of it."""

    labels: np.ndarray
    columns: tuple[int, ...]
    told: tuple[str, ...]


class Order:
    """The order in time of a table's rows, beside the columns that are wanted and those that were left out as told."""

    def __init__(self, table: Layout, reading: Reading, wanted: Sequence[int], gone: Sequence[int]):
        self.table, self.reading, self.wanted, self.gone = table, reading, wanted, gone
        self.others = [at for at in range(len(table.names)) if at not in {*wanted, *gone}]

    def time(self) -> Time:
        """Return when the rows were, or raise a RefusalError."""
        columns = self._columns()
        if not columns:
            self._expect_no_total()
            self._expect_order()
            self._expect_one_series()
            told = "It has no dates: rows are taken as they lie, the first as the earliest."
            return Time(np.arange(len(self.table.grid.lines)), (), (told,))
        dates = self._read(columns)
        if twice := _twice(dates.values):
            for more in self._clocks(columns):
                longer = self._readable((*columns, *more))
                if longer is not None and not _twice(longer.values):
                    return self._told((*columns, *more), longer)
            first, second = twice
            expected = f"each date once, and line {self.table.grid.lines[first]} has it"
            hints = self._apart(columns)
            self._refuse(second, columns[0], expected, hints, "" if hints else "--date-column names others")
        return self._told(columns, dates)

    # Which columns

    def _columns(self) -> tuple[int, ...]:
        """Return the columns that say when, none if nothing does."""
        if self.reading.date_column is not None:
            return tuple(self.table.all("--date-column", self.reading.date_column))
        if (named := self._named(DATES)) is not None:
            time = self._named(TIMES[:1])
            return (named,) if time is None or not when.is_clock(self._texts(time), digits=True) else (named, time)
        found: list[tuple[int, ...]] = [(at,) for at in self.others if self._is_date(at)]
        parts = self._parts()
        if parts and (not found or (len(parts) > 1 and self.reading.date_format is None)):
            found.append(parts)
        if self.reading.date_format is None:
            found += [(at,) for at in self.others if not any(at in one for one in found) and self._is_likely(at)]
        if len(found) > 1:
            names = [self.table.names[columns[0]] for columns in found]
            hints = [hint for columns in found for hint in self._by(columns)]
            raise RefusalError(f"{self.table.source}: expected dates in one column, got {', '.join(names)}", hints)
        if found and (found[0] == parts or self._is_date(found[0][0])):
            return found[0]
        weak = self._named(WEAK)
        if weak is not None:
            return (weak,)
        if self.reading.date_format is not None:
            hints = [
                Hint({"date_column": self.table.names[at]}, "has such dates")
                for at in self.others
                if self._dates(at, self.reading.date_format) is not None
            ]
            expected = f"dates of {self.reading.date_format} in a column of {self.table.source}"
            way_out = "" if hints else "--date-column names it"
            raise RefusalError(f"--date-format: expected {expected}, got none", hints, way_out)
        return ()

    def _parts(self) -> tuple[int, ...]:
        """Return the columns that hold the parts of a date, known by their names, the year first."""
        found = (self._named(names) for names in PARTS)
        year, *parts = (at if at is not None and self._is_part(at) else None for at in found)
        if year is None:
            return ()
        day = self._named(DAYS)
        if day is None and parts[0] is None:
            day = parts[1]  # of the year
        given = parts if day is None or parts[0] is not None else [day, *parts[2:]]
        last = given.index(None) if None in given else len(given)
        return (year, *(part for part in given[:last] if part is not None))

    def _is_part(self, at: int) -> bool:
        """Tell whether a column holds numbers or words, as parts of a date are."""
        return all(re.fullmatch(rb"[0-9]+|[A-Za-z]*|[^0-9:/. -]+", text) for text in self._texts(at)[:2].tolist())

    def _is_date(self, at: int) -> bool:
        """Tell whether a column holds dates that nobody would take for anything else."""
        texts, form = self._texts(at), self.reading.date_format
        if form is not None:
            return form not in when.FORMS and self._dates(at, form) is not None
        first = next((text.decode(errors="replace") for text in texts[: when.BLOCK].tolist() if text), "")
        if cells.is_number(first) or not re.search("[0-9]", first):
            return False
        if len(texts) > 1 and ((texts == first.encode()) | (texts == b"")).all():
            return False  # such as when a table was made
        return cells.is_date(first) or self._dates(at) is not None

    def _is_likely(self, at: int) -> bool:
        """Tell whether a column may well hold dates, though in no form that is read unasked."""
        texts = self._texts(at)
        return bool(when.guesses(texts[:SAMPLE])) and _speaks(texts) and keys.recurs(texts) is None

    def _clocks(self, columns: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        """Return columns that may say what time of the day it was: clocks, or hours, minutes and seconds."""
        others = [at for at in self.others if at not in columns]
        if self.reading.date_column is None and self.reading.date_format is None:
            yield from ((at,) for at in others if when.is_clock(self._texts(at), self._is_time(at)))
            parts = [self._named(names) for names in PARTS[3:]]
            if parts[0] is not None:
                last = parts.index(None) if None in parts else len(parts)
                yield tuple(part for part in parts[:last] if part is not None and part not in columns)

    def _is_time(self, at: int) -> bool:
        return _plain(self.table.names[at]) in TIMES

    def _named(self, names: Sequence[str]) -> int | None:
        """Return the first column that is known by one of these names, whatever its marks."""
        plain = {_plain(self.table.names[at]): at for at in reversed(self.others)}
        return next((plain[name] for name in names if name in plain), None)

    def _texts(self, at: int) -> np.ndarray:
        return self.table.grid.column(at)

    def _joined(self, columns: Sequence[int]) -> np.ndarray:
        first, *others = (self._texts(at) for at in columns)
        for texts in others:
            first = np.char.add(np.char.add(first, b" "), texts)
        return first

    def _dates(self, at: int, form: str | None = None) -> np.ndarray | None:
        """Return a column's dates, if it holds some."""
        try:
            return when.read(self._texts(at), form, digits=False).values
        except when.FormError:
            return None

    # What they say

    def _readable(self, columns: tuple[int, ...]) -> when.Dates | None:
        """Return what columns say, if that can be read."""
        try:
            return when.read(self._joined(columns), self.reading.date_format, digits=True)
        except when.FormError:
            return None

    def _read(self, columns: tuple[int, ...]) -> when.Dates:
        texts = self._joined(columns)
        digits = self.reading.date_column is not None or _plain(self.table.names[columns[0]]) in WITH_DIGITS
        try:
            return when.read(texts, self.reading.date_format, digits)
        except when.FormError as misfit:
            self._blame(misfit, columns, texts)

    def _blame(self, misfit: when.FormError, columns: tuple[int, ...], texts: np.ndarray) -> NoReturn:
        """Refuse the cell that is no date, or no time behind one, with what reads the column."""
        row, column, expected = misfit.row, columns[0], misfit.expected
        if len(columns) > 1 and self.reading.date_format is None:
            date = self.table.grid.text(row, columns[0])
            if cells.is_date(date) or any(pattern.fullmatch(date) for pattern in when.DIGITS.values()):
                column = columns[1]
                expected = "a time such as 16:30" if len(columns) == 2 else "the parts of a date"
        self._expect_no_words(columns[0], texts)
        hints = self._forms(columns, texts, numbers=not misfit.some)
        hints += self._as_it_lies(columns)
        told = bool(hints) and (misfit.some or any("date_format" in hint.changes for hint in hints))
        self._refuse(row, column, expected, hints, "" if told else "--date-format tells how it is written")

    def _forms(self, columns: tuple[int, ...], texts: np.ndarray, numbers: bool = True) -> list[Hint]:
        """Return the forms that read the whole of a column, or the order of its numbers if none does."""
        by_name = self.reading.date_column is not None or _plain(self.table.names[columns[0]]) in KNOWN
        named = {} if by_name else {"date_column": ",".join(self.table.names[at] for at in columns)}
        forms = when.guesses(texts)
        if named and len(forms) == 1 and self._unasked(texts):
            return [Hint(named, "reads them")]
        hints = [Hint({**named, "date_format": form}, "reads them") for form in forms]
        if len(hints) > 1:
            hints = [hint._replace(words="is one way") for hint in hints]
        if not hints and numbers and _is_numeric(texts):
            hints = [Hint({**named, "date_format": when.NUMBER}, "orders the rows by its numbers")]
        return hints

    def _unasked(self, texts: np.ndarray) -> bool:
        try:
            when.read(texts)
        except when.FormError:
            return False
        return self.reading.date_format is None

    def _expect_no_words(self, column: int, texts: np.ndarray) -> None:
        """Refuse the few rows that hold a word, such as Total, or at the end nothing, in the place of a date."""
        words = ~keys.have_digits(texts)
        words[:-1] &= texts[:-1] != b""
        rows = np.flatnonzero(words).tolist()
        dated = np.delete(texts, rows)
        if 0 < len(rows) <= min(FEW_LINES, len(texts) // 4) and _is_counted(dated):
            lines = ranges([int(self.table.grid.lines[row]) for row in rows])
            self._refuse(rows[0], column, "a date", [Hint({"skip_rows": lines}, "skips what has none")])

    def _as_it_lies(self, columns: Sequence[int]) -> list[Hint]:
        """Return how to leave out columns by which the rows lie in order already, which changes no order."""
        if len(columns) != 1 or not _ascends(self._texts(columns[0])):
            return []
        name = self.table.names[columns[0]]
        return [Hint({"without": name}, "says that rows lie in order of time")]

    def _told(self, columns: tuple[int, ...], dates: when.Dates) -> Time:
        name = " and ".join(self.table.names[at] for at in columns)
        order = np.argsort(dates.values, kind="stable")
        values = dates.values[order]
        told = (_laid(name, values, order), *([dates.told] if dates.told else []))
        return Time(dates.values, columns, (*told, pace(values)))

    # Rows without a date

    def _expect_no_total(self) -> None:
        """Raise a RefusalError if the last row has a word or nothing where all others are otherwise."""
        rows = len(self.table.grid.lines)
        for at in [*self.others, *self.gone]:
            texts = self._texts(at)
            last = texts[-1].decode(errors="replace")
            rare = np.count_nonzero(texts == texts[-1]) <= 1 + rows // 100
            words = ~keys.have_digits(texts)
            odd = bool(words[-1]) and np.count_nonzero(words) == 1 and _is_counted(texts[:-1])
            alone = at in self.others and words[-1] and bool((texts[:-1] == texts[0]).all()) and texts[0] != texts[-1]
            if rows > SOME and (odd or alone or (rare and TOTALS.fullmatch(last))):
                hint = Hint({"skip_rows": str(self.table.grid.lines[-1])}, "skips it")
                self._refuse(rows - 1, at, "a row of data", [hint])

    def _expect_order(self) -> None:
        """Raise a RefusalError if a column that is not read could say when, or says that rows lie in another order."""
        for at in self.others:
            texts = self._texts(at)
            if _speaks(texts) and (keys.recurs(texts) is None or when.guesses(texts)):
                self._expect_no_words(at, texts)
                hints = [*self._forms((at,), texts), *self._as_it_lies((at,))]
                if not any("date_column" in hint.changes for hint in hints):
                    hints.insert(0, Hint({"date_column": self.table.names[at]}, "says that these are dates"))
                words = "" if any("without" in hint.changes for hint in hints) else WITHOUT
                self._refuse(0, at, "to be told what it says of the order of rows", hints, words)
        for at in self.gone:
            texts = self._texts(at)
            if _contradicts(texts):
                name = self.table.names[at]
                forms = [] if self._unasked(texts) else [{"date_format": form} for form in when.guesses(texts)]
                hints = [Hint({"date_column": name, **form}, "reads it") for form in forms or [{}]]
                raise RefusalError(
                    f"--without: expected rows in order of time, and {name} says that they are not", hints
                )

    def _expect_one_series(self) -> None:
        """Raise a RefusalError if the rows are of several series."""
        found = {at: len(np.unique(texts)) for at in self.others if keys.is_key(texts := self._texts(at))}
        if found:
            at = min(found, key=lambda at: found[at])
            self._refuse(0, at, "rows of one series", self._picks((at,)), WITHOUT)

    # Several series

    def expect_one(self, time: Time, values: np.ndarray, order: np.ndarray) -> None:
        """Raise a RefusalError if numbers (N,), which lie in an order of the rows, are of series at different times."""
        for at in self.others:
            if at not in time.columns and keys.is_woven(values, self._texts(at)[order]):
                self._refuse(0, at, "rows of one series", self._picks((at,)), WITHOUT)

    def _apart(self, columns: tuple[int, ...]) -> list[Hint]:
        """Return what tells rows of the same date apart: a time of the day, another date, or the key of a series."""
        others = [at for at in self.others if at not in columns]
        found = {at: texts for at in others if keys.recurs(texts := self._texts(at)) is not None}
        chosen = keys.telling(self._joined(columns), found)
        hints: list[Hint] = []
        for at in others:
            longer = (*columns, at)
            rest = {key: texts for key, texts in found.items() if key != at}
            clock = len(columns) == 1 and when.is_clock(self._texts(at), self._is_time(at))
            if clock and keys.telling(self._joined(longer), rest) is not None:
                hints += self._by(longer)
        if hints or chosen is not None:
            return hints or self._picks(chosen or ())
        for at in others:
            rest = {key: texts for key, texts in found.items() if key != at}
            if (self._is_date(at) or self._is_likely(at)) and keys.telling(self._texts(at), rest) is not None:
                hints += self._by((at,))
        return hints or self._copies(columns)

    def _by(self, columns: tuple[int, ...]) -> list[Hint]:
        """Return how to date rows by columns, in each form that they may have."""
        named = {"date_column": ",".join(self.table.names[at] for at in columns)}
        words = f"dates rows by {named['date_column']}"
        if self.reading.date_format is None and self._readable(columns) is not None:
            return [Hint(named, words)]
        forms = when.guesses(self._joined(columns))
        return [Hint({**named, "date_format": form}, words) for form in forms] or [Hint(named, words)]

    def _picks(self, columns: Sequence[int]) -> list[Hint]:
        """Return how to pick the rows of the series that has the most."""
        texts = [self._texts(at) for at in columns]
        rows = np.stack([np.unique(column, return_inverse=True)[1] for column in texts], axis=1)
        distinct, firsts, counts = np.unique(rows, axis=0, return_index=True, return_counts=True)
        first = int(firsts[int(counts.argmax())])
        where = tuple(f"{self.table.names[at]}={self.table.grid.text(first, at)}" for at in columns)
        return [Hint({"where": where}, f"picks one of {len(distinct)}")]

    def _copies(self, columns: tuple[int, ...]) -> list[Hint]:
        """Return how to skip a few rows that are copies of others."""
        _, firsts = np.unique(self._joined(range(len(self.table.names))), return_index=True)
        kept = np.sort(firsts)
        again = np.setdiff1d(np.arange(len(self.table.grid.lines)), kept)
        if not 0 < len(again) <= FEW_LINES:
            return []
        others = [at for at in self.others if at not in columns]
        found = {at: texts for at in others if keys.recurs(texts := self._texts(at)[kept]) is not None}
        chosen = keys.telling(self._joined(columns)[kept], found)
        if chosen is None:
            return []
        one = self._picks(chosen)[0].changes if chosen else {}
        lines = ranges(self.table.grid.lines[again].tolist())
        return [Hint({**one, "skip_rows": lines}, "skips what stands there twice")]

    def _refuse(self, row: int, column: int, expected: str, hints: Sequence[Hint] = (), words: str = "") -> NoReturn:
        place = f"{self.table.grid.lines[row]}, column {self.table.names[column]}"
        got = f"{expected}, got {self.table.grid.text(row, column)!r}"
        raise refusal(self.table.source, place, got, hints, words)


def _plain(name: str) -> str:
    """Return a name without marks, as <DATE> and Date_Time have them."""
    return re.sub(r"[\W_]+", " ", key(name)).strip()


def _twice(values: np.ndarray) -> tuple[int, int] | None:
    """Return two rows of the same date, the first such date's, if there are any."""
    if (values[1:] > values[:-1]).all():
        return None
    order = np.argsort(values, kind="stable")
    again = np.flatnonzero(values[order][1:] == values[order][:-1])
    return (int(order[again[0]]), int(order[again[0] + 1])) if len(again) else None


def _is_counted(texts: np.ndarray) -> bool:
    """Tell whether texts are numbers, or written in few ways, as dates are."""
    return _is_numeric(texts) or when.is_uniform(texts)


def _is_numeric(texts: np.ndarray) -> bool:
    return len(keys.floats(texts)) == len(texts) > 0


def _speaks(texts: np.ndarray) -> bool:
    """Tell whether a column could say when: a text with digits, or numbers in order or at an even pace."""
    texts = texts[texts != b""]
    if len(texts) > 1 and (texts == texts[0]).all():
        return False  # such as of --where
    values = keys.floats(texts)
    if not len(values):
        words = [text.decode(errors="replace") for text in texts.tolist() if re.search(b"[0-9]", text)]
        return 2 * sum(not cells.is_number(word) for word in words) >= len(texts) > 0
    if len(values) < SOME:
        return False
    steps = np.diff(values)
    if (steps == 1).all() and values[0] in (0, 1):
        return False  # they are counted as they lie
    if (steps > 0).all() or (steps < 0).all():
        return True
    distinct, counts = np.unique(values, return_counts=True)
    usual = np.bincount(counts).argmax()
    balanced = len(distinct) >= SOME and (counts == usual).mean() >= 0.9
    whole = (values % 1 == 0).all()
    if not balanced:
        return False
    return when.evenness(distinct) >= 0.5 or bool(whole and when.guesses(texts))


def _ascends(texts: np.ndarray) -> bool:
    values = keys.floats(texts)
    if len(values) == len(texts):
        return bool((np.diff(values) > 0).all())
    return when.orders(texts) is True and not any(_falls(form, texts) for form in when.guesses(texts))


def _contradicts(texts: np.ndarray) -> bool:
    """Tell whether a column says that the rows lie in another order than that of time."""
    values = keys.floats(texts)
    if len(values):
        return len(values) >= SOME and bool(
            (np.diff(values) < 0).all() or (_speaks(texts) and (np.diff(values) < 0).any())
        )
    if when.orders(texts) is False:
        return True
    forms = when.guesses(texts)
    return bool(forms) and all(_falls(form, texts) for form in forms)


def _falls(form: str, texts: np.ndarray) -> bool:
    """Tell whether dates of this form do not ascend, but for a few steps, such as of an hour that comes twice."""
    dates = when.read(texts, form).values
    return bool(np.count_nonzero(dates[1:] <= dates[:-1]) > 0.01 * len(dates))


def _laid(name: str, dates: np.ndarray, order: np.ndarray) -> str:
    if (order[1:] > order[:-1]).all():
        lay = "the rows lay in their order"
    elif (order[1:] < order[:-1]).all():
        lay = "the rows lay newest first and were sorted"
    else:
        lay = "the rows lay in another order and were sorted"
    first, last = _day(dates[0]), _day(dates[-1])
    how = "Dated" if np.issubdtype(dates.dtype, np.datetime64) else "Ordered"
    return f"{how} by {name}, {first} to {last}; {lay}."


def pace(dates: np.ndarray) -> str:
    """Return in words how far one row usually is from the next, and what is farther."""
    if len(dates) == 1:
        return "It is a single row."
    steps, unit = _steps(dates)
    usual = float(np.median(steps))
    longer = np.flatnonzero(steps > 1.5 * usual)
    if not len(longer):
        return f"From row to row it is usually {count(usual, unit)}, nowhere much longer."
    longest = int(steps.argmax())
    return (
        f"From row to row it is usually {count(usual, unit)}, {count(len(longer), 'time')} longer: at most "
        f"{steps[longest]:.4g}, after {_day(dates[longest])}."
    )


def _steps(dates: np.ndarray) -> tuple[np.ndarray, str]:
    if not np.issubdtype(dates.dtype, np.datetime64):
        return np.diff(dates), "unit"
    days = dates.astype("datetime64[D]")
    if (days == dates).all() and np.is_busday(days).all():
        return np.busday_count(days[:-1], days[1:]).astype(float), "working day"
    seconds = np.diff(dates) / np.timedelta64(1, "s")
    units = {"day": 86400, "hour": 3600, "minute": 60, "second": 1}
    unit = next((unit for unit, size in units.items() if np.median(seconds) >= size), "second")
    return seconds / units[unit], unit


def _day(date: np.datetime64 | float) -> str:
    """Return a date, with its time if it has one."""
    if not isinstance(date, np.datetime64):
        return f"{date:.10g}"
    return str(date.astype("datetime64[s]")).removesuffix("T00:00:00").replace("T", " ")
