"""What the commands of all tasks share: some options, the report's folder, and how they end."""

import shlex
import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.grid.cases import ChoiceError
from bench.results.files import new_folder
from bench.results.runs import REPORTS


def option(words: str, default: str | bool = False) -> Any:
    return typer.Option(help=words, show_default=default)


Resume = Annotated[Path | None, option("Go on with the training that was kept in this folder, with its settings.")]
Output = Annotated[Path | None, option("The report's folder.", "reports/<time>-<task>, or that of --resume")]


def none_beside_resume(given: Mapping[str, object]) -> None:
    """Raise a ChoiceError if one of these options has a value: all of them were settled when the training began."""
    for name, value in given.items():
        if value is not None:
            raise ChoiceError(f"--{name.replace('_', '-')}: expected none beside --resume, got {value!r}")


def report_folder(task: str, output: Path | None) -> Path:
    """Return the folder asked for, or one named by the time, and make it."""
    if output is None:
        return new_folder(REPORTS / f"{datetime.now():%Y%m%d-%H%M%S}-{task}")
    if output.exists() and not output.is_dir():
        raise ChoiceError(f"--output: expected a folder, got the file {output}")
    output.mkdir(parents=True, exist_ok=True)
    return output


def command_line() -> str:
    return shlex.join(["python", "-m", "bench", *sys.argv[1:]])


def finish(page: Path, interrupted: bool) -> None:
    """Print the report's path, the last line of all, and end as Ctrl-C does if that was pressed."""
    page = page.resolve()
    typer.echo(page.relative_to(Path.cwd()) if page.is_relative_to(Path.cwd()) else page)
    if interrupted:
        raise typer.Exit(130)
