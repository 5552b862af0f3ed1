import copy
import gc
import math
import os
import re
import signal
from dataclasses import replace

import numpy as np
import pytest

from bench.grid.cases import ChoiceError
from bench.tasks.learning import checkpoint, training
from bench.tasks.learning.learners import obstacle
from bench.tasks.learning.learners.apart import TICK, Apart, _Desk
from bench.tasks.learning.optimizers import Optimizer
from bench.tasks.learning.training import History, Race, Settings, choose, diverged
from bench.tasks.page import difference, race_table, race_words
from bench.tasks.sine.data import Sine, Wave
from bench.tasks.text.training import Settings as TextSettings
from tests.bench.tasks.learning.examples import example


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


def press_at(*when):
    """Return a `watch` that presses Ctrl-C after some epoch of some seed."""

    def watch(*at):
        if at == when:
            os.kill(os.getpid(), signal.SIGINT)

    return watch


def test_ctrl_c_ends_after_the_epoch_in_work():
    before = signal.getsignal(signal.SIGINT)
    race = trained(["numpy"], press_at(1, 2), epochs=5, hidden=4, seeds=3)
    assert race.outcome == "interrupted"
    assert [len(history.seconds) for history in race.histories["numpy"]] == [5], "the second seed was not done"
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("implementations", [["numpy", "numba-simd"], ["torch"], ["jax"]], ids="-".join)
def test_resumed_training_is_bit_for_bit_the_same(implementations, tmp_path, monkeypatch):
    if any(obstacle(name) for name in implementations):
        pytest.skip("not installed")
    monkeypatch.setattr(training, "KEEP", 0)
    whole, resumed = (Race(Sine(Settings(epochs=3, seeds=2, hidden=4, batch=30)), implementations) for _ in range(2))
    whole.run(keep=lambda: checkpoint.save_training(tmp_path / str(whole.epochs_done), "sine", *whole.state()))
    resumed.restore(*checkpoint.load_training(tmp_path / "2", "sine"))
    assert (resumed.seeds_done, resumed.epochs_done) == (1, 2)
    resumed.run()
    assert resumed.outcome == "finished"
    for name in implementations:
        for ref, comp in zip(whole.histories[name], resumed.histories[name], strict=True):
            assert (ref.train, ref.validation) == (comp.train, comp.validation)
            assert len(comp.seconds) == 3
        for weight, array in whole.weights[name].items():
            np.testing.assert_array_equal(resumed.weights[name][weight], array, err_msg=weight)


def test_a_race_is_kept_now_and_then(monkeypatch):
    monkeypatch.setattr(training, "KEEP", 0)
    race, kept = Race(Sine(Settings(epochs=3, seeds=2, hidden=4)), ["numpy"]), []
    race.run(keep=lambda: kept.append((race.seeds_done, race.epochs_done, len(race.arrays))))
    assert kept == [(0, 1, 1), (0, 2, 1), (1, 1, 1), (1, 2, 1), (2, 0, 0)]


def test_a_race_that_is_over_stays_so():
    settings = Settings(epochs=2, seeds=1, hidden=4)
    race = Race(Sine(settings), ["numpy"])
    race.run()
    again = Race(Sine(settings), ["numpy"])
    again.restore(*race.state())
    again.run(keep=lambda: pytest.fail("there is nothing to do"))
    assert again.outcome == "finished"
    assert again.histories == race.histories
    more = Race(Sine(replace(settings, seeds=2)), ["numpy"])
    more.restore(*race.state())
    more.run()
    assert more.histories["numpy"][0] == race.history("numpy")
    assert len(more.histories["numpy"]) == 2


def test_another_course_is_refused():
    course = Sine(Settings(hidden=4))
    about, tree = Race(course, ["numpy"]).state()
    for other, changed, message in (
        (Sine(Settings(hidden=5)), {}, "--resume: expected the settings that this version has for the task, got"),
        (Sine(Settings(hidden=4), Wave((2.0,))), {}, "--resume: expected the records that were learned, got others"),
        (course, {"seeds_done": 5, "epochs_done": 1}, "--seeds: expected 6 or more, which have begun, got 5"),
    ):
        with pytest.raises(ChoiceError, match=f"^{message}"):
            Race(other, ["numpy"]).restore(about | changed, tree)


