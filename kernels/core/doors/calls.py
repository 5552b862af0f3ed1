"""What the doors of the cells have in common: weights laid out, memory to work in, and the call of compiled code.

Sizes: T steps, B sequences in a batch, I inputs, H hidden units, G gates.
"""

import copyreg
from functools import lru_cache
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np

from kernels.core.doors.checks import check_array, check_dtype, check_float, check_input, check_size, check_state
from kernels.core.products.rounding import KINDS, packed_units, panel_rows
from kernels.core.products.tiles import whole
from kernels.core.threads.team import most_threads, on_a_team
from kernels.core.vectors.simd import ALIGNMENT, vector_lanes
from kernels.core.walks.backward import layer_memory
from kernels.core.walks.recurrence import Form, gates_of, pack, team_size

# Of the cells that are told by their gates: the RNN, the GRU and the LSTM.
FORMS = {
    gates: Form(*map(np.int64, form))
    for gates, form in {1: (1, 1, 0, 0, 1, 0), 3: (3, 3, 0, 0, 4, 0), 4: (4, 4, 0, 0, 4, 0)}.items()
}
_ORDERS = {1: np.zeros(2, np.int64), 3: np.array([2, 0, 1, 0, 1, 2]), 4: np.array([0, 1, 2, 3] * 2)}


def aligned(a):
    """Return an array, or where it is not aligned, as it may come from another process, a copy."""
    return a if a.flags.aligned else a.copy()


def sendable(kind):
    """Have the arrays of a NamedTuple of this kind come aligned out of any pickle."""
    copyreg.pickle(kind, lambda value: (_received, (kind, tuple(value))))
    return kind


def _received(kind, fields):
    return kind._make(_settled(fields))


def _settled(value):
    if type(value) is tuple:
        return tuple(map(_settled, value))
    return aligned(value) if isinstance(value, np.ndarray) else value


@sendable
class Output(NamedTuple):
    hs: np.ndarray  # (T, B, H)  the state after every step
    state: Any  # the State after the last step


@sendable
class Gradients(NamedTuple):
    params: Any  # dL/d(each of Params)
    x: np.ndarray | None  # (T, B, I)  dL/dx; None for indices
    state: Any  # dL/d(initial State)


class Cell(NamedTuple):
    """What a network needs to know of the cells that it is made of."""

    kind: Any  # what compiled code tells the cell by: `kernels.core.walks.network`
    Params: type
    State: type
    form: Form
    keeps: tuple  # arrays (T, B, n H) that forward keeps for BPTT: each one's n
    prepare: Any
    merge: Any  # makes Params of U, W and the biases and vectors (blocks + vectors, H)
    vectors: Any = None  # takes Params to the cell's vectors (vectors, H), if it has any
    begins: tuple = ()  # the numbers that the states begin with, if not all with zero
    cell: str = ""  # of one from equations, which

    @property
    def gates(self):
        return gates_of.py_func(self.form)

    @property
    def rows(self):
        """How many gates are in U, and in W."""
        return int(self.form.u), int(self.form.w + self.form.later)

    def start(self, shape, dtype):
        """Return the State that a sequence begins with, each array of this shape (B, H)."""
        return _start(self.State, shape, dtype, self.begins)


_FIELDS = ("weights", "input_size", "hidden_size", "gates", "dtype", "together", "form", "cell")


