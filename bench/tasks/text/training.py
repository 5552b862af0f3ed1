"""Learning a text: one or several implementations learn the same model from the same chunks of it, taking turns.

The clock runs during the training steps alone: not while code is compiled, and not while the validation text is read.
A training can be kept in a folder and gone on with: `training.npz` is all of it, `model.npz` the model alone.
"""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.special import log_softmax

from bench.grid.cases import ChoiceError
from bench.tasks.learning import checkpoint, learners
from bench.tasks.learning.forms import expect, later, read
from bench.tasks.learning.learners.apart import Apart
from bench.tasks.learning.model import CELLS, RUNGS, Batch, Model
from bench.tasks.learning.network import Network
from bench.tasks.learning.optimizers import SLOTS, Optimizer
from bench.tasks.learning.training import Checked, Outcome, branch, ctrl_c, diverged, threads
from bench.tasks.learning.weights import Weights, init_weights
from bench.tasks.text import data as text
from bench.tasks.text import generate
from bench.tasks.text.data import Corpus, Streams

GROUP, ROUND = 10, 100  # steps between two looks at the clock, and at the validation text
GLANCE = 32_000  # characters of the validation text that are read while training goes on
TEMPERATURES = (0.5, 0.8, 1.0)
SAMPLE = 240  # characters


@dataclass(frozen=True)
class Settings(Checked):
    """What is learned and how, as the command line has it; a setting out of range raises a ChoiceError."""

    cell: str = "gru"
    hidden: int = 256
    seq_len: int = 64  # characters in a chunk: the gradient goes back to its start, the state comes from before
    batch: int = 32  # streams that the text is read in, side by side
    optimizer: str = "adam"
    learning_rate: float = 0.004
    clip_norm: float = 1.0  # bound on the norm of all gradients together
    seed: int = 0
    threads: int = 1
    layers: int = later(1)

    def __post_init__(self) -> None:
        for name, choices in (("cell", CELLS), ("optimizer", tuple(SLOTS))):
            self._expect(name, " or ".join(choices), getattr(self, name) in choices)
        for name, least in (("hidden", 1), ("layers", 1), ("seq_len", 1), ("batch", 1), ("seed", 0)):
            self._expect(name, f"a whole number of {least} or more", getattr(self, name) >= least)
        self._expect_threads()
        for name in ("learning_rate", "clip_norm"):
            self._expect(name, "a number above 0", 0 < getattr(self, name) < math.inf)


class Bounds(NamedTuple):
    """When training ends: at the first of these that is reached."""

    steps: float = math.inf
    minutes: float = math.inf
    goal: float = 0.0  # bits per character on the validation text, by all learners


class Sample(NamedTuple):
    step: int
    bits: float  # per character on the validation text
    temperature: float
    text: str


@dataclass
class History:
    """What an implementation has been through."""

    losses: list[float] = field(default_factory=list)  # of each step, in bits per character
    ends: list[int] = field(default_factory=list)  # the steps done after each group of them,
    seconds: list[float] = field(default_factory=list)  # and the time the group took
    validated: list[int] = field(default_factory=list)  # the steps done at each look at the validation text,
    bits: list[float] = field(default_factory=list)  # and its bits per character
    compile_s: float = 0.0

    def expect(self, step: int, where: str) -> None:
        """Raise a ChoiceError unless this is the history of a training after so many steps, 1 or more."""
        sizes = len(self.losses), len(self.seconds), len(self.bits)
        expect(sizes == (step, len(self.ends), len(self.validated)), where, f"the history of {step} steps", sizes)
        for name, steps in (("ends", [0, *self.ends]), ("validated", self.validated)):
            rising = sorted({*steps}) == steps and steps[:1] == [0] and steps[-1] == step > 0
            expect(rising, f"{where}: {name}", f"rising steps, up to {step}", steps)
        expect(
            all(0 < taken < math.inf for taken in self.seconds), f"{where}: seconds", "numbers above 0", self.seconds
        )
        expect(all(map(math.isfinite, self.bits)), f"{where}: bits", "finite numbers", self.bits)
        expect(0 <= self.compile_s < math.inf, f"{where}: compile_s", "seconds", self.compile_s)

    def steps_to(self, goal: float) -> int | None:
        """Return the steps until the validation text first took `goal` bits per character or less; None if never."""
        return next((step for step, bits in zip(self.validated, self.bits, strict=True) if bits <= goal), None)

    def seconds_to(self, goal: float) -> float | None:
        """Return the seconds of training until then."""
        steps = self.steps_to(goal)
        return None if steps is None else float(self.seconds_after([steps])[0])

    def seconds_after(self, steps: Sequence[int]) -> np.ndarray:
        """Return the seconds of training after so many steps."""
        return np.interp(steps, [0, *self.ends], np.cumsum([0, *self.seconds]))