def test_a_training_that_diverges_ends():
    race = trained(["numpy"], epochs=50, hidden=4, optimizer="sgd", learning_rate=1e30)
    assert race.outcome == "diverged"
    assert len(race.history("numpy").seconds) < 50


def test_a_training_that_ends_far_worse_than_it_began_has_diverged():
    race = trained(["numpy"], epochs=3, hidden=4, optimizer="sgd", learning_rate=1e6, clip=1.0, seeds=2)
    assert race.outcome == "diverged"
    assert math.isfinite(race.history("numpy").train[-1])
    assert race_words(race) == [
        f"The training diverged: after 3 epochs with seed 0 the training RMSE of numpy is "
        f"{race.history('numpy').train[-1]:.3g}; before any training it was {race.history('numpy').train[0]:.3g}. "
        "Lower --learning-rate."
    ]


def test_what_counts_as_diverged():
    assert diverged([1.0, 2.1])
    assert not diverged([1.0, 100.0, 2.0])
    for none in (math.nan, math.inf):
        assert diverged([1.0, none])
        assert diverged([1.0, none], over=False)
    spike = [1.0, *[100.0] * (training.PATIENCE - 1)]
    assert not diverged(spike, over=False)
    assert diverged([*spike, 100.0], over=False)
    assert not diverged([*spike, 1.5], over=False)


def test_a_seed_that_diverges_is_told_of_beside_those_that_did_not():
    race = trained(["numpy"], epochs=2, hidden=4, seeds=1)
    race.outcome = "diverged"
    race.histories["numpy"].append(History([1.0], [0.7, math.nan], [0.7, math.nan]))
    assert "after 1 epoch with seed 1 the training RMSE of numpy is no longer a finite number" in race_words(race)[0]


def test_a_goal_met_before_any_training_is_no_race():
    race = trained(["numpy", "numba-simd"], epochs=2, hidden=4, goal=100.0, seeds=2)
    words = race_words(race)
    untrained = "had a validation error of 100 or less with 2 of 2 seeds: a race to it says nothing. Lower --goal."
    assert words[0].startswith(f"Before any training numba-simd {untrained} Before any training numpy {untrained}")
    assert not any("To the goal" in paragraph for paragraph in words)
    assert list(race_table(race)["to the goal, s"]) == [("never", math.inf)] * 2


def test_errors_that_are_equal_or_none_do_not_differ():
    a, b = np.array([0.0, 1.0, np.inf]), np.array([0.0, 2.0, 1.0])
    np.testing.assert_array_equal(difference(a, b), [0, 0.5, np.nan])


def test_ctrl_c_before_the_first_epoch_ends_at_once_and_keeps_nothing(monkeypatch):
    def pressed(learner, *arguments):
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("it went on compiling")

    monkeypatch.setattr(Apart, "begin", pressed)
    race = Race(Sine(Settings(hidden=4)), ["numpy"])
    race.run(lambda *at: pytest.fail("it went on"), lambda: pytest.fail("it was kept"))
    assert race.outcome == "interrupted"
    assert not race.weights


def test_ctrl_c_is_told_to_be_heard(capsys):
    trained(["numpy"], press_at(0, 1), epochs=5, hidden=4)
    assert capsys.readouterr().err.startswith("Interrupted: ends after the epoch in work")


@pytest.mark.parametrize(
    ("cpus", "numba", "asked", "expected"),
    [
        (2, "", 64, "at most 2, the CPUs this process may use, got 64"),
        (4, "1", 2, "at most 1, which NUMBA_NUM_THREADS allows, got 2"),
        (1, "8", 2, "at most 1, the CPUs this process may use, got 2"),
        (1, "many", 2, "at most 1, the CPUs this process may use, got 2"),
        (1, "", 0, "a whole number of 1 or more, got 0"),
    ],
)
@pytest.mark.parametrize("settings", [Settings, TextSettings])
def test_more_threads_than_may_be_used_are_refused(monkeypatch, settings, cpus, numba, asked, expected):
    monkeypatch.setattr(training, "usable_cpus", lambda: cpus)
    monkeypatch.setenv("NUMBA_NUM_THREADS", numba)
    with pytest.raises(ChoiceError, match=f"^--threads: expected {expected}$"):
        settings(threads=asked)


