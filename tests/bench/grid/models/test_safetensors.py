"""Files of safetensors: what is theirs alone; what they share with PyTorch's own is in test_torch.py."""

import json
import struct

import numpy as np
import pytest

from bench.grid import models
from bench.grid.cases import ChoiceError
from bench.grid.models import read
from tests.bench.grid.layers import TOLERANCE, B, H, I, T, inputs, refused, run

numpy_file = pytest.importorskip("safetensors.numpy")


def state(dtype=np.float32):
    rng = np.random.default_rng(0)
    shapes = {"weight_ih_l0": (4 * H, I), "weight_hh_l0": (4 * H, H), "bias_ih_l0": (4 * H,), "bias_hh_l0": (4 * H,)}
    return {f"rnn.{name}": rng.uniform(-0.4, 0.4, shape).astype(dtype) for name, shape in shapes.items()}


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_layer_with_numbers_of(tmp_path, dtype):
    arrays = state(dtype)
    numpy_file.save_file(arrays | {"head": np.ones(3)}, tmp_path / "net.safetensors")
    (layer,) = read(str(tmp_path / "net.safetensors"), T, B).layers.values()
    (params,) = layer.network[0]
    assert params.W.dtype == ("float64" if dtype == "float64" else "float32")
    np.testing.assert_array_equal(params.W, arrays["rnn.weight_hh_l0"])
    torch = pytest.importorskip("torch")
    module = torch.nn.LSTM(I, H)
    module.load_state_dict({name.removeprefix("rnn."): torch.from_numpy(a).float() for name, a in arrays.items()})
    with torch.no_grad():
        ref = module(torch.from_numpy(inputs()))[0].numpy()
    np.testing.assert_allclose(run(layer, inputs(dtype=params.W.dtype)), ref, atol=TOLERANCE)


@pytest.mark.parametrize("dtype", ["I8", "F8_E4M3"])
def test_weights_that_are_no_numbers_with_a_fraction(tmp_path, dtype):
    header, data = {}, b""
    for name, a in state().items():
        header[name] = {"dtype": dtype, "shape": a.shape, "data_offsets": [len(data), len(data) + a.size]}
        data += bytes(a.size)
    text = json.dumps(header).encode()
    (tmp_path / "net.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    words = rf"expected .*, got rnn: rnn\.\w+: expected weights of F64, F32, F16, BF16, got {dtype}"
    refused(tmp_path / "net.safetensors", words)


def test_a_shard_that_is_broken_is_named(tmp_path):
    numpy_file.save_file(state(), tmp_path / "a.safetensors")
    (tmp_path / "b.safetensors").write_bytes(b"\xff" * 40)
    index = tmp_path / "model.safetensors.index.json"
    files = dict.fromkeys(state(), "a.safetensors") | {"head": "b.safetensors"}
    index.write_text(json.dumps({"weight_map": files}))
    refused(index, r"b\.safetensors: not a \.safetensors file, or one that is damaged")
    (tmp_path / "b.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    refused(index, r"b\.safetensors: expected a model, got a pointer of Git LFS .*")


@pytest.mark.parametrize("end", models.ENDS)
@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "an empty file"),
        (b"version https://git-lfs.github.com/spec/v1\noid", r"a pointer of Git LFS .* \(git lfs pull\)"),
        (b"\n<!DOCTYPE html><title>404</title>", "a web page"),
    ],
)
def test_what_lies_in_the_place_of_a_model(tmp_path, end, data, words):
    path = tmp_path / f"net{end}"
    path.write_bytes(data)
    refused(path, f"expected a model, got {words}")


@pytest.mark.parametrize("end", [".onnx", ".safetensors"])
@pytest.mark.parametrize(("data", "words"), [(b"PK\x03\x04", "a zip file"), (b"\x89HDF\r\n\x1a\n", "an HDF5 file")])
def test_a_model_of_another_library(tmp_path, end, data, words):
    path = tmp_path / f"net{end}"
    path.write_bytes(data * 100)
    refused(path, f"expected a model, got {words}, as .* them")


def test_what_is_no_file(tmp_path):
    path = tmp_path / "net.pt"
    path.mkdir()
    refused(path, "expected a file, got a folder")


def test_a_path_that_a_terminal_would_obey(tmp_path):
    with pytest.raises(ChoiceError) as caught:
        read(f"{tmp_path}/\a\n.pt", T, B)
    assert str(caught.value).isprintable()
