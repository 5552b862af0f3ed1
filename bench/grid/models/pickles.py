"""What torch.save and torch.jit.save write, a zip file with a pickle and a file for each storage, without PyTorch.

The pickle is taken apart and nothing in it is run: whatever class or function it names becomes a `StandIn`, which keeps
what it was given, and what rebuilds a tensor becomes a `Tensor`, which says where its numbers lie. They are read when
they are asked for, and the zip's checksum is looked at.
"""

import io
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from bench.grid.models import BROKEN, MOST_BYTES, ModelError, clean, expect_numbers

MOST_PICKLE = 2**25  # bytes: some objects take a hundred times as many
MOST_NAMES, DEEPEST = 100_000, 40

# What numbers a storage has, by the name of its class or dtype; BFloat16 is the upper half of a float32.
DTYPES = {
    "DoubleStorage": "f8", "FloatStorage": "f4", "HalfStorage": "f2", "BFloat16Storage": "u2",
    "float64": "f8", "float32": "f4", "float16": "f2", "bfloat16": "u2",
}  # fmt: skip
BFLOAT16 = ("BFloat16Storage", "bfloat16")

LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
SIGNS = {
    LEGACY: "what torch.save wrote before PyTorch 1.6 (load it and save it again)",
    b"\x89HDF\r\n": "an HDF5 file",
    b"\x80": "a pickle by itself (save it with torch.save)",
}


class Tensor(NamedTuple):
    """Where the numbers of a tensor lie."""

    storage: str  # its key in the file
    kind: str  # the name of its storage's class, or what makes it no plain tensor
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class StandIn:
    """An object of a class that is not made."""

    kind = ""  # module.name

    def __init__(self, *arguments: Any, **_: Any) -> None:
        self.arguments, self.state = arguments, None
        self.entries: dict[Any, Any] = {}  # of a kind of dict
        self.items: list[Any] = []  # of a kind of list

    def __new__(cls, *arguments: Any, **_: Any) -> "StandIn":
        made = super().__new__(cls)
        StandIn.__init__(made, *arguments)
        return made

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.entries[key] = value

    def append(self, item: Any) -> None:
        self.items.append(item)

    def fields(self) -> dict:
        """Return its attributes, or what it holds as a kind of dict or list."""
        state = self.state
        if isinstance(state, tuple) and len(state) == 2 and isinstance(state[1], dict):
            state = {**(state[0] if isinstance(state[0], dict) else {}), **state[1]}
        found: dict[Any, Any] = dict(state) if isinstance(state, dict) else {} if state is None else {"state": state}
        return {**found, **self.entries, **dict(enumerate(self.items))}


class Module(NamedTuple):
    """A module that was saved whole."""

    kind: str  # its class, module.name
    fields: dict  # its attributes


