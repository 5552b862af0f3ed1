"""The door for what was kept in a file: its JSON becomes the types that it is to have, or a ChoiceError says where not.

Behind it nothing is checked again. A type is str, int, float, bool or dict, a Literal, `X | None`, a list or dict of
types, or a dataclass or NamedTuple of them, whose own checks are made, too.
"""

import reprlib
from dataclasses import field, fields, is_dataclass
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from bench.grid.cases import ChoiceError

T = TypeVar("T")

WORDS = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    dict: "a table",
    list: "a list",
}


def later(default: Any) -> Any:
    """Return the field of a dataclass that older files do not have: there it has its default."""
    return field(default=default, metadata={"later": True})


def read(kind: type[T], value: Any, where: str) -> T:
    """Return a value of JSON as one of this type; `where` begins the ChoiceError, and names of parts follow it."""
    return _read(kind, value, where)


def _read(kind: Any, value: Any, where: str) -> Any:
    origin, parts = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin is Annotated:
        return _read(parts[0], value, where)
    if origin in (Union, UnionType):  # of a type and None
        return None if value is None else _read(parts[0], value, where)
    if origin is Literal:
        expect(isinstance(value, str) and value in parts, where, " or ".join(parts), reprlib.repr(value))
        return value
    if is_dataclass(kind):
        expect(isinstance(value, dict), where, WORDS[dict], reprlib.repr(value))
        known = {field.name: field for field in fields(kind)}
        missing = {name: field.default for name, field in known.items() if field.metadata.get("later")}
        return _build(kind, list(known), missing | value, where)
    if hasattr(kind, "_fields"):
        names = kind._fields
        expect(isinstance(value, list) and len(value) == len(names), where, ", ".join(names), reprlib.repr(value))
        return _build(kind, names, dict(zip(names, value, strict=True)), where)
    plain = origin or kind
    if plain is float and type(value) is int and abs(value) < 2**53:
        return float(value)
    expect(type(value) is plain, where, WORDS[plain], reprlib.repr(value))
    if plain is list:
        return [_read(parts[0], item, f"{where}[{n}]") for n, item in enumerate(value)]
    if plain is dict and parts:
        return {name: _read(parts[1], item, f"{where}: {name}") for name, item in value.items()}
    return value


def _build(kind, names, value, where):
    expect(set(value) == set(names), where, ", ".join(names), ", ".join(value) or "none")
    hints = get_type_hints(kind, include_extras=True)
    parts = {name: _read(hints[name], value[name], f"{where}: {name}") for name in names}
    try:
        return kind(**parts)
    except ValueError as error:
        raise ChoiceError(f"{where}: {error}") from None


def expect(met: bool, where: str, expected: str, got: Any) -> None:
    """Raise a ChoiceError unless a condition is met."""
    if not met:
        raise ChoiceError(f"{where}: expected {expected}, got {_short(got)}")


def _short(value: Any) -> str:
    """Return a value in a few characters of one line."""
    return value if isinstance(value, str) and value.isprintable() and len(value) <= 60 else reprlib.repr(value)
