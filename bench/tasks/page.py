"""What every task reports: who learned it how fast, as words, a table, curves and numbers for `metrics.json`.

One implementation, `Race.shown`, is compared with each of the others.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from bench.machine import describe as machine
from bench.report import charts, page
from bench.results import files
from bench.results.formats import counted as plural
from bench.results.statistics import Interval, median_interval, paired_ratio, tells, verdict
from bench.tasks.learning.model import RUNGS
from bench.tasks.learning.training import Race
from bench.tasks.learning.training import diverged as astray

SAME_CURVE = 1e-2  # relative difference of the errors, below what can be seen on a chart


def report(
    race: Race,
    folder: Path,
    command: str,
    title: str,
    blocks: Sequence[Markup],
    figures: dict[str, Figure],
    metrics: dict,
    summary: Sequence[str] = (),
) -> Path:
    """Write metrics.json, charts/ and report.html of a race into `folder`, and return the page's path.

    `summary` begins the page, `blocks` come after what the race came to, and `metrics` are the task's own numbers.
    """
    course, described = race.course, race.machine or machine.describe()
    figures = {"Error by epoch": curves(race, by_time=False), "Error by time": curves(race, by_time=True)} | figures
    numbers = {
        "format": 2,
        "task": course.name,
        "command": command,
        "written": datetime.now().astimezone().isoformat(timespec="seconds"),
        "outcome": race.outcome,
        "settings": vars(course.settings),
        **race_metrics(race),
        **metrics,
        "machine": described,
    }
    drawn = [
        page.section(
            "What came out",
            *map(page.paragraph, [*summary, *race_words(race)]),
            page.table(race_table(race), _caption(race)),
        ),
        *blocks,
        _learning(race, figures),
        _training(race, described, command),
    ]
    lead = f"{_units(race)}, {where(course.settings.threads, described)}"
    return write(folder, numbers, figures, page.render(title, drawn, lead))


def diverged(race: Race, folder: Path, command: str) -> Path:
    """Write the report of a race that diverged, whose forecasts are none, and return the page's path."""
    return report(race, folder, command, f"Learning {race.course.name}: diverged", [], {}, {})


def divergence(race: Race) -> str:
    """Return which training of a race diverged, and how far."""
    last = {name: histories[-1] for name, histories in race.histories.items()}
    name = next((name for name, history in last.items() if astray(history.train)), race.shown)
    errors, seed = last[name].train, race.course.settings.seed + len(race.histories[name]) - 1
    return (
        f"The training diverged: after {plural(len(errors) - 1, 'epoch')} with seed {seed} "
        f"{far(name, errors, f'training {race.course.measure}')} Lower --learning-rate."
    )


def far(name: str, errors: Sequence[float], measure: str) -> str:
    """Return where the errors of an implementation have come to, from where they began."""
    if not math.isfinite(errors[-1]):
        return f"the {measure} of {name} is no longer a finite number."
    return f"the {measure} of {name} is {errors[-1]:.3g}; before any training it was {errors[0]:.3g}."


def race_words(race: Race) -> list[str]:
    """Return what the race showed, a paragraph each."""
    epochs = len(race.history(race.shown).seconds)
    if race.outcome == "diverged":
        return [divergence(race)]
    words = []
    if race.outcome == "interrupted":
        done = plural(len(race.histories[race.shown]), "seed")
        wanted = race.course.settings
        words = [
            f"Interrupted after {plural(epochs, 'epoch')} of {wanted.epochs} and {done} of {wanted.seeds}: this is how "
            "far it got."
        ]
    words.append(" ".join(_arrival(race, name) for name in (race.shown, *_others(race))))
    words += [_ratio(race, name) for name in _others(race)]
    words.append(_compiling(race))
    if _others(race):
        words.append(_agreement(race))
    if race.absent:
        reasons = ", ".join(f"{name} ({reason})" for name, reason in race.absent.items())
        words.append(f"Not in the race: {reasons}.")
    return words


def _others(race: Race) -> list[str]:
    return [name for name in race.implementations if name != race.shown]


def _goal(race: Race) -> str:
    kind = "training" if race.course.judge == "train" else "validation"
    return f"a {kind} error of {race.course.settings.goal:g}"


def arrived(race: Race, implementation: str) -> list[float]:
    """Return the seconds to the goal with those seeds that got there, and were not there before any training."""
    return [taken for taken in race.seconds_to_goal(implementation) if taken]


