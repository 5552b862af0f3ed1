"""A run as pytest-benchmark's JSON, for the tools that read it."""

from types import SimpleNamespace

from bench.grid.cases import Case
from bench.results import files
from bench.results.tables import tail

# Of a row.
EXTRA = ("version", "calls", "compile_s", "max_error", "loss", "stopped", "peak_memory_bytes", "flops", "bytes")


def extra(row):
    """Return what a row has beside its times; of a stream the percentiles of its calls as well."""
    tails = {name: value for name, value in tail(row).items() if value is not None and value == value}
    return {field: row[field] for field in EXTRA} | tails


def save(run):
    """Write pytest-benchmark.json into a run's folder, as `pytest --benchmark --benchmark-json` would."""
    from pytest_benchmark import plugin, stats, utils

    benchmarks = []
    for row in run.rows:
        case, name = Case(**{field: row[field] for field in Case.__dataclass_fields__}).id, row["implementation"]
        fixture = SimpleNamespace(
            name=f"test_cell[{case}-{name}]",
            fullname=f"bench/test_cells.py::test_cell[{case}-{name}]",
            group=case,
            param=f"{case}-{name}",
            params={"case": case, "implementation": name},
            extra_info=extra(row),
            cprofile_stats=None,
            has_error=row["status"] != "ok",
        )
        benchmark = stats.Metadata(fixture, iterations=1, options={})
        for seconds in row["times"]:
            benchmark.update(seconds)
        benchmarks.append(benchmark)
    machine_info = plugin.pytest_benchmark_generate_machine_info()
    everything = plugin.pytest_benchmark_generate_json(None, benchmarks, True, machine_info, utils.get_commit_info())
    files.save(run.folder / "pytest-benchmark.json", utils.safe_dumps(everything, indent=2))
