"""What a forecast of stocks or of any series comes to: beside persistence, walking forward, and left to itself."""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.dates import ConciseDateFormatter
from matplotlib.figure import Figure

from bench.report import charts, page
from bench.tasks import page as race_report
from bench.tasks.forecast.data import FOLDS, Forecast, Judgement, judge, walk_forward
from bench.tasks.learning.training import Race
from bench.tasks.page import number, plural

FREE = 60  # rows that the network goes on for by itself, or half of the validation part if that is less
STARTS = 3  # how often it is left to itself, over the validation part
DIVERGED = "diverged"  # a verdict
CLOSE = 80  # levels of the detail, the last ones


def write(race: Race[Forecast], folder: Path, command: str) -> Path:
    """Write the report of a race on `Forecast` into `folder` and return the page's path."""
    with warnings.catch_warnings(), np.errstate(over="ignore", invalid="ignore"):  # of what diverged
        warnings.filterwarnings("ignore", "Glyph")  # a column may be named in any script
        return _write(race, folder, command)


def _write(race: Race[Forecast], folder: Path, command: str) -> Path:
    course = race.course
    weights = race.weights[race.shown]
    predicted, came = walk_forward(course)
    once = course.changes(race.predict(race.shown, course.data.validation.x))
    foretold = {"walk-forward": predicted, "learned once": once}
    judged = {name: judge(changes, came) for name, changes in foretold.items() if np.isfinite(changes).all()}
    found = judged.get("walk-forward")
    steps = min(FREE, len(came) // 2)
    starts = np.linspace(course.train_rows, len(course.table.values) - steps, STARTS).astype(int)
    free = [(int(start), course.free_running(weights, start, steps)) for start in starts]
    figures = {
        "One step ahead": _one_step(course, predicted),
        "The last rows": _last_rows(course, predicted),
        "Foretold and come": _scatter(course, predicted, came),
        "Left to itself": _free_running(course, free),
    }
    first = (
        f"{_verdict(found)} {_direction(found)}" if found else f"The network {DIVERGED}: its forecasts are not finite."
    )
    print(first)
    read = f"{course.table.source}: {' '.join(course.table.told)}"
    blocks = [_task(course), _worth(course, judged, figures), _alone(figures, steps)]
    metrics = {
        "source": course.table.source,
        "target": course.table.target,
        "features": course.table.names,
        "read": course.table.told,
        "window": course.window,
        "rows": {"training": course.train_rows, "validation": len(came)},
        "beat_persistence": found is not None and found.skill_low > 0,
        "verdict": found.verdict if found else DIVERGED,
        "judgements": {name: judgement._asdict() for name, judgement in judged.items()},
        "folds": FOLDS,
    }
    title = f"Foretelling {course.table.target}"
    return race_report.report(race, folder, command, title, blocks, figures, metrics, [first, read])


def _verdict(found: Judgement) -> str:
    skill = (
        f"its skill is {found.skill:.3f} (95 % interval {found.skill_low:.3f} to {found.skill_high:.3f}; 0 is as good)"
    )
    match found.verdict:
        case "beat persistence":
            return f"The network beat persistence, the forecast that nothing changes: {skill}."
        case "was worse than persistence":
            return f"The network did not beat persistence, the forecast that nothing changes; it was worse: {skill}."
        case _:
            return (
                f"The network did not beat persistence, the forecast that nothing changes: {skill}, and the interval "
                "holds 0."
            )


def _direction(found: Judgement) -> str:
    chance = found.direction_low <= max(found.up, 1 - found.up) <= found.direction_high
    always = max(found.up, 1 - found.up)
    same = ", which the interval holds" if chance else ""
    return (
        f"It foretold up or down rightly in {100 * found.direction:.1f} % of all cases "
        f"({100 * found.direction_low:.1f} to {100 * found.direction_high:.1f}); to say the commoner one every time is "
        f"right in {100 * always:.1f} %{same}."
    )


def _task(course: Forecast) -> Markup:
    table = course.table
    kind = "logarithms of ratios" if table.logarithmic else "differences"
    features = ", ".join(table.names)
    return page.section(
        "The task",
        page.paragraph(
            f"From {course.window} rows of {features}, the next row: {table.source}. What is read and foretold are "
            f"changes ({kind}), each feature scaled to mean 0 and standard deviation 1 over the training part alone. "
            f"The rows are split by time: the first {course.train_rows} are learned from, the other "
            f"{len(table.values) - course.train_rows} are the validation part. The race is to an error over all "
            f"features, the verdict is about {table.target}."
        ),
        page.paragraph(
            "Persistence says that tomorrow is as today, and on a chart a forecast that does no better looks "
            "excellent: it follows the line, one step late. So skill, 1 − MSE / MSE of persistence, is what counts."
        ),
    )


def _worth(course: Forecast, judged: dict[str, Judgement], figures: dict[str, Figure]) -> Markup:
    rows = []
    for name, found in judged.items():
        rows.append(
            {
                "": name,
                "skill": number(found.skill),
                "95 % of skill": f"{found.skill_low:.3f} to {found.skill_high:.3f}",
                "MSE": number(found.mse),
                "MSE of persistence": number(found.persistence_mse),
                "direction, %": number(100 * found.direction),
                "95 % of direction": f"{100 * found.direction_low:.1f} to {100 * found.direction_high:.1f}",
            }
        )
    return page.section(
        "Against persistence",
        page.paragraph(
            f"Walking forward, the validation part is cut in {FOLDS}; before each part a network learns anew from all "
            "rows before it, and foretells the part row by row, from true rows. Beside it the network of the race, "
            "which learned once. The interval of the skill is a bootstrap over the rows, that of the direction is "
            "Wilson's."
        ),
        page.table(pd.DataFrame(rows), f"Forecasts of {course.table.target} over the validation part, one step ahead."),
        page.charts({label: figures[label] for label in ("One step ahead", "The last rows", "Foretold and come")}),
    )


def _alone(figures: dict[str, Figure], steps: int) -> Markup:
    return page.section(
        "Left to itself",
        page.paragraph(
            f"At {STARTS} places the network of the race is left with nothing but its own forecasts to read, for "
            f"{plural(steps, 'row')} each. What it then draws is what it has learned of the series: if that is a "
            "straight line, it has learned the mean."
        ),
        page.charts({"Left to itself": figures["Left to itself"]}),
    )


def _levels(course: Forecast, first: int, changes: np.ndarray) -> np.ndarray:
    """Return the levels foretold, each by a change (N,) from the true level before it, from row `first` on."""
    return course.table.moved(course.table.level[first : first + len(changes)], changes)


def _one_step(course: Forecast, predicted: np.ndarray) -> Figure:
    table, first = course.table, course.train_rows

    def draw(axes: Axes) -> None:
        axes.plot(table.labels, table.level, color=charts.INK, linewidth=0.8, label="truth")
        _foretold(axes, table.labels[first + 1 :], _levels(course, first, predicted), linewidth=0.8)
        axes.axvline(table.labels[first], color=charts.INK, linewidth=0.8, linestyle="--")
        _dressed(axes, course, "One step ahead")

    return charts.sheet([draw])


def _last_rows(course: Forecast, predicted: np.ndarray) -> Figure:
    table, count = course.table, min(CLOSE, len(predicted))
    first = len(table.values) - count

    def draw(axes: Axes) -> None:
        labels = table.labels[first + 1 :]
        axes.plot(
            labels, table.level[first + 1 :], "o-", color=charts.INK, markersize=2.5, linewidth=0.8, label="truth"
        )
        _foretold(axes, labels, _levels(course, first, predicted[-count:]), marker="x", markersize=4, linewidth=1)
        axes.plot(
            labels, table.level[first:-1], ":", color=charts.look("numpy").colour, label="persistence", linewidth=1
        )
        _dressed(axes, course, f"The last {count} rows")

    return charts.sheet([draw])


def _scatter(course: Forecast, predicted: np.ndarray, came: np.ndarray) -> Figure:
    change = "logarithm of the ratio" if course.table.logarithmic else f"change of {course.table.target}"

    def draw(axes: Axes) -> None:
        colour = charts.look("numba-simd").colour
        axes.plot(predicted, came, "o", color=colour, markersize=2.5, alpha=0.6)
        axes.axhline(0, color=charts.INK, linewidth=0.6)
        axes.axvline(0, color=charts.INK, linewidth=0.6)
        ends = np.array([predicted.min(), predicted.max()])
        axes.plot(ends, ends, "--", color=charts.INK, linewidth=0.8, label="a perfect forecast")
        axes.locator_params(axis="x", nbins=5)  # long numbers would run into each other
        axes.set_xlabel(f"{change}, foretold", parse_math=False)
        axes.set_ylabel(f"{change}, come", parse_math=False)
        axes.set_title("Foretold and come")

    return charts.sheet([draw])


def _free_running(course: Forecast, free: list[tuple[int, np.ndarray]]) -> Figure:
    table = course.table

    def draw(axes: Axes) -> None:
        begin = max(0, course.train_rows - FREE)
        axes.plot(table.labels[begin:], table.level[begin:], color=charts.INK, linewidth=0.8, label="truth")
        for place, (first, changes) in enumerate(free):
            moved = np.cumsum(changes)
            start = table.level[first]
            levels = np.concatenate([[start], table.moved(np.full(len(changes), start), moved)])
            label = "forecast" if place == 0 else "_"
            labels = table.labels[first : first + len(levels)]
            _foretold(axes, labels, levels, label=label, linewidth=1.6)
            flat = np.full(len(levels), start)
            axes.plot(labels, flat, ":", color=charts.look("numpy").colour, label="persistence" if not place else "_")
        _dressed(axes, course, "From its own forecasts")

    return charts.sheet([draw])


def _foretold(axes: Axes, labels: np.ndarray, levels: np.ndarray, label: str = "forecast", **style) -> None:
    axes.plot(labels, levels, color=charts.look("numba-simd").colour, label=label, **style)


def _dressed(axes: Axes, course: Forecast, title: str) -> None:
    if np.issubdtype(course.table.labels.dtype, np.integer):
        axes.set_xlabel("row")
    else:
        axes.xaxis.set_major_formatter(ConciseDateFormatter(axes.xaxis.get_major_locator()))
    axes.set_ylabel(course.table.target, parse_math=False)
    axes.set_title(title)
