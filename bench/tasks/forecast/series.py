"""Any series of numbers: a column of a CSV file, of which each value is foretold from those before it."""

from pathlib import Path

import numpy as np

from bench.tasks.forecast import columns
from bench.tasks.forecast.data import Forecast, Table
from bench.tasks.learning.training import Settings

WINDOW = 30
DEFAULT = Settings(hidden=32, epochs=30, batch=32, truncate=29, clip_norm=1.0, goal=0.9)


def load(csv: Path, column: str) -> Table:
    """Return the column's changes from row to row; a ChoiceError says what is wrong with the file."""
    frame = columns.read(csv)
    values = columns.numbers(frame, column, str(csv))
    changes = np.diff(values)[:, np.newaxis]
    return Table(str(csv), (column,), changes, column, values, columns.labels(frame), logarithmic=False)


def course(settings: Settings, table: Table, window: int = WINDOW) -> Forecast:
    return Forecast("series", settings, table, window)
