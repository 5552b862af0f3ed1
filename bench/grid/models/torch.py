"""PyTorch's `state_dict` in a .pt file, read by `torch.load(weights_only=True)`, which makes tensors and no objects.

The recurrent layers are the groups of names such as encoder.lstm.weight_hh_l0 that begin alike. What a state_dict does
not tell is taken to be as PyTorch has it by default: the activation of an RNN is tanh.
"""

import re
import warnings
import zipfile
from collections.abc import Callable, Iterable
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from bench.grid.models import BROKEN, MOST_BYTES, Found, ModelError, brief, expect_numbers, layer_of, library, plain
from reference.layouts import from_torch

PART = re.compile(r"(?:(.*)\.)?((?:weight|bias)_(?:ih|hh|hr)(?:_l\d{1,5}(?:_reverse)?)?)", re.DOTALL)
MOST_NAMES, DEEPEST = 100_000, 5


def read(path: Path, seq_len: int, batch_size: int, activation: str | None = None) -> Found:
    torch = library("torch", "peers")
    try:
        with zipfile.ZipFile(path) as file:
            entries = file.infolist()
    except BROKEN:
        raise ModelError("expected what torch.save writes since PyTorch 1.6, a zip file, got something else") from None
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ModelError("expected what torch.save writes, got a zip file that is compressed")
    if (size := sum(entry.file_size for entry in entries)) > MOST_BYTES:
        raise ModelError(f"expected at most {MOST_BYTES >> 20:,} MiB in it, got {size >> 20:,}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # whatever a broken or hostile pickle ends in
        said = brief(str(error).split("\n")[0])
        raise ModelError(f"expected a state_dict that weights_only=True loads, got: {said}") from None
    tensors = dict(_tensors(torch, loaded, ""))
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}

    def get(name: str) -> np.ndarray:
        tensor = tensors[name].detach()
        if tensor.layout != torch.strided or not tensor.is_floating_point():
            raise ModelError(f"{name}: expected a dense tensor of numbers with a fraction")
        return plain((tensor if tensor.dtype == torch.float64 else tensor.float()).contiguous().numpy())

    return grouped(shapes, get, path.stem, seq_len, batch_size)


def grouped(
    shapes: dict[str, tuple[int, ...]], get: Callable[[str], np.ndarray], alone: str, seq_len: int, batch_size: int
) -> Found:
    """Return what is found in the arrays of a state_dict, whose names and shapes are known and which `get` reads.

    A layer whose arrays have no more of a name is called `alone`.
    """
    groups: dict[str, dict[str, str]] = {}
    for name in shapes:
        if match := PART.fullmatch(name):
            groups.setdefault(match[1] or alone, {})[match[2]] = name
    expect_numbers(sum(prod(shapes[name]) for group in groups.values() for name in group.values()))
    found, left_out = [], {}
    for name, group in groups.items():
        try:
            if any(part.startswith("weight_hr") for part in group):
                raise ModelError("a projection of its states (proj_size), which no cell here has")
            arrays = {part: get(full) for part, full in group.items()}
            found.append(layer_of(name, from_torch, arrays, seq_len=seq_len, batch_size=batch_size))
        except ModelError as error:
            left_out[name] = str(error)
    return Found(found, left_out)


def _tensors(torch: Any, value: Any, name: str, depth: int = 0) -> Iterable[tuple[str, Any]]:
    """Yield the tensors in dicts in dicts, by their names joined with dots."""
    if depth > DEEPEST or not isinstance(value, dict) or len(value) > MOST_NAMES:
        return
    for key, item in value.items():
        full = f"{name}.{key}" if name else str(key)
        if isinstance(item, torch.Tensor):
            yield full, item
        else:
            yield from _tensors(torch, item, full, depth + 1)
