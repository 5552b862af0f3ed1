"""The charts of a report: each function returns one that draws on an Axes, or several by what each holds fixed."""

import textwrap
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import Normalize
from matplotlib.ticker import EngFormatter, Formatter, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from bench.grid.cases import OPERATIONS
from bench.implementations import OURS
from bench.machine import roofline
from bench.report.charts import GRID, INK, SIZE, Draw, facet_label, line, look
from bench.results.formats import count, in_order, percent, short, typical
from bench.results.latencies import calls, curve
from bench.results.statistics import geometric_mean, tells

# The last one changes the fastest.
FACETS = ["machine", "dtype", "threads", "operation", "batch_size", "network", "cell"]
LEAST_LOSS = 2.0**-24  # float32's own rounding: less is not told apart from it
AXES = {"hidden_size": "hidden size H (units)", "seq_len": "sequence length T (steps)"}


class Panel(NamedTuple):
    draw: Draw
    size: tuple[float, float] = SIZE  # width and height in inches


def time_panels(rows: pd.DataFrame, x: str) -> dict[str, Panel]:
    """Return charts of time against `x` ("hidden_size" or "seq_len"), by what each one holds fixed.

    `rows` are measured rows of `bench.results.tables.table`. There is one chart for each operation, batch size and the
    like, at the value of the other of the two sizes that has the most points (the middle one of several).
    """
    other = {"hidden_size": "seq_len", "seq_len": "hidden_size"}[x]
    panels = {}
    for label, group in _facets(rows, [*FACETS, "inputs"]):
        points = group.groupby(other)[x].nunique()
        best = points.index[points == points.max()]
        fixed = best[len(best) // 2]
        chosen = group[group[other] == fixed]
        if chosen[x].nunique() > 1:
            panels[f"{label}, {'T' if other == 'seq_len' else 'H'} = {fixed}"] = _time_panel(chosen, x)
    return {label: Panel(_titled(draw, label)) for label, draw in panels.items()}


def _time_panel(rows: pd.DataFrame, x: str) -> Draw:
    def draw(axes: Axes) -> None:
        for name, of in rows.sort_values(x).groupby("implementation", sort=False):
            axes.plot(of[x], of["median_s"], **line(str(name)))
            axes.fill_between(of[x], of["low_s"], of["high_s"], color=look(str(name)).colour, alpha=0.2, linewidth=0)
        axes.set(xscale="log", yscale="log", xlabel=AXES[x], ylabel="time of a call")
        _name_ticks(axes, sorted(rows[x].unique()))
        _plain_log(axes.yaxis, EngFormatter(unit="s"))

    return draw


def heat_panels(duels: pd.DataFrame) -> dict[str, Panel]:
    """Return heatmaps of `speedup` over hidden size, a row for each operation, batch size and sequence length.

    There is one for each cell, network, number of threads, dtype and machine; `verdict` decides how a value is written.
    All share one scale of colours: blue is faster, red is slower and white is 1.
    """
    strongest = float(np.clip(np.abs(np.log2(duels["speedup"])).max(), 1, 4)) if len(duels) else 1.0
    panels = {}
    for label, group in _facets(duels, ["machine", "dtype", "threads", "network", "cell"]):
        kinds = ["operation", "batch_size", "seq_len", "inputs"]
        values = group.pivot_table(index=kinds, columns="hidden_size", values="speedup", aggfunc="last")
        values = values.sort_index(key=lambda level: level.map(in_order))
        alike = group.pivot_table(index=kinds, columns="hidden_size", values="verdict", aggfunc="last")
        draw = _heat_panel(values, alike.reindex(values.index) == "no difference", strongest)
        wide = 28  # the names of the rows leave little room above the map
        height = 0.95 + 0.235 * len(values) + 0.17 * _lines(label, wide).count("\n")
        panels[label] = Panel(_titled(draw, label, wide), (SIZE[0], height))
    return panels


def _heat_panel(values: pd.DataFrame, alike: pd.DataFrame, strongest: float) -> Draw:
    names = _heat_names(values.index.to_list())

    def draw(axes: Axes) -> None:
        mesh = axes.pcolormesh(
            np.log2(values), cmap="RdBu", norm=Normalize(-strongest, strongest), edgecolors=GRID, linewidth=0.6
        )
        for (row, column), value in np.ndenumerate(values.to_numpy()):
            if np.isnan(value):
                continue
            red, green, blue, _ = mesh.cmap(mesh.norm(np.log2(value)))
            dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
            text = f"({short(value)})" if alike.iat[row, column] else short(value)
            axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", color="#f8f8f8" if dark else "#101010")
        for row, name in enumerate(names):
            if row and name.split(",")[0] in OPERATIONS:
                axes.axhline(row, color=INK, linewidth=0.8)
        axes.set_xlabel(AXES["hidden_size"])
        axes.set_xticks(np.arange(len(values.columns)) + 0.5, [str(value) for value in values.columns])
        axes.set_yticks(np.arange(len(names)) + 0.5, names)
        axes.set_ylim(len(names), 0)
        axes.tick_params(length=0)
        axes.grid(False)
        axes.spines[:].set_visible(False)

    return draw


def _heat_names(kinds: Sequence[tuple[str, int, int, str]]) -> list[str]:
    """Return the names of a heatmap's rows: the operation at its first one, input sizes where there are several."""
    several = {kind[:3] for kind in kinds if sum(other[:3] == kind[:3] for other in kinds) > 1}
    names, last = [], None
    for operation, batch, length, inputs in kinds:
        words = [operation] if operation != last else []
        words.append(f"B = {batch}")
        if operation != "forward_step":
            words.append(f"T = {length}")
        if (operation, batch, length) in several:
            words.append(inputs)
        names.append(", ".join(words))
        last = operation
    return names


def overview_panel(
    rows: pd.DataFrame, column: str, names: Sequence[str], label: str, title: str = "", by: str = "implementation"
) -> Panel:
    """Return a chart of the ratios in `column`, a dot a case and a line an implementation, with the geometric means.

    `names` are the implementations, the first one at the top; `label` says on the axis what the ratio is. Lines may be
    `by` something else, and are ours then.
    """
    wide = 34  # the names of the lines leave little room above the chart
    looks = {name: look(name if by == "implementation" else OURS) for name in names}
    upwards = list(names)[::-1]

    def draw(axes: Axes) -> None:
        for y, name in enumerate(upwards):
            ratios = rows.loc[rows[by] == name, column].dropna().sort_values()
            spread = (np.arange(len(ratios)) * 0.382 % 1 - 0.5) * 0.5  # the cases of one implementation, apart
            colour = looks[name].colour
            axes.plot(ratios, y + spread, "o", markersize=3.5, color=colour, alpha=0.45, markeredgewidth=0)
            mean = geometric_mean(ratios)
            if tells(mean):
                axes.plot(mean[1:], [y, y], color=colour, linewidth=3, solid_capstyle="butt")
            if tells(mean) or len(ratios) == 1:
                axes.plot(
                    mean.median, y, marker=looks[name].marker, color=colour, markersize=9, markeredgecolor="white"
                )
            shares = column == "peak_fraction" and len(ratios)
            axes.annotate(
                f"median {percent(ratios.median())}" if shares else typical(ratios) if len(ratios) else "",
                (1, y),
                (4, 0),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                va="center",
                fontweight="bold",
            )
        axes.axvline(1, color=INK, linewidth=1)
        axes.set(xscale="log", xlabel=label, ylim=(-0.6, len(upwards) - 0.4), title=_lines(title, wide))
        axes.set_yticks(range(len(upwards)), [_lines(name, 24) for name in upwards])
        axes.tick_params(axis="y", length=0)
        axes.grid(False, axis="y")
        _plain_log(axes.xaxis, FuncFormatter(lambda value, _: f"{value:g}×"))

    height = 0.95 + sum(0.32 + 0.16 * _lines(name, 24).count("\n") for name in upwards)
    height += 0.17 * _lines(title, wide).count("\n")
    return Panel(draw, (SIZE[0], height))


def loss_panels(rows: pd.DataFrame) -> dict[str, Panel]:
    """Return charts of speed against loss by dtype and machine; `rows` are those of `bench.results.tables.below`."""
    varied = {"dtype", *(["machine"] if rows["machine"].nunique() > 1 else [])}
    panels = {}
    for (machine, dtype), group in rows.groupby(["machine", "dtype"]):
        label = facet_label({"dtype": dtype, "machine": machine}, varied)
        panels[label] = Panel(_titled(_loss_panel(group), label))
    return panels


def _loss_panel(rows: pd.DataFrame) -> Draw:
    loss, speed = rows["loss"].clip(LEAST_LOSS), rows["speedup"]

    def draw(axes: Axes) -> None:
        for name, of in rows.groupby("implementation"):
            looks = line(str(name)) | {"linestyle": "none"}
            axes.plot(loss[of.index], of["speedup"], alpha=0.55, markeredgewidth=0, **looks)
        axes.axhline(1, color=INK, linewidth=1)
        # A factor of two on either side has a tick in it, however alike the cases are.
        axes.set(xscale="log", xlim=(loss.min() / 2, loss.max() * 2), xlabel="largest error of a state (log scale)")
        axes.set(yscale="log", ylim=(min(0.5, speed.min() / 1.3), max(2, speed.max() * 1.3)))
        axes.set_ylabel("times as fast as our float32 (log scale)")
        _plain_log(axes.xaxis, FuncFormatter(lambda value, _: f"{value:g}"))
        _plain_log(axes.yaxis, FuncFormatter(lambda value, _: f"{value:g}×"))

    return draw


def tail_panels(rows: pd.DataFrame) -> dict[str, Panel]:
    """Return charts of how long the calls of streams took, by what each one holds fixed.

    A line falls from 1, all calls, to the share of one among them; `rows` are those of `Facts.streams`. Back to back is
    a whole line, at a fixed pace a dashed one.
    """
    panels = {}
    for label, group in _facets(rows, [*FACETS, "inputs", "hidden_size", "seq_len"]):
        name = f"{label}, H = {group['hidden_size'].iat[0]}"
        if rows["seq_len"].nunique() > 1:
            name += f", T = {group['seq_len'].iat[0]}"
        panels[name] = Panel(_titled(_tail_panel(group), name), (SIZE[0], 3.2))
    return panels


def _tail_panel(rows: pd.DataFrame) -> Draw:
    def draw(axes: Axes) -> None:
        for name, found in zip(rows["implementation"], rows["latencies"], strict=True):
            for kind, dashes in (("steady", "solid"), ("paced", (0, (3, 2)))):
                if histogram := found.get(kind):
                    seconds, longer = curve(histogram)
                    axes.step(
                        [*seconds, histogram["worst_s"]],
                        [*longer, longer[-1]],
                        where="post",
                        color=look(name).colour,
                        linestyle=dashes,
                        linewidth=1.4 if kind == "steady" else 1.1,
                    )
        for share in (0.5, 0.1, 0.01, 0.001):
            axes.axhline(share, color=GRID, linewidth=0.7, zorder=0)
        axes.set(xscale="log", yscale="log", xlabel="time of a call (log scale)", ylabel="share as long or longer")
        axes.set_yticks([1, 0.1, 0.01, 0.001, 1e-4, 1e-5], ["all", "10%", "1%", "0.1%", "0.01%", "0.001%"])
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_ylim(rows["least"].iat[0] / 1.5, 1.4)
        _plain_log(axes.xaxis, EngFormatter(unit="s"))

    rows = rows.assign(least=min(_least(found) for found in rows["latencies"]))
    return draw


def _least(found: dict) -> float:
    """Return the share of one call among all of a kind, the least of a stream's."""
    return min(1 / calls(found[kind]) for kind in ("steady", "paced") if found.get(kind))


def bar_panel(rows: pd.DataFrame, column: str, title: str, label: str, unit: str = "", reach: str = "median") -> Panel:
    """Return bars of `column` by implementation, with a dot for each case, on a log scale.

    A bar reaches to the median of the cases, or to their "max". Cases where the column is infinite are counted beside
    the bar as "never"; neither they nor those where it is missing move the bar.
    """
    names = list(rows["implementation"].unique())[::-1]
    finite = rows[column].replace(np.inf, np.nan)
    positive = finite[finite > 0]
    least = 0.5 * positive.min() if len(positive) else 1.0

    def draw(axes: Axes) -> None:
        for y, name in enumerate(names):
            of = rows.loc[rows["implementation"] == name, column].dropna()
            values, total = of[np.isfinite(of)], len(of)
            words = []
            if len(values):
                end = max(values.agg(reach), least)
                axes.barh(y, end - least, left=least, height=0.62, color=look(name).colour, alpha=0.55)
                spread = (np.arange(len(values)) * 0.382 % 1 - 0.5) * 0.5
                axes.plot(values.clip(least), y + spread, "o", markersize=3, color=look(name).colour, markeredgewidth=0)
                words.append(count(end, unit))
            if len(values) < total:
                words.append(f"never in {total - len(values)} of {total}" if len(values) else "never")
            axes.annotate(
                "\n".join(words),
                (1, y),
                (4, 0),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                va="center",
            )
        axes.set(xscale="log", xlabel=label, ylim=(-0.6, len(names) - 0.4))
        axes.set_xlim(least, max(finite.max() * 1.5, least * 100) if len(positive) else least * 100)
        axes.xaxis.set_major_locator(LogLocator(numticks=5))
        axes.xaxis.set_major_formatter(EngFormatter(unit))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_title(title)
        axes.set_yticks(range(len(names)), names)
        axes.tick_params(axis="y", length=0)
        axes.grid(False, axis="y")

    return Panel(draw, (SIZE[0], 0.9 + 0.42 * len(names)))


def roofline_panels(rows: pd.DataFrame, rooflines: dict[str, dict]) -> dict[str, Panel]:
    """Return rooflines by what each one holds fixed, a dot a row; `rooflines` are those of the machines, by name.

    The ceilings are lines, one for each level of memory up to the FMA peak.
    """
    panels = {}
    for label, group in _facets(rows, ["machine", "dtype", "threads", "cell"]):
        limits = rooflines.get(group["machine"].iat[0])
        if limits and roofline.levels(limits, [group["dtype"].iat[0]]):
            panels[label] = Panel(_titled(_roofline_panel(group, limits), label))
    return panels


def _roofline_panel(rows: pd.DataFrame, limits: dict) -> Draw:
    dtype, threads = rows["dtype"].iat[0], int(rows["threads"].iat[0])
    names = sorted(rows["implementation"].unique(), key=lambda name: name == OURS)
    intensity, unit = rows["flops"] / rows["bytes"], roofline.unit(dtype)
    x = np.geomspace(intensity.min() / 4, intensity.max() * 2, 100)

    def draw(axes: Axes) -> None:
        levels = roofline.levels(limits, [dtype])
        ceilings = [roofline.ceilings(limits, dtype, threads, level) for level in levels]
        beside = [np.inf, *(bandwidth for _, bandwidth in ceilings), 0]
        for level, (peak, bandwidth), before, after in zip(levels, ceilings, beside, beside[2:], strict=False):
            axes.plot(x, np.minimum(peak, bandwidth * x) / 1e9, color=INK, linewidth=0.9)
            start = x[0], bandwidth * x[0] / 1e9
            side = "top" if before < 1.8 * bandwidth else "bottom" if bandwidth < 1.8 * after else "center"
            axes.annotate(level, start, (-3, 0), textcoords="offset points", ha="right", va=side, fontsize=7.5)
        axes.annotate(
            f"FMA peak {peak / 1e9:.0f}",
            (x[-1], peak / 1e9),
            (0, 3),
            textcoords="offset points",
            ha="right",
            fontsize=7.5,
        )
        for n, name in enumerate(names):
            apart = 1.07 ** (n - (len(names) - 1) / 2)
            of = rows["implementation"] == name
            looks = line(name) | {"linestyle": "none", "markersize": 5 if name == OURS else 4}
            axes.plot(intensity[of] * apart, rows.loc[of, "gflops"], alpha=0.75, markeredgewidth=0, **looks)
        axes.set(xscale="log", yscale="log", xlabel="operations per byte", ylabel=unit, xlim=(x[0] / 5, None))
        for axis in (axes.xaxis, axes.yaxis):
            _plain_log(axis, FuncFormatter(lambda value, _: f"{value:g}"))

    return draw


def _facets(rows: pd.DataFrame, names: list[str]) -> Iterator[tuple[str, pd.DataFrame]]:
    """Return the groups of rows that agree in `names`, each with its label."""
    varied = {name for name in ("cell", "dtype", "threads", "machine") if rows[name].nunique() > 1}
    if "operation" not in names and len(varied) == 0:
        varied = {"cell"}  # a label must say something
    constant = rows.groupby(FACETS)["input_size"].transform("nunique") == 1
    same = (rows["input_size"] == rows["hidden_size"]) & ~constant
    inputs = np.where(same, "I = H", "I = " + rows["input_size"].astype(str))
    rows = rows.assign(inputs=inputs)

    groups = [(dict(zip(names, key, strict=True)), group) for key, group in rows.groupby(names)]
    groups.sort(key=lambda item: [in_order(value) for value in item[0].values()])
    for case, group in groups:
        yield facet_label(case, varied), group


def _titled(draw: Draw, title: str, width: int = 46) -> Draw:
    def titled(axes: Axes) -> None:
        draw(axes)
        axes.set_title(_lines(title, width))

    return titled


def _lines(title: str, width: int) -> str:
    """Return a title in lines of so many letters that end at its commas, if they can."""
    together = title.replace(" ", "\N{NO-BREAK SPACE}").replace(",\N{NO-BREAK SPACE}", ", ")
    return textwrap.fill(together, width).replace("\N{NO-BREAK SPACE}", " ")


def _name_ticks(axes: Axes, values: Sequence[int]) -> None:
    """Put a tick at every measured value, named where there is room for its name."""
    axes.set_xticks(values)
    axes.xaxis.set_minor_locator(NullLocator())
    span, last, labels = np.log(values[-1] / values[0]), -np.inf, []
    for value in values:
        room = (np.log(value) - last) / span > 0.06 + 0.012 * len(str(value))
        labels.append(str(value) if room else "")
        last = np.log(value) if room else last
    axes.set_xticklabels(labels)


def _plain_log(axis: Axis, form: Formatter) -> None:
    """Name the ticks of a log axis: 0.9, 1, 1.1 where it spans next to nothing, 1, 2, 5, 10 or 1, 10, 100."""
    low, high = axis.get_view_interval()
    if high / low < 3:
        axis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    else:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 80 else (1,), numticks=8))
    axis.set_major_formatter(form)
    axis.set_minor_locator(NullLocator())
