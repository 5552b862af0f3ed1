"""Recurrent layers in somebody's file, found by name and read with their weights: `read`.

A format is a file or a folder here, found by the ends of the files' names (`ENDS`), with `read(path, T, B,
activation)`. Files are data from elsewhere: none of their code is run, sizes are checked before memory is taken, and
what is wrong is said in one line. What is a recurrent layer but cannot be measured as it stands, since its equations
are others, is left out by name.
"""

import hashlib
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from importlib import import_module
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.grid.cases import ACTIVATIONS, ChoiceError, either, one_line
from bench.grid.presets import Effort, Grid, Preset

MOST_BYTES = 2**33  # of a file
MOST_NUMBERS = 2**29  # of the recurrent layers together: 2 GiB in float32
MOST_LAYERS = 200
MOST_TOLD = 3  # names in a sentence
USUAL_T, USUAL_B = 100, 1  # where neither the file nor the command says them

# What a zip file that is broken or hostile, or what lies in it, ends in.
BROKEN = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, RuntimeError, OverflowError)

ENDS = {
    ".onnx": "onnx",
    ".pt": "torch",
    ".pth": "torch",
    ".ckpt": "torch",
    ".bin": "torch",
    ".bin.index.json": "torch",
    ".safetensors": "safetensors",
    ".safetensors.index.json": "safetensors",
    ".keras": "keras",
    ".h5": "keras",
    ".hdf5": "keras",
}

# What a file of another kind begins with, in small letters, and the formats that read it none the less.
SIGNS: dict[bytes, tuple[str, tuple[str, ...]]] = {
    b"version https://git-lfs": ("a pointer of Git LFS in the place of the file (git lfs pull)", ()),
    b"<!doctype": ("a web page", ()),
    b"<html": ("a web page", ()),
    b"pk\x03\x04": ("a zip file, as PyTorch and Keras write them", ("torch", "keras")),
    b"\x89hdf\r\n": ("an HDF5 file, as Keras writes them", ("torch", "keras")),
}


class ModelError(Exception):
    """A file that cannot be read, or a layer that cannot be measured: the reason in a line."""

    def __init__(self, text: object):
        super().__init__(one_line(text))


class Layer(NamedTuple):
    """What is measured as one: layers upon each other, in one direction or two, as their library runs them."""

    name: str  # in its file
    cell: str
    network: tuple  # of the cell's Params, as in `reference.stack`
    seq_len: int
    batch_size: int
    activation: str = "tanh"  # of an rnn: tanh, relu or sigmoid
    asked: tuple[str, ...] = ("T", "B")  # what of these the file does not say, so that the command does
    told: tuple[str, ...] = ()  # what was assumed of it, or done to its weights: "its activation is taken to be tanh"
    calls: int | None = 1  # of it in a run of the whole model, 0 in a branch that is not taken; None: nobody knows

    def grid(self) -> Grid:
        """Return the grid of its only case."""
        first = self.network[0][0]
        H, I = first.W.shape[1], first.U.shape[1]
        sizes = {"layers": (len(self.network),), "directions": (len(self.network[0]),), "input": (I,)}
        return Grid(
            (H,), (self.batch_size,), (self.seq_len,), ("forward",), cell=(self.cell,), model=(self.name,),
            activation=(self.activation,), **sizes,
        )  # fmt: skip


class Input(NamedTuple):
    """An input of a model that runtimes take whole."""

    dtype: str
    shape: list[int]
    value: int | None = None  # of whole numbers; None: that of `bench.grid.inputs.of_model`


class Found(NamedTuple):
    """What a format finds in a file."""

    layers: list[Layer]
    left_out: dict[str, str]  # the reason by the layer's name
    inputs: dict[str, Input] | None = None  # of a model that runtimes take whole
    told: tuple[str, ...] = ()  # what is to be said of the file, a sentence each


class Model(NamedTuple):
    path: Path
    digest: str
    layers: dict[str, Layer]
    left_out: dict[str, str]
    inputs: dict[str, Input] | None
    told: tuple[str, ...] = ()  # what was assumed, and whatever else is not as it stands in the file, a sentence each

    def preset(self) -> Preset:
        """Return what is to be measured."""
        count = f"{len(self.layers)} recurrent layer{'s' if len(self.layers) > 1 else ''}"
        grids = tuple(layer.grid() for layer in self.layers.values())
        return Preset(f"the {count} of {self.path.name}, with their own weights", grids, Effort())


