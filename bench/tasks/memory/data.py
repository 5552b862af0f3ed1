"""What long memory costs: the adding problem and the copy task (Hochreiter and Schmidhuber 1997).

Both are drawn anew for every epoch, and can be made as long as one likes: what has to be kept is kept over T steps.
"""

import math

import numpy as np

from bench.grid.cases import ChoiceError
from bench.tasks.learning.model import Batch
from bench.tasks.learning.training import Course, Data, Settings, Split

ADDING = Settings(hidden=64, epochs=60, batch=50, learning_rate=0.005, truncate=999, clip_norm=1.0, goal=0.01, seeds=3)
COPY = Settings(hidden=64, epochs=100, batch=50, learning_rate=0.01, truncate=999, clip_norm=1.0, goal=1.0, seeds=3)
BATCHES = 20  # in an epoch
RECORDS = 500  # that errors are measured on
SYMBOLS, COPIED = 8, 5  # the alphabet of the copy task, and how many of it are to be kept in mind


class Drawn(Course):
    """A task whose records are drawn, `draw(count, rng)`, as many as are wanted."""

    constant: float  # the error of who remembers nothing

    def __init__(self, settings: Settings, length: int, loss: str, sizes: tuple[int, int]):
        if length < 2:
            raise ChoiceError(f"--length: expected a whole number of 2 or more, got {length}")
        self.length = length
        train, validation = (self.draw(RECORDS, np.random.default_rng([seed, length])) for seed in (7, 8))
        super().__init__(settings, Data(train, validation), loss, sizes)

    @property
    def records(self) -> int:
        return BATCHES * self.settings.batch

    def draw(self, count: int, rng: np.random.Generator) -> Split:
        raise NotImplementedError

    def batches(self, rng: np.random.Generator) -> list[Batch]:
        return [Batch(*self.draw(self.settings.batch, rng)) for _ in range(BATCHES)]


class Adding(Drawn):
    """T pairs of a number from 0 to 1 and a mark; two of them are marked, and their sum is asked for at the end.

    One mark lies in the first half of the sequence and one in the second. Who says 1 to everything has an MSE of 1/6.
    """

    name = "adding"
    measure = "MSE"
    constant = 1 / 6

    def __init__(self, settings: Settings, length: int = 30):
        super().__init__(settings, length, "last", (2, 1))

    def draw(self, count: int, rng: np.random.Generator) -> Split:
        T = self.length
        x = np.zeros((T, count, 2), np.float32)
        x[..., 0] = rng.random((T, count), np.float32)
        half = T // 2
        marked = np.stack([rng.integers(half, size=count), rng.integers(half, T, size=count)])
        records = np.arange(count)
        x[marked, records, 1] = 1
        return Split(x, x[marked, records, 0].sum(axis=0)[:, np.newaxis])

    def error(self, outputs: np.ndarray, y: np.ndarray) -> float:
        return float(np.mean(np.square(outputs - y, dtype=np.float64)))


class Copy(Drawn):
    """COPIED symbols of SYMBOLS, a wait of T steps, a sign, and then the symbols are to be said again.

    The error is the cross-entropy of the symbols to be said, in bits each; who has forgotten them needs 3 of 8.
    """

    name = "copy"
    measure = "bits a symbol"
    constant = math.log2(SYMBOLS)

    def __init__(self, settings: Settings, length: int = 20):
        super().__init__(settings, length, "softmax", (SYMBOLS + 2, SYMBOLS + 1))

    def draw(self, count: int, rng: np.random.Generator) -> Split:
        blank, sign = SYMBOLS, SYMBOLS + 1
        T = 2 * COPIED + self.length
        symbols = rng.integers(SYMBOLS, size=(COPIED, count))
        x, y = np.full((T, count), blank), np.full((T, count), blank)
        x[:COPIED] = symbols
        x[-COPIED - 1] = sign
        y[-COPIED:] = symbols
        return Split(x, y)

    def error(self, outputs: np.ndarray, y: np.ndarray) -> float:
        said, symbols = outputs[-COPIED:].astype(np.float64), y[-COPIED:]
        said -= said.max(axis=-1, keepdims=True)
        chosen = np.take_along_axis(said, symbols[..., np.newaxis], axis=-1)[..., 0]
        return float(np.mean(np.log(np.exp(said).sum(axis=-1)) - chosen) / math.log(2))
