"""ONNX Runtime's RNN, GRU and LSTM operators on the CPU, in a graph of such nodes with the weights as constants.

The session packs the weights when it is built. Inputs and outputs are bound to NumPy's memory once (IOBinding), so a
call copies nothing at the border and writes its results to the same place each time. forward_step is the same
operator over a sequence of one. A stream is that with two bindings in turn, of which each reads the states where the
other one wrote them; x_t is copied to where both read it. Library defaults, with `intra_op_num_threads`. Inference
alone, in float32 and, of the LSTM, in int8: its `quantize_dynamic` makes a DynamicQuantizeLSTM of the node, with a
scale for each of the two weight matrices, and rounds x and h to 8 bits in every step; what goes in and out stays
float32. Where the CPU has no VNNI the weights have 7 bits (`reduce_range`), as its documentation asks, since pairs of
products of 8 bits would overflow there. A network is a node a layer, of one direction or bidirectional, with its
`sequence_lens`, and between two a Transpose and a Reshape. A whole model of a file runs as it is, by `run`.
"""

import json
import time
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from bench.grid.cases import LOW_OPERATIONS, STREAM
from bench.implementations import Prepared, UnsupportedError, named, streaming
from kernels.core.code import host
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
    if case.operation not in LOW_OPERATIONS:
        raise UnsupportedError("inference only")
    if case.dtype == "int8" and case.cell != "lstm":
        raise UnsupportedError("of its recurrent operators the LSTM alone is there for int8")
    if case.dtype not in ("float32", "int8"):
        raise UnsupportedError("its recurrent operators are there for float32, and the LSTM for int8")

    stream = case.operation == STREAM
    if stream:
        case = replace(case, seq_len=1)
    model = _model(case, inputs)
    if case.low:
        model = _quantized(model)
    session = _session(model.SerializeToString())

    T, B, H = case.seq_len, case.batch_size, case.hidden_size
    L, D, states = case.layers, case.directions, inputs.state if case.network else ((inputs.state,),)
    fields = states[0][0]._fields
    arrays = {"x": inputs.x}
    arrays |= {
        f"{field}{l}": np.stack([getattr(one, field) for one in states[l]]) for l in range(L) for field in fields
    }
    if stream:
        return _stream(session, inputs.x, arrays, case.number, fields, L, case.network, type(states[0][0]))
    results = {"hs": np.empty((T, B, D * H) if D > 1 else (T, 1, B, H), case.number)}
    results |= {f"last.{field}{l}": np.empty((D, B, H), case.number) for l in range(L) for field in fields}
    binding = _bound(session, arrays, results)

    def outputs(_):
        last = [
            tuple(type(states[0][0])(*(results[f"last.{field}{l}"][d] for field in fields)) for d in range(D))
            for l in range(L)
        ]
        found = named(tuple(last) if case.network else last[0][0], "state")
        return found if case.operation == "forward_step" else {"hs": results["hs"].reshape(T, B, D * H)} | found

    def call(_alive=(arrays, results)):  # the binding points to their memory and holds no reference
        session.run_with_iobinding(binding)

    return Prepared(call, outputs)


def prepare_model(path, arrays, plain=False):
    """Prepare the whole model in a file for these inputs, its outputs named by their numbers; `plain`: as it stands."""
    session = _session(path, plain)

    def outputs(found):
        return {str(n): np.asarray(a) for n, a in enumerate(found)}

    return Prepared(lambda: session.run(None, arrays), outputs)


def recurrent(path, arrays, runs):
    """Return the seconds that each recurrent node of a model takes in one of so many runs, and "" for the whole.

    The nodes are those of a session that is profiled, by the names that `bench.grid.models` has for them, the whole
    that of another one, which takes turns with it.
    """
    from bench.grid.models.onnx import graph

    model = graph.load(Path(path))
    names = sorted((place.name for place in graph.places(model, Path(path).parent)), key=len, reverse=True)
    with TemporaryDirectory() as folder:
        usual = _session(path)
        profiled = _session(model.SerializeToString(), profile=str(Path(folder, "profile")), beside=Path(path).parent)
        for session in (usual, profiled):
            session.run(None, arrays)
        whole_s = 0.0
        for _ in range(runs):
            start = time.perf_counter()
            usual.run(None, arrays)
            whole_s += time.perf_counter() - start
            profiled.run(None, arrays)
        events = json.loads(Path(profiled.end_profiling()).read_text())
    warm = next(event["ts"] + event["dur"] for event in events if event["name"] == "model_run")
    found = {"": whole_s / runs}
    for event in events:
        kind = event.get("args", {}).get("op_name")
        if kind in graph.NODES and event["name"].endswith("_kernel_time") and event["ts"] > warm:
            shown = event["name"].removesuffix("_kernel_time")  # with something before it where it moved elsewhere
            name = next((name for name in names if shown.endswith(name)), shown)
            found[name] = found.get(name, 0.0) + event["dur"] / runs / 1e6
    return found


