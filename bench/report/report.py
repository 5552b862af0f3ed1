"""What people look at: `write` turns runs into report.html, report.md, results.csv and charts."""

import ast
import re
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from textwrap import shorten

import numpy as np
import pandas as pd
from markupsafe import Markup

from bench.machine import roofline
from bench.machine.describe import words
from bench.machine.hardware import size
from bench.report import charts, models, page, wording
from bench.report.sheets import Sheet, overview, sheets
from bench.report.wording import case_name, named
from bench.results import files, pytest_json
from bench.results.form import instant
from bench.results.formats import calls, count, counted, ends, in_order, listed, percent, seconds, short, times, typical
from bench.results.runs import KEY, REPORT, Run
from bench.results.statistics import TWINS, Interval, geometric_mean, tells
from bench.results.tables import FASTEST, Facts, by_kind, machine_name

TITLE = "Unrolled: recurrent networks on this CPU"


def write(runs: Sequence[Run], folder: Path) -> Path:
    """Write everything that is derived from the runs into `folder` and return the path of report.html."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with pd.option_context("future.infer_string", False):  # PyArrow's texts hold no path that is not UTF-8
        _write(Facts(runs), folder)
    return folder / REPORT


def _write(facts: Facts, folder: Path) -> None:
    files.save(folder / "results.csv", facts.rows.to_csv(index=False))
    for sheet in _sheets(facts):
        if sheet.panels:
            draws = [panel.draw for panel in sheet.panels.values()]
            width, height = (max(sizes) for sizes in zip(*(panel.size for panel in sheet.panels.values()), strict=True))
            charts.save(charts.sheet(draws, size=(width, height)), folder / "charts", sheet.name)
    files.save(folder / "report.md", markdown(facts))
    files.save(folder / REPORT, html(facts))  # the last of all: a run with it is over


def write_run(run: Run) -> Path:
    """Write everything that is derived from a run into its folder and return the path of report.html."""
    pytest_json.save(run)
    return write([run], run.folder)


def _sheets(facts: Facts) -> list[Sheet]:
    """Return all charts, the overview first."""
    return [overview(facts), *(sheet for sheet in [models.sheet(facts)] if sheet.panels), *sheets(facts)]


def html(facts: Facts) -> str:
    """Return the page."""
    blocks = [_answer_section(facts)]
    if len(facts.losses):
        blocks.append(_losses_section(facts))
    blocks += [_sheet_section(sheet, facts) for sheet in _sheets(facts)[1:]]
    blocks += [_rows_section(facts), _contents_section(facts), _verification_section(facts), _missing_section(facts)]
    blocks += [_machine_section(facts), _method_section(facts)]
    names = listed([run.info["name"] for run in facts.runs])
    return page.render(TITLE, [block for block in blocks if block], f"Run {names}")


def markdown(facts: Facts) -> str:
    """Return the summary, ready to be pasted; its first lines say it all."""
    parts = [f"# {TITLE}", _in_markdown(wording.share_line(facts))]
    parts += [f"> **Note:** {_in_markdown(text)}" for text in wording.warnings(facts)]
    parts += map(_in_markdown, models.answer(facts))
    if models.answer(facts):
        parts.append(_markdown_table(models.table(facts)))
    parts += map(_in_markdown, wording.answer(facts))
    if len(facts.duels):
        parts += [_markdown_table(_versus(facts)), _KINDS, _markdown_table(_kinds(facts))]
    if len(facts.below):
        parts += [_BELOW, _markdown_table(_below(facts))]
    parts += [_markdown_table(table) for table in _layers_tables(facts)]
    parts += map(_in_markdown, wording.threads(facts) + wording.left(facts))
    about = pd.DataFrame({run.info["name"]: _about(run) for run in facts.runs}).rename_axis("Run").reset_index()
    parts.append(_markdown_table(about.fillna("unknown")))
    parts += [_markdown_table(table) for table in _rooflines(facts).values()]
    return "\n\n".join(parts) + "\n"


def _shared(facts: Facts) -> str:
    """Return what is pasted into an issue: the line and the table against each other implementation."""
    line = _in_markdown(wording.share_line(facts))
    return "\n\n".join([line, *([_markdown_table(_versus(facts))] if len(facts.duels) else [])])


def _answer_section(facts: Facts) -> Markup:
    lines = [page.paragraph(text, "notice") for text in wording.warnings(facts)]
    if words := models.answer(facts):
        lines += [*map(page.paragraph, words), page.table(models.table(facts))]
    lines += [page.paragraph(text) for text in wording.answer(facts)]
    if len(facts.duels):
        lines.append(page.table(_versus(facts)))
    lines.append(page.paragraph(wording.scope(facts), "small"))
    lines.append(page.copyable("To share: Markdown, ready to paste into an issue", _shared(facts)))
    seen = overview(facts)
    if seen.panels:
        lines += [page.heading(seen.title), _drawn(seen), page.paragraph(seen.words, "small")]
    if len(facts.duels):
        lines += [page.heading("By kind of case"), page.table(_kinds(facts), _KINDS)]
    return page.section("The answer", *lines)


_KINDS = f"Times as fast by kind of case: {wording.MEANS}; in brackets how often it is faster–no different–slower."


def _versus(facts: Facts) -> pd.DataFrame:
    """Return the table of the first screen: ours against each other implementation."""
    several = len(facts.machines) > 1
    order = [*facts.implementations, FASTEST]
    rows = []
    for (where, against), duel in facts.duels.groupby(["machine", "against"], sort=False):
        worst, best = duel["speedup"].min(), duel["speedup"].max()
        rows.append(
            {
                "Machine": where,
                f"{facts.ours} against": str(against),
                **_tally(duel),
                "Least": (times(worst), worst),
                "Most": (times(best), best),
            }
        )
    rows.sort(key=lambda row: (facts.machines.index(row["Machine"]), order.index(row[f"{facts.ours} against"])))
    return pd.DataFrame(rows).drop(columns=[] if several or not rows else "Machine")


def _below(facts: Facts) -> pd.DataFrame:
    """Return the table of what each implementation gains and loses below float32."""
    rows = [
        {
            "Machine": machine,
            "dtype": dtype,
            "Implementation": name,
            "Median loss": (short(of["loss"].median()), of["loss"].median()),
            "Largest loss": (short(of["loss"].max()), of["loss"].max()),
            **_tally(of),
        }
        for (machine, dtype, name), of in facts.below.groupby(["machine", "dtype", "implementation"])
    ]
    return pd.DataFrame(rows).drop(columns=[] if len(facts.machines) > 1 else "Machine")


_BELOW = "Times as fast as our own float32, and the loss: the largest error of a state, which lies within ±1."


def _tally(rows: pd.DataFrame) -> dict:
    """Return what there is to say of the speedups of some cases, and how often they are faster and slower."""
    mean, counts = geometric_mean(rows["speedup"]), rows["verdict"].value_counts()
    return {
        "Times as fast": (typical(rows["speedup"]), mean.median),
        "95% interval": (ends(mean) if tells(mean) else "–", mean.low),
        "Cases": len(rows),
        "Faster": int(counts.get("faster", 0)),
        "No difference": int(counts.get("no difference", 0)),
        "Slower": int(counts.get("slower", 0)),
    }


def _kinds(facts: Facts) -> pd.DataFrame:
    """Return ours against each other, by kind of case: a kind a row, an implementation a column."""
    kinds = by_kind(facts.duels)
    names = [name for name in [FASTEST, *facts.implementations] if (kinds["against"] == name).any()]
    rows = []
    for (kind, value), of in kinds.groupby(["kind", "value"], sort=False):
        row: dict = {"Cases": _kind_name(kind, value)}
        for name in names:
            found = of[of["against"] == name]
            row[name] = None
            if len(found):
                one = found.iloc[0]
                counts = f"({one['faster']}–{one['no difference']}–{one['slower']})"
                row[name] = (f"{one['typical']} {counts}", one["mean"])
        rows.append(row)
    return pd.DataFrame(rows)


def _kind_name(kind: str, value) -> str:
    if kind == "network":
        return value or "one layer, one direction"
    words = {"cell": "{u}", "batch_size": "B = {v}", "threads": "{v} thread" + ("" if value == 1 else "s")}
    return words.get(kind, "{v}").format(v=value, u=str(value).upper())


def _losses_section(facts: Facts) -> Markup:
    lost = facts.losses
    shown = pd.DataFrame(
        {
            "Against": lost["against"].to_numpy(),
            "Times as fast": _pairs(lost["speedup"], times),
            "95% interval": [
                (ends(Interval(*row)), row[0])
                for row in lost[["speedup", "speedup_low", "speedup_high"]].itertuples(index=False, name=None)
            ],
            facts.ours: _pairs(lost["median_s"], seconds),
            "The other": _pairs(lost["other_s"], seconds),
            "Case": [case_name(row, facts.varied()) for _, row in lost.iterrows()],
        }
    )
    long = len(shown) > 12
    return page.section(
        f"Where {facts.ours} is slower",
        page.table(shown, name="losses" if long else "", choices=["Against"] if long else ()),
    )


def _sheet_section(sheet: Sheet, facts: Facts) -> Markup:
    lines = [page.paragraph(sheet.words), _drawn(sheet)]
    if sheet.name == "machines":
        lines[:0] = [page.paragraph(text) for text in wording.machines(facts)]
        if len(differing := _differing(facts)):
            lines.append(page.table(differing, "In what the machines differ."))
    if sheet.name == "models":
        lines += map(page.table, _layers_tables(facts))
    if sheet.name == "below-float32":
        lines.append(page.table(_below(facts), _BELOW))
    if sheet.name == "streams":
        lines.append(_streams_table(facts))
    if sheet.name == "threads":
        lines[:0] = [page.paragraph(text) for text in wording.threads(facts)]
        lines.append(_scaling_table(facts))
    if sheet.name == "roofline":
        lines[:0] = [page.paragraph(text) for text in wording.left(facts)]
        lines += [page.table(table, f"Measured on {where}.") for where, table in _rooflines(facts).items()]
        lines += [
            page.table(steps, f"How long a step of a single vector of units takes, on {where}.")
            for where, limit in facts.rooflines.items()
            if len(steps := roofline.chains(limit))
        ]
        lines += [page.paragraph("The rule, from bench/machine/roofline.py:"), _quoted("machine/roofline.py")]
    return page.section(sheet.title, *lines)


def _layers_tables(facts: Facts) -> list[pd.DataFrame]:
    """Return the table of models' layers, unless the page began with it, and the one of where sizes are written."""
    tables = [] if models.answer(facts) else [models.table(facts)]
    return [table for table in [*tables, models.sources(facts)] if len(table)]


