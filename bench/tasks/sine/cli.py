"""The command `python -m bench train sine`."""

from typing import Annotated

import typer

from bench.grid.cases import ChoiceError
from bench.tasks.command import Racers, Task, race, trains


@trains
def sine(
    frequencies: Annotated[str, typer.Option(help="Of the waves that are added up, in radians a step.")] = "1",
    noise: Annotated[float, typer.Option(help="Standard deviation of the noise on every value.")] = 0.0,
    horizon: Annotated[int, typer.Option(help="Values that are predicted at once.")] = 1,
    article: Annotated[
        bool, typer.Option("--article", help="The article's settings, for each that is not given.")
    ] = False,
    implementation: Racers = None,
    **choices: str | None,
) -> Task:
    """Predict the next values of a sine; the last line printed is the report's path.

    Ctrl-C ends the training, keeps it, and reports what is there. `--resume` goes on with it.
    """
    from dataclasses import replace

    from bench.tasks.learning.training import choose
    from bench.tasks.sine import page as sine_report
    from bench.tasks.sine.data import ARTICLE, DEFAULT, Sine, Wave

    wave = Wave(_frequencies(frequencies), noise, horizon)
    base = ARTICLE if article else DEFAULT
    base = replace(base, goal=base.goal + 1.5 * noise)  # what is noise cannot be foretold
    return race(Sine(choose(base, **choices), wave), implementation, sine_report.write)


def _frequencies(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ChoiceError(f"--frequencies: expected numbers with commas between, got {text!r}") from None


COMMANDS = (sine,)
