"""ONNX: every equation and every way that weights are written, beside ONNX Runtime's own numbers."""

import numpy as np
import pytest

from bench.grid.models import Input, read
from tests.bench.grid.layers import KINDS, TOLERANCE, B, H, I, T, export, exported, inputs, refused, run
from tests.bench.grid.models.onnx_files import graph, model, node, single, states, value, weights, written

LEFT = "expected a recurrent layer that can be measured, got it: "


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


@pytest.fixture
def onnx():
    return pytest.importorskip("onnx")


@exported
@pytest.mark.parametrize("kind", KINDS.values())
@pytest.mark.parametrize("folding", [True, False], ids=["", "weights made by nodes"])
def test_an_export_of_pytorch(torch, onnx, tmp_path, kind, folding):
    whole = export(torch, tmp_path / "net.onnx", kind, do_constant_folding=folding)
    model = read(str(tmp_path / "net.onnx"), 2 * T, B)
    assert [KINDS[layer.cell] for layer in model.layers.values()] == [kind, kind]
    assert [(layer.seq_len, layer.batch_size) for layer in model.layers.values()] == [(T, B)] * 2  # behind the stride
    assert model.inputs == {"x": Input("float32", [B, 2 * T, 4])}
    x = inputs()
    with torch.no_grad():
        ref, _ = whole.rnn(torch.from_numpy(np.ascontiguousarray(x.swapaxes(0, 1))))
    for layer in model.layers.values():
        x = run(layer, x)
    np.testing.assert_allclose(x, ref.numpy().swapaxes(0, 1), atol=TOLERANCE)


@exported
def test_external_data(torch, onnx, tmp_path):
    export(torch, tmp_path / "one.onnx")
    proto = onnx.load(tmp_path / "one.onnx")
    onnx.save(proto, tmp_path / "net.onnx", save_as_external_data=True, location="net.data", size_threshold=0)
    plain, beside = (read(str(tmp_path / name), T, B) for name in ("one.onnx", "net.onnx"))
    for name, layer in plain.layers.items():
        for ours, theirs in zip(layer.network[0], beside.layers[name].network[0], strict=True):
            np.testing.assert_array_equal(ours.W, theirs.W)
    (tmp_path / "net.data").write_bytes((tmp_path / "net.data").read_bytes()[:900])
    refused(tmp_path / "net.onnx", r".*: expected .* bytes in net\.data, got fewer or more.*")


@exported
@pytest.mark.parametrize("location", ["../outside.data", "/etc/passwd", "link.data"])
def test_external_data_of_somewhere_else(torch, onnx, tmp_path, location):
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "outside.data").write_bytes(bytes(10**6))
    (folder / "link.data").symlink_to(tmp_path / "outside.data")
    export(torch, tmp_path / "one.onnx")
    proto = onnx.load(tmp_path / "one.onnx")
    onnx.save(proto, folder / "net.onnx", save_as_external_data=True, location="net.data", size_threshold=0)
    proto = onnx.load(folder / "net.onnx", load_external_data=False)
    for tensor in proto.graph.initializer:
        for entry in tensor.external_data:
            entry.value = location if entry.key == "location" else entry.value
    (folder / "net.onnx").write_bytes(proto.SerializeToString())
    refused(folder / "net.onnx", "expected a recurrent layer .*: expected its data in a file beside the model, .*")


def test_sizes_that_no_memory_holds(onnx, tmp_path):
    model = single(onnx, "GRU", dims=[2**40, 1, I])
    refused(
        written(model, tmp_path / "net.onnx"), "it: expected T, B and H that come to states of at most .* numbers, .*"
    )
    path = written(single(onnx, "GRU"), tmp_path / "net.onnx")
    refused(path, "it: expected T, B and H that come to states of at most .*", seq_len=10**9)


def test_a_node_without_inputs(onnx, tmp_path):
    model = single(onnx, "GRU")
    del model.graph.node[0].input[:]
    refused(written(model, tmp_path / "net.onnx"), ".*got it: expected W and R, got fewer inputs")


