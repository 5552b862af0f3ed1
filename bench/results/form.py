"""The form of a run: what each field that is read of run.json and of a row must be.

Runs come from other people and from older versions, so that they are checked once, where they are read. A form is a
`Kind`; a dict of forms by name; a list of one form, for any number of values; `Named(form)`, for values by names that
are not known beforehand; `Maybe(form)`, for what may be None or not there and is None then; or `Or(value, form)`, for
what may not be there and is that value then. Fields without a form are kept as they are.
"""

import sys
from collections.abc import Callable, Collection
from datetime import datetime
from reprlib import repr as brief
from typing import Any, NamedTuple

from bench.grid.cases import ACTIVATIONS, DTYPES, GATES, LENGTHS, LOW, MOST_NAME, OPERATIONS, either


class ResultsError(Exception):
    """A folder that holds no run, or a broken one: one line that says which."""


class Kind(NamedTuple):
    words: str  # what is expected
    holds: Callable[[Any], bool]


NAME = Kind(
    f"a name of one line and at most {MOST_NAME} characters",
    lambda value: isinstance(value, str) and 0 < len(value) <= MOST_NAME and value.isprintable(),
)

TITLE = Kind(
    f"a text of one line and at most {MOST_NAME} characters",
    lambda value: isinstance(value, str) and len(value) <= MOST_NAME and value.isprintable(),
)


class Maybe(NamedTuple):
    form: Any


class Or(NamedTuple):
    """What an older version did not write, since it had nothing else to say."""

    otherwise: Any
    form: Any


class Named(NamedTuple):
    form: Any
    name: Kind = NAME


def instant(text: str) -> datetime:
    """Return the time that run.json tells, or raise a ValueError; without an offset it is the local time."""
    try:
        return datetime.fromisoformat(text).astimezone()
    except (TypeError, OverflowError, OSError) as error:
        raise ValueError(str(error)) from None


def check(value: Any, form: Any, where: str) -> None:
    """Raise a ResultsError that begins with `where` unless a value has a form; set what may be missing to None."""
    match form:
        case Kind():
            if not form.holds(value):
                raise ResultsError(f"{where}: expected {form.words}, got {brief(value)}")
        case Maybe():
            if value is not None:
                check(value, form.form, where)
        case Or():
            check(value, form.form, where)
        case Named():
            check(value, TABLE, where)
            for name in value:
                check(name, form.name, where)
                check(value[name], form.form, f"{where}: {name}")
        case list():
            check(value, LIST, where)
            for n, item in enumerate(value):
                check(item, form[0], f"{where}[{n}]")
        case dict():
            check(value, TABLE, where)
            for name, kind in form.items():
                if name not in value and not isinstance(kind, (Maybe, Or)):
                    raise ResultsError(f"{where}: {name} is missing")
                otherwise = kind.otherwise if isinstance(kind, Or) else None
                check(value.setdefault(name, otherwise), kind, f"{where}: {name}")


def _number(low: float, high: float, words: str, types: tuple = (int, float)) -> Kind:
    return Kind(words, lambda value: type(value) in types and low <= value <= high)


def _one_of(names: Collection[str]) -> Kind:
    return Kind(either(names), lambda value: isinstance(value, str) and value in names)


def _is_instant(value: Any) -> bool:
    try:
        return bool(instant(value))
    except ValueError:
        return False


TABLE = Kind("a table of names and values", lambda value: isinstance(value, dict))
LIST = Kind("a list", lambda value: isinstance(value, list))
TEXT = Kind("a text", lambda value: isinstance(value, str))
INSTANT = Kind("a time such as 2026-01-31T12:00:00+00:00", _is_instant)
FINISHED = Kind(f"null, or {INSTANT.words}", lambda value: value is None or _is_instant(value))
WHOLE = _number(1, 2**53, "a whole number of 1 or more", (int,))
COUNT = _number(0, 2**53, "a whole number of 0 or more", (int,))
DIGITS = Kind("a number in digits", lambda value: value.isascii() and value.isdigit() and len(value) < 10)
CPU = _number(0, 2**53, "the number of a CPU", (int,))
AMOUNT = _number(0, 1e30, "a number of 0 or more")
ERROR = _number(0, sys.float_info.max, "a number of 0 or more")
POSITIVE = _number(1e-30, 1e30, "a number above 0")
SECONDS = _number(1e-12, 1e9, "seconds above 0")

STATUS = _one_of(("ok", "absent", "unsupported", "wrong", "error"))

LATENCIES = {"bins": Named(WHOLE, DIGITS), "worst_s": SECONDS}  # `bench.results.latencies`

