"""What a sine lesson leaves behind: metrics.json, charts, and a page that says what they show."""

from pathlib import Path

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, StrMethodFormatter

from bench.report import charts, page
from bench.tasks import page as race_report
from bench.tasks.learning.training import UNIT, Race, Split, rmse
from bench.tasks.sine.data import AHEAD, LENGTH, TRAIN_RECORDS, WINDOW, Saturation, Sine


def write(race: Race[Sine], folder: Path, command: str) -> Path:
    """Write the report of a race on `Sine` into `folder` and return the page's path."""
    course = race.course
    train, validation = course.data
    known = {name: course.baselines(split) for name, split in course.data._asdict().items()}
    ahead = course.continuation(race.weights[race.shown])
    far = {str(steps): rmse(ahead[0][:steps], ahead[1][:steps]) for steps in (WINDOW, AHEAD)}
    figures = {
        "Training records": _predictions(race, train, "Training records", WINDOW),
        "Validation records": _predictions(race, validation, "Validation records", WINDOW + TRAIN_RECORDS),
        "Continuation": _continued(race, *ahead),
        "Error of the continuation": _continued_error(race, *ahead),
    }
    steps_ahead = _errors_ahead(race)
    if course.wave.horizon > 1:
        figures["Error by step ahead"] = _horizon(race, steps_ahead)
    blocks = [_task(race, known), _shown(race, figures), _alone(race, figures, far)]
    if course.settings.weights == UNIT and course.saturation is not None:
        blocks.insert(0, _article(race, course.saturation, known))
    metrics = {
        "wave": vars(course.wave),
        "baselines": known,
        "continuation": {"implementation": race.shown, "rmse": far},
        "rmse_by_step_ahead": steps_ahead,
        "saturation_before_training": None if course.saturation is None else course.saturation._asdict(),
    }
    return race_report.report(race, folder, command, "Learning a sine", blocks, figures, metrics)


def _errors_ahead(race: Race[Sine]) -> dict[str, list[float]]:
    """Return the validation RMSE of each step ahead: the network's and that of the last value seen."""
    x, y = race.course.data.validation
    outputs = race.predict(race.shown, x)
    steps = range(y.shape[1])
    return {
        race.shown: [rmse(outputs[:, step], y[:, step]) for step in steps],
        "persistence": [rmse(x[-1, :, 0], y[:, step]) for step in steps],
    }


def _task(race: Race[Sine], known: dict) -> Markup:
    wave = race.course.wave
    waves = (
        f"sin({wave.frequencies[0]:g} t)"
        if len(wave.frequencies) == 1
        else "the mean of " + ", ".join(f"sin({frequency:g} t)" for frequency in wave.frequencies)
    )
    if wave.frequencies == (1.0,):
        waves = "sin t"
    noise = f", with noise of standard deviation {wave.noise:g} on every value" if wave.noise else ""
    asked = "the next" if wave.horizon == 1 else f"the next {wave.horizon} at once"
    floor = f" No forecast can be better than the noise: {wave.noise:g}." if wave.noise else ""
    rule = (
        ""
        if wave.noise
        else (
            " The lag rule, for one wave sin(t+w) = 2 cos(w) sin(t) − sin(t−w), is exact, and its error is that of "
            "rounding the data to float32."
        )
    )
    return page.section(
        "The task",
        page.paragraph(
            f"The series is {waves} at t = 0, 1, … {LENGTH - 1}{noise}. The network reads {WINDOW} values one after "
            f"another, and a linear layer on its last state predicts {asked}. It learns from the records before value "
            f"{TRAIN_RECORDS + WINDOW} and is judged on those after it, the validation records. The error is the root "
            "of the mean squared error (RMSE)."
        ),
        page.paragraph(
            "It means something only beside predictions that need no learning. Predicting zero knows nothing; "
            f"persistence repeats the last value.{rule}{floor}"
        ),
        page.table(_known_table(known, race)),
    )


def _shown(race: Race[Sine], figures: dict[str, Figure]) -> Markup:
    labels = [label for label in ("Training records", "Validation records", "Error by step ahead") if label in figures]
    ahead = " Of several predicted at once the first is drawn." if race.course.wave.horizon > 1 else ""
    return page.section(
        "Predictions and truth",
        page.paragraph(
            f"Each cross is one prediction by {race.shown} after training, made from the {WINDOW} values before it. "
            f"The dots are the values it should have hit, and the thin line is the wave without noise.{ahead}"
        ),
        page.charts({label: figures[label] for label in labels}),
    )


def _alone(race: Race[Sine], figures: dict[str, Figure], far: dict[str, float]) -> Markup:
    return page.section(
        "Left to itself",
        page.paragraph(
            f"Here every prediction becomes an input. The network starts from the last {WINDOW} values of the "
            f"training data and goes on for {AHEAD} steps; after {WINDOW} of them, at the upright line, it reads "
            f"nothing but its own output. Its RMSE over the first {WINDOW} steps is {far[str(WINDOW)]:.3g}, over "
            f"all {AHEAD} steps {far[str(AHEAD)]:.3g}. Nothing corrects an error here: the next step builds on it."
        ),
        page.charts({label: figures[label] for label in ("Continuation", "Error of the continuation")}),
    )


