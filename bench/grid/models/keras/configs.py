"""What a Keras config says: every recurrent layer of a model, its equations, and the path where its weights lie.

The path is the one that Keras itself walks when it saves: layers/<the class in snake case>_<n> in the order of the
layers, models within models, and in a layer the attributes that hold others. A class is Keras' own where its module and
its registered name say so; a recurrent one that is not is left out by name.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from bench.grid.models import ModelError, brief

GATES = {"SimpleRNN": 1, "GRU": 3, "LSTM": 4, "CuDNNGRU": 3, "CuDNNLSTM": 4}
CELLS = {"SimpleRNNCell": "SimpleRNN", "GRUCell": "GRU", "LSTMCell": "LSTM"}
RECURRENT = re.compile("rnn|lstm|gru", re.IGNORECASE)
# What the list of a model's layers is called, by Keras 2.13 in another way.
LISTS = ("layers", "_layer_checkpoint_dependencies")
# What gives as many steps as it takes.
KEEPS = re.compile(
    "Dense|.*Dropout.*|GaussianNoise|Activation|ActivityRegularization|.*ReLU|ELU|Softmax|.*Normalization|Masking|"
    "Embedding|TimeDistributed|Identity"
)
MERGES = ("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate")

Shape = list[int | None] | None  # (B, T, ...); None within it is open, None is not known


class Cell(NamedTuple):
    """What has weights of its own: a layer in one direction, or one of several cells upon each other."""

    path: str  # below the layer's
    kind: str  # one of GATES
    config: dict | None  # None where the file has none


class Described(NamedTuple):
    """A recurrent layer, as its config says."""

    names: tuple[str, ...]  # of the models that it lies in, but the outermost, and its own
    path: str
    cells: tuple[Cell, ...] = ()
    directions: bool = False  # whether the cells are these, or else lie upon each other
    seq_len: int | None = None  # that the file fixes
    batch_size: int | None = None
    sequences: int = 1  # for each of the batch
    told: tuple[str, ...] = ()
    why: str = ""  # it is left out
    repeated: bool = False  # and has no weights of its own


class Model(NamedTuple):
    """What a config holds."""

    layers: list[Described]
    told: tuple[str, ...]
    is_doubled: bool = False  # each layer with weights has two numbers

    def names(self) -> list[str]:
        """Return the names of the layers: their own where one alone has it, else behind those of their models."""
        own = [one.names[-1] for one in self.layers if not one.repeated]
        return [one.names[-1] if own.count(one.names[-1]) <= 1 else "/".join(one.names) for one in self.layers]


def model_of(node: Any, version: Any, where: str, is_doubled: bool = False) -> Model:
    """Return the Model that a config describes, as a version of Keras wrote it, or raise a ModelError.

    Where it comes from is for the error. Keras 2.13 lists each layer with weights twice, under another name.
    """
    if not isinstance(node, dict) or not isinstance(node.get("class_name"), str) or _config(node) is None:
        raise ModelError(f"{where}: expected the config of a model, got none")
    walk = _Walk(is_doubled, counts_repeated=is_doubled or not str(version).startswith("2"))
    walk.layer(node, _Place("", ()))
    told = "Steps that a mask leaves out (Masking, Embedding with mask_zero) are skipped in Keras, and computed here."
    return Model(walk.found, (told,) if walk.masks else (), is_doubled)


def snake_case(name: str) -> str:
    """Return the name of a class as it stands in paths."""
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def activation_of(value: Any) -> str:
    """Return the name of an activation in a config."""
    if value is None:
        return "linear"
    if isinstance(value, dict) and isinstance(value.get("config"), str) and _is_keras(value):
        value = value["config"]
    if isinstance(value, dict) and isinstance(value.get("class_name"), str) and value["class_name"].isidentifier():
        value = value["class_name"]
    return value if isinstance(value, str) and value not in ("function", "__lambda__") else "a function of its own"


class _Place(NamedTuple):
    path: str
    names: tuple[str, ...]
    before: "Shape" = None  # of what it is given, as far as what lies before it tells
    repeated: bool = False
    sequences: int = 1
    told: tuple[str, ...] = ()
    inside: str = ""  # the wrapper whose name it has

    def within(self, path: str, **changes: Any) -> "_Place":
        return self._replace(path=f"{self.path}/{path}".lstrip("/"), **changes)


class _Walk:
    """One way through a model's config, in the order in which Keras walks it."""

    def __init__(self, is_doubled: bool, counts_repeated: bool) -> None:
        self.list, self.step = LISTS[is_doubled], 1 + is_doubled
        self.counts_repeated = counts_repeated
        self.masks = False
        self.found: list[Described] = []
        self._resized = ""  # the last layer that may have changed T
        self._seen: dict[tuple, list[dict]] = {}

    def layer(self, node: dict, place: _Place) -> Shape:
        """Find the recurrent layers of a layer or model, and return the shape of what it gives, as far as it tells."""
        config, kind, known = _config(node) or {}, node["class_name"], _is_keras(node)
        names = (*place.names, place.inside or str(config.get("name", kind)))
        shape = place.before if kind in MERGES else _shape(node, place.before)
        self.masks |= kind == "Masking" or bool(config.get("mask_zero"))
        if isinstance(config.get("layers"), list):
            inner = place._replace(names=names if place.path else (), before=shape, inside="")
            return self._model(config, inner)
        if known and kind == "TimeDistributed" and isinstance(inner_node := config.get("layer"), dict):
            outer = shape[1] if shape is not None and len(shape) > 2 else None
            said = f"it runs on each of {outer} outer steps (TimeDistributed), so that B is {outer} times as large"
            if outer is None:
                said = "it runs on each of several outer steps (TimeDistributed), and on one here"
            before = None if shape is None else [shape[0], *shape[2:]]
            inner = place.within("layer", names=names[:-1], before=before, inside=names[-1])
            if isinstance(inner_node.get("class_name"), str):
                sequences = place.sequences * (outer or 1)
                self.layer(inner_node, inner._replace(sequences=sequences, told=(*place.told, said)))
        elif known and kind in ("RNN", "Bidirectional", *GATES):
            return self._recurrent(node, shape, place._replace(names=names))
        elif RECURRENT.search(kind):
            self.found.append(Described(names, self._path(place), why=_unknown(node), repeated=place.repeated))
        return self._after(node, shape, names[-1])

    def _model(self, config: dict, place: _Place) -> Shape:
        """Find the recurrent layers of a model."""
        used: dict[str, int] = {}
        shapes: dict[str, Shape] = {}
        last = place.before
        nodes = [one for one in config["layers"] if isinstance(one, dict) and isinstance(one.get("class_name"), str)]
        given = place.before if [one["class_name"] for one in nodes].count("InputLayer") < 2 else None
        for node in nodes:
            inbound = _inbound(node)
            before = last if inbound is None else shapes.get(next(iter(inbound), ""))
            repeated = self._is_repeated(node)
            name = str(node.get("name") or (_config(node) or {}).get("name"))
            if node["class_name"] in MERGES:
                before = self._merge(node, [shapes.get(one) for one in inbound or ()], name)
            if node["class_name"] == "InputLayer":
                last = shapes[name] = _merged(_shape(node, None), given)
            elif ".ops" in str(node.get("module")):  # a function, which is no layer
                last = shapes[name] = self._after(node, before, name)
            else:
                segment = snake_case(node["class_name"])
                number = used.get(segment, -self.step) + self.step
                if self.counts_repeated or not repeated:
                    used[segment] = number
                inner = place.within(f"{self.list}/{segment}{f'_{number}' if number else ''}", before=before)
                last = shapes[name] = self.layer(node, inner._replace(repeated=place.repeated or repeated))
        outputs = _inbound({"inbound_nodes": config.get("output_layers")})
        return shapes.get(outputs[0], last) if outputs else last

    def _merge(self, node: dict, given: list[Shape], name: str) -> Shape:
        """Return the shape of what a layer makes of several, None where it may have other steps than the first."""
        axis = (_config(node) or {}).get("axis", -1) if node["class_name"] == "Concatenate" else -1
        first = given[0] if given else None
        alike = first is not None and all(one and one[:2] == first[:2] for one in given)
        if first is not None and alike and len(first) == 3 and axis in (-1, 2):
            return [*first[:2], None]
        self._resized = name
        return None

    def _recurrent(self, node: dict, shape: Shape, place: _Place) -> Shape:
        """Find a recurrent layer of Keras."""
        config, kind = _config(node) or {}, node["class_name"]
        inner = _config(config.get("layer")) or config
        B, T = (None, None) if shape is None or len(shape) != 3 else shape[:2]
        if inner.get("time_major"):
            B, T = T, B
        told = [*place.told, *_told(node, config, kind)]
        if T is not None:
            told.append(f"its T is {T}, as the file has it")
        elif self._resized:
            told.append(f"its T is taken to be --seq-len, though {self._resized} before it may change it")
        described = Described(
            place.names,
            self._path(place),
            seq_len=T,
            batch_size=B if inner.get("stateful") else None,
            sequences=place.sequences,
            told=tuple(told),
            repeated=place.repeated,
        )
        try:
            self.found.append(described._replace(**_cells(node)))
        except ModelError as error:
            self.found.append(described._replace(why=str(error)))
        return [B, T, None] if inner.get("return_sequences") and not inner.get("time_major") else None

    def _path(self, place: _Place) -> str:
        """Return a layer's path, none of one that has come before where such are not counted."""
        return "" if place.repeated and not self.counts_repeated else place.path

    def _after(self, node: dict, shape: Shape, name: str) -> Shape:
        """Return the shape of what a layer gives, None where that is not known."""
        config, kind = _config(node) or {}, node["class_name"]
        B = shape[0] if shape else None
        if not _is_keras(node):
            kind = ""
        if kind == "RepeatVector" and type(config.get("n")) is int:
            return [B, config["n"], None]
        target = config.get("target_shape")
        if kind == "Reshape" and isinstance(target, list) and all(type(n) is int and n > 0 for n in target):
            return [B, *target]
        same = kind == "Conv1D" and config.get("padding") != "valid" and config.get("strides") in (1, [1])
        if kind in MERGES or (same and config.get("data_format") != "channels_first") or KEEPS.fullmatch(kind):
            return None if shape is None else [*shape[:2], None]
        self._resized = name
        return None

    def _is_repeated(self, node: dict) -> bool:
        """Tell whether a layer has come before: the second time its config has the number of a shared object."""
        config = {name: value for name, value in (_config(node) or {}).items() if name != "dtype"}
        seen = self._seen.setdefault((node["class_name"], str(config.get("name"))), [])
        repeated = "shared_object_id" in node and config in seen
        seen.append(config)
        return repeated