def test_weights_that_grow_are_not_made(onnx, tmp_path):
    helper = onnx.helper
    model = single(onnx, "GRU")
    graph = model.graph
    graph.node[0].input[2] = "r31"
    doubled = [helper.make_node("Concat", [f"r{n}", f"r{n}"], [f"r{n + 1}"], axis=1) for n in range(31)]
    doubled.insert(0, helper.make_node("Identity", ["R"], ["r0"]))
    nodes = [*doubled, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    refused(written(model, tmp_path / "net.onnx"), ".*expected recurrent layers of at most 536,870,912 numbers, got .*")


def test_weights_made_at_run_time_are_not_read(onnx, tmp_path):
    model = single(onnx, "GRU")
    model.graph.node[0].input[2] = "x"
    refused(written(model, tmp_path / "net.onnx"), ".*got it: its weights are not constants")


def test_names_of_markup_and_of_many_lines(onnx, tmp_path):
    model = single(onnx, "GRU")
    twin = onnx.NodeProto()
    twin.CopyFrom(model.graph.node[0])
    twin.output[0] = "more"
    model.graph.node[0].name = twin.name = "<b>" + "x\n" * 100
    model.graph.node.append(twin)
    first, second = read(str(written(model, tmp_path / "net.onnx")), T, B).layers
    assert first != second
    assert all(name.isprintable() and len(name) <= 70 for name in (first, second))


# --- equations ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize(
    ("kind", "activations"),
    [("RNN", None), ("RNN", ["Tanh"]), ("RNN", ["Relu"]), ("RNN", ["Sigmoid"]), ("GRU", None), ("LSTM", None),
     ("GRU", ["Sigmoid", "Tanh"]), ("LSTM", ["Sigmoid", "Tanh", "Tanh"])],
    ids=str,
)  # fmt: skip
def test_equations_are_those_of_the_node(onnx, tmp_path, kind, activations, direction):
    pytest.importorskip("onnxruntime")
    directions = 2 if direction == "bidirectional" else 1
    more = {} if activations is None else {"activations": activations * directions}
    path = written(single(onnx, kind, (T, B, I), direction=direction, **more), tmp_path / "net.onnx")
    model = read(str(path), 99, 98)
    (layer,) = model.layers.values()
    assert (layer.cell, layer.seq_len, layer.batch_size, layer.calls) == (kind.lower(), T, B, 1)
    assert layer.activation == (activations or ["tanh"])[0].lower() or kind != "RNN"
    x = inputs()
    ref = states(path, x)
    comp = run(layer, x[::-1])[::-1] if direction == "reverse" else run(layer, x)
    np.testing.assert_allclose(comp, ref, atol=TOLERANCE, rtol=TOLERANCE)  # relu's states grow
    words = " ".join(model.told)
    assert "T = 12 and B = 3, as the file has it" in words
    assert ("goes backward in the file, and is taken forward" in words) == (direction == "reverse")


@pytest.mark.parametrize("kind", KINDS.values())
def test_a_node_without_biases(onnx, tmp_path, kind):
    pytest.importorskip("onnxruntime")
    path = written(single(onnx, kind, (T, B, I), given=("x", "W", "R")), tmp_path / "net.onnx")
    (layer,) = read(str(path), T, B).layers.values()
    np.testing.assert_allclose(run(layer, inputs()), states(path, inputs()), atol=TOLERANCE)


