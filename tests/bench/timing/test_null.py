import pytest
from typer.testing import CliRunner

from bench.__main__ import app
from bench.grid.cases import Case
from bench.results.statistics import Interval
from bench.timing import null
from bench.timing.null import OFF, Comparison, allowed, median_ratio, passes

CASE = Case("rnn", "train", 8, 1, 5, 1, "float32", 1)


def comparisons(*ratios):
    return [Comparison(CASE, "numpy", Interval(*ratio), 11) for ratio in ratios]


@pytest.mark.parametrize(("count", "limit"), [(1, 1), (20, 4), (50, 7), (100, 10), (200, 10), (1000, 50)])
def test_how_many_may_be_different(count, limit):
    assert allowed(count) == limit


def test_the_harness_fails_if_too_many_are_different():
    same, apart = (1.0, 0.98, 1.02), (1.005, 1.001, 1.01)
    assert passes(comparisons(*[same] * 190, *[apart] * 10))
    assert not passes(comparisons(*[same] * 189, *[apart] * 11))


@pytest.mark.parametrize(("ratio", "passed"), [(0.985, False), (0.995, True), (1.005, True), (1.015, False)])
def test_the_harness_fails_if_one_place_is_better(ratio, passed):
    found = comparisons(*[(ratio, 0.9, 1.1)] * 20)
    assert median_ratio(found).median == ratio
    assert passes(found) is passed


@pytest.mark.parametrize(("slower", "passed"), [(19, True), (26, False)])
def test_chance_is_not_a_better_place(slower, passed):
    """Of 30 alike, the second is slower in 19 or more with a chance of 10 %, in 26 or more with 0.003 %."""
    found = comparisons(*[(0.97, 0.9, 1.1)] * (30 - slower), *[(1.02, 0.9, 1.1)] * slower)
    assert median_ratio(found).median > 1 + OFF
    assert passes(found) is passed


@pytest.mark.parametrize(("ratios", "said"), [([], "nothing was put to the test"), ([(1.0, 0.9, 1.1)], "is 1.0000;")])
def test_few_comparisons_are_told_without_a_nan(monkeypatch, ratios, said):
    monkeypatch.setattr(null, "compare", lambda *_: iter(comparisons(*ratios)))
    result = CliRunner().invoke(app, ["null", "--comparisons", "1"])
    assert said in result.output
    assert "nan" not in result.output
    assert result.exit_code == (0 if ratios else 1)


@pytest.mark.slow
def test_alike_is_no_different(tmp_path):
    found = list(null.compare(60, tmp_path))
    different = [(one.case.id, one.implementation, one.ratio) for one in found if one.different]
    assert len(found) == 60
    assert passes(found), (median_ratio(found), different)


def test_a_comparison_is_a_row_of_a_run(tmp_path, monkeypatch):
    monkeypatch.setattr(null, "EFFORT", null.EFFORT._replace(round_s=0.001, fewest=3, case_s=0.01))
    (one,) = null.compare(1, tmp_path, ("numpy",))
    assert one.implementation == "numpy"
    assert one.rounds >= 3
    assert 0.1 < one.ratio.median < 10
    assert len(list(tmp_path.glob("*-null/run.json"))) == 1
