"""The network learned with its weights in float32, and rounded: what it loses in bits, and gains in speed and size."""

import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import numba
import numpy as np

from bench.tasks.learning.network import DTYPES, Network
from bench.tasks.learning.training import threads
from bench.tasks.learning.weights import Weights
from bench.tasks.text import generate
from bench.tasks.text.training import Lesson, bits

READ = 32_000  # characters of the test text, at places spread over it, that are read in every dtype
TURNS, TURN = 21, 0.03  # each dtype writes in so many turns, of so many seconds
STEPS = 50  # characters over which the outputs are compared with the reference's
TOLERANCE = 1e-4  # of the largest output: far above float32's rounding, far below a wrong weight
NUMBER = {"float32": 4, "bfloat16": 2, "int8": 1}  # bytes


class Precision(NamedTuple):
    """The network in one dtype: U and W are rounded to it, the biases and the head stay float32."""

    dtype: str
    bits: float  # per character
    seconds: list[float]  # that a character took to write, by turn; none if the outputs are wrong
    difference: float  # largest, of the outputs from those of the reference rounded alike, by the largest output
    stored: int  # bytes of the weights, with a scale for each row of int8
    prepared: int  # bytes of the weights as they are laid out to compute with

    @property
    def characters_per_s(self) -> float | None:
        """How many characters are written in a second; None if the outputs are wrong."""
        return 1 / float(np.median(self.seconds)) if self.seconds else None


def measure(lesson: Lesson) -> list[Precision]:
    """Return the model shown in each dtype, as `generate` writes with it: by numba-simd, on one thread.

    The dtypes take turns at writing, after a first character that compiles. There are none of a training that diverged,
    and none where nothing is compiled.
    """
    if lesson.outcome == "diverged" or numba.config.DISABLE_JIT:  # type: ignore[attr-defined]
        return []
    network, weights, test = Network(lesson.model, "numba-simd"), lesson.weights(lesson.shown), lesson.corpus.test
    prepared = {dtype: network.prepare(weights, dtype) for dtype in DTYPES}
    first = generate.opening(lesson.corpus.alphabet)
    with threads(1):
        writers = {
            dtype: generate.sample(network, ours, first, 0.8, np.random.default_rng(lesson.settings.seed))
            for dtype, ours in prepared.items()
        }
        seconds = _turns(writers)
        apart = {dtype: _difference(network, prepared[dtype], weights, dtype, test[:STEPS]) for dtype in DTYPES}
        return [
            Precision(
                dtype,
                bits(network, ours, test, READ),
                seconds[dtype] if apart[dtype] <= TOLERANCE else [],
                apart[dtype],
                _stored(weights, dtype),
                network.nbytes(ours),
            )
            for dtype, ours in prepared.items()
        ]


def _turns(writers: dict[str, Iterator[int]]) -> dict[str, list[float]]:
    """Return the seconds that each writer took for a character, by turn."""
    seconds: dict[str, list[float]] = {name: [] for name in writers}
    for said in writers.values():
        next(said)
    for turn in range(TURNS):
        for name in writers if turn % 2 else reversed(writers):
            start, taken, written = time.perf_counter(), 0.0, 0
            while taken < TURN:
                next(writers[name])
                taken, written = time.perf_counter() - start, written + 1
            seconds[name].append(taken / written)
    return seconds


def _difference(network: Network, prepared: Any, weights: Weights, dtype: str, text: np.ndarray) -> float:
    """Return how far the outputs are from the reference's with the same rounding.

    The reference takes each step from the network's own state: one on the border of two steps of int8 may be rounded
    either way, and what follows would differ by a whole step.
    """
    reference = Network(network.model, "numpy")
    twin = reference.prepare(weights, dtype)
    state, apart, largest = network.predict(prepared, text[:1, np.newaxis])[1], 0.0, 0.0
    for index in text[1:]:
        expected, _ = reference.step(twin, np.array([index]), reference.state(network.named(state)))
        outputs, state = network.step(prepared, np.array([index]), state)
        apart, largest = max(apart, np.abs(outputs - expected).max()), max(largest, np.abs(expected).max())
    return float(apart / largest) if largest else float(apart)


def _stored(weights: Weights, dtype: str) -> int:
    matrices = [array for name, array in weights.items() if name[0] in "UW"]
    scales = 4 * sum(map(len, matrices)) if dtype == "int8" else 0
    rest = sum(array.nbytes for name, array in weights.items() if name[0] not in "UW")
    return NUMBER[dtype] * sum(matrix.size for matrix in matrices) + scales + rest
