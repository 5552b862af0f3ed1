"""How errors grow: the kernels beside mpmath, over ten thousand steps, and where gradients vanish.

`kernels/README.md` states the bounds. Everything here is one sequence of few units, in some 40 digits: a step's
equations once more, as they stand in the papers, and not the code of `reference`.
"""

import mpmath
import numpy as np
import pytest
from mpmath import mpf

import kernels.lstm
import kernels.rnn
from tests.kernels.cells import CELLS, by_cell, by_dtype
from tests.kernels.compare import DTYPES, Size, draw

T = 10_000
SIZE = Size(H=4, I=2, T=T, B=1)
by_both = pytest.mark.parametrize("kind", ["drawn", "chaotic"])


@pytest.fixture(autouse=True)
def forty_digits():
    with mpmath.workdps(40):
        yield


def exact(a):
    """Return the numbers of an array, as they are."""
    return [exact(part) for part in a] if a.ndim else mpf(float(a))


def sigmoid(a):
    return 1 / (1 + mpmath.exp(-a))


class Exact:
    """A cell's step in mpmath, on lists of numbers."""

    def __init__(self, cell, params):
        self.cell, self.H = cell.name, params.W.shape[1]
        self.U, self.W, self.b, *self.c = map(exact, params)

    def sums(self, x, h):
        """Return U x + b and W h."""
        inputs = [mpmath.fdot(row, x) + b for row, b in zip(self.U, self.b, strict=True)]
        return inputs, [mpmath.fdot(row, h) for row in self.W]

    def step(self, x, state):
        H, (inputs, recurrent) = self.H, self.sums(x, state[0])
        if self.cell == "rnn":
            return ([mpmath.tanh(a + b) for a, b in zip(inputs, recurrent, strict=True)],)
        if self.cell == "gru":
            r, z = ([sigmoid(inputs[k] + recurrent[k]) for k in range(g * H, g * H + H)] for g in (0, 1))
            inner = [a + c for a, c in zip(recurrent[2 * H :], *self.c, strict=True)]
            n = [mpmath.tanh(inputs[2 * H + k] + r[k] * inner[k]) for k in range(H)]
            return ([(1 - z[k]) * n[k] + z[k] * state[0][k] for k in range(H)],)
        a = [a + b for a, b in zip(inputs, recurrent, strict=True)]
        i, f, o = ([sigmoid(one) for one in a[g * H : g * H + H]] for g in (0, 1, 3))
        g = [mpmath.tanh(one) for one in a[2 * H : 3 * H]]
        c = [f[k] * state[1][k] + i[k] * g[k] for k in range(H)]
        return [o[k] * mpmath.tanh(c[k]) for k in range(H)], c

    def largest_sum(self, x, h):
        """Return the largest sum of magnitudes behind an element of U x + W h and the biases."""
        biases = max(abs(b) for bias in (self.b, *self.c) for b in bias)
        rows = zip(self.U, self.W, strict=True)
        return float(
            biases + max(mpmath.fdot(map(abs, u), map(abs, x)) + mpmath.fdot(map(abs, w), map(abs, h)) for u, w in rows)
        )

    def rounding(self, x, state, u):
        """Return the bound of a step's own error, 4 (n S + 4) u max(1, |c|)."""
        n = len(self.W[0]) + len(self.U[0]) + 1
        largest = max([1, *(abs(float(c)) for part in state[1:] for c in part)])
        return 4 * (n * self.largest_sum(x, state[0]) + 4) * u * largest


def drawn(cell, kind, dtype=np.float32):
    """Return params, x and a state: as a cell draws them, or with a W that lets any difference grow."""
    params, x, state, *_ = draw(cell.kernels, SIZE, np.float32)
    if kind == "chaotic":
        rng = np.random.default_rng(50)  # whose RNN multiplies a difference by 1.16 a step
        params = params._replace(W=rng.normal(0, 4, params.W.shape).astype(np.float32))
        x *= np.float32(0.1)
    params, state = (type(value)(*(a.astype(dtype) for a in value)) for value in (params, state))
    return params, x.astype(dtype), state


def steps_of(cell, params, x, state):
    """Return the State after every step."""
    trace = cell.kernels.forward(params, x, state)
    return np.stack([trace.hs[:, 0], *([trace.cs[:, 0]] if hasattr(trace, "cs") else [])], axis=1)


def distance(exactly, found):
    """Return the largest difference of two states."""
    parts = zip(exactly, exact(found), strict=True)
    return float(max(abs(a - b) for part, other in parts for a, b in zip(part, other, strict=True)))


@by_cell
@by_dtype
@by_both
def test_a_step_errs_by_no_more_than_its_bound(cell, dtype, kind):
    """From the kernel's own state before it, at steps from all of ten thousand."""
    params, x, state = drawn(cell, kind, dtype)
    found, u = steps_of(cell, params, x, state), np.finfo(dtype).eps / 2
    assert np.isfinite(found).all()
    one = Exact(cell, params)
    for t in range(1, T, 97):
        before, inputs = exact(found[t - 1]), exact(x[t, 0])
        error, bound = distance(one.step(inputs, before), found[t]), one.rounding(inputs, before, u)
        assert error <= bound, f"step {t}: error {error:.1e}, allowed {bound:.1e}"


