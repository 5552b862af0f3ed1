"""A `state_dict` of PyTorch's names in a .safetensors file, of which the header tells all shapes beforehand.

A model of several files is read by its index, model.safetensors.index.json, which names them all.
"""

from pathlib import Path

import numpy as np

from bench.grid.models import Found, ModelError, clean, expect_kind, library, plain
from bench.grid.models.state_dicts import grouped
from bench.grid.models.torch import expect_whole, shards

FLOATS = ("F64", "F32", "F16", "BF16")


def read(path: Path, seq_len: int, batch_size: int, activation: str | None = None) -> Found:
    safe_open = library("safetensors", "models").safe_open
    indexed = shards(path) if path.name.endswith(".index.json") else None
    if indexed is None:
        expect_whole(path)
    files = dict.fromkeys(indexed.values() if indexed else [path])
    shapes, dtypes, places = {}, {}, {}
    for one in files:
        if indexed:
            expect_kind(one, "safetensors", f"{clean(one.name)}: ")
        try:
            with safe_open(one, "np") as file:
                for name in file.keys():  # noqa: SIM118
                    part = file.get_slice(name)
                    if indexed is None or indexed.get(name) == one:
                        shapes[name], dtypes[name], places[name] = tuple(part.get_shape()), part.get_dtype(), one
        except OSError:
            raise
        except Exception:  # its own, which it has no public name for
            which = f"{clean(one.name)}: " if indexed else ""
            raise ModelError(f"{which}not a .safetensors file, or one that is damaged") from None
    if indexed and (missing := indexed.keys() - shapes.keys()):
        name = min(missing)
        raise ModelError(f"expected {clean(name)} in {clean(indexed[name].name)}, where its index has it, got none")

    def get(name: str) -> np.ndarray:
        if dtypes[name] not in FLOATS:
            raise ModelError(f"{name}: expected weights of {', '.join(FLOATS)}, got {dtypes[name]}")
        if dtypes[name] == "BF16":  # which NumPy has not
            library("torch", "peers")
            with safe_open(places[name], "pt") as file:
                return plain(file.get_tensor(name).float().numpy())
        with safe_open(places[name], "np") as file:
            return plain(file.get_tensor(name))

    alone = path.name.split(".")[0] if indexed else path.stem
    return grouped(shapes, get, alone, seq_len, batch_size, activation)