def read(path: str, seq_len: int | None, batch_size: int | None, activation: str | None = None) -> Model:
    """Return the Model in a file, as it is run on so many steps and sequences, or raise a ChoiceError of one line.

    The sizes are for the layers whose file does not say them; None, for the usual ones, is told, as they are.
    `activation` is that of its RNNs where the file does not say it; None takes it to be tanh, and tells so.
    """
    given = {"T": seq_len is not None, "B": batch_size is not None}
    seq_len, batch_size = seq_len or USUAL_T, batch_size or USUAL_B
    file, path = Path(path), printable(path)
    end = next((end for end in ENDS if file.name.lower().endswith(end)), None)
    try:
        if end is None:
            raise ModelError(f"expected a file that ends with one of {', '.join(ENDS)}")
        size = file.stat().st_size
        if not file.is_file():
            raise ModelError(f"expected a file, got {'a folder' if file.is_dir() else 'a device or the like'}")
        if size > MOST_BYTES:
            raise ModelError(f"expected a file of at most {MOST_BYTES >> 20:,} MiB, got {size >> 20:,}")
        expect_kind(file, ENDS[end])
        found = import_module(f"{__name__}.{ENDS[end]}").read(file, seq_len, batch_size, activation)
        layers = _named([layer._replace(told=(*_sizes(layer, given), *layer.told)) for layer in found.layers])
        if activation is not None and not any(layer.cell == "rnn" for layer in layers.values()):
            raise ChoiceError(f"--activation: expected an RNN in {path} that is measured, got none")
        for name, one in (found.inputs or {}).items():
            expect_numbers(prod(one.shape), f"{name}: expected inputs")
        if not layers:
            left = "; ".join(f"{name}: {why}" for name, why in list(found.left_out.items())[:3])
            raise ModelError(f"expected a recurrent layer that can be measured, got {left or 'no recurrent layer'}")
        with file.open("rb") as data:
            digest = hashlib.file_digest(data, "sha256")
        for a in (a for layer in layers.values() for one in layer.network for params in one for a in params):
            digest.update(a)  # which may lie beside the file
    except OSError as error:
        raise ChoiceError(f"--model: {path}: {error.strerror or brief(error)}") from None
    except ModelError as error:
        raise ChoiceError(f"--model: {path}: {error}") from None
    return Model(
        file,
        digest.hexdigest()[:16],
        layers,
        {clean(name): brief(why) for name, why in found.left_out.items()},
        found.inputs,
        (*map(brief, found.told), *_told(list(layers.values()))),
    )


def _told(layers: list[Layer]) -> list[str]:
    """Return what is told of the layers, a sentence for all of which the same is told."""
    names: dict[str, list[str]] = {}
    for layer in layers:
        for words in layer.told:
            names.setdefault(words, []).append(layer.name)
    few = {
        words: named if len(named) <= MOST_TOLD else [*named[:MOST_TOLD], f"{len(named) - MOST_TOLD} more"]
        for words, named in names.items()
    }
    return [
        f"{'All layers' if len(names[words]) == len(layers) > 1 else ', '.join(named)}: {words}."
        for words, named in few.items()
    ]


def _sizes(layer: Layer, given: dict[str, bool]) -> list[str]:
    """Return what is told of the T and B of a layer that its file does not say."""
    sizes = {"T": (layer.seq_len, "--seq-len"), "B": (layer.batch_size, "--batch")}
    said = [(f"{name} = {sizes[name][0]}", sizes[name][1], given[name]) for name in ("T", "B") if name in layer.asked]
    words = [f"{size} {f'by {option}' if is_given else f'by default ({option})'}" for size, option, is_given in said]
    return [f"{' and '.join(words)}, since the file says neither" if len(words) > 1 else words[0]] if words else []


def activated(layer: Layer, stated: str | None, activation: str | None) -> Layer:
    """Return an RNN's Layer with the activation that its file states, else the one asked for, else tanh, and tell so.

    Other cells stay as they are. One stated against the one asked for is a ChoiceError, an unknown one a ModelError.
    """
    if layer.cell != "rnn":
        return layer
    if stated is None:
        words = f"its activation is {activation} by --activation, which the file does not say"
        if activation is None:
            words = "its activation is taken to be tanh, which the file does not say (--activation)"
        return layer._replace(activation=activation or "tanh", told=(*layer.told, words))
    if stated not in ACTIVATIONS:
        raise ModelError(f"activation {brief(stated)}, where the RNN here has {either(ACTIVATIONS)}")
    if activation not in (None, stated):
        raise ChoiceError(
            f"--activation: expected {stated}, which the file says of {clean(layer.name)}, got {activation}"
        )
    return layer._replace(activation=stated)


