"""A cell from its equations, its function run on arrays of JAX and of PyTorch, which differentiate it themselves."""

from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np

from reference.equations import register_arrays

SAME = ("tanh", "exp", "log", "sqrt", "abs", "where")  # names that both libraries have


def over(tree, change):
    """Return nested tuples again, what they hold passed through `change`."""
    if not isinstance(tree, tuple):
        return change(tree)
    parts = [over(part, change) for part in tree]
    return type(tree)(*parts) if hasattr(tree, "_fields") else tuple(parts)


@contextmanager
def float64():
    """Let JAX have float64."""
    import jax

    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", before)


def teach_jax():
    import jax
    from jax import numpy as jnp

    def layer_norm(a):
        return (a - a.mean(-1, keepdims=True)) / jnp.sqrt(a.var(-1, keepdims=True) + 1e-5)

    functions = {name: getattr(jax.nn, name) for name in ("sigmoid", "relu", "softplus")}
    functions |= {name: getattr(jnp, name) for name in (*SAME, "maximum", "minimum")}
    # Its own derivative at 0 is 1 (JAX 0.10), where relu's is 0.
    functions["abs"] = lambda a: jnp.where(a == 0, 0.0, jnp.abs(a))
    register_arrays(jax.Array, SimpleNamespace(**functions, layer_norm=layer_norm))


def teach_torch():
    import torch

    def layer_norm(a):
        return torch.nn.functional.layer_norm(a, a.shape[-1:], eps=1e-5)

    def pair(function):
        return lambda a, b: function(
            *(c if torch.is_tensor(c) else torch.tensor(c, dtype=torch.float64) for c in (a, b))
        )

    functions = {name: getattr(torch, name) for name in ("sigmoid", "relu", *SAME)}
    functions |= {name: pair(getattr(torch, name)) for name in ("maximum", "minimum")}
    softplus = lambda a: torch.logaddexp(a, torch.zeros_like(a))  # noqa: E731 (its own is linear far out)
    register_arrays(torch.Tensor, SimpleNamespace(**functions, softplus=softplus, layer_norm=layer_norm))


def in_jax(cell, inputs):
    """Return the Output and the Gradients of float64 Inputs by `jax.vjp`; the function itself runs on JAX's arrays."""
    import jax
    from jax import numpy as jnp

    def run(params, x, state):
        hs = []
        for x_t in x:
            state = cell.step(params, x_t @ params.U.T + params.b, state)
            hs.append(state[0])
        return jnp.stack(hs), state

    teach_jax()
    with float64():
        given = over((inputs.params, inputs.x, inputs.state), jnp.asarray)
        (hs, last), back = jax.vjp(run, *given)
        grad_state = over(inputs.grad_state, jnp.asarray)
        gradients = back((jnp.asarray(inputs.grad_hs), grad_state))
    return over(cell.Output(hs, last), np.asarray), over(cell.Gradients(*gradients), np.asarray)


def in_torch(cell, inputs):
    """Return the Gradients of float64 Inputs by `torch.autograd`; the function itself runs on PyTorch's tensors."""
    import torch

    teach_torch()
    params, x, state = over(inputs[:3], lambda a: torch.tensor(a, requires_grad=True))
    after, hs = state, []
    for x_t in x:
        after = cell.step(params, x_t @ params.U.T + params.b, after)
        hs.append(after[0])
    outputs, grads = (torch.stack(hs), *after), (inputs.grad_hs, *inputs.grad_state)
    # A state that is handed on untouched is an output without a graph of its own.
    torch.autograd.backward([a + 0 for a in outputs], [torch.from_numpy(g) for g in grads])
    gradients = cell.Gradients(params, x, state)
    return over(gradients, lambda a: np.zeros(a.shape) if a.grad is None else a.grad.numpy())
