"""A run on disk: a folder with `run.json` (what was asked, by whom, on what machine) and `rows.jsonl`.

A row is one implementation's result for one case. The rows of a case are written together, the moment they exist,
and flushed to the disk: a run that is killed loses at most the case in work. A line cut short by a crash is dropped.
What is read has the form that `bench.results.form` says, or is refused.
"""

import fcntl
import json
import os
import sys
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from bench.grid.cases import harmless
from bench.results import form
from bench.results.files import naming, new_folder, save
from bench.results.form import ResultsError, instant

FORMAT = 1
REPORTS = Path("reports")  # where run folders go, below the current folder
ALIKE = "alike"  # the host of a run that machines shared
MOST_BYTES = {"run.json": 2**24, "rows.jsonl": 2**28}  # of a file that is read: some 100,000 rows
MOST_LINE = 2**23  # bytes: what is read of JSON can take twenty times the memory
KEY = (
    "cell",
    "layers",
    "directions",
    "operation",
    "hidden_size",
    "input_size",
    "seq_len",
    "batch_size",
    "lengths",
    "dtype",
    "threads",
    "model",
    "activation",
    "implementation",
)


def key(row):
    """Return what identifies a row in its run: the case and the implementation."""
    return tuple(row[name] for name in KEY)


class Run:
    """A run's folder, its `info` (run.json) and its `rows`."""

    def __init__(self, folder, info, rows=(), ends=()):
        self.folder, self.info, self.rows = Path(folder), info, list(rows)
        self._ends = list(ends)  # where each row ends in rows.jsonl
        self._lock = None

    @classmethod
    def create(cls, folder, info):
        """Start a run, locked, in a new folder of this name, or of this name with a number behind it."""
        folder = new_folder(Path(folder))
        run = cls(folder, {"format": FORMAT, "name": folder.name, **info, "started": _now(), "finished": None})
        run._path.touch()
        run.lock()  # before run.json shows it to others
        run.save_info()
        return run

    @classmethod
    def load(cls, folder):
        """Return the run in `folder`, or raise a ResultsError."""
        folder = Path(folder)
        info = _read_info(folder)
        lines = _read(folder / "rows.jsonl").splitlines(keepends=True)
        if lines and not lines[-1].endswith(b"\n") and info["finished"] is None:
            lines.pop()
        rows, ends, numbers = [], [], {}
        for number, line in enumerate(lines, 1):
            where = f"{folder / 'rows.jsonl'}, line {number}"
            if len(line) > MOST_LINE:
                raise ResultsError(f"{where}: expected at most {MOST_LINE >> 20} MiB, got {len(line) >> 20}")
            row = _parse(line, where)
            form.check(row, form.ROW, where)
            if row["status"] == "ok" and not row["times"]:
                raise ResultsError(f"{where}: times: expected some, as its status is ok, got none")
            if (first := numbers.setdefault(key(row), number)) != number:
                raise ResultsError(f"{where}: expected another case or implementation than line {first}, got the same")
            rows.append(row)
            ends.append((ends[-1] if ends else 0) + len(line))
        return cls(folder, info, rows, ends)

    def reload(self):
        """Read everything again from the disk."""
        run = Run.load(self.folder)
        self.info, self.rows, self._ends = run.info, run.rows, run._ends

    def append(self, *rows):
        """Add rows and see them safely to the disk."""
        lines = [(json.dumps(row, allow_nan=False) + "\n").encode() for row in rows]
        with naming(self._path), self._path.open("r+b" if self._path.exists() else "w+b") as file:
            file.truncate(self._ends[-1] if self._ends else 0)  # a line cut short by a crash
            file.seek(0, os.SEEK_END)
            file.write(b"".join(lines))
            file.flush()
            os.fsync(file.fileno())
        for row, line in zip(rows, lines, strict=True):
            self.rows.append(row)
            self._ends.append((self._ends[-1] if self._ends else 0) + len(line))

    def drop_last(self, count):
        """Forget the last `count` rows; the file is cut at the next `append`."""
        del self.rows[len(self.rows) - count :], self._ends[len(self._ends) - count :]

    def finish(self):
        """Record that everything that was asked for is there."""
        self.info["finished"] = _now()
        self.save_info()

    def save_info(self):
        """Write run.json, whole or not at all."""
        save(self.folder / "run.json", json.dumps(self.info, indent=2) + "\n")

    def lock(self):
        """Claim the run for this process, until it ends; return whether nobody else had."""
        self._lock = self._path.open("rb")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            return False
        return True

    def unlock(self):
        """Let another process go on with the run."""
        if self._lock is not None:
            self._lock.close()

    @property
    def _path(self):
        return self.folder / "rows.jsonl"


def unfinished(reports, wanted, fits=lambda info: True):
    """Return the newest unfinished run in the folder `reports` whose info fits and holds `wanted`, locked, or None.

    Runs that cannot be read are left out, and said to be.
    """
    found = []
    for path in Path(reports).glob("*/run.json"):
        with _told():
            run = Run(path.parent, _read_info(path.parent))
            alike = all(run.info.get(name) == value for name, value in wanted.items())
            if run.info["finished"] is None and alike and fits(run.info):
                found.append(run)
    for run in sorted(found, key=lambda run: (instant(run.info["started"]), run.folder), reverse=True):
        with _told():
            if run.lock():
                run.reload()  # whoever held it may have gone on in between
                if run.info["finished"] is None:
                    return run
        run.unlock()
    return None


@contextmanager
def _told():
    """Go on after a run that cannot be read, and say so."""
    try:
        yield
    except (ResultsError, OSError) as error:
        print(harmless(f"warning: left out: {error}"), file=sys.stderr)


def _read_info(folder):
    """Return what a folder's run.json says, or raise a ResultsError."""
    path = folder / "run.json"
    info = _parse(_read(path), path)
    if not isinstance(info, dict) or info.get("format") != FORMAT:
        raise ResultsError(f"{path}: not of format {FORMAT}")
    form.check(info, form.INFO, str(path))
    return info


def _read(path):
    """Return the bytes of a file of a run, or raise a ResultsError."""
    most = MOST_BYTES[path.name]
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise ResultsError(f"{path.parent}: no run here ({error.strerror}: {path.name})") from None
    if len(data) > most:
        raise ResultsError(f"{path}: expected at most {most >> 20} MiB, got more")
    return data


def _parse(data, where):
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ResultsError(f"{where}: not JSON ({error})") from None


def _now():
    return datetime.now().astimezone().isoformat(timespec="seconds")