def _drawn(sheet: Sheet) -> Markup:
    figures = {
        label: charts.sheet([panel.draw], size=panel.size, legend=False) for label, panel in sheet.panels.items()
    }
    return page.charts(figures, sheet.legend)


def _scaling_table(facts: Facts) -> Markup:
    """Return how many times as fast each case is with more threads, an implementation a column."""
    sizes = ["hidden_size", "input_size", "seq_len", "batch_size"]
    case = ["machine", "model", "cell", "network", "operation", *sizes, "dtype", "threads"]
    wide = facts.scaling.pivot_table(index=case, columns="implementation", values="times").reset_index()
    wide = wide.sort_values(case, key=lambda column: column.map(in_order))
    for name in facts.implementations:
        if name in wide:
            wide[name] = [(times(value), value) if pd.notna(value) else None for value in wide[name]]
    names = [name for name in facts.implementations if name in wide]
    kept = [name for name in case if name not in ("machine", "model", "network", "dtype") or wide[name].nunique() > 1]
    shown = wide[[*kept, *names]].rename(columns=_HEADINGS)
    words = (
        "Times as fast as with one thread. Thread counts did not take turns: a few percent may be the machine's drift."
    )
    choices = [_HEADINGS[name] for name in kept if name in ("cell", "operation", "batch_size", "threads")]
    return page.table(shown, words, name="threads", choices=choices)


