import pytest

pytest.importorskip("distributed")

from tests.bench.fleet.simulation import check, simulate


def test_every_case_of_many_machines_is_written_once(tmp_path):
    runs, _ = simulate(8, 25, (0.02, 0.1), tmp_path)
    check(runs, 8, 25)


@pytest.mark.slow
def test_a_case_costs_no_more_at_the_end_than_at_first(tmp_path):
    runs, found = simulate(40, 100, (0.3, 0.9), tmp_path)
    check(runs, 40, 100)
    costs = [cost for _, cost, _ in found]
    quarter = len(costs) // 4
    assert sum(costs[-quarter:]) < 2 * sum(costs[:quarter])
