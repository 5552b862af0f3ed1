"""ONNX files as the tests make them, and ONNX Runtime's own numbers for them."""

import numpy as np

from tests.bench.grid.layers import H, I

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}


def weights(kind="GRU", directions=1, size=I, hidden=H):
    """Return W, R and B at random."""
    rng, G = np.random.default_rng(1), GATES[kind]
    shapes = {"W": (G * hidden, size), "R": (G * hidden, hidden), "B": (2 * G * hidden,)}
    return {name: rng.uniform(-0.5, 0.5, (directions, *s)).astype(np.float32) for name, s in shapes.items()}


def node(onnx, kind="GRU", given=("x", "W", "R", "B"), out=("hs",), name="it", **attributes):
    usual = {"hidden_size": H} | ({"linear_before_reset": 1} if kind == "GRU" else {})
    return onnx.helper.make_node(kind, given, out, name=name, **usual | attributes)


def value(onnx, name, dims=None, dtype=1):
    return onnx.helper.make_tensor_value_info(name, dtype, dims)


def graph(onnx, nodes, inputs=(), outputs=("hs",), constants=None, name="a graph"):
    values = [one if not isinstance(one, str) else value(onnx, one) for one in inputs]
    out = [one if not isinstance(one, str) else value(onnx, one) for one in outputs]
    tensors = [
        a if hasattr(a, "data_type") else onnx.numpy_helper.from_array(np.asarray(a), name)
        for name, a in (constants or {}).items()
    ]
    return onnx.helper.make_graph(list(nodes), name, values, out, tensors)


def model(onnx, a_graph, opset=14, functions=(), domains=("local", "com.microsoft"), ir=8):
    versions = [onnx.helper.make_opsetid("", opset), *(onnx.helper.make_opsetid(one, 1) for one in domains)]
    return onnx.helper.make_model(a_graph, opset_imports=versions, ir_version=ir, functions=list(functions))


def written(a_model, path):
    path.write_bytes(a_model.SerializeToString())
    return path


def single(onnx, kind="GRU", dims=("steps", "batch", I), opset=14, given=None, constants=None, **attributes):
    """Return a model of one node, whose weights are initializers."""
    directions = 2 if attributes.get("direction") == "bidirectional" else 1
    found = weights(kind, directions) | (constants or {})
    named = node(onnx, kind, given or ("x", "W", "R", "B"), **attributes)
    return model(onnx, graph(onnx, [named], [value(onnx, "x", list(dims))], constants=found), opset)


def outputs(path, **arrays):
    """Return what ONNX Runtime gives."""
    import onnxruntime

    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, arrays)


def states(path, x, **arrays):
    """Return hs (T, B, directions H) of ONNX Runtime's node."""
    hs = outputs(path, x=x, **arrays)[0]
    return hs.transpose(0, 2, 1, 3).reshape(len(x), x.shape[1], -1)
