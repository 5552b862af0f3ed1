"""Which columns tell several series apart: few values that come again and again."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from bench.tasks.forecast import cells, when

MOST_KEYS = 3  # columns that together tell series apart
CALENDAR = ((1, 12), (1, 31), (0, 23), (1, 366), (1600, 2200))
NEAR = 0.3  # of a step to another series is one within a series


def floats(texts: np.ndarray) -> np.ndarray:
    """Return the numbers of those texts that are any, if most are, else none."""
    values, plain = cells.plain(texts)
    for mark in (cells.POINT, cells.COMMA):
        more, fits = cells.plain(texts, mark)
        if fits.any():
            values, plain = np.where(fits, more, values), plain | fits
            break
    values = values[plain]
    return values if len(values) >= 0.9 * np.count_nonzero(texts != b"") else values[:0]


def have_digits(texts: np.ndarray) -> np.ndarray:
    """Return which texts have a digit (N,)."""
    return cells.counts_of(texts) & cells.DIGITS > 0


def recurs(texts: np.ndarray) -> np.ndarray | None:
    """Return the distinct texts of a column of few, each of which has rows enough for a series, or None."""
    most = len(texts) // max(min(when.SOME, len(texts) // 4), 2)
    if len(texts) < 4 or len(np.unique(texts[: when.BLOCK])) > most:
        return None
    distinct = np.unique(texts)
    return distinct if 2 <= len(distinct) <= most else None


def is_key(texts: np.ndarray) -> bool:
    """Tell whether a column must be asked for in a table without dates: words, or numbers in turns or of a calendar."""
    distinct = recurs(texts)
    if distinct is None:
        return False
    values = floats(distinct)
    if not len(values) or in_turns(texts):
        return True
    whole = bool((values % 1 == 0).all()) and len(values) > 2
    return whole and any(low <= values.min() and values.max() <= high for low, high in CALENDAR)


def in_turns(texts: np.ndarray) -> bool:
    """Tell whether values follow one another in turns, or each has its rows in one block."""
    _, codes, counts = np.unique(texts, return_inverse=True, return_counts=True)
    kinds = len(counts)
    changes = np.flatnonzero(codes[1:] != codes[:-1])
    if len(changes) == kinds - 1:
        return counts.min() >= 0.5 * counts.max()
    follows = np.zeros((kinds, kinds), int)
    if kinds > 1000:
        return False
    np.add.at(follows, (codes[:-1], codes[1:]), 1)
    likely = follows.argmax(axis=1)
    return bool((likely != np.arange(kinds)).all() and follows.max(axis=1).sum() >= 0.9 * (len(codes) - 1))


def telling(texts: np.ndarray, columns: dict[int, np.ndarray]) -> tuple[int, ...] | None:
    """Return the fewest columns in which no text comes twice with the same values: none if it never does.

    `columns` are those to choose from, by number; None if no few of them do.
    """
    _, codes = np.unique(texts, return_inverse=True)
    keys = {at: np.unique(values, return_inverse=True)[1] for at, values in columns.items()}
    sizes = {at: int(codes_.max()) + 1 for at, codes_ in keys.items()}
    fewest = sorted(keys, key=lambda at: (sizes[at], at))[:8]
    for many in range(MOST_KEYS + 1):
        for chosen in combinations(fewest, many):
            whole = codes.astype(np.int64)
            for at in chosen:
                whole = whole * sizes[at] + keys[at]
            if len(np.unique(whole)) == len(whole):
                return chosen
    return None


def is_woven(values: np.ndarray, texts: np.ndarray) -> bool:
    """Tell whether numbers (N,) are of several series, told apart by texts: near those of the same text alone."""
    distinct = recurs(texts)
    if distinct is None or len(floats(distinct)) or _is_calendar(distinct.tolist()):
        return False
    codes = np.searchsorted(distinct, texts)
    order = np.argsort(codes, kind="stable")
    within = np.abs(np.diff(values[order]))[codes[order][1:] == codes[order][:-1]]
    across = np.abs(np.diff(values))[codes[1:] != codes[:-1]]
    return len(across) >= when.SOME and bool(np.median(within) < NEAR * np.median(across))


def _is_calendar(words: Sequence[bytes]) -> bool:
    """Tell whether words are names of days or months, by which a series may have its seasons."""
    names = {word.decode(errors="replace").lower()[:3] for word in words}
    return names <= when.NAMES_OF_DAYS or names <= when.NAMES_OF_MONTHS
