"""Recurrent layers in files: every format by its own library, and what is wrong, cut, huge or hostile by its line."""

import json
import re
import zipfile
from importlib import import_module

import numpy as np
import pytest

from bench.grid import models
from bench.grid.cases import ChoiceError
from bench.grid.models import read
from reference import stack
from tests.bench.grid.layers import net, save

T, B, I, H = 12, 3, 5, 7
KINDS = {"rnn": "RNN", "gru": "GRU", "lstm": "LSTM"}
TOLERANCE = 1e-6  # float32's rounding unit is 6e-8; each step rounds sums of I + H products of about 1 a few times


def run(layer, x):
    """Return hs of a layer that was read, by the reference."""
    return stack.infer(import_module(f"reference.{layer.cell}"), layer.network, x).hs


def inputs(size=I):
    return np.random.default_rng(0).standard_normal((T, B, size), dtype=np.float32)


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


def refused(path, text, seq_len=T):
    with pytest.raises(ChoiceError) as caught:
        read(str(path), seq_len, B)
    assert re.fullmatch(rf"--model: {re.escape(str(path))}: {text}", str(caught.value)), str(caught.value)


# --- Keras --------------------------------------------------------------------------------------------------------


@pytest.fixture
def keras(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    pytest.importorskip("torch")
    pytest.importorskip("h5py")
    return pytest.importorskip("keras")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("end", [".keras", ".weights.h5"])
def test_layers_of_keras(keras, tmp_path, end):
    layers = keras.layers
    inner = keras.Sequential([keras.Input((None, 2 * H)), layers.SimpleRNN(4, return_sequences=True, name="deep")])
    middle = layers.Bidirectional(layers.GRU(H, return_sequences=True), name="middle")
    first = layers.LSTM(H, return_sequences=True, use_bias=False, name="first")
    whole = keras.Sequential([keras.Input((None, I)), first, layers.Dropout(0.1), middle, inner, layers.Dense(2)])
    path = tmp_path / f"net{end}"
    (whole.save if end == ".keras" else whole.save_weights)(path)
    model = read(str(path), T, B)
    assert {name: layer.cell for name, layer in model.layers.items()} == {
        "first": "lstm", "middle": "gru", "deep": "rnn"
    }  # fmt: skip
    assert model.left_out == {}
    x = inputs()
    for layer in (first, middle):
        ref = keras.ops.convert_to_numpy(layer(np.ascontiguousarray(x.swapaxes(0, 1)))).swapaxes(0, 1)
        x = run(model.layers[layer.name], x)
        np.testing.assert_allclose(x, ref, atol=TOLERANCE)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_of_keras_has_other_equations(keras, tmp_path):
    layers = keras.layers
    parts = {
        "before": layers.GRU(H, reset_after=False, return_sequences=True, name="before"),
        "relu": layers.SimpleRNN(H, activation="relu", return_sequences=True, name="relu"),
        "hard": layers.LSTM(H, recurrent_activation="hard_sigmoid", return_sequences=True, name="hard"),
        "cells": layers.RNN([layers.GRUCell(H), layers.GRUCell(H)], return_sequences=True, name="cells"),
    }
    keras.Sequential([keras.Input((None, I)), *parts.values(), layers.LSTM(H, name="good")]).save(tmp_path / "n.keras")
    model = read(str(tmp_path / "n.keras"), T, B)
    assert list(model.layers) == ["good"]
    assert model.left_out == {
        "before": "reset_after = False, where the cells here have True",
        "relu": "activation = relu, where the cells here have tanh",
        "hard": "recurrent_activation = hard_sigmoid, where the cells here have sigmoid",
        "cells": "cells upon each other in one layer",
    }


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_hdf5_that_points_elsewhere(keras, tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["a"] = np.zeros((I, 4 * H), np.float32)
    path = tmp_path / "n.weights.h5"
    with h5py.File(path, "w") as file:
        group = file.create_group("layers/lstm/cell/vars")
        group["0"] = h5py.ExternalLink("secret.h5", "/a")
        group["1"] = np.zeros((H, 4 * H), np.float32)
    refused(path, "expected a recurrent layer .*, got layers/lstm: 0: expected an array that lies in the file")
    with h5py.File(path, "a") as file:
        del file["layers/lstm/cell/vars/0"]
        file["layers/lstm/cell/vars"].create_dataset("0", (2**20, 2**20), "f4", chunks=(1, 2**10), compression="gzip")
    refused(path, "expected recurrent layers of at most 536,870,912 numbers, got 1,099,.*")


# --- ONNX ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def onnx():
    return pytest.importorskip("onnx")


def export(torch, path, kind="LSTM", **shapes):
    """Write a convolution, two layers of two directions and a linear layer as PyTorch exports them."""

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv1d(4, I, 3, stride=2, padding=1)
            self.rnn = getattr(torch.nn, kind)(I, H, 2, bidirectional=True, batch_first=True)
            self.head = torch.nn.Linear(2 * H, 3)

        def forward(self, x):
            return self.head(self.rnn(self.conv(x.transpose(1, 2)).transpose(1, 2))[0])

    torch.manual_seed(0)
    whole = Net().eval()
    x = torch.randn(1, 2 * T, 4)
    names = {"input_names": ["x"], "output_names": ["y"]}
    axes = {"dynamic_axes": {"x": {0: "batch", 1: "time"}, "y": {0: "batch"}}}
    torch.onnx.export(whole, (x,), path, dynamo=False, **names, **axes, **shapes)
    return whole


exported = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


@exported
@pytest.mark.parametrize("kind", KINDS.values())
@pytest.mark.parametrize("folding", [True, False], ids=["", "weights made by nodes"])
def test_an_export_of_pytorch(torch, onnx, tmp_path, kind, folding):
    whole = export(torch, tmp_path / "net.onnx", kind, do_constant_folding=folding)
    model = read(str(tmp_path / "net.onnx"), 2 * T, B)
    assert [KINDS[layer.cell] for layer in model.layers.values()] == [kind, kind]
    assert [(layer.seq_len, layer.batch_size) for layer in model.layers.values()] == [(T, B)] * 2  # behind the stride
    assert model.inputs == {"x": ("float32", [B, 2 * T, 4])}
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


def single(onnx, kind="GRU", extra=(), dims=None, **attributes):
    """Return a model of one node, whose weights are initializers."""
    helper, G = onnx.helper, {"RNN": 1, "GRU": 3, "LSTM": 4}[kind]
    W, R = np.zeros((1, G * H, I), np.float32), np.zeros((1, G * H, H), np.float32)
    node = helper.make_node(kind, ["x", "W", "R", *extra], ["hs"], name="it", hidden_size=H, **attributes)
    values = [helper.make_tensor_value_info("x", 1, dims or ["steps", "batch", I])]
    out = [helper.make_tensor_value_info("hs", 1, None)]
    weights = [onnx.numpy_helper.from_array(a, name) for name, a in (("W", W), ("R", R))]
    weights += [onnx.numpy_helper.from_array(np.zeros((1, 3 * H), np.float32), "P")] if "P" in extra else []
    graph = helper.make_graph([node], "one", values, out, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)


def written(model, path):
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"kind": "GRU"}, "linear_before_reset = 0, where the GRU here resets behind the product"),
        ({"kind": "LSTM", "extra": ["", "", "", "", "P"]}, "peepholes, which no cell here has"),
        ({"kind": "LSTM", "input_forget": 1}, "input_forget, which no cell here has"),
        ({"kind": "LSTM", "clip": 3.0}, "clip, which no cell here has"),
        ({"kind": "RNN", "activations": ["Relu"]}, "activations Relu, where the cells here have Tanh"),
        ({"kind": "LSTM", "activations": ["HardSigmoid", "Tanh", "Tanh"]}, "activations HardSigmoid, .*"),
    ],
    ids=lambda option: str(option)[:40],
)
def test_what_of_onnx_has_other_equations(onnx, tmp_path, options, why):
    path = written(single(onnx, **options), tmp_path / "net.onnx")
    refused(path, f"expected a recurrent layer that can be measured, got it: {why}")


