"""The doors of every cell's kernels: what they take, and what they refuse with one line that names the argument."""

import copy
import pickle
import re

import numpy as np
import pytest

from kernels.core.vectors.simd import ALIGNMENT
from tests.kernels.cells import CELLS, SMALL, arguments, by_cell
from tests.kernels.compare import calls, draw, named, rebuild, results

# --- arrays that are not quite plain -----------------------------------------------------------------------------


def read_only(a):
    a = a.copy()
    a.flags.writeable = False
    return a


def memory_map(a, folder):
    path = folder / f"{len(list(folder.iterdir()))}.bin"
    a.tofile(path)
    return np.memmap(path, a.dtype, "r", shape=a.shape)


class Subclass(np.ndarray):
    pass


@by_cell
@pytest.mark.parametrize("kind", ["read-only", "memmap", "subclass"])
def test_plain_memory_under_another_name(cell, kind, tmp_path):
    """Taken like any array, by the same code: the memory is what counts, and results are plain arrays."""
    inputs = draw(cell.kernels, SMALL, np.float32)
    refs = {call: results(function()) for call, function in calls(cell.kernels, inputs).items()}
    compiled = [getattr(cell.kernels, name) for name in ("_step", "_infer", "_bptt")]
    before = [set(function.overloads) for function in compiled]
    array = {
        "read-only": read_only,
        "memmap": lambda a: memory_map(a, tmp_path),
        "subclass": lambda a: a.copy().view(Subclass),
    }[kind]
    for call, function in calls(cell.kernels, rebuild(inputs, cell.kernels, array), array=array).items():
        for name, a in results(function()).items():
            assert type(a) is np.ndarray, f"{call}: {name}"
            np.testing.assert_array_equal(a, refs[call][name], err_msg=f"{call}: {name}")
    assert [set(function.overloads) for function in compiled] == before


@by_cell
def test_what_cannot_be_written_to_stays_so_in_the_trace(cell):
    inputs = rebuild(draw(cell.kernels, SMALL, np.float32), cell.kernels, read_only)
    trace = cell.kernels.forward(*inputs[:3])
    assert trace.x is inputs.x
    for a, b in zip(trace.initial, inputs.state, strict=True):
        assert a is b


# --- bad arrays --------------------------------------------------------------------------------------------------


def unaligned(a):
    memory = np.zeros(a.nbytes + 1, np.uint8)[1:]
    memory[:] = np.frombuffer(a.tobytes(), np.uint8)
    return memory.view(a.dtype).reshape(a.shape)


# What is done to one array, and the error it brings.
SPOIL = {
    "rank 0": (lambda a: a.reshape(-1)[:1].reshape(()), ValueError),
    "rank more": (lambda a: a[None], ValueError),
    "list": (lambda a: a.tolist(), TypeError),
    "None": (lambda a: None, TypeError),
    "number": (lambda a: 1.0, TypeError),
    "masked": (lambda a: np.ma.masked_array(a, a > 0), TypeError),
    "int16": (lambda a: a.astype(np.int16), TypeError),
    "float16": (lambda a: a.astype(np.float16), TypeError),
    "float64": (lambda a: a.astype(np.float64), TypeError),
    "complex64": (lambda a: a.astype(np.complex64), TypeError),
    "object": (lambda a: a.astype(object), TypeError),
    "byte-swapped": (lambda a: a.astype(a.dtype.newbyteorder()), TypeError),
    "every other": (lambda a: np.repeat(a, 2, axis=-1)[..., ::2], ValueError),
    "reversed": (lambda a: a[..., ::-1].copy()[..., ::-1], ValueError),
    "Fortran": (np.asfortranarray, ValueError),
    "stride 0": (lambda a: np.broadcast_to(a[..., :1], a.shape), ValueError),
    "unaligned": (unaligned, ValueError),
    "longer": (lambda a: np.concatenate((a, a[:1])), ValueError),
    "wider": (lambda a: np.concatenate((a, a[..., :1]), axis=-1), ValueError),
    "empty": (lambda a: a[:0], ValueError),
    "no width": (lambda a: np.ascontiguousarray(a[..., :0]), ValueError),
}

