"""The commands `python -m bench train stocks` and `train series`."""

from pathlib import Path
from typing import Annotated

import typer

from bench.grid.cases import ChoiceError
from bench.tasks.command import Racers, Task, race, trains
from bench.tasks.options import option

Separator = Annotated[str | None, option("What is between the fields of a line.", "a comma, semicolon, tab or bar")]
Decimal = Annotated[str | None, option("The decimal mark, . or ,", "the one that fits all numbers")]
DateFormat = Annotated[
    str | None,
    option(
        "How dates are written, as strptime has it (%d/%m/%Y), or: seconds, milliseconds (since 1970), excel.",
        "ISO's, or what can be read in one way: four digits of the year",
    ),
]
Without = Annotated[str | None, option("Columns to leave out, with commas between: features, or the dates.")]
Window = Annotated[int, typer.Option(help="Rows that the network reads before it says what comes next.")]


@trains
def stocks(
    csv: Annotated[str | None, option("A table of days with a header.", "Google's, from Matplotlib")] = None,
    target: Annotated[str, typer.Option(help="The column that is to be foretold.")] = "close",
    window: Window = 30,
    separator: Separator = None,
    decimal: Decimal = None,
    date_format: DateFormat = None,
    without: Without = None,
    implementation: Racers = None,
    **choices: str | None,
) -> Task:
    """Foretell the next day's price and say whether that beats yesterday's; the last line is the report's path.

    The features are those of open, high, low, close and volume that the table has. Ctrl-C ends the training,
    keeps it, and reports what is there. `--resume` goes on with it.
    """
    from bench.tasks.forecast import page as forecast_report
    from bench.tasks.forecast.sheet import Reading
    from bench.tasks.forecast.stocks import DEFAULT, course, load
    from bench.tasks.learning.training import choose

    settings = choose(DEFAULT, **choices)
    table = load(Path(csv) if csv else None, target, Reading(separator, decimal, date_format, without))
    print(" ".join(table.told))
    return race(course(settings, table, window), implementation, forecast_report.write)


@trains
def series(
    csv: Annotated[str | None, option("A table with a header; without dates, the earliest row first.")] = None,
    column: Annotated[str | None, option("The column of numbers to foretell.")] = None,
    window: Window = 30,
    separator: Separator = None,
    decimal: Decimal = None,
    date_format: DateFormat = None,
    without: Without = None,
    implementation: Racers = None,
    **choices: str | None,
) -> Task:
    """Foretell the next value of any column of numbers; the last line printed is the report's path.

    Ctrl-C ends the training, keeps it, and reports what is there. `--resume` goes on with it.
    """
    from bench.tasks.forecast import page as forecast_report
    from bench.tasks.forecast.series import DEFAULT, course, load
    from bench.tasks.forecast.sheet import Reading
    from bench.tasks.learning.training import choose

    settings = choose(DEFAULT, **choices)
    if csv is None:
        raise ChoiceError("--csv: expected a table, got none")
    if column is None:
        raise ChoiceError("--column: expected the name of a column, got none")
    table = load(Path(csv), column, Reading(separator, decimal, date_format, without))
    print(" ".join(table.told))
    return race(course(settings, table, window), implementation, forecast_report.write)


COMMANDS = (stocks, series)
