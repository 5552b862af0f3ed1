"""What learning a text leaves behind: metrics.json, charts, and a page that says what they show."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from bench.machine import describe as machine
from bench.report import charts, page
from bench.results.formats import count, ends, listed
from bench.results.statistics import Interval, paired_ratio
from bench.tasks import page as race
from bench.tasks.learning.training import diverged
from bench.tasks.text.precision import READ, Precision
from bench.tasks.text.training import GLANCE, History, Lesson, Sample

NGRAM = "order-3 n-gram"
SMOOTH = 50  # steps of the training loss that are drawn as one
STAGES = 4  # points of the training whose samples are shown


def summary(lesson: Lesson, judged: dict[str, float], precisions: Sequence[Precision] = ()) -> list[str]:
    """Return what the lesson came to, a paragraph each; `judged` is `lesson.judge()`, `precisions` by `measure`."""
    if lesson.outcome == "diverged":
        return [_divergence(lesson)]
    words = [_result(lesson, judged["test"])]
    if lesson.histories[lesson.shown].steps_to(lesson.goal) == 0:
        words.append(f"It took no more than the goal, {lesson.goal:g} bits per character, before its first step.")
    if lesson.outcome == "interrupted":
        words.insert(0, f"Interrupted after {race.plural(lesson.step, 'step')}: this is how far it got.")
    words += [f"With the seed {other.settings.seed}: {_divergence(other)}" for other in lesson.strayed]
    if len(lesson.histories) > 1:
        words += _race(lesson)
    if precisions:
        words.append(_rounded(precisions))
    return words


def _divergence(lesson: Lesson) -> str:
    series = {
        name: history.bits if math.isfinite(history.losses[-1]) else history.losses
        for name, history in lesson.histories.items()
    }
    name = next((name for name, errors in series.items() if diverged(errors)), lesson.shown)
    far = race.far(name, series[name], "loss in bits per character")
    return f"The training diverged: after {race.plural(lesson.step, 'step')} {far} Lower --learning-rate."


def _result(lesson: Lesson, found: float) -> str:
    test, shown = lesson.baselines["test"], lesson.histories[lesson.shown]
    if found < test[NGRAM]:
        against = f"better than the order-3 n-gram, which takes {test[NGRAM]:.3f}"
    else:
        against = f"not better than the order-3 n-gram, which takes {test[NGRAM]:.3f}"
    passes = lesson.step / lesson.streams.chunks
    speed = _characters(lesson) / sum(shown.seconds)
    return (
        f"On the test text, which training has not seen, the {_units(lesson)} take {found:.3f} bits per character: "
        f"{against}. They read {_millions(_characters(lesson))} characters, {passes:.2g} passes over the training "
        f"text, in {race.seconds(sum(shown.seconds))} of training with {lesson.shown}, {speed:,.0f} a second."
    )


def _rounded(precisions: Sequence[Precision]) -> str:
    """Return what the dtypes are like, in a line."""
    names, found = (
        listed(words) for words in zip(*((one.dtype, f"{one.bits:.3f}") for one in precisions), strict=True)
    )
    speeds = listed([f"{one.characters_per_s:,.0f}" if one.seconds else "(wrongly)" for one in precisions])
    return (
        f"With its weights in {names} the network takes {found} bits per character on a part of the test text, and "
        f"writes {speeds} characters a second on one thread."
    )


def _race(lesson: Lesson) -> list[str]:
    """Return who got to the goal when, and how much faster the implementation shown is than the others."""
    shown, others = lesson.shown, _others(lesson)
    seeds = race.plural(1 + len(lesson.repeats), "seed")
    words = []
    for name in lesson.histories:
        arrival = _typical(lesson.seconds_to_goal(name))
        if arrival == 0:
            words.append(f"{name} took no more than the goal, {lesson.goal:.3f} bits per character, from the start.")
        elif arrival is None:
            least = min(lesson.histories[name].bits)
            words.append(f"{name} did not get to {lesson.goal:.3f} bits per character: {least:.3f} was least.")
        else:
            words.append(f"{name} first took {lesson.goal:.3f} bits per character after {race.seconds(arrival)}.")
    paragraphs = [" ".join(words)]
    for name, history in others.items():
        step, sooner = _step_speedup(lesson, name), _speedup(lesson, name)
        sentence = (
            f"Step for step {race.verdict_words(shown, name, step)} (95 % interval {race.ends(step)}, the "
            f"implementations taking {race.plural(len(history.seconds), 'turn')} of ten steps)."
        )
        paragraphs.append(sentence + race.goal_words(shown, name, sooner, seeds))
    apart = max(_difference(history, lesson.histories[shown]) for history in others.values())
    paragraphs.append(
        "All began with the same weights and read the same chunks of text. The losses of their steps differ by "
        f"{apart:.1g} of their size at most."
    )
    return paragraphs


def _step_speedup(lesson: Lesson, other: str) -> Interval:
    """Return how many times as fast as `other` the implementation shown took its steps, over all turns and seeds."""
    base, this = (
        [t for one in (lesson, *lesson.repeats) for t in one.histories[name].seconds] for name in (other, lesson.shown)
    )
    return paired_ratio(base, this)


def _speedup(lesson: Lesson, other: str) -> Interval:
    """Return how many times sooner than `other` the implementation shown was at the goal, over the seeds."""
    pairs = zip(lesson.seconds_to_goal(other), lesson.seconds_to_goal(lesson.shown), strict=True)
    both = [(a, b) for a, b in pairs if a and b]
    return paired_ratio([a for a, _ in both], [b for _, b in both])


def _typical(arrivals: Sequence[float | None]) -> float | None:
    """Return the median of the seconds to the goal; None unless it was met every time."""
    return float(np.median([a for a in arrivals if a is not None])) if None not in arrivals else None


def _others(lesson: Lesson) -> dict[str, History]:
    return {name: history for name, history in lesson.histories.items() if name != lesson.shown}


def _difference(a: History, b: History) -> float:
    """Return the largest relative difference of the training losses."""
    return float(np.max(race.difference(np.array(a.losses), np.array(b.losses)), initial=0))


def _characters(lesson: Lesson) -> int:
    return lesson.step * lesson.settings.batch * lesson.settings.seq_len


def _millions(count: float) -> str:
    return f"{count / 1e6:.3g} million" if count >= 1e6 else f"{count:,.0f}"


def _units(lesson: Lesson) -> str:
    layers = f"{lesson.settings.layers} layers of " if lesson.settings.layers > 1 else ""
    return f"{layers}{lesson.settings.hidden} {lesson.settings.cell.upper()} units"


def write(
    lesson: Lesson, judged: dict[str, float], precisions: Sequence[Precision], folder: Path, command: str
) -> Path:
    """Write the report into `folder` and return the page's path."""
    metrics = {
        "format": 1,
        "task": "text",
        "command": command,
        "written": datetime.now().astimezone().isoformat(timespec="seconds"),
        "outcome": lesson.outcome,
        "text": {
            "name": lesson.corpus.name,
            "alphabet": len(lesson.corpus.alphabet),
            "characters": {part: len(getattr(lesson.corpus, part)) for part in ("train", "validation", "test")},
        },
        "settings": asdict(lesson.settings),
        "baselines": lesson.baselines,
        "goal": lesson.goal,
        "implementations": {name: _metrics(lesson, name) for name in lesson.histories},
        "comparisons": _comparisons(lesson),
        "shown": lesson.shown,
        "bits": judged,
        "precisions": [_precision_metrics(precisions, one) for one in precisions],
        "samples": [sample._asdict() for sample in lesson.samples],
        "machine": machine.describe(),
    }
    figures = {
        "Bits per character by time": _curves(lesson, by_time=True),
        "Bits per character by characters read": _curves(lesson, by_time=False),
        "Bits per character on the test text": _bars(lesson, judged),
    }
    return race.write(folder, metrics, figures, _page(lesson, figures, metrics, precisions))


