"""Training: several implementations learn the same model from the same weights and batches, epoch by epoch in turn.

Each has a process of its own, and one works at a time: whatever slows the machine down hits all of them alike, so that
the ratio of their times means something. The clock runs in that process during an epoch's training steps alone: not
while the error is measured after it, which one and the same network does for all, and not while code is compiled
before the first. The whole is repeated with other seeds, since how soon a goal is met is a matter of luck, too.

A race can be kept between two epochs and gone on with, to the errors of one that was never cut short.
"""

import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import numpy as np
from threadpoolctl import threadpool_limits

from bench.grid.cases import ChoiceError
from bench.tasks.learning.checkpoint import Arrays, Tree, fingerprint
from bench.tasks.learning.forms import expect, later, read
from bench.tasks.learning.learners import check, check_arrays, obstacle
from bench.tasks.learning.learners.apart import Apart
from bench.tasks.learning.model import ACTIVATIONS, CELLS, Batch, Model
from bench.tasks.learning.network import Network
from bench.tasks.learning.optimizers import SLOTS, Optimizer
from bench.tasks.learning.weights import Weights, init_weights, init_weights_unit, shapes
from bench.tasks.learning.weights import check as check_weights
from kernels.core.threads.cpus import usable_cpus

FAN_IN, UNIT = "±1/sqrt(hidden)", "0 to 1"
RACE = ("numpy", "numba-simd", "torch", "jax")  # who races if nobody is named, of those that can
KEEP = 30.0  # seconds after which a race is kept again
FAR = 2.0  # times the error before any training: who ends beyond that has learned nothing,
PATIENCE = 20  # nor will who has been there so many looks in a row

Outcome = Literal["finished", "interrupted", "diverged"]
S = TypeVar("S")  # the settings of a task, a dataclass
C = TypeVar("C", bound="Course")


class Split(NamedTuple):
    x: np.ndarray  # (T, N, I) numbers, or (T, N) indices: N records
    y: np.ndarray  # their targets, (N, O) or (T, N, ...): see `bench.tasks.learning.model.Batch`


class Data(NamedTuple):
    train: Split
    validation: Split


class Checked:
    """Settings that check themselves, by the names of their options."""

    threads: int

    def _expect(self, name: str, expected: str, met: bool) -> None:
        if not met:
            raise ChoiceError(f"--{name.replace('_', '-')}: expected {expected}, got {getattr(self, name)!r}")

    def _expect_threads(self) -> None:
        most, why = usable_threads()
        self._expect("threads", "a whole number of 1 or more", self.threads >= 1)
        self._expect("threads", f"at most {most}, {why}", self.threads <= most)


@dataclass(frozen=True)
class Settings(Checked):
    """How a task is trained, as the command line has it; a setting out of range raises a ChoiceError."""

    cell: str = "rnn"
    activation: str = "tanh"  # of the rnn
    hidden: int = 100
    epochs: int = 100
    batch: int = 20
    optimizer: str = "adam"
    learning_rate: float = 0.002
    truncate: int = 5  # the loss's gradient flows back through so many earlier steps
    clip: float = math.inf  # bound on every element of the gradients
    clip_norm: float = math.inf  # bound on the norm of all gradients together
    goal: float = 0.02  # the validation error that the race is to
    seed: int = 0
    seeds: int = 5  # trainings, with so many seeds from `seed` on
    threads: int = 1
    bias: bool = True
    weights: str = FAN_IN  # the range they are drawn from
    layers: int = later(1)
    bidirectional: bool = later(False)

    def __post_init__(self) -> None:
        for name, choices in (("cell", CELLS), ("activation", ACTIVATIONS), ("optimizer", tuple(SLOTS))):
            self._expect(name, " or ".join(choices), getattr(self, name) in choices)
        for name in ("hidden", "epochs", "batch", "seeds", "layers"):
            self._expect(name, "a whole number of 1 or more", getattr(self, name) >= 1)
        self._expect_threads()
        for name in ("truncate", "seed"):
            self._expect(name, "a whole number of 0 or more", getattr(self, name) >= 0)
        for name in ("learning_rate", "goal"):
            self._expect(name, "a number above 0", 0 < getattr(self, name) < math.inf)
        for name in ("clip", "clip_norm"):
            self._expect(name, "a number above 0", getattr(self, name) > 0)
        self._expect("activation", f"tanh for the cell {self.cell}", self.cell == "rnn" or self.activation == "tanh")


