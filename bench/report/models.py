"""What a report says of models: which runtime for which layer, for all together, and for the whole model."""

import pandas as pd

from bench.report import panels
from bench.report.sheets import Sheet
from bench.report.wording import named
from bench.results import models
from bench.results.formats import counted, ends, listed, percent, seconds, short, times
from bench.results.models import Race, Whole
from bench.results.runs import Run
from bench.results.statistics import verdict
from bench.results.tables import FASTEST, Facts

MOST_SENTENCES = 6  # on layers; the table has all


def answer(facts: Facts) -> list[str]:
    """Return in words what a run of a file's layers has found, for each such run."""
    found = []
    for run in facts.runs:
        if about := run.info.get("model"):
            many = len(facts.runs) > 1
            where = f" on {models.machine_name(run)}" if many and len(facts.machines) > 1 else ""
            found += [_together(run, shared, race, where) for shared, race in models.together(run).items()]
            found += _apart(run)
            found += _each(run)
            found += [_whole(about["file"], threads, whole, where) for threads, whole in models.whole(run).items()]
            found += [words for whole in models.whole(run).values() if (words := _longer(run, whole))]
            found += about.get("told") or []
            if about["left_out"]:
                left = [f"{name} ({why})" for name, why in list(about["left_out"].items())[:MOST_SENTENCES]]
                more = len(about["left_out"]) - len(left)
                found.append(f"Not measured: {listed(left + [counted(more, 'more layer')] * (more > 0))}.")
    return found


def _together(run: Run, shared: tuple, race: Race, where: str) -> str:
    operation, dtype, threads = shared
    file, layers = run.info["model"]["file"], _layers(run, shared)
    mine = [name for name in layers if models.calls(run, name)]
    often = any(models.calls(run, name) != 1 for name in mine)
    what = f"the {len(mine)} recurrent layers of {file} together" if len(mine) > 1 else f"the recurrent layer of {file}"
    if len(layers) == 1:
        what = f"the only recurrent layer of {file}"
    elif len(mine) < len(layers):
        what += f" that a run of it calls, of {len(layers)}"
    what += ", as often as a run of it does" * often
    how = f"{operation}, {dtype}, {counted(threads, 'thread')}{where}"
    return f"For {what} ({how}) {_fastest(race)}: {seconds(race.seconds[race.first])}{_next(race)}{_loss(race)}."


def _apart(run: Run) -> list[str]:
    """Return what is to be said of layers that a run of the whole does not call once."""
    calls = {name: models.calls(run, name) for name in _named(run)}
    often = [f"{name} {count:,} times" for name, count in calls.items() if count and count > 1]
    found = [f"The whole runs {_few(often)}."] if often else []
    why = {0: "The whole does not run {}", None: "How often the whole runs {} is not known"}
    for count, words in why.items():
        if names := [name for name, one in calls.items() if one == count]:
            its = "its time is" if len(names) == 1 else "their times are"
            found.append(f"{words.format(_few(names))}, so that {its} not added.")
    return found


def _few(words: list[str]) -> str:
    more = len(words) - MOST_SENTENCES
    return listed(words[:MOST_SENTENCES] + [f"{more} more"] * (more > 0))


def _named(run: Run) -> list[str]:
    return list(dict.fromkeys(row["model"] for row in run.rows if row["model"]))


def _longer(run: Run, whole: Whole) -> str:
    """Return why layers by themselves take longer than the whole that they are a part of; nothing if they do not."""
    if not whole.longer:
        return ""
    words = [f"{named(name)} {seconds(value)}" for name, value in whole.longer.items()]
    found = f"By themselves the layers take {listed(words)}, longer than the whole"
    if whole.within is not None and not whole.within:
        return f"{found}, since the whole does not run them with these inputs."
    if whole.within is None:
        return f"{found}: how long they take within it is not known, since ONNX Runtime's profile does not have them."
    calls = sum(models.calls(run, name) or 0 for name in _named(run))
    why = f"each of {counted(calls, 'call')} is made from Python by itself, which a node within the whole is not"
    return f"{found}, within which they take ONNX Runtime {seconds(whole.within)}: {why}."


def _each(run: Run) -> list[str]:
    """Return a sentence on each layer, if there are several but not too many."""
    rows = models.layers(run)
    rows = rows[rows["race"].map(lambda race: race.ratio is not None)]
    if rows["model"].nunique() < 2:
        return []
    if len(rows) <= MOST_SENTENCES:
        varied = [name for name in models.SHARED if rows[name].nunique() > 1]
        words = []
        for _, row in rows.iterrows():
            how = "".join(f", {_how(row, name)}" for name in varied)
            words.append(f"{row['model']}{how}: {_fastest(row['race'])}{_next(row['race'])}")
        return ["Layer by layer: " + "; ".join(words) + "."]
    counts = rows["race"].map(lambda race: race.first).value_counts()
    words = [f"{named(name)} in {count}" for name, count in counts.items()]
    return [f"Layer by layer the fastest of {len(rows)} is {listed(words)}: see the table."]