def _arrival(race: Race, name: str) -> str:
    seeds, times = len(race.histories[name]), arrived(race, name)
    there = race.seconds_to_goal(name).count(0)
    if there:
        untrained = f"Before any training {name} had {_goal(race)} or less with {there} of {plural(seeds, 'seed')}"
        return f"{untrained}: a race to it says nothing. Lower --goal."
    if not times:
        least = min(min(getattr(history, race.course.judge)) for history in race.histories[name])
        return f"{name} did not get to {_goal(race)}: the least was {least:.3g}."
    goal, judge = race.course.settings.goal, race.course.judge
    epochs = [history.epochs_to(goal, judge) for history in race.histories[name]]
    typical = int(np.median([epoch for epoch in epochs if epoch is not None]))
    share = "" if len(times) == seeds else f" with {len(times)} of {plural(seeds, 'seed')}"
    return (
        f"{name} got to {_goal(race)} in {seconds(float(np.median(times)))} of training, "
        f"{plural(typical, 'epoch')}{share}."
    )


def speedup(race: Race, other: str) -> Interval:
    """Return how many times sooner than `other` the shown implementation was at the goal, over the seeds."""
    pairs = zip(race.seconds_to_goal(other), race.seconds_to_goal(race.shown), strict=True)
    both = [(a, b) for a, b in pairs if a and b]
    return paired_ratio([a for a, _ in both], [b for _, b in both])


def epoch_speedup(race: Race, other: str) -> Interval:
    """Return how many times as fast as `other` an epoch of the shown implementation was, over all epochs."""
    base, this = ([t for history in race.histories[name] for t in history.seconds] for name in (other, race.shown))
    return paired_ratio(base, this)


def _ratio(race: Race, other: str) -> str:
    epoch = epoch_speedup(race, other)
    seeds = plural(len(race.histories[other]), "seed")
    scope = f"{plural(sum(len(history.seconds) for history in race.histories[other]), 'epoch')} in turn"
    words = f"Epoch for epoch {verdict_words(race.shown, other, epoch)} (95 % interval {ends(epoch)}, {scope})."
    return words + goal_words(race.shown, other, speedup(race, other), seeds)


def goal_words(this: str, other: str, ratio: Interval, seeds: str) -> str:
    """Return a further sentence on how many times the seconds of `this` it took `other` to the goal; none of one seed.

    How many is said where the interval tells it.
    """
    if math.isnan(ratio.low):
        return ""
    if not tells(ratio):
        return f" How many times the seconds of {this} it took {other} to the goal, {seeds} cannot tell."
    return f" To the goal it took {other} {ratio.median:.3g} times the seconds of {this} ({_range(ratio)}, {seeds})."


def verdict_words(this: str, other: str, ratio: Interval) -> str:
    """Return who was faster, and how many times where the interval of the ratio tells it."""
    match verdict(ratio):
        case "faster":
            how = f"{ratio.median:.3g} times as fast as" if tells(ratio) else "faster than"
            return f"{this} trained {how} {other}"
        case "slower":
            how = f"{1 / ratio.median:.3g} times as long as" if tells(ratio) else "longer than"
            return f"{this} took {how} {other}"
        case _:
            return f"{this} and {other} cannot be told apart"


def ends(ratio: Interval) -> str:
    """Return the ends of the interval of the ratio that `verdict_words` says."""
    if math.isnan(ratio.low):
        return "none of a single one"
    return _range(Interval(1 / ratio.median, 1 / ratio.high, 1 / ratio.low) if verdict(ratio) == "slower" else ratio)


def _range(ratio: Interval) -> str:
    return f"{ratio.low:.3g} to {ratio.high:.3g}"


def _compiling(race: Race) -> str:
    once = ", ".join(f"{name} {seconds(race.compile_s[name])}" for name in (race.shown, *_others(race)))
    return f"Not in these times is what is done once, compiling or loading compiled code: {once}."


def _agreement(race: Race) -> str:
    start = "All began with the same weights and saw the same batches in the same order."
    first = max(first_difference(race, other) for other in _others(race))
    most = max(largest_difference(race, other) for other in _others(race))
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


def relative_differences(race: Race, other: str) -> np.ndarray:
    """Return how far apart two were after each epoch of the first seed, training and validation, (epochs, 2)."""
    histories = race.history(race.shown), race.history(other)
    return difference(*(np.array([history.train, history.validation]).T[1:] for history in histories))


def difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the differences of like elements, each relative to the larger; NaN where one is not finite."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(a == b, 0.0, np.abs(a - b) / np.maximum(np.abs(a), np.abs(b)))


def largest_difference(race: Race, other: str) -> float:
    return float(relative_differences(race, other).max())


def first_difference(race: Race, other: str) -> float:
    return float(relative_differences(race, other)[0].max())


