"""Training: several implementations learn the same model from the same weights and batches, epoch by epoch in turn.

Taking turns in one process lets whatever slows the machine down hit all of them alike, so that the ratio of their
times for one epoch means something. The clock runs during the epoch's training steps alone: not while the error is
measured after it, and not while code is compiled before the first.
"""

import math
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
from threadpoolctl import threadpool_limits

from bench.cases import ChoiceError
from bench.tasks import learners
from bench.tasks.model import ACTIVATIONS, Batch, Model, Network, init_weights, init_weights_unit
from bench.tasks.optimizers import SLOTS, Optimizer

FAN_IN, UNIT = "±1/sqrt(hidden)", "0 to 1"

Outcome = Literal["finished", "interrupted", "diverged"]
S = TypeVar("S")  # the settings of a task, a dataclass


class Split(NamedTuple):
    x: np.ndarray  # (T, N, I)  N records
    y: np.ndarray  # (N, O)     their targets


class Data(NamedTuple):
    train: Split
    validation: Split


@dataclass(frozen=True)
class Settings:
    """How a task is trained, as the command line has it; a setting out of range raises a ChoiceError."""

    activation: str = "tanh"
    hidden: int = 100
    epochs: int = 100
    batch: int = 20
    optimizer: str = "adam"
    learning_rate: float = 0.002
    truncate: int = 5  # the loss's gradient flows back through so many earlier steps
    clip: float = 1.0  # bound on every element of the gradients
    seed: int = 0
    bias: bool = True
    weights: str = FAN_IN  # the range they are drawn from

    def __post_init__(self) -> None:
        for name, choices in (("activation", ACTIVATIONS), ("optimizer", tuple(SLOTS))):
            self._expect(name, " or ".join(choices), getattr(self, name) in choices)
        for name, least in (("hidden", 1), ("epochs", 1), ("batch", 1), ("truncate", 0), ("seed", 0)):
            self._expect(name, f"a whole number of {least} or more", getattr(self, name) >= least)
        for name in ("learning_rate", "clip"):
            self._expect(name, "a number above 0", 0 < getattr(self, name) < math.inf)

    def _expect(self, name: str, expected: str, met: bool) -> None:
        if not met:
            raise ChoiceError(f"--{name.replace('_', '-')}: expected {expected}, got {getattr(self, name)!r}")


def choose(base: S, **texts: str | None) -> S:
    """Return `base` with each text that is given in the place of its setting, or raise a ChoiceError."""
    chosen: dict[str, Any] = {}
    for name, text in texts.items():
        if text is None:
            continue
        kind = type(getattr(base, name))
        try:
            chosen[name] = kind(text)
        except ValueError:
            expected = "a whole number" if kind is int else "a number"
            raise ChoiceError(f"--{name.replace('_', '-')}: expected {expected}, got {text!r}") from None
    return replace(base, **chosen)  # type: ignore[type-var]


@dataclass
class History:
    """What each epoch brought. The errors have one entry more, their first: before any training."""

    seconds: list[float] = field(default_factory=list)
    train_rmse: list[float] = field(default_factory=list)
    validation_rmse: list[float] = field(default_factory=list)

    def epochs_to(self, rmse: float) -> int | None:
        """Return the epochs until the validation error was first `rmse` or less; None if it never was."""
        return next((epoch for epoch, error in enumerate(self.validation_rmse) if error <= rmse), None)

    def seconds_to(self, rmse: float) -> float | None:
        """Return the seconds of training until then."""
        epochs = self.epochs_to(rmse)
        return None if epochs is None else sum(self.seconds[:epochs])


