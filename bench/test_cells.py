"""The benchmarks as pytest sees them: one test for each case and implementation, under `pytest --benchmark`."""

import pytest

from bench import plugin
from bench.results.pytest_json import extra


@pytest.mark.benchmark(timer=plugin.clock)
def test_cell(case, implementation, benchmark, request):
    row = request.config.pluginmanager.get_plugin("unrolled").measure(case, implementation)
    if row["status"] in ("absent", "unsupported"):
        pytest.skip(f"{row['status']}: {row['message']}")
    assert row["status"] == "ok", f"{row['status']}: {row['message']}"

    benchmark.group = case
    benchmark.extra_info |= extra(row)
    times = iter(row["times"])
    benchmark.pedantic(lambda: plugin.clock.advance(next(times)), rounds=len(row["times"]), iterations=1)
