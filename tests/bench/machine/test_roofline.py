"""The roofline's rule, on made-up rates."""

import numpy as np
import pytest

from bench.machine import roofline
from tests.bench.synthetic import ROOFLINE as KNOWN


def row(**about):
    sizes = {"cell": "rnn", "hidden_size": 64, "input_size": 1, "dtype": "float32", "threads": 1}
    sizes |= {"layers": 1, "directions": 1}
    return sizes | {"flops": 1e6, "bytes": 1e3} | about


@pytest.mark.parametrize(
    ("about", "level"),
    [
        ({"hidden_size": 64}, "L1"),
        ({"hidden_size": 100}, "L2"),
        ({"hidden_size": 100, "threads": 2}, "L1"),
        ({"hidden_size": 64, "dtype": "float64"}, "L2"),
        ({"cell": "lstm", "hidden_size": 64}, "L2"),
        ({"hidden_size": 600, "input_size": 600}, "L3"),
        ({"hidden_size": 600, "input_size": 600, "threads": 2}, "L3"),
        ({"hidden_size": 500, "input_size": 500, "threads": 2}, "L2"),
        ({"hidden_size": 2048, "input_size": 2048, "threads": 2}, "memory"),  # the last cache is shared
        ({"hidden_size": 100, "dtype": "int8"}, "L1"),
        ({"hidden_size": 100, "dtype": "bfloat16"}, "L1"),
        ({"hidden_size": 150, "dtype": "bfloat16"}, "L2"),
        ({"layers": 2}, "L2"),  # whose upper layers have H inputs, and are at work one at a time
        ({"directions": 2}, "L1"),
        ({"layers": 2, "directions": 2, "hidden_size": 50}, "L1"),
    ],
)
def test_the_level_that_holds_the_weights(about, level):
    assert roofline.holding_level(row(**about), KNOWN) == level


def test_the_bound_is_the_longer_of_the_two():
    assert roofline.bound_s(row(flops=1e9, bytes=1e9), KNOWN) == pytest.approx(1e-2)
    assert roofline.bound_s(row(flops=1e9, bytes=1e10), KNOWN) == pytest.approx(5e-2)
    assert roofline.bound_s(row(flops=1e9, bytes=1e10, threads=2), KNOWN) == pytest.approx(2.5e-2)


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