def _metrics(lesson: Lesson, name: str) -> dict:
    history = lesson.histories[name]
    return {
        "steps": lesson.step,
        "characters": _characters(lesson),
        "seconds": sum(history.seconds),
        "characters_per_s": _characters(lesson) / sum(history.seconds) if history.seconds else None,
        "compile_s": history.compile_s,
        "validation_bits": history.bits[-1],
        "steps_to_goal": history.steps_to(lesson.goal),
        "seconds_to_goal": lesson.seconds_to_goal(name),
        "history": asdict(history),
    }


def _comparisons(lesson: Lesson) -> list[dict]:
    return [
        {
            "baseline": name,
            "implementation": lesson.shown,
            "step_speedup": _step_speedup(lesson, name)._asdict(),
            "speedup_to_goal": _speedup(lesson, name)._asdict(),
            "largest_relative_difference": _difference(history, lesson.histories[lesson.shown]),
        }
        for name, history in _others(lesson).items()
    ]


def _page(lesson: Lesson, figures: dict[str, Figure], metrics: dict, precisions: Sequence[Precision]) -> str:
    described, settings = metrics["machine"], lesson.settings
    names = list(lesson.histories)
    tables = [page.table(_bits_table(lesson, metrics["bits"]), "Bits per character.")]
    if len(names) > 1:
        seeds = race.plural(1 + len(lesson.repeats), "seed")
        caption = f"The race to {lesson.goal:.3f} bits per character on the validation text, {seeds}."
        tables.append(page.table(_race_table(lesson), caption))
    came_out = page.section(
        "What came out", *map(page.paragraph, summary(lesson, metrics["bits"], precisions)), *tables
    )
    learning = page.section(
        "The loss as it learns",
        page.paragraph(
            "Thick lines with markers are the bits per character on the validation text "
            f"({min(GLANCE, len(lesson.corpus.validation)):,} of its characters), thin ones the training loss, "
            f"{SMOOTH} steps together{', and pale ones other seeds' if lesson.repeats else ''}. The seconds are those "
            "of the training steps alone, without compiling and without reading the validation text."
        ),
        page.charts(figures, legend=names),
        page.paragraph(
            f"The yardsticks: uniform knows the {len(lesson.corpus.alphabet)} characters and nothing else; the unigram "
            "knows how frequent each is; the order-3 n-gram, how frequent it is after the three before it "
            "(interpolated Witten-Bell smoothing). They count in the training text and are judged, as the network is, "
            "on a text that comes after it. With a bit less, half as many characters are left to choose from."
        ),
    )
    blocks = [came_out, learning]
    if lesson.samples:
        blocks.append(_samples(lesson.samples))
    if precisions:
        blocks.append(_precisions(lesson, precisions))
    sizes = metrics["text"]["characters"]
    blocks.append(
        page.section(
            "How it was trained",
            page.paragraph(
                f"{lesson.corpus.name} has {_millions(sum(sizes.values()))} characters. The first 90 % are learned, "
                "the next 5 % validate, and the last 5 % are the test. The text to learn is cut into "
                f"{race.plural(settings.batch, 'stretch').replace('stretchs', 'stretches')}, read side by side in "
                f"chunks of {settings.seq_len} characters. The state goes on from chunk to chunk, the gradient stops "
                f"at their border. A linear layer on every state and a softmax give the probabilities of the next "
                "character; the loss is their cross-entropy. All arithmetic of the training is float32."
            ),
            page.table(race.settings_table(settings)),
            *race.made_by(metrics["command"], described),
        )
    )
    lead = f"{_units(lesson)}, {race.where(settings.threads, described)}"
    return page.render(f"Learning {lesson.corpus.name}", blocks, lead)


