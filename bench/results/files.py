"""Files as they are written: whole or not at all, in folders that nobody else has; what cannot be written is named."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from bench.grid.cases import ChoiceError


def expect_folder(option: str, folder: Path) -> None:
    """Raise a ChoiceError if the folder that an option names cannot be one to write in."""
    for path in (folder, *folder.parents):
        if path.exists() and not path.is_dir():
            raise ChoiceError(f"{option}: expected a folder, got the file {path}")
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    try:
        tempfile.TemporaryFile(dir=there).close()
    except OSError as error:
        expected = f"{option}: expected a folder that can be written"
        raise ChoiceError(f"{expected}, got {folder} ({there}: {error.strerror})") from None


def in_words(error: OSError) -> str:
    """Return what the system says of a failure, without its number, behind the file that it is about."""
    said = error.strerror or " ".join(str(error).split()) or type(error).__name__
    return f"{error.filename}: {said}" if error.filename else said


def new_folder(folder: Path) -> Path:
    """Make a folder of this name, or of this name with "-2", "-3", ... where there is one, and return it."""
    for copy in count(1):
        path = folder if copy == 1 else folder.with_name(f"{folder.name}-{copy}")
        with suppress(FileExistsError):
            path.mkdir(parents=True)
            break
    return path


def save(path: Path, data: str | bytes) -> None:
    """Write a text in UTF-8, or bytes, in the place of what a file held before."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with naming(path):
        try:
            # What a path holds of bytes that are no text is shown by its numbers.
            draft.write_bytes(data if isinstance(data, bytes) else data.encode("utf-8", "backslashreplace"))
            draft.replace(path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let an OSError of the block name this file: what fails as it is written, on a full disk, names none."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise
