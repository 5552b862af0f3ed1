"""What a sine lesson leaves behind: metrics.json, charts, and a page that says what they show."""

from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench import charts, machine, page
from bench.tasks import race_report as race
from bench.tasks.sine import AHEAD, LENGTH, TARGET_RMSE, TRAIN_RECORDS, WINDOW, Lesson, baselines, continuation
from bench.tasks.training import UNIT, Learner, Split, rmse


def summary(lesson: Lesson) -> list[str]:
    """Return what the lesson came to, a paragraph each."""
    if lesson.outcome == "diverged":
        return [_outcome(lesson)]
    words = race.race_words(lesson.learners, TARGET_RMSE)
    return words if lesson.outcome == "finished" else [_outcome(lesson), *words]


def write(lesson: Lesson, folder: Path, command: str) -> Path:
    """Write the report into `folder` and return the page's path."""
    described = machine.describe()
    known = {name: baselines(split) for name, split in lesson.data._asdict().items()}
    ahead = continuation(lesson.learners[-1])
    metrics = {
        "format": 1,
        "task": "sine",
        "command": command,
        "written": datetime.now().astimezone().isoformat(timespec="seconds"),
        "outcome": lesson.outcome,
        "settings": vars(lesson.settings),
        "baselines": known,
        **race.race_metrics(lesson.learners, TARGET_RMSE),
        "continuation": {
            "implementation": lesson.learners[-1].implementation,
            "rmse": {str(steps): rmse(ahead[0][:steps], ahead[1][:steps]) for steps in (WINDOW, AHEAD)},
        },
        "saturation_before_training": lesson.saturation._asdict(),
        "machine": described,
    }
    shown, (train, validation) = lesson.learners[-1], lesson.data
    figures = {
        "Error by epoch": race.curves(lesson.learners, TARGET_RMSE, by_time=False),
        "Error by time": race.curves(lesson.learners, TARGET_RMSE, by_time=True),
        "Training records": _predictions(shown, train, "Training records", WINDOW),
        "Validation records": _predictions(shown, validation, "Validation records", WINDOW + TRAIN_RECORDS),
        "Continuation": _continued(shown, *ahead),
        "Error of the continuation": _continued_error(shown, *ahead),
    }
    return race.write(folder, metrics, figures, _page(lesson, figures, known, metrics))


def _outcome(lesson: Lesson) -> str:
    epochs = race.plural(len(lesson.learners[-1].history.seconds), "epoch")
    if lesson.outcome == "diverged":
        return f"The training diverged: after {epochs} the error is no longer a finite number. Lower --learning-rate."
    return f"Interrupted after {epochs} of {lesson.settings.epochs}: this is how far it got."


