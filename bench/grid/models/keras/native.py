"""Weights as Keras 3 lays them out, in .keras and .weights.h5: those of a cell are cell/vars/0, 1, 2 below its layer.

With a config, layers are found at the paths that it gives. Without one they are found by that structure, and what their
classes are by the names of the groups: a list's are classes in snake case, `vars` has the name of what it belongs to.
"""

import re
from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np

from bench.grid.models import Found, ModelError, brief, expect_numbers
from bench.grid.models.keras.cells import Run, guessed
from bench.grid.models.keras.configs import LISTS, RECURRENT, Cell, Model
from bench.grid.models.keras.hdf5 import Root, array, text

OURS = re.compile(r"(?:forward_|backward_)?(simple_rnn|gru|lstm)(?:_\d+)?")
OUR_CELLS = re.compile(r"(simple_rnn|gru|lstm)_cell(?:_\d+)?")
WRAPPERS = re.compile(r"(bidirectional|time_distributed)(?:_\d+)?")
KINDS = {"simple_rnn": "SimpleRNN", "gru": "GRU", "lstm": "LSTM"}
SHARD = re.compile(r".*_\d{5}\.weights\.h5", re.IGNORECASE)
BOTH = ("forward_layer", "backward_layer")


def read(root: Root, model: Model | None, run: Run, file: str) -> Found:
    """Return what is found below a root, with the config's model or without any."""
    if model is None and not any(path.endswith("vars") for path, _ in root.groups()):
        raise ModelError("expected weights as Keras writes them, got HDF5 of something else")
    groups = _groups(root)
    expect_numbers(sum(prod(one.shape) for path in groups for one in _all_arrays(root, path)))
    reader = _Reader(root, run, bool(SHARD.fullmatch(file)))
    if model is None:
        reader.read_all(groups)
    else:
        reader.read_told(groups, model)
    reader.name_others(groups)
    return Found(reader.layers, reader.left_out, told=model.told if model else ())


