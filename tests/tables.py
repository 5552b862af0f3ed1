"""`python -m tests.tables [--draws 2000] [--seed N]`: tables drawn at random, and every hint of the program followed.

Each draw writes random walks as somebody's table, gives it to `train series` or `train stocks`, and follows each hint
of each refusal word for word, in addition to the options so far. Whatever is read, at any end of this tree, has to be
the walk: its rows, order, numbers and dates. Draw n follows from seed + n: `--draws 1 --seed` of one repeats it alone.

Where a message offers several values of one option, its owner knows which is true, and takes it; where it names an
option without a value, the owner gives the true one. Everything else is done as it is said.
"""

import contextlib
import io
import json
import re
import secrets
import shlex
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Annotated, Any, NamedTuple
from unittest import mock

import numpy as np
import typer

from bench.grid.cases import ChoiceError
from bench.tasks.cli import app
from bench.tasks.forecast import cli
from bench.tasks.forecast.data import Forecast, Table
from tests.drawn.table import Drawn, Series, draw_table

REPEATED = ("--where", "--missing")
EXCLUSIVE = ("--date-column", "--date-format", "--decimal", "--separator", "--column", "--target")
DEEPEST = 8  # hints, one after the other
MOST = 150  # ways of giving options to one table
FOREIGN = re.compile(r"[\x00-\x1f\x7f]|<class|Traceback|Issues with|Errno|Error:|Exception|nan\b.*dtype|object at 0x")
WORD = re.compile(r"""(?:'[^']*'|"(?:[^"\\]|\\.)*"|\\.|[^\s'"\\])+|\S""")
GOT = re.compile(r""", got (?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[^;]*)(?:;|$)""")
PLAIN = re.compile(
    "tells?|leaves?|names?|says?|picks?|takes?|gives?|is|are|reads?|settles|puts?|or|and|with|which|to|for|as|of|may|can"
    r"|how|where|beside|has|have|skips?|also|marks?|first|NAME(S|\[,NAME...\])?|COLUMN(=VALUE)?|VALUE|LINES|FORM"
)

Options = tuple[tuple[str, str], ...]  # as they were given, one of each that is not repeated


class ReadError(BaseException):
    """Raised in place of the race: the table was read."""

    def __init__(self, course: Forecast):
        super().__init__()
        self.course = course


COMMAND = typer.main.get_command(app)


def read(drawn: Drawn, path: Path, options: Options) -> Forecast:
    """Return what the command makes of a table, up to the race, or raise its ChoiceError."""

    def stop(course: Forecast, *_: Any) -> None:
        raise ReadError(course)

    try:
        with mock.patch.object(cli, "race", stop), contextlib.redirect_stdout(io.StringIO()):
            COMMAND.main(words(drawn, path, options), standalone_mode=False)
    except ReadError as done:
        return done.course
    raise AssertionError("the command ended without a race")


def words(drawn: Drawn, path: Path, options: Options) -> list[str]:
    given = dict(zip(drawn.command[1::2], drawn.command[2::2], strict=True))
    given = {name: value for name, value in given.items() if name not in dict(options)}
    pairs = [*given.items(), *options]
    return [drawn.command[0], "--csv", str(path), *(word for pair in pairs for word in pair)]


# Hints


def hints(message: str) -> list[list[tuple[str, str | None]]]:
    """Return the runs of options that a refusal advises, those without a value with None."""
    got = list(GOT.finditer(message))
    advice = message[got[-1].end() :] if got else message.partition("; ")[2] or message
    found: list[list[tuple[str, str | None]]] = []
    texts = WORD.findall(advice)
    at, last = 0, -1
    while at < len(texts):
        option = re.fullmatch(r"(--[a-z]+(?:-[a-z]+)*)(?:=(.+))?([,;.)]?)", texts[at])
        if option is None:
            at += 1
            continue
        name, value, ends = option[1], option[2], bool(option[3])
        begin = at
        at += 1
        if value is None and not ends and at < len(texts) and not texts[at].startswith("--"):
            bare = texts[at].rstrip(",;:") or texts[at]
            if not PLAIN.fullmatch(bare):
                value, ends = bare, bare != texts[at]
                at += 1
        pair = (name, None if value is None else "".join(shlex.split(value)))
        if begin == last:
            found[-1].append(pair)
        else:
            found.append([pair])
        last = -1 if ends else at
    return found


