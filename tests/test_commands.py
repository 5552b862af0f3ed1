"""Every command of README.md and CONTRIBUTING.md runs: as it stands there, but made small.

What stands for something in them (`OLD`, `main~5`) is put in its place. A command that is new in the documents has to
have a line in `SMALLER`, or to be named in `ELSEWHERE`, with the test that runs it.
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CASE = "--cell=rnn --hidden=4 --seq-len=2 --batch=1 --threads=1 --reports=reports"
TWO = "--implementations=numpy,numba-simd"
TEXT = "--file text.txt --hidden 4 --batch 2 --seq-len 8 --steps 3"

# What is added to a command, so that it takes seconds: the first line that it begins with. Later options count.
SMALLER = {
    "python -m bench run --scheduler": None,
    "python -m bench run --model": f"{TWO} --seq-len 5 --threads 1 --reports=reports",
    "python -m bench run --preset models": f"{TWO} {CASE} --operation=forward --layers=1 --directions=1",
    "python -m bench run --preset": f"{TWO} {CASE} --operation=forward",
    "python -m bench run --hidden": f"{CASE} {TWO} --operation=forward",
    "python -m bench run --dtype": f"{TWO} {CASE}",
    "python -m bench run --layers": f"{TWO} {CASE} --operation=forward --seq-len 3",
    "python -m bench run --implementations": f"{CASE} --operation=forward",
    "python -m bench report": "",
    "python -m bench compare --against": "--preset small.toml --reports=reports",
    "python -m bench compare": "",
    "python -m bench null": "--comparisons 1 --reports=reports",
    "python -m bench machine": "",
    "python -m bench train sine --resume": "",
    "python -m bench train adding": "--hidden 4 --epochs 1 --output reports/adding",
    "python -m bench train sine": "--hidden 4 --epochs 1 --seeds 1 --implementation numpy --output reports/sine",
    "python -m bench train": None,
    "python -m bench generate": "--length 10",
    "python -m tests.fuzz": "5",
    "python -m tests.random_cells": "--cells 2",
    "python -m tests.soak": "--minutes 0.1 --runs 2",
    "python -m tests.tables": "--draws 3 --seed 2",
    "python -m tests.widths": "--rounds 5",
    "python -m bench": f"run {TWO} {CASE} --operation=forward",
    "pytest -p bench.plugin --benchmark": f"{TWO} {CASE} --operation=forward",
    "pytest --benchmark": f"{TWO} {CASE} --operation=forward",
    "pytest -n auto": "--collect-only -q",
}
# Commands and words that are no commands of their own, and where they are run.
ELSEWHERE = {
    "python -m bench run --scheduler": "tests/bench/fleet",
    "python -m bench train": "a group of commands: each task has tests of its own in tests/bench/tasks",
}
PRESET = """
[effort]
lives = 1
case_s = 0.1

[[grids]]
cell = ["rnn"]
operation = ["forward"]
hidden = [4]
seq_len = [2]
batch = [1]
"""


def commands():
    found = {}
    for name in ("README.md", "CONTRIBUTING.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        spans = [
            *re.findall(r"`((?:python|pytest) [^`\n]+)`", text),
            *re.findall(r"^((?:python|pytest) .+)$", text, re.MULTILINE),
        ]
        found |= dict.fromkeys(spans)
    return list(found)


def smaller(command):
    """Return the line of SMALLER that a command begins with, and what it adds."""
    return next(((begin, words) for begin, words in SMALLER.items() if command.startswith(begin)), (None, None))


def test_every_command_has_a_way_to_be_run():
    found = commands()
    assert len(found) > 20
    unknown = [command for command in found if smaller(command)[1] is None and smaller(command)[0] not in ELSEWHERE]
    assert unknown == []
    assert [begin for begin in SMALLER if not any(smaller(command)[0] == begin for command in found)] == []


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with what the commands speak of: two runs, a model, a training, a text that was learned, a preset."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "small.toml").write_text(PRESET)
    (folder / "text.txt").write_text((ROOT / "README.md").read_text(encoding="utf-8"), encoding="utf-8")
    for name in ("before", "after"):
        run(folder, f"python -m bench run {CASE} {TWO} --operation=forward --fresh --reports={folder / name}")
        (folder / "reports").mkdir(exist_ok=True)
        next((folder / name).iterdir()).rename(folder / "reports" / name)
    run(
        folder,
        "python -m bench train sine --hidden 4 --epochs 1 --seeds 1 --implementation numpy --output reports/kept",
    )
    run(folder, f"python -m bench train text {TEXT} --output reports/text")
    make_model(folder / "model.onnx")
    return folder


def make_model(path):
    helper, onnx = (pytest.importorskip(name) for name in ("onnx.helper", "onnx"))
    import numpy as np

    from kernels import lstm
    from reference.layouts import to_onnx

    names = ["W", "R", "B"]
    arrays = to_onnx(lstm.init_params(3, 4, np.random.default_rng(0)))
    values = [onnx.numpy_helper.from_array(a, name) for a, name in zip(arrays, names, strict=True)]
    node = helper.make_node("LSTM", ["X", *names], ["Y"], hidden_size=4)
    x = helper.make_tensor_value_info("X", onnx.TensorProto.FLOAT, ["T", "B", 3])
    y = helper.make_tensor_value_info("Y", onnx.TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "one layer", [x], [y], values)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


STANDS_FOR = {
    "RUN...": "reports/before reports/after",
    "OLD": "reports/before",
    "NEW": "reports/after",
    "FOLDER": "reports/kept",
    "MODEL": "reports/text",
    "FILE": "model.onnx",
    "main~5": "HEAD",
    "origin/main": "HEAD",
}


def run(folder, command):
    """Run a command in the folder, as from any other; pytest is at home in the checkout."""
    program, *words = shlex.split(command)
    where = folder if program == "python" else ROOT
    before = ["-m", "pytest"] if program == "pytest" else []
    words = [word.replace("=reports", f"={folder / 'reports'}") for word in words]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    everything = [sys.executable, *before, *words]
    done = subprocess.run(everything, cwd=where, env=environment, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
    assert "Traceback" not in done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("command", [command for command in commands() if smaller(command)[1] is not None])
def test_the_command_runs(command, home):
    changed = command
    for word, meant in STANDS_FOR.items():
        changed = re.sub(rf"(?<![\w-]){re.escape(word)}(?![\w-])", meant, changed)
    assert run(home, f"{changed} {smaller(command)[1]}").strip()
