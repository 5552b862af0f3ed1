"""The commands of `python -m bench train`."""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from bench.cases import ChoiceError
from bench.tasks.options import Output, Resume, command_line, finish, none_beside_resume, option, report_folder
from bench.tasks.text_cli import text

app = typer.Typer(help="Learn a task from start to end and report how soon each implementation gets there.")
app.command()(text)

SETTINGS = {  # the options of `bench.tasks.training.Settings`, which every task but the text has
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
Window = Annotated[int, typer.Option(help="Rows that the network reads before it says what comes next.")]


class Task(NamedTuple):
    """What a command is about."""

    races: list  # of bench.tasks.training.Race, each with another cell
    summary: Callable[[list], list[str]]  # what the races came to, a paragraph each
    write: Callable[[list, Path, str], Path]  # their report, into a folder, with the command; returns its page


def _trains(task: Callable[..., Task]) -> Callable:
    """Register a command that trains what `task` returns.

    It has an option for each of SETTINGS in the place of the task's **choices, and those of the training's folder.
    """
    own = [p for p in inspect.signature(task).parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    shared = {name: Annotated[str | None, option(words)] for name, words in SETTINGS.items()}

    @functools.wraps(task)
    def command(context: typer.Context, resume: Path | None, output: Path | None, **options: Any) -> None:
        sources = {name: getattr(context.get_parameter_source(name), "name", "") for name in options}
        given = {name: value for name, value in options.items() if sources[name] == "COMMANDLINE"}
        _train(task, options, given, resume, output)

    parameters = [
        inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context),
        *(p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own),
        *(
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
            for name, annotation in {**shared, "resume": Resume, "output": Output}.items()
        ),
    ]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return app.command()(command)


@_trains
def sine(
    frequencies: Annotated[str, typer.Option(help="Of the waves that are added up, in radians a step.")] = "1",
    noise: Annotated[float, typer.Option(help="Standard deviation of the noise on every value.")] = 0.0,
    horizon: Annotated[int, typer.Option(help="Values that are predicted at once.")] = 1,
    article: Annotated[
        bool, typer.Option("--article", help="The article's settings, for each that is not given.")
    ] = False,
    implementation: Racers = None,
    **choices: str | None,
) -> Task:
    """Predict the next values of a sine; the last line printed is the report's path.

    Ctrl-C ends the training, keeps it, and reports what is there. `--resume` goes on with it.
    """
    from dataclasses import replace

    from bench.tasks import sine_report
    from bench.tasks.sine import ARTICLE, DEFAULT, Sine, Wave
    from bench.tasks.training import choose

    wave = Wave(_frequencies(frequencies), noise, horizon)
    base = ARTICLE if article else DEFAULT
    base = replace(base, goal=base.goal + 1.5 * noise)  # what is noise cannot be foretold
    return _race(Sine(choose(base, **choices), wave), implementation, sine_report.write)


@_trains
def stocks(
    csv: Annotated[
        str | None, option("A table of days with a header, the earliest first.", "Google's, from Matplotlib")
    ] = None,
    target: Annotated[str, typer.Option(help="The column that is to be foretold.")] = "close",
    window: Window = 30,
    implementation: Racers = None,
    **choices: str | None,
) -> Task:
    """Foretell the next day's price and say whether that beats yesterday's; the last line is the report's path.

    The features are those of open, high, low, close and volume that the table has. Ctrl-C ends the training,
    keeps it, and reports what is there. `--resume` goes on with it.
    """
    from bench.tasks import forecast_report
    from bench.tasks.stocks import DEFAULT, course, load
    from bench.tasks.training import choose

    settings = choose(DEFAULT, **choices)
    table = load(Path(csv) if csv else None, target)
    return _race(course(settings, table, window), implementation, forecast_report.write)


@_trains
def series(
    csv: Annotated[str | None, option("A table with a header, the earliest row first.")] = None,
    column: Annotated[str | None, option("The column of numbers to foretell.")] = None,
    window: Window = 30,
    implementation: Racers = None,
    **choices: str | None,
) -> Task:
    """Foretell the next value of any column of numbers; the last line printed is the report's path.

    Ctrl-C ends the training, keeps it, and reports what is there. `--resume` goes on with it.
    """
    from bench.tasks import forecast_report
    from bench.tasks.series import DEFAULT, course, load
    from bench.tasks.training import choose

    settings = choose(DEFAULT, **choices)
    if csv is None:
        raise ChoiceError("--csv: expected a table, got none")
    if column is None:
        raise ChoiceError("--column: expected the name of a column, got none")
    return _race(course(settings, load(Path(csv), column), window), implementation, forecast_report.write)


Alone = Annotated[str | None, option("Who learns, with commas between.", "numba-simd")]
Length = Annotated[int, typer.Option(help="Steps that something has to be kept in mind for.")]


@_trains
def adding(length: Length = 30, implementation: Alone = None, **choices: str | None) -> Task:
    """Add two numbers marked in a long sequence, with each cell (or --cell): which one has the memory for it?

    The last line printed is the report's path. Ctrl-C ends the training, keeps it, and reports what is there.
    `--resume` goes on with it.
    """
    from bench.tasks.memory import ADDING, Adding

    return _remember(Adding, ADDING, length, implementation, choices)


@_trains
def copy(length: Length = 20, implementation: Alone = None, **choices: str | None) -> Task:
    """Say symbols again after a long wait, with each cell (or --cell): which one has the memory for it?

    The last line printed is the report's path. Ctrl-C ends the training, keeps it, and reports what is there.
    `--resume` goes on with it.
    """
    from bench.tasks.memory import COPY, Copy

    return _remember(Copy, COPY, length, implementation, choices)


def _remember(task: Any, base: Any, length: int, implementation: str | None, choices: dict) -> Task:
    from dataclasses import replace

    from bench.tasks import memory_report
    from bench.tasks.model import CELLS
    from bench.tasks.training import Race, choose

    settings = choose(base, **choices)
    cells = CELLS if choices["cell"] is None else (settings.cell,)
    names = (implementation or "numba-simd").split(",")
    races = [Race(task(replace(settings, cell=cell), length), names) for cell in cells]
    return Task(races, memory_report.summary, memory_report.write)


def _frequencies(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ChoiceError(f"--frequencies: expected numbers with commas between, got {text!r}") from None


def _race(course: Any, implementation: str | None, write: Callable) -> Task:
    """Return the task of one race, whose report `write` writes."""
    from bench.tasks.race_report import race_words
    from bench.tasks.training import Race

    race = Race(course, implementation.split(",") if implementation else None)
    return Task([race], lambda races: race_words(races[0]), lambda races, *where: write(races[0], *where))


def _train(task: Callable[..., Task], options: dict, given: dict, resume: Path | None, output: Path | None) -> None:
    """Train a task, or go on with one that was kept, keep it now and then, and report what came of it."""
    from bench.tasks import checkpoint

    about: dict[str, Any] = {}
    trees: dict[str, Any] = {}
    if resume is not None:
        none_beside_resume({name: value for name, value in given.items() if name not in BESIDE_RESUME})
        about, trees = checkpoint.load_training(resume, task.__name__)
        options = about["options"] | given
    races, summary, write = task(**options)
    cells = {race.course.model.cell: race for race in races}
    for cell, state in about.get("races", {}).items():
        cells[cell].restore(state, trees.get(cell, {}))
    options = options | {"implementation": ",".join(races[0].implementations)}
    folder = report_folder(task.__name__, output or resume)

    def keep() -> None:
        states = {cell: race.state() for cell, race in cells.items()}
        about = {"options": options, "races": {cell: state for cell, (state, _) in states.items()}}
        checkpoint.save_training(folder, task.__name__, about, {cell: tree for cell, (_, tree) in states.items()})

    _run(races, keep)
    begun = [race for race in races if race.weights]  # the others Ctrl-C did not let begin
    for words in summary(begun):
        typer.echo(words)
    finish(write(begun, folder, command_line()), any(race.outcome == "interrupted" for race in races))


def _run(races: list, keep: Callable[[], None]) -> None:
    """Run the races one by one, behind a bar with the error, windows a second and the time left."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(24),
        TextColumn("{task.fields[state]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        for race in races:
            if race.over:
                continue
            course, settings = race.course, race.course.settings
            bar = progress.add_task(f"{course.name}: compiling", total=None, state="")

            def watch(seed: int, epoch: int, race=race, course=course, settings=settings, bar=bar) -> None:
                history = race.histories[race.shown][-1] if epoch else None
                state = ""
                if history is not None:
                    records = course.records / history.seconds[-1]
                    state = f"{course.measure} {history.validation[-1]:.4f}, {records:,.0f} windows/s, left"
                progress.update(
                    bar,
                    description=f"{course.name}, {course.model.cell}: seed {seed + 1}/{settings.seeds}, epoch {epoch}",
                    completed=seed * settings.epochs + epoch,
                    total=settings.seeds * settings.epochs,
                    state=state,
                )

            race.run(watch, keep)
            if race.outcome == "interrupted":
                return