def given(drawn: Drawn, run: list[tuple[str, str | None]]) -> Iterator[Options]:
    """Yield the options of a hint with the values that its owner knows, each way that there is; none if there is no."""
    ways: list[list[tuple[str, str]]] = [[]]
    for name, value in run:
        if value is not None:
            values = [[(name, value)]]
        elif name == "--where":
            values = [[(name, f"{key}={one.rows[0][key]}") for key in drawn.keys] for one in drawn.series if drawn.keys]
        else:
            values = [[(name, known)] for known in drawn.known.get(name, [])]
        ways = [way + more for way in ways for more in values]
    yield from map(tuple, ways)


def followed(drawn: Drawn, message: str, options: Options) -> list[Options]:
    """Return the options so far with those of each hint."""
    ways = [
        way
        for run in hints(message)
        for way in given(drawn, run)
        if None not in dict(run).values() or added(options, way) != options  # the owner has no more to say
    ]
    for name in EXCLUSIVE:
        offered = {value for way in ways for option, value in way if option == name}
        known = [sorted(value.split(",")) for value in drawn.known.get(name, [])]
        true = {value for value in offered if sorted(value.split(",")) in known}
        if len(offered) > 1 and true:
            ways = [way for way in ways if not {value for option, value in way if option == name} - true]
    return list(dict.fromkeys(added(options, way) for way in ways))


def added(options: Options, more: Options) -> Options:
    """Return options with more of them: an option that is given again replaces itself, or is repeated."""
    found = list(options)
    for name, value in more:
        if name in REPEATED:
            found += [(name, value)] if (name, value) not in found else []
        else:
            found = [pair for pair in found if pair[0] != name] + [(name, value)]
    return tuple(sorted(found))


# What is true


def lie(drawn: Drawn, table: Table, options: Options) -> str | None:
    """Return what is wrong with a table that was read, or None."""
    wheres = [value.split("=", 1) for name, value in options if name == "--where"]
    if dict(options).get("--column", drawn.target) != drawn.target:
        return "another column"
    chosen = [(one, [at for at, row in enumerate(one.rows) if _fits(row, wheres)]) for one in drawn.series]
    chosen = [(one, rows) for one, rows in chosen if rows]
    if len(chosen) != 1:
        return f"{len(chosen)} series in one"
    one, rows = chosen[0]
    level = one.levels[drawn.target][rows]
    if len(table.level) != len(level):
        return f"{len(table.level)} rows, not {len(level)}"
    if not np.array_equal(table.level, level):
        at = int((table.level != level).argmax())
        order = "in another order" if np.array_equal(np.sort(table.level), np.sort(level)) else "other numbers"
        return f"{order}: row {at} is {table.level[at]!r}, not {level[at]!r}"
    if one.begins is not None and one.ends is not None and table.labels.dtype.kind == "M":
        labels = table.labels.astype("datetime64[us]")
        wrong = (labels < one.begins[rows]) | (labels >= one.ends[rows])
        if wrong.any():
            at = int(wrong.argmax())
            return f"other dates: row {at} is of {labels[at]}, not {one.begins[rows][at]}"
    return _features_lie(table, one, rows)


def _fits(row: dict[str, str], wheres: list[list[str]]) -> bool:
    cells = {" ".join(name.split()).casefold(): text for name, text in row.items()}
    return all(cells.get(" ".join(where[0].split()).casefold()) == where[-1] for where in wheres)


