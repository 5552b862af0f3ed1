"""What stands in the columns of drawn tables: walks as they are written, keys, marks of nothing, and what is beside."""

from collections.abc import Callable
from datetime import datetime, timedelta

import numpy as np

Row = dict[str, str]


class Draw:
    """One draw: every choice follows from its own numbers, and is told as a feature."""

    def __init__(self, seed: int):
        self.rng = np.random.default_rng(seed)
        self.features: list[str] = []
        self.readable = True  # an owner can have it read by options
        self.plain = self.chance(0.4)

    def one(self, *choices):
        return choices[self.rng.integers(len(choices))]

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def odd(self, share: float) -> bool:
        """Tell whether something odd is in the table; a plain one has a third of it."""
        return self.chance(share / 3 if self.plain else share)

    def tell(self, *features: str) -> None:
        self.features += features


# Numbers

DIGITS = {"around zero": 1, "whole": 0, "large": 0, "small": 5, "fractions": 3, "thousands": 2, "prices": 2}


def walk(draw: Draw, n: int, kind: str) -> np.ndarray:
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


def written(value: float, kind: str, decimal: str, thousands: str) -> str:
    digits = DIGITS[kind]
    text = f"{value:,.{digits}f}" if thousands else f"{value:.{digits}f}"
    return text.replace(",", "\0").replace(".", decimal).replace("\0", thousands)


def true(values: np.ndarray, kind: str) -> np.ndarray:
    """Return the numbers that are written."""
    return np.array([float(f"{value:.{DIGITS[kind]}f}") for value in values])


def marks(draw: Draw, kinds: set[str]) -> tuple[str, str, str]:
    """Return the separator, the decimal mark, and what is between thousands."""
    separator = draw.one(",", ",", ",", ";", ";", "\t", "|")
    decimal = draw.one(".", ",") if separator != "," or draw.odd(0.1) else "."
    thousands = ""
    if kinds & {"thousands", "large"} and draw.odd(0.4):
        thousands = draw.one("." if decimal == "," else ",", "'", "\u00a0", "\u202f")
    draw.tell(f"separator: {separator!r}", f"decimal: {decimal}", f"thousands: {thousands!r}")
    return separator, decimal, thousands


# Cells of nothing

SENTINELS = ("-9", "-99", "-999", "-9999", "-200", "9999", "1e20", "-999.0", "-9999.00", "-99.9", "99999", "-1e34")
TEXTS = (
    *("***", "unavailable", "ND", r"\N", "#DIV/0!", "missing", "closed", "#REF!", "(null)", "M", "no data", "x", "Err"),
    *("n.a.", "NA", "", "nan", "--", ".", "-999 (M)", "0.0*", "Ausfall", "#N/A N/A", "-", "<NA>", "999.9F", "Bal."),
)


def sentinel(draw: Draw, kinds: set[str], decimal: str) -> tuple[str, float] | None:
    """Return what a cell of nothing holds, far from all that the walks hold, and the share of such cells."""
    if not draw.odd(0.4):
        return None
    text = draw.one(*SENTINELS) if draw.chance(0.6) else draw.one(*TEXTS)
    number = text in SENTINELS
    if number:
        if kinds & {"large", "thousands"} and 0 < float(text) < 1e10:
            text = "-999"
        if kinds & {"around zero", "whole"} and abs(float(text)) < 300:
            text = "-9999"
        text = text.replace(".", decimal)
    draw.tell(f"missing: {text!r}", f"missing: {'a number' if number else 'a text'}")
    return text, float(0.003 * (0.1 / 0.003) ** draw.rng.random())


# Keys

KEYS = {
    "ticker": ("AAA", "BBB", "C.C", "BRK B", "D'D"),
    "store": ("1", "2", "3", "4", "5"),
    "country": ("Österreich", "Chile", "Côte d'Ivoire", "Korea, South", "日本"),
    "sensor_id": ("1001", "1002", "1017", "1020", "2001"),
    "unique_id": ("H1", "H2", "H3", "H4", "H5"),
    "Stock Code": ("0700", "0005", "0011", "0939", "1299"),
    "asset": ("BTC-USD", "ETH-USD", "X=Y", "$SPX", "a|b"),
    "series": ("OPEN", "NaN", "-", "N/A", "total"),
    "lat": ("47.5", "48.0", "48.5", "-3.25", "0.0"),
    "depth [m]": ("0", "10", "100", "-999", "1e3"),
}
ITEMS = {"item": ("Milk", "Bread"), "sector": ("private", "public"), "dept": ("1", "2")}


