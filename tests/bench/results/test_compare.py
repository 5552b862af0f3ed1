"""Two runs set against each other: noise and drift are no difference, a change of ours is, and nothing is hidden."""

import io

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from bench.grid.cases import ChoiceError
from bench.results.compare import compare, expect_comparable, noise, regressions, tables
from bench.results.runs import Run
from tests.bench.synthetic import MACHINE, SPEEDUPS, make_run

GRID = {"operation": ["forward", "train"], "hidden_size": [16, 64, 256], "seq_len": [50]}


def slower_at_256(row):
    return 3.0 if row["hidden_size"] == 256 else 4.0


@pytest.fixture
def old(tmp_path):
    return make_run(tmp_path / "old", **GRID)


def test_a_run_is_no_different_from_itself(old):
    frame = compare(old, Run.load(old.folder))
    assert len(frame) == len(old.rows)
    assert set(frame["verdict"]) == {"no difference"}
    assert (frame["change"] == 1).all()


@pytest.mark.parametrize("seed", range(1, 6))
def test_two_runs_of_the_same_code_are_no_different(old, tmp_path, seed):
    frame = compare(old, make_run(tmp_path / "new", seed=seed, **GRID))
    assert set(frame["verdict"]) == {"no difference"}
    assert regressions(frame, 0.05).empty


def test_a_slower_machine_is_not_a_slower_code(old, tmp_path):
    new = make_run(tmp_path / "new", seed=1, **GRID)
    assert set(compare(old, stretched(new, 1.25, SPEEDUPS))["verdict"]) == {"no difference"}


def test_a_change_of_ours_is_found_where_it_is(old, tmp_path):
    new = make_run(tmp_path / "new", seed=1, speedups=SPEEDUPS | {"numba-simd": slower_at_256}, **GRID)
    frame = compare(old, new)
    slower = frame[frame["verdict"] == "slower"]
    assert set(slower["implementation"]) == {"numba-simd"}
    assert set(slower["hidden_size"]) == {256}
    assert len(slower) == 4
    assert slower["change"].to_numpy() == pytest.approx(0.75, rel=0.06)
    assert len(regressions(frame, 0.05)) == 4
    assert regressions(frame, 0.5).empty
    assert set(compare(new, old)["verdict"]) == {"no difference", "faster"}


def test_a_change_below_the_threshold_does_not_count(old, tmp_path):
    new = make_run(tmp_path / "new", seed=1, noise=0.001, speedups=SPEEDUPS | {"numba-simd": 3.6}, **GRID)
    assert "slower" in set(compare(old, new)["verdict"])
    frame = compare(old, new, threshold=0.3)
    assert set(frame["verdict"]) == {"no difference"}
    assert frame["why"].str.contains("less than 30%").any()


def test_noise_between_processes_is_estimated_from_unchanged_libraries(old, tmp_path):
    rng = np.random.default_rng(0)

    def luck(speedup):  # of a process, which its rounds cannot see
        return lambda row: speedup * np.exp(rng.normal(0, 0.2))

    lucky = {name: luck(speedup) if name != "numpy" else 1.0 for name, speedup in SPEEDUPS.items()}
    frame = compare(old, make_run(tmp_path / "new", seed=1, speedups=lucky, **GRID))
    assert noise(frame) > 0.2
    timed = frame[frame["implementation"] != "numpy"]
    assert (timed["verdict"] == "no difference").mean() > 0.9


def stretched(run, factor, names):
    """Return the run with the times of these implementations multiplied."""
    for row in run.rows:
        if row["implementation"] in names:
            row["times"] = [factor * seconds for seconds in row["times"]]
    return run


def test_a_baseline_that_moves_with_all_others_has_not_changed(old, tmp_path):
    frame = compare(old, stretched(make_run(tmp_path / "new", seed=1, **GRID), 3, SPEEDUPS))
    assert set(frame["verdict"]) == {"no difference"}
    baseline = frame[frame["implementation"] == "numpy"]
    assert set(baseline["relative_to"]) == {""}
    assert set(baseline["why"]) == {"the others moved with it"}


def test_a_baseline_that_moves_alone_has_changed(old, tmp_path):
    frame = compare(old, stretched(make_run(tmp_path / "new", seed=1, **GRID), 1.5, ["numpy"]))
    assert set(frame.loc[frame["implementation"] == "numpy", "verdict"]) == {"slower"}
    assert set(frame.loc[frame["implementation"] != "numpy", "verdict"]) == {"faster"}
    assert regressions(frame, 0.05).empty


def test_a_baseline_with_nothing_beside_it(tmp_path):
    alone = {"speedups": {"numpy": 1.0}, **GRID}
    old = make_run(tmp_path / "old", **alone)
    drifted = compare(old, stretched(make_run(tmp_path / "near", **alone), 1.2, ["numpy"]))
    assert set(drifted["verdict"]) == {"no difference"}
    far = compare(old, stretched(make_run(tmp_path / "far", **alone), 2, ["numpy"]))
    assert set(far["verdict"]) == {"not comparable"}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"version": "2.0"}, "other versions: 1.0 / 2.0"),
        ({"status": "unsupported", "times": []}, "no longer works: unsupported"),
    ],
)
def test_a_row_that_cannot_be_compared_says_why(old, tmp_path, change, why):
    new = make_run(tmp_path / "new", seed=1, **GRID)
    row = next(row for row in new.rows if row["implementation"] == "torch")
    row.update(change)
    frame = compare(old, new)
    assert frame["verdict"].value_counts().to_dict() == {"no difference": len(frame) - 1, "not comparable": 1}
    assert frame.loc[frame["verdict"] == "not comparable", "why"].to_list() == [why]


