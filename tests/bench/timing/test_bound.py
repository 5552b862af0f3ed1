"""The bound is one: nothing that was verified is faster, but for noise."""

import pytest

from bench.grid.cases import Case
from bench.grid.presets import Effort
from bench.implementations import find
from bench.results.tables import table
from bench.timing.loop import Bench
from bench.timing.plan import Plan, open_run

NOISE = 1.1
EFFORT = Effort(round_s=0.005, fewest=5, case_s=0.1)


def cases():
    """Yield cases whose weights lie in every cache and between two, and whose operations, bytes or steps count."""
    for cell, operation, H, B in [
        ("rnn", "forward", 1, 1),
        ("rnn", "forward", 16, 1),
        ("gru", "forward", 16, 1),
        ("lstm", "forward", 8, 1),
        ("rnn", "forward", 100, 1),
        ("lstm", "forward", 64, 1),
        ("gru", "forward", 256, 1),
        ("lstm", "forward", 400, 1),
        ("lstm", "forward", 600, 1),
        ("rnn", "forward", 512, 64),
        ("lstm", "train", 256, 32),
        ("gru", "bptt", 256, 32),
        ("rnn", "bptt", 8, 1),
        ("rnn", "forward_step", 512, 1),
        ("gru", "stream", 64, 1),
    ]:
        T = {"forward_step": 1, "stream": 200}.get(operation, 50)
        yield Case(cell, operation, H, 1 if B == 1 else H, T, B, "float32", 1)
    for dtype in ("float64", "bfloat16", "int8"):
        yield Case("gru", "forward", 256, 1, 50, 1, dtype, 1)
        yield Case("lstm", "forward", 256, 256, 20, 32, dtype, 2)
    yield Case("lstm", "forward", 128, 1, 50, 1, "float32", 1, layers=2, directions=2)


@pytest.mark.slow
def test_nothing_is_faster_than_its_bound(tmp_path):
    every = list(cases())
    names = ("numpy", "numba-simd", "onnxruntime")
    plan = Plan("bound", {}, every, {name: find()[name] for name in names}, EFFORT)
    run, _ = open_run(plan, tmp_path, fresh=True)
    with Bench(run, plan) as bench:
        for case in every:
            bench.measure(case)
    rows = table([run])
    rows = rows[rows["status"] == "ok"]
    if rows["peak_fraction"].isna().all():
        pytest.skip("no roofline was measured here")
    shown = rows[["cell", "operation", "hidden_size", "dtype", "implementation", "peak_fraction", "bound_by"]]
    assert (rows["peak_fraction"] > 0).all(), shown
    assert (rows["peak_fraction"] <= NOISE).all(), shown[rows["peak_fraction"] > NOISE]
    assert set(rows["bound_by"]) == {"operations", "bytes", "steps"}, shown