def _features_lie(table: Table, one: Series, rows: list[int]) -> str | None:
    """Return which of the features are not what they are in a clean table of the same numbers."""
    if not table.logarithmic:
        return None
    from bench.tasks.forecast.stocks import load

    with tempfile.TemporaryDirectory() as folder:
        ref = load(_clean(Path(folder) / "clean.csv", one, rows, table.names), table.target)
    wrong = [name for at, name in enumerate(ref.names) if not np.array_equal(ref.values[:, at], table.values[:, at])]
    return f"other numbers of {', '.join(wrong)}" if wrong or ref.names != table.names else None


def _clean(path: Path, one: Series, rows: list[int], names: tuple[str, ...]) -> Path:
    """Write some columns of a series as a table that leaves nothing open."""
    days = np.datetime64("1900-01-01") + np.arange(len(rows))
    columns = [days.astype(str).tolist(), *([repr(float(value)) for value in one.levels[name][rows]] for name in names)]
    names = ("date", *(f'"{name}"' for name in names))
    path.write_text("\n".join(map(",".join, [names, *zip(*columns, strict=True)])) + "\n", encoding="utf-8")
    return path


# The tree


class End(NamedTuple):
    """One way to give options, and what came of it."""

    options: Options
    depth: int
    message: str | None  # of a refusal
    wrong: str | None = None  # with what was read
    dated: bool = False


class Outcome(NamedTuple):
    ends: list[End]
    failures: list[str]

    @property
    def how(self) -> str:
        """Return whether the walk was read at once, by hints, or never."""
        right = [end for end in self.ends if end.message is None and end.wrong is None]
        return "never" if not right else "at once" if not min(end.depth for end in right) else "by hint"


def follow(drawn: Drawn, path: Path) -> Outcome:
    """Read a table, follow all hints, the nearest first, and return what came of it."""
    before: dict[Options, Options | None] = {(): None}
    ends: list[End] = []
    failures: list[str] = []
    waiting: list[tuple[Options, int]] = [((), 0)]
    while waiting:
        options, depth = waiting.pop(0)
        end = _end(drawn, path, options, depth)
        ends.append(end)
        if end.wrong:
            failures.append(f"lie: {_told(options)}: {end.wrong}")
        if end.message is None:
            continue
        if FOREIGN.search(end.message):
            failures.append(f"foreign words: {_told(options)}: {end.message}")
        for more in followed(drawn, end.message, options):
            if more in _ancestors(before, options):
                failures.append(f"in circles: {_told(options)} to {_told(more)}: {end.message}")
            elif more not in before:
                before[more] = options
                waiting.append((more, depth + 1))
        if depth == DEEPEST and waiting:
            failures.append(f"more than {DEEPEST} hints: {_told(options)}: {end.message}")
            break
        if len(ends) > MOST:
            failures.append(f"more than {MOST} ways")
            break
    outcome = Outcome(ends, failures)
    if outcome.how == "never" and drawn.readable and not failures:
        failures.append(f"never read: {ends[0].message}")
    return outcome


def _end(drawn: Drawn, path: Path, options: Options, depth: int) -> End:
    try:
        course = read(drawn, path, options)
    except ChoiceError as error:
        return End(options, depth, str(error).replace(str(path), path.name))
    except Exception as error:
        return End(options, depth, None, f"{type(error).__name__}: {error}")
    return End(options, depth, None, lie(drawn, course.table, options), course.table.labels.dtype.kind == "M")


def _ancestors(before: dict[Options, Options | None], options: Options | None) -> list[Options]:
    found = []
    while options is not None:
        found.append(options)
        options = before[options]
    return found


def _told(options: Options) -> str:
    return shlex.join([word for pair in options for word in pair]) or "no options"


# The whole command


