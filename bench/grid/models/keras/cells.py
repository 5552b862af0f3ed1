"""A Layer from the weights of its cells and what their config says, or what it is taken to be where there is none."""

from typing import Any, NamedTuple

import numpy as np

from bench.grid.cases import ACTIVATIONS, either
from bench.grid.models import Layer, ModelError, activated, brief, layer_of
from bench.grid.models.keras.configs import GATES, Cell, Described, activation_of
from reference.layouts import from_keras

BEFORE = "reset_after = False, where the cells here have True"
SILENT = "which the file does not say"
FORWARD = f"it is taken to run forward, {SILENT}"
NAMES = {1: "SimpleRNN", 3: "GRU", 4: "LSTM"}


class Run(NamedTuple):
    """How layers are run where the file leaves it open."""

    seq_len: int
    batch_size: int
    activation: str | None = None  # of an RNN
    asked: tuple[str, ...] = ("T", "B")  # what the file leaves open

    def within(self, one: Described) -> "Run":
        """Return how a layer is run, of which the file may say its sizes."""
        open_sizes = {"T": one.seq_len is None, "B": one.batch_size is None and one.sequences == 1}
        return self._replace(
            seq_len=one.seq_len or self.seq_len,
            batch_size=(one.batch_size or self.batch_size) * one.sequences,
            asked=tuple(name for name, is_open in open_sizes.items() if is_open),
        )

    def layers_of(
        self, name: str, one: Described, cells: list[tuple[Cell, list[np.ndarray]]]
    ) -> tuple[list[Layer], dict[str, str]]:
        """Return the Layer of both directions, or one for each cell upon others, and why what is left out is."""
        run, layers, left_out = self.within(one), [], {}
        for part in [cells] if one.directions else [[cell] for cell in cells]:
            its = name if len(part) == len(cells) else f"{name}/{part[0][0].path.split('/')[-1]}"
            try:
                layers.append(run.layer(its, part, one.told))
            except ModelError as error:
                left_out[its] = str(error)
        return layers, left_out

    def layer(self, name: str, cells: list[tuple[Cell, list[np.ndarray]]], told: tuple[str, ...] = ()) -> Layer:
        """Return the Layer of a cell, or of one for each direction, with their weights."""
        ones = [self._one(name, cell, arrays) for cell, arrays in cells]
        first = ones[0]
        params = tuple(one.network[0][0] for one in ones)
        sizes = {tuple((a.shape, a.dtype.name) for a in one) for one in params}
        if len({(one.cell, one.activation) for one in ones}) > 1 or len(sizes) > 1:
            raise ModelError("two directions that differ in more than their weights")
        told = (*told, *(words for one in ones for words in one.told))
        return first._replace(network=(params,), told=tuple(dict.fromkeys(told)))

    def _one(self, name: str, cell: Cell, arrays: list[np.ndarray]) -> Layer:
        if len(arrays) not in (2, 3):
            raise ModelError(f"expected 2 or 3 arrays of weights, got {len(arrays)}")
        kernel, recurrent, *bias = arrays
        if kernel.ndim != 2 or recurrent.ndim != 2 or recurrent.shape[1] != GATES[cell.kind] * len(recurrent):
            got = " and ".join(str(a.shape) for a in arrays[:2])
            raise ModelError(
                f"expected weights (I, G H) and (H, G H) of a {cell.kind}, G = {GATES[cell.kind]}, got {got}"
            )
        is_cudnn = cell.kind.startswith("CuDNN") or (cell.config is None and _is_cudnn(recurrent, bias))
        told: tuple[str, ...] = ()
        stated = None
        if cell.config is None:
            told = (FORWARD,) if is_cudnn else _assumed(cell.kind, bias)
        else:
            _expect_units(cell, recurrent, bias)
            stated = "tanh" if is_cudnn else _activation(cell, bias)
        if is_cudnn:
            arrays = _from_cudnn(kernel, recurrent, *bias)
        layer = layer_of(name, from_keras, arrays, seq_len=self.seq_len, batch_size=self.batch_size)
        return activated(layer._replace(told=told, asked=self.asked), stated, self.activation)


