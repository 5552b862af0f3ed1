"""Every implementation through the gate at tiny sizes, each in a worker of its own, as in a run."""

from contextlib import closing
from dataclasses import asdict
from importlib import import_module
from itertools import product

import pytest

from bench.grid.cases import DTYPES, GATES, LOW, LOW_OPERATIONS, OPERATIONS, STEPS, Case
from bench.implementations import BESIDE, IF_ASKED, find
from bench.timing.worker import Worker

MODULES = {name: module for name, module in find().items() if name not in IF_ASKED}
INFERENCE_ALONE = ("onnxruntime", "openvino")  # and in float32 and below alone
IN_FLOAT32 = ("numpy", *BESIDE)  # whatever the case's dtype below it
SIZES = {"float32": [(1, 1, 1, 1), (33, 16, 3, 5)], "float64": [(33, 16, 3, 5)]}  # H, I, T, B


def supports(name, operation, dtype):
    return name not in INFERENCE_ALONE or (operation in LOW_OPERATIONS and dtype == "float32")


def dtypes(name, cell):
    """Return what is tried; Numba takes most of a minute to compile a reference with gates for one dtype."""
    return DTYPES[:1] if name == "numba-jit" and cell != "rnn" else DTYPES


@pytest.mark.parametrize(
    ("name", "cell"),
    [
        pytest.param(name, cell, marks=pytest.mark.slow if name == "numba-jit" and cell != "rnn" else [])
        for name, cell in product(MODULES, GATES)
    ],
)
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


def supports_below_float32(name, cell, operation, dtype):
    if name == "torch":
        return (dtype, cell, operation) != ("int8", "rnn", "forward")  # its quantize_dynamic leaves it as it is
    if name == "onnxruntime":
        return (dtype, cell) == ("int8", "lstm")
    return name in ("numba-simd", *IN_FLOAT32) or (name in ("jax", "openvino") and dtype == "bfloat16")


@pytest.mark.parametrize("cell", GATES)
@pytest.mark.parametrize("name", MODULES)
def test_within_the_budget_below_float32_or_unsupported(name, cell):
    if import_module(MODULES[name]).version() is None:
        pytest.skip(f"{name} is not installed")
    with closing(Worker(MODULES[name], threads=1)) as worker:
        worker.ask("start")
        for dtype, operation in product(LOW, LOW_OPERATIONS):
            case = Case(cell, operation, 33, 16, 1 if operation == "forward_step" else 10, 5, dtype, 1)
            reply = worker.ask("build", case=asdict(case), seed=0)
            if reply["message"] == "it has no bfloat16 on this CPU":
                continue
            expected = "ok" if supports_below_float32(name, cell, operation, dtype) else "unsupported"
            assert reply["status"] == expected, f"{case.id}: {reply['message']}"
            if expected == "ok":  # it rounds, unless it is one that does not
                assert (reply["loss"] < 1e-5) == (name in IN_FLOAT32), case.id


NETWORKS = [(2, 2, "ragged"), (2, 1, "full"), (1, 2, "ragged")]  # layers, directions, lengths
QUICK = {"numba-jit": ("rnn",), "jax": ("gru", "lstm")}  # of the cells, since these compile for long


@pytest.mark.parametrize("cell", GATES)
@pytest.mark.parametrize("name", MODULES)
def test_networks_are_right_or_unsupported(name, cell):
    if import_module(MODULES[name]).version() is None:
        pytest.skip(f"{name} is not installed")
    if cell not in QUICK.get(name, GATES):
        pytest.skip(f"{name} compiles for long: {', '.join(QUICK[name])} alone")
    shapes = NETWORKS[:1] if name in QUICK else NETWORKS
    with closing(Worker(MODULES[name], threads=1)) as worker:
        worker.ask("start")
        for (L, D, lengths), operation in product(shapes, OPERATIONS):
            if operation in STEPS and (D > 1 or lengths != "full"):
                continue
            T = 1 if operation == "forward_step" else 6
            case = Case(cell, operation, 17, 5, T, 4, "float32", 1, L, D, lengths)
            reply = worker.ask("build", case=asdict(case), seed=0)
            expected = "ok" if supports(name, operation, "float32") else "unsupported"
            assert reply["status"] == expected, f"{case.id}: {reply['message']}"


COMPILED = ("numba-jit", "numba-simd", "jax")  # which takes long, for each
# activation, operation, layers, directions, lengths
ACTIVATED = [
    ("relu", "forward", 1, 1, "full"),
    ("relu", "train", 1, 1, "full"),
    ("relu", "stream", 2, 1, "full"),
    ("relu", "train", 2, 2, "ragged"),
    ("sigmoid", "forward", 2, 2, "ragged"),
    ("sigmoid", "bptt", 1, 1, "full"),
]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in COMPILED else name for name in MODULES]
)
def test_other_activations_are_right_or_unsupported(name):
    if import_module(MODULES[name]).version() is None:
        pytest.skip(f"{name} is not installed")
    with closing(Worker(MODULES[name], threads=1)) as worker:
        worker.ask("start")
        for activation, operation, L, D, lengths in ACTIVATED[: 2 if name == "numba-jit" else None]:  # it compiles long
            case = Case("rnn", operation, 17, 5, 6, 4, "float32", 1, L, D, lengths, "", activation)
            reply = worker.ask("build", case=asdict(case), seed=0)
            has = supports(name, operation, "float32") and not (name == "torch" and activation == "sigmoid")
            assert reply["status"] == ("ok" if has else "unsupported"), f"{case.id}: {reply['message']}"
        case = Case("rnn", "forward", 17, 5, 6, 4, "int8", 1, activation="relu")
        reply = worker.ask("build", case=asdict(case), seed=0)
        words = "int8 has its budget for states within ±1, and relu's have no bound"
        assert (reply["status"], reply["message"]) == ("unsupported", words)


@pytest.mark.parametrize("name", MODULES)
def test_the_docstring_says_what_is_timed(name):
    assert import_module(MODULES[name]).__doc__.count("\n") >= 3
