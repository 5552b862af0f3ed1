"""Arrays that err as rounding would make them: Monte Carlo arithmetic (Parker 1997).

Whatever NumPy computes with such an array errs at random. So code that is written for plain arrays shows what
rounding does to its results, however the errors grow, shrink or cancel on the way.
"""

import math

import numpy as np


def disturbing(dtype, rng, tie=0.0, side=0.0):
    """Return a function that turns a float64 array into one that errs as if it were computed with in `dtype`.

    - What an operation gives is moved by a relative error of up to eps.
    - The terms of a sum of n, and what they come to, are moved by up to eps / 2 sqrt(n): the errors of its n
      roundings differ in sign. In a matrix product the smaller factor is moved.
    - A maximum with 0, which is a relu, becomes `side` where its argument is within `tie` of 0.

    NumPy hands the class on from array to array; only what comes of `np.empty` or `np.zeros` does not err.
    """
    eps = float(np.finfo(dtype).eps)

    class Disturbed(np.ndarray):
        __array_priority__ = 1  # above plain arrays, where np.concatenate meets both

        def __array_ufunc__(self, ufunc, method, *operands, out=(), **options):
            operands = [plain(operand) for operand in operands]
            size = eps
            if ufunc is np.matmul or method == "reduce":
                axis = -1 if ufunc is np.matmul else options.get("axis", 0)
                terms = operands[0].size if axis is None else operands[0].shape[axis]
                size = eps / 2 * math.sqrt(terms)
                smaller = min(range(len(operands)), key=lambda n: operands[n].size)
                operands[smaller] = moved(operands[smaller], size)
            result = np.asarray(getattr(ufunc, method)(*operands, **options))
            if ufunc is np.maximum and tie:
                result = np.where(np.abs(operands[0]) < tie, side, result)
            if result.dtype.kind == "f":
                result = moved(result, size)
            if out:
                out[0][...] = result
                return out[0]
            return result.view(Disturbed)

    def plain(array):
        return array.view(np.ndarray) if isinstance(array, Disturbed) else array

    def moved(array, size):
        return array + array * (2 * size * (rng.random(array.shape, np.float32) - np.float32(0.5)))

    return lambda array: array.view(Disturbed)
