"""Keras 2's .h5, whole models and weights alone, which Keras 3 writes and reads as well.

Each of the outermost layers has a group of its name, with the names of its weights in order in `weight_names`: a nested
model's are all in one, told apart by their names. A whole model has its config beside them, in `model_config`.
"""

import json
import re
from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np

from bench.grid.models import Found, ModelError, brief, expect_numbers
from bench.grid.models.keras.cells import Run, guessed
from bench.grid.models.keras.configs import Cell, Described, Model, model_of
from bench.grid.models.keras.hdf5 import Root, array, text, texts

PARTS = ("kernel", "recurrent_kernel", "bias")
OURS = re.compile(r"(?:forward_|backward_)?(simple_rnn|gru|lstm|cu_dnngru|cu_dnnlstm)(?:_cell)?(?:_\d+)?")
KINDS = {"simple_rnn": "SimpleRNN", "gru": "GRU", "lstm": "LSTM", "cu_dnngru": "CuDNNGRU", "cu_dnnlstm": "CuDNNLSTM"}


def is_legacy(root: Root) -> bool:
    """Tell whether a file is laid out so."""
    group = root.group
    return "model_config" in group.attrs or "layer_names" in group.attrs or "model_weights" in group


class Weight:
    """An array of a layer's group: where its name says that it belongs, which part it is, and the dataset."""

    def __init__(self, name: str, dataset: Any) -> None:
        *above, last = name.split("/")
        self.above = tuple(above)
        self.part = re.sub(r"(_\d+)?(:\d+)?$", "", last)
        self.name, self.dataset = name, dataset


def read(root: Root, run: Run) -> Found:
    """Return what is found in such a file."""
    group = root.at("model_weights")
    group = group if root.is_group(group) else root.group
    version = text(root.group.attrs.get("keras_version")) or text(group.attrs.get("keras_version")) or "1"
    weights = {name: list(_weights(root, group, name)) for name in texts(group, "layer_names")}
    parts = (one for those in weights.values() for one in those if one.part in PARTS)
    recurrent = {one.above for those in weights.values() for one in those if one.part == "recurrent_kernel"}
    expect_numbers(sum(prod(one.dataset.shape) for one in parts if one.above in recurrent))
    config = root.group.attrs.get("model_config")
    if config is None:
        return _Untold(root, run, version).read(weights)
    try:
        said = json.loads(text(config) or "")
    except (ValueError, RecursionError):
        raise ModelError("model_config: expected JSON, got something else") from None
    return _told(root, run, weights, model_of(said, version, "model_config"))


def _weights(root: Root, group: Any, layer: str) -> Iterator[Weight]:
    inner = Root(root.h5py, group).at(layer)
    for name in texts(inner, "weight_names") if root.is_group(inner) else ():
        dataset = Root(root.h5py, inner).at(name)
        if not root.is_array(dataset):
            raise ModelError(f"{name}: expected an array that lies in the file")
        yield Weight(name, dataset)


def _told(root: Root, run: Run, weights: dict[str, list[Weight]], model: Model) -> Found:
    """Return the layers of a whole model."""
    layers, left_out = [], {}
    for name, one in zip(model.names(), model.layers, strict=True):
        if one.repeated:
            continue
        try:
            if one.why:
                raise ModelError(one.why)
            cells = _cells(root, one, _own(one, weights, model))
        except ModelError as error:
            left_out[name] = str(error)
            continue
        its, others = run.layers_of(name, one, cells)
        layers += its
        left_out |= others
    return Found(layers, left_out, told=model.told)


def _own(one: Described, weights: dict[str, list[Weight]], model: Model) -> list[Weight]:
    """Return a layer's weights: all of its group, or those of a nested model's that have its name."""
    found = weights.get(one.names[0], [])
    if len(one.names) == 1:
        return found
    like = [other for other in model.layers if not other.repeated and other.names[0] == one.names[0]]
    if [other.names[-1] for other in like].count(one.names[-1]) > 1:
        raise ModelError(f"layers of nested models in {one.names[0]} have its name, so its weights cannot be told")
    return [weight for weight in found if one.names[-1] in weight.above]


