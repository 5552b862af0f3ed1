"""One style for every chart: colours and markers by implementation, units on the axes, readable on light and dark.

A chart is a function that draws on an Axes. `sheet` lays one or more of them out as a Figure, `save` writes the Figure
as PNG and SVG, and `inline_svg` returns it for a page, where its ink and colours follow the page's light or dark.
"""

import io
import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, Formatter, FuncFormatter, LogLocator, NullLocator

from bench.cases import OPERATIONS

INK, GRID = "#24292f", "#d8dee4"


class Look(NamedTuple):
    colour: str  # on light paper
    dark: str  # on dark paper
    marker: str  # Matplotlib's name of it


# Okabe and Ito's palette, which the colour-blind can tell apart; the markers say it once more.
LOOKS = {
    "numpy": Look("#57606a", "#b4bcc6", "o"),
    "numba-jit": Look("#e69f00", "#f0b429", "s"),
    "numba-simd": Look("#0072b2", "#4aa8e8", "D"),
    "torch": Look("#d55e00", "#ff8438", "^"),
    "torch-compile": Look("#6a3d9a", "#b794f4", "<"),
    "jax": Look("#009e73", "#2fc79b", "v"),
    "onnxruntime": Look("#cc79a7", "#e39cc4", "P"),
    "openvino": Look("#56b4e9", "#8fd0f7", "X"),
}
OTHER = Look("#7a5c00", "#c9a227", "*")

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.titlecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
    "legend.frameon": False,
    "svg.fonttype": "path",  # the same letters on every machine, whatever its fonts
    "svg.hashsalt": "unrolled",  # the same bytes for the same rows
}

SIZE = (4.2, 3.3)  # inches of a panel: its letters can still be read on a phone

Draw = Callable[[Axes], None]

FACETS = ["machine", "cell", "dtype", "threads", "operation", "batch_size"]
AXES = {"hidden_size": "hidden size H (units)", "seq_len": "sequence length T (steps)", "batch_size": "batch size B"}


def look(name: str) -> Look:
    """Return the colours and the marker of an implementation."""
    return LOOKS.get(name, OTHER)


def line(name: str) -> dict:
    """Return the keywords of `Axes.plot` for an implementation's line; ours is drawn thicker and on top."""
    ours = name == "numba-simd"
    style = look(name)
    return {
        "label": name,
        "color": style.colour,
        "marker": style.marker,
        "linewidth": 2.4 if ours else 1.6,
        "zorder": 4 if ours else 3,
    }


def sheet(draws: Sequence[Draw], columns: int = 3, size: tuple[float, float] = SIZE, legend: bool = True) -> Figure:
    """Return a Figure with one panel, `size` (width, height) in inches, for each function of `draws`.

    The labelled lines of all panels share one legend below them, if there are any and `legend` is true.
    """
    columns = min(columns, len(draws))
    rows = -(-len(draws) // columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure(
            figsize=(columns * size[0], rows * size[1]), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08)
        )
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for panel, draw in zip(panels, draws, strict=False):
            draw(panel)
        for panel in panels[len(draws) :]:
            panel.remove()
        if legend:
            entries = {
                label: handle
                for panel in panels[: len(draws)]
                for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
            }
            if entries:
                figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=min(len(entries), 8))
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # it stays as it lies: to lay it out takes longer than to draw it
    return figure