def test_a_row_that_broke_is_a_regression(old, tmp_path):
    new = make_run(tmp_path / "new", seed=1, **GRID)
    row = next(row for row in new.rows if row["implementation"] == "numba-simd")
    row.update(status="wrong", message="hs: error 1, bound 0.1", times=[])
    assert list(regressions(compare(old, new), 0.05)["why"]) == ["no longer works: wrong, hs: error 1, bound 0.1"]


def test_what_needs_the_baseline_is_not_comparable_without_it(old, tmp_path):
    new = make_run(tmp_path / "new", seed=1, **GRID)
    base = next(row for row in new.rows if row["implementation"] == "numpy")
    base["version"] = "2.0"
    reasons = compare(old, new).query("verdict == 'not comparable'")["why"]
    assert sorted(set(reasons)) == ["other versions of numpy: 1.0 / 2.0", "other versions: 1.0 / 2.0"]


def test_missing_cases_are_named(old, tmp_path):
    new = make_run(tmp_path / "new", seed=1, **GRID | {"hidden_size": [16, 64, 512]})
    reasons = compare(old, new)["why"]
    assert (reasons == "not in the new run").sum() == (reasons == "not in the old run").sum() == 16


def test_another_machine_is_not_comparable(old, tmp_path):
    new = make_run(tmp_path / "new", machine={"cpu": "Other"}, **GRID)
    frame = compare(old, new)
    assert set(frame["verdict"]) == {"not comparable"}
    assert frame["why"].str.startswith("another machine: Imaginary").all()
    assert MACHINE["cpu"] != "Other"


def test_the_terminal_shows_counts_and_changes(old, tmp_path):
    new = make_run(tmp_path / "new", seed=1, speedups=SPEEDUPS | {"numba-simd": slower_at_256}, **GRID)
    text = "\n".join(_text(table) for table in tables(compare(old, new)))
    assert "rnn forward H256 I256 T50 B32 float32 1t" in text
    assert "slower" in text
    assert "A change counts from" in text
    assert len(tables(compare(old, old))) == 1


def test_runs_with_nothing_in_common_are_refused_in_a_line_for_each_reason(old, tmp_path):
    other = make_run(tmp_path / "new", **GRID | {"seq_len": [7]})
    frame = compare(old, other)
    shown = tables(frame)
    text = "\n".join(_text(table) for table in shown)
    assert [table.title for table in shown] == ["Verdicts", "Not comparable"]
    assert shown[1].row_count == 2
    assert text.count("not in the new run") == text.count("not in the old run") == 1
    for strict in (False, True):
        with pytest.raises(ChoiceError, match=f"compare: expected rows that can be compared, got none of {len(frame)}"):
            expect_comparable(frame, strict)


def test_require_all_refuses_any_row_that_cannot_be_compared(old, tmp_path):
    more = make_run(tmp_path / "new", **GRID | {"hidden_size": [16, 64, 256, 512]})
    frame = compare(old, more)
    expect_comparable(frame, False)
    with pytest.raises(ChoiceError, match=r"--require-all: .* got \d+ not comparable: not in the old run"):
        expect_comparable(frame, True)
    expect_comparable(compare(old, old), True)


def test_one_round_has_a_change_without_an_interval(tmp_path):
    old, new = (
        make_run(tmp_path / name, seed=n, rounds=1, speedups={"numpy": 1.0, "torch": speed}, **GRID)
        for n, (name, speed) in enumerate({"old": 1.0, "new": 2.0}.items())
    )
    found = compare(old, new)
    found["verdict"] = "faster"  # so that the rows are shown
    assert "nan" not in "\n".join(_text(table) for table in tables(found))


def test_empty_runs_compare_to_nothing(tmp_path):
    empty = make_run(tmp_path / "empty", speedups={}, **GRID)
    frame = compare(empty, empty)
    assert isinstance(frame, pd.DataFrame)
    assert frame.empty
    assert tables(frame)
    assert regressions(frame, 0.05).empty


def _text(table):
    console = Console(width=200)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_a_text_of_a_run_is_shown_as_it_is_and_obeyed_by_no_terminal(tmp_path):
    name = "[/red][link=x]y[bold]"
    runs = [make_run(tmp_path / n, speedups={"numpy": 1.0, name: 2.0}, **GRID) for n in ("old", "new")]
    for row in runs[1].rows[1::2]:
        row.update(status="error", message="\x1b]0;mine\x07[/bold] died", times=[])
    console = Console(width=250, record=True, file=io.StringIO())
    for table in tables(compare(*runs)):
        console.print(table)
    shown = console.export_text(styles=False)
    assert name in shown
    assert "?]0;mine?[/bold] died" in shown
    assert "\x1b" not in shown