def verdict_lies(drawn: Drawn, path: Path, options: Options, folder: Path) -> str | None:
    """Train on a table and on the same walk in a clean file, and return how the verdicts differ."""
    wheres = [value.split("=", 1) for name, value in options if name == "--where"]
    table = read(drawn, path, options).table
    one, rows = next(
        (one, rows) for one in drawn.series if (rows := [at for at, row in enumerate(one.rows) if _fits(row, wheres)])
    )
    clean = _clean(folder / "clean.csv", one, rows, table.names)
    few = ("--epochs", "1", "--seeds", "1", "--hidden", "4", "--implementation", "numpy", "--no-wait")
    found = []
    for name, command in (("drawn", words(drawn, path, options)), ("clean", words(drawn, clean, ()))):
        output = io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            COMMAND.main([*command, *few, "--output", str(folder / name)], standalone_mode=False)
        metrics = json.loads((folder / name / "metrics.json").read_text())
        found.append({key: metrics[key] for key in ("verdict", "rows", "features", "target", "judgements")})
    return None if found[0] == found[1] else f"verdict: {found[0]}, not {found[1]}"


def run(seed: int, folder: Path, whole: bool = False) -> tuple[Drawn, Outcome]:
    """Draw a table into a folder and follow all hints."""
    drawn = draw_table(seed)
    path = folder / f"table-{seed}.csv"
    path.write_bytes(drawn.data)
    outcome = follow(drawn, path)
    right = [end for end in outcome.ends if end.message is None and end.wrong is None]
    if whole and right and (different := verdict_lies(drawn, path, right[0].options, folder)):
        outcome.failures.append(f"lie: {_told(right[0].options)}: {different}")
    return drawn, outcome


def main(
    draws: Annotated[int, typer.Option(min=1, help="How many tables.")] = 2000,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the first; else another one each time.")] = None,
    whole: Annotated[int, typer.Option(min=0, help="How many of them are trained on, for the verdict.")] = 0,
    write: Annotated[Path | None, typer.Option(help="A folder for the tables that fail, or for the only one.")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Tell all that was tried.")] = False,
):
    """Draw tables of random walks, and hold what is read of them to the walks."""
    seed = secrets.randbits(24) if seed is None else seed
    print(f"seed {seed}", flush=True)
    begin = monotonic()
    how: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    features: dict[str, Counter[str]] = defaultdict(Counter)
    wrong = 0
    with tempfile.TemporaryDirectory() as temporary:
        for number in range(draws):
            train = number * whole // draws != (number + 1) * whole // draws
            drawn, outcome = run(seed + number, Path(temporary), train)
            wrong += bool(outcome.failures)
            how[outcome.how] += 1
            kinds.update({failure.partition(":")[0] for failure in outcome.failures})
            for feature in drawn.features:
                features[feature][outcome.how] += 1
                features[feature]["failed"] += bool(outcome.failures)
            for failure in outcome.failures[:4]:
                print(f"--draws 1 --seed {seed + number}: {failure}", flush=True)
            if verbose:
                _tell(drawn, outcome)
            if write is not None and (outcome.failures or draws == 1):
                write.mkdir(parents=True, exist_ok=True)
                (write / f"table-{seed + number}.csv").write_bytes(drawn.data)
            (Path(temporary) / f"table-{seed + number}.csv").unlink()
    if draws > 1:
        _summarise(features)
    found = ", ".join(f"{how[name]} {name}" for name in ("at once", "by hint", "never"))
    failed = "".join(f", {count} {kind}" for kind, count in sorted(kinds.items()))
    print(f"{draws} tables, read: {found}; {wrong} failed{failed}; in {monotonic() - begin:.0f} s")
    raise typer.Exit(1 if wrong else 0)


def _tell(drawn: Drawn, outcome: Outcome) -> None:
    print(*drawn.features, sep="; ")
    print({name: values for name, values in drawn.known.items() if values})
    for end in outcome.ends:
        read = end.message or end.wrong or f"read{', dated' if end.dated else ''}"
        print(f"  {end.depth} {_told(end.options)}: {read}")


def _summarise(features: dict[str, Counter[str]]) -> None:
    print(f"{'at once':>8} {'by hint':>8} {'never':>6} {'failed':>7}")
    for feature, counts in sorted(features.items()):
        print(f"{counts['at once']:8} {counts['by hint']:8} {counts['never']:6} {counts['failed']:7}  {feature}")


if __name__ == "__main__":
    typer.run(main)
