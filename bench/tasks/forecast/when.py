"""Dates: what texts say of a time, in which forms, and what else they might say.

A form is strptime's for the date; how a time is written behind it is read from the texts themselves. Dates can be read
unasked if all the forms that fit the whole of a column agree, or if one of them alone has the rows in order: 03/04/2020
is in April beside 30/04/2020.
"""

import functools
import re
from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pandas as pd

from bench.grid.cases import ChoiceError

_MONTHS: tuple[str, ...] = (
    "%d-%b-%Y",
    "%d %b %Y",
    "%d/%b/%Y",
    "%d.%b.%Y",
    "%d. %b %Y",
    "%d%b%Y",
    "%b %d, %Y",
    "%b %d %Y",
    "%b. %d, %Y",
)
_MONTHS += ("%b-%Y", "%b %Y", "%b/%Y", "%Y-%b", "%Y %b", "%Y-%b-%d", "%Y %b %d", "%Y/%b/%d")
_NAMED = (*_MONTHS, *(form.replace("%b", "%B") for form in _MONTHS))
_WEEKDAYS = tuple(f"{day}{gap}{form}" for day in ("%a", "%A") for gap in (" ", ", ") for form in _NAMED if "%d" in form)
SPELLED = (
    *(form.replace("-", by) for by in "-/." for form in ("%Y-%m-%d", "%d-%m-%Y", "%m-%d-%Y")),
    *("%Y %m %d", "%d %m %Y", "%m %d %Y", "%Y %m", "%m %Y", "%Y %j"),  # of several columns
    *("%Y %m %d %H %M", "%Y %m %d %H %M %S", "%Y %j %H"),
    *("%Y %b %d %H %M", "%Y %B %d %H %M", "%d. %m. %Y"),
    *("%Y-%m", "%Y/%m", "%m/%Y", "%m-%Y", "%YM%m", "%Y-%j"),
    *("%G-W%V-%u", "%G-W%V", "%GW%V", "%GW%V%u", "%G W%V", "%YQ%q", "%Y-Q%q", "%Y Q%q", "Q%q %Y", "Q%q-%Y", "Q%q/%Y"),
    *("%a %b %d %H:%M:%S %Y", "%Y-%m-%d-%H.%M.%S"),
    *_NAMED,
    *_WEEKDAYS,
)
SHORT = (  # the century is not told
    *(form.replace("-", by) for by in "-/. " for form in ("%d-%m-%y", "%m-%d-%y", "%y-%m-%d")),
    *(form.replace("%Y", "%y") for form in _NAMED if not form.startswith("%Y")),
    *(form.replace("%Y", "%y") for form in _WEEKDAYS),
    *("%y-%b", "%m/%y", "%d%b%y"),
)
_YEAR = "[12][0-9]{3}"
DIGITS = {  # might be numbers elsewhere
    "%Y%m%d": re.compile(f"{_YEAR}[0-9]{{4}}"),
    "%Y": re.compile(_YEAR),
    "%Y%m%d%H": re.compile(f"{_YEAR}[0-9]{{6}}"),
    "%Y%m%d%H%M": re.compile(f"{_YEAR}[0-9]{{8}}"),
    "%Y%m%d%H%M%S": re.compile(f"{_YEAR}[0-9]{{10}}"),
}
GUESSED = {  # digits that are taken for nothing until somebody says so
    "%Y%m": re.compile(f"{_YEAR}[0-9]{{2}}"),
    "%Y%j": re.compile(f"{_YEAR}[0-9]{{3}}"),
    "%d%m%Y": re.compile(f"[0-9]{{4}}{_YEAR}"),
    "%m%d%Y": re.compile(f"[0-9]{{4}}{_YEAR}"),
    "%y%m%d": re.compile("[0-9]{6}"),
    "%d%m%y": re.compile("[0-9]{6}"),
    "%m%d%y": re.compile("[0-9]{6}"),
    "%y%m%d%H%M": re.compile("[0-9]{10}"),
    "%y%m%d%H%M%S": re.compile("[0-9]{12}"),
    "%Y.%m": re.compile(rf"{_YEAR}\.[0-9]{{2}}"),
    "%m.%Y": re.compile(rf"[0-9]{{1,2}}\.{_YEAR}"),
}
COUNTED = {  # microseconds of each, and what is 0
    "seconds": (1e6, "1970-01-01"),
    "milliseconds": (1e3, "1970-01-01"),
    "microseconds": (1.0, "1970-01-01"),
    "nanoseconds": (1e-3, "1970-01-01"),
    "excel": (86400e6, "1899-12-30"),
}
LIKELY = {  # what is counted, of dates from 1973 on or, in Excel, from 1954 to 2119
    "seconds": (1e8, 5e9),
    "milliseconds": (1e11, 5e12),
    "microseconds": (1e14, 5e15),
    "nanoseconds": (1e17, 5e18),
    "excel": (20000, 80000),
}
YEARS, NUMBER = "years", "number"  # decimal years; any number, which orders the rows and says no date
FORMS = (*COUNTED, YEARS, NUMBER)
MOST = 1000 * 365.25 * 86400e6  # microseconds that a date may be counted
MOST_SHAPES = 500
MOST_WAYS = 20  # to write dates in one column
MOST_CLOCKS = 86400  # in a column
NAMES_OF_DAYS = frozenset(["mon", "tue", "wed", "thu", "fri", "sat", "sun"])
NAMES_OF_MONTHS = frozenset(["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"])
ALIKE = 0.25  # paces that tell no form from another
SOME = 10  # rows whose order is no chance
BLOCK = 2**16