def _streams_table(facts: Facts) -> Markup:
    """Return how long the calls of each stream took."""
    rows = facts.streams
    columns = {
        "Median": "median_s", "99%": "p99_s", "99.9%": "p999_s", "Worst": "worst_s",
        "Paced: median": "paced_s", "Paced: 99.9%": "paced_p999_s", "Paced: worst": "paced_worst_s",
    }  # fmt: skip
    shown = pd.DataFrame(
        {
            **{title: rows[name] for name, title in _HEADINGS.items()},
            "Implementation": rows["implementation"],
            **{title: _pairs(rows[name], seconds) for title, name in columns.items()},
            "Missed": [
                "" if pd.isna(row["missed"]) else (f"{row['missed']:,.0f} of {row['paced_calls']:,.0f}", row["missed"])
                for _, row in rows.iterrows()
            ],
            "Beside the step": _pairs(rows["overhead_s"], seconds),
        }
    )
    alike = [
        name
        for name in ("Machine", "Model", "Cell", "Network", "Operation", "I", "T", "B", "Threads")
        if shown[name].nunique() < 2
    ]
    words = (
        "How long single calls took, back to back and at a fixed pace; which of the latter were not done when the next "
        "one was due; and what a call takes beyond a step within a long sequence of the same implementation."
    )
    choices = [name for name in ("Cell", "H", "Implementation") if name not in alike]
    return page.table(shown.drop(columns=alike), words, name="streams", choices=choices)


