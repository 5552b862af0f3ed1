from collections import Counter

import pytest

from bench.results.runs import Run

pytest.importorskip("distributed")

from tests.bench.fleet.simulation import NAMES, check, simulate


def test_every_case_of_many_machines_is_written_once(tmp_path):
    runs, _ = simulate(8, 25, (0.02, 0.1), tmp_path)
    check(runs, 8, 25)


def test_a_slow_machine_has_fewer_of_the_cases_that_are_shared(tmp_path):
    (run,), _ = simulate(4, 60, (0.02, 0.04), tmp_path, share=True, slow=10)
    rows = Run.load(run.folder).rows
    assert Counter(row["hidden_size"] for row in rows) == dict.fromkeys(range(1, 61), len(NAMES))
    cases = Counter(row["host"] for row in rows)
    assert 0 < cases["machine 0"] < min(cases[f"machine {n}"] for n in (1, 2, 3))


@pytest.mark.slow
def test_a_case_costs_no_more_at_the_end_than_at_first(tmp_path):
    runs, found = simulate(30, 60, (0.2, 0.6), tmp_path)
    check(runs, 30, 60)
    costs = [cost for _, cost, _ in found]
    quarter = len(costs) // 4
    assert sum(costs[-quarter:]) < 2 * sum(costs[:quarter])
