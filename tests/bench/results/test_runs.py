import json
import resource
from concurrent.futures import ThreadPoolExecutor

import pytest

from bench.results import runs
from bench.results.form import instant
from bench.results.runs import ResultsError, Run, key, unfinished
from tests.bench.synthetic import MACHINE

INFO = {
    "preset": "quick",
    "seed": 0,
    "baseline": "numpy",
    "machine": MACHINE,
    "implementations": {"numpy": {"version": "2.4.6", "status": "ok", "message": None}},
}


def row(n, **about):
    return {
        "cell": "rnn",
        "layers": 1,
        "directions": 1,
        "operation": "forward",
        "hidden_size": n,
        "input_size": 1,
        "seq_len": 50,
        "batch_size": 1,
        "lengths": "full",
        "dtype": "float32",
        "threads": 1,
        "model": "",
        "activation": "tanh",
        "implementation": "numpy",
        "version": "2.4.6",
        "status": "ok",
        "message": None,
        "max_error": 0.1,
        "loss": None,
        "errors": {"hs": {"error": 1e-6, "bound": 1e-5}},
        "compile_s": 0.5,
        "calls": 3,
        "times": [0.1, 0.2],
        "lives": 1,
        "stopped": "time",
        "peak_memory_bytes": 2**20,
        "flops": 1000,
        "bytes": 100,
        "host": None,
        "inside_s": None,
        "limits": None,
        "latencies": None,
    } | about


@pytest.fixture
def run(tmp_path):
    return Run.create(tmp_path / "a-run", INFO)


def test_a_run_comes_back(run):
    run.append(row(1), row(2))
    run.finish()
    again = Run.load(run.folder)
    assert again.rows == [row(1), row(2)]
    assert again.info.keys() >= run.info.keys()
    for name in ("format", "preset", "seed", "baseline", "started", "finished"):
        assert again.info[name] == run.info[name]
    assert again.info["name"] == "a-run"
    assert again.info["finished"] is not None


def test_a_row_from_before_there_was_a_loss_has_none(run):
    run.append({name: value for name, value in row(1).items() if name != "loss"}, row(2, dtype="int8", loss=0.01))
    assert [one["loss"] for one in Run.load(run.folder).rows] == [None, 0.01]


def test_a_key_is_the_case_and_the_implementation():
    assert key(row(3)) == ("rnn", 1, 1, "forward", 3, 1, 50, 1, "full", "float32", 1, "", "tanh", "numpy")


@pytest.mark.parametrize("cut", [1, 10, 150])
def test_a_torn_last_line_is_dropped_and_written_over(run, cut):
    run.append(row(1), row(2))
    path = run.folder / "rows.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    again = Run.load(run.folder)
    assert again.rows == [row(1)]
    again.append(row(3))
    assert [json.loads(line)["hidden_size"] for line in path.read_text().splitlines()] == [1, 3]


def test_a_full_disk_keeps_what_is_there(run):
    """A limit on the size of a file stands in for the disk: what is beyond it cannot be written."""
    run.append(row(1), row(2))
    size = (run.folder / "rows.jsonl").stat().st_size
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, limits[1]))
    try:
        with pytest.raises(OSError, match=r"File too large: .*/a-run/rows\.jsonl"):
            run.append(row(3))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (run.folder / "rows.jsonl").stat().st_size > size
    assert run.rows == Run.load(run.folder).rows == [row(1), row(2)]
    run.append(row(4))
    assert Run.load(run.folder).rows == [row(1), row(2), row(4)]


