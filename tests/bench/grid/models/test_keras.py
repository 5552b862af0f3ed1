"""Keras' files: each thing that changes equations, beside Keras' own numbers, or left out by name.

`data/keras.zip` has what older releases wrote, with what they computed (`data/write_keras.py`).
"""

import json
import re
import zipfile
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from bench.grid.cases import ChoiceError
from bench.grid.models import read
from reference import stack

h5py = pytest.importorskip("h5py")

T, B, I, H = 5, 2, 3, 4
TOLERANCE = 1e-6  # float32's rounding unit is 6e-8; each step rounds sums of I + H products of about 1 a few times
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Keras on PyTorch
ASSUMED = "it is taken to run forward, with the activations tanh and sigmoid, which the file does not say"
FOREIGN = re.compile(r"\x1b|<class|Traceback|Errno|synchronously|h5py|zipfile|CRC|None|\n|Unable|object")


def run(layer, x):
    """Return hs of a layer that was read, by the reference."""
    options = {"activation": layer.activation} if layer.cell == "rnn" else {}
    return stack.infer(import_module(f"reference.{layer.cell}"), layer.network, x, **options).hs


def turned(x):
    """Return (B, T, ...) as (T, B, ...), and the other way round."""
    return np.ascontiguousarray(np.asarray(x).swapaxes(0, 1))


def refused(path, text):
    with pytest.raises(ChoiceError) as caught:
        read(str(path), T, B)
    said = str(caught.value).removeprefix(f"--model: {path}: ")
    assert re.fullmatch(text, said), said
    assert not FOREIGN.search(said), said


# --- what other releases wrote --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keras")
    with zipfile.ZipFile(Path(__file__).parent / "data" / "keras.zip") as file:
        file.extractall(folder)
    return folder


def expect_numbers(found, numbers, name, parts=()):
    """Compare layers that were read, one behind the other, with what their release of Keras gave for them."""
    x, ref = turned(numbers[f"{name}.x"]), turned(numbers[f"{name}.y"])
    if name == "each":  # on two outer steps, which are sequences here
        x, ref = (turned(numbers[f"each.{end}"].reshape(4, 3, -1)) for end in "xy")
    comp = x[::-1].copy() if name == "back" else x
    for part in parts or (name,):
        comp = run(found[part], comp)
    np.testing.assert_allclose(comp, ref, atol=TOLERANCE, err_msg=name)


STACK = ("stack/gru_cell", "stack/gru_cell_1")
MEASURED = {"first", "both", "one/deep", "shared", "last", "back", "each"}


@pytest.mark.parametrize("file", ["3.1.keras", "3.0.keras", "2.15.keras", "2.15.h5", "2.13.keras"])
def test_whole_models_of_other_releases(written, file):
    path = written / f"keras-{file}"
    numbers = np.load(written / f"keras-{file.rpartition('.')[0]}.npz")
    model = read(str(path), T, B)
    assert set(model.layers) == MEASURED | set(STACK)
    assert model.left_out == {
        "relu": "activation = relu, where the cells here have tanh",
        "two/deep": "activation = sigmoid, where the cells here have tanh",
        "before": "reset_after = False, where the cells here have True",
    }
    for name in MEASURED:
        expect_numbers(model.layers, numbers, name)
    expect_numbers(model.layers, numbers, "stack", STACK)
    assert {layer.seq_len for name, layer in model.layers.items() if name != "each"} == {6}  # of Input, through all
    assert (model.layers["each"].seq_len, model.layers["each"].batch_size) == (3, 2 * B)
    told = " ".join(model.told)
    assert "back: it goes through its steps in reverse order (go_backwards), and forward here." in model.told
    assert "each: it runs on each of 2 outer steps (TimeDistributed), so that B is 2 times as large." in model.told
    assert "its T is 6, as the file has it." in told
    assert "taken to be" not in told
    if file > "3":
        assert "shared: it runs 2 times" not in told  # once in a model of its own, and once beside it


