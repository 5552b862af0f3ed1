"""What people look at: `write` turns runs into report.html, report.md, results.csv and charts.

Speedups are of rows of one run: only those were timed in turns. Where several runs hold the same row of the same
machine, the last run given counts.
"""

import ast
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from textwrap import shorten

import numpy as np
import pandas as pd
from markupsafe import Markup

from bench import charts, page
from bench.results import KEY, Run
from bench.statistics import Interval, geometric_mean, median_interval, paired_ratio, verdict

SCHEMA = [
    *KEY,
    "version",
    "status",
    "max_error",
    "compile_s",
    "repeats",
    "median_s",
    "low_s",
    "high_s",
    "baseline",
    "speedup",
    "speedup_low",
    "speedup_high",
    "gflops",
    "peak_fraction",
]
MORE = ["verdict", "calls_to_pay", "calls", "peak_memory_bytes", "flops", "bytes", "message", "run", "machine"]
CASE = [name for name in KEY if name != "implementation"]
OURS = "numba-simd"
FASTEST = "the fastest other"
NAMES = {"numpy": "NumPy", "torch": "PyTorch", "jax": "JAX", "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}


def write(runs: Sequence[Run], folder: Path) -> Path:
    """Write everything that is derived from the runs into `folder` and return the path of report.html."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    report = _Report(runs)
    report.rows.to_csv(folder / "results.csv", index=False)
    for name, (draws, size) in report.sheets().items():
        charts.save(charts.sheet(draws, size=size), folder / "charts", name)
    (folder / "report.md").write_text(report.markdown(), encoding="utf-8")
    (folder / "report.html").write_text(report.html(), encoding="utf-8")
    return folder / "report.html"


def table(runs: Sequence[Run]) -> pd.DataFrame:
    """Return a row for each (case, implementation), DESIGN's columns first; times in seconds a call.

    `speedup` is over the run's baseline. `max_error` is the largest error of an output as a share of its bound, so
    1 or less is right. `calls_to_pay` is the number of calls after which compiling has paid for itself against the
    baseline, infinite for never: the longest compile time of the operation, over what a call of this case saves.
    """
    rows = [_row(row, case, run) for run in runs for case in _cases(run) for row in case.values()]
    frame = pd.DataFrame(rows, columns=[*SCHEMA, *MORE])
    # Code is compiled for the first case that needs it: that is what a user pays whose only case is any of these.
    alike = ["run", "machine", "implementation", "cell", "operation", "dtype", "threads"]
    compile_s = frame.groupby(alike)["compile_s"].transform("max")
    calls = compile_s / (frame["median_s"] * (frame["speedup"] - 1))
    others = frame["verdict"].isin(["faster", "slower", "no difference"]) & compile_s.notna()
    frame["calls_to_pay"] = calls.where(frame["verdict"] == "faster", np.inf).where(others)
    return frame.drop_duplicates(["machine", *KEY], keep="last", ignore_index=True)


def duels(runs: Sequence[Run], ours: str) -> pd.DataFrame:
    """Return a row for each (case, other implementation): how many times as fast as that one ours is.

    `against` names the other. Where there are several, a row for `FASTEST` repeats that of the one with the
    least median time.
    """
    found = []
    for run in runs:
        for case in _cases(run):
            times = {name: row["times"] for name, row in case.items() if row["status"] == "ok"}
            mine = times.pop(ours, None)
            if mine is None or not times:
                continue
            about = {name: case[ours][name] for name in CASE} | {"machine": machine_name(run)}
            ratios = {name: paired_ratio(theirs, mine) for name, theirs in times.items()}
            if len(times) > 1:
                fastest = min(times, key=lambda name: float(np.median(times[name])))
                ratios[FASTEST], times[FASTEST] = ratios[fastest], times[fastest]
            for name, ratio in ratios.items():
                medians = {"median_s": np.median(mine), "other_s": np.median(times[name])}
                found.append({**about, "against": name, **_speedup(ratio), "verdict": verdict(ratio), **medians})
    columns = [*CASE, "machine", "against", *_speedup(Interval(1, 1, 1)), "verdict", "median_s", "other_s"]
    return pd.DataFrame(found, columns=columns).drop_duplicates(["machine", *CASE, "against"], keep="last")


def machine_name(run: Run) -> str:
    """Return what tells the machine of a run from others in a line: CPU, cores, vectors."""
    machine = run.info["machine"]
    simd = (machine.get("simd") or {}).get("name")
    cores = machine.get("cores") or machine.get("logical_cpus")
    return ", ".join(filter(None, [machine.get("cpu"), f"{cores} core{'s' if cores != 1 else ''}", simd]))


def _cases(run: Run) -> list[dict[str, dict]]:
    """Return the run's rows by case, each by implementation, the baseline among them."""
    cases: dict[tuple, dict[str, dict]] = {}
    for row in run.rows:
        cases.setdefault(tuple(row[name] for name in CASE), {})[row["implementation"]] = row
    return list(cases.values())


def _row(row: dict, case: dict[str, dict], run: Run) -> dict:
    """Return a row of `table`."""
    baseline = run.info["baseline"]
    columns = {name: row.get(name) for name in [*SCHEMA, *MORE] if name in row}
    columns |= {"baseline": baseline, "repeats": len(row["times"]), "run": run.info["name"]}
    columns["machine"] = machine_name(run)
    if row["status"] != "ok" or not row["times"]:
        return columns
    median, low, high = median_interval(row["times"])
    columns |= {"median_s": median, "low_s": low, "high_s": high, "gflops": row["flops"] / median / 1e9}
    base = case.get(baseline)
    if base and base["status"] == "ok" and base["times"]:
        ratio = paired_ratio(base["times"], row["times"])
        columns |= {**_speedup(ratio), "verdict": "baseline" if row is base else verdict(ratio)}
    return columns


def _speedup(ratio: Interval) -> dict[str, float]:
    return dict(zip(["speedup", "speedup_low", "speedup_high"], ratio, strict=True))


class _Report:
    """The tables, charts and words of one report."""

    def __init__(self, runs: Sequence[Run]):
        self.runs = list(runs)
        self.rows = table(runs)
        self.ok = self.rows[self.rows["median_s"].notna()]
        self.baseline = self.runs[-1].info["baseline"]
        timed = list(self.ok["implementation"].unique())
        others = [name for name in timed if name != self.baseline]
        self.ours = OURS if OURS in timed else next(iter(others), None)
        self.duels = duels(runs, self.ours or "")
        self.implementations = sorted(timed, key=lambda name: [*charts.LOOKS, name].index(name))
        self.machines = list(dict.fromkeys(map(machine_name, self.runs)))

    # What it says

    def losses(self) -> pd.DataFrame:
        """Return the duels that ours loses, the worst first."""
        lost = self.duels[(self.duels["verdict"] == "slower") & (self.duels["against"] != FASTEST)]
        return lost.sort_values("speedup")

    def answer(self) -> list[str]:
        """Return the report in a few sentences, where ours loses first."""
        if self.duels.empty:
            return ["No two implementations have a time for the same case in this run: there is nothing to compare."]
        ours, lost = self.ours, self.losses()
        sentences = []
        if lost.empty:
            sentences.append(f"{ours} is slower than none of the others in any case.")
        else:
            counts = lost["against"].value_counts()
            totals = self.duels["against"].value_counts()
            sentences.append(
                f"{ours} is slower than "
                + _listed([f"{_named(name)} in {count} of {totals[name]} cases" for name, count in counts.items()])
                + f". The worst: {_times(lost['speedup'].iat[0])} the speed of {_named(lost['against'].iat[0])} in "
                + f"{self._case(lost.iloc[0])}."
            )
        for machine, duels in self.duels.groupby("machine", sort=False):
            against = self.baseline if (duels["against"] == self.baseline).any() else duels["against"].iat[0]
            wins = duels.loc[duels["against"] == against]
            mean = geometric_mean(wins["speedup"])
            where = f" on {machine}" if len(self.machines) > 1 else ""
            sentences.append(
                f"Against {_named(against)}{where} it is {_times(mean.median)} as fast: the geometric mean of "
                f"{_count(len(wins), 'case')}{_interval_words(mean)}. {_verdicts(wins)}."
            )
        return sentences

    def scope(self) -> str:
        """Return what was measured, where and when, in a line."""

        def several(name: str, form: str = "{}") -> str:
            return _listed([form.format(value) for value in sorted(self.rows[name].unique())])

        threads = several("threads") + (" thread" if set(self.rows["threads"]) == {1} else " threads")
        days = sorted({run.info["started"][:10] for run in self.runs})
        what = f"{several('cell').upper()}, {several('dtype')}, {threads}" if len(self.rows) else "No rows"
        return f"{what}, on {_listed(self.machines)}, {_listed(days)}."

    def versus(self) -> pd.DataFrame:
        """Return the table of the first screen: ours against each other implementation."""
        several = len(self.machines) > 1
        order = [*self.implementations, FASTEST]
        rows = []
        for (machine, against), duel in self.duels.groupby(["machine", "against"], sort=False):
            mean = geometric_mean(duel["speedup"])
            counts = duel["verdict"].value_counts()
            worst, best = duel.loc[duel["speedup"].idxmin()], duel.loc[duel["speedup"].idxmax()]
            rows.append(
                {
                    "Machine": machine,
                    f"{self.ours} against": str(against),
                    "Times as fast": (_times(mean.median), mean.median),
                    "95% interval": (_range(mean), mean.low),
                    "Cases": len(duel),
                    "Faster": int(counts.get("faster", 0)),
                    "No difference": int(counts.get("no difference", 0)),
                    "Slower": int(counts.get("slower", 0)),
                    "Least": (_times(worst["speedup"]), worst["speedup"]),
                    "Most": (_times(best["speedup"]), best["speedup"]),
                }
            )
        rows.sort(key=lambda row: (self.machines.index(row["Machine"]), order.index(row[f"{self.ours} against"])))
        return pd.DataFrame(rows).drop(columns=[] if several or not rows else "Machine")

    def by_kind(self) -> pd.DataFrame:
        """Return geometric means of ours against each other, by operation, batch size and whatever else varies."""
        kinds = [
            name
            for name in ("machine", "cell", "operation", "batch_size", "threads", "dtype")
            if name in ("operation", "batch_size") or self.duels[name].nunique() > 1
        ]
        means = self.duels.groupby([*kinds, "against"])["speedup"].agg(lambda of: np.exp(np.log(of).mean()))
        wide = means.unstack("against").reset_index()
        wide = wide.sort_values(kinds, key=lambda column: column.map(charts.in_order))
        others = [name for name in [*self.implementations, FASTEST] if name in wide]
        for name in others:
            wide[name] = [(_times(value), value) if pd.notna(value) else None for value in wide[name]]
        return wide[[*kinds, *others]].rename(columns=_heading)

    def warnings(self) -> list[str]:
        """Return what a reader must know before he believes the numbers."""
        found = [warning for run in self.runs for warning in run.info["machine"].get("warnings", [])]
        found += [
            f"The run {run.info['name']} is not finished: this is what it has so far."
            for run in self.runs
            if run.info.get("finished") is None
        ]
        wrong = self.rows[self.rows["status"].isin(["wrong", "error"])]
        for (name, status), rows in wrong.groupby(["implementation", "status"]):
            said = "gave wrong results" if status == "wrong" else "failed"
            found.append(f"{name} {said} in {_count(len(rows), 'case')}, which therefore have no time (see below).")
        return list(dict.fromkeys(found))

    # What it shows

    def sheets(self) -> dict[str, tuple[list[charts.Draw], tuple[float, float]]]:
        """Return each chart file's panels and the size of one."""
        panels = {
            "speedup-overview": ([*self._overview().values()], (5.0, self._overview_height())),
            "time-against-hidden-size": ([*charts.time_panels(self.ok, "hidden_size").values()], charts.SIZE),
            "time-against-sequence-length": ([*charts.time_panels(self.ok, "seq_len").values()], charts.SIZE),
            "compile-time": ([*self._bars().values()], (4.8, self._bars_height())),
        }
        for name, against in self._heated().items():
            size = (4.2, 1.1 + 0.36 * self.duels[["seq_len", "batch_size"]].nunique().max())
            panels[name] = ([*charts.heat_panels(self._against(against)).values()], size)
        return {name: (draws, size) for name, (draws, size) in panels.items() if draws}

    def _overview(self) -> dict[str, charts.Draw]:
        """Return the chart of all speedups over the baseline, one a machine."""
        found = {}
        for machine, rows in self.ok[self.ok["speedup"].notna()].groupby("machine", sort=False):
            others = [name for name in self.implementations if name != self.baseline]
            others = [name for name in others if (rows["implementation"] == name).any()]
            means = {name: geometric_mean(rows.loc[rows["implementation"] == name, "speedup"]) for name in others}
            if means:
                label = f"Speedup over {_named(self.baseline)}" + (f", {machine}" if len(self.machines) > 1 else "")
                found[label] = charts.overview_panel(rows, dict(means), _named(self.baseline))
        return found

    def _overview_height(self) -> float:
        return 0.9 + 0.36 * len(self.implementations)

    def _bars(self) -> dict[str, charts.Draw]:
        """Return the charts of compile times and of the calls until they have paid."""
        compiled = self.ok[self.ok["compile_s"].notna() & (self.ok["implementation"] != self.baseline)]
        compiled = compiled.sort_values("implementation", key=lambda names: names.map(self.implementations.index))
        found = {}
        if len(compiled):
            title = "Compile time"
            found[title] = charts.bar_panel(compiled, "compile_s", title, "time before the first call", "s", "max")
        paying = compiled[compiled["calls_to_pay"].notna()]
        paying = paying.assign(calls_to_pay=paying["calls_to_pay"].clip(lower=1))
        if len(paying):
            title = f"Calls until it has paid, against {_named(self.baseline)}"
            found[title] = charts.bar_panel(paying, "calls_to_pay", title, "calls")
        return found

    def _bars_height(self) -> float:
        return 0.9 + 0.42 * len(self.implementations)

    def _heated(self) -> dict[str, str]:
        """Return whom each sheet of heatmaps compares ours with, by the sheet's name."""
        wanted = {f"speedup-over-{self.baseline}": self.baseline, "speedup-over-fastest-other": FASTEST}
        return {name: who for name, who in wanted.items() if (self.duels["against"] == who).any()}

    def _against(self, who: str) -> pd.DataFrame:
        return self.duels[self.duels["against"] == who]

    def html(self) -> str:
        """Return the page."""
        blocks = [self._answer_section()]
        if len(lost := self.losses()):
            blocks.append(self._losses_section(lost))
        blocks += self._chart_sections()
        blocks += [self._contents_section(), self._verification_section(), self._missing_section()]
        blocks += [self._rows_section(), self._machine_section(), self._method_section()]
        names = _listed([run.info["name"] for run in self.runs])
        return page.render("Unrolled: recurrent networks on this CPU", [b for b in blocks if b], f"Run {names}")

    def _answer_section(self) -> Markup:
        lines = [page.paragraph(text, "notice") for text in self.warnings()]
        lines += [page.paragraph(text) for text in self.answer()]
        if len(self.duels):
            lines.append(page.table(self.versus()))
        lines.append(page.paragraph(self.scope(), "small"))
        if overview := self._overview():
            size = (5.0, self._overview_height())
            figures = {label: charts.sheet([draw], size=size) for label, draw in overview.items()}
            lines.append(page.charts(figures))
            lines.append(
                page.paragraph(
                    "Each dot is a case, the big mark the geometric mean with its 95% interval over cases. Right of "
                    f"the line at 1× is faster than {_named(self.baseline)}.",
                    "small",
                )
            )
        if len(self.duels):
            lines.append(page.heading("By operation and batch size"))
            lines.append(page.table(self.by_kind(), f"How many times as fast {self.ours} is: geometric means."))
        return page.section("The answer", *lines)

    def _losses_section(self, lost: pd.DataFrame) -> Markup:
        shown = pd.DataFrame(
            {
                "Against": lost["against"].to_numpy(),
                "Times as fast": _pairs(lost["speedup"], _times),
                "95% interval": [
                    (_range(Interval(*row)), row[0])
                    for row in lost[["speedup", "speedup_low", "speedup_high"]].itertuples(index=False, name=None)
                ],
                self.ours: _pairs(lost["median_s"], charts.seconds),
                "The other": _pairs(lost["other_s"], charts.seconds),
                "Case": [self._case(row) for _, row in lost.iterrows()],
            }
        )
        long = len(shown) > 12
        return page.section(f"Where {self.ours} is slower", page.table(shown, name="losses" if long else ""))

    def _chart_sections(self) -> list[Markup]:
        sections = []
        for x, title in (("hidden_size", "Time against hidden size"), ("seq_len", "Time against sequence length")):
            if panels := charts.time_panels(self.ok, x):
                figures = {label: charts.sheet([draw], legend=False) for label, draw in panels.items()}
                words = (
                    "Median time of a call, lower is better; both axes are logarithmic. The shade is the 95% interval."
                )
                sections.append(page.section(title, page.paragraph(words), page.charts(figures, self.implementations)))
        for who in self._heated().values():
            against = self._against(who)
            figures = {
                label: charts.sheet([draw], size=(4.2, 1.1 + 0.36 * _cells_high(label, against)))
                for label, draw in charts.heat_panels(against).items()
            }
            sections.append(
                page.section(
                    f"{self.ours} against {_named(who)}",
                    page.paragraph(
                        f"How many times as fast as {_named(who)}: blue is faster, red is slower, white the same. "
                        "In brackets: no difference, the 95% interval holds 1."
                    ),
                    page.charts(figures),
                )
            )
        if bars := self._bars():
            size = (4.8, self._bars_height())
            figures = {label: charts.sheet([draw], size=size) for label, draw in bars.items()}
            sections.append(
                page.section(
                    "Compiling, and when it has paid for itself",
                    page.paragraph(
                        "Compile time is everything that is done once: compiling, building the graph, laying out the "
                        "weights. Each dot is a case. The bar reaches to the longest, the case that came first: later "
                        "ones may find the code compiled, as may a second run where it is kept on disk. The calls are "
                        "counted from that longest time of each operation, and their bar is the median of the cases. "
                        f"Never: not faster than {_named(self.baseline)}."
                    ),
                    page.charts(figures),
                )
            )
        return sections

    def _contents_section(self) -> Markup:
        about = {name: entry for run in self.runs for name, entry in run.info["implementations"].items()}
        quotes = []
        for name, entry in about.items():
            version = entry.get("version") or "not installed"
            quotes.append(page.heading(f"{name} ({version})"))
            if entry.get("contains"):
                quotes.append(page.quote(entry["contains"]))
        return page.section("What each timing contains", *quotes)

    def _verification_section(self) -> Markup:
        found = [
            {
                "Implementation": row["implementation"],
                "Operation": row["operation"],
                "dtype": row["dtype"],
                "Output": output,
                "error": np.nan if entry["error"] is None else entry["error"],
                "bound": entry["bound"],
            }
            for run in self.runs
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
                "Largest error": [
                    (f"{error:.1e}" if pd.notna(error) else "not finite", error) for error in worst["error"]
                ],
                "Its bound": _pairs(worst["bound"], "{:.1e}".format),
                "Share of the bound": _pairs(worst["share"], "{:.2g}".format),
                "Cases": cases,
            }
        )
        rule = _docstring(Path(__file__).with_name("verify.py"))
        return page.section(
            "Verification",
            page.paragraph("Every output is checked before it is timed; the rule, from bench/verify.py:"),
            page.quote(rule),
            page.table(shown, "For each output, the case that comes nearest to its bound.", name="errors"),
        )

    def _missing_section(self) -> Markup:
        missing = self.rows[self.rows["status"] != "ok"]
        if missing.empty:
            return Markup("")
        by = ["implementation", "status", "operation", "message"]
        messages = missing["message"].fillna("").map(lambda text: shorten(text, 300))
        shown = missing.assign(message=messages).groupby(by, sort=False).size().reset_index(name="Cases")
        shown = shown.rename(columns={name: name.capitalize() for name in by} | {"message": "Why"})
        return page.section("What has no time, and why", page.table(shown))

    def _rows_section(self) -> Markup:
        rows = self.rows
        shown = pd.DataFrame(
            {
                "Machine": rows["machine"],
                "Cell": rows["cell"],
                "Operation": rows["operation"],
                "H": rows["hidden_size"],
                "I": rows["input_size"],
                "T": rows["seq_len"],
                "B": rows["batch_size"],
                "dtype": rows["dtype"],
                "Threads": rows["threads"],
                "Implementation": rows["implementation"],
                "Status": rows["status"],
                "Time": _pairs(rows["median_s"], charts.seconds),
                "95% interval": [
                    (
                        ""
                        if pd.isna(row[0])
                        else "–"
                        if pd.isna(row[1])
                        else f"{charts.seconds(row[1])} – {charts.seconds(row[2])}",
                        row[1],
                    )
                    for row in rows[["median_s", "low_s", "high_s"]].itertuples(index=False, name=None)
                ],
                "Speedup": _pairs(rows["speedup"], _times),
                "Its interval": [
                    ("" if pd.isna(row[0]) else _range(Interval(*row)), row[1])
                    for row in rows[["speedup", "speedup_low", "speedup_high"]].itertuples(index=False, name=None)
                ],
                "Verdict": rows["verdict"],
                "GFLOP/s": _pairs(rows["gflops"], "{:.3g}".format),
                "Share of peak": _pairs(rows["peak_fraction"], "{:.0%}".format),
                "Rounds": rows["repeats"],
                "Compile": _pairs(rows["compile_s"], charts.seconds),
                "Pays after": _pairs(rows["calls_to_pay"], _calls),
                "Error / bound": _pairs(rows["max_error"], "{:.2g}".format),
                "Peak memory": _pairs(rows["peak_memory_bytes"], _bytes),
            }
        )
        constant = [name for name in ("Machine", "Cell", "dtype") if shown[name].nunique() < 2]
        empty = [name for name in ("Share of peak",) if rows["peak_fraction"].isna().all()]
        return page.section(
            "All rows",
            page.paragraph(
                f"Speedup and verdict are against {_named(self.baseline)}. GFLOP/s count the matrix products alone. "
                "Peak memory is that of the implementation's whole process. A click on a heading sorts."
            ),
            page.table(shown.drop(columns=[*constant, *empty]), name="rows"),
        )

    def _machine_section(self) -> Markup:
        columns = {f"Run {run.info['name']}": _machine(run) for run in self.runs}
        shown = pd.DataFrame(columns).rename_axis("").reset_index().fillna("unknown")
        return page.section("Machine, versions, command", page.table(shown))

    def _method_section(self) -> Markup:
        return page.section(
            "How to read this",
            page.paragraph(
                "Every implementation lives in a process of its own and they take turns, round by round, on the same "
                "case, so that what slows the machine slows all alike. A speedup is the median of the ratios of like "
                "rounds; its interval is a 95% bootstrap interval of that median. Where it holds 1, the report says "
                "“no difference”. Geometric means weigh every case alike; their intervals say how far another choice "
                "of cases could move them."
            ),
            page.paragraph("The numbers are in results.csv, every single round in rows.jsonl, beside this file."),
        )

    def markdown(self) -> str:
        """Return the summary, ready to be pasted."""
        parts = ["# Unrolled: recurrent networks on this CPU"]
        parts += [f"> **Note:** {text}" for text in self.warnings()]
        parts += self.answer()
        if len(self.duels):
            parts += [_markdown(self.versus()), "By operation and batch size:", _markdown(self.by_kind())]
        parts.append(self.scope())
        machine = pd.DataFrame({run.info["name"]: _machine(run) for run in self.runs}).rename_axis("Run").reset_index()
        parts.append(_markdown(machine.fillna("unknown")))
        return "\n\n".join(parts) + "\n"

    def _case(self, row: pd.Series) -> str:
        """Name a case in a line, as far as its run's cases differ."""
        varied = {name for name in ("cell", "dtype", "threads", "machine") if self.rows[name].nunique() > 1}
        case = {name: row[name] for name in ("cell", "operation", "dtype", "threads", "machine", "batch_size")}
        sizes = f"H = {row['hidden_size']}, I = {row['input_size']}, T = {row['seq_len']}"
        return f"{charts.facet_label(case, varied)}, {sizes}"


