"""PyTorch, eager, on the CPU: `torch.nn.RNN`, `GRU` and `LSTM`, and for forward_step `RNNCell`, `GRUCell`, `LSTMCell`.

forward_step and forward run under `torch.inference_mode`, entered once around all calls. bptt is autograd's
backward pass alone, over one graph kept by `retain_graph=True`; train is forward with autograd's graph and its
backward pass, on two modules in turn, so that the weights change with every call. Both return the gradients of
the weights, the biases, x and the initial state; of PyTorch's two biases the second asks for none where it only adds
to the first, that is, but in the GRU. Inputs share NumPy's memory, results stay PyTorch's tensors. Library defaults,
with `torch.set_num_threads`. A stream is the Cell, or of a network the layers over a sequence of one step, with the
state that the last call returned.

bfloat16 is `.bfloat16()` of the module: x, the state and the results are bfloat16 as well, the LSTM's c among them, and
are converted outside the timings. int8 is `torch.ao.quantization.quantize_dynamic`, which has no `torch.nn.RNN` but its
Cell: weights with one scale for each matrix, x and h rounded to 8 bits in every step, and float32 in and out.

A network is one module of `num_layers` and `bidirectional`, whose forward_step is a sequence of one. Sequences of
several lengths are packed by `pack_padded_sequence` with `enforce_sorted=False`, and padded again to T steps, inside
every timing, as users do.
"""

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version
from itertools import cycle

import numpy as np

from bench.grid.cases import STREAM
from bench.implementations import Prepared, UnsupportedError, streaming
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
    if case.dtype == "int8" and case.cell == "rnn" and (case.operation == "forward" or case.network):
        raise UnsupportedError("its quantize_dynamic leaves torch.nn.RNN as it is")

    if case.activation == "sigmoid":
        raise UnsupportedError("its RNN has tanh and relu alone")

    if case.network:
        return _network(case, inputs)
    given = map(torch.from_numpy, (inputs.x, inputs.grad_hs, *inputs.state))
    x, grad_hs, *first = (a.bfloat16() for a in given) if case.dtype == "bfloat16" else given
    names = [f"state.{field}" for field in inputs.state._fields]

    if case.operation == STREAM:
        cell = _module("Cell", case, inputs.params[0])
        return _stream(cell, x.unbind(), _joined(first), lambda last: _parts(last)[0], names)
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


def _network(case, inputs):
    """Prepare a network, whose states are (layers directions, B, H) each."""
    import torch
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

    def as_tensor(a):
        return torch.from_numpy(a).bfloat16() if case.dtype == "bfloat16" else torch.from_numpy(a)

    chains = [one for layer in inputs.state for one in layer]
    fields, names = chains[0]._fields, [f"l{q // case.directions}.d{q % case.directions}" for q in range(len(chains))]
    x, grad_hs = as_tensor(inputs.x), as_tensor(inputs.grad_hs)
    first = [as_tensor(np.stack([one[n] for one in chains])) for n in range(len(fields))]
    state, lengths = _joined(first), None if inputs.lengths is None else torch.from_numpy(inputs.lengths)

    def run(module, x):
        if lengths is None:
            return module(x, state)
        packed, last = module(pack_padded_sequence(x, lengths, enforce_sorted=False), state)
        return pad_packed_sequence(packed, total_length=case.seq_len)[0], last

    def states(parts):
        arrays = {field: as_array(part) for field, part in zip(fields, parts, strict=True)}
        return {f"state.{name}.{field}": a[q] for field, a in arrays.items() for q, name in enumerate(names)}

    if case.operation == STREAM:
        layers = _module("", case, inputs.params[0])
        chains = [f"state.{name}.{field}" for field in fields for name in names]

        def layered(x_t, state):
            return layers(x_t, state)[1]

        return _stream(layered, x.unsqueeze(1).unbind(), state, lambda last: _parts(last)[0][-1], chains, torch.cat)
    if case.operation in ("forward_step", "forward"):
        module, x = _module("", case, inputs.params[0]), x if case.operation == "forward" else x[:1]

        def outputs(result):
            hs, last = result
            return ({"hs": as_array(hs)} if case.operation == "forward" else {}) | states(_parts(last))

        return Prepared(lambda: run(module, x), outputs, torch.inference_mode)

    modules = [_module("", case, params) for params in inputs.params]
    for data in (x, *first):
        data.requires_grad_()
    weights = [[weight for weight in module.parameters() if weight.requires_grad] for module in modules]

    def gradients(result):
        given, (x, *first) = list(result[: len(weights[0])]), result[len(weights[0]) :]
        arrays = {"x": x.numpy()} | states(first)
        params = [one for layer in inputs.params[0] for one in layer]
        for name, one in zip(names, params, strict=True):
            for field in one._fields:
                a = given.pop(0).numpy()
                arrays[f"params.{name}.{field}"] = a[-case.hidden_size :] if field == "c" else a
        return arrays

    if case.operation == "bptt":
        hs, _ = run(modules[0], x)
        wanted = (*weights[0], x, *first)
        return Prepared(lambda: torch.autograd.grad(hs, wanted, grad_hs, retain_graph=True), gradients)

    turns = cycle(zip(modules, weights, strict=True))

    def train():
        module, inputs = next(turns)
        return torch.autograd.grad(run(module, x)[0], (*inputs, x, *first), grad_hs)

    return Prepared(train, gradients)


def _stream(step, inputs, initial, h, names, flat=list):
    """Prepare a stream: step(x_t, state) gives the next state, `h` finds its h (B, H), `flat` has its named parts."""
    import torch

    state = initial

    def begin():
        nonlocal state
        state = initial

    def advance(x_t):
        nonlocal state
        state = step(x_t, state)
        return state

    def last():
        return dict(zip(names, map(as_array, flat(_parts(state))), strict=True))

    return streaming(begin, advance, inputs, lambda after: as_array(h(after)), last, torch.inference_mode)


def _module(kind, case, params):
    """Return a module of torch.nn with our weights: layers, or a "Cell"."""
    import torch

    options: dict = {} if kind else {"num_layers": case.layers, "bidirectional": case.directions == 2}
    options |= {"nonlinearity": case.activation} if case.cell == "rnn" else {}
    dtype = getattr(torch, case.number)
    module = getattr(torch.nn, case.cell.upper() + kind)(case.input_size, case.hidden_size, dtype=dtype, **options)
    values = to_torch(params).items()
    module.load_state_dict({name.replace("_l0", "") if kind else name: torch.from_numpy(a) for name, a in values})
    for name, parameter in module.named_parameters():
        parameter.requires_grad_("bias_hh" not in name or case.cell == "gru")
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