@pytest.mark.parametrize("release", ["3.0", "3.1"])
def test_weights_alone_before_names(written, release):
    model = read(str(written / f"keras-{release}.weights.h5"), T, B, "sigmoid")
    numbers = np.load(written / f"keras-{release}.npz")
    where = {
        "first": "layers/lstm",
        "both": "layers/bidirectional",
        "one/deep": "layers/sequential/layers/lstm",
        "shared": "layers/sequential_2/layers/lstm",
        "last": "layers/lstm_2",  # lstm_1 is the shared one
        "each": "layers/time_distributed/layer",
    }
    for name, path in where.items():
        expect_numbers({name: model.layers[path]}, numbers, name)
    expect_numbers(model.layers, numbers, "stack", [f"layers/rnn_1/{name.split('/')[1]}" for name in STACK])
    assert model.left_out == {
        "layers/rnn": "of the class rnn, which does not tell its equations",
        "layers/gru": "reset_after = False, where the cells here have True",
    }
    assert model.layers["layers/simple_rnn"].activation == "sigmoid"
    for path, layer in model.layers.items():
        assert layer.cell == "rnn" or ASSUMED in layer.told, path
    guess = "it is taken to be a GRU by the shapes of its weights, since nothing else tells its class"
    assert guess in model.layers["layers/bidirectional"].told
    assert any("its activation is sigmoid by --activation" in told for told in model.told)


def test_weights_alone_of_keras_2(written):
    model = read(str(written / "keras-2.15-weights.h5"), T, B, "relu")
    numbers = np.load(written / "keras-2.15.npz")
    for name, group in {
        "first": "first",
        "both": "both",
        "one/deep": "one",
        "shared": "shared",
        "back": "back",
    }.items():
        expect_numbers({name: model.layers[group]}, numbers, name)
    assert model.left_out == {"before": "reset_after = False, where the cells here have True"}
    assert all(any("taken to run forward" in told for told in layer.told) for layer in model.layers.values())
    assert read(str(written / "keras-2.15-weights.h5"), T, B).layers["back"].activation == "tanh"


@pytest.mark.parametrize("end", ["cudnn", "cudnn-weights"])
def test_layers_of_cudnn(written, end):
    model = read(str(written / f"keras-2.15-{end}.h5"), T, B)
    numbers = np.load(written / "keras-2.15-cudnn.npz")
    assert list(model.layers) == ["lstm", "gru", "both"]
    for name in model.layers:
        expect_numbers(model.layers, numbers, name)
    assert ("taken to run forward" in " ".join(model.told)) == (end == "cudnn-weights")


def edited(source, path, edit):
    """Write a copy of an HDF5 file of Keras 2 whose open file `edit` has changed."""
    path.write_bytes(source.read_bytes())
    with h5py.File(path, "a") as file:
        edit(file)
    return path


def test_old_defaults_are_not_taken(written, tmp_path):
    def older(file):
        file.attrs["keras_version"] = "2.2.4-tf"

    model = read(str(edited(written / "keras-2.15-weights.h5", tmp_path / "n.h5", older)), T, B)
    assert {layer.cell for layer in model.layers.values()} == {"rnn"}
    assert "hard_sigmoid by default before Keras 2.3, and it was written by 2.2.4-tf" in model.left_out["first"]
    model = read(str(edited(written / "keras-2.15-cudnn-weights.h5", tmp_path / "n.h5", older)), T, B)
    assert len(model.layers) == 3


def test_a_config_that_is_not_of_its_weights(written, tmp_path):
    def other(**changes):
        def edit(file):
            config = json.loads(file.attrs["model_config"])
            for layer in config["config"]["layers"]:
                if layer["config"]["name"] == "first":
                    layer["config"] |= changes
                    layer["config"] = {key: value for key, value in layer["config"].items() if value != "gone"}
            file.attrs["model_config"] = json.dumps(config)

        return read(str(edited(written / "keras-2.15.h5", tmp_path / "n.h5", edit)), T, B)

    assert other().layers["first"].cell == "lstm"
    assert "units = 5 in its config, where its weights have 4" in other(units=5).left_out["first"]
    assert "expected 2 arrays of weights, got 3" in other(use_bias=False).left_out["first"]
    assert "does not say its activation" in other(activation="gone").left_out["first"]
    assert "activation = linear" in other(activation=None).left_out["first"]


# --- each thing that changes equations, by the release that is here ---------------------------------------------------


@pytest.fixture(scope="module")
def keras():
    pytest.importorskip("torch")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_BACKEND", "torch")
        return pytest.importorskip("keras")


