"""JAX on the CPU: a jitted `lax.scan` over the steps, with the input projection as one product before it.

forward_step and forward take weights that were transposed once, which is faster here than a transpose in every step.
bptt is the compiled function that `jax.vjp` returned, the backward pass alone, on the residuals of one forward;
train is forward and vjp in one compiled function, with two sets of weights in turn, as they come: transposed ones
are slower there. Both return the gradients of the weights, x and the initial state. Every array lies on the device
before, each call waits for its results (`block_until_ready`), and these stay JAX's arrays. XLA's threads are fixed
at start, by the environment of the worker. float64 switches `jax_enable_x64` on. In bfloat16 U and W are rounded once,
what they are multiplied with as it comes, and products are summed in float32; everything else is float32. A stream is
the compiled step, to which the state is donated.

A network is one jitted function, with a scan for each layer and direction. Sequences of several lengths are masked in
the scan: behind a sequence's end its state stays, and hs is zero. The other direction is a scan from the last step to
the first, in which a sequence's state stays as it began until its own last step comes.
"""

from functools import partial
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version
from itertools import cycle

import numpy as np

from bench.grid.cases import STREAM
from bench.grid.inputs import over
from bench.implementations import Prepared, UnsupportedError, named, streaming


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

    if case.dtype == "int8":
        raise UnsupportedError("it has no recurrent layers, and no quantization of its own")
    jax.config.update("jax_enable_x64", case.dtype == "float64")
    ready = jax.block_until_ready
    step = {"rnn": partial(_rnn, case.activation), "gru": _gru, "lstm": _lstm}[case.cell]
    if case.network:
        return _network(case, inputs, step)
    x, state, grad_hs = jax.device_put((inputs.x, tuple(inputs.state), inputs.grad_hs))
    weights = tuple(inputs.params[0])
    transposed = jax.device_put(tuple(np.ascontiguousarray(a.T) for a in weights))
    if case.low:
        transposed = (*(a.astype(case.low) for a in transposed[:2]), *transposed[2:])
    names = [f"state.{field}" for field in inputs.state._fields]

    def states(last):
        return {name: np.asarray(part) for name, part in zip(names, last, strict=True)}

    def take(weights, x_t, state):
        return step(weights, _project(weights, x_t), state)

    if case.operation == STREAM:
        return _stream(take, transposed, list(x), tuple(inputs.state), lambda last: last[0], states)
    if case.operation == "forward_step":
        one, x_t = jax.jit(take), x[0]
        return Prepared(lambda: ready(one(transposed, x_t, state)), states)
    if case.operation == "forward":
        run = jax.jit(lambda weights, x, state: _run(step, weights, x, state))
        return Prepared(
            lambda: ready(run(transposed, x, state)), lambda result: {"hs": np.asarray(result[0])} | states(result[1])
        )

    def outputs(gradients):
        weights, x, state = gradients
        arrays = {f"params.{n}": np.asarray(a) for n, a in zip(inputs.params[0]._fields, weights, strict=True)}
        return arrays | {"x": np.asarray(x)} | states(state)

    def vjp(weights, x, state):
        """Return the function of dL/dhs that gives the gradients; it holds the residuals of a forward pass."""
        return jax.vjp(lambda weights, *data: _run(step, [a.T for a in weights], *data)[0], weights, x, state)[1]

    if case.operation == "bptt":
        residuals = jax.jit(vjp)(weights, x, state)
        backward = jax.jit(lambda residuals, grad_hs: residuals(grad_hs))
        return Prepared(lambda: ready(backward(residuals, grad_hs)), outputs)

    turns = cycle([jax.device_put(tuple(params)) for params in inputs.params])
    train = jax.jit(lambda weights, x, state, grad_hs: vjp(weights, x, state)(grad_hs))
    return Prepared(lambda: ready(train(next(turns), x, state, grad_hs)), outputs)


