"""Weights in and out: there and back, and what the real libraries compute with them."""

from importlib import import_module

import numpy as np
import pytest

from reference import layouts
from tests.kernels.compare import Size, draw

T, B, I, H = 4, 2, 3, 5
CELLS = ("rnn", "gru", "lstm")


@pytest.fixture(params=CELLS)
def cell(request):
    return import_module(f"reference.{request.param}")


@pytest.fixture
def name(cell):
    return cell.__name__.removeprefix("reference.")


@pytest.fixture
def inputs(cell):
    return draw(cell, Size(H, I, T, B), np.float32)


# Float32's rounding unit is 6e-8; each step rounds sums of I + H products of the size of 1 a few times.
TOLERANCE = 1e-6


@pytest.mark.parametrize("library", ["torch", "keras", "onnx"])
def test_there_and_back(cell, inputs, library):
    there, back = (getattr(layouts, f"{way}_{library}") for way in ("to", "from"))
    weights = there(inputs.params)
    params = back(*weights) if library == "onnx" else back(weights)
    assert type(params) is cell.Params
    for comp, ref in zip(params, inputs.params, strict=True):
        np.testing.assert_array_equal(comp, ref)
        assert comp.dtype == ref.dtype
        assert comp.flags.c_contiguous
        assert comp.flags.owndata
        assert not np.shares_memory(comp, ref)
    for a in weights.values() if library == "torch" else weights:
        assert a.flags.c_contiguous


@pytest.mark.parametrize("kind", ["layer", "cell", "state_dict", "no bias"])
def test_from_torch(cell, name, inputs, kind):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    layer = getattr(torch.nn, name.upper() + ("Cell" if kind == "cell" else ""))(I, H, bias=kind != "no bias")
    params = layouts.from_torch(layer.state_dict() if kind == "state_dict" else layer)
    assert type(params) is cell.Params
    if kind == "cell":
        with torch.no_grad():
            state = layer(torch.from_numpy(inputs.x[0]))
        state = state if name == "lstm" else (state,)
        comp = cell.forward_step(params, inputs.x[0], cell.init_state(params, B))
        for a, ref in zip(comp, state, strict=True):
            np.testing.assert_allclose(a, ref.numpy(), atol=TOLERANCE)
    else:
        with torch.no_grad():
            hs, _ = layer(torch.from_numpy(inputs.x))
        np.testing.assert_allclose(cell.infer(params, inputs.x).hs, hs.numpy(), atol=TOLERANCE)


def test_to_torch(cell, name, inputs):
    torch = pytest.importorskip("torch")
    layer = getattr(torch.nn, name.upper())(I, H)
    layer.load_state_dict({key: torch.from_numpy(a) for key, a in layouts.to_torch(inputs.params).items()})
    with torch.no_grad():
        hs, _ = layer(torch.from_numpy(inputs.x))
    np.testing.assert_allclose(hs.numpy(), cell.infer(inputs.params, inputs.x).hs, atol=TOLERANCE)


@pytest.mark.parametrize("biases", [True, False], ids=["", "no bias"])
def test_from_onnx(cell, name, inputs, biases):
    """From random weights of ONNX's own: both of its biases count."""
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    rng = np.random.default_rng(0)
    G = len(inputs.params.b)
    W, R, bias = (rng.uniform(-0.5, 0.5, shape).astype(np.float32) for shape in ((1, G, I), (1, G, H), (1, 2 * G)))
    weights = {"W": W, "R": R} | ({"B": bias} if biases else {})

    extra = {"linear_before_reset": 1} if name == "gru" else {}
    node = onnx.helper.make_node(name.upper(), ["x", *weights], ["hs"], hidden_size=H, **extra)
    graph = onnx.helper.make_graph(
        [node],
        name,
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, (T, B, I))],
        [onnx.helper.make_tensor_value_info("hs", onnx.TensorProto.FLOAT, (T, 1, B, H))],
        [onnx.numpy_helper.from_array(a, key) for key, a in weights.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 14)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (hs,) = session.run(None, {"x": inputs.x})

    params = layouts.from_onnx(*weights.values())
    np.testing.assert_allclose(cell.infer(params, inputs.x).hs, hs[:, 0], atol=TOLERANCE)