_CLOCK = re.compile(
    r"(?P<gap>[T_ ]|, ?|  +)(?P<hour>[0-9]{1,2})"
    r"(?:(?P<by>[:.h])(?P<minute>[0-9]{2})(?:(?P=by)(?P<second>[0-9]{2})(?:(?P<point>[.,])[0-9]{1,9})?)?)?"
    r"(?P<half> ?[AaPp][Mm])?(?P<zone> ?(?:Z|UTC|GMT|[+-][0-9]{2}:?[0-9]{2}))?$"
)
_COMPACT = re.compile(r"(?P<gap>[T_ ]|  +)(?:(?P<six>[0-9]{6})|[0-9]{4})(?P<zone>Z|[+-][0-9]{2}:?[0-9]{2})?$")
_CLOCK_ALONE = re.compile(
    r"(?:[01]?[0-9]|2[0-3])([:.])[0-5][0-9](?:\1[0-5][0-9](?:[.,][0-9]{1,9})?)?"
    r"(?: ?[AaPp][Mm])?(?:Z|[+-][0-9]{2}:?[0-9]{2})?"
    r"|(?:[01]?[0-9]|2[0-3])(?: ?[AaPp][Mm])?"
    r"|(?:[01][0-9]|2[0-3])[0-5][0-9](?:[0-5][0-9])?"
)
_SHAPE = bytes.maketrans(
    b"123456789ABCDEFGHIJKLMNOPQRSTUVWXYZbcdefghijklmnopqrstuvwxyz" + bytes(range(128, 256)), b"0" * 9 + b"a" * 179
)


class FormError(ValueError):
    """Texts are no dates: the first row that is none, and what was expected there."""

    def __init__(self, row: int, expected: str, some: bool = False):
        super().__init__(expected)
        self.row, self.expected, self.some = row, expected, some  # some: others are dates


class Dates(NamedTuple):
    """Texts as dates (N,), or as numbers that order the rows; and what is to be told of how they are written."""

    values: np.ndarray
    told: str = ""


@functools.lru_cache(1000)
def says(text: str) -> bool:
    """Tell whether a text is a date in one of the forms that are SPELLED."""
    return bool(_Groups(np.array([text.encode()])).fitting(SPELLED))


def is_clock(texts: np.ndarray, digits: bool) -> bool:
    """Tell whether all texts are times of a day; with `digits` they may be 1630 or hours."""
    known = set(texts[:BLOCK].tolist())
    if not 0 < len(known) <= MOST_CLOCKS or not all(_CLOCK_ALONE.fullmatch(_text(text)) for text in known):
        return False
    return digits or all(re.search("[:AaPp]", _text(text)) for text in known)


def _text(data: bytes) -> str:
    return data.decode(errors="replace")


