"""The commands of `python -m bench train`."""

import shlex
import sys
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(help="Learn a task from start to end and report how soon each implementation gets there.")


@app.callback()
def train() -> None:
    """Keep `sine` a command of its own while it is the only one."""


@app.command()
def sine(
    activation: Annotated[str | None, typer.Option(help="sigmoid or tanh.", show_default="tanh")] = None,
    hidden: Annotated[int | None, typer.Option(help="Hidden units.", show_default="100")] = None,
    implementation: Annotated[
        str | None,
        typer.Option(help="numpy, numba-jit or numba-simd.", show_default="numpy and numba-simd, in turn"),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the 100 records.", show_default="100")] = None,
    learning_rate: Annotated[float | None, typer.Option(show_default="0.002")] = None,
    optimizer: Annotated[str | None, typer.Option(help="sgd or adam.", show_default="adam")] = None,
    truncate: Annotated[
        int | None,
        typer.Option(help="Earlier steps that the gradient flows back through; 49 is full BPTT.", show_default="5"),
    ] = None,
    clip: Annotated[float | None, typer.Option(help="Bound on each gradient element.", show_default="1")] = None,
    batch: Annotated[int | None, typer.Option(help="Records in a training step.", show_default="20")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the weights and the batches.", show_default="0")] = None,
    article: Annotated[
        bool,
        typer.Option("--article", help="The article's settings, for each of the above that is not given."),
    ] = False,
    output: Annotated[
        Path | None, typer.Option(help="The report's folder.", show_default="reports/<time>-sine")
    ] = None,
) -> None:
    """Predict the next value of a sine; the last line printed is the report's path.

    Ctrl-C ends the training and reports what is there.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from bench.run import REPORTS
    from bench.tasks import sine_report as report
    from bench.tasks.sine import ARTICLE, DEFAULT, Lesson

    choices = {
        "activation": activation,
        "hidden": hidden,
        "epochs": epochs,
        "batch": batch,
        "optimizer": optimizer,
        "learning_rate": learning_rate,
        "truncate": truncate,
        "clip": clip,
        "seed": seed,
    }
    given: dict[str, Any] = {name: choice for name, choice in choices.items() if choice is not None}
    settings = replace(ARTICLE if article else DEFAULT, **given)
    lesson = Lesson(settings, [implementation] if implementation else ["numpy", "numba-simd"])
    folder = output or REPORTS / f"{datetime.now():%Y%m%d-%H%M%S}-sine"
    folder.mkdir(parents=True, exist_ok=True)

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[state]}"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task("sine: compiling", total=settings.epochs, state="")

        def show(epoch: int) -> None:
            error = lesson.learners[-1].history.validation_rmse[-1]
            progress.update(
                bar, description=f"sine: epoch {epoch}", completed=epoch, state=f"validation RMSE {error:.4f}"
            )

        lesson.train(show)
    for line in report.summary(lesson):
        typer.echo(line)
    page = report.write(lesson, folder, shlex.join(["python", "-m", "bench", *sys.argv[1:]])).resolve()
    typer.echo(page.relative_to(Path.cwd()) if page.is_relative_to(Path.cwd()) else page)
    if lesson.outcome == "interrupted":
        raise typer.Exit(130)
