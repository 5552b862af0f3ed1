"""OpenVINO's RNN-, GRU- and LSTMSequence on the CPU (oneDNN below), and the Cell of each for forward_step.

The weights are constants of the model, which is compiled for latency: in full float32 even where the CPU has bfloat16,
or in bfloat16 where it is asked for, by `INFERENCE_PRECISION_HINT`. What goes in and out is float32 in both.
Inputs and outputs are tensors over NumPy's memory, set once, so a call copies nothing at the border and writes its
results to the same place each time. A Sequence wants the batch first; the transposes around it vanish when the model
is compiled, as the plugin computes time first. A stream is a model of Cells whose states are its variables (ReadValue
and Assign), so that x_t and h alone pass the border. Threads by `INFERENCE_NUM_THREADS`. Inference alone. A network is
a Sequence a layer, of one direction or bidirectional, with the sequences' lengths. A whole model of a file runs as it
is, in float32.
"""

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version

import numpy as np

from bench.grid.cases import LOW_OPERATIONS, STREAM
from bench.implementations import Prepared, UnsupportedError, named, streaming

ORDERS = {"rnn": (0,), "gru": (1, 0, 2), "lstm": (1, 0, 2, 3)}  # which of our gates stands at each place

HINTS = {"float32": "f32", "bfloat16": "bf16"}

_config = {"PERFORMANCE_HINT": "LATENCY"}


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

    if case.operation not in LOW_OPERATIONS:
        raise UnsupportedError("inference only")
    if case.dtype not in HINTS:
        raise UnsupportedError("it computes in float32 at most, and no recurrent layer in int8")
    core, hint = openvino.Core(), HINTS[case.dtype]
    if case.low and hint.upper() not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise UnsupportedError("it has no bfloat16 on this CPU")

    if case.operation == STREAM:
        return _stream(case, inputs, core, hint)
    if case.network:
        return _network(case, inputs, core, hint)
    T, B, H = case.seq_len, case.batch_size, case.hidden_size
    names = [f"state.{field}" for field in inputs.state._fields]
    if case.operation == "forward_step":
        model, arrays = _step(case, inputs), (inputs.x[0], *inputs.state)
        results = {name: np.empty((B, H), np.float32) for name in names}
    else:
        model, arrays = _sequence(case, inputs), (inputs.x, *(part[:, None] for part in inputs.state))
        results = {"hs": np.empty((T, B, 1, H), np.float32)} | {n: np.empty((B, 1, H), np.float32) for n in names}

    def outputs(_):
        return {name: array.reshape((T, B, H) if name == "hs" else (B, H)) for name, array in results.items()}

    return Prepared(_bound(core, model, hint, arrays, list(results.values())), outputs)


def prepare_model(path, arrays):
    """Prepare the whole model in a file for these inputs, its outputs named by their numbers."""
    import openvino

    core = openvino.Core()
    model = core.read_model(path)
    model.reshape({name: list(a.shape) for name, a in arrays.items()})
    config = _config | {"INFERENCE_PRECISION_HINT": HINTS["float32"]}
    request = core.compile_model(model, "CPU", config).create_infer_request()
    for name, array in arrays.items():
        request.set_tensor(name, openvino.Tensor(array, shared_memory=bool(array.ndim)))

    def call(_alive=arrays):  # the request points to their memory and holds no reference
        request.infer(share_outputs=True)

    def outputs(_):
        return {str(n): np.array(request.get_output_tensor(n).data) for n in range(len(model.outputs))}

    return Prepared(call, outputs)


def _bound(core, model, hint, arrays, results):
    """Return a function that runs a model from and to these arrays."""
    import openvino

    request = core.compile_model(model, "CPU", _config | {"INFERENCE_PRECISION_HINT": hint}).create_infer_request()
    for n, array in enumerate(arrays):
        request.set_input_tensor(n, openvino.Tensor(array, shared_memory=True))
    for n, array in enumerate(results):
        request.set_output_tensor(n, openvino.Tensor(array, shared_memory=True))

    def call(_alive=(arrays, results)):  # the request points to their memory and holds no reference
        request.infer(share_outputs=True)

    return call


def _stream(case, inputs, core, hint):
    """Prepare a stream: a cell a layer, whose states are variables of the model."""
    import openvino
    from openvino import Model
    from openvino import opset13 as ops
    from openvino.op.util import Variable, VariableInfo

    def variable(name):
        info = VariableInfo()
        info.variable_id, info.data_type = name, openvino.Type.f32
        info.data_shape = openvino.PartialShape([B, H])
        return Variable(info)

    B, H = case.batch_size, case.hidden_size
    layers, states = (inputs.params[0], inputs.state) if case.network else (((inputs.params[0],),), ((inputs.state,),))
    fields = states[0][0]._fields
    x = below = ops.parameter((B, case.input_size), np.float32)
    sinks = []
    for l, (params,) in enumerate(layers):
        variables = [variable(f"{field}{l}") for field in fields]
        before = [ops.read_value(np.zeros((B, H), np.float32), one) for one in variables]
        constants = (ops.constant(a[0]) for a in _weights(case, params))
        cell = getattr(ops, f"{case.cell}_cell")(below, *before, *constants, H, **_options(case))
        after = [ops.reshape(a, np.array([B, H]), False) for a in cell.outputs()]  # Assign takes no one of several
        sinks += [ops.assign(a, one) for a, one in zip(after, variables, strict=True)]
        below = cell.output(0)
    model = Model([ops.result(below)], sinks, [x])
    request = core.compile_model(model, "CPU", _config | {"INFERENCE_PRECISION_HINT": hint}).create_infer_request()
    x_t, h = np.empty((B, case.input_size), np.float32), np.empty((B, H), np.float32)
    request.set_input_tensor(0, openvino.Tensor(x_t, shared_memory=True))
    request.set_output_tensor(0, openvino.Tensor(h, shared_memory=True))
    initial = {f"{field}{l}": getattr(one, field) for l, (one,) in enumerate(states) for field in fields}

    def begin():
        for state in request.query_state():
            state.state = openvino.Tensor(initial[state.name].copy())

    def step(given):
        x_t[:] = given
        request.infer(share_outputs=True)
        return h

    def last():
        found = {state.name: np.array(state.state.data, np.float32) for state in request.query_state()}
        after = [tuple(found[f"{field}{l}"] for field in fields) for l in range(case.layers)]
        after = [type(states[0][0])(*one) for one in after]
        return named(tuple((one,) for one in after) if case.network else after[0], "state")

    return streaming(begin, step, list(inputs.x), np.asarray, last)


