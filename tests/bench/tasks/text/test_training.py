import itertools
import math
import os
import signal
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.special import log_softmax

from bench.grid.cases import ChoiceError
from bench.tasks.learning import checkpoint
from bench.tasks.learning.learners.apart import Apart
from bench.tasks.learning.model import Model
from bench.tasks.learning.network import Network
from bench.tasks.learning.weights import init_weights
from bench.tasks.text import generate, page
from bench.tasks.text import training as text_training
from bench.tasks.text.data import Corpus, split
from bench.tasks.text.training import Bounds, Lesson, Settings, bits

SMALL = Settings(cell="gru", hidden=12, seq_len=8, batch=4, learning_rate=0.02)


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(text_training, "ROUND", 20)
    monkeypatch.setattr(text_training, "SAMPLE", 20)


def corpus(seed=0) -> Corpus:
    """Return a text of four words in an order of chance: what comes after a letter is easily learned."""
    words = np.random.default_rng(seed).choice(["alpha\n", "beta ", "gamma ", "delta "], 600)
    return split("words", "".join(words))


def trained(steps, settings=SMALL, implementations=("numpy",)) -> Lesson:
    lesson = Lesson(corpus(), settings, implementations)
    lesson.train(Bounds(steps=steps))
    assert lesson.outcome == "finished"
    return lesson


def test_bits_are_those_of_the_outputs():
    model = Model("gru", 5, 6, 5, "softmax")
    weights = init_weights(model, np.random.default_rng(0), np.float64)
    network = Network(model, "numpy")
    text = np.random.default_rng(1).integers(5, size=301)
    outputs, _ = network.predict(weights, text[:-1, np.newaxis])
    expected = -np.mean(log_softmax(outputs[:, 0], axis=-1)[np.arange(300), text[1:]]) / math.log(2)
    assert bits(network, weights, text) == pytest.approx(expected, rel=1e-12)


def test_it_learns():
    lesson = trained(200)
    (history,) = lesson.histories.values()
    assert history.bits[0] == pytest.approx(lesson.baselines["validation"]["uniform"], abs=0.3)
    assert lesson.judge()["test"] < lesson.baselines["test"]["unigram"] - 1
    assert history.validated == list(range(0, 201, 20))
    assert len(history.losses) == 200
    assert len(history.seconds) == len(history.ends) == 20
    assert [sample.step for sample in lesson.samples[::3]] == [20, 40, 80, 160, 200]
    assert history.steps_to(history.bits[3]) <= 60
    assert history.seconds_after([0, 200]) == pytest.approx([0, sum(history.seconds)])


def test_resumed_training_is_bit_for_bit_the_same(tmp_path):
    """Both stops lie within a round, the second one in the second pass over the text."""
    whole = trained(150, replace(SMALL, batch=9, cell="lstm", layers=2))
    assert whole.streams.chunks < 50
    lesson = trained(37, whole.settings)
    for steps in (95, 150):
        lesson.save(tmp_path)
        lesson = Lesson.resume(corpus(), tmp_path)
        lesson.train(Bounds(steps=steps))
    assert lesson.histories["numpy"].losses == whole.histories["numpy"].losses
    assert set(lesson.arrays["numpy"]) >= {"steps", "mean.U", "state.h", "state.c"}
    for name, array in whole.arrays["numpy"].items():
        np.testing.assert_array_equal(lesson.arrays["numpy"][name], array, err_msg=name)
    assert lesson.samples[-1] == whole.samples[-1]


def test_another_text_is_refused(tmp_path):
    trained(10).save(tmp_path)
    with pytest.raises(ChoiceError, match=r"^--resume: expected the text that was learned in .*, got another one$"):
        Lesson.resume(corpus(1), tmp_path)


def test_ctrl_c_ends_after_the_group_in_work(tmp_path):
    lesson = Lesson(corpus(), SMALL, ["numpy"])
    lesson.train(
        Bounds(steps=1000),
        after_group=lambda share: os.kill(os.getpid(), signal.SIGINT) if lesson.step == 30 else None,
        after_round=lambda: lesson.save(tmp_path),
    )
    assert lesson.outcome == "interrupted"
    assert Lesson.resume(corpus(), tmp_path).step == 30


def test_bounds(monkeypatch):
    shares = []
    lesson = Lesson(corpus(), SMALL, ["numpy"])
    lesson.train(Bounds(steps=30), shares.append)
    assert shares == pytest.approx([1 / 3, 2 / 3, 1])
    lesson.train(Bounds(goal=lesson.histories["numpy"].bits[-1] - 0.1))
    assert lesson.step % 20 == 0
    assert lesson.histories["numpy"].bits[-1] <= lesson.histories["numpy"].bits[-2]
    before = lesson.step
    seconds = itertools.count()
    monkeypatch.setattr(text_training, "time", SimpleNamespace(perf_counter=lambda: next(seconds)))
    lesson.train(Bounds(minutes=0.05))
    assert lesson.step > before


