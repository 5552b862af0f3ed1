"""PyTorch, eager, on the CPU: `torch.nn.RNN`, and `torch.nn.RNNCell` for forward_step.

forward_step and forward run under `torch.inference_mode`, entered once around all calls. bptt is autograd's
backward pass alone, over one graph kept by `retain_graph=True`; train is forward with autograd's graph and its
backward pass, on two modules in turn, so that the weights change with every call. Both return the gradients of
the weights, one bias (PyTorch has two, and the second is zero and asks for none), x and the initial state.
Inputs share NumPy's memory, results stay PyTorch's tensors. Library defaults, with `torch.set_num_threads`.
"""

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version
from itertools import cycle

from bench.implementations import Prepared, UnsupportedError

MODULES = {"rnn": "RNN"}


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

    if case.cell not in MODULES:
        raise UnsupportedError(f"no {case.cell} here yet")
    x, grad_hs, h = (torch.from_numpy(a) for a in (inputs.x, inputs.grad_hs, inputs.state.h))

    if case.operation == "forward_step":
        cell, x_t = _module(f"{MODULES[case.cell]}Cell", case, inputs.params[0]), x[0]
        return Prepared(lambda: cell(x_t, h), lambda h: {"state.h": h.numpy()}, torch.inference_mode)

    h = h[None]  # PyTorch's (layers, B, H)
    if case.operation == "forward":
        rnn = _module(MODULES[case.cell], case, inputs.params[0])
        return Prepared(
            lambda: rnn(x, h),
            lambda result: {"hs": result[0].numpy(), "state.h": result[1][0].numpy()},
            torch.inference_mode,
        )

    modules = [_module(MODULES[case.cell], case, params) for params in inputs.params]
    x.requires_grad_(), h.requires_grad_()
    wanted = [(rnn.weight_ih_l0, rnn.weight_hh_l0, rnn.bias_ih_l0, x, h) for rnn in modules]

    def outputs(gradients):
        U, W, b, x, h = (gradient.numpy() for gradient in gradients)
        return {"params.U": U, "params.W": W, "params.b": b, "x": x, "state.h": h[0]}

    if case.operation == "bptt":
        hs, _ = modules[0](x, h)
        return Prepared(lambda: torch.autograd.grad(hs, wanted[0], grad_hs, retain_graph=True), outputs)

    turns = cycle(zip(modules, wanted, strict=True))

    def train():
        rnn, inputs = next(turns)
        hs, _ = rnn(x, h)
        return torch.autograd.grad(hs, inputs, grad_hs)

    return Prepared(train, outputs)


def _module(name, case, params):
    """Return a module of torch.nn with our weights; its second bias is zero."""
    import torch

    module = getattr(torch.nn, name)(case.input_size, case.hidden_size, dtype=getattr(torch, case.dtype))
    with torch.no_grad():
        weight_ih, weight_hh, bias_ih, bias_hh = module.parameters()
        for parameter, value in zip((weight_ih, weight_hh, bias_ih), params, strict=True):
            parameter.copy_(torch.from_numpy(value))
        bias_hh.zero_().requires_grad_(False)
    return module