def read(texts: np.ndarray, form: str | None = None, digits: bool = True) -> Dates:
    """Return texts (N,), bytes in UTF-8, as datetime64, those with a UTC offset in UTC, or raise a FormError.

    Recognised is what is SPELLED, with years of four digits, and, if `digits` alone may be a date, 20200131 and years;
    else `form` is strptime's, of whose %y the last hundred years are meant, or one of FORMS.
    """
    if form in FORMS:
        return Dates(_counted(texts, form), f"Its dates are counted in {form}." if form != NUMBER else "")
    if form is not None:
        return Dates(_as_told(texts, form), f"Its dates are written as {form}.")
    groups = _Groups(texts)
    forms = groups.fitting((*SPELLED, *DIGITS) if digits else SPELLED)
    found = {form: groups.parsed(form) for form in forms}
    whole = {form: values for form, values in found.items() if not np.isnat(values).any()}
    short = {} if found else groups.whole(SHORT)
    short = {form: values for form, values in short.items() if _in_order(values)}
    if len(short) == 1:
        ((form, values),) = short.items()
        return Dates(values, f"Its dates are written as {form}, the only way that has the rows in order.")
    if "%Y %m" in whole:
        whole.pop("%Y %j", None)  # a day of the year would go beyond 12
    if not found:
        raise FormError(0, "a date such as 2020-01-31")
    if not whole:
        row = max(int(np.isnat(values).argmax()) for values in found.values())
        raise FormError(row, f"a date written as {texts[0].decode(errors='replace')}", some=True)
    (form, first), *others = whole.items()
    differing = [values for _, values in others if (values != first).any()]
    if not differing:
        return Dates(first)
    ordered = {form: values for form, values in whole.items() if _in_order(values)}
    if len(ordered) == 1:
        ((form, values),) = ordered.items()
        return Dates(values, f"Its dates are written as {form}, the only way that has the rows in order.")
    raise FormError(int((differing[0] != first).argmax()), "a date that can be read in one way")


def guesses(texts: np.ndarray) -> list[str]:
    """Return what --date-format may be for a column of dates: the forms, of those that fit, that have an even pace."""
    groups = _Groups(texts)
    found = groups.whole((*SPELLED, *DIGITS, *GUESSED, *SHORT))
    found = {whole: values for form, values in found.items() if (whole := groups.one_form(form))}
    if any(form.startswith("%Y %m") for form in found):  # a day of the year would go beyond 12
        found = {form: values for form, values in found.items() if not form.startswith("%Y %j")}
    for form in (*COUNTED, YEARS):
        try:
            values = _floats(texts)
            low, high = LIKELY.get(form, (1000, 3000))
            if low <= values.min() and values.max() < high and (form != YEARS or (values % 1 != 0).any()):
                found[form] = _counted(texts, form)
        except FormError:
            continue
    distinct: dict[bytes, str] = {}
    for form, values in found.items():
        distinct.setdefault(values.astype("datetime64[us]").tobytes(), form)
    even = {form: evenness(found[form]) for form in distinct.values()}
    best = sorted(even, key=lambda form: -even[form])
    return [form for form in best if even[form] >= even[best[0]] - (0.05 if form in FORMS else ALIKE)]


def is_uniform(texts: np.ndarray) -> bool:
    """Tell whether texts are written in few ways, as dates are and what somebody counted, and no checksums."""
    return 0 < len(_Groups(texts).examples) <= MOST_WAYS


def orders(texts: np.ndarray) -> bool | None:
    """Tell whether texts are in the order of the numbers within them: True if in this order, False if in the other."""
    parts = [re.split(rb"([0-9]+)", text) for text in texts.tolist()]
    keys = [[int(part) if at % 2 else part for at, part in enumerate(split)] for split in parts]
    if not all(len(split) > 1 for split in parts):
        return None
    if all(a < b for a, b in pairwise(keys)):
        return True
    return False if all(a > b for a, b in pairwise(keys)) else None


