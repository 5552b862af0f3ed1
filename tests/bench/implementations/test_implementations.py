"""Every implementation through the gate at tiny sizes, each in a worker of its own, as in a run."""

from dataclasses import asdict
from importlib import import_module

import pytest

from bench.grid.cases import DTYPES, GATES, OPERATIONS, Case
from bench.implementations import IF_ASKED, find
from bench.timing.worker import Worker

MODULES = {name: module for name, module in find().items() if name not in IF_ASKED}
INFERENCE_ALONE = ("onnxruntime", "openvino")  # and in float32 alone
SIZES = {"float32": [(1, 1, 1, 1), (33, 16, 3, 5)], "float64": [(33, 16, 3, 5)]}  # H, I, T, B


def supports(name, operation, dtype):
    return name not in INFERENCE_ALONE or (operation in ("forward_step", "forward") and dtype == "float32")


def dtypes(name, cell):
    """Return what is tried; Numba takes most of a minute to compile a reference with gates for one dtype."""
    return DTYPES[:1] if name == "numba-jit" and cell != "rnn" else DTYPES


@pytest.mark.parametrize("cell", GATES)
@pytest.mark.parametrize("name", MODULES)
def test_right_or_unsupported(name, cell):
    if import_module(MODULES[name]).version() is None:
        pytest.skip(f"{name} is not installed")
    worker = Worker(MODULES[name], threads=1)
    try:
        worker.ask("start")
        for dtype in dtypes(name, cell):
            for H, I, T, B in SIZES[dtype]:
                for operation in OPERATIONS:
                    case = Case(cell, operation, H, I, 1 if operation == "forward_step" else T, B, dtype, 1)
                    reply = worker.ask("build", case=asdict(case), seed=0)
                    expected = "ok" if supports(name, operation, dtype) else "unsupported"
                    assert reply["status"] == expected, f"{case.id}: {reply['message']}"
    finally:
        worker.close()


@pytest.mark.parametrize("name", MODULES)
def test_the_docstring_says_what_is_timed(name):
    assert import_module(MODULES[name]).__doc__.count("\n") >= 3