def time_panels(rows: pd.DataFrame, x: str) -> dict[str, Draw]:
    """Return charts of time against `x` ("hidden_size" or "seq_len"), by what each one holds fixed.

    `rows` are measured rows of `bench.report.table`. There is one chart for each operation, batch size and the like,
    at the value of the other of the two sizes that has the most points (the middle one of several).
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
    return {label: _titled(draw, label) for label, draw in panels.items()}


def _time_panel(rows: pd.DataFrame, x: str) -> Draw:
    def draw(axes: Axes) -> None:
        for name, of in rows.sort_values(x).groupby("implementation", sort=False):
            axes.plot(of[x], of["median_s"], **line(str(name)))
            axes.fill_between(of[x], of["low_s"], of["high_s"], color=look(str(name)).colour, alpha=0.2, linewidth=0)
        axes.set(xscale="log", yscale="log", xlabel=AXES[x], ylabel="time of a call")
        _name_ticks(axes, sorted(rows[x].unique()))
        _plain_log(axes.yaxis, EngFormatter(unit="s"))

    return draw


def heat_panels(duels: pd.DataFrame) -> dict[str, Draw]:
    """Return heatmaps of `speedup` by what each one holds fixed; `verdict` decides how a cell is written.

    They lie over hidden size and sequence length, or over hidden size and batch size where there is one length.
    All share one scale of colours: blue is faster, red is slower and white is 1.
    """
    strongest = float(np.clip(np.abs(np.log2(duels["speedup"])).max(), 1, 4)) if len(duels) else 1.0
    panels = {}
    for label, group in _facets(duels, [name for name in FACETS if name != "batch_size"]):
        if group["seq_len"].nunique() == 1:
            panels[f"{label}, T = {group['seq_len'].iat[0]}"] = _heat_panel(group, "batch_size", strongest)
        else:
            for batch, of in group.groupby("batch_size"):
                panels[f"{label}, B = {batch}"] = _heat_panel(of, "seq_len", strongest)
    return {label: _titled(draw, label) for label, draw in panels.items()}


def _heat_panel(duels: pd.DataFrame, y: str, strongest: float) -> Draw:
    # Several input sizes in one cell: the last one, as a table has it, is as good as any.
    cells = duels.drop_duplicates(["hidden_size", y], keep="last")
    values = cells.pivot(index=y, columns="hidden_size", values="speedup")
    verdicts = cells.pivot(index=y, columns="hidden_size", values="verdict")

    def draw(axes: Axes) -> None:
        mesh = axes.pcolormesh(
            np.log2(values), cmap="RdBu", norm=Normalize(-strongest, strongest), edgecolors=GRID, linewidth=0.6
        )
        for (row, column), value in np.ndenumerate(values.to_numpy()):
            if np.isnan(value):
                continue
            red, green, blue, _ = mesh.cmap(mesh.norm(np.log2(value)))
            dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
            text = f"({short(value)})" if verdicts.iat[row, column] == "no difference" else short(value)
            axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", color="#f8f8f8" if dark else "#101010")
        axes.set(xlabel=AXES["hidden_size"], ylabel=AXES[y])
        axes.set_xticks(np.arange(len(values.columns)) + 0.5, [str(value) for value in values.columns])
        axes.set_yticks(np.arange(len(values.index)) + 0.5, [str(value) for value in values.index])
        axes.tick_params(length=0)
        axes.grid(False)
        axes.spines[:].set_visible(False)

    return draw


def overview_panel(rows: pd.DataFrame, means: dict[str, tuple[float, float, float]], baseline: str) -> Draw:
    """Return a chart of every case's speedup over the baseline, a line an implementation, with the geometric mean.

    `means` gives (mean, low, high) by implementation.
    """
    names = list(means)[::-1]

    def draw(axes: Axes) -> None:
        for y, name in enumerate(names):
            speedups = rows.loc[rows["implementation"] == name, "speedup"].sort_values()
            spread = (np.arange(len(speedups)) * 0.382 % 1 - 0.5) * 0.5  # the cases of one implementation, apart
            colour = look(name).colour
            axes.plot(speedups, y + spread, "o", markersize=3.5, color=colour, alpha=0.45, markeredgewidth=0)
            mean, low, high = means[name]
            axes.plot([low, high], [y, y], color=colour, linewidth=3, solid_capstyle="butt")
            axes.plot(mean, y, marker=look(name).marker, color=colour, markersize=9, markeredgecolor="white")
            axes.annotate(
                f"{short(mean)}×",
                (1, y),
                (4, 0),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                va="center",
                fontweight="bold",
            )
        axes.axvline(1, color=INK, linewidth=1)
        axes.set(xscale="log", xlabel=f"times as fast as {baseline} (log scale)", ylim=(-0.6, len(names) - 0.4))
        axes.set_yticks(range(len(names)), names)
        axes.tick_params(axis="y", length=0)
        axes.grid(False, axis="y")
        _plain_log(axes.xaxis, FuncFormatter(lambda value, _: f"{value:g}×"))

    return draw


def bar_panel(rows: pd.DataFrame, column: str, title: str, label: str, unit: str = "", reach: str = "median") -> Draw:
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

    return draw


def short(ratio: float) -> str:
    """Return a ratio in as many digits as a reader needs: 0.87, 3.2, 32, 320."""
    return f"{ratio:.2f}" if ratio < 2 else f"{ratio:.1f}" if ratio < 9.95 else f"{ratio:.0f}"


def count(value: float, unit: str = "") -> str:
    """Return a number to two digits: 7, 350, 12 k, 3 M."""
    return EngFormatter(unit)(float(f"{value:.2g}")).strip()


def seconds(value: float) -> str:
    """Return a time to three digits in the unit that suits it: 479 µs, 1.20 ms."""
    for unit, scale in (("s", 1), ("ms", 1e3), ("µs", 1e6)):
        if value * scale >= 0.9995:
            return f"{_three(value * scale)} {unit}"
    return f"{_three(value * 1e9)} ns"


def _three(value: float) -> str:
    """Return three significant digits without an exponent."""
    return f"{value:.0f}" if value >= 999.5 else f"{value:#.3g}".rstrip(".")


def facet_label(case: dict, varied: set[str]) -> str:
    """Say what a chart holds fixed; of cell, dtype, threads and machine only what varies between charts."""
    words = [str(case[name]) for name in ("cell", "operation", "dtype") if name == "operation" or name in varied]
    if "batch_size" in case:
        words.append(f"B = {case['batch_size']}")
    if "inputs" in case:
        words.append(case["inputs"])
    if "threads" in varied:
        words.append(f"{case['threads']} thread{'s' if case['threads'] > 1 else ''}")
    if "machine" in varied:
        words.append(str(case["machine"]))
    return ", ".join(words)


def in_order(value):
    """Return what a value of a case is sorted by: operations in their own order, the rest as it is."""
    return OPERATIONS.index(value) if value in OPERATIONS else value


def _facets(rows: pd.DataFrame, names: list[str]) -> Iterator[tuple[str, pd.DataFrame]]:
    """Return the groups of rows that agree in `names`, each with its label."""
    varied = {name for name in ("cell", "dtype", "threads", "machine") if rows[name].nunique() > 1}
    constant = rows.groupby(FACETS)["input_size"].transform("nunique") == 1
    same = (rows["input_size"] == rows["hidden_size"]) & ~constant
    inputs = np.where(same, "I = H", "I = " + rows["input_size"].astype(str))
    rows = rows.assign(inputs=inputs)

    groups = [(dict(zip(names, key, strict=True)), group) for key, group in rows.groupby(names)]
    groups.sort(key=lambda item: [in_order(value) for value in item[0].values()])
    for case, group in groups:
        yield facet_label(case, varied), group


def _titled(draw: Draw, title: str) -> Draw:
    def titled(axes: Axes) -> None:
        draw(axes)
        axes.set_title(textwrap.fill(title, 46))

    return titled


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
    """Name the ticks of a log axis: 1, 2, 5, 10 where it spans little, else 1, 10, 100."""
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 80 else (1,), numticks=8))
    axis.set_major_formatter(form)
    axis.set_minor_locator(NullLocator())


def save(figure: Figure, folder: Path, name: str) -> Path:
    """Write `name`.png and `name`.svg on white paper into `folder`, and return the path of the PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(STYLE):
        figure.savefig(folder / f"{name}.svg", facecolor="white", metadata={"Date": None})
        figure.savefig(folder / f"{name}.png", facecolor="white", dpi=160)
    return folder / f"{name}.png"


