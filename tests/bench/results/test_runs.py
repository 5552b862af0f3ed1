import json
import resource

import pytest

from bench.results.runs import KEY, ResultsError, Run, key, unfinished


def row(n):
    return dict.fromkeys(KEY, "x") | {"hidden_size": n, "times": [0.1, 0.2]}


@pytest.fixture
def run(tmp_path):
    return Run.create(tmp_path / "a-run", {"preset": "quick", "seed": 0})


def test_a_run_comes_back(run):
    run.append(row(1), row(2))
    run.finish()
    again = Run.load(run.folder)
    assert again.rows == [row(1), row(2)]
    assert again.info == run.info
    assert again.info["name"] == "a-run"
    assert again.info["finished"] is not None


def test_a_key_is_the_case_and_the_implementation():
    assert key(row(3)) == ("x", "x", 3, "x", "x", "x", "x", "x", "x")


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
        with pytest.raises(OSError, match="File too large"):
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
    ("name", "text", "message"),
    [
        ("run.json", "{", "run.json is not JSON"),
        ("run.json", "{}", "run.json is not of format 1"),
        ("rows.jsonl", "{}\n", "line 1 of rows.jsonl is not a row"),
        ("rows.jsonl", "oops\n", "line 1 of rows.jsonl is not a row"),
    ],
)
def test_a_broken_run_says_where(run, name, text, message):
    (run.folder / name).write_text(text)
    with pytest.raises(ResultsError, match=message):
        Run.load(run.folder)


def test_no_run_says_so(tmp_path):
    with pytest.raises(ResultsError, match=r"no run here .*run\.json"):
        Run.load(tmp_path)


def test_nan_is_refused(run):
    with pytest.raises(ValueError, match="not JSON compliant"):
        run.append(row(float("nan")))
    assert Run.load(run.folder).rows == []


def test_the_newest_unfinished_run_of_the_same_kind_is_found(tmp_path):
    a, b, done = (Run.create(tmp_path / name, {"seed": 0}) for name in "abd")
    other = Run.create(tmp_path / "other", {"seed": 1})
    b.info["started"] = "2999"
    b.save_info()
    done.finish()
    found = unfinished(tmp_path, {"seed": 0})
    assert found.folder == b.folder
    second = unfinished(tmp_path, {"seed": 0})  # b is locked
    assert second.folder == a.folder
    assert unfinished(tmp_path, {"seed": 0}) is None
    found.unlock()
    assert unfinished(tmp_path, {"seed": 0}).folder == b.folder
    assert unfinished(tmp_path, {"seed": 1}).folder == other.folder
