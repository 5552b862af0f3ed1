"""A cell from its equations, in NumPy: the step through time, and back by its derivatives.

Sizes: T steps, B sequences in a batch, I inputs, H hidden units. G_u gates have a u, G_w a w; their blocks of H rows
lie in the order of `gates`. Every array is C-contiguous, all of one dtype, float32 or float64; a row vector is a state,
so `W a` is `a @ W.T`. One-hot input may come as indices: x (T, B) integers in [0, I) instead of (T, B, I), x_t (B,)
instead of (B, I). What is not a finite number goes where NumPy has it go, without its warnings: the branch of a `where`
that is not taken may be no number.
"""

from collections import namedtuple
from functools import partial
from types import FunctionType
from typing import Any, NamedTuple

import numpy as np

from reference.equations.declaring import declared
from reference.equations.graph import NUMPY, degrees, differentiate, digest, following, needed, products, text
from reference.equations.tracing import BATCHED, EquationError, at, trace
from reference.parts import project, project_all, project_back
from reference.quantized import quantize


class Output(NamedTuple):
    hs: np.ndarray  # (T, B, H)  h after every step
    state: Any  # the cell's State after the last step


class Trace(NamedTuple):
    hs: np.ndarray  # (T, B, H)  h after every step
    state: Any  # the cell's State after the last step
    x: np.ndarray  # (T, B, I) or (T, B)  the input
    initial: Any  # the cell's State before the first step
    kept: tuple  # of arrays (T, B, H), what else the way back needs: see `Cell.kept`


class Gradients(NamedTuple):
    params: Any  # dL/d(each of the cell's Params)
    x: np.ndarray | None  # (T, B, I)  dL/dx, None for indices
    state: Any  # dL/d(initial state)


def cell(gates="", states="h", vectors="", biases=None):
    """Make a cell of the function below: its equations for one step of all units.

    The function names what it uses, in any order: `u` (`u.g` is U_g x_t + b_g of gate g), `w` (`w.g(a)` is W_g a), `v`
    (`v.p`, one number for each unit), and its states. It returns the new states in their order; the first is h, what
    the layer gives. All else is element by element: + - * / **, numbers, comparisons within `where`, and the functions
    of `reference.equations`; `layer_norm` alone looks across units.

    gates, states, vectors: names, such as "f n". Of states and vectors also where they begin, {"h": 0, "m": -1}; else
    states begin at zero, and vectors are drawn as the weights are. biases: gates whose bias begins as told, {"f": 1}.

    Returns a `Cell`. Raises an EquationError, a ValueError, in one line with the file and the line, for what cannot be
    a cell.
    """

    def define(step):
        if not isinstance(step, FunctionType):
            raise EquationError(f"cell: expected a function, got {type(step).__name__}")
        try:
            names = declared(gates, states, vectors, biases or {})
        except EquationError as error:
            raise at(step, error) from None
        return Cell(step, names)

    return define