def _network(case, inputs, step):
    """Prepare a network."""
    import jax

    ready = jax.block_until_ready
    x, grad_hs = jax.device_put((inputs.x, inputs.grad_hs))
    sets, state = [_plain(params) for params in inputs.params], jax.device_put(_plain(inputs.state))
    transposed = jax.device_put(over(sets[0], lambda a: np.ascontiguousarray(a.T)))
    if case.low:
        transposed = tuple(
            tuple((*(a.astype(case.low) for a in one[:2]), *one[2:]) for one in layer) for layer in transposed
        )
    lengths, Params, State = inputs.lengths, type(inputs.params[0][0][0]), type(inputs.state[0][0])

    def arrays(tree, kind):
        return tuple(tuple(kind(*map(np.asarray, one)) for one in layer) for layer in tree)

    if case.operation == STREAM:

        def take(weights, x_t, state):
            return _stack(step, weights, x_t, state, None)[1]

        steps, first = [x[t : t + 1] for t in range(len(x))], _plain(inputs.state)
        return _stream(
            take,
            transposed,
            steps,
            first,
            lambda last: last[-1][0][0],
            lambda last: named(arrays(last, State), "state"),
        )
    if case.operation == "forward_step":
        x_t = x[:1]
        one = jax.jit(lambda weights, x_t, state: _stack(step, weights, x_t, state, None)[1])
        return Prepared(lambda: ready(one(transposed, x_t, state)), lambda last: named(arrays(last, State), "state"))
    if case.operation == "forward":
        run = jax.jit(lambda weights, x, state: _stack(step, weights, x, state, lengths))

        def outputs(result):
            hs, last = result
            return {"hs": np.asarray(hs)} | named(arrays(last, State), "state")

        return Prepared(lambda: ready(run(transposed, x, state)), outputs)

    def gradients(result):
        params, x, state = result
        return {"x": np.asarray(x)} | named(arrays(params, Params), "params") | named(arrays(state, State), "state")

    def vjp(weights, x, state):
        def hs(weights, *data):
            return _stack(step, jax.tree.map(lambda a: a.T, weights), *data, lengths)[0]

        return jax.vjp(hs, weights, x, state)[1]

    if case.operation == "bptt":
        residuals = jax.jit(vjp)(jax.device_put(sets[0]), x, state)
        backward = jax.jit(lambda residuals, grad_hs: residuals(grad_hs))
        return Prepared(lambda: ready(backward(residuals, grad_hs)), gradients)

    turns = cycle([jax.device_put(params) for params in sets])
    train = jax.jit(lambda weights, x, state, grad_hs: vjp(weights, x, state)(grad_hs))
    return Prepared(lambda: ready(train(next(turns), x, state, grad_hs)), gradients)


def _stream(take, weights, inputs, initial, h, named_last):
    """Prepare a stream whose state is donated: the next one takes its memory."""
    import jax

    one = jax.jit(take, donate_argnums=2)
    state = None

    def begin():
        nonlocal state
        state = jax.device_put(initial, may_alias=False)

    def step(x_t):
        nonlocal state
        state = jax.block_until_ready(one(weights, x_t, state))
        return state

    return streaming(begin, step, inputs, lambda last: np.asarray(h(last)), lambda: named_last(state))


def _plain(tree):
    """Return layers of directions of plain tuples."""
    return tuple(tuple(tuple(one) for one in layer) for layer in tree)


def _stack(step, weights, x, state, lengths):
    """Return hs of the last layer and the last states of a network."""
    import jax.numpy as jnp

    live = None if lengths is None else np.arange(len(x))[:, None] < lengths
    last = []
    for layer, before in zip(weights, state, strict=True):
        outputs, after = [], []
        for d, (one, start) in enumerate(zip(layer, before, strict=True)):
            hs, end = _run(step, one, x, start, live, reverse=d == 1)
            outputs.append(hs)
            after.append(end)
        x = jnp.concatenate(outputs, axis=-1)
        last.append(tuple(after))
    return x, tuple(last)


def _run(step, weights, x, state, live=None, reverse=False):
    """Return hs and the last state, from U (I, G H) and W (H, G H) transposed; `live` (T, B): what steps there are."""
    import jax.numpy as jnp
    from jax import lax

    def advance(state, projected):
        state = step(weights, projected, state)
        return state, state[0]

    def advance_live(before, given):
        projected, live = given
        after = tuple(
            jnp.where(live[:, None], a, b) for a, b in zip(step(weights, projected, before), before, strict=True)
        )
        return after, jnp.where(live[:, None], after[0], 0)

    projected = _project(weights, x)
    if live is None:
        state, hs = lax.scan(advance, state, projected, reverse=reverse)
    else:
        state, hs = lax.scan(advance_live, state, (projected, live), reverse=reverse)
    return hs, state


def _project(weights, x):
    U, _, b, *_ = weights
    return _product(x, U) + b


def _product(a, w):
    """Return a @ w; where w is bfloat16, a is rounded to it, and the sums are float32."""
    from jax import numpy as jnp

    return jnp.matmul(a.astype(w.dtype), w, preferred_element_type=a.dtype)


def _rnn(activation, weights, projected, state):
    from jax import nn

    return (getattr(nn, activation)(projected + _product(state[0], weights[1])),)


def _gru(weights, projected, state):
    import jax.numpy as jnp
    from jax.nn import sigmoid

    _, W, _, c = weights
    (h,) = state
    x_r, x_z, x_n = jnp.split(projected, 3, axis=-1)
    h_r, h_z, h_n = jnp.split(_product(h, W), 3, axis=-1)
    r, z = sigmoid(x_r + h_r), sigmoid(x_z + h_z)
    n = jnp.tanh(x_n + r * (h_n + c))
    return ((1 - z) * n + z * h,)


def _lstm(weights, projected, state):
    import jax.numpy as jnp
    from jax.nn import sigmoid

    h, c = state
    i, f, g, o = jnp.split(projected + _product(h, weights[1]), 4, axis=-1)
    c = sigmoid(f) * c + sigmoid(i) * jnp.tanh(g)
    return sigmoid(o) * jnp.tanh(c), c
