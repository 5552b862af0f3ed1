"""What every task reports: who learned it how fast, as words, a table, curves and numbers for `metrics.json`."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from bench import charts
from bench.statistics import paired_ratio, verdict
from bench.tasks.training import Learner, Settings

SAME_CURVE = 1e-2  # relative difference of the errors, below what can be seen on a chart


def race_words(learners: Sequence[Learner], target: float) -> list[str]:
    """Return what the race showed, a paragraph each; the first learner is the baseline."""
    base, *others = learners
    words = [" ".join(_arrival(learner, target) for learner in reversed(learners))]
    for learner in others:
        words += [_ratio(base, learner), _with_compiling(base, learner, target)]
    return [*words, _agreement(learners)] if others else words


def _arrival(learner: Learner, target: float) -> str:
    history, name = learner.history, learner.implementation
    epochs, arrival = history.epochs_to(target), history.seconds_to(target)
    if epochs is None or arrival is None:
        least = min(history.validation_rmse)
        return f"{name} did not get to a validation error of {target:g}: the least was {least:.3g}."
    return (
        f"{name} first got to a validation error of {target:g} in {seconds(arrival)} of training, "
        f"{plural(epochs, 'epoch')}."
    )


def _ratio(base: Learner, learner: Learner) -> str:
    this, other = learner.implementation, base.implementation
    ratio = paired_ratio(base.history.seconds, learner.history.seconds)
    scope = "one training run each, the two taking turns at every epoch in one process, on one thread"
    if len(learner.history.seconds) == 1:
        return (
            f"In the only epoch {this} was {ratio.median:.3g} times as fast as {other}: too little to tell them apart."
        )
    interval = f"{ratio.low:.3g} to {ratio.high:.3g}"
    match verdict(ratio):
        case "faster":
            result = f"{this} trained {ratio.median:.3g} times as fast as {other}"
        case "slower":
            result = f"{this} took {1 / ratio.median:.3g} times as long as {other}"
            interval = f"{1 / ratio.high:.3g} to {1 / ratio.low:.3g}"
        case _:
            result = f"{this} and {other} cannot be told apart"
    epochs = len(learner.history.seconds)
    return f"Epoch for epoch {result} (95 % interval of the median ratio {interval}, {epochs} epochs; {scope})."


def _with_compiling(base: Learner, learner: Learner, target: float) -> str:
    this, other = learner.implementation, base.implementation
    once = f"Not in these times: {this} compiles its code once, or loads it from the disk, here in"
    arrivals = learner.history.seconds_to(target), base.history.seconds_to(target)
    if arrivals[0] is None or arrivals[1] is None:
        return f"{once} {seconds(learner.compile_s)}."
    whole = f"{seconds(arrivals[0] + learner.compile_s)} to that error, and {other} {seconds(arrivals[1])}"
    return f"{once} {seconds(learner.compile_s)}. With that it needed {whole}."


def _agreement(learners: Sequence[Learner]) -> str:
    base, *others = learners
    start = "All began with the same weights and saw the same batches in the same order."
    first, most = (
        max(difference(base, learner) for learner in others) for difference in (first_difference, largest_difference)
    )
    if most == 0:
        return f"{start} Their errors after every epoch are equal to the last bit."
    if most < SAME_CURVE:
        return (
            f"{start} Their errors after every epoch differ by {most:.1g} of their size at most: the curves are the "
            "same but for rounding."
        )
    return (
        f"{start} After the first epoch their errors differ by {first:.1g} of their size; later by up to {most:.1g}, "
        "for training magnifies differences of rounding."
    )


def relative_differences(base: Learner, learner: Learner) -> np.ndarray:
    """Return how far apart their errors were after each epoch, training and validation, (epochs, 2)."""
    a, b = (np.array([one.history.train_rmse, one.history.validation_rmse]).T[1:] for one in (base, learner))
    return np.abs(a - b) / np.maximum(np.abs(a), np.abs(b))


def largest_difference(base: Learner, learner: Learner) -> float:
    return float(relative_differences(base, learner).max())


def first_difference(base: Learner, learner: Learner) -> float:
    return float(relative_differences(base, learner)[0].max())


def race_table(learners: Sequence[Learner], target: float) -> pd.DataFrame:
    """Return a column for each learner and short labels: it has to fit a phone."""
    labels = ["RMSE", "goal, epochs", "goal, s", "ms an epoch", "all, epochs", "all, s", "compiling, s"]
    columns: dict[str, list] = {"": labels}
    for learner in reversed(learners):
        history = learner.history
        columns[learner.implementation] = [
            number(history.validation_rmse[-1], 2),
            number(history.epochs_to(target)),
            number(history.seconds_to(target)),
            number(1e3 * float(np.median(history.seconds))),
            len(history.seconds),
            number(sum(history.seconds)),
            number(learner.compile_s, 2),
        ]
    return pd.DataFrame(columns)


def race_metrics(learners: Sequence[Learner], target: float) -> dict:
    """Return the numbers of the race for `metrics.json`; an error that is not finite is None."""
    base, *others = learners
    return {
        "target_rmse": target,
        "implementations": {
            learner.implementation: {
                "train_rmse": learner.history.train_rmse[-1],
                "validation_rmse": learner.history.validation_rmse[-1],
                "epochs": len(learner.history.seconds),
                "seconds": sum(learner.history.seconds),
                "compile_s": learner.compile_s,
                "epochs_to_target": learner.history.epochs_to(target),
                "seconds_to_target": learner.history.seconds_to(target),
                "history": asdict(learner.history),
            }
            for learner in learners
        },
        "comparisons": [
            {
                "baseline": base.implementation,
                "implementation": learner.implementation,
                "epoch_speedup": paired_ratio(base.history.seconds, learner.history.seconds)._asdict(),
                "first_relative_difference": first_difference(base, learner),
                "largest_relative_difference": largest_difference(base, learner),
            }
            for learner in others
        ],
    }


def settings_table(settings: Settings) -> pd.DataFrame:
    rows = [(name.replace("_", " "), str(value)) for name, value in asdict(settings).items()]
    return pd.DataFrame(rows, columns=["setting", "value"])


def curves(learners: Sequence[Learner], target: float, by_time: bool) -> Figure:
    """Return the errors against the epochs, or against the seconds of training."""

    def draw(axes: Axes) -> None:
        for number, learner in enumerate(learners):
            history = learner.history
            x = np.cumsum([0, *history.seconds]) if by_time else np.arange(len(history.train_rmse))
            every = max(1, len(x) // 10)
            style = charts.line(learner.implementation) | {"linewidth": 1.6}
            # Curves that lie on one another are told apart by markers at different epochs.
            axes.plot(x, history.validation_rmse, **style, markevery=(number * every // len(learners), every))
            axes.plot(x, history.train_rmse, color=charts.INK, linewidth=0.9, linestyle=":", zorder=5)
        axes.plot([], [], color=charts.INK, label="validation")
        axes.plot([], [], color=charts.INK, linewidth=0.9, linestyle=":", label="training")
        axes.axhline(target, color=charts.INK, linewidth=0.8, linestyle="--", label=f"goal, {target:g}")
        axes.set_yscale("log")
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_ylabel("RMSE")
        axes.set_xlabel("seconds of training" if by_time else "epochs")
        axes.set_title("Error by time" if by_time else "Error by epoch")

        axes.legend(loc="upper right", fontsize=8)

    return charts.sheet([draw], legend=False)


def write(folder: Path, metrics: dict, figures: dict[str, Figure], html: str) -> Path:
    """Write metrics.json, charts/ and report.html into `folder`, and return the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    for label, figure in figures.items():
        charts.save(figure, folder / "charts", label.lower().replace(" ", "-"))
    (folder / "metrics.json").write_text(
        json.dumps(_finite(metrics), indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    page = folder / "report.html"
    page.write_text(html, encoding="utf-8")
    return page


def _finite(value):
    """Return the value with every number that JSON does not have (NaN, infinity) as None."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def number(value: float | None, digits: int = 3) -> tuple[str, float]:
    """Return a table's cell: some digits to read, the whole value to sort by; None is "never"."""
    return ("never", math.inf) if value is None else (f"{value:.{digits}g}", value)


def seconds(value: float) -> str:
    return f"{1e3 * value:.3g} ms" if value < 0.1 else f"{value:.3g} s"


def plural(n: int, thing: str) -> str:
    return f"{n} {thing}" if n == 1 else f"{n} {thing}s"
