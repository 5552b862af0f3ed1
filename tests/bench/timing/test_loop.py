import contextlib
import math
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from itertools import permutations
from statistics import median

import numpy as np
import psutil
import pytest

from bench.grid.cases import ChoiceError
from bench.grid.presets import Effort, choose, find_preset
from bench.implementations import find
from bench.machine.hardware import cpus_for
from bench.results.runs import ResultsError, Run, key
from bench.results.statistics import quick_width
from bench.timing import loop
from bench.timing.loop import Bench, turn
from bench.timing.plan import Plan, open_run, plan
from bench.timing.worker import ROOT, Worker, WorkerError

BROKEN = ("absent", "crash", "hang", "later", "noisy", "quits", "raises", "stale", "unsupported", "wrong")
EFFORT = Effort(round_s=0.001, fewest=3, case_s=0.05)


def small(*names, **choices):
    """Return a plan of small cases for the implementations of these names, broken ones included."""
    choices = {
        "cell": "rnn",
        "operation": "forward",
        "hidden": "8",
        "seq_len": "4",
        "batch": "1",
        "threads": "1",
    } | choices
    modules = {name: f"tests.bench.timing.broken.{name}" for name in BROKEN} | find()
    return Plan(
        "quick", choices, choose(find_preset("quick"), 8, **choices), {name: modules[name] for name in names}, EFFORT
    )


def measure(reports, planned, time_limit_s=30):
    """Measure a plan from start to end and return the run, as it is on disk, by case and implementation."""
    run, _ = open_run(planned, reports, fresh=True)
    with Bench(run, planned, time_limit_s=time_limit_s) as bench:
        for case in planned.cases:
            bench.measure(case)
    run.unlock()
    return {(row["operation"], row["implementation"]): row for row in Run.load(run.folder).rows}


def test_rows_are_complete(tmp_path):
    rows = measure(tmp_path, small("numpy", "numba-simd", operation="forward_step,train"))
    assert list(rows) == [(o, i) for o in ("forward_step", "train") for i in ("numpy", "numba-simd")]
    for row in rows.values():
        assert (row["status"], row["message"]) == ("ok", None)
        assert row["compile_s"] > 0
        assert row["calls"] >= 1
        assert len(row["times"]) >= 3
        assert row["stopped"] in ("precision", "time")
        assert all(0 < seconds < 1 for seconds in row["times"])
        assert 0 <= row["max_error"] <= 1
        assert row["peak_memory_bytes"] > 2**20
    assert list(rows["train", "numpy"]["errors"]) == ["params.U", "params.W", "params.b", "x", "state.h"]
    assert len({len(row["times"]) for row in rows.values() if row["operation"] == "train"}) == 1


def test_a_stream_keeps_how_long_each_call_took(tmp_path):
    planned = small("numpy", "numba-simd", operation="stream", seq_len="50")
    planned = planned._replace(effort=planned.effort._replace(period_s=0.002))
    for row in measure(tmp_path, planned).values():
        assert (row["status"], row["message"]) == ("ok", None)
        assert list(row["errors"]) == ["hs", "state.h"]
        steady, paced = row["latencies"]["steady"], row["latencies"]["paced"]
        assert sum(steady["bins"].values()) == row["calls"] * len(row["times"])
        assert row["calls"] % 50 == 0
        assert sum(paced["bins"].values()) % 50 == 0
        assert row["latencies"]["period_s"] == 0.002
        assert 0 <= row["latencies"]["missed"] < 1000
        assert 0 < row["latencies"]["clock_s"] < min(row["times"])
        assert 0 < row["inside_s"] < steady["worst_s"]
        assert row["flops"] == 2 * 8 * 9  # of one step


def test_a_step_is_told_apart_from_its_call(tmp_path):
    rows = measure(tmp_path, small("numpy", "numba-simd", operation="forward_step,forward"))
    for (operation, _), row in rows.items():
        assert (row["inside_s"] is None) == (operation == "forward")
        assert row["latencies"] is None


BELOW = ("numpy", "numba-simd", "numba-simd-float32")