def test_lengths_of_sequences_are_told(onnx, tmp_path):
    given = ("x", "W", "R", "B", "lengths")
    path = written(single(onnx, "LSTM", given=given, constants={"lengths": np.array([3, 1, 2], np.int32)}),
                   tmp_path / "net.onnx")  # fmt: skip
    assert any("all steps are run" in words for words in read(str(path), T, B).told)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"kind": "GRU", "linear_before_reset": 0}, "linear_before_reset = 0, where the GRU here resets .*"),
        ({"kind": "LSTM", "given": ["x", "W", "R", "B", "", "", "", "P"]}, "peepholes, which no cell here has"),
        ({"kind": "LSTM", "input_forget": 1}, "input_forget, which no cell here has"),
        ({"kind": "LSTM", "clip": 3.0}, "clip, which no cell here has"),
        ({"kind": "RNN", "activations": ["Affine"]}, "activations Affine, where the RNN here has Tanh, Relu or .*"),
        ({"kind": "RNN", "activations": ["Tanh", "Relu"], "direction": "bidirectional"}, "activations Tanh and R.*"),
        ({"kind": "RNN", "activations": ["Tanh"], "direction": "bidirectional"}, "1 activations, where .* has 2"),
        ({"kind": "LSTM", "activations": ["HardSigmoid", "Tanh", "Tanh"]}, "activations HardSigmoid, .*"),
        ({"kind": "LSTM", "activations": ["Sigmoid", "Tanh", "Relu"]}, "activations Sigmoid, Tanh, Relu, .*"),
        ({"kind": "LSTM", "hidden_size": H + 1}, "hidden_size = 8, where R has 7"),
        ({"kind": "LSTM", "direction": "sideways"}, "direction sideways, where ONNX has .*"),
        ({"kind": "LSTM", "constants": {"R": np.zeros((1, 5 * H, H), np.float32)}}, "expected R of 4 H = 28 rows, .*"),
        ({"kind": "LSTM", "constants": {"W": np.zeros((2, 4 * H, I), np.float32)}}, "expected W of 1 directions .*"),
        ({"kind": "LSTM", "constants": {"B": np.zeros((1, 4 * H), np.float32)}}, ".*expected shape .*56.*"),
        ({"kind": "LSTM", "constants": {"W": np.zeros((1, 4 * H, I), np.int8)}}, "expected weights of numbers .*"),
        ({"kind": "LSTM", "domain": "com.microsoft"}, "LSTM, which is no RNN, GRU or LSTM"),
    ],
    ids=lambda option: str(option)[:60],
)  # fmt: skip
def test_what_of_onnx_has_other_equations(onnx, tmp_path, options, why):
    constants = {"P": np.zeros((1, 3 * H), np.float32)} | options.get("constants", {})
    path = written(single(onnx, **options | {"constants": constants}), tmp_path / "net.onnx")
    refused(path, LEFT + why)


def test_a_node_of_somebody_else_is_left_out_by_name(onnx, tmp_path):
    a_model = single(onnx)
    a_model.graph.node.append(onnx.helper.make_node("AttnLSTM", ["hs"], ["more"], domain="com.microsoft"))
    model = read(str(written(a_model, tmp_path / "net.onnx")), T, B)
    assert list(model.layers) == ["it"]
    assert model.left_out == {"more": "AttnLSTM, which is no RNN, GRU or LSTM"}


def test_the_activation_of_the_command_against_that_of_the_file(onnx, tmp_path):
    path = written(single(onnx, "RNN", activations=["Relu"]), tmp_path / "net.onnx")
    assert read(str(path), T, B, "relu").layers["it"].activation == "relu"


# --- weights ------------------------------------------------------------------------------------------------------


def made(onnx, name, how, opset, a):
    """Return nodes that make `name` of constants by the rules of a version of operators, and these constants."""
    helper = onnx.helper
    old = opset < 13
    axes = {"axes": [0]} if old else {}
    more = [] if old else ["axes"]
    if how == "Unsqueeze":
        return [helper.make_node("Unsqueeze", ["flat", *more], [name], **axes)], {"flat": a[0], "axes": [0]}
    if how == "Squeeze":
        return [helper.make_node("Squeeze", ["deep", *more], [name], **axes)], {"deep": a[None], "axes": [0]}
    if how == "Slice":
        wide = np.concatenate([a, a + 1], 1)
        if opset < 10:
            return [helper.make_node("Slice", ["wide"], [name], axes=[1], starts=[0], ends=[a.shape[1]])], {
                "wide": wide
            }
        parts = {"wide": wide, "from": [0], "to": [a.shape[1]], "along": [1]}
        return [helper.make_node("Slice", [*parts], [name])], parts
    if how == "Concat":
        parts = {"left": a[:, :3], "right": a[:, 3:]}
        return [helper.make_node("Concat", [*parts], [name], axis=1)], parts
    if how == "Cast":
        return [helper.make_node("Cast", ["wide"], [name], to=1)], {"wide": a.astype(np.float64)}
    if how == "Add":
        return [helper.make_node("Add", ["a", "b"], [name])], {"a": a / 2, "b": a / 2}
    parts = {"turned": a.swapaxes(1, 2)}
    return [helper.make_node("Transpose", [*parts], ["t"], perm=[0, 2, 1]),
            helper.make_node("Identity", ["t"], [name])], parts  # fmt: skip


