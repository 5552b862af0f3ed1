"""The commands for text: `python -m bench train text` and `python -m bench generate`."""

import math
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from bench.grid.cases import ChoiceError, harmless
from bench.tasks.options import (
    Laps,
    Layers,
    NoWait,
    Output,
    Resume,
    command_line,
    expect_as_kept,
    finish,
    nothing_learned,
    option,
    report_folder,
)

WARM = 2  # characters: the first comes after reading and loading, the second after compiling, and neither is timed


def text(
    file: Annotated[Path | None, option("A UTF-8 text to learn.", "Shakespeare's plays, from the text extra")] = None,
    cell: Annotated[str | None, option("rnn, gru or lstm.", "gru")] = None,
    hidden: Annotated[str | None, option("Hidden units.", "256")] = None,
    layers: Layers = None,
    seq_len: Annotated[str | None, option("Characters that the gradient flows back through.", "64")] = None,
    batch: Annotated[str | None, option("Streams that the text is read in, side by side.", "32")] = None,
    optimizer: Annotated[str | None, option("sgd, adagrad or adam.", "adam")] = None,
    learning_rate: Annotated[str | None, option("Of the optimizer.", "0.004")] = None,
    clip_norm: Annotated[str | None, option("Bound on the norm of the gradients.", "1")] = None,
    seed: Annotated[str | None, option("Of the weights and the samples.", "0")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings, each with a seed of its own; the first is kept.")] = 1,
    threads: Annotated[
        str | None, option("Threads to compute with.", "1 in a race, else those that may be used")
    ] = None,
    implementation: Annotated[
        str | None,
        option("One, or several with commas to race: numpy, numba-jit, numba-simd, torch, jax.", "numba-simd"),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Stop after so many steps in all.")] = None,
    minutes: Annotated[
        float | None,
        option(
            "Stop after so many minutes, compiling included; the report follows.",
            "5, unless --steps or --goal are given",
        ),
    ] = None,
    goal: Annotated[
        float | None, option("Stop at so many bits per character on the validation text.", "in a race the n-gram's")
    ] = None,
    resume: Resume = None,
    output: Output = None,
    no_wait: NoWait = False,
) -> None:
    """Predict the next character of a text; the last line printed is the report's path.

    Ctrl-C ends the training, keeps it, and reports what is there. `--resume` goes on with it, `generate` lets it write.
    """
    from bench.machine.lock import the_machine
    from bench.tasks.learning.training import choose, usable_threads
    from bench.tasks.text import data as task
    from bench.tasks.text.training import Bounds, Lesson, Settings, kept_file

    laps = Laps()
    settings = {
        "cell": cell,
        "hidden": hidden,
        "layers": layers,
        "seq_len": seq_len,
        "batch": batch,
        "optimizer": optimizer,
        "learning_rate": learning_rate,
        "clip_norm": clip_norm,
        "seed": seed,
        "threads": threads,
    }
    for name, value in (("--minutes", minutes), ("--goal", goal)):
        if value is not None and not 0 < value < math.inf:
            raise ChoiceError(f"{name}: expected a number above 0, got {value}")
    if resume is not None and file is None:
        file = kept_file(resume)
    corpus = task.shakespeare() if file is None else task.from_file(file)
    if resume is None:
        implementations = (implementation or "numba-simd").split(",")
        base = Settings(threads=1 if len(implementations) > 1 else usable_threads()[0])
        lesson = Lesson(corpus, choose(base, **settings), implementations)
    else:
        lesson = Lesson.resume(corpus, resume)
        kept = vars(lesson.settings) | {"implementation": ",".join(lesson.histories)}
        expect_as_kept({**settings, "implementation": implementation}, kept)
    lesson.file = "" if file is None else str(file.absolute())
    lesson.goal = goal or lesson.goal
    racing = len(lesson.histories) > 1
    if not (minutes or steps or goal or racing):
        minutes = 5
    bounds = Bounds(steps or math.inf, minutes or math.inf, lesson.goal if goal or racing else 0)
    laps.to("reading the text")
    with the_machine(wait=not no_wait):
        folder = report_folder("text", output or resume)
        _train_seeds(lesson, seeds, bounds, laps, folder)
        finish(lambda: _report(lesson, folder, laps), folder, laps, lesson.outcome == "interrupted")


def _train_seeds(lesson, seeds, bounds, laps, folder):
    """Train, and again with other seeds, whose lessons are kept with the first one's."""
    from bench.tasks.text.training import Lesson

    _train(lesson, bounds, laps, folder)
    if not lesson.step:
        nothing_learned(folder)
    for number in range(1, seeds):
        if lesson.outcome == "finished":
            other = replace(lesson.settings, seed=lesson.settings.seed + number)
            repeat = Lesson(lesson.corpus, other, list(lesson.histories))
            _train(repeat, bounds, laps)
            if repeat.outcome == "interrupted":
                lesson.outcome = repeat.outcome
            else:
                group = lesson.repeats if repeat.outcome == "finished" else lesson.strayed
                group.append(repeat)


def _report(lesson, folder, laps):
    from bench.tasks.text import page, precision

    judged = lesson.judge()
    precisions = [] if lesson.outcome == "interrupted" else precision.measure(lesson)  # which compiles for a minute
    laps.to("reading and writing with what was learned")
    for words in page.summary(lesson, judged, precisions):
        print(words)
    return page.write(lesson, judged, precisions, folder, command_line())


def _train(lesson, bounds, laps, folder=None):
    """Train with a bar; with a folder, keep the training after every round and show what the model writes by then."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    left = TextColumn("{task.fields[left]}")
    columns = TextColumn("{task.description}"), BarColumn(8), TimeRemainingColumn(), left
    with Progress(*columns, console=Console(stderr=True, highlight=False)) as progress:
        bar = progress.add_task("compiling", total=1, left="left")
        shown = lesson.histories[lesson.shown]
        size = lesson.settings.batch * lesson.settings.seq_len  # characters of a step
        told = len(lesson.samples)
        work = iter(["starting and compiling"])

        def after_group(share):
            laps.to(next(work, "training"))
            progress.update(bar, completed=share, description=f"step {lesson.step}, {_state(shown, size)}")
            if share >= 1:  # what follows may compile for a while: no time is left that is known
                progress.update(bar, total=None, left="reading and writing")

        def after_round():
            nonlocal told
            if folder is None:
                return
            lesson.save(folder)
            for sample in lesson.samples[told:]:
                title = f"After {sample.step} steps, {sample.bits:.2f} bits per character, at the temperature"
                progress.console.print(f"{title} {sample.temperature}:\n{harmless(sample.text)}\n", markup=False)
            told = len(lesson.samples)

        lesson.train(bounds, after_group, after_round)
        laps.to(next(work, "training"))
        progress.update(bar, completed=1, total=1, left="left")


def _state(history, size):
    """Return the speed, and the loss and the last look at the validation text in bits per character."""
    from bench.results.formats import count

    groups = history.seconds[-10:]
    steps = history.ends[-1] - ([0, *history.ends])[-1 - len(groups)]
    speed = count(steps * size / sum(groups))
    recent = history.losses[-steps:]
    return f"{speed} characters/s, loss {sum(recent) / len(recent):.3g}, validation {history.bits[-1]:.3g}"


def generate(
    model: Annotated[Path, typer.Argument(help="A model that `train text` has kept: model.npz, or its folder.")],
    seed_text: Annotated[str | None, option("What the text goes on from.", "the end of a line")] = None,
    temperature: Annotated[
        float, typer.Option(min=0, help="Below 1 likely characters get likelier; 0 takes the likeliest.")
    ] = 0.8,
    length: Annotated[int, typer.Option(min=0, help="Characters to write.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same text.")] = 0,
    dtype: Annotated[str, option("Of the cell's weights: float32, bfloat16 or int8.", "float32")] = "float32",
) -> None:
    """Write text, character by character, with a model that has learned one; to standard error how fast that was."""
    from itertools import islice

    import numpy as np

    from bench.tasks.learning.network import DTYPES, Network
    from bench.tasks.learning.training import threads
    from bench.tasks.text import data as text
    from bench.tasks.text import generate

    if dtype not in DTYPES:
        raise ChoiceError(f"--dtype: expected {', '.join(DTYPES)}, got {dtype!r}")
    trained, alphabet, weights = generate.load(model / "model.npz" if model.is_dir() else model)
    first = text.encode(alphabet, seed_text) if seed_text else generate.opening(alphabet)
    shown = harmless(alphabet) if sys.stdout.isatty() else alphabet
    network = Network(trained, "numba-simd")
    written, start = 0, 0.0
    said = generate.sample(network, network.prepare(weights, dtype), first, temperature, np.random.default_rng(seed))
    try:
        with threads(1):
            sys.stdout.write(seed_text or "")
            for index in islice(said, length):
                sys.stdout.write(shown[index])
                sys.stdout.flush()
                written += 1
                if written == WARM:
                    start = time.perf_counter()
            taken = time.perf_counter() - start
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    print()
    if length > WARM:
        print(f"{(length - WARM) / taken:.0f} characters a second in {dtype}", file=sys.stderr)


COMMANDS = (text,)