def usable_threads() -> tuple[int, str]:
    """Return how many threads a training may have at most, and in words what they are bounded by."""
    cpus = usable_cpus(), "the CPUs this process may use"
    numba = os.environ.get("NUMBA_NUM_THREADS", "")
    return min(cpus, (int(numba), "which NUMBA_NUM_THREADS allows")) if numba.isdecimal() and int(numba) else cpus


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


class Course:
    """A task as a race runs it: its data, the model that learns them, and how its errors are measured.

    This one draws its batches from the training records, in another order for each epoch.
    """

    name = ""  # of the task, as in its command
    measure = "RMSE"
    judge = "validation"  # the records whose error is to meet the goal, "train" where little can be foretold

    def __init__(self, settings: Settings, data: Data, loss: str = "last", sizes: tuple[int, int] | None = None):
        """Take data of numbers, or of indices; those need `sizes`, how many inputs and outputs there are."""
        x, y = data.train
        T, records = x.shape[:2]
        if settings.batch > records:
            raise ChoiceError(f"--batch: expected at most {records}, the training records, got {settings.batch}")
        input_size, output_size = sizes or (x.shape[2], y.shape[-1])
        reach = settings.truncate if loss == "last" and settings.truncate + 1 < T else None
        if reach is not None and (settings.layers > 1 or settings.bidirectional):
            raise ChoiceError(f"--truncate: expected {T - 1} or more, full BPTT, in such a network, got {reach}")
        self.settings = settings
        self.data = data
        self.model = Model(
            cell=settings.cell,
            input_size=input_size,
            hidden_size=settings.hidden,
            output_size=output_size,
            loss=loss,
            activation=settings.activation,
            truncate=reach,
            bias=settings.bias,
            layers=settings.layers,
            directions=2 if settings.bidirectional else 1,
        )
        self.optimizer = Optimizer(
            settings.optimizer,
            settings.learning_rate,
            clip=settings.clip if settings.clip < math.inf else None,
            clip_norm=settings.clip_norm if settings.clip_norm < math.inf else None,
        )
        if reason := obstacle("numba-simd"):
            raise ChoiceError(f"train {self.name}: numba-simd cannot measure the errors: {reason}")
        self.network = Network(self.model, "numba-simd")

    @property
    def records(self) -> int:
        """How many records an epoch learns from."""
        return self.data.train.x.shape[1]

    def init_weights(self, seed: int) -> Weights:
        draw = init_weights_unit if self.settings.weights == UNIT else init_weights
        return draw(self.model, np.random.default_rng(seed))

    def batches(self, rng: np.random.Generator) -> list[Batch]:
        """Return an epoch's batches: all records, in an order drawn from `rng`; the last batch may be smaller."""
        x, y = self.data.train
        order = rng.permutation(x.shape[1])
        parts = [order[start : start + self.settings.batch] for start in range(0, len(order), self.settings.batch)]
        return [Batch(np.ascontiguousarray(x[:, part]), y[part]) for part in parts]

    def predict(self, weights: Weights, x: np.ndarray) -> np.ndarray:
        """Return the outputs for x, from the zero state: (N, O), or (T, N, O) where the loss is on every step."""
        return self.network.predict(weights, x)[0]

    def error(self, outputs: np.ndarray, y: np.ndarray) -> float:
        """Return how far the outputs are from the targets, in the unit of `measure`; 0 is best."""
        return rmse(outputs, y)


@dataclass
class History:
    """What each epoch of one training brought. The errors have one entry more, their first: before any training."""

    seconds: list[float] = field(default_factory=list)
    train: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)

    def expect(self, epochs: int, converged: bool, where: str) -> None:
        """Raise a ChoiceError unless this is the history of so many epochs, with finite errors if it converged."""
        sizes = len(self.seconds), len(self.train) - 1, len(self.validation) - 1
        expect(sizes == (epochs,) * 3, where, f"{epochs} epochs", sizes)
        expect(
            all(0 < taken < math.inf for taken in self.seconds), f"{where}: seconds", "numbers above 0", self.seconds
        )
        errors = [*self.train, *self.validation] if converged else []
        expect(all(map(math.isfinite, errors)), where, "finite errors", errors)

    def epochs_to(self, goal: float, judge: str = "validation") -> int | None:
        """Return the epochs until the error that judges was first `goal` or less; None if it never was."""
        return next((epoch for epoch, error in enumerate(getattr(self, judge)) if error <= goal), None)

    def seconds_to(self, goal: float, judge: str = "validation") -> float | None:
        """Return the seconds of training until then."""
        epochs = self.epochs_to(goal, judge)
        return None if epochs is None else sum(self.seconds[:epochs])