def test_dropped_rows_are_written_over(run):
    run.append(row(1), row(2), row(3))
    run.drop_last(2)
    run.append(row(4))
    assert [r["hidden_size"] for r in Run.load(run.folder).rows] == [1, 4]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("run.json", b"{", r"run\.json: not JSON"),
        ("run.json", b"\xff{}", r"run\.json: not JSON"),
        ("run.json", b"[" * 100_000, r"run\.json: not JSON"),
        ("run.json", b"[]", r"run\.json: not of format 1"),
        ("run.json", b"{}", r"run\.json: not of format 1"),
        ("rows.jsonl", b"{}\n", r"rows\.jsonl, line 1: cell is missing"),
        ("rows.jsonl", b"1\n", r"rows\.jsonl, line 1: expected a table of names and values, got 1"),
        ("rows.jsonl", b"oops\n", r"rows\.jsonl, line 1: not JSON"),
        ("rows.jsonl", b"\0\0\n", r"rows\.jsonl, line 1: not JSON"),
        ("rows.jsonl", b'{"cell": "\xff"}\n', r"rows\.jsonl, line 1: not JSON"),
        ("rows.jsonl", b'{"a": ' * 100_000 + b"\n", r"rows\.jsonl, line 1: not JSON"),
    ],
)
def test_a_broken_run_says_where(run, name, data, message):
    (run.folder / name).write_bytes(data)
    with pytest.raises(ResultsError, match=message) as error:
        Run.load(run.folder)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("times", [0.1, float("nan")], "times[1]: expected seconds above 0, got nan"),
        ("times", [0], "times[0]: expected seconds above 0, got 0"),
        ("times", [-1.0], "times[0]: expected seconds above 0, got -1.0"),
        ("times", ["0.1"], "times[0]: expected seconds above 0, got '0.1'"),
        ("times", [True], "times[0]: expected seconds above 0, got True"),
        ("times", [1e300], "times[0]: expected seconds above 0, got 1e+300"),
        ("times", [], "times: expected some, as its status is ok, got none"),
        ("times", None, "times: expected a list, got None"),
        ("hidden_size", "16", "hidden_size: expected a whole number of 1 or more, got '16'"),
        ("hidden_size", 16.5, "hidden_size: expected a whole number of 1 or more, got 16.5"),
        ("seq_len", 10**4000, "seq_len: expected a whole number of 1 or more, got 1000"),
        ("cell", "elman", "cell: expected rnn, gru or lstm, got 'elman'"),
        ("cell", ["rnn"], "cell: expected rnn, gru or lstm, got ['rnn']"),
        ("dtype", "float16", "dtype: expected float32, float64, bfloat16 or int8, got 'float16'"),
        ("status", "fine", "status: expected ok, absent, unsupported, wrong or error, got 'fine'"),
        (
            "implementation",
            "a\nb",
            "implementation: expected a name of one line and at most 100 characters, got 'a\\nb'",
        ),
        ("implementation", "\udcff", "implementation: expected a name of one line"),
        ("message", 1, "message: expected a text, got 1"),
        ("loss", -0.1, "loss: expected a number of 0 or more, got -0.1"),
        ("errors", {"hs": {"error": 1}}, "errors: hs: bound is missing"),
        ("errors", {"hs": 1}, "errors: hs: expected a table of names and values, got 1"),
        ("compile_s", 1e300, "compile_s: expected seconds of 0 or more, got 1e+300"),
        ("flops", 0, "flops: expected a number above 0, got 0"),
        ("calls", 0.5, "calls: expected a whole number of 1 or more, got 0.5"),
    ],
)
def test_a_row_that_is_none_is_refused_with_its_line_and_field(run, field, value, message):
    rows = run.folder / "rows.jsonl"
    rows.write_text(json.dumps(row(8)) + "\n" + json.dumps(row(16, **{field: value})) + "\n")
    with pytest.raises(ResultsError) as error:
        Run.load(run.folder)
    assert str(error.value).startswith(f"{rows}, line 2: {message}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("machine", "missing", "machine is missing"),
        ("machine", [], "machine: expected a table of names and values, got []"),
        ("machine", MACHINE | {"cpu": 1}, "machine: cpu: expected a name of one line"),
        ("machine", MACHINE | {"warnings": "busy"}, "machine: warnings: expected a list, got 'busy'"),
        ("machine", MACHINE | {"load_average": ["1"]}, "machine: load_average[0]: expected a number of 0 or more"),
        ("machine", MACHINE | {"kinds": [[0], 1]}, "machine: kinds[1]: expected a list, got 1"),
        ("machine", MACHINE | {"cpu_quota": "half"}, "machine: cpu_quota: expected a number above 0, got 'half'"),
        ("machine", MACHINE | {"roofline": {"levels": {}}}, "machine: roofline: measured is missing"),
        ("implementations", "missing", "implementations is missing"),
        ("implementations", ["numpy"], "implementations: expected a table of names and values, got ['numpy']"),
        ("implementations", {"numpy": {"version": 2}}, "implementations: numpy: version: expected a text, got 2"),
        ("baseline", "missing", "baseline is missing"),
        ("baseline", None, "baseline: expected a name of one line"),
        ("name", "missing", "name is missing"),
        ("name", "", "name: expected a name of one line"),
        ("started", "missing", "started is missing"),
        ("started", "yesterday", "started: expected a time such as 2026-01-31T12:00:00+00:00, got 'yesterday'"),
        ("finished", 3, "finished: expected null, or a time such as"),
        ("finished", "missing", "finished is missing"),
        ("cpus", {"one": [0]}, "cpus: expected a number in digits, got 'one'"),
    ],
)
def test_a_run_json_of_another_form_is_refused_with_its_field(run, field, value, message):
    run.info[field] = value
    if value == "missing":
        del run.info[field]
    run.save_info()
    with pytest.raises(ResultsError) as error:
        Run.load(run.folder)
    assert str(error.value).startswith(f"{run.folder / 'run.json'}: {message}")


