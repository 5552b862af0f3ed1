"""The commands `python -m bench train stocks` and `train series`."""

from pathlib import Path
from typing import Annotated

import typer

from bench.grid.cases import ChoiceError
from bench.tasks.command import Racers, Task, race, trains
from bench.tasks.options import option

Separator = Annotated[str | None, option("What is between the fields of a line.", "a comma, semicolon, tab or bar")]
Decimal = Annotated[str | None, option("The decimal mark, . or ,", "the one that fits all numbers")]
DateColumn = Annotated[
    str | None,
    option(
        "The column of dates, or several that are put together in this order, with commas between: date,time or "
        "year,month,day,hour.",
        "the one that is known by its name or by what it holds",
    ),
]
DateFormat = Annotated[
    str | None,
    option(
        "How dates are written, as strptime has it (%d/%m/%Y %H:%M; %q is a quarter; a blank between columns), or: "
        "seconds, milliseconds, microseconds, nanoseconds (since 1970), excel, years (1999.958), number (which orders "
        "the rows).",
        "ISO's, or what can be read in one way",
    ),
]
Without = Annotated[str | None, option("Columns to leave out, with commas between: features, or what says no date.")]
Where = Annotated[list[str] | None, option("COLUMN=VALUE picks the rows of one series; again for another column.")]
Missing = Annotated[
    list[str] | None,
    option(
        "A number or text that means that nothing is there, such as -999; again for another. Rows that lack a number "
        "are left out. `none` says that every number is one."
    ),
]
SkipRows = Annotated[str | None, option("Lines of the file that are no part of the table, such as 2,40-42.")]
Window = Annotated[int, typer.Option(help="Rows that the network reads before it says what comes next.")]


@trains
def stocks(
    csv: Annotated[str | None, option("A table of days with a header.", "Google's, from Matplotlib")] = None,
    target: Annotated[str, typer.Option(help="The column that is to be foretold.")] = "close",
    window: Window = 30,
    separator: Separator = None,
    decimal: Decimal = None,
    date_column: DateColumn = None,
    date_format: DateFormat = None,
    where: Where = None,
    missing: Missing = None,
    skip_rows: SkipRows = None,
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
    reading = Reading(
        separator, decimal, date_format, without, date_column, tuple(where or ()), tuple(missing or ()), skip_rows
    )
    table = load(Path(csv) if csv else None, target, reading)
    print(" ".join(table.told))
    return race(course(settings, table, window), implementation, forecast_report.write)


@trains
def series(
    csv: Annotated[str | None, option("A table; without dates, the earliest row first.")] = None,
    column: Annotated[str | None, option("The column of numbers to foretell.")] = None,
    window: Window = 30,
    separator: Separator = None,
    decimal: Decimal = None,
    date_column: DateColumn = None,
    date_format: DateFormat = None,
    where: Where = None,
    missing: Missing = None,
    skip_rows: SkipRows = None,
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
    reading = Reading(
        separator, decimal, date_format, without, date_column, tuple(where or ()), tuple(missing or ()), skip_rows
    )
    table = load(Path(csv), column, reading)
    print(" ".join(table.told))
    return race(course(settings, table, window), implementation, forecast_report.write)


COMMANDS = (stocks, series)