class _Groups:
    """Texts by their shapes: how many digits, letters and marks follow one another."""

    def __init__(self, texts: np.ndarray):
        self.texts = texts
        codes: dict[bytes, int] = {}
        full: dict[bytes, int] = {}
        self.examples: list[str] = []
        self.codes = np.empty(len(texts), np.int16)
        for first in range(0, len(texts), BLOCK):
            block = texts[first : first + BLOCK].tolist()
            shapes = [text.translate(_SHAPE) for text in block]
            for shape, text in zip(shapes, block, strict=True):
                if shape not in full:
                    few = re.sub(rb"a+", b"a", re.sub(rb"(?<!0)00?(?!0)", b"1", shape))
                    if few not in codes:
                        codes[few] = len(codes)
                        self.examples.append(text.decode(errors="replace"))
                    full[shape] = codes[few]
            if len(full) > MOST_SHAPES:
                self.examples = []  # no dates have so many
                return
            self.codes[first : first + BLOCK] = [full[shape] for shape in shapes]

    def fitting(self, forms: Iterable[str]) -> list[str]:
        """Return the forms that the first text has."""
        return [form for form in forms if self.examples and _clock(form, self.examples[0]) is not None]

    def whole(self, forms: Iterable[str]) -> dict[str, np.ndarray]:
        """Return all texts as dates of each form that fits them all."""
        found = {form: self.parsed(form) for form in self.fitting(forms)}
        return {form: values for form, values in found.items() if not np.isnat(values).any()}

    def one_form(self, form: str) -> str | None:
        """Return strptime's form of all the whole texts, if it is one."""
        found = {_clock(form, example) for example in self.examples}
        clock = found.pop()
        return None if found or clock is None else form + clock

    def parsed(self, form: str) -> np.ndarray:
        """Return all texts as dates of a form and times behind them, NaT where one does not fit."""
        dates = np.full(len(self.texts), np.datetime64("NaT"), "datetime64[us]")
        zoned = set()
        for code, example in enumerate(self.examples):
            clock = _clock(form, example)
            if clock is None:
                continue
            rows = np.flatnonzero(self.codes == code)
            dates[rows] = _with_clock(self.texts[rows], form, clock)
            zoned.add(bool(re.search("%z|[A-Z]{3}$|Z$", clock)))
            if len(zoned) > 1:  # a time without its offset
                dates[rows] = np.datetime64("NaT")
        if form in DIGITS or form in GUESSED:
            years = dates.astype("datetime64[Y]").astype(int) + 1970
            dates[(years < 1000) | (years > 2999)] = np.datetime64("NaT")
        return dates


def _with_clock(texts: np.ndarray, form: str, clock: str) -> np.ndarray:
    """Return texts as dates of a form, with a time behind it: each day and each time of a day is read once."""
    if not clock or form == "%Y-%m-%d":  # which pandas reads at once
        return _strptime(texts, form + clock)
    gap, before = clock[: clock.index("%")].encode(), form.count(clock[: clock.index("%")])
    found = np.empty(len(texts), "datetime64[us]")
    known: tuple[dict[bytes, np.datetime64], ...] = ({}, {})
    for first in range(0, len(texts), BLOCK):
        pieces = [text.split(gap, before + 1) for text in texts[first : first + BLOCK].tolist()]
        parts = ([gap.join(piece[: before + 1]) for piece in pieces], [piece[-1] for piece in pieces])
        values = []
        for part, seen, written in zip(parts, known, (form, "%Y" + clock.removeprefix(gap.decode())), strict=True):
            new = [text for text in dict.fromkeys(part) if text not in seen]
            if new:
                year = b"" if written is form else b"1970"
                seen.update(zip(new, _strptime(np.array([year + text for text in new]), written), strict=True))
            values.append(np.array([seen[text] for text in part], "datetime64[us]"))
        found[first : first + BLOCK] = values[0] + (values[1] - np.datetime64("1970-01-01", "us"))
    return found


@functools.lru_cache(4096)
def _clock(form: str, text: str) -> str | None:
    """Return strptime's form of what is behind a date of this form in a text, or None if the text has no such date."""
    literals = re.sub("%[A-Za-z]", "", form)
    words = re.findall("[A-Za-z]{3,}", re.sub("UTC|GMT", "", text))
    if (
        not re.search("[0-9]", text)
        or any(mark not in text for mark in literals)
        or len(words) != len(re.findall("%[bBaA]", form))
    ):
        return None
    if form == "%Y-%j" and not re.match(f"{_YEAR}-[0-9]{{3}}(?![0-9])", text):
        return None
    if pattern := DIGITS.get(form) or GUESSED.get(form):
        date = re.match("[0-9.]+", text)
        if date is None or not pattern.fullmatch(date[0].rstrip(".")):
            return None
    for clock in _clocks(text, "%H" in form or not re.search("%[dju]", form)):
        if not np.isnat(_strptime(np.array([text.encode()]), form + clock)).any():
            return clock
    return None


def _clocks(text: str, alone: bool) -> list[str]:
    """Return how a time behind a date may be written in a text, none being the first."""
    found = [""]
    if not alone and (match := _CLOCK.search(text)):
        by = match["by"]
        form = f"%H{by}%M" if by else "%H"
        if match["second"]:
            form += f"{by}%S" + (f"{match['point']}%f" if match["point"] else "")
        if match["half"]:
            form = form.replace("%H", "%I") + match["half"][:-2] + "%p"
        found.append(match["gap"] + form + _zone(match["zone"]))
    if not alone and (match := _COMPACT.search(text)):
        found.append(match["gap"] + ("%H%M%S" if match["six"] else "%H%M") + _zone(match["zone"]))
    return found


