"""The cells under test, each a line in `OPTIONS`, and the cases that the tests go through."""

import importlib
import itertools
from typing import Any, NamedTuple

import numpy as np
import pytest

from tests.kernels.compare import DTYPES, Size, draw

# What the functions of a cell take beyond the interface that all cells share.
OPTIONS = {"rnn": (("tanh",), ("relu",), ("sigmoid",)), "gru": ((),), "lstm": ((),)}


class Cell(NamedTuple):
    name: str
    kernels: Any
    reference: Any
    options: tuple  # as in OPTIONS

    def __str__(self):
        return self.name


def find(name):
    return Cell(
        name, importlib.import_module(f"kernels.{name}"), importlib.import_module(f"reference.{name}"), OPTIONS[name]
    )


CELLS = [find(name) for name in OPTIONS]

# Each hidden size meets each batch size; lengths and input sizes take turns.
SIZES = [
    Size(H, I, T, B)
    for (H, B), I, T in zip(
        itertools.product((1, 7, 17, 63, 65, 100), (1, 2, 5, 33)),
        itertools.cycle((1, 3, 40)),
        itertools.cycle((13, 1, 7, 2, 13)),
        strict=False,
    )
]
ALL_SIZES = [Size(*s) for s in itertools.product((1, 7, 17, 63, 65, 100), (1, 3, 40), (1, 13), (1, 2, 5, 33))]
SMALL = Size(H=17, I=3, T=5, B=5)
EDGES = [Size(1, 1, 1, 1), SMALL, Size(65, 40, 4, 33), Size(100, 1, 9, 1), Size(257, 1, 8, 1)]


def label(value):
    return np.dtype(value).name if value in DTYPES else str(value)


def cases(cells, sizes):
    """Return every cell with every size in both dtypes, its options taking turns, for `parametrize`."""
    found = []
    for cell, (n, size), (m, dtype) in itertools.product(cells, enumerate(sizes), enumerate(DTYPES)):
        options = cell.options[(n + m) % len(cell.options)]
        found.append(pytest.param(cell, size, dtype, options, id=f"{variant(cell, options)}-{size}-{label(dtype)}"))
    return found


def variant(cell, options):
    return "-".join((cell.name, *options))


by_case = pytest.mark.parametrize(("cell", "size", "dtype", "options"), cases(CELLS, SIZES))
by_cell = pytest.mark.parametrize("cell", CELLS, ids=label)
by_variant = pytest.mark.parametrize(
    ("cell", "options"), [pytest.param(c, o, id=variant(c, o)) for c in CELLS for o in c.options]
)
by_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=label)
by_edge = pytest.mark.parametrize("size", EDGES, ids=label)


def arguments(cell, function):
    """Return right arguments for a function of the kernels, by name."""
    params, x, state, grad_hs, grad_state = draw(cell.kernels, SMALL, np.float32)
    if function == "prepare":
        return {"params": params}
    if function == "forward_step":
        return {"params": params, "x_t": x[0], "state": state}
    if function in ("infer", "forward"):
        return {"params": params, "x": x, "state": state}
    trace = cell.reference.forward(params, x, state)  # whose arrays are as good, and not compiled to be listed
    return {"params": params, "trace": trace, "grad_hs": grad_hs, "grad_state": grad_state}
