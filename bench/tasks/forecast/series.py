"""Any series of numbers: a column of a CSV file, of which each value is foretold from those before it."""

from pathlib import Path

import numpy as np

from bench.tasks.forecast import sheet
from bench.tasks.forecast.data import Forecast, Table
from bench.tasks.learning.training import Settings

WINDOW = 30
DEFAULT = Settings(hidden=32, epochs=30, batch=32, truncate=29, clip_norm=1.0, goal=0.9)


def load(csv: Path, column: str, reading: sheet.Reading = sheet.AS_IT_LIES) -> Table:
    """Return the column's changes from row to row; a ChoiceError says what is wrong with the file."""
    found = sheet.read(csv, reading)
    read = found.columns([found.expect("--column", column)])
    level = read.values[:, 0]
    with np.errstate(over="ignore"):
        changes = np.diff(level)[:, np.newaxis]
    return Table(read.source, read.names, changes, read.names[0], level, read.labels, read.told, logarithmic=False)


def course(settings: Settings, table: Table, window: int = WINDOW) -> Forecast:
    return Forecast("series", settings, table, window)