def test_a_row_twice_is_refused(run):
    run.append(row(1), row(2), row(1))
    with pytest.raises(
        ResultsError, match=r"line 3: expected another case or implementation than line 1, got the same"
    ):
        Run.load(run.folder)


def test_what_is_not_known_of_a_run_is_kept_and_what_may_be_missing_is_none(run):
    run.info |= {"fleet": {"a": [1]}}
    run.append({name: value for name, value in row(1).items() if name not in ("errors", "calls")} | {"layers": 2})
    run.finish()
    again = Run.load(run.folder)
    assert again.info["fleet"] == {"a": [1]}
    assert again.rows == [row(1, errors=None, calls=None) | {"layers": 2}]


@pytest.mark.parametrize("change", [lambda data: b"\xef\xbb\xbf" + data, lambda data: data.replace(b"\n", b"\r\n")])
def test_a_file_as_windows_saves_it_is_read(run, change):
    run.append(row(1), row(2))
    run.finish()
    for path in run.folder.iterdir():
        path.write_bytes(change(path.read_bytes()))
    assert Run.load(run.folder).rows == [row(1), row(2)]


def test_a_finished_run_that_is_cut_short_is_refused(run):
    run.append(row(1), row(2))
    run.finish()
    path = run.folder / "rows.jsonl"
    path.write_bytes(path.read_bytes()[:-1])
    assert Run.load(run.folder).rows == [row(1), row(2)]
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ResultsError, match=r"rows\.jsonl, line 2: not JSON"):
        Run.load(run.folder)


def test_a_file_beyond_all_measure_is_not_read(run, monkeypatch):
    monkeypatch.setitem(runs.MOST_BYTES, "rows.jsonl", 2**20)
    with (run.folder / "rows.jsonl").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(ResultsError, match=r"rows\.jsonl: expected at most 1 MiB, got more"):
        Run.load(run.folder)


def test_a_row_beyond_all_measure_is_not_read(run):
    """As lists it would take twenty times the memory."""
    run.append(row(1))
    with (run.folder / "rows.jsonl").open("ab") as file:
        file.write(b"[" + b"[]," * 2**23 + b"[]]\n")
    with pytest.raises(ResultsError, match=r"rows\.jsonl, line 2: expected at most 8 MiB, got 24$"):
        Run.load(run.folder)


def test_the_sample_is_read():
    assert len(Run.load("reports/sample").rows) > 200


def test_no_run_says_so(tmp_path):
    with pytest.raises(ResultsError, match=r"no run here .*run\.json"):
        Run.load(tmp_path)


def test_nan_is_refused(run):
    with pytest.raises(ValueError, match="not JSON compliant"):
        run.append(row(float("nan")))
    assert Run.load(run.folder).rows == []


def begun(folder, started=None, **info):
    """Return an unfinished run that nobody holds."""
    run = Run.create(folder, INFO | info)
    run.info["started"] = started or run.info["started"]
    run.save_info()
    run.unlock()
    return run


