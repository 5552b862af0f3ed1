"""A model's file from the command line to the report, and the whole model in the runtimes that take it."""

import json
import subprocess
import sys

import numpy as np
import pytest

from bench.grid import presets
from bench.grid.cases import Case, ChoiceError
from bench.grid.inputs import make, of_model
from bench.grid.models import Input
from bench.results.runs import Run
from bench.timing import whole
from bench.timing.loop import Bench
from bench.timing.plan import command_line, open_run, plan
from bench.timing.worker import ROOT
from tests.bench.grid.layers import export

EFFORT = presets.Effort(round_s=0.002, fewest=6, case_s=0.05)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxruntime")
    path = tmp_path_factory.mktemp("models") / "net.onnx"
    with pytest.warns(DeprecationWarning, match="."):
        export(torch, path)
    return path


def planned(file, **choices):
    return plan(model=str(file), **{"seq_len": "10", "batch": "2"} | choices)._replace(effort=EFFORT)


def test_from_the_command_line_to_the_report(file, tmp_path):
    pytest.importorskip("openvino")
    names = "numpy,numba-simd,onnxruntime,openvino"
    words = ["run", "--model", file, "--seq-len", "10", "--implementations", names, "--reports", tmp_path]
    command = [sys.executable, "-m", "bench", *map(str, words), "--precision", "50%"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (folder,) = tmp_path.iterdir()
    run = Run.load(folder)
    assert {(row["model"], row["status"]) for row in run.rows} == {("/rnn/LSTM", "ok"), ("/rnn/LSTM_1", "ok")}
    found = run.info["whole"]["1"]
    assert {name: row["status"] for name, row in found.items()} == {"onnxruntime": "ok", "openvino": "ok"}
    assert all(row["max_error"] <= 1 and len(row["times"]) >= 6 for row in found.values())
    assert {"", "/rnn/LSTM", "/rnn/LSTM_1"} == found["onnxruntime"]["recurrent"].keys()
    summary = (folder / "report.md").read_text()
    assert "For the 2 recurrent layers of net.onnx together (forward, float32, 1 thread)" in summary
    assert "of ONNX Runtime's time its recurrent layers have" in summary
    assert "/rnn/LSTM_1" in (folder / "report.html").read_text()
    assert (folder / "charts" / "models.png").exists()


def test_a_wrong_layer_of_the_file_is_told(file, tmp_path, monkeypatch):
    """Its own weights are what is verified: others than those of the file are wrong."""
    a_plan = planned(file, implementations="numpy,numba-simd")
    case = a_plan.cases[0]
    first = make(case, 0)
    with Bench(open_run(a_plan, tmp_path)[0], a_plan) as bench:
        own = make(case, 0, bench._weights(case))
        np.testing.assert_array_equal(own.params[0][0][1].W, a_plan.model.layers[case.model].network[0][1].W)
        assert not np.array_equal(own.params[0][0][1].W, first.params[0][0][1].W)
        bench.measure(case)
        assert [row["status"] for row in bench.run.rows] == ["ok", "ok"]


def test_an_interrupted_run_of_a_model_goes_on(file, tmp_path):
    a_plan = planned(file, implementations="numpy,numba-simd,onnxruntime")
    run, resumed = open_run(a_plan, tmp_path)
    assert not resumed
    with Bench(run, a_plan) as bench:
        bench.measure(a_plan.cases[0])
    run.unlock()
    run, resumed = open_run(planned(file, implementations="numpy,numba-simd,onnxruntime"), tmp_path)
    assert resumed
    whole.measure(run, a_plan)
    before = json.dumps(run.info["whole"])
    whole.measure(run, a_plan)  # nothing is left to do
    assert json.dumps(Run.load(run.folder).info["whole"]) == before
    run.unlock()
    assert not open_run(planned(file, seq_len="11", implementations="numpy,numba-simd,onnxruntime"), tmp_path)[1]
    assert command_line(a_plan).startswith("python -m bench run --model ")


def test_long_names_of_files_and_nodes_are_read_again(file, tmp_path):
    onnx = pytest.importorskip("onnx")
    proto = onnx.load(file)
    for node in proto.graph.node:
        node.name = "/" + "deep/" * 40 + node.name
    path = tmp_path / f"{'n' * 150}.onnx"
    path.write_bytes(proto.SerializeToString())
    a_plan = planned(path, implementations="numpy,numba-simd,onnxruntime")
    run, _ = open_run(a_plan, tmp_path / "reports")
    whole.measure(run, a_plan)
    found = Run.load(run.folder).info
    assert found["whole"]["1"]["onnxruntime"]["recurrent"].keys() == {"", *a_plan.model.layers}


def test_a_model_that_a_runtime_cannot_run(file, tmp_path):
    """Its layers are there all the same, and the report says why the whole has no time."""
    from bench.report import models
    from bench.results.tables import Facts

    a_plan = planned(file, implementations="numpy,numba-simd,onnxruntime")
    odd = {"x": Input("float32", [2, 10, 3])}  # one channel too few
    a_plan = a_plan._replace(model=a_plan.model._replace(inputs=odd))
    run, _ = open_run(a_plan, tmp_path)
    with Bench(run, a_plan) as bench:
        for case in a_plan.cases:
            bench.measure(case)
    whole.measure(run, a_plan)
    assert run.info["whole"]["1"]["onnxruntime"]["status"] == "error"
    words = " ".join(models.answer(Facts([Run.load(run.folder)])))
    assert "the whole of net.onnx has no time (ONNX Runtime: error: build_model:" in words
    assert "recurrent layers of net.onnx together" in words


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        ({"0": np.array([1, 2, 4], np.float32)}, 0.0),
        ({"0": np.array([1, 2, 4.002], np.float32)}, 0.5),
        ({"0": np.array([1, 2, 4.4], np.float32)}, 100.0),
        ({"0": np.array([1, 2, np.nan], np.float32)}, None),
        ({"0": np.array([1, 2], np.float32)}, None),
        ({"1": np.array([1, 2, 4], np.float32)}, None),
    ],
    ids=str,
)
def test_how_far_two_runtimes_may_differ(tmp_path, outputs, expected):
    np.savez(tmp_path / "a.npz", **{"0": np.array([1, 2, 4], np.float32)})
    np.savez(tmp_path / "b.npz", **outputs)
    found = whole.error(tmp_path / "b.npz", tmp_path / "a.npz")
    assert found is None if expected is None else found == pytest.approx(expected, rel=1e-2)