def test_rows_below_float32_have_a_loss_and_ours_in_float32_beside_them(tmp_path):
    planned = small(*BELOW, dtype="float32,int8")
    run, _ = open_run(planned, tmp_path, fresh=True)
    with Bench(run, planned) as bench:
        for case in planned.cases:
            bench.measure(case)
    rows = {(row["dtype"], row["implementation"]): row for row in run.rows}
    assert [*rows] == [("float32", name) for name in BELOW[:2]] + [("int8", name) for name in BELOW]
    assert {row["status"] for row in rows.values()} == {"ok"}
    assert {name: row["loss"] for (dtype, name), row in rows.items() if dtype == "float32"} == dict.fromkeys(BELOW[:2])
    assert 1e-4 < rows["int8", "numba-simd"]["loss"] < 0.1
    assert rows["int8", "numba-simd-float32"]["loss"] < 1e-5


def test_a_whole_case_without_ours_in_float32_is_not_torn(tmp_path):
    planned = small("numpy", "numba-simd-float32", dtype="float32,int8")
    run, _ = open_run(planned, tmp_path)
    with Bench(run, planned) as bench:
        bench.measure(planned.cases[0])
    run.unlock()
    again, resumed = open_run(planned, tmp_path)
    assert resumed
    assert [row["implementation"] for row in again.rows] == ["numpy"]
    again.unlock()


def test_ours_in_float32_comes_with_ours_below_float32_alone():
    low, full = plan(dtype="int8"), plan()
    assert [*full.implementations] == ["numpy", "numba-simd", "torch"]
    assert {*low.implementations} == {*full.implementations, "numba-simd-float32"}
    assert "numba-simd-float32" not in plan("full").implementations
    assert [*plan(dtype="int8", implementations="numba-simd,torch").implementations] == ["numba-simd", "torch"]
    with pytest.raises(ChoiceError) as error:
        plan(implementations="numba-simd-float32")
    assert str(error.value) == (
        "--implementations: expected --dtype bfloat16 or int8 for numba-simd-float32, got none of them"
    )


def test_other_versions_take_part_beside_what_they_are_versions_of(tmp_path, monkeypatch):
    found = {}

    def elsewhere(name, where, module, option):
        found[name, where] = (module, option)
        return f"at {where}"

    monkeypatch.setattr("bench.timing.plan.elsewhere", elsewhere)
    planned = plan(implementations="torch@../old,numpy,numba-simd@main~5,numba-simd@v1")
    names = ["numpy", "numba-simd", "numba-simd@main~5", "numba-simd@v1", "torch", "torch@../old"]
    assert [*planned.implementations] == names
    assert planned.implementations["torch@../old"] == planned.implementations["torch"]
    assert planned.elsewhere == {name: f"at {name.partition('@')[2]}" for name in names if "@" in name}
    assert found["torch", "../old"] == ("bench.implementations.torch", "--implementations")

    grid = tmp_path / "grid.toml"
    grid.write_text('implementations = ["numpy@v1"]\n[[grids]]\nhidden = [8]\nbatch = [1]\n')
    assert [*plan(str(grid)).implementations] == ["numpy", "numpy@v1"]
    with pytest.raises(ChoiceError, match=r"--implementations: expected some of numpy, .*, got 'nobody'"):
        plan(implementations="nobody@v1")
    with pytest.raises(ResultsError, match="a name of one line and at most 100 characters"):
        plan(implementations="numpy@" + 100 * "x")


class Simulated(Bench):
    """A bench whose workers answer at once: times around 1 s, 2 s for each later name, with the spread given."""

    def __init__(self, *arguments, spread, call_s=0.01):
        super().__init__(*arguments)
        self.spread, self.call_s, self.asked = spread, call_s, []
        self.random = np.random.default_rng(0)

    def _ask(self, row, request, **arguments):
        if request == "build":
            return {"status": "ok"}
        if request == "calibrate":
            return {"calls": 1}
        self.asked.append(row["implementation"])
        factor = 1 + list(self.plan.implementations).index(row["implementation"])
        return {"seconds": self.call_s * factor * math.exp(self.random.normal(0, self.spread[row["implementation"]]))}


def simulate(tmp_path, spread, call_s=0.01, **effort):
    planned = small(*spread)._replace(effort=Effort(**{"round_s": 0.001, "fewest": 11, "case_s": 1} | effort))
    run, _ = open_run(planned, tmp_path, fresh=True)
    with Simulated(run, planned, spread=spread, call_s=call_s) as bench:
        bench.measure(planned.cases[0])
    run.unlock()
    return {row["implementation"]: row for row in run.rows}, bench.asked


