"""Checkpoints: arrays and a description, in one `.npz` file without pickle.

The description is JSON, kept as the text of an array named `about`, beside a checksum of them all. A file is written
whole or not at all. A training is kept as `training.npz` in its report's folder.
"""

import hashlib
import json
import math
import os
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bench.grid.cases import ChoiceError
from bench.results.files import naming
from bench.tasks.learning.forms import expect

FORMAT = 1

Arrays = dict[str, np.ndarray]
Tree = dict[str, Any]  # of arrays and further trees


def save(path: Path, kind: str, about: dict[str, Any], arrays: Arrays) -> None:
    """Write a checkpoint in the place of the file at `path`, which stays as it was if that fails.

    `kind` says what it is a checkpoint of; no array may be called "about" or "checksum".
    """
    text = json.dumps({"format": FORMAT, "kind": kind, **about}, ensure_ascii=False)
    arrays = {"about": np.array(text), **arrays}
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with naming(path):
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
        _expect_to_fit(path)
        with np.load(path, allow_pickle=False) as archive:
            arrays = dict(archive)
        if not np.array_equal(arrays.pop("checksum"), _checksum(arrays)):
            raise ValueError("checksum")
        about = json.loads(str(arrays.pop("about")))
        found = about.pop("format"), about.pop("kind")
    except OSError as error:
        raise ChoiceError(f"{path}: expected a saved {kind}: {error.strerror}") from None
    except Exception:  # what is wrong with a file decides which reader stumbles, and over what
        raise ChoiceError(f"{path}: expected a saved {kind}, got a damaged file or one of another program") from None
    expect(found == (FORMAT, kind), str(path), f"a saved {kind} of format {FORMAT}", f"{found[1]} of format {found[0]}")
    return about, arrays


def save_training(folder: Path, task: str, about: dict[str, Any], tree: Tree) -> None:
    """Keep a training in its folder; see `save`. The names in the tree have no "/", and an empty tree is not kept."""
    save(folder / "training.npz", f"{task} training", about, dict(_leaves(tree)))


def load_training(folder: Path, task: str) -> tuple[dict[str, Any], Tree]:
    """Return what `save_training` has kept; see `load`."""
    about, arrays = load(folder / "training.npz", f"{task} training")
    tree: Tree = {}
    for path, array in arrays.items():
        *branches, name = path.split("/")
        at = tree
        for branch in branches:
            at = at.setdefault(branch, {})
            expect(isinstance(at, dict), str(folder / "training.npz"), "one array of a name", path)
        at[name] = array
    return about, tree


def _expect_to_fit(path: Path) -> None:
    """Raise a ValueError if the arrays of a `.npz` would take more memory than the file is long."""
    about = path.stat()
    if not stat.S_ISREG(about.st_mode):
        raise ValueError("a pipe, or a folder")
    with zipfile.ZipFile(path) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > about.st_size:
            raise ValueError("compressed")
        for entry in archive.infolist():
            with archive.open(entry) as file:
                version = np.lib.format.read_magic(file)
                header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
                shape, _, dtype = header[version](file)
                if math.prod(shape) * dtype.itemsize > entry.file_size:
                    raise ValueError("cut short")


def fingerprint(arrays: Arrays) -> str:
    """Return the SHA-256 of the arrays' names, types, shapes and contents, as a hexadecimal number."""
    found = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        found.update(f"{name} {array.dtype.str} {array.shape}".encode())
        found.update(array.tobytes())
    return found.hexdigest()


def _checksum(arrays: Arrays) -> np.ndarray:
    return np.frombuffer(bytes.fromhex(fingerprint(arrays)), np.uint8)


def _leaves(tree: Tree, path: str = "") -> Iterator[tuple[str, np.ndarray]]:
    for name, branch in tree.items():
        if isinstance(branch, dict):
            yield from _leaves(branch, f"{path}{name}/")
        else:
            yield path + name, branch