def _machine(run: Run) -> dict[str, str]:
    """Return the machine of a run and what else is needed to repeat it, in words by name."""
    machine = run.info["machine"]
    simd = machine.get("simd") or {}
    blas = [
        " ".join(
            str(part) for part in (pool.get("internal_api"), pool.get("version"), pool.get("architecture")) if part
        )
        for pool in machine.get("blas") or []
    ]
    about = {
        "CPU": machine.get("cpu"),
        "Cores": f"{machine.get('cores')} ({machine.get('logical_cpus')} logical)",
        "Vectors": f"{simd.get('name')}, {simd.get('bits')} bits" if simd else None,
        "Caches": ", ".join(f"{name} {_bytes(size)}" for name, size in (machine.get("caches") or {}).items()) or None,
        "Memory": _bytes(machine["memory_bytes"]) if machine.get("memory_bytes") else None,
        "System": machine.get("os"),
        "Frequency governor": machine.get("governor"),
        "Load at the start": ", ".join(f"{load:.2f}" for load in machine.get("load_average") or []) or None,
        "BLAS": "; ".join(dict.fromkeys(blas)) or None,
        "Python": machine.get("python"),
        **{name: str(version) for name, version in (machine.get("versions") or {}).items()},
        "Command": run.info.get("command"),
        "Seed": str(run.info.get("seed")),
        "Started": run.info.get("started"),
        "Took": _duration(run.info),
    }
    return {name: value or "unknown" for name, value in about.items()}