def diverged(errors: Sequence[float], over: bool = True) -> bool:
    """Tell whether a training has diverged, by its errors, of which the first is from before it.

    It has if the last one is not a finite number or, when the training is over, more than FAR times the first. Until
    then an error that is so large may come down again, if it has not been so for long.
    """
    looks = 1 if over else PATIENCE
    return not math.isfinite(errors[-1]) or (len(errors) > looks and min(errors[-looks:]) > FAR * errors[0])


@dataclass
class Kept:
    """A race as it is kept; see `Race.state`."""

    settings: Settings
    records: str
    outcome: Outcome
    seeds_done: int
    epochs_done: int
    rng: dict
    compile_s: dict[str, float]
    histories: dict[str, list[History]]


class Race(Generic[C]):
    """A course, learned by some implementations; the first is the baseline.

    `histories` are by implementation, one for each seed; the `weights` are those after the first seed's training.
    The learners' own `arrays` are those of the time when the race was last to be kept, none between two seeds.
    """

    def __init__(self, course: C, implementations: Sequence[str] | None = None):
        """Take the implementations named, or all of RACE that can learn the course's model."""
        if implementations is None:
            implementations = [name for name in RACE if obstacle(name, course.model) is None]
        for name in implementations:
            check(name, course.model)
        self.course = course
        self.implementations = tuple(implementations)
        self.histories: dict[str, list[History]] = {name: [] for name in implementations}
        self.weights: dict[str, Weights] = {}
        self.compile_s: dict[str, float] = {}
        self.arrays: dict[str, Arrays] = {}
        self.seeds_done = 0
        self.epochs_done = 0  # with the seed after those
        self.outcome: Outcome = "interrupted"
        self.until = course.settings.seeds
        self.machine: dict[str, Any] | None = None  # what learned, if it was not this one
        self._rng: dict[str, Any] = {}  # what the batches are drawn from, as it was when the arrays were

    @property
    def over(self) -> bool:
        return self.outcome == "diverged" or self.seeds_done == self.until

    @property
    def absent(self) -> dict[str, str]:
        """Who of RACE cannot take part, and why."""
        reasons = {name: obstacle(name, self.course.model) for name in RACE}
        return {name: reason for name, reason in reasons.items() if reason}

    @property
    def shown(self) -> str:
        """The implementation whose predictions are shown."""
        return "numba-simd" if "numba-simd" in self.implementations else self.implementations[0]

    def history(self, implementation: str) -> History:
        """Return the history of the first seed."""
        return self.histories[implementation][0]

    def predict(self, implementation: str, x: np.ndarray) -> np.ndarray:
        """Return what an implementation's network says on x after the first seed's training."""
        return self.course.predict(self.weights[implementation], x)

    def seconds_to_goal(self, implementation: str) -> list[float | None]:
        """Return the seconds to the goal with each seed."""
        course = self.course
        return [h.seconds_to(course.settings.goal, course.judge) for h in self.histories[implementation]]

    def run(
        self, watch: Callable[[int, int], None] = lambda seed, epoch: None, keep: Callable[[], None] = lambda: None
    ) -> None:
        """Train all, seed by seed, unless that is done, and note in `outcome` how it ended.

        Ctrl-C ends the training after the epoch in work, and before the first epoch at once. It ends, too, when an
        error is no longer finite, or with a seed that has `diverged`. `watch` gets the number of the seed, from 0, and
        the epochs done; first after processes were started. `keep` is called when it is time to take the `state` and
        keep it: now and then, and at the end.
        """
        if not self.over:
            with ExitStack() as stack:
                stack.enter_context(threads(1))
                stack.enter_context(np.errstate(over="ignore", invalid="ignore"))
                try:
                    learners = self._start(stack)
                except KeyboardInterrupt:
                    self.outcome = "interrupted"
                else:
                    pressed = stack.enter_context(ctrl_c("after the epoch in work"))
                    watch(self.seeds_done, self.epochs_done)
                    self.outcome = self._learn(learners, pressed, watch, keep)
                    keep()
        self._drop_incomplete()

    def gather(self, about: dict[str, Any], tree: Tree) -> None:
        """Take the next seed from the `state` of a race that learned it `alone`."""
        histories = read(dict[str, list[History]], about["histories"], "histories")
        for name, own in self.histories.items():
            own += histories[name]
            self.compile_s.setdefault(name, about["compile_s"][name])
        for name, own in tree["weights"].items():  # copies: what came over a network need not be aligned
            self.weights[name] = {part: array.copy() for part, array in own.items()}
        self.seeds_done, self.epochs_done = about["seeds_done"], about["epochs_done"]
        ended = about["outcome"] == "diverged" or self.seeds_done == self.until
        self.outcome = about["outcome"] if ended else "interrupted"

    def state(self) -> tuple[dict[str, Any], Tree]:
        """Return the race as it is when `run` calls `keep`, all but its course: as JSON has it, and its arrays."""
        about = {
            "settings": asdict(self.course.settings),
            "records": self._records(),
            "outcome": self.outcome,
            "seeds_done": self.seeds_done,
            "epochs_done": self.epochs_done,
            "rng": self._rng,
            "compile_s": self.compile_s,
            "histories": {name: [asdict(history) for history in own] for name, own in self.histories.items()},
        }
        return about, {"weights": self.weights, "learners": self.arrays}

    def restore(self, about: dict[str, Any], tree: Tree, where: str = "--resume") -> None:
        """Take the place of a race, to go on with it. Of its settings `seeds` alone may be another, if not too small.

        A ChoiceError says so if that was a race on another course, or one that cannot be; `where` begins the latter.
        """
        settings = self.course.settings
        kept = read(Kept, about, where)
        begun = kept.seeds_done + (kept.epochs_done > 0)
        if settings.seeds < begun:
            raise ChoiceError(f"--seeds: expected {begun} or more, which have begun, got {settings.seeds}")
        if replace(kept.settings, seeds=settings.seeds) != settings:
            raise ChoiceError("--resume: expected the settings that this version has for the task, got others")
        if kept.records != self._records():
            raise ChoiceError("--resume: expected the records that were learned, got others")
        self._check(kept, tree, where)
        self.outcome = kept.outcome
        self.seeds_done, self.epochs_done = kept.seeds_done, kept.epochs_done
        self.compile_s, self.histories, self._rng = kept.compile_s, kept.histories, kept.rng
        self.weights, self.arrays = tree.get("weights", {}), tree.get("learners", {})

    def _check(self, kept: Kept, tree: Tree, where: str) -> None:
        """Raise a ChoiceError unless the parts of what was kept belong to one race of these implementations."""
        settings, going_on = self.course.settings, kept.outcome != "diverged" and kept.epochs_done > 0
        begun = kept.seeds_done + (kept.epochs_done > 0)
        expect(kept.seeds_done >= 0, f"{where}: seeds_done", "0 or more", kept.seeds_done)
        expect(0 <= kept.epochs_done <= settings.epochs, f"{where}: epochs_done", "epochs", kept.epochs_done)
        batches = {batch.x.shape[1] for batch in self.course.batches(np.random.default_rng(0))}
        for name in self.implementations if begun else ():
            histories = kept.histories.get(name, [])
            expect(len(histories) == begun, f"{where}: histories: {name}", f"{begun} of them", len(histories))
            for n, history in enumerate(histories):
                epochs = settings.epochs if n < kept.seeds_done else kept.epochs_done
                history.expect(epochs, kept.outcome != "diverged", f"{where}: histories: {name}[{n}]")
            once = kept.compile_s.get(name, -1.0)
            expect(0 <= once < math.inf, f"{where}: compile_s: {name}", "seconds", once)
            weights = branch(tree, "weights", name)
            check_weights(weights, shapes(self.course.model), f"{where}: weights: {name}", kept.outcome != "diverged")
            if going_on:
                arrays = branch(tree, "learners", name)
                check_arrays(arrays, self.course.model, self.course.optimizer, batches, f"{where}: learners: {name}")
        if going_on:
            try:
                np.random.default_rng().bit_generator.state = kept.rng
            except Exception:  # what is wrong with it decides what is raised
                raise ChoiceError(f"{where}: rng: expected the state of a generator, got another") from None

    def _records(self) -> str:
        parts = self.course.data._asdict().items()
        return fingerprint({f"{part}.{name}": a for part, split in parts for name, a in split._asdict().items()})

    def _start(self, stack: ExitStack) -> list[Apart]:
        """Return the learners in their processes, with everything compiled that training calls, here and there."""
        settings = self.course.settings
        learners = [stack.enter_context(closing(Apart(name, settings.threads))) for name in self.implementations]
        for learner in learners:
            once = self._warm_up(learner)
            self.compile_s.setdefault(learner.implementation, once)  # going on, all is on disk
        self._measure(History(), self.course.init_weights(settings.seed))
        return learners

    def _warm_up(self, learner: Apart) -> float:
        """Compile everything that training calls, for the shapes it has, and return the seconds that took.

        They are what a first pass takes beyond a second one: compiling, or loading the compiled code from disk.
        """
        course = self.course
        learner.begin(course.model, course.optimizer, course.init_weights(course.settings.seed))
        shapes = {batch.x.shape: batch for batch in course.batches(np.random.default_rng(0))}
        passes = []
        for _ in range(2):
            learner.learn(shapes.values())
            passes.append(learner.seconds)
        return max(0.0, passes[0] - passes[1])

    def _learn(self, learners, pressed, watch, keep) -> Outcome:
        settings = self.course.settings
        kept = time.monotonic()
        while True:
            rng = self._begin(learners)
            for epoch in range(self.epochs_done + 1, settings.epochs + 1):
                self._epoch(learners, epoch, rng)
                watch(self.seeds_done, epoch)
                last = epoch == settings.epochs
                if any(diverged(own[-1].train, last) for own in self.histories.values()):
                    return "diverged"
                if last:
                    break
                if pressed() or time.monotonic() > kept + KEEP:
                    self._take(learners, rng)
                    if pressed():
                        return "interrupted"
                    keep()
                    kept = time.monotonic()
            self.seeds_done, self.epochs_done, self.arrays = self.seeds_done + 1, 0, {}
            if self.over:
                return "finished"
            if pressed():
                return "interrupted"

    def _begin(self, learners) -> np.random.Generator:
        """Begin with the next seed, or take up the one that was cut short, and return what draws its batches."""
        course = self.course
        seed = course.settings.seed + self.seeds_done
        rng = np.random.default_rng([seed, 1])
        weights = course.init_weights(seed)
        for learner in learners:
            learner.begin(course.model, course.optimizer, weights)
        if self.epochs_done:
            rng.bit_generator.state = self._rng
            for learner in learners:
                learner.restore(self.arrays[learner.implementation])
            return rng
        for name, histories in self.histories.items():
            histories.append(History())
            self._measure(histories[-1], weights)
            if not self.seeds_done:
                self.weights[name] = weights
        return rng

    def _epoch(self, learners, epoch: int, rng: np.random.Generator) -> None:
        shared = self.course.batches(rng)
        for learner in learners if epoch % 2 else reversed(learners):
            learner.learn(shared)
            history = self.histories[learner.implementation][-1]
            history.seconds.append(learner.seconds)
            weights = learner.weights()
            self._measure(history, weights)
            if not self.seeds_done:
                self.weights[learner.implementation] = weights
        self.epochs_done = epoch

    def _take(self, learners, rng: np.random.Generator) -> None:
        self.arrays = {learner.implementation: learner.arrays() for learner in learners}
        self._rng = dict(rng.bit_generator.state)

    def _drop_incomplete(self) -> None:
        """Forget the seed that was cut short, unless it is the first: those before it are complete."""
        if self.seeds_done and self.epochs_done and self.outcome != "diverged":
            self.epochs_done = 0
            for histories in self.histories.values():
                histories.pop()

    def _measure(self, history: History, weights: Weights) -> None:
        for split, errors in zip(self.course.data, (history.train, history.validation), strict=True):
            errors.append(self.course.error(self.course.predict(weights, split.x), split.y))


