"""The pytest plugin: `pytest --benchmark` runs the benchmarks of bench/ in place of the tests.

The first test of a case measures all its selected implementations together, by the same loop as `python -m bench`;
each test then hands its rounds to pytest-benchmark, on a clock that moves by what the worker measured. So
pytest-benchmark's table, JSON, saving and comparing work as ever. Plain `pytest` knows nothing of all this.
"""

import os
from contextlib import ExitStack
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

import pytest

from bench.grid.cases import ChoiceError
from bench.grid.presets import OPTIONS
from bench.results.files import expect_folder
from bench.results.runs import REPORTS, key

BENCHMARKS = Path(__file__).resolve().with_name("test_cells.py")
GROUPINGS = "group", "name", "func", "fullname", "fullfunc", "param", "param:case", "param:implementation"


def pytest_addoption(parser):
    group = parser.getgroup("unrolled", "benchmarks of recurrent cells")
    group.addoption("--benchmark", action="store_true", help="Run the benchmarks, not the tests.")
    for name, text in OPTIONS.items():
        group.addoption("--" + name.replace("_", "-"), dest=f"bench_{name}", metavar="CHOICE", help=text)
    group.addoption("--fresh", action="store_true", help="Start anew, though an unfinished run could go on.")
    group.addoption(
        "--reports", metavar="DIR", type=Path, help="Where run folders go (write --reports=DIR). Default: reports/"
    )
    group.addoption("--no-wait", action="store_true", help="Fail if another benchmark is at work on this machine.")
    parser.getgroup("general").addoption("--slow", action="store_true", help="Run the tests marked slow, too.")


def pytest_configure(config):
    if not hasattr(config.hook, "pytest_benchmark_update_machine_info"):  # without it, its mark is unknown
        config.addinivalue_line("markers", "benchmark: a mark of pytest-benchmark's, which is off")
    if not config.getoption("benchmark") or hasattr(config, "workerinput"):
        return
    here = config.invocation_params.dir
    if not any(Path(here, argument.split("::")[0]).resolve() == BENCHMARKS for argument in config.args):
        config.args[:] = [os.path.relpath(BENCHMARKS, here)]  # pytest takes no path with a bracket
    try:
        _check(config)
        from bench.timing.plan import plan

        choices = {name: config.getoption(f"bench_{name}") for name in OPTIONS}
        config.pluginmanager.register(Session(config, plan(**choices)), "unrolled")
    except (ChoiceError, ImportError) as error:
        raise pytest.UsageError(str(error)) from None


def _check(config):
    """Raise a UsageError or a ChoiceError for an option that the benchmarks cannot follow, before they take time."""
    expect_folder("--reports", config.getoption("reports") or REPORTS)
    if not hasattr(config.hook, "pytest_benchmark_update_machine_info"):
        raise pytest.UsageError("--benchmark: expected pytest-benchmark, got none: is it off by -p no:benchmark?")
    if config.getoption("numprocesses", None):
        raise pytest.UsageError("--benchmark: expected one process, got -n: benchmarks would disturb each other")
    if config.getoption("benchmark_cprofile"):
        raise pytest.UsageError("--benchmark-cprofile: expected none: what is timed runs in processes of its own")
    if config.getoption("benchmark_histogram") and not (find_spec("pygal") and find_spec("pygaljs")):
        raise pytest.UsageError("--benchmark-histogram: expected pygal and pygaljs, as pytest-benchmark[histogram]")
    if (json := config.getoption("benchmark_json")) and not json.parent.is_dir():
        raise pytest.UsageError(f"--benchmark-json: expected a file in a folder that exists, got {json}")
    for name in config.getoption("benchmark_group_by").split(","):
        if name not in GROUPINGS:
            raise pytest.UsageError(f"--benchmark-group-by: expected some of {', '.join(GROUPINGS)}, got {name!r}")


def pytest_generate_tests(metafunc):
    if metafunc.definition.path.resolve() != BENCHMARKS:
        return
    session = metafunc.config.pluginmanager.get_plugin("unrolled")
    if session is None:
        pairs = [
            pytest.param(None, None, marks=pytest.mark.skip(reason="a benchmark: run with --benchmark"), id="none")
        ]
    else:
        taking_part = session.plan.taking_part
        cases = session.cases.items()
        pairs = [pytest.param(id, name, id=f"{id}-{name}") for id, case in cases for name in taking_part(case)]
    metafunc.parametrize(("case", "implementation"), pairs)


def pytest_collection_modifyitems(config, items):
    if not config.getoption("slow"):
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="slow: run with --slow"))


class Session:
    """The run behind `pytest --benchmark`: opened by its first test, reported at the end."""

    def __init__(self, config, plan):
        self.config, self.plan = config, plan
        self.cases = {case.id: case for case in plan.cases}
        self.selected = {}  # the implementations of each selected case, by its id
        self.run = self.bench = self.page = None
        self.held = ExitStack()  # the machine, from the first case on
        self.resumed = False

    def pytest_collection_finish(self, session):
        for item in session.items:
            if item.path.resolve() == BENCHMARKS:
                parameters = item.callspec.params
                self.selected.setdefault(parameters["case"], []).append(parameters["implementation"])

    def measure(self, case, implementation):
        """Return the row of a case and an implementation, measured now if the run has none."""
        if self.run is None:
            from bench.machine.lock import the_machine
            from bench.timing.loop import Bench
            from bench.timing.plan import open_run

            reports = self.config.getoption("reports") or REPORTS
            self.held.enter_context(the_machine(wait=not self.config.getoption("no_wait")))
            self.run, self.resumed = open_run(self.plan, reports, self.config.getoption("fresh"))
            self.bench = Bench(self.run, self.plan)
        case = self.cases[case]
        self.bench.measure(case, self.selected[case.id])
        wanted = key(asdict(case) | {"implementation": implementation})
        return next(row for row in self.run.rows if key(row) == wanted)

    @pytest.hookimpl(wrapper=True, tryfirst=True)  # before pytest-benchmark, which may fail to save its own
    def pytest_sessionfinish(self):
        if self.run is not None:
            from bench.report.report import write_run
            from bench.timing import whole

            if not any(self.bench.missing(self.cases[case], names) for case, names in self.selected.items()):
                whole.measure(self.run, self.plan)
                self.run.finish()
            self.page = write_run(self.run)
        return (yield)

    def pytest_terminal_summary(self, terminalreporter):
        if self.page is None:
            return
        terminalreporter.section("report")
        if self.resumed:
            terminalreporter.write_line("Went on with an unfinished run of the same grid (--fresh starts anew).")
        terminalreporter.write_line(str(self.page))

    def pytest_unconfigure(self):
        if self.bench is not None:
            self.bench.close()
        self.held.close()

    def pytest_benchmark_update_machine_info(self, machine_info):
        from bench.machine import hardware
        from bench.machine.describe import versions

        machine_info["unrolled"] = {"simd": hardware.simd(), "caches": hardware.caches(), "versions": versions()}


class Clock:
    """A clock that stands still but for `advance`."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def advance(self, seconds):
        self.now += seconds


clock = Clock()