class Prepared(tuple):
    """Weights as the kernels read them; they stay the same when the arrays they came from change.

    Whatever way one is made, its sizes are those of its weights, or a TypeError or ValueError is raised. Weights that
    do not lie where the kernels want them, as those from another process, are copied then. No NamedTuple, since Dask
    takes such for collections and scatters what is in them.
    """

    __slots__ = ()

    # U, W and the biases in the panels of `kernels.core.products.tiles`: numbers, or units below float32
    weights = property(itemgetter(0))
    input_size = property(itemgetter(1))
    hidden_size = property(itemgetter(2))
    gates = property(itemgetter(3))
    dtype = property(itemgetter(4))  # of x, the states and the biases
    together = property(itemgetter(5))  # numbers in an element of `weights`: more than one below float32
    form = property(itemgetter(6))  # of a cell from equations; the others, None, are told by their gates
    cell = property(itemgetter(7))  # and which one that is

    def __new__(cls, weights, input_size, hidden_size, gates, dtype, together, form=None, cell=""):
        check_size("input_size", input_size)
        check_size("hidden_size", hidden_size)
        if form is None:
            check_size("gates", gates)
            if gates not in FORMS:
                raise ValueError(f"gates: expected {', '.join(map(str, FORMS))}, got {gates!r}")
        else:
            form = check_form(form)
        kind = next((kind for kind, of in KINDS.items() if of[:2] == (dtype, together)), None)
        if kind is None:
            known = ", ".join(f"{of.dtype} and {of.together}" for of in KINDS.values())
            raise ValueError(f"dtype, together: expected {known}, got {dtype} and {together}")
        size = _panels_size(input_size, hidden_size, form or FORMS[gates], kind)
        check_array("weights", weights, (size,), kind, aligned=False)
        if weights.ctypes.data % ALIGNMENT:
            given, weights = weights, aligned_memory(size, kind)
            weights[:] = given
        return super().__new__(cls, (weights, input_size, hidden_size, gates, dtype, together, form, cell))

    @classmethod
    def _make(cls, values):
        return cls(*values)

    def _asdict(self):
        return dict(zip(_FIELDS, self, strict=True))

    def _replace(self, **changes):
        return type(self)(**self._asdict() | changes)

    def __repr__(self):
        _, I, H, gates, dtype, together = self[:6]
        return f"Prepared({I} inputs, {H} hidden units, {gates} gates, {dtype}, {together} together)"

    def __reduce__(self):  # without which protocols 0 and 1 of pickle go past `__new__`
        return type(self), tuple(self)


def check_form(form):
    """Return a Form as compiled code takes it, or raise a ValueError for one that cannot be."""
    form = Form(*form)
    for name, n in zip(form._fields, form, strict=True):
        if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 0:
            raise ValueError(f"form.{name}: expected an integer >= 0, got {n!r}")
    u, w, later, middles, blocks, _ = form
    if not max(u, w + later) <= blocks <= u + w + later:
        raise ValueError(f"form.blocks: expected {max(u, w + later)} to {u + w + later}, got {blocks}")
    if (later > 0) != (middles > 0) or middles > later:
        raise ValueError(f"form.middles: expected 1 to {later} for {later} gates behind them, got {middles}")
    return Form(*map(np.int64, form))


def draw_params(kind, gates, input_size, hidden_size, rng, dtype):
    """Draw the fields of the NamedTuple `kind` from the uniform distribution on ±1/sqrt(H), as PyTorch does."""
    check_size("input_size", input_size)
    check_size("hidden_size", hidden_size)
    check_dtype("dtype", dtype)
    if not isinstance(rng, (np.random.Generator, np.random.RandomState)):
        raise TypeError(f"rng: expected a numpy.random.Generator, got {type(rng).__name__}")
    H = hidden_size
    shapes = {"U": (gates * H, input_size), "W": (gates * H, H), "b": (gates * H,), "c": (H,)}
    bound = 1 / np.sqrt(H)
    return kind(*(rng.uniform(-bound, bound, shapes[name]).astype(dtype) for name in kind._fields))


def zero_state(kind, params, batch_size, begins=()):
    """Return the state that a sequence begins with, each array (B, H), for Params or Prepared: zero, if not told."""
    check_size("batch_size", batch_size)
    if isinstance(params, Prepared):
        return _start(kind, (batch_size, params.hidden_size), params.dtype, begins)
    if not hasattr(params, "W"):
        raise TypeError(f"params: expected Params or Prepared, got {type(params).__name__}")
    check_float("params.W", params.W)
    check_array("params.W", params.W, ("GH", "H"), params.W.dtype, aligned=False)
    return _start(kind, (batch_size, params.W.shape[1]), params.W.dtype, begins)


def _start(kind, shape, dtype, begins=()):
    if not begins:
        return kind._make([np.zeros(shape, dtype) for _ in kind._fields])
    return kind._make([np.full(shape, number, dtype) for number in begins])


def lay_out(U, W, biases, dtype=None, form=None, order=None, cell=""):
    """Return the Prepared of U (G_u H, I), W (G_w H, H) and biases (blocks + vectors, H), of their dtype or below.

    `form` and `order` (see `kernels.core.walks.recurrence.pack`) are those of a `cell` from equations; the others' are
    told by their gates.
    """
    H, I = W.shape[1], U.shape[1]
    gates = W.shape[0] // H if form is None else gates_of.py_func(form)
    U, W = packed_units("params.U", aligned(U), dtype), packed_units("params.W", aligned(W), dtype)
    weights = aligned_memory(_panels_size(I, H, form or FORMS[gates], W.dtype), W.dtype)
    pack(U, W, aligned(biases), _ORDERS[gates] if order is None else order, weights)
    # Which are right, and need no check.
    return tuple.__new__(Prepared, (weights, I, H, gates, *KINDS[W.dtype][:2], form, cell))


