"""Stock prices: from the last days' open, high, low, close and volume, what the next day brings.

The prices of a day are read as logarithms of their ratio to the close before it, the volume as that of its ratio to the
volume before it. By default they are Google's, 2004 to 2008, which Matplotlib brings along.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import cbook

from bench.tasks.forecast import sheet
from bench.tasks.forecast.data import Forecast, Table
from bench.tasks.learning.training import Settings

FEATURES = {  # as vendors call them
    "open": ("open",),
    "high": ("high",),
    "low": ("low",),
    "close": ("close", "close/last", "price"),
    "volume": ("volume", "vol", "vol."),
}
WINDOW = 30  # days
DEFAULT = Settings(
    cell="rnn", hidden=32, epochs=20, batch=32, learning_rate=0.002, truncate=29, clip_norm=1.0, goal=0.94
)


def load(csv: Path | None = None, target: str = "close", reading: sheet.Reading = sheet.AS_IT_LIES) -> Table:
    """Return the days of a CSV file with a header, or Google's; a ChoiceError says what is wrong with the file."""
    if csv is None:
        days = pd.DataFrame(cbook.get_sample_data("goog.npz")["price_data"])  # type: ignore[index]
        found = sheet.parse(days.to_csv(index=False), "GOOG, as Matplotlib ships it", reading)
    else:
        found = sheet.read(csv, reading)
    features = {feature: at for feature, names in FEATURES.items() if (at := found.find(*names)) is not None}
    foretold = features.get(target)
    if foretold is None:
        foretold = found.expect("--target", target)
    wanted = list(dict.fromkeys([*features.values(), foretold]))
    read = found.columns(wanted, positive=True)
    del found  # of a large table, which is not needed any more
    column = wanted.index(foretold)
    level = read.values[:, column].copy()
    logarithms = np.log(read.values, out=read.values)
    changes = np.diff(logarithms, axis=0)
    if "close" in features:
        before = logarithms[:-1, wanted.index(features["close"])]
        for feature in {"open", "high", "low"} & features.keys():
            at = wanted.index(features[feature])
            if at != column:
                changes[:, at] = logarithms[1:, at] - before
    return Table(read.source, read.names, changes, read.names[column], level, read.labels, read.told, logarithmic=True)


def course(settings: Settings, table: Table, window: int = WINDOW) -> Forecast:
    return Forecast("stocks", settings, table, window)
