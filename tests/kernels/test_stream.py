"""`stream`: a step at a time gives what `infer` gives, and nothing that a caller does breaks it."""

import copy
import gc
import itertools
import os
import pickle
import re
import threading
import tracemalloc

import numpy as np
import pytest

from kernels import stack
from kernels.core.doors import streams
from tests.kernels.cells import CELLS, SMALL, by_cell, by_dtype, by_variant, label
from tests.kernels.compare import DTYPES, Size, draw
from tests.kernels.sharing import share_everything

SIZES = [
    Size(H, I, T=4, B=B)
    for (H, B), I in zip(
        itertools.product((1, 7, 17, 63, 65, 100), (1, 2, 9)), itertools.cycle((1, 3, 40)), strict=False
    )
]
LOW = ("bfloat16", "int8")


def steps(stream, x):
    """Return hs of a stream's steps over x, each kept."""
    return np.stack([np.copy(stream.step(x_t)) for x_t in x])


def cases():
    for cell, (n, size), dtype in itertools.product(CELLS, enumerate(SIZES), (*DTYPES, *LOW)):
        options = cell.options[n % len(cell.options)]
        if dtype == "int8" and options == ("relu",):
            options = ("tanh",)
        name = dtype if dtype in LOW else label(dtype)
        yield pytest.param(cell, size, dtype, options, id=f"{cell}-{size}-{name}-{'-'.join(options)}")


@pytest.mark.parametrize(("cell", "size", "dtype", "options"), list(cases()))
def test_steps_are_those_of_forward_step(cell, size, dtype, options):
    number, low = (np.float32, dtype) if dtype in LOW else (dtype, None)
    params, x, state, *_ = draw(cell.kernels, size, number)
    weights = cell.kernels.prepare(params, low)
    stream = cell.kernels.stream(weights, size.B, *options)
    for begin in (cell.kernels.init_state(params, size.B), state):
        stream.state = begin
        for x_t in x:
            begin = cell.kernels.forward_step(weights, x_t, begin, *options)
            np.testing.assert_array_equal(stream.step(x_t), begin.h)
        for comp, ref in zip(stream.state, begin, strict=True):
            np.testing.assert_array_equal(comp, ref)


@by_variant
@by_dtype
def test_steps_are_those_of_the_reference(cell, options, dtype):
    size = Size(H=65, I=3, T=13, B=2)
    params, x, state, *_ = draw(cell.kernels, size, dtype)
    stream = cell.kernels.stream(params, size.B, *options)
    stream.state = state
    hs = steps(stream, x)
    ref = cell.reference.infer(params, x.astype(np.float64), cell.reference.State(*state), *options)
    bound = size.T * np.sqrt(size.H + size.I) * np.finfo(dtype).eps  # a sum's roundings in every step
    np.testing.assert_allclose(hs, ref.hs, atol=bound, rtol=0)
    np.testing.assert_allclose(stream.state[-1], ref.state[-1], atol=bound, rtol=0)


@by_cell
@pytest.mark.parametrize("low", [None, *LOW])
@pytest.mark.parametrize("size", [Size(400, 3, 4, 1), Size(400, 5, 4, 5), Size(40, 3, 3, 33)], ids=label)
def test_a_team_takes_the_steps_of_one(size, low, cell, monkeypatch):
    params, x, state, *_ = draw(cell.kernels, size, np.float32)
    weights = cell.kernels.prepare(params, low)
    want = [s.h for s in chain(cell.kernels, weights, x, state)]
    share_everything(monkeypatch.setattr)
    stream = cell.kernels.stream(weights, size.B)
    assert isinstance(stream._step, streams.Shared)
    stream.state = state
    np.testing.assert_array_equal(steps(stream, x), want)


def chain(kernels, weights, x, state):
    """Return the states after each step."""
    for x_t in x:
        state = kernels.forward_step(weights, x_t, state)
        yield state


