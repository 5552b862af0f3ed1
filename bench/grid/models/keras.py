"""Keras' .keras and .weights.h5 files, as data: the weights from the HDF5 file, the equations from config.json.

Keras itself is not asked, so no class of the file's choice is made. A layer's weights lie in cell/vars of its group; a
Bidirectional one has a forward_layer and a backward_layer. Where there is no config.json, activations are taken to be
those by default, and a GRU without biases to have `reset_after=True`.
"""

import json
import zipfile
from math import prod
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np

from bench.grid.models import (
    BROKEN,
    MOST_BYTES,
    Found,
    Layer,
    ModelError,
    brief,
    expect_numbers,
    layer_of,
    library,
    plain,
)
from reference.layouts import from_keras

MOST_CONFIG = 2**26  # bytes
MOST_GROUPS = 100_000
WEIGHTS = "model.weights.h5"
USUAL = {"activation": "tanh", "recurrent_activation": "sigmoid", "reset_after": True}


def read(path: Path, seq_len: int, batch_size: int, activation: str | None = None) -> Found:
    h5py = library("h5py", "models")
    if path.name.lower().endswith(".h5"):
        with path.open("rb") as file:
            return _in_hdf5(h5py, file, {}, seq_len, batch_size)
    try:
        with zipfile.ZipFile(path) as archive, TemporaryFile() as file:
            configs = _configs(json.loads(_member(archive, "config.json", MOST_CONFIG).read(MOST_CONFIG)))
            member = _member(archive, WEIGHTS, MOST_BYTES)
            while block := member.read(2**24):
                file.write(block)
            file.seek(0)
            return _in_hdf5(h5py, file, configs, seq_len, batch_size)
    except BROKEN as error:
        raise ModelError(f"not a .keras file: {brief(error)}") from None


def _member(archive: zipfile.ZipFile, name: str, most: int) -> Any:
    """Return an open file of the archive, of at most so many bytes."""
    try:
        info = archive.getinfo(name)
    except KeyError:
        raise ModelError(f"expected a .keras file with {name} in it, got none") from None
    if info.file_size > most:
        raise ModelError(f"{name}: expected at most {most >> 20:,} MiB, got {info.file_size >> 20:,}")
    return archive.open(info)


def _configs(value: Any) -> dict[str, dict]:
    """Return the configs of all layers that have units, by name."""
    found: dict[str, dict] = {}
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            if "units" in item and isinstance(item.get("name"), str):
                found[item["name"]] = item
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item
    return found


def _in_hdf5(h5py: Any, file: Any, configs: dict, seq_len: int, batch_size: int) -> Found:
    try:
        with h5py.File(file, "r") as root:
            groups = list(_groups(h5py, root))
            expect_numbers(sum(prod(one.shape) for _, _, group in groups for one in _arrays(h5py, group)))
            found, left_out = [], {}
            for name, directions, group in groups:
                try:
                    found.append(_layer(h5py, name, directions, group, configs, seq_len, batch_size))
                except ModelError as error:
                    left_out[name] = str(error)
            return Found(found, left_out)
    except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ModelError(f"not HDF5 as Keras writes it: {brief(error)}") from None


def _groups(h5py: Any, root: Any) -> Any:
    """Yield (name, names of its directions, group) of each recurrent layer, in the order of their paths."""
    waiting, seen = [root], 0
    while waiting:
        group = waiting.pop()
        seen += 1
        if seen > MOST_GROUPS:
            raise ModelError(f"expected at most {MOST_GROUPS:,} groups in it, got more")
        inside = {name: one for name in group if (one := _inside(h5py, group, name)) is not None}
        directions = [name for name in ("forward_layer", "backward_layer") if name in inside]
        if len(directions) == 2 and all(_cell(h5py, inside[name]) for name in directions):
            yield _name(h5py, group), directions, group
        elif _cell(h5py, group) or _inside_cells(h5py, inside):
            yield _name(h5py, group), [""], group
        else:
            waiting += [one for one in reversed(inside.values()) if isinstance(one, h5py.Group)]


def _inside_cells(h5py: Any, inside: dict) -> bool:
    """Tell whether a layer's cell is made of several."""
    return isinstance(inside.get("cell"), h5py.Group) and "cells" in inside["cell"]


def _inside(h5py: Any, group: Any, name: str) -> Any:
    """Return what lies in a group, by a link to this very file; None otherwise."""
    link = group.get(name, getlink=True)
    return group[name] if isinstance(link, h5py.HardLink) else None


def _cell(h5py: Any, group: Any) -> Any:
    """Return the group of weights of a recurrent layer's cell, or None."""
    for name in ("cell", "vars"):
        group = _inside(h5py, group, name) if isinstance(group, h5py.Group) and name in group else None
    return group if isinstance(group, h5py.Group) and "0" in group and "1" in group else None


def _name(h5py: Any, group: Any) -> str:
    """Return the layer's name, which its group of variables has, or its path."""
    variables = _inside(h5py, group, "vars") if "vars" in group else None
    name = variables.attrs.get("name") if variables is not None else None
    return name if isinstance(name, str) and name else group.name.strip("/")


def _arrays(h5py: Any, group: Any) -> list:
    """Return the datasets below a recurrent layer's group."""
    found = []
    for part in ("", "forward_layer", "backward_layer"):
        one = _inside(h5py, group, part) if part and part in group else None if part else group
        if one is not None and (cell := _cell(h5py, one)):
            found += [_inside(h5py, cell, name) for name in cell]
    return [one for one in found if isinstance(one, h5py.Dataset)]


def _layer(h5py: Any, name: str, directions: list, group: Any, configs: dict, seq_len: int, batch_size: int) -> Layer:
    arrays = []
    for direction in directions:
        one = group[direction] if direction else group
        config = configs.get(_name(h5py, one), {})
        for key, usual in USUAL.items():
            if config.get(key, usual) != usual:
                raise ModelError(f"{key} = {brief(config[key])}, where the cells here have {usual}")
        if (cell := _cell(h5py, one)) is None:
            raise ModelError("cells upon each other in one layer")
        arrays += [_read(h5py, cell, str(n)) for n in range(len(cell))]
    return layer_of(name, from_keras, arrays, seq_len=seq_len, batch_size=batch_size)


def _read(h5py: Any, group: Any, name: str) -> np.ndarray:
    dataset = _inside(h5py, group, name) if name in group else None
    if not isinstance(dataset, h5py.Dataset) or dataset.is_virtual or dataset.external:
        raise ModelError(f"{name}: expected an array that lies in the file")
    if dataset.ndim > 2:
        raise ModelError(f"weights of {dataset.ndim} dimensions, as convolutions have them")
    return plain(dataset[()])
