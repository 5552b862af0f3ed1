"""Weights in and out: there and back, and what the real libraries compute with them."""

import itertools
import re
from importlib import import_module

import numpy as np
import pytest

from reference import layouts, rnn, stack
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


# --- networks -----------------------------------------------------------------------------------------------------


NETWORKS = [(1, 2), (2, 1), (2, 2), (3, 2)]
OUT_AND_IN = {
    "torch": lambda network: layouts.from_torch(layouts.to_torch(network)),
    "keras": lambda network: tuple(map(layer_of, map(layouts.from_keras, layouts.to_keras(network)))),
    "onnx": lambda network: tuple(layer_of(layouts.from_onnx(*weights)) for weights in layouts.to_onnx(network)),
}


def layer_of(params):
    """Return Params, or a network of one layer, as a layer."""
    return (params,) if hasattr(params, "_fields") else params[0]


def draw_network(cell, layers, directions):
    return stack.init_params(cell, I, H, layers, directions == 2, rng=np.random.default_rng(0))


@pytest.mark.parametrize("library", OUT_AND_IN)
@pytest.mark.parametrize(("layers", "directions"), NETWORKS)
def test_a_network_there_and_back(cell, layers, directions, library):
    network = draw_network(cell, layers, directions)
    back = OUT_AND_IN[library](network)
    assert [[type(one) for one in layer] for layer in back] == [[cell.Params] * directions] * layers
    for comp, ref in zip(sum(back, ()), sum(network, ()), strict=True):
        assert_same(comp, ref)


@pytest.mark.parametrize(("layers", "directions"), NETWORKS)
@pytest.mark.parametrize("bias", [True, False], ids=["", "no bias"])
def test_a_network_from_torch(cell, name, inputs, layers, directions, bias):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    module = getattr(torch.nn, name.upper())(I, H, layers, bias=bias, bidirectional=directions == 2)
    with torch.no_grad():
        hs, _ = module(torch.from_numpy(inputs.x))
    np.testing.assert_allclose(stack.infer(cell, layouts.from_torch(module), inputs.x).hs, hs.numpy(), atol=TOLERANCE)


def test_a_network_to_torch(cell, name, inputs):
    torch = pytest.importorskip("torch")
    network = draw_network(cell, 2, 2)
    module = getattr(torch.nn, name.upper())(I, H, 2, bidirectional=True)
    module.load_state_dict({key: torch.from_numpy(a) for key, a in layouts.to_torch(network).items()})
    with torch.no_grad():
        hs, _ = module(torch.from_numpy(inputs.x))
    np.testing.assert_allclose(hs.numpy(), stack.infer(cell, network, inputs.x).hs, atol=TOLERANCE)


