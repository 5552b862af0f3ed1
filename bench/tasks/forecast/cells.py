"""What the texts in a table's cells say: numbers, or dates (which `when` reads).

Columns of numbers can be read if all the ways that fit the whole of them agree, and are refused if none does or two
differ: "1,234" is 1234 beside "0.5" and 1.234 beside "0,5", and alone it is neither. Texts are NumPy arrays of bytes in
UTF-8; what is plain is converted as a whole, and each other text is looked at once, however often it comes.
"""

import functools
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from bench.tasks.forecast import when
from bench.tasks.forecast.hints import Hint

NOTHING = frozenset({"", "-", "--", "–", "—", "?", ".", "n/a", "#n/a", "na", "nan", "null", "none"})
POWERS = {"": 0, "K": 3, "M": 6, "B": 9, "T": 12}

_NUMBER = r"""(?P<sign>[+−-]?)(?P<currency>[$€£¥]?)
    (?:(?P<plain>[0-9]+(?:{mark}[0-9]*)?|{mark}[0-9]+)(?:[eE](?P<power>[+-]?[0-9]+))?
    |(?P<grouped>[1-9][0-9]{{0,2}}(?P<group>[{other}'’\u00a0\u202f])[0-9]{{3}}(?:(?P=group)[0-9]{{3}})*(?:{mark}[0-9]*)?))
    (?P<scale>[KMBT]?)(?:[\u0020\u00a0\u202f]?(?P<unit>[%$€£¥]))?"""
MARKS = {
    mark: re.compile(_NUMBER.format(mark=re.escape(mark), other=other), re.VERBOSE) for mark, other in (".,", ",.")
}
FAR = 10**6  # more than the power of any number
BLOCK = 2**16  # texts that are looked at together
PAD, DIGIT, SIGN, POINT, COMMA, OTHER = range(6)
KINDS = np.full(256, OTHER, np.uint8)
KINDS[0] = PAD
KINDS[list(b"0123456789")] = DIGIT
KINDS[list(b"+-eE")] = SIGN
KINDS[ord(".")], KINDS[ord(",")] = POINT, COMMA
COUNTS = np.left_shift(np.uint64(1), 12 * np.maximum(KINDS, 1).astype(np.uint64) - np.uint64(12))  # fields of 12 bits
COUNTS[KINDS == PAD] = 0
DIGITS = np.uint64(2**12 - 1)


class MisfitError(ValueError):
    """A text that a column cannot hold: in which row and column, what was expected, and what leads on."""

    def __init__(self, row: int, column: int, expected: str, hints: Sequence[Hint] = (), words: str = ""):
        super().__init__(expected)
        self.row, self.column, self.expected, self.hints, self.words = row, column, expected, tuple(hints), words


class Kept(NamedTuple):
    """What a text that is no plain number says."""

    value: float
    unit: str


def is_number(text: str) -> bool:
    return any(mark.fullmatch(text) for mark in MARKS.values())


def is_datum(text: str) -> bool:
    """Tell whether a text is a number or a date, and so no name; 1M and 10K are names."""
    return (is_number(text) and not re.fullmatch("[0-9]+[KMBT]", text)) or is_date(text)


@functools.lru_cache(1000)
def is_date(text: str) -> bool:
    """Tell whether a text is a date, or a time of a day, that nobody would take for a number."""
    return not is_number(text) and re.search("[0-9]", text) is not None and when.says(text)


def kind(text: str) -> str | None:
    return "number" if is_number(text) else "date" if is_date(text) else None


def number(text: str, mark: str) -> float | None:
    """Return the number that a text is with this decimal mark, or None."""
    kept = _kept(text, mark)
    return kept.value if kept else None


def numbers(columns: Sequence[Callable[[], np.ndarray]], marks: str, nothing: frozenset[str]) -> np.ndarray:
    """Return columns of texts, F functions that return N each, as numbers (N, F), NaN for what is nothing.

    All have the same decimal mark, the one of `marks` that fits them all, or a MisfitError is raised. Beside digits a
    number may have a sign, marks between thousands, an exponent or one of K, M, B and T, and, as all in its column, a
    currency or a %. `nothing` are texts, in lower case, that are none.
    """
    misfits: dict[str, MisfitError] = {}
    found = np.empty((0, len(columns)))
    open_ways: list[tuple[int, np.ndarray, dict[str, np.ndarray]]] = []  # columns that marks read differently, so far
    for at, column in enumerate(columns):
        texts = column()
        if not at:
            found = np.empty((len(texts), len(columns)))
        counts = counts_of(texts)
        found[:, at], fits = plain(texts, counts=counts)
        rest = np.flatnonzero(~fits)
        readings: dict[str, np.ndarray] = {}
        for mark in (mark for mark in marks if mark not in misfits):
            try:
                readings[mark] = _marked(texts, rest, mark, at, nothing, counts)
            except MisfitError as misfit:
                misfits[mark] = misfit
        if not readings:
            raise max(misfits.values(), key=lambda misfit: (misfit.column, misfit.row))
        first, *others = readings.values()
        found[rest, at] = first
        if not all(np.array_equal(first, other, equal_nan=True) for other in others):
            open_ways.append((at, rest, readings))
    ways = [mark for mark in marks if mark not in misfits]
    for at, rest, readings in open_ways:
        found[rest, at] = readings[ways[0]]
        if len(ways) > 1:
            one, other = (readings[mark] for mark in ways)
            row = int(rest[int(((one != other) & ~np.isnan(one)).argmax())])
            hints = [Hint({"decimal": mark}, "is one way") for mark in ways]
            raise MisfitError(row, at, "a number that can be read in one way", hints)
    return found


