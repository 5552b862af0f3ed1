"""What a file's weights are: initializers, in the file or beside it, and what some operators make of initializers.

They are what moves numbers about, changes their type, or adds and multiplies them one by one: nothing that makes much
of little. Each is run as its model's version of operators has it.
"""

from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from bench.grid.models import MOST_NUMBERS, ModelError, clean, expect_numbers, library

MADE_BY = ("Identity", "Constant", "Concat", "Unsqueeze", "Squeeze", "Transpose", "Slice", "Split", "Reshape", "Cast",
           "Flatten", "Gather", "QuantizeLinear", "DequantizeLinear", "Add", "Sub", "Mul", "Div")  # fmt: skip
MICROSOFTS = ("QuantizeLinear", "DequantizeLinear")  # of com.microsoft, the same with more types
DEEPEST = 50


class Scope:
    """The values that a graph's nodes may name: its own, and those of the graphs around it."""

    def __init__(self, model: Any, graph: Any, folder: Path, outer: "Scope | None" = None) -> None:
        self.onnx, self.model, self.folder, self.outer = library("onnx", "peers"), model, folder, outer
        self.tensors = {tensor.name: tensor for tensor in graph.initializer}
        self.makers = {name: node for node in graph.node for name in node.output}
        self.inputs = {value.name for value in graph.input}
        self.made: dict[str, np.ndarray] = {}
        self.dequantized: set[str] = set()  # names of what passed a DequantizeLinear

    def value(self, name: str, deep: int = 0) -> np.ndarray:
        """Return a constant by its name, or raise a ModelError."""
        home = self._home(name)
        if name not in home.made:
            if name in home.tensors:
                home.made[name] = home._read(home.tensors[name])
            elif name in home.makers and deep < DEEPEST:
                home._make(home.makers[name], deep)
            else:
                raise ModelError("its weights are not constants")
        return home.made[name]

    def is_dequantized(self, name: str) -> bool:
        """Return whether a constant that `value` returned was made of whole numbers."""
        return name in self._home(name).dequantized

    def _home(self, name: str) -> "Scope":
        """Return the scope that a name is of: the innermost that has it."""
        if name in self.tensors or name in self.makers or name in self.inputs or self.outer is None:
            return self
        return self.outer._home(name)

    def _make(self, node: Any, deep: int) -> None:
        mine = MADE_BY if node.domain in ("", "ai.onnx") else MICROSOFTS if node.domain == "com.microsoft" else ()
        if node.op_type not in mine:
            raise ModelError(f"its weights are not constants, but made by {clean(node.op_type)}")
        given = {one: self.value(one, deep + 1) for one in node.input if one}
        expect_numbers(max(sum(given[one].size for one in node.input if one), self._spread(node, given)))
        self.made |= zip(node.output, self._run(node, given), strict=False)
        if node.op_type == "DequantizeLinear" or any(self.is_dequantized(one) for one in given):
            self.dequantized |= set(node.output)

    def _spread(self, node: Any, given: dict[str, np.ndarray]) -> int:
        """Return how many numbers a node makes whose inputs are repeated to fit each other, or picked."""
        shapes = [given[one].shape for one in node.input if one]
        if node.op_type == "Gather":
            return prod(shapes[-1]) * prod(shapes[0]) // max(1, min(shapes[0], default=1))
        if node.op_type in ("Add", "Sub", "Mul", "Div"):
            try:
                return prod(np.broadcast_shapes(*shapes))
            except ValueError:
                raise ModelError(f"its weights cannot be made by {node.op_type}: their shapes do not fit") from None
        return 0

    def _read(self, tensor: Any) -> np.ndarray:
        helper, numbers, name = self.onnx.numpy_helper, prod(tensor.dims), clean(tensor.name)
        if any(size < 0 for size in tensor.dims) or numbers > MOST_NUMBERS:
            raise ModelError(f"{name}: expected at most {MOST_NUMBERS:,} numbers, got {numbers:,}")
        if tensor.data_location == self.onnx.TensorProto.EXTERNAL:
            self._expect_beside(tensor, numbers)
        try:
            return helper.to_array(tensor, str(self.folder))
        except Exception:  # of whatever is wrong with it
            raise ModelError(f"{name}: expected {numbers:,} numbers of a known type, got others") from None

    def _expect_beside(self, tensor: Any, numbers: int) -> None:
        """Raise a ModelError unless external data lie in a file beside the model, which holds as many bytes."""
        about = {entry.key: entry.value for entry in tensor.external_data}
        location = Path(about.get("location", ""))
        file, name = self.folder / location, clean(tensor.name)
        if location.is_absolute() or ".." in location.parts or not file.is_file() or not self._is_inside(file):
            raise ModelError(f"{name}: expected its data in a file beside the model, got {clean(str(location))}")
        offset, length = about.get("offset", "0"), about.get("length", "0")
        if not (offset.isdigit() and length.isdigit() and len(offset + length) < 30):
            raise ModelError(f"{name}: expected an offset and a length, got {clean(f'{offset}, {length}')}")
        try:
            wanted = numbers * self.onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        except KeyError:
            raise ModelError(f"{name}: expected numbers of a known type, got others") from None
        if int(offset) + wanted > file.stat().st_size or int(length) not in (0, wanted):
            raise ModelError(f"{name}: expected {wanted:,} bytes in {clean(str(location))}, got fewer or more")

    def _is_inside(self, file: Path) -> bool:
        return file.resolve().is_relative_to(self.folder.resolve())

    def _run(self, node: Any, given: dict[str, np.ndarray]) -> list[np.ndarray]:
        """Return what a node makes of arrays, by the version of operators that its model has."""
        onnx, helper = self.onnx, self.onnx.helper
        values = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
            for name, a in given.items()
        ]
        out = [onnx.ValueInfoProto(name=name) for name in node.output if name]
        model = helper.make_model(
            helper.make_graph([node], "constant", values, out),
            opset_imports=self.model.opset_import,
            ir_version=min(self.model.ir_version, 10) or 8,
        )
        for run in (_by_reference, _by_runtime):
            try:
                return [np.asarray(a) for a in run(model, given)]
            except Exception:  # of whatever does not know this operator in this version
                continue
        versions = {one.domain: one.version for one in self.model.opset_import}
        version = versions.get(node.domain) or versions.get("") or versions.get("ai.onnx")
        raise ModelError(f"its weights cannot be made by {node.op_type} of version {version} of the operators")


def _by_reference(model: Any, given: dict[str, np.ndarray]) -> Any:
    from onnx.reference import ReferenceEvaluator

    return ReferenceEvaluator(model).run(None, given)


def _by_runtime(model: Any, given: dict[str, np.ndarray]) -> Any:
    import onnxruntime

    onnxruntime.set_default_logger_severity(4)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, given)
