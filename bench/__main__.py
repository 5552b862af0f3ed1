"""The command line: `python -m bench`."""

import codecs
import io
import os
import signal
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.fleet import expect_distributed
from bench.grid import presets
from bench.grid.cases import ChoiceError, harmless
from bench.grid.presets import OPTIONS, find_preset
from bench.results.files import expect_folder, new_folder
from bench.results.runs import REPORTS, ResultsError, Run
from bench.tasks.cli import app as tasks
from bench.tasks.options import NoWait, expect_waiting
from bench.tasks.text.cli import generate
from bench.timing.worker import WorkerError

COMMAND = "unrolled" if Path(sys.argv[0]).stem == "unrolled" else "python -m bench"

app = typer.Typer(
    help="How fast can a recurrent network run on this CPU, and who gets closest?",
    add_completion=COMMAND == "unrolled",  # a shell completes the words behind one name
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(tasks, name="train")
app.command()(generate)


def _choice(name):
    return typer.Option(help=OPTIONS[name])


def _tell_version(wanted):
    if wanted:
        from importlib.metadata import version

        from kernels.core.simd import BITS

        print(f"unrolled {version('unrolled')}, Numba {version('numba')}, vectors of {BITS} bits")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def default(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_tell_version,
            is_eager=True,
            help="Tell the version, Numba's, and how wide this CPU's vectors are.",
        ),
    ] = False,
):
    """Without a command: `run --preset quick`."""
    if context.invoked_subcommand is None:
        run()