def own_classes(keras):
    """Return a cell and a layer of one's own."""
    register = keras.saving.register_keras_serializable("pkg")

    @register
    class MinimalRNNCell(keras.layers.Layer):
        def __init__(self, units, **options):
            super().__init__(**options)
            self.units = self.state_size = units

        def build(self, shape):
            self.kernel = self.add_weight(shape=(shape[-1], self.units), name="kernel")
            self.recurrent_kernel = self.add_weight(shape=(self.units, self.units), name="recurrent_kernel")

        def call(self, x, states):
            h = keras.ops.matmul(x, self.kernel) + keras.ops.matmul(states[0], self.recurrent_kernel)
            return h, [h]

        def get_config(self):
            return {**super().get_config(), "units": self.units}

    class LSTM(keras.layers.LSTM):
        pass

    return MinimalRNNCell, LSTM


def bidirectional(keras, one, other, **options):
    return keras.layers.Bidirectional(one, backward_layer=other, **options)


TANH = "where the cells here have tanh"
RESET = "reset_after = False, where the cells here have True"
DIFFER = "two directions that differ in more than their weights"
# The reason by which a layer is left out, "" if it is measured, and what makes the layer.
MATRIX = {
    "lstm": ("", lambda k, L, s: L.LSTM(H, **s)),
    "lstm_unbiased": ("", lambda k, L, s: L.LSTM(H, use_bias=False, **s)),
    "lstm_forgetful": ("", lambda k, L, s: L.LSTM(H, unit_forget_bias=False, **s)),
    "lstm_dropout": ("", lambda k, L, s: L.LSTM(H, dropout=0.4, recurrent_dropout=0.3, **s)),
    "lstm_unrolled": ("", lambda k, L, s: L.LSTM(H, unroll=True, **s)),
    "lstm_state": ("", lambda k, L, s: L.LSTM(H, return_state=True, **s)),
    "lstm_zeros": ("", lambda k, L, s: L.LSTM(H, zero_output_for_mask=True, **s)),
    "lstm_relu": (f"activation = relu, {TANH}", lambda k, L, s: L.LSTM(H, activation="relu", **s)),
    "lstm_hard": (
        "recurrent_activation = hard_sigmoid, where the cells here have sigmoid",
        lambda k, L, s: L.LSTM(H, recurrent_activation="hard_sigmoid", **s),
    ),
    "lstm_leaky": (f"activation = LeakyReLU, {TANH}", lambda k, L, s: L.LSTM(H, activation=L.LeakyReLU(), **s)),
    "lstm_backwards": ("", lambda k, L, s: L.LSTM(H, go_backwards=True, **s)),
    "lstm_stateful": ("", lambda k, L, s: L.LSTM(H, stateful=True, **s)),
    "lstm_own": ("LSTM, a class that is not Keras'", lambda k, L, s: own_classes(k)[1](H, **s)),
    "gru": ("", lambda k, L, s: L.GRU(H, **s)),
    "gru_unbiased": ("", lambda k, L, s: L.GRU(H, use_bias=False, **s)),
    "gru_before": (RESET, lambda k, L, s: L.GRU(H, reset_after=False, **s)),
    "gru_before_unbiased": (RESET, lambda k, L, s: L.GRU(H, reset_after=False, use_bias=False, **s)),
    "rnn": ("", lambda k, L, s: L.SimpleRNN(H, **s)),
    "rnn_relu": ("", lambda k, L, s: L.SimpleRNN(H, activation="relu", **s)),
    "rnn_sigmoid": ("", lambda k, L, s: L.SimpleRNN(H, activation="sigmoid", **s)),
    "rnn_linear": (
        "activation = linear, where the cells here have tanh, relu or sigmoid",
        lambda k, L, s: L.SimpleRNN(H, activation=None, **s),
    ),
    "cell": ("", lambda k, L, s: L.RNN(L.LSTMCell(H), **s)),
    "cell_relu": (f"activation = relu, {TANH}", lambda k, L, s: L.RNN(L.LSTMCell(H, activation="relu"), **s)),
    "cell_before": (RESET, lambda k, L, s: L.RNN(L.GRUCell(H, reset_after=False), **s)),
    "cell_sigmoid": ("", lambda k, L, s: L.RNN(L.SimpleRNNCell(H, activation="sigmoid"), **s)),
    "cell_own": ("pkg>MinimalRNNCell, a class that is not Keras'", lambda k, L, s: L.RNN(own_classes(k)[0](H), **s)),
    "cells": ("", lambda k, L, s: L.RNN([L.GRUCell(3), L.LSTMCell(H)], **s)),
    "both": ("", lambda k, L, s: L.Bidirectional(L.LSTM(H, **s))),
    "both_rnn": ("", lambda k, L, s: L.Bidirectional(L.SimpleRNN(H, activation="relu", **s))),
    "both_cell": ("", lambda k, L, s: L.Bidirectional(L.RNN(L.GRUCell(H), **s))),
    "both_mixed": (
        "",
        lambda k, L, s: bidirectional(k, L.GRU(H, use_bias=False, **s), L.GRU(H, go_backwards=True, **s)),
    ),
    "both_turned": ("", lambda k, L, s: bidirectional(k, L.GRU(H, go_backwards=True, **s), L.GRU(H, **s))),
    "both_summed": ("", lambda k, L, s: L.Bidirectional(L.GRU(H, **s), merge_mode="sum")),
    "both_kinds": (DIFFER, lambda k, L, s: bidirectional(k, L.LSTM(H, **s), L.GRU(H, go_backwards=True, **s))),
    "both_sizes": (DIFFER, lambda k, L, s: bidirectional(k, L.GRU(H, **s), L.GRU(3, go_backwards=True, **s))),
    "both_activations": (
        DIFFER,
        lambda k, L, s: bidirectional(
            k, L.SimpleRNN(H, **s), L.SimpleRNN(H, activation="relu", go_backwards=True, **s)
        ),
    ),
    "both_relu": (
        f"activation = relu, {TANH}",
        lambda k, L, s: bidirectional(k, L.LSTM(H, **s), L.LSTM(H, activation="relu", go_backwards=True, **s)),
    ),
    "both_cells": (
        "cells upon each other, in both directions",
        lambda k, L, s: L.Bidirectional(L.RNN([L.GRUCell(H), L.GRUCell(H)], **s)),
    ),
}
TOLD = {
    "lstm_backwards": "it goes through its steps in reverse order (go_backwards), and forward here",
    "lstm_stateful": "its state goes on from call to call (stateful), and is zero at first here",
    "both_turned": "it goes through its steps in reverse order (go_backwards), and forward here",
    "both_summed": "its directions are merged by sum, and lie side by side here",
}


