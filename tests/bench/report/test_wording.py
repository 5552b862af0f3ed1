"""The sentences of a report, on runs whose outcome is known."""

import numpy as np
import pytest

from bench.report import wording
from bench.results.formats import calls, counted, ends, listed, percent
from bench.results.statistics import Interval
from bench.results.tables import Facts
from tests.bench.synthetic import make_run

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
    assert calls(np.inf) == "never"
    assert [percent(share) for share in (0.34, 0.099, 0.012, 1.2)] == ["34%", "9.9%", "1.2%", "120%"]


@pytest.mark.parametrize(("name", "written"), [("numpy", "NumPy"), ("something-new", "something-new")])
def test_names(name, written):
    assert wording.named(name) == written