@app.command()
def run(
    preset: Annotated[str | None, typer.Option(help=OPTIONS["preset"], show_default=presets.PRESET)] = None,
    model: Annotated[str | None, _choice("model")] = None,
    cell: Annotated[str | None, _choice("cell")] = None,
    operation: Annotated[str | None, _choice("operation")] = None,
    hidden: Annotated[str | None, _choice("hidden")] = None,
    seq_len: Annotated[str | None, _choice("seq_len")] = None,
    batch: Annotated[str | None, _choice("batch")] = None,
    input: Annotated[str | None, _choice("input")] = None,
    dtype: Annotated[str | None, _choice("dtype")] = None,
    layers: Annotated[str | None, _choice("layers")] = None,
    directions: Annotated[str | None, _choice("directions")] = None,
    lengths: Annotated[str | None, _choice("lengths")] = None,
    activation: Annotated[str | None, _choice("activation")] = None,
    threads: Annotated[str | None, _choice("threads")] = None,
    implementations: Annotated[str | None, _choice("implementations")] = None,
    precision: Annotated[str | None, _choice("precision")] = None,
    period: Annotated[str | None, _choice("period")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start anew, though an unfinished run could go on.")] = False,
    reports: Annotated[Path | None, typer.Option(help="Where run folders go.", show_default="reports/")] = None,
    no_wait: NoWait = False,
    scheduler: Annotated[
        str | None, typer.Option(help="Measure on every machine of a Dask cluster, such as tcp://host:8786.")
    ] = None,
    share: Annotated[
        bool, typer.Option("--share", help="With --scheduler: machines that are alike share the grid.")
    ] = False,
    tls_ca_file: Annotated[str | None, typer.Option(help="For a tls:// scheduler: the authority's file (PEM).")] = None,
    tls_cert: Annotated[str | None, typer.Option(help="Our certificate.")] = None,
    tls_key: Annotated[str | None, typer.Option(help="Our key.")] = None,
):
    """Verify and time implementations on a grid of cases and write a report.

    The last line printed is the report's path. A run that was cut short goes on where it stopped.
    """
    from bench.machine.lock import the_machine
    from bench.report.report import write_run
    from bench.timing.plan import plan

    choices = {
        "model": model,
        "implementations": implementations,
        "precision": precision,
        "period": period,
        "cell": cell,
        "operation": operation,
        "hidden": hidden,
        "seq_len": seq_len,
        "batch": batch,
        "input": input,
        "dtype": dtype,
        "layers": layers,
        "directions": directions,
        "lengths": lengths,
        "activation": activation,
        "threads": threads,
    }
    if scheduler is not None:
        expect_waiting(no_wait)
        if model is not None:
            raise ChoiceError("--model: expected no --scheduler beside it, since a file is read on this machine")
        print(
            _shown(
                _far(
                    scheduler,
                    preset or presets.PRESET,
                    choices,
                    reports or REPORTS,
                    share,
                    fresh,
                    (tls_ca_file, tls_cert, tls_key),
                )
            )
        )
        return
    if share or tls_ca_file or tls_cert or tls_key:
        raise ChoiceError("--share, --tls-ca-file, --tls-cert, --tls-key: expected --scheduler beside them, got none")
    planned = plan(preset, **choices)
    with the_machine(wait=not no_wait):
        current = _measured(planned, reports or REPORTS, fresh)
    print(_shown(write_run(current)))


def _far(scheduler, preset, choices, reports, share, fresh, tls):
    """Measure on the machines of a cluster and return the report's path, or end as the signal does that stopped it."""
    expect_distributed()
    from bench.fleet.bars import Bars
    from bench.fleet.far import Wish
    from bench.fleet.fleet import TLS, Fleet, connect
    from bench.fleet.runs import Grid
    from bench.report import report

    expect_folder("--reports", reports)
    wish = Wish(preset, find_preset(preset), {name: text for name, text in choices.items() if text is not None})
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with connect(scheduler, TLS(*tls)) as client, Bars() as bars:
        fleet = Fleet(client, Grid(wish, reports, share, fresh), bars.tell, bars.watch)
        try:
            runs = [kind.run for kind in fleet.work()]
        except (KeyboardInterrupt, SystemExit, OSError) as stop:
            bars.tell(_stopped(stop, f"{sum(kind.done for kind in fleet.kinds)} cases are kept in {_shown(reports)}"))
            raise typer.Exit(_code(stop)) from None
    runs = [Run.load(run.folder) for run in runs]
    path = [report.write_run(run) for run in runs][-1]
    if len(runs) > 1:
        path = report.write(runs, new_folder(reports / f"{datetime.now():%Y%m%d-%H%M%S}-machines"))
    return path


def _measured(planned, reports, fresh=None):
    """Return the run of a plan, finished, or end as the signal does that stopped it; None: there is no --fresh."""
    from bench.timing import whole
    from bench.timing.loop import Bench
    from bench.timing.plan import open_run

    current, resumed = open_run(planned, reports, fresh)
    for warning in current.info["machine"]["warnings"]:
        print(f"warning: {warning}", file=sys.stderr)
    if resumed:
        anew = "" if fresh is None else " (--fresh starts anew)"
        print(f"Going on with {_shown(current.folder)}, unfinished, {len(current.rows)} rows{anew}.")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        with Bench(current, planned) as bench:
            _measure_all(bench, planned)
        whole.measure(current, planned)
    except (KeyboardInterrupt, SystemExit, OSError) as stop:
        print(_stopped(stop, f"{len(current.rows)} rows are kept in {_shown(current.folder)}"), file=sys.stderr)
        raise typer.Exit(_code(stop)) from None
    current.finish()
    return current


def _stopped(stop, kept):
    """Return what stopped a run, and what is kept of it, in words."""
    said = isinstance(stop, OSError) and (stop.strerror or " ".join(str(stop).split()) or type(stop).__name__)
    why = f"{stop.filename or 'Stopped'}: {said}" if said else "Interrupted"
    return f"{why}: {kept}. The same command goes on there."


def _code(stop):
    """Return the exit code that says what stopped a run."""
    codes = {KeyboardInterrupt: 128 + signal.SIGINT, SystemExit: 128 + signal.SIGTERM}
    return codes.get(type(stop), 1)


def _measure_all(bench, planned):
    """Measure what is missing, with a bar whose length is the expected time."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.table import Column

    from bench.timing.plan import expected_seconds

    cases = [case for case in planned.cases if bench.missing(case)]
    expected = [expected_seconds(case, planned) for case in cases]
    text = TextColumn("{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis"))
    columns = BarColumn(16), TimeElapsedColumn(), TextColumn("gone,"), TimeRemainingColumn(), TextColumn("left"), text
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task("", total=sum(expected))
        for n, case in enumerate(cases):

            def watch(text, share, n=n, case=case):
                behind = sum(expected[:n]) + share * expected[n]
                progress.update(bar, completed=behind, description=f"{n + 1}/{len(cases)} {case.id}: {text}")

            bench.watch = watch
            bench.measure(case)
        progress.update(bar, completed=sum(expected), description=f"{len(cases)} cases")


@app.command()
def report(runs: Annotated[list[Path], typer.Argument(help="Run folders; several are merged into one report.")]):
    """Write the report of a run again, or one of several runs together."""
    loaded = [Run.load(folder) for folder in runs]
    from bench.report import report

    if len(loaded) == 1:
        path = report.write_run(loaded[0])
    else:
        path = report.write(loaded, new_folder(REPORTS / f"{datetime.now():%Y%m%d-%H%M%S}-merged"))
    print(_shown(path))


@app.command()
def compare(
    old: Annotated[Path | None, typer.Argument(help="The run folder that was before.", show_default=False)] = None,
    new: Annotated[Path | None, typer.Argument(help="The one that came after it.", show_default=False)] = None,
    threshold: Annotated[str, typer.Option(help="The least change that counts.")] = "5%",
    fail_on: Annotated[
        str | None, typer.Option(help="End with exit code 1 if a row got slower by more than this, for example 5%.")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(help="In place of two runs: measure our kernels in turns with those of a git revision."),
    ] = None,
    preset: Annotated[str | None, typer.Option(help="The grid for --against.", show_default="versions")] = None,
    reports: Annotated[
        Path | None, typer.Option(help="Where the run of --against goes.", show_default="reports/")
    ] = None,
    no_wait: NoWait = False,
):
    """Tell in words, row by row, what changed from one run to another, or from a git revision to this source."""
    from rich.console import Console

    from bench.results import compare as comparison

    least = presets.share(threshold, "--threshold")
    limit = None if fail_on is None else presets.share(fail_on, "--fail-on")
    if against is not None:
        if old is not None:
            raise ChoiceError(f"--against: expected no run beside it, got {old}")
        frame = _versions(against, preset or "versions", reports or REPORTS, least, no_wait)
    elif old is None or new is None:
        raise ChoiceError(f"compare: expected two runs, or --against, got {'none' if old is None else 'one run'}")
    elif preset is not None or reports is not None or no_wait:
        raise ChoiceError("--preset, --reports, --no-wait: expected --against beside them, got two runs")
    else:
        frame = comparison.compare(Run.load(old), Run.load(new), least)
    for table in comparison.tables(frame, least):
        Console(markup=False).print(table)
    if limit is not None and len(slower := comparison.regressions(frame, limit)):
        print(f"{len(slower)} rows are slower by more than {fail_on} or no longer work.", file=sys.stderr)
        raise typer.Exit(1)


def _versions(revision, preset, reports, threshold, no_wait):
    """Measure our kernels beside those of a revision, write the report and return what changed since then."""
    from bench.implementations import OURS
    from bench.machine.lock import the_machine
    from bench.report.report import write_run
    from bench.results import compare as comparison
    from bench.timing.plan import plan

    planned = plan(preset, f"{OURS},{OURS}@{revision}")
    with the_machine(wait=not no_wait):
        current = _measured(planned, reports)
    print(_shown(write_run(current)))
    return comparison.versions(current, f"{OURS}@{revision}", threshold)


@app.command()
def null(
    comparisons: Annotated[int, typer.Option(min=1, help="How many, of all implementations together.")] = 200,
    reports: Annotated[Path | None, typer.Option(help="Where run folders go.", show_default="reports/")] = None,
    no_wait: NoWait = False,
):
    """Put the harness to the test: compare implementations with themselves, and fail if they come out different."""
    from rich.progress import track

    from bench.machine.lock import the_machine
    from bench.results.statistics import TWINS
    from bench.timing import null

    with the_machine(wait=not no_wait):
        pairs = null.compare(comparisons, reports or REPORTS)
        found = list(track(pairs, "comparing alike with alike", total=comparisons))
    for one in (one for one in found if one.different):
        low, high = one.ratio.low, one.ratio.high
        print(f"{one.implementation}, {one.case.id}: {one.ratio.median:.3f} ({low:.3f} to {high:.3f})")
    if not found:
        print("No two workers of one implementation gave times for the same case: nothing was put to the test.")
        raise typer.Exit(1)
    different, ratio = sum(one.different for one in found), null.median_ratio(found)
    ends = f" ({ratio.low:.4f} to {ratio.high:.4f})" if len(found) > 1 else ""
    print(f"{different} of {len(found)} null comparisons came out different; {null.allowed(len(found))} may.")
    print(
        f"The median of their ratios is {ratio.median:.4f}{ends}; it may be off 1 by "
        f"{null.OFF:.0%}, or by more if the interval holds 1."
    )
    print(
        f"The ratios have a standard deviation of {null.spread(found):.1%}; intervals allow for {TWINS:.1%} between "
        "processes, beside what the rounds say."
    )
    if not null.passes(found):
        raise typer.Exit(1)


@app.command()
def machine(
    measure: Annotated[
        bool, typer.Option("--measure", help="Measure the roofline anew; let nothing else run.")
    ] = False,
    no_wait: NoWait = False,
):
    """Describe this machine as the reports do, with what it can do at most."""
    from rich.console import Console
    from rich.table import Table

    from bench.machine import peaks, roofline
    from bench.machine.describe import describe, words
    from bench.machine.lock import the_machine

    with the_machine(wait=not no_wait):
        if measure:
            print("Measuring what this machine can do at most: about ten seconds.", file=sys.stderr)
            peaks.measure()
        described = describe(measure=True)
    for warning in described["warnings"]:
        print(f"warning: {warning}", file=sys.stderr)
    about = Table(show_header=False)
    for name, text in words(described).items():
        about.add_row(name, text)
    console = Console(markup=False)
    console.print(about)
    if described["roofline"] is None:
        return
    known = described["roofline"]
    for title, limits in (("Roofline", roofline.table(known)), ("A step at least", roofline.chains(known))):
        table = Table(*limits.columns, title=f"{title}, measured {known['measured'][:10]}")
        for row in limits.itertuples(index=False):
            table.add_row(*map(str, row))
        console.print(table)


def _shown(path):
    """Return a path as short as it can be told from here."""
    path = Path(path).resolve()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _readable(error):
    """Replace a character that an output has no code for: by the byte of a path that it stands for, or an escape."""
    error.end = error.start + 1
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeError:
        return codecs.backslashreplace_errors(error)


codecs.register_error("readable", _readable)

UsageError: Any = typer.BadParameter.__base__  # click's own, which typer carries under a name that has changed


def main():
    """Run the command line and end the process with its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="readable")
    try:
        sys.exit(_run(sys.stdout))
    except UsageError as error:
        _fail(error.format_message(), 2)
    except typer.Abort:  # Ctrl-C, where no command has more to say of it
        print("Interrupted.", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except (ChoiceError, ResultsError, ImportError, NotImplementedError) as error:
        _fail(error, 2)
    except BrokenPipeError:  # who read us, such as `head`, has read enough
        sys.exit(128 + signal.SIGPIPE)
    except (WorkerError, OSError) as error:  # a process that died, a full disk: nobody's bad choice
        _fail(error, 1)


def _run(output):
    """Return the exit code of the command line, with all that it printed written out."""
    try:
        return app(prog_name=COMMAND, standalone_mode=False)
    except SystemExit as end:
        piped = isinstance(end.__context__, BrokenPipeError)  # of which click makes a failure
        raise (end.__context__ if piped else end) from None
    finally:
        try:
            if output is not None:
                output.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), output.fileno())  # or it would fail again at the very end
            raise


def _fail(error, code):
    print(harmless(f"error: {error}"), file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
