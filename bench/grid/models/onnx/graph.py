"""A file's graph made plain: its functions are written out where they are called, and names are one node's alone."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from bench.grid.models import ModelError, clean, labels, library
from bench.grid.models.onnx.constants import Scope

MOST_FILE = 2**31 - 1  # bytes, of which a protocol buffer can have no more
MOST_NODES = 2**20  # when functions are written out
DEEPEST = 50
OURS = ("", "ai.onnx")
NODES = ("RNN", "GRU", "LSTM", "DynamicQuantizeLSTM")
RECURRENT = re.compile(r"RNN|GRU|LSTM")


class Branch(NamedTuple):
    """A graph within a node, such as the body of a loop."""

    node: str  # its name
    kind: str  # If, Loop, Scan...
    attribute: str

    @property
    def taken(self) -> bool:
        """Return the condition of an If that takes this branch."""
        return self.attribute == "then_branch"


class Place(NamedTuple):
    """A recurrent node and where it stands."""

    name: str
    node: Any
    scope: Scope
    within: tuple[Branch, ...]


def load(path: Path) -> Any:
    """Return the model in a file, its large weights left where they are, or raise a ModelError."""
    onnx = library("onnx", "peers")
    if (size := path.stat().st_size) > MOST_FILE:
        raise ModelError(
            f"expected a file of at most {MOST_FILE >> 20:,} MiB beside its external data, got {size >> 20:,}"
        )
    try:
        model = onnx.load(path, format="protobuf", load_external_data=False)
    except Exception:  # that of the protocol buffers' library, whichever it is
        raise ModelError("not an ONNX model, or one that is cut off") from None
    if not model.graph.node:
        raise ModelError("not an ONNX model, or one without a node")
    if not any(one.domain in OURS and one.version > 0 for one in model.opset_import):
        raise ModelError("not an ONNX model: expected the version of its operators, got none")
    _decode(model)
    return _named(_inlined(onnx, model))


def _decode(message: Any, deep: int = 0) -> None:
    """Make texts of what protocol buffers give as bytes, since it is in another encoding than theirs."""
    if deep > 4 * DEEPEST:
        raise ModelError(f"expected graphs at most {DEEPEST} deep, got more")
    for field, value in message.ListFields():
        many = not isinstance(value, str | bytes) and hasattr(value, "__len__")
        if field.type == field.TYPE_STRING:
            if isinstance(value, bytes):
                setattr(message, field.name, value.decode(errors="replace"))
            elif many and any(isinstance(one, bytes) for one in value):
                value[:] = [one.decode(errors="replace") if isinstance(one, bytes) else one for one in value]
        elif field.type == field.TYPE_MESSAGE:
            for one in value if many else (value,):
                _decode(one, deep + 1)


def _inlined(onnx: Any, model: Any) -> Any:
    """Return a model with its functions written out, as far as they are of its own operators' version."""
    if not model.functions:
        return model
    sizes: dict[tuple, int | None] = {}
    functions = {(f.domain, f.name, f.overload): f for f in model.functions}

    def size(nodes: Any, deep: int = 0) -> int:
        if deep > DEEPEST:
            raise ModelError(f"expected functions and graphs at most {DEEPEST} deep, got more")
        found = 0
        for node in nodes:
            found += 1 + sum(size(a.g.node, deep + 1) for a in node.attribute if a.HasField("g"))
            key = (node.domain, node.op_type, node.overload)
            if key in functions:
                if key not in sizes:
                    sizes[key] = None  # it is being counted
                    sizes[key] = size(functions[key].node, deep + 1)
                inner = sizes[key]
                if inner is None:
                    raise ModelError(f"{clean(node.op_type)}: expected a function that does not call itself")
                found += inner
            if found > MOST_NODES:
                raise ModelError(f"expected at most {MOST_NODES:,} nodes, its functions written out, got more")
        return found

    size(model.graph.node)
    import onnx.inliner

    try:
        return onnx.inliner.inline_local_functions(model)
    except Exception:
        raise ModelError("its functions cannot be written out where they are called") from None


def _named(model: Any) -> Any:
    """Return the model with a name of its own for each node that is recurrent or holds a graph."""
    nodes = [node for node, _, _ in _walk(model.graph, (), 0) if _is_named(node)]
    names = labels([node.name or next(filter(None, node.output), node.op_type) for node in nodes])
    for node, name in zip(nodes, names, strict=True):
        node.name = name
    taken = set(names)
    for node, _, _ in _walk(model.graph, (), 0):  # ONNX Runtime has no two of a name
        if not _is_named(node) and node.name in taken:
            node.name = ""
    return model


def _is_named(node: Any) -> bool:
    return RECURRENT.search(node.op_type) is not None or any(a.HasField("g") for a in node.attribute)


def _walk(graph: Any, within: tuple[Branch, ...], deep: int) -> Iterator[tuple[Any, Any, tuple[Branch, ...]]]:
    """Yield each node of a graph and of those within it, with its graph and where that stands."""
    if deep > DEEPEST:
        raise ModelError(f"expected graphs at most {DEEPEST} deep, got more")
    for node in graph.node:
        yield node, graph, within
        for attribute in node.attribute:
            if attribute.HasField("g"):
                branch = Branch(node.name, node.op_type, attribute.name)
                yield from _walk(attribute.g, (*within, branch), deep + 1)


def graphs(model: Any) -> Iterator[tuple[Any, tuple[Branch, ...]]]:
    """Yield each graph of a model, and where it stands."""
    yield model.graph, ()
    for node, _, within in _walk(model.graph, (), 0):
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield attribute.g, (*within, Branch(node.name, node.op_type, attribute.name))


def places(model: Any, folder: Path) -> list[Place]:
    """Return the recurrent nodes of a model that `load` returned, also those that are left out."""
    scopes: dict[tuple[Branch, ...], Scope] = {}
    for graph, within in graphs(model):
        scopes[within] = Scope(model, graph, folder, scopes[within[:-1]] if within else None)
    return [
        Place(node.name, node, scopes[within], within)
        for node, _, within in _walk(model.graph, (), 0)
        if RECURRENT.search(node.op_type)
    ]


def functions_left(model: Any) -> dict[str, str]:
    """Return why the recurrent nodes of functions that could not be written out are left out, by their names."""
    found = {}
    for function in model.functions:
        for node in function.node:
            if RECURRENT.search(node.op_type):
                name = f"{function.name}/{node.name or node.op_type}"
                found[name] = f"it stands in the function {clean(function.name)}, of another version of operators"
    return found


def inputs(model: Any) -> list:
    """Return the model's inputs that are no weights."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [one for one in model.graph.input if one.name not in weights]
