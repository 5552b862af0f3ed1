"""The sine: given 50 values of sin(0), sin(1), sin(2), ... (the step is 1 radian), predict the next one.

200 values make 150 records of a window and the value after it: 0-99 to learn from, 100-149 to validate.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from bench.cases import ChoiceError
from bench.tasks.model import RUNGS, Model, Network, Weights
from bench.tasks.training import UNIT, Data, Learner, Outcome, Settings, Split, race, rmse

LENGTH, WINDOW, TRAIN_RECORDS = 200, 50, 100
TARGET_RMSE = 0.02
AHEAD = 100  # steps of the continuation

DEFAULT = Settings()
ARTICLE = Settings(
    activation="sigmoid",
    hidden=100,
    epochs=25,
    batch=1,
    optimizer="sgd",
    learning_rate=1e-4,
    truncate=5,
    clip=10.0,
    bias=False,
    weights=UNIT,
)


def load(dtype=np.float32) -> Data:
    """Return the records: x (50, N, 1) and y (N, 1)."""
    series = np.sin(np.arange(LENGTH)).astype(dtype)
    windows = np.lib.stride_tricks.sliding_window_view(series[:-1], WINDOW).T[:, :, np.newaxis]
    targets = series[WINDOW:, np.newaxis]
    parts = (slice(0, TRAIN_RECORDS), slice(TRAIN_RECORDS, None))
    return Data(*(Split(np.ascontiguousarray(windows[:, part]), targets[part]) for part in parts))


def baselines(split: Split) -> dict[str, float]:
    """Return the RMSE of what needs no learning; the last one is exact, since sin(t+1) = 2 cos(1) sin(t) - sin(t-1)."""
    x = split.x.astype(np.float64)
    predictions = {
        "predict zero": np.zeros_like(x[-1]),
        "persistence": x[-1],
        "two-lag rule": 2 * np.cos(1) * x[-1] - x[-2],
    }
    return {name: rmse(prediction, split.y) for name, prediction in predictions.items()}


def continuation(learner: Learner, steps: int = AHEAD) -> tuple[np.ndarray, np.ndarray]:
    """Return the predictions (steps,) for the values after the training data, and the truth.

    Each prediction joins the window that the next one is made from: after 50 steps the network sees nothing but
    its own output. The window is run from the zero state every time, as in training.
    """
    start = TRAIN_RECORDS + WINDOW  # the first value that training has not seen
    dtype = learner.data.train.x.dtype
    values = np.zeros(WINDOW + steps, dtype)
    values[:WINDOW] = np.sin(np.arange(start - WINDOW, start))
    for step in range(steps):
        window = values[step : step + WINDOW].reshape(WINDOW, 1, 1)
        values[WINDOW + step] = learner.predict(window)[0, 0]
    return values[WINDOW:], np.sin(np.arange(start, start + steps))


class Saturation(NamedTuple):
    """How many of the activation's derivatives are exactly 0, over all units and training records."""

    all_steps: float  # share over the whole window
    in_reach: float  # share over the last truncate + 1 steps, which are all that the gradients pass through
    largest_gradients: dict[str, float]  # largest element, by weight, on all training records


def saturation(settings: Settings, weights: Weights, split: Split) -> Saturation:
    model = Model("rnn", 1, settings.hidden, 1, "last", settings.activation, settings.truncate, settings.bias)
    network = Network(model, "numpy")
    slopes = network.slopes(weights, split.x)
    _, gradients, _ = network.gradients(weights, *split)
    return Saturation(
        all_steps=float(np.mean(slopes == 0)),
        in_reach=float(np.mean(slopes[-1 - settings.truncate :] == 0)),
        largest_gradients={name: float(np.abs(gradient).max()) for name, gradient in gradients.items()},
    )


class Lesson:
    """The sine, learned by some implementations; the first is the baseline, the last one's predictions are shown."""

    def __init__(self, settings: Settings, implementations: Sequence[str]):
        for name in implementations:
            if name not in RUNGS:
                raise ChoiceError(f"--implementation: expected {' or '.join(RUNGS)}, got {name!r}")
        if settings.batch > TRAIN_RECORDS:
            raise ChoiceError(f"--batch: expected at most {TRAIN_RECORDS}, the training records, got {settings.batch}")
        self.settings = settings
        self.data = load()
        self.learners = [Learner(name, settings, self.data) for name in implementations]
        self.saturation = saturation(settings, self.learners[-1].weights, self.data.train)  # before training
        self.outcome: Outcome = "interrupted"

    def train(self, after_epoch: Callable[[int], None] = lambda epoch: None) -> None:
        self.outcome = race(self.learners, after_epoch)