FUNCTIONS = ("prepare", "forward_step", "infer", "forward", "bptt")

# Where two arguments contradict each other, the error names another one; None where there is nothing wrong.
NAMED_INSTEAD = {
    ("prepare", "params.U", "wider"): None,
    ("forward_step", "params.U", "wider"): "x_t",
    ("infer", "params.U", "wider"): "x",
    ("forward", "params.U", "wider"): "x",
    ("bptt", "params.U", "wider"): "trace.x",
    ("forward_step", "x_t", "longer"): "state.h",
    ("infer", "x", "longer"): None,
    ("forward", "x", "longer"): None,
    ("bptt", "trace.x", "longer"): "trace.hs",
    **{(function, "params.W", "float64"): "params.U" for function in FUNCTIONS},
    **{  # prepared, which lays them out anew
        (function, f"params.{name}", "unaligned"): None
        for function in FUNCTIONS
        if function != "bptt"
        for name in ("U", "W", "b", "c")
    },
    **{(function, bias, "Fortran"): None for function in FUNCTIONS for bias in ("params.b", "params.c")},
}


def array_names(cell, function):
    """Return the names of the arrays that a function reads."""
    given = arguments(cell, function)
    if "trace" in given:
        given["trace"] = given["trace"]._replace(state=None)
    return [name for argument, value in given.items() for name in named(value, argument)]


def spoilt(value, path, spoil):
    """Return a nested NamedTuple, or a dict of them, with what lies at `path` put through `spoil`."""
    if not path:
        return spoil(value)
    if isinstance(value, dict):
        return value | {path[0]: spoilt(value[path[0]], path[1:], spoil)}
    return value._replace(**{path[0]: spoilt(getattr(value, path[0]), path[1:], spoil)})


def one_line_about(argument):
    """Return what matches an error of one line that names the argument, the expected and the given."""
    return rf"\A{re.escape(argument)}: expected [^\n]+, got [^\n]+\Z"


def refused(error, argument):
    return pytest.raises(error, match=one_line_about(argument))


def refusal_of(function, arguments):
    try:
        function(**arguments)
    except (TypeError, ValueError) as error:
        return error


@pytest.mark.parametrize(
    ("cell", "function", "argument"),
    [
        pytest.param(cell, function, argument, id=f"{cell}-{function}-{argument}")
        for cell in CELLS
        for function in FUNCTIONS
        for argument in array_names(cell, function)
    ],
)
def test_a_bad_array_is_refused(cell, function, argument):
    wrong = {}
    for how, (spoil, error) in SPOIL.items():
        bad = spoilt(arguments(cell, function), argument.split("."), spoil)
        blamed = NAMED_INSTEAD.get((function, argument, how), argument)
        refusal = refusal_of(getattr(cell.kernels, function), bad)
        if blamed is None:
            right = refusal is None
        else:
            right = isinstance(refusal, error) and re.match(one_line_about(blamed), str(refusal))
        if not right:
            wrong[how] = f"{refusal!r}, and not {error.__name__} for {blamed}" if blamed else repr(refusal)
    assert not wrong


@by_cell
@pytest.mark.parametrize("value", [None, 1.0, (), np.zeros((17, 17), np.float32)], ids=["None", "1.0", "()", "array"])
@pytest.mark.parametrize(
    ("function", "argument"),
    [
        *((function, "params") for function in FUNCTIONS),
        *((function, "state") for function in ("forward_step", "infer", "forward")),
        ("bptt", "trace"),
        ("bptt", "trace.initial"),
        ("bptt", "grad_state"),
    ],
)
def test_what_is_no_named_tuple_is_refused(function, argument, value, cell):
    bad = spoilt(arguments(cell, function), argument.split("."), lambda _: value)
    if value is None and (function, argument) in {("infer", "state"), ("forward", "state"), ("bptt", "grad_state")}:
        getattr(cell.kernels, function)(**bad)
        return
    with refused(TypeError, argument):
        getattr(cell.kernels, function)(**bad)