@pytest.fixture(scope="module")
def matrix(keras, tmp_path_factory):
    """Return a model with all of them in it, its layers, and its files."""
    given = keras.Input(batch_shape=(B, T, I))
    layers = {name: make(keras, keras.layers, {"return_sequences": True}) for name, (_, make) in MATRIX.items()}
    outputs = []
    for name, layer in layers.items():
        layer.name = name
        one = layer(given)
        outputs.append(one[0] if isinstance(one, (list, tuple)) else one)
    whole = keras.Model(given, outputs)
    rng = np.random.default_rng(0)
    for layer in layers.values():
        arrays = layer.get_weights()
        layer.set_weights([rng.standard_normal(a.shape) / 3 if a.dtype.kind == "f" else a for a in arrays])
    folder = tmp_path_factory.mktemp("matrix")
    whole.save(folder / "n.keras")
    whole.save_weights(folder / "n.weights.h5")
    whole.save(folder / "n.h5")
    return layers, {end: read(str(folder / end), T, 1) for end in ("n.keras", "n.h5", "n.weights.h5")}


@pytest.mark.parametrize("file", ["n.keras", "n.h5"])
@pytest.mark.parametrize("name", MATRIX)
def test_equations(keras, matrix, name, file):
    layers, models = matrix
    model, why = models[file], MATRIX[name][0]
    if name == "lstm_own" and file == "n.h5":
        why = ""  # a subclass of Keras' LSTM that is called LSTM, of which this format has no module
    if why:
        assert model.left_out[name] == why
        assert name not in model.layers
        return
    assert name not in model.left_out
    x = np.random.default_rng(1).standard_normal((T, B, I), dtype=np.float32)
    if name == "lstm_stateful":
        layers[name].reset_state()
    ref = layers[name](turned(x))
    ref = turned(keras.ops.convert_to_numpy(ref[0] if isinstance(ref, (list, tuple)) else ref))
    parts = ["cells/gru_cell", "cells/lstm_cell"] if name == "cells" else [name]
    comp = x[::-1].copy() if name in ("lstm_backwards", "both_turned") else x
    for part in parts:
        comp = run(model.layers[part], comp)
        assert (model.layers[part].seq_len, model.layers[part].batch_size) == (T, B if name == "lstm_stateful" else 1)
        if name in TOLD:
            assert TOLD[name] in model.layers[part].told
    comp = comp[..., :H] + comp[..., H:] if name == "both_summed" else comp
    np.testing.assert_allclose(comp, ref, atol=TOLERANCE)