KERAS = {"rnn": "SimpleRNN", "gru": "GRU", "lstm": "LSTM"}


@pytest.mark.parametrize("biases", [True, False], ids=["", "no bias"])
def test_from_keras(cell, name, inputs, biases, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras")
    layer = getattr(keras.layers, KERAS[name])(
        H, return_sequences=True, use_bias=biases, bias_initializer="random_normal"
    )
    hs = keras.ops.convert_to_numpy(layer(np.ascontiguousarray(inputs.x.swapaxes(0, 1))))
    params = layouts.from_keras(layer.get_weights())
    np.testing.assert_allclose(cell.infer(params, inputs.x).hs, hs.swapaxes(0, 1), atol=TOLERANCE)
    if biases:
        layer.set_weights(layouts.to_keras(params))  # which checks the shapes


def keras_step(name, kernel, recurrent_kernel, bias, x, state):
    """Return the next state, as in the documentation of `keras.layers` and its default arguments."""

    def sigmoid(a):
        return 1 / (1 + np.exp(-a))

    h = state[0]
    if name == "rnn":
        return (np.tanh(x @ kernel + h @ recurrent_kernel + bias),)
    if name == "lstm":
        i, f, c, o = np.split(x @ kernel + h @ recurrent_kernel + bias, 4, axis=1)
        c = sigmoid(f) * state[1] + sigmoid(i) * np.tanh(c)
        return sigmoid(o) * np.tanh(c), c
    input_bias, recurrent_bias = bias
    x_z, x_r, x_h = np.split(x @ kernel + input_bias, 3, axis=1)
    h_z, h_r, h_h = np.split(h @ recurrent_kernel + recurrent_bias, 3, axis=1)
    z, r = sigmoid(x_z + h_z), sigmoid(x_r + h_r)
    return (z * h + (1 - z) * np.tanh(x_h + r * h_h),)


def test_keras_equations(cell, name, inputs):
    """What `from_keras` reads, where Keras is not installed."""
    rng = np.random.default_rng(0)
    weights = [rng.uniform(-0.5, 0.5, a.shape).astype(np.float32) for a in layouts.to_keras(inputs.params)]
    ref = keras_step(name, *weights, inputs.x[0], inputs.state)
    comp = cell.forward_step(layouts.from_keras(weights), inputs.x[0], inputs.state)
    for a, b in zip(comp, ref, strict=True):
        np.testing.assert_allclose(a, b, atol=TOLERANCE)


# --- errors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"num_layers": 2}, {"bidirectional": True}])
def test_more_than_a_layer_of_torch(options):
    torch = pytest.importorskip("torch")
    with pytest.raises(ValueError, match=r"^layer: expected the weights of one layer in one direction, got weight_ih"):
        layouts.from_torch(torch.nn.GRU(I, H, **options))


def test_reset_before_the_product_in_keras():
    weights = [np.zeros((I, 3 * H)), np.zeros((H, 3 * H)), np.zeros(3 * H)]
    with pytest.raises(ValueError, match=r"^weights: expected a GRU with reset_after=True, got a bias \(15,\)"):
        layouts.from_keras(weights)


def test_two_directions_of_onnx():
    with pytest.raises(ValueError, match=r"^W: expected one direction, got 2"):
        layouts.from_onnx(np.zeros((2, 3 * H, I)), np.zeros((2, 3 * H, H)))


def test_no_cell_has_two_gates():
    with pytest.raises(ValueError, match=r"^weights: expected G H rows, G = 1, 3 or 4, got \(10, 3\) and \(10, 5\)"):
        layouts.from_onnx(np.zeros((1, 2 * H, I)), np.zeros((1, 2 * H, H)))