@by_cell
@pytest.mark.parametrize("index", [np.int64, pytest.param(np.int32, marks=pytest.mark.slow)])
@pytest.mark.parametrize("low", [None, *LOW])
def test_indices_of_one_hot_inputs(low, index, cell):
    size = Size(H=17, I=40, T=6, B=3)
    params, x, *_ = draw(cell.kernels, size, np.float32, one_hot=index)
    weights = cell.kernels.prepare(params, low)
    stream = cell.kernels.stream(weights, size.B)
    for _ in range(3):
        hs = steps(stream, x)
        np.testing.assert_array_equal(
            hs, [s.h for s in chain(cell.kernels, weights, x, cell.kernels.init_state(weights, size.B))]
        )
        stream.reset()
    with pytest.raises(ValueError, match=re.escape("x_t: expected indices from 0 to 39, got 0 to 40")):
        stream.step(np.array([0, 40, 1], index))


@by_cell
@pytest.mark.parametrize("low", [None, *LOW])
def test_networks(low, cell):
    rng, B = np.random.default_rng(0), 3
    params = stack.init_params(cell.kernels, 5, 33, layers=3, rng=rng)
    weights = stack.prepare(cell.kernels, params, low)
    x = rng.standard_normal((6, B, 5)).astype(np.float32)
    stream = stack.stream(cell.kernels, weights, B)
    state = stack.init_state(cell.kernels, weights, B)
    for x_t in x:
        state = stack.forward_step(cell.kernels, weights, x_t, state)
        np.testing.assert_array_equal(stream.step(x_t), state[-1][0].h)
    for comp, ref in zip(stream.state, state, strict=True):
        for a, b in zip(comp[0], ref[0], strict=True):
            np.testing.assert_array_equal(a, b)
    again = pickle.loads(pickle.dumps(stream))
    np.testing.assert_array_equal(again.step(x[0]), stream.step(x[0]))
    stream.state = state
    np.testing.assert_array_equal(stream.run(x), stack.infer(cell.kernels, weights, x, state).hs)


def test_a_network_of_two_directions_has_no_stream():
    params = stack.init_params(CELLS[0].kernels, 5, 7, bidirectional=True, rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="params: expected one direction"):
        stack.stream(CELLS[0].kernels, params)


@by_cell
def test_a_network_takes_the_states_of_its_layers(cell):
    params = stack.init_params(cell.kernels, 5, 7, rng=np.random.default_rng(0))
    stream = stack.stream(cell.kernels, params, 2)
    with pytest.raises(ValueError, match="state: expected 2 layers, got 1"):
        stream.state = stream.state[:1]
    with pytest.raises(TypeError, match=r"state: expected a tuple of layers, got \w*State"):
        stream.state = stream.state[0][0]


def small(cell, low=None):
    params, x, state, *_ = draw(cell.kernels, SMALL, np.float32)
    weights = cell.kernels.prepare(params, low)
    return cell.kernels.stream(weights, SMALL.B), weights, x, state


@by_cell
def test_run_carries_the_state_on(cell):
    stream, weights, x, state = small(cell)
    stream.state = state
    np.testing.assert_array_equal(stream.run(x), cell.kernels.infer(weights, x, state).hs)
    on = cell.kernels.infer(weights, x, stream.state)
    for t, x_t in enumerate(x):
        np.testing.assert_allclose(stream.step(x_t), on.hs[t], atol=1e-6, rtol=0)


@by_cell
def test_the_result_is_the_streams_own_and_the_state_a_copy(cell):
    stream, _, x, _ = small(cell)
    first, before = stream.step(x[0]), stream.state
    kept = first.copy()
    assert stream.step(x[1]) is first
    np.testing.assert_array_equal(before.h, kept)
    for a in before:
        assert a.flags.owndata
    stream.state = before
    for a in before:
        a[:] = 9
    assert np.abs(stream.state.h).max() <= 1
    stream.reset()
    assert not np.any(stream.state)


