"""What rows amount to: speedups, duels, scaling, shares of the roofline, on runs whose ratios are known."""

import numpy as np
import pandas as pd
import pytest

from bench.machine.roofline import bound_s
from bench.results.tables import FASTEST, Facts, below, by_kind, duels, table
from tests.bench.synthetic import LOSSES, LOW, ROOFLINE, SPEEDUPS, make_run

SMALL = {"operation": ["forward", "train"], "hidden_size": [16, 64], "seq_len": [10, 50], "batch_size": [1]}
TINY = SMALL | {"operation": ["forward"], "seq_len": [10]}
DESIGN = (
    "cell,layers,directions,operation,hidden_size,input_size,seq_len,batch_size,lengths,dtype,threads,implementation,version,status,max_error,"
    "loss,compile_s,repeats,median_s,low_s,high_s,p99_s,baseline,speedup,speedup_low,speedup_high,gflops,peak_fraction"
)


def losing(row):
    return 0.5 if row["hidden_size"] == 16 and row["operation"] == "train" else 4.0


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    return make_run(folder, speedups=SPEEDUPS | {"numba-simd": losing}, absent=["jax"], **SMALL)


@pytest.fixture(scope="module")
def frame(run):
    return table([run])


def test_the_columns_are_those_of_the_schema(frame):
    assert ",".join(frame.columns).startswith(DESIGN)
    assert len(frame) == 8 * 5
    ours = frame[frame["implementation"] == "numba-simd"]
    assert ours["repeats"].eq(15).all()
    assert ours["baseline"].eq("numpy").all()
    assert ((ours["low_s"] <= ours["median_s"]) & (ours["median_s"] <= ours["high_s"])).all()
    assert ours["speedup"].round(1).isin([0.5, 4.0]).mean() > 0.8
    np.testing.assert_allclose(ours["gflops"].astype(float), ours["flops"] / ours["median_s"] / 1e9)
    absent = frame[frame["implementation"] == "jax"]
    assert absent["status"].eq("absent").all()
    assert absent[["median_s", "speedup", "gflops", "peak_fraction"]].isna().all(axis=None)
    assert absent["message"].eq("not installed").all()


def test_the_share_of_the_bound_and_what_is_left(run, frame):
    row = frame.loc[2]
    assert row["peak_fraction"] == pytest.approx(bound_s(run.rows[2], ROOFLINE) / row["median_s"])
    assert row["left"] == pytest.approx(1 / row["peak_fraction"])
    assert row["memory_level"] == "L1"


def test_without_a_roofline_there_is_no_share(tmp_path):
    frame = table([make_run(tmp_path / "run", machine={"roofline": None}, **TINY)])
    assert frame["peak_fraction"].isna().all()


def test_calls_to_pay(frame):
    ours = frame[frame["implementation"] == "numba-simd"]
    lost = ours["speedup"] < 1
    assert np.isinf(ours.loc[lost, "calls_to_pay"]).all()
    assert lost.sum() == 2
    assert frame.loc[frame["implementation"] == "numpy", "calls_to_pay"].isna().all()
    won = ours[~lost].iloc[0]
    compile_s = ours.loc[ours["operation"] == won["operation"], "compile_s"].max()
    assert won["calls_to_pay"] == pytest.approx(compile_s / (won["median_s"] * (won["speedup"] - 1)))


def test_duels_pair_ours_with_each_other_and_with_the_fastest(tmp_path):
    run = make_run(tmp_path / "run", noise=0.001, **SMALL)
    found = duels([run], "numba-simd").groupby("against")["speedup"].mean()
    expected = {"numpy": 4, "numba-jit": 4 / 1.3, "torch": 5, FASTEST: 4 / 1.3}
    assert found.to_dict() == pytest.approx(expected, rel=0.01)


def test_ours_in_float32_is_an_other_but_never_the_fastest(tmp_path):
    speedups = {"numpy": 1, "numba-simd": 4, "numba-simd-float32": 5, "torch": 2}
    run = make_run(tmp_path / "run", noise=0.001, speedups=speedups, **TINY | {"dtype": ["int8"]})
    found = duels([run], "numba-simd").groupby("against")["speedup"].mean()
    assert found.to_dict() == pytest.approx({"numpy": 4, "numba-simd-float32": 0.8, "torch": 2, FASTEST: 2}, rel=0.01)
    assert set(Facts([run]).losses["against"]) == {"numba-simd-float32"}
    assert table([run])["loss"].notna().all()


