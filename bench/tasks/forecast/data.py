"""Forecasts: from a window of rows the next one, beside the forecast that needs no learning, persistence.

A row holds changes, so that a zero says "as it was": that is persistence, and what a forecast is worth is its skill
against it, 1 - MSE / MSE of persistence. Everything that is fitted, the scale of the rows included, is fitted to rows
before those that it is judged on.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy import stats

from bench.grid.cases import ChoiceError
from bench.tasks.learning.learners import make
from bench.tasks.learning.training import Course, Data, Settings
from bench.tasks.learning.windows import windows

TRAIN_SHARE = 0.7
FOLDS = 5  # of the walk forward
LEAST_ROWS = 100  # beside those of a window
LEAST_MOVES = 10  # of the target that a forecast is judged by, so that a resample without any is a rarity


class Table(NamedTuple):
    """N rows of F features, all changes from the row before; the level is what the target's changes add up to."""

    source: str  # where it comes from, for the reader
    names: tuple[str, ...]
    values: np.ndarray  # (N, F)
    target: str  # of names
    level: np.ndarray  # (N + 1,)  of the target, before the first row and after each
    labels: np.ndarray  # (N + 1,)  of the levels: dates, or numbers
    told: tuple[str, ...]  # how it was read, a sentence each
    logarithmic: bool  # the changes are of the level's logarithm

    @property
    def column(self) -> int:
        return self.names.index(self.target)

    def moved(self, level: np.ndarray, change: np.ndarray) -> np.ndarray:
        """Return the level after a change."""
        return level * np.exp(change) if self.logarithmic else level + change


class Forecast(Course):
    """The next row of a table from a window of rows, all features at once, so that it can go on by itself.

    The errors are of rows scaled to mean 0 and standard deviation 1 over the training part.
    """

    judge = "train"

    def __init__(self, name: str, settings: Settings, table: Table, window: int, train_rows: int | None = None):
        rows = len(table.values)
        self.name = name
        self.table = table
        self.window = window
        self.train_rows = int(TRAIN_SHARE * rows) if train_rows is None else train_rows
        known = table.values[: self.train_rows]
        if train_rows is None:
            self._check_rows(rows)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            self.mean, self.deviation = known.mean(axis=0), known.std(axis=0)
            self.scaled = ((table.values - self.mean) / self.deviation).astype(np.float32)
            if train_rows is None:
                self._check_scale()
        train = windows(self.scaled, window, window, self.train_rows)
        super().__init__(settings, Data(train, windows(self.scaled, window, self.train_rows, rows)))

    def _check_rows(self, rows: int) -> None:
        """Raise a ChoiceError if the rows are too few for the window, to learn from or to judge by."""
        most = min(rows - LEAST_ROWS, self.train_rows - 1)
        if most < 1:
            raise ChoiceError(f"{self.table.source}: expected {LEAST_ROWS + 2} rows or more, got {rows + 1}")
        if not 1 <= self.window <= most:
            raise ChoiceError(f"--window: expected 1 to {most}, of {rows + 1} rows; got {self.window}")

    def _check_scale(self) -> None:
        """Raise a ChoiceError if a feature stands still, or if its scale or the errors cannot be finite numbers."""
        source, train_rows = self.table.source, self.train_rows
        size = 8 if self.table.logarithmic else np.abs(self.table.level[: train_rows + 1]).max()
        rounding = 8 * np.finfo(np.float64).eps * size
        squares = np.square(self.table.values).sum(axis=0)
        finite = np.isfinite(squares) & np.isfinite(np.square(self.scaled)).all(axis=0)
        for column, feature in enumerate(self.table.names):
            changes = self.table.values[:, column]
            out = f"; --without {feature!r} leaves the column out" if feature != self.table.target else ""
            if np.ptp(changes[:train_rows]) <= rounding:
                raise ChoiceError(
                    f"{source}: expected {feature} to vary in its first {train_rows + 1} rows, and not as a straight "
                    f"line; each change is {changes[0]:g}{out}"
                )
            if not (self.deviation[column] > 0 and finite[column] and squares[column] > 0):
                raise ChoiceError(
                    f"{source}: expected changes of {feature} whose squares are finite and above 0, beside those of "
                    f"its first {train_rows + 1} rows; got {changes.min():g} to {changes.max():g}{out}"
                )
        moves = np.count_nonzero(self.table.values[train_rows:, self.table.column])
        if moves < LEAST_MOVES:
            judged = len(self.table.values) - train_rows
            raise ChoiceError(
                f"{source}: expected {LEAST_MOVES} changes or more of {self.table.target} in its last {judged} rows, "
                f"which the forecast is judged by; got {moves}"
            )

    def changes(self, outputs: np.ndarray) -> np.ndarray:
        """Return the target's changes (N,) that outputs (N, F) foretell."""
        column = self.table.column
        return outputs[:, column].astype(np.float64) * self.deviation[column] + self.mean[column]

    def free_running(self, weights, first: int, steps: int) -> np.ndarray:
        """Return the target's changes (steps,) from row `first` on, each made from the predictions before it."""
        rows = np.concatenate(
            [self.scaled[first - self.window : first], np.zeros((steps, self.scaled.shape[1]), np.float32)]
        )
        for step in range(steps):
            window = rows[step : step + self.window, np.newaxis]
            rows[self.window + step] = self.predict(weights, np.ascontiguousarray(window))[0]
        return self.changes(rows[self.window :])


