"""What makes a task a command of `python -m bench train`: `trains` gives it the options that all races share."""

import functools
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from bench.tasks.options import (
    Laps,
    NoWait,
    Output,
    Resume,
    Scheduler,
    command_line,
    expect_as_kept,
    expect_waiting,
    finish,
    nothing_learned,
    option,
    report_folder,
)

SETTINGS = {  # the options of `bench.tasks.learning.training.Settings`, which every task but the text has
    "cell": "rnn, gru or lstm.",
    "activation": "Of the rnn: sigmoid or tanh.",
    "hidden": "Hidden units.",
    "epochs": "Passes over the training records.",
    "batch": "Records in a training step.",
    "optimizer": "sgd, adagrad or adam.",
    "learning_rate": "Of the optimizer.",
    "truncate": "Earlier steps that the gradient flows back through; the steps less one is full BPTT.",
    "clip": "Bound on each element of the gradients.",
    "clip_norm": "Bound on the norm of all gradients together.",
    "goal": "The error that the race is to.",
    "seed": "Of the weights and the order of the records.",
    "seeds": "Trainings, each with a seed of its own.",
    "threads": "Threads of each implementation.",
}
BESIDE_RESUME = ("csv", "seeds")  # the file may have moved, and more seeds may follow

Racers = Annotated[str | None, option("Who races, with commas between.", "numpy,numba-simd,torch,jax: those that can")]


class Task(NamedTuple):
    """What a command is about."""

    races: list  # of bench.tasks.learning.training.Race, each with another cell
    summary: Callable[[list], list[str]]  # what the races came to, a paragraph each
    write: Callable[[list, Path, str], Path]  # their report, into a folder, with the command; returns its page


def trains(task: Callable[..., Task]) -> Callable:
    """Return the command that trains what `task` returns.

    It has an option for each of SETTINGS in the place of the task's **choices, and those of the training's folder.
    """
    own = [p for p in inspect.signature(task).parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    shared = {name: Annotated[str | None, option(words)] for name, words in SETTINGS.items()}
    kinds = {p.name: p.annotation for p in own} | shared

    @functools.wraps(task)
    def command(
        context: typer.Context,
        resume: Path | None,
        output: Path | None,
        no_wait: bool,
        scheduler: str | None,
        **options: Any,
    ) -> None:
        sources = {name: getattr(context.get_parameter_source(name), "name", "") for name in options}
        given = {name: value for name, value in options.items() if sources[name] == "COMMANDLINE"}
        _train(task, kinds, options, given, resume, output, no_wait, scheduler)

    parameters = [
        inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context),
        *(p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own),
        *(
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
            for name, annotation in {**shared, "resume": Resume, "output": Output, "scheduler": Scheduler}.items()
        ),
        inspect.Parameter("no_wait", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=NoWait),
    ]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return command


def race(course: Any, implementation: str | None, write: Callable) -> Task:
    """Return the task of one race, whose report `write` writes."""
    from bench.tasks.learning.training import Race
    from bench.tasks.page import diverged, race_words

    race = Race(course, implementation.split(",") if implementation else None)

    def report(races: list, *where: Any) -> Path:
        return (diverged if race.outcome == "diverged" else write)(race, *where)

    return Task([race], lambda races: race_words(race), report)


@dataclass
class Kept:
    """A command's training as it is kept."""

    options: dict[str, Any]
    races: dict[str, dict]  # each as `Race.state` has it


