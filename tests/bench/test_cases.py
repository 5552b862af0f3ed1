import pytest

from bench.cases import OPERATIONS, PRESETS, Case, ChoiceError, choose, usable_cpus


def ids(preset="quick", **choices):
    return [case.id for case in choose(preset, **choices)]


def test_id_reads():
    assert ids(operation="train", hidden="128", batch="32", seq_len="50") == ["rnn-train-H128-I128-T50-B32-float32-1t"]


def test_choices_replace_the_presets():
    cases = choose("quick", hidden="8,16", seq_len="4", batch="2", threads="1", dtype="float64", input="3")
    assert {case.operation for case in cases} == set(OPERATIONS)
    assert {case.hidden_size for case in cases} == {8, 16}
    assert {(case.input_size, case.batch_size, case.threads, case.dtype) for case in cases} == {(3, 2, 1, "float64")}


def test_input_size_follows_the_batch():
    assert {(c.batch_size, c.input_size) for c in choose("quick", hidden="8", batch="1,4")} == {(1, 1), (4, 8)}


def test_a_step_has_no_length():
    assert ids(operation="forward_step", hidden="8", batch="1", seq_len="10,50", threads="1") == [
        "rnn-forward_step-H8-I1-T1-B1-float32-1t"
    ]


@pytest.mark.parametrize("preset", PRESETS)
def test_cases_are_unique_and_in_blocks_of_threads(preset):
    cases = choose(preset)
    assert len(set(cases)) == len(cases) > 0
    threads = [case.threads for case in cases]
    assert threads == sorted(threads)
    assert max(threads) <= usable_cpus()


def test_limits_is_the_grid_of_the_goals():
    sizes = {(c.hidden_size, c.batch_size, c.input_size) for c in choose("limits")}
    alone = {(H, 1, 1) for H in (16, 64, 100, 256, 512, 1024)}
    assert sizes == alone | {(128, 32, 128), (512, 32, 512), (1024, 64, 1024)}


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"hidden": "8,x"}, "--hidden: expected whole numbers of 1 or more, separated by commas, got '8,x'"),
        ({"seq_len": "0"}, "--seq-len: expected whole numbers of 1 or more, separated by commas, got '0'"),
        ({"batch": ""}, "--batch: expected whole numbers of 1 or more, separated by commas, got ''"),
        ({"threads": "4096"}, f"--threads: expected at most {usable_cpus()}, the CPUs this process may use, got 4096"),
        ({"cell": "rnnn"}, "--cell: expected rnn, got 'rnnn'"),
        ({"operation": "back"}, "--operation: expected forward_step, forward, bptt or train, got 'back'"),
        ({"dtype": "float16"}, "--dtype: expected float32 or float64, got 'float16'"),
    ],
)
def test_a_bad_choice_is_named(choices, message):
    with pytest.raises(ChoiceError) as error:
        choose("quick", **choices)
    assert str(error.value) == message


def test_a_bad_preset_is_named():
    with pytest.raises(ChoiceError, match="--preset: expected quick, standard or limits, got 'quik'"):
        choose("quik")


def test_operations_are_counted():
    def flops(operation, T=5):
        return Case("rnn", operation, 8, 3, T, 2, "float32", 1).flops

    step = 2 * 8 * (3 + 8) * 2
    assert flops("forward_step", T=1) == step
    assert (flops("forward"), flops("bptt"), flops("train")) == (5 * step, 10 * step, 15 * step)


def test_bytes_scale_with_the_dtype_and_add_up():
    def moved(operation, dtype="float32"):
        return Case("rnn", operation, 8, 3, 5, 2, dtype, 1).bytes

    assert moved("forward") == 4 * (5 * 64 + 8 * 4 + 10 * 11 + 16)
    assert moved("train") == moved("forward") + moved("bptt")
    assert moved("train", "float64") == 2 * moved("train")