def walk_forward(course: Forecast) -> tuple[np.ndarray, np.ndarray]:
    """Return the target's changes over the validation part as foretold and as they came, (M,) each.

    The part is cut in FOLDS; before each one the network learns anew from all rows before it.
    """
    rows = len(course.table.values)
    bounds = np.linspace(course.train_rows, rows, FOLDS + 1).astype(int)
    found = []
    for fold, (first, last) in enumerate(pairwise(bounds)):
        part = Forecast(course.name, course.settings, course.table, course.window, train_rows=int(first))
        seed = course.settings.seed + fold
        learner = make("numba-simd", part.model, part.optimizer, part.init_weights(seed))
        rng = np.random.default_rng([seed, 1])
        for _ in range(course.settings.epochs):
            learner.learn(part.batches(rng))
        x = windows(part.scaled, part.window, int(first), int(last)).x
        found.append(part.changes(part.predict(learner.weights(), x)))
    return np.concatenate(found), course.table.values[course.train_rows :, course.table.column]


class Judgement(NamedTuple):
    """What one-step forecasts of changes are worth; the ends of an interval bound 95 %."""

    mse: float
    persistence_mse: float
    skill: float  # 1 - mse / persistence_mse
    skill_low: float  # a bootstrap of the rows, forecast and persistence paired
    skill_high: float
    direction: float  # share of the changes, those of zero left out, whose sign was foretold
    direction_low: float  # Wilson's interval
    direction_high: float
    up: float  # share of the changes that were up, which "always up" foretells

    @property
    def verdict(self) -> str:
        if self.skill_low > 0:
            return "beat persistence"
        return "was worse than persistence" if self.skill_high < 0 else "did not beat persistence"


def judge(predicted: np.ndarray, came: np.ndarray) -> Judgement:
    """Compare the foretold changes (M,) with those that came."""
    errors, still = np.square(predicted - came), np.square(came)

    def skill(errors, still, axis=-1):
        with np.errstate(divide="ignore"):  # a resample may hold no change
            return 1 - errors.mean(axis=axis) / still.mean(axis=axis)

    spread = stats.bootstrap(
        (errors, still), skill, paired=True, n_resamples=1999, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    moved = came != 0
    hits = int(np.sum(np.sign(predicted[moved]) == np.sign(came[moved])))
    direction = stats.binomtest(hits, int(moved.sum())).proportion_ci(method="wilson")
    return Judgement(
        mse=float(errors.mean()),
        persistence_mse=float(still.mean()),
        skill=float(skill(errors, still)),
        skill_low=float(spread.low),
        skill_high=float(spread.high),
        direction=hits / int(moved.sum()),
        direction_low=float(direction.low),
        direction_high=float(direction.high),
        up=float(np.mean(came[moved] > 0)),
    )
