"""The commands `python -m bench train stocks` and `train series`."""

from pathlib import Path
from typing import Annotated

import typer

from bench.grid.cases import ChoiceError
from bench.tasks.command import Racers, Task, race, trains
from bench.tasks.options import option

Window = Annotated[int, typer.Option(help="Rows that the network reads before it says what comes next.")]


@trains
def stocks(
    csv: Annotated[
        str | None, option("A table of days with a header, the earliest first.", "Google's, from Matplotlib")
    ] = None,
    target: Annotated[str, typer.Option(help="The column that is to be foretold.")] = "close",
    window: Window = 30,
    implementation: Racers = None,
    **choices: str | None,
) -> Task:
    """Foretell the next day's price and say whether that beats yesterday's; the last line is the report's path.

    The features are those of open, high, low, close and volume that the table has. Ctrl-C ends the training,
    keeps it, and reports what is there. `--resume` goes on with it.
    """
    from bench.tasks.forecast import page as forecast_report
    from bench.tasks.forecast.stocks import DEFAULT, course, load
    from bench.tasks.learning.training import choose

    settings = choose(DEFAULT, **choices)
    table = load(Path(csv) if csv else None, target)
    return race(course(settings, table, window), implementation, forecast_report.write)


@trains
def series(
    csv: Annotated[str | None, option("A table with a header, the earliest row first.")] = None,
    column: Annotated[str | None, option("The column of numbers to foretell.")] = None,
    window: Window = 30,
    implementation: Racers = None,
    **choices: str | None,
) -> Task:
    """Foretell the next value of any column of numbers; the last line printed is the report's path.

    Ctrl-C ends the training, keeps it, and reports what is there. `--resume` goes on with it.
    """
    from bench.tasks.forecast import page as forecast_report
    from bench.tasks.forecast.series import DEFAULT, course, load
    from bench.tasks.learning.training import choose

    settings = choose(DEFAULT, **choices)
    if csv is None:
        raise ChoiceError("--csv: expected a table, got none")
    if column is None:
        raise ChoiceError("--column: expected the name of a column, got none")
    return race(course(settings, load(Path(csv), column), window), implementation, forecast_report.write)


COMMANDS = (stocks, series)
