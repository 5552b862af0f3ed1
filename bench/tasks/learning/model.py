"""What is learned: a recurrent cell, or a network of them, and a linear head, `V h + d`, on the last or every state."""

from dataclasses import dataclass
from functools import partial
from importlib import import_module
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

import reference.head
from bench.tasks.learning.forms import later

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
    With `truncate=k` the loss of the last step flows back through k earlier steps, in one layer of one direction. A
    loss on every step is truncated by chunks: batches that are not `fresh`.
    Of two directions the head sees both, side by side: the last state of each, or the states of every step.
    """

    cell: str  # of CELLS
    input_size: int
    hidden_size: int
    output_size: int
    loss: str = "last"
    activation: str = "tanh"
    truncate: int | None = None
    bias: bool = True  # the biases learn; else they stay
    layers: int = later(1)
    directions: int = later(1)  # 2: forward and backward

    def __post_init__(self) -> None:
        for name, choices in (("cell", CELLS), ("loss", LOSSES), ("activation", ACTIVATIONS)):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}: expected {', '.join(choices)}, got {getattr(self, name)!r}")
        for name in ("input_size", "hidden_size", "output_size", "layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected 1 or more, got {getattr(self, name)}")
        if self.directions not in (1, 2):
            raise ValueError(f"directions: expected 1 or 2, got {self.directions}")
        if self.truncate is not None and self.network:
            raise ValueError(f"truncate: expected None in more than one layer or direction, got {self.truncate}")
        if self.truncate is not None and (self.loss != "last" or self.truncate < 0):
            expected = "0 or more, or None" if self.loss == "last" else f"None with the loss {self.loss!r}"
            raise ValueError(f"truncate: expected {expected}, got {self.truncate}")

    @property
    def network(self) -> bool:
        """Whether there is more than one layer of one direction."""
        return self.layers > 1 or self.directions > 1

    @property
    def chains(self) -> tuple[str, ...]:
        """What the names of weights and states end in, for each layer and direction: as PyTorch's, the first in ""."""
        found = [f"_l{layer}{way}" for layer in range(self.layers) for way in ("", "_reverse")[: self.directions]]
        return ("", *found[1:])

    @property
    def weight_names(self) -> tuple[str, ...]:
        """The names of the weights that learn."""
        fields = cell("numpy", self.cell).Params._fields
        names = (*(name + chain for chain in self.chains for name in fields), *reference.head.Params._fields)
        return names if self.bias else tuple(name for name in names if name[0].isupper())


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


def stack(implementation: str, name: str) -> Any:
    """Return networks of one of the rungs' cells, whose functions are called as the cell's are."""
    module = import_module("kernels.stack" if implementation == "numba-simd" else "reference.stack")
    functions = [f for f in ("prepare", "forward_step", "stream", "infer", "forward", "bptt") if hasattr(module, f)]
    return SimpleNamespace(**{f: partial(getattr(module, f), cell(implementation, name)) for f in functions})
