"""ONNX: its RNN, GRU and LSTM nodes, also in the bodies of If, Loop and Scan, each measured as a layer of its own.

Their weights are initializers, in the file or beside it (external data), or what a few operators that move numbers
about make of initializers. How many steps and sequences a node sees follows from the model's inputs by ONNX's own shape
inference; of an input that has no fixed shape, an axis is taken to be the batch if it is called so, or if it is the
first and has no name, and the steps otherwise.
"""

from collections.abc import Iterable
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from bench.grid.models import (
    MOST_NUMBERS,
    Found,
    Layer,
    ModelError,
    brief,
    clean,
    expect_numbers,
    layer_of,
    library,
    plain,
)
from reference.layouts import from_onnx

KINDS = ("RNN", "GRU", "LSTM")
KNOWN = (*KINDS, "DynamicQuantizeLSTM", "AttnLSTM")
ACTIVATIONS = {"RNN": ["Tanh"], "GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"]}
# What may stand between an initializer and a node: nothing that makes much of little.
MOVES = ("Identity", "Constant", "Concat", "Unsqueeze", "Squeeze", "Transpose", "Slice", "Split", "Reshape", "Cast",
         "DequantizeLinear")  # fmt: skip
MOST_FILE = 2**31 - 1  # bytes, of which a protocol buffer can have no more
DEEPEST = 50
BATCH = ("batch", "bs", "b", "n")


def read(path: Path, seq_len: int, batch_size: int, activation: str | None = None) -> Found:
    onnx = library("onnx", "peers")
    if (size := path.stat().st_size) > MOST_FILE:
        raise ModelError(
            f"expected a file of at most {MOST_FILE >> 20:,} MiB beside its external data, got {size >> 20:,}"
        )
    try:
        model = onnx.load(path, format="protobuf", load_external_data=False)
    except Exception as error:  # that of the protocol buffers' library, whichever it is
        raise ModelError(f"not an ONNX model: {brief(error)}") from None
    if not model.graph.node:
        raise ModelError("not an ONNX model, or one without a node")
    inputs = {one.name: _shape(one, seq_len, batch_size) for one in _inputs(model)}
    shapes = _inferred(onnx, model, inputs)
    found, left_out = [], {}
    for node, scope in _nodes(model.graph, _Scope(onnx, path.parent)):
        name = node.name or (node.output[0] if node.output else node.op_type)
        try:
            found.append(
                _layer(onnx, node, scope, name, shapes.get(node.input[0] if node.input else ""), seq_len, batch_size)
            )
        except ModelError as error:
            left_out[name] = str(error)
    whole = {one.name: (_dtype(onnx, one), inputs[one.name]) for one in _inputs(model)}
    return Found(found, left_out, whole if all(clean(name) == name for name in whole) else None)


class _Scope:
    """The values that a graph's nodes may name: its own, and those of the graphs around it."""

    def __init__(self, onnx: Any, folder: Path, outer: "_Scope | None" = None) -> None:
        self.onnx, self.folder, self.outer = onnx, folder, outer
        self.tensors: dict[str, Any] = {}
        self.makers: dict[str, Any] = {}
        self.made: dict[str, np.ndarray] = {}

    def value(self, name: str, deep: int = 0) -> np.ndarray:
        """Return a constant by its name, or raise a ModelError."""
        if name in self.made:
            return self.made[name]
        if name in self.tensors:
            self.made[name] = self._read(self.tensors[name])
        elif name in self.makers and deep < DEEPEST:
            node = self.makers[name]
            if node.op_type not in MOVES or node.domain not in ("", "ai.onnx"):
                raise ModelError(f"its weights are not constants, but made by {brief(node.op_type)}")
            given = {one: self.value(one, deep + 1) for one in node.input if one}
            expect_numbers(sum(a.size for a in given.values()))
            self.made |= zip(node.output, self._run(node, given), strict=False)
        elif self.outer is not None:
            return self.outer.value(name, deep)
        else:
            raise ModelError("its weights are not constants")
        return self.made[name]

    def _read(self, tensor: Any) -> np.ndarray:
        helper, numbers = self.onnx.numpy_helper, prod(tensor.dims)
        if any(size < 0 for size in tensor.dims) or numbers > MOST_NUMBERS:
            raise ModelError(f"{brief(tensor.name)}: expected at most {MOST_NUMBERS:,} numbers, got {numbers:,}")
        if tensor.data_location == self.onnx.TensorProto.EXTERNAL:
            self._expect_beside(tensor, numbers)
        try:
            return helper.to_array(tensor, str(self.folder))
        except Exception as error:  # of whatever is wrong with it
            raise ModelError(f"{brief(tensor.name)}: {brief(error)}") from None

    def _expect_beside(self, tensor: Any, numbers: int) -> None:
        """Raise a ModelError unless external data lie in a file beside the model, which holds as many bytes."""
        about = {entry.key: entry.value for entry in tensor.external_data}
        location = Path(about.get("location", ""))
        file = self.folder / location
        if location.is_absolute() or ".." in location.parts or not file.is_file() or not self._is_inside(file):
            raise ModelError(
                f"{brief(tensor.name)}: expected its data in a file beside the model, got {brief(location)}"
            )
        offset, length = about.get("offset", "0"), about.get("length", "0")
        if not (offset.isdigit() and length.isdigit() and len(offset + length) < 30):
            raise ModelError(f"{brief(tensor.name)}: expected an offset and a length, got {brief((offset, length))}")
        wanted = numbers * self.onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        if int(offset) + wanted > file.stat().st_size or int(length) not in (0, wanted):
            raise ModelError(f"{brief(tensor.name)}: expected {wanted:,} bytes in {location}, got fewer or more")

    def _is_inside(self, file: Path) -> bool:
        return file.resolve().is_relative_to(self.folder.resolve())

    def _run(self, node: Any, given: dict[str, np.ndarray]) -> list[np.ndarray]:
        helper, onnx = self.onnx.helper, self.onnx
        untyped = helper.make_tensor_value_info
        graph = helper.make_graph(
            [node],
            "constant",
            [untyped(name, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape) for name, a in given.items()],
            [onnx.ValueInfoProto(name=name) for name in node.output if name],
        )
        from onnx.reference import ReferenceEvaluator

        try:
            model = helper.make_model(
                graph, opset_imports=[helper.make_opsetid("", 18 if node.op_type != "Split" else 13)]
            )
            return [np.asarray(a) for a in ReferenceEvaluator(model).run(None, given)]
        except Exception as error:
            raise ModelError(f"its weights cannot be made by {node.op_type}: {brief(error)}") from None


