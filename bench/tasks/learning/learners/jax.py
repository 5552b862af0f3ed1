"""JAX: the whole step, from the batch to the new weights, in one compiled function.

The gradients are `jax.value_and_grad`'s. The loop over time is `lax.scan`, one for each layer and direction, with the
input projection as one product before it; a one-hot input takes columns of U instead. The losses stay on the device
until the last batch is done.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from bench.tasks.learning.model import Batch, Model
from bench.tasks.learning.optimizers import SLOTS, Optimizer
from bench.tasks.learning.weights import Weights


def make(model: Model, optimizer: Optimizer, weights: Weights) -> "JaxLearner":
    jax.config.update("jax_enable_x64", weights["W"].dtype == np.float64)
    return JaxLearner(model, optimizer, weights)


class JaxLearner:
    def __init__(self, model: Model, optimizer: Optimizer, weights: Weights):
        self.model = model
        self.optimizer = optimizer
        self.steps = 0
        self.state: Any = None  # of each layer and direction, a tuple
        self._weights = {name: jnp.array(a) for name, a in weights.items()}
        names = model.weight_names
        self._slots = {s: {name: jnp.zeros_like(self._weights[name]) for name in names} for s in SLOTS[optimizer.name]}

    def learn(self, batches: Iterable[Batch]) -> list[float]:
        losses = []
        for x, y, fresh in batches:
            state = self._zero_state(x.shape[1]) if fresh or self.state is None else self.state
            self.steps += 1
            self._weights, self._slots, self.state, loss = _step(
                self.model, self.optimizer, self._weights, self._slots, np.float32(self.steps), x, y, state
            )
            losses.append(loss)
        return [float(loss) for loss in losses]

    def _zero_state(self, B):
        zero = np.zeros((B, self.model.hidden_size), self._weights["W"].dtype)
        return ((zero, zero) if self.model.cell == "lstm" else (zero,),) * len(self.model.chains)

    def weights(self) -> Weights:
        return {name: np.array(a) for name, a in self._weights.items()}

    def arrays(self) -> dict[str, np.ndarray]:
        arrays = {"steps": np.array(self.steps)}
        for part, named in {"weights": self._weights, **self._slots}.items():
            arrays |= {f"{part}.{name}": np.array(a) for name, a in named.items()}
        if self.state is not None:
            for chain, state in zip(self.model.chains, self.state, strict=True):
                arrays |= {f"state.{name}{chain}": np.array(a) for name, a in zip("hc", state, strict=False)}
        return arrays

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        self.steps = int(arrays["steps"])
        self._weights = {name: jnp.array(arrays[f"weights.{name}"]) for name in self._weights}
        self._slots = {
            slot: {name: jnp.array(arrays[f"{slot}.{name}"]) for name in named} for slot, named in self._slots.items()
        }
        fields = [name for name in "hc" if f"state.{name}" in arrays]
        states = (tuple(jnp.array(arrays[f"state.{name}{chain}"]) for name in fields) for chain in self.model.chains)
        self.state = tuple(states) if fields else None


@partial(jax.jit, static_argnums=(0, 1), donate_argnums=(2, 3))
def _step(model, optimizer, weights, slots, steps, x, y, state):
    """Return the new weights, slots and state, and the loss before the step."""
    learning = {name: weights[name] for name in model.weight_names}
    (loss, state), gradients = jax.value_and_grad(
        lambda learning: _loss(model, weights | learning, x, y, state), has_aux=True
    )(learning)
    if optimizer.clip is not None:
        gradients = {name: jnp.clip(g, -optimizer.clip, optimizer.clip) for name, g in gradients.items()}
    if optimizer.clip_norm is not None:
        norm = jnp.sqrt(sum(jnp.vdot(g, g) for g in gradients.values()))
        scale = jnp.minimum(1, optimizer.clip_norm / norm)
        gradients = {name: g * scale for name, g in gradients.items()}
    stepped, slots = _update(optimizer, learning, gradients, slots, steps)
    return weights | stepped, slots, state, loss


def _loss(model, weights, x, y, state):
    if model.truncate is not None and model.truncate + 1 < len(x):
        state, _ = _run(model, weights, x[: -model.truncate - 1], state)
        state = lax.stop_gradient(state)  # the loss sees the last state alone, so no gradient goes further back
        x = x[-model.truncate - 1 :]
    state, hs = _run(model, weights, x, state)
    if model.loss == "last":
        hs = jnp.concatenate([last[0] for last in state[-model.directions :]], axis=-1)
    outputs = hs @ weights["V"].T + weights["d"]
    if model.loss == "softmax":
        loss = -jnp.take_along_axis(jax.nn.log_softmax(outputs), y[..., None], axis=-1).mean()
    else:
        loss = 0.5 * jnp.square(outputs - y).sum(axis=-1).mean()
    return loss, state


def _run(model, weights, x, state):
    """Return the last states, a tuple for each layer and direction, and hs (T, B, D H)."""
    D, last = model.directions, []
    for begin in range(0, len(state), D):
        sides = []
        for q in range(begin, begin + D):
            own, hs = _scan(model, weights, model.chains[q], x, state[q], q > begin)
            last.append(own)
            sides.append(hs)
        x = jnp.concatenate(sides, axis=-1)
    return tuple(last), x


def _scan(model, weights, chain, x, state, reverse):
    """Return the last state of a layer's direction, a tuple, and hs (T, B, H)."""
    columns = weights[f"U{chain}"].T
    inputs = (columns[x] if x.ndim == 2 else x @ columns) + weights[f"b{chain}"]
    W = weights[f"W{chain}"].T

    def rnn(state, a):
        h = (jnp.tanh if model.activation == "tanh" else jax.nn.sigmoid)(a + state[0] @ W)
        return (h,), h

    def gru(state, a):
        (h,) = state
        a_r, a_z, a_n = jnp.split(a, 3, axis=-1)
        r, z, n = jnp.split(h @ W, 3, axis=-1)
        r, z = jax.nn.sigmoid(a_r + r), jax.nn.sigmoid(a_z + z)
        n = jnp.tanh(a_n + r * (n + weights[f"c{chain}"]))
        h = (1 - z) * n + z * h
        return (h,), h

    def lstm(state, a):
        h, c = state
        i, f, g, o = jnp.split(a + h @ W, 4, axis=-1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), h

    return lax.scan({"rnn": rnn, "gru": gru, "lstm": lstm}[model.cell], state, inputs, reverse=reverse)


def _update(optimizer, weights, gradients, slots, steps):
    """Return the weights that learn and the slots after a step: the formulas of `bench.tasks.learning.optimizers`."""
    names, rate = gradients.keys(), optimizer.learning_rate
    if optimizer.name == "sgd":
        return {name: weights[name] - rate * gradients[name] for name in names}, slots
    if optimizer.name == "adagrad":
        square = {name: slots["square"][name] + jnp.square(gradients[name]) for name in names}
        stepped = {name: weights[name] - rate * gradients[name] / (jnp.sqrt(square[name]) + 1e-10) for name in names}
        return stepped, {"square": square}
    mean = {name: 0.9 * slots["mean"][name] + 0.1 * gradients[name] for name in names}
    square = {name: 0.999 * slots["square"][name] + 0.001 * jnp.square(gradients[name]) for name in names}
    rate = rate / (1 - 0.9**steps)
    share = 1 - 0.999**steps
    stepped = {name: weights[name] - rate * mean[name] / (jnp.sqrt(square[name] / share) + 1e-8) for name in names}
    return stepped, {"mean": mean, "square": square}
