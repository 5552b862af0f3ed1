"""One style for every chart: colours and markers by implementation, numbers with units, readable on light and dark.

A chart is a function that draws on an Axes. `sheet` lays one or more of them out as a Figure, `save` writes the Figure
as PNG and SVG, and `inline_svg` returns it for a page, where its ink and colours follow the page's light or dark.
"""

import io
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

from bench.implementations import base
from bench.results.files import save as save_file

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
    "numba-simd-float32": Look("#332288", "#9d92e0", "d"),
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
    "text.parse_math": False,  # a name may hold a dollar
    "svg.fonttype": "path",  # the same letters on every machine, whatever its fonts
    "svg.hashsalt": "unrolled",  # the same bytes for the same rows
}

SIZE = (4.2, 3.3)  # inches of a panel: its letters can still be read on a phone

SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
ElementTree.register_namespace("", SVG)
ElementTree.register_namespace("xlink", XLINK)

Draw = Callable[[Axes], None]


def look(name: str) -> Look:
    """Return the colours and the marker of an implementation; another version of it has a marker of its own."""
    plain = LOOKS.get(base(name), OTHER)
    return plain if base(name) == name else plain._replace(marker="p")


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
        "linestyle": "-" if base(name) == name else "--",
    }


def sheet(draws: Sequence[Draw], columns: int = 3, size: tuple[float, float] = SIZE, legend: bool = True) -> Figure:
    """Return a Figure with one panel, `size` (width, height) in inches, for each function of `draws`.

    The labelled lines of all panels share one legend below them, if there are any and `legend` is true.
    """
    columns = min(columns, len(draws))
    rows = -(-len(draws) // columns)
    with _style():
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


def facet_label(case: dict, varied: set[str]) -> str:
    """Say what a chart holds fixed; of cell, dtype, threads and machine only what varies between charts."""
    words = [str(case["cell"]).upper()] if "cell" in varied else []
    words += [case["network"]] if case.get("network") else []
    words += [
        str(case[name]) for name in ("operation", "dtype") if name in case and (name != "dtype" or name in varied)
    ]
    if "batch_size" in case:
        words.append(f"B = {case['batch_size']}")
    if "inputs" in case:
        words.append(case["inputs"])
    if "threads" in varied:
        words.append(f"{case['threads']} thread{'s' if case['threads'] > 1 else ''}")
    if "machine" in varied:
        words.append(str(case["machine"]))
    return ", ".join(words)


def save(figure: Figure, folder: Path, name: str) -> Path:
    """Write `name`.png and `name`.svg on white paper into `folder`, and return the path of the PNG.

    Of the name the files keep letters and digits, small ones.
    """
    if folder.is_symlink():  # in a run from elsewhere, to a folder that is no part of it
        folder.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    stem = re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")
    save_file(folder / f"{stem}.svg", _drawn(figure, format="svg", facecolor="white", metadata={"Date": None}))
    save_file(folder / f"{stem}.png", _drawn(figure, format="png", facecolor="white", dpi=160))
    return folder / f"{stem}.png"


def inline_svg(figure: Figure, label: str) -> Markup:
    """Return the figure as an SVG element for a page made by `page.render`: transparent, in the page's own colours.

    `label` says what it shows to a screen reader.
    """
    # Parsed, the comments are gone, in which Matplotlib repeats every text.
    svg = ElementTree.fromstring(_drawn(figure, format="svg", transparent=True, metadata={"Date": None}))
    for metadata in svg.findall(f"{{{SVG}}}metadata"):
        svg.remove(metadata)
    svg.attrib = {"viewBox": svg.attrib["viewBox"], "role": "img", "aria-label": label}
    text = ElementTree.tostring(svg, encoding="unicode")
    for colour, variable in _variables().items():
        text = text.replace(colour, f"var({variable})")
    return Markup(text)


def inline_legend(names: Sequence[str]) -> Markup:
    """Return the key to the lines of these implementations as an HTML list."""
    items = []
    for name in names:
        figure = Figure(figsize=(0.5, 0.25))
        figure.add_artist(Line2D([0.1, 0.5, 0.9], [0.5] * 3, markevery=[1], **line(name)))
        items.append(Markup("<li>{}{}</li>").format(inline_svg(figure, name), name))
    return Markup('<ul class="legend">{}</ul>').format(Markup("").join(items))


def _drawn(figure: Figure, **options) -> bytes:
    out = io.BytesIO()
    with _style():
        figure.savefig(out, **options)
    return out.getvalue()


@contextmanager
def _style() -> Iterator[None]:
    """Draw in our style, and in silence: a letter that the font lacks is a box."""
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def colours_css() -> str:
    """Return the CSS variables that `inline_svg` refers to, for light and for dark paper."""
    looks = {name: look(name) for name in [*LOOKS, "other"]}
    light = "".join(f"--{name}: {style.colour}; " for name, style in looks.items())
    dark = "".join(f"--{name}: {style.dark}; " for name, style in looks.items())
    return f":root {{ {light}}}\n@media (prefers-color-scheme: dark) {{ :root {{ {dark}}} }}"


def _variables() -> dict[str, str]:
    named = {look(name).colour: f"--{name}" for name in [*LOOKS, "other"]}
    return {INK: "--ink", GRID: "--rule", **named}