class Archive:
    """A file of PyTorch's, open for reading."""

    def __init__(self, path: Path) -> None:
        try:
            self._zip = zipfile.ZipFile(path)
        except BROKEN:
            raise ModelError(f"expected what torch.save writes, a zip file, got {_kind_of_file(path)}") from None
        entries = self._zip.infolist()
        packed = (entry for entry in entries if entry.compress_type != zipfile.ZIP_STORED)
        if sum(entry.file_size for entry in packed) > MOST_PICKLE:  # TorchScript packs its code and pickle
            raise ModelError("expected what torch.save writes, got a zip file that is compressed")
        if (size := sum(entry.file_size for entry in entries)) > MOST_BYTES:
            raise ModelError(f"expected at most {MOST_BYTES >> 20:,} MiB in it, got {size >> 20:,}")
        names = [entry.filename for entry in entries]
        if len(set(names)) < len(names):
            raise ModelError("expected what torch.save writes, got a zip file with two files of one name")
        tops = [name for name in names if re.fullmatch(r"[^/]*/data\.pkl", name)]
        if len(tops) != 1:
            exported = any(name.endswith(("exported_program.json", "archive_format")) for name in names)
            got = "a program of torch.export (save the model's state_dict)" if exported else "a zip file without it"
            raise ModelError(f"expected a zip file with data.pkl, as torch.save writes it, got {got}")
        self._top = tops[0].removesuffix("data.pkl")
        self._order = ">" if f"{self._top}byteorder" in names and self._read("byteorder") == b"big" else "<"
        self._last: tuple[str, bytes] = ("", b"")
        inside = [name.removeprefix(self._top) for name in names if name.startswith(self._top)]
        self._code = [name for name in inside if name.startswith("code/") and name.endswith(".py")]

    def close(self) -> None:
        self._zip.close()

    def load(self) -> Any:
        """Return what was saved."""
        if self._zip.getinfo(f"{self._top}data.pkl").file_size > MOST_PICKLE:
            raise ModelError(f"expected a pickle of at most {MOST_PICKLE >> 20} MiB in it, got a larger one")
        try:
            return _Unpickler(io.BytesIO(self._read("data.pkl"))).load()
        except ModelError:
            raise
        except Exception:  # whatever a broken or hostile pickle ends in
            raise ModelError("expected what torch.save writes, got a pickle that is broken") from None

    def code(self, kind: str = "") -> str:
        """Return the text of TorchScript's code, all of it or that beside a class, "" if there is none."""
        one = f"code/{kind.rpartition('.')[0].replace('.', '/')}.py"
        names = [name for name in self._code if not kind or name == one]
        if sum(self._zip.getinfo(self._top + name).file_size for name in names) > MOST_PICKLE:
            raise ModelError(f"expected code of at most {MOST_PICKLE >> 20} MiB in it, got more")
        return "\n".join(self._read(name).decode(errors="replace") for name in names)

    def array(self, tensor: Tensor) -> np.ndarray:
        """Return a tensor's numbers, or raise a ModelError if they are others than with a fraction, or broken."""
        if tensor.kind not in DTYPES:
            raise ModelError(f"expected a dense tensor of numbers with a fraction, got {clean(tensor.kind)}")
        expect_numbers(prod(tensor.shape))
        if self._last[0] != tensor.storage:
            self._last = tensor.storage, self._read(f"data/{tensor.storage}")
        dtype = np.dtype(f"{self._order}{DTYPES[tensor.kind]}")
        numbers = np.frombuffer(self._last[1][: len(self._last[1]) // dtype.itemsize * dtype.itemsize], dtype)
        if min(tensor.shape, default=1) < 1:
            raise ModelError(f"expected a tensor with numbers in it, got shape {tensor.shape}")
        last = tensor.offset + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.strides, strict=True))
        if min((tensor.offset, *tensor.strides)) < 0 or last >= len(numbers):
            raise ModelError("expected a tensor within its storage, got one beyond it")
        strides = [step * dtype.itemsize for step in tensor.strides]
        found = np.lib.stride_tricks.as_strided(numbers[tensor.offset :], tensor.shape, strides, writeable=False)
        if tensor.kind in BFLOAT16:
            return (found.astype(np.uint32) << 16).view(np.float32)
        return found.astype(dtype.newbyteorder("="))

    def _read(self, name: str) -> bytes:
        try:
            return self._zip.read(self._top + name)
        except KeyError:
            raise ModelError(f"expected {clean(name)} in the zip file, got none") from None
        except BROKEN:
            raise ModelError(
                f"{clean(name)}: the zip file's checksum says that it was changed or cut, or it has none"
            ) from None