@by_cell
def test_a_step_allocates_nothing(cell):
    stream, _, x, _ = small(cell)
    stream.step(x[0])
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(100):
            stream.step(x[0])
        assert tracemalloc.get_traced_memory()[0] - before < 200  # what the loop itself holds
    finally:
        tracemalloc.stop()


@by_cell
def test_nothing_that_a_stream_needs_goes_away(cell):
    stream, _, x, _ = small(cell)
    want = steps(stream, x)
    stream.reset()
    h = stream.step(x[0])
    with pytest.raises(ValueError, match="resize"):
        h.resize((1, 1), refcheck=False)
    owner = h
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    with pytest.raises(BufferError):
        getattr(owner.base, "obj", owner.base).append(0)
    del owner
    gc.collect()
    litter = [np.full(4000, np.nan, np.float32) for _ in range(100)]
    stream.reset()
    np.testing.assert_array_equal(steps(stream, x), want)
    del stream, litter
    gc.collect()
    np.testing.assert_array_equal(h, want[-1])


@by_cell
def test_a_fork_a_copy_and_a_pickle_go_on_by_themselves(cell):
    stream, _, x, state = small(cell)
    stream.state = state
    stream.step(x[0])
    others = [copy.copy(stream), copy.deepcopy(stream), pickle.loads(pickle.dumps(stream))]
    child = os.fork()
    want = stream.step(x[1])
    if not child:
        stream.step(x[2])
        os._exit(0 if np.isfinite(stream.step(x[3])).all() else 1)
    assert os.waitpid(child, 0)[1] == 0
    for other in others:
        np.testing.assert_array_equal(other.step(x[1]), want)
        assert not np.shares_memory(other.step(x[1]), want)
    with pytest.raises(ValueError, match="weights: expected shape"):
        pickle.loads(pickle.dumps(stream).replace(b"K\x11", b"K\x12"))  # another hidden size


@by_cell
def test_a_pickle_from_before_there_were_rooms_goes_on(cell):
    """What it names has other modules today."""
    stream, _, x, state = small(cell)
    stream.state = state
    words = pickle.dumps(stream, protocol=0)
    moved = {b"core.doors.streams": b"core.streaming", b"core.doors.calls\nPrepared": b"core.doors\nPrepared"}
    for now, then in moved.items():
        assert now in words
        words = words.replace(now, then)
    np.testing.assert_array_equal(pickle.loads(words).step(x[0]), stream.step(x[0]))


@by_cell
@pytest.mark.parametrize("low", [None, *LOW])
def test_weights_from_anywhere_are_laid_out_alike(low, cell):
    """Of another process, say: what is read from where a cache line starts may have come to lie elsewhere."""
    _, weights, x, _ = small(cell, low)
    want = cell.kernels.infer(weights, x).hs
    size = weights.weights.itemsize
    for offset in range(0, 64, 16):
        room = np.empty(weights.weights.size + 32, weights.weights.dtype)
        start = (-room.ctypes.data % 64 + offset) // size
        room[start : start + weights.weights.size] = weights.weights
        moved = weights._replace(weights=room[start : start + weights.weights.size])
        np.testing.assert_array_equal(cell.kernels.infer(moved, x).hs, want)
    np.testing.assert_array_equal(cell.kernels.infer(pickle.loads(pickle.dumps(weights)), x).hs, want)
    with pytest.raises(ValueError, match="resize"):
        weights.weights.resize((1,), refcheck=False)


