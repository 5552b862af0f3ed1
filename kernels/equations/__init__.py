"""Kernels of a cell from its equations, as fast as those that were laid by hand: `kernels_of`.

    from kernels.equations import kernels_of
    from reference.cells import find

    mgu = kernels_of(find("mgu"))

What comes back has the functions of `kernels.lstm`, and `kernels.stack` takes it. `plan.py` says what becomes of the
equations, `source.py` writes it as functions, and the walks of `kernels.core` call these.
"""

import sys
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np
from numba.extending import overload

from kernels.core.code.cache import INLINE, compiled, named
from kernels.core.code.compiler import take_read_only
from kernels.core.doors.calls import (
    Cell,
    Gradients,
    Output,
    Prepared,
    check_full,
    check_start,
    check_step,
    lay_out,
    nothing,
    prepared,
    run_bptt,
    run_forward,
    run_step,
    zero_state,
)
from kernels.core.doors.checks import check_array, check_fields, check_input, check_params, check_state, check_truncate
from kernels.core.doors.streams import Stream
from kernels.core.products.tiles import get, put, whole
from kernels.core.vectors import activations
from kernels.core.vectors.simd import (
    absolute,
    at,
    full,
    lanes,
    load,
    multiply_add,
    pointer,
    store,
    where_equal,
    where_less,
    where_less_equal,
)
from kernels.core.walks.backward import back_through, given, middle_of, retreat, retreat_last, wanted
from kernels.core.walks.forward import advance, ahead_through, between, layer
from kernels.core.walks.network import backward_cell, forward_cell
from kernels.core.walks.recurrence import Form, gates_of, is_a
from kernels.core.walks.walk import even
from kernels.equations import plan as planning
from kernels.equations import source

__all__ = ["Gradients", "Kernels", "Output", "Prepared", "Stream", "Trace", "kernels_of"]


class Trace(NamedTuple):
    hs: np.ndarray  # (T, B, H)  h after every step
    state: Any  # the State after the last step
    x: np.ndarray  # (T, B, I) or (T, B)  the input
    initial: Any  # the State before the first step
    kept: np.ndarray  # (T, B, K H)  what else BPTT needs


@cache
def kernels_of(cell):
    """Return the Kernels of a cell from `reference.equations`, or raise a TypeError for what is none.

    A NotImplementedError says what has no kernel yet: `layer_norm`.
    """
    if not hasattr(cell, "nodes") or not hasattr(cell, "backward"):
        raise TypeError(f"cell: expected a cell from reference.equations, got {type(cell).__name__}")
    return Kernels(cell)