def leaves(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield what lies in dicts, lists and objects: each Tensor, Module and object by its names joined with dots."""
    open_, seen, count = [("", value, 0)], set(), 0
    while open_:
        name, value, depth = open_.pop()
        count += 1
        if count > MOST_NAMES:
            raise ModelError(f"expected at most {MOST_NAMES:,} names, got more")
        if isinstance(value, Tensor):
            yield name, value
            continue
        if id(value) in seen and not isinstance(value, StandIn):
            continue  # the same list or dict again, or a list within itself
        if isinstance(value, StandIn):
            fields = value.fields()
            module = is_module(value.kind, fields)
            yield name, Module(value.kind, fields) if module else value
            if id(value) in seen and not module:
                continue
            inside = within(fields) if module else fields
        elif isinstance(value, dict):
            inside = value
        elif isinstance(value, (list, tuple)):
            inside = dict(enumerate(value))
        else:
            continue
        seen.add(id(value))
        if depth < DEEPEST:
            below = [(f"{name}.{key}" if name else str(key), one, depth + 1) for key, one in inside.items()]
            open_ += reversed(below)


def is_module(kind: str, fields: dict) -> bool:
    return isinstance(fields.get("_parameters"), dict) or kind.startswith("__torch__.")


def within(fields: dict) -> dict:
    """Return the parameters, buffers and modules of a module by their names."""
    if "_parameters" not in fields:
        return fields  # of TorchScript
    parts = [fields.get(name) for name in ("_parameters", "_buffers", "_modules")]
    return {name: one for part in parts if isinstance(part, dict) for name, one in part.items()}


class _Unpickler(pickle._Unpickler):  # type: ignore[name-defined]  # C's takes memory for a place in its memo at once
    dispatch: ClassVar = {
        code: load for code, load in pickle._Unpickler.dispatch.items() if code != pickle.BYTEARRAY8[0]
    }

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, encoding="utf-8", errors="replace")
        self._made: dict[str, Any] = {  # anew for each file, since a pickle may set what it likes on them
            "collections.OrderedDict": OrderedDict,
            "torch._utils._rebuild_tensor": _rebuild,
            "torch._utils._rebuild_tensor_v2": _rebuild,
            "torch._utils._rebuild_parameter": _first,
            "torch._utils._rebuild_parameter_with_state": _first,
            "torch._tensor._rebuild_from_type_v2": lambda make, kind, arguments, state: make(*arguments),
            "torch._utils._rebuild_qtensor": lambda storage, offset, size, *_: other("one that is quantized", size),
            "torch._utils._rebuild_sparse_tensor": lambda layout, data: other("one that is sparse"),
            "torch.jit._pickle.restore_type_tag": _first,
            "torch.jit._pickle.build_tensorlist": _first,
            "torch.jit._pickle.build_intlist": _first,
        }

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full not in self._made:
            self._made[full] = type("StandIn", (StandIn,), {"kind": full})
        return self._made[full]

    def get_extension(self, code: int) -> None:
        raise pickle.UnpicklingError("an extension")

    def persistent_load(self, saved: Any) -> Any:
        what, kind, key, *_ = saved
        if what != "storage" or not isinstance(key, str):
            raise pickle.UnpicklingError("no storage")
        return key, str(getattr(kind, "kind", kind)).rpartition(".")[2]


def _rebuild(storage: tuple[str, str], offset: int, size: tuple, strides: tuple, *_: Any) -> Tensor:
    key, kind = storage
    whole = all(type(n) is int and abs(n) < 2**62 for n in (offset, *size, *strides))
    if not whole or len(size) != len(strides) or len(size) > 8:
        raise pickle.UnpicklingError("no tensor")
    return Tensor(key, kind, offset, tuple(size), tuple(strides))


def other(kind: str, size: tuple = ()) -> Tensor:
    """Return what stands for weights whose numbers are not read, since they are of this kind."""
    return Tensor("", kind, 0, tuple(size), tuple(0 for _ in size))


def _first(first: Any, *_: Any) -> Any:
    return first


def _kind_of_file(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(512)
    if start[257:262] == b"ustar":
        return "a tar file, as PyTorch wrote before 0.1.10 (load it and save it again)"
    return next((words for sign, words in SIGNS.items() if start.startswith(sign)), "something else")