FORGED = {
    "epochs_done": (-1, "epochs_done: expected epochs, got -1"),
    "seeds_done": (10**12, "--seeds: expected 1000000000001 or more"),
    "outcome": ("won", "outcome: expected finished or interrupted or diverged, got 'won'"),
    "rng": ({"state": 1}, "rng: expected the state of a generator, got another"),
    "compile_s": ({}, "compile_s: numpy: expected seconds, got -1.0"),
    "settings": ({"hidden": "4"}, "settings: expected cell, "),
    "histories": ({"numpy": []}, "histories: numpy: expected 1 of them, got 0"),
}


@pytest.fixture(scope="module")
def half_done():
    race = Race(Sine(Settings(hidden=4, epochs=3, seeds=1)), ["numpy"])
    race.run(press_at(0, 2))
    return race


@pytest.mark.parametrize("part", FORGED)
def test_a_forged_training_is_refused_in_one_line(half_done, part):
    about, tree = half_done.state()
    value, message = FORGED[part]
    with pytest.raises(ChoiceError, match=re.escape(message)):
        Race(half_done.course, ["numpy"]).restore(about | {part: value}, tree)


@pytest.mark.parametrize(
    ("history", "message"),
    [
        ({"seconds": [1.0]}, "histories: numpy[0]: expected 2 epochs, got (1, 2, 2)"),
        ({"seconds": [0.0, 1.0]}, "histories: numpy[0]: seconds: expected numbers above 0"),
        ({"train": [1.0, math.nan, 1.0]}, "histories: numpy[0]: expected finite errors"),
    ],
)
def test_a_forged_history_is_refused(half_done, history, message):
    about, tree = half_done.state()
    about = about | {"histories": {"numpy": [about["histories"]["numpy"][0] | history]}}
    with pytest.raises(ChoiceError, match=re.escape(message)):
        Race(half_done.course, ["numpy"]).restore(about, tree)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("weights", "numpy", "W"), np.zeros((4, 5), np.float32), "weights: numpy: W: expected the shape (4, 4), got"),
        (("weights", "numpy", "W"), np.full((4, 4), np.nan, np.float32), "weights: numpy: W: expected finite numbers"),
        (("weights", "numpy"), np.zeros(3), "weights: numpy: expected an array U, got none"),
        (("learners", "numpy", "weights.V"), np.zeros((1, 4)), "learners: numpy: weights.V: expected float32, got"),
        (("learners", "numpy", "mean.b"), {}, "learners: numpy: expected an array mean.b, got none"),
        (("learners", "numpy", "steps"), np.array("ten"), "learners: numpy: steps: expected a count, got ten"),
        (("learners", "numpy", "state.h"), np.zeros((7, 4), np.float32), "state.h: expected the shape (20, 4), got"),
    ],
)
def test_forged_arrays_are_refused(half_done, place, value, message):
    about, tree = half_done.state()
    tree = copy.deepcopy(tree)
    *branches, name = place
    at = tree
    for below in branches:
        at = at[below]
    at[name] = value
    with pytest.raises(ChoiceError, match=re.escape(message)):
        Race(half_done.course, ["numpy"]).restore(about, tree)


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


def test_what_the_libraries_hold_is_not_looked_through_before_every_epoch():
    model, weights, batches = example(dtype=np.float32)
    desk = _Desk("numpy")
    try:
        desk.begin(model, Optimizer("sgd", 0.1), weights)
        assert gc.get_freeze_count() > 10_000
        assert desk.learn(batches)[1] >= TICK > 0
    finally:
        gc.unfreeze()


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