class Kernels:
    """The functions of `kernels.lstm`, of a cell from its equations.

    Arrays are checked as theirs are. `Params`, `State` and how they begin are the cell's own.
    """

    Gradients, Output, Prepared, Stream, Trace = Gradients, Output, Prepared, Stream, Trace

    def __init__(self, cell):
        self.cell = cell
        self.__name__, self.__doc__ = cell.__name__, cell.__doc__
        self.Params, self.State, self.init_params = cell.Params, cell.State, cell.init_params
        plan = planning.plan(cell)
        self._plan, self._kind = plan, _kind_of(plan)
        self._slots = len(source.slots(plan))
        later = sum(gates for _, gates in plan.middles)
        sizes = (len(cell.gates_u), plan.first, later, len(plan.middles), len(plan.blocks), len(plan.vectors))
        self._form = Form(*map(np.int64, sizes))
        self._gates = int(gates_of.py_func(self._form))
        self._rows = (len(cell.gates_u), len(cell.gates_w))
        order = [*(b.u for b in plan.blocks if b.u is not None), *(b.w for b in plan.blocks if b.w is not None)]
        self._order = np.array(order or [0], np.int64)
        self._states = np.int64(len(cell.states))
        self._begins = cell.starts if any(cell.starts) else ()
        self._calls = _calls(self._kind, self._form, self._states)

    def __reduce__(self):
        return kernels_of, (self.cell,)

    def __repr__(self):
        return f"<kernels of {self.cell!r}>"

    def init_state(self, params, batch_size):
        """Return the states (B, H) as they begin, for Params or Prepared."""
        return zero_state(self.State, params, batch_size, self._begins)

    def prepare(self, params, dtype=None):
        """Lay the weights out for the kernels once, for any number of calls of `infer`, `forward` and the like.

        Of dtype "bfloat16" or "int8" U and W are rounded, and so is what they are multiplied with.
        """
        H, _ = check_params(params, self.Params, *self._rows, aligned=False)
        biases = np.zeros((len(self._plan.blocks) + len(self._plan.vectors), H), params.W.dtype)
        for n, block in enumerate(self._plan.blocks):
            if block.u is not None:
                biases[n] = params.b[block.u * H : (block.u + 1) * H]
            elif block.bias is not None:
                biases[n] = params[3 + block.bias]
        for n, v in enumerate(self._plan.vectors, len(self._plan.blocks)):
            biases[n] = params[3 + v]
        return lay_out(params.U, params.W, biases, dtype, self._form, self._order, self._kind.__name__)

    def _prepared(self, params):
        return prepared(params, self.prepare, self._gates, self._kind.__name__)

    def forward_step(self, params, x_t, state):
        """Return the state after one more step, from x_t (B, I)."""
        weights = self._prepared(params)
        check_step(self.State, weights, x_t, state)
        h, others = np.empty(state[0].shape, state[0].dtype), _others(state)
        run_step(self._calls.step, weights, x_t, state[0], h, others)
        return self._state(h, others)

    def infer(self, params, x, state=None):
        """Run over x (T, B, I) from `state` (as it begins if None) and keep only what the user sees."""
        hs, last, *_ = self._run(params, x, state, keep=False)
        return Output(hs, last)

    def forward(self, params, x, state=None):
        """Run over x (T, B, I) from `state` (as it begins if None) and return the trace that `bptt` needs."""
        check_full(params)
        hs, last, initial, kept = self._run(params, x, state, keep=True)
        return Trace(hs, last, x, initial, kept)

    def bptt(self, params, trace, grad_hs, grad_state=None, truncate=None):
        """Return the gradients of a loss L, given how it depends on the states: see `kernels.lstm.bptt`."""
        H, I = check_params(params, self.Params, *self._rows)
        dtype = params.W.dtype
        check_fields("trace", trace, Trace)
        T, B = check_input("trace.x", trace.x, ("T", "B"), I, dtype)
        check_array("trace.hs", trace.hs, (T, B, H), dtype)
        if self._slots:
            check_array("trace.kept", trace.kept, (T, B, self._slots * H), dtype)
        check_state("trace.initial", trace.initial, self.State, (B, H), dtype)
        check_array("grad_hs", grad_hs, (T, B, H), dtype)
        grad_last = np.zeros((self._states, B, H), dtype)
        if grad_state is not None:
            check_state("grad_state", grad_state, self.State, (B, H), dtype)
            grad_last[:] = grad_state
        check_truncate(truncate)

        U, W = (np.empty(p.shape, dtype) for p in params[:2])
        biases = np.empty((len(self._plan.blocks) + len(self._plan.vectors), H), dtype)
        x = np.empty(trace.x.shape, dtype) if trace.x.ndim == 3 else nothing(dtype)
        first = np.empty((self._states, B, H), dtype)
        kept = (trace.kept if self._slots else nothing(dtype), _others(trace.initial), self._vectors(params))
        run_bptt(
            self._calls.bptt,
            self._form,
            self._states,
            truncate,
            params,
            trace,
            grad_hs,
            grad_last,
            (U, W, biases, x, first),
            *kept,
        )
        return Gradients(self._merge(U, W, biases), x if x.size else None, self.State(*(a.copy() for a in first)))

    def stream(self, params, batch_size=1):
        """Return a Stream, to be called a step at a time, of so many sequences: see `kernels.lstm.stream`."""
        weights = self._prepared(params)
        again = (_stream_again, self.cell, weights, batch_size)
        return Stream(self.as_layers(), (weights,), batch_size, partial(self.infer, weights), again)

    def as_layers(self):
        """Return what `kernels.stack` needs to know of the cell."""
        keeps = (self._slots,) if self._slots else ()
        vectors = self._vectors if self._plan.vectors else None
        about = (self._kind(0), self.Params, self.State, self._form, keeps, self.prepare, self._merge, vectors)
        return Cell(*about, self._begins, self._kind.__name__)

    def _run(self, params, x, state, keep):
        weights = self._prepared(params)
        state = check_start(self.State, weights, x, state, self._begins)
        (T, B), H, dtype = x.shape[:2], weights.hidden_size, weights.dtype
        hs, others = np.empty((T, B, H), dtype), _others(state)
        kept = np.empty((T, B, self._slots * H), dtype) if keep and self._slots else nothing(dtype)
        run_forward(self._calls.infer, weights, x, state[0], hs, others, kept)
        return hs, self._state(hs[-1].copy(), others), state, kept

    def _state(self, h, others):
        return self.State(h, *(a.copy() for a in others[: len(self.State._fields) - 1]))

    def _vectors(self, params):
        """Return the vectors that are no bias, (vectors, H)."""
        found = [params[3 + n] for n in self._plan.vectors]
        return np.array(found) if found else nothing(params.W.dtype)

    def _merge(self, U, W, biases):
        """Return Params of these weights, and of the biases and vectors (blocks + vectors, H) as they are packed."""
        H = W.shape[1]
        b, vectors = np.empty(len(U), U.dtype), np.empty((len(self.cell.vectors), H), U.dtype)
        for n, block in enumerate(self._plan.blocks):
            if block.u is not None:
                b[block.u * H : (block.u + 1) * H] = biases[n]
            elif block.bias is not None:
                vectors[block.bias] = biases[n]
        for n, v in enumerate(self._plan.vectors, len(self._plan.blocks)):
            vectors[v] = biases[n]
        return self.Params(U, W, b, *(a.copy() for a in vectors))