def _page(lesson: Lesson, figures: dict[str, Figure], known: dict, metrics: dict) -> str:
    settings, learners, shown = lesson.settings, lesson.learners, lesson.learners[-1]
    described, ahead = metrics["machine"], metrics["continuation"]["rmse"]
    units = f"{settings.hidden} {settings.activation} units"

    def drawn(*labels: str) -> Markup:
        return page.charts({label: figures[label] for label in labels})

    came_out = page.section(
        "What came out",
        *map(page.paragraph, summary(lesson)),
        page.table(
            race.race_table(learners, TARGET_RMSE),
            f"Validation RMSE at the end; to the goal of {TARGET_RMSE:g}; the median epoch; the whole training.",
        ),
    )
    task = page.section(
        "The task",
        page.paragraph(
            f"The series is sin(0), sin(1), … sin({LENGTH - 1}): one value for each radian, about six to a wave. The "
            f"network reads {WINDOW} values one after another, and a linear layer on its last state predicts the "
            f"next. That makes {LENGTH - WINDOW} records: it learns from the first {TRAIN_RECORDS} and is judged on "
            f"the other {LENGTH - WINDOW - TRAIN_RECORDS}, the validation records. The error is the root of the mean "
            "squared error (RMSE), on the scale of a wave that goes from −1 to 1."
        ),
        page.paragraph(
            "It means something only beside predictions that need no learning. Predicting zero knows nothing; "
            "persistence repeats the last value; the two-lag rule, sin(t+1) = 2 cos(1) sin(t) − sin(t−1), is exact, "
            "and its error is that of rounding the data to float32."
        ),
        page.table(_known_table(known, shown)),
    )
    learning = page.section(
        "The error as it learns",
        page.paragraph(
            "The same errors twice: against epochs (an epoch is one pass over the training records), and against "
            "the seconds of training. Compiling, and measuring the error after each epoch, are not in the seconds. "
            "Where a line cannot be seen another lies on it: against epochs, those of the implementations should."
        ),
        drawn("Error by epoch", "Error by time"),
    )
    predictions = page.section(
        "Predictions and truth",
        page.paragraph(
            f"Each cross is one prediction by {shown.implementation} after training, made from the {WINDOW} true "
            "values before it. The dots are the values it should have hit, and the thin line is the sine through "
            "them."
        ),
        drawn("Training records", "Validation records"),
    )
    continued = page.section(
        "Left to itself",
        page.paragraph(
            f"Here every prediction becomes an input. The network starts from the last {WINDOW} values of the "
            f"training data and goes on for {AHEAD} steps; after {WINDOW} of them, at the upright line, it reads "
            f"nothing but its own output. Its RMSE over the first {WINDOW} steps is {ahead[str(WINDOW)]:.3g}, over "
            f"all {AHEAD} steps {ahead[str(AHEAD)]:.3g}. Nothing corrects an error here: the next step builds on it."
        ),
        drawn("Continuation", "Error of the continuation"),
    )
    training = page.section(
        "How it was trained",
        page.paragraph(
            f"An Elman RNN of {units} and a linear layer on its last state. The loss is half the squared error of "
            f"the prediction; its gradient flows back through {race.plural(settings.truncate, 'earlier step')} "
            "(truncated BPTT), and every element of the gradients is limited to ±clip. The weights are drawn from "
            f"{settings.weights}; all arithmetic is float32. The cell's forward "
            "pass and BPTT are the implementation's own. The linear layer, clipping and the optimizer are the same "
            "NumPy code for all and count in everybody's time."
        ),
        page.table(race.settings_table(settings)),
        page.paragraph(f"Made by: {metrics['command']}", "small"),
        page.paragraph(_machine(described), "small"),
        *(page.paragraph(warning, "small") for warning in described["warnings"]),
    )
    blocks = [came_out, task, learning, predictions, continued, training]
    if settings.weights == UNIT:
        blocks.insert(1, _article(lesson, known))
    return page.render("Learning a sine", blocks, f"An Elman RNN of {units}, on one thread of {described['cpu']}")


def _article(lesson: Lesson, known: dict[str, dict[str, float]]) -> Markup:
    """Return the section on what the article's weights lead to, with its measurements."""
    found, settings, shown = lesson.saturation, lesson.settings, lesson.learners[-1]
    prediction = shown.predict(lesson.data.validation.x)
    gradients = ", ".join(f"{name} {value:.3g}" for name, value in found.largest_gradients.items())
    words = [
        "The article draws all weights from 0 to 1. Each of its 100 units then adds up 100 states between 0 and 1, "
        "each times 0.5 on average: after a few steps the sum is near 50, and the sigmoid of that is 1 to the last "
        "bit. Its derivative h (1 − h) is then exactly 0, and BPTT multiplies by it at every step.",
        f"Measured here on the training records, before the first update: {100 * found.all_steps:.4g} % of the "
        f"derivatives over all {WINDOW} steps are exactly 0, and {100 * found.in_reach:.4g} % of those over the last "
        f"{race.plural(settings.truncate + 1, 'step')}, the only ones that a gradient truncated at "
        f"{settings.truncate} passes through. The largest elements of the gradients: {gradients}.",
    ]
    if found.in_reach == 1:
        words += [
            "So U and W stay as they were drawn, however long the training, and every record ends in the same "
            "state. Only V learns, and the network predicts one number whatever it reads: after training "
            f"{prediction.mean():.4f} for every validation record, give or take {np.ptp(prediction):.1g}. The best "
            "single number is the mean of the series, near 0: the RMSE comes down from "
            f"{shown.history.validation_rmse[0]:.3g} to {shown.history.validation_rmse[-1]:.3f}, that of predicting "
            f"zero ({known['validation']['predict zero']:.3f}), and stays above persistence "
            f"({known['validation']['persistence']:.3f}).",
            "The article prints errors that amount to a validation RMSE of about 0.579, by other gradients: its own "
            "for U and W leave out the error of the prediction, so they move the weights, but not towards a smaller "
            "loss. The remedy is the weights: drawn from ±1/sqrt(hidden), with Adam in place of plain SGD, the same "
            "sigmoid network learns the sine (train sine --activation sigmoid).",
        ]
    return page.section("What the article's settings lead to", *map(page.paragraph, words))


