"""The kernels of every cell give what PyTorch and ONNX Runtime give."""

import numpy as np
import pytest

from tests.kernels.cells import by_cell, by_dtype, by_edge, by_variant, label
from tests.kernels.compare import assert_same, draw


def torch_weights(params):
    """Return the weights in the order of PyTorch's parameters: it has two biases, and gates in the order of ours."""
    inner = np.zeros_like(params.b)
    if hasattr(params, "c"):
        inner[-len(params.c) :] = params.c
    return params.U, params.W, params.b, inner


@by_variant
@by_dtype
@by_edge
def test_equals_torch(size, dtype, cell, options):
    torch = pytest.importorskip("torch")
    if options == ("sigmoid",):
        pytest.skip("PyTorch's RNN has no sigmoid")
    kernels = cell.kernels
    params, x, state, grad_hs, grad_state = draw(kernels, size, dtype)
    layer = getattr(torch.nn, cell.name.upper())(
        size.I, size.H, dtype=getattr(torch, label(dtype)), **({"nonlinearity": options[0]} if options else {})
    )
    with torch.no_grad():
        for weight, value in zip(layer.parameters(), torch_weights(params), strict=True):
            weight.copy_(torch.from_numpy(value))
    x_, *parts = (torch.from_numpy(a.copy()).requires_grad_() for a in (x, *(part[None] for part in state)))
    hs, last = layer(x_, parts[0] if len(parts) == 1 else tuple(parts))
    lasts = [last] if len(parts) == 1 else last
    torch.autograd.backward((hs, *lasts), [torch.from_numpy(a) for a in (grad_hs, *(g[None] for g in grad_state))])

    trace = kernels.forward(params, x, state, *options)
    ref = kernels.Output(hs.detach().numpy(), kernels.State(*(part[0].detach().numpy() for part in lasts)))
    assert_same(kernels.Output(trace.hs, trace.state), ref, size)
    U, W, b, inner = (weight.grad.numpy() for weight in layer.parameters())
    weights = (U, W, b, inner[-size.H :])[: len(params)]
    ref = kernels.Gradients(
        kernels.Params(*weights), x_.grad.numpy(), kernels.State(*(part.grad[0].numpy() for part in parts))
    )
    assert_same(kernels.bptt(params, trace, grad_hs, grad_state, None, *options), ref, size)


# ONNX's order of the gates, where ours are r, z, n and i, f, g, o.
ONNX_GATES = {"rnn": (0,), "gru": (1, 0, 2), "lstm": (0, 3, 1, 2)}
ONNX_ATTRIBUTES = {"rnn": {"activations": ["Tanh"]}, "gru": {"linear_before_reset": 1}, "lstm": {}}


def onnx_model(cell, params, size):
    onnx = pytest.importorskip("onnx")
    H, I, T, B = size
    order = ONNX_GATES[cell.name]

    def reordered(a):
        return np.concatenate([a[gate * H : (gate + 1) * H] for gate in order])

    U, W, b, inner = map(reordered, torch_weights(params))
    states = [f"{part}{{}}" for part in cell.kernels.State._fields]
    firsts, lasts = ([name.format(n) for name in states] for n in ("0", "T"))

    def value(name, *shape):
        return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)

    node = onnx.helper.make_node(
        cell.name.upper(),
        ["x", "U", "W", "b", "", *firsts],
        ["hs", *lasts],
        hidden_size=H,
        **ONNX_ATTRIBUTES[cell.name],
    )
    weights = {"U": U[None], "W": W[None], "b": np.concatenate((b, inner))[None]}
    graph = onnx.helper.make_graph(
        [node],
        cell.name,
        [value("x", T, B, I), *(value(name, 1, B, H) for name in firsts)],
        [value("hs", T, 1, B, H), *(value(name, 1, B, H) for name in lasts)],
        [onnx.numpy_helper.from_array(a, name) for name, a in weights.items()],
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 14)], ir_version=8), firsts


@by_cell
@by_edge
def test_equals_onnxruntime(size, cell):
    onnxruntime = pytest.importorskip("onnxruntime")
    kernels = cell.kernels
    params, x, state, *_ = draw(kernels, size, np.float32)
    model, firsts = onnx_model(cell, params, size)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    hs, *lasts = session.run(None, {"x": x, **{name: part[None] for name, part in zip(firsts, state, strict=True)}})

    ref = kernels.Output(hs[:, 0], kernels.State(*(last[0] for last in lasts)))
    assert_same(kernels.infer(params, x, state), ref, size)
