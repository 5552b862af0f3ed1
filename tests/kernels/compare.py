"""A kernel beside its reference: the same inputs for both, results by name, and how far apart they may be.

Nothing here knows the cell: it works on whatever arrays the NamedTuples of a cell's interface hold.

How far apart may two right results be? Say u is the dtype's rounding unit, 2^-24 or 2^-53. A right computation
rounds every input once (that is the least anybody can do), rounds again in each of the n additions behind a number,
and errs by up to 2 ulp = 4u in tanh and sigmoid. The bound follows:

    |comp - ref|  <=  6 sqrt(n) s  +  4u max|ref|  +  n tiny

- s is what rounding the inputs alone does to the result, measured: the float64 reference on inputs disturbed by
  random relative errors of up to u, largest difference of a few draws. So the growth of errors from step to step,
  and cancellation, are in s for the weights at hand, whatever T and H.
- Rounding errors are as good as random, so n of them add up to sqrt(n) (Higham and Mary, SIAM J. Sci. Comput. 2019);
  n is the longest sum of the computation.
- tiny is the smallest number of the dtype: what underflows errs by up to half of it.
- 6 is six standard deviations: no seed gets there by chance.
- The reference rounds as well. In float64 that doubles the variance of the difference, hence n counts twice. Its
  sigmoid, made for speed, errs by u of 1, which may be thousands of u of an almost closed gate: SciPy's stands in.
"""

from typing import Any, NamedTuple
from unittest import mock

import numpy as np
from scipy.special import expit

DTYPES = (np.float32, np.float64)


class Size(NamedTuple):
    H: int
    I: int
    T: int
    B: int

    def __str__(self):
        return "-".join(f"{name}{n}" for name, n in self._asdict().items())


class Inputs(NamedTuple):
    """All that the functions of a cell are called with."""

    params: Any
    x: np.ndarray  # (T, B, I), or (T, B) of integers: where the one is in each one-hot input
    state: Any
    grad_hs: np.ndarray  # (T, B, H)
    grad_state: Any


def draw(cell, size, dtype, seed=0, one_hot=None):
    """Return random Inputs: parameters as the cell draws them, the rest of the size of 1.

    With `one_hot`, x is (T, B) of that integer type: where the one is.
    """
    rng = np.random.default_rng([seed, *size])
    H, I, T, B = size
    return Inputs(
        cell.init_params(I, H, rng, dtype),
        rng.integers(I, size=(T, B), dtype=one_hot) if one_hot else rng.standard_normal((T, B, I)).astype(dtype),
        _draw_state(cell, size, dtype, rng),
        rng.standard_normal((T, B, H)).astype(dtype),
        _draw_state(cell, size, dtype, rng),
    )


def _draw_state(cell, size, dtype, rng):
    return cell.State(*(rng.uniform(-1, 1, (size.B, size.H)).astype(dtype) for _ in cell.State._fields))


def named(value, name=""):
    """Return the arrays of a nested NamedTuple by their names, such as "params.U", or "params.0.1.U" of a network."""
    if isinstance(value, np.ndarray):
        return {name: value}
    return {
        key: a
        for field, part in zip(getattr(value, "_fields", map(str, range(len(value)))), value, strict=True)
        if part is not None
        for key, a in named(part, f"{name}.{field}" if name else field).items()
    }


def rebuild(value, cell, array=np.copy):
    """Return a nested NamedTuple again in the classes of `cell`, its arrays passed through `array`."""
    if value is None:
        return None
    if isinstance(value, np.ndarray):
        return array(value)
    parts = [rebuild(part, cell, array) for part in value]
    if not hasattr(value, "_fields"):
        return tuple(parts)
    return getattr(cell, type(value).__name__, type(value))(*parts)