def keys(draw: Draw) -> list[Row]:
    """Return the cells that tell the series of a long table apart, of each."""
    name, count = draw.one(*KEYS), int(draw.rng.integers(2, 6))
    found = [{name: text} for text in draw.rng.permutation(KEYS[name])[:count].tolist()]
    draw.tell(f"long: {name}", f"long: {count} keys")
    if draw.odd(0.15):
        draw.tell("long: two columns of keys")
        other = draw.one(*ITEMS)
        return [key | {other: text} for key in found[:2] for text in ITEMS[other]]
    if draw.odd(0.1):
        draw.tell("long: a key by two names")
        return [key | {"full name": f"The {text} Company"} for key in found for text in key.values()]
    return found


# What stands beside

OTHERS: dict[str, tuple[tuple[str, ...], Callable[[Draw, int], str]]] = {
    "constant": (("currency", "unit", "symbol", "STATION"), lambda draw, at: "USD"),
    "constant number": (("version", "qc", "No."), lambda draw, at: "1"),
    "noise": (("noise", "humidity", "v2", "Change %"), lambda draw, at: f"{draw.rng.normal():.3f}"),
    "whole noise": (("count", "DEWP", "points"), lambda draw, at: str(draw.rng.integers(0, 100))),
    "flag": (("holiday", "flag", "Is Open"), lambda draw, at: str(draw.rng.integers(0, 2))),
    "notes": (("notes", "Bemerkung"), lambda draw, at: "checked, again" if draw.rng.random() < 0.02 else ""),
    "text": (("wind", "cbwd", "quality"), lambda draw, at: draw.one("N", "NW", "cv", "SE")),
    "row id": (("id", "No", "Unnamed: 9", "rank"), lambda draw, at: str(at)),
    "hash": (("uuid", "hash"), lambda draw, at: f"{draw.rng.integers(2**32):08x}"),
    "empty": (("spare", "reserved", ""), lambda draw, at: ""),
    "rising": (("cumulative", "battery"), lambda draw, at: f"{10 + at * 0.5:.1f}"),
    "another walk": (("Adj Close", "OT2"), lambda draw, at: f"{50 + 0.01 * at + draw.rng.normal():.2f}"),
}
OF_DATES: dict[str, tuple[str, float, Callable[[datetime], str]]] = {  # beside the dates
    "year": ("yr", 0.06, lambda at: str(at.year)),
    "weekday": ("weekday", 0.06, lambda at: f"{at:%a}"),
    "month number": ("mnth", 0.05, lambda at: str(at.month)),
    "updated": ("updated", 0.05, lambda at: "2024-03-01"),
    "settled": ("Settlement", 0.04, lambda at: f"{at + timedelta(days=2):%Y-%m-%d}"),
    "clock": ("session", 0.03, lambda at: "16:00"),
    "due in years": ("maturity", 0.03, lambda at: f"{at.year + 10}-06-30"),
}


def others(draw: Draw, taken: set[str], dated: bool) -> dict[str, str]:
    """Return what other columns hold, by name."""
    found: dict[str, str] = {}
    for what in draw.rng.permutation(list(OTHERS))[: draw.rng.choice([0, 0, 1, 2, 4])].tolist():
        found[draw.one(*OTHERS[what][0])] = what
    for what, (name, share, _) in OF_DATES.items():
        if draw.odd(share) and dated:
            found[name] = what
    lower = {name.casefold() for name in taken}
    found = {name: what for name, what in found.items() if name.casefold() not in lower}
    draw.tell(*(f"other: {what}" for what in found.values()))
    return found


def other(draw: Draw, what: str, at: int, date: datetime | None) -> str:
    if date is not None and what in OF_DATES:
        return OF_DATES[what][2](date)
    return OTHERS[what][1](draw, at)
