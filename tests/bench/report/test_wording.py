"""The sentences of a report, on runs whose outcome is known."""

import numpy as np
import pytest

from bench.report import report, wording
from bench.report.sheets import sheets
from bench.results.formats import calls, counted, ends, listed, percent, short, typical
from bench.results.runs import ALIKE
from bench.results.statistics import Interval
from bench.results.tables import FASTEST, Facts
from tests.bench.synthetic import LOW, make_run

TINY = {"operation": ["forward"], "hidden_size": [16, 64], "seq_len": [10], "batch_size": [1]}


def test_nowhere_slower_is_said(tmp_path):
    facts = Facts([make_run(tmp_path / "run", **TINY)])
    first, against, fastest = wording.answer(facts)
    assert first == "numba-simd is slower than none of the others in any case."
    assert against.startswith("Against NumPy it is ")
    assert fastest.startswith("Against whichever other is the fastest in each case it is ")
    assert wording.share_line(facts).startswith("**Unrolled**: numba-simd is ")
    assert "slower in 0 of 2 cases. RNN, float32, 1 thread, on Imaginary 9000" in wording.share_line(facts)
    assert wording.threads(facts) == []
    assert wording.warnings(facts) == []


def test_networks_are_said_and_ragged_is_explained(tmp_path):
    grid = TINY | {"layers": [1, 2], "directions": [2], "lengths": ["full", "ragged"]}
    facts = Facts([make_run(tmp_path / "run", **grid)])
    assert "RNN, 1 and 2 layers, 2 directions, full and ragged lengths, float32, 1 thread" in wording.share_line(facts)
    (ragged,) = wording.ragged(facts)
    assert "lengths drawn uniformly from T/2 to T" in ragged
    assert ragged in wording.answer(facts)
    assert wording.ragged(Facts([make_run(tmp_path / "full", **TINY)])) == []


def test_an_activation_that_is_not_the_usual_one_is_said(tmp_path):
    facts = Facts([make_run(tmp_path / "run", **TINY | {"activation": ["relu"]})])
    assert "RNN, relu, float32, 1 thread" in wording.share_line(facts)
    assert wording.case_name(facts.rows.iloc[0], set()).startswith("relu, ")
    both = Facts([make_run(tmp_path / "both", **TINY | {"activation": ["tanh", "relu"]})])
    assert "RNN, relu and tanh, float32, 1 thread" in wording.share_line(both)
    assert set(both.rows["network"]) == {"", "relu"}
    assert len(both.rows) == 2 * len(facts.rows)


def unlike(row):
    return 1.5 if row["hidden_size"] == 16 else 6.0


def test_a_mean_that_the_cases_do_not_tell_is_not_said(tmp_path):
    """The geometric mean of two cases, 3.0, has an interval from nearly 0 to thousands."""
    run = make_run(tmp_path / "run", speedups={"numpy": 1.0, "numba-simd": unlike, "torch": 0.9}, noise=0, **TINY)
    facts = Facts([run])
    text = report.markdown(facts)
    assert wording.share_line(facts).startswith("**Unrolled**: numba-simd is 1.50× to 6.0× as fast as NumPy and")
    assert wording.answer(facts)[1] == "Against NumPy it is 1.50× to 6.0× as fast in 2 cases. Faster in 2."
    assert "| numpy | 1.50× to 6.0× | – | 2 |" in text
    assert "| all cases | 1.50× to 6.0× (2–0–0) |" in text
    assert "3.0×" not in text
    assert "3.0×" not in report.html(facts)


def test_the_first_line_has_the_interval_of_its_means(tmp_path):
    line = wording.share_line(Facts([make_run(tmp_path / "run", noise=0, **TINY)]))
    assert "numba-simd is 4.0× as fast as NumPy (95%: 4.0 to 4.0) and 3.1× as fast" in line