def _named(layers: list[Layer]) -> dict[str, Layer]:
    """Return the layers by names that are all different, also as parts of the names of files."""
    if len(layers) > MOST_LAYERS:
        raise ModelError(f"expected at most {MOST_LAYERS} recurrent layers, got {len(layers)}")
    numbers = sum(a.size for layer in layers for directions in layer.network for one in directions for a in one)
    expect_numbers(numbers)
    found: dict[str, Layer] = {}
    for name, layer in zip(labels([layer.name for layer in layers]), layers, strict=True):
        steps = layer.seq_len * layer.batch_size * layer.network[0][0].W.shape[1]
        expect_numbers(steps, f"{name}: expected T, B and H that come to states")
        for direction in (one for directions in layer.network for one in directions):
            if not all(np.isfinite(a).all() for a in direction):
                raise ModelError(f"{name}: expected finite weights, got infinite ones or NaN")
        found[name] = layer._replace(name=name)
    return found


def labels(names: Sequence[str]) -> list[str]:
    """Return names as a report can show them, all different, also as parts of the names of files."""
    found: list[str] = []
    taken = set()
    for name in map(clean, names):
        label, number = name, 2
        while re.sub(r"\W", "_", label) in taken:
            label, number = clean(f"{name} ({number})"), number + 1
        taken.add(re.sub(r"\W", "_", label))
        found.append(label)
    return found


def expect_kind(file: Path, reader: str, start: str = "") -> None:
    """Raise a ModelError, after this start, for a file that is empty or begins as none that its reader reads."""
    with file.open("rb") as opened:
        data = opened.read(512).lstrip().lower()
    if not data:
        raise ModelError(f"{start}expected a model, got an empty file")
    for sign, (words, readers) in SIGNS.items():
        if data.startswith(sign) and reader not in readers:
            raise ModelError(f"{start}expected a model, got {words}")


def expect_numbers(numbers: int, what: str = "expected recurrent layers") -> None:
    """Raise a ModelError if arrays have too many numbers; to be called before they take memory."""
    if numbers > MOST_NUMBERS:
        raise ModelError(f"{what} of at most {MOST_NUMBERS:,} numbers, got {numbers:,}")


def library(name: str, extra: str) -> Any:
    """Return an optional package, or raise a ModelError that says which extra installs it."""
    try:
        return import_module(name)
    except ImportError:
        raise ModelError(f"expected the package {name}, which the extra `{extra}` installs, to read it with") from None


def layer_of(name: str, convert: Callable[..., Any], *arrays: Any, seq_len: int, batch_size: int) -> Layer:
    """Return the Layer that a function of `reference.layouts` makes of arrays, or raise a ModelError."""
    try:
        with np.errstate(all="ignore"):
            params = convert(*arrays)
    except (TypeError, ValueError) as error:
        raise ModelError(brief(error)) from None
    network = ((params,),) if hasattr(params, "_fields") else params
    first = network[0][0]
    cell = {1: "rnn", 3: "gru", 4: "lstm"}[len(first.W) // first.W.shape[1]]
    return Layer(name, cell, network, seq_len, batch_size)


def clean(name: str | bytes) -> str:
    """Return a name of a file as one line that a report can show; bytes are what is no text in its encoding."""
    name = name.decode(errors="replace") if isinstance(name, bytes) else name
    text = printable(name)
    return text if 0 < len(text) <= 60 else f"...{text[-57:]}" if text else "the layer"


def printable(text: str) -> str:
    """Return a text in one line of characters that a page can show as well."""
    return "".join(c if c.isprintable() else "?" for c in one_line(text))


def brief(error: object) -> str:
    """Return what an error says in one line that a terminal can show, since it may have names of the file in it."""
    text = printable(" ".join(str(error).split()))
    return text if len(text) <= 200 else text[:197] + "..."


def plain(array: np.ndarray) -> np.ndarray:
    """Return weights as the kernels know them: what has fewer bits than float32, or its bytes in turn, as float32."""
    if array.dtype.kind != "f":
        raise ModelError(f"expected weights of numbers with a fraction, got {array.dtype}")
    return np.ascontiguousarray(array, np.float64 if array.dtype.itemsize > 4 else np.float32)