def test_rounds_go_on_until_the_ratios_are_precise(tmp_path):
    still, _ = simulate(tmp_path, {"numpy": 0.001, "numba-simd": 0.001, "noisy": 0.001})
    assert {(len(row["times"]), row["stopped"]) for row in still.values()} == {(11, "precision")}
    lively, _ = simulate(tmp_path, {"numpy": 0.001, "numba-simd": 0.001, "noisy": 0.1})
    rounds = {len(row["times"]) for row in lively.values()}
    assert len(rounds) == 1
    assert 30 < rounds.pop() < 300
    assert {row["stopped"] for row in lively.values()} == {"precision"}
    base, noisy = lively["numpy"]["times"], lively["noisy"]["times"]
    assert quick_width(base, noisy) <= 0.03
    assert len(noisy) == len(set(noisy))  # no round is dropped


def test_rounds_end_with_the_time(tmp_path):
    rows, _ = simulate(tmp_path, {"numpy": 0.001, "numba-simd": 0.001, "noisy": 3}, case_s=0.1)
    stopped = {name: row["stopped"] for name, row in rows.items()}
    assert stopped == {"numpy": "time", "numba-simd": "precision", "noisy": "time"}


def test_ours_is_to_be_told_from_the_fastest_other(tmp_path):
    rows, _ = simulate(tmp_path, {"noisy": 3, "numpy": 3, "numba-simd": 0.001}, case_s=0.1)
    assert rows["numba-simd"]["stopped"] == "time"


def test_five_long_rounds_are_enough(tmp_path):
    rows, _ = simulate(tmp_path, {"numpy": 0.001, "noisy": 0.001}, call_s=0.4)
    assert {len(row["times"]) for row in rows.values()} == {5}


def test_later_lives_are_of_new_processes_and_as_long_as_the_first(tmp_path):
    rows, _ = simulate(tmp_path, {"numpy": 0.001, "noisy": 0.1}, lives=3)
    assert {row["lives"] for row in rows.values()} == {3}
    (rounds,) = {len(row["times"]) for row in rows.values()}
    assert rounds > 33
    assert rounds % 3 == 0

    planned = small("numpy")._replace(effort=EFFORT._replace(lives=2))
    found = measure(tmp_path / "real", planned)
    assert found["forward", "numpy"]["lives"] == 2
    assert len(found["forward", "numpy"]["times"]) >= 6


def test_each_leads_and_follows_each_other_as_often():
    orders = [turn(["a", "b", "c"], n) for n in range(6)]
    assert [order[0] for order in orders] == ["a", "b", "c", "c", "a", "b"]
    for x, y in permutations("abc", 2):
        assert sum(order.index(x) < order.index(y) for order in orders) == 3
    assert [turn(["a", "b"], n) for n in range(4)] == [["a", "b"], ["b", "a"], ["b", "a"], ["a", "b"]]


@pytest.mark.skipif(not cpus_for(1), reason="no process can be pinned here")
def test_a_worker_is_pinned():
    with contextlib.closing(Worker("bench.implementations.numpy", 1, cpus=cpus_for(1))) as pinned:
        pinned.ask("start")
        assert set(psutil.Process(pinned._process.pid).cpu_affinity()) == set(cpus_for(1))


def test_the_wrong_is_not_timed(tmp_path):
    rows = measure(tmp_path, small("wrong", "stale", "numpy", operation="train"))
    for name in ("wrong", "stale"):
        row = rows["train", name]
        assert row["status"] == "wrong"
        assert "error" in row["message"]
        assert (row["times"], row["calls"]) == ([], None)
        assert row["max_error"] > 1
    assert rows["train", "wrong"]["message"].startswith("state.h: error 0.001, bound")
    assert rows["train", "numpy"]["status"] == "ok"


@pytest.mark.parametrize("operation", ["forward", "train"])
def test_what_becomes_wrong_while_it_is_timed_is_found(tmp_path, operation):
    """A buffer that is used again, a state that drifts: the gate alone would not see it."""
    rows = measure(tmp_path, small("later", "numpy", operation=operation))
    row = rows[operation, "later"]
    assert row["status"] == "wrong"
    assert row["message"].startswith("right at first, and wrong when it had been timed: ")
    assert row["max_error"] > 1
    assert row["times"] == []
    assert rows[operation, "numpy"]["status"] == "ok"


