"""What the adding problem and the copy task come to: which cells have the memory, and what it costs."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.machine import describe as machine
from bench.report import charts, page
from bench.tasks import page as race_report
from bench.tasks.learning.training import Race
from bench.tasks.memory.data import BATCHES, COPIED, RECORDS, SYMBOLS, Copy, Drawn
from bench.tasks.page import number, plural, seconds

COLOURS = {"rnn": "numpy", "gru": "jax", "lstm": "torch"}  # a cell borrows the colour of an implementation


def write(races: Sequence[Race[Drawn]], folder: Path, command: str) -> Path:
    """Write the report of races on one task, one for each cell, into `folder` and return the page's path."""
    course, described = races[0].course, races[0].machine or machine.describe()
    figures = {
        "Error by batches seen": _curves(races, by_time=False),
        "Error by time": _curves(races, by_time=True),
    }
    metrics = {
        "format": 2,
        "task": course.name,
        "command": command,
        "written": datetime.now().astimezone().isoformat(timespec="seconds"),
        "length": course.length,
        "without_memory": course.constant,
        "cells": {
            race.course.model.cell: {
                "outcome": race.outcome,
                "settings": vars(race.course.settings),
                **race_report.race_metrics(race),
            }
            for race in races
        },
        "machine": described,
    }
    races_run = [race for race in races if len(race.implementations) > 1]
    blocks = [
        page.section(
            "What came out",
            *map(page.paragraph, summary(races)),
            page.table(
                _table(races),
                f"By {races[0].shown}; medians over seeds; the error is {course.measure}, on {RECORDS} records that "
                "nobody learned from.",
            ),
        ),
        page.section("The task", page.paragraph(_task(course) + _directions(course))),
        page.section(
            "The error as it learns",
            page.paragraph(
                "The line is the median over the seeds, and all of them lie in the shade. The upper dashed line is "
                "what remembering nothing comes to, the lower one the goal."
            ),
            page.charts(figures),
        ),
        *(
            page.section(
                f"The race with the {race.course.model.cell}",
                *map(page.paragraph, race_report.race_words(race)),
                page.table(race_report.race_table(race)),
            )
            for race in races_run
        ),
        page.section(
            "How it was trained",
            page.paragraph(
                f"Every epoch is {BATCHES} batches, drawn anew. The gradient flows back through all of time. "
                "The same settings serve all cells; another rate or size may suit one of them better."
            ),
            page.table(race_report.settings_table(course.settings).query("setting != 'cell'")),
            *race_report.made_by(command, described),
        ),
    ]
    title = "Copying what was long ago" if isinstance(course, Copy) else "Adding two numbers from long ago"
    network = " and ".join(_network(course))
    where = race_report.where(course.settings.threads, described)
    lead = f"Over {plural(course.length, 'step')}{network and f', in {network}'}, {where}"
    return race_report.write(folder, metrics, figures, page.render(title, blocks, lead))


def summary(races: Sequence[Race[Drawn]]) -> list[str]:
    """Return what the races showed, a paragraph each."""
    course = races[0].course
    words = []
    for race in races:
        cell, times = f"The {race.course.model.cell.upper()}", race.seconds_to_goal(race.shown)
        if race.outcome == "diverged":
            words.append(f"{cell}: {race_report.divergence(race)}")
            continue
        errors = [history.validation[-1] for history in race.histories[race.shown]]
        arrived = race_report.arrived(race, race.shown)
        if 0 in times:
            words.append(f"{cell} was at the goal of {course.settings.goal:g} before any training. Lower --goal.")
            continue
        end = (
            f"its error at the end ({course.measure}) is {np.median(errors):.3g}, where remembering nothing has "
            f"{course.constant:.3g}"
        )
        if not arrived:
            words.append(f"{cell} did not get to the goal of {course.settings.goal:g}: {end}.")
            continue
        words.append(
            f"{cell} got to the goal of {course.settings.goal:g} with {len(arrived)} of {plural(len(times), 'seed')}, "
            f"in {seconds(float(np.median(arrived)))} of training: {end}."
        )
    if any(race.outcome == "interrupted" for race in races):
        words.insert(0, "Interrupted: this is how far it got.")
    return words