def _known_table(known: dict[str, dict[str, float]], shown: Learner) -> pd.DataFrame:
    rows = [(name, known["train"][name], known["validation"][name]) for name in known["train"]]
    history = shown.history
    rows.append(("this network", history.train_rmse[-1], history.validation_rmse[-1]))
    return pd.DataFrame(
        [(name, race.number(train), race.number(validation)) for name, train, validation in rows],
        columns=["RMSE of", "training", "validation"],
    )


def _machine(described: dict) -> str:
    versions = ", ".join(f"{name} {described['versions'][name]}" for name in ("numpy", "numba"))
    return f"{described['cpu']}, {described['os']}, Python {described['python']}, {versions}."


def _wave(axes: Axes, start: int, count: int) -> None:
    fine = np.linspace(start, start + count - 1, 20 * count)
    axes.plot(fine, np.sin(fine), color=charts.INK, linewidth=0.5, alpha=0.5)
    steps = np.arange(start, start + count)
    axes.plot(steps, np.sin(steps), "o", color=charts.INK, markersize=2.5, label="truth")
    axes.set_xlabel("t (radians)")
    axes.set_ylabel("value")


def _crosses(axes: Axes, learner: Learner, start: int, prediction: np.ndarray) -> None:
    colour = charts.look(learner.implementation).colour
    steps = np.arange(start, start + len(prediction))
    axes.plot(steps, prediction, "x", color=colour, markersize=5, markeredgewidth=1.3, label="prediction")


def _predictions(learner: Learner, split: Split, title: str, start: int) -> Figure:
    def draw(axes: Axes) -> None:
        prediction = learner.predict(split.x)[:, 0]
        _wave(axes, start, len(prediction))
        _crosses(axes, learner, start, prediction)
        axes.set_title(f"{title}: RMSE {rmse(prediction, split.y[:, 0]):.3g}")

    return charts.sheet([draw])


def _continued(learner: Learner, prediction: np.ndarray, truth: np.ndarray) -> Figure:
    start = WINDOW + TRAIN_RECORDS

    def draw(axes: Axes) -> None:
        _wave(axes, start, len(truth))
        _crosses(axes, learner, start, prediction)
        axes.axvline(start + WINDOW - 0.5, color=charts.INK, linewidth=0.8)
        axes.set_title("From its own predictions")

    return charts.sheet([draw])


def _continued_error(learner: Learner, prediction: np.ndarray, truth: np.ndarray) -> Figure:
    def draw(axes: Axes) -> None:
        steps = np.arange(1, len(truth) + 1)
        colour = charts.look(learner.implementation).colour
        axes.semilogy(steps, np.abs(prediction - truth), "o", color=colour, markersize=3)
        axes.axvline(WINDOW + 0.5, color=charts.INK, linewidth=0.8)
        axes.set_xlabel("steps ahead")
        axes.set_ylabel("|prediction − truth|")
        axes.set_title("Its distance from the truth")

    return charts.sheet([draw])
