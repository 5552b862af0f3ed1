"""JAX on the CPU: a jitted `lax.scan` over the steps, with the input projection as one product before it.

forward_step and forward take weights that were transposed once, which is faster here than a transpose in every step.
bptt is the compiled function that `jax.vjp` returned, the backward pass alone, on the residuals of one forward;
train is forward and vjp in one compiled function, with two sets of weights in turn, as they come: transposed ones
are slower there. Both return the gradients of U, W, b, x and the initial state. Every array lies on the device
before, each call waits for its results (`block_until_ready`), and these stay JAX's arrays. XLA's threads are fixed
at start, by the environment of the worker. float64 switches `jax_enable_x64` on.
"""

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version
from itertools import cycle

import numpy as np

from bench.implementations import Prepared, UnsupportedError


def version():
    try:
        return package_version("jax")
    except PackageNotFoundError:
        return None


def start(threads):
    import jax

    jax.devices()  # reads the environment and starts the thread pool


def prepare(case, inputs):
    import jax

    if case.cell != "rnn":
        raise UnsupportedError(f"no {case.cell} here yet")
    jax.config.update("jax_enable_x64", case.dtype == "float64")
    ready = jax.block_until_ready
    x, h, grad_hs = jax.device_put((inputs.x, inputs.state.h, inputs.grad_hs))
    U, W, b = inputs.params[0]
    transposed = jax.device_put((np.ascontiguousarray(U.T), np.ascontiguousarray(W.T), b))

    if case.operation == "forward_step":
        step, x_t = jax.jit(_step), x[0]
        return Prepared(lambda: ready(step(*transposed, x_t, h)), lambda h: {"state.h": np.asarray(h)})
    if case.operation == "forward":
        run = jax.jit(_run)
        return Prepared(
            lambda: ready(run(*transposed, x, h)),
            lambda result: {"hs": np.asarray(result[0]), "state.h": np.asarray(result[1])},
        )

    def outputs(gradients):
        return dict(zip(("params.U", "params.W", "params.b", "x", "state.h"), map(np.asarray, gradients), strict=True))

    if case.operation == "bptt":
        residuals = jax.jit(_backward)(U, W, b, x, h)
        backward = jax.jit(lambda residuals, grad_hs: residuals(grad_hs))
        return Prepared(lambda: ready(backward(residuals, grad_hs)), outputs)

    turns = cycle([jax.device_put(tuple(params)) for params in inputs.params])
    train = jax.jit(lambda U, W, b: _backward(U, W, b, x, h)(grad_hs))
    return Prepared(lambda: ready(train(*next(turns))), outputs)


def _step(U, W, b, x_t, h):
    import jax.numpy as jnp

    return jnp.tanh(x_t @ U + h @ W + b)


def _run(U, W, b, x, h):
    """Return hs and the last state, from U (I, H) and W (H, H) transposed."""
    import jax.numpy as jnp
    from jax import lax

    def step(h, projected):
        h = jnp.tanh(projected + h @ W)
        return h, h

    h, hs = lax.scan(step, h, x @ U + b)
    return hs, h


def _backward(U, W, b, x, h):
    """Return the function of dL/dhs that gives the gradients; it holds the residuals of a forward pass."""
    import jax

    _, backward = jax.vjp(lambda U, W, b, x, h: _run(U.T, W.T, b, x, h)[0], U, W, b, x, h)
    return backward
