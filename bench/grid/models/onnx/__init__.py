"""ONNX: its RNN, GRU and LSTM nodes, wherever they stand, each measured as a layer of its own.

`graph.py` writes functions out and finds the nodes, `constants.py` makes their weights of what stands in the file,
`cells.py` reads their equations, `sizes.py` finds out what T and B they see and how often they run, by what
`observed.py` sees of a run where that must be, and `unrolled.py` names recurrences that are no such nodes.
"""

from pathlib import Path
from typing import Any

from bench.grid.models import Found, Input, Layer, ModelError, clean, library
from bench.grid.models.onnx import cells, graph, unrolled
from bench.grid.models.onnx.graph import Place
from bench.grid.models.onnx.sizes import Size, Sizes, sizes


def read(path: Path, seq_len: int, batch_size: int, activation: str | None = None) -> Found:
    model = graph.load(path)
    left_out = graph.functions_left(model)
    found: list[tuple[Place, Layer, bool]] = []
    for place in graph.places(model, path.parent):
        try:
            found.append((place, *cells.layer(place.name, place.node, place.scope, activation)))
        except ModelError as error:
            left_out[place.name] = str(error)
    left_out |= unrolled.recurrences(model)
    if not found:
        return Found([], left_out)
    known = sizes(model, [place for place, *_ in found], path.parent, seq_len, batch_size)
    layers = [
        _sized(layer, known.nodes[place.name], batch_first, seq_len, batch_size)
        for place, layer, batch_first in found
        if place.name in known.nodes
    ]
    whole, told = _whole(model, known)
    return Found(layers, left_out | known.left_out, whole, (*known.told, *told))


def _sized(layer: Layer, size: Size, batch_first: bool, seq_len: int, batch_size: int) -> Layer:
    """Return a layer with the T and B that its node sees."""
    order = (1, 0) if batch_first else (0, 1)
    steps, batch = (size.axes[n] for n in order) if size.axes else (seq_len, batch_size)
    is_open = {name: size.open[n] for name, n in zip("TB", order, strict=True)}
    both = {"T": (steps, seq_len), "B": (batch, batch_size)}
    fixed = [f"{name} = {got}" for name, (got, asked) in both.items() if not is_open[name] and got != asked]
    told = (f"{' and '.join(fixed)}, as the file has it",) if fixed else ()
    return layer._replace(
        seq_len=steps,
        batch_size=batch,
        asked=tuple(name for name in "TB" if is_open[name]),
        told=(*told, *layer.told),
        calls=size.calls,
    )


def _whole(model: Any, known: Sizes) -> tuple[dict[str, Input] | None, list[str]]:
    """Return the inputs of the whole model, or None and why nobody runs it."""
    onnx = library("onnx", "peers")
    found = {}
    for value in graph.inputs(model):
        name, tensor = clean(value.name), value.type.tensor_type
        try:
            dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        except KeyError:
            dtype = None
        if dtype is None or dtype.kind not in "fiub" or name != value.name or not tensor.HasField("shape"):
            what = "whose type or shape is not told"
            if dtype is not None and dtype.kind not in "fiub":
                what = "of texts" if dtype.kind == "O" else f"of {dtype}, which NumPy does not have"
            return None, [f"The whole is not measured: its input {name} is one {what}."]
        found[value.name] = Input(str(dtype), known.inputs[value.name], known.values.get(value.name) or None)
    return found, []