@dataclass
class Kept:
    """A training as it is kept; see `Lesson.save`."""

    settings: Settings
    text: str  # its fingerprint
    step: int
    histories: dict[str, History]
    samples: list[Sample]
    file: str = later("")  # where the text lies, or "" for Shakespeare's


class Lesson:
    """A text, learned by some implementations; the first one is the baseline of the race.

    `histories` and `arrays` are by implementation; the arrays are what `Learner.arrays` gave after the last round.
    `repeats` are lessons like this one with other seeds, since how soon the goal is met is a matter of luck, too, and
    `strayed` are those of them that diverged.
    """

    def __init__(self, corpus: Corpus, settings: Settings, implementations: Sequence[str]):
        for name in implementations:
            learners.check(name)
        size = len(corpus.alphabet)
        self.corpus = corpus
        self.settings = settings
        self.model = Model(settings.cell, size, settings.hidden, size, "softmax", layers=settings.layers)
        self.optimizer = Optimizer(settings.optimizer, settings.learning_rate, clip_norm=settings.clip_norm)
        self.streams = Streams(corpus.train, settings.batch, settings.seq_len)
        self.baselines = {part: text.baselines(corpus, getattr(corpus, part)) for part in ("validation", "test")}
        self.goal = self.baselines["validation"]["order-3 n-gram"]  # what the race is timed to
        self.histories = {name: History() for name in implementations}
        self.arrays: dict[str, checkpoint.Arrays] = {}
        self.samples: list[Sample] = []
        self.repeats: list[Lesson] = []
        self.strayed: list[Lesson] = []
        self.step = 0
        self.file = ""  # where the text lies
        self.outcome: Outcome = "interrupted"

    @property
    def shown(self) -> str:
        """The implementation whose model is kept and whose samples are shown."""
        return "numba-simd" if "numba-simd" in self.histories else next(iter(self.histories))

    def seconds_to_goal(self, implementation: str) -> list[float | None]:
        """Return the seconds of training to the goal with each seed."""
        return [lesson.histories[implementation].seconds_to(self.goal) for lesson in (self, *self.repeats)]

    def weights(self, implementation: str) -> Weights:
        """Return an implementation's weights after the last round."""
        if implementation not in self.arrays:
            return init_weights(self.model, np.random.default_rng(self.settings.seed))
        arrays = self.arrays[implementation]
        return {key.removeprefix("weights."): array for key, array in arrays.items() if key.startswith("weights.")}

    def bits(self, implementation: str, of: np.ndarray, glance: int | None = None) -> float:
        """Return the bits per character that an implementation's model takes for `of` (N,), or for a glance at it."""
        network = self._network(implementation)
        return bits(network, network.prepare(self.weights(implementation)), of, glance)

    def judge(self) -> dict[str, float]:
        """Return the bits per character of the model shown on the whole validation text and on the test text.

        A training that diverged has no model to judge.
        """
        if self.outcome == "diverged":
            return {}
        with threads(self.settings.threads):
            return {part: self.bits(self.shown, getattr(self.corpus, part)) for part in self.baselines}

    def train(
        self,
        bounds: Bounds,
        after_group: Callable[[float], None] = lambda share: None,
        after_round: Callable[[], None] = lambda: None,
    ) -> None:
        """Learn until a bound is reached, Ctrl-C is pressed, or the training has diverged.

        There is one group of steps at least, for what has learned nothing has no speed; only Ctrl-C before it, which
        ends at once, leaves none. `after_group` gets the share of the way that is behind. `after_round` follows every
        look at the validation text, and there is one at the end, unless the training diverged.
        """
        start = time.perf_counter()  # compiling is a part of the minutes
        with ExitStack() as stack:
            stack.enter_context(threads(self.settings.threads))
            stack.enter_context(np.errstate(over="ignore", invalid="ignore"))
            try:
                taught = self._start(stack)
            except KeyboardInterrupt:
                self.outcome = "interrupted"
                return
            pressed = stack.enter_context(ctrl_c("after the steps in work"))
            while (share := self._share(bounds, start) if self.step else 0.0) < 1 and not pressed():
                self._group(taught, int(min(self.step + GROUP - self.step % GROUP, bounds.steps)))
                after_group(self._share(bounds, start))
                if self.step % ROUND == 0:
                    self._round(taught, after_round, speak=math.log2(self.step // ROUND).is_integer())
                if self._diverged(over=False):
                    return
            if self.step:
                self.outcome = "finished" if share >= 1 else "interrupted"
                self._round(taught, after_round, speak=True)
                self._diverged(over=share >= 1)

    def _start(self, stack: ExitStack) -> dict[str, Apart]:
        """Return the learners in their processes, with everything compiled that training calls, here and there."""
        count = self.settings.threads
        taught = {name: stack.enter_context(closing(Apart(name, count))) for name in self.histories}
        for name, learner in taught.items():
            self._warm_up(learner, self.histories[name])
        if not self.step:
            self._validate()
        return taught

    def _diverged(self, over: bool) -> bool:
        """Tell whether the training has diverged, and note it in `outcome`."""
        for history in self.histories.values():
            if not math.isfinite(history.losses[-1]) or diverged(history.bits, over):
                self.outcome = "diverged"
                return True
        return False

    def _share(self, bounds: Bounds, start: float) -> float:
        """Return how much of the way to the nearest bound is behind, 1 if it is reached."""
        if all(history.bits[-1] <= bounds.goal for history in self.histories.values()):
            return 1.0
        return min(1.0, max(self.step / bounds.steps, (time.perf_counter() - start) / (60 * bounds.minutes)))

    def _warm_up(self, learner: Apart, history: History) -> None:
        """Compile everything that training calls, note what a first time takes beyond a second, and begin."""
        settings = self.settings
        weights, taken = init_weights(self.model, np.random.default_rng(settings.seed)), []
        learner.begin(self.model, self.optimizer, weights)
        for _ in range(2):
            learner.learn(self._batches(range(2)))
            taken.append(learner.seconds)
        history.compile_s += max(0.0, taken[0] - taken[1])
        learner.begin(self.model, self.optimizer, weights)
        if self.step:
            learner.restore(self.arrays[learner.implementation])

    def _batches(self, steps: range) -> list[Batch]:
        return [Batch(*self.streams.chunk(step), fresh=self.streams.starts(step)) for step in steps]

    def _group(self, taught: dict[str, Apart], end: int) -> None:
        batches = self._batches(range(self.step, end))
        turns = list(taught)
        for name in turns if end // GROUP % 2 else reversed(turns):
            losses = taught[name].learn(batches)
            history = self.histories[name]
            history.seconds.append(taught[name].seconds)
            history.losses += [loss / math.log(2) for loss in losses]
            history.ends.append(end)
        self.step = end

    def _round(self, taught: dict[str, Apart], after_round: Callable[[], None], speak: bool) -> None:
        self.arrays = {name: learner.arrays() for name, learner in taught.items()}
        self._validate()
        if not all(math.isfinite(history.bits[-1]) for history in self.histories.values()):
            return
        if speak and (not self.samples or self.samples[-1].step != self.step):
            self._speak()
        after_round()

    def _validate(self) -> None:
        for name, history in self.histories.items():
            if history.validated[-1:] != [self.step]:
                history.validated.append(self.step)
                history.bits.append(self.bits(name, self.corpus.validation, GLANCE))

    def _speak(self) -> None:
        """Keep a sample at each temperature."""
        alphabet, found = self.corpus.alphabet, self.histories[self.shown].bits[-1]
        network = self._network(self.shown)
        prepared = network.prepare(self.weights(self.shown))
        for temperature in TEMPERATURES:
            rng = np.random.default_rng([self.settings.seed, self.step])
            said = generate.sample(network, prepared, generate.opening(alphabet), temperature, rng)
            self.samples.append(Sample(self.step, found, temperature, text.decode(alphabet, islice(said, SAMPLE))))

    def _network(self, implementation: str) -> Network:
        """Return what reads a text with an implementation's weights: itself, or numba-simd for those not ours."""
        return Network(self.model, implementation if implementation in RUNGS else "numba-simd")

    def save(self, folder: Path) -> None:
        """Keep the training as it was after the last round, and its model, in `folder`."""
        about = {
            "settings": asdict(self.settings),
            "text": _fingerprint(self.corpus),
            "step": self.step,
            "histories": {name: asdict(history) for name, history in self.histories.items()},
            "samples": self.samples,
            "file": self.file,
        }
        checkpoint.save_training(folder, "text", about, self.arrays)
        generate.save(folder / "model.npz", self.model, self.corpus.alphabet, self.weights(self.shown))

    @classmethod
    def resume(cls, corpus: Corpus, folder: Path) -> "Lesson":
        """Return the training kept in `folder`; a ChoiceError if there is none, or if it read another text."""
        about, arrays = checkpoint.load_training(folder, "text")
        where = str(folder / "training.npz")
        kept = read(Kept, about, where)
        expect(bool(kept.histories), f"{where}: histories", "one or more", "none")
        if kept.text != _fingerprint(corpus):
            raise ChoiceError(f"--resume: expected the text that was learned in {folder}, got another one")
        lesson = cls(corpus, kept.settings, list(kept.histories))
        for name, history in kept.histories.items():
            history.expect(kept.step, f"{where}: histories: {name}")
            own, batches = branch(arrays, name), {kept.settings.batch}
            learners.check_arrays(own, lesson.model, lesson.optimizer, batches, f"{where}: {name}")
        lesson.step, lesson.histories, lesson.samples, lesson.arrays = kept.step, kept.histories, kept.samples, arrays
        return lesson


def kept_file(folder: Path) -> Path | None:
    """Return where the text lies that the training kept in `folder` has read, None for Shakespeare's."""
    about, _ = checkpoint.load_training(folder, "text")
    file = read(Kept, about, str(folder / "training.npz")).file
    return Path(file) if file else None


def bits(network: Network, prepared: Any, of: np.ndarray, glance: int | None = None) -> float:
    """Return the bits per character of a text (N,), cut into up to 64 stretches that are read side by side.

    The weights are `prepared` by the network. Each stretch starts from the zero state, and is long enough for its first
    characters, guessed with little to go by, to weigh little. With a `glance` so many characters are read, at places
    spread over the text.
    """
    glance = min(glance or len(of), len(of))
    count = min(64, -(-glance // 2000))
    length = (glance - 1) // count
    at = (len(of) - 1) // count * np.arange(count) + np.arange(length)[:, np.newaxis]
    state, total = None, 0.0
    for part in np.split(at, range(100, length, 100)):
        outputs, state = network.predict(prepared, of[part], state)
        wanted = of[part + 1][..., np.newaxis]
        total -= np.take_along_axis(log_softmax(outputs, axis=-1), wanted, axis=-1).sum(dtype=np.float64)
    return total / at.size / math.log(2)


def _fingerprint(corpus: Corpus) -> str:
    parts = {"train": corpus.train, "validation": corpus.validation, "test": corpus.test}
    return checkpoint.fingerprint({"alphabet": np.array(corpus.alphabet), **parts})