@pytest.mark.parametrize(
    ("dims", "sizes"), [(["steps", "batch", I], (T, B)), ([None, "N", I], (T, B)), ([9, 2, I], (9, 2))], ids=str
)
@pytest.mark.parametrize("layout", [0, 1])
def test_sizes_that_a_file_fixes(onnx, tmp_path, dims, sizes, layout):
    dims = [dims[1], dims[0], I] if layout else dims
    if layout and dims[0] is None:
        dims[0] = "N"
    model = single(onnx, "GRU", dims=dims, linear_before_reset=1, layout=layout)
    if None in dims:  # an axis without a name is the batch if it is the first
        sizes = (T, B) if dims[0] is not None else (B, B)
    (layer,) = read(str(written(model, tmp_path / "net.onnx")), T, B).layers.values()
    assert (layer.seq_len, layer.batch_size) == sizes


def test_sizes_that_no_memory_holds(onnx, tmp_path):
    model = single(onnx, "GRU", dims=[2**40, 1, I], linear_before_reset=1)
    refused(
        written(model, tmp_path / "net.onnx"), "it: expected T, B and H that come to states of at most .* numbers, .*"
    )
    path = written(single(onnx, "GRU", linear_before_reset=1), tmp_path / "net.onnx")
    refused(path, "it: expected T, B and H that come to states of at most .*", seq_len=10**9)


def test_a_node_without_inputs(onnx, tmp_path):
    model = single(onnx, "GRU", linear_before_reset=1)
    del model.graph.node[0].input[:]
    refused(written(model, tmp_path / "net.onnx"), ".*got it: expected W and R, got fewer inputs")