def _train(
    task: Callable[..., Task],
    kinds: dict,
    options: dict,
    given: dict,
    resume: Path | None,
    output: Path | None,
    no_wait: bool,
    scheduler: str | None,
) -> None:
    """Train a task, or go on with one that was kept, keep it now and then, and report what came of it.

    `options` are all, by default or `given`; `kinds` are their types.
    """
    from bench.machine.lock import the_machine
    from bench.tasks.learning import checkpoint
    from bench.tasks.learning.forms import expect, read
    from bench.tasks.learning.training import branch

    laps = Laps()
    kept, where = Kept({}, {}), ""
    trees: checkpoint.Tree = {}
    if resume is not None:
        about, trees = checkpoint.load_training(resume, task.__name__)
        where = str(resume / "training.npz")
        kept = read(Kept, about, where)
        for name, value in kept.options.items():
            expect(name in kinds, f"{where}: options", ", ".join(kinds), name)
            read(kinds[name], value, f"{where}: options: {name}")
    settled = {name: value for name, value in given.items() if name not in BESIDE_RESUME} if resume else {}
    options = options | kept.options | {name: value for name, value in given.items() if name not in settled}
    races, summary, write = task(**options)
    chosen = {name: value for name, value in kept.options.items() if value is not None}
    expect_as_kept(settled, vars(races[0].course.settings) | chosen)
    cells = {race.course.model.cell: race for race in races}
    for cell, state in kept.races.items():
        expect(cell in cells, f"{where}: races", " or ".join(cells), cell)
        cells[cell].restore(state, branch(trees, cell), f"{where}: races: {cell}")
    options = options | {"implementation": ",".join(races[0].implementations)}

    def keep() -> None:
        states = {cell: race.state() for cell, race in cells.items()}
        about = {"options": options, "races": {cell: state for cell, (state, _) in states.items()}}
        checkpoint.save_training(folder, task.__name__, about, {cell: tree for cell, (_, tree) in states.items()})

    laps.to("beginning")
    if scheduler is not None:
        expect_waiting(no_wait)
        with _cluster(scheduler) as client:
            folder = report_folder(task.__name__, output or resume)
            _run_far(client, races, keep)
            laps.to("the race")
    else:
        with the_machine(wait=not no_wait):
            folder = report_folder(task.__name__, output or resume)
            _run(races, keep, laps)
    begun = [race for race in races if race.weights]  # the others Ctrl-C did not let begin
    if not begun:
        nothing_learned(folder)
    for race in races[len(begun) :]:
        print(f"Interrupted before the {race.course.model.cell} began.", file=sys.stderr)
    for words in summary(begun):
        print(words)
    interrupted = any(race.outcome == "interrupted" for race in races)
    finish(lambda: write(begun, folder, command_line()), folder, laps, interrupted)


def _cluster(scheduler: str) -> Any:
    """Return Dask's client of a scheduler."""
    from bench.fleet import expect_distributed

    expect_distributed()
    from bench.fleet.fleet import connect

    return connect(scheduler)


def _run_far(client: Any, races: list, keep: Callable[[], None]) -> None:
    """Run the races on the machines of a cluster."""
    from bench.fleet.bars import Bars
    from bench.fleet.fleet import Fleet
    from bench.tasks.learning.seeds import Seeds

    with Bars() as bars:
        try:
            Fleet(client, Seeds(races, keep), bars.tell, bars.watch).work()
        except KeyboardInterrupt:
            bars.tell("Interrupted: the seeds in work are lost.")


def _run(races: list, keep: Callable[[], None], laps: Laps) -> None:
    """Run the races one by one, behind a bar with the error, windows a second and the time left."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(24),
        TextColumn("{task.fields[state]}", markup=False),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        for race in races:
            if race.over:
                continue
            course, settings = race.course, race.course.settings
            bar = progress.add_task(f"{course.name}: compiling", total=None, state="")

            work = iter(["starting and compiling"])

            def watch(seed: int, epoch: int, race=race, course=course, settings=settings, bar=bar, work=work) -> None:
                laps.to(next(work, "the race"))
                history = race.histories[race.shown][-1] if epoch else None
                state = ""
                if history is not None:
                    records = course.records / history.seconds[-1]
                    state = f"{course.measure} {history.validation[-1]:.4g}, {records:,.0f} windows/s, left"
                progress.update(
                    bar,
                    description=f"{course.name}, {course.model.cell}: seed {seed + 1}/{settings.seeds}, epoch {epoch}",
                    completed=seed * settings.epochs + epoch,
                    total=settings.seeds * settings.epochs,
                    state=state,
                )

            race.run(watch, keep)
            laps.to(next(work, "the race"))
            if race.outcome == "interrupted":
                return