def _network(case, inputs, core, hint):
    """Prepare a network: from x (T, B, I) and each part of a layer's state (B, D, H) to hs (T, B, D, H) and these."""
    from openvino import Model
    from openvino import opset13 as ops

    T, B, I, H, D = case.seq_len, case.batch_size, case.input_size, case.hidden_size, case.directions
    fields = inputs.state[0][0]._fields
    ends = np.full(B, T) if inputs.lengths is None else inputs.lengths
    lengths = ops.constant(ends.astype(np.int32))
    x = ops.parameter((T, B, I), np.float32)
    state = [[ops.parameter((B, D, H), np.float32) for _ in fields] for _ in inputs.state]
    below, last = ops.transpose(x, np.array([1, 0, 2])), []
    for l, layer in enumerate(inputs.params[0]):
        weights = [np.concatenate(a) for a in zip(*(_weights(case, one) for one in layer), strict=True)]
        sequence, direction = getattr(ops, f"{case.cell}_sequence"), "bidirectional" if D > 1 else "forward"
        constants = map(ops.constant, weights)
        hs, *after = sequence(below, *state[l], lengths, *constants, H, direction, **_options(case)).outputs()
        last += after
        if l < case.layers - 1:  # hs (B, D, T, H) to (B, T, D H)
            below = ops.reshape(ops.transpose(hs, np.array([0, 2, 1, 3])), np.array([B, T, D * H]), False)
    time_first = ops.transpose(hs, np.array([2, 0, 1, 3]))
    model = Model([ops.result(a) for a in (time_first, *last)], [x, *(one for layer in state for one in layer)])

    arrays = [inputs.x]
    arrays += [np.stack([one[n] for one in layer], axis=1) for layer in inputs.state for n in range(len(fields))]
    results = [np.empty((T, B, D, H), np.float32), *(np.empty((B, D, H), np.float32) for _ in last)]

    def outputs(_):
        hs, *parts = results
        found = {} if case.operation == "forward_step" else {"hs": hs.reshape(T, B, D * H)}
        for n, part in enumerate(parts):
            l, field = n // len(fields), fields[n % len(fields)]
            found |= {f"state.l{l}.d{d}.{field}": np.ascontiguousarray(part[:, d]) for d in range(D)}
        return found

    return Prepared(_bound(core, model, hint, arrays, results), outputs)


def _step(case, inputs):
    """Return a model from x_t (B, I) and each part of the state (B, H) to the next state."""
    from openvino import Model
    from openvino import opset13 as ops

    x = ops.parameter((case.batch_size, case.input_size), np.float32)
    state = [ops.parameter((case.batch_size, case.hidden_size), np.float32) for _ in inputs.state]
    weights = (ops.constant(a[0]) for a in _weights(case, inputs.params[0]))
    cell = getattr(ops, f"{case.cell}_cell")(x, *state, *weights, case.hidden_size, **_options(case))
    return Model(cell.outputs(), [x, *state])


def _sequence(case, inputs):
    """Return a model from x (T, B, I) and each part of the state (B, 1, H) to hs (T, B, 1, H) and the last state."""
    from openvino import Model
    from openvino import opset13 as ops

    T, B, I, H = case.seq_len, case.batch_size, case.input_size, case.hidden_size
    x = ops.parameter((T, B, I), np.float32)
    state = [ops.parameter((B, 1, H), np.float32) for _ in inputs.state]
    lengths = ops.constant(np.full(B, T, np.int32))
    weights = (ops.constant(a) for a in _weights(case, inputs.params[0]))
    batch_first = ops.transpose(x, np.array([1, 0, 2]))
    sequence = getattr(ops, f"{case.cell}_sequence")
    layer = sequence(batch_first, *state, lengths, *weights, H, "forward", **_options(case))
    hs, *last = layer.outputs()
    time_first = ops.transpose(hs, np.array([2, 0, 1, 3]))
    return Model([ops.result(a) for a in (time_first, *last)], [x, *state])


def _options(case):
    """Return what OpenVINO's operator is told beside arrays."""
    activations = {"activations": [case.activation], "activations_alpha": [], "activations_beta": []}
    return {"rnn": activations, "gru": {"linear_before_reset": True}, "lstm": {}}[case.cell]


def _weights(case, params):
    """Return W, R and B of one direction, the gates in OpenVINO's order; the GRU's B ends with our c."""
    order = ORDERS[case.cell]
    W, R, B = (np.concatenate([np.split(a, len(order))[gate] for gate in order]) for a in params[:3])
    return W[None], R[None], np.concatenate((B, *params[3:]))[None]