def plain(
    texts: np.ndarray, mark: int | None = None, counts: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of texts that are digits, sign and exponent, with one mark of this kind, and which are."""
    counts = counts_of(texts) if counts is None else counts
    values, fitting = np.full(len(texts), np.nan), np.zeros(len(texts), bool)
    for first in range(0, len(texts), BLOCK):
        block, kinds = texts[first : first + BLOCK], counts[first : first + BLOCK]
        marked = np.uint64(0) if mark is None else np.uint64(1 << 12 * (mark - 1))
        fits = (kinds >> np.uint64(24) == marked >> np.uint64(24)) & (kinds & DIGITS > 0)
        chosen = block[fits]
        if mark == COMMA:
            chosen = chosen.copy()
            marks = chosen.view(np.uint8)
            marks[marks == ord(",")] = ord(".")
        try:
            values[first : first + BLOCK][fits] = chosen.astype(float)
        except ValueError:  # such as 1-2: each is looked at by itself
            continue
        fits &= ~np.isinf(values[first : first + BLOCK])
        fitting[first : first + BLOCK] = fits
    return values, fitting


def counts_of(texts: np.ndarray) -> np.ndarray:
    """Return how many bytes of each kind texts have (N,), 12 bits for a kind."""
    found = np.zeros(len(texts), np.uint64)
    for first in range(0, len(texts), BLOCK):
        block = texts[first : first + BLOCK]
        for column in block.view(np.uint8).reshape(len(block), -1).T:
            found[first : first + BLOCK] += COUNTS[column]
    return found


def _marked(
    texts: np.ndarray, rest: np.ndarray, mark: str, column: int, nothing: frozenset[str], counts: np.ndarray
) -> np.ndarray:
    """Return the numbers of the texts in the rows `rest`, the others being plain, with this decimal mark."""
    rows = len(texts)
    texts = texts[rest]
    values, fits = plain(texts, POINT if mark == "." else COMMA, counts[rest])
    units = np.zeros(len(texts), np.int32)
    names = [""]
    odd = np.flatnonzero(~fits)
    misfit = len(texts)
    for part in (odd[:1000], odd[1000:]):  # what does not fit shows soon
        distinct, firsts, inverse = np.unique(texts[part], return_index=True, return_inverse=True)
        kept = np.full(len(distinct), np.nan)
        unit = np.full(len(distinct), -1, np.int32)
        for at, data in enumerate(distinct.tolist()):
            text = data.decode(errors="replace").strip()
            if text.lower() in nothing:
                continue
            reading = _kept(text, mark)
            if reading is None:
                misfit = min(misfit, int(part[firsts[at]]))
                continue
            if reading.unit not in names:
                names.append(reading.unit)
            kept[at], unit[at] = reading.value, names.index(reading.unit)
        values[part], units[part] = kept[inverse], unit[inverse]
        if misfit < len(texts):
            raise MisfitError(int(rest[misfit]), column, "a number")
    if len(names) > 1:
        every = np.zeros(rows, np.int32)
        every[rest] = units
        first = every[int((every >= 0).argmax())]
        differs = np.flatnonzero((every >= 0) & (every != first))
        if len(differs):
            expected = f"a number with {names[first] or 'no unit'} as in the rows before it"
            raise MisfitError(int(differs[0]), column, expected)
    huge = np.flatnonzero(np.isinf(values))
    if len(huge):
        raise MisfitError(int(rest[huge[0]]), column, "a number that float64 can hold")
    return values


def _kept(text: str, mark: str) -> Kept | None:
    match = MARKS[mark].fullmatch(text)
    if match is None:
        return None
    unit = match["currency"] + (match["unit"] or "")
    digits = match["plain"] or match["grouped"].replace(match["group"], "")
    power = max(min(int(match["power"] or 0), FAR), -FAR) + POWERS[match["scale"]] - 2 * ("%" in unit)
    sign = match["sign"].replace("−", "-")
    return Kept(float(f"{sign}{digits.replace(mark, '.')}e{power}"), unit)