def test_losses_are_the_worst_first(run):
    losses = Facts([run]).losses
    assert set(losses["against"]) == {"numpy", "numba-jit", "torch"}
    assert losses["speedup"].is_monotonic_increasing
    assert set(losses["hidden_size"]) == {16}


def test_runs_merge_and_the_last_one_counts(tmp_path):
    first = make_run(tmp_path / "first", seed=1, **TINY)
    second = make_run(tmp_path / "second", seed=2, **TINY | {"hidden_size": [64, 256]})
    frame = table([first, second])
    assert len(frame) == 3 * 4
    assert frame.loc[frame["hidden_size"] == 64, "run"].eq("second").all()
    assert frame.loc[frame["hidden_size"] == 16, "run"].eq("first").all()


def test_rows_of_two_machines_are_two(tmp_path):
    here = make_run(tmp_path / "here", **TINY)
    there = make_run(tmp_path / "there", machine={"cpu": "Other"}, **TINY)
    assert len(table([here, there])) == 2 * 2 * 4


def test_scaling_is_against_the_fewest_threads(tmp_path):
    sizes = {
        "operation": ["forward"],
        "hidden_size": [16, 512],
        "seq_len": [50],
        "batch_size": [1],
        "threads": [1, 2, 4],
    }
    found = Facts([make_run(tmp_path / "run", noise=0.001, drift=0.001, **sizes)]).scaling
    assert set(found["few"]) == {1}
    assert len(found) == 2 * 2 * 4
    gain = found.groupby(["hidden_size", "threads"])["times"].mean()
    assert gain.to_dict() == pytest.approx({(16, 2): 1, (16, 4): 1, (512, 2): 2**0.7, (512, 4): 4**0.7}, rel=0.02)


def test_one_number_of_threads_does_not_scale(run):
    assert Facts([run]).scaling.empty


def test_a_run_without_compile_times_never_pays(tmp_path):
    run = make_run(tmp_path / "run", operation=["forward"])
    for row in run.rows:
        row["compile_s"] = None
    assert table([run])["calls_to_pay"].isna().all()


def test_kinds_are_what_varies(run):
    kinds = by_kind(duels([run], "numba-simd"))
    assert list(dict.fromkeys(kinds["kind"])) == ["all", "operation"]
    train = kinds.query("value == 'train' and against == 'numpy'").iloc[0]
    assert train[["faster", "no difference", "slower"]].to_list() == [2, 0, 2]
    assert train["mean"] == pytest.approx(2**0.5, rel=0.05)
    assert isinstance(kinds, pd.DataFrame)


def test_networks_are_kinds_and_tell_cases_apart(tmp_path):
    grid = TINY | {"layers": [1, 2], "directions": [1, 2], "lengths": ["full", "ragged"]}
    found = duels([make_run(tmp_path / "run", **grid)], "numba-simd")
    networks = by_kind(found).query("kind == 'network'")["value"]
    assert networks.nunique() == 8
    assert "2 layers, 2 directions, ragged" in set(networks)
    one = duels([make_run(tmp_path / "one", **TINY)], "numba-simd")
    assert len(found.query("against == 'numpy'")) == 8 * len(one.query("against == 'numpy'"))


def test_below_float32_speedups_are_over_our_own_float32_and_have_a_loss_beside_them(tmp_path):
    run = make_run(tmp_path / "run", noise=0, **TINY | LOW)
    found = below([run])
    assert set(found["implementation"]) == set(LOSSES)  # what computes in float32 is left out
    speedups = found.groupby("implementation")["speedup"].agg(["min", "max"])
    assert speedups.loc["numba-simd"].tolist() == pytest.approx([2.5, 2.5])
    assert speedups.loc["torch"].tolist() == pytest.approx([0.75, 0.75])
    assert found.query("dtype == 'int8'").groupby("implementation")["loss"].max().to_dict() == LOSSES
    assert (found["speedup_low"] < found["speedup"]).all()
    rows = table([run])
    assert rows["loss"].notna().all()
    assert rows["peak_fraction"].notna().all()


def test_a_loss_without_our_own_float32_has_no_speedup(tmp_path):
    alone = {name: speedup for name, speedup in LOW["speedups"].items() if name != "numba-simd-float32"}
    assert below([make_run(tmp_path / "run", **TINY | LOW | {"speedups": alone})]).empty


def test_nothing_is_below_float32_in_a_run_without_it(run):
    assert below([run]).empty
    assert table([run])["loss"].isna().all()
