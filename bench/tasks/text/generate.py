"""Text from a model that has learned one: each character is drawn, and read as the next input."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.tasks.learning import checkpoint, forms
from bench.tasks.learning.model import Model
from bench.tasks.learning.network import Network
from bench.tasks.learning.weights import Weights, check, shapes

KIND = "text model"


@dataclass
class Kept:
    """What a file says of its weights; see `save`."""

    model: Model
    alphabet: str


def save(path: Path, model: Model, alphabet: str, weights: Weights) -> None:
    checkpoint.save(path, KIND, {"model": asdict(model), "alphabet": alphabet}, weights)


def load(path: Path) -> tuple[Model, str, Weights]:
    """Return a model that `save` has kept, its alphabet and its weights; a ChoiceError if the file is none."""
    about, weights = checkpoint.load(path, KIND)
    where = str(path)
    kept = forms.read(Kept, about, where)
    model, alphabet = kept.model, kept.alphabet
    size = len(alphabet)
    sizes = model.input_size, model.output_size, len({*alphabet})
    forms.expect(sizes == (size,) * 3, where, f"as many inputs and outputs as characters, {size}", sizes)
    forms.expect(not any("\ud800" <= c <= "\udfff" for c in alphabet), f"{where}: alphabet", "characters", alphabet)
    forms.expect(model.loss == "softmax", f"{where}: loss", "softmax", model.loss)
    check(weights, shapes(model), where)
    return model, alphabet, weights


def opening(alphabet: str) -> np.ndarray:
    """Return what a text begins after if nothing else is asked for, (1,): the end of a line."""
    return np.array([max(0, alphabet.find("\n"))])


def sample(
    network: Network, prepared: Any, seed_text: np.ndarray, temperature: float, rng: np.random.Generator
) -> Iterator[int]:
    """Read the indices `seed_text` (N,), then yield the indices of characters that follow, without end.

    The weights are `prepared` by the network.
    A character has the probability softmax(outputs / temperature); at the temperature 0 it is the likeliest one.
    """
    outputs, state = network.predict(prepared, seed_text[:, np.newaxis])
    outputs, step = outputs[-1], network.stream(prepared, state)
    while True:
        index = _draw(outputs[0], temperature, rng)
        yield index
        outputs = step(np.array([index]))


def _draw(outputs: np.ndarray, temperature: float, rng: np.random.Generator) -> int:
    """Return an index, from outputs (O,).

    With Gumbel noise added, the largest of some logarithms is a draw from their probabilities (Gumbel 1954).
    """
    if temperature == 0:
        return int(outputs.argmax())
    with np.errstate(over="ignore", invalid="ignore"):  # at a low temperature all but the likeliest may be -inf
        scores = np.subtract(outputs, outputs.max(), dtype=np.float64) / temperature
    return int((scores + rng.gumbel(size=len(scores))).argmax())