def _whole(file: str, threads: int, whole: Whole, where: str) -> str:
    with_threads = f"With {counted(threads, 'thread')}{where}"
    if not whole.seconds:
        why = "; ".join(f"{named(name)}: {reason}" for name, reason in whole.failed.items())
        return f"{with_threads} the whole of {file} has no time ({why})."
    runtimes = [f"{named(name)} {seconds(value)}" for name, value in whole.seconds.items()]
    words = f"{with_threads} the whole of {file} takes {listed(runtimes)}"
    if whole.ratio is not None:
        words += f" ({_times(whole.ratio)})"
    if whole.share is not None:
        words += f"; of ONNX Runtime's time its recurrent layers have {percent(whole.share)}"
    if whole.gain is not None:
        brings = "gain nothing" if whole.gain < 1.005 else f"make the whole {times(whole.gain)} as fast"
        words += f", and the fastest of all in their place would {brings}"
    if whole.failed:
        words += "; " + "; ".join(f"{named(name)} has none ({reason})" for name, reason in whole.failed.items())
    return words + "."


def _fastest(race: Race) -> str:
    if race.ratio is not None and verdict(race.ratio) == "no difference":
        return f"{named(race.first)} and {named(race.second)} are the fastest"
    return f"{named(race.first)} is the fastest"


def _next(race: Race) -> str:
    if race.ratio is None:
        return ", with nobody to compare it with"
    if verdict(race.ratio) == "no difference":
        return f", without a difference that counts ({_times(race.ratio)})"
    return f", {times(race.ratio.median)} ({ends(race.ratio)}) as fast as the next, {named(race.second)}"


def _times(ratio) -> str:
    return f"{times(ratio.median)}, {ends(ratio)}"


def _loss(race: Race) -> str:
    return "" if race.loss is None else f", at a loss of {short(race.loss)} of a state within ±1"


def _how(row: pd.Series, name: str) -> str:
    return counted(row[name], "thread") if name == "threads" else str(row[name])


def _layers(run: Run, shared: tuple) -> list[str]:
    return list(dict.fromkeys(r["model"] for r in run.rows if tuple(r[name] for name in models.SHARED) == shared))


def table(facts: Facts) -> pd.DataFrame:
    """Return a row for each layer that was measured, with everybody's time; empty without a model."""
    found = []
    for run in facts.runs:
        for _, row in models.layers(run).iterrows():
            race = row["race"]
            kind = f"{row['cell'].upper()} of {row['hidden_size']}" + (f", {row['network']}" if row["network"] else "")
            found.append(
                {
                    "Machine": row["machine"],
                    "Layer": row["model"],
                    "What": f"{kind}, I = {row['input_size']}",
                    "Operation": row["operation"],
                    "T": row["seq_len"],
                    "B": row["batch_size"],
                    "dtype": row["dtype"],
                    "Threads": row["threads"],
                    "Fastest": named(race.first),
                    "The next": named(race.second) if race.second else "",
                    "Times as fast as the next": (times(race.ratio.median), race.ratio.median) if race.ratio else "",
                    "95% interval": (ends(race.ratio), race.ratio.low) if race.ratio else "",
                    **{
                        named(name): (seconds(race.seconds[name]), race.seconds[name]) if name in race.seconds else ""
                        for name in facts.implementations
                    },
                }
            )
    shown = pd.DataFrame(found)
    if shown.empty:
        return shown
    alike = ["Machine", "dtype", "Operation", "Threads", "T", "B"]
    return shown.drop(columns=[name for name in alike if shown[name].nunique() < 2])


def sources(facts: Facts) -> pd.DataFrame:
    """Return where the sizes of each model are written; empty where that is nowhere."""
    measured = set(facts.rows["model"])
    found = {name: about for run in facts.runs for name, about in (run.info.get("sources") or {}).items()}
    rows = [(name, about) for name, about in found.items() if name in measured]
    return pd.DataFrame(rows, columns=["Layer", "Where its sizes are written"])


def sheet(facts: Facts) -> Sheet:
    """Return the chart of how ours stands in each layer against whoever else is the fastest."""
    duels = facts.duels[(facts.duels["against"] == FASTEST) & (facts.duels["model"] != "")]
    names = list(dict.fromkeys(duels["model"]))
    words = f"Each dot is a case: how many times as fast {facts.ours} is as the fastest other; left of 1× it is slower."
    label = "times as fast as the fastest other (log scale)"
    found = {"Layer by layer": panels.overview_panel(duels, "speedup", names, label, by="model")} if names else {}
    return Sheet("models", "Layer by layer", words, found)
