"""A run on disk: a folder with `run.json` (what was asked, by whom, on what machine) and `rows.jsonl`.

A row is one implementation's result for one case. The rows of a case are written together, the moment they exist,
and flushed to the disk: a run that is killed loses at most the case in work. A line cut short by a crash is dropped.
"""

import fcntl
import json
import os
from contextlib import suppress
from datetime import datetime
from pathlib import Path

FORMAT = 1
REPORTS = Path("reports")  # where run folders go, below the current folder
KEY = (
    "cell",
    "operation",
    "hidden_size",
    "input_size",
    "seq_len",
    "batch_size",
    "dtype",
    "threads",
    "implementation",
)


class ResultsError(Exception):
    """A folder that holds no run, or a broken one: one line that says which."""


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
        """Start a run in a new folder."""
        folder = Path(folder)
        folder.mkdir(parents=True)
        run = cls(folder, {"format": FORMAT, "name": folder.name, **info, "started": _now(), "finished": None})
        run._path.touch()
        run.save_info()
        return run

    @classmethod
    def load(cls, folder):
        """Return the run in `folder`, or raise a ResultsError."""
        folder = Path(folder)
        try:
            info = json.loads((folder / "run.json").read_text(encoding="utf-8"))
            lines = (folder / "rows.jsonl").read_bytes().splitlines(keepends=True)
        except OSError as error:
            raise ResultsError(f"{folder}: no run here ({error.strerror}: {Path(error.filename).name})") from None
        except ValueError:
            raise ResultsError(f"{folder}: run.json is not JSON") from None
        if not isinstance(info, dict) or info.get("format") != FORMAT:
            raise ResultsError(f"{folder}: run.json is not of format {FORMAT}")
        if lines and not lines[-1].endswith(b"\n"):
            lines.pop()
        rows, ends = [], []
        for number, line in enumerate(lines, 1):
            try:
                rows.append(json.loads(line))
                key(rows[-1])
            except (ValueError, KeyError, TypeError):
                raise ResultsError(f"{folder}: line {number} of rows.jsonl is not a row") from None
            ends.append((ends[-1] if ends else 0) + len(line))
        return cls(folder, info, rows, ends)

    def reload(self):
        """Read everything again from the disk."""
        run = Run.load(self.folder)
        self.info, self.rows, self._ends = run.info, run.rows, run._ends

    def append(self, *rows):
        """Add rows and see them safely to the disk."""
        lines = [(json.dumps(row, allow_nan=False) + "\n").encode() for row in rows]
        with self._path.open("r+b" if self._path.exists() else "w+b") as file:
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
        draft = self.folder / "run.json.new"
        draft.write_text(json.dumps(self.info, indent=2) + "\n", encoding="utf-8")
        draft.replace(self.folder / "run.json")

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


def unfinished(reports, wanted):
    """Return the newest unfinished run in the folder `reports` whose info holds all of `wanted`, locked, or None."""
    found = []
    for path in Path(reports).glob("*/run.json"):
        with suppress(ResultsError):
            run = Run.load(path.parent)
            if run.info["finished"] is None and all(run.info.get(name) == value for name, value in wanted.items()):
                found.append(run)
    for run in sorted(found, key=lambda run: run.info["started"], reverse=True):
        if run.lock():
            run.reload()  # whoever held it may have gone on in between
            if run.info["finished"] is None:
                return run
            run.unlock()
    return None


def _now():
    return datetime.now().astimezone().isoformat(timespec="seconds")
