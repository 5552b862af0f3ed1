from itertools import product

import pytest

from bench.grid.cases import CALLS, LENGTHS, ChoiceError
from bench.grid.presets import PRESETS, Effort, choose, duration, find_preset, share

CPUS = 2


def cases(preset="quick", **choices):
    return choose(find_preset(preset), CPUS, **choices)


def test_choices_replace_the_presets():
    found = cases(hidden="8,16", seq_len="4", batch="2", threads="1", dtype="float64", input="3", cell="lstm")
    assert {case.operation for case in found} == set(CALLS)
    assert {case.hidden_size for case in found} == {8, 16}
    assert {(c.cell, c.input_size, c.batch_size, c.threads, c.dtype) for c in found} == {("lstm", 3, 2, 1, "float64")}


def test_input_size_follows_the_batch():
    assert {(c.batch_size, c.input_size) for c in cases(hidden="8", batch="1,4")} == {(1, 1), (4, 8)}


def test_training_is_left_out_below_float32():
    found = cases(cell="lstm", hidden="8", batch="1", dtype="float32,bfloat16,int8")
    operations = {dtype: [c.operation for c in found if c.dtype == dtype] for dtype in ("float32", "bfloat16", "int8")}
    low = ["forward_step", "forward"]
    assert operations == {"float32": list(CALLS), "bfloat16": low, "int8": low}


def test_a_file_may_ask_for_dtypes_below_float32(tmp_path):
    path = tmp_path / "grid.toml"
    path.write_text('[[grids]]\nhidden = [8]\nbatch = [1]\ndtype = ["int8"]\n')
    assert [(c.operation, c.dtype) for c in cases(str(path))] == [("forward_step", "int8"), ("forward", "int8")]


def test_a_step_has_no_length():
    found = cases(cell="rnn", operation="forward_step", hidden="8", batch="1", seq_len="10,50", threads="1")
    assert [case.id for case in found] == ["rnn-forward_step-H8-I1-T1-B1-float32-1t"]


def test_networks_are_every_combination_but_for_a_step_that_has_no_end():
    chosen = {"cell": "gru", "operation": "forward_step,forward", "hidden": "8", "batch": "4", "threads": "1"}
    found = cases(**chosen, layers="1,2", directions="1,2", lengths="full,ragged", seq_len="10")
    networks = [(case.operation, case.layers, case.directions, case.lengths) for case in found]
    steps = {("forward_step", L, 1, "full") for L in (1, 2)}
    assert set(networks) == steps | {("forward", *network) for network in product((1, 2), (1, 2), LENGTHS)}
    assert len(networks) == 10


def test_activations_are_the_rnns():
    sizes = {"hidden": "8", "batch": "1", "threads": "1", "operation": "forward", "seq_len": "10"}
    found = cases(cell="rnn,gru", activation="relu,tanh", **sizes)
    assert [(case.cell, case.activation) for case in found] == [("rnn", "tanh"), ("rnn", "relu"), ("gru", "tanh")]
    assert [case.id for case in found[:2]] == [
        "rnn-forward-H8-I1-T10-B1-float32-1t",
        "rnn-relu-forward-H8-I1-T10-B1-float32-1t",
    ]
    below = cases(cell="rnn,gru", activation="relu", dtype="int8", **sizes)
    assert [case.cell for case in below] == ["rnn", "gru"]  # of which the first is unsupported by name


@pytest.mark.parametrize("choices", [{"directions": "2"}, {"lengths": "ragged"}])
def test_a_step_alone_of_what_begins_at_the_end_leaves_nothing(choices):
    with pytest.raises(ChoiceError, match="single steps alone"):
        cases(operation="forward_step", **choices)


@pytest.mark.parametrize("preset", PRESETS)
def test_cases_are_unique_and_in_blocks_of_threads(preset):
    found = cases(preset)
    assert len(set(found)) == len(found) > 0
    threads = [case.threads for case in found]
    assert threads == sorted(threads)
    assert max(threads) <= CPUS


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_has_every_cell_and_says_what_it_is(preset):
    in_use = {"gru", "lstm"}  # of the networks that people run
    assert {case.cell for case in cases(preset)} == (in_use if preset == "models" else {"rnn"} | in_use)
    assert len(PRESETS[preset].description.splitlines()) == 1


def test_models_are_named_and_have_a_source_each():
    found, sources = cases("models"), dict(PRESETS["models"].sources)
    assert {case.model for case in found} == sources.keys()
    assert len({name.split(",")[0] for name in sources}) >= 10  # networks, of which some have several layers
    assert len({case.id.removesuffix(f"-{case.threads}t") for case in found}) == len(sources)
    for name, source in sources.items():
        assert len(f"{name}{source}".splitlines()) == 1
        assert "/" in source or "(" in source


def test_other_sizes_are_of_no_model():
    assert {case.model for case in cases("models", hidden="8")} == {""}
    assert "" not in {case.model for case in cases("models", threads="1", dtype="int8", operation="forward")}