def _told(node: dict, config: dict, kind: str) -> Iterator[str]:
    """Yield what is not measured as it stands in the config."""
    inner = _config(config.get("layer")) or {} if kind == "Bidirectional" else config
    if inner.get("go_backwards"):
        yield "it goes through its steps in reverse order (go_backwards), and forward here"
    if inner.get("stateful"):
        yield "its state goes on from call to call (stateful), and is zero at first here"
    if _is_given_state(node):
        yield "the state that it begins with is given, and zero here"
    calls = node.get("inbound_nodes")
    if isinstance(calls, list) and len(calls) > 1:
        yield f"it runs {len(calls)} times in its model, and once here"
    if config.get("merge_mode") in ("sum", "mul", "ave"):
        yield f"its directions are merged by {config['merge_mode']}, and lie side by side here"
    policy = config.get("dtype")
    policy = (_config(policy) or {}).get("name") if isinstance(policy, dict) else policy
    if isinstance(policy, str) and "float16" in policy:
        yield f"it computes by the policy {policy} in Keras"


def _config(node: Any) -> dict | None:
    """Return the config of a layer, or the list of layers that the oldest Sequential models have for one, as a dict."""
    config = node.get("config") if isinstance(node, dict) else None
    return {"layers": config} if isinstance(config, list) else config if isinstance(config, dict) else None


