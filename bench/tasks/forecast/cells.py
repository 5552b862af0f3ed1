"""What the texts in a table's cells say: numbers and dates.

A column can be read if all the ways that fit the whole of it agree, and is refused if none does or two differ: "1,234"
is 1234 beside "0.5" and 1.234 beside "0,5", 03/04/2020 is in April beside 30/04/2020, and alone they are neither.
"""

import functools
import math
import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from bench.grid.cases import ChoiceError

NOTHING = frozenset({"", "-", "--", "–", "—", "?", ".", "n/a", "#n/a", "na", "nan", "null", "none"})
POWERS = {"": 0, "K": 3, "M": 6, "B": 9, "T": 12}

_NUMBER = r"""(?P<sign>[+−-]?)(?P<currency>[$€£¥]?)
    (?:(?P<plain>[0-9]+(?:{mark}[0-9]*)?|{mark}[0-9]+)(?:[eE](?P<power>[+-]?[0-9]+))?
    |(?P<grouped>[1-9][0-9]{{0,2}}(?P<group>[{other}'’\u00a0\u202f])[0-9]{{3}}(?:(?P=group)[0-9]{{3}})*(?:{mark}[0-9]*)?))
    (?P<scale>[KMBT]?)(?:[\u0020\u00a0\u202f]?(?P<unit>[%$€£¥]))?"""
MARKS = {
    mark: re.compile(_NUMBER.format(mark=re.escape(mark), other=other), re.VERBOSE) for mark, other in (".,", ",.")
}

SPELLED = (
    *(form.replace("-", by) for by in "-/." for form in ("%Y-%m-%d", "%d-%m-%Y", "%m-%d-%Y")),
    *("%Y-%m", "%Y/%m", "%m/%Y"),
    *(
        form.replace("%b", month)
        for month in ("%b", "%B")
        for form in ("%d-%b-%Y", "%d %b %Y", "%b %d, %Y", "%b %d %Y", "%b-%Y", "%b %Y")
    ),
)
DIGITS = {"%Y%m%d": re.compile("[12][0-9]{7}"), "%Y": re.compile("[12][0-9]{3}")}  # might be numbers elsewhere
COUNTED = {"seconds": (1e6, "1970-01-01"), "milliseconds": (1e3, "1970-01-01"), "excel": (86400e6, "1899-12-30")}
MOST = 1000 * 365.25 * 86400e6  # microseconds that a date may be counted

_MOMENT = re.compile(
    r"(?P<date>.*?[0-9].*?)"
    r"(?:[T ]+(?P<hour>[0-9]{1,2}):(?P<minute>[0-9]{2})(?::(?P<second>[0-9]{2}(?:\.[0-9]{1,9})?))?"
    r" ?(?P<zone>Z|UTC|[+-][0-9]{2}:?[0-9]{2})?)?"
)


class MisfitError(ValueError):
    """A text that a column cannot hold: in which row and column, what was expected, and the option that helps."""

    def __init__(self, row: int, column: int, expected: str, way_out: str = ""):
        super().__init__(expected)
        self.row, self.column, self.expected, self.way_out = row, column, expected, way_out


def is_datum(text: str) -> bool:
    """Tell whether a text is a number or a date, and so no name; 1M and 10K are names."""
    number = any(mark.fullmatch(text) for mark in MARKS.values())
    return (number and not re.fullmatch("[0-9]+[KMBT]", text)) or is_date(text)


@functools.lru_cache(1000)
def is_date(text: str, form: str | None = None) -> bool:
    """Tell whether a text is a date of strptime's `form`, or else one that nobody would take for a number."""
    if form is not None:
        return form not in COUNTED and text != "" and not np.isnat(_as_told([text], form, strict=False)).any()
    number = any(mark.fullmatch(text) for mark in MARKS.values())
    return not number and re.search("[0-9]", text) is not None and bool(_fitting([text], SPELLED))


def numbers(columns: Sequence[Sequence[str]], decimal: str | None = None) -> np.ndarray:
    """Return columns of texts (F lists of N) as numbers (N, F), NaN for nothing, or raise a MisfitError.

    All have the same decimal mark: `decimal`, or the one that fits them all. Beside digits a number may have a sign,
    marks between thousands, an exponent or one of K, M, B and T, and, as all in its column, a currency or a %.
    """
    readings, misfits = [], []
    for mark in decimal or MARKS:
        try:
            readings.append(np.array([_numbers(texts, at, mark) for at, texts in enumerate(columns)]).T)
        except MisfitError as misfit:
            misfits.append(misfit)
    if not readings:
        raise max(misfits, key=lambda misfit: (misfit.column, misfit.row))
    for reading in readings[1:]:
        differs = np.argwhere((reading != readings[0]) & ~np.isnan(reading))
        if len(differs):
            row, column = map(int, differs[0])
            raise MisfitError(
                row, column, "a number that can be read in one way", "--decimal . or --decimal , tells which"
            )
    return readings[0]