def _assumed(kind: str, bias: list[np.ndarray]) -> tuple[str, ...]:
    """Return what is told of what a cell is taken to be that has no config."""
    if kind == "SimpleRNN":
        return (FORWARD,)
    told = [f"it is taken to run forward, with the activations tanh and sigmoid, {SILENT}"]
    if kind == "GRU" and not bias:
        told.append(f"its reset is taken to come behind the product (reset_after=True), {SILENT}")
    elif kind == "GRU" and bias[0].ndim == 1:
        raise ModelError(BEFORE)
    return tuple(told)


def guessed(kind: str | None, arrays: list[np.ndarray]) -> tuple[Cell, list[np.ndarray], tuple[str, ...]]:
    """Return a cell that no config tells, of a class that names tell or the shapes of its weights, and what is told."""
    shape = arrays[1].shape if len(arrays) > 1 else ()
    gates = shape[1] // shape[0] if len(shape) == 2 and shape[0] else 0
    if gates not in NAMES or (kind is not None and GATES[kind] != gates):
        raise ModelError(f"expected recurrent weights of {'a cell here' if kind is None else f'a {kind}'}, got {shape}")
    if kind is not None or _is_cudnn(arrays[1], arrays[2:]):
        return Cell("", kind or NAMES[gates], None), arrays, ()
    said = f"it is taken to be a {NAMES[gates]} by the shapes of its weights, since nothing else tells its class"
    return Cell("", NAMES[gates], None), arrays, (said,)


def _is_cudnn(recurrent: np.ndarray, bias: list[np.ndarray]) -> bool:
    return bool(bias) and bias[0].shape == (2 * recurrent.shape[1],)


def _expect_units(cell: Cell, recurrent: np.ndarray, bias: list[np.ndarray]) -> None:
    """Raise a ModelError if the weights are not those of the config."""
    config = cell.config or {}
    if config.get("units") != len(recurrent):
        raise ModelError(f"units = {brief(config.get('units'))} in its config, where its weights have {len(recurrent)}")
    if not cell.kind.startswith("CuDNN") and config.get("use_bias") is not bool(bias):
        said = brief(config.get("use_bias"))
        raise ModelError(f"use_bias = {said} in its config, where its weights have {'a' if bias else 'no'} bias")


def _activation(cell: Cell, bias: list[np.ndarray]) -> str:
    """Return the activation of an RNN, tanh of others, or raise a ModelError if a cell has other equations."""
    config = cell.config or {}
    usual = {"activation": ACTIVATIONS if cell.kind == "SimpleRNN" else ("tanh",)}
    if cell.kind != "SimpleRNN":
        usual["recurrent_activation"] = ("sigmoid",)
    for key, those in usual.items():
        if key not in config:
            raise ModelError(f"its config does not say its {key}")
        if (name := activation_of(config[key])) not in those:
            raise ModelError(f"{key} = {brief(name)}, where the cells here have {either(those)}")
    if cell.kind == "GRU":
        after = config.get("reset_after", bias[0].ndim == 2 if bias else None)
        if after is not True:
            raise ModelError("its config does not say its reset_after" if after is None else BEFORE)
    return activation_of(config["activation"])


def _from_cudnn(kernel: np.ndarray, recurrent: np.ndarray, bias: Any) -> list[np.ndarray]:
    """Return the weights that a layer has which is not cuDNN's: each gate's kernel lies there as (H, I), bias twice.

    Source: _convert_rnn_weights of Keras 2, in saving/legacy/hdf5_format.py.
    """
    H, gates = len(recurrent), recurrent.shape[1] // len(recurrent)
    kernels = [
        np.concatenate([gate.reshape(H, -1).T for gate in np.split(a, gates, axis=1)], axis=1)
        for a in (kernel, recurrent)
    ]
    biases = bias.reshape(2, -1)
    return [*kernels, biases if gates == 3 else biases.sum(axis=0)]
