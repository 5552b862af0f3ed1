"""Is it right? The gate before every timing.

Every output, for BPTT every gradient by name, is compared with the float64 reference on the same values. The error
of an array is its largest absolute difference, scaled by the largest magnitude in the reference's array.

How large it may be depends on the numbers: where a unit saturates, 1 - h * h is the difference of almost equal
numbers, of which few digits are left in float32, whoever computes it. So the bound is measured. The reference is
computed again while every number on the way errs at random, as rounding would make it: what an operation gives by up
to eps of the dtype, the terms of a sum of n and what they come to by up to eps / 2 sqrt(n), as the errors of n
roundings differ in sign. An array may err by

    4 * max |reference that errs - reference|

over its elements and eight such computations, or fewer where they take long, and have elements enough. The factor 4
leaves room for chance, another order of summation and another tanh: right results, whatever their sizes and weights,
mostly stay near 0.07 of the bound and seldom come above 0.3. A missing term, a lower precision or weights gone stale
stand orders of magnitude above it. NaN never passes.
"""

import math
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bench.grid.inputs import over
from bench.implementations import prepare_cell
from bench.timing.rounding import disturbing

ROOM = 4
MOST, MANY_FLOPS = 8, 1e8  # computations with errors; together of no more operations than this, unless one is


class Expected(NamedTuple):
    """What an output should be."""

    values: np.ndarray  # float64
    bound: float  # of the absolute differences


def reference(case, inputs, path=None):
    """Return what is Expected of each output by name, for the second call of a case.

    The second call of train takes the second set of weights: what was kept from the first call shows. With the path
    of a file, all is read from there, or computed and written there if it does not exist.
    """
    if path is None:
        return _compute(case, inputs)
    if not Path(path).exists():
        expected = _compute(case, inputs)
        draft = Path(f"{path}.new")
        with draft.open("wb") as file:
            bounds = [one.bound for one in expected.values()]
            np.savez(file, **{name: one.values for name, one in expected.items()}, bounds=bounds)
        draft.replace(path)
    with np.load(path) as file:
        arrays = dict(file)
    bounds = arrays.pop("bounds")
    return {name: Expected(values, bound) for (name, values), bound in zip(arrays.items(), bounds, strict=True)}


def _compute(case, inputs):
    inputs = over(inputs, lambda array: array.astype(np.float64))
    if case.operation == "train":
        inputs = inputs._replace(params=inputs.params[::-1])
    values = _run(case, inputs)
    disturbed = over(inputs, disturbing(case.dtype, np.random.default_rng(0)))
    moved = dict.fromkeys(values, float(np.finfo(case.dtype).tiny))
    for _ in range(max(1, min(MOST, int(MANY_FLOPS / case.flops)))):
        for name, array in _run(case, disturbed).items():
            moved[name] = max(moved[name], _largest_difference(array, values[name]))
    return {name: Expected(array, ROOM * moved[name]) for name, array in values.items()}


def _run(case, inputs):
    prepared = prepare_cell(import_module(f"reference.{case.cell}"), case, inputs)
    return prepared.outputs(prepared.call())


def _largest_difference(got, want):
    return float(np.max(np.abs(got.view(np.ndarray) - want)))


def compare(case, outputs, expected):
    """Return (errors, message): each output's error and bound by name, and why it is wrong, or None."""
    if outputs.keys() != expected.keys():
        return {}, f"outputs: expected {', '.join(expected)}, got {', '.join(outputs)}"
    errors, faults = {}, []
    for name, (want, bound) in expected.items():
        got, scale = outputs[name], max(float(np.max(np.abs(want))), float(np.finfo(np.float64).tiny))
        bound /= scale
        if got.shape != want.shape or got.dtype != case.dtype:
            errors[name] = {"error": None, "bound": bound}
            faults.append(f"{name}: expected {case.dtype} {want.shape}, got {got.dtype} {got.shape}")
            continue
        error = _largest_difference(got, want) / scale
        errors[name] = {"error": error if math.isfinite(error) else None, "bound": bound}
        if not error <= bound:
            faults.append(f"{name}: error {error:.2g}, bound {bound:.2g}")
    return errors, "; ".join(faults) or None


def largest(errors):
    """Return the largest error as a share of its bound (1 or less is right), or None where one is not finite."""
    shares = [e["error"] / e["bound"] if e["error"] is not None else None for e in errors.values()]
    return None if not shares or None in shares else max(shares)
