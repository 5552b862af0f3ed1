"""Who is the fastest in each layer and in all of them together, from runs whose ratios are known."""

import numpy as np
import pytest

from bench.report import models as said
from bench.report.report import html, markdown
from bench.results import models
from bench.results.statistics import paired_ratio, sums_ratio
from bench.results.tables import Facts
from tests.bench.synthetic import make_run

SPEEDUPS = {"numpy": 1.0, "numba-simd": 4.0, "onnxruntime": 2.0}
LAYERS = ("encoder.rnn", "<b>decoder</b>")


def of_file(folder, speedups=SPEEDUPS, profile=None, layers=LAYERS, **grid):
    """Return a run of a file's layers, one a hidden size."""
    sizes = [64 * (n + 1) for n in range(len(layers))]
    run = make_run(folder, speedups=speedups, operation=["forward"], hidden_size=sizes, seq_len=[50], batch_size=[1],
                   threads=[1], **{"dtype": ["float32"]} | grid)  # fmt: skip
    for row in run.rows:
        row["model"] = layers[sizes.index(row["hidden_size"])]
    run.info["model"] = {"file": "net.onnx", "digest": "0", "left_out": {"odd": "peepholes"}, "inputs": None}
    about = {"version": "1", "status": "ok", "message": None, "max_error": 0.1, "compile_s": 0.1, "recurrent": None}
    rounds = np.full(11, 1e-3)
    run.info["whole"] = {
        "1": {
            "onnxruntime": about | {"times": list(rounds), "recurrent": profile},
            "openvino": about | {"times": list(1.5 * rounds)},
        }
    }
    return run


def test_the_fastest_of_each_layer(tmp_path):
    rows = models.layers(of_file(tmp_path))
    assert list(rows["model"]) == list(LAYERS)
    for race in rows["race"]:
        assert list(race.seconds) == ["numba-simd", "onnxruntime", "numpy"]
        assert race.ratio.low < 2 < race.ratio.high
        assert (race.first, race.second, race.loss) == ("numba-simd", "onnxruntime", None)


def test_all_layers_together(tmp_path):
    run = of_file(tmp_path)
    ((shared, race),) = models.together(run).items()
    assert shared == ("forward", "float32", 1)
    each = models.layers(run)["race"]
    assert race.seconds["numpy"] == pytest.approx(sum(one.seconds["numpy"] for one in each))
    assert race.ratio.low < 2 < race.ratio.high


def test_who_lacks_a_layer_is_not_among_those_of_all(tmp_path):
    run = of_file(tmp_path)
    lost = next(row for row in run.rows if row["implementation"] == "onnxruntime")
    lost |= {"status": "unsupported", "times": []}
    (race,) = models.together(run).values()
    assert list(race.seconds) == ["numba-simd", "numpy"]


def test_the_share_of_the_whole_and_what_it_brings(tmp_path):
    profile = {"": 1e-3, LAYERS[0]: 3e-4, LAYERS[1]: 2e-4, "odd": 1e-4}
    run = of_file(tmp_path, profile=profile)
    found = models.whole(run)[1]
    assert found.share == pytest.approx(0.6)
    (race,) = models.together(run).values()
    half = race.seconds["numba-simd"] / race.seconds["onnxruntime"]
    assert found.gain == pytest.approx(1 / (0.5 + 0.5 * half))
    assert list(found.seconds) == ["onnxruntime", "openvino"]
    assert found.ratio.median == pytest.approx(1.5)
    assert models.whole(of_file(tmp_path / "more", profile={"": 1e-3, "other": 1e-4}))[1].gain is None


def test_words_and_tables(tmp_path):
    run = of_file(tmp_path, profile={"": 1e-3, LAYERS[0]: 3e-4, LAYERS[1]: 2e-4})
    facts = Facts([run])
    together, each, whole, left = said.answer(facts)
    assert together.startswith(
        "For the 2 recurrent layers of net.onnx together (forward, float32, 1 thread) numba-simd"
    )
    assert "as fast as the next, ONNX Runtime" in together
    assert each.startswith("Layer by layer: encoder.rnn: numba-simd is the fastest, ")
    assert "the whole of net.onnx takes ONNX Runtime 1.00 ms and OpenVINO 1.50 ms" in whole
    assert "its recurrent layers have 50%, and the fastest of all in their place would make the whole 1.3" in whole
    assert left == "Not measured: odd (peepholes)."
    page = html(facts)
    assert "<b>decoder" not in page
    assert "&lt;b&gt;decoder" in page
    assert page.index("For the 2 recurrent layers") < page.index("numba-simd is slower than none of the others")
    assert "recurrent layers of net.onnx together" in markdown(facts)


def test_no_difference_has_no_winner(tmp_path):
    facts = Facts([of_file(tmp_path, speedups={"numpy": 1.0, "numba-simd": 2.0, "onnxruntime": 2.0})])
    assert "are the fastest: " in said.answer(facts)[0]
    assert "without a difference that counts" in said.answer(facts)[0]


def test_one_layer_alone_is_told_once(tmp_path):
    words = said.answer(Facts([of_file(tmp_path, layers=LAYERS[:1])]))
    assert words[0].startswith("For the only recurrent layer of net.onnx (forward, float32, 1 thread) numba-simd")
    assert not any(text.startswith("Layer by layer") for text in words)


def test_many_layers_are_counted(tmp_path):
    words = said.answer(Facts([of_file(tmp_path, layers=[f"layer {n}" for n in range(9)])]))
    assert words[1] == "Layer by layer the fastest of 9 is numba-simd in 9: see the table."