def _article(race: Race[Sine], found: Saturation, known: dict[str, dict[str, float]]) -> Markup:
    """Return the section on what the article's weights lead to, with its measurements."""
    settings, errors = race.course.settings, race.history(race.shown).validation
    prediction = race.predict(race.shown, race.course.data.validation.x)
    gradients = ", ".join(f"{name} {value:.3g}" for name, value in found.largest_gradients.items())
    words = [
        "The article draws all weights from 0 to 1. Each of its 100 units then adds up 100 states between 0 and 1, "
        "each times 0.5 on average: after a few steps the sum is near 50, and the sigmoid of that is 1 to the last "
        "bit. Its derivative h (1 − h) is then exactly 0, and BPTT multiplies by it at every step.",
        f"Measured here on the training records, before the first update: {100 * found.all_steps:.4g} % of the "
        f"derivatives over all {WINDOW} steps are exactly 0, and {100 * found.in_reach:.4g} % of those over the last "
        f"{race_report.plural(settings.truncate + 1, 'step')}, the only ones that a gradient truncated at "
        f"{settings.truncate} passes through. The largest elements of the gradients: {gradients}.",
    ]
    if found.in_reach == 1:
        words += [
            "So U and W stay as they were drawn, however long the training, and every record ends in the same "
            "state. Only V learns, and the network predicts one number whatever it reads: after training "
            f"{prediction.mean():.4f} for every validation record, give or take {np.ptp(prediction):.1g}. The best "
            "single number is the mean of the series, near 0: the RMSE comes down from "
            f"{errors[0]:.3g} to {errors[-1]:.3f}, that of predicting "
            f"zero ({known['validation']['predict zero']:.3f}), and stays above persistence "
            f"({known['validation']['persistence']:.3f}).",
            "The article prints errors that amount to a validation RMSE of about 0.579, by other gradients: its own "
            "for U and W leave out the error of the prediction, so they move the weights, but not towards a smaller "
            "loss. The remedy is the weights: drawn from ±1/sqrt(hidden), with Adam in place of plain SGD, the same "
            "sigmoid network learns the sine (train sine --activation sigmoid).",
        ]
    return page.section("What the article's settings lead to", *map(page.paragraph, words))


def _known_table(known: dict[str, dict[str, float]], race: Race[Sine]) -> pd.DataFrame:
    rows = [(name, known["train"][name], known["validation"][name]) for name in known["train"]]
    history = race.history(race.shown)
    rows.append(("this network", history.train[-1], history.validation[-1]))
    number = race_report.number
    return pd.DataFrame(
        [(name, number(train), number(validation)) for name, train, validation in rows],
        columns=["RMSE of", "training", "validation"],
    )


def _wave(axes: Axes, race: Race[Sine], start: int, values: np.ndarray) -> None:
    fine = race.course.wave.truth(start, len(values), each=20)
    axes.plot(start + np.arange(len(fine)) / 20, fine, color=charts.INK, linewidth=0.5, alpha=0.5)
    axes.plot(start + np.arange(len(values)), values, "o", color=charts.INK, markersize=2.5, label="truth")
    axes.set_xlabel("t")
    axes.set_ylabel("value")


def _crosses(axes: Axes, race: Race[Sine], start: int, prediction: np.ndarray) -> None:
    colour = charts.look(race.shown).colour
    steps = np.arange(start, start + len(prediction))
    axes.plot(steps, prediction, "x", color=colour, markersize=5, markeredgewidth=1.3, label="prediction")


def _predictions(race: Race[Sine], split: Split, title: str, start: int) -> Figure:
    def draw(axes: Axes) -> None:
        prediction, y = race.predict(race.shown, split.x)[:, 0], split.y[:, 0]
        _wave(axes, race, start, y)
        _crosses(axes, race, start, prediction)
        axes.set_title(f"{title}: RMSE {rmse(prediction, y):.3g}")

    return charts.sheet([draw])


def _horizon(race: Race[Sine], errors: dict[str, list[float]]) -> Figure:
    def draw(axes: Axes) -> None:
        for name, values in errors.items():
            style = charts.line(name) if name == race.shown else {"color": charts.INK, "label": name, "linestyle": "--"}
            axes.plot(np.arange(1, len(values) + 1), values, **style)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylim(bottom=0)
        axes.set_xlabel("steps ahead")
        axes.set_ylabel("validation RMSE")
        axes.set_title("Error by step ahead")

    return charts.sheet([draw])


def _continued(race: Race[Sine], prediction: np.ndarray, truth: np.ndarray) -> Figure:
    start = WINDOW + TRAIN_RECORDS

    def draw(axes: Axes) -> None:
        _wave(axes, race, start, truth)
        _crosses(axes, race, start, prediction)
        axes.axvline(start + WINDOW - 0.5, color=charts.INK, linewidth=0.8)
        axes.set_title("From its own predictions")

    return charts.sheet([draw])


def _continued_error(race: Race[Sine], prediction: np.ndarray, truth: np.ndarray) -> Figure:
    def draw(axes: Axes) -> None:
        steps = np.arange(1, len(truth) + 1)
        axes.semilogy(steps, np.abs(prediction - truth), "o", color=charts.look(race.shown).colour, markersize=3)
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.axvline(WINDOW + 0.5, color=charts.INK, linewidth=0.8)
        axes.set_xlabel("steps ahead")
        axes.set_ylabel("|prediction − truth|")
        axes.set_title("Its distance from the truth")

    return charts.sheet([draw])