def _zone(text: str | None) -> str:
    return (text or "") if not text or text.strip() in ("Z", "UTC", "GMT") else " " * text.startswith(" ") + "%z"


def _strptime(texts: np.ndarray, form: str) -> np.ndarray:
    """Return texts as datetime64[us], NaT where one has not this form; %q is the number of a quarter."""
    day = "" if re.search("%[uaAwj]", form) else " %u" if "%V" in form else " %w" if re.search("%[UW]", form) else ""
    whole = form.replace("%q", "%m") + day
    found = np.empty(len(texts), "datetime64[us]")
    for first in range(0, len(texts), BLOCK):
        block = [text.decode(errors="replace") for text in texts[first : first + BLOCK].tolist()]
        if "%q" in form:
            block = [re.sub("[Qq]([1-4])(?![0-9])", lambda q: f"Q{3 * int(q[1]) - 2:02}", text) for text in block]
        if day:
            block = [f"{text} 1" for text in block]
        dates = pd.to_datetime(block, format=whole, errors="coerce", utc=True)
        found[first : first + BLOCK] = dates.tz_localize(None).to_numpy().astype("datetime64[us]")
    if "%y" in form:
        ahead = found > np.datetime64("now")
        found[ahead] = (pd.DatetimeIndex(found[ahead]) - pd.DateOffset(years=100)).to_numpy()
    return found


def _as_told(texts: np.ndarray, form: str) -> np.ndarray:
    told = f"--date-format: expected one of strptime's with %Y, %y or %G, or {', '.join(FORMS)}; got {form!r}"
    if not re.search("%[YyG]", form):
        raise ChoiceError(told)
    try:
        found = _strptime(texts, form)
    except (ValueError, re.error):
        raise ChoiceError(told) from None
    groups = _Groups(texts)
    for code, example in enumerate(groups.examples):
        if not re.search("[0-9]", example):  # pandas knows what now is
            found[groups.codes == code] = np.datetime64("NaT")
    if np.isnat(found).any():
        raise FormError(int(np.isnat(found).argmax()), f"a date written as --date-format {form} says")
    return found


def _floats(texts: np.ndarray, form: str = NUMBER) -> np.ndarray:
    try:
        values = texts.astype(float)
    except ValueError:
        values = np.array([_float(text) for text in texts.tolist()])
    if not np.isfinite(values).all():
        expected = "a number" if form == NUMBER else f"a date in {form}"
        raise FormError(int(np.isfinite(values).argmin()), expected)
    return values


def _float(text: bytes) -> float:
    try:
        return float(text)
    except ValueError:
        return np.nan


def _counted(texts: np.ndarray, form: str) -> np.ndarray:
    values = _floats(texts, form)
    if form == NUMBER:
        return values
    if form == YEARS:
        fits = (values >= 1) & (values < 3000)
        years = np.where(fits, values, 1).astype(int)
        begins, ends = ((years + add - 1970).astype("datetime64[Y]").astype("datetime64[us]") for add in (0, 1))
        dates = begins + np.round((values % 1) * (ends - begins).astype(float)).astype("timedelta64[us]")
    else:
        unit, origin = COUNTED[form]
        fits = np.abs(values * unit) < MOST
        dates = np.datetime64(origin, "us") + np.round(np.where(fits, values * unit, 0)).astype("timedelta64[us]")
    if not fits.all():
        raise FormError(int(fits.argmin()), f"a date in {form}, less than a thousand years from its beginning")
    return dates


def _in_order(values: np.ndarray) -> bool:
    """Tell whether many values ascend all the way, or descend."""
    return len(values) >= SOME and bool((values[1:] > values[:-1]).all() or (values[1:] < values[:-1]).all())


def evenness(values: np.ndarray) -> float:
    """Return the share of the steps between values, as sorted, that are as long as most, if only by working days.

    It is less by a tenth where a step is far longer than most, as between dates of two centuries.
    """
    dates = np.unique(values)
    if len(dates) < 3:
        return 0.0
    steps = [np.diff(dates).astype(float)]
    days = dates.astype("datetime64[D]")
    if np.issubdtype(dates.dtype, np.datetime64) and (days == dates).all() and np.is_busday(days).all():
        steps.append(np.busday_count(days[:-1], days[1:]).astype(float))
    far = 0.1 * (steps[0].max() > 50 * np.median(steps[0]))
    return max(float((np.abs(step / np.median(step) - 1) < 0.12).mean()) for step in steps) - far
