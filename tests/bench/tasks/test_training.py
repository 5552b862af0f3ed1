import math
import os
import signal

import numpy as np
import pytest

from bench.cases import ChoiceError
from bench.tasks.learners.apart import Apart
from bench.tasks.sine import Sine
from bench.tasks.training import History, Race, Settings, choose


def trained(implementations, watch=lambda seed, epoch: None, **choices):
    race = Race(Sine(Settings(**{"seeds": 1, **choices})), implementations)
    race.run(watch)
    return race


def test_a_race_over_seeds():
    seen = []
    race = trained(["numpy", "numba-simd"], lambda *at: seen.append(at), epochs=4, seeds=2)
    assert race.outcome == "finished"
    assert seen == [(0, 0), *((seed, epoch) for seed in (0, 1) for epoch in (1, 2, 3, 4))]
    for seed in (0, 1):
        numpy, simd = (race.histories[name][seed] for name in race.implementations)
        assert numpy.train[-1] != numpy.train[0]
        np.testing.assert_allclose(simd.train, numpy.train, rtol=1e-4)
        np.testing.assert_allclose(simd.validation, numpy.validation, rtol=1e-4)
        assert len(simd.seconds) == 4
        assert min(simd.seconds) > 0
    first, second = race.histories["numpy"]
    assert first.train != second.train
    x, y = race.course.data.validation
    assert race.course.error(race.predict("numpy", x), y) == pytest.approx(first.validation[-1], rel=1e-6)


def test_same_seed_same_curve():
    curves = [trained(["numpy"], epochs=2, seed=seed).history("numpy").train for seed in (1, 1, 2)]
    assert curves[0] == curves[1]
    assert curves[0] != curves[2]


def test_batches_hold_every_record_once():
    course = Sine(Settings(batch=30))
    train = course.data.train
    shared = course.batches(np.random.default_rng(0))
    assert [len(y) for _, y, _ in shared] == [30, 30, 30, 10]
    assert sorted(np.concatenate([y for _, y, _ in shared]).ravel()) == sorted(train.y.ravel())
    for x, y, fresh in shared:
        assert fresh
        assert x.flags.c_contiguous
        for record in range(len(y)):
            found = np.flatnonzero(train.y.ravel() == y[record])
            assert any(np.array_equal(train.x[:, n], x[:, record]) for n in found)


def test_ctrl_c_ends_after_the_epoch_in_work():
    def press(seed, epoch):
        if (seed, epoch) == (1, 2):
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    race = trained(["numpy"], press, epochs=5, hidden=4, seeds=3)
    assert race.outcome == "interrupted"
    assert [len(history.seconds) for history in race.histories["numpy"]] == [5], "the second seed was not done"
    assert signal.getsignal(signal.SIGINT) is before


def test_a_training_that_diverges_ends():
    race = trained(["numpy"], epochs=50, hidden=4, optimizer="sgd", learning_rate=1e30)
    assert race.outcome == "diverged"
    assert len(race.history("numpy").seconds) < 50


def test_history_knows_when_the_goal_was_met():
    history = History(seconds=[1, 2, 4], train=[0.6, 0.6, 0.6, 0.01], validation=[0.7, 0.1, 0.02, 0.05])
    assert history.epochs_to(0.02) == 2
    assert history.seconds_to(0.02) == 3
    assert history.seconds_to(0.02, "train") == 7
    assert history.epochs_to(0.01) is None
    assert history.seconds_to(0.01) is None


def test_a_learner_apart_tells_of_its_death():
    learner = Apart("numpy")
    learner._process.kill()
    with pytest.raises(Exception, match=r"^numpy: its process ended with code -9$"):
        learner.weights()
    learner.close()


def test_settings_are_read_from_texts():
    assert choose(Settings(), hidden="8", clip="2", optimizer="sgd", seed=None) == Settings(
        hidden=8, clip=2.0, optimizer="sgd"
    )
    assert choose(Settings(clip=2.0), clip="inf").clip == math.inf


def test_who_races_if_nobody_is_named():
    race = Race(Sine(Settings(activation="sigmoid")))
    assert race.implementations[:2] == ("numpy", "numba-simd")
    assert "torch" not in race.implementations
    assert "torch" in race.absent


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"activation": "relu"}, "--activation: expected sigmoid or tanh, got 'relu'"),
        ({"optimizer": "lion"}, "--optimizer: expected sgd or adagrad or adam, got 'lion'"),
        ({"hidden": "0"}, "--hidden: expected a whole number of 1 or more, got 0"),
        ({"epochs": "-1"}, "--epochs: expected a whole number of 1 or more, got -1"),
        ({"truncate": "-1"}, "--truncate: expected a whole number of 0 or more, got -1"),
        ({"learning_rate": "nan"}, "--learning-rate: expected a number above 0, got nan"),
        ({"cell": "gru", "activation": "sigmoid"}, "--activation: expected tanh for the cell gru, got 'sigmoid'"),
        ({"clip": "0"}, "--clip: expected a number above 0, got 0.0"),
        ({"clip": "much"}, "--clip: expected a number, got 'much'"),
        ({"batch": "1.5"}, "--batch: expected a whole number, got '1.5'"),
    ],
)
def test_bad_settings(choice, message):
    with pytest.raises(ChoiceError) as caught:
        choose(Settings(), **choice)
    assert str(caught.value) == message
