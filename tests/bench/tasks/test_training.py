import os
import signal

import numpy as np
import pytest

from bench.cases import ChoiceError
from bench.tasks.sine import load
from bench.tasks.training import History, Learner, Settings, batches, choose, race


def trained(implementations, after_epoch=lambda epoch: None, **choices):
    learners = [Learner(name, Settings(**choices), load()) for name in implementations]
    return race(learners, after_epoch), learners


@pytest.mark.parametrize("activation", ["sigmoid", "tanh"])
def test_implementations_learn_the_same(activation):
    outcome, (numpy, simd) = trained(["numpy", "numba-simd"], activation=activation, epochs=4)
    assert outcome == "finished"
    assert numpy.history.train_rmse[-1] != numpy.history.train_rmse[0]
    np.testing.assert_allclose(simd.history.train_rmse, numpy.history.train_rmse, rtol=1e-4)
    np.testing.assert_allclose(simd.history.validation_rmse, numpy.history.validation_rmse, rtol=1e-4)
    assert len(simd.history.seconds) == 4
    assert min(simd.history.seconds) > 0


def test_same_seed_same_curve():
    curves = [trained(["numpy"], epochs=2, seed=seed)[1][0].history.train_rmse for seed in (1, 1, 2)]
    assert curves[0] == curves[1]
    assert curves[0] != curves[2]


def test_warming_up_trains_nothing():
    learner = Learner("numpy", Settings(), load())
    before = {name: a.copy() for name, a in learner.weights.items()}
    learner.warm_up()
    for name, a in before.items():
        np.testing.assert_array_equal(learner.weights[name], a)
    assert len(learner.history.train_rmse) == 1


def test_batches_hold_every_record_once():
    train = load().train
    shared = batches(train, 30, np.random.default_rng(0))
    assert [len(y) for _, y in shared] == [30, 30, 30, 10]
    assert sorted(np.concatenate([y for _, y in shared]).ravel()) == sorted(train.y.ravel())
    for x, y in shared:
        assert x.flags.c_contiguous
        for record in range(len(y)):
            found = np.flatnonzero(train.y.ravel() == y[record])
            assert any(np.array_equal(train.x[:, n], x[:, record]) for n in found)


def test_ctrl_c_ends_after_the_epoch_in_work():
    def press(epoch):
        if epoch == 2:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    outcome, (a, b) = trained(["numpy", "numpy"], press, epochs=50, hidden=4)
    assert outcome == "interrupted"
    assert len(a.history.seconds) == len(b.history.seconds) < 5
    assert signal.getsignal(signal.SIGINT) is before


def test_a_training_that_diverges_ends():
    outcome, (learner,) = trained(["numpy"], epochs=50, hidden=4, optimizer="sgd", learning_rate=1e30, clip=1e30)
    assert outcome == "diverged"
    assert len(learner.history.seconds) < 50


def test_history_knows_when_the_goal_was_met():
    history = History(seconds=[1, 2, 4], validation_rmse=[0.7, 0.1, 0.02, 0.05])
    assert history.epochs_to(0.02) == 2
    assert history.seconds_to(0.02) == 3
    assert history.epochs_to(0.01) is None
    assert history.seconds_to(0.01) is None


def test_settings_are_read_from_texts():
    assert choose(Settings(), hidden="8", clip="2", optimizer="sgd", seed=None) == Settings(
        hidden=8, clip=2.0, optimizer="sgd"
    )


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"activation": "relu"}, "--activation: expected sigmoid or tanh, got 'relu'"),
        ({"optimizer": "lion"}, "--optimizer: expected sgd or adagrad or adam, got 'lion'"),
        ({"hidden": "0"}, "--hidden: expected a whole number of 1 or more, got 0"),
        ({"epochs": "-1"}, "--epochs: expected a whole number of 1 or more, got -1"),
        ({"truncate": "-1"}, "--truncate: expected a whole number of 0 or more, got -1"),
        ({"learning_rate": "nan"}, "--learning-rate: expected a number above 0, got nan"),
        ({"clip": "0"}, "--clip: expected a number above 0, got 0.0"),
        ({"clip": "much"}, "--clip: expected a number, got 'much'"),
        ({"batch": "1.5"}, "--batch: expected a whole number, got '1.5'"),
    ],
)
def test_bad_settings(choice, message):
    with pytest.raises(ChoiceError) as caught:
        choose(Settings(), **choice)
    assert str(caught.value) == message