def _caption(race: Race) -> str:
    measure, shown = race.course.measure, race.shown
    return (
        f"Seconds of training to {_goal(race)} ({measure}), the median over seeds with its 95 % interval; how many "
        f"times those of {shown}; milliseconds of the median epoch; what is done once; the {measure} at the end."
    )


def race_table(race: Race) -> pd.DataFrame:
    """Return a row for each implementation, the shown one first."""
    rows = []
    for name in (race.shown, *_others(race)):
        times = median_interval(arrived(race, name))
        ratio = speedup(race, name)
        rows.append(
            {
                "": name,
                "to the goal, s": number(None if math.isnan(times.median) else times.median),
                "95 %": "" if math.isnan(times.low) else f"{times.low:.3g}–{times.high:.3g}",
                f"× {race.shown}": ("", math.inf) if math.isnan(ratio.median) else number(ratio.median),
                "95 % of ×": "" if math.isnan(ratio.low) or name == race.shown else f"{ratio.low:.3g}–{ratio.high:.3g}",
                "ms an epoch": number(1e3 * _typical_epoch(race, name)),
                "once, s": number(race.compile_s[name], 2),
                "error": number(race.history(name).validation[-1]),
            }
        )
    return pd.DataFrame(rows)


def _typical_epoch(race: Race, implementation: str) -> float:
    return float(np.median([taken for history in race.histories[implementation] for taken in history.seconds]))


def race_metrics(race: Race) -> dict:
    """Return the numbers of the race for `metrics.json`; an error that is not finite is None."""
    return {
        "measure": race.course.measure,
        "goal": {"of": race.course.judge, "error": race.course.settings.goal},
        "absent": race.absent,
        "implementations": {
            name: {
                "train": race.history(name).train[-1],
                "validation": race.history(name).validation[-1],
                "epochs": len(race.history(name).seconds),
                "seconds": sum(race.history(name).seconds),
                "epoch_seconds": _typical_epoch(race, name),
                "compile_s": race.compile_s[name],
                "seconds_to_goal": race.seconds_to_goal(name),
                "median_seconds_to_goal": median_interval(arrived(race, name))._asdict(),
                "histories": [asdict(history) for history in race.histories[name]],
            }
            for name in race.implementations
        },
        "comparisons": [
            {
                "implementation": race.shown,
                "baseline": other,
                "speedup_to_goal": speedup(race, other)._asdict(),
                "epoch_speedup": epoch_speedup(race, other)._asdict(),
                "first_relative_difference": first_difference(race, other),
                "largest_relative_difference": largest_difference(race, other),
            }
            for other in _others(race)
        ],
    }


def _learning(race: Race, figures: dict[str, Figure]) -> Markup:
    seeds = len(race.histories[race.shown])
    shade = f" The line is the median of {seeds} seeds, and all of them lie in the shade." if seeds > 1 else ""
    return page.section(
        "The error as it learns",
        page.paragraph(
            "The same errors twice: against epochs, and against the seconds of training. Compiling, and measuring the "
            "error after each epoch, are not in the seconds. Where a line cannot be seen another lies on it: against "
            f"epochs, those of the implementations should.{shade}"
        ),
        page.charts({label: figures[label] for label in ("Error by epoch", "Error by time")}),
    )


def _training(race: Race, described: dict, command: str) -> Markup:
    model, settings = race.course.model, race.course.settings
    loss = {
        "last": "half the squared error of the outputs after the last step",
        "every": "half the squared error of the outputs after every step",
        "softmax": "the cross-entropy of a softmax after every step",
    }[model.loss]
    reach = (
        "" if model.truncate is None else f"; its gradient flows back through {plural(model.truncate, 'earlier step')}"
    )
    return page.section(
        "How it was trained",
        page.paragraph(
            f"{_units(race)} and a linear layer. The loss is {loss}{reach}. The weights are drawn from "
            f"{settings.weights}; all arithmetic is float32. {_at_work(race)} Each implementation has a process of its "
            "own, and they take turns at every epoch. One network of ours measures the errors of all, from their "
            "weights."
        ),
        page.table(settings_table(settings)),
        *made_by(command, described),
    )


def _at_work(race: Race) -> str:
    """Return what is in the times of the implementations of this race."""
    ours = [name for name in race.implementations if name in RUNGS]
    words = []
    if ours:
        words.append(f"With {' and '.join(ours)} the cell's forward pass and BPTT are those of that rung.")
    if "torch" in race.implementations:
        words.append("torch is torch.nn, autograd and torch.optim.")
    if "jax" in race.implementations:
        words.append("jax has the whole step, the optimizer with it, in one jitted function.")
    return " ".join(words)