class Cell:
    """A cell: the functions of `reference.lstm`, and what its step is, as data.

    Attributes beside the functions:

    - `gates`, `states`, `vectors`: the names; `starts` where the states begin.
    - `gates_u`, `gates_w`: the gates whose u and whose w the step names, in the order of the blocks of U, b and W.
    - `nodes`, `outputs`: the step, see `reference.equations.graph`, and the nodes of the new states.
    - `products`: what W is multiplied with, in stages.
    - `degrees`: of each node, how it depends on the states.
    - `backward`: the derivatives; `kept`: the nodes whose values a trace keeps, in this order.
    - `text`, `digest`: the step as a text without names, and its hash: alike in cells that are the same but for names.
    - `function`: the step as it was written; see `step` for other libraries' arrays.
    """

    Output, Trace, Gradients = Output, Trace, Gradients

    def __init__(self, function, names):
        self.function = self.__wrapped__ = function
        self.__name__, self.__qualname__, self.__module__ = (
            function.__name__,
            function.__qualname__,
            function.__module__,
        )
        self.__doc__ = function.__doc__
        self.gates, self.states, self.vectors = names.gates, tuple(names.states), tuple(names.vectors)
        self.starts = tuple(names.states.values())
        self._drawn, self._biases = names.vectors, names.biases
        self.nodes, self.outputs, self.gates_u, self.gates_w = trace(function, self.gates, self.states, self.vectors)
        for gate in names.biases:
            if gate not in self.gates_u:
                raise at(function, f"biases: expected gates whose u the step uses, got {gate}")
        sizes = len(self.gates_u), len(self.gates_w), len(self.vectors)
        self.products, self.degrees = products(self.nodes), degrees(self.nodes)
        self.backward = differentiate(self.nodes, self.outputs, *sizes)
        self.text = text(self.nodes, self.outputs)
        self.digest = digest(self.text, repr(sizes))
        self.Params = self._class("Params", ("U", "W", "b", *self.vectors))
        self.State = self._class("State", self.states)
        self._plan()

    def _class(self, name, fields):
        """Return a NamedTuple's class that is found again, by whoever unpickles, as an attribute of this cell."""
        kind = namedtuple(name, fields, module=self.__module__)
        kind.__qualname__ = f"{self.__qualname__}.{name}"
        return kind

    def __repr__(self):
        return f"<cell {self.__module__}.{self.__qualname__}>"

    def __reduce__(self):
        return self.__qualname__  # as functions are: by the name where it is found

    def __call__(self, *args, **named):
        """Call the step as it was written."""
        return self.function(*args, **named)

    def _plan(self):
        """Settle what is computed when: once for all steps, in each step, on the way back before and between seeds."""
        back = self.backward
        nodes = back.nodes
        varying = following(nodes, (*BATCHED, "seed"))
        self._fixed = [i for i in needed(nodes, self.outputs) if i not in varying and nodes[i].op in NUMPY]
        self._product_of = {block: p for p in self.products for block in range(p.first, p.stop)}
        self._run_of = {n: (n, n + 1) for n in range(len(self.gates_w))}  # of what leads to nothing too
        self._run_of |= {block: (p.first, p.stop) for block, p in self._product_of.items()}

        ends = [i for i in (*back.u, *back.w, *back.vectors, *back.states) if i is not None]
        backwards = [i for i in needed(nodes, ends) if i >= len(self.nodes)]
        direct = {k for i in backwards for k in nodes[i].args if k < len(self.nodes)} | {p.arg for p in self.products}
        carried = {self.outputs[nodes[i].of] for i in direct if nodes[i].op == "state" and nodes[i].of}
        leaves = {i for i in direct if nodes[i].op == "state"}
        self.kept = tuple(sorted({i for i in direct - leaves if i in varying} - {self.outputs[0]} | carried))
        moving = following(nodes, ("seed",))
        computed = [i for i in backwards if nodes[i].op in NUMPY]
        self._slopes = [i for i in computed if i not in moving]
        self._back, known = [], {*self._slopes}
        for product in reversed(self.products):
            order = needed(nodes, [i for i in back.w[product.first : product.stop] if i is not None])
            self._back.append((product, [i for i in order if i in computed and i not in known]))
            known |= set(order)
        self._last = [i for i in computed if i not in known]
        self._beside = sorted({k for i in computed if i in moving for k in nodes[i].args if k not in moving})

    # --- the interface of every cell -----------------------------------------------------------------------------

    def init_params(self, input_size, hidden_size, rng, dtype=np.float32):
        """Draw U, W, b and vectors from the uniform distribution on ±1/sqrt(H), but for what begins as told."""
        H, bound = hidden_size, 1 / np.sqrt(hidden_size)

        def draw(*shape):
            return rng.uniform(-bound, bound, shape).astype(dtype)

        rows = len(self.gates_u) * H
        U, W, b = draw(rows, input_size), draw(len(self.gates_w) * H, H), draw(rows)
        for gate, start in self._biases.items():
            b[self._rows(self.gates_u.index(gate), H)] = start
        starts = self._drawn.values()
        return self.Params(U, W, b, *(draw(H) if start is None else np.full(H, start, dtype) for start in starts))

    def init_state(self, params, batch_size):
        """Return the states (B, H) as they begin."""
        shape, dtype = (batch_size, params.W.shape[1]), params.W.dtype
        return self.State(*(np.full(shape, start, dtype) for start in self.starts))

    def prepare(self, params, dtype=None):
        """Return the weights as `infer`, `forward` and `forward_step` like them best: here, as they are.

        Of dtype "bfloat16" or "int8" they are rounded, for `infer` and `forward_step`: see `reference.quantized`.
        """
        return params if dtype is None else quantize(params, dtype)

    def forward_step(self, params, x_t, state):
        """Return the state after one more step, from x_t (B, I) or (B,)."""
        with np.errstate(all="ignore"):
            after = self._after(self._step(params, self._once(params), project(params, x_t), state))
        return self.State(*map(_own, after))

    def infer(self, params, x, state=None):
        """Run over x (T, B, I) or (T, B) from `state` (`init_state` if None) and keep only what the user sees."""
        hs, last, *_ = self._run(params, x, state, ())
        return Output(hs, last)

    def forward(self, params, x, state=None):
        """Run over x (T, B, I) or (T, B) from `state` (`init_state` if None), return the trace that `bptt` needs."""
        hs, last, initial, kept = self._run(params, x, state, self.kept)
        return Trace(hs, last, x, initial, kept)

    def bptt(self, params, trace, grad_hs, grad_state=None, truncate=None):
        """Return the gradients of a loss L, given how it depends on the states.

        grad_hs (T, B, H) is dL/dhs, and grad_state, where given, dL/d(last state), which is added to it.
        With `truncate=k` the loss gradient of each step flows back through k earlier steps, so that it
        reaches k + 1 of them; None is full BPTT, and so is any k >= T - 1. A negative k is a ValueError.
        """
        if truncate is not None and truncate < 0:
            raise ValueError("truncate: expected None or an integer >= 0, got a negative one")
        T = len(grad_hs)
        last = [np.zeros_like(a) for a in trace.state] if grad_state is None else [a.copy() for a in grad_state]
        with np.errstate(all="ignore"):
            values = self._values(params, trace)
            if truncate is None or truncate >= T - 1:
                delta, first = self._through_time(params.W, values, grad_hs, last)
            else:
                delta, first = self._windowed(params.W, values, grad_hs, last, truncate)
            return self._gradients(params, trace.x, values, delta, first)

    def step(self, params, inputs, state):
        """Return the new State by calling the step as it was written, on arrays of any library.

        params: Params of its arrays; inputs: U x_t + b (B, G_u H); state: a State, or a tuple. Of a library other than
        NumPy, tell `register_arrays` first. Neighbouring gates of one argument are one product.
        """
        H, done = params.W.shape[1], {}

        def multiply(block, a):
            first, stop = self._run_of[block]
            if first not in done:
                done[first] = a @ params.W[first * H : stop * H].T
            return done[first][..., self._rows(block - first, H)]

        u = {gate: inputs[..., self._rows(n, H)] for n, gate in enumerate(self.gates_u)}
        w = {gate: partial(multiply, n) for n, gate in enumerate(self.gates_w)}
        given = {
            "u": _Named(u),
            "w": _Named(w),
            "v": params,
            **dict(zip(self.states, state, strict=True)),
        }
        code = self.function.__code__
        names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        positional = [given[name] for name in names[: code.co_argcount]]
        after = self.function(*positional, **{name: given[name] for name in names[code.co_argcount :]})
        return self.State(*(after if isinstance(after, tuple) else (after,)))

    # --- forward -------------------------------------------------------------------------------------------------

    @staticmethod
    def _rows(block, H):
        return slice(block * H, (block + 1) * H)

    def _once(self, params):
        """Return the values that are the same in every step: of numbers, vectors, and what follows from these alone."""
        values = {}
        for i, node in enumerate(self.backward.nodes):
            if node.op == "number":
                values[i] = params.W.dtype.type(node.of)
            elif node.op == "vector":
                values[i] = params[3 + node.of]
        self._compute(self._fixed, values)
        return values

    def _compute(self, order, values):
        for i in order:
            node = self.backward.nodes[i]
            values[i] = NUMPY[node.op](*(values[k] for k in node.args))

    def _step(self, params, once, inputs, state):
        """Return the values of all nodes of one step, from inputs = U x_t + b (B, G_u H) and the state."""
        values, H, multiplied = dict(once), params.W.shape[1], {}
        for i, (op, args, of) in enumerate(self.nodes):
            if op == "u":
                values[i] = inputs[:, self._rows(of, H)]
            elif op == "state":
                values[i] = state[of]
            elif op == "w":
                product = self._product_of[of]
                if product not in multiplied:
                    multiplied[product] = _multiply(
                        values[args[0]], params.W, slice(product.first * H, product.stop * H)
                    )
                values[i] = multiplied[product][:, self._rows(of - product.first, H)]
            elif i not in values:
                values[i] = NUMPY[op](*(values[k] for k in args))
        return values

    def _after(self, values):
        return tuple(values[o] for o in self.outputs)

    def _run(self, params, x, state, keep):
        """Return hs, the last state, the initial one, and the values of the nodes to keep, (T, B, H) each."""
        T, B = x.shape[:2]
        initial = self.init_state(params, B) if state is None else state
        shape, dtype = (T, B, params.W.shape[1]), params.W.dtype
        hs, kept = np.empty(shape, dtype), tuple(np.empty(shape, dtype) for _ in keep)
        after = tuple(initial)
        with np.errstate(all="ignore"):
            once, inputs = self._once(params), project_all(params, x)
            for t in range(T):
                values = self._step(params, once, inputs[t], after)
                after = self._after(values)
                hs[t] = after[0]
                for i, a in zip(keep, kept, strict=True):
                    a[t] = values[i]
        return hs, self.State(*map(_own, after)), initial, kept

    # --- back ----------------------------------------------------------------------------------------------------

    def _values(self, params, trace):
        """Return the values that the way back needs before any gradient comes, of all steps at once, (T B, H) each."""
        T, B, H = trace.hs.shape
        values = self._once(params)
        values |= {i: a.reshape(T * B, H) for i, a in zip(self.kept, trace.kept, strict=True)}
        values[self.outputs[0]] = trace.hs.reshape(T * B, H)
        for i, node in enumerate(self.nodes):
            if node.op == "state" and (after := values.get(self.outputs[node.of])) is not None:
                values[i] = np.concatenate((trace.initial[node.of], after[:-B]))
        self._compute(self._slopes, values)
        return values

    def _through_time(self, W, values, grad_hs, grad):
        """Return delta (T, B, ...) as `_step_back` has it, of all steps, and dL/d(initial state)."""
        T, B, _ = grad_hs.shape
        delta = [None] * T
        for t in range(T - 1, -1, -1):
            delta[t], grad = self._step_back(W, values, slice(t * B, (t + 1) * B), [grad_hs[t] + grad[0], *grad[1:]])
        return np.concatenate(delta), grad

    def _windowed(self, W, values, grad_hs, grad_last, window):
        """Return the same where each loss gradient flows back through `window` steps.

        `lagged` is what each loss sends `lag` steps back; all steps take one more step back in one product.
        """
        T, B, H = grad_hs.shape
        lagged = [grad_hs.reshape(T * B, H).copy(), *(np.zeros((T * B, H), W.dtype) for _ in grad_last[1:])]
        for a, last in zip(lagged, grad_last, strict=True):
            a[-B:] += last
        first = [np.zeros_like(a) for a in grad_last]
        for lag in range(window + 1):
            n = (T - lag) * B
            part, before = self._step_back(W, values, slice(0, n), lagged)
            if lag == 0:
                delta = part
            else:
                delta[:n] += part
            first = [a + b[:B] for a, b in zip(first, before, strict=True)]
            lagged = [a[B:] for a in before]
        return delta, first

    def _step_back(self, W, values, rows, grad):
        """Return delta (N, ...) and dL/d(state before the step), from dL/d(state after it), all of N rows.

        delta is dL/d(U x + b) of each block, dL/d(W a) of each, and dL/d(vector) of each, side by side.
        """
        back, H = self.backward, W.shape[1]
        values = {i: values[i][rows] if values[i].ndim == 2 else values[i] for i in self._beside}
        values |= dict(zip(back.grads, grad, strict=True))
        ends = (*back.u, *back.w, *back.vectors)
        delta = np.zeros((len(grad[0]), len(ends) * H), W.dtype)

        def put(first, found):
            for k, i in enumerate(found, first):
                if i is not None:
                    delta[:, self._rows(k, H)] = values[i]

        start = len(back.u)
        for product, order in self._back:
            self._compute(order, values)
            put(start + product.first, back.w[product.first : product.stop])
            come = delta[:, (start + product.first) * H : (start + product.stop) * H]
            values[back.through[self.products.index(product)]] = come @ W[product.first * H : product.stop * H]
        self._compute(self._last, values)
        put(0, back.u)
        put(start + len(back.w), back.vectors)
        shape = grad[0].shape
        zero = np.zeros(shape, W.dtype)
        return delta, [zero if i is None else np.broadcast_to(values[i], shape) for i in back.states]

    def _gradients(self, params, x, values, delta, first):
        """Return the Gradients, from delta of all steps and dL/d(initial state)."""
        T, B = x.shape[:2]
        H, split = params.W.shape[1], len(params.U)
        of_u, of_w = delta[:, :split], delta[:, split : split + len(params.W)]
        of_vectors = delta[:, split + len(params.W) :].sum(axis=0).reshape(-1, H)
        grad_U, grad_x = project_back(params.U, x, np.ascontiguousarray(of_u).reshape(T, B, split))
        grad_W = np.zeros_like(params.W)
        for product in self.products:
            rows = slice(product.first * H, product.stop * H)
            grad_W[rows] = of_w[:, rows].T @ values[product.arg]
        grad = self.Params(grad_U, grad_W, of_u.sum(axis=0), *(a.copy() for a in of_vectors))
        return Gradients(grad, grad_x, self.State(*map(_own, first)))


class _Named:
    """Parts by their names; a class of its own, which PyTorch's compiler follows."""

    def __init__(self, parts):
        for name, part in parts.items():
            setattr(self, name, part)


def _own(a):
    """Return a copy of an array, C-contiguous whatever it is a view of."""
    return np.array(a, order="C")


def _multiply(a, W, rows):
    """Return a (B, H) times these rows of W, which may be rounded as `reference.quantized` has it."""
    return a @ W[rows].T if isinstance(W, np.ndarray) else (a @ W.T)[:, rows]