def test_the_newest_unfinished_run_of_the_same_kind_is_found(tmp_path):
    a, done = (begun(tmp_path / name) for name in "ad")
    b = begun(tmp_path / "b", "2999-01-01T00:00:00+00:00")
    other = begun(tmp_path / "other", seed=1)
    done.finish()
    (done.folder / "report.html").touch()
    found = unfinished(tmp_path, {"seed": 0})
    assert found.folder == b.folder
    second = unfinished(tmp_path, {"seed": 0})  # b is locked
    assert second.folder == a.folder
    assert unfinished(tmp_path, {"seed": 0}) is None
    found.unlock()
    assert unfinished(tmp_path, {"seed": 0}).folder == b.folder
    assert unfinished(tmp_path, {"seed": 1}).folder == other.folder


def test_a_run_without_its_report_is_not_over(tmp_path):
    """Killed while it was written: the same command writes it. One from before all rows were there does not count."""
    run = begun(tmp_path / "a")
    (run.folder / "report.html").touch()
    run.finish()
    finished = run.info["finished"]
    found = unfinished(tmp_path, {})
    assert found.folder == run.folder
    found.finish()
    (run.folder / "report.html").touch()
    found.unlock()
    assert Run.load(run.folder).info["finished"] == finished
    assert unfinished(tmp_path, {}) is None


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("2026-10-25T02:50:00+02:00", "2026-10-25T02:10:00+01:00"),  # the night when summer time ends
        ("2026-01-02T00:30:00+09:00", "2026-01-01T20:00:00+00:00"),
        ("2026-01-01T20:00:00+00:00", "2026-01-02T20:00:00"),  # no offset: here
    ],
)
def test_the_newest_unfinished_run_is_told_by_instants_and_not_by_texts(tmp_path, older, newer):
    begun(tmp_path / "b", older)
    begun(tmp_path / "a", newer)
    assert unfinished(tmp_path, {}).folder.name == "a"
    assert instant(older) < instant(newer)


def test_damaged_neighbours_are_left_out_and_told(tmp_path, capsys):
    whole = begun(tmp_path / "whole")
    for name, info in {
        "no-finished": {"finished": ...},
        "no-started": {"started": ...},
        "a-number": {"started": 7},
        "no-machine": {"machine": None},
    }.items():
        run = begun(tmp_path / name)
        kept = {key: value for key, value in (run.info | info).items() if value is not ...}
        (run.folder / "run.json").write_text(json.dumps(kept))
    (begun(tmp_path / "list").folder / "run.json").write_text("[]")
    (begun(tmp_path / "torn").folder / "rows.jsonl").write_text("{}\n")
    (begun(tmp_path / "no-rows").folder / "rows.jsonl").unlink()
    found = unfinished(tmp_path, {"seed": 0})
    assert found.folder == whole.folder
    assert unfinished(tmp_path, {"seed": 0}) is None  # it is held
    told = capsys.readouterr().err.splitlines()
    assert all(line.startswith("warning: left out: ") for line in told)
    assert {path.name for path in tmp_path.iterdir() if any(f"/{path.name}" in line for line in told)} == {
        path.name for path in tmp_path.iterdir()
    } - {"whole"}


def test_two_runs_that_begin_at_once_have_folders_of_their_own(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: Run.create(tmp_path / "now", INFO), range(8)))
    assert {run.folder.name for run in found} == {"now", *(f"now-{n}" for n in range(2, 9))}
    assert all(Run.load(run.folder).info["name"] == run.folder.name for run in found)


def test_a_run_is_locked_from_its_first_moment(tmp_path):
    run = Run.create(tmp_path / "run", INFO)
    assert unfinished(tmp_path, {}) is None
    run.unlock()
    assert unfinished(tmp_path, {}).folder == run.folder


def test_what_a_full_disk_cannot_hold_is_named_and_the_file_before_it_kept(run):
    before = (run.folder / "run.json").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(OSError, match=r"File too large: .*/a-run/run\.json"):
            run.finish()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (run.folder / "run.json").read_bytes() == before
    assert {path.name for path in run.folder.iterdir()} == {"run.json", "rows.jsonl"}


def test_a_row_without_networks_is_one_layer_of_one_direction(run):
    """Runs written before there were any."""
    old = {
        name: value for name, value in row(1).items() if name not in ("layers", "directions", "lengths", "activation")
    }
    run.append(row(1))
    path = run.folder / "rows.jsonl"
    path.write_text(json.dumps(old) + "\n")
    run.finish()
    assert Run.load(run.folder).rows == [row(1)]
