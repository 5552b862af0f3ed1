"""What PyTorch writes: a state_dict in a checkpoint of any kind, a module saved whole, TorchScript, Lightning's .ckpt.

Nothing in the file is run, and PyTorch is not needed: see `bench.grid.models.pickles`. Where the file names classes,
a module that was saved whole or TorchScript, they tell PyTorch's own layers from others; see
`bench.grid.models.state_dicts` for what is taken by its names.
"""

import json
import re
from pathlib import Path

import numpy as np

from bench.grid.models import Found, ModelError, clean, expect_kind, plain
from bench.grid.models.pickles import Archive, Module, StandIn, Tensor, leaves, other
from bench.grid.models.state_dicts import NAME, OWN, About, grouped

MOST_INDEX = 2**24  # bytes of an index of shards
SHARD = re.compile(r".*-\d+-of-(\d+)", re.DOTALL)
CALLED = re.compile(r"torch\.rnn_(tanh|relu)(?:_cell)?\(")


def read(path: Path, seq_len: int, batch_size: int, activation: str | None = None) -> Found:
    if path.name.endswith(".index.json"):
        indexed = shards(path)
        files = list(dict.fromkeys(indexed.values()))
    else:
        expect_whole(path)
        indexed, files = {}, [path]
    archives = []
    try:
        tensors: dict[str, tuple[Archive, Tensor]] = {}
        classes: dict[str, About] = {}
        objects: list[str] = []
        for file in files:
            if indexed:
                expect_kind(file, "torch", f"{clean(file.name)}: ")
            archives.append(archive := Archive(file))
            for name, leaf in leaves(archive.load()):
                if isinstance(leaf, StandIn) and NAME.fullmatch(name):  # such as an array of NumPy
                    leaf = other(f"an object of {leaf.kind.split('.')[0]}")
                if isinstance(leaf, Tensor) and indexed.get(name, path) != file:
                    continue  # another shard's
                if isinstance(leaf, Tensor):
                    if tensors.setdefault(name, (archive, leaf))[1] != leaf:
                        raise ModelError(f"expected arrays whose names are all different, got two of {clean(name)}")
                elif isinstance(leaf, Module):
                    classes[name] = _about(archive, leaf)
                else:
                    objects.append(name)

        if missing := indexed.keys() - tensors.keys():
            name = min(missing)
            raise ModelError(f"expected {clean(name)} in {clean(indexed[name].name)}, where its index has it, got none")

        def get(name: str) -> np.ndarray:
            archive, tensor = tensors[name]
            try:
                return plain(archive.array(tensor))
            except ModelError as error:
                raise ModelError(f"{name}: {error}") from None

        def same(name: str) -> tuple:
            archive, tensor = tensors[name]
            return id(archive), tensor

        shapes = {name: tensor.shape for name, (_, tensor) in tensors.items()}
        alone = path.name.split(".")[0] if path.name.endswith(".json") else path.stem
        found = grouped(shapes, get, alone, seq_len, batch_size, activation, classes, same, objects)
        left_out = {name: words for name in classes if (words := _strange(classes[name].kind))}
        left_out = {name or alone: words for name, words in left_out.items()} | found.left_out
        if not found.layers and not left_out and re.search(r"torch\.(?:lstm|gru|rnn_)", archives[0].code()):
            raise ModelError("expected weights with names, got a frozen TorchScript, where they are constants")
        return found._replace(left_out=left_out)
    finally:
        for archive in archives:
            archive.close()


def _strange(kind: str) -> str:
    """Return why a module is left out by its class, or ""."""
    if re.fullmatch(r"torch\.(?:ao\.)?nn\.quant\w+\.(?:\w+\.)*rnn\.(?:RNN|GRU|LSTM)(?:Cell)?", kind):
        return "quantized by PyTorch: its packed weights of int8 are not read"
    return ""


def _about(archive: Archive, module: Module) -> About:
    """Return what a file says of a module."""
    kind, fields = module.kind, module.fields
    name = re.sub(r"___torch_mangle_\d+\.", "", kind.removeprefix("__torch__."))
    activation = None
    if (own := OWN.fullmatch(name)) and own[1] == "RNN":
        said = fields.get("nonlinearity", fields.get("mode"))
        called = set(CALLED.findall(archive.code(kind)))
        if isinstance(said, str):
            activation = said.removeprefix("RNN_").lower()
        elif len(called) == 1:
            activation = called.pop()
    hooks = [one for key in ("_forward_hooks", "_forward_pre_hooks") for one in _values(fields.get(key))]
    hooks += ["forward"] if "forward" in fields else []
    return About(name, activation, tuple(_kind(one) for one in hooks))


def _kind(hook: object) -> str:
    return hook.kind if isinstance(hook, StandIn) else hook if isinstance(hook, str) else "a function"


def _values(hooks: object) -> list:
    return list(hooks.values()) if isinstance(hooks, dict) else []


def expect_whole(path: Path) -> None:
    """Raise a ModelError for a shard, one file of several that are a model together."""
    number = SHARD.fullmatch(path.name.split(".")[0])
    index = next((one for one in path.parent.glob("*.index.json") if one.is_file() and _lists(one, path.name)), None)
    if index is not None or (number and int(number[1]) > 1):
        name = index.name if index is not None else f"its {path.suffix}.index.json"
        raise ModelError(f"expected a whole model, got a shard of several: give {name}, which names them all")


def _lists(index: Path, name: str) -> bool:
    try:
        files = {file.name for file in shards(index).values()}
    except (ModelError, OSError):
        return False
    return name in files and len(files) > 1


def shards(path: Path) -> dict[str, Path]:
    """Return the file of each array that an index of shards names, or raise a ModelError."""
    try:
        with path.open("rb") as file:
            text = file.read(MOST_INDEX + 1)
        names = json.loads(text)["weight_map"] if len(text) <= MOST_INDEX else None
    except (ValueError, KeyError, TypeError, RecursionError):
        names = None
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        raise ModelError('expected an index of shards, JSON with a "weight_map" of names and files, got something else')
    for name in names.values():
        if Path(name).name != name or name in ("", ".", ".."):
            raise ModelError("expected shards beside their index, got one of somewhere else")
        if not path.with_name(name).is_file():
            raise ModelError(f"expected {name} beside it, a shard that it names, got none")
    return {full: path.with_name(name) for full, name in names.items()}
