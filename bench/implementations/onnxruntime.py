"""ONNX Runtime's RNN, GRU and LSTM operators on the CPU, in a graph of one such node with the weights as constants.

The session packs the weights when it is built. Inputs and outputs are bound to NumPy's memory once (IOBinding), so a
call copies nothing at the border and writes its results to the same place each time. forward_step is the same
operator over a sequence of one. Library defaults, with `intra_op_num_threads`. Inference alone, in float32 and, of the
LSTM, in int8: its `quantize_dynamic` makes a DynamicQuantizeLSTM of the node, with a scale for each of the two weight
matrices, and rounds x and h to 8 bits in every step; what goes in and out stays float32.
"""

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from bench.implementations import Prepared, UnsupportedError
from reference.layouts import to_onnx

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

    if case.operation not in ("forward_step", "forward"):
        raise UnsupportedError("inference only")
    if case.dtype == "int8" and case.cell != "lstm":
        raise UnsupportedError("of its recurrent operators the LSTM alone is there for int8")
    if case.dtype not in ("float32", "int8"):
        raise UnsupportedError("its recurrent operators are there for float32, and the LSTM for int8")

    options = onnxruntime.SessionOptions()
    for name, value in _options.items():
        setattr(options, name, value)
    model = _model(case, inputs)
    if case.low:
        model = _quantized(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    T, B, H = case.seq_len, case.batch_size, case.hidden_size
    arrays = {"x": inputs.x} | {field: part[None] for field, part in inputs.state._asdict().items()}
    results = {"hs": np.empty((T, 1, B, H), case.number)}
    results |= {f"state.{field}": np.empty((1, B, H), case.number) for field in inputs.state._fields}
    binding = session.io_binding()
    for name, array in arrays.items():
        binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(array))
    for name, array in results.items():
        binding.bind_ortvalue_output(name, onnxruntime.OrtValue.ortvalue_from_numpy(array))

    def outputs(_):
        named = {name: array.reshape(-1, B, H) if name == "hs" else array[0] for name, array in results.items()}
        if case.operation == "forward_step":
            del named["hs"]
        return named

    def call(_alive=(arrays, results)):  # the binding points to their memory and holds no reference
        session.run_with_iobinding(binding)

    return Prepared(call, outputs)


def _quantized(model):
    """Return a model of the LSTM with weights of int8."""
    import onnx
    from onnxruntime.quantization import quantize_dynamic

    with TemporaryDirectory() as folder:
        path = Path(folder, "lstm.onnx")
        quantize_dynamic(model, path, op_types_to_quantize=["LSTM"])
        return onnx.load(path)


def _model(case, inputs):
    """Return a model of one node, from x (T, B, I) and the state (1, B, H) to hs (T, 1, B, H) and the last state."""
    from onnx import TensorProto, helper, numpy_helper

    T, B, I, H = case.seq_len, case.batch_size, case.input_size, case.hidden_size
    first = inputs.state._fields
    last = [f"state.{field}" for field in first]

    def value(name, *shape):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    reset = {"linear_before_reset": 1} if case.cell == "gru" else {}
    node = helper.make_node(case.cell.upper(), ["x", "W", "R", "B", "", *first], ["hs", *last], hidden_size=H, **reset)
    graph = helper.make_graph(
        [node],
        case.cell,
        [value("x", T, B, I), *(value(name, 1, B, H) for name in first)],
        [value("hs", T, 1, B, H), *(value(name, 1, B, H) for name in last)],
        [numpy_helper.from_array(a, name) for a, name in zip(to_onnx(inputs.params[0]), "WRB", strict=True)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