def bad_inputs():
    x_t = np.ones((SMALL.B, SMALL.I), np.float32)
    B, I = x_t.shape
    misaligned = np.frombuffer(b"\0" * (x_t.nbytes + 1), np.uint8)[1:].view(np.float32).reshape(x_t.shape)
    yield "a list", x_t.tolist(), TypeError, "expected a numpy.ndarray, got list"
    yield "None", None, TypeError, "expected a numpy.ndarray, got NoneType"
    yield "a number", 1.0, TypeError, "expected a numpy.ndarray, got float"
    yield "float64", x_t.astype(np.float64), TypeError, "expected dtype float32, got float64"
    yield "float16", x_t.astype(np.float16), TypeError, "expected dtype float32, got float16"
    yield "swapped", x_t.astype(">f4"), TypeError, "expected dtype float32, got >f4"
    yield "objects", x_t.astype(object), TypeError, "expected dtype float32, got object"
    yield "a mask", np.ma.masked_array(x_t), TypeError, "expected a numpy.ndarray, got MaskedArray"
    yield "a row", x_t[0], ValueError, rf"expected shape \({B}, {I}\), got \({I},\)"
    yield "a block", x_t[np.newaxis], ValueError, rf"expected shape \({B}, {I}\), got \(1, {B}, {I}\)"
    yield "fewer rows", x_t[:-1], ValueError, rf"expected shape \({B}, {I}\), got \({B - 1}, {I}\)"
    yield "no rows", x_t[:0], ValueError, rf"expected shape \({B}, {I}\), got \(0, {I}\)"
    yield "more columns", np.ones((B, I + 1), np.float32), ValueError, rf"expected shape \({B}, {I}\)"
    yield "turned", np.asfortranarray(x_t), ValueError, "expected a C-contiguous array"
    yield "strided", np.ones((B, 2 * I), np.float32)[:, ::2], ValueError, "expected a C-contiguous array"
    yield "misaligned", misaligned, ValueError, "expected an aligned array"
    yield "indices", np.zeros(B - 1, np.int64), ValueError, rf"expected shape \({B},\), got \({B - 1},\)"
    yield "beyond", np.full(B, I), ValueError, f"expected indices from 0 to {I - 1}, got {I} to {I}"
    yield "below", np.full(B, -1), ValueError, f"expected indices from 0 to {I - 1}, got -1 to -1"
    yield "a subclass of fewer rows", x_t[:-1].view(np.memmap), ValueError, r"expected shape"
    yield "unsigned", np.zeros(B, np.uint64), TypeError, "expected dtype float32, got uint64"


@by_cell
@pytest.mark.parametrize(("x_t", "error", "words"), [pytest.param(*rest, id=name) for name, *rest in bad_inputs()])
def test_a_bad_input_is_refused_and_nothing_is_lost(x_t, error, words, cell):
    stream, _, x, state = small(cell)
    stream.state = state
    with pytest.raises(error, match=f"^x_t: {words}"):
        stream.step(x_t)
    for comp, ref in zip(stream.state, state, strict=True):
        np.testing.assert_array_equal(comp, ref)
    stream.step(x[0])


@by_cell
@pytest.mark.parametrize("low", [None, *LOW])
@pytest.mark.parametrize("B", [1, 5])
def test_a_result_may_be_the_next_input(low, B, cell, monkeypatch):
    """It lies where the step writes to, and a team's members do not all read it before one of them writes."""
    share_everything(monkeypatch.setattr)
    params, x, *_ = draw(cell.kernels, Size(400, 400, 1, B), np.float32)
    weights = cell.kernels.prepare(params, low)
    stream, last = cell.kernels.stream(weights, B), cell.kernels.init_state(weights, B)
    assert isinstance(stream._step, streams.Shared)
    h = x[0]
    for _ in range(300):
        last = cell.kernels.forward_step(weights, np.copy(h), last)
        h = stream.step(h)
        np.testing.assert_array_equal(h, last.h)


