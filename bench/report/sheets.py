"""Which charts a report shows: few enough to be read, whatever the size of the grid."""

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from bench.report import charts, panels
from bench.report.panels import Panel
from bench.report.wording import named
from bench.results.formats import in_order, listed, seconds
from bench.results.tables import FASTEST, Facts

MOST = 12  # panels of times, beyond which operations are left out


class Sheet(NamedTuple):
    """Charts that belong together: a section of the page, and a file."""

    name: str
    title: str
    words: str
    panels: dict[str, Panel]  # by what each one shows, in words
    legend: Sequence[str] = ()  # the implementations whose lines they share


def overview(facts: Facts) -> Sheet:
    """Return the speedups over the baseline, a chart for each cell."""
    baseline = named(facts.baseline)
    names = [name for name in facts.implementations if name != facts.baseline]
    rows = facts.ok[facts.ok["speedup"].notna() & facts.ok["implementation"].isin(names)]
    words = (
        "Each dot is a case, the big mark the geometric mean with its 95% interval over cases, if that is within a "
        f"factor of two. Right of the line at 1× is faster than {baseline}."
    )
    found = _ratios(rows, "speedup", f"times as fast as {baseline} (log scale)", names)
    return Sheet("speedup-overview", f"Speedup over {baseline}", words, found)


def sheets(facts: Facts) -> list[Sheet]:
    """Return all other charts, in the order of the page; those with nothing to show are left out."""
    found = [
        _machines(facts),
        _versions(facts),
        _streams(facts),
        _below(facts),
        _heated(facts, FASTEST),
        _heated(facts, facts.baseline),
    ]
    found += [
        _timed(facts, "hidden_size", "Time against hidden size", "time-against-hidden-size"),
        _timed(facts, "seq_len", "Time against sequence length", "time-against-sequence-length"),
        _threads(facts),
        _roofline(facts),
        _compiling(facts),
    ]
    return [sheet for sheet in found if sheet.panels]


def _heated(facts: Facts, who: str) -> Sheet:
    file = "speedup-over-fastest-other" if who == FASTEST else f"speedup-over-{who}"
    words = (
        f"How many times as fast as {named(who)}: blue is faster, red is slower, white the same. In brackets: no "
        "difference, the 95% interval holds 1."
    )
    against = facts.duels[facts.duels["against"] == who]
    return Sheet(file, f"{facts.ours} against {named(who)}", words, panels.heat_panels(against))


def _machines(facts: Facts) -> Sheet:
    words = f"Each dot is a case, the big mark the geometric mean: what {facts.ours} gains on each machine."
    found = {}
    for against in (FASTEST, facts.baseline):
        duels = facts.duels[facts.duels["against"] == against]
        names = [name for name in facts.machines if (duels["machine"] == name).any()]
        if len(names) > 1:
            label = f"times as fast as {named(against)} (log scale)"
            title = f"Over {named(against)}"
            found[title] = panels.overview_panel(duels, "speedup", names, label, title, by="machine")
    return Sheet("machines", "What differs between the machines", words, found)


def _versions(facts: Facts) -> Sheet:
    words = (
        "Each dot is a case: the time of another version of an implementation over that of the one that bears its name "
        "alone, which took turns with it. Left of the line at 1× is slower than that version was."
    )
    rows = facts.versions.rename(columns={"against": "implementation"})
    names = [name for name in facts.implementations if (rows["implementation"] == name).any()]
    found = _ratios(rows, "speedup", "times as fast as the other version (log scale)", names)
    return Sheet("versions", "Against other versions", words, found)


def _streams(facts: Facts) -> Sheet:
    """Return the charts of how long single calls took."""
    rows, held = facts.streams, ""
    if len(panels.tail_panels(rows)) > MOST:
        sizes = sorted(rows["hidden_size"].unique())
        kept = [sizes[0], sizes[-1]]
        rows = rows[rows["hidden_size"].isin(kept) & (rows["threads"] == rows["threads"].min())]
        held = f" Shown: H = {listed([str(size) for size in dict.fromkeys(kept)])}; all the rest is in the table below."
    words = (
        "How long each call of a step took: a line says which share of the calls took as long or longer, so that its "
        "lower right end is the worst. Whole lines: back to back. Dashed: at a fixed pace, asleep between two calls, "
        "which leaves the caches to others and the clock low."
    )
    if len(rows):
        words += (
            f" The clock is read between two calls, which takes {seconds(rows['clock_s'].median())} of each." + held
        )
    names = [name for name in facts.implementations if (rows["implementation"] == name).any()]
    return Sheet("streams", "A step at a time: the tail", words, panels.tail_panels(rows), names)


def _below(facts: Facts) -> Sheet:
    words = (
        "Each dot is a case. Higher is faster than our own float32, which is the line at 1×; further to the left is "
        "nearer to the exact result. The error is the largest of any state, which lies within ±1. NumPy, elsewhere in "
        "this report, computes these cases in float32."
    )
    found = panels.loss_panels(facts.below)
    names = [name for name in facts.implementations if (facts.below["implementation"] == name).any()]
    return Sheet("below-float32", "Below float32: what it buys and what it costs", words, found, names)