def test_whole_numbers_may_not_differ(tmp_path):
    np.savez(tmp_path / "a.npz", **{"0": np.array([1, 2], np.int64)})
    np.savez(tmp_path / "b.npz", **{"0": np.array([1, 3], np.int64)})
    assert whole.error(tmp_path / "b.npz", tmp_path / "a.npz") > 1
    assert whole.error(tmp_path / "a.npz", tmp_path / "a.npz") == 0


def test_texts_cannot_be_compared(tmp_path):
    np.savez(tmp_path / "a.npz", **{"0": np.array(["a", "b"], object)})
    assert whole.error(tmp_path / "a.npz", tmp_path / "a.npz") is None


def test_inputs_of_a_whole_model():
    found = of_model(
        {"x": Input("float32", [2, 9, 4]), "tokens": Input("int64", [2, 9]), "lengths": Input("int64", [2])}, 0
    )
    assert found["x"].dtype == np.float32
    assert found["x"].std() == pytest.approx(1, abs=0.3)
    assert not found["tokens"].any()
    assert found["lengths"].tolist() == [9, 9]


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"hidden": "8"}, "--hidden: expected none beside --model, .*"),
        ({"preset": "quick"}, "--preset: expected none beside --model, got quick"),
        ({"seq_len": "8,16"}, "--seq-len: expected one value beside --model, got 8,16"),
        ({"batch": "0"}, "--batch: expected whole numbers .*"),
        ({"activation": "relu,tanh"}, "--activation: expected one value beside --model, got relu,tanh"),
        ({"activation": "gelu"}, "--activation: expected tanh, relu or sigmoid, got 'gelu'"),
        ({"activation": "relu"}, "--activation: expected an RNN in .* that is measured, got none"),
        ({"operation": "forward_step"}, "--operation: expected forward, .*"),
    ],
    ids=str,
)
def test_choices_that_a_file_has_made(file, choices, message):
    with pytest.raises(ChoiceError, match=message):
        planned(file, **choices)


def test_a_case_of_a_model_is_known_by_its_name():
    one, other = (Case("gru", "forward", 8, 8, 4, 1, "float32", 1, model=name) for name in ("a/b c", "d"))
    assert one.id == "a_b_c-gru-forward-H8-I8-T4-B1-float32-1t"
    assert one != other
