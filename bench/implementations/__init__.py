"""Who computes a case: one file each, found by its name (`numba_simd.py` is `numba-simd`).

The docstring of a file says what its timings contain, and the report quotes it. A file holds three functions:

- `version()`: the library's version, or None where it is not installed. It runs in the harness: no heavy import.
- `start(threads)`: import the library and fix its threads. It runs once in each worker; BLAS, OpenMP and the
  like have had their thread count from the environment by then (`bench.timing.worker.environment`).
- `prepare(case, inputs)`: do what a user does once (compile, build a graph, load weights), return a `Prepared`,
  or raise `UnsupportedError` with the reason.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import cycle
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from bench.grid.cases import STREAM

RUNGS = ("numpy", "numba-jit", "numba-simd")
OURS = RUNGS[-1]
BESIDE = ("numba-simd-float32",)  # ours as it is in float32, in cases below it alone
IF_ASKED = ("torch-compile",)  # it compiles for up to a minute and more a case


def base(name):
    """Return the NAME of NAME@WHERE, an implementation of another version."""
    return name.partition("@")[0]


def is_ours(name):
    """Tell whether an implementation is ours, be it of another version: then it is nobody's rival."""
    return base(name) in (OURS, *BESIDE)


class UnsupportedError(Exception):
    """The library has no such operation."""


class Session(NamedTuple):
    """A stream, as it is timed: one call after the other, each by itself."""

    begin: Callable[[], Any]  # back to the state before the first step
    step: Callable[[Any], Any]  # one step, from one of `inputs`: the timed work
    inputs: Sequence[Any]  # of each step, as the library takes them


class Prepared(NamedTuple):
    """A case ready to be timed.

    `forward_step` and `forward` use the first set of weights, prepared; `bptt` is the backward pass from a trace
    of the first set; `train` is forward and bptt, with the second set on every second call. A `stream` goes on from its
    own last state in every step; its `call` is a whole session, to be verified, and made by `streaming`.
    """

    call: Callable[[], Any]  # the timed work; what it returns goes to `outputs`
    outputs: Callable[[Any], dict]  # NumPy arrays by the names of `named`; not timed
    context: Callable[[], AbstractContextManager] = nullcontext  # entered once around many calls
    follows: str | None = None  # in a case below float32: the dtype as `reference` defines it; None, a library's own
    session: Session | None = None  # of a stream


def streaming(begin, step, inputs, h, last, context=nullcontext, follows=None):
    """Return the Prepared of a stream.

    `h` makes an array (B, H) of what a step returned, and `last()` returns the last state's by the names of `named`.
    """

    def call():
        begin()
        return np.stack([np.array(h(step(x_t))) for x_t in inputs])

    session = Session(begin, step, inputs)
    return Prepared(call, lambda hs: {"hs": hs} | last(), context, follows, session)


def find():
    """Return the module's name of each implementation by the implementation's name, the rungs first."""
    stems = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem != "__init__")
    modules = {stem.replace("_", "-"): f"{__name__}.{stem}" for stem in stems}
    return {name: modules.pop(name) for name in RUNGS} | modules


def named(tree, prefix="", levels="ld"):
    """Return the arrays in nested NamedTuples by their dotted names: "hs", "state.h", "params.W"...

    Of a network's layers and directions these are "state.l0.d1.h", "params.l2.d0.W"...
    """
    if isinstance(tree, np.ndarray):
        return {prefix: tree}
    fields = getattr(tree, "_fields", None)
    if fields is None:
        fields, levels = [f"{levels[0]}{i}" for i in range(len(tree))], levels[1:]
    parts = {}
    for field, value in zip(fields, tree, strict=True):
        parts |= named(value, f"{prefix}.{field}" if prefix else field, levels)
    return parts


def prepare_cell(cell, stack, case, inputs, low=None):
    """Prepare a case for a cell's module, with the interface that `reference` and `kernels` share, and their `stack`.

    `low` is the dtype to which it rounds the weights, or None.
    """
    if case.network:
        return _prepare_network(cell, stack, case, inputs, low)
    sets = [cell.Params(*params) for params in inputs.params]
    state = cell.State(*inputs.state)
    x, grad_hs, options = inputs.x, inputs.grad_hs, case.options

    if case.operation == STREAM:
        weights = cell.prepare(sets[0], low)
        return _prepare_stream(cell, weights, x, state, low or case.number, lambda state: state.h, options)
    if case.operation == "forward_step":
        weights, x_t = cell.prepare(sets[0], low), x[0]

        def step():
            return cell.forward_step(weights, x_t, state, **options)

        return Prepared(step, lambda state: named(state, "state"), follows=low or case.number)
    if case.operation == "forward":
        weights = cell.prepare(sets[0], low)
        return Prepared(lambda: cell.infer(weights, x, state, **options), named, follows=low or case.number)
    if case.operation == "bptt":
        trace = cell.forward(sets[0], x, state, **options)
        return Prepared(lambda: cell.bptt(sets[0], trace, grad_hs, **options), named)

    turns = cycle(sets)

    def train():
        params = next(turns)
        return cell.bptt(params, cell.forward(params, x, state, **options), grad_hs, **options)

    return Prepared(train, named)


def _prepare_stream(cell, weights, x, state, follows, h, options):
    """Prepare a stream of the cell's own, or where it has none of its `forward_step`, whose state is fed back."""
    steps = list(x)
    if hasattr(cell, "stream"):
        stream = cell.stream(weights, x.shape[1], **options)

        def begin():
            stream.state = state

        return streaming(begin, stream.step, steps, np.asarray, lambda: named(stream.state, "state"), follows=follows)
    last = state

    def begin():
        nonlocal last
        last = state

    def step(x_t):
        nonlocal last
        last = cell.forward_step(weights, x_t, last, **options)
        return h(last)

    return streaming(begin, step, steps, np.asarray, lambda: named(last, "state"), follows=follows)


def _prepare_network(cell, stack, case, inputs, low):
    """Prepare a network, whose params and states are those of each layer and direction."""

    def of(kind, tree):
        return tuple(tuple(kind(*one) for one in layer) for layer in tree)

    sets, state = [of(cell.Params, params) for params in inputs.params], of(cell.State, inputs.state)
    x, grad_hs, lengths, options = inputs.x, inputs.grad_hs, inputs.lengths, case.options

    if case.operation in ("forward_step", "forward", STREAM):
        weights = stack.prepare(cell, sets[0], low)
        if case.operation == STREAM:
            of_cell = SimpleNamespace(**{name: partial(f, cell) for name, f in vars(stack).items() if callable(f)})
            return _prepare_stream(
                of_cell, weights, x, state, low or case.number, lambda state: state[-1][0].h, options
            )
        follows = low or case.number
        if case.operation == "forward":
            return Prepared(lambda: stack.infer(cell, weights, x, state, lengths, **options), named, follows=follows)
        x_t = x[0]

        def step():
            return stack.forward_step(cell, weights, x_t, state, **options)

        return Prepared(step, lambda state: named(state, "state"), follows=follows)
    if case.operation == "bptt":
        trace = stack.forward(cell, sets[0], x, state, lengths, **options)
        return Prepared(lambda: stack.bptt(cell, sets[0], trace, grad_hs, **options), named)

    turns = cycle(sets)

    def train():
        params = next(turns)
        return stack.bptt(cell, params, stack.forward(cell, params, x, state, lengths, **options), grad_hs, **options)

    return Prepared(train, named)