@by_cell
def test_errors_do_not_grow_where_weights_contract(cell):
    """As drawn, they do: ten thousand steps on, a state is no further off than after the first hundreds."""
    params, x, state = drawn(cell, "drawn")
    found = {dtype: steps_of(cell, *drawn(cell, "drawn", dtype)) for dtype in DTYPES}
    one, exactly = Exact(cell, params), exact(np.stack([part[0] for part in state]))
    errors = {dtype: [] for dtype in DTYPES}
    for t in range(T):
        exactly = one.step(exact(x[t, 0]), exactly)
        for dtype, states in found.items():
            errors[dtype].append(distance(exactly, states[t]) / (np.finfo(dtype).eps / 2))
    for dtype, of_all in errors.items():
        assert max(of_all) <= 2 * max(of_all[:500]), dtype
        assert max(of_all) < 50, dtype


def test_errors_of_contracting_weights_stay_below_a_steps_own_over_one_minus_the_rate():
    """|W| is the rate, the largest sum of a row's magnitudes, for tanh's slope is 1 at most."""
    cell = CELLS[0]
    for rate in (0.5, 0.9, 0.99):
        params, x, state = drawn(cell, "drawn")
        W = params.W * np.float32(rate / np.abs(params.W).sum(axis=1).max())
        params = params._replace(W=W)
        rate = float(np.abs(W).astype(np.float64).sum(axis=1).max())
        states, one = steps_of(cell, params, x, state), Exact(cell, params)
        exactly, own = exact(np.stack([part[0] for part in state])), 0.0
        for t in range(2000):
            inputs = exact(x[t, 0])
            own = max(own, one.rounding(inputs, exactly, np.finfo(np.float32).eps / 2))
            exactly = one.step(inputs, exactly)
            assert distance(exactly, states[t]) <= own / (1 - rate), f"step {t} at a rate of {rate}"


@by_dtype
def test_errors_of_chaotic_weights_grow_as_the_steps_slopes_say_and_stay_finite(dtype):
    """E' = min(1, 1 - h^2 + 2 E) |W| E + what a step errs by: until all digits are gone, and they go."""
    cell = CELLS[0]
    params, x, state = drawn(cell, "chaotic", dtype)
    states, one, u = steps_of(cell, params, x, state), Exact(cell, params), np.finfo(dtype).eps / 2
    exactly, bound, largest = exact(np.stack([part[0] for part in state])), 0.0, 0.0
    rows = np.abs(params.W).astype(np.float64).sum(axis=1)
    with mpmath.workdps(300):
        for t in range(500):
            inputs = exact(x[t, 0])
            own = one.rounding(inputs, exactly, u)
            exactly = one.step(inputs, exactly)
            sums = rows * bound
            slopes = np.minimum(1, 1 - np.array([float(h) for h in exactly[0]]) ** 2 + 2 * sums)
            bound = min(2, (slopes * sums).max() + own)  # of states within ±1
            error = distance(exactly, states[t])
            assert error <= bound, f"step {t}: error {error:.1e}, allowed {bound:.1e}"
            largest = max(largest, error)
    assert largest > 0.1
    assert (np.abs(states) <= 1).all()


@by_dtype
def test_a_saturated_units_gradient_is_right_to_the_rounding_of_one(dtype):
    """1 - h^2 loses its digits with h near 1: what is left errs by twice h's own error, 4 u, and its own rounding."""
    u = np.finfo(dtype).eps / 2
    ones = np.ones((1, 1), dtype)
    for a in (*np.linspace(-30, 30, 121), 1e3, -1e30):
        params = kernels.rnn.Params(ones, 0 * ones, np.zeros(1, dtype))
        x = np.full((1, 1, 1), a, dtype)
        found = kernels.rnn.bptt(params, kernels.rnn.forward(params, x), ones[None]).params.b[0]
        slope = 1 - mpmath.tanh(mpf(float(x[0, 0, 0]))) ** 2
        assert abs(found - float(slope)) <= 10 * u, f"at {a}"


@by_dtype
def test_a_closed_gate_keeps_the_digits_of_its_gradient(dtype):
    """i (1 - i) near i = 0, where nothing cancels: to a few units in the last place, until i is subnormal."""
    u, H = np.finfo(dtype).eps / 2, 1
    for a in np.linspace(-80, -1, 80):
        b = np.array([a, 0, 1, 0], dtype)
        params = kernels.lstm.Params(np.zeros((4, 1), dtype), np.zeros((4, H), dtype), b)
        trace = kernels.lstm.forward(params, np.zeros((1, 1, 1), dtype))
        grad = kernels.lstm.State(np.zeros((1, H), dtype), np.ones((1, H), dtype))
        found = kernels.lstm.bptt(params, trace, np.zeros((1, 1, H), dtype), grad).params.b[0]
        i = sigmoid(mpf(float(b[0])))
        exactly = float(i * (1 - i) * mpmath.tanh(1))
        assert abs(found - exactly) <= 12 * u * exactly, f"at {a}: {found}, expected {exactly}"