@pytest.mark.parametrize("how", ["Unsqueeze", "Squeeze", "Slice", "Concat", "Cast", "Add", "Transpose"])
@pytest.mark.parametrize("opset", [9, 11, 13, 21])
def test_weights_are_made_by_the_models_own_operators(onnx, tmp_path, opset, how):
    found = weights("LSTM")
    nodes, constants = made(onnx, "R", how, opset, found.pop("R"))
    a_graph = graph(onnx, [*nodes, node(onnx, "LSTM")], [value(onnx, "x", [T, B, I])], constants=found | constants)
    path = written(model(onnx, a_graph, opset, ir=10 if opset > 20 else 8), tmp_path / "net.onnx")
    one, other = (read(str(p), T, B).layers["it"] for p in (path, written(single(onnx, "LSTM"), tmp_path / "one.onnx")))
    for ours, theirs in zip(one.network[0][0], other.network[0][0], strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(("opset", "way"), [(10, "whole"), (13, "axis"), (21, "axis"), (21, "blocks")])
def test_weights_that_are_dequantized(onnx, tmp_path, opset, way):
    """Of whole numbers and a scale for all, for each row, or for each block of them: as ONNX Runtime has it."""
    pytest.importorskip("onnxruntime")
    found, helper = weights("LSTM"), onnx.helper
    whole = np.random.default_rng(2).integers(-100, 100, found.pop("R").shape, np.int8)
    scale = {"whole": np.float32(0.005), "axis": np.linspace(0.001, 0.01, 4 * H, dtype=np.float32),
             "blocks": np.linspace(0.001, 0.01, 8 * H, dtype=np.float32).reshape(1, 8, H)}[way]  # fmt: skip
    zero = np.full(scale.shape, 3, np.int8)
    more = {} if opset < 13 else {"axis": 1}
    if way == "blocks":
        more["block_size"] = 4
        scale, zero = scale[:, :7], zero[:, :7]
    nodes = [helper.make_node("DequantizeLinear", ["whole", "scale", "zero"], ["R"], **more), node(onnx, "LSTM")]
    a_graph = graph(
        onnx, nodes, [value(onnx, "x", [T, B, I])], constants=found | {"whole": whole, "scale": scale, "zero": zero}
    )
    path = written(model(onnx, a_graph, opset, ir=10 if opset > 20 else 8), tmp_path / "net.onnx")
    found = read(str(path), T, B)
    np.testing.assert_allclose(run(found.layers["it"], inputs()), states(path, inputs()), atol=TOLERANCE)
    assert any("its weights are dequantized" in words for words in found.told)


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_a_dynamically_quantized_lstm(onnx, tmp_path, per_channel, direction):
    pytest.importorskip("onnxruntime")
    from onnxruntime.quantization import quantize_dynamic

    float_path = written(single(onnx, "LSTM", (T, B, I), direction=direction), tmp_path / "float.onnx")
    options = {"op_types_to_quantize": ["LSTM"], "per_channel": per_channel}
    quantize_dynamic(float_path, tmp_path / "net.onnx", reduce_range=True, **options)  # 7 bits, for CPUs without VNNI
    found = read(str(tmp_path / "net.onnx"), T, B)
    (layer,) = found.layers.values()
    exact = read(str(float_path), T, B).layers["it"]
    for ours, theirs in zip(layer.network[0], exact.network[0], strict=True):
        for name in ("U", "W"):  # of ±0.5, rounded to 127 numbers from the least to the largest
            np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), atol=0.51 / 126)
            assert not np.array_equal(getattr(ours, name), getattr(theirs, name))
        np.testing.assert_array_equal(ours.b, theirs.b)
    # ONNX Runtime rounds x, of up to 4, and h, of up to 1, to 8 bits: each gate by sqrt(5) 0.5 0.016 / 2 and as much.
    np.testing.assert_allclose(run(layer, inputs()), states(tmp_path / "net.onnx", inputs()), atol=0.05)
    assert any("its weights of 8 bits are dequantized" in words for words in found.told)


