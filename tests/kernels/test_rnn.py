"""`kernels.rnn` against `reference.rnn`, over the sizes where vectors, tiles and threads have their edges."""

import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import rnn
from reference import rnn as reference
from tests.kernels.compare import (
    DTYPES,
    Backward,
    Size,
    assert_same,
    calls,
    check_bptt,
    check_forward,
    draw,
    named,
    rebuild,
    results,
)

ACTIVATIONS = ("tanh", "relu", "sigmoid")

# Each hidden size meets each batch size; lengths and input sizes take turns.
SIZES = [
    Size(H, I, T, B)
    for (H, B), I, T in zip(
        itertools.product((1, 7, 17, 63, 65, 100), (1, 2, 5, 33)),
        itertools.cycle((1, 3, 40)),
        itertools.cycle((13, 1, 7, 2, 13)),
        strict=False,
    )
]
ALL_SIZES = [Size(*s) for s in itertools.product((1, 7, 17, 63, 65, 100), (1, 3, 40), (1, 13), (1, 2, 5, 33))]
SMALL = Size(H=17, I=3, T=5, B=5)

by_activation = pytest.mark.parametrize("activation", ACTIVATIONS)
by_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
by_size = pytest.mark.parametrize("size", SIZES, ids=str)
by_all_sizes = pytest.mark.parametrize("size", ALL_SIZES, ids=str)
by_edge = pytest.mark.parametrize(
    "size", [Size(1, 1, 1, 1), SMALL, Size(65, 40, 4, 33), Size(100, 1, 9, 1), Size(257, 1, 8, 1)], ids=str
)


CALLS = list(calls(rnn, draw(rnn, SMALL, np.float32)))
by_call = pytest.mark.parametrize("call", CALLS)


# --- against the reference ---------------------------------------------------------------------------------------


@by_activation
@by_dtype
@by_size
def test_forward(size, dtype, activation):
    check_forward(rnn, reference, size, dtype, activation)


@by_activation
@by_dtype
@by_size
def test_bptt(size, dtype, activation):
    check_bptt(rnn, reference, size, dtype, None, activation)


