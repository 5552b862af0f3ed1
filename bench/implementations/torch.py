"""PyTorch, eager, on the CPU: `torch.nn.RNN`, `GRU` and `LSTM`, and for forward_step `RNNCell`, `GRUCell`, `LSTMCell`.

forward_step and forward run under `torch.inference_mode`, entered once around all calls. bptt is autograd's
backward pass alone, over one graph kept by `retain_graph=True`; train is forward with autograd's graph and its
backward pass, on two modules in turn, so that the weights change with every call. Both return the gradients of
the weights, the biases, x and the initial state; of PyTorch's two biases the second asks for none where it only adds
to the first, that is, but in the GRU. Inputs share NumPy's memory, results stay PyTorch's tensors. Library defaults,
with `torch.set_num_threads`.

bfloat16 is `.bfloat16()` of the module: x, the state and the results are bfloat16 as well, the LSTM's c among them, and
are converted outside the timings. int8 is `torch.ao.quantization.quantize_dynamic`, which has no `torch.nn.RNN` but its
Cell: weights with one scale for each matrix, x and h rounded to 8 bits in every step, and float32 in and out.
"""

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version
from itertools import cycle

from bench.implementations import Prepared, UnsupportedError
from reference.layouts import to_torch


def version():
    try:
        return package_version("torch")
    except PackageNotFoundError:
        return None


def start(threads):
    import torch

    torch.set_num_threads(threads)


def prepare(case, inputs):
    import torch

    if case.dtype == "int8" and not hasattr(getattr(torch, "ao", None), "quantization"):
        raise UnsupportedError("this version of it has no torch.ao.quantization any more")
    if case.dtype == "int8" and case.cell == "rnn" and case.operation == "forward":
        raise UnsupportedError("its quantize_dynamic leaves torch.nn.RNN as it is")

    given = map(torch.from_numpy, (inputs.x, inputs.grad_hs, *inputs.state))
    x, grad_hs, *first = (a.bfloat16() for a in given) if case.dtype == "bfloat16" else given
    names = [f"state.{field}" for field in inputs.state._fields]

    if case.operation == "forward_step":
        cell, x_t, state = _module("Cell", case, inputs.params[0]), x[0], _joined(first)
        return Prepared(
            lambda: cell(x_t, state),
            lambda last: {name: as_array(part) for name, part in zip(names, _parts(last), strict=True)},
            torch.inference_mode,
        )

    first = [part[None] for part in first]  # PyTorch's (layers, B, H)
    state = _joined(first)
    if case.operation == "forward":
        layer = _module("", case, inputs.params[0])

        def outputs(result):
            hs, last = result
            return {"hs": as_array(hs)} | {n: as_array(part[0]) for n, part in zip(names, _parts(last), strict=True)}

        return Prepared(lambda: layer(x, state), outputs, torch.inference_mode)

    layers = [_module("", case, params) for params in inputs.params]
    for data in (x, *first):
        data.requires_grad_()
    wanted = [(*(weight for weight in layer.parameters() if weight.requires_grad), x, *first) for layer in layers]

    def gradients(result):
        fields = inputs.params[0]._fields
        arrays = dict(zip((*(f"params.{n}" for n in fields), "x", *names), (a.numpy() for a in result), strict=True))
        if "c" in fields:
            arrays["params.c"] = arrays["params.c"][-case.hidden_size :]
        return arrays | {name: arrays[name][0] for name in names}

    if case.operation == "bptt":
        hs, _ = layers[0](x, state)
        return Prepared(lambda: torch.autograd.grad(hs, wanted[0], grad_hs, retain_graph=True), gradients)

    turns = cycle(zip(layers, wanted, strict=True))

    def train():
        layer, inputs = next(turns)
        hs, _ = layer(x, state)
        return torch.autograd.grad(hs, inputs, grad_hs)

    return Prepared(train, gradients)


def _module(kind, case, params):
    """Return a module of torch.nn with our weights: a layer, or a "Cell"."""
    import torch

    name = case.cell.upper() + kind
    module = getattr(torch.nn, name)(case.input_size, case.hidden_size, dtype=getattr(torch, case.number))
    with torch.no_grad():
        for parameter, value in zip(module.parameters(), to_torch(params).values(), strict=True):
            parameter.copy_(torch.from_numpy(value))
    *_, bias_hh = module.parameters()
    bias_hh.requires_grad_(case.cell == "gru")
    if case.dtype == "bfloat16":
        return module.bfloat16()
    if case.dtype == "int8":
        return torch.ao.quantization.quantize_dynamic(torch.nn.ModuleList([module]), {type(module)})[0]
    return module


def _joined(state):
    """Return a state as torch.nn takes it: h, or the LSTM's (h, c)."""
    return state[0] if len(state) == 1 else tuple(state)


def _parts(state):
    return state if isinstance(state, tuple) else (state,)


def as_array(tensor):
    """Return a tensor as an array; NumPy has no bfloat16."""
    import torch

    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
