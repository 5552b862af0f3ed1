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

The slope of relu jumps from 0 to 1 where its argument is 0: where that lies within rounding of 0, either is right, and
all gradients before it follow. So of gradients the computations that err take all of these slopes as 0 and as 1 in
turn. What grows beyond the dtype's numbers, as a relu's states can, is not to be had from anybody: unsupported.

Below float32 every output must first lie within the dtype's budget of the float64 reference of the weights as they were
given; how far off h is, is the row's loss. For a library's own rounding that is all, and the budget is its bound. What
computes in float32 must lie within float32's bound as ever, and ours within one as tight of its exact twin,
`reference.quantized`. Two right computations may round a state in the middle of two steps either way, and then go on a
whole step apart. So each step of the twin starts from the h that we gave, where nothing but float32's rounding differs;
the LSTM's c is the twin's own. Of a network we give the last layer's h alone, so there the budget is our bound, too.
"""

import math
from dataclasses import replace
from functools import partial
from importlib import import_module
from itertools import cycle, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bench.grid.cases import BUDGETS
from bench.grid.inputs import over
from bench.implementations import UnsupportedError, named, prepare_cell
from bench.timing.rounding import disturbing
from reference import stack

ROOM = 4
SIDES = (0.0, float(np.finfo(np.float64).tiny))  # of a relu whose argument is 0 as far as rounding tells
MOST, MANY_FLOPS = 8, 1e8  # computations with errors; together of no more operations than this, unless one is


class Expected(NamedTuple):
    """What an output should be."""

    values: np.ndarray  # float64
    bound: float  # of the absolute differences


class Verdict(NamedTuple):
    errors: dict  # each output's error and bound by name
    message: str | None  # why it is wrong
    loss: float | None  # below float32: the largest absolute error of h, if it is finite


def judge(case, inputs, outputs, follows=None, path=None):
    """Return the Verdict on the outputs of a case's second call.

    `follows` is that of `bench.implementations.Prepared`, `path` that of `reference`.
    """
    expected = reference(case, inputs, path)
    if not case.low:
        return Verdict(*compare(case, outputs, expected), None)
    errors, message = compare(case, outputs, _within_budget(case, expected))
    share = largest({name: one for name, one in errors.items() if not name.endswith(".c")})
    loss = None if share is None else share * BUDGETS[case.low]
    if message is None and follows and not (case.network and follows == case.low):
        errors, message = compare(case, outputs, twin(case, inputs, outputs) if follows == case.low else expected)
    return Verdict(errors, message, loss)


def _within_budget(case, expected):
    """Return Expected outputs in the dtype's budget; beyond ±1, where c can be but never h, the budget grows."""
    budget = BUDGETS[case.low]
    return {name: Expected(one.values, budget * max(1, np.abs(one.values).max())) for name, one in expected.items()}


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
    inputs = over(inputs, _wide)
    if case.operation == "train":
        inputs = inputs._replace(params=inputs.params[::-1])
    values, rng, sides, tie = _run(case, inputs), np.random.default_rng(0), SIDES[:1], 0.0
    if case.activation == "relu":
        if not all(np.abs(a).max() < np.finfo(case.number).max / 2 for a in values.values()):
            raise UnsupportedError(f"with relu and these weights its numbers grow beyond {case.number}")
        if case.operation in ("bptt", "train"):
            states = _compute(replace(case, operation="forward"), inputs)
            sides, tie = SIDES, max(one.bound for one in states.values())
    disturbed = [over(inputs, disturbing(case.number, rng, tie, side)) for side in sides]
    return _bounded(case, values, [partial(_run, case, one) for one in disturbed])


def _wide(array):
    return array.astype(np.float64)


def _bounded(case, values, erring):
    """Return what is Expected by name: these values, in the bounds that follow from functions that err, in turns."""
    moved = dict.fromkeys(values, float(np.finfo(case.number).tiny))
    times = max(len(erring), min(MOST, int(MANY_FLOPS / (case.calls * case.flops))))
    for err in islice(cycle(erring), times):
        for name, array in err().items():
            moved[name] = max(moved[name], _largest_difference(array, values[name]))
    return {name: Expected(array, ROOM * moved[name]) for name, array in values.items()}


def _run(case, inputs):
    with np.errstate(over="ignore", invalid="ignore"):
        prepared = prepare_cell(import_module(f"reference.{case.cell}"), stack, case, inputs)
        return prepared.outputs(prepared.call())


def twin(case, inputs, outputs):
    """Return what is Expected of each output of ours below float32, each step from the h before it in `outputs`.

    What enters a product is rounded before anything errs, so that it is the same number whatever errs behind it.
    """
    cell = import_module(f"reference.{case.cell}")
    params, x, state = over((inputs.params[0], inputs.x, inputs.state), _wide)
    hs = outputs.get("hs", outputs["state.h"][np.newaxis])
    given = [state.h, *np.clip(_wide(hs[:-1]), -1, 1)]
    factors = {"bfloat16": "values", "int8": "scales"}[case.low]  # of a Matrix, in sums that float32 rounds

    def run(change=lambda array: array):
        U, W, *biases = cell.prepare(params, case.low)
        for matrix in (U, W):
            setattr(matrix, factors, change(getattr(matrix, factors)))
        weights = cell.Params(U, W, *map(change, biases))
        last, hs = cell.State(*map(change, state)), []
        for x_t, h in zip(x, given, strict=True):
            last = cell.forward_step(weights, x_t, last._replace(h=h), **case.options)
            hs.append(last.h)
        return {name: array for name, array in named(cell.Output(np.stack(hs), last)).items() if name in outputs}

    disturb = disturbing(case.number, np.random.default_rng(0))
    return _bounded(case, run(), [partial(run, disturb)])


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
        if got.shape != want.shape or got.dtype != case.number:
            errors[name] = {"error": None, "bound": bound}
            faults.append(f"{name}: expected {case.number} {want.shape}, got {got.dtype} {got.shape}")
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