def _timed(facts: Facts, x: str, title: str, name: str) -> Sheet:
    rows, held = _chosen(facts.ok, x)
    words = "Median time of a call, lower is better; both axes are logarithmic. The shade is the 95% interval." + held
    return Sheet(name, title, words, panels.time_panels(rows, x), facts.implementations)


def _threads(facts: Facts) -> Sheet:
    rows = facts.scaling
    many = rows[rows["threads"] == rows["threads"].max()]
    words = "Each dot is a case: its time with the fewest threads over its time with the most. Right of 1× is a gain."
    label = ""
    if len(many):
        label = f"times as fast with {many['threads'].iat[0]} threads as with {many['few'].min()} (log scale)"
    names = [name for name in facts.implementations if (many["implementation"] == name).any()]
    return Sheet("threads", "Scaling with threads", words, _ratios(many.drop(columns="threads"), "times", label, names))


def _roofline(facts: Facts) -> Sheet:
    rows, held = _chosen(facts.ok, None)
    words = (
        "Each dot is a row of the table, the lines are the limits measured on this machine: no row can do more "
        "operations a second than its bytes allow at the bandwidth of the memory that holds them, nor more than the "
        "FMA peak, and its steps wait for each other, which bounds small networks (the last chart). Implementations "
        "are moved a little sideways, to be told apart." + held
    )
    if set(rows["dtype"]) & set(facts.below["dtype"]):
        words += " Below float32 the peak is that of our vectors or matrix registers, or float32's if it is higher."
    found = panels.roofline_panels(rows, facts.rooflines)
    mine = facts.ok[facts.ok["implementation"] == facts.ours]
    bounds = [name for name in ("operations", "bytes", "steps") if (mine["bound_by"] == name).any()]
    if found and bounds:
        title = f"{facts.ours}, by what bounds a case"
        found[title] = panels.overview_panel(
            mine, "peak_fraction", bounds, "share of the bound (log scale)", title, "bound_by"
        )
    return Sheet("roofline", "Roofline", words, found, facts.implementations)


def _compiling(facts: Facts) -> Sheet:
    """Return the charts of compile times and of the calls until they have paid."""
    compiled = facts.ok[facts.ok["compile_s"].notna() & (facts.ok["implementation"] != facts.baseline)]
    compiled = compiled.sort_values("implementation", key=lambda names: names.map(facts.implementations.index))
    found = {}
    if len(compiled):
        title = "Compile time"
        found[title] = panels.bar_panel(compiled, "compile_s", title, "time before the first call", "s", "max")
    paying = compiled[compiled["calls_to_pay"].notna()]
    paying = paying.assign(calls_to_pay=paying["calls_to_pay"].clip(lower=1))
    if len(paying):
        title = f"Calls until it has paid, against {named(facts.baseline)}"
        found[title] = panels.bar_panel(paying, "calls_to_pay", title, "calls")
    words = (
        "Compile time is everything that is done once: compiling, building the graph, laying out the weights. Each dot "
        "is a case. The bar reaches to the longest, the case that came first: later ones may find the code compiled, "
        "as may a second run where it is kept on disk. The calls are counted from that longest time of each operation, "
        f"and their bar is the median of the cases. Never: not faster than {named(facts.baseline)}."
    )
    return Sheet("compile-time", "Compiling, and when it has paid for itself", words, found)


def _ratios(rows: pd.DataFrame, column: str, label: str, names: Sequence[str]) -> dict[str, Panel]:
    """Return a chart of ratios for each cell and machine."""
    varied = {name for name in ("cell", "machine") if rows[name].nunique() > 1}
    groups = sorted(rows.groupby(["machine", "cell"]), key=lambda item: [in_order(value) for value in item[0]])
    found = {}
    for (machine, cell), group in groups:
        title = charts.facet_label({"cell": cell, "machine": machine}, varied)
        shown = [name for name in names if (group["implementation"] == name).any()]
        if shown:
            found[title or label] = panels.overview_panel(group, column, shown, label, title)
    return found


def _chosen(rows: pd.DataFrame, x: str | None) -> tuple[pd.DataFrame, str]:
    """Return the rows that charts of times show, and what they leave out, in a sentence.

    One dtype and one number of threads; of more panels than can be read, forward and train alone.
    """
    if rows.empty:
        return rows, ""
    held = []
    if rows["dtype"].nunique() > 1:
        held.append(rows["dtype"].value_counts().index[0])
        rows = rows[rows["dtype"] == held[-1]]
    if x is not None and rows["threads"].nunique() > 1:
        fewest = rows["threads"].min()
        held.append(f"{fewest} thread{'s' if fewest > 1 else ''}")
        rows = rows[rows["threads"] == fewest]
    if x is not None and len(panels.time_panels(rows, x)) > MOST:
        held.append("forward and train")
        rows = rows[rows["operation"].isin(["forward", "train"])]
    return rows, f" Shown: {listed(held)}; all the rest is in the table of all rows." if held else ""