def test_weights_alone(matrix):
    model = matrix[1]["n.weights.h5"]
    assert set(model.left_out) == {"cell_own", "gru_before", "cell_before", "both_kinds", "both_sizes", "both_cells"}
    assert model.left_out["cell_own"] == "a cell called minimal_rnn_cell, which does not tell its equations"
    for name, layer in model.layers.items():
        assert ASSUMED in layer.told or any("its activation is taken to be tanh" in told for told in layer.told), name
    assert any("reset_after=True" in told for told in model.layers["gru_unbiased"].told)
    silent = [name for name, layer in model.layers.items() if any("shapes of its weights" in t for t in layer.told)]
    assert silent == []


def test_layers_below_each_other_and_weights_of_other_types(keras, tmp_path):
    layers = keras.layers
    inner = keras.Sequential([keras.Input((None, 2 * H)), layers.SimpleRNN(4, return_sequences=True, name="deep")])
    half = {"dtype": "float16", "recurrent_initializer": "glorot_uniform"}  # PyTorch has no orthogonal one on CPUs
    parts = [
        layers.LSTM(H, return_sequences=True, dtype="float64", name="first"),
        layers.Bidirectional(layers.GRU(H, return_sequences=True, **half), name="middle"),
        inner,
    ]
    whole = keras.Sequential(
        [keras.Input((None, I)), layers.Masking(), *parts, layers.MaxPooling1D(2), layers.GRU(3, name="last")]
    )
    whole.save(tmp_path / "n.keras")
    model = read(str(tmp_path / "n.keras"), T, B)
    assert model.left_out == {}
    assert {name: layer.cell for name, layer in model.layers.items()} == {
        "first": "lstm", "middle": "gru", "deep": "rnn", "last": "gru"
    }  # fmt: skip
    dtypes = [model.layers[name].network[0][0].W.dtype.name for name in ("first", "middle")]
    assert dtypes == ["float64", "float32"]
    np.testing.assert_array_equal(
        model.layers["middle"].network[0][1].W[:H], parts[1].get_weights()[4][:, H : 2 * H].T.astype(np.float32)
    )
    assert (
        "Steps that a mask leaves out (Masking, Embedding with mask_zero) are skipped in Keras, and computed here."
        in model.told
    )
    assert "its T is taken to be --seq-len, though max_pooling1d before it may change it" in " ".join(model.told)


def test_a_layer_that_is_called_twice_and_given_a_state(keras, tmp_path):
    layers = keras.layers
    given = keras.Input((None, H))
    twice = layers.GRU(H, return_sequences=True, name="twice")
    x, *state = layers.LSTM(H, return_sequences=True, return_state=True, name="encoder")(twice(twice(given)))
    keras.Model(given, layers.LSTM(H, name="decoder")(x, initial_state=state)).save(tmp_path / "n.keras")
    model = read(str(tmp_path / "n.keras"), T, B)
    assert "it runs 2 times in its model, and once here" in model.layers["twice"].told
    assert "the state that it begins with is given, and zero here" in model.layers["decoder"].told
    assert not any("given" in told for told in model.layers["encoder"].told)