def test_one_case_has_no_mean(tmp_path):
    facts = Facts([make_run(tmp_path / "run", **TINY | {"hidden_size": [16]})])
    assert wording.answer(facts)[1] == "Against NumPy it is 4.0× as fast in 1 case. Faster in 1."
    assert len(wording.left(facts)) == 1


def test_without_the_baseline_the_first_line_names_another(tmp_path):
    facts = Facts([make_run(tmp_path / "run", speedups={"numba-simd": 4.0, "torch": 1.0}, noise=0, **TINY)])
    assert "numba-simd is 4.0× as fast as PyTorch (95%: 4.0 to 4.0), slower in 0 of 2" in wording.share_line(facts)


def test_a_gain_by_threads_that_the_cases_do_not_tell_is_not_said(tmp_path):
    gains = {"numpy": 1.0, "numba-simd": lambda row: 4 * unlike(row) if row["threads"] == 2 else 4}
    run = make_run(tmp_path / "run", speedups=gains, noise=0, drift=0, **TINY | {"threads": [1, 2]})
    (sentence,) = wording.threads(Facts([run]))
    assert sentence.endswith("times as fast: numba-simd 1.50× to 6.0× and NumPy 1.00×.")


def test_without_a_roofline_nothing_is_left_to_say(tmp_path):
    assert wording.left(Facts([make_run(tmp_path / "run", machine={"roofline": None}, **TINY)])) == []


def test_warnings_name_their_run_where_there_are_several(tmp_path):
    busy = {"warnings": ["The machine was busy."]}
    runs = [make_run(tmp_path / "a", machine=busy, **TINY), make_run(tmp_path / "b", **TINY)]
    assert wording.warnings(Facts(runs)) == ["The machine was busy. (Run a)"]


def test_numbers_are_written_as_they_are_read():
    assert listed(["a", "b", "c"]) == "a, b and c"
    assert listed([]) == ""
    assert counted(1, "case") == "1 case"
    assert ends(Interval(2, 1.5, 2.5)) == "1.50 – 2.5"
    assert ends(Interval(2, np.nan, np.nan)) == "–"
    assert [short(ratio) for ratio in (0.00123, 0.0949, 0.12, 1.9, 3.21, 32.1)] == [
        "0.0012",
        "0.095",
        "0.12",
        "1.90",
        "3.2",
        "32",
    ]
    assert [typical(cases) for cases in ([2.7], [2.7, 2.7], [2, 5])] == ["2.7×", "2.7×", "2.0× to 5.0×"]
    assert calls(np.inf) == "never"
    assert [percent(share) for share in (0.34, 0.099, 0.012, 1.2)] == ["34%", "9.9%", "1.2%", "120%"]


@pytest.mark.parametrize(("name", "written"), [("numpy", "NumPy"), ("something-new", "something-new")])
def test_names(name, written):
    assert wording.named(name) == written


def test_what_a_dtype_below_float32_buys_and_costs_is_said_of_each(tmp_path):
    facts = Facts([make_run(tmp_path / "run", noise=0, **TINY | LOW)])
    assert wording.answer(facts)[-2:] == wording.below(facts)
    int8, bfloat16 = wording.below(facts)
    assert int8 == (
        "In int8 numba-simd is 2.5× as fast as its own float32: the geometric mean of 2 cases (95% interval 2.5 to "
        "2.5), and loses at most 0.012 of a state within ±1. The fastest other, ONNX Runtime, loses at most 0.03; "
        "numba-simd is 1.67× as fast as it: the geometric mean of 2 cases (95% interval 1.67 to 1.67)."
    )
    assert bfloat16.startswith("In bfloat16 numba-simd is 2.5× as fast as its own float32: ")
    assert "loses at most 0.0015 of a state" in bfloat16