def inline_svg(figure: Figure, label: str) -> str:
    """Return the figure as an SVG element for a page made by `page.render`: transparent, in the page's own colours.

    `label` says what it shows to a screen reader.
    """
    out = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    for colour, variable in _variables().items():
        text = text.replace(colour, f"var({variable})")
    viewbox = re.search(r'viewBox="[^"]*"', text)
    assert viewbox, "Matplotlib's SVG has a viewBox"
    escaped = label.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return re.sub(r"<svg[^>]*>", f'<svg {viewbox[0]} role="img" aria-label="{escaped}">', text, count=1)


def inline_legend(names: Sequence[str]) -> str:
    """Return the key to the lines of these implementations as an HTML list."""
    with matplotlib.rc_context(STYLE):
        items = []
        for name in names:
            figure = Figure(figsize=(0.5, 0.25))
            figure.add_artist(Line2D([0.1, 0.5, 0.9], [0.5] * 3, markevery=[1], **line(name)))
            items.append(f"<li>{inline_svg(figure, name)}{name}</li>")
    return f'<ul class="legend">{"".join(items)}</ul>'


def colours_css() -> str:
    """Return the CSS variables that `inline_svg` refers to, for light and for dark paper."""
    looks = {name: look(name) for name in [*LOOKS, "other"]}
    light = "".join(f"--{name}: {style.colour}; " for name, style in looks.items())
    dark = "".join(f"--{name}: {style.dark}; " for name, style in looks.items())
    return f":root {{ {light}}}\n@media (prefers-color-scheme: dark) {{ :root {{ {dark}}} }}"


def _variables() -> dict[str, str]:
    named = {look(name).colour: f"--{name}" for name in [*LOOKS, "other"]}
    return {INK: "--ink", GRID: "--rule", **named}
