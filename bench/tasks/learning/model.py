"""What is learned: a recurrent cell and a linear head, `V h + d`, on its last state or on every state."""

from dataclasses import dataclass
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np

import reference.head

CELLS = ("rnn", "gru", "lstm")
ACTIVATIONS = ("sigmoid", "tanh")  # of the rnn; the other cells have theirs built in
LOSSES = ("last", "every", "softmax")
RUNGS = ("numpy", "numba-jit", "numba-simd")


class Batch(NamedTuple):
    """What one training step sees.

    The targets y are (B, O) for the loss "last", (T, B, O) for "every", and (T, B) indices of outputs for "softmax".
    """

    x: np.ndarray  # (T, B, I) numbers, or (T, B) the index of the one in each one-hot input
    y: np.ndarray
    fresh: bool = True  # starts from the zero state; else from the one that the batch before ended in


@dataclass(frozen=True)
class Model:
    """What is learned, whoever learns it.

    The losses are half the squared error of the "last" step's outputs or of those of "every" step (summed over the
    outputs, averaged over the rest), and the cross-entropy of a "softmax" on every step, in nats.
    With `truncate=k` the loss of the last step flows back through k earlier steps. A loss on every step is truncated
    by chunks: batches that are not `fresh`.
    """

    cell: str  # of CELLS
    input_size: int
    hidden_size: int
    output_size: int
    loss: str = "last"
    activation: str = "tanh"
    truncate: int | None = None
    bias: bool = True  # the biases learn; else they stay

    def __post_init__(self) -> None:
        for name, choices in (("cell", CELLS), ("loss", LOSSES), ("activation", ACTIVATIONS)):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}: expected {', '.join(choices)}, got {getattr(self, name)!r}")
        for name in ("input_size", "hidden_size", "output_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected 1 or more, got {getattr(self, name)}")
        if self.truncate is not None and (self.loss != "last" or self.truncate < 0):
            expected = "0 or more, or None" if self.loss == "last" else f"None with the loss {self.loss!r}"
            raise ValueError(f"truncate: expected {expected}, got {self.truncate}")

    @property
    def weight_names(self) -> tuple[str, ...]:
        """The names of the weights that learn."""
        names = (*cell("numpy", self.cell).Params._fields, *reference.head.Params._fields)
        return names if self.bias else tuple(name for name in names if name.isupper())


def cell(implementation: str, name: str) -> Any:
    """Return a cell of one of the rungs: the names of `reference.rnn`. A ValueError if there is none."""
    if name not in CELLS:
        raise ValueError(f"cell: expected {', '.join(CELLS)}, got {name!r}")
    if implementation == "numpy":
        return import_module(f"reference.{name}")
    if implementation == "numba-jit":
        return getattr(import_module("kernels.jit"), name)
    if implementation == "numba-simd":
        return import_module(f"kernels.{name}")
    raise ValueError(f"implementation: expected {', '.join(RUNGS)}, got {implementation!r}")