def alone(course: Course, implementations: Sequence[str], seed: int) -> tuple[dict[str, Any], Tree]:
    """Return the `state` of a race after one of its seeds, counted from 0, and none before it."""
    race = Race(course, implementations)
    race.seeds_done, race.until = seed, seed + 1
    race.run()
    if race.outcome == "interrupted":
        raise KeyboardInterrupt
    race.weights = race.weights if seed == 0 else {}
    return race.state()


def branch(tree: Tree, *names: str) -> Tree:
    """Return the tree below these names, empty where there is none."""
    for name in names:
        found = tree.get(name)
        tree = found if isinstance(found, dict) else {}
    return tree


def rmse(prediction: np.ndarray, y: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(prediction - y, dtype=np.float64))))


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
def ctrl_c(when: str) -> Iterator[Callable[[], bool]]:
    """Give a function that tells whether Ctrl-C was pressed; pressed again, it interrupts at once.

    `when` says to whoever pressed it when the training will end.
    """
    presses: list[int] = []

    def press(number, frame):
        presses.append(number)
        signal.signal(signal.SIGINT, before)
        print(f"Interrupted: ends {when}, or at once if Ctrl-C is pressed again.", file=sys.stderr)

    before = signal.signal(signal.SIGINT, press)
    try:
        yield lambda: bool(presses)
    finally:
        signal.signal(signal.SIGINT, before)