RATES = {"gflops": POSITIVE, "bytes_per_s": Named(POSITIVE), "chains": Maybe(Named(POSITIVE))}

ROW = {
    "cell": _one_of(GATES),
    "layers": Or(1, WHOLE),
    "directions": Or(1, _number(1, 2, "1 or 2", (int,))),
    "operation": _one_of(OPERATIONS),
    "hidden_size": WHOLE,
    "input_size": WHOLE,
    "seq_len": WHOLE,
    "batch_size": WHOLE,
    "lengths": Or("full", _one_of(LENGTHS)),
    "dtype": _one_of((*DTYPES, *LOW)),
    "threads": WHOLE,
    "model": Or("", TITLE),
    "activation": Or("tanh", _one_of(ACTIVATIONS)),
    "implementation": NAME,
    "version": Maybe(TEXT),
    "status": STATUS,
    "message": Maybe(TEXT),
    "max_error": Maybe(ERROR),
    "loss": Maybe(ERROR),
    "errors": Maybe(Named({"error": Maybe(ERROR), "bound": POSITIVE})),
    "compile_s": Maybe(_number(0, 1e9, "seconds of 0 or more")),
    "calls": Maybe(WHOLE),
    "times": [SECONDS],
    "lives": Or(1, WHOLE),
    "host": Maybe(NAME),
    "stopped": Maybe(TEXT),
    "peak_memory_bytes": Maybe(AMOUNT),
    "inside_s": Maybe(SECONDS),
    "limits": Maybe(RATES),
    "latencies": Maybe(
        {
            "steady": Maybe(LATENCIES),
            "paced": Maybe(LATENCIES),
            "missed": Maybe(_number(0, 2**53, "a whole number of 0 or more", (int,))),
            "period_s": Maybe(SECONDS),
            "clock_s": Maybe(SECONDS),
        }
    ),
    "flops": POSITIVE,
    "bytes": POSITIVE,
}

ROOFLINE = {
    "measured": INSTANT,
    "levels": Named(POSITIVE),
    "rates": [{"dtype": NAME, "threads": WHOLE, **RATES}],
}

MACHINE = {
    "cpu": Maybe(NAME),
    "cores": Maybe(WHOLE),
    "logical_cpus": Maybe(WHOLE),
    "kinds": Maybe([[CPU]]),
    "cpu_quota": Maybe(POSITIVE),
    "caches": Maybe(Named(POSITIVE)),
    "memory_bytes": Maybe(POSITIVE),
    "os": Maybe(TEXT),
    "python": Maybe(TEXT),
    "governor": Maybe(TEXT),
    "frequency_mhz": Maybe(Named(AMOUNT)),
    "simd": Maybe({"name": NAME, "bits": WHOLE}),
    "load_average": Maybe([AMOUNT]),
    "blas": Maybe([Named(Maybe(TEXT))]),
    "versions": Maybe(Named(TEXT)),
    "roofline": Maybe(ROOFLINE),
    "warnings": [TEXT],
}

WHOLE_MODEL = {
    "version": Maybe(TEXT),
    "status": STATUS,
    "message": Maybe(TEXT),
    "max_error": Maybe(ERROR),
    "compile_s": Maybe(_number(0, 1e9, "seconds of 0 or more")),
    "times": [SECONDS],
    "recurrent": Maybe(Named(AMOUNT, TITLE)),
}

MODEL = {
    "file": TITLE,
    "digest": Maybe(TEXT),
    "left_out": Named(TEXT, TITLE),
    "told": Maybe([TEXT]),
    "calls": Maybe(Named(Maybe(COUNT), TITLE)),
    "inputs": Maybe(Named({"dtype": TEXT, "shape": [WHOLE], "value": Maybe(WHOLE)}, TITLE)),
}

INFO = {
    "name": NAME,
    "command": Maybe(TEXT),
    "machine": MACHINE,
    "baseline": NAME,
    "preset": Maybe(TEXT),
    "description": Maybe(TEXT),
    "sources": Maybe(Named(TEXT, TITLE)),
    "model": Maybe(MODEL),
    "whole": Maybe(Named(Named(WHOLE_MODEL), DIGITS)),
    "implementations": Named(
        {"version": Maybe(TEXT), "status": STATUS, "message": Maybe(TEXT), "contains": Maybe(TEXT)}
    ),
    "cpus": Maybe(Named([CPU], DIGITS)),
    "host": Maybe(NAME),
    "started": INSTANT,
    "finished": FINISHED,
}