@by_cell
def test_turned_bytes_are_refused_whatever_came_before(cell):
    """Numba remembers the type of an array that is read-only or not aligned, and for it takes one of turned bytes."""
    stream, _, x, _ = small(cell)
    bytes_ = np.zeros(x[0].nbytes + 1, np.uint8)[1:]
    with pytest.raises(ValueError, match="x_t: expected an aligned array"):
        stream.step(bytes_.view(x.dtype).reshape(x[0].shape))
    right = x[0].copy()
    right.flags.writeable = False
    stream.step(right)
    for writeable in (True, False):
        turned = x[0].astype(">f4")
        turned.flags.writeable = writeable
        with pytest.raises(TypeError, match="x_t: expected dtype float32, got >f4"):
            stream.step(turned)


@by_cell
def test_read_only_inputs_are_taken(cell):
    stream, _, x, _ = small(cell)
    want = stream.step(x[0]).copy()
    x.setflags(write=False)
    stream.reset()
    np.testing.assert_array_equal(stream.step(x[0]), want)


@by_cell
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_int8_refuses_what_is_not_finite_and_keeps_the_state(bad, cell):
    stream, _, x, state = small(cell, "int8")
    stream.state = state
    spoilt = x[0].copy()
    spoilt[1, 0] = bad
    with pytest.raises(ValueError, match="x_t: expected finite numbers for weights of int8"):
        stream.step(spoilt)
    for comp, ref in zip(stream.state, state, strict=True):
        np.testing.assert_array_equal(comp, ref)
    stream.state = state._replace(h=2 * np.ones_like(state.h))
    with pytest.raises(ValueError, match="state: expected values from -1 to 1"):
        stream.step(x[0])


@by_cell
def test_nan_and_infinity_propagate(cell):
    stream, weights, x, state = small(cell)
    for bad in (np.nan, np.inf, -np.inf):
        spoilt = x[0].copy()
        spoilt[1, 0] = bad
        stream.state = state
        ref = cell.kernels.forward_step(weights, spoilt, state).h
        np.testing.assert_array_equal(stream.step(spoilt), ref)


@by_cell
def test_a_bad_state_or_batch_size_is_refused(cell):
    stream, weights, _, state = small(cell)
    with pytest.raises(ValueError, match=re.escape("state.h: expected shape (5, 17)")):
        stream.state = state._replace(h=state.h[:1])
    with pytest.raises(TypeError, match=r"state.h: expected dtype float32"):
        stream.state = state._replace(h=state.h.astype(np.float64))
    for bad, error in ((0, ValueError), (-1, ValueError), (1.0, TypeError), (True, TypeError)):
        with pytest.raises(error, match="batch_size: expected an integer >= 1"):
            cell.kernels.stream(weights, bad)


def test_a_second_caller_gets_an_error_and_no_race():
    cell = CELLS[2].kernels
    params = cell.init_params(1, 1024, np.random.default_rng(0))
    stream, x_t = cell.stream(params), np.ones((1, 1), np.float32)
    done = threading.Event()
    errors = []

    def step_on():
        while not done.is_set():
            try:
                stream.step(x_t)
            except RuntimeError as error:
                errors.append(str(error))

    others = [threading.Thread(target=step_on) for _ in range(3)]
    for other in others:
        other.start()
    for _ in range(100_000):
        if errors:
            break
        try:
            stream.step(x_t)
        except RuntimeError as error:
            errors.append(str(error))
    done.set()
    for other in others:
        other.join()
    assert set(errors) == {"stream: expected one caller at a time, got a call while another thread's is at work"}
    assert np.isfinite(stream.step(x_t)).all()


@by_cell
def test_streams_of_many_threads_do_not_meet(cell):
    _, weights, x, _ = small(cell)
    state = cell.kernels.init_state(weights, SMALL.B)
    *_, want = chain(cell.kernels, weights, np.tile(x, (40, 1, 1)), state)
    found = []

    def follow():
        stream = cell.kernels.stream(weights, SMALL.B)
        found.append(steps(stream, np.tile(x, (40, 1, 1)))[-1])

    threads = [threading.Thread(target=follow) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    for comp in found:
        np.testing.assert_array_equal(comp, want.h)
    assert len(found) == 4