def test_what_a_class_of_ones_own_holds(keras, tmp_path):
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.encoder = keras.layers.LSTM(H, return_sequences=True)
            self.many = [keras.layers.GRU(H, return_sequences=True), keras.layers.GRU(H)]
            self.one_step = keras.layers.LSTMCell(H)

        def call(self, x):
            h = self.many[1](self.many[0](self.encoder(x)))
            return self.one_step(h, [h, h])[0]

    whole = Net()
    whole(np.zeros((B, T, I), np.float32))
    whole.save(tmp_path / "n.keras")
    whole.save_weights(tmp_path / "n.weights.h5")
    refused(
        tmp_path / "n.keras", r"expected a recurrent .*, got .*: config\.json says nothing of it \(a \.weights\.h5 .*"
    )
    model = read(str(tmp_path / "n.weights.h5"), T, B)
    assert sorted(layer.cell for layer in model.layers.values()) == ["gru", "gru", "lstm"]
    assert all(ASSUMED in layer.told for layer in model.layers.values())
    assert list(model.left_out.values()) == ["weights that do not lie as in a recurrent layer of Keras'"]


def test_a_convolution_is_left_out(keras, tmp_path):
    layers = keras.layers
    given = keras.Input((T, 8, 2))
    x = layers.ConvLSTM1D(3, 3, return_sequences=True, name="conv")(given)
    keras.Model(given, layers.LSTM(H, name="good")(layers.Reshape((T, 18))(x))).save(tmp_path / "n.keras")
    model = read(str(tmp_path / "n.keras"), T, B)
    assert list(model.layers) == ["good"]
    assert model.left_out == {"conv": "ConvLSTM1D, which no cell here is"}


def test_an_activation_that_the_file_contradicts(keras, tmp_path):
    keras.Sequential([keras.Input((None, I)), keras.layers.SimpleRNN(H, name="n")]).save(tmp_path / "n.keras")
    assert read(str(tmp_path / "n.keras"), T, B, "tanh").layers["n"].activation == "tanh"
    with pytest.raises(ChoiceError, match="--activation: expected tanh, which the file says of n, got relu"):
        read(str(tmp_path / "n.keras"), T, B, "relu")


@pytest.mark.parametrize("file", ["n.keras", "n.h5"])
def test_sizes_of_what_lies_before(keras, tmp_path, file):
    """T and B are the model's own, or the command's, which is told: never those of another layer."""
    few, many, deep = keras.Input((20, I)), keras.Input((30, I)), keras.Input((4, 3, 9, I))
    L, options = keras.layers, {"return_sequences": True}
    one = keras.Input((None, I))
    other = keras.Input((None, I))
    inner = keras.Model(
        [one, other], [L.GRU(H, name="first", **options)(one), L.GRU(H, name="second", **options)(other)], name="inner"
    )
    turned_about = L.Conv1D(6, 3, padding="same", data_format="channels_first")
    outputs = [
        L.LSTM(H, name="joined")(L.Concatenate(axis=1)([few, many])),
        L.LSTM(H, name="added")(L.Add()([few, few])),
        L.LSTM(H, name="spread")(L.Add()([L.LSTM(I, **options, name="one")(few[:, :1]), few])),
        L.TimeDistributed(L.TimeDistributed(L.LSTM(H)), name="deep")(deep),
        *inner([few, many]),
        L.LSTM(H, name="conv")(turned_about(few)),
    ]
    path = tmp_path / file
    keras.Model([few, many, deep], outputs).save(path)
    model = read(str(path), T, B)
    assert model.left_out == {}
    true = {"joined": 50, "added": 20, "spread": 20, "one": 1, "deep": 9, "first": 20, "second": 30, "conv": 6}
    for name, layer in model.layers.items():
        told = " ".join(layer.told)
        assert (layer.seq_len == true[name]) != ("T" in layer.asked), name
        assert ("T" in layer.asked) == ("as the file has it" not in told)
        assert layer.batch_size == (B * 4 * 3 if name == "deep" else B)
    assert model.layers.keys() == true.keys()
    assert model.layers["added"].seq_len == 20


@pytest.mark.parametrize("file", ["n.keras", "n.h5"])
def test_one_of_several_cells_is_left_out(keras, tmp_path, file):
    cells = [keras.layers.GRUCell(H), keras.layers.LSTMCell(H, activation="relu"), keras.layers.LSTMCell(H)]
    keras.Sequential([keras.Input((T, I)), keras.layers.RNN(cells, name="rnn")]).save(tmp_path / file)
    model = read(str(tmp_path / file), T, B)
    assert model.layers.keys() == {"rnn/gru_cell", "rnn/lstm_cell_1"}
    assert model.left_out == {"rnn/lstm_cell": f"activation = relu, {TANH}"}