_HEADINGS = {
    "machine": "Machine",
    "model": "Model",
    "cell": "Cell",
    "network": "Network",
    "operation": "Operation",
    "hidden_size": "H",
    "input_size": "I",
    "seq_len": "T",
    "batch_size": "B",
    "threads": "Threads",
}


def _rooflines(facts: Facts) -> dict[str, pd.DataFrame]:
    """Return the limits of each machine that were measured."""
    return {name: roofline.table(limit) for name, limit in facts.rooflines.items()}


def _rows_section(facts: Facts) -> Markup:
    rows = facts.rows
    shown = pd.DataFrame(
        {
            "Machine": rows["machine"],
            "Model": rows["model"],
            "Cell": rows["cell"],
            "Network": rows["network"],
            "Operation": rows["operation"],
            "H": rows["hidden_size"],
            "I": rows["input_size"],
            "T": rows["seq_len"],
            "B": rows["batch_size"],
            "dtype": rows["dtype"],
            "Threads": rows["threads"],
            "Implementation": rows["implementation"],
            "Status": rows["status"],
            "Time": _pairs(rows["median_s"], seconds),
            "Speedup": _pairs(rows["speedup"], times),
            "95% interval": _interval_pairs(rows),
            "Verdict": rows["verdict"],
            "Loss": _pairs(rows["loss"], short),
            "Beside the step": _pairs(rows["overhead_s"], seconds),
            "How much is left": _pairs(rows["left"], times),
            "Of the bound": _pairs(rows["peak_fraction"], percent),
            "GFLOP/s": _pairs(rows["gflops"], "{:.3g}".format),
            "Compile": _pairs(rows["compile_s"], seconds),
            "Pays after": _pairs(rows["calls_to_pay"], calls),
        }
    )
    alike = ("Machine", "Model", "Cell", "Network", "dtype", "Status")
    kept = [name for name in shown if name not in alike or shown[name].nunique() > 1]
    for column, title in (("loss", "Loss"), ("overhead_s", "Beside the step")):
        if rows[column].isna().all():
            kept.remove(title)
    if rows["peak_fraction"].isna().all():
        kept = [name for name in kept if name not in ("Of the bound", "How much is left")]
    about = ("Machine", "Model", "Cell", "Network", "Operation", "B", "dtype", "Threads")
    choices = [name for name in (*about, "Implementation", "Status", "Verdict") if name in kept]
    return page.section(
        "All rows",
        page.paragraph(
            f"Speedup and verdict are against {named(facts.baseline)}. GFLOP/s count the matrix products alone. Of the "
            "bound: the share of what this machine could do at best; how much is left: how many times as fast that "
            "would be. Beside the step: what a call of one step takes beyond a step within a long sequence. A click on "
            "a heading sorts, a click on a row shows all that is known of it."
        ),
        page.table(shown[kept], name="rows", choices=choices, details=_details(facts)),
    )


def _details(facts: Facts) -> list[dict]:
    """Return all that is known of each row: `fields` by name, the `rounds` in seconds, and `errors` by output."""
    by_key = {(run.info["name"], *(row[name] for name in KEY)): row for run in facts.runs for row in run.rows}
    found = []
    for _, row in facts.rows.iterrows():
        raw = by_key[(row["run"], *(row[name] for name in KEY))]
        fields = {
            "Case": case_name(row, {"cell", "dtype", "threads"}),
            "Implementation": f"{row['implementation']} {row['version'] or ''}",
            "Status": row["status"],
            "Why": row["message"],
            "Time": _with_interval(row, "median", seconds, "_s"),
            "Speedup": _with_interval(row, "speedup", times),
            "Verdict": row["verdict"],
            "Loss": _text(row["loss"], short),
            "Rounds": str(row["repeats"]),
            "Calls in a round": _text(row["calls"], "{:.0f}".format),
            "Rounds ended by": row["stopped"],
            "Operations": _text(row["flops"], lambda flops: f"{count(flops)} a call"),
            "Bytes": _text(row["bytes"], lambda bytes: f"{count(bytes, 'B')} a call"),
            "GFLOP/s": _text(row["gflops"], "{:.3g}".format),
            "Beside the step": _text(row["overhead_s"], seconds),
            "Of the bound": _text(row["peak_fraction"], percent),
            "Bound by its": row["bound_by"],
            "How much is left": _text(row["left"], times),
            "Weights lie in": row["memory_level"],
            "Compile time": _text(row["compile_s"], seconds),
            "Pays after": _text(row["calls_to_pay"], calls),
            "Peak memory of the process": _text(row["peak_memory_bytes"], size),
            "Run": row["run"],
            "Machine": row["machine"],
            "Measured by": row["host"],
        }
        errors = raw.get("errors") or {}
        found.append(
            {
                "fields": {name: str(text) for name, text in fields.items() if pd.notna(text) and text != ""},
                "rounds": [float(f"{seconds:.4g}") for seconds in raw["times"]],
                "errors": {
                    output: [
                        "not finite" if entry["error"] is None else f"{entry['error']:.1e}",
                        f"{entry['bound']:.1e}",
                    ]
                    for output, entry in errors.items()
                },
            }
        )
    return found


