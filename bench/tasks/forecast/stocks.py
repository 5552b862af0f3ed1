"""Stock prices: from the last days' open, high, low, close and volume, what the next day brings.

The prices of a day are read as logarithms of their ratio to the close before it, the volume as that of its ratio to the
volume before it. By default they are Google's, 2004 to 2008, which Matplotlib brings along.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import cbook

from bench.grid.cases import ChoiceError
from bench.tasks.forecast import columns
from bench.tasks.forecast.data import Forecast, Table
from bench.tasks.learning.training import Settings

FEATURES = ("open", "high", "low", "close", "volume")
WINDOW = 30  # days
DEFAULT = Settings(
    cell="rnn", hidden=32, epochs=20, batch=32, learning_rate=0.002, truncate=29, clip_norm=1.0, goal=0.94
)


def load(csv: Path | None = None, target: str = "close") -> Table:
    """Return the days of a CSV file with a header, or Google's; a ChoiceError says what is wrong with the file."""
    if csv is None:
        days = pd.DataFrame(cbook.get_sample_data("goog.npz")["price_data"])  # type: ignore[index]
        source = "GOOG, as Matplotlib ships it"
    else:
        days, source = columns.read(csv), str(csv)
    names = [name for name in FEATURES if name in days]
    if target not in days:
        raise ChoiceError(f"--target: expected a column of {source} ({', '.join(map(str, days))}), got {target!r}")
    if target not in names:
        names.append(target)
    values = np.stack([columns.numbers(days, name, source, positive=True) for name in names], axis=1)
    previous = values[:-1].copy()
    if "close" in names:
        for name in ("open", "high", "low"):
            if name in names:
                previous[:, names.index(name)] = values[:-1, names.index("close")]
    changes = np.log(values[1:] / previous)
    column = names.index(target)
    changes[:, column] = np.diff(np.log(values[:, column]))
    return Table(source, tuple(names), changes, target, values[:, column], columns.labels(days), logarithmic=True)


def course(settings: Settings, table: Table, window: int = WINDOW) -> Forecast:
    return Forecast("stocks", settings, table, window)
