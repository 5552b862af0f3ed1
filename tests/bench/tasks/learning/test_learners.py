import numpy as np
import pytest

from bench.grid.cases import ChoiceError
from bench.tasks.learning.learners import IMPLEMENTATIONS, check, make, obstacle
from bench.tasks.learning.model import CELLS
from bench.tasks.learning.optimizers import Optimizer
from tests.bench.tasks.learning.examples import example
from tests.bench.tasks.learning.test_network import NETWORKS, there

OPTIMIZERS = [
    Optimizer("sgd", 0.1),
    Optimizer("adagrad", 0.1, clip=0.02),
    Optimizer("adam", 0.01, clip=0.05, clip_norm=0.1),
]
OTHERS = [pytest.param(name, marks=pytest.mark.slow) if name == "numba-jit" else name for name in IMPLEMENTATIONS[1:]]


def skip_absent(implementation, cell):
    there("numpy", cell)
    if reason := obstacle(implementation):
        pytest.skip(f"{implementation}: {reason}")
    if implementation.startswith("numba"):
        there(implementation, cell)


LOSSES = {"last": {"truncate": 3}, "every": {}, "softmax": {"one_hot": True, "I": 4}}
QUICK = {"rnn": "last", "gru": "every", "lstm": "softmax"}  # what is compiled for each cell when time is short


@pytest.mark.parametrize(
    ("cell", "loss"),
    [
        pytest.param(cell, loss, marks=[] if loss == QUICK[cell] else pytest.mark.slow)
        for cell in CELLS
        for loss in LOSSES
    ],
)
@pytest.mark.parametrize("implementation", OTHERS)
def test_first_losses_agree(implementation, cell, loss):
    """In float32, as they race: a dozen steps, half of them from the state of the batch before."""
    skip_absent(implementation, cell)
    model, weights, batches = example(cell, loss, np.float32, **LOSSES[loss])
    optimizer = OPTIMIZERS[list(LOSSES).index(loss)]
    ref, comp = (make(name, model, optimizer, weights) for name in ("numpy", implementation))
    expected, found = ref.learn(batches * 6), comp.learn(batches * 6)
    assert expected[-1] < expected[1], "nothing learned proves nothing"
    np.testing.assert_allclose(found, expected, rtol=2e-5)
    for name, weight in ref.weights().items():
        np.testing.assert_allclose(comp.weights()[name], weight, rtol=1e-3, atol=1e-5, err_msg=name)


@pytest.mark.parametrize(("cell", "loss", "choices"), NETWORKS)
@pytest.mark.parametrize("implementation", OTHERS)
def test_networks_learn_alike(implementation, cell, loss, choices):
    """The second half of the steps by a learner that took over from the reference, states and all."""
    skip_absent(implementation, cell)
    model, weights, batches = example(cell, loss, np.float32, **choices)
    batches[1] = batches[1]._replace(fresh=model.directions > 1)  # the backward one has nothing to go on from
    ref, comp = (make(name, model, OPTIMIZERS[2], weights) for name in ("numpy", implementation))
    expected = ref.learn(batches * 3)
    np.testing.assert_allclose(comp.learn(batches * 3), expected, rtol=2e-5)
    assert set(comp.arrays()) == set(ref.arrays())
    follower = make(implementation, model, OPTIMIZERS[2], weights)
    follower.restore(ref.arrays())
    expected = ref.learn(batches[1:] * 6)
    assert expected[-1] < expected[0], "nothing learned proves nothing"
    np.testing.assert_allclose(follower.learn(batches[1:] * 6), expected, rtol=2e-5)
    for name, weight in ref.weights().items():
        np.testing.assert_allclose(follower.weights()[name], weight, rtol=1e-3, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("implementation", OTHERS)
def test_without_biases_they_stay(implementation):
    skip_absent(implementation, "rnn")
    model, weights, batches = example(dtype=np.float32, bias=False)
    learner = make(implementation, model, OPTIMIZERS[0], weights)
    learner.learn(batches)
    for name, a in learner.weights().items():
        assert np.array_equal(a, weights[name]) == (name in "bd"), name


@pytest.mark.parametrize("implementation", ["numpy", *OTHERS])
def test_going_on_gives_the_same_losses(implementation):
    skip_absent(implementation, "lstm")
    model, weights, batches = example("lstm", "softmax", np.float32)
    whole = make(implementation, model, OPTIMIZERS[2], weights)
    first = whole.learn(batches * 2)
    kept = whole.arrays()
    second = whole.learn(batches[1:] * 3)
    resumed = make(implementation, model, OPTIMIZERS[2], weights)
    resumed.restore(kept)
    assert resumed.learn(batches[1:] * 3) == second
    assert len(first) == 4
    assert set(kept) >= {"steps", "weights.U", "mean.V", "square.d", "state.h", "state.c"}


def test_an_unknown_implementation():
    model, weights, _ = example()
    with pytest.raises(
        ChoiceError, match=r"^--implementation: expected numpy, numba-jit, numba-simd, torch, jax, got 'nump'$"
    ):
        make("nump", model, OPTIMIZERS[0], weights)


@pytest.mark.parametrize("implementation", ["numba-jit", "numba-simd"])
def test_what_is_not_compiled_does_not_race_under_the_name_of_what_is(monkeypatch, implementation):
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    assert obstacle("numpy") is None
    with pytest.raises(ChoiceError, match=rf"{implementation} cannot take part: NUMBA_DISABLE_JIT is set: nothing is"):
        check(implementation)
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "0")
    check(implementation)


def test_torch_has_no_sigmoid():
    model, weights, _ = example(activation="sigmoid")
    with pytest.raises(
        ChoiceError, match=r"^--implementation: torch cannot take part: (its RNN has no sigmoid|not in)"
    ):
        make("torch", model, OPTIMIZERS[0], weights)