def _duration(info: dict) -> str:
    if not info.get("finished"):
        return "not finished"
    seconds = (datetime.fromisoformat(info["finished"]) - datetime.fromisoformat(info["started"])).total_seconds()
    return f"{seconds:.0f} s" if seconds < 180 else f"{seconds / 60:.0f} min"


def _docstring(path: Path) -> str:
    """Return the docstring of a module that need not be imported."""
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""


def _cells_high(label: str, duels: pd.DataFrame) -> int:
    """Return how many rows of cells a heatmap has: lengths, or batch sizes where it names its one length."""
    return int(duels["batch_size" if ", T = " in label else "seq_len"].nunique())


def _heading(name: str) -> str:
    return {"batch_size": "B", "dtype": "dtype"}.get(name, name.capitalize() if name in CASE else name)


def _markdown(frame: pd.DataFrame) -> str:
    texts = [
        [str(cell[0] if isinstance(cell, tuple) else cell).replace("|", "\\|") for cell in row]
        for row in frame.astype(object).where(frame.notna(), "").itertuples(index=False, name=None)
    ]
    lines = [list(map(str, frame.columns)), ["---"] * len(frame.columns), *texts]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _pairs(values: pd.Series, form) -> list[tuple[str, float]]:
    """Return (text, value) cells for `page.table`; missing values are empty."""
    return [("" if pd.isna(value) else form(value), value) for value in values]


def _named(name) -> str:
    return NAMES.get(name, str(name))


def _listed(words: Sequence[str]) -> str:
    *rest, last = words or [""]
    return f"{', '.join(rest)} and {last}" if rest else last


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _times(ratio: float) -> str:
    return f"{charts.short(ratio)}×"


def _range(interval: Interval) -> str:
    return "–" if np.isnan(interval.low) else f"{charts.short(interval.low)} – {charts.short(interval.high)}"


def _interval_words(interval: Interval) -> str:
    if np.isnan(interval.low):
        return ""
    return f" (95% interval {charts.short(interval.low)} to {charts.short(interval.high)})"


def _verdicts(duels: pd.DataFrame) -> str:
    counts = duels["verdict"].value_counts()
    words = [f"{name} in {counts[name]}" for name in ("faster", "no difference", "slower") if name in counts]
    return _listed(words)[0].upper() + _listed(words)[1:]


def _calls(value: float) -> str:
    return "never" if np.isinf(value) else charts.count(max(value, 1))


def _bytes(value: float) -> str:
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value:.0f} B"
