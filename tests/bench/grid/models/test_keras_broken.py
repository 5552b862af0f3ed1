"""Keras' files that are broken, hostile, or something else: refused in a line of our own words, or read."""

import json
import zipfile

import numpy as np
import pytest

from bench.grid.cases import ChoiceError
from bench.grid.models import read
from tests.bench.grid.models.test_keras import FOREIGN, B, H, I, T, edited, refused
from tests.bench.grid.models.test_keras import written as written  # a fixture

h5py = pytest.importorskip("h5py")


def repacked(source, path, how=zipfile.ZIP_STORED, **changes):
    """Write a .keras file anew, with files of it as `changes` says by how their names begin, None for without."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w", how) as new:
        for name in old.namelist():
            data = changes.get(name.split(".")[0], old.read(name))
            if data is not None:
                new.writestr(name, data)
    return path


@pytest.fixture
def source(written):
    return written / "keras-3.1.keras"


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ("{", r"config\.json: expected JSON, got something else"),
        ("[" * 100_000, r"config\.json: expected JSON, got something else"),
        (b"\xff\xfe\x00", r"config\.json: expected JSON, got something else"),
        ("{}", r"config\.json: expected the config of a model, got none"),
        ("[]", r"config\.json: expected the config of a model, got none"),
        (
            json.dumps({"class_name": "Sequential", "config": {"layers": []}}),
            "expected .*: config.json says nothing .*",
        ),
        (
            json.dumps({"class_name": "Sequential", "config": {"layers": [1, {"class_name": 2}]}}),
            "expected .*nothing.*",
        ),
    ],
    ids=lambda value: str(value)[:12],
)
def test_a_config_that_is_none(source, tmp_path, config, why):
    refused(repacked(source, tmp_path / "n.keras", config=config), why)


def test_names_that_a_terminal_would_obey(source, tmp_path):
    with zipfile.ZipFile(source) as file:
        config = json.loads(file.read("config.json"))
    layers = [layer for layer in config["config"]["layers"] if layer["class_name"] in ("LSTM", "RNN")]
    for layer in layers:
        layer["config"]["name"] = "\x1b[31m" + layer["config"]["name"]
    layers[0]["registered_name"] = "\x1b[1m>\n" * 60
    layers[1]["config"]["cell"]["config"]["activation"] = "\x1b[1m"
    model = read(str(repacked(source, tmp_path / "n.keras", config=json.dumps(config))), T, B)
    said = [*model.layers, *model.left_out.keys(), *model.left_out.values(), *model.told]
    assert len(said) > 8
    assert all(text.isprintable() and len(text) < 300 for text in said)


def test_a_file_that_lacks_a_part(source, tmp_path):
    refused(repacked(source, tmp_path / "n.keras", config=None), r"expected a \.keras file with config\.json in it, .*")
    refused(repacked(source, tmp_path / "n.keras", model=None), r"expected a \.keras file with model\.weights\.h5 .*")


def test_configs_of_any_shape_are_read_or_refused(source, tmp_path):
    with zipfile.ZipFile(source) as file:
        config = json.loads(file.read("config.json"))
    rng = np.random.default_rng(0)
    values = (None, 0, -1, "x", [], {}, [[]], {"class_name": "LSTM"}, True, 1e300)

    def places(item):
        for key, value in item.items() if isinstance(item, dict) else enumerate(item) if isinstance(item, list) else ():
            yield item, key
            yield from places(value)

    for _ in range(25):
        broken = json.loads(json.dumps(config))
        for n in rng.integers(len(all_places := list(places(broken))), size=3):
            item, key = all_places[n]
            item[key] = values[rng.integers(len(values))]
        try:
            read(str(repacked(source, tmp_path / "n.keras", config=json.dumps(broken))), T, B)
        except ChoiceError as error:
            assert not FOREIGN.search(str(error).replace(str(tmp_path), "")), error  # noqa: PT017


def test_a_byte_that_has_flipped(source, tmp_path):
    data = bytearray(source.read_bytes())
    at = data.index(b"\x89HDF") + 30_000
    data[at] ^= 1
    (tmp_path / "n.keras").write_bytes(data)
    refused(tmp_path / "n.keras", "expected a file as Keras writes them, got something else or a damaged one")


def test_bytes_that_have_changed_are_read_or_refused(written, tmp_path):
    rng = np.random.default_rng(0)
    for name in ("keras-2.15-cudnn.h5", "keras-3.1.weights.h5"):
        data = (written / name).read_bytes()
        for n in range(30):
            broken = np.frombuffer(data, np.uint8).copy()
            broken[rng.integers(len(broken), size=8)] = rng.integers(256, size=8)
            (tmp_path / name).write_bytes(broken.tobytes() if n % 2 else data[: rng.integers(len(data))])
            try:
                read(str(tmp_path / name), T, B)
            except ChoiceError as error:
                assert not FOREIGN.search(str(error).replace(str(tmp_path), "")), error  # noqa: PT017


def test_bombs(source, tmp_path):
    zeros = bytes(2**27)
    path = repacked(source, tmp_path / "n.keras", zipfile.ZIP_DEFLATED, model=zeros)
    refused(path, r"model\.weights\.h5: expected weights, which pack into no less than 1/100 .*, got 128 MiB packed .*")
    path = repacked(source, tmp_path / "n.keras", zipfile.ZIP_DEFLATED, config=b" " * (2**26 + 1))
    refused(path, r"config\.json: expected at most 64 MiB, got 64")
    path = tmp_path / "n.weights.h5"
    for shape, why in (
        ((2**20, 2**20), "expected recurrent layers of at most 536,870,912 numbers, got 1,099,.*"),
        ((2**12, 2**14), r"expected .*, got layers/lstm: 0: expected weights, which pack into no less than 1/100 .*"),
    ):
        with h5py.File(path, "w") as file:
            group = file.create_group("layers/lstm/cell/vars")
            group.create_dataset("0", shape, "f4", chunks=(1, 2**10), compression="gzip")
            group["1"] = np.zeros((H, 4 * H), np.float32)
        refused(path, why)


def test_hdf5_that_points_elsewhere(tmp_path):
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["a"] = np.zeros((I, 4 * H), np.float32)
    path = tmp_path / "n.weights.h5"
    for link in (h5py.ExternalLink("secret.h5", "/a"), h5py.SoftLink("/b")):
        with h5py.File(path, "w") as file:
            file["b"] = np.zeros((I, 4 * H), np.float32)
            group = file.create_group("layers/lstm/cell/vars")
            group["0"], group["1"] = link, np.zeros((H, 4 * H), np.float32)
        refused(path, "expected a recurrent layer .*, got layers/lstm: 0: expected an array that lies in the file")


@pytest.mark.filterwarnings("error")
def test_infinite_weights(written, tmp_path):
    for name, at in (("first", "model_weights/first/first/lstm_cell/bias:0"), ("both", None)):

        def infinite(file, at=at):
            if at is not None:
                file[at][0] = np.inf
                return
            bias = file["model_weights/both/both/forward_gru/gru_cell/bias:0"]
            bias[0, 0], bias[1, 0] = np.inf, -np.inf

        path = edited(written / "keras-2.15.h5", tmp_path / "n.h5", infinite)
        refused(path, f"{name}: expected finite weights, got infinite ones or NaN")


def test_hdf5_of_something_else(tmp_path):
    path = tmp_path / "n.h5"
    with h5py.File(path, "w") as file:
        file["data"] = np.zeros(3)
    refused(path, "expected weights as Keras writes them, got HDF5 of something else")
    with h5py.File(path, "w") as file:
        file.create_group("model_weights").attrs["layer_names"] = [b"dense"]
    refused(path, "expected a recurrent layer that can be measured, got no recurrent layer")
    path.write_text("hello")
    refused(path, "expected a file as Keras writes them, got something else or a damaged one")


def test_what_a_file_is_tells_its_bytes_and_not_its_name(written, tmp_path):
    (tmp_path / "n.keras").write_bytes((written / "keras-2.15.h5").read_bytes())  # as Keras 2.12 called it
    (tmp_path / "n.hdf5").write_bytes((written / "keras-3.1.keras").read_bytes())
    first, second = (read(str(tmp_path / name), T, B).layers for name in ("n.keras", "n.hdf5"))
    assert set(first) == set(second)


def test_a_shard_of_several(tmp_path):
    for name, arrays, why in (
        (
            "n_00001.weights.h5",
            2,
            "it has no bias, which may lie in another of the shards that the file's name tells of",
        ),
        ("n_00000.weights.h5", 1, "it has no bias, which may lie .*"),
    ):
        with h5py.File(tmp_path / name, "w") as file:
            group = file.create_group("layers/lstm/cell/vars")
            for n, rows in zip(range(arrays), (I, H), strict=False):
                group[str(n)] = np.zeros((rows, 4 * H), np.float32)
        refused(tmp_path / name, f"expected a recurrent layer .*, got layers/lstm: {why}.*")


def test_bfloat16(tmp_path):
    rng = np.random.default_rng(0)
    with h5py.File(tmp_path / "n.weights.h5", "w") as file:
        group = file.create_group("layers/lstm/cell/vars")
        for n, shape in enumerate([(I, 4 * H), (H, 4 * H), (4 * H,)]):
            bits = rng.standard_normal(shape, dtype=np.float32).view(np.uint32) >> 16
            group.create_dataset(str(n), data=bits.astype(np.uint16).view("V2")).attrs["dtype"] = "bfloat16"
    (layer,) = read(str(tmp_path / "n.weights.h5"), T, B).layers.values()
    rng = np.random.default_rng(0)
    ref = (rng.standard_normal((I, 4 * H), dtype=np.float32).view(np.uint32) >> 16 << 16).view(np.float32)
    np.testing.assert_array_equal(layer.network[0][0].U, ref.T)


def test_an_encrypted_file_is_refused(source, tmp_path):
    data = bytearray(source.read_bytes())
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = -1
        while (place := data.find(mark, place + 1)) >= 0:
            data[place + at] |= 1
    (tmp_path / "n.keras").write_bytes(data)
    refused(tmp_path / "n.keras", "expected a file as Keras writes them, got something else or a damaged one")
