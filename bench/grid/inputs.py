"""Seeded arrays for a Case."""

from importlib import import_module
from typing import NamedTuple

import numpy as np

from reference import stack


class Inputs(NamedTuple):
    """Of a network params and states are those of each layer and direction, as in `reference.stack`."""

    params: tuple  # two sets of weights, uniform in ±1/sqrt(H): train takes them in turn, the others the first
    x: np.ndarray  # (T, B, I), standard normal
    state: tuple  # the state before the first step, uniform in ±1
    grad_hs: np.ndarray  # (T, B, D H), standard normal
    lengths: np.ndarray | None = None  # (B,), those of `Case.steps`


def make(case, seed, weights=None):
    """Return the Inputs of a case: the same for every implementation and thread count, of the case's `number`.

    The first set of weights is that in a file of `keep`, where one is named.
    """
    cell = import_module(f"reference.{case.cell}")
    H, I, T, B = case.hidden_size, case.input_size, case.seq_len, case.batch_size
    rng = np.random.default_rng([seed, H, I, T, B])
    L, D = case.layers, case.directions

    def draw_params():
        if case.network:
            return stack.init_params(cell, I, H, L, D == 2, rng=rng, dtype=case.number)
        return cell.init_params(I, H, rng, case.number)

    def draw_state():
        return cell.State(*(rng.uniform(-1, 1, (B, H)).astype(case.number) for _ in cell.State._fields))

    params = (_kept(weights, cell, case) if weights else draw_params(), draw_params())
    state = tuple(tuple(draw_state() for _ in range(D)) for _ in range(L)) if case.network else draw_state()
    x = rng.standard_normal((T, B, I)).astype(case.number)
    grad_hs = rng.standard_normal((T, B, D * H)).astype(case.number)
    return Inputs(params, x, state, grad_hs, case.steps)


def of_model(inputs, seed):
    """Return the arrays that a whole model of a file takes, told by names as (dtype, shape, value).

    Numbers with a fraction are normal. Whole numbers are the value; where that is None 0, the index of a token that
    every table has; but lengths, which are called so, are those of the sequences.
    """
    rng = np.random.default_rng(seed)
    steps = max((shape[1] for _, shape, _ in inputs.values() if len(shape) > 1), default=1)
    found = {}
    for name, (dtype, shape, value) in inputs.items():
        if np.dtype(dtype).kind == "f":
            found[name] = np.asarray(rng.standard_normal(shape), dtype)
        else:
            usual = steps if "len" in name.lower() else 0
            found[name] = np.full(shape, usual if value is None else value, dtype)
    return found


def keep(path, network):
    """Write the Params of each layer and direction to a file, for `make`."""
    arrays = [a for layer in network for one in layer for a in one]
    np.savez(path, **{str(n): a for n, a in enumerate(arrays)})


def _kept(path, cell, case):
    with np.load(path, allow_pickle=False) as file:
        arrays = iter([np.ascontiguousarray(file[str(n)], case.number) for n in range(len(file.files))])
    fields = len(cell.Params._fields)
    network = tuple(
        tuple(cell.Params(*(next(arrays) for _ in range(fields))) for _ in range(case.directions))
        for _ in range(case.layers)
    )
    return network if case.network else network[0][0]


def over(inputs, change):
    """Return nested tuples of arrays again, each array of numbers passed through `change`: no lengths, and no None."""
    if inputs is None:
        return None
    if isinstance(inputs, np.ndarray):
        return change(inputs) if inputs.dtype.kind == "f" else inputs
    parts = [over(part, change) for part in inputs]
    return type(inputs)(*parts) if hasattr(inputs, "_fields") else tuple(parts)