def _network(course: Drawn) -> list[str]:
    """Return in words how the network is more than one layer of one direction."""
    layers = [f"{course.settings.layers} layers"] if course.settings.layers > 1 else []
    return layers + ["both directions"] * course.settings.bidirectional


def _directions(course: Drawn) -> str:
    """Return what the backward direction is good for in a task."""
    if not course.settings.bidirectional:
        return ""
    if isinstance(course, Copy):
        return (
            " The direction that reads from the end has met no symbol by the time they are to be said: it can count "
            "the answers left, and remembers nothing."
        )
    return (
        " The direction that reads from the end is asked after the first step, and has the mark of the first half "
        "behind it for fewer steps than the other."
    )


def _task(course: Drawn) -> str:
    if isinstance(course, Copy):
        return (
            f"The network reads {COPIED} symbols out of {SYMBOLS}, then {course.length} blanks, one of them a sign, "
            f"and has to say the symbols again, in order. The error is the cross-entropy of those {COPIED} answers, in "
            f"bits each: who has forgotten can only guess, at {course.constant:g} bits (Hochreiter and Schmidhuber "
            "1997)."
        )
    return (
        f"The network reads {course.length} pairs: a number from 0 to 1, and a mark that is 1 twice, once in each "
        "half, and else 0. At the end it has to say the sum of the two numbers marked. Who always says 1 has a mean "
        "squared error of 1/6 = 0.167 (Hochreiter and Schmidhuber 1997)."
    )


def _table(races: Sequence[Race[Drawn]]) -> pd.DataFrame:
    rows = []
    for race in races:
        shown, histories = race.shown, race.histories[race.shown]
        settings = race.course.settings
        epochs = [history.epochs_to(settings.goal) for history in histories]
        met = [epoch for epoch in epochs if epoch is not None]
        times = race_report.arrived(race, shown)
        weights = sum(a.size for a in race.weights[shown].values())
        spent = sum(sum(history.seconds) for history in histories)
        steps = sum(len(history.seconds) for history in histories) * BATCHES
        rows.append(
            {
                "cell": race.course.model.cell,
                "weights": number(float(weights), 6),
                "error": number(float(np.median([history.validation[-1] for history in histories]))),
                "seeds at the goal": f"{len(met)} of {len(histories)}",
                "batches to it": number(float(np.median(met)) * BATCHES if met else None, 6),
                "seconds to it": number(float(np.median(times)) if times else None),
                "ms a batch": number(1e3 * spent / steps),
            }
        )
    return pd.DataFrame(rows)


def _curves(races: Sequence[Race[Drawn]], by_time: bool) -> Figure:
    course = races[0].course

    def draw(axes: Axes) -> None:
        for race in races:
            cell, histories = race.course.model.cell, race.histories[race.shown]
            epochs = min(len(history.seconds) for history in histories)
            errors = np.array([history.validation[: epochs + 1] for history in histories])
            times = np.median([np.cumsum([0, *history.seconds[:epochs]]) for history in histories], axis=0)
            x = times if by_time else BATCHES * np.arange(epochs + 1)
            low, middle, high = np.quantile(errors, (0, 0.5, 1), axis=0)
            style = charts.line(COLOURS[cell]) | {"label": cell}
            axes.plot(x, middle, **style, markevery=max(1, len(x) // 8))
            if len(histories) > 1:
                axes.fill_between(x, low, high, color=style["color"], alpha=0.12, linewidth=0)
        for level in (course.constant, course.settings.goal):
            axes.axhline(level, color=charts.INK, linewidth=0.8, linestyle="--")
        race_report.error_scale(axes)
        axes.set_ylabel(f"validation {course.measure}")
        axes.set_xlabel("seconds of training" if by_time else "batches seen")
        axes.set_title("Error by time" if by_time else "Error by batches seen")

    return charts.sheet([draw])
