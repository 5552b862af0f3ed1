"""Numbers that mean that nothing is there, such as -999, told by where they stand: far outside of all the others."""

import numpy as np

NINES = [
    sign * value
    for sign in (-1, 1)
    for value in (99.0, 999.0, 9999.0, 99999.0, 999999.0, 9999999.0, 99999999.0, 999999999.0)
]
DECIMAL = [
    sign * value
    for sign in (-1, 1)
    for value in (9.99, 99.9, 99.99, 99.999, 999.9, 999.99, 999.999, 9999.9, 9999.99, 9999.999, 99999.9, 99999.99)
]
SEVENS = [sign * value for sign in (-1, 1) for value in (77.0, 88.0, 777.0, 888.0, 7777.0, 8888.0)]
LIMITS = [
    *(
        sign * value
        for sign in (-1, 1)
        for value in (32767.0, 2147483647.0, 9.969209968386869e36, 3.4028234663852886e38)
    ),
    *(sign * 10.0**power for sign in (-1, 1) for power in (15, 16, 18, 20, 25, 30, 31, 33, 34, 35, 36, 37, 38)),
    *(
        -32768.0,
        65535.0,
        -2147483648.0,
        4294967295.0,
        -9223372036854775808.0,
        9223372036854775807.0,
        -1.7976931348623157e308,
    ),
]
KNOWN = np.unique([-1.0, -9.0, -99.0, -200.0, -8.0, -7.0, *NINES, *DECIMAL, *SEVENS, *LIMITS, -9999.25, -6999.0, -1e5])
LEAST = 10  # others that tell where numbers usually are


def stand_ins(values: np.ndarray) -> list[float]:
    """Return the numbers among values (N,), in the order of time, NaN for nothing, that must stand for nothing.

    They lie farther outside of all others than is half their range, or every way to one is longer than three times the
    longest step between others, and they are known to be used so, or come again and again. -1 does among others that
    are all above.
    """
    values = values[~np.isnan(values)]
    nearest = KNOWN[np.searchsorted(KNOWN, values).clip(max=len(KNOWN) - 1)]
    known = (values == nearest) | (values == 0)
    candidates = np.unique(values[known]).tolist()
    candidates += [edge for edge in (values.min(initial=0), values.max(initial=0)) if edge not in candidates]
    found = []
    others = values[~known]
    for candidate in candidates:
        rest = others[others != candidate]
        alone = values[~known | (values == candidate)]  # no step leads to another that may stand for nothing
        rows = np.flatnonzero(alone == candidate)
        is_known = candidate != 0 and candidate in KNOWN
        if len(rest) >= LEAST and len(rows) and _stands_out(alone, rest, rows, candidate, is_known):
            found.append(float(candidate))
    return found


def _stands_out(values: np.ndarray, rest: np.ndarray, rows: np.ndarray, candidate: float, known: bool) -> bool:
    low, high = rest.min(), rest.max()
    with np.errstate(over="ignore"):
        spread = high - low
        outside = max(low - candidate, candidate - high, 0.0)
        if known:
            if candidate < 0 <= low and len(rows) >= 3 and len(np.unique(rest)) >= LEAST:
                return True
            factor = 0.5 if abs(candidate) >= 99 else 1.0
            return bool(outside > factor * spread or _leaps(values, rest, rows))
        least, factor = (2, 1.0) if candidate == 0 else (3, 3.0)
        if len(rows) < least or len(rows) > len(values) // 2:
            return False
        return bool(outside > factor * spread or (candidate == 0 and outside > 0 and _leaps(values, rest, rows)))


def _leaps(values: np.ndarray, rest: np.ndarray, rows: np.ndarray) -> bool:
    """Tell whether most steps to a candidate are longer than three times the longest between others."""
    longest = np.abs(np.diff(rest)).max()
    away = np.ones(len(values), bool)
    away[rows] = False
    near = np.flatnonzero(away)
    place = np.searchsorted(near, rows)
    before = values[near[np.maximum(place - 1, 0)]]
    behind = values[near[np.minimum(place, len(near) - 1)]]
    steps = np.minimum(np.abs(values[rows] - before), np.abs(values[rows] - behind))
    return bool(longest > 0 and np.quantile(steps, 0.25) > 3 * longest)


def is_total(values: np.ndarray) -> bool:
    """Tell whether the last of many values is the sum of those before it."""
    if len(values) <= LEAST or np.isnan(values).any():
        return False
    with np.errstate(over="ignore", invalid="ignore"):
        total = values[:-1].sum()
        return bool(total != 0 and abs(values[-1] - total) <= 1e-6 * abs(total) and values[-1] != values[-2])


def ends_apart(values: np.ndarray) -> bool:
    """Tell whether the last of many values lies farther outside of all others than is three times their range."""
    if len(values) <= LEAST or np.isnan(values).any():
        return False
    low, high = values[:-1].min(), values[:-1].max()
    with np.errstate(over="ignore"):
        return bool(max(low - values[-1], values[-1] - high) > 3 * (high - low) > 0)
