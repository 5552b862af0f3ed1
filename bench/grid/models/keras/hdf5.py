"""HDF5 from elsewhere: nothing outside of the file is followed, and sizes are looked at before memory is taken."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from bench.grid.cases import ChoiceError
from bench.grid.models import ModelError, plain

MOST_GROUPS = 100_000
UNPACKED, TIMES = 2**26, 100  # bytes that may unpack to any multiple of what is stored, and to so many times that above


class Root(NamedTuple):
    h5py: Any
    group: Any

    def at(self, path: str) -> Any:
        """Return the group or dataset at a path, by links to this very file, or None."""
        found = self.group
        for name in filter(None, path.split("/")):
            found = self.inside(found, name)
        return found

    def inside(self, group: Any, name: str) -> Any:
        if not self.is_group(group) or name not in group:
            return None
        link = group.get(name, getlink=True)
        return group[name] if isinstance(link, self.h5py.HardLink) else None

    def is_group(self, item: Any) -> bool:
        return isinstance(item, self.h5py.Group)

    def is_array(self, item: Any) -> bool:
        return isinstance(item, self.h5py.Dataset)

    def groups(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield every group's path and the groups in it, by their names."""
        waiting, seen = [("", self.group)], 0
        while waiting:
            path, group = waiting.pop()
            seen += 1
            if seen > MOST_GROUPS:
                raise ModelError(f"expected at most {MOST_GROUPS:,} groups in it, got more")
            inside = {name: one for name in group if self.is_group(one := self.inside(group, name))}
            yield path, inside
            waiting += [(f"{path}/{name}".lstrip("/"), one) for name, one in reversed(inside.items())]


@contextmanager
def opened(h5py: Any, file: Any) -> Iterator[Root]:
    """Give the Root of an open file, and say in our own words what is wrong with it."""
    try:
        with h5py.File(file, "r") as root:
            yield Root(h5py, root)
    except ChoiceError:
        raise
    except (OSError, KeyError, AttributeError, TypeError, ValueError, RuntimeError, OverflowError):
        raise ModelError("expected HDF5 as Keras writes it, got something else or a damaged file") from None


def expect_stored(name: str, size: int, stored: int) -> None:
    """Raise a ModelError if something unpacks to far more bytes than weights do."""
    if size > UNPACKED and size > TIMES * stored:
        got = f"{size >> 20:,} MiB packed into {stored >> 10:,} KiB"
        raise ModelError(f"{name}: expected weights, which pack into no less than 1/{TIMES} of their size, got {got}")


def array(root: Root, name: str, dataset: Any) -> np.ndarray:
    """Return weights as numbers."""
    if not root.is_array(dataset) or dataset.is_virtual or dataset.external:
        raise ModelError(f"{name}: expected an array that lies in the file")
    if dataset.ndim > 2:
        raise ModelError(f"weights of {dataset.ndim} dimensions, as convolutions have them")
    expect_stored(name, dataset.nbytes, dataset.id.get_storage_size())
    found = dataset[()]
    if text(dataset.attrs.get("dtype")) == "bfloat16" and found.dtype.itemsize == 2:  # which HDF5 has not
        found = (found.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return plain(np.asarray(found))


def text(value: Any) -> str | None:
    """Return an attribute as text, or None if it is none."""
    value = value.decode(errors="replace") if isinstance(value, bytes) else value
    return value if isinstance(value, str) else None


def texts(group: Any, name: str) -> list[str]:
    """Return an attribute that is a list of names; one that is too long for HDF5 lies in name0, name1, ..."""
    values, number = list(group.attrs.get(name, ())), 0
    while f"{name}{number}" in group.attrs:
        values += list(group.attrs[f"{name}{number}"])
        number += 1
    return [one for value in values if (one := text(value)) is not None]