def _bits_table(lesson: Lesson, judged: dict[str, float]) -> pd.DataFrame:
    validation, test = lesson.baselines["validation"], lesson.baselines["test"]
    rows = [(name, race.number(validation[name], 4), race.number(test[name], 4)) for name in validation]
    if judged:
        rows.append(("this network", race.number(judged["validation"], 4), race.number(judged["test"], 4)))
    return pd.DataFrame(rows, columns=["", "validation", "test"])


def _race_table(lesson: Lesson) -> pd.DataFrame:
    """Return a column for each learner and short labels: it has to fit a phone."""
    columns: dict[str, list] = {"": ["goal, s", "ms a step", "characters/s", "bits", "compiling, s"]}
    for name, history in lesson.histories.items():
        seconds = sum(history.seconds)
        columns[name] = [
            race.number(_typical(lesson.seconds_to_goal(name))),
            race.number(1e3 * seconds / lesson.step),
            (count(_characters(lesson) / seconds), _characters(lesson) / seconds),
            race.number(history.bits[-1], 4),
            race.number(history.compile_s, 2),
        ]
    return pd.DataFrame(columns)


def _samples(samples: Sequence[Sample]) -> Markup:
    """Return the section with the samples of some points of the training, the first and the last among them."""
    steps = sorted({sample.step for sample in samples})
    chosen = {steps[int(at)] for at in np.linspace(0, len(steps) - 1, STAGES).round()}
    blocks = [
        page.paragraph(
            "Each character is drawn from the probabilities that the network gives, and is its next input. Below "
            "a temperature of 1 likely characters get likelier: the text has fewer mistakes, and fewer ideas."
        )
    ]
    for step in sorted(chosen):
        of_step = [sample for sample in samples if sample.step == step]
        blocks.append(page.heading(f"After {step:,} steps, {of_step[0].bits:.2f} bits per character"))
        for sample in of_step:
            blocks += [
                page.paragraph(f"Temperature {sample.temperature:g}", "small"),
                page.preformatted(sample.text.strip("\n")),
            ]
    return page.section("What it writes", *blocks)