def _units(race: Race) -> str:
    model = race.course.model
    kind = {
        "rnn": f"An Elman RNN of {{}} {model.activation} units",
        "gru": "A GRU of {} units",
        "lstm": "An LSTM of {} units",
    }
    return kind[model.cell].format(model.hidden_size)


def made_by(command: str, described: dict) -> list[Markup]:
    """Return what a report ends with: the command, the machine that ran it, and what speaks against its times."""
    about = machine.words(described)
    versions = [f"{name} {about[name]}" for name in ("numpy", "numba", "torch", "jax") if name in about]
    words = ", ".join([about["CPU"], about["System"], f"Python {about['Python']}", *versions])
    return [page.paragraph(text, "small") for text in (f"Made by: {command}", f"{words}.", *described["warnings"])]


def where(threads: int, described: dict) -> str:
    """Return on how many threads of which CPU a network learned."""
    return f"on {plural(threads, 'thread')} of {described['cpu'] or 'an unknown CPU'}"


def settings_table(settings: Any) -> pd.DataFrame:
    rows = [(name.replace("_", " "), str(value)) for name, value in asdict(settings).items()]
    return pd.DataFrame(rows, columns=["setting", "value"])


def curves(race: Race, by_time: bool) -> Figure:
    """Return the errors against the epochs, or against the seconds of training: medians over the seeds."""
    judge = race.course.judge

    def draw(axes: Axes) -> None:
        for place, name in enumerate(race.implementations):
            histories = race.histories[name]
            epochs = min(len(history.seconds) for history in histories)
            errors = np.array([getattr(history, judge)[: epochs + 1] for history in histories])
            times = np.median([np.cumsum([0, *history.seconds[:epochs]]) for history in histories], axis=0)
            begin = 1 if by_time else 0  # a logarithmic axis has no place for the start
            x = (times if by_time else np.arange(epochs + 1))[begin:]
            low, middle, high = np.quantile(errors[:, begin:], (0, 0.5, 1), axis=0)
            every = max(1, len(x) // 10)
            style = charts.line(name) | {"linewidth": 1.6}
            # Curves that lie on one another are told apart by markers at different epochs.
            first = place * every // len(race.implementations)
            axes.plot(x, middle, **style, markevery=(first, every))
            if len(histories) > 1:
                axes.fill_between(x, low, high, color=charts.look(name).colour, alpha=0.12, linewidth=0)
        goal = race.course.settings.goal
        axes.axhline(goal, color=charts.INK, linewidth=0.8, linestyle="--", label=f"goal, {goal:g}")
        error_scale(axes)
        if by_time and race.outcome != "diverged":
            axes.set_xscale("log")
            _label_some(axes.xaxis, *axes.dataLim.intervalx)
        if not by_time:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylabel(f"{'training' if judge == 'train' else 'validation'} {race.course.measure}")
        axes.set_xlabel("seconds of training" if by_time else "epochs")
        axes.set_title("Error by time" if by_time else "Error by epoch")
        axes.legend(loc="upper right", fontsize=8)

    return charts.sheet([draw], legend=False)


def error_scale(axes: Axes) -> None:
    """Make the axis of the errors logarithmic if they differ by much, with enough of its ticks labelled."""
    low, high = axes.dataLim.intervaly
    if high < 3 * low:
        return
    axes.set_yscale("log")
    _label_some(axes.yaxis, low, high)


def _label_some(axis: Axis, low: float, high: float) -> None:
    """Label the ticks 1, 2, 5, 10 of a logarithmic axis that spans little, else 1, 10, 100."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())


def write(folder: Path, metrics: dict, figures: dict[str, Figure], html: str) -> Path:
    """Write metrics.json, charts/ and report.html into `folder`, and return the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    for label, figure in figures.items():
        charts.save(figure, folder / "charts", label)
    files.save(folder / "metrics.json", json.dumps(_finite(metrics), indent=2, ensure_ascii=False) + "\n")
    files.save(folder / "report.html", html)
    return folder / "report.html"


def _finite(value):
    """Return the value with every number that JSON does not have (NaN, infinity) as None."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def number(value: float | None, digits: int = 3) -> tuple[str, float]:
    """Return a table's cell: some digits to read, the whole value to sort by; None is "never", no number a dash."""
    if value is None or not math.isfinite(value):
        return "never" if value is None else "–", math.inf
    return f"{value:.{digits}g}", value


def seconds(value: float) -> str:
    return f"{1e3 * value:.3g} ms" if value < 0.1 else f"{value:.3g} s"
