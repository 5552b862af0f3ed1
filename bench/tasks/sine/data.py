"""The sine: given 50 values of sin(0), sin(1), sin(2), ... (the step is 1 radian), predict the next one.

200 values make 150 records of a window and the value after it: 0-99 to learn from, 100-149 to validate. Variants add
waves of other frequencies, noise, and more values to predict at once.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from bench.grid.cases import ChoiceError
from bench.tasks.learning.model import Model
from bench.tasks.learning.network import Network
from bench.tasks.learning.training import UNIT, Course, Data, Settings, Split, rmse
from bench.tasks.learning.weights import Weights
from bench.tasks.learning.windows import windows

LENGTH, WINDOW, TRAIN_RECORDS = 200, 50, 100
AHEAD = 100  # steps of the continuation

DEFAULT = Settings(clip=1.0)
ARTICLE = Settings(
    activation="sigmoid",
    epochs=25,
    batch=1,
    optimizer="sgd",
    learning_rate=1e-4,
    clip=10.0,
    bias=False,
    weights=UNIT,
)


@dataclass(frozen=True)
class Wave:
    """The mean of some sines, with noise; a choice out of range raises a ChoiceError."""

    frequencies: tuple[float, ...] = (1.0,)  # radians a step
    noise: float = 0.0  # standard deviation of what is added to every value
    horizon: int = 1  # values predicted at once

    def __post_init__(self) -> None:
        if not all(0 < frequency < math.pi for frequency in self.frequencies):
            raise ChoiceError(
                f"--frequencies: expected numbers between 0 and pi, in radians a step, got {self.frequencies}"
            )
        if not 0 <= self.noise < math.inf:
            raise ChoiceError(f"--noise: expected a number of 0 or more, got {self.noise}")
        if not 1 <= self.horizon <= WINDOW // 2:
            raise ChoiceError(f"--horizon: expected a whole number from 1 to {WINDOW // 2}, got {self.horizon}")

    def truth(self, start: float, count: int, each: int = 1) -> np.ndarray:
        """Return the values without noise at `each` points a step, for `count` steps from `start` on."""
        t = start + np.arange((count - 1) * each + 1) / each
        return np.mean([np.sin(frequency * t) for frequency in self.frequencies], axis=0)

    def series(self, dtype=np.float32) -> np.ndarray:
        """Return the LENGTH values, the noise with them: always the same."""
        noise = self.noise * np.random.default_rng(0).standard_normal(LENGTH)
        return (self.truth(0, LENGTH) + noise).astype(dtype)

    def lag_rule(self, x: np.ndarray) -> np.ndarray:
        """Return the next values (N, horizon) by the recurrence of the waves, exact without noise.

        Of one wave it is sin(t+1) = 2 cos(1) sin(t) - sin(t-1); for several the polynomials of each are multiplied.
        """
        polynomial = np.ones(1)
        for frequency in self.frequencies:
            polynomial = np.convolve(polynomial, [1, -2 * math.cos(frequency), 1])
        lags = list(x[: -len(polynomial) : -1, :, 0])  # the latest first
        found = []
        for _ in range(self.horizon):
            found.append(-sum(weight * lag for weight, lag in zip(polynomial[1:], lags, strict=True)))
            lags = [found[-1], *lags[:-1]]
        return np.stack(found, axis=1)


class Sine(Course):
    """The records of a wave; the outputs (N, horizon) are the values after each window."""

    name = "sine"

    def __init__(self, settings: Settings, wave: Wave = Wave()):
        self.wave = wave
        super().__init__(settings, load(wave))
        self.saturation = saturation(self.model, self.init_weights(settings.seed), self.data.train)

    def baselines(self, split: Split) -> dict[str, float]:
        """Return the RMSE of what needs no learning."""
        x = split.x.astype(np.float64)
        predictions = {
            "predict zero": np.zeros_like(x[-1]),
            "persistence": x[-1],
            "lag rule": self.wave.lag_rule(x),
        }
        return {name: rmse(prediction, split.y) for name, prediction in predictions.items()}

    def continuation(self, weights: Weights, steps: int = AHEAD) -> tuple[np.ndarray, np.ndarray]:
        """Return the predictions (steps,) for the values after the training data, and the truth.

        Each prediction joins the window that the next one is made from: after 50 steps the network sees nothing but
        its own output. The window is run from the zero state every time, as in training.
        """
        start = TRAIN_RECORDS + WINDOW  # the first value that training has not seen
        series = self.wave.series()
        values = np.zeros(WINDOW + steps, series.dtype)
        values[:WINDOW] = series[start - WINDOW : start]
        for step in range(steps):
            window = values[step : step + WINDOW].reshape(WINDOW, 1, 1)
            values[WINDOW + step] = self.predict(weights, window)[0, 0]
        return values[WINDOW:], self.wave.truth(start, steps)


def load(wave: Wave = Wave(), dtype=np.float32) -> Data:
    """Return the records: x (50, N, 1) and y (N, horizon). No target of the training records is one of the others."""
    values = wave.series(dtype)[:, np.newaxis]
    end = TRAIN_RECORDS + WINDOW
    return Data(windows(values, WINDOW, WINDOW, end, wave.horizon), windows(values, WINDOW, end, LENGTH, wave.horizon))


class Saturation(NamedTuple):
    """How many of the activation's derivatives are exactly 0, over all units and training records."""

    all_steps: float  # share over the whole window
    in_reach: float  # share over the last truncate + 1 steps, which are all that the gradients pass through
    largest_gradients: dict[str, float]  # largest element, by weight, on all training records


def saturation(model: Model, weights: Weights, split: Split) -> Saturation | None:
    """Return it for an rnn, before training; the other cells have activations of several kinds."""
    if model.cell != "rnn":
        return None
    network = Network(model, "numpy")
    slopes = network.slopes(weights, split.x)
    _, gradients, _ = network.gradients(weights, *split)
    reach = len(slopes) if model.truncate is None else model.truncate + 1
    return Saturation(
        all_steps=float(np.mean(slopes == 0)),
        in_reach=float(np.mean(slopes[-reach:] == 0)),
        largest_gradients={name: float(np.abs(gradient).max()) for name, gradient in gradients.items()},
    )