@by_activation
@by_dtype
@by_size
def test_bptt_truncated(size, dtype, activation):
    check_bptt(rnn, reference, size, dtype, size.T // 3, activation)


@pytest.mark.slow
@by_activation
@by_dtype
@by_all_sizes
def test_all_sizes(size, dtype, activation):
    check_forward(rnn, reference, size, dtype, activation)
    for truncate in (None, 0, 1, 5):
        check_bptt(rnn, reference, size, dtype, truncate, activation)


@pytest.mark.slow
@by_dtype
@pytest.mark.parametrize(
    "size", [Size(256, 256, 20, 64), Size(512, 1, 50, 1), Size(33, 2, 9, 1000), Size(3, 1, 100_000, 1)], ids=str
)
def test_large(size, dtype):
    check_forward(rnn, reference, size, dtype)
    check_bptt(rnn, reference, size, dtype, None)


sizes = st.builds(Size, H=st.integers(1, 140), I=st.integers(1, 70), T=st.integers(1, 20), B=st.integers(1, 70))


def check_any(size, dtype, activation, truncate):
    check_forward(rnn, reference, size, dtype, activation)
    check_bptt(rnn, reference, size, dtype, truncate, activation)


any_case = given(sizes, st.sampled_from(DTYPES), st.sampled_from(ACTIVATIONS), st.none() | st.integers(0, 25))
test_any_size = settings(max_examples=25, deadline=None)(any_case(check_any))
test_any_size_at_length = pytest.mark.slow(settings(max_examples=1000, deadline=None)(any_case(check_any)))


@by_dtype
@pytest.mark.parametrize("truncate", [4, 5, 1000])
def test_a_window_over_all_steps_is_full_bptt(dtype, truncate):
    inputs = draw(rnn, SMALL, dtype)
    trace = rnn.forward(*inputs[:3])
    full = named(rnn.bptt(inputs.params, trace, *inputs[3:]))
    for name, comp in named(rnn.bptt(inputs.params, trace, *inputs[3:], truncate)).items():
        np.testing.assert_array_equal(comp, full[name], err_msg=name)


@by_dtype
def test_init_params_are_those_of_the_reference(dtype):
    comp = rnn.init_params(3, 17, np.random.default_rng(5), dtype)
    ref = reference.init_params(3, 17, np.random.default_rng(5), dtype)
    for name, a in named(comp).items():
        np.testing.assert_array_equal(a, named(ref)[name], err_msg=name)
        assert a.dtype == dtype
    state = rnn.init_state(comp, 4)
    assert state.h.shape == (4, 17)
    assert state.h.dtype == dtype
    assert not state.h.any()


# --- one way of calling against another --------------------------------------------------------------------------


@by_activation
@by_dtype
@by_edge
def test_infer_and_steps_are_forward(size, dtype, activation):
    params, x, state, *_ = draw(rnn, size, dtype)
    trace = rnn.forward(params, x, state, activation)
    np.testing.assert_array_equal(trace.state.h, trace.hs[-1])
    np.testing.assert_array_equal(trace.initial.h, state.h)
    np.testing.assert_array_equal(trace.x, x)

    assert_same(rnn.infer(params, x, state, activation), rnn.Output(trace.hs, trace.state), size)
    for t in range(size.T):
        state = rnn.forward_step(params, x[t], state, activation)
        assert_same(state, rnn.State(trace.hs[t]), size)


@by_dtype
@by_edge
def test_prepared_params_give_the_same(size, dtype):
    by_name = calls(rnn, draw(rnn, size, dtype))
    for name in ("forward_step", "infer", "forward"):
        comp = named(by_name[name + " prepared"]())
        for key, ref in named(by_name[name]()).items():
            np.testing.assert_array_equal(comp[key], ref, err_msg=f"{name}: {key}")


@by_dtype
@by_edge
def test_prepared_params_are_a_snapshot(size, dtype):
    """`prepare` lays out a copy, so weights that change later do not show, whatever the layout."""
    inputs = draw(rnn, size, dtype)
    before = rnn.infer(inputs.params, inputs.x)
    prepared = rnn.prepare(inputs.params)
    for a in inputs.params:
        a[...] = 0
    np.testing.assert_array_equal(rnn.infer(prepared, inputs.x).hs, before.hs)


@by_dtype
@pytest.mark.parametrize("size", [SMALL, Size(65, 40, 4, 33), Size(100, 1, 9, 1)], ids=str)
def test_two_chunks_are_one_sequence(size, dtype):
    params, x, state, grad_hs, grad_state = draw(rnn, size, dtype)
    whole = rnn.forward(params, x, state)
    head = rnn.forward(params, np.ascontiguousarray(x[:3]), state)
    tail = rnn.forward(params, np.ascontiguousarray(x[3:]), head.state)
    hs = np.concatenate((head.hs, tail.hs))
    assert_same(rnn.Output(hs, tail.state), rnn.Output(whole.hs, whole.state), size)

    later = rnn.bptt(params, tail, np.ascontiguousarray(grad_hs[3:]), grad_state)
    earlier = rnn.bptt(params, head, np.ascontiguousarray(grad_hs[:3]), later.state)
    both = rnn.Params(*(a + b for a, b in zip(earlier.params, later.params, strict=True)))
    comp = rnn.Gradients(both, np.concatenate((earlier.x, later.x)), earlier.state)
    assert_same(comp, rnn.bptt(params, whole, grad_hs, grad_state), size)


@pytest.mark.skipif(numba.get_num_threads() < 2, reason="needs two threads")
@by_call
@by_dtype
@by_edge
def test_two_threads_give_what_one_gives(size, dtype, call):
    """Not to the bit: a row's sums are ordered by the tile that it falls into, and the weights' gradients are split."""
    inputs = draw(rnn, size, dtype)
    threads = numba.get_num_threads()
    found = []
    try:
        for n in (1, 2):
            numba.set_num_threads(n)
            found.append(calls(rnn, inputs)[call]())
    finally:
        numba.set_num_threads(threads)
    ref, comp = found
    assert_same(comp, ref, size)


# --- PyTorch -----------------------------------------------------------------------------------------------------


@by_dtype
@pytest.mark.parametrize("activation", ["tanh", "relu"])
@by_edge
def test_equals_torch(size, activation, dtype):
    torch = pytest.importorskip("torch")
    params, x, state, grad_hs, grad_state = draw(rnn, size, dtype)
    layer = torch.nn.RNN(size.I, size.H, nonlinearity=activation, dtype=getattr(torch, np.dtype(dtype).name))
    with torch.no_grad():
        for weight, value in zip(layer.parameters(), (*params, np.zeros_like(params.b)), strict=True):
            weight.copy_(torch.from_numpy(value))
    x_, h_ = (torch.from_numpy(a.copy()).requires_grad_() for a in (x, state.h[None]))
    hs, last = layer(x_, h_)
    torch.autograd.backward((hs, last), (torch.from_numpy(grad_hs), torch.from_numpy(grad_state.h[None])))

    trace = rnn.forward(params, x, state, activation)
    ref = rnn.Output(hs.detach().numpy(), rnn.State(last[0].detach().numpy()))
    assert_same(rnn.Output(trace.hs, trace.state), ref, size)
    by_params = rnn.Params(*(p.grad.numpy() for p in list(layer.parameters())[:3]))
    ref = rnn.Gradients(by_params, x_.grad.numpy(), rnn.State(h_.grad[0].numpy()))
    assert_same(rnn.bptt(params, trace, grad_hs, grad_state, activation=activation), ref, size)


# --- memory ------------------------------------------------------------------------------------------------------


@by_call
@by_dtype
@by_edge
def test_inputs_stay_as_they_are(size, dtype, call):
    inputs = draw(rnn, size, dtype)
    before = rebuild(inputs, rnn)
    calls(rnn, inputs)[call]()
    for name, a in named(inputs).items():
        np.testing.assert_array_equal(a, named(before)[name], err_msg=name)


@by_dtype
@by_edge
def test_bptt_keeps_the_trace(size, dtype):
    inputs = draw(rnn, size, dtype)
    trace = rnn.forward(inputs.params, inputs.x, inputs.state)
    before = rebuild(trace, rnn)
    for truncate in (None, 0, 2):
        rnn.bptt(inputs.params, trace, inputs.grad_hs, inputs.grad_state, truncate)
    for name, a in named(trace).items():
        np.testing.assert_array_equal(a, named(before)[name], err_msg=name)


@by_call
@by_edge
def test_results_own_their_memory(size, call):
    inputs = draw(rnn, size, np.float32)
    function = calls(rnn, inputs)[call]
    first, second = results(function()), results(function())
    others = {**named(inputs), **{f"another call's {name}": a for name, a in second.items()}}
    for name, a in first.items():
        assert a.base is None, name
        assert a.flags.owndata, name
        assert a.flags.writeable, name
        for other, b in {**others, **{n: b for n, b in first.items() if n != name}}.items():
            assert not np.shares_memory(a, b), f"{name} lies in {other}"


@by_call
@by_dtype
@by_edge
def test_old_memory_does_not_show(size, dtype, call, monkeypatch):
    """Whatever the arrays' memory held before: zeros the first time, as good as sure, and NaN the second."""
    inputs = draw(rnn, size, dtype)
    ref = named(calls(rnn, inputs)[call]())

    empty = np.empty

    def poisoned(*args, **kwargs):
        a = empty(*args, **kwargs)
        if a.dtype.kind == "f":
            a.fill(np.nan)
        return a

    monkeypatch.setattr(np, "empty", poisoned)
    monkeypatch.setattr(np, "empty_like", lambda like, *args, **kwargs: poisoned(like.shape, like.dtype))
    function = calls(rnn, inputs)[call]
    for elements in {a.size for a in ref.values()}:  # the allocator hands these out again to the compiled code
        for freed in [np.full(elements, np.nan, dtype) for _ in range(4)]:
            del freed
    for name, a in named(function()).items():
        np.testing.assert_array_equal(a, ref[name], err_msg=name)


def run_apart(module, *arguments, **environment):
    """Run a module in a process of its own, for what may end the process."""
    command = [sys.executable, "-m", module, *arguments]
    folder = Path(__file__).parents[2]
    done = subprocess.run(
        command, cwd=folder, env=os.environ | environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-4000:]}"


