"""The commands of `python -m bench train`."""

import shlex
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from bench.tasks.text_cli import text

app = typer.Typer(help="Learn a task from start to end and report how soon each implementation gets there.")
app.command()(text)


def _option(words: str, default: str):
    return typer.Option(help=words, show_default=default)


@app.callback()
def train() -> None:
    """Keep `sine` a command of its own while it is the only one."""


@app.command()
def sine(
    activation: Annotated[str | None, _option("sigmoid or tanh.", "tanh")] = None,
    hidden: Annotated[str | None, _option("Hidden units.", "100")] = None,
    implementation: Annotated[
        str | None, _option("numpy, numba-jit or numba-simd.", "numpy and numba-simd, in turn")
    ] = None,
    epochs: Annotated[str | None, _option("Passes over the 100 training records.", "100")] = None,
    batch: Annotated[str | None, _option("Records in a training step.", "20")] = None,
    optimizer: Annotated[str | None, _option("sgd or adam.", "adam")] = None,
    learning_rate: Annotated[str | None, _option("Of the optimizer.", "0.002")] = None,
    truncate: Annotated[
        str | None, _option("Earlier steps that the gradient flows back through; 49 is full BPTT.", "5")
    ] = None,
    clip: Annotated[str | None, _option("Bound on each element of the gradients.", "1")] = None,
    seed: Annotated[str | None, _option("Of the weights and the order of the records.", "0")] = None,
    article: Annotated[
        bool, typer.Option("--article", help="The article's settings, for each of the above that is not given.")
    ] = False,
    output: Annotated[Path | None, _option("The report's folder.", "reports/<time>-sine")] = None,
) -> None:
    """Predict the next value of a sine; the last line printed is the report's path.

    Ctrl-C ends the training and reports what is there.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from bench.cases import ChoiceError
    from bench.run import REPORTS
    from bench.tasks.sine import ARTICLE, DEFAULT, Lesson
    from bench.tasks.training import choose

    settings = choose(
        ARTICLE if article else DEFAULT,
        activation=activation,
        hidden=hidden,
        epochs=epochs,
        batch=batch,
        optimizer=optimizer,
        learning_rate=learning_rate,
        truncate=truncate,
        clip=clip,
        seed=seed,
    )
    lesson = Lesson(settings, [implementation] if implementation else ["numpy", "numba-simd"])
    folder = output or REPORTS / f"{datetime.now():%Y%m%d-%H%M%S}-sine"
    if folder.exists() and not folder.is_dir():
        raise ChoiceError(f"--output: expected a folder, got the file {folder}")
    folder.mkdir(parents=True, exist_ok=True)

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[state]}"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task("sine: compiling", total=settings.epochs, state="")

        def show(epoch: int) -> None:
            state = f"validation RMSE {lesson.learners[-1].history.validation_rmse[-1]:.4f}"
            progress.update(bar, description=f"sine: epoch {epoch}", completed=epoch, state=state)

        lesson.train(show)

    from bench.tasks import sine_report

    for words in sine_report.summary(lesson):
        typer.echo(words)
    page = sine_report.write(lesson, folder, shlex.join(["python", "-m", "bench", *sys.argv[1:]])).resolve()
    typer.echo(page.relative_to(Path.cwd()) if page.is_relative_to(Path.cwd()) else page)
    if lesson.outcome == "interrupted":
        raise typer.Exit(130)
