"""Keras' files, as data: .keras, .weights.h5, and the .h5 of Keras 2, whole or weights alone.

Keras itself is not asked, so no class of the file's choice is made. `configs` says what each layer is, and where its
weights lie; `native` finds them as Keras 3 lays them out, `legacy` as Keras 2 does, both in `hdf5`; `cells` makes a
Layer of both. What no config tells is taken to be as Keras has it by default, and told, or left out by name.
"""

import json
import zipfile
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from bench.grid.cases import ChoiceError
from bench.grid.models import BROKEN, MOST_BYTES, Found, ModelError, brief, clean, library
from bench.grid.models.keras import legacy, native
from bench.grid.models.keras.cells import Run
from bench.grid.models.keras.configs import LISTS, model_of
from bench.grid.models.keras.hdf5 import expect_stored, opened

MOST_CONFIG = 2**26  # bytes
WEIGHTS = "model.weights.h5"
HDF5 = b"\x89HDF\r\n\x1a\n"  # what it begins with


def read(path: Path, seq_len: int, batch_size: int, activation: str | None = None) -> Found:
    h5py = library("h5py", "models")
    try:
        found = _read(h5py, path, Run(seq_len, batch_size, activation))
    except ModelError as error:
        raise ModelError(brief(error)) from None
    return found._replace(
        layers=[layer._replace(told=tuple(map(brief, layer.told))) for layer in found.layers],
        left_out={clean(name): brief(why) for name, why in found.left_out.items()},
    )


def _read(h5py: Any, path: Path, run: Run) -> Found:
    with path.open("rb") as file:
        if file.read(len(HDF5)) == HDF5:  # which Keras 2.12 and earlier call .keras as well
            with opened(h5py, file) as root:
                return legacy.read(root, run) if legacy.is_legacy(root) else native.read(root, None, run, path.name)
    try:
        with zipfile.ZipFile(path) as archive, TemporaryFile() as file:
            config, metadata = _said(archive, "config.json"), _said(archive, "metadata.json")
            version = metadata.get("keras_version") if isinstance(metadata, dict) else None
            with _member(archive, WEIGHTS, MOST_BYTES) as member:
                while block := member.read(2**24):
                    file.write(block)
            file.seek(0)
            with opened(h5py, file) as root:
                model = model_of(config, version, "config.json", LISTS[1] in root.group)
                return native.read(root, model, run, path.name)
    except ChoiceError:
        raise
    except BROKEN:
        raise ModelError("expected a file as Keras writes them, got something else or a damaged one") from None


def _said(archive: zipfile.ZipFile, name: str) -> Any:
    """Return what a file of JSON says."""
    with _member(archive, name, MOST_CONFIG) as member:
        text = member.read()
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ModelError(f"{name}: expected JSON, got something else") from None


def _member(archive: zipfile.ZipFile, name: str, most: int) -> Any:
    """Return an open file of the archive, of at most so many bytes."""
    try:
        info = archive.getinfo(name)
    except KeyError:
        raise ModelError(f"expected a .keras file with {name} in it, got none") from None
    if info.file_size > most:
        raise ModelError(f"{name}: expected at most {most >> 20:,} MiB, got {info.file_size >> 20:,}")
    expect_stored(name, info.file_size, info.compress_size)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ModelError(f"{name}: expected it as it is or deflated, got it packed in another way")
    return archive.open(info)
