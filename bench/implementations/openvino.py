"""OpenVINO's RNNSequence on the CPU (oneDNN below), and its RNNCell for forward_step, the weights as constants.

The model is compiled for latency, in full float32 even where the CPU has bfloat16. Inputs and outputs are tensors
over NumPy's memory, set once, so a call copies nothing at the border and writes its results to the same place each
time. RNNSequence wants the batch first; the transposes around it vanish when the model is compiled, as the
plugin computes time first. Threads by `INFERENCE_NUM_THREADS`. Inference in float32 alone.
"""

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version

import numpy as np

from bench.implementations import Prepared, UnsupportedError

_config = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}


def version():
    try:
        return package_version("openvino")
    except PackageNotFoundError:
        return None


def start(threads):
    import openvino  # noqa: F401

    _config["INFERENCE_NUM_THREADS"] = str(threads)


def prepare(case, inputs):
    import openvino

    if case.cell != "rnn":
        raise UnsupportedError(f"no {case.cell} here yet")
    if case.operation not in ("forward_step", "forward"):
        raise UnsupportedError("inference only")
    if case.dtype != "float32":
        raise UnsupportedError("it computes in float32 at most")

    T, B, H = case.seq_len, case.batch_size, case.hidden_size
    hs, last = np.empty((T, B, 1, H), case.dtype), np.empty((B, 1, H), case.dtype)
    if case.operation == "forward_step":
        model, arrays, results = _step(case, inputs.params[0]), (inputs.x[0], inputs.state.h), (last[:, 0],)
    else:
        model, arrays, results = _sequence(case, inputs.params[0]), (inputs.x, inputs.state.h[:, None]), (hs, last)

    request = openvino.Core().compile_model(model, "CPU", _config).create_infer_request()
    for n, array in enumerate(arrays):
        request.set_input_tensor(n, openvino.Tensor(array, shared_memory=True))
    for n, array in enumerate(results):
        request.set_output_tensor(n, openvino.Tensor(array, shared_memory=True))

    def outputs(_):
        return (
            {"state.h": last[:, 0]} if case.operation == "forward_step" else {"hs": hs[:, :, 0], "state.h": last[:, 0]}
        )

    def call(_alive=(arrays, results)):  # the request points to their memory and holds no reference
        request.infer(share_outputs=True)

    return Prepared(call, outputs)


def _step(case, params):
    from openvino import Model
    from openvino import opset13 as ops

    x = ops.parameter((case.batch_size, case.input_size), np.float32)
    h = ops.parameter((case.batch_size, case.hidden_size), np.float32)
    weights = (ops.constant(a) for a in params)
    return Model([ops.rnn_cell(x, h, *weights, case.hidden_size, ["tanh"], [], [])], [x, h])


def _sequence(case, params):
    """Return a model from x (T, B, I) and h (B, 1, H) to hs (T, B, 1, H) and the last state (B, 1, H)."""
    from openvino import Model
    from openvino import opset13 as ops

    T, B, I, H = case.seq_len, case.batch_size, case.input_size, case.hidden_size
    x, h = ops.parameter((T, B, I), np.float32), ops.parameter((B, 1, H), np.float32)
    lengths = ops.constant(np.full(B, T, np.int32))
    weights = (ops.constant(a[None]) for a in params)
    batch_first = ops.transpose(x, np.array([1, 0, 2]))
    rnn = ops.rnn_sequence(batch_first, h, lengths, *weights, H, "forward", ["tanh"])
    hs = ops.transpose(rnn.output(0), np.array([2, 0, 1, 3]))
    return Model([ops.result(hs), ops.result(rnn.output(1))], [x, h])
