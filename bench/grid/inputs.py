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


def make(case, seed):
    """Return the Inputs of a case: the same for every implementation and thread count, of the case's `number`."""
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

    params = (draw_params(), draw_params())
    state = tuple(tuple(draw_state() for _ in range(D)) for _ in range(L)) if case.network else draw_state()
    x = rng.standard_normal((T, B, I)).astype(case.number)
    grad_hs = rng.standard_normal((T, B, D * H)).astype(case.number)
    return Inputs(params, x, state, grad_hs, case.steps)


def over(inputs, change):
    """Return nested tuples of arrays again, each array of numbers passed through `change`: no lengths, and no None."""
    if inputs is None:
        return None
    if isinstance(inputs, np.ndarray):
        return change(inputs) if inputs.dtype.kind == "f" else inputs
    parts = [over(part, change) for part in inputs]
    return type(inputs)(*parts) if hasattr(inputs, "_fields") else tuple(parts)
