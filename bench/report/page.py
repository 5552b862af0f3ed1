"""The frame of every HTML page of the project: one file, no network, light and dark, from a phone to a wide screen.

A page is a title and blocks from top to bottom. `section`, `paragraph`, `table`, `charts` and the like make the blocks;
each escapes what it is given, but Markup, and returns Markup. Only templates and literals are turned into Markup, so
that no text of a run or a file can become HTML.
"""

import re
from collections.abc import Sequence
from itertools import count
from pathlib import Path

import jinja2
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from bench.report.charts import colours_css, inline_legend, inline_svg

_templates = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
)
_templates.policies["json.dumps_kwargs"] = {"sort_keys": False}  # details are shown in the order they come


def render(title: str, blocks: Sequence[Markup], lead: str = "") -> str:
    """Return the whole page; `lead` is the line below its title."""
    html = _templates.get_template("page.html").render(
        title=title, lead=lead, blocks=blocks, colours=Markup(colours_css())
    )
    return _with_ids_apart(html)


def section(title: str, *blocks: Markup) -> Markup:
    return Markup("<section>\n<h2>{}</h2>\n{}\n</section>").format(title, Markup("\n").join(blocks))


def paragraph(text: str, kind: str = "") -> Markup:
    """Return a paragraph; `kind` is "", "small" or "notice" (a warning)."""
    return Markup('<p class="{}">{}</p>').format(kind, text)


def quote(text: str) -> Markup:
    """Return a docstring as a quotation: paragraphs filled anew, indented lines and lists kept, `code` set as code."""
    parts = []
    for part in text.split("\n\n"):
        if part.startswith(("    ", "- ")):
            parts.append(Markup("<pre>{}</pre>").format(_coded(part)))
        else:
            parts.append(Markup("<p>{}</p>").format(_coded(" ".join(part.split()))))
    return Markup("<blockquote>{}</blockquote>").format(Markup("\n").join(parts))


def _coded(text: str) -> Markup:
    parts = re.split("`([^`]+)`", text)  # every second one stood between backticks
    return Markup("").join(Markup("<code>{}</code>").format(part) if n % 2 else part for n, part in enumerate(parts))


def preformatted(text: str) -> Markup:
    """Return a text with its own line breaks; lines that are too long are broken as well."""
    return Markup('<pre style="white-space: pre-wrap">{}</pre>').format(text)


def heading(text: str) -> Markup:
    return Markup("<h3>{}</h3>").format(text)


def charts(figures: dict[str, Figure], legend: Sequence[str] = ()) -> Markup:
    """Return the figures side by side where there is room; a key is what the figure shows, in words.

    `legend` names the implementations whose lines they share.
    """
    key = inline_legend(legend) if legend else Markup("")
    drawn = Markup("\n").join(
        Markup("<figure>{}</figure>").format(inline_svg(figure, label)) for label, figure in figures.items()
    )
    return key + Markup('\n<div class="charts">\n{}\n</div>').format(drawn)


def table(
    frame: pd.DataFrame,
    caption: str = "",
    name: str = "",
    choices: Sequence[str] = (),
    details: Sequence[dict] = (),
) -> Markup:
    """Return the frame as a table that scrolls in its own box and sorts by a click on a heading.

    Cells are shown by `str`, missing ones empty; columns of numbers stand to the right. A cell may be a pair
    (text, value) to be shown as the text and sorted by the value. With a `name` the table is a long one: it gets a
    height of its own and a box to filter its rows, beside a list to choose from for each column in `choices`.

    `details` are what a click on a row shows, one for each: `fields`, texts by name; `rounds`, seconds; and `errors`,
    the texts of an error and its bound by the name of an output.
    """
    numeric = [frame[column].map(_is_number).all() for column in frame]
    return Markup(
        _templates.get_template("table.html").render(
            columns=list(zip(frame.columns, numeric, strict=True)),
            rows=[[_cell(cell) for cell in row] for row in frame.itertuples(index=False, name=None)],
            caption=caption,
            name=name,
            choices={column: _values(frame[column]) for column in choices},
            details=list(details),
        )
    )


def copyable(title: str, text: str) -> Markup:
    """Return text in a box with a button that copies it."""
    box = (
        '<details class="copyable"><summary>{}</summary>\n<button type="button">Copy</button>\n<pre>{}</pre></details>'
    )
    return Markup(box).format(title, text)


def _values(column: pd.Series) -> list[str]:
    """Return the different values of a column as the cells show them, in their order."""
    return [str(value) for value in sorted(column.dropna().unique())]


def _cell(cell) -> tuple[str, object]:
    """Return the text of a cell and the value it is sorted by."""
    if isinstance(cell, tuple):
        text, value = cell
        return text, "" if pd.isna(value) else value
    return ("", "") if pd.isna(cell) else (str(cell), cell)


def _is_number(cell) -> bool:
    value = cell[1] if isinstance(cell, tuple) else cell
    return not isinstance(value, str)


def _with_ids_apart(html: str) -> str:
    """Return the page with the ids of each SVG prefixed by its number: Matplotlib gives all charts the same ones."""
    numbers = count(1)

    def apart(svg: re.Match) -> str:
        return re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>c{next(numbers)}-", svg[0])

    return re.sub(r"<svg.*?</svg>", apart, html, flags=re.DOTALL)
