"""Windows of a series: the records of a network that reads some rows and says what comes next."""

import numpy as np

from bench.tasks.learning.training import Split


def windows(values: np.ndarray, window: int, first: int, last: int, horizon: int = 1) -> Split:
    """Return the records whose targets lie in the rows from `first` up to `last`, of values (N, F).

    x (window, records, F) are the rows before the first target, y (records, horizon F) the next `horizon` rows.
    """
    starts = np.arange(max(first - window, 0), last - window - horizon + 1)
    steps = np.arange(window)[:, np.newaxis] + starts
    ahead = starts[:, np.newaxis] + window + np.arange(horizon)
    y = values[ahead].reshape(len(starts), -1)
    return Split(np.ascontiguousarray(values[steps]), np.ascontiguousarray(y))
