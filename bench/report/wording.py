"""What a report says: its sentences, and how it writes numbers.

Where ours loses is said first.
"""

import numpy as np
import pandas as pd

from bench.implementations import base
from bench.report import charts
from bench.results.formats import counted, in_order, listed, percent, seconds, short, times, typical
from bench.results.statistics import geometric_mean, tells
from bench.results.tables import CASE, FASTEST, VERDICTS, Facts

MEANS = "the geometric means (the least and the most, where they are too unlike or too few)"
NAMES = {
    "numpy": "NumPy",
    "numba-simd-float32": "numba-simd in float32",
    "torch": "PyTorch",
    "torch-compile": "torch.compile",
    "jax": "JAX",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
}


def answer(facts: Facts) -> list[str]:
    """Return the report in a few sentences."""
    if facts.duels.empty:
        return ["No two implementations have a time for the same case in this run: there is nothing to compare."]
    sentences = [_losses(facts)]
    for machine, duels in facts.duels.groupby("machine", sort=False):
        against = _measure(facts, duels)
        wins = duels.loc[duels["against"] == against]
        where = f" on {machine}" if len(facts.machines) > 1 else ""
        if base(against) != base(facts.ours):  # of which there is more to say
            sentences.append(
                f"Against {named(against)}{where} it is {typical(wins['speedup'])} as fast{_of_cases(wins)}. "
                f"{_verdicts(wins)}."
            )
        rivals = duels.loc[duels["against"] == FASTEST]
        if len(rivals):
            sentences.append(
                f"Against whichever other is the fastest in each case it is {typical(rivals['speedup'])} as fast"
                f"{_of_cases(rivals)}. {_verdicts(rivals)}."
            )
    return sentences + streams(facts) + versions(facts) + below(facts) + ragged(facts)


def machines(facts: Facts) -> list[str]:
    """Return where machines come to different results."""
    found = []
    for against in dict.fromkeys((FASTEST, facts.baseline)):
        duels = facts.duels[facts.duels["against"] == against]
        groups = {machine: of for machine, of in duels.groupby("machine", sort=False) if machine in facts.machines}
        if len(groups) < 2:
            continue
        means = {machine: float(np.log(of["speedup"]).mean()) for machine, of in groups.items()}
        least, most = (end(means, key=lambda machine: means[machine]) for end in (min, max))
        cases = duels.groupby(CASE)["verdict"].agg(set)
        apart = sum({"faster", "slower"} <= verdicts for verdicts in cases)
        found.append(
            f"Against {named(against)}, {facts.ours} gains least on {least} ({typical(groups[least]['speedup'])}) and "
            f"most on {most} ({typical(groups[most]['speedup'])}). In {apart or 'none'} of "
            f"{counted(len(cases), 'case')} it is faster on one machine and slower on another."
        )
    return found


def versions(facts: Facts) -> list[str]:
    """Return how each implementation stands against another version of it, where there is one."""
    about = {name: entry["version"] for run in facts.runs for name, entry in run.info["implementations"].items()}
    found = []
    for (machine, other), duels in facts.versions.groupby(["machine", "against"], sort=False):
        name, where = base(other), f" on {machine}" if len(facts.machines) > 1 else ""
        found.append(
            f"Of two versions{where}, {named(name)} ({about[name]}) is {typical(duels['speedup'])} as fast as "
            f"{named(other)} ({about[other]}){_of_cases(duels)}. {_verdicts(duels)}."
        )
    return found


def streams(facts: Facts) -> list[str]:
    """Return how far the tails of the streams' calls reach, and who missed deadlines."""
    rows = facts.streams
    mine = rows[rows["implementation"] == facts.ours]
    if mine.empty:
        return []
    found = []
    spread = (mine["p999_s"] / mine["median_s"]).dropna()
    if len(spread):
        worst = mine.loc[spread.idxmax()]
        found.append(
            f"Of the steps of {facts.ours} back to back, 999 of 1,000 take no more than {short(spread.median())} times "
            f"the median in the median stream, and {short(spread.max())} times in {case_name(worst, facts.varied())}."
        )
    paced = rows[rows["paced_calls"].notna()]
    if len(paced):
        missed = paced.groupby("implementation")[["missed", "paced_calls"]].sum()
        names = [name for name in [facts.ours, *facts.implementations] if name in missed.index]
        words = [f"{named(name)} {missed.at[name, 'missed']:,.0f}" for name in dict.fromkeys(names)]
        every = listed([seconds(period) for period in sorted(paced["period_s"].unique())])
        found.append(
            f"With a call every {every}, these were not done when the next one was due: {listed(words)}; in all "
            f"streams together, of up to {paced['paced_calls'].max():,.0f} calls each."
        )
    return [" ".join(found)] if found else []