def test_where_ours_loses_below_float32_is_said_before_what_it_buys(tmp_path):
    speedups = LOW["speedups"] | {"numba-simd": lambda row: 3.0 if row["hidden_size"] == 16 else 12.0}
    facts = Facts([make_run(tmp_path / "run", noise=0, **TINY | LOW | {"speedups": speedups})])
    assert wording.below(facts)[0] == (
        "In int8 numba-simd is slower than its own float32 in 1 of 2 cases and ONNX Runtime in 1 of 2 cases. It is "
        "0.75× to 3.0× as fast as its own float32 in 2 cases, and loses at most 0.012 of a state within ±1. The "
        "fastest other, ONNX Runtime, loses at most 0.03; numba-simd is 0.50× to 2.0× as fast as it in 2 cases."
    )


def test_without_another_below_float32_ours_is_said_alone(tmp_path):
    speedups = {name: LOW["speedups"][name] for name in ("numpy", "numba-simd", "numba-simd-float32")}
    said = wording.below(Facts([make_run(tmp_path / "run", **TINY | LOW | {"speedups": speedups})]))
    assert len(said) == 2
    assert not any("other" in text for text in said)


def test_nothing_is_said_of_what_a_run_has_not(tmp_path):
    assert wording.below(Facts([make_run(tmp_path / "run", **TINY)])) == []


def test_another_version_is_named_and_is_no_rival(tmp_path):
    other = "numba-simd@main~5"
    run = make_run(tmp_path / "run", speedups={"numpy": 1.0, "torch": 2.0, "numba-simd": 4.0, other: 8.0}, **TINY)
    run.info["implementations"][other]["version"] = "1.0, revision abcdefg"
    facts = Facts([run])
    assert facts.implementations == ["numpy", "numba-simd", other, "torch"]
    (said,) = wording.versions(facts)
    assert said.startswith(
        "Of two versions, numba-simd (1.0) is 0.50× as fast as numba-simd@main~5 (1.0, revision abcdefg): the "
    )
    assert said in wording.answer(facts)
    against = facts.duels[facts.duels["against"] == FASTEST]
    assert np.allclose(against["speedup"], 2.0, rtol=0.1)  # torch, though the other version is faster
    assert sheets(facts)[0].name == "versions"
    plain = Facts([make_run(tmp_path / "plain", **TINY)])
    assert wording.versions(plain) == []
    assert "versions" not in [sheet.name for sheet in sheets(plain)]


def test_two_versions_of_a_peer_are_told_by_its_name(tmp_path):
    run = make_run(tmp_path / "run", speedups={"numpy": 1.0, "torch": 2.0, "torch@../old": 1.0}, **TINY)
    (said,) = wording.versions(Facts([run]))
    assert said.startswith("Of two versions, PyTorch (1.0) is 2.0× as fast as PyTorch@../old (1.0)")


def test_machines_that_are_alike_are_told_by_their_names_and_what_differs_is_said(tmp_path):
    runs = [make_run(tmp_path / "east", **TINY), make_run(tmp_path / "west", seed=1, **TINY)]
    assert len(Facts(runs).machines) == 1
    assert wording.machines(Facts(runs)) == []
    for run, host, speed in zip(runs, ("east", "west"), (1.0, 3.0), strict=True):
        run.info["host"] = host
        for row in run.rows:
            if row["implementation"] == "numba-simd":
                row["times"] = [seconds * speed for seconds in row["times"]]
    for run in runs:
        run.info["host"] = ALIKE  # shared by machines of two kinds, which their description does not tell apart
    assert [name.partition(": ")[0] for name in Facts(runs).machines] == ["east", "west"]
    for run, host in zip(runs, ("east", "west"), strict=True):
        run.info["host"] = host
    facts = Facts(runs)
    east, west = facts.machines
    assert (east[:6], west[:6]) == ("east: ", "west: ")
    assert len(facts.rows) == sum(len(run.rows) for run in runs)
    said = wording.machines(facts)[-1]
    assert said.startswith(f"Against NumPy, numba-simd gains least on {west} (1.")
    assert f"most on {east} (" in said
    assert said.endswith("In none of 2 cases it is faster on one machine and slower on another.")
    assert sheets(facts)[0].name == "machines"
    html = report.html(facts)
    assert "What differs between the machines" in html
    assert "In what the machines differ." not in html
