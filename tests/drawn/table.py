"""Tables as people keep them, drawn at random: random walks, written in somebody's way, with what they truly hold."""

import csv
import io
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import NamedTuple

import numpy as np
import pandas as pd

from tests.drawn.dates import FORMS, FREQUENCIES, MOST_ROWS, NAMES, Form

Row = dict[str, str]
UNITS = {"week": 7, "day": 1}


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
    date_names: tuple[str, ...]  # of the columns that say when
    known: dict[str, list[str]]  # the values of options, none where no option says it
    readable: bool  # an owner can have it read by options
    features: tuple[str, ...]


class _Draw:
    """One draw: every choice follows from its own numbers."""

    def __init__(self, seed: int):
        self.rng = np.random.default_rng(seed)
        self.features: list[str] = []
        self.readable = True
        self.plain = self.chance(0.4)  # one in three of what is odd stays

    def one(self, *choices):
        return choices[self.rng.integers(len(choices))]

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def odd(self, share: float) -> bool:
        """Tell whether something odd is to be in the table."""
        return self.chance(share / 3 if self.plain else share)

    def tell(self, *features: str) -> None:
        self.features += features


# Numbers


def _walk(draw: _Draw, n: int, kind: str) -> np.ndarray:
    steps = draw.rng.normal(size=n).cumsum()
    steps -= steps.min()
    match kind:
        case "around zero":
            return np.round(2 * (steps - steps.mean())) / 2
        case "whole":
            return np.round(3 * (steps - steps.mean()))
        case "large":
            return 1e6 + 3e4 * steps
        case "small":
            return 0.01 + 1e-3 * steps
        case "fractions":
            return 40 + steps
        case "thousands":
            return 1000 + 120 * steps
        case _:
            return 100 * np.exp(0.01 * draw.rng.normal(size=n).cumsum())


DIGITS = {"around zero": 1, "whole": 0, "large": 0, "small": 5, "fractions": 3, "thousands": 2, "prices": 2}


def _written(value: float, digits: int, decimal: str, thousands: str) -> str:
    text = f"{value:,.{digits}f}" if thousands else f"{value:.{digits}f}"
    return text.replace(",", "\0").replace(".", decimal).replace("\0", thousands)


# Dates