class Learner:
    """One implementation at work: its model, weights and optimizer, and what it has been through."""

    def __init__(self, implementation: str, settings: Settings, data: Data):
        draw = init_weights_unit if settings.weights == UNIT else init_weights
        rng = np.random.default_rng(settings.seed)
        self.implementation = implementation
        self.settings = settings
        self.data = data
        I, O = data.train.x.shape[2], data.train.y.shape[1]
        self.model = Model("rnn", I, settings.hidden, O, "last", settings.activation, settings.truncate, settings.bias)
        self.network = Network(self.model, implementation)
        self.first_weights = draw(self.model, rng, data.train.x.dtype)
        self.history = History()
        self.compile_s = 0.0
        self._start()

    def _start(self) -> None:
        optimizer = Optimizer(self.settings.optimizer, self.settings.learning_rate, self.settings.clip)
        self.learner = learners.make(self.implementation, self.model, optimizer, self.first_weights)

    @property
    def weights(self):
        return self.learner.weights()

    def warm_up(self) -> None:
        """Compile everything that training calls, for the shapes it has, and note what that took.

        `compile_s` is what a first pass takes beyond a second one: compiling, or loading the compiled code from disk.
        """
        sizes = {self.settings.batch, len(self.data.train.y) % self.settings.batch or self.settings.batch}
        passes = []
        for _ in range(2):
            start = time.perf_counter()
            self.learner.learn([Batch(*batch(self.data.train, np.arange(size))) for size in sizes])
            self._measure()
            passes.append(time.perf_counter() - start)
        self.compile_s = max(0.0, passes[0] - passes[1])
        self.history = History()
        self._start()
        self._measure()

    def epoch(self, batches: Sequence[Split]) -> None:
        """Take one step for each batch, then measure the errors."""
        start = time.perf_counter()
        self.learner.learn(Batch(x, y) for x, y in batches)
        self.history.seconds.append(time.perf_counter() - start)
        self._measure()

    def _measure(self) -> None:
        self.history.train_rmse.append(rmse(self.predict(self.data.train.x), self.data.train.y))
        self.history.validation_rmse.append(rmse(self.predict(self.data.validation.x), self.data.validation.y))

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Return the predictions (B, O) for x (T, B, I)."""
        return self.network.predict(self.weights, x)[0]


def rmse(prediction: np.ndarray, y: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(prediction - y, dtype=np.float64))))


def batch(split: Split, records: np.ndarray) -> Split:
    return Split(np.ascontiguousarray(split.x[:, records]), split.y[records])


def batches(split: Split, size: int, rng: np.random.Generator) -> list[Split]:
    """Return all records in batches of `size`, in an order drawn from `rng`; the last batch may be smaller."""
    order = rng.permutation(len(split.y))
    return [batch(split, order[start : start + size]) for start in range(0, len(order), size)]


def race(learners: Sequence[Learner], after_epoch: Callable[[int], None] = lambda epoch: None) -> Outcome:
    """Train all learners in turn, on one thread, and return how it ended.

    Ctrl-C ends the training after the epoch in work, and so does an error that is no longer finite.
    `after_epoch` gets the number of epochs done.
    """
    settings, data = learners[0].settings, learners[0].data
    rng = np.random.default_rng([settings.seed, 1])
    with threads(1), np.errstate(over="ignore", invalid="ignore"):
        for learner in learners:
            learner.warm_up()
        with ctrl_c() as pressed:
            for epoch in range(1, settings.epochs + 1):
                shared = batches(data.train, settings.batch, rng)
                for learner in learners if epoch % 2 else reversed(learners):
                    learner.epoch(shared)
                after_epoch(epoch)
                if not all(math.isfinite(learner.history.train_rmse[-1]) for learner in learners):
                    return "diverged"
                if pressed() and epoch < settings.epochs:
                    return "interrupted"
    return "finished"


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let NumPy, PyTorch and the kernels use so many threads; the kernels only if they are loaded by now."""
    with threadpool_limits(count):
        if "numba" not in sys.modules:
            yield
            return
        import numba

        before = numba.get_num_threads()
        numba.set_num_threads(count)
        try:
            yield
        finally:
            numba.set_num_threads(before)


@contextmanager
def ctrl_c() -> Iterator[Callable[[], bool]]:
    """Give a function that tells whether Ctrl-C was pressed; pressed again, it interrupts at once."""
    presses: list[int] = []

    def press(number, frame):
        presses.append(number)
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, press)
    try:
        yield lambda: bool(presses)
    finally:
        signal.signal(signal.SIGINT, before)
