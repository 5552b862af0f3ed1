"""ONNX Runtime's RNN operator on the CPU, in a graph of that one node with the weights as constants.

The session packs the weights when it is built. Inputs and outputs are bound to NumPy's memory once (IOBinding), so a
call copies nothing at the border and writes its results to the same place each time. forward_step is the same
operator over a sequence of one. Library defaults, with `intra_op_num_threads`. Inference in float32 alone.
"""

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version

import numpy as np

from bench.implementations import Prepared, UnsupportedError

_options: dict = {}  # of the sessions in this process


def version():
    try:
        package_version("onnx")  # which writes the graph
        return package_version("onnxruntime")
    except PackageNotFoundError:
        return None


def start(threads):
    import onnx  # noqa: F401
    import onnxruntime  # noqa: F401

    _options["intra_op_num_threads"] = threads


def prepare(case, inputs):
    import onnxruntime

    if case.cell != "rnn":
        raise UnsupportedError(f"no {case.cell} here yet")
    if case.operation not in ("forward_step", "forward"):
        raise UnsupportedError("inference only")
    if case.dtype != "float32":
        raise UnsupportedError("its RNN operator is there for float32 alone")

    options = onnxruntime.SessionOptions()
    for name, value in _options.items():
        setattr(options, name, value)
    model = _model(case, inputs.params[0]).SerializeToString()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    T, B, H = case.seq_len, case.batch_size, case.hidden_size
    hs, last = np.empty((T, 1, B, H), case.dtype), np.empty((1, B, H), case.dtype)
    binding = session.io_binding()
    arrays = {"x": inputs.x, "h": inputs.state.h[None]}
    for name, array in arrays.items():
        binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(array))
    for name, array in (("hs", hs), ("last", last)):
        binding.bind_ortvalue_output(name, onnxruntime.OrtValue.ortvalue_from_numpy(array))

    def outputs(_):
        return {"state.h": last[0]} if case.operation == "forward_step" else {"hs": hs[:, 0], "state.h": last[0]}

    def call(_alive=(arrays, hs, last)):  # the binding points to their memory and holds no reference
        session.run_with_iobinding(binding)

    return Prepared(call, outputs)


def _model(case, params):
    """Return a model of one RNN node, whose second bias is zero."""
    from onnx import TensorProto, helper, numpy_helper

    T, B, I, H = case.seq_len, case.batch_size, case.input_size, case.hidden_size
    biases = np.concatenate((params.b, np.zeros_like(params.b)))

    def value(name, *shape):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    node = helper.make_node("RNN", ["x", "U", "W", "b", "", "h"], ["hs", "last"], hidden_size=H, activations=["Tanh"])
    graph = helper.make_graph(
        [node],
        "rnn",
        [value("x", T, B, I), value("h", 1, B, H)],
        [value("hs", T, 1, B, H), value("last", 1, B, H)],
        [numpy_helper.from_array(a[None], n) for n, a in (("U", params.U), ("W", params.W), ("b", biases))],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
