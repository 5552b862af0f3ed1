"""Every case compiles for many seconds, so what it can do is among the slow tests."""

import shutil
from contextlib import closing
from dataclasses import asdict

import pytest

from bench.grid.cases import Case
from bench.implementations import torch_compile
from bench.timing.worker import Worker

pytest.importorskip("torch")


@pytest.fixture
def build():
    """Return a function that builds a case in a worker and returns its reply."""
    with closing(Worker("bench.implementations.torch_compile", threads=1)) as worker:
        worker.ask("start")

        def build(cell, operation, dtype="float32", T=2):
            case = Case(cell, operation, 9, 4, 1 if operation == "forward_step" else T, 3, dtype, 1)
            return worker.ask("build", case=asdict(case), seed=0)

        yield build


@pytest.mark.slow
@pytest.mark.skipif(shutil.which(torch_compile.COMPILER) is None, reason="needs a C++ compiler")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_right(build, cell, dtype):
    for operation in ("forward_step", "forward", "train"):
        reply = build(cell, operation, dtype)
        assert (reply["status"], reply["message"]) == ("ok", None), operation


@pytest.mark.slow
@pytest.mark.skipif(shutil.which(torch_compile.COMPILER) is None, reason="needs a C++ compiler")
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_bfloat16_is_within_its_budget(build, cell):
    for operation in ("forward_step", "forward"):
        reply = build(cell, operation, "bfloat16")
        assert (reply["status"], reply["message"]) == ("ok", None), operation
        assert reply["loss"] > 1e-5


def test_what_it_cannot_do_has_a_reason(monkeypatch, request):
    monkeypatch.setenv("CXX", "/no/such/compiler")
    build = request.getfixturevalue("build")
    for operation, T, dtype, why in (
        ("forward", 2, "int8", "tensors of int8 are for quantized modules, which are not compiled"),
        ("bptt", 2, "float32", "the backward pass is compiled with its forward, and timed in train"),
        ("forward", 51, "float32", "every step is compiled anew: no more than 50 here"),
        ("forward", 2, "float32", "needs a C++ compiler, and /no/such/compiler is not there"),
    ):
        reply = build("rnn", operation, dtype, T)
        assert (reply["status"], reply["message"]) == ("unsupported", why)