def _with_interval(row: pd.Series, name: str, form: Callable, end: str = "") -> str | None:
    """Return "1.2 (1.1 – 1.3)"."""
    value, low, high = (
        row[f"{name}{end}"],
        *(row[f"{side}{end}" if end else f"{name}_{side}"] for side in ("low", "high")),
    )
    if pd.isna(value):
        return None
    return form(value) if pd.isna(low) else f"{form(value)} ({form(low)} – {form(high)})"


def _machine_section(facts: Facts) -> Markup:
    columns = {f"Run {run.info['name']}": _about(run) for run in facts.runs}
    shown = pd.DataFrame(columns).rename_axis("").reset_index().fillna("unknown")
    return page.section("Machine, versions, command", page.table(shown))


def _differing(facts: Facts) -> pd.DataFrame:
    """Return what is not the same of all machines, a machine a column."""
    columns = {machine_name(run): _about(run) | {"Rows": str(len(run.rows))} for run in facts.runs}
    shown = pd.DataFrame(columns).drop(index=["Command", "Started", "Took", "Load at the start"], errors="ignore")
    shown = shown[shown.nunique(axis=1, dropna=False) > 1]
    return shown.rename_axis("").reset_index().fillna("unknown")


def _contents_section(facts: Facts) -> Markup:
    about = {name: entry for run in facts.runs for name, entry in run.info["implementations"].items()}
    quotes = []
    for name, entry in about.items():
        version = entry.get("version") or "not installed"
        quotes.append(page.heading(f"{name} ({version})"))
        if entry.get("contains"):
            quotes.append(page.quote(entry["contains"]))
    return page.section("What each timing contains", *quotes)


def _verification_section(facts: Facts) -> Markup:
    found = [
        {
            "Implementation": row["implementation"],
            "Operation": row["operation"],
            "dtype": row["dtype"],
            "Output": output,
            "error": np.nan if entry["error"] is None else entry["error"],
            "bound": entry["bound"],
        }
        for run in facts.runs
        for row in run.rows
        for output, entry in (row.get("errors") or {}).items()
    ]
    if not found:
        return Markup("")
    errors = pd.DataFrame(found)
    # An error that is not finite is worse than any other.
    errors["share"] = (errors["error"] / errors["bound"]).fillna(np.inf)
    by = ["Implementation", "Operation", "dtype", "Output"]
    worst = errors.loc[errors.groupby(by, sort=False)["share"].idxmax()].reset_index(drop=True)
    cases = errors.groupby(by, sort=False).size().to_numpy()
    shown = worst[by].assign(
        **{
            "Largest error": [(f"{error:.1e}" if pd.notna(error) else "not finite", error) for error in worst["error"]],
            "Its bound": _pairs(worst["bound"], "{:.1e}".format),
            "Share of the bound": _pairs(worst["share"], "{:.2g}".format),
            "Cases": cases,
        }
    )
    return page.section(
        "Verification",
        page.paragraph("Every output is checked before it is timed; the rule, from bench/timing/verify.py:"),
        _quoted("timing/verify.py"),
        page.table(shown, "For each output, the case that comes nearest to its bound.", name="errors"),
    )


def _missing_section(facts: Facts) -> Markup:
    missing = facts.rows[facts.rows["status"] != "ok"]
    if missing.empty:
        return Markup("")
    by = ["implementation", "status", "operation", "message"]
    messages = missing["message"].fillna("").map(lambda text: shorten(text, 300))
    shown = missing.assign(message=messages).groupby(by, sort=False).size().reset_index(name="Cases")
    shown = shown.rename(columns={name: name.capitalize() for name in by} | {"message": "Why"})
    return page.section("What has no time, and why", page.table(shown))