def _is_keras(node: dict) -> bool:
    """Tell whether a class is Keras' own: files of Keras 2 have no module, and the registered name of others is more.

    A function of Keras 3 has the module builtins.
    """
    if "module" not in node:
        return ">" not in str(node.get("class_name"))
    root = str(node["module"]).split(".")[0]
    is_function = root == "builtins" and node.get("class_name") == "function"
    known = (None, node.get("class_name"), node.get("config") if is_function else None)
    return (root in ("keras", "tf_keras") or is_function) and node.get("registered_name") in known


def _unknown(node: dict) -> str:
    """Return why a recurrent class is left out."""
    name = brief(node.get("registered_name") or node.get("class_name"))
    return (
        f"{brief(node['class_name'])}, which no cell here is"
        if _is_keras(node)
        else f"{name}, a class that is not Keras'"
    )


def _cells(node: dict) -> dict[str, Any]:
    """Return the cells of a recurrent layer of Keras, and whether they are directions."""
    config, kind = _config(node) or {}, node["class_name"]
    if kind in GATES:
        return {"cells": (Cell("cell", kind, config),)}
    if kind == "RNN":
        return {"cells": tuple(_inner_cells(config.get("cell")))}
    forward = config.get("layer")
    backward = config.get("backward_layer") or forward
    cells = []
    for path, layer in (("forward_layer", forward), ("backward_layer", backward)):
        if not isinstance(layer, dict) or not _is_keras(layer) or layer.get("class_name") not in ("RNN", *GATES):
            name = layer.get("class_name") if isinstance(layer, dict) else "nothing"
            raise ModelError(f"both directions of {brief(name)}, which no cell here is")
        found = _cells(layer)["cells"]
        if len(found) > 1:
            raise ModelError("cells upon each other, in both directions")
        cells.append(found[0]._replace(path=f"{path}/{found[0].path}"))
    return {"cells": tuple(cells), "directions": True}


