"""`python -m tests.fuzz [CASES] [--seed N] [--only CASE]`: calls drawn at random, each beside its reference.

A case follows from the seed and its number alone: what fails is had again by `--seed N --only CASE`. It calls a cell,
a stream or a network of any size, with arrays that lie anywhere, on one thread or several; the numbers may be large,
tiny or none. A case in eight is a bad call, which must be refused in one line. A crash ends the process, after a
traceback; the case is the last that `--verbose` tells.
"""

import faulthandler
import pickle
import re
import secrets
import warnings
from collections import Counter
from time import monotonic
from typing import Annotated, NamedTuple

import numba
import numpy as np
import pytest
import typer

from tests.kernels.cells import CELLS, Cell, arguments
from tests.kernels.compare import DTYPES, Backward, Size, assert_close, draw, named, rebuild
from tests.kernels.sharing import share_everything
from tests.kernels.test_arguments import FUNCTIONS, NAMED_INSTEAD, SPOIL, array_names, refusal_of, spoilt
from tests.kernels.test_low import LOW, check_steps
from tests.kernels.test_stack import check as check_stack
from tests.kernels.test_stack import options as options_of_stack
from tests.kernels.test_values import assert_as_numpy_has_them
from tests.networks import Shape


class Case(NamedTuple):
    """What every kind of case draws from: its own numbers, a cell with options, a size, arrays for all functions."""

    rng: np.random.Generator
    cell: Cell
    options: tuple
    size: Size
    dtype: type
    one_hot: type | None
    seed: int

    def inputs(self):
        drawn = draw(self.cell.kernels, self.size, self.dtype, self.seed, one_hot=self.one_hot)
        return rebuild(drawn, self.cell.kernels, lambda a: lie_anywhere(a, self.rng))


def upto(rng, most):
    """Draw a number from 1 to `most`, small ones as often as large ones."""
    return int(most ** rng.random() + 0.5)


def draw_case(seed, number):
    rng = np.random.default_rng([seed, number])
    cell = CELLS[rng.integers(len(CELLS))]
    options = cell.options[rng.integers(len(cell.options))]
    size = Size(H=upto(rng, 200), I=upto(rng, 80), T=upto(rng, 40), B=upto(rng, 50))
    if rng.random() < 0.02:
        size = size._replace(H=upto(rng, 40), T=3000, B=upto(rng, 3))
    # Each pair is compiled for, by `test_one_hot.py` too.
    dtype, index = DTYPES[rng.integers(2)], None
    if dtype is np.float32 and rng.random() < 0.25:
        index = np.int64
    return Case(rng, cell, options, size, dtype, index, int(rng.integers(2**32)))


def lie_anywhere(a, rng):
    """Return a copy of an array at any address that its numbers may have, which may be read only."""
    memory = np.full(a.size + 64, -1 if a.dtype.kind == "i" else np.nan, a.dtype)
    first = int(rng.integers(64))
    copy = memory[first : first + a.size].reshape(a.shape)
    copy[...] = a
    copy.flags.writeable = bool(rng.integers(2))
    return copy


def forward(case):
    size, options = case.size, case.options
    inputs = case.inputs()
    inputs = inputs if case.rng.random() < 0.8 else inputs._replace(state=None)
    if not case.one_hot:
        inputs = inputs._replace(x=inputs.x * case.dtype(case.rng.choice([0, 1e-40, 1e-3, 1, 1, 1, 30])))

    def infer(cell, inputs):
        return cell.infer(inputs.params, inputs.x, inputs.state, *options)

    def trace(cell, inputs):
        return cell.forward(inputs.params, inputs.x, inputs.state, *options)

    def step(cell, inputs):
        return cell.forward_step(inputs.params, inputs.x[0], inputs.state, *options)

    call = case.rng.choice([infer, trace, step] if inputs.state else [infer, trace])
    comp = call(case.cell.kernels, inputs)
    assert_close(comp, case.cell.reference, inputs, call, size.H + size.I + 1)
    if call is not trace:
        prepared = call(case.cell.kernels, inputs._replace(params=sent(case.cell.kernels.prepare(inputs.params))))
        for name, a in named(comp).items():
            np.testing.assert_array_equal(named(prepared)[name], a, err_msg=f"prepared: {name}")


def sent(value):
    """Return what another process gets."""
    return pickle.loads(pickle.dumps(value))


