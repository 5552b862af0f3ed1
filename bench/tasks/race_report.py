"""What every task reports: who learned it how fast, as words, a table, curves and numbers for `metrics.json`."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench import charts
from bench.statistics import paired_ratio, verdict
from bench.tasks.training import Learner, Settings

SAME_CURVE = 1e-2  # relative difference of the errors, below what can be seen on a chart


def race_words(learners: Sequence[Learner], target: float) -> list[str]:
    """Return a paragraph for each thing that the race showed; the first learner is the baseline."""
    words = [_arrival(learner, target) for learner in learners]
    if len(learners) == 1:
        return [" ".join(words)]
    base, *others = learners
    for learner in others:
        words += [_ratio(base, learner), _with_compiling(base, learner, target)]
    return [" ".join(words), _agreement(learners)]


def _arrival(learner: Learner, target: float) -> str:
    history = learner.history
    epochs, name = history.epochs_to(target), learner.implementation
    total = f"{plural(len(history.seconds), 'epoch')} of {seconds(sum(history.seconds))} in all"
    if epochs is None:
        return (
            f"{name} did not get to a validation error of {target:g}: the least was {min(history.validation_rmse):.3g}"
            f" ({total})."
        )
    return (
        f"{name} got to a validation error of {target:g} after {plural(epochs, 'epoch')} and "
        f"{seconds(sum(history.seconds[:epochs]))} of training ({total})."
    )


def _ratio(base: Learner, learner: Learner) -> str:
    ratio = paired_ratio(base.history.seconds, learner.history.seconds)
    epochs = plural(len(learner.history.seconds), "epoch")
    scope = "one training run each, the two taking turns at every epoch in one process, on one thread"
    interval = f"95 % interval {ratio.low:.3g} to {ratio.high:.3g}"
    match verdict(ratio):
        case "faster":
            result = f"{learner.implementation} trained {ratio.median:.3g} times as fast as {base.implementation}"
        case "slower":
            interval = f"95 % interval {1 / ratio.high:.3g} to {1 / ratio.low:.3g}"
            result = f"{learner.implementation} took {1 / ratio.median:.3g} times as long as {base.implementation}"
        case _:
            result = f"{learner.implementation} and {base.implementation} trained equally fast"
    return f"Epoch for epoch {result} ({interval}, over {epochs}; {scope})."


def _with_compiling(base: Learner, learner: Learner, target: float) -> str:
    times = [_seconds_or_all(one, target) for one in (base, learner)]
    whole = [time + one.compile_s for time, one in zip(times, (base, learner), strict=True)]
    return (
        f"That leaves out what {learner.implementation} does once, compiling its code or loading it from the disk: "
        f"{seconds(learner.compile_s)} this time. With that it needs {seconds(whole[1])}, "
        f"{base.implementation} {seconds(whole[0])}."
    )


def _seconds_or_all(learner: Learner, target: float) -> float:
    arrival = learner.history.seconds_to(target)
    return sum(learner.history.seconds) if arrival is None else arrival


def _agreement(learners: Sequence[Learner]) -> str:
    base, *others = learners
    difference = max(largest_difference(base, learner) for learner in others)
    return (
        "All began with the same weights and saw the same batches in the same order. Their errors after every epoch "
        f"differ by at most {difference:.1e} of their size: the curves are the same but for rounding."
        if difference < SAME_CURVE
        else "All began with the same weights and saw the same batches in the same order. Their errors after the first "
        f"epoch differ by {first_difference(base, others[0]):.1e} of their size, and at most by {difference:.1e}: "
        "training multiplies the differences of rounding."
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
    rows = []
    for learner in learners:
        history = learner.history
        arrival = history.seconds_to(target)
        rows.append(
            {
                "implementation": learner.implementation,
                "validation RMSE": f"{history.validation_rmse[-1]:.4f}",
                "training RMSE": f"{history.train_rmse[-1]:.4f}",
                f"epochs to {target:g}": "never" if arrival is None else str(history.epochs_to(target)),
                f"seconds to {target:g}": "never" if arrival is None else f"{arrival:.3g}",
                "ms an epoch (median)": f"{1e3 * float(np.median(history.seconds)):.3g}",
                "epochs": str(len(history.seconds)),
                "seconds in all": f"{sum(history.seconds):.3g}",
                "compiling, once (s)": f"{learner.compile_s:.2g}",
            }
        )
    return pd.DataFrame(rows)


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
    return pd.DataFrame([(name.replace("_", " "), str(value)) for name, value in asdict(settings).items()],
                        columns=["setting", "value"])  # fmt: skip


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
            axes.plot(x, history.train_rmse, color=style["color"], linewidth=0.9, linestyle=":")
        axes.plot([], [], color=charts.INK, label="validation")
        axes.plot([], [], color=charts.INK, linewidth=0.9, linestyle=":", label="training")
        axes.axhline(target, color=charts.INK, linewidth=0.8, linestyle="--", label=f"goal, {target:g}")
        axes.set_yscale("log")
        axes.set_ylabel("RMSE")
        axes.set_xlabel("seconds of training" if by_time else "epochs")
        axes.set_title("Error by time" if by_time else "Error by epoch")

    return charts.sheet([draw])


def write(folder: Path, metrics: dict, figures: dict[str, Figure], html: str) -> Path:
    """Write metrics.json, charts/ and report.html into `folder`, and return the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    for label, figure in figures.items():
        charts.save(figure, folder / "charts", label.lower().replace(" ", "-"))
    (folder / "metrics.json").write_text(json.dumps(_finite(metrics), indent=2) + "\n", encoding="utf-8")
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


def seconds(value: float) -> str:
    return f"{1e3 * value:.3g} ms" if value < 0.1 else f"{value:.3g} s"


def plural(n: int, thing: str) -> str:
    return f"{n} {thing}" if n == 1 else f"{n} {thing}s"