@pytest.mark.skipif(sys.platform == "win32", reason="needs mprotect")
@by_dtype
@pytest.mark.parametrize("amount", ["some", pytest.param("all", marks=pytest.mark.slow)])
def test_nothing_is_touched_outside_of_the_arrays(dtype, amount):
    """Memory that the C library hands out is filled with 0x7f as well, a huge number in both dtypes."""
    run_apart("tests.kernels.guard", "rnn", np.dtype(dtype).name, amount, MALLOC_PERTURB_="128")


def test_calls_from_many_python_threads():
    run_apart("tests.kernels.concurrent", "rnn")


# --- NaN and infinity --------------------------------------------------------------------------------------------


def assert_as_numpy_has_them(comp, ref, what=""):
    """Assert that NaN and the infinities lie in the same places, and that the rest is close."""
    for name, a in named(ref).items():
        # Reported apart from the values, so that a place tells more than a number.
        np.testing.assert_array_equal(np.isnan(named(comp)[name]), np.isnan(a), err_msg=f"NaN in {name}{what}")
        np.testing.assert_allclose(named(comp)[name], a, rtol=1e-3, atol=1e-4, err_msg=name + what)


def middle(a):
    return tuple(n // 2 for n in a.shape)


@by_activation
@by_dtype
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_nan_and_infinity_in_forward(value, dtype, activation):
    for where in ("x", "state.h", "params.U", "params.W", "params.b"):
        inputs = draw(rnn, SMALL, dtype)
        array = named(inputs)[where]
        array[middle(array)] = value
        comp = rnn.forward(inputs.params, inputs.x, inputs.state, activation)
        ref = reference.forward(*rebuild(inputs, reference)[:3], activation)
        assert_as_numpy_has_them(comp, ref, f" from {value} in {where}")
        step = rnn.forward_step(inputs.params, inputs.x[-1], inputs.state, activation)
        ref = reference.forward_step(inputs.params, inputs.x[-1], inputs.state, activation)
        assert_as_numpy_has_them(step, ref, f" from {value} in {where}")


@by_activation
@by_dtype
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("truncate", [None, 2])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_nan_and_infinity_in_bptt(truncate, value, dtype, activation):
    for where in ("grad_hs", "grad_state.h", "params.U", "params.W", "trace.x", "trace.hs", "trace.initial.h"):
        if where == "trace.hs" and np.isinf(value) and activation != "relu":
            continue  # no state of theirs is infinite
        params, x, state, grad_hs, grad_state = draw(rnn, SMALL, dtype)
        trace = rnn.forward(params, x, state, activation)
        inputs = Backward(params, trace, grad_hs, grad_state)
        array = named(inputs)[where]
        array[middle(array)] = value
        comp = rnn.bptt(*inputs, truncate, activation)
        ref = reference.bptt(*rebuild(inputs, reference), truncate, activation)
        assert_as_numpy_has_them(comp, ref, f" from {value} in {where}")


@by_activation
@by_dtype
@pytest.mark.parametrize("scale", [1e3, 1e30])
def test_saturation(scale, dtype, activation):
    """Large numbers: tanh and sigmoid reach their ends exactly, relu stays right."""
    inputs = draw(rnn, SMALL, dtype)
    inputs.x[...] *= dtype(scale)
    comp = rnn.infer(inputs.params, inputs.x, inputs.state, activation)
    ref = reference.infer(*rebuild(inputs, reference)[:3], activation)
    np.testing.assert_allclose(comp.hs, ref.hs, rtol=1e-4, atol=4 * np.finfo(dtype).eps)


@by_activation
@by_dtype
@pytest.mark.parametrize("size", [SMALL, Size(65, 40, 4, 33), Size(7, 1, 3, 2)], ids=str)
def test_one_bad_sequence_leaves_the_others_alone(size, dtype, activation):
    inputs = draw(rnn, size, dtype)
    good = rnn.forward(inputs.params, inputs.x, inputs.state, activation)
    bad_row = size.B // 2
    others = np.arange(size.B) != bad_row
    spoilt = inputs.x.copy()
    spoilt[:, bad_row] = np.nan
    bad = rnn.forward(inputs.params, spoilt, inputs.state, activation)
    np.testing.assert_array_equal(bad.hs[:, others], good.hs[:, others])
    assert np.isnan(bad.hs[:, bad_row]).all()

    grad_hs = inputs.grad_hs.copy()
    grad_hs[:, bad_row] = np.nan
    ref = rnn.bptt(inputs.params, good, inputs.grad_hs, inputs.grad_state, None, activation)
    comp = rnn.bptt(inputs.params, good, grad_hs, inputs.grad_state, None, activation)
    np.testing.assert_array_equal(comp.x[:, others], ref.x[:, others])
    np.testing.assert_array_equal(comp.state.h[others], ref.state.h[others])
    assert np.isnan(comp.x[:, bad_row]).all()


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


@pytest.mark.parametrize("kind", ["read-only", "memmap", "subclass"])
@by_call
def test_plain_memory_under_another_name(kind, call, tmp_path):
    """Taken like any array: the memory is what counts, and results are plain arrays."""
    inputs = draw(rnn, SMALL, np.float32)
    array = {
        "read-only": read_only,
        "memmap": lambda a: memory_map(a, tmp_path),
        "subclass": lambda a: a.copy().view(Subclass),
    }[kind]
    ref = results(calls(rnn, inputs)[call]())
    comp = results(calls(rnn, rebuild(inputs, rnn, array))[call]())
    for name, a in comp.items():
        assert type(a) is np.ndarray, name
        np.testing.assert_array_equal(a, ref[name], err_msg=name)


# --- bad input ---------------------------------------------------------------------------------------------------


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
    "int32": (lambda a: a.astype(np.int32), TypeError),
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

WEIGHTS = ("params.U", "params.W", "params.b")
ARRAYS = {
    "prepare": WEIGHTS,
    "forward_step": (*WEIGHTS, "x_t", "state.h"),
    "infer": (*WEIGHTS, "x", "state.h"),
    "forward": (*WEIGHTS, "x", "state.h"),
    "bptt": (*WEIGHTS, "trace.hs", "trace.x", "trace.initial.h", "grad_hs", "grad_state.h"),
}

# Where two arguments contradict each other, the error names the later one; None where there is nothing wrong.
NAMED_INSTEAD = {
    ("prepare", "params.U", "wider"): None,
    ("forward_step", "params.U", "wider"): "x_t",
    ("infer", "params.U", "wider"): "x",
    ("forward", "params.U", "wider"): "x",
    ("bptt", "params.U", "wider"): "trace.x",
    ("forward_step", "x_t", "longer"): "state.h",
    ("infer", "x", "longer"): None,
    ("forward", "x", "longer"): None,
    ("bptt", "trace.hs", "longer"): "trace.x",
    **{(function, "params.W", "float64"): "params.U" for function in ARRAYS},
    **{(function, "params.b", "Fortran"): None for function in ARRAYS},
}


def arguments(function):
    """Return right arguments for a function of the kernels, by name."""
    params, x, state, grad_hs, grad_state = draw(rnn, SMALL, np.float32)
    if function == "prepare":
        return {"params": params}
    if function == "forward_step":
        return {"params": params, "x_t": x[0], "state": state}
    if function in ("infer", "forward"):
        return {"params": params, "x": x, "state": state}
    trace = rnn.forward(params, x, state)
    return {"params": params, "trace": trace, "grad_hs": grad_hs, "grad_state": grad_state}


def spoilt(value, path, spoil):
    """Return a nested NamedTuple, or a dict of them, with the array at `path` put through `spoil`."""
    if not path:
        return spoil(value)
    if isinstance(value, dict):
        return value | {path[0]: spoilt(value[path[0]], path[1:], spoil)}
    return value._replace(**{path[0]: spoilt(getattr(value, path[0]), path[1:], spoil)})


def refused(error, argument):
    """Expect an error of one line that names the argument, the expected and the given."""
    return pytest.raises(error, match=rf"\A{re.escape(argument)}: expected [^\n]+, got [^\n]+\Z")


@pytest.mark.parametrize("how", SPOIL)
@pytest.mark.parametrize(("function", "argument"), [(f, a) for f, names in ARRAYS.items() for a in names])
def test_a_bad_array_is_refused(function, argument, how):
    spoil, error = SPOIL[how]
    bad = spoilt(arguments(function), argument.split("."), spoil)
    blamed = NAMED_INSTEAD.get((function, argument, how), argument)
    if blamed is None:
        getattr(rnn, function)(**bad)
        return
    with refused(error, blamed):
        getattr(rnn, function)(**bad)


@pytest.mark.parametrize("value", [None, 1.0, (), np.zeros((17, 17), np.float32)], ids=["None", "1.0", "()", "array"])
@pytest.mark.parametrize(
    ("function", "argument"),
    [
        *((function, "params") for function in ARRAYS),
        *((function, "state") for function in ("forward_step", "infer", "forward")),
        ("bptt", "trace"),
        ("bptt", "trace.initial"),
        ("bptt", "grad_state"),
    ],
)
def test_what_is_no_named_tuple_is_refused(function, argument, value):
    if value is None and (function, argument) in {("infer", "state"), ("forward", "state"), ("bptt", "grad_state")}:
        pytest.skip("may be None")
    with refused(TypeError, argument):
        getattr(rnn, function)(**spoilt(arguments(function), argument.split("."), lambda _: value))


def test_the_references_own_tuples_are_taken():
    inputs = draw(reference, SMALL, np.float32)
    trace = rnn.forward(inputs.params, inputs.x, inputs.state)
    assert isinstance(trace, rnn.Trace)
    trace = rebuild(trace, reference)
    assert isinstance(rnn.bptt(inputs.params, trace, inputs.grad_hs, inputs.grad_state), rnn.Gradients)


@pytest.mark.parametrize("activation", ["gelu", "", "Tanh", b"tanh", None, 1, ["tanh"]], ids=repr)
@pytest.mark.parametrize("function", ["forward_step", "infer", "forward", "bptt"])
def test_an_unknown_activation_is_refused(function, activation):
    with refused(ValueError, "activation"):
        getattr(rnn, function)(**arguments(function), activation=activation)


@pytest.mark.parametrize(
    ("truncate", "error"),
    [(-1, ValueError), (np.int64(-3), ValueError), (True, TypeError), (2.0, TypeError), ("2", TypeError)],
    ids=repr,
)
def test_a_bad_truncate_is_refused(truncate, error):
    with refused(error, "truncate"):
        rnn.bptt(**arguments("bptt"), truncate=truncate)


def test_truncate_may_be_numpys():
    comp = rnn.bptt(**arguments("bptt"), truncate=np.int64(2))
    for name, ref in named(rnn.bptt(**arguments("bptt"), truncate=2)).items():
        np.testing.assert_array_equal(named(comp)[name], ref, err_msg=name)


@pytest.mark.parametrize(
    ("size", "error"), [(0, ValueError), (-1, ValueError), (True, TypeError), (1.0, TypeError), (None, TypeError)]
)
def test_a_bad_size_is_refused(size, error):
    rng = np.random.default_rng(0)
    with refused(error, "input_size"):
        rnn.init_params(size, 3, rng)
    with refused(error, "hidden_size"):
        rnn.init_params(3, size, rng)
    with refused(error, "batch_size"):
        rnn.init_state(rnn.init_params(3, 3, rng), size)


@pytest.mark.parametrize("dtype", [np.float16, np.int32, np.complex64, ">f4", "float128", object])
def test_a_bad_dtype_is_refused(dtype):
    with refused(TypeError, "dtype"):
        rnn.init_params(3, 3, np.random.default_rng(0), dtype)
