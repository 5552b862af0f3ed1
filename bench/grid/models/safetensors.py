"""A `state_dict` of PyTorch's names in a .safetensors file, of which the header tells all shapes beforehand."""

from pathlib import Path

import numpy as np

from bench.grid.models import Found, ModelError, brief, library, plain
from bench.grid.models.torch import PART, grouped

FLOATS = ("F64", "F32", "F16", "BF16")


def read(path: Path, seq_len: int, batch_size: int, activation: str | None = None) -> Found:
    safe_open = library("safetensors", "models").safe_open
    try:
        with safe_open(path, "np") as file:
            slices = {name: file.get_slice(name) for name in file.keys() if PART.fullmatch(name)}  # noqa: SIM118
            shapes = {name: tuple(one.get_shape()) for name, one in slices.items()}
            dtypes = {name: one.get_dtype() for name, one in slices.items()}
    except OSError:
        raise
    except Exception as error:  # its own, which it has no public name for
        raise ModelError(f"not a .safetensors file: {brief(error)}") from None

    def get(name: str) -> np.ndarray:
        if dtypes[name] not in FLOATS:
            raise ModelError(f"{name}: expected weights of {', '.join(FLOATS)}, got {dtypes[name]}")
        if dtypes[name] == "BF16":  # which NumPy has not
            library("torch", "peers")
            with safe_open(path, "pt") as file:
                return plain(file.get_tensor(name).float().numpy())
        with safe_open(path, "np") as file:
            return plain(file.get_tensor(name))

    return grouped(shapes, get, path.stem, seq_len, batch_size)
