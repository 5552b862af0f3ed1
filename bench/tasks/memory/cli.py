"""The commands `python -m bench train adding` and `train copy`."""

from typing import Annotated, Any

import typer

from bench.tasks.command import Task, trains
from bench.tasks.options import Layers, option

Alone = Annotated[str | None, option("Who learns, with commas between.", "numba-simd")]
Length = Annotated[int, typer.Option(help="Steps that something has to be kept in mind for.")]
Both = Annotated[
    bool,
    typer.Option(
        "--bidirectional",
        help="A direction from the end to the start as well, as fits a sequence that is there as a whole.",
    ),
]


@trains
def adding(
    length: Length = 30,
    layers: Layers = None,
    bidirectional: Both = False,
    implementation: Alone = None,
    **choices: str | None,
) -> Task:
    """Add two numbers marked in a long sequence, with each cell (or --cell): which one has the memory for it?

    The last line printed is the report's path. Ctrl-C ends the training, keeps it, and reports what is there.
    `--resume` goes on with it.
    """
    from bench.tasks.memory.data import ADDING, Adding

    return _remember(Adding, ADDING, length, implementation, layers=layers, bidirectional=bidirectional, **choices)


@trains
def copy(
    length: Length = 20,
    layers: Layers = None,
    bidirectional: Both = False,
    implementation: Alone = None,
    **choices: str | None,
) -> Task:
    """Say symbols again after a long wait, with each cell (or --cell): which one has the memory for it?

    The last line printed is the report's path. Ctrl-C ends the training, keeps it, and reports what is there.
    `--resume` goes on with it.
    """
    from bench.tasks.memory.data import COPY, Copy

    return _remember(Copy, COPY, length, implementation, layers=layers, bidirectional=bidirectional, **choices)


def _remember(task: Any, base: Any, length: int, implementation: str | None, **choices: Any) -> Task:
    from dataclasses import replace

    from bench.tasks.learning.model import CELLS
    from bench.tasks.learning.training import Race, choose
    from bench.tasks.memory import page as memory_report

    settings = choose(base, **choices)
    cells = CELLS if choices["cell"] is None else (settings.cell,)
    names = (implementation or "numba-simd").split(",")
    races = [Race(task(replace(settings, cell=cell), length), names) for cell in cells]
    return Task(races, memory_report.summary, memory_report.write)


COMMANDS = (adding, copy)
