"""Refusals of a table, and the options that lead on: none is printed that was not tried on this very table."""

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from bench.grid.cases import ChoiceError


class Reading(NamedTuple):
    """How to read a table, where that cannot be told from it: as the command line has it."""

    separator: str | None = None
    decimal: str | None = None
    date_format: str | None = None
    without: str | None = None  # names of columns, with commas between
    date_column: str | None = None  # names of columns, with commas between
    where: Sequence[str] = ()  # COLUMN=VALUE
    missing: Sequence[str] = ()  # numbers and texts that mean nothing
    skip_rows: str | None = None  # numbers of lines, and ranges of them, with commas between

    def with_(self, changes: Mapping[str, Any]) -> "Reading":
        """Return this reading with more options: what may be several is added, of what may not the new one holds."""
        merged: dict[str, Any] = {}
        for name, value in changes.items():
            now = getattr(self, name)
            merged[name] = (*(now or ()), *value) if name in REPEATED else _joined(now, value, name in LISTS)
        return self._replace(**merged)


REPEATED = ("where", "missing")
LISTS = ("without", "skip_rows")  # each in one text
AS_IT_LIES = Reading()


class Hint(NamedTuple):
    """Options that lead on, and what they do."""

    changes: Mapping[str, Any]  # of a Reading
    words: str

    def replaces(self, reading: Reading) -> bool:
        """Tell whether an option was given already, and is to be another."""
        single = (name for name in self.changes if name not in (*REPEATED, *LISTS))
        again = {name for name in single if getattr(reading, name) is not None}
        now = reading.date_column
        if self.changes.get("date_column", "").startswith(f"{now}," if now else ""):
            again -= {"date_column", "date_format"}  # for more columns than so far
        return bool(again)

    def spelled(self, reading: Reading) -> str:
        """Return the options as a shell takes them beside those of a reading, and what they do."""
        parts = []
        for name, value in self.changes.items():
            values = value if name in REPEATED else [getattr(reading.with_(self.changes), name)]
            parts += [f"--{name.replace('_', '-')} {shlex.quote(text)}" for text in values]
        return " ".join([*parts, self.words])


class RefusalError(ChoiceError):
    """A table that cannot be read, and the hints that are to be tried on it before they are told."""

    def __init__(self, message: str, hints: Iterable[Hint] = (), words: str = ""):
        super().__init__(message)
        self.message, self.hints, self.words = message, tuple(hints), words

    def tried(self, reading: Reading, attempt: Callable[[Reading], Any]) -> ChoiceError:
        """Return the error for the user, with the hints that end in another refusal or in none, else the words."""
        found = []
        for hint in self.hints:
            try:
                attempt(reading.with_(hint.changes))
            except RefusalError as other:
                if other.message == self.message or hint.replaces(reading):  # which could lead back here
                    continue
            except ChoiceError:
                continue
            found.append(hint.spelled(reading))
        told = ", ".join([*found, *([self.words] if self.words else [])])
        return ChoiceError(f"{self.message}; {told}" if told else self.message)


def refusal(source: str, line: int | str, expected: str, hints: Iterable[Hint] = (), words: str = "") -> RefusalError:
    return RefusalError(f"{source}, line {line}: expected {expected}", hints, words)


def _joined(now: str | None, new: str, both: bool) -> str:
    return f"{now},{new}" if both and now else new


def count(number: float, what: str) -> str:
    return f"{number:.7g} {what}{'' if number == 1 else 's'}"


def key(name: str) -> str:
    """Return a name as names are compared: without case, and whatever its blanks."""
    return " ".join(name.split()).casefold()