def test_below_float32_the_loss_is_told(tmp_path):
    speedups = {"numpy": 1.0, "numba-simd-float32": 4.0, "numba-simd": 10.0, "torch": 3.0}
    run = of_file(tmp_path, speedups=speedups, dtype=["int8"], losses={"numba-simd": 0.012, "torch": 0.02})
    (race,) = models.together(run).values()
    assert "numba-simd-float32" not in race.seconds  # what is there to be compared with
    assert "at a loss of 0.012 of a state within ±1" in said.answer(Facts([run]))[0]


def test_networks_that_people_run_are_told_behind_where_ours_loses_and_with_their_sources(tmp_path):
    run = of_file(tmp_path)
    run.info["sources"] = {LAYERS[0]: "a paper", LAYERS[1]: "a repository", "not measured": "a book"}
    run.info["model"] = run.info["whole"] = None
    facts = Facts([run])
    assert said.answer(facts) == []
    assert list(said.sources(facts)["Where its sizes are written"]) == ["a paper", "a repository"]
    for text in (html(facts), markdown(facts)):
        assert text.index("slower than none") < text.index("encoder.rnn") < text.index("a repository")
        assert "a book" not in text


def test_a_run_without_a_model_says_nothing_of_one(tmp_path):
    facts = Facts([make_run(tmp_path)])
    assert said.answer(facts) == []
    assert said.table(facts).empty
    assert said.sheet(facts).panels == {}


def test_the_interval_of_sums_holds_the_ratio():
    """Of 200 pairs of sums whose ratio is 1 the interval, luck of processes left in, misses as good as none."""
    rng, missed = np.random.default_rng(0), 0
    for _ in range(200):
        drift = [rng.lognormal(0, 0.2, 15) for _ in range(3)]
        base, this = ([one * rng.lognormal(0, 0.02, 15) * (n + 1) for n, one in enumerate(drift)] for _ in range(2))
        ratio = sums_ratio(base, this)
        assert ratio.low < ratio.median < ratio.high
        missed += not ratio.low < 1 < ratio.high
    assert missed <= 2
    one = [rng.lognormal(0, 0.1, 15)], [rng.lognormal(0, 0.1, 15)]
    assert sums_ratio(*one).median == pytest.approx(paired_ratio(one[0][0], one[1][0]).median, rel=0.1)


def called(run, **calls):
    run.info["model"]["calls"] = dict(zip(LAYERS, calls.values(), strict=True))
    return run


def test_layers_are_added_as_often_as_a_run_calls_them(tmp_path):
    run = called(of_file(tmp_path), first=3, second=1)
    (race,) = models.together(run).values()
    first, second = (one.seconds["numpy"] for one in models.layers(run)["race"])
    assert race.seconds["numpy"] == pytest.approx(3 * first + second)
    assert 1 < race.ratio.low < 2 < race.ratio.high
    words = said.answer(Facts([run]))
    assert words[0].startswith("For the 2 recurrent layers of net.onnx together, as often as a run of it does (")
    assert words[1] == "The whole runs encoder.rnn 3 times."


@pytest.mark.parametrize(
    ("second", "why"),
    [(0, "The whole does not run {}"), (None, "How often the whole runs {} is not known")],
)
def test_branches_that_are_not_taken_are_not_added_up(tmp_path, second, why):
    profile = {"": 1e-3, LAYERS[0]: 3e-4}
    run = called(of_file(tmp_path, profile=profile), first=1, second=second)
    (race,) = models.together(run).values()
    assert race.seconds == models.layers(run)["race"][0].seconds
    found = models.whole(run)[1]
    assert found.gain == pytest.approx(1 / (0.7 + 0.3 * race.seconds["numba-simd"] / race.seconds["onnxruntime"]))
    words = said.answer(Facts([run]))
    assert words[0].startswith("For the recurrent layer of net.onnx that a run of it calls, of 2 (forward, float32, 1 ")
    assert words[1] == f"{why.format('<b>decoder</b>')}, so that its time is not added."


def test_a_file_none_of_whose_layers_is_called(tmp_path):
    run = called(of_file(tmp_path), first=0, second=0)
    assert models.together(run) == {}
    assert "so that their times are not added." in " ".join(said.answer(Facts([run])))


@pytest.mark.parametrize(
    ("profile", "why"),
    [
        (
            {"": 1e-5, LAYERS[0]: 2e-6, LAYERS[1]: 1e-6},
            "within which they take ONNX Runtime 3.00 µs: each of 2 calls is ",
        ),
        ({"": 1e-5, "another": 2e-6}, "since the whole does not run them with these inputs."),
        (None, "how long they take within it is not known, "),
    ],
    ids=str,
)
def test_why_layers_take_longer_than_the_whole(tmp_path, profile, why):
    run = of_file(tmp_path, profile=profile)
    (race,) = models.together(run).values()
    short = race.seconds["onnxruntime"] / 10
    run.info["whole"]["1"]["onnxruntime"]["times"] = [short] * 11
    (found,) = models.whole(run).values()
    assert found.longer == {"onnxruntime": race.seconds["onnxruntime"]}
    (words,) = [words for words in said.answer(Facts([run])) if "longer than the whole" in words]
    assert words.startswith("By themselves the layers take ONNX Runtime ")
    assert why in words


def test_nothing_is_said_of_layers_that_take_less_than_the_whole(tmp_path):
    run = of_file(tmp_path)
    run.info["whole"]["1"]["onnxruntime"]["times"] = [10.0] * 11
    run.info["whole"]["1"]["openvino"]["times"] = [10.0] * 11
    assert not any("longer than the whole" in words for words in said.answer(Facts([run])))
