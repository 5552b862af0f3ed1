"""What a recurrent node computes: its weights and equations as those of a cell here, or why they are others."""

from typing import Any

import numpy as np

from bench.grid.models import Layer, ModelError, activated, clean, layer_of, library, plain
from bench.grid.models.onnx.constants import Scope
from reference.layouts import from_onnx

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
ACTIVATIONS = {"GRU": ("sigmoid", "tanh"), "LSTM": ("sigmoid", "tanh", "tanh")}
OURS = ("", "ai.onnx")
QUANTIZED = "DynamicQuantizeLSTM"


def layer(name: str, node: Any, scope: Scope, activation: str | None) -> tuple[Layer, bool]:
    """Return the Layer of a node, its T and B still 1, and whether x has the batch first; or raise a ModelError."""
    quantized = node.op_type == QUANTIZED and node.domain == "com.microsoft"
    if not quantized and (node.op_type not in GATES or node.domain not in OURS):
        raise ModelError(f"{clean(node.op_type)}, which is no RNN, GRU or LSTM")
    kind = "LSTM" if quantized else node.op_type
    about = {one.name: library("onnx", "peers").helper.get_attribute_value(one) for one in node.attribute}
    direction = _text(about.get("direction", b"forward"))
    if direction not in ("forward", "reverse", "bidirectional"):
        raise ModelError(f"direction {clean(direction)}, where ONNX has forward, reverse and bidirectional")
    directions = 2 if direction == "bidirectional" else 1
    stated = _activation(kind, about, directions)
    given = list(node.input) + [""] * 12
    _expect_ours(kind, about, given)

    W, R, *B = _dequantized(given, scope) if quantized else [scope.value(one) for one in given[1:4] if one]
    _expect_shapes(kind, about, directions, W, R)
    made = layer_of(name, from_onnx, *map(_floats, (W, R, *B)), seq_len=1, batch_size=1)
    if made.cell != kind.lower():
        raise ModelError(f"expected the weights of a {kind}, got those of a {made.cell.upper()}")
    told = []
    if quantized:
        told.append("its weights of 8 bits are dequantized, and it is run in float32")
    elif any(one and scope.is_dequantized(one) for one in given[1:4]):
        told.append("its weights are dequantized, and it is run in float32")
    if direction == "reverse":
        told.append("it goes backward in the file, and is taken forward")
    if given[4]:
        told.append("all steps are run, where the file has lengths of sequences")
    return activated(made._replace(told=tuple(told)), stated, activation), bool(about.get("layout"))


def _text(value: bytes | str) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _activation(kind: str, about: dict, directions: int) -> str | None:
    """Return the activation of an RNN, "tanh" of the others, or raise a ModelError if it is not that of a cell here."""
    found = [_text(one) for one in about.get("activations", [])]
    usual = ACTIVATIONS.get(kind, ("tanh",))
    if not found:
        return "tanh"
    if len(found) != directions * len(usual):
        raise ModelError(f"{len(found)} activations, where a {kind} of its direction has {directions * len(usual)}")
    lower = [one.lower() for one in found]
    if kind == "RNN" and set(lower) <= {"tanh", "relu", "sigmoid"}:
        if len(set(lower)) > 1:
            raise ModelError(f"activations {' and '.join(found)}, where an RNN here has the same in both directions")
        return lower[0]
    if lower != [*usual] * directions:
        has = "Tanh, Relu or Sigmoid" if kind == "RNN" else ", ".join(one.capitalize() for one in usual)
        raise ModelError(f"activations {clean(', '.join(found))}, where the {kind} here has {has}")
    return "tanh"


def _expect_ours(kind: str, about: dict, given: list[str]) -> None:
    """Raise a ModelError if the node computes anything else than a cell of ours."""
    if "clip" in about:
        raise ModelError("clip, which no cell here has")
    if about.get("input_forget"):
        raise ModelError("input_forget, which no cell here has")
    if kind == "LSTM" and given[7]:
        raise ModelError("peepholes, which no cell here has")
    if kind == "GRU" and not about.get("linear_before_reset"):
        raise ModelError("linear_before_reset = 0, where the GRU here resets behind the product")
    if not (given[1] and given[2]):
        raise ModelError("expected W and R, got fewer inputs")


def _expect_shapes(kind: str, about: dict, directions: int, W: np.ndarray, R: np.ndarray) -> None:
    """Raise a ModelError unless W and R have the sizes that the node's attributes tell."""
    for name, a in (("W", W), ("R", R)):
        if a.ndim != 3 or len(a) != directions:
            raise ModelError(f"expected {name} of {directions} directions and three axes, got shape {a.shape}")
    H = R.shape[2]
    if (told := about.get("hidden_size", H)) != H:
        raise ModelError(f"hidden_size = {told}, where R has {H}")
    if R.shape[1] != GATES[kind] * H:
        raise ModelError(f"expected R of {GATES[kind]} H = {GATES[kind] * H} rows, got shape {R.shape}")


def _dequantized(given: list[str], scope: Scope) -> list[np.ndarray]:
    """Return W, R and maybe B of a DynamicQuantizeLSTM, whose W and R (directions, I or H, 4 H) are whole numbers."""
    found = []
    for weights, scale, zero in ((1, 8, 9), (2, 10, 11)):
        whole, scales, zeros = (scope.value(given[n]) for n in (weights, scale, zero))
        if whole.ndim != 3 or whole.dtype.kind not in "iu" or scales.dtype.kind != "f":
            raise ModelError(f"expected weights of whole numbers and their scale, got {whole.dtype} and {scales.dtype}")
        parts = [a.astype(np.float32) for a in (scales, zeros)]
        for a in parts:
            if a.shape not in ((len(whole),), (len(whole), whole.shape[2])):
                raise ModelError(f"expected a scale for each direction or each column, got shape {a.shape}")
        wide = [a.reshape(len(whole), 1, -1) for a in parts]
        found.append(((whole.astype(np.float32) - wide[1]) * wide[0]).swapaxes(1, 2))
    return found + [scope.value(given[3])] * bool(given[3])


def _floats(array: np.ndarray) -> np.ndarray:
    """Return weights in float32 or float64, also those of bfloat16, which NumPy does not know."""
    return plain(array.astype(np.float32) if array.dtype.name == "bfloat16" else array)