def test_a_training_that_diverges_ends():
    lesson = Lesson(corpus(), replace(SMALL, optimizer="sgd", learning_rate=1e300), ["numpy"])
    lesson.train(Bounds(steps=100))
    assert lesson.outcome == "diverged"


def test_a_training_that_blows_up_ends_as_diverged_and_is_not_judged():
    lesson = Lesson(corpus(), replace(SMALL, optimizer="sgd", learning_rate=1e30), ["numpy"])
    lesson.train(Bounds(steps=20))
    assert lesson.outcome == "diverged"
    bits = lesson.histories["numpy"].bits
    assert math.isfinite(bits[-1])
    assert lesson.judge() == {}
    assert page.summary(lesson, {}) == [
        f"The training diverged: after 20 steps the loss in bits per character of numpy is {bits[-1]:.3g}; "
        f"before any training it was {bits[0]:.3g}. Lower --learning-rate."
    ]


def test_another_seed_that_diverges_is_told_of():
    lesson = trained(10)
    other = Lesson(corpus(), replace(SMALL, optimizer="sgd", learning_rate=1e300, seed=7), ["numpy"])
    other.train(Bounds(steps=10))
    lesson.strayed.append(other)
    words = page.summary(lesson, lesson.judge())
    assert words[0].startswith("On the test text")
    assert words[1].startswith("With the seed 7: The training diverged: after 10 steps the loss in bits per character")


def test_there_is_a_group_of_steps_however_little_time_or_far_to_go_there_is():
    for bounds in (Bounds(minutes=1e-9), Bounds(goal=100.0)):
        lesson = Lesson(corpus(), SMALL, ["numpy"])
        lesson.train(bounds)
        assert (lesson.outcome, lesson.step) == ("finished", 10)
    lesson.goal = 100.0
    words = page.summary(lesson, lesson.judge())
    assert words[-1] == "It took no more than the goal, 100 bits per character, before its first step."


def test_ctrl_c_before_the_first_step_ends_at_once_and_leaves_nothing(monkeypatch):
    def pressed(learner, *arguments):
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("it went on compiling")

    monkeypatch.setattr(Apart, "begin", pressed)
    lesson = Lesson(corpus(), SMALL, ["numpy"])
    lesson.train(Bounds(steps=10), after_round=lambda: pytest.fail("it was kept"))
    assert (lesson.outcome, lesson.step) == ("interrupted", 0)


def test_settings_out_of_range():
    for choice, message in {
        "cell": "--cell: expected rnn or gru or lstm, got 'cnn'",
        "hidden": "--hidden: expected a whole number of 1 or more, got 0",
        "clip_norm": "--clip-norm: expected a number above 0, got -1.0",
    }.items():
        with pytest.raises(ChoiceError) as raised:
            replace(SMALL, **{choice: {"cell": "cnn", "hidden": 0, "clip_norm": -1.0}[choice]})
        assert str(raised.value) == message


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"step": 0}, "histories: numpy: expected the history of 0 steps, got (10, 1, 2)"),
        ({"step": "10"}, "step: expected a whole number, got '10'"),
        ({"histories": {}}, "histories: expected one or more, got none"),
        ({"samples": [["a"]]}, "samples[0]: expected step, bits, temperature, text, got ['a']"),
        ({"settings": None}, "settings: expected a table, got None"),
        ({"text": None}, "text: expected a text, got None"),
        ({"ends": [20]}, "ends: expected rising steps, up to 10, got [0, 20]"),
        ({"validated": [10, 0]}, "validated: expected rising steps, up to 10, got [10, 0]"),
        ({"seconds": [0.0]}, "seconds: expected numbers above 0, got [0.0]"),
        ({"bits": [3.0, math.nan]}, "bits: expected finite numbers, got [3.0, nan]"),
        ({"compile_s": math.nan}, "compile_s: expected seconds, got nan"),
        ({"state.h": np.zeros((3, 12), np.float32)}, "state.h: expected the shape (4, 12), got (3, 12)"),
        ({"weights.V": None}, "numpy: expected an array weights.V, got none"),
    ],
)
def test_a_forged_training_is_refused_in_one_line(tmp_path, changed, message):
    trained(10).save(tmp_path)
    about, arrays = checkpoint.load_training(tmp_path, "text")
    for name, value in changed.items():
        own = about["histories"]["numpy"]
        at = about if name in about else own if name in own else arrays["numpy"]
        at[name] = value
    arrays["numpy"] = {name: array for name, array in arrays["numpy"].items() if array is not None}
    checkpoint.save_training(tmp_path, "text", about, arrays)
    with pytest.raises(ChoiceError) as raised:
        Lesson.resume(corpus(), tmp_path)
    assert str(raised.value).startswith(f"{tmp_path / 'training.npz'}: ")
    assert str(raised.value).endswith(message)


def taught():
    model = Model("lstm", 5, 6, 5, "softmax")
    return Network(model, "numpy"), init_weights(model, np.random.default_rng(0))