def _stream_again(cell, weights, batch_size):
    return kernels_of(cell).stream(weights, batch_size)


def _others(state):
    """Return a copy of the arrays of a state but h, one upon the other."""
    return np.array(state[1:]) if len(state) > 1 else nothing(state[0].dtype)


# What compiled code tells the cell by: a class for each plan, found again by its name, with what the walks ask it for.


def _kind_of(plan):
    name = f"Equations_{plan.digest}"
    module = sys.modules[__name__]
    if not hasattr(module, name):
        kind: Any = NamedTuple(name, [("nothing", int)])
        kind.__module__, kind.plan = __name__, plan
        kind.INPUTS = tuple(block.u for block in plan.blocks if block.u is not None)
        kind.RECURRENT = tuple(block.w for block in plan.blocks if block.w is not None)
        kind.LATER = tuple(gates for _, gates in plan.middles)
        setattr(module, name, kind)
    return getattr(module, name)


class _Forward(NamedTuple):
    """Addresses and sizes: an array's reference is counted whenever it is touched."""

    kind: Any
    states: Any  # (states - 1, B, H), all but h,
    apart: Any  # and how far one lies from the next
    kept: Any  # (T, B, K H)
    keep: Any
    H: Any


class _Backward(NamedTuple):
    kind: Any
    kept: Any  # (T, B, K H)
    hs: Any  # (T, B, hs_row)
    hs_row: Any
    h0: Any  # (B, H)
    initial: Any  # (states - 1, B, H), all but h,
    apart: Any
    H: Any


_NAMES = {
    "at": at,
    "exp": activations.exp,
    "full": full,
    "get": get,
    "inf": np.inf,
    "lanes": lanes,
    "load": load,
    "log": activations.log,
    "maximum": activations.maximum,
    "minimum": activations.minimum,
    "multiply_add": multiply_add,
    "nan": np.nan,
    "power": activations.power,
    "put": put,
    "relu": activations.relu,
    "sigmoid": activations.sigmoid,
    "sign": activations.sign,
    "softplus": activations.softplus,
    "sqrt": activations.sqrt,
    "store": store,
    "tanh": activations.tanh,
    "where_equal": where_equal,
    "where_less": where_less,
    "where_less_equal": where_less_equal,
    "whole": whole,
    "abs": absolute,
}