def test_a_machine_that_sleeps_in_the_middle_of_a_round_spoils_no_more_than_that(tmp_path, monkeypatch):
    """The worker is stopped, as all is when a laptop is shut; a round that takes so long is no reason for fewer."""
    ask, rounds = Worker.ask, []

    def sleepy(worker, request, **arguments):
        if request == "round":
            rounds.append(worker)
            if len(rounds) == 9:  # nobody else takes a round meanwhile
                worker._signal(signal.SIGCONT)
                stopped = psutil.Process(worker._process.pid)
                threading.Timer(0.3, stopped.suspend).start()
                threading.Timer(1.8, stopped.resume).start()
                arguments["calls"] *= 40
        return ask(worker, request, **arguments)

    monkeypatch.setattr(Worker, "ask", sleepy)
    planned = small("numpy", "numba-simd", hidden="64", seq_len="50")
    rows = measure(tmp_path, planned._replace(effort=Effort(round_s=0.02, fewest=12, case_s=0.5)))
    for row in rows.values():
        assert row["status"] == "ok"
        assert len(row["times"]) >= 12
    slept = max(rows.values(), key=lambda row: max(row["times"]) / median(row["times"]))
    assert max(slept["times"]) * 40 * slept["calls"] > 1.4
    assert max(slept["times"]) > 1.5 * median(slept["times"])


def test_a_failure_is_a_row_and_the_others_go_on(tmp_path):
    rows = measure(tmp_path, small("crash", "quits", "numpy", "raises", "absent", operation="forward,bptt"))
    for operation in ("forward", "bptt"):
        status = {name: (row["status"], row["message"]) for (o, name), row in rows.items() if o == operation}
        assert status == {
            "crash": ("error", "calibrate: killed by SIGSEGV"),
            "quits": ("error", "build: ended with exit code 3: no such instruction"),
            "numpy": ("ok", None),
            "raises": ("error", "build: ValueError: not today nor tomorrow"),
            "absent": ("absent", "not installed"),
        }
        assert rows[operation, "crash"]["times"] == []
        assert len(rows[operation, "numpy"]["times"]) >= 3


def test_a_hang_has_a_limit(tmp_path):
    rows = measure(tmp_path, small("hang", "numpy"), time_limit_s=3)
    assert (rows["forward", "hang"]["status"], rows["forward", "hang"]["message"]) == (
        "error",
        "build: no answer within 3 s",
    )
    assert rows["forward", "numpy"]["status"] == "ok"


@pytest.mark.parametrize("below", ["", "deep/below"])
def test_reports_in_the_place_of_a_file_are_refused_before_anything_is_measured(tmp_path, below):
    (tmp_path / "file").touch()
    with pytest.raises(ChoiceError, match=r"^--reports: expected a folder, got the file .*/file$"):
        open_run(small("numpy"), tmp_path / "file" / below)


def test_a_case_of_many_operations_has_longer(tmp_path, monkeypatch):
    plan = small("hang")
    monkeypatch.setattr(loop, "SLOWEST", plan.cases[0].flops / 2)
    rows = measure(tmp_path, plan, time_limit_s=1)
    assert rows["forward", "hang"]["message"] == "build: no answer within 3 s"


def test_unsupported_and_noisy(tmp_path):
    rows = measure(tmp_path, small("unsupported", "noisy", operation="forward,bptt"))
    assert {pair: row["status"] for pair, row in rows.items()} == {
        ("forward", "unsupported"): "ok",
        ("forward", "noisy"): "ok",
        ("bptt", "unsupported"): "unsupported",
        ("bptt", "noisy"): "ok",
    }
    assert rows["bptt", "unsupported"]["message"] == "no gradients"


def test_a_worker_that_cannot_start_is_not_tried_again(tmp_path, monkeypatch):
    started = []

    class Counted(Worker):
        def __init__(self, module, *arguments):
            started.append(module)
            super().__init__(module, *arguments)

    monkeypatch.setattr(loop, "Worker", Counted)
    planned = small("numpy", "absent", operation="forward,bptt")
    monkeypatch.setattr("bench.timing.plan._about", lambda *_: {"version": "1", "status": "ok", "message": None})
    rows = measure(tmp_path, planned)
    assert started.count("tests.bench.timing.broken.absent") == 1
    for operation in ("forward", "bptt"):
        assert rows[operation, "absent"]["message"] == "start: TypeError: 'NoneType' object is not callable"
        assert rows[operation, "numpy"]["status"] == "ok"