def _method_section(facts: Facts) -> Markup:
    lines = [
        page.paragraph(
            "Every implementation lives in a process of its own and they take turns, round by round, on the same "
            "case, so that what slows the machine slows all alike. A speedup is the median of the ratios of like "
            "rounds. Its 95% interval is that median's, by the bootstrap, and wider than the rounds alone make it: two "
            f"processes of the very same code differ for their whole lives, by a standard deviation of {TWINS:.1%}"
            f"{_lives(facts)}. "
            "Where the interval holds 1, the report says “no difference”. Geometric means weigh every case "
            "alike; their intervals say how far another choice of cases could move them. A mean whose interval goes "
            "beyond half or twice of it is not told: there stand the least and the most of the cases."
        )
    ]
    stopped = facts.ok["stopped"].value_counts()
    if len(stopped):
        lines.append(
            page.paragraph(
                "The rounds of a case end when they tell its ratios to within the precision that was asked for, or at "
                f"its time limit: {stopped.get('precision', 0)} rows ended by precision, {stopped.get('time', 0)} by "
                "time. No round is left out, however slow; a row's details show them all."
            )
        )
    if any(run.info.get("preset") == "deepbench" for run in facts.runs):
        lines += [
            page.paragraph("Where the sizes of deepbench are from, and what differs:"),
            _quoted("grid/presets.py"),
        ]
    lines.append(page.paragraph("The numbers are in results.csv, every single round in rows.jsonl, beside this file."))
    return page.section("How to read this", *lines)


def _lives(facts: Facts) -> str:
    """Return what is to be said where cases were measured by more than one pair of processes."""
    most = max((row["lives"] for run in facts.runs for row in run.rows), default=1)
    return f", so that a case was measured by up to {most} of each, one after the other" if most > 1 else ""


def _about(run: Run) -> dict[str, str]:
    """Return the machine of a run and what else is needed to repeat it, in words by name."""
    about = {
        **words(run.info["machine"]),
        "Command": run.info.get("command"),
        "Preset": ": ".join(filter(None, [run.info.get("preset"), run.info.get("description")])),
        "CPUs of the workers": "; ".join(
            f"{', '.join(map(str, cpus))} for {counted(int(threads), 'thread')}"
            for threads, cpus in (run.info.get("cpus") or {}).items()
            if cpus
        ),
        "Seed": str(run.info.get("seed")),
        "Started": run.info.get("started"),
        "Took": _duration(run.info),
    }
    return {name: value or "unknown" for name, value in about.items()}


def _duration(info: dict) -> str:
    if not info.get("finished"):
        return "not finished"
    seconds = (instant(info["finished"]) - instant(info["started"])).total_seconds()
    if seconds < 0:
        return "unknown: the clock was set back"
    return f"{seconds:.0f} s" if seconds < 180 else f"{seconds / 60:.0f} min"


def _quoted(file: str) -> Markup:
    """Return the docstring of a file in bench/, which need not be imported, as a quotation."""
    text = (Path(__file__).parents[1] / file).read_text(encoding="utf-8")
    return page.quote(ast.get_docstring(ast.parse(text)) or "")


def _markdown_table(frame: pd.DataFrame) -> str:
    texts = [
        [_in_markdown(str(cell[0] if isinstance(cell, tuple) else cell)) for cell in row]
        for row in frame.astype(object).where(frame.notna(), "").itertuples(index=False, name=None)
    ]
    lines = [[_in_markdown(str(name)) for name in frame.columns], ["---"] * len(frame.columns), *texts]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _in_markdown(text: str) -> str:
    """Return a text so that Markdown shows it in one line: no HTML, no link, no code, no end of a table's cell."""
    return re.sub(r"([\\`\[\]|])", r"\\\1", escape(" ".join(text.split()), quote=False))


def _pairs(values: pd.Series, form) -> list[tuple[str, float]]:
    """Return (text, value) cells for `page.table`; missing values are empty."""
    return [("" if pd.isna(value) else form(value), value) for value in values]


def _interval_pairs(rows: pd.DataFrame) -> list[tuple[str, float]]:
    """Return (text, low end) cells of the speedups' intervals."""
    found = []
    for interval in map(Interval._make, rows[["speedup", "speedup_low", "speedup_high"]].to_numpy()):
        found.append(("" if pd.isna(interval.median) else ends(interval), interval.low))
    return found


def _text(value: float, form: Callable) -> str | None:
    return None if pd.isna(value) else form(value)