class _Reader:
    def __init__(self, root: Root, run: Run, is_shard: bool) -> None:
        self.root, self.run, self.is_shard = root, run, is_shard
        self.layers: list = []
        self.left_out: dict[str, str] = {}

    def read_told(self, groups: list[str], model: Model) -> None:
        """Read the layers of a config, and leave out by name what it does not tell."""
        claimed: set[str] = set()
        missing = [one for one in model.layers if not one.repeated and self.root.at(one.path) is None]
        for name, one in zip(model.names(), model.layers, strict=True):
            is_there = bool(one.path) and self.root.at(one.path) is not None
            if one.repeated and not is_there:
                continue
            claimed.add(one.path)
            try:
                if one.why or not is_there:
                    raise ModelError(one.why or "it has no weights in the file")
                cells = [(cell, self._arrays(f"{one.path}/{cell.path}")) for cell in one.cells]
            except ModelError as error:
                self.left_out[name] = str(error)
                continue
            layers, left_out = self.run.layers_of(name, one, cells)
            self.layers += layers
            self.left_out |= left_out
        unclaimed = [path for path in groups if not any(path == one or path.startswith(f"{one}/") for one in claimed)]
        if model.is_doubled and (missing or unclaimed):
            raise ModelError("its layers are numbered as Keras 2.13 does it, and do not fit its config")
        for path in unclaimed:
            self.left_out[self._name(path)] = (
                "config.json says nothing of it (a .weights.h5 of save_weights() is read with Keras' defaults)"
            )

    def read_all(self, groups: list[str]) -> None:
        """Read the layers of a file without a config."""
        names = [self._name(path) for path in groups]
        for path, own in zip(groups, names, strict=True):
            name = own if names.count(own) == 1 else path
            for its, parts in self._parts(name, path):
                try:
                    cells = [self._untold(path, part) for part in parts]
                    told = tuple(words for _, _, said in cells for words in said)
                    self.layers.append(self.run.layer(its, [(cell, arrays) for cell, arrays, _ in cells], told))
                except ModelError as error:
                    self.left_out[its] = str(error)

    def name_others(self, groups: list[str]) -> None:
        """Leave out by name what has weights and is called like a recurrent layer or cell, beside the groups."""
        for path, inside in self.root.groups():
            called = f"{path.rpartition('/')[-1]} {self._called(path) or ''}"
            around = any(f"{one}/".startswith(f"{path}/") or path.startswith(f"{one}/") for one in groups)
            if path and len(inside.get("vars", ())) and RECURRENT.search(called) and not around:
                self.left_out.setdefault(self._name(path), "weights that do not lie as in a recurrent layer of Keras'")

    def _parts(self, name: str, path: str) -> Iterator[tuple[str, list[str]]]:
        """Yield the name and the cells of what is a Layer: one, both directions, or one of several upon each other."""
        if self._is_both(path):
            yield name, [f"{path}/{part}/cell" for part in BOTH]
        elif self.root.is_group(stack := self.root.at(f"{path}/cell/cells")):
            for one in stack:
                yield f"{name}/{one}", [f"{path}/cell/cells/{one}"]
        else:
            yield name, [f"{path}/cell"]

    def _untold(self, path: str, part: str) -> tuple[Cell, list[np.ndarray], tuple[str, ...]]:
        """Return a cell that no config tells, its weights, and what is told of its class."""
        if self.root.at(f"{part}/cells") is not None:
            raise ModelError("cells upon each other, in both directions")
        kind = self._class(path, part)
        arrays = self._arrays(part)
        if len(arrays) < 3 and self.is_shard:
            raise ModelError("it has no bias, which may lie in another of the shards that the file's name tells of")
        return guessed(kind, arrays)

    def _class(self, path: str, part: str) -> str | None:
        """Return which class the file's names tell, None if they are silent; raise a ModelError if it is none of ours.

        A cell's name is by default that of its class. Before Keras 3.2 there are no names.
        """
        segment = part.split("/")[-1]
        if (name := self._called(part) or (None if segment == "cell" else segment)) is not None:
            if match := OUR_CELLS.fullmatch(name):
                return KINDS[match[1]]
            raise ModelError(f"a cell called {brief(name)}, which does not tell its equations")
        above, _, segment = path.rpartition("/")
        is_class = self.root.at(f"{above}/vars" if above else "vars") is None or above.split("/")[-1] in LISTS
        if not is_class or WRAPPERS.fullmatch(segment):
            return None
        if match := OURS.fullmatch(segment):
            return KINDS[match[1]]
        raise ModelError(f"of the class {brief(segment)}, which does not tell its equations")

    def _is_both(self, path: str) -> bool:
        return all(self.root.at(f"{path}/{part}/cell") is not None for part in BOTH)

    def _called(self, path: str) -> str | None:
        """Return the name that a group's variables have been given."""
        variables = self.root.at(f"{path}/vars")
        return text(variables.attrs.get("name")) if self.root.is_group(variables) else None

    def _name(self, path: str) -> str:
        return self._called(path) or path

    def _arrays(self, path: str) -> list[np.ndarray]:
        """Return the weights of a cell."""
        variables = self.root.at(f"{path}/vars")
        if not self.root.is_group(variables) or not len(variables):
            raise ModelError("it has no weights in the file")
        wanted = [str(number) for number in range(len(variables))]
        if sorted(variables) != sorted(wanted):
            raise ModelError(
                f"expected arrays {', '.join(wanted)} in {path}/vars, got {', '.join(list(variables)[:4])}"
            )
        return [array(self.root, name, self.root.inside(variables, name)) for name in wanted]


def _groups(root: Root) -> list[str]:
    """Return the paths of what looks like a recurrent layer."""
    found: list[str] = []
    for path, inside in root.groups():
        if any(path.startswith(f"{one}/") for one in found[-1:]):
            continue
        both = all(part in inside and root.inside(inside[part], "cell") is not None for part in BOTH)
        cell = inside.get("cell")
        if both or (cell is not None and ("vars" in cell or "cells" in cell)):
            found.append(path)
    return found


def _all_arrays(root: Root, path: str) -> list[Any]:
    """Return the arrays below a layer's cells."""
    cells = [f"{path}/{part}" for part in ("cell", *(f"{one}/cell" for one in BOTH))]
    stacks = [inside for cell in cells if root.is_group(inside := root.at(f"{cell}/cells"))]
    groups = [root.at(f"{cell}/vars") for cell in cells]
    groups += [root.inside(root.inside(stack, name), "vars") for stack in stacks for name in stack]
    arrays = [root.inside(group, name) for group in groups if root.is_group(group) for name in group]
    return [one for one in arrays if root.is_array(one)]
