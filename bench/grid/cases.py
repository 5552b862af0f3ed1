"""What is timed: a `Case` is one cell of the grid, a `Grid` all combinations of some sizes."""

import re
from dataclasses import dataclass
from itertools import product
from reprlib import repr as brief
from typing import NamedTuple

GATES = {"rnn": 1, "gru": 3, "lstm": 4}  # a cell's name and the blocks of H rows in its weights
KEPT = {"rnn": 0, "gru": 4, "lstm": 5}  # the arrays (T, B, H) that forward keeps for BPTT beside hs
CALLS = ("forward_step", "forward", "bptt", "train")
STREAM = "stream"  # T calls of a step each, of which every one is timed
OPERATIONS = (*CALLS, STREAM)
STEPS = ("forward_step", STREAM)  # operations of which a call is one step
DTYPES = ("float32", "float64")
LENGTHS = ("full", "ragged")
ACTIVATIONS = ("tanh", "relu", "sigmoid")  # of the rnn

# Below float32: how far an output within ±1 may be from that of the weights as they were given. In bfloat16 it is 16
# roundings of up to 2^-9 each, in int8 some 13 steps of 1/127; behind that it is another network that answers.
BUDGETS = {"bfloat16": 2**-5, "int8": 0.1}
LOW = tuple(BUDGETS)
LOW_OPERATIONS = ("forward_step", "forward", STREAM)
BYTES = {"float32": 4, "float64": 8, "bfloat16": 2, "int8": 1}


