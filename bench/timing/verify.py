"""Is it right? The gate before every timing.

Every output, for BPTT every gradient by name, is compared with the float64 reference on the same values. The error
of an array is its largest absolute difference, scaled by the largest magnitude in the reference's array. It may be

    8 * eps(dtype) * sqrt(n)

where n is the number of terms in the longest sum behind an element: I + H for states, outputs and their gradients;
for the gradients of weights, sums over all steps of such numbers, T * B + I + H. Rounding errors of n terms add
like sqrt(n), as their signs differ. They do not pile up over the steps, since weights within ±1/sqrt(H) and an
activation with a slope of at most 1 shrink what a step inherits. The factor 8 leaves room for another order
of summation and another tanh, not for a missing term, a lower precision or weights gone stale, which stand
orders of magnitude above it. NaN never passes.
"""

import math
from importlib import import_module
from pathlib import Path

import numpy as np

from bench.grid.inputs import widen
from bench.implementations import prepare_cell


def reference(case, inputs, path=None):
    """Return the reference's outputs by name, in float64, for the second call of a case.

    The second call of train takes the second set of weights: what was kept from the first call shows. With the path
    of a file, they are read from there, or computed and written there if it does not exist.
    """
    if path is None:
        return _compute(case, inputs)
    if not Path(path).exists():
        draft = Path(f"{path}.new")
        with draft.open("wb") as file:
            np.savez(file, **_compute(case, inputs))
        draft.replace(path)
    with np.load(path) as arrays:
        return dict(arrays)


def _compute(case, inputs):
    inputs = widen(inputs)
    if case.operation == "train":
        inputs = inputs._replace(params=inputs.params[::-1])
    prepared = prepare_cell(import_module(f"reference.{case.cell}"), case, inputs)
    return prepared.outputs(prepared.call())


def bound(case, name):
    """Return the largest scaled error that the output `name` of this case may have."""
    terms = case.input_size + case.hidden_size
    if name.startswith("params."):
        terms += case.seq_len * case.batch_size
    return float(8 * np.finfo(case.dtype).eps * math.sqrt(terms))


def compare(case, outputs, expected):
    """Return (errors, message): each output's error and bound by name, and why it is wrong, or None."""
    if outputs.keys() != expected.keys():
        return {}, f"outputs: expected {', '.join(expected)}, got {', '.join(outputs)}"
    errors, faults = {}, []
    for name, want in expected.items():
        got, limit = outputs[name], bound(case, name)
        if got.shape != want.shape or got.dtype != case.dtype:
            errors[name] = {"error": None, "bound": limit}
            faults.append(f"{name}: expected {case.dtype} {want.shape}, got {got.dtype} {got.shape}")
            continue
        error = float(np.max(np.abs(got - want)) / max(np.max(np.abs(want)), np.finfo(np.float64).tiny))
        errors[name] = {"error": error if math.isfinite(error) else None, "bound": limit}
        if not error <= limit:
            faults.append(f"{name}: error {error:.2g}, bound {limit:.2g}")
    return errors, "; ".join(faults) or None


def largest(errors):
    """Return the largest error as a share of its bound (1 or less is right), or None where one is not finite."""
    shares = [e["error"] / e["bound"] if e["error"] is not None else None for e in errors.values()]
    return None if not shares or None in shares else max(shares)
