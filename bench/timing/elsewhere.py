"""NAME@WHERE: an implementation of another version, which takes part beside NAME, in the same turns.

WHERE is a git revision of this project, for what is its own: the revision's whole source lies in a folder in the
cache, and its worker runs from there, with its own kernels and its own compiled code. Or it is the folder of a virtual
environment: its interpreter, with its libraries, runs today's source. What a revision computes is verified as all else
is, against what today's reference expects.
"""

import inspect
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import asdict, fields
from pathlib import Path
from typing import NamedTuple

from bench.grid.cases import STREAM, Case, ChoiceError
from bench.implementations import RUNGS
from bench.results.files import in_words
from bench.timing.worker import ROOT, Desk
from kernels.core.code.cache import base_folder

PACKAGES = ("bench", "kernels", "reference")
REQUESTS = ("start", "build", "calibrate", "round")
TIME_LIMIT_S = 60  # to ask an environment for its versions, or git for a revision

# Run by the interpreter that is asked, with the source that it would run: it need not know more than a worker needs.
_ASK = """
import sys
if sys.version_info < (3, 11):
    sys.exit("expected Python 3.11 or later, got " + sys.version.split()[0])
source, module = sys.argv[1:]
sys.path.insert(0, source)
import inspect, json
from importlib import import_module
from bench.grid.cases import Case
from bench.timing.worker import Desk
requests = {name: list(inspect.signature(method).parameters) for name, method in vars(Desk).items() if callable(method)}
version = import_module(module).version()
said = {"version": version, "python": sys.version.split()[0]}
print(json.dumps(said | {"requests": requests, "knows": list(Case.__dataclass_fields__)}))
"""


class Elsewhere(NamedTuple):
    """Where another version is, and what it is."""

    python: str  # the interpreter
    source: Path  # the folder of its packages
    version: str
    revision: str = ""  # of a commit, in seven digits; "" if the source is today's
    knows: tuple[str, ...] = ()  # the fields of a case, and what else its worker can be asked

    def lacks(self, case: Case, weights: bool = False) -> str:
        """Return what of a case, which may have `weights` of its own, this version does not know, in words, or ""."""
        usual = {field.name: field.default for field in fields(case)}
        unnamed = {name: value for name, value in asdict(case).items() if name != "model"}
        names = [name for name, value in unnamed.items() if name not in self.knows and value != usual[name]]
        if weights and "weights" not in self.knows:
            names.append("weights of a file")
        if case.operation == STREAM and self.revision and "pace" not in self.knows:
            names.append("operation stream")
        return ", ".join(names)

    def told(self, case: Case) -> dict:
        """Return a case as this version takes it."""
        return {name: value for name, value in asdict(case).items() if name in self.knows}


def elsewhere(name: str, where: str, module: str, option: str) -> Elsewhere:
    """Return where NAME@WHERE is, or raise a ChoiceError that begins with the option that asks for it."""
    option = f"{option}: {name}@{where}"
    python = Path(where, "bin", "python")
    if where and python.exists():
        return _asked(str(python.absolute()), _today(), module, option)  # not resolved: it is known by its place
    if name not in RUNGS:
        raise ChoiceError(f"{option}: expected the folder of a virtual environment, got one without bin/python")
    commit = _commit(where, option)
    return _asked(sys.executable, _source_of(commit, option), module, option, commit[:7])


