"""The n-gram: predict a character from how often it followed the same `order` characters.

Interpolated Witten-Bell smoothing (Witten and Bell 1991; Chen and Goodman 1999): after a context seen N times, followed
by K different characters,

    P(c | context) = (count of c after it + K P(c | the context without its first character)) / (N + K)

down to P(c) from the empty context, which is smoothed by the uniform 1 / alphabet.
"""

import numpy as np


class NGram:
    def __init__(self, text: np.ndarray, order: int, alphabet_size: int):
        """Count in `text` (N,), indices below `alphabet_size`; of order 0 it is a unigram."""
        self.order = order
        self.alphabet_size = alphabet_size
        self._levels = []
        for length in range(order + 1):
            grams, counts = np.unique(self._codes(text, length + 1), return_counts=True)
            contexts, first = np.unique(grams // alphabet_size, return_index=True)
            kinds = np.diff(first, append=len(grams))
            self._levels.append((grams, counts, contexts, np.add.reduceat(counts, first), kinds))

    def probabilities(self, text: np.ndarray) -> np.ndarray:
        """Return the probability of each character of `text` (N,) but the first `order`, whose context is cut off."""
        found = np.full(len(text) - self.order, 1 / self.alphabet_size)
        for length, (grams, counts, contexts, totals, kinds) in enumerate(self._levels):
            codes = self._codes(text[self.order - length :], length + 1)
            count = _look_up(codes, grams, counts)
            context = codes // self.alphabet_size
            total, kind = _look_up(context, contexts, totals), _look_up(context, contexts, kinds)
            seen = total > 0
            found[seen] = ((count + kind * found) / (total + kind).clip(1))[seen]
        return found

    def bits(self, text: np.ndarray) -> float:
        """Return the bits per character of `text`."""
        return float(-np.mean(np.log2(self.probabilities(text))))

    def _codes(self, text, length):
        """Return each stretch of `length` characters as one number, (N - length + 1,)."""
        codes = np.zeros(len(text) - length + 1, np.int64)
        for start in range(length):
            codes = codes * self.alphabet_size + text[start : start + len(codes)]
        return codes


def _look_up(wanted: np.ndarray, keys: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the value of each wanted key, 0 for those that are not among the sorted keys."""
    at = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
    return np.where(keys[at] == wanted, values[at], 0)