def _dates(draw: _Draw, n: int, pace: str, form: Form) -> list[datetime]:
    first = draw.rng.integers(*{"yearly": (1690, 1700), "quarterly": (1900, 1920)}.get(pace, (1985, 2018)))
    if pace == "monthly":
        first = draw.rng.integers(1930, 1950)
    if form.told and "%y" in form.told:
        first = max(first, 1931)
    if form.told in ("excel", "seconds", "milliseconds", "microseconds") and pace in ("monthly", "quarterly"):
        first = max(first, 1905 if form.told == "excel" else 1930)
    begin = datetime(int(first), 1, 1) + timedelta(days=int(draw.rng.integers(0, 365)))
    found = pd.date_range(begin, periods=n + n // 10, freq=FREQUENCIES[pace])
    if form.told and "%y" in form.told and found[-1].year > 2024:
        found = pd.date_range(end="2024-12-20", periods=n + n // 10, freq=FREQUENCIES[pace])
    found = found.to_pydatetime().tolist()
    if draw.chance(0.3):
        draw.tell("dates: gaps")
        kept = np.sort(draw.rng.choice(len(found), n, replace=False))
        found = [found[at] for at in kept]
    return found[:n]


def _end(begin: datetime, unit: str) -> datetime:
    if unit in UNITS:
        return datetime(begin.year, begin.month, begin.day) + timedelta(days=UNITS[unit])
    months = {"month": 1, "quarter": 3, "year": 12}.get(unit)
    if months is None:
        return begin + timedelta(seconds=1)
    whole = begin.year * 12 + begin.month - 1 + months
    return datetime(whole // 12, whole % 12 + 1, 1)


def _form(draw: _Draw) -> tuple[str, Form]:
    kinds = ("days", "moments", "zoned", "counted", "periods", "columns", "beyond")
    kind = str(draw.rng.choice(kinds, p=(0.34, 0.16, 0.08, 0.1, 0.14, 0.15, 0.03)))
    forms = FORMS[kind]
    return kind, forms[draw.rng.integers(len(forms))]


# What stands beside

OTHERS: dict[str, Callable] = {
    "constant": lambda draw, at, n: "USD",
    "constant number": lambda draw, at, n: "1",
    "noise": lambda draw, at, n: f"{draw.rng.normal():.3f}",
    "whole noise": lambda draw, at, n: str(draw.rng.integers(0, 100)),
    "flag": lambda draw, at, n: str(draw.rng.integers(0, 2)),
    "notes": lambda draw, at, n: "checked, again" if draw.rng.random() < 0.02 else "",
    "text": lambda draw, at, n: draw.one("N", "NW", "cv", "SE"),
    "row id": lambda draw, at, n: str(at),
    "hash": lambda draw, at, n: f"{draw.rng.integers(2**32):08x}",
    "empty": lambda draw, at, n: "",
    "rising": lambda draw, at, n: f"{10 + at * 0.5:.1f}",
}
OTHER_NAMES = {
    "constant": ("currency", "unit", "symbol", "STATION"),
    "constant number": ("version", "qc", "No."),
    "noise": ("noise", "humidity", "v2", "Change %"),
    "whole noise": ("count", "DEWP", "points"),
    "flag": ("holiday", "flag", "Is Open"),
    "notes": ("notes", "Bemerkung", "comment"),
    "text": ("wind", "cbwd", "quality"),
    "row id": ("id", "No", "Unnamed: 9", "rank"),
    "hash": ("uuid", "hash"),
    "empty": ("spare", "reserved"),
    "rising": ("cumulative", "battery"),
}

SENTINELS = ("-9", "-99", "-999", "-9999", "-200", "9999", "1e20", "-999.0", "-9999.00", "-99.9", "99999", "-1e34")
TEXTS = (
    *("***", "unavailable", "ND", r"\N", "#DIV/0!", "missing", "closed", "#REF!", "(null)", "M", "no data", "x", "Err"),
    *("n.a.", "NA", "", "nan", "--", "."),
)
KEYS = {
    "ticker": ("AAA", "BBB", "C.C", "BRK B", "D'D"),
    "store": ("1", "2", "3", "4", "5"),
    "country": ("Österreich", "Chile", "Côte d'Ivoire", "Korea, South", "日本"),
    "sensor_id": ("1001", "1002", "1017", "1020", "2001"),
    "unique_id": ("H1", "H2", "H3", "H4", "H5"),
    "Stock Code": ("0700", "0005", "0011", "0939", "1299"),
    "asset": ("BTC-USD", "ETH-USD", "X=Y", "$SPX", "a|b"),
    "series": ("OPEN", "NaN", "-", "N/A", "total"),
}
ITEMS = {"item": ("Milk", "Bread"), "sector": ("private", "public"), "dept": ("1", "2")}
TOTALS = ("Total", "Sum", "Average", "Summe", "Grand Total", "Mean", "TOTAL:", "Gesamt", "Durchschnitt", "合计")
TITLES = ("My prices", "Source: Bundesbank", "Station: Berlin; Germany", "Station: Berlin, Germany", "Report|2020\tall")
UNIT_ROWS = ("degC", "USD", "°C", "m/s", "(mm)", "W m-2", "float", "EUR/MWh", "%")


def draw_table(seed: int) -> Drawn:
    """Return the table that follows from a seed."""
    draw = _Draw(seed)
    return (_stocks if draw.chance(0.15) else _series)(draw)


def _series(draw: _Draw) -> Drawn:
    kind = draw.one("prices", "prices", "around zero", "whole", "large", "small", "fractions", "thousands")
    target = draw.one("value", "v", "Temp (°C)", "PM2.5", "Passengers", "OT", "close", "OBS_VALUE", "Zürich", "y", "x y")
    draw.tell("command: series", f"numbers: {kind}")
    return _table(draw, ("series", "--column", target), target, {target: kind})


def _stocks(draw: _Draw) -> Drawn:
    close = draw.one("close", "Close", "Price", "CLOSE")
    names = [close]
    if draw.chance(0.7):
        names += [draw.one("Open", "open"), draw.one("High", "high"), draw.one("low", "Low")]
    draw.tell("command: stocks")
    columns = dict.fromkeys(names, "prices")
    if draw.chance(0.5):
        columns[draw.one("Volume", "vol", "Vol.")] = "large"
    return _table(draw, ("stocks",), close, columns)


def _table(draw: _Draw, command: tuple[str, ...], target: str, columns: dict[str, str]) -> Drawn:
    keyed = draw.odd(0.3)
    dated = draw.chance(0.85)
    key_rows = _keys(draw, set(columns)) if keyed else [{}]
    total = int(draw.rng.integers(300, 801))
    n = total if len(key_rows) == 1 else max(150, total // len(key_rows))
    kind, form = _form(draw)
    pace = draw.one(*form.paces)
    n = min(n, MOST_ROWS.get(pace, n))
    decimal, thousands, separator = _marks(draw, set(columns.values()))
    taken = {*columns, *(name for row in key_rows for name in row)}
    names = _date_names(draw, form, taken) if dated else ()
    taken |= set(names)
    if not dated:
        draw.tell("dates: none")
    others = _others(draw, taken, names)
    missing = _sentinel(draw, columns, decimal)

    dates = _dates(draw, n, pace, form) if dated else []
    if dated:
        draw.tell(f"form: {'|'.join(form.write(datetime(2016, 2, 5, 16)))}", f"pace: {pace}", f"dates: {kind}")
        draw.tell(f"name: {','.join(names)}")
        draw.readable &= form.standard
    series = []
    cells: list[list[Row]] = []  # of each key, the earliest first, with those of nothing
    for keys in key_rows:
        values = {name: _walk(draw, n, column) for name, column in columns.items()}
        rows = []
        for at in range(n):
            row = dict(zip(names, form.write(dates[at]), strict=True)) if dated else {}
            row |= keys
            for name, column in columns.items():
                row[name] = _written(values[name][at], DIGITS[column], decimal, thousands)
            row |= {name: _other(draw, what, at, n, dates) for name, what in others.items()}
            rows.append(row)
        levels = {
            name: np.array([float(f"{value:.{DIGITS[column]}f}") for value in values[name]])
            for name, column in columns.items()
        }
        kept = np.ones(n, bool)
        if missing:
            text, share = missing
            for at in draw.rng.choice(n, max(1, round(share * n)), replace=False):
                kept[at] = False
                for name in columns:
                    rows[at][name] = text
        whole = [at for at in range(n) if kept[at]]
        begins = np.array(dates, "datetime64[us]")[whole] if dated else None
        ends = np.array([_end(date, form.unit) for date in dates], "datetime64[us]")[whole] if dated else None
        if dated and form.unit:
            begins = begins.astype("datetime64[D]").astype("datetime64[us]") if form.unit == "day" else begins
        if "clock" in others.values() and dated:
            ends = begins + np.timedelta64(1, "D")
        chosen = {name: column[whole] for name, column in levels.items()}
        series.append(Series([rows[at] for at in whole], chosen, begins, ends))
        cells.append(rows)
    order = [*names, *key_rows[0], *columns, *others]
    if draw.chance(0.3):
        draw.tell("columns: anywhere")
        order = [order[at] for at in draw.rng.permutation(len(order))]
    body = _laid(draw, cells, dated)
    return _write(draw, command, target, series, order, body, names, form, key_rows, separator, decimal, missing, others)


def _keys(draw: _Draw, taken: set[str]) -> list[Row]:
    name = draw.one(*KEYS)
    count = int(draw.rng.integers(2, 6))
    found = [{name: text} for text in draw.rng.permutation(KEYS[name])[:count].tolist()]
    draw.tell(f"long: {name}", f"long: {count} keys")
    if draw.odd(0.15):
        draw.tell("long: two columns of keys")
        other = draw.one(*ITEMS)
        found = [key | {other: text} for key in found[:2] for text in ITEMS[other]]
    elif draw.chance(0.1):
        draw.tell("long: a key by two names")
        found = [key | {"full name": f"The {text} Company"} for key in found for text in key.values()]
    return found


def _marks(draw: _Draw, kinds: set[str]) -> tuple[str, str, str]:
    separator = draw.one(",", ",", ",", ";", ";", "\t", "|")
    decimal = draw.one(".", ",") if separator != "," or draw.chance(0.1) else "."
    thousands = ""
    if kinds & {"thousands", "large"} and draw.chance(0.4):
        thousands = draw.one("." if decimal == "," else ",", "'", "\u00a0", "\u202f")
    draw.tell(f"separator: {separator!r}", f"decimal: {decimal}", f"thousands: {thousands!r}")
    return decimal, thousands, separator


def _date_names(draw: _Draw, form: Form, taken: set[str]) -> tuple[str, ...]:
    lower = {name.casefold() for name in taken}
    free = [name for name in NAMES if name.casefold() not in lower | {other.casefold() for other in form.names}]
    found = []
    for name in form.names:
        found.append(name or draw.one(*free))
    return tuple(found)


def _others(draw: _Draw, taken: set[str], dates: tuple[str, ...]) -> dict[str, str]:
    """Return what other columns hold, by name."""
    found: dict[str, str] = {}
    for what in draw.rng.permutation(list(OTHERS))[: draw.rng.choice([0, 0, 1, 2, 4])]:
        found[draw.one(*OTHER_NAMES[what])] = str(what)
    for what, name, share in (
        ("another walk", "Adj Close", 0.1),
        ("year", "yr", 0.06),
        ("weekday", "weekday", 0.06),
        ("month number", "mnth", 0.05),
        ("updated", "updated", 0.05),
        ("settled", "Settlement", 0.04),
        ("clock", "session", 0.03),
    ):
        if draw.odd(share) and (dates or what == "another walk"):
            found[name] = what
    draw.tell(*(f"other: {what}" for what in found.values()))
    return {name: what for name, what in found.items() if name.casefold() not in {one.casefold() for one in taken}}


def _other(draw: _Draw, what: str, at: int, n: int, dates: list[datetime]) -> str:
    match what:
        case "another walk":
            return f"{50 + 0.01 * at + draw.rng.normal():.2f}"
        case "year":
            return str(dates[at].year)
        case "weekday":
            return f"{dates[at]:%a}"
        case "month number":
            return str(dates[at].month)
        case "updated":
            return "2024-03-01"
        case "settled":
            return f"{dates[at] + timedelta(days=2):%Y-%m-%d}"
        case "clock":
            return "16:00"
    return OTHERS[what](draw, at, n)


def _sentinel(draw: _Draw, columns: dict[str, str], decimal: str) -> tuple[str, float] | None:
    """Return what a cell of nothing holds, far from what the walks may hold, and the share of such cells."""
    if not draw.odd(0.4):
        return None
    text = draw.one(*SENTINELS) if draw.chance(0.6) else draw.one(*TEXTS)
    try:
        value = float(text)
    except ValueError:
        value = None
    if value is not None and value == value:
        kinds = set(columns.values())
        if kinds & {"large", "thousands"} and 0 < value < 1e10:
            text = "-999"
        if kinds & {"around zero", "whole"} and abs(value) < 300:
            text = "-9999"
        text = text.replace(".", decimal)
    share = float(0.003 * (0.1 / 0.003) ** draw.rng.random())
    draw.tell(f"missing: {text!r}", f"missing: {'a number' if value == value and value is not None else 'a text'}")
    return text, share


def _laid(draw: _Draw, cells: list[list[Row]], dated: bool) -> list[Row]:
    """Return the rows as they lie."""
    turns = draw.chance(0.5)
    lay = draw.one("newest first", "newest first", "oldest first", "shuffled") if dated else "oldest first"
    rows = [row for together in zip(*cells, strict=True) for row in together] if turns else sum(cells, [])
    if lay == "newest first":
        rows = rows[::-1]
    elif lay == "shuffled":
        rows = [rows[at] for at in draw.rng.permutation(len(rows))]
    draw.tell(f"lay: {lay}")
    if len(cells) > 1:
        draw.tell(f"long: {'in turns' if turns else 'in blocks'}{'' if dated else ', undated'}")
    return rows


# The file


def _rows_of_no_data(draw: _Draw, body: list[Row], order: list[str], columns: set[str], decimal: str) -> list[int]:
    """Put totals, headers that come again and the like between the rows; return where they are."""
    found = []
    numbers = {name: [row[name] for row in body] for name in columns}
    if draw.odd(0.15):
        label, at = draw.one(*TOTALS), draw.one("first", "text", "none")
        place = next((name for name in order if name not in columns), None) if at != "none" else None
        if at == "text":
            place = next((name for name in reversed(order) if name not in columns), None)
        if place is not None or at == "none" and len(order) > len(columns):
            row = dict.fromkeys(order, "")
            for name, texts in numbers.items():
                digits = len(texts[0].partition(decimal)[2])
                row[name] = f"{draw.rng.uniform(0.9, 1.1) * len(texts) * 100:.{digits}f}".replace(".", decimal)
            if place is not None:
                row[place] = label
            body.append(row)
            draw.tell("no data: total", f"no data: total, label {at}")
            found.append(len(body) - 1)
    if draw.odd(0.03):
        at = int(draw.rng.integers(1, len(body)))
        body.insert(at, {name: name for name in order})
        found = [one + (one >= at) for one in found] + [at]
        draw.tell("no data: header again")
    if draw.odd(0.03):
        at = int(draw.rng.integers(1, len(body) - 3))
        body[at:at] = [dict(row) for row in body[at : at + 2]]
        found = [one + 2 * (one >= at) for one in found] + [at, at + 1]
        draw.tell("no data: rows twice")
    return found


def _write(draw, command, target, series, order, body, names, form, key_rows, separator, decimal, missing, others):
    """Return the drawn table, its file written."""
    no_data = _rows_of_no_data(draw, body, order, set(series[0].levels), decimal)
    quoting = csv.QUOTE_ALL if draw.chance(0.2) else csv.QUOTE_MINIMAL
    ending = draw.one("\n", "\n", "\r\n")
    out = io.StringIO()
    writer = csv.writer(out, delimiter=separator, quoting=quoting, lineterminator=ending)
    skipped: list[int] = []
    written = 0
    if draw.odd(0.15):
        for title in draw.rng.permutation(TITLES)[: draw.rng.integers(1, 3)].tolist():
            out.write(title + ending)
            written += 1
            skipped.append(written)
        draw.tell("file: titles")
    if draw.odd(0.08):
        out.write("# made by hand; 2020, all of it" + ending)
        written += 1
        draw.tell("file: comments")
    writer.writerow(order)
    written += 1
    if draw.odd(0.1):
        for _ in range(draw.one(1, 1, 2)):
            unit = draw.one(*UNIT_ROWS)
            first = draw.one("", "-", "UTC", "TS", "yyyy-mm-dd", "datetime64")
            writer.writerow([unit if name in series[0].levels else first for name in order])
            written += 1
            skipped.append(written)
        draw.tell("file: units")
    for at, row in enumerate(body):
        writer.writerow([row[name] for name in order])
        written += 1
        if at in no_data:
            skipped.append(written)
    if draw.odd(0.03):
        out.write(f"Source: somebody{ending}")
        skipped.append(written + 1)
        draw.tell("file: a note at the end")
    encoding = draw.one("utf-8", "utf-8", "utf-8-sig")
    draw.tell(f"file: {encoding}", f"file: {ending!r}", f"file: {'all' if quoting == csv.QUOTE_ALL else 'few'} quoted")
    known = {
        "--date-column": [",".join(names)] if names else [],
        "--date-format": [form.told] if names and form.told else [],
        "--missing": [missing[0]] if missing else [],
        "--skip-rows": [",".join(map(str, skipped))] if skipped else [],
        "--without": [",".join(others)] if others else [],
        "--separator": ["tab" if separator == "\t" else separator],
        "--decimal": [decimal],
        command[-2] if len(command) > 2 else "--target": [target],
    }
    return Drawn(
        out.getvalue().encode(encoding),
        command,
        target,
        series,
        tuple(key_rows[0]),
        names,
        known,
        draw.readable,
        tuple(draw.features),
    )