def poison(monkeypatch):
    """Have every array of numbers that NumPy makes without content be NaN."""
    empty = np.empty

    def poisoned(*args, **kwargs):
        a = empty(*args, **kwargs)
        if a.dtype.kind == "f":
            a.fill(np.nan)
        return a

    monkeypatch.setattr(np, "empty", poisoned)
    monkeypatch.setattr(np, "empty_like", lambda like, *args, **kwargs: poisoned(like.shape, like.dtype))


def assert_close(comp, reference, inputs, call, n):
    """Assert that `comp` is call(reference, inputs), an array at a time, as far as rounding allows.

    `inputs` is a NamedTuple of all arguments, in the dtype of `comp`. `call(cell, inputs)` calls a cell's functions
    with them, and is run on the reference in float64. `n` is the length of the longest sum.
    """
    dtype = np.finfo(next(iter(named(comp).values())).dtype)
    u, tiny = dtype.eps / 2, float(dtype.smallest_subnormal)
    bounds = _bounds(reference, inputs, call, n, u, tiny)
    assert named(comp).keys() == bounds.keys()
    wrong = []
    for name, a in named(comp).items():
        ref, bound = bounds[name]
        assert a.shape == ref.shape, f"{name}: shape {a.shape}, expected {ref.shape}"
        if a.dtype.kind == "i":
            np.testing.assert_array_equal(a, ref, err_msg=name)
            continue
        assert np.finfo(a.dtype).eps / 2 == u, f"{name}: dtype {a.dtype}"
        error = np.abs(a - ref).max(initial=0)
        if not error <= bound:  # a NaN is wrong as well
            wrong.append(f"{name}: error {error:.2e}, allowed {bound:.2e}")
    assert not wrong, "\n".join(wrong)


def _bounds(reference, inputs, call, n, u, tiny, draws=4):
    """Return for each array of the result the float64 reference and the largest error allowed."""
    underflow = n * tiny
    if u < np.finfo(np.float32).eps / 2:
        n *= 2

    def run(change):
        changed = rebuild(inputs, reference, lambda a: a if a.dtype.kind == "i" else change(a.astype(np.float64)))
        with (
            mock.patch.object(reference, "sigmoid", expit, create=True),  # a peer in its place has none
            mock.patch(f"{__name__}._disturbed", change),
        ):
            return named(call(reference, changed))

    ref = run(lambda a: a)
    spread = dict.fromkeys(ref, 0.0)
    rng = np.random.default_rng(0)
    size = 2.0**-30  # far above float64's own rounding, and small enough for the response to be linear
    for _ in range(draws):
        for name, a in run(lambda a: a * (1 + size * rng.uniform(-1, 1, a.shape))).items():
            spread[name] = max(spread[name], np.abs(a - ref[name]).max(initial=0) * u / size)
    return {
        name: (a, 6 * np.sqrt(n) * spread[name] + 4 * u * np.abs(a).max(initial=0) + underflow)
        for name, a in ref.items()
    }


def _disturbed(a):
    return a


def handed_on(value):
    """Return what a function of the reference has kept for another, disturbed as the inputs are at the moment.

    Whoever computes it rounds it, and where 1 - h^2 is small that is felt.
    """
    return rebuild(value, None, lambda a: a if a.dtype.kind == "i" else _disturbed(a))


def assert_same(comp, ref, size, what=""):
    """Assert that two results of one computation, taken in other ways, differ by rounding alone.

    A sum of n terms errs by n u of their size at worst, and there are two of them; as much again for what the
    earlier steps hand on.
    """
    n = size.H + size.I + size.T * size.B
    for name, a in named(ref).items():
        error, bound = np.abs(named(comp)[name] - a).max(), 4 * n * np.finfo(a.dtype).eps / 2 * np.abs(a).max()
        assert error <= bound, f"{what} {name}: differs by {error:.1e}, allowed {bound:.1e}".strip()


def assert_equal(comp, ref, what=""):
    """Assert that two results are the same to the bit."""
    for name, a in named(ref).items():
        np.testing.assert_array_equal(named(comp)[name], a, err_msg=f"{what} {name}".strip(), strict=True)