def _panels_size(I, H, form, dtype):
    n = vector_lanes(dtype)
    u, w, later, _, blocks, vectors = form
    rows = panel_rows(I, dtype) * u + panel_rows(H, dtype) * (w + later) + blocks + vectors
    return int(rows * whole.py_func(H, n) * n)


def prepared(params, prepare, gates, cell=""):
    """Return `params` if they are prepared, and of a cell with so many gates, else prepare them."""
    if not isinstance(params, Prepared):
        return prepare(params)
    if params.gates != gates:
        raise ValueError(f"params: expected weights of {gates} gates, got weights prepared for {params.gates}")
    if params.cell != cell:
        raise ValueError("params: expected weights prepared for this cell, got weights prepared for another one")
    return params


def check_full(params):
    """Raise a ValueError for weights prepared below float32, which only `infer` and `forward_step` take."""
    if isinstance(params, Prepared) and params.together > 1:
        raise ValueError(f"params: expected weights of {params.dtype} for forward, got weights prepared below it")


def check_start(kind, weights, x, state, begins=()):
    """Check the input x (T, B, I) and the state before it, a `kind` or None; return the state, of None the first."""
    _, B = check_input("x", x, ("T", "B"), weights.input_size, weights.dtype)
    shape, dtype = (B, weights.hidden_size), weights.dtype
    if state is None:
        return _start(kind, shape, dtype, begins)
    check_state("state", state, kind, shape, dtype)
    return kind(*state)


def check_step(kind, weights, x_t, state):
    """Check the input x_t (B, I) of a single step and the state before it."""
    _, I, H, _, dtype = weights[:5]
    (B,) = check_input("x_t", x_t, ("B",), I, dtype)
    check_state("state", state, kind, (B, H), dtype)


def run_step(work, prepared, x_t, h0, *arrays):
    """Call a cell's compiled step on a team; `arrays` are the cell's own, h (B, H) the first."""
    weights, I, H, gates, _, together = prepared[:6]
    size = team_size(most_threads, 1, len(x_t), I, H, gates, together)
    on_a_team(work, size, (weights, I, x_t, h0, *arrays))


def run_forward(work, prepared, x, h0, *arrays):
    """Call a cell's compiled forward on a team; `arrays` are the cell's own, hs (T, B, H) the first."""
    weights, I, H, gates, _, together = prepared[:6]
    T, B = x.shape[:2]
    size = team_size(most_threads, T, B, I, H, gates, together)
    on_a_team(work, size, (weights, I, x, h0, *arrays))


def run_bptt(work, form, states, truncate, params, trace, grad_hs, grad_last, wanted, *kept):
    """Call a cell's compiled bptt on a team.

    `states` is how many arrays a state has, `wanted` are the gradients' arrays (U, W, biases, x, the initial state's),
    and `kept` what the cell needs to know of its forward pass.
    """
    U, W, x, hs = params.U, params.W, trace.x, trace.hs
    (T, B, H), I = hs.shape, U.shape[1]
    window = -1 if truncate is None or truncate >= T - 1 else int(truncate)
    size = team_size(most_threads, T, B, I, H, gates_of.py_func(form))
    sizes = (T, B, I, H, form, states, x.ndim == 2, window, size[0], vector_lanes(hs.dtype))
    scratch = _scratch(_bptt_memory(*sizes), hs.dtype)
    # Arrays one by one: a NamedTuple of them takes 1.5 µs more to cross from Python, a tenth of a small call.
    arguments = (x, U, W, trace.initial.h, hs, grad_hs, grad_last, window, *wanted, scratch, *kept)
    on_a_team(work, size, arguments)


# To call compiled code takes as long as a small step: not where it can be helped.
_bptt_memory = lru_cache(maxsize=4096)(layer_memory)


def _scratch(size, dtype):
    """Return memory with `size` elements from where a cache line starts in it."""
    return np.empty(size + ALIGNMENT // dtype.itemsize, dtype)


def aligned_memory(size, dtype):
    """Return memory for `size` elements that starts with a cache line, and as a view cannot be resized."""
    memory = _scratch(size, dtype)
    start = -memory.ctypes.data % ALIGNMENT // dtype.itemsize
    return memory[start : start + size]


@lru_cache
def nothing(dtype):
    """Return an array without elements, (0, 0, 0), for what is not to be kept."""
    return np.empty((0, 0, 0), dtype)
