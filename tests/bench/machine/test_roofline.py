"""The roofline's rule, on made-up rates."""

from dataclasses import asdict
from itertools import pairwise

import numpy as np
import pytest

from bench.grid.cases import Case
from bench.machine import roofline
from tests.bench.synthetic import ROOFLINE as KNOWN


def row(**about):
    case = {"cell": "rnn", "operation": "forward", "hidden_size": 64, "input_size": 1, "seq_len": 50, "batch_size": 1}
    case = Case(**case | {"dtype": "float32", "threads": 1} | {n: about[n] for n in about if n not in COSTS})
    return asdict(case) | {"flops": case.flops, "bytes": case.bytes} | about


COSTS = ("flops", "bytes", "limits")


@pytest.mark.parametrize(
    ("about", "level"),
    [
        ({"hidden_size": 64}, "L1"),
        ({"hidden_size": 100}, "L2"),
        ({"hidden_size": 100, "threads": 2}, "L1"),
        ({"hidden_size": 91, "dtype": "float64"}, "L2"),
        ({"cell": "lstm", "hidden_size": 64}, "L2"),
        ({"hidden_size": 600}, "L3"),
        ({"hidden_size": 600, "threads": 2}, "L2"),
        ({"hidden_size": 3000, "threads": 2}, "memory"),  # the last cache is shared
        ({"hidden_size": 150, "dtype": "int8"}, "L1"),
        ({"hidden_size": 128, "dtype": "bfloat16"}, "L1"),
        ({"hidden_size": 150, "dtype": "bfloat16"}, "L2"),
        ({"layers": 2, "directions": 2}, "L1"),  # a layer and a direction at a time
    ],
)
def test_the_level_that_holds_the_last_of_a_recurrent_matrix(about, level):
    assert roofline.holding_level(row(**about), KNOWN) == level


def test_the_bound_is_the_longest_of_the_three():
    assert roofline.bounds_s(row(flops=1e9), KNOWN)["operations"] == pytest.approx(1e-2)
    assert roofline.bound_s(row(flops=1e9), KNOWN) == pytest.approx(1e-2)
    assert roofline.bound_s(row(flops=1e3, hidden_size=600), KNOWN) > 50 * 0.3 * 1.44e6 / 2e10
    assert roofline.bound_s(row(cell="lstm", hidden_size=8, flops=1e3), KNOWN) == pytest.approx(50 * 5e-8)


def test_what_a_cache_keeps_of_a_matrix_counts_at_its_bandwidth():
    for H in (64, 90, 100, 300, 500, 600, 2500):
        size, found = 4 * H * H, roofline.bounds_s(row(hidden_size=H, bytes=4 * H * H * 50), KNOWN)["bytes"]
        left, want = size, 0.0
        for held, bandwidth in ((2**15, 2e11), (2**20, 1e11), (2**25, 2e10), (np.inf, 1e10)):
            want += min(left, held) / bandwidth
            left -= min(left, held)
        assert found == pytest.approx(50 * want), H


def test_the_bytes_bound_never_jumps_where_a_matrix_outgrows_a_cache():
    sizes = range(40, 3000, 4)
    found = [roofline.bounds_s(row(hidden_size=H, seq_len=10), KNOWN)["bytes"] / H**2 for H in sizes]
    assert max(b / a for a, b in pairwise(found)) < 1.15


def test_two_threads_hold_twice_as_much_nearby():
    one, two = (roofline.bounds_s(row(hidden_size=100, threads=n), KNOWN)["bytes"] for n in (1, 2))
    assert two < one / 2


@pytest.mark.parametrize(
    ("about", "chain"),
    [
        ({}, 50 * 2e-8),
        ({"operation": "forward_step", "seq_len": 1}, 2e-8),
        ({"operation": "stream", "seq_len": 1000}, 2e-8),
        ({"operation": "bptt"}, 50 * 1e-9),
        ({"operation": "train"}, 50 * 2.1e-8),
        ({"layers": 3}, 52 * 2e-8),
        ({"directions": 2}, 50 * 2e-8),
        ({"batch_size": 32, "input_size": 64}, 50 * 2e-8),
        ({"dtype": "int8"}, 50 * 2e-8),
        ({"cell": "gru", "threads": 2}, 50 * 4e-8),
    ],
)
def test_steps_wait_for_each_other(about, chain):
    assert roofline.chain_s(row(**about), KNOWN) == pytest.approx(chain)


def test_ragged_sequences_have_the_steps_of_the_longest():
    r = row(lengths="ragged", batch_size=3, seq_len=50)
    assert roofline.chain_s(r, KNOWN) == pytest.approx(Case(**{n: r[n] for n in CASE}).steps.max() * 2e-8)


CASE = Case.__dataclass_fields__


def test_the_least_time_of_a_step_is_told_by_dtype_and_cell():
    shown = roofline.chains(KNOWN)
    assert list(shown["dtype"]) == ["float32", "float64"]
    assert shown.loc[0, ["RNN", "GRU", "LSTM"]].to_list() == ["20 ns", "40 ns", "50 ns"]


def test_what_was_measured_beside_the_rounds_counts():
    half = {"gflops": 50.0, "bytes_per_s": {"L1": 1e11, "L2": 5e10, "L3": 1e10}, "chains": {"rnn": 4e-8}}
    assert roofline.bound_s(row(flops=1e9, limits=half), KNOWN) == pytest.approx(2e-2)
    slow, usual = row(limits=half), row()
    for name, value in roofline.bounds_s(usual, KNOWN).items():
        assert roofline.bounds_s(slow, KNOWN)[name] == pytest.approx(2 * value), name
    assert KNOWN["rates"][0]["gflops"] == 100.0


def test_a_roofline_without_chains_is_still_read():
    old = KNOWN | {"rates": [{n: rate[n] for n in rate if n != "chains"} for rate in KNOWN["rates"]]}
    assert roofline.chain_s(row(), old) == 0
    assert roofline.bound_s(row(flops=1e9), old) == pytest.approx(1e-2)
    assert len(roofline.chains(old)) == 0
    assert list(roofline.table(old)) == ["dtype", "Threads", "FMA peak", "L1", "L2", "L3", "memory"]


def test_between_two_numbers_of_threads_rates_are_interpolated():
    rates = [*KNOWN["rates"], {**KNOWN["rates"][0], "threads": 4, "gflops": 400.0}]
    assert roofline.ceilings(KNOWN | {"rates": rates}, "float32", 3, "L1")[0] == pytest.approx(3e11)


def test_below_float32_operations_are_bound_by_their_own_peak_or_float32s():
    assert roofline.bound_s(row(flops=1e9, dtype="int8"), KNOWN) == pytest.approx(2.5e-3)
    assert roofline.bound_s(row(flops=1e9, dtype="bfloat16"), KNOWN) == pytest.approx(1e-2)


def test_a_roofline_without_a_dtype_says_nothing_of_its_rows():
    old = KNOWN | {"rates": [rate for rate in KNOWN["rates"] if rate["dtype"] in ("float32", "float64")]}
    for dtype in ("int8", "bfloat16"):
        assert np.isnan(roofline.bound_s(row(dtype=dtype), old))
        assert np.isnan(roofline.ceilings(old, dtype, 1, "L1")).all()


def test_the_table_names_the_peaks_below_float32():
    table = roofline.table(KNOWN).query("Threads == 1").set_index("dtype")
    assert table.loc["int8", "FMA peak"] == "400 Gop/s"
    assert table.loc["bfloat16", "FMA peak"] == "60 GFLOP/s"