def said(network, weights, count, temperature, seed=0, start=(0, 3)):
    rng = np.random.default_rng(seed)
    sample = generate.sample(network, network.prepare(weights), np.array(start), temperature, rng)
    return [next(sample) for _ in range(count)]


def test_generation_follows_its_seed():
    network, weights = taught()
    ref = said(network, weights, 50, 1.0)
    assert said(network, weights, 50, 1.0) == ref
    assert said(network, weights, 50, 1.0, seed=1) != ref
    assert set(ref) == set(range(5))


@pytest.mark.parametrize("implementation", ["numpy", "numba-simd"])
def test_layers_write_step_by_step_what_they_read_at_once(implementation):
    model = Model("lstm", 5, 6, 5, "softmax", layers=2)
    network, weights = Network(model, implementation), init_weights(model, np.random.default_rng(0))
    read = [0, 3]
    for _ in range(20):
        outputs, _ = network.predict(weights, np.array(read)[:, np.newaxis])
        read.append(int(outputs[-1, 0].argmax()))
    assert said(network, weights, 20, 0.0) == read[2:]


def test_temperature_0_takes_the_likeliest():
    network, weights = taught()
    read = [0, 3]
    for _ in range(20):
        outputs, _ = network.predict(weights, np.array(read)[:, np.newaxis])
        read.append(int(outputs[-1, 0].argmax()))
    assert said(network, weights, 20, 0.0) == read[2:]
    assert said(network, weights, 20, 1e-6) == read[2:]


def test_temperature_1_draws_from_the_softmax():
    network, weights = taught()
    weights["d"] += np.array([0, 1, 2, -1, -2], np.float32)
    outputs, _ = network.predict(weights, np.array([[0], [3]]))
    expected = np.exp(log_softmax(outputs[-1, 0]))
    rng = np.random.default_rng(0)
    counts = np.bincount([generate._draw(outputs[-1, 0], 1.0, rng) for _ in range(4000)], minlength=5)
    np.testing.assert_allclose(counts / 4000, expected, atol=4 * 0.5 / math.sqrt(4000))


def test_a_low_temperature_takes_the_likeliest_without_a_warning(recwarn):
    outputs = np.array([-3e38, 1, 2, 2.5], np.float32)
    for temperature in (1e-9, 5e-324):
        assert generate._draw(outputs, temperature, np.random.default_rng(0)) == 3
    assert not recwarn.list


W = np.zeros((24, 6), np.float32)
FORGED = {
    "hidden_size": "six",
    "input_size": 4,
    "output_size": 6,
    "cell": "cnn",
    "loss": "last",
    "activation": "relu",
    "truncate": 1.5,
    "bias": 1,
    "model": [],
    "alphabet": "abc\n",
    "twice": "aabc\n",
    "surrogate": "abc\n\ud800",
    "no text": ["a", "b", "c", "d", "\n"],
    "huge": 10**12,
    "W of another shape": np.zeros((24, 5), np.float32),
    "W of another rank": np.zeros(24, np.float32),
    "W of another dtype": W.astype(np.float64),
    "W of texts": W.astype(str),
    "W of complex numbers": W.astype(np.complex64),
    "W without numbers": W + np.nan,
    "no W": None,
}


@pytest.mark.parametrize("forged", FORGED)
def test_a_forged_model_is_refused_in_one_line(tmp_path, forged):
    """Its checksum fits, and its content does not."""
    network, weights = taught()
    about, value = {"model": asdict(network.model), "alphabet": "abcd\n"}, FORGED[forged]
    match forged:
        case "model" | "alphabet":
            about[forged] = value
        case "twice" | "surrogate" | "no text":
            about["alphabet"] = value
        case "huge":
            about["model"]["hidden_size"] = value
        case _ if "W" in forged:
            weights = {name: array for name, array in (weights | {"W": value}).items() if array is not None}
        case _:
            about["model"][forged] = value
    checkpoint.save(tmp_path / "model.npz", generate.KIND, about, weights)
    with pytest.raises(ChoiceError) as raised:
        generate.load(tmp_path / "model.npz")
    assert str(raised.value).startswith(f"{tmp_path / 'model.npz'}: ")
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 300


def test_a_model_of_before_there_were_layers_is_loaded(tmp_path):
    network, weights = taught()
    about = {"model": asdict(network.model), "alphabet": "abcd\n"}
    del about["model"]["layers"], about["model"]["directions"]
    checkpoint.save(tmp_path / "model.npz", generate.KIND, about, weights)
    assert generate.load(tmp_path / "model.npz")[0] == network.model


def test_a_model_is_loaded_as_it_was_saved(tmp_path):
    network, weights = taught()
    generate.save(tmp_path / "model.npz", network.model, "abcd\n", weights)
    model, alphabet, loaded = generate.load(tmp_path / "model.npz")
    assert (model, alphabet) == (network.model, "abcd\n")
    assert said(Network(model, "numpy"), loaded, 30, 0.5) == said(network, weights, 30, 0.5)
    np.testing.assert_array_equal(generate.opening(alphabet), [4])