def ragged(facts: Facts) -> list[str]:
    """Return what ragged lengths are, where there are some."""
    if not (facts.rows["lengths"] == "ragged").any():
        return []
    return [
        "Ragged: the sequences of a batch have lengths drawn uniformly from T/2 to T, the same for each T and B and "
        "for everybody; behind a sequence's end there is nothing to compute, and operations and bytes count none."
    ]


def below(facts: Facts) -> list[str]:
    """Return what each dtype below float32 buys and what it costs; where ours loses is said first."""
    found = []
    for (machine, dtype), rows in facts.below.groupby(["machine", "dtype"], sort=False):
        mine = rows[rows["implementation"] == facts.ours]
        if mine.empty:
            continue
        duels = facts.duels[(facts.duels["machine"] == machine) & (facts.duels["dtype"] == dtype)]
        rivals = dict(list(duels[duels["against"].isin(rows["implementation"])].groupby("against")))
        slower = {"its own float32": mine} | {named(name): of for name, of in rivals.items()}
        lost = [
            f"{who} in {count} of {counted(len(of), 'case')}"
            for who, of in slower.items()
            if (count := (of["verdict"] == "slower").sum())
        ]
        where = f" on {machine}" if len(facts.machines) > 1 else ""
        words = [f"In {dtype}{where} {facts.ours} is slower than {listed(lost)}."] if lost else []
        words.append(
            f"{'It' if lost else f'In {dtype}{where} {facts.ours}'} is {typical(mine['speedup'])} as fast as its own "
            f"float32{_of_cases(mine)}, and loses at most {short(mine['loss'].max())} of a state within ±1."
        )
        if rivals:
            best = min(rivals, key=lambda name: np.log(rivals[name]["speedup"]).mean())
            loss = rows.loc[rows["implementation"] == best, "loss"].max()
            words.append(
                f"The fastest other, {named(best)}, loses at most {short(loss)}; {facts.ours} is "
                f"{typical(rivals[best]['speedup'])} as fast as it{_of_cases(rivals[best])}."
            )
        found.append(" ".join(words))
    return found


def _losses(facts: Facts) -> str:
    ours, lost = facts.ours, facts.losses
    if lost.empty:
        return f"{ours} is slower than none of the others in any case."
    counts, totals = lost["against"].value_counts(), facts.duels["against"].value_counts()
    worst = lost.iloc[0]
    return (
        f"{ours} is slower than "
        + listed([f"{named(name)} in {count} of {totals[name]} cases" for name, count in counts.items()])
        + f". The worst: {times(worst['speedup'])} the speed of {named(worst['against'])} in "
        + f"{case_name(worst, facts.varied())}."
    )


def share_line(facts: Facts) -> str:
    """Return the report in one line of Markdown, with the machine, to be shared."""
    line = "**Unrolled**: "
    if len(facts.duels):
        words = []
        main = _measure(facts, facts.duels)
        for against, who in ((main, named(main)), (FASTEST, "the fastest other in each case")):
            speedups = facts.duels.loc[facts.duels["against"] == against, "speedup"]
            if len(speedups):
                mean = geometric_mean(speedups)
                ends = f" (95%: {short(mean.low)} to {short(mean.high)})" if tells(mean) else ""
                words.append(f"{typical(speedups)} as fast as {who}{ends}")
        fastest = facts.duels["against"] == FASTEST
        rivals = facts.duels[fastest] if fastest.any() else facts.duels
        slower = int((rivals["verdict"] == "slower").sum())
        line += f"{facts.ours} is {listed(words)}, slower in {slower} of {len(rivals)} cases. "
    return line + scope(facts)


def scope(facts: Facts) -> str:
    """Return what was measured, where and when, in a line."""
    rows = facts.rows
    if rows.empty:
        what = "No rows"
    else:
        cells = listed([cell.upper() for cell in sorted(rows["cell"].unique(), key=in_order)])
        threads = listed([str(count) for count in sorted(rows["threads"].unique())])
        dtypes = listed(sorted(rows["dtype"].unique()))
        networks = [f", {words}" for words in [_networks(rows)] if words]
        what = f"{cells}{''.join(networks)}, {dtypes}, {threads} thread{'' if threads == '1' else 's'}"
    days = sorted({run.info["started"][:10] for run in facts.runs})
    return f"{what}, on {'; '.join(facts.machines)}, {listed(days)}."