class Backward(NamedTuple):
    """What `bptt` is called with."""

    params: Any
    trace: Any
    grad_hs: np.ndarray
    grad_state: Any


def check_forward(cell, reference, size, dtype, *options, one_hot=None):
    """Check `forward_step`, `infer` and `forward` of a cell against its reference, with and without a state."""
    inputs = draw(cell, size, dtype, one_hot=one_hot)
    n = size.H + size.I + 1

    def forward_step(cell, inputs):
        return cell.forward_step(inputs.params, inputs.x[0], inputs.state, *options)

    def infer(cell, inputs):
        return cell.infer(inputs.params, inputs.x, inputs.state, *options)

    def forward(cell, inputs):
        return cell.forward(inputs.params, inputs.x, inputs.state, *options)

    for call in (forward_step, infer, forward):
        assert_close(call(cell, inputs), reference, inputs, call, n)
    without = inputs._replace(state=None)
    for call in (infer, forward):
        assert_close(call(cell, without), reference, without, call, n)


def check_bptt(cell, reference, size, dtype, truncate, *options, one_hot=None):
    """Check `bptt` of a cell against its reference on the cell's own trace, with and without `grad_state`.

    The trace is an input here: bptt answers for its own rounding alone, and relu has the same slopes for both.
    """
    inputs = draw(cell, size, dtype, one_hot=one_hot)
    trace = cell.forward(inputs.params, inputs.x, inputs.state, *options)

    def bptt(cell, inputs):
        return cell.bptt(*inputs, truncate, *options)

    for grad_state in (inputs.grad_state, None):
        backward = Backward(inputs.params, trace, inputs.grad_hs, grad_state)
        assert_close(bptt(cell, backward), reference, backward, bptt, size.H + size.I + 1 + size.T * size.B)


def calls(cell, inputs, *options, array=np.asarray):
    """Return every way to call a cell's functions with these inputs, by name; a trace goes through `array` first."""
    params, x, state, grad_hs, grad_state = inputs
    prepared = cell.prepare(params)
    below = {}
    for dtype in ("bfloat16", "int8") if params.W.dtype == np.float32 else ():
        if dtype == "bfloat16" or "relu" not in options:  # whose states are beyond int8
            below |= _calls_below(cell, cell.prepare(params, dtype), dtype, x, state, options)
    trace = rebuild(cell.forward(params, x, state, *options), cell, array)
    return {
        "forward_step": lambda: cell.forward_step(params, x[0], state, *options),
        "forward_step prepared": lambda: cell.forward_step(prepared, x[0], state, *options),
        "infer": lambda: cell.infer(params, x, state, *options),
        "infer prepared": lambda: cell.infer(prepared, x, state, *options),
        "infer stateless": lambda: cell.infer(params, x, None, *options),
        "forward": lambda: cell.forward(params, x, state, *options),
        "forward prepared": lambda: cell.forward(prepared, x, state, *options),
        "forward stateless": lambda: cell.forward(params, x, None, *options),
        "bptt": lambda: cell.bptt(params, trace, grad_hs, None, None, *options),
        "bptt grad_state": lambda: cell.bptt(params, trace, grad_hs, grad_state, None, *options),
        "bptt truncated": lambda: cell.bptt(params, trace, grad_hs, grad_state, 2, *options),
        "bptt truncated to 0": lambda: cell.bptt(params, trace, grad_hs, None, 0, *options),
        **below,
    }


def _calls_below(cell, weights, dtype, x, state, options):
    return {
        f"forward_step {dtype}": lambda: cell.forward_step(weights, x[0], state, *options),
        f"infer {dtype}": lambda: cell.infer(weights, x, state, *options),
        f"infer stateless {dtype}": lambda: cell.infer(weights, x, None, *options),
    }


def results(value):
    """Return the arrays that a call has made, by name: a trace holds the caller's x and first state as well."""
    made = value._replace(x=None, initial=None) if hasattr(value, "initial") else value
    return named(made)
