"""PyTorch, eager: `nn.RNN`, `nn.GRU` or `nn.LSTM`, `nn.functional.linear`, autograd and `torch.optim`.

A one-hot input is made dense, as `torch.nn`'s cells want it. PyTorch has two biases for each gate: those that our cells
have not got are zero and stay so.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from bench.tasks.learning.model import Batch, Model
from bench.tasks.learning.optimizers import SLOTS, Optimizer
from bench.tasks.learning.weights import Weights

MODULES = {"rnn": torch.nn.RNN, "gru": torch.nn.GRU, "lstm": torch.nn.LSTM}
OPTIMIZERS = {"sgd": torch.optim.SGD, "adagrad": torch.optim.Adagrad, "adam": torch.optim.Adam}
MEMORIES = {"adagrad": {"square": "sum"}, "adam": {"mean": "exp_avg", "square": "exp_avg_sq"}}  # PyTorch's names


def make(model: Model, optimizer: Optimizer, weights: Weights) -> "TorchLearner":
    return TorchLearner(model, optimizer, weights)


class TorchLearner:
    def __init__(self, model: Model, optimizer: Optimizer, weights: Weights):
        self.model = model
        self.settings = optimizer
        self.steps = 0
        self.state: Any = None  # (L D, B, H), or a pair of them
        dtype = torch.from_numpy(weights["W"]).dtype
        self.rnn = MODULES[model.cell](
            model.input_size, model.hidden_size, model.layers, bidirectional=model.directions > 1, dtype=dtype
        )
        self.parameters = self._parameters(weights)
        learning = [self.parameters[name] for name in model.weight_names]
        self.optimizer = OPTIMIZERS[optimizer.name](learning, lr=optimizer.learning_rate)

    def _parameters(self, weights):
        """Return our weights by name, as the module's own parameters where it has them."""
        rnn, H = self.rnn, self.model.hidden_size
        named = {name: torch.nn.Parameter(torch.from_numpy(weights[name].copy())) for name in ("V", "d")}
        for chain in self.model.chains:
            theirs = {"U": "weight_ih", "W": "weight_hh", "b": "bias_ih", "c": "bias_hh"}
            own = {name: getattr(rnn, f"{their}{chain or '_l0'}") for name, their in theirs.items()}
            second = own.pop("c")
            with torch.no_grad():
                second.zero_()
            if self.model.cell == "gru":  # the bias inside the reset product is the last third of its second bias
                own["c"] = second
                second.register_hook(lambda grad: torch.cat((torch.zeros_like(grad[: 2 * H]), grad[2 * H :])))
            named |= {name + chain: parameter for name, parameter in own.items()}
        for parameter in rnn.parameters():
            parameter.requires_grad_(False)
        for name, parameter in named.items():
            parameter.requires_grad_(name in self.model.weight_names)
            with torch.no_grad():
                self._own(name, parameter).copy_(torch.from_numpy(weights[name]))
        return named

    def _own(self, name, parameter):
        """Return the part of a parameter, or of a tensor like it, that is our weight `name`."""
        return parameter[2 * self.model.hidden_size :] if name.startswith("c") else parameter

    def learn(self, batches: Iterable[Batch]) -> list[float]:
        losses = []
        limits = list(self.parameters.values())
        for batch in batches:
            self.optimizer.zero_grad()
            loss = self._loss(batch)
            loss.backward()
            if self.settings.clip is not None:
                torch.nn.utils.clip_grad_value_(limits, self.settings.clip)
            if self.settings.clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(limits, self.settings.clip_norm)
            self.optimizer.step()
            self.steps += 1
            losses.append(loss.item())
        return losses

    def _loss(self, batch):
        x, y = torch.from_numpy(batch.x), torch.from_numpy(batch.y)
        if x.ndim == 2:
            x = functional.one_hot(x.long(), self.model.input_size).to(self.rnn.weight_ih_l0.dtype)
        state = None if batch.fresh else self.state
        if self.model.truncate is not None and self.model.truncate + 1 < len(x):
            with torch.no_grad():  # the loss sees the last state alone, so no gradient goes further back
                _, state = self.rnn(x[: -self.model.truncate - 1], state)
            x = x[-self.model.truncate - 1 :]
        hs, state = self.rnn(x, state)
        self.state = tuple(part.detach() for part in state) if isinstance(state, tuple) else state.detach()
        if self.model.loss == "last":
            H = self.model.hidden_size
            hs = torch.cat((hs[-1, :, :H], hs[0, :, H:]), -1) if self.model.directions > 1 else hs[-1]
        outputs = functional.linear(hs, *self._head())
        if self.model.loss == "softmax":
            return functional.cross_entropy(outputs.flatten(0, 1), y.flatten().long())
        return 0.5 * (outputs - y).square().sum(-1).mean()

    def _head(self):
        return self.parameters["V"], self.parameters["d"]

    def weights(self) -> Weights:
        return {name: self._own(name, a).detach().numpy().copy() for name, a in self.parameters.items()}

    def _slots(self):
        """Return what the optimizer remembers by our names, as tensors that can be written to."""
        for slot in SLOTS[self.settings.name]:
            for name in self.model.weight_names:
                memory = self.optimizer.state[self.parameters[name]].get(MEMORIES[self.settings.name][slot])
                if memory is not None:
                    yield f"{slot}.{name}", self._own(name, memory)

    def arrays(self) -> dict[str, np.ndarray]:
        arrays = {"steps": np.array(self.steps)}
        arrays |= {f"weights.{name}": a for name, a in self.weights().items()}
        arrays |= {name: memory.numpy().copy() for name, memory in self._slots()}
        if self.state is not None:
            parts = self.state if isinstance(self.state, tuple) else (self.state,)
            for name, part in zip("hc", parts, strict=False):
                own = zip(self.model.chains, part, strict=True)
                arrays |= {f"state.{name}{chain}": a.numpy().copy() for chain, a in own}
        return arrays

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        self.steps = int(arrays["steps"])
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                self._own(name, parameter).copy_(torch.from_numpy(arrays[f"weights.{name}"]))
        if SLOTS[self.settings.name]:
            for name in self.model.weight_names:
                parameter = self.parameters[name]
                state = {"step": torch.tensor(float(self.steps))}
                for slot in SLOTS[self.settings.name]:
                    memory = torch.zeros_like(parameter, requires_grad=False)
                    self._own(name, memory).copy_(torch.from_numpy(arrays[f"{slot}.{name}"]))
                    state[MEMORIES[self.settings.name][slot]] = memory
                self.optimizer.state[parameter] = state
        parts = [
            torch.from_numpy(np.stack([arrays[f"state.{name}{chain}"] for chain in self.model.chains]))
            for name in "hc"
            if f"state.{name}" in arrays
        ]
        self.state = None if not parts else tuple(parts) if len(parts) > 1 else parts[0]