def _nodes(graph: Any, scope: _Scope, deep: int = 0) -> Iterable[tuple[Any, _Scope]]:
    """Yield the recurrent nodes of a graph and of those in its nodes, each with the scope of its names."""
    scope.tensors |= {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        scope.makers |= dict.fromkeys(node.output, node)
    for node in graph.node:
        if node.op_type in KNOWN:
            yield node, scope
        for attribute in node.attribute:
            if attribute.HasField("g") and deep < DEEPEST:
                yield from _nodes(attribute.g, _Scope(scope.onnx, scope.folder, scope), deep + 1)


def _layer(onnx: Any, node: Any, scope: _Scope, name: str, shape: Any, seq_len: int, batch_size: int) -> Layer:
    about = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    _expect_ours(node, about)
    weights = [plain(scope.value(one)) for one in node.input[1:4] if one]
    if len(weights) < 2:
        raise ModelError("expected W and R, got fewer inputs")
    if shape is not None:
        seq_len, batch_size = shape[:2] if not about.get("layout") else shape[1::-1]
    layer = layer_of(name, from_onnx, *weights, seq_len=seq_len, batch_size=batch_size)
    if layer.cell != node.op_type.lower():
        raise ModelError(f"expected the weights of a {node.op_type}, got those of a {layer.cell.upper()}")
    return layer


def _expect_ours(node: Any, about: dict) -> None:
    """Raise a ModelError if the node computes anything else than a cell of ours."""
    if node.op_type not in KINDS or node.domain not in ("", "ai.onnx"):
        raise ModelError(f"{brief(node.op_type)}, which is no RNN, GRU or LSTM")
    directions = 2 if about.get("direction") == b"bidirectional" else 1
    usual = ACTIVATIONS[node.op_type] * directions
    activations = [brief(a.decode(errors="replace")) for a in about.get("activations", [])]
    if activations and [a.lower() for a in activations] != [a.lower() for a in usual]:
        raise ModelError(f"activations {', '.join(activations)}, where the cells here have {', '.join(usual)}")
    if about.get("clip"):
        raise ModelError("clip, which no cell here has")
    if about.get("input_forget"):
        raise ModelError("input_forget, which no cell here has")
    if node.op_type == "LSTM" and len(node.input) > 7 and node.input[7]:
        raise ModelError("peepholes, which no cell here has")
    if node.op_type == "GRU" and not about.get("linear_before_reset"):
        raise ModelError("linear_before_reset = 0, where the GRU here resets behind the product")


def _inputs(model: Any) -> list:
    """Return the model's inputs that are no weights."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [one for one in model.graph.input if one.name not in weights]


def _shape(value: Any, seq_len: int, batch_size: int) -> list[int]:
    """Return the shape of an input, its open axes filled in."""
    found = []
    for axis, size in enumerate(value.type.tensor_type.shape.dim):
        if size.HasField("dim_value") and size.dim_value > 0:
            found.append(size.dim_value)
            continue
        name = size.dim_param.lower()
        is_batch = "batch" in name or name in BATCH or (axis == 0 and not name)
        found.append(batch_size if is_batch else seq_len)
    return found


def _dtype(onnx: Any, value: Any) -> str:
    try:
        return str(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))
    except Exception:
        return "unknown"


def _inferred(onnx: Any, model: Any, inputs: dict[str, list[int]]) -> dict[str, list[int]]:
    """Return the shapes (of three axes, all known) that follow from those of the inputs, by the values' names."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    for value in _inputs(fixed):
        for size, number in zip(value.type.tensor_type.shape.dim, inputs[value.name], strict=True):
            size.dim_value = number
    del fixed.graph.value_info[:]
    for value in fixed.graph.output:  # which say what they were exported with
        value.type.tensor_type.ClearField("shape")
    try:
        fixed = onnx.shape_inference.infer_shapes(fixed, data_prop=True)
    except Exception:  # a model that is wrong somewhere else: its layers are those of the sizes asked for
        return {}
    found = {}
    for value in (*fixed.graph.value_info, *fixed.graph.input):
        sizes = [size.dim_value for size in value.type.tensor_type.shape.dim]
        if len(sizes) == 3 and all(sizes):
            found[value.name] = sizes
    return found