def _session(model, plain=False, profile=None, beside=None):
    """Return a session of a model, the path of its file, or the bytes of one whose large weights lie in a folder."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    for name, value in _options.items():
        setattr(options, name, value)
    if plain:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if beside:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(beside.absolute()))
    if profile:
        options.enable_profiling, options.profile_file_prefix = True, profile
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _bound(session, arrays, results):
    """Return a binding of a session's inputs and outputs to these arrays' memory, which it does not keep."""
    import onnxruntime

    binding = session.io_binding()
    for name, array in arrays.items():
        binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(array))
    for name, array in results.items():
        binding.bind_ortvalue_output(name, onnxruntime.OrtValue.ortvalue_from_numpy(array))
    return binding


def _stream(session, x, arrays, dtype, fields, layers, network, State):
    """Prepare a stream: two bindings in turn, of which each reads the states that the other one has written."""
    names = [f"{field}{l}" for l in range(layers) for field in fields]
    initial = {name: arrays[name] for name in names}
    x_t = np.empty((1, *x.shape[1:]), dtype)
    sides = [{name: np.empty_like(a) for name, a in initial.items()} for _ in range(2)]
    hs = [np.empty((1, 1, *x.shape[1:2], initial["h0"].shape[-1]), dtype) for _ in range(2)]
    ways = []
    for n in range(2):
        written = {f"last.{name}": a for name, a in sides[1 - n].items()}
        ways.append((_bound(session, {"x": x_t, **sides[n]}, {"hs": hs[n], **written}), hs[n]))
    here = 0

    def begin():
        nonlocal here
        here = 0
        for name, a in initial.items():
            sides[0][name][:] = a

    def step(given):
        nonlocal here
        binding, h = ways[here]
        here = 1 - here
        x_t[0] = given
        session.run_with_iobinding(binding)
        return h

    def last():
        states = [(State(*(sides[here][f"{field}{l}"][0] for field in fields)),) for l in range(layers)]
        return named(tuple(states) if network else states[0][0], "state")

    return streaming(begin, step, list(x), lambda h: h[0, 0], last)


def _quantized(model):
    """Return a model of the LSTM with weights of int8."""
    import onnx
    from onnxruntime.quantization import quantize_dynamic

    exact = not host.X86 or host.FEATURES & {"avx512vnni", "avxvnni"}
    with TemporaryDirectory() as folder:
        path = Path(folder, "lstm.onnx")
        quantize_dynamic(model, path, op_types_to_quantize=["LSTM"], reduce_range=not exact)
        return onnx.load(path)


def _model(case, inputs):
    """Return a model from x (T, B, I) and each layer's state (D, B, H) to hs and the last states.

    hs is (T, 1, B, H), or (T, B, 2 H) of two directions, and a layer's state is "h0", "c0", "h1"...
    """
    from onnx import TensorProto, helper, numpy_helper

    T, B, I, H, D = case.seq_len, case.batch_size, case.input_size, case.hidden_size, case.directions
    layers, states = (inputs.params[0], inputs.state) if case.network else (((inputs.params[0],),), ((inputs.state,),))
    fields = states[0][0]._fields

    def value(name, *shape):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    options: dict = {"hidden_size": H, "direction": "bidirectional" if D > 1 else "forward"}
    if case.cell == "rnn":
        options["activations"] = [case.activation.title()] * D
    if case.cell == "gru":
        options["linear_before_reset"] = 1
    constants, nodes, x = [], [], "x"
    if case.steps is not None:
        constants.append(numpy_helper.from_array(case.steps.astype(np.int32), "lengths"))
    constants.append(numpy_helper.from_array(np.array([T, B, D * H]), "shape"))
    for l, layer in enumerate(layers):
        (weights,) = to_onnx((layer,))
        names = [f"{name}{l}" for name in "WRB"]
        constants += [numpy_helper.from_array(a, name) for a, name in zip(weights, names, strict=True)]
        lengths = "lengths" if case.steps is not None else ""
        last = [f"last.{field}{l}" for field in fields]
        top = l == len(layers) - 1
        hs = "hs" if top and D == 1 else f"hs{l}"
        given = [x, *names, lengths, *(f"{field}{l}" for field in fields)]
        nodes.append(helper.make_node(case.cell.upper(), given, [hs, *last], **options))
        if not top or D > 1:
            nodes.append(helper.make_node("Transpose", [hs], [f"turned{l}"], perm=[0, 2, 1, 3]))
            x = "hs" if top else f"x{l + 1}"
            nodes.append(helper.make_node("Reshape", [f"turned{l}", "shape"], [x]))
    each = [(l, field) for l in range(len(layers)) for field in fields]
    graph = helper.make_graph(
        nodes,
        case.cell,
        [value("x", T, B, I), *(value(f"{field}{l}", D, B, H) for l, field in each)],
        [value("hs", *((T, B, D * H) if D > 1 else (T, 1, B, H))), *(value(f"last.{f}{l}", D, B, H) for l, f in each)],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
