"""Tables as people keep them, drawn at random: random walks, written in somebody's way, with what they truly hold."""

import csv
import io
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from tests.drawn import columns
from tests.drawn.columns import Draw, Row
from tests.drawn.dates import FORMS, FREQUENCIES, MOST_ROWS, NAMES, Form

SHARES = {  # of the kinds of forms
    "days": 0.34,
    "moments": 0.16,
    "zoned": 0.08,
    "counted": 0.1,
    "periods": 0.14,
    "columns": 0.15,
    "beyond": 0.03,
}
TARGETS = ("value", "v", "Temp (°C)", "PM2.5", "Passengers", "OT", "close", "OBS_VALUE", "Zürich", "y", "x y", "Kurs")
TOTALS = ("Total", "Sum", "Average", "Summe", "Grand Total", "Mean", "TOTAL:", "Gesamt", "Durchschnitt", "合计")
TITLES = ("My prices", "Source: Bundesbank", "Station: Berlin; Germany", "Station: Berlin, Germany", "Report|2020\tall")
UNITS = ("degC", "USD", "°C", "m/s", "(mm)", "W m-2", "float", "EUR/MWh", "%")


class Series(NamedTuple):
    """What one key's rows truly hold, the earliest first, without those that hold nothing."""

    rows: list[Row]  # as they are written
    levels: dict[str, np.ndarray]  # of each column of numbers
    begins: np.ndarray | None  # (N,) datetime64[us] that the dates say, if there are any
    ends: np.ndarray | None  # (N,) up to where they may be read: a week, a month ...


class Drawn(NamedTuple):
    """A table, and what its owner knows of it."""

    data: bytes
    command: tuple[str, ...]  # `series` or `stocks` and its column
    target: str
    series: list[Series]  # one for each key
    keys: tuple[str, ...]  # columns that tell the series apart
    dated: tuple[str, ...]  # columns that say when
    known: dict[str, list[str]]  # the values of options, none where no option says it
    readable: bool  # an owner can have it read by options
    features: tuple[str, ...]


class Plan(NamedTuple):
    """What a table is made of."""

    numbers: dict[str, str]  # columns, the target first, and the kinds of their walks
    keys: list[Row]  # of each series
    form: Form
    dates: list[datetime]  # of every series, none in a table without
    names: tuple[str, ...]  # of the columns that hold them
    others: dict[str, str]  # what else stands there, by column
    missing: tuple[str, float] | None
    separator: str
    decimal: str
    thousands: str


def draw_table(seed: int) -> Drawn:
    """Return the table that follows from a seed."""
    draw = Draw(seed)
    if draw.chance(0.15):
        command: tuple[str, ...] = ("stocks",)
        numbers = _stocks(draw)
    else:
        kind = draw.one("prices", "prices", *columns.DIGITS)
        numbers = {draw.one(*TARGETS): kind}
        draw.tell(f"numbers: {kind}")
        command = ("series", "--column", *numbers)
    draw.tell(f"command: {command[0]}")
    plan = _plan(draw, numbers)
    found = [_series(draw, plan, key, at) for at, key in enumerate(plan.keys)]
    order = [*plan.names, *plan.keys[0], *numbers, *plan.others]
    if draw.odd(0.4):
        draw.tell("columns: anywhere")
        order = [order[at] for at in draw.rng.permutation(len(order))]
    body = _laid(draw, [rows for rows, _ in found], bool(plan.names))
    data, skipped = _file(draw, plan, order, body)
    target = next(iter(numbers))
    known = {
        "--date-column": [",".join(plan.names)] if plan.names else [],
        "--date-format": [plan.form.told] if plan.names and plan.form.told else [],
        "--missing": [plan.missing[0]] if plan.missing else [],
        "--skip-rows": [",".join(map(str, skipped))] if skipped else [],
        "--without": [",".join(plan.others)] if plan.others else [],
        "--separator": ["tab" if plan.separator == "\t" else plan.separator],
        "--decimal": [plan.decimal],
        "--column": [target],
        "--target": [target],
    }
    series, keys = [one for _, one in found], tuple(plan.keys[0])
    return Drawn(data, command, target, series, keys, plan.names, known, draw.readable, tuple(draw.features))


def _stocks(draw: Draw) -> dict[str, str]:
    names = [draw.one("close", "Close", "Price", "CLOSE")]
    if draw.chance(0.7):
        names += [draw.one("Open", "open"), draw.one("High", "high"), draw.one("low", "Low")]
    if draw.chance(0.5):
        names.append(draw.one("Volume", "vol", "Vol."))
    return {name: "large" if name.lower().startswith("vol") else "prices" for name in names}


