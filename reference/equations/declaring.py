"""What `cell(...)` is told: the names of gates, states and vectors, and where states, vectors and biases begin."""

import math
from keyword import iskeyword
from typing import NamedTuple

import numpy as np

from reference.equations.tracing import EquationError

TAKEN = ("U", "W", "b", "x", "count", "index")  # fields and attributes of Params and Trace
ARGUMENTS = ("u", "w", "v")


class Declared(NamedTuple):
    gates: tuple[str, ...]
    states: dict[str, float]  # and where they begin
    vectors: dict[str, float | None]  # None: drawn
    biases: dict[str, float]  # those of the gates that begin as told


def declared(gates, states, vectors, biases):
    """Read the arguments of `cell`; a ValueError in one line if they cannot be."""
    found = Declared(
        tuple(_names("gates", gates)),
        {name: 0.0 if start is None else start for name, start in _begun("states", states).items()},
        _begun("vectors", vectors),
        _begun("biases", biases, drawn=False),
    )
    if not found.states:
        raise EquationError("states: expected h, and whatever else is handed on, got none")
    if next(iter(found.states)) != "h":
        raise EquationError(f"states: expected h first, what the layer gives, got {next(iter(found.states))}")
    for name in found.states:
        if name in found.gates:
            raise EquationError(f"states: expected other names than the gates', got {name} for both")
        if name in ARGUMENTS:
            raise EquationError(f"states: expected other names than u, w and v, got {name}")
    for name in found.biases:
        if name not in found.gates:
            raise EquationError(f"biases: expected gates ({', '.join(found.gates) or 'none'}), got {name}")
    return found


def _names(argument, given):
    """Return the names in a text, checked."""
    if not isinstance(given, str):
        raise EquationError(f"{argument}: expected names in a text, such as 'f n', got {type(given).__name__}")
    names = given.split()
    for name in names:
        if not name.isidentifier() or iskeyword(name) or name.startswith("_") or name in TAKEN:
            told = f"{', '.join(TAKEN)}, a keyword, nor a leading _"
            raise EquationError(f"{argument}: expected names that Python has, and none of {told}, got {name}")
        if names.count(name) > 1:
            raise EquationError(f"{argument}: expected each name once, got {name} twice")
    return names


def _begun(argument, given, drawn=True):
    """Return the names and where each begins, None where that is not told."""
    if not isinstance(given, dict):
        if not drawn:
            raise EquationError(
                f"{argument}: expected names and numbers, such as {{'f': 1}}, got {type(given).__name__}"
            )
        return dict.fromkeys(_names(argument, given))
    for name in given:
        if not isinstance(name, str) or len(name.split()) != 1:
            raise EquationError(f"{argument}: expected names, got {name!r}")
    starts = {}
    for name, start in zip(_names(argument, " ".join(given)), given.values(), strict=True):
        number = isinstance(start, int | float | np.integer | np.floating) and not isinstance(start, bool)
        if not number or math.isnan(start):
            raise EquationError(f"{argument}: expected a number where {name} begins, got {start!r}")
        starts[name] = float(start)
    return starts