def _precisions(lesson: Lesson, precisions: Sequence[Precision]) -> Markup:
    """Return the section with the network in each dtype, a column each."""
    columns: dict[str, list] = {
        "": ["bits per character", "characters/s", "times float32's", "weights, kB", "laid out, kB"]
    }
    for one in precisions:
        speed, ratio = one.characters_per_s, _faster(precisions, one)
        columns[one.dtype] = [
            race.number(one.bits, 5),
            ("wrong", 0) if speed is None else (count(speed), speed),
            ("1", 1.0) if one is precisions[0] else (ends(ratio), ratio.median),
            *((f"{size / 1e3:,.0f}", size) for size in (one.stored, one.prepared)),
        ]
    read = min(READ, len(lesson.corpus.test))
    return page.section(
        "With its weights rounded",
        page.paragraph(
            "Learned in float32, the network can read and write with the cell's matrices rounded, and with them what "
            "they are multiplied with: generate --dtype does so. The biases and the layer that gives the probabilities "
            "stay float32. A step has less to load, while to draw a character takes as long as before."
        ),
        page.paragraph(
            "The bits are those of characters spread over the test text, the same for all. The speed is that of "
            "writing on one thread, the three taking turns; below it stands how many times float32's it is, by its "
            "95 % interval. The weights' size is as they may be stored, and as they are laid out to compute with."
        ),
        page.table(
            pd.DataFrame(columns),
            f"The network in three dtypes, on {read:,} characters of the test text.",
        ),
    )


def _faster(precisions: Sequence[Precision], one: Precision) -> Interval:
    """Return how many times as fast as in float32 it writes."""
    return paired_ratio(precisions[0].seconds, one.seconds)


def _precision_metrics(precisions: Sequence[Precision], one: Precision) -> dict:
    speed = {"characters_per_s": one.characters_per_s, "speedup": _faster(precisions, one)._asdict()}
    return one._asdict() | speed


def _curves(lesson: Lesson, by_time: bool) -> Figure:
    def draw(axes: Axes) -> None:
        size = lesson.settings.batch * lesson.settings.seq_len
        for name, history in lesson.histories.items():

            def x(steps, history=history):
                return history.seconds_after(steps) if by_time else np.asarray(steps) * size

            axes.plot(x(history.validated), history.bits, **charts.line(name))
            for repeat in lesson.repeats:
                other = repeat.histories[name]
                at = x(other.validated, other)
                axes.plot(at, other.bits, color=charts.look(name).colour, linewidth=1.6, alpha=0.35)
            ends = np.arange(SMOOTH, len(history.losses) + 1, SMOOTH)
            means = np.array(history.losses)[: len(ends) * SMOOTH].reshape(-1, SMOOTH).mean(axis=1)
            axes.plot(x(ends), means, color=charts.look(name).colour, linewidth=0.8, alpha=0.7)
        top = max(max(history.bits) for history in lesson.histories.values())
        best = min(lesson.baselines["validation"].values())
        for name, bits in lesson.baselines["validation"].items():
            if bits < top:
                axes.axhline(bits, color=charts.INK, linewidth=0.8, linestyle="--")
                end, side = (0, "left") if bits == best else (1, "right")  # where the curves are not
                axes.annotate(name, (end, bits), (3 - 6 * end, 3), ("axes fraction", "data"), "offset points", ha=side)
        axes.set_xlabel("seconds of training" if by_time else "characters read")
        axes.set_ylabel("bits per character")
        axes.set_title("By time" if by_time else "By characters read")
        if not by_time:
            axes.xaxis.set_major_formatter(EngFormatter(sep=" "))

    return charts.sheet([draw], legend=False)


def _bars(lesson: Lesson, judged: dict[str, float]) -> Figure:
    bits = lesson.baselines["test"] | ({"this network": judged["test"]} if judged else {})

    def draw(axes: Axes) -> None:
        names = list(bits)[::-1]
        ours = charts.look(lesson.shown).colour
        colours = [ours if name == "this network" else charts.look("numpy").colour for name in names]
        bars = axes.barh(names, [bits[name] for name in names], height=0.62, color=colours, alpha=0.7)
        axes.bar_label(bars, fmt="%.2f", padding=3)
        axes.set_xlabel("bits per character")
        axes.set_title("On the test text")
        axes.tick_params(axis="y", length=0)
        axes.grid(False, axis="y")
        axes.margins(x=0.12)

    return charts.sheet([draw], legend=False)
