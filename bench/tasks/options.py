"""What the commands of all tasks share: some options, the report's folder, and how they end."""

import contextlib
import shlex
import signal
import sys
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.grid.cases import ChoiceError
from bench.results.files import expect_folder, new_folder
from bench.results.runs import REPORT, REPORTS


def option(words: str, default: str | bool = False) -> Any:
    return typer.Option(help=words, show_default=default)


Resume = Annotated[Path | None, option("Go on with the training that was kept in this folder, with its settings.")]
Layers = Annotated[str | None, option("Layers, each of which reads the states of the one below.", "1")]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Fail if another benchmark is at work on this machine.")]
Scheduler = Annotated[
    str | None, option("Learn on the machines of a Dask cluster that are alike, such as tcp://host:8786: a seed each.")
]
Output = Annotated[Path | None, option("The report's folder.", "reports/<time>-<task>, or that of --resume")]


def expect_waiting(no_wait: bool) -> None:
    """Raise a ChoiceError for --no-wait beside --scheduler: a machine of a cluster waits until it is its turn."""
    if no_wait:
        raise ChoiceError("--no-wait: expected none beside --scheduler, whose machines wait for their turn")


def expect_as_kept(given: Mapping[str, object], kept: Mapping[str, object]) -> None:
    """Raise a ChoiceError if an option beside --resume is another than the training began with: that settled it."""
    for name, value in given.items():
        known = kept.get(name)
        if value is not None and _plain(value) != _plain(known):
            expected = f"{known!r}, as the training of --resume has it" if known is not None else "none beside --resume"
            raise ChoiceError(f"--{name.replace('_', '-')}: expected {expected}, got {value!r}")


def _plain(value: object) -> object:
    """Return an option so that two ways to write it are equal."""
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    try:
        return float(str(value))
    except ValueError:
        return str(value)


def report_folder(task: str, output: Path | None) -> Path:
    """Return the folder asked for, or one named by the time, and make it."""
    if output is None:
        return new_folder(REPORTS / f"{datetime.now():%Y%m%d-%H%M%S}-{task}")
    expect_folder("--output", output)
    page = output / REPORT
    if page.exists() and not (output / "metrics.json").exists():  # which every training writes beside it
        raise ChoiceError(f"--output: expected a folder without another report, got {page}")
    output.mkdir(parents=True, exist_ok=True)
    return output


def command_line() -> str:
    return shlex.join(["python", "-m", "bench", *sys.argv[1:]])


class Laps:
    """What the seconds of a command went to."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def to(self, work: str) -> None:
        """Say what the time since the last call went to."""
        now = time.perf_counter()
        self._seconds[work] = self._seconds.get(work, 0.0) + now - self._last
        self._last = now

    def words(self) -> str:
        parts = ", ".join(f"{taken:.1f} s {work}" for work, taken in self._seconds.items())
        return f"Took {sum(self._seconds.values()):.1f} s: {parts}."


def finish(write: Callable[[], Path], folder: Path, laps: Laps, interrupted: bool) -> None:
    """Write the report and print its path, the last line of all, and end as Ctrl-C does if that was pressed.

    Pressed while the report is written, Ctrl-C ends the process at once, whatever that is at: it may be compiling, of
    which Python hears no signal for a minute.
    """
    print(f"Writing the report; the training is kept in {folder}, and Ctrl-C ends at once.", file=sys.stderr)
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        page = write().resolve()
    except KeyboardInterrupt:
        print(f"Interrupted: the training is kept in {folder}.", file=sys.stderr)
        raise typer.Exit(130) from None
    finally:
        signal.signal(signal.SIGINT, before)
    laps.to("the report")
    print(laps.words(), file=sys.stderr)
    print(page.relative_to(Path.cwd()) if page.is_relative_to(Path.cwd()) else page)
    if interrupted:
        raise typer.Exit(130)


def nothing_learned(folder: Path) -> None:
    """End as Ctrl-C does when it was pressed before anything was learned; a folder that is empty goes."""
    print("Interrupted before the first step: there is nothing to report.", file=sys.stderr)
    with contextlib.suppress(OSError):
        folder.rmdir()
    raise typer.Exit(130)
