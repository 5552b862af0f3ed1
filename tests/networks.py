"""Networks drawn at random, and the same in PyTorch: what the tests of `reference.stack` and `kernels.stack` share."""

from typing import Any, NamedTuple

import numpy as np

from bench.implementations import named
from reference import stack
from reference.layouts import to_torch


class Shape(NamedTuple):
    L: int
    D: int
    H: int
    I: int
    T: int
    B: int
    lengths: Any = "full"  # "full", "ragged", or the lengths

    def __str__(self):
        return f"L{self.L}-D{self.D}-H{self.H}-I{self.I}-T{self.T}-B{self.B}-{self.lengths}"


class Inputs(NamedTuple):
    """All that the functions of a network are called with."""

    params: tuple
    x: np.ndarray
    state: tuple
    lengths: np.ndarray | None
    grad_hs: np.ndarray
    grad_state: tuple


def draw(cell, shape, dtype=np.float64, seed=0, one_hot=None):
    """Return random Inputs; with `one_hot`, x is (T, B) of that integer type."""
    L, D, H, I, T, B, lengths = shape
    rng = np.random.default_rng([seed, L, D, H, I, T, B])

    def state():
        return tuple(
            tuple(cell.State(*(rng.uniform(-1, 1, (B, H)).astype(dtype) for _ in cell.State._fields)) for _ in range(D))
            for _ in range(L)
        )

    params = stack.init_params(cell, I, H, L, D == 2, rng=rng, dtype=dtype)
    x = rng.integers(I, size=(T, B), dtype=one_hot) if one_hot else rng.standard_normal((T, B, I)).astype(dtype)
    if isinstance(lengths, str):
        lengths = rng.integers(1, T, B, endpoint=True) if lengths == "ragged" else None
    return Inputs(params, x, state(), lengths, rng.standard_normal((T, B, D * H)).astype(dtype), state())


def arrays(result):
    """Return the arrays of an Output, Trace or Gradients by name, but for what the caller gave."""
    fields = {name: getattr(result, name, None) for name in ("hs", "params", "x", "state")}
    if hasattr(result, "initial"):
        fields["x"] = None
    fields = {name: value for name, value in fields.items() if value is not None}
    return {name: a for field, tree in fields.items() for name, a in named(tree, field).items()}


def in_torch(cell, inputs):
    """Return what PyTorch's module makes of float64 Inputs, forward and by autograd, by the names of `arrays`."""
    import torch
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

    params, x, state, lengths, grad_hs, grad_state = inputs
    L, D, H, I = len(params), len(params[0]), params[0][0].W.shape[1], params[0][0].U.shape[1]
    name = cell.__name__.split(".")[-1].upper()
    module = getattr(torch.nn, name)(I, H, num_layers=L, bidirectional=D == 2, dtype=torch.float64)
    module.load_state_dict({key: torch.from_numpy(a) for key, a in to_torch(params).items()})

    def stacked(tree):
        states = [one for layer in tree for one in layer]
        return [torch.tensor(np.stack(a), requires_grad=True) for a in zip(*states, strict=True)]

    data, first = torch.tensor(x, requires_grad=True), stacked(state)
    given = data
    if lengths is not None:
        given = pack_padded_sequence(data, torch.from_numpy(lengths), enforce_sorted=False)
    hs, last = module(given, tuple(first) if len(first) > 1 else first[0])
    if lengths is not None:
        hs, _ = pad_packed_sequence(hs, total_length=len(x))
    last = last if isinstance(last, tuple) else (last,)
    loss = (hs * torch.from_numpy(grad_hs)).sum()
    for a, grad in zip(last, stacked(grad_state), strict=True):
        loss = loss + (a * grad.detach()).sum()
    loss.backward()

    def states(tensors):
        kind = type(state[0][0])
        parts = [kind(*(a.detach().numpy()[q] for a in tensors)) for q in range(L * D)]
        return tuple(tuple(parts[l * D : (l + 1) * D]) for l in range(L))

    parameters = list(module.parameters())
    found = []
    for q, one in enumerate(one for layer in params for one in layer):
        U, W, b, inner = (p.grad.numpy() for p in parameters[4 * q : 4 * q + 4])
        found.append(type(one)(U, W, b, *([inner[2 * H :]] if hasattr(one, "c") else [])))
    gradients = stack.Gradients(
        tuple(tuple(found[l * D : (l + 1) * D]) for l in range(L)), data.grad.numpy(), states([a.grad for a in first])
    )
    return arrays(stack.Output(hs.detach().numpy(), states(last))), arrays(gradients)


def assert_equal_arrays(comp, ref, bound):
    """Assert that arrays by name differ by no more than `bound` of the largest number in each."""
    assert comp.keys() == ref.keys()
    for name, a in ref.items():
        assert comp[name].shape == a.shape, name
        error = np.abs(comp[name] - a).max()
        assert error <= bound * max(1, np.abs(a).max()), f"{name}: error {error:.1e}"