class ChoiceError(ValueError):
    """A choice that cannot be met, in one line for the user, whatever a file's names and cells hold."""

    def __init__(self, text: object):
        super().__init__(one_line(text))


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
    layers: int = 1
    directions: int = 1
    lengths: str = "full"
    model: str = ""  # the network that people run it in, or the layer's name in a file
    activation: str = "tanh"  # of the rnn: the other cells have nothing else

    @property
    def id(self):
        model = re.sub(r"\W+", "_", self.model) + "-" if self.model else ""
        layers = f"-L{self.layers}" if self.layers > 1 else ""
        directions = f"-D{self.directions}" if self.directions > 1 else ""
        sizes = f"H{self.hidden_size}-I{self.input_size}-T{self.seq_len}-B{self.batch_size}"
        lengths = f"-{self.lengths}" if self.lengths != "full" else ""
        activation = f"-{self.activation}" if self.activation != "tanh" else ""
        operation = f"{self.cell}{activation}{layers}{directions}-{self.operation}"
        return f"{model}{operation}-{sizes}{lengths}-{self.dtype}-{self.threads}t"

    def __str__(self):
        return self.id

    @property
    def network(self):
        """Whether it is more than one layer of one direction over sequences of one length."""
        return self.layers > 1 or self.directions > 1 or self.lengths != "full"

    @property
    def options(self):
        """What the functions of its cell take by name, in `reference` and `kernels`."""
        return {"activation": self.activation} if self.activation != "tanh" else {}

    @property
    def steps(self):
        """The lengths (B,) of the sequences, uniform from T/2 to T and the same for each T and B; None if all are T."""
        if self.lengths == "full":
            return None
        import numpy as np  # not for --help

        T, B = self.seq_len, self.batch_size
        return np.random.default_rng([T, B]).integers((T + 1) // 2, T, B, endpoint=True)

    @property
    def inputs(self):
        """The input size of each layer."""
        return [self.input_size] + [self.directions * self.hidden_size] * (self.layers - 1)

    @property
    def calls(self):
        """How many calls are verified together: the steps of a stream."""
        return self.seq_len if self.operation == STREAM else 1

    @property
    def _longest(self):
        """How many steps one call takes through time."""
        if self.operation in STEPS:
            return 1
        return self.seq_len if self.steps is None else int(self.steps.max())

    @property
    def _rows(self):
        """How many steps all sequences have together, in one call."""
        if self.operation in STEPS:
            return self.batch_size
        return self.seq_len * self.batch_size if self.steps is None else int(self.steps.sum())

    @property
    def low(self):
        """The dtype, if it is one below float32, which only U, W and what they are multiplied with have; or None."""
        return self.dtype if self.dtype in LOW else None

    @property
    def number(self):
        """The dtype of all arrays that go in and out."""
        return "float32" if self.low else self.dtype

    @property
    def flops(self):
        """Operations of one call: a multiply-add counts as two, and only matrix products count.

        With G blocks of H rows in the weights (RNN 1, GRU 3, LSTM 4), forward is 2 G H (I + H) for each of the T x B
        states, or of as many as the sequences have, in each layer, with its own I, and direction. BPTT has two products
        where forward has one, by the weights and by their inputs: twice as many.
        """
        H = self.hidden_size
        forward = sum(2 * GATES[self.cell] * H * (I + H) for I in self.inputs) * self.directions * self._rows
        return {"bptt": 2, "train": 3}.get(self.operation, 1) * forward

    @property
    def bytes(self):
        """Bytes that one call must at least move between a core and the memory that holds its weights.

        The recurrent weights W are read once a step, since a state must be complete before the next one begins.
        Everything else is moved once. Forward: U and the biases, x, the initial state, hs and the LSTM's last c.
        BPTT: U, x, hs, the initial state, dL/dhs and what forward kept for it (GRU: three gates and W_n h + c; LSTM:
        four gates and the cs), and the gradients of U, W, the biases, x and the initial state. Training: both, and
        what forward keeps is written before it is read. Below float32 U and W are smaller, and all else is float32.
        Of a network it is the sum over layers and directions, but for a layer's input and its gradient, which the
        directions share; steps behind a sequence's end are not there.
        """
        return sum(self._layer_bytes(I) for I in self.inputs)

    @property
    def walks(self):
        """The bytes of each recurrent matrix W, of a layer in a direction, and how often one call reads it: each step.

        Training reads it on the way forward and back.
        """
        size = GATES[self.cell] * self.hidden_size**2 * BYTES[self.dtype]
        return [(size, self._longest * (2 if self.operation == "train" else 1))] * (self.layers * self.directions)

    @property
    def chain(self):
        """How many steps of one call wait for each other, forward and back."""
        ahead = self.layers - 1 + self._longest
        return (0 if self.operation == "bptt" else ahead), (ahead if self.operation in ("bptt", "train") else 0)

    def _layer_bytes(self, I):
        H, B, D, rows = self.hidden_size, self.batch_size, self.directions, GATES[self.cell] * self.hidden_size
        biases = rows + (H if self.cell == "gru" else 0)
        last_c = B * H if self.cell == "lstm" else 0
        state, kept = B * H + last_c, KEPT[self.cell] * self._rows * H
        weights = D * (self._longest * rows * H + rows * I)
        forward = D * (biases + self._rows * H + state + last_c) + self._rows * I
        read = D * (2 * self._rows * H + state + kept) + self._rows * I
        gradients = D * (rows * (I + H) + biases + state) + self._rows * I
        bptt = read + gradients
        train = forward + D * kept + bptt
        numbers = {"bptt": bptt, "train": train}.get(self.operation, forward)
        times = 2 if self.operation == "train" else 1
        return times * weights * BYTES[self.dtype] + numbers * BYTES[self.number]


class Grid(NamedTuple):
    """All combinations of these, but for those below float32 that are no inference, and those of single steps, which
    have no end to begin from: two directions, or lengths.
    """

    hidden: tuple
    batch: tuple
    seq_len: tuple = (50,)
    operation: tuple = CALLS
    threads: tuple = (1,)
    dtype: tuple = ("float32",)
    input: tuple = (None,)  # None: 1 where B = 1, else H
    cell: tuple = ("rnn",)
    layers: tuple = (1,)
    directions: tuple = (1,)
    lengths: tuple = ("full",)
    model: tuple = ("",)  # see `Case`
    activation: tuple = ("tanh",)  # of the rnn; the other cells have tanh, whatever stands here

    def cases(self):
        sizes = (self.hidden, self.seq_len, self.batch, self.input)
        networks = (self.layers, self.directions, self.lengths, self.model)
        for cell, operation, H, T, B, I, dtype, threads, L, D, lengths, model, activation in product(
            self.cell, self.operation, *sizes, self.dtype, self.threads, *networks, self.activation
        ):
            endless = D > 1 or lengths != "full"
            if (dtype in LOW and operation not in LOW_OPERATIONS) or (operation in STEPS and endless):
                continue
            inputs, steps = I or (1 if B == 1 else H), 1 if operation == "forward_step" else T
            activation = activation if cell == "rnn" else "tanh"
            yield Case(cell, operation, H, inputs, steps, B, dtype, threads, L, D, lengths, model, activation)


MOST_NAME = 100  # characters

# The fields of a Grid that are of a few names.
NAMES = {
    "cell": tuple(GATES),
    "operation": OPERATIONS,
    "dtype": (*DTYPES, *LOW),
    "lengths": LENGTHS,
    "activation": ACTIVATIONS,
}


def parse(name, text, where):
    """Return the values of a Grid's field in a text like "64,128", or raise a ChoiceError that begins with `where`."""
    words = [word.strip() for word in text.split(",")]
    if name in NAMES:
        return check(name, words, where)
    if not all(word.isascii() and word.isdigit() and len(word) < 10 and int(word) > 0 for word in words):
        raise ChoiceError(f"{where}: expected whole numbers of 1 or more, separated by commas, got {text!r}")
    return check(name, [int(word) for word in words], where)


def check(name, values, where):
    """Return a list of values for a Grid's field as a tuple, or raise a ChoiceError that begins with `where`."""
    if not isinstance(values, list) or not values:
        raise ChoiceError(f"{where}: expected a list with something in it, got {brief(values)}")
    for value in values:
        if name == "model":
            if not (isinstance(value, str) and len(value) <= MOST_NAME and value.isprintable()):
                raise ChoiceError(
                    f"{where}: expected names of a line, at most {MOST_NAME} characters, got {brief(value)}"
                )
            continue
        if name in NAMES and value not in NAMES[name]:
            raise ChoiceError(f"{where}: expected {either(NAMES[name])}, got {brief(value)}")
        if name not in NAMES and not (type(value) is int and value > 0):
            raise ChoiceError(f"{where}: expected whole numbers of 1 or more, got {brief(value)}")
        if name == "directions" and value > 2:
            raise ChoiceError(f"{where}: expected 1 or 2, got {brief(value)}")
    return tuple(values)


def either(names):
    """Return "a, b or c"."""
    *rest, last = names
    return f"{', '.join(rest)} or {last}" if rest else last


def one_line(text: object) -> str:
    """Return a text in one line without what a terminal obeys: colours go, tabs and line ends are blanks, others ?."""
    return harmless(re.sub(r"[\t\n]+", " ", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", str(text))))


def harmless(text: str) -> str:
    """Return a text without what a terminal obeys: control characters but line ends and tabs, and turned writing."""
    return re.sub("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", "?", text)