def _asked(python: str, source: Path, module: str, option: str, revision: str = "") -> Elsewhere:
    """Return what an interpreter says of a module in this source."""
    command = [python, "-c", _ASK, str(source), module]
    try:
        done = subprocess.run(command, capture_output=True, cwd=source, timeout=TIME_LIMIT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        why = in_words(error) if isinstance(error, OSError) else f"no answer within {TIME_LIMIT_S} s"
        raise ChoiceError(f"{option}: expected an environment whose Python runs, got: {why}") from None
    if done.returncode:
        expected = "a revision that today's worker can ask" if revision else "an environment that can run a worker"
        raise ChoiceError(f"{option}: expected {expected}, got: {_line(done.stderr.decode(errors='replace'))}")
    said = json.loads(done.stdout.splitlines()[-1])
    for request in REQUESTS:
        wanted = [name for name in inspect.signature(getattr(Desk, request)).parameters if name != "weights"]
        if not set(wanted) <= set(said["requests"].get(request, ())):
            raise ChoiceError(f"{option}: too old for today's worker, which asks for {request}({', '.join(wanted)})")
    if said["version"] is None:
        raise ChoiceError(f"{option}: expected an environment with the library, got one without")
    words = [said["version"]]
    if revision:
        words.append(f"revision {revision}")
    if said["python"] != sys.version.split()[0]:
        words.append(f"Python {said['python']}")
    knows = (*said["knows"], *said["requests"], *said["requests"]["build"])
    return Elsewhere(python, source, ", ".join(words), revision, knows)


def _line(text: str) -> str:
    """Return the last line of what a process said, which in Python says what was wrong, behind the error's class."""
    return re.sub(r"^[\w.]+(Error|Exception): ", "", (text.strip().splitlines() or ["no word"])[-1].strip())


def _git(*arguments: str) -> bytes | None:
    """Return what git says in this project's repository, or None if it refuses or there is none."""
    command = ["git", "-C", str(ROOT), *arguments]
    try:
        return subprocess.run(command, capture_output=True, check=True, timeout=TIME_LIMIT_S).stdout
    except (OSError, subprocess.SubprocessError):
        return None


def _commit(where: str, option: str) -> str:
    """Return the full name of a revision's commit."""
    inside = _git("rev-parse", "--show-toplevel")
    if inside is None or Path(inside.decode().strip()).resolve() != ROOT:
        raise ChoiceError(f"{option}: expected a checkout of this project, with git, to look in, got none in {ROOT}")
    found = _git("rev-parse", "--quiet", "--verify", "--end-of-options", f"{where}^{{commit}}")
    if (
        found is None
        and where
        and not Path(where).exists()
        and _git("rev-parse", "--is-shallow-repository") == b"true\n"
    ):
        missing = f"{option}: expected a revision that is in this clone, which is shallow"
        raise ChoiceError(f"{missing} (`git fetch --unshallow` brings all), got one that is not")
    if found is None:
        others = "a git revision of this project, such as main~5, or the folder of a virtual environment"
        raise ChoiceError(f"{option}: expected {others}, got neither")
    return found.decode().strip()


def _source_of(commit: str, option: str) -> Path:
    """Return the folder of a commit's source in the cache, written there if it is not."""
    try:
        revisions = base_folder("revisions")
    except OSError as error:
        raise ChoiceError(f"{option}: expected a folder to keep a revision in, got none ({in_words(error)})") from None
    folder = revisions / commit
    if folder.exists():
        return folder
    present = [name for name in PACKAGES if _git("cat-file", "-e", f"{commit}:{name}") is not None]
    archive = _git("archive", "--format=tar", commit, *present) if len(present) == len(PACKAGES) else None
    if archive is None:
        raise ChoiceError(f"{option}: too old for today's worker: expected {', '.join(PACKAGES)} in it")
    with tempfile.TemporaryDirectory(dir=revisions) as draft:
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            tar.extractall(draft, filter="data")
        try:
            os.rename(draft, folder)
        except OSError:
            if not folder.exists():  # another process may have been faster
                raise
    return folder


def _today() -> Path:
    """Return a folder with today's source alone: beside an installed one lie libraries that belong to this Python."""
    if (ROOT / "pyproject.toml").exists():
        return ROOT
    folder = base_folder("installed", str(ROOT).strip(os.sep).replace(os.sep, "-"))
    for package in PACKAGES:
        link = folder / package
        if not link.is_symlink():
            link.symlink_to(ROOT / package)
    return folder