def _cells(root: Root, one: Described, weights: list[Weight]) -> list[tuple[Cell, list[np.ndarray]]]:
    """Return the cells of a layer, each with its weights, which lie in their order."""
    cells, at = [], 0
    for cell in one.cells:
        parts = PARTS if (cell.config or {}).get("use_bias", True) else PARTS[:2]
        its, at = weights[at : at + len(parts)], at + len(parts)
        if tuple(weight.part for weight in its) != parts:
            got = ", ".join(weight.part for weight in its) or "none"
            raise ModelError(f"expected the weights {', '.join(parts)}, got {got}")
        arrays = [array(root, weight.name, weight.dataset) for weight in its]
        config = dict(cell.config or {})
        if cell.kind not in ("SimpleRNN",) and not cell.kind.startswith("CuDNN"):
            config.setdefault("use_bias", True)
        cells.append((cell._replace(config=config), arrays))
    if at != len(weights):
        raise ModelError(f"expected {at} arrays of weights, got {len(weights)}")
    return cells


class _Untold:
    """Weights alone, whose names tell what they are of."""

    def __init__(self, root: Root, run: Run, version: str) -> None:
        self.root, self.run = root, run
        number = re.match(r"(\d+)\.(\d+)", version)
        self.is_old = number is None or (int(number[1]), int(number[2])) < (2, 3)
        self.version = version

    def read(self, weights: dict[str, list[Weight]]) -> Found:
        layers, left_out = [], {}
        for layer, those in weights.items():
            cells = _grouped(those)
            both = len(cells) == 2 and [_direction(above) for above in cells] == ["forward", "backward"]
            for part in [list(cells)] if both else [[above] for above in cells]:
                name = layer if both or len(cells) == 1 else "/".join((layer, *part[0]))
                try:
                    read = [self._cell(layer, above, cells[above]) for above in part]
                    told = tuple(words for _, _, said in read for words in said)
                    layers.append(self.run.layer(name, [(cell, arrays) for cell, arrays, _ in read], told))
                except ModelError as error:
                    left_out[name] = str(error)
        return Found(layers, left_out)

    def _cell(
        self, layer: str, above: tuple[str, ...], weights: list[Weight]
    ) -> tuple[Cell, list[np.ndarray], tuple[str, ...]]:
        if tuple(weight.part for weight in weights) not in (PARTS, PARTS[:2]):
            raise ModelError(f"expected the weights {', '.join(PARTS)}, got {', '.join(w.part for w in weights)}")
        arrays = [array(self.root, weight.name, weight.dataset) for weight in weights]
        name = above[-1] if above else layer
        kind = KINDS[match[1]] if (match := OURS.fullmatch(name)) else None
        if kind is None and name != layer and "cell" in name:
            raise ModelError(f"a cell called {brief(name)}, which does not tell its equations")
        cell, arrays, told = guessed(kind, arrays)
        is_cudnn = len(arrays) == 3 and arrays[2].shape == (2 * arrays[1].shape[1],)
        if self.is_old and cell.kind != "SimpleRNN" and not is_cudnn:
            raise ModelError(
                "the file does not say its recurrent activation, which was hard_sigmoid by default before Keras 2.3, "
                f"and it was written by {self.version}"
            )
        return cell, arrays, told


def _grouped(weights: list[Weight]) -> dict[tuple[str, ...], list[Weight]]:
    """Return the weights of recurrent cells, by where their names say that they belong."""
    found: dict[tuple[str, ...], list[Weight]] = {}
    for weight in weights:
        found.setdefault(weight.above, []).append(weight)
    return {above: those for above, those in found.items() if any(one.part == "recurrent_kernel" for one in those)}


def _direction(above: tuple[str, ...]) -> str | None:
    return next((end for name in above for end in ("forward", "backward") if name.startswith(f"{end}_")), None)
