"""A user's session, drawn by hypothesis: what was made earlier is used later, in any order, and nothing breaks.

What a call gives is compared with the reference, a stream's step with `forward_step`, to the bit; what is refused is
refused in one line, and changes nothing.
"""

import copy
import multiprocessing
import pickle
import re
import threading
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, rule, run_state_machine_as_test

from tests.kernels.cells import CELLS
from tests.kernels.compare import DTYPES, Backward, Size, assert_close, assert_equal, draw, rebuild
from tests.kernels.test_arguments import SPOIL, read_only, refusal_of
from tests.kernels.test_values import assert_as_numpy_has_them

WELL = {"plain": np.copy, "read-only": read_only, "within another": lambda a: np.stack([a, a])[1]}
LOW = st.sampled_from([None, "bfloat16", "int8"])
SPECIAL = st.sampled_from([np.nan, np.inf, -np.inf, 1e-42, 1e-310, 3e38, 0.0])
LENGTHS = st.one_of(st.integers(1, 12), st.just(20_000))


class Made:
    """Weights, and what the calls with them are like."""

    def __init__(self, cell, size, dtype, seed, turn):
        self.cell, self.size, self.options = cell, size, cell.options[turn % len(cell.options)]
        self.inputs = draw(cell.kernels, size, dtype, seed)
        self.dtype, self.weights = dtype, self.inputs.params

    def x(self, T, seed):
        rng = np.random.default_rng(seed)
        return rng.standard_normal((T, self.size.B, self.size.I)).astype(self.dtype)


class Opened:
    """A stream, and the state that it should have."""

    def __init__(self, made, weights, options):
        self.made, self.weights, self.options = made, weights, options
        self.stream = made.cell.kernels.stream(weights, made.size.B, *options)
        self.state = made.cell.kernels.init_state(weights, made.size.B)

    def step(self, x_t):
        self.state = self.made.cell.kernels.forward_step(self.weights, np.copy(x_t), self.state, *self.options)
        h = self.stream.step(x_t)
        np.testing.assert_array_equal(h, self.state.h)
        return h

    def check(self):
        assert_equal(self.stream.state, self.state)


