"""The commands of `python -m bench train`."""

import inspect
import shlex
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.cases import ChoiceError
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


def _option(words: str, default: str | bool = False) -> Any:
    return typer.Option(help=words, show_default=default)


Racers = Annotated[str | None, _option("Who races, with commas between.", "numpy,numba-simd,torch,jax: those that can")]
Output = Annotated[Path | None, _option("The report's folder.", "reports/<time>-<task>")]
Window = Annotated[int, typer.Option(help="Rows that the network reads before it says what comes next.")]


def _with_settings(command: Callable) -> Callable:
    """Register a command that takes an option for each of SETTINGS in the place of its **choices."""
    signature = inspect.signature(command)
    own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    shared = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[str | None, _option(words)]
        )
        for name, words in SETTINGS.items()
    ]
    command.__signature__ = signature.replace(parameters=own + shared)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in own + shared}
    return app.command()(command)


@_with_settings
def sine(
    frequencies: Annotated[str, typer.Option(help="Of the waves that are added up, in radians a step.")] = "1",
    noise: Annotated[float, typer.Option(help="Standard deviation of the noise on every value.")] = 0.0,
    horizon: Annotated[int, typer.Option(help="Values that are predicted at once.")] = 1,
    article: Annotated[
        bool, typer.Option("--article", help="The article's settings, for each that is not given.")
    ] = False,
    implementation: Racers = None,
    output: Output = None,
    **choices: str | None,
) -> None:
    """Predict the next values of a sine; the last line printed is the report's path.

    Ctrl-C ends the training and reports what is there.
    """
    from dataclasses import replace

    from bench.tasks import sine_report
    from bench.tasks.sine import ARTICLE, DEFAULT, Sine, Wave
    from bench.tasks.training import choose

    wave = Wave(_frequencies(frequencies), noise, horizon)
    base = ARTICLE if article else DEFAULT
    base = replace(base, goal=base.goal + 1.5 * noise)  # what is noise cannot be foretold
    _race(lambda: Sine(choose(base, **choices), wave), implementation, output, sine_report.write)


@_with_settings
def stocks(
    csv: Annotated[
        Path | None, _option("A table of days with a header, the earliest first.", "Google's, from Matplotlib")
    ] = None,
    target: Annotated[str, typer.Option(help="The column that is to be foretold.")] = "close",
    window: Window = 30,
    implementation: Racers = None,
    output: Output = None,
    **choices: str | None,
) -> None:
    """Foretell the next day's price and say whether that beats yesterday's; the last line is the report's path.

    The features are those of open, high, low, close and volume that the table has. Ctrl-C ends the training and
    reports what is there.
    """
    from bench.tasks import forecast_report
    from bench.tasks.stocks import DEFAULT, course, load
    from bench.tasks.training import choose

    settings = choose(DEFAULT, **choices)
    _race(lambda: course(settings, load(csv, target), window), implementation, output, forecast_report.write)


@_with_settings
def series(
    csv: Annotated[Path, typer.Option(help="A table with a header, the earliest row first.")],
    column: Annotated[str, typer.Option(help="The column of numbers to foretell.")],
    window: Window = 30,
    implementation: Racers = None,
    output: Output = None,
    **choices: str | None,
) -> None:
    """Foretell the next value of any column of numbers; the last line printed is the report's path.

    Ctrl-C ends the training and reports what is there.
    """
    from bench.tasks import forecast_report
    from bench.tasks.series import DEFAULT, course, load
    from bench.tasks.training import choose

    settings = choose(DEFAULT, **choices)
    _race(lambda: course(settings, load(csv, column), window), implementation, output, forecast_report.write)


Length = Annotated[int, typer.Option(help="Steps that something has to be kept in mind for.")]


@_with_settings
def adding(length: Length = 30, implementation: Racers = None, output: Output = None, **choices: str | None) -> None:
    """Add two numbers marked in a long sequence, with each cell (or --cell): which one has the memory for it?

    numba-simd learns it, unless others are named. The last line printed is the report's path. Ctrl-C ends the
    training and reports what is there.
    """
    from bench.tasks.memory import ADDING, Adding

    _remember(Adding, ADDING, length, implementation, output, choices)


@_with_settings
def copy(length: Length = 20, implementation: Racers = None, output: Output = None, **choices: str | None) -> None:
    """Say symbols again after a long wait, with each cell (or --cell): which one has the memory for it?

    numba-simd learns it, unless others are named. The last line printed is the report's path. Ctrl-C ends the
    training and reports what is there.
    """
    from bench.tasks.memory import COPY, Copy

    _remember(Copy, COPY, length, implementation, output, choices)


def _remember(
    task: Any, base: Any, length: int, implementation: str | None, output: Path | None, choices: dict
) -> None:
    from dataclasses import replace

    from bench.tasks import memory_report
    from bench.tasks.model import CELLS
    from bench.tasks.training import Race, choose

    settings = choose(base, **choices)
    cells = CELLS if choices["cell"] is None else (settings.cell,)
    names = (implementation or "numba-simd").split(",")
    races = [Race(task(replace(settings, cell=cell), length), names) for cell in cells]
    folder = _folder(races[0].course.name, output)
    _run(races)
    races = [race for race in races if race.weights]  # those that Ctrl-C let begin
    for words in memory_report.summary(races):
        typer.echo(words)
    _finish(races, memory_report.write(races, folder, _command()))


def _frequencies(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ChoiceError(f"--frequencies: expected numbers with commas between, got {text!r}") from None


def _race(course: Callable, implementation: str | None, output: Path | None, write: Callable) -> None:
    """Race on a course, show how far it is, write the report and print where."""
    from bench.tasks.race_report import race_words
    from bench.tasks.training import Race

    race = Race(course(), implementation.split(",") if implementation else None)
    folder = _folder(race.course.name, output)
    _run([race])
    for words in race_words(race):
        typer.echo(words)
    _finish([race], write(race, folder, _command()))


def _folder(task: str, output: Path | None) -> Path:
    from bench.run import REPORTS

    folder = output or REPORTS / f"{datetime.now():%Y%m%d-%H%M%S}-{task}"
    if folder.exists() and not folder.is_dir():
        raise ChoiceError(f"--output: expected a folder, got the file {folder}")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _run(races: list) -> None:
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

            race.run(watch)
            if race.outcome == "interrupted":
                return


def _command() -> str:
    return shlex.join(["python", "-m", "bench", *sys.argv[1:]])


def _finish(races: list, page: Path) -> None:
    page = page.resolve()
    typer.echo(page.relative_to(Path.cwd()) if page.is_relative_to(Path.cwd()) else page)
    if any(race.outcome == "interrupted" for race in races):
        raise typer.Exit(130)
