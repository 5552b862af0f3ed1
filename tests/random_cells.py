"""`python -m tests.random_cells [--cells N] [--seed N]`: cells drawn at random, each beside JAX's own derivatives.

A cell is a text, as a user would write it: up to fifteen operations on one to four states, up to five gates, vectors
and two stages of products. It is drawn by hypothesis, so that one that is wrong is made as small as it can be. Cells
come in batches, each of the next seed; what was cut short goes on with `--seed` of the batch that was not finished.
"""

from time import monotonic
from typing import Annotated, Any, NamedTuple
from unittest import mock

import numpy as np
import typer
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from scipy.special import expit

import reference.equations as equations
from reference.equations.graph import NUMPY
from tests import peers
from tests.kernels.compare import Size, assert_close, draw, named

BATCH = 25
MOST_OPERATIONS = 15
SIZES = (Size(3, 2, 3, 2), Size(1, 1, 1, 1), Size(7, 1, 2, 1))  # few: JAX compiles each operation for each

# Each keeps what it is given within bounds, so that three steps neither overflow nor meet a pole.
UNARY = (
    "sigmoid({})",
    "tanh({})",
    "relu({})",
    "exp(minimum({}, 1.0))",
    "exp(-abs({}))",
    "log(abs({}) + 0.5)",
    "sqrt({0} * {0} + 0.1)",
    "softplus({})",
    "abs({})",
    "layer_norm({})",
    "-{}",
    "{} * 0.5",
    "1 - {}",
    "tanh({}) ** 3",
    "2 ** tanh({})",
)
BINARY = (
    "{} + {}",
    "{} - {}",
    "{} * {}",
    "{} / (1 + {} ** 2)",
    "maximum({}, {})",
    "minimum({}, {})",
    "(abs({}) + 0.5) ** tanh({})",
    "where({0} > {1}, {0}, 0.5 * {1})",
    "where({} <= 0.1, {}, 1.5)",
)


class Drawn(NamedTuple):
    source: str
    cell: Any
    size: Size


@st.composite
def drawn_cells(draw):
    """A cell, with its text and a size."""
    gates = [f"g{n}" for n in range(draw(st.integers(0, 5)))]
    states = ["h", "c", "m", "n"][: draw(st.integers(1, 4))]
    vectors = [f"p{n}" for n in range(draw(st.integers(0, 3)))]
    # Of each value: the stage of the last product that it follows from, and whether each sequence has its own.
    values = dict.fromkeys(states, (0, True)) | {f"v.{name}": (0, False) for name in vectors}
    lines, unused = [], [f"{kind}.{gate}" for gate in gates for kind in "uw"]
    for n in range(draw(st.integers(1, MOST_OPERATIONS))):
        kind = draw(st.sampled_from(("gate", "binary", "unary") if unused else ("binary", "unary")))
        if kind == "gate":
            name = unused.pop(draw(st.integers(0, len(unused) - 1)))
            operands = (
                []
                if name[0] == "u"
                else [draw(st.sampled_from([a for a, (s, batched) in values.items() if s < 2 and batched]))]
            )
            text, stage, batched = name if not operands else f"{name}({operands[0]})", name[0] == "w", True
        else:
            text = draw(st.sampled_from(UNARY if kind == "unary" else BINARY))
            operands = [draw(st.sampled_from(list(values))) for _ in range(1 if kind == "unary" else 2)]
            text, stage = text.format(*operands), 0
            batched = any(values[a][1] for a in operands)
        lines.append(f"    a{n} = {text}")
        values[f"a{n}"] = (max((values[a][0] for a in operands), default=0) + stage, batched)
    able = [a for a, (_, batched) in values.items() if batched]
    # The last ones first, that little of what was drawn is for nothing.
    returned = draw(st.permutations(able[-max(len(states), 6) :]))[: len(states)]
    arguments = ", ".join(["u", "w", "v", *states])
    source = "\n".join(
        [
            f"@cell(gates={' '.join(gates)!r}, states={' '.join(states)!r}, vectors={' '.join(vectors)!r})",
            f"def drawn({arguments}):",
            *lines,
            f"    return {', '.join(returned)}",
        ]
    )
    return Drawn(source, define(source), draw(st.sampled_from(SIZES)))


def define(source):
    """Return the cell of a text; None where two of its states come to the same, which is refused."""
    space = dict(vars(equations)) | {"__name__": "cells"}
    try:
        exec(compile(source, "cells.py", "exec"), space)
    except equations.EquationError as error:
        if "a state is returned once" in str(error):
            return None
        raise
    return space["drawn"]


def check(one):
    """Hold the function on JAX's arrays against the reference in float64, forward and back; tell if it was possible.

    The bound is that of the kernels' tests: what rounding the inputs does to this very result. SciPy's sigmoid stands
    in, as there. A cell is left out where two of its states come to the same or its numbers overflow.
    """
    if one.cell is None:
        return False
    inputs = draw(one.cell, one.size, np.float64)
    size = one.size
    finite = all(np.isfinite(a).all() for a in named(results(one.cell, inputs)).values())
    if finite:
        output, gradients = peers.in_jax(one.cell, inputs)
        n = size.H + size.I + 1 + size.T * size.B + MOST_OPERATIONS
        with mock.patch.dict(NUMPY, sigmoid=expit):
            assert_close(Results(output, gradients), one.cell, inputs, results, n)
    return finite


class Results(NamedTuple):
    output: Any
    gradients: Any


def results(cell, inputs):
    params, x, state, grad_hs, grad_state = inputs
    trace = cell.forward(params, x, state)
    return Results(cell.Output(trace.hs, trace.state), cell.bptt(params, trace, grad_hs, grad_state))


def run(number, cells):
    """Check a batch of cells of one seed; return how many there were. The first that is wrong raises, made small."""
    checked = 0

    @seed(number)
    @settings(
        max_examples=cells,
        database=None,
        deadline=None,
        print_blob=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(drawn_cells())
    def every_cell(one):
        nonlocal checked
        try:
            checked += check(one)
        except AssertionError as error:
            raise AssertionError(f"{one.size}\n{one.source}\n{error}") from None

    every_cell()
    return checked


def main(
    cells: Annotated[int, typer.Option(min=1, help="How many cells.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="That of the first batch.")] = 0,
):
    """Draw cells at random, each beside JAX's own derivatives of it."""
    begin, done = monotonic(), 0
    while done < cells:
        batch = min(BATCH, cells - done)
        try:
            checked = run(seed, batch)
        except AssertionError as error:
            print(f"wrong: --seed {seed}: {error}", flush=True)
            raise typer.Exit(1) from None
        done += batch
        print(f"seed {seed}: {batch} cells right, {checked} checked; {done} in {monotonic() - begin:.0f} s", flush=True)
        seed += 1
    print(f"{done} right; go on with --seed {seed}")


if __name__ == "__main__":
    typer.run(main)