class Session(RuleBasedStateMachine):
    weights, traces, streams = Bundle("weights"), Bundle("traces"), Bundle("streams")
    elsewhere: ProcessPoolExecutor

    @rule(
        target=weights,
        cell=st.sampled_from(CELLS),
        size=st.builds(Size, st.integers(1, 70), st.integers(1, 20), st.just(5), st.integers(1, 20)),
        dtype=st.sampled_from(DTYPES),
        seed=st.integers(0, 2**32 - 1),
        turn=st.integers(0, 2),
    )
    def make(self, cell, size, dtype, seed, turn):
        return Made(cell, size, dtype, seed, turn)

    @rule(made=weights)
    def prepare_in_another_process(self, made):
        made.weights = self.elsewhere.submit(made.cell.kernels.prepare, made.inputs.params).result(timeout=600)

    @rule(target=traces, made=weights, T=LENGTHS, seed=st.integers(0, 99), layout=st.sampled_from(list(WELL)))
    def forward(self, made, T, seed, layout):
        x = WELL[layout](made.x(T if made.size.H * made.size.B < 40 else min(T, 12), seed))
        trace = made.cell.kernels.forward(made.weights, x, None, *made.options)
        given = made.inputs._replace(x=x, state=None, grad_hs=None, grad_state=None)
        if len(x) < 100:

            def call(cell, inputs):
                return cell.forward(inputs.params, inputs.x, None, *made.options)

            assert_close(trace, made.cell.reference, given, call, made.size.H + made.size.I + 1)
        else:
            ref = made.cell.kernels.infer(made.weights, x, None, *made.options)
            np.testing.assert_array_equal(trace.hs, ref.hs)
        return made, trace

    @rule(pair=traces, truncate=st.sampled_from([None, 0, 3]), overlapping=st.booleans())
    def back(self, pair, truncate, overlapping):
        """Where they overlap, the loss is half the sum of squares: its gradient is the trace's own hs."""
        made, trace = pair
        grad_hs = trace.hs if overlapping else np.ones_like(trace.hs)
        backward = Backward(made.inputs.params, trace, grad_hs, trace.state if overlapping else None)
        if len(trace.hs) > 100:
            found = made.cell.kernels.bptt(*backward, 2, *made.options)
            assert np.isfinite(found.params.W).all()
            return

        def call(cell, inputs):
            return cell.bptt(*inputs, truncate, *made.options)

        n = made.size.H + made.size.I + 1 + len(trace.hs) * made.size.B
        assert_close(call(made.cell.kernels, backward), made.cell.reference, backward, call, n)

    @rule(made=weights, how=st.sampled_from(list(SPOIL)), function=st.sampled_from(["infer", "forward"]))
    def call_badly(self, made, how, function):
        x = SPOIL[how][0](made.x(3, 0))
        state = made.inputs.state  # fixes B
        refusal = refusal_of(lambda: getattr(made.cell.kernels, function)(made.weights, x, state, *made.options), {})
        if refusal is None:  # of one step, or one input, that is as good as plain
            assert isinstance(x, np.ndarray), how
            assert x.flags.c_contiguous, how
            assert x.dtype == made.dtype, how
        else:
            assert re.fullmatch(r"(x|state\.h): expected [^\n]+, got [^\n]+", str(refusal)), how

    @rule(made=weights, value=SPECIAL, seed=st.integers(0, 99))
    def infer_what_is_special(self, made, value, seed):
        x = made.x(4, seed)
        x.flat[seed % x.size] = made.dtype(value) if abs(value) < np.finfo(made.dtype).max else np.inf
        comp = made.cell.kernels.infer(made.weights, x, None, *made.options)
        with np.errstate(all="ignore"):
            params = rebuild(made.inputs.params, made.cell.reference)
            ref = made.cell.reference.infer(params, x, None, *made.options)
        assert_as_numpy_has_them(comp, ref, "")

    @rule(target=streams, made=weights, low=LOW)
    def open(self, made, low):
        if low is None or made.dtype is np.float64:
            return Opened(made, made.weights, made.options)
        options = ("tanh",) if low == "int8" and "relu" in made.options else made.options
        return Opened(made, made.cell.kernels.prepare(made.inputs.params, low), options)

    @rule(opened=streams, seed=st.integers(0, 99), layout=st.sampled_from(list(WELL)))
    def step(self, opened, seed, layout):
        h = opened.step(WELL[layout](opened.made.x(1, seed)[0]))
        if opened.made.size.H == opened.made.size.I:
            opened.step(h)  # its own memory
        opened.check()

    @rule(opened=streams, how=st.sampled_from(list(SPOIL)))
    def step_badly(self, opened, how):
        x_t = SPOIL[how][0](opened.made.x(1, 0)[0])
        fine = isinstance(x_t, np.ndarray) and not isinstance(x_t, np.ma.MaskedArray)
        fine = fine and (x_t.shape, x_t.dtype) == ((opened.made.size.B, opened.made.size.I), opened.made.dtype)
        if fine and x_t.flags.c_contiguous and x_t.flags.aligned and x_t.dtype.isnative:
            return
        with pytest.raises((TypeError, ValueError), match=r"\Ax_t: expected [^\n]+, got [^\n]+\Z"):
            opened.stream.step(x_t)
        opened.check()

    @rule(opened=streams, T=st.integers(1, 5), seed=st.integers(0, 99))
    def run_a_block(self, opened, T, seed):
        x = opened.made.x(T, seed)
        hs, opened.state = opened.made.cell.kernels.infer(opened.weights, x, opened.state, *opened.options)
        np.testing.assert_array_equal(opened.stream.run(x), hs)
        opened.check()

    @rule(opened=streams, again=st.sampled_from([copy.copy, copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))]))
    def go_on_with_another(self, opened, again):
        opened.stream = again(opened.stream)
        opened.check()

    @rule(opened=streams, given=st.booleans())
    def set_the_state(self, opened, given):
        if given:
            opened.stream.state = opened.state = opened.made.inputs.state
        else:
            opened.stream.reset()
            opened.state = opened.made.cell.kernels.init_state(opened.weights, opened.made.size.B)
        opened.check()

    @rule(opened=streams)
    def step_from_two_threads(self, opened):
        """Each call is a whole step, or refused: there are as many steps as calls that were not."""
        x_t, taken, refused, start = opened.made.x(1, 0)[0], [], [], threading.Barrier(2)

        def steps():
            start.wait()
            for _ in range(30):
                try:
                    opened.stream.step(x_t)
                    taken.append(True)
                except RuntimeError as error:
                    refused.append(str(error))

        both = [threading.Thread(target=steps) for _ in range(2)]
        for one in both:
            one.start()
        for one in both:
            one.join()
        assert len(taken) + len(refused) == 60
        assert all("one caller at a time" in text for text in refused)
        for _ in taken:
            opened.state = opened.made.cell.kernels.forward_step(opened.weights, x_t, opened.state, *opened.options)
        opened.check()


@pytest.mark.parametrize("examples", [20, pytest.param(100, marks=pytest.mark.slow)])
def test_sessions(examples):
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as Session.elsewhere:
        run_state_machine_as_test(Session, settings=settings(max_examples=examples, deadline=None))