def _inner_cells(node: Any) -> Iterator[Cell]:
    """Yield the cells of an RNN."""
    config = _config(node)
    if config is None or not isinstance(node.get("class_name"), str):
        raise ModelError("an RNN of a cell that config.json does not tell")
    if not _is_keras(node) or node["class_name"] not in (*CELLS, "StackedRNNCells"):
        raise ModelError(_unknown(node))
    if node["class_name"] in CELLS:
        yield Cell("cell", CELLS[node["class_name"]], config)
        return
    used: dict[str, int] = {}
    for inner in config.get("cells") or [None]:
        for cell in _inner_cells(inner):
            segment = snake_case(inner["class_name"])
            used[segment] = number = used.get(segment, -1) + 1
            if cell.path != "cell":
                raise ModelError("cells upon each other in a cell upon others")
            yield cell._replace(path=f"cell/cells/{segment}_{number}" if number else f"cell/cells/{segment}")


def _shape(node: dict, before: Shape) -> Shape:
    """Return the shape of what a layer is given, by its config and by what lies before it."""
    config = _config(node) or {}
    build = _dict(node.get("build_config"))
    shapes = _dict(build.get("shapes_dict"))
    given = (shapes.get("sequences_shape"), shapes.get("input_shape"), build.get("input_shape"))
    for shape in (*given, config.get("batch_shape"), config.get("batch_input_shape")):
        shape = shape[0] if isinstance(shape, list) and shape and isinstance(shape[0], list) else shape
        if isinstance(shape, list) and all(size is None or (type(size) is int and size > 0) for size in shape):
            return _merged(shape, before)
    return before


def _dict(value: Any) -> dict:
    return value if isinstance(value, dict) else {}


def _merged(shape: Shape, before: Shape) -> Shape:
    """Return a shape whose open sizes are those of another, of as many axes."""
    if shape is None or before is None or len(shape) != len(before):
        return before if shape is None else shape
    return [other if size is None else size for size, other in zip(shape, before, strict=True)]


def _inbound(node: dict) -> list[str] | None:
    """Return the names of the layers whose outputs a layer of a functional model takes, None in a sequential one."""
    found: list[str] = []

    def visit(item: Any) -> None:
        if isinstance(item, dict) and isinstance(history := (_config(item) or {}).get("keras_history"), list):
            found.append(str(history[0] if history else None))
        elif isinstance(item, list) and len(item) > 2 and isinstance(item[0], str):
            found.append(item[0])
        for inner in item.get("args", []) if isinstance(item, dict) else item if isinstance(item, list) else []:
            visit(inner)

    visit(node.get("inbound_nodes"))
    return None if "inbound_nodes" not in node else found


def _is_given_state(node: dict) -> bool:
    """Tell whether a call of a layer has an initial state, as an argument or as inputs behind the first."""
    calls = node.get("inbound_nodes")
    for call in calls if isinstance(calls, list) else []:
        args, named = ([], call) if isinstance(call, list) else (call.get("args"), [[call.get("kwargs")]])
        if isinstance(args, list) and args and (len(args) > 1 or (isinstance(args[0], list) and len(args[0]) > 1)):
            return True
        if isinstance(call, list) and len(call) > 1:
            return True
        for item in _flat(named):
            if isinstance(item, dict) and item.get("initial_state") is not None:
                return True
    return False


def _flat(items: Iterable[Any]) -> Iterator[Any]:
    for item in items:
        if isinstance(item, list):
            yield from _flat(item)
        else:
            yield item
