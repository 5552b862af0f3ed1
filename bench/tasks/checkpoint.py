"""Checkpoints: arrays and a description, in one `.npz` file without pickle.

The description is JSON, kept as the text of an array named `about`, beside a checksum of them all. A file is written
whole or not at all.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from bench.cases import ChoiceError

FORMAT = 1

Arrays = dict[str, np.ndarray]


def save(path: Path, kind: str, about: dict[str, Any], arrays: Arrays) -> None:
    """Write a checkpoint in the place of the file at `path`, which stays as it was if that fails.

    `kind` says what it is a checkpoint of; no array may be called "about" or "checksum".
    """
    text = json.dumps({"format": FORMAT, "kind": kind, **about}, ensure_ascii=False)
    arrays = {"about": np.array(text), **arrays}
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(unfinished, "wb") as file:
            np.savez(file, checksum=_checksum(arrays), **arrays)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def load(path: Path, kind: str) -> tuple[dict[str, Any], Arrays]:
    """Return the description and the arrays of a checkpoint; a ChoiceError if it is none of that kind, or damaged."""
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = dict(archive)
        if not np.array_equal(arrays.pop("checksum"), _checksum(arrays)):
            raise ValueError("checksum")
        about = json.loads(str(arrays.pop("about")))
        found = about["format"], about["kind"]
    except OSError as error:
        raise ChoiceError(f"{path}: expected a saved {kind}: {error.strerror}") from None
    except Exception:  # what is wrong with a file decides which reader stumbles, and over what
        raise ChoiceError(f"{path}: expected a saved {kind}, got a damaged file or one of another program") from None
    if found != (FORMAT, kind):
        raise ChoiceError(f"{path}: expected a saved {kind} of format {FORMAT}, got {found[1]} of format {found[0]}")
    return about, arrays


def _checksum(arrays: Arrays) -> np.ndarray:
    """Return the SHA-256 of the arrays' names, types, shapes and contents, (32,) uint8."""
    found = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        found.update(f"{name} {array.dtype.str} {array.shape}".encode())
        found.update(array.tobytes())
    return np.frombuffer(found.digest(), np.uint8)
