"""The kernels of every cell give what PyTorch and ONNX Runtime give."""

from typing import Any, NamedTuple

import numpy as np
import pytest

from reference.layouts import to_onnx, to_torch
from tests.kernels.cells import by_cell, by_dtype, by_edge, by_variant
from tests.kernels.compare import assert_close, assert_same, draw


class Results(NamedTuple):
    hs: np.ndarray
    state: Any  # the last one
    gradients: Any


def by_kernels(kernels, inputs, *options):
    params, x, state, grad_hs, grad_state = inputs
    trace = kernels.forward(params, x, state, *options)
    return Results(trace.hs, trace.state, kernels.bptt(params, trace, grad_hs, grad_state, None, *options))


def by_torch(torch, cell, inputs, *options):
    """Return the same Results from PyTorch's layer and its automatic gradients, in float64."""
    params, x, state, grad_hs, grad_state = inputs
    H, I = state.h.shape[1], x.shape[2]
    kind = getattr(torch.nn, cell.name.upper())
    layer = kind(I, H, dtype=torch.float64, **({"nonlinearity": options[0]} if options else {}))
    with torch.no_grad():
        for weight, value in zip(layer.parameters(), to_torch(params).values(), strict=True):
            weight.copy_(torch.from_numpy(value))
    x_, *first = (torch.from_numpy(a.copy()).requires_grad_() for a in (x, *(part[None] for part in state)))
    hs, last = layer(x_, first[0] if len(first) == 1 else tuple(first))
    lasts = [last] if len(first) == 1 else last
    torch.autograd.backward(
        (hs, *lasts), [torch.from_numpy(a) for a in (grad_hs, *(part[None] for part in grad_state))]
    )

    U, W, b, inner = (weight.grad.numpy() for weight in layer.parameters())
    kernels = cell.kernels
    return Results(
        hs.detach().numpy(),
        kernels.State(*(part.detach().numpy()[0] for part in lasts)),
        kernels.Gradients(
            kernels.Params(*(U, W, b, inner[-H:])[: len(params)]),
            x_.grad.numpy(),
            kernels.State(*(part.grad.numpy()[0] for part in first)),
        ),
    )


@by_variant
@by_dtype
@by_edge
def test_equals_torch(size, dtype, cell, options):
    torch = pytest.importorskip("torch")
    if options == ("sigmoid",):
        pytest.skip("PyTorch's RNN has no sigmoid")
    inputs = draw(cell.kernels, size, dtype)
    comp = by_kernels(cell.kernels, inputs, *options)
    n = size.H + size.I + 1 + size.T * size.B
    assert_close(comp, cell.kernels, inputs, lambda _, inputs: by_torch(torch, cell, inputs, *options), n)


ONNX_ATTRIBUTES = {"rnn": {"activations": ["Tanh"]}, "gru": {"linear_before_reset": 1}, "lstm": {}}


def onnx_model(cell, params, size):
    onnx = pytest.importorskip("onnx")
    H, I, T, B = size
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
    weights = dict(zip(("U", "W", "b"), to_onnx(params), strict=True))
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
