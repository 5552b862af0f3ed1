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
from tests.bench.grid.layers import export, exported, net, save

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
    refused(tmp_path / "model.tflite", r"expected a file that ends with one of \.onnx, .*")


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
