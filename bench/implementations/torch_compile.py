"""PyTorch's compiler: a cell's equations as tensor operations, a loop over the steps, compiled by `torch.compile`.

The compiler unrolls the loop, so it takes about a second a step, more with gradients, and sequences of more than 50
steps are left to others; `torch.nn.RNN` and its like it would leave uncompiled. The input projection is one product
before the loop. forward_step and forward run under `torch.inference_mode`, entered once around all calls. train is the
compiled forward with autograd's graph and the compiled backward pass, on two sets of weights in turn; it returns the
gradients of the weights, the biases, x and the initial state. Inputs share NumPy's memory, results stay PyTorch's
tensors. Compiled code is kept on disk, so compile times shrink from a second run on. In bfloat16 all of it is bfloat16,
x, the state and the results too, which are converted outside the timings. It takes part only if asked for.
"""

import os
import shutil
from itertools import cycle

from bench.grid.cases import STREAM
from bench.implementations import Prepared, UnsupportedError, streaming
from bench.implementations.torch import as_array, version

__all__ = ["prepare", "start", "version"]

LONGEST = 50  # steps
COMPILER = os.environ.get("CXX", "g++")


def start(threads):
    import torch._inductor.config

    torch.set_num_threads(threads)
    torch._inductor.config.compile_threads = 1  # in this process: no pool stays behind


def prepare(case, inputs):
    import torch

    if case.network:
        raise UnsupportedError("here it compiles one layer of one direction: each more takes as long again to compile")
    if case.operation == "bptt":
        raise UnsupportedError("the backward pass is compiled with its forward, and timed in train")
    if case.seq_len > LONGEST and case.operation != STREAM:
        raise UnsupportedError(f"every step is compiled anew: no more than {LONGEST} here")
    if case.dtype == "int8":
        raise UnsupportedError("tensors of int8 are for quantized modules, which are not compiled")
    if shutil.which(COMPILER) is None:
        raise UnsupportedError(f"needs a C++ compiler, and {COMPILER} is not there")
    torch._dynamo.reset()  # after a few shapes of one function it would compile no more

    def as_tensor(a):
        return torch.from_numpy(a).to(getattr(torch, case.dtype))

    x, grad_hs, *first = map(as_tensor, (inputs.x, inputs.grad_hs, *inputs.state))
    sets = [tuple(map(as_tensor, params)) for params in inputs.params]
    names = [f"state.{field}" for field in inputs.state._fields]
    run = torch.compile(_RUNS[case.cell](case), fullgraph=True, dynamic=False)

    if case.operation == STREAM:
        state = first

        def begin():
            nonlocal state
            state = first

        def step(x_t):
            nonlocal state
            _, *state = run(x_t, state, *sets[0])
            return state[0]

        def last():
            return dict(zip(names, map(as_array, state), strict=True))

        return streaming(begin, step, x.unsqueeze(1).unbind(), as_array, last, torch.inference_mode)
    if case.operation in ("forward_step", "forward"):

        def outputs(result):
            hs, *last = map(as_array, result)
            states = dict(zip(names, last, strict=True))
            return states if case.operation == "forward_step" else {"hs": hs} | states

        return Prepared(lambda: run(x, first, *sets[0]), outputs, torch.inference_mode)

    wanted = [(*params, x, *first) for params in sets]
    for tensor in (tensor for tensors in wanted for tensor in tensors):
        tensor.requires_grad_()
    turns = cycle(zip(sets, wanted, strict=True))

    def train():
        params, inputs = next(turns)
        hs, *_ = run(x, first, *params)
        return torch.autograd.grad(hs, inputs, grad_hs)

    fields = [*(f"params.{field}" for field in inputs.params[0]._fields), "x", *names]
    return Prepared(train, lambda result: dict(zip(fields, (a.numpy() for a in result), strict=True)))


def _rnn(case):
    import torch

    act = getattr(torch, case.activation)

    def run(x, state, U, W, b):
        """Return hs (T, B, H) and the last h (B, H)."""
        (h,), hs = state, []
        for projected in (x @ U.T + b).unbind():
            h = act(projected + h @ W.T)
            hs.append(h)
        return torch.stack(hs), h

    return run


def _gru(x, state, U, W, b, c):
    """Return hs (T, B, H) and the last h (B, H)."""
    import torch

    (h,), hs, H = state, [], W.shape[1]
    for projected in (x @ U.T + b).unbind():
        recurrent = h @ W.T
        r, z = torch.sigmoid(projected[:, : 2 * H] + recurrent[:, : 2 * H]).chunk(2, -1)
        n = torch.tanh(projected[:, 2 * H :] + r * (recurrent[:, 2 * H :] + c))
        h = (1 - z) * n + z * h
        hs.append(h)
    return torch.stack(hs), h


def _lstm(x, state, U, W, b):
    """Return hs (T, B, H), and the last h and c (B, H)."""
    import torch

    (h, c), hs = state, []
    for projected in (x @ U.T + b).unbind():
        i, f, g, o = (projected + h @ W.T).chunk(4, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        hs.append(h)
    return torch.stack(hs), h, c


_RUNS = {"rnn": _rnn, "gru": lambda case: _gru, "lstm": lambda case: _lstm}
