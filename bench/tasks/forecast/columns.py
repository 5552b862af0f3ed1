"""Columns of numbers from a CSV file, or a ChoiceError that says in one line what is wrong with it."""

from pathlib import Path

import numpy as np
import pandas as pd

from bench.grid.cases import ChoiceError


def read(csv: Path) -> pd.DataFrame:
    """Return the table in a CSV file with a header."""
    try:
        return pd.read_csv(csv, skipinitialspace=True)
    except FileNotFoundError:
        raise ChoiceError(f"--csv: expected a file, found none at {csv}") from None
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        reason = " ".join(str(error).split())
        raise ChoiceError(f"--csv: expected a CSV file with a header, got {csv}: {reason}") from None


def numbers(frame: pd.DataFrame, name: str, source: str, positive: bool = False) -> np.ndarray:
    """Return a column (N,) as float64; all of it has to be finite numbers, above 0 if `positive`."""
    if name not in frame:
        raise ChoiceError(f"--column: expected one of {', '.join(map(str, frame))} in {source}, got {name!r}")
    values = pd.to_numeric(frame[name], errors="coerce").to_numpy(np.float64)
    met = np.isfinite(values) & (values > 0) if positive else np.isfinite(values)
    if not met.all():
        row = int(np.flatnonzero(~met)[0])
        expected = "numbers above 0" if positive else "numbers"
        raise ChoiceError(f"{source}: expected {expected} in {name}, got {frame[name].iloc[row]!s} in row {row + 1}")
    return values


def labels(frame: pd.DataFrame) -> np.ndarray:
    """Return the dates of a column "date", where it has one and all are dates, or else the numbers of the rows."""
    for name in frame:
        if str(name).lower() == "date":
            dates = pd.to_datetime(frame[name], errors="coerce")
            if dates.notna().all():
                return dates.to_numpy()
    return np.arange(len(frame))