def bptt(case):
    size, options = case.size, case.options
    inputs = case.inputs()
    truncate = case.rng.choice([None, 0, 1, size.T // 2])
    trace = case.cell.kernels.forward(inputs.params, inputs.x, inputs.state, *options)
    backward = Backward(inputs.params, trace, inputs.grad_hs, inputs.grad_state if case.rng.integers(2) else None)

    def run(cell, inputs):
        return cell.bptt(*inputs, truncate, *options)

    n = size.H + size.I + 1 + size.T * size.B
    assert_close(run(case.cell.kernels, backward), case.cell.reference, backward, run, n)


def below_float32(case):
    low = case.rng.choice(LOW)
    options = () if low == "int8" and "relu" in case.options else case.options
    case = case._replace(dtype=np.float32, size=case.size._replace(T=min(case.size.T, 8)))
    check_steps(case.cell, case.inputs(), low, *options)


def not_finite(case):
    """NaN, infinity or the largest number anywhere: what comes is what NumPy makes of it."""
    case = case._replace(size=case.size._replace(T=min(case.size.T, 8)))
    inputs = rebuild(case.inputs(), case.cell.kernels)
    arrays = {**named(inputs.params, "params"), **named(inputs.state, "state"), "x": inputs.x}
    a = arrays[case.rng.choice([name for name, a in arrays.items() if a.dtype.kind == "f"])]
    a[tuple(case.rng.integers(n) for n in a.shape)] = case.rng.choice([np.nan, np.inf, -np.inf])
    comp = case.cell.kernels.forward(*inputs[:3], *case.options)
    with np.errstate(all="ignore"):
        ref = case.cell.reference.forward(*rebuild(inputs, case.cell.reference)[:3], *case.options)
    assert_as_numpy_has_them(comp, ref, "")


def stream(case):
    """Steps, states, copies and what is refused in any order, beside `forward_step`; a result may be the next input."""
    kernels, fed_back = case.cell.kernels, not case.one_hot and case.rng.random() < 0.3
    if fed_back:
        case = case._replace(size=case.size._replace(I=case.size.H))
    params, x, state, *_ = case.inputs()
    low = None if case.dtype is np.float64 else case.rng.choice([None, *LOW])
    options = ("tanh",) if low == "int8" and "relu" in case.options else case.options
    weights = kernels.prepare(params, low)
    stream = kernels.stream(weights, case.size.B, *options)
    last = kernels.init_state(weights, case.size.B)
    for x_t in x:
        what = case.rng.integers(8)
        if what == 0:
            stream.state = last = state
        elif what == 1:
            stream.reset()
            last = kernels.init_state(weights, case.size.B)
        elif what == 2:
            stream = sent(stream)
        elif what == 3:
            refusal = refusal_of(stream.step, {"x_t": x_t[:0]})
            assert refusal is not None, "a step of nothing"
        last = kernels.forward_step(weights, x_t, last, *options)
        h = stream.step(x_t)
        np.testing.assert_array_equal(h, last.h)
        if fed_back:
            last = kernels.forward_step(weights, last.h, last, *options)
            np.testing.assert_array_equal(stream.step(h), last.h)
        for comp, ref in zip(stream.state, last, strict=True):
            np.testing.assert_array_equal(comp, ref)


def network(case):
    H, I, T, B = case.size
    lengths = str(case.rng.choice(["full", "ragged"]))
    shape = Shape(int(case.rng.integers(1, 4)), int(case.rng.integers(1, 3)), min(H, 70), I, min(T, 40), B, lengths)
    # As `test_stack.py` has them compiled.
    dtype = case.dtype if case.cell.name == "lstm" else np.float32
    check_stack(case.cell, shape, dtype, **options_of_stack(case.cell, int(case.rng.integers(3))))


def bad_call(case):
    function = case.rng.choice(FUNCTIONS)
    argument = str(case.rng.choice(array_names(case.cell, function)))
    how = str(case.rng.choice(list(SPOIL)))
    bad = spoilt(arguments(case.cell, function), argument.split("."), SPOIL[how][0])
    refusal = refusal_of(getattr(case.cell.kernels, function), bad)
    if refusal is None:
        assert NAMED_INSTEAD.get((function, argument, how), argument) is None, f"{function} took {argument}, {how}"
    else:
        text = str(refusal)
        assert re.fullmatch(r"[\w., ]+: expected [^\n]+, got [^\n]+", text), f"{function}, {argument}, {how}: {text}"


KINDS = (forward, forward, bptt, below_float32, not_finite, stream, network, bad_call)


def run(seed, number):
    """Run one case; return its kind."""
    case = draw_case(seed, number)
    kind = KINDS[number % len(KINDS)]
    most = numba.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        if case.rng.integers(2):
            share_everything(patch.setattr)
        numba.set_num_threads(int(case.rng.integers(most)) + 1)
        try:
            kind(case)
        finally:
            numba.set_num_threads(most)
    return kind.__name__


def main(
    cases: Annotated[int, typer.Argument(min=1, help="How many cases.")] = 10_000,
    seed: Annotated[int | None, typer.Option(min=0, help="What they follow from; else another one each time.")] = None,
    only: Annotated[int | None, typer.Option(min=0, help="The number of the one case to run.")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Tell each case before it runs.")] = False,
):
    """Call the kernels at random, each call beside its reference."""
    seed = secrets.randbits(32) if seed is None else seed
    print(f"seed {seed}", flush=True)
    right: Counter[str] = Counter()
    begin, wrong = monotonic(), 0
    for number in range(cases) if only is None else [only]:
        if verbose:
            print(number, *draw_case(seed, number)[1:], flush=True)
        try:
            right[run(seed, number)] += 1
        except Exception as error:
            wrong += 1
            print(f"wrong: --seed {seed} --only {number}: {type(error).__name__}: {error}", flush=True)
    kinds = ", ".join(f"{n} {kind}" for kind, n in sorted(right.items()))
    print(f"{sum(right.values())} right ({kinds}), {wrong} wrong, in {monotonic() - begin:.0f} s")
    raise typer.Exit(1 if wrong else 0)


if __name__ == "__main__":
    faulthandler.enable()
    warnings.simplefilter("error")
    typer.run(main)
