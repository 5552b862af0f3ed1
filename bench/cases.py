"""What is timed: a `Case` is one cell of the grid, a preset a set of grids and the effort spent on each case."""

import os
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

GATES = {"rnn": 1}  # a cell's name and the blocks of H rows in its weights
OPERATIONS = ("forward_step", "forward", "bptt", "train")
DTYPES = ("float32", "float64")

OPTIONS = {
    "preset": "The grid to start from: quick, standard or limits.",
    "cell": "Cells, separated by commas.",
    "operation": "Operations: forward_step, forward, bptt, train.",
    "hidden": "Hidden sizes H.",
    "seq_len": "Sequence lengths T.",
    "batch": "Batch sizes B.",
    "input": "Input sizes I. By default 1 where B = 1, and H otherwise.",
    "dtype": "float32, float64.",
    "threads": "Thread counts; each gets processes of its own.",
    "implementations": "Who takes part: numpy, numba-jit, numba-simd, torch...",
}


class ChoiceError(ValueError):
    """A choice that cannot be met, in one line for the user."""


@dataclass(frozen=True)
class Case:
    cell: str
    operation: str
    hidden_size: int
    input_size: int
    seq_len: int
    batch_size: int
    dtype: str
    threads: int

    @property
    def id(self):
        sizes = f"H{self.hidden_size}-I{self.input_size}-T{self.seq_len}-B{self.batch_size}"
        return f"{self.cell}-{self.operation}-{sizes}-{self.dtype}-{self.threads}t"

    @property
    def flops(self):
        """Operations of one call: a multiply-add counts as two, and only matrix products count.

        With G blocks of H rows in the weights (G = 1 for the RNN), forward is 2 G H (I + H) for each of the T x B
        states. BPTT has two products where forward has one, by the weights and by their inputs: twice as many.
        """
        H, I = self.hidden_size, self.input_size
        forward = 2 * GATES[self.cell] * H * (I + H) * self.seq_len * self.batch_size
        return {"forward_step": 1, "forward": 1, "bptt": 2, "train": 3}[self.operation] * forward

    @property
    def bytes(self):
        """Bytes that one call must at least move between a core and the memory that holds its weights.

        The recurrent weights W are read once a step, since a state must be complete before the next one begins.
        Everything else is moved once. Forward: U and b, x, the initial state and hs. BPTT: U, x, hs, the initial
        state and dL/dhs, and the gradients of U, W, b, x and the initial state.
        """
        H, I, T, B = self.hidden_size, self.input_size, self.seq_len, self.batch_size
        rows = GATES[self.cell] * H
        weights = rows * (I + H + 1)
        forward = T * rows * H + rows * (I + 1) + T * B * (I + H) + B * H
        bptt = T * rows * H + rows * I + T * B * (I + 2 * H) + B * H + weights + T * B * I + B * H
        numbers = {"forward_step": forward, "forward": forward, "bptt": bptt, "train": forward + bptt}[self.operation]
        return numbers * (4 if self.dtype == "float32" else 8)


class Effort(NamedTuple):
    """How long to look at one case."""

    round_s: float  # the length of one round of one implementation; several calls if they are short
    fewest: int  # rounds, whatever they cost
    most: int  # rounds, however cheap they are
    case_s: float  # the time for all rounds of all implementations between these two


class Grid(NamedTuple):
    hidden: tuple
    batch: tuple
    seq_len: tuple = (50,)
    operation: tuple = OPERATIONS
    threads: tuple = (1,)
    dtype: tuple = ("float32",)
    input: tuple = (None,)  # None: 1 where B = 1, else H
    cell: tuple = ("rnn",)

    def cases(self):
        for cell, operation, H, T, B, I, dtype, threads in product(
            self.cell, self.operation, self.hidden, self.seq_len, self.batch, self.input, self.dtype, self.threads
        ):
            steps = 1 if operation == "forward_step" else T
            yield Case(cell, operation, H, I or (1 if B == 1 else H), steps, B, dtype, threads)


class Preset(NamedTuple):
    grids: tuple
    effort: Effort
    implementations: tuple | None = None  # None: all there are


PRESETS = {
    "quick": Preset(
        grids=(Grid(hidden=(16, 64, 256), batch=(1, 32), seq_len=(10, 50)),),
        effort=Effort(round_s=0.01, fewest=7, most=11, case_s=0.8),
        implementations=("numpy", "numba-jit", "numba-simd", "torch"),
    ),
    "standard": Preset(
        grids=(
            Grid(hidden=(16, 64, 128, 256, 512), batch=(1, 32), seq_len=(10, 50, 200), threads=(1, 2)),
            Grid(hidden=(64, 256), batch=(1, 32), dtype=("float64",)),
        ),
        effort=Effort(round_s=0.02, fewest=11, most=31, case_s=2.0),
    ),
    "limits": Preset(
        grids=(
            Grid(hidden=(16, 64, 100, 256, 512, 1024), batch=(1,), threads=(1, 2)),
            Grid(hidden=(128, 512), batch=(32,), threads=(1, 2)),
            Grid(hidden=(1024,), batch=(64,), threads=(1, 2)),
        ),
        effort=Effort(round_s=0.02, fewest=11, most=31, case_s=4.0),
    ),
}


def find_preset(name):
    """Return the preset of this name, or raise a ChoiceError."""
    if name not in PRESETS:
        raise ChoiceError(f"--preset: expected {_either(PRESETS)}, got {name!r}")
    return PRESETS[name]


def choose(preset, **choices):
    """Return the cases of a preset, with each given choice in the place of the preset's.

    Choices are the fields of `Grid`, as texts like "64,128"; None leaves the preset's. A preset's thread counts
    beyond this machine's CPUs are left out; asked for by name they are a ChoiceError, as is any other bad choice.
    """
    cpus = usable_cpus()
    given = {name: _parse(name, text, cpus) for name, text in choices.items() if text is not None}
    cases = {}
    for grid in find_preset(preset).grids:
        fitting = tuple(n for n in grid.threads if n <= cpus)
        cases |= dict.fromkeys(grid._replace(threads=fitting)._replace(**given).cases())
    order = {name: n for n, name in enumerate(OPERATIONS)}
    return sorted(cases, key=lambda c: (c.threads, c.cell, c.dtype, *_sizes(c), order[c.operation]))


def usable_cpus():
    """Return how many CPUs this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _sizes(case):
    return case.hidden_size, case.batch_size, case.input_size, case.seq_len


def _parse(name, text, cpus):
    option = "--" + name.replace("_", "-")
    words = [word.strip() for word in text.split(",")]
    names = {"cell": GATES, "operation": OPERATIONS, "dtype": DTYPES}.get(name)
    if names is not None:
        for word in words:
            if word not in names:
                raise ChoiceError(f"{option}: expected {_either(names)}, got {word!r}")
        return tuple(words)
    for word in words:
        if not (word.isascii() and word.isdigit() and int(word) > 0):
            raise ChoiceError(f"{option}: expected whole numbers of 1 or more, separated by commas, got {text!r}")
        if name == "threads" and int(word) > cpus:
            raise ChoiceError(f"{option}: expected at most {cpus}, the CPUs this process may use, got {word}")
    return tuple(int(word) for word in words)


def _either(names):
    *rest, last = names
    return f"{', '.join(rest)} or {last}" if rest else last