def test_two_directions_from_keras(cell, name, inputs, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras")
    layer = keras.layers.Bidirectional(getattr(keras.layers, KERAS[name])(H, return_sequences=True))
    hs = keras.ops.convert_to_numpy(layer(np.ascontiguousarray(inputs.x.swapaxes(0, 1))))
    network = layouts.from_keras(layer.get_weights())
    np.testing.assert_allclose(stack.infer(cell, network, inputs.x).hs, hs.swapaxes(0, 1), atol=TOLERANCE)
    layer.set_weights(layouts.to_keras(network)[0])  # which checks the shapes


def test_layers_must_fit_upon_each_other():
    state = layouts.to_torch(draw_network(rnn, 2, 1))
    state["weight_ih_l1"] = state["weight_ih_l1"][:, :-1]
    with refused(ValueError, "weight_ih_l1: expected the 5 outputs of the layer below as inputs, got 4"):
        layouts.from_torch(state)


@pytest.mark.parametrize("library", OUT_AND_IN)
def test_no_network(library):
    with refused(TypeError, r"params\[1\]: expected a tuple of the Params of one direction or two, got .*"):
        getattr(layouts, f"to_{library}")((*draw_network(rnn, 1, 2), "no layer"))


# --- what is taken ------------------------------------------------------------------------------------------------


FUNCTIONS = [f"{way}_{library}" for way in ("from", "to") for library in ("torch", "keras", "onnx")]


def arguments(function, params):
    """Return the arrays that a function reads, by the names that its errors give them."""
    if function == "from_torch":
        return layouts.to_torch(params)
    if function == "from_keras":
        return dict(zip(("kernel", "recurrent_kernel", "bias"), layouts.to_keras(params), strict=True))
    if function == "from_onnx":
        return dict(zip("WRB", layouts.to_onnx(params), strict=True))
    return {f"params.{name}": a for name, a in params._asdict().items()}


def call(function, arrays):
    """Call a function with arrays by these names; return the arrays that it gives."""
    cell = import_module(f"reference.{'gru' if 'params.c' in arrays else 'rnn'}")  # an LSTM has the fields of an RNN
    given = {
        "from_torch": (arrays,),
        "from_keras": ([*arrays.values()],),
        "from_onnx": arrays.values(),
    }.get(function) or (cell.Params(*arrays.values()),)
    result = getattr(layouts, function)(*given)
    return [*result.values()] if isinstance(result, dict) else [*result]


def assert_same(comp, ref):
    for a, b in zip(comp, ref, strict=True):
        np.testing.assert_array_equal(a, b, strict=True)


def test_a_state_dict_needs_no_order(inputs):
    state = layouts.to_torch(inputs.params)
    for names in itertools.permutations(state):
        assert_same(layouts.from_torch({name: state[name] for name in names}), inputs.params)


def test_parameters_that_learn_are_taken(cell, name):
    torch = pytest.importorskip("torch")
    layer = getattr(torch.nn, name.upper())(I, H)
    assert_same(layouts.from_torch(dict(layer.named_parameters())), layouts.from_torch(layer))


def read_only(a):
    a = a.copy()
    a.flags.writeable = False
    return a


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(
    "array", [read_only, np.asfortranarray, lambda a: np.repeat(a, 2, axis=-1)[..., ::2]], ids=["read", "F", "strides"]
)
def test_memory_of_any_order_is_taken(inputs, function, array):
    """And what comes out is what the kernels take."""
    given = arguments(function, inputs.params)
    comp, ref = (call(function, arrays) for arrays in ({name: array(a) for name, a in given.items()}, given))
    assert_same(comp, ref)
    for a in comp:
        assert a.flags.carray


# --- errors ------------------------------------------------------------------------------------------------------


def refused(error, text):
    return pytest.raises(error, match=rf"\A{text}\Z")


SPOIL = {
    "list": (lambda a: a.tolist(), TypeError, "an array, got list"),
    "None": (lambda a: None, TypeError, "an array, got NoneType"),
    "masked": (lambda a: np.ma.masked_array(a, a > 0), TypeError, "an array, got MaskedArray"),
    "int64": (lambda a: a.astype(np.int64), TypeError, "dtype float32 or float64, got int64"),
    "float16": (lambda a: a.astype(np.float16), TypeError, "dtype float32 or float64, got float16"),
    "object": (lambda a: a.astype(object), TypeError, "dtype float32 or float64, got object"),
    "byte-swapped": (lambda a: a.astype(">f4"), TypeError, "dtype float32 or float64, got >f4"),
    "float64": (lambda a: a.astype(np.float64), TypeError, "dtype float(32|64), that of .*, got float(32|64)"),
    "rank more": (lambda a: a[None], ValueError, r"shape \(.*\).*, got \(.*\)"),
    "rank less": (lambda a: a[0], ValueError, r"shape \(.*\).*, got \(.*\)"),
    "longer": (lambda a: np.concatenate((a, a[:1])), ValueError, r"shape \(.*\).*, got \(.*\)"),
    "wider": (lambda a: np.concatenate((a, a[..., :1]), axis=-1), ValueError, r"shape \(.*\).*, got \(.*\)"),
    "empty": (lambda a: a[..., :0], ValueError, r"shape \(.*\).*, got \(.*\)"),
}

# How many inputs there are is told by nothing else; what comes first fixes the dtype.
INPUTS = {"weight_ih_l0": "wider", "params.U": "wider", "W": "wider", "kernel": "longer"}
FIRST = ("weight_hh_l0", "recurrent_kernel", "R", "params.W")


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("how", SPOIL)
def test_every_array_is_checked_by_its_name(inputs, function, how):
    given = arguments(function, inputs.params)
    spoil, error, message = SPOIL[how]
    for name, a in given.items():
        bad = given | {name: spoil(a)}
        if (function == "from_onnx" and name == "B" and how == "None") or INPUTS.get(name) == how:
            call(function, bad)
            continue
        another = name in FIRST and (
            how == "float64" or (name == "R" and how == "longer")
        )  # it may have two directions
        blamed = ".*" if another else re.escape(name)
        with refused(error, f"{blamed}: expected {message}"):
            call(function, bad)


def test_a_projection_of_torch():
    torch = pytest.importorskip("torch")
    with refused(
        ValueError, "layer: expected the weights of a layer, or of layers upon each other, got .*weight_hr_l0"
    ):
        layouts.from_torch(torch.nn.LSTM(I, H, proj_size=2))


@pytest.mark.parametrize("kind", ["RNN", "RNNCell"])
def test_another_activation_of_torch_is_not_lost(kind):
    torch = pytest.importorskip("torch")
    layer = getattr(torch.nn, kind)(I, H, nonlinearity="relu")
    with refused(
        ValueError, r'layer: expected an RNN of tanh, got one of relu \(give .*, and activation="relu" to .*\)'
    ):
        layouts.from_torch(layer)

    x = torch.randn(T, B, I) if kind == "RNN" else torch.randn(1, B, I)
    with torch.no_grad():
        ref = layer(x)[0] if kind == "RNN" else layer(x[0])[None]
    comp = rnn.infer(layouts.from_torch(layer.state_dict()), x.numpy(), activation="relu").hs
    np.testing.assert_allclose(comp, ref, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("convert", "message"),
    [
        (lambda layer: layer.bfloat16(), "weight_hh_l0: expected dtype float32 or float64, got bfloat16"),
        (lambda layer: layer.half(), "weight_hh_l0: expected dtype float32 or float64, got float16"),
        (lambda layer: layer.to("meta"), "weight_hh_l0: expected an array that NumPy can read, got .* the device meta"),
        (type, "layer: expected a torch.nn.RNN, GRU or LSTM, or its state_dict.*, got type"),
        (lambda layer: list(layer.parameters()), "layer: expected a torch.nn.RNN, GRU or LSTM, or .*, got list"),
    ],
    ids=["bfloat16", "half", "meta", "class", "list"],
)
def test_what_of_torch_is_not_taken(convert, message):
    torch = pytest.importorskip("torch")
    with refused(TypeError, message):
        layouts.from_torch(convert(torch.nn.GRU(I, H)))


@pytest.mark.parametrize(
    ("names", "given"),
    [
        ([], "none"),
        (["weight_ih_l0", "weight_hh_l0", "bias_ih_l0"], "weight_ih_l0, weight_hh_l0, bias_ih_l0"),
        (["weight_ih", "weight_hh_l0"], "weight_ih, weight_hh_l0"),
        (["weight_ih_l0", "weight_hh_l0", "weight_hh_l0_reverse"], "weight_ih_l0, weight_hh_l0, weight_hh_l0_reverse"),
        (["weight_ih_l1", "weight_hh_l1"], "weight_ih_l1, weight_hh_l1"),
        ([f"lstm.{n}" for n in range(99)], r"lstm\.0, .*, lstm\.7, \.\.\."),
    ],
)
def test_a_state_dict_of_other_names(names, given):
    with refused(ValueError, f"layer: expected the weights of a layer, or of layers upon each other, got {given}"):
        layouts.from_torch(dict.fromkeys(names, np.zeros((H, H))))


@pytest.mark.parametrize("bias", [(3 * H,), (1, 3 * H)], ids=str)
def test_reset_before_the_product_in_keras(bias):
    weights = [np.zeros((I, 3 * H)), np.zeros((H, 3 * H)), np.zeros(bias)]
    message = rf"bias: expected shape \(2, 15\) of a GRU with reset_after=True, got {re.escape(str(bias))}"
    with refused(ValueError, message):
        layouts.from_keras(weights)


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        ([np.zeros((H, H))] * 5, ValueError, "2 or 3 arrays of one layer, 4 or 6 of two directions, got 5"),
        ([np.zeros((H, H))], ValueError, "2 or 3 arrays of one layer, 4 or 6 of two directions, got 1"),
        (np.zeros((2, H, H)), TypeError, r"the list of a layer's get_weights\(\), got ndarray"),
        (None, TypeError, r"the list of a layer's get_weights\(\), got NoneType"),
    ],
    ids=["five", "one", "array", "None"],
)
def test_no_weights_of_keras(weights, error, message):
    with refused(error, f"weights: expected {message}"):
        layouts.from_keras(weights)


def test_three_directions_of_onnx():
    with refused(ValueError, "R: expected one direction or two, got 3"):
        layouts.from_onnx(np.zeros((3, 3 * H, I)), np.zeros((3, 3 * H, H)))


def test_no_cell_has_two_gates():
    message = r"R: expected shape \(D, GH, H\), G = 1, 3 or 4, got \(1, 10, 5\)"
    with refused(ValueError, message):
        layouts.from_onnx(np.zeros((1, 2 * H, I)), np.zeros((1, 2 * H, H)))


@pytest.mark.parametrize("library", ["torch", "keras", "onnx"])
@pytest.mark.parametrize(
    "params", [None, (), np.zeros((H, H)), rnn.State(np.zeros((B, H)))], ids=lambda p: type(p).__name__
)
def test_no_params(params, library):
    with refused(TypeError, f"params: expected the Params of an rnn, gru or lstm, got {type(params).__name__}"):
        getattr(layouts, f"to_{library}")(params)


def test_params_of_another_cell():
    params = draw(import_module("reference.gru"), Size(H, I, T, B), np.float32).params
    with refused(ValueError, "params: expected U, W, b, c for 3 gates, got U, W, b"):
        layouts.to_torch(rnn.Params(*params[:3]))