def test_constants_that_a_body_shadows_are_not_weights(onnx, tmp_path):
    """A weight that a loop changes from run to run is no constant, though it begins as one."""
    helper, found = onnx.helper, weights("GRU")
    inner = [node(onnx, "GRU", ("x", "W", "r_in", "B")), helper.make_node("Identity", ["yes"], ["on"]),
             helper.make_node("Add", ["r_in", "r_in"], ["r_out"])]  # fmt: skip
    body = graph(onnx, inner, [value(onnx, "i", [], 7), value(onnx, "yes", [], 9), value(onnx, "r_in", None)],
                 [value(onnx, "on", [], 9), "r_out", "hs"])  # fmt: skip
    loop = helper.make_node("Loop", ["count", "", "R"], ["R_last", "all"], body=body)
    a_graph = graph(onnx, [loop], [value(onnx, "x", [T, B, I])], ["all"], found | {"count": np.int64(3)})
    refused(written(model(onnx, a_graph), tmp_path / "net.onnx"), f"{LEFT}its weights are not constants")


# --- what is wrong ------------------------------------------------------------------------------------------------


def test_one_number_many_times_is_not_made_large(onnx, tmp_path):
    helper, found = onnx.helper, weights("GRU")
    many = [
        helper.make_node("Concat", ["R"] * 2000, ["r1"], axis=1),
        helper.make_node("Concat", ["r1"] * 2000, ["r2"], axis=1),
    ]
    a_graph = graph(
        onnx, [*many, node(onnx, "GRU", ("x", "W", "r2", "B"))], [value(onnx, "x", [T, B, I])], constants=found
    )
    refused(written(model(onnx, a_graph), tmp_path / "net.onnx"), ".*got it: expected recurrent layers of at most .*")


def test_inputs_of_texts_and_of_no_shape(onnx, tmp_path):
    for more, why in (
        (value(onnx, "words", ["n"], 8), "one of texts"),
        (value(onnx, "any", None), "one whose type .*"),
    ):
        a_model = single(onnx)
        a_model.graph.input.append(more)
        found = read(str(written(a_model, tmp_path / "net.onnx")), T, B)
        assert found.inputs is None
        assert any(words.startswith("The whole is not measured: its input") for words in found.told), why


def test_operators_of_a_version_that_is_not_known_yet(onnx, tmp_path):
    for opset, ir in ((999, 8), (14, 99)):
        a_model = single(onnx, "LSTM", (T, B, I), opset=opset)
        a_model.ir_version = ir
        (layer,) = read(str(written(a_model, tmp_path / "net.onnx")), T, B).layers.values()
        assert layer.cell == "lstm"


@pytest.mark.parametrize("text", [b"it", b"hs", b"steps", b"hidden_size"])
def test_texts_of_another_encoding(onnx, tmp_path, text):
    path = tmp_path / "net.onnx"
    path.write_bytes(single(onnx).SerializeToString().replace(text, b"\xff" + text[1:]))
    (layer,) = read(str(path), T, B).layers.values()
    assert (layer.seq_len, layer.batch_size) == (T, B)


def test_a_function_that_calls_itself_and_one_that_grows(onnx, tmp_path):
    helper, versions = onnx.helper, [onnx.helper.make_opsetid("", 14), onnx.helper.make_opsetid("local", 1)]

    def function(name, *called):
        nodes = [helper.make_node(one, ["x"], ["y"], domain="local") for one in called]
        return helper.make_function("local", name, ["x"], ["y"], nodes, versions)

    call = helper.make_node("f0", ["x"], ["y"], domain="local")
    a_graph = graph(onnx, [call], [value(onnx, "x", [T, B, I])], ["y"])
    for functions, why in (
        ([function("f0", "f0")], "f0: expected a function that does not call itself"),
        ([function(f"f{n}", f"f{n + 1}", f"f{n + 1}") for n in range(30)], "expected at most 1,048,576 nodes, .*"),
    ):
        refused(written(model(onnx, a_graph, functions=functions), tmp_path / "net.onnx"), why)
