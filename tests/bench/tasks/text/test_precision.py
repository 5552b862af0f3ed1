from dataclasses import replace

import numpy as np
import pytest

from bench.tasks.learning.model import CELLS
from bench.tasks.text import page, precision
from bench.tasks.text.data import split
from bench.tasks.text.training import Bounds, Lesson, Settings

SETTINGS = Settings(hidden=24, seq_len=8, batch=8, learning_rate=0.02)


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(precision, "TURN", 0.001)


def trained(steps, settings=SETTINGS) -> Lesson:
    words = np.random.default_rng(0).choice(["alpha\n", "beta ", "gamma ", "delta "], 3000)
    lesson = Lesson(split("words", "".join(words)), settings, ["numpy"])
    lesson.train(Bounds(steps=steps))
    return lesson


@pytest.mark.parametrize("cell", CELLS)
def test_rounded_weights_lose_few_bits_and_take_less_room(cell):
    """Where a loss is least its slope is zero, so that what rounding does to the outputs enters squared.

    int8 rounds a weight by up to 0.4 % of the largest of its row and a state by up to 0.4 % of 1, bfloat16 both by up
    to 0.2 % of themselves. Even an output that is off by 0.1 costs no more than about 0.1²/2 nats, 0.007 bits of 0.35:
    2 %. So int8 gets 3 %, for a slope that is not quite zero, and bfloat16, whose errors are a half or less and cost a
    quarter, 1 %.
    """
    lesson = trained(200, replace(SETTINGS, cell=cell))
    full, half, quarter = found = precision.measure(lesson)
    assert [one.dtype for one in found] == ["float32", "bfloat16", "int8"]
    assert full.bits == pytest.approx(lesson.judge()["test"], rel=1e-5), "a short text is read as a whole"
    assert full.bits < lesson.baselines["test"]["unigram"] - 1, "it has learned something that can be lost"
    assert half.bits == pytest.approx(full.bits, rel=0.01)
    assert quarter.bits == pytest.approx(full.bits, rel=0.03)
    assert len({one.bits for one in found}) == 3, "they are rounded"
    assert all(len(one.seconds) == precision.TURNS and min(one.seconds) > 0 for one in found)

    weights = lesson.weights("numpy")
    rows, matrices = len(weights["U"]), weights["U"].size + weights["W"].size
    rest = sum(a.nbytes for name, a in weights.items() if name not in "UW")
    assert [one.stored - rest for one in found] == [4 * matrices, 2 * matrices, matrices + 2 * 4 * rows]
    assert full.prepared > half.prepared > quarter.prepared


def test_a_dtype_that_differs_from_the_reference_is_called_wrong_and_has_no_speed(monkeypatch):
    lesson = trained(10)
    assert all(one.seconds for one in precision.measure(lesson))
    prepare = precision.Network.prepare

    def wrong(network, weights, dtype="float32"):
        off = 1.01 if dtype == "int8" and network._one.__name__.startswith("kernels") else 1
        return prepare(network, weights | {"W": weights["W"] * np.float32(off)}, dtype)

    monkeypatch.setattr(precision.Network, "prepare", wrong)
    found = precision.measure(lesson)
    assert [bool(one.seconds) for one in found] == [True, True, False]
    assert found[2].characters_per_s is None
    assert " and (wrongly) characters a second" in page.summary(lesson, lesson.judge(), found)[-1]
    assert "wrong" in page._precisions(lesson, found)


def test_a_training_that_diverged_has_none():
    lesson = trained(20, replace(SETTINGS, optimizer="sgd", learning_rate=1e30))
    assert lesson.outcome == "diverged"
    assert precision.measure(lesson) == []