def _numbers(texts: Sequence[str], column: int, mark: str) -> np.ndarray:
    values = np.full(len(texts), np.nan)
    units = None
    for row, text in enumerate(texts):
        if text.lower() in NOTHING:
            continue
        match = MARKS[mark].fullmatch(text)
        if match is None:
            other = any(pattern.fullmatch(text) for pattern in MARKS.values())
            raise MisfitError(row, column, "a number", "--decimal names the decimal mark" if other else "")
        unit = (match["currency"], match["unit"] or "")
        if unit != (units := units or unit):
            raise MisfitError(row, column, f"a number with {''.join(units) or 'no unit'} as in the rows before it")
        digits = match["plain"] or match["grouped"].replace(match["group"], "")
        power = int(match["power"] or 0) + POWERS[match["scale"]] - 2 * ("%" in unit)
        sign = match["sign"].replace("−", "-")
        values[row] = float(f"{sign}{digits.replace(mark, '.')}e{power}")
        if not math.isfinite(values[row]):
            raise MisfitError(row, column, "a number that float64 can hold")
    return values


def dates(texts: Sequence[str], form: str | None = None, digits: bool = True) -> np.ndarray:
    """Return texts (N,) as datetime64, those with a UTC offset in UTC, or raise a MisfitError.

    Recognised are ISO's dates, with a time or without; with / and . for its -; day and month in either order where a
    day above 12 tells which; English names of months; and, if `digits` alone may be a date, 20200131 and years.
    Years have four digits. Else `form` is strptime's, of whose %y the last hundred years are meant, or one of COUNTED.
    """
    if form in COUNTED:
        return _counted(texts, form)
    if form is not None:
        return _as_told(texts, form)
    readings = _fitting(texts[:1], (*SPELLED, *DIGITS) if digits else SPELLED)
    if not readings:
        raise MisfitError(0, 0, "a date such as 2020-01-31")
    found = {form: _parsed(texts, form) for form in readings}
    whole = [form for form, values in found.items() if not np.isnat(values).any()]
    if not whole:
        row = max(int(np.isnat(values).argmax()) for values in found.values())
        raise MisfitError(row, 0, f"a date written as {texts[0]}")
    first, *others = (found[form] for form in whole)
    for values in others:
        if (values != first).any():
            row = int((values != first).argmax())
            told = " or ".join(f"--date-format {form}" for form in whole)
            raise MisfitError(row, 0, "a date that can be read in one way", f"{told} tells which")
    return first


def _fitting(texts: Sequence[str], forms: Sequence[str]) -> list[str]:
    return [form for form in forms if not np.isnat(_parsed(texts, form)).any()]


def _parsed(texts: Sequence[str], form: str) -> np.ndarray:
    """Return texts as dates of a form and times behind them, NaT where one does not fit."""
    moments = [_moment(text, form) for text in texts]
    zone = "%z" if moments and moments[0] and re.search("Z|[+-][0-9:]+$", moments[0]) else ""
    return _strptime(moments, f"{form} %H:%M:%S.%f{zone}")


def _moment(text: str, form: str) -> str | None:
    """Return a date with the whole of a time behind it, or None if the text is none."""
    match = _MOMENT.fullmatch(text)
    if match is None or (form in DIGITS and not DIGITS[form].fullmatch(match["date"])):
        return None
    second = match["second"] or "0"
    zone = (match["zone"] or "").replace("UTC", "Z")
    return f"{match['date']} {match['hour'] or 0}:{match['minute'] or 0}:{second}{'' if '.' in second else '.0'}{zone}"


def _strptime(texts: Sequence[str | None], form: str) -> np.ndarray:
    found = pd.to_datetime(pd.Series(texts, dtype=object), format=form, errors="coerce", utc=True)
    return np.array(found.dt.tz_localize(None))


def _as_told(texts: Sequence[str], form: str, strict: bool = True) -> np.ndarray:
    told = f"--date-format: expected one of strptime's with %Y or %y, or {', '.join(COUNTED)}; got {form!r}"
    if not re.search("%[YyG]", form):
        raise ChoiceError(told)
    try:
        found = _strptime([text if re.search("[0-9]", text) else None for text in texts], form)
    except ValueError as error:
        raise ChoiceError(f"{told}: {error}") from None
    if strict and np.isnat(found).any():
        raise MisfitError(int(np.isnat(found).argmax()), 0, f"a date written as --date-format {form} says")
    if "%y" in form:
        ahead = found > np.datetime64("now")
        found[ahead] = (pd.DatetimeIndex(found[ahead]) - pd.DateOffset(years=100)).to_numpy()
    return found


def _counted(texts: Sequence[str], form: str) -> np.ndarray:
    unit, origin = COUNTED[form]
    microseconds = numbers([texts], ".")[:, 0] * unit
    fits = np.abs(microseconds) < MOST
    if not fits.all():
        raise MisfitError(int(fits.argmin()), 0, f"a date in {form}, less than a thousand years from its beginning")
    return np.datetime64(origin, "us") + np.round(microseconds).astype("timedelta64[us]")
