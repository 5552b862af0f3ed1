"""Recurrent layers in files: every format by its own library, and what is wrong, cut, huge or hostile by its line."""

import re
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
    refused(tmp_path / "folder.onnx", "expected a file, got a folder")


def test_a_package_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    (tmp_path / "n.keras").write_bytes(b"x")
    refused(tmp_path / "n.keras", "expected the package h5py, which the extra `models` installs, to read it with")