def _networks(rows: pd.DataFrame) -> str:
    """Return which activations, layers, directions and lengths the rows have, where these are not the usual ones."""
    found = []
    activations = sorted(rows.loc[rows["cell"] == "rnn", "activation"].unique())
    if activations not in ([], ["tanh"]):
        found.append(f"{'the RNN of ' if rows['cell'].nunique() > 1 else ''}{listed(activations)}")
    for name, noun in (("layers", "layer"), ("directions", "direction")):
        values = sorted(rows[name].unique())
        if values != [1]:
            found.append(f"{listed([str(value) for value in values])} {noun}{'' if values == [1] else 's'}")
    lengths = sorted(rows["lengths"].unique())
    if lengths != ["full"]:
        found.append(f"{listed(lengths)} lengths")
    return ", ".join(found)


def warnings(facts: Facts) -> list[str]:
    """Return what a reader must know before he believes the numbers."""
    found = []
    for run in facts.runs:
        which = f" (Run {run.info['name']})" if len(facts.runs) > 1 else ""
        found += [f"{warning}{which}" for warning in run.info["machine"].get("warnings", [])]
        if run.info.get("finished") is None:
            found.append(f"The run {run.info['name']} is not finished: this is what it has so far.")
    wrong = facts.rows[facts.rows["status"].isin(["wrong", "error"])]
    for (name, status), rows in wrong.groupby(["implementation", "status"]):
        said = "gave wrong results" if status == "wrong" else "failed"
        found.append(f"{name} {said} in {counted(len(rows), 'case')}, which therefore have no time (see below).")
    return list(dict.fromkeys(found))


def left(facts: Facts) -> list[str]:
    """Return how near to the machine's limits the implementations come, a sentence each; none without a roofline."""
    shares = facts.ok.groupby("implementation")["peak_fraction"].median().dropna()
    if shares.empty or facts.ours not in shares:
        return []
    others = shares.drop(facts.ours)
    sentence = f"In the median case {facts.ours} reaches {percent(shares[facts.ours])} of what the machine could do"
    if len(others):
        best = others.idxmax()
        sentence += f"; of the others {named(best)} comes nearest, with {percent(others[best])}"
    mine = facts.ok[facts.ok["implementation"] == facts.ours]
    if len(mine) == 1:
        return [f"{sentence}."]
    most, least = mine.loc[mine["peak_fraction"].idxmax()], mine.loc[mine["peak_fraction"].idxmin()]
    beside = least["overhead_s"] / least["median_s"]
    why = f", of whose time {percent(beside)} is the call beside the step" if beside > 0 else ""
    return [
        f"{sentence}.",
        f"It comes nearest in {case_name(most, facts.varied())} ({percent(most['peak_fraction'])}, bound by its "
        f"{most['bound_by']}), and most is left in {case_name(least, facts.varied())} "
        f"({percent(least['peak_fraction'])}{why}).",
    ]


def threads(facts: Facts) -> list[str]:
    """Return what more threads bring, a sentence for each number of them; none with one number alone."""
    found = []
    for (few, many), rows in facts.scaling.groupby(["few", "threads"]):
        gains = dict(list(rows.groupby("implementation")["times"]))
        names = [name for name in [facts.ours, *facts.implementations] if name in gains]
        words = [f"{named(name)} {typical(gains[name])}" for name in dict.fromkeys(names)]
        found.append(f"With {many} threads in place of {few}, {MEANS} of times as fast: {listed(words)}.")
    return found


def case_name(row: pd.Series, varied: set[str]) -> str:
    """Name a case in a line; of cell, dtype, threads and machine only what is in `varied`."""
    case = {name: row[name] for name in ("cell", "network", "operation", "dtype", "threads", "machine", "batch_size")}
    sizes = f"H = {row['hidden_size']}, I = {row['input_size']}, T = {row['seq_len']}"
    model = f"{row['model']}: " if row.get("model") else ""
    return f"{model}{charts.facet_label(case, varied)}, {sizes}"


def named(name) -> str:
    """Return the name of an implementation as its makers write it."""
    plain = base(str(name))
    return NAMES.get(plain, plain) + str(name).removeprefix(plain)


def _measure(facts: Facts, duels: pd.DataFrame) -> str:
    """Return whom ours is set against first: the baseline, or the first other where that has no time."""
    return facts.baseline if (duels["against"] == facts.baseline).any() else duels["against"].iat[0]


def _of_cases(duels: pd.DataFrame) -> str:
    """Return what stands behind `typical`: how many cases, and the interval of their mean, where that was told."""
    mean, cases = geometric_mean(duels["speedup"]), counted(len(duels), "case")
    if not tells(mean):
        return f" in {cases}"
    return f": the geometric mean of {cases} (95% interval {short(mean.low)} to {short(mean.high)})"


def _verdicts(duels: pd.DataFrame) -> str:
    counts = duels["verdict"].value_counts()
    words = listed([f"{name} in {counts[name]}" for name in VERDICTS if name in counts])
    return words[0].upper() + words[1:]