def test_a_node_in_the_branch_of_an_if(onnx, tmp_path):
    helper = onnx.helper
    inner = single(onnx, "GRU", linear_before_reset=1).graph
    del inner.input[:]
    other = helper.make_graph([helper.make_node("Identity", ["x"], ["same"])], "other", [],
                              [helper.make_tensor_value_info("same", 1, None)])  # fmt: skip
    node = helper.make_node("If", ["yes"], ["out"], then_branch=inner, else_branch=other)
    values = [helper.make_tensor_value_info("x", 1, [T, B, I]), helper.make_tensor_value_info("yes", 9, [])]
    graph = helper.make_graph([node], "outer", values, [helper.make_tensor_value_info("out", 1, None)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    assert list(read(str(written(model, tmp_path / "net.onnx")), T, B).layers) == ["it"]


def test_weights_that_grow_are_not_made(onnx, tmp_path):
    helper = onnx.helper
    model = single(onnx, "GRU", linear_before_reset=1)
    graph = model.graph
    graph.node[0].input[2] = "r31"
    doubled = [helper.make_node("Concat", [f"r{n}", f"r{n}"], [f"r{n + 1}"], axis=1) for n in range(31)]
    doubled.insert(0, helper.make_node("Identity", ["R"], ["r0"]))
    nodes = [*doubled, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    refused(written(model, tmp_path / "net.onnx"), ".*expected recurrent layers of at most 536,870,912 numbers, got .*")


def test_weights_made_at_run_time_are_not_read(onnx, tmp_path):
    model = single(onnx, "GRU", linear_before_reset=1)
    model.graph.node[0].input[2] = "x"
    refused(written(model, tmp_path / "net.onnx"), ".*got it: its weights are not constants")


def test_names_of_markup_and_of_many_lines(onnx, tmp_path):
    model = single(onnx, "GRU", linear_before_reset=1)
    twin = onnx.NodeProto()
    twin.CopyFrom(model.graph.node[0])
    twin.output[0] = "more"
    model.graph.node[0].name = twin.name = "<b>" + "x\n" * 100
    model.graph.node.append(twin)
    first, second = read(str(written(model, tmp_path / "net.onnx")), T, B).layers
    assert first != second
    assert all(name.isprintable() and len(name) <= 70 for name in (first, second))


# --- files that are none ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", models.ENDS)
@pytest.mark.parametrize(
    "data", [b"", b"hello", bytes(range(256)) * 40, b"PK\x03\x04" + bytes(100), b"\x89HDF\r\n\x1a\n"]
)
def test_no_model(tmp_path, end, data):
    pytest.importorskip({".onnx": "onnx", ".pt": "torch", ".pth": "torch"}.get(end, "h5py"))
    path = tmp_path / f"net{end}"
    path.write_bytes(data)
    refused(path, ".{10,300}")


@exported
@pytest.mark.parametrize("end", [".onnx", ".pt", ".safetensors"])
def test_a_file_cut_short_anywhere(torch, tmp_path, end):
    path = tmp_path / f"net{end}"
    if end == ".onnx":
        pytest.importorskip("onnx")
        export(torch, path)
    else:
        save(torch, net(torch, "LSTM").state_dict(), path)
    data = path.read_bytes()
    for cut in range(0, len(data) - 1, max(1, len(data) // 40)):
        path.write_bytes(data[:cut])
        refused(path, ".{10,300}")


@exported
@pytest.mark.parametrize("end", [".onnx", ".pt", ".safetensors"])
def test_a_file_with_bytes_changed_is_read_or_refused(torch, tmp_path, end):
    path = tmp_path / f"net{end}"
    if end == ".onnx":
        pytest.importorskip("onnx")
        export(torch, path)
    else:
        save(torch, net(torch, "LSTM").state_dict(), path)
    data, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(60):
        broken = np.frombuffer(data, np.uint8).copy()
        broken[rng.integers(len(broken), size=3)] = rng.integers(256, size=3)
        path.write_bytes(broken.tobytes())
        try:
            read(str(path), T, B)
        except ChoiceError as error:
            assert str(error).startswith("--model: ")  # noqa: PT017
            assert "\n" not in str(error)  # noqa: PT017


def test_another_ending(tmp_path):
    refused(tmp_path / "model.bin", r"expected a file that ends with one of \.onnx, .*")


def test_no_file_and_no_regular_file(tmp_path):
    refused(tmp_path / "net.onnx", "No such file or directory")
    (tmp_path / "folder.onnx").mkdir()
    refused(tmp_path / "folder.onnx", "expected a file of at most 8,192 MiB, got none")


def test_a_package_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    (tmp_path / "n.keras").write_bytes(b"x")
    refused(tmp_path / "n.keras", "expected the package h5py, which the extra `models` installs, to read it with")


def test_a_bomb_of_json(tmp_path):
    pytest.importorskip("h5py")
    path = tmp_path / "net.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("config.json", "[" * 100_000)
        file.writestr("model.weights.h5", "")
    refused(path, "not a .keras file: .*")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("config.json", json.dumps({}) + " " * 2**27)
    refused(path, r"config\.json: expected at most 64 MiB, got 128")