def test_limits_is_the_grid_of_the_goals():
    for cell in ("rnn", "gru", "lstm"):
        sizes = {(c.hidden_size, c.batch_size, c.input_size) for c in cases("limits") if c.cell == cell}
        alone = {(H, 1, 1) for H in (16, 100, 128, 256, 512, 1024)}
        assert sizes == alone | {(64, 1, 1), (128, 32, 128), (512, 32, 512), (64, 32, 64), (1024, 64, 1024)}


def test_deepbench_has_the_public_sizes():
    found = {(c.hidden_size, c.batch_size, c.seq_len, c.cell, c.operation) for c in cases("deepbench")}
    assert (2560, 128, 50, "rnn", "train") in found
    assert (1536, 8, 50, "lstm", "train") in found
    assert (2816, 4, 187, "gru", "forward") in found
    assert (32, 1, 672, "rnn", "forward") in found
    assert len(found) == 12 + 12 + 3 + 3 + 4 + 1 + 9 + 3 + 3 + 12 + 3 + 2


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"hidden": "8,x"}, "--hidden: expected whole numbers of 1 or more, separated by commas, got '8,x'"),
        ({"seq_len": "0"}, "--seq-len: expected whole numbers of 1 or more, separated by commas, got '0'"),
        ({"batch": ""}, "--batch: expected whole numbers of 1 or more, separated by commas, got ''"),
        ({"threads": "4096"}, "--threads: expected at most 2, the CPUs this process may use, got 4096"),
        ({"cell": "rnnn"}, "--cell: expected rnn, gru or lstm, got 'rnnn'"),
        ({"operation": "back"}, "--operation: expected forward_step, forward, bptt, train or stream, got 'back'"),
        (
            {"dtype": "int8", "operation": "train"},
            "--operation: expected forward_step, forward or stream below float32, got train",
        ),
        ({"layers": "0"}, "--layers: expected whole numbers of 1 or more, separated by commas, got '0'"),
        ({"directions": "3"}, "--directions: expected 1 or 2, got 3"),
        ({"activation": "gelu"}, "--activation: expected tanh, relu or sigmoid, got 'gelu'"),
        (
            {"activation": "relu", "cell": "lstm"},
            "--activation: expected an rnn in the grid, since the other cells have none to choose, got lstm",
        ),
        (
            {"activation": "relu", "cell": "rnn", "dtype": "int8"},
            "--dtype: expected float32 or float64 beside relu, whose states have no bound, got int8",
        ),
        ({"lengths": "foo"}, "--lengths: expected full or ragged, got 'foo'"),
        ({"dtype": "float16"}, "--dtype: expected float32, float64, bfloat16 or int8, got 'float16'"),
    ],
)
def test_a_bad_choice_is_named(choices, message):
    with pytest.raises(ChoiceError) as error:
        cases(**choices)
    assert str(error.value) == message


def test_a_bad_preset_is_named():
    with pytest.raises(ChoiceError, match=r"--preset: expected quick, .* or deepbench, or a \.toml file, got 'quik'"):
        find_preset("quik")


@pytest.mark.parametrize(("text", "value"), [("3%", 0.03), ("0.03", 0.03), ("0%", 0)])
def test_a_share(text, value):
    assert share(text, "--precision") == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "x%", "-1%", "inf", "nan"])
def test_a_bad_share_is_named(text):
    with pytest.raises(ChoiceError, match=f"--precision: expected a share such as 5% or 0.05, got '{text}'"):
        share(text, "--precision")


GOOD = """
description = "mine"
implementations = ["numpy", "torch"]
[effort]
case_s = 1
precision = 0.05
[[grids]]
cell = ["gru", "lstm"]
hidden = [7]
batch = [1, 2]
operation = ["train"]
[[grids]]
hidden = [9]
batch = [1]
"""