# --- prepared weights --------------------------------------------------------------------------------------------


@by_cell
def test_prepared_weights_are_copied_and_sent_elsewhere(cell):
    prepared = cell.kernels.prepare(**arguments(cell, "prepare"))
    pickles = [pickle.dumps(prepared, protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
    for again in (copy.copy(prepared), copy.deepcopy(prepared), *map(pickle.loads, pickles)):
        assert type(again) is cell.kernels.Prepared
        assert again.weights.ctypes.data % ALIGNMENT == 0
        np.testing.assert_array_equal(again.weights, prepared.weights)
        assert again[1:] == prepared[1:]
    with refused(ValueError, "weights"):
        pickle.loads(pickles[0].replace(b"I17\n", b"I18\n"))  # another hidden size


@by_cell
@pytest.mark.parametrize(
    ("field", "value", "error", "blamed"),
    [
        ("hidden_size", 18, ValueError, "weights"),
        ("hidden_size", 10**6, ValueError, "weights"),
        ("hidden_size", -17, ValueError, "hidden_size"),
        ("hidden_size", 17.0, TypeError, "hidden_size"),
        ("input_size", 4, ValueError, "weights"),
        ("input_size", None, TypeError, "input_size"),
        ("gates", 2, ValueError, "gates"),
        ("gates", 3.0, TypeError, "gates"),
        ("gates", [4], TypeError, "gates"),
        ("weights", lambda a: a[:-1], ValueError, "weights"),
        ("weights", lambda a: a[None], ValueError, "weights"),
        ("weights", lambda a: np.repeat(a, 2)[::2], ValueError, "weights"),
        ("weights", lambda a: np.zeros(a.shape, np.int32), TypeError, "weights"),
        ("weights", lambda a: a.astype(np.float64), TypeError, "weights"),
        ("dtype", np.dtype(np.int32), ValueError, "dtype, together"),
        ("together", 4, TypeError, "weights"),
        ("weights", lambda a: a.tolist(), TypeError, "weights"),
    ],
)
def test_prepared_weights_of_another_size_are_refused(cell, field, value, error, blamed):
    """By whatever way they are made: the kernels would read beyond their memory."""
    prepared = cell.kernels.prepare(**arguments(cell, "prepare"))
    fields = ("weights", "input_size", "hidden_size", "gates", "dtype", "together")
    known = {name: getattr(prepared, name) for name in fields}
    changed = known | {field: value(prepared.weights) if callable(value) else value}
    with refused(error, blamed):
        cell.kernels.Prepared(**changed)
    with refused(error, blamed):
        cell.kernels.Prepared._make(changed.values())
    make, _ = prepared.__reduce_ex__(5)  # as a pickle does
    with refused(error, blamed):
        make(*changed.values())


def elsewhere(value, shift):
    """Return a value as it comes out of a pickle whose buffers lie in one read-only block, as Dask and Ray have them.

    The first begins `shift` bytes behind a cache line.
    """
    buffers = []
    data = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    parts = [buffer.raw().tobytes() for buffer in buffers]
    start = (
        -np.frombuffer(memory := bytearray(64 + 2 * shift + sum(map(len, parts))), np.uint8).ctypes.data % 64 + shift
    )
    places = []
    for part in parts:
        memory[start : start + len(part)] = part
        places.append(memoryview(memory)[start : start + len(part)].toreadonly())
        start += len(part)
    return pickle.loads(data, buffers=places)


@by_cell
@pytest.mark.parametrize("shift", [0, 1, 4])
def test_what_comes_out_of_band_gives_the_same_results(cell, shift):
    """Weights, states and traces, and Params whose arrays came one by one."""
    given = arguments(cell, "infer")
    params, x, state = given["params"], given["x"], given["state"]
    trace = cell.kernels.forward(params, x, state)
    grad_hs = np.ones_like(trace.hs)
    refs = results(cell.kernels.infer(params, x, state)), results(cell.kernels.bptt(params, trace, grad_hs))
    prepared = elsewhere(cell.kernels.prepare(params), shift)
    assert type(prepared) is cell.kernels.Prepared
    sent, begun, traced = (elsewhere(one, shift) for one in (params, state, trace))
    for weights in (prepared, sent, cell.kernels.Params(*map(unaligned, params))):
        for name, a in results(cell.kernels.infer(weights, x, begun)).items():
            np.testing.assert_array_equal(a, refs[0][name])
    for name, a in results(cell.kernels.bptt(sent, traced, grad_hs)).items():
        np.testing.assert_array_equal(a, refs[1][name])


@by_cell
def test_what_comes_aligned_is_not_copied(cell):
    prepared = cell.kernels.prepare(**arguments(cell, "prepare"))
    there = elsewhere(prepared, 0)
    assert not there.weights.flags.writeable  # the buffer's own memory


@by_cell
def test_a_state_needs_params(cell):
    for params in (None, 3, (), np.zeros((17, 17), np.float32)):
        with refused(TypeError, "params"):
            cell.kernels.init_state(params, 3)
    params = arguments(cell, "prepare")["params"]
    for W, error in ((None, TypeError), ([[1.0]], TypeError), (params.b, ValueError), (params.W[:, :0], ValueError)):
        with refused(error, "params.W"):
            cell.kernels.init_state(params._replace(W=W), 3)


@by_cell
@pytest.mark.parametrize("rng", [None, 0, np.random, np.random.Generator], ids=str)
def test_no_generator_is_refused(rng, cell):
    with refused(TypeError, "rng"):
        cell.kernels.init_params(3, 3, rng)


# --- bad numbers and names ---------------------------------------------------------------------------------------


@by_cell
@pytest.mark.parametrize(
    ("truncate", "error"),
    [(-1, ValueError), (np.int64(-3), ValueError), (True, TypeError), (2.0, TypeError), ("2", TypeError)],
    ids=repr,
)
def test_a_bad_truncate_is_refused(truncate, error, cell):
    with refused(error, "truncate"):
        cell.kernels.bptt(**arguments(cell, "bptt"), truncate=truncate)


@by_cell
@pytest.mark.parametrize(
    ("size", "error"), [(0, ValueError), (-1, ValueError), (True, TypeError), (1.0, TypeError), (None, TypeError)]
)
def test_a_bad_size_is_refused(size, error, cell):
    rng = np.random.default_rng(0)
    with refused(error, "input_size"):
        cell.kernels.init_params(size, 3, rng)
    with refused(error, "hidden_size"):
        cell.kernels.init_params(3, size, rng)
    with refused(error, "batch_size"):
        cell.kernels.init_state(cell.kernels.init_params(3, 3, rng), size)


@by_cell
@pytest.mark.parametrize("dtype", [np.float16, np.int32, np.complex64, ">f4", "float128", object, None, "foo", 3])
def test_a_bad_dtype_is_refused(dtype, cell):
    with refused(TypeError, "dtype"):
        cell.kernels.init_params(3, 3, np.random.default_rng(0), dtype)


@pytest.mark.parametrize("activation", ["gelu", "", "Tanh", b"tanh", None, 1, ["tanh"]], ids=repr)
@pytest.mark.parametrize("function", ["forward_step", "infer", "forward", "bptt"])
def test_an_unknown_activation_is_refused(function, activation):
    [rnn] = (cell for cell in CELLS if cell.name == "rnn")
    with refused(ValueError, "activation"):
        getattr(rnn.kernels, function)(**arguments(rnn, function), activation=activation)
