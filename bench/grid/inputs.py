"""Seeded arrays for a Case."""

from importlib import import_module
from typing import NamedTuple

import numpy as np


class Inputs(NamedTuple):
    params: tuple  # two sets of weights, uniform in ±1/sqrt(H): train takes them in turn, the others the first
    x: np.ndarray  # (T, B, I), standard normal
    state: tuple  # the state before the first step, uniform in ±1
    grad_hs: np.ndarray  # (T, B, H), standard normal


def make(case, seed):
    """Return the Inputs of a case: the same for every implementation and thread count, of the case's `number`."""
    cell = import_module(f"reference.{case.cell}")
    H, I, T, B = case.hidden_size, case.input_size, case.seq_len, case.batch_size
    rng = np.random.default_rng([seed, H, I, T, B])
    params = tuple(cell.init_params(I, H, rng, case.number) for _ in range(2))
    state = cell.State(*(rng.uniform(-1, 1, (B, H)).astype(case.number) for _ in cell.State._fields))
    x = rng.standard_normal((T, B, I)).astype(case.number)
    grad_hs = rng.standard_normal((T, B, H)).astype(case.number)
    return Inputs(params, x, state, grad_hs)


def over(inputs, change):
    """Return nested tuples of arrays again, each array passed through `change`."""
    if isinstance(inputs, np.ndarray):
        return change(inputs)
    parts = [over(part, change) for part in inputs]
    return type(inputs)(*parts) if hasattr(inputs, "_fields") else tuple(parts)