def _made(cell, part):
    """Return a function of a cell's Plan, from its text."""
    kind, space = cell[0].instance_class, dict(_NAMES)
    text = getattr(source, part)(kind.plan)
    exec(compile(text, f"<{part} of {kind.__name__}>", "exec"), space)
    return named(f"{part}_{kind.__name__}")(space[part])


def _has_plan(kind):
    return hasattr(getattr(kind, "instance_class", None), "plan")


@overload(advance, jit_options=INLINE)
def _advance(cell, vectors, sums, apart, previous, row, b, c):
    if is_a(cell, _Forward):
        return _made(cell, "advance")


@overload(between, jit_options=INLINE)
def _between(cell, which, vectors, sums, apart, previous, row, b, c):
    if is_a(cell, _Forward) and cell[0].instance_class.LATER:
        return _made(cell, "between")


@overload(retreat, jit_options=INLINE)
def _retreat(cell, vectors, grad_h, middles, middle_apart, carry, carry_apart, deltas, apart, row, before, b, c):
    if is_a(cell, _Backward):
        return _made(cell, "retreat")


@overload(retreat_last, jit_options=INLINE)
def _retreat_last(
    cell, which, vectors, grad_h, middles, middle_apart, carry, carry_apart, deltas, apart, row, before, b, c
):
    if is_a(cell, _Backward) and cell[0].instance_class.LATER:
        return _made(cell, "retreat_last")


@overload(middle_of, jit_options=INLINE)
def _middle_of(cell, hs, which, row):
    if is_a(cell, _Backward) and cell[0].instance_class.LATER:
        slots = np.int64(len(source.slots(cell[0].instance_class.plan)))
        return lambda cell, hs, which, row: at(cell.kept, (row * slots + which) * cell.H)


@overload(forward_cell, jit_options=INLINE)
def _forward_cell(kind, H, c, apart, gates, more, keep):
    if _has_plan(kind):
        return lambda kind, H, c, apart, gates, more, keep: _Forward(kind, c, apart, gates, keep, H)


@overload(backward_cell, jit_options=INLINE)
def _backward_cell(kind, H, hs, hs_row, h0, c0, apart, gates, more):
    if _has_plan(kind):
        return lambda kind, H, hs, hs_row, h0, c0, apart, gates, more: _Backward(
            kind, gates, hs, hs_row, h0, c0, apart, H
        )


class _Calls(NamedTuple):
    infer: Any
    step: Any
    bptt: Any


@cache
def _calls(kind, form, states):
    """Return the compiled functions that the doors of a cell call."""

    @named(f"infer_{kind.__name__}")
    def infer(team, weights, I, x, h0, hs, others, kept):
        apart = h0.shape[0] * h0.shape[1]
        cell = _Forward(kind(0), pointer(others), apart, pointer(kept), kept.size > 0, h0.shape[1])
        ahead_through(team, even(hs, pointer(team)), layer(weights, I, x, h0, hs, form), cell, weights, hs)

    infer = take_read_only(compiled(infer))

    @named(f"step_{kind.__name__}")
    def step(team, weights, I, x_t, h0, h, others):
        nothing = np.empty((0, 0, 0), h0.dtype)
        x, hs = x_t.reshape((1, *x_t.shape)), h.reshape((1, *h.shape))
        infer(team, weights, I, x, h0, hs, others, nothing)

    @named(f"bptt_{kind.__name__}")
    def bptt(
        team, x, U, W, h0, hs, grad_hs, grad_last, window,
        grad_U, grad_W, grad_biases, grad_x, grad_first, scratch, kept, initial, vectors,
    ):  # fmt: skip
        source = given(x, U, W, vectors, h0, hs, grad_hs, grad_last, form, states)
        to = wanted(grad_U, grad_W, grad_biases, grad_x, grad_first)
        H = h0.shape[1]
        cell = _Backward(
            kind(0), pointer(kept), pointer(hs), hs.shape[2], pointer(h0), pointer(initial), h0.shape[0] * H, H
        )
        back_through(team, even(hs, pointer(team)), source, cell, to, window, scratch)

    return _Calls(infer, take_read_only(compiled(step)), take_read_only(compiled(bptt)))