def test_a_file_is_a_preset(tmp_path):
    path = tmp_path / "grid.toml"
    path.write_text(GOOD)
    preset = find_preset(str(path))
    assert (preset.description, preset.implementations) == ("mine", ("numpy", "torch"))
    assert preset.effort == Effort(case_s=1, precision=0.05)
    found = choose(preset, CPUS)
    assert [case.id for case in found if case.cell == "gru"] == [
        "gru-train-H7-I1-T50-B1-float32-1t",
        "gru-train-H7-I7-T50-B2-float32-1t",
    ]
    assert {case.operation for case in found if case.cell == "rnn"} == set(CALLS)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("hidden = [7]", "hidden = [7", "not TOML: "),
        ("hidden = [7]", "", "grids[0].hidden: expected a list of whole numbers, got nothing"),
        ("hidden = [7]", "hidden = 7", "grids[0].hidden: expected a list with something in it, got 7"),
        ("hidden = [7]", "hidden = [7.5]", "grids[0].hidden: expected whole numbers of 1 or more, got 7.5"),
        ("hidden = [7]", "hidden = [true]", "grids[0].hidden: expected whole numbers of 1 or more, got True"),
        ("hidden = [9]", "hidden = [9]\nsize = 3", "grids[1]: expected hidden, batch, seq_len, "),
        ('["gru", "lstm"]', '["gru", 3]', "grids[0].cell: expected rnn, gru or lstm, got 3"),
        ("case_s = 1", "case_s = 0", "effort.case_s: expected a number above 0, got 0"),
        ("case_s = 1", "fewest = 1.5", "effort.fewest: expected a whole number above 0, got 1.5"),
        (
            "case_s = 1",
            "most = 3",
            "effort: expected round_s, fewest, case_s, precision, period_s or lives, got 'most'",
        ),
        ('["numpy", "torch"]', '"numpy"', "implementations: expected a list of names, got 'numpy'"),
        ('"mine"', "1", "description: expected a text, got 1"),
        ('description = "mine"', "[grid]", "expected description, implementations, effort or grids, got 'grid'"),
        (GOOD, "", "grids: expected one table [[grids]] or more, got None"),
    ],
)
def test_a_bad_file_says_what_and_where(tmp_path, old, new, message):
    path = tmp_path / "grid.toml"
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(ChoiceError) as error:
        find_preset(str(path))
    assert str(error.value).startswith(f"{path}: {message}")
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ChoiceError, match=r"--preset: .*grid\.toml: No such file or directory"):
        find_preset(str(tmp_path / "grid.toml"))


def test_threads_beyond_the_cpus_leave_nothing(tmp_path):
    path = tmp_path / "grid.toml"
    path.write_text("[[grids]]\nhidden = [8]\nbatch = [1]\nthreads = [4096]\n")
    with pytest.raises(ChoiceError, match="all of its thread counts are beyond"):
        cases(str(path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = " + "[" * 10_000, "not TOML that can be read: nested too deeply"),
        ("#" * 10_000_000, "not TOML: expected at most 16 KiB, got more"),
        ("a" + ".a" * 1_000_000 + " = 1", "not TOML: expected at most 16 KiB, got more"),
        (f"a = {'9' * 5000}", "not TOML: "),
        ("\x00", "not TOML: "),
        (f"[[grids]]\nbatch = [1]\nhidden = ['{'x' * 9000}']", "grids[0].hidden: expected whole numbers of 1 or more"),
        (f"[[grids]]\nbatch = [1]\nhidden = [{'[' * 300}{']' * 300}]", "grids[0].hidden: expected whole numbers"),
    ],
    ids=["deep", "large", "long", "digits", "nul", "text", "nested"],
)
def test_a_monstrous_file_is_refused_in_a_short_line(tmp_path, text, message):
    path = tmp_path / "grid.toml"
    path.write_text(text)
    with pytest.raises(ChoiceError) as error:
        find_preset(str(path))
    assert str(error.value).startswith(f"{path}: {message}")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < len(str(path)) + 200


def test_a_file_with_a_byte_order_mark_is_read(tmp_path):
    path = tmp_path / "grid.toml"
    path.write_text(GOOD, encoding="utf-8-sig")
    assert find_preset(str(path)).description == "mine"


def test_a_grid_of_too_many_cases_is_refused(tmp_path):
    path = tmp_path / "grid.toml"
    many = list(range(1, 401))
    path.write_text(f"[[grids]]\nhidden = {many}\nbatch = {many}\nseq_len = {many}\n")
    with pytest.raises(ChoiceError, match=r"--preset: expected a grid of at most 100000 cases, got 256000000"):
        cases(str(path))


def test_a_number_of_many_digits_is_refused():
    with pytest.raises(ChoiceError, match="--hidden: expected whole numbers"):
        cases(hidden="9" * 5000)


def test_low_is_inference_below_float32_in_every_size():
    found = cases("low")
    assert {case.operation for case in found} == {"forward"}
    assert {case.threads for case in found} == {1, 2}
    for dtype in ("int8", "bfloat16"):
        of = [case for case in found if case.dtype == dtype]
        assert 2 * len(of) == len(found) < 200
        assert {case.hidden_size for case in of} == {64, 128, 256, 512, 1024}
        assert {case.batch_size for case in of} == {1, 4, 32, 64}


@pytest.mark.parametrize(("text", "seconds"), [("1ms", 1e-3), ("500us", 5e-4), ("20µs", 2e-5), ("0.01s", 0.01)])
def test_a_period_has_a_unit(text, seconds):
    assert duration(text, "--period") == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "1", "ms", "-1ms", "0s", "nans", "infs", "1 hour", "61s", "0.1us", "1sm"])
def test_a_bad_period_is_named(text):
    with pytest.raises(ChoiceError) as error:
        duration(text, "--period")
    assert str(error.value) == f"--period: expected a time from 1us to 60s, such as 1ms, got {text!r}"