def _plan(draw: Draw, numbers: dict[str, str]) -> Plan:
    keys = columns.keys(draw) if draw.odd(0.35) else [{}]
    kind = str(draw.rng.choice(list(SHARES), p=list(SHARES.values())))
    form = FORMS[kind][draw.rng.integers(len(FORMS[kind]))]
    pace = draw.one(*form.paces)
    n = int(draw.rng.integers(300, 801))
    n = min(n if len(keys) == 1 else max(150, n // len(keys)), MOST_ROWS.get(pace, n))
    names: tuple[str, ...] = ()
    dates: list[datetime] = []
    taken = {*numbers, *(name for key in keys for name in key)}
    if draw.chance(0.85):
        names, dates = _date_names(draw, form, taken), _dates(draw, n, pace, form)
        draw.readable = form.standard
        draw.tell(f"form: {'|'.join(form.write(datetime(2016, 2, 5, 16)))}", f"pace: {pace}", f"dates: {kind}")
        draw.tell(f"name: {','.join(names)}")
    else:
        draw.tell("dates: none")
    marks = columns.marks(draw, set(numbers.values()))
    others = columns.others(draw, taken | set(names), bool(names))
    if not names and {"text", "flag"} & set(others.values()):
        draw.readable = False  # nothing tells it from a key
    missing = columns.sentinel(draw, set(numbers.values()), marks[1])
    return Plan(numbers, keys, form, dates or [datetime.min] * n, names, others, missing, *marks)


def _date_names(draw: Draw, form: Form, taken: set[str]) -> tuple[str, ...]:
    lower = {name.casefold() for name in (*taken, *form.names)}
    free = [name for name in NAMES if name.casefold() not in lower or not name]
    return tuple(name or draw.one(*free) for name in form.names)


def _dates(draw: Draw, n: int, pace: str, form: Form) -> list[datetime]:
    """Return dates at a pace, or some of twice as many."""
    low, high = {"yearly": (1690, 1700), "quarterly": (1900, 1920), "monthly": (1930, 1950)}.get(pace, (1985, 2018))
    told = form.told or ""
    low = max(low, 1931 if "%y" in told else 1905 if told == "excel" else low)
    begin = datetime(int(draw.rng.integers(low, max(high, low + 1))), 1, 1)
    begin += timedelta(days=int(draw.rng.integers(0, 365)))
    found = pd.date_range(begin, periods=n + n // 10, freq=FREQUENCIES[pace])
    if "%y" in told and found[-1].year > 2024:
        found = pd.date_range(end="2024-12-20", periods=n + n // 10, freq=FREQUENCIES[pace])
    if draw.odd(0.4):
        draw.tell("dates: gaps")
        found = found[np.sort(draw.rng.choice(len(found), n, replace=False))]
    return found[:n].to_pydatetime().tolist()


def _end(begin: datetime, unit: str) -> datetime:
    """Return up to when a date may be read."""
    day = datetime(begin.year, begin.month, begin.day)
    if unit in ("day", "week"):
        return day + timedelta(days=1 if unit == "day" else 7)
    months = {"month": 1, "quarter": 3, "year": 12}.get(unit)
    if months is None:
        return begin + timedelta(seconds=1)
    whole = begin.year * 12 + begin.month - 1 + months
    return datetime(whole // 12, whole % 12 + 1, 1)


def _series(draw: Draw, plan: Plan, key: Row, number: int) -> tuple[list[Row], Series]:
    """Return the rows of one key, the earliest first, and what they hold."""
    n = len(plan.dates)
    walks = {name: columns.walk(draw, n, kind) for name, kind in plan.numbers.items()}
    dated = bool(plan.names)
    rows = []
    for at, date in enumerate(plan.dates):
        row = dict(zip(plan.names, plan.form.write(date), strict=True)) if dated else {}
        row |= key
        for name, kind in plan.numbers.items():
            row[name] = columns.written(walks[name][at], kind, plan.decimal, plan.thousands)
        row |= {name: columns.other(draw, what, at, date if dated else None) for name, what in plan.others.items()}
        rows.append(row)
    kept = np.ones(n, bool)
    if plan.missing:
        text, share = plan.missing
        kept[draw.rng.choice(n, max(1, round(share * n)), replace=False)] = False
        for at in np.flatnonzero(~kept).tolist():
            rows[at] |= dict.fromkeys(plan.numbers, text)
    levels = {name: columns.true(walks[name], kind)[kept] for name, kind in plan.numbers.items()}
    begins = ends = None
    if dated:
        unit = "day" if "clock" in plan.others.values() and not plan.form.unit else plan.form.unit
        begins = np.array(plan.dates, "datetime64[us]")[kept]
        if unit == "day":
            begins = begins.astype("datetime64[D]").astype("datetime64[us]")
        elif not unit:  # counted in days, a moment is rounded
            begins -= np.timedelta64(100, "ms")
        ends = np.array([_end(date, unit) for date in plan.dates], "datetime64[us]")[kept]
    return rows, Series([rows[at] for at in np.flatnonzero(kept).tolist()], levels, begins, ends)


def _laid(draw: Draw, series: list[list[Row]], dated: bool) -> list[Row]:
    """Return the rows of all keys as they lie."""
    turns = draw.chance(0.5)
    lay = draw.one("newest first", "newest first", "oldest first", "shuffled") if dated else "oldest first"
    rows = [row for together in (zip(*series, strict=True) if turns else series) for row in together]
    if lay == "newest first":
        rows = rows[::-1]
    elif lay == "shuffled":
        rows = [rows[at] for at in draw.rng.permutation(len(rows))]
    draw.tell(f"lay: {lay}")
    if len(series) > 1:
        draw.tell(f"long: {'in turns' if turns else 'in blocks'}{'' if dated else ', undated'}")
    return rows


def _rows_of_no_data(draw: Draw, plan: Plan, order: list[str], body: list[Row]) -> set[int]:
    """Put totals, a header that comes again, rows that come again between the rows; return which are no data."""
    rows = list(map(id, body))
    if draw.odd(0.15) and len(order) > len(plan.numbers):
        where = draw.one("first", "last", "none")
        label, total = draw.one(*TOTALS), dict.fromkeys(order, "")
        for name, kind in plan.numbers.items():
            total[name] = columns.written(draw.rng.uniform(9, 11) * len(body), kind, plan.decimal, "")
        if where != "none":
            total[[name for name in order if name not in plan.numbers][0 if where == "first" else -1]] = label
        body.append(total)
        draw.tell("no data: total", f"no data: total, label {where}")
    if draw.odd(0.03):
        body.insert(int(draw.rng.integers(1, len(body))), {name: name for name in order})
        draw.tell("no data: header again")
    if plan.names and draw.odd(0.03):
        at = int(draw.rng.integers(1, len(rows) - 3))
        body[at:at] = [dict(row) for row in body[at : at + 2]]
        draw.tell("no data: rows twice")
    known = set(rows)
    return {at for at, row in enumerate(body) if id(row) not in known}


def _file(draw: Draw, plan: Plan, order: list[str], body: list[Row]) -> tuple[bytes, list[int]]:
    """Return the file, and the lines of it that are no data."""
    no_data = _rows_of_no_data(draw, plan, order, body)
    quoted = draw.odd(0.25)
    ending = draw.one("\n", "\n", "\r\n")
    lines: list[str] = []
    skipped: list[int] = []

    def put(fields: list[str], skip: bool = False) -> None:
        out = io.StringIO()
        kind: Any = csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL
        csv.writer(out, delimiter=plan.separator, quoting=kind, lineterminator="").writerow(fields)
        put_line(out.getvalue(), skip)

    def put_line(line: str, skip: bool = True) -> None:
        lines.append(line)
        if skip:
            skipped.append(len(lines))

    if draw.odd(0.15):
        for title in draw.rng.permutation(TITLES)[: draw.rng.integers(1, 3)].tolist():
            put_line(title)
        draw.tell("file: titles")
    if draw.odd(0.08):
        put_line("# made by hand; 2020, all of it")
        draw.tell("file: comments")
    put(order)
    if len(order) > 1 and draw.odd(0.1):  # else as a title is
        for _ in range(draw.one(1, 1, 2)):
            unit, first = draw.one(*UNITS), draw.one("", "-", "UTC", "TS", "yyyy-mm-dd", "datetime64")
            put([unit if name in plan.numbers else first for name in order], skip=True)
        draw.tell("file: units")
    for at, row in enumerate(body):
        put([row[name] for name in order], skip=at in no_data)
    if draw.odd(0.03):
        put_line("Source: somebody")
        draw.tell("file: a note at the end")
    encoding = draw.one("utf-8", "utf-8", "utf-8-sig")
    draw.tell(f"file: {encoding}", f"file: {ending!r}", f"file: {'all' if quoted else 'few'} quoted")
    return (ending.join(lines) + ending).encode(encoding), skipped