@pytest.mark.skipif(psutil.cpu_count() < 2, reason="needs two CPUs")
def test_two_threads(tmp_path):
    rows = measure(tmp_path, small("numpy", threads="2", hidden="64", batch="32"))
    assert rows["forward", "numpy"]["status"] == "ok"


@pytest.mark.skipif(sys.platform != "linux", reason="stops no process where it might outlive the harness")
def test_a_worker_at_rest_takes_no_time():
    case = asdict(small("numpy", threads="2", hidden="512", batch="32").cases[0])
    worker = Worker("bench.implementations.numpy", 2)
    worker.ask("start")
    worker.ask("build", case=case, seed=0, reference=None)
    process = psutil.Process(worker._process.pid)
    for _ in range(3):
        assert worker.ask("round", calls=1)["seconds"] > 0
        worker.rest()
        while process.status() != psutil.STATUS_STOPPED:  # until all threads have heard of it
            time.sleep(0.01)
        before = process.cpu_times()
        time.sleep(0.2)
        assert process.status() == psutil.STATUS_STOPPED
        assert process.cpu_times() == before
    worker.close()
    assert not process.is_running()


def test_a_torn_case_is_measured_again_as_a_whole(tmp_path):
    planned = small("numpy", "noisy", operation="forward,bptt")
    run, resumed = open_run(planned, tmp_path)
    assert not resumed
    with Bench(run, planned) as bench:
        for case in planned.cases:
            bench.measure(case)
    run.unlock()
    path = run.folder / "rows.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    first = [row["times"] for row in run.rows[:2]]

    again, resumed = open_run(planned, tmp_path)
    assert resumed
    assert again.folder == run.folder
    with Bench(again, planned) as bench:
        assert [bench.missing(case) for case in planned.cases] == [[], ["numpy", "noisy"]]
        for case in planned.cases:
            bench.measure(case)
    again.unlock()
    rows = Run.load(run.folder).rows
    assert [row["times"] for row in rows[:2]] == first
    assert len({key(row) for row in rows}) == len(rows) == 4


def test_only_the_same_plan_goes_on(tmp_path):
    run, _ = open_run(small("numpy"), tmp_path)
    run.unlock()
    assert open_run(small("numpy", hidden="9"), tmp_path)[1] is False
    assert open_run(small("noisy"), tmp_path)[1] is False
    assert open_run(small("numpy"), tmp_path, fresh=True)[1] is False
    assert open_run(small("numpy"), tmp_path)[1] is True


@pytest.mark.parametrize("stem", ["a [b]\n\udcff", "x" * 200])
def test_a_run_of_a_preset_with_an_odd_name_can_be_read_and_taken_up(tmp_path, stem):
    planned = small("numpy")._replace(preset=f"{stem}.toml")
    run, _ = open_run(planned, tmp_path)
    assert Run.load(run.folder).info["preset"] == f"{stem}.toml"
    run.unlock()
    assert open_run(planned, tmp_path)[1] is True


@pytest.mark.parametrize("resting", [False, True])
def test_a_worker_ends_with_its_parent(resting):
    """Even where it is in the midst of a computation, or stopped, and its parent had no time for a last word."""
    case = asdict(small("hang").cases[0])
    script = f"""
import time
from bench.timing.worker import Worker
worker = Worker("tests.bench.timing.broken.hang", 1)
print(worker._process.pid, flush=True)
if {resting}:
    worker.ask("start")
    worker.rest()
    time.sleep(60)
worker.ask("build", case={case}, seed=0)
"""
    parent = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE)
    child = psutil.Process(int(parent.stdout.readline()))
    time.sleep(1)
    assert child.is_running()
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    child.wait(300)
    parent.stdout.close()


def test_close_ends_the_process():
    one = Worker("bench.implementations.numpy", 1)
    one.ask("start")
    pid = one._process.pid
    one.close()
    assert not psutil.pid_exists(pid)
    with pytest.raises(ValueError, match="closed file"):
        one.ask("start")


def test_an_unknown_request_is_an_error():
    with pytest.raises(WorkerError, match="no_such: AttributeError"):
        Worker("bench.implementations.numpy", 1).ask("no_such")
