"""What a step may be made of, and how it becomes data: the function is called once, with values that note what is done.

The functions here also take NumPy's arrays, and those of any library that `register_arrays` was told of, so that a step
runs on them as it was written.
"""

import operator
import sys
from inspect import Parameter, signature

import numpy as np

from reference.equations.graph import CONDITIONS, NUMPY, Graph, following, needed, products

MOST_STAGES = 2
BATCHED = ("u", "state")  # what each sequence has of its own, (B, H), and whatever follows from it
ONE_LINE = 100  # characters of somebody else's error


class EquationError(ValueError):
    """What cannot be a cell, in one line that begins with the file and the line."""


def register_arrays(kind, functions):
    """Have a library's arrays run through a step: `functions` has those of this module, by their names.

    `kind` is the class of the arrays, such as `torch.Tensor`. The functions get arrays or numbers, as a step gives
    them; `layer_norm` and `where` are among them.
    """
    _ARRAYS[kind] = functions


# --- functions ---------------------------------------------------------------------------------------------------


def sigmoid(a):
    """Return 1 / (1 + exp(-a))."""
    return _call("sigmoid", a)


def tanh(a):
    """Return the hyperbolic tangent."""
    return _call("tanh", a)


def relu(a):
    """Return a where it is above 0, else 0; at 0 its derivative is 0."""
    return _call("relu", a)


def exp(a):
    """Return e^a."""
    return _call("exp", a)


def log(a):
    """Return the natural logarithm."""
    return _call("log", a)


def sqrt(a):
    """Return the square root."""
    return _call("sqrt", a)


def softplus(a):
    """Return log(1 + exp(a))."""
    return _call("softplus", a)


def abs(a):
    """Return the magnitude; at 0 its derivative is 0."""
    return _call("abs", a)


def maximum(a, b):
    """Return the larger of each two, NaN if either is; of equal ones each has half of the derivative."""
    return _call("maximum", a, b)


def minimum(a, b):
    """Return the smaller of each two, NaN if either is; of equal ones each has half of the derivative."""
    return _call("minimum", a, b)


def where(condition, a, b):
    """Return a where the condition, a comparison such as `c > 0`, holds, else b."""
    return _call("where", condition, a, b)


def layer_norm(a):
    """Return (a - mean) / sqrt(variance + 1e-5), over the units of each sequence (Ba et al. 2016)."""
    return _call("layer_norm", a)


def _call(name, *args):
    for a in args:
        if isinstance(a, Value):
            return (
                _trace_where(*args)
                if name == "where"
                else a.layer_norm()
                if name == "layer_norm"
                else a.join(name, *args)
            )
    for kind, functions in _ARRAYS.items():
        for a in args:
            if isinstance(a, kind):
                return getattr(functions, name)(*args)
    if name in ("where", "layer_norm") or not all(map(_is_number, args)):
        got = ", ".join(type(a).__name__ for a in args)
        raise _refusal(f"{name}: expected what the step is given or computes, got {got}")
    with np.errstate(all="ignore"):
        return float(NUMPY[name](*map(np.float64, args)))


class _NumpyFunctions:
    @staticmethod
    def layer_norm(a):
        centred = a - NUMPY["mean"](a)
        return centred / np.sqrt(NUMPY["mean"](centred * centred) + a.dtype.type(1e-5))

    def __getattr__(self, name):
        return NUMPY[name]


_ARRAYS = {np.ndarray: _NumpyFunctions()}


def _is_number(a):
    return isinstance(a, int | float | np.integer | np.floating) and not isinstance(a, bool)


# --- values ------------------------------------------------------------------------------------------------------


class Value:
    """What stands for numbers, one for each unit of each sequence, while a step is traced."""

    def __init__(self, graph, index):
        object.__setattr__(self, "graph", graph)
        object.__setattr__(self, "index", index)

    @property
    def node(self):
        return self.graph.nodes[self.index]

    def join(self, op, *args):
        """Return the Value of an operation, this one among its arguments."""
        return Value(self.graph, self.graph.add(op, *(self.index_of(a) for a in args)))

    def index_of(self, a):
        """Return the node of an operand: a Value that holds numbers, or a number."""
        if _is_number(a):
            return self.graph.number(a)
        if not isinstance(a, Value):
            what = (
                f"an array of shape {a.shape}: what each unit has of its own is in vectors"
                if isinstance(a, np.ndarray)
                else _brief(a)
            )
            raise _refusal(f"expected a number or what the step is given or computes, got {what}")
        if a.graph is not self.graph:
            raise _refusal("expected what this step is given or computes, got a value of another one")
        if a.node.op in CONDITIONS:
            raise _refusal("expected numbers, got a comparison: where(a > b, x, y) makes numbers of it")
        return a.index

    def power(self, n):
        """Return this to the power of a whole number, by products."""
        if n < 0:
            return 1.0 / self.power(-n)
        result, square = None, self
        while n:
            if n % 2:
                result = square if result is None else result * square
            n //= 2
            square = square * square if n else square
        return Value(self.graph, self.graph.number(1)) if result is None else result

    def layer_norm(self):
        centred = self - self.join("mean", self)
        return centred / sqrt(self.join("mean", centred * centred) + 1e-5)

    def __pow__(self, n):
        if _is_number(n) and float(n).is_integer() and -MOST_FACTORS <= n <= MOST_FACTORS:
            self.index_of(self)
            return self.power(int(n))
        return self.join("power", self, n)

    def __rpow__(self, a):
        return self.join("power", a, self)

    def __pos__(self):
        self.index_of(self)
        return self

    def __neg__(self):
        return self.join("neg", self)

    def __abs__(self):
        return self.join("abs", self)

    # Numbers of NumPy's and its functions ask this first.
    def __array_ufunc__(self, ufunc, method, *inputs, **_):
        apply = UFUNCS.get(ufunc) if method == "__call__" else None
        if apply is None or not any(map(_is_number, inputs)):
            raise _refusal(f"np.{ufunc.__name__}: expected functions of reference.equations, and no array")
        return apply(*(float(a) if _is_number(a) else a for a in inputs))

    def __array_function__(self, function, *_):
        raise _refusal(f"np.{function.__name__}: expected functions of reference.equations")

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        raise _refusal(f"expected operators and functions of reference.equations, got .{name}")

    def __setattr__(self, name, value):
        raise _refusal(f"expected operators and functions of reference.equations, got .{name} =")


MOST_FACTORS = 16  # beyond it powers are powers


def _binary(op, swap=False):
    def method(self, other):
        return self.join(op, other, self) if swap else self.join(op, self, other)

    return method


def _refusing(text):
    def method(self, *_):
        raise _refusal(text)

    return method


for _name, _op in {"add": "add", "sub": "sub", "mul": "mul", "truediv": "div"}.items():
    setattr(Value, f"__{_name}__", _binary(_op))
    setattr(Value, f"__r{_name}__", _binary(_op, swap=True))
for _name, _op, _swap in (
    ("lt", "less", False),
    ("gt", "less", True),
    ("le", "less_equal", False),
    ("ge", "less_equal", True),
    ("eq", "equal", False),
    ("ne", "not_equal", False),
):
    setattr(Value, f"__{_name}__", _binary(_op, _swap))
for _names, _text in {
    "bool": "control flow on values: expected where(a > b, x, y), since each unit has a value of its own",
    "float int index complex round trunc floor ceil": "expected functions of reference.equations, got one of numbers",
    "iter len getitem setitem delitem contains": "expected operators on all units at once, got a single one, or `in`",
    "iadd isub imul itruediv ipow ifloordiv imod imatmul iand ior ixor": "expected a = a + b, got a += b, which would "
    "write to what the step was given",
    "floordiv rfloordiv mod rmod divmod rdivmod": "expected + - * / **, got // or %",
    "matmul rmatmul": "expected w.g(a) for a product with a matrix, got @",
    "and rand or ror xor rxor invert lshift rshift": "expected one where in another, got & | ^ ~",
    "array": "expected functions of reference.equations, got an array of NumPy's",
    "hash": "expected operators and functions of reference.equations, got a value as a key",
}.items():
    for _name in _names.split():
        setattr(Value, f"__{_name}__", _refusing(_text))

UFUNCS = {
    np.add: operator.add,
    np.subtract: operator.sub,
    np.multiply: operator.mul,
    np.divide: operator.truediv,
    np.power: operator.pow,
    np.less: operator.lt,
    np.less_equal: operator.le,
    np.greater: operator.gt,
    np.greater_equal: operator.ge,
    np.equal: operator.eq,
    np.not_equal: operator.ne,
}  # what an operator calls that has a number of NumPy's on its left


def _trace_where(condition, a, b):
    if not isinstance(condition, Value) or condition.node.op not in CONDITIONS:
        raise _refusal(f"where: expected a comparison such as a > 0 first, got {_brief(condition)}")
    graph = condition.graph
    return Value(graph, graph.add("where", condition.index, condition.index_of(a), condition.index_of(b)))


class _Given:
    """`u`, `w` or `v` of a step that is traced: what it has of each of the names."""

    def __init__(self, label, kind, names, get):
        self.__dict__.update(_label=label, _kind=kind, _names=names, _get=get)

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        if name not in self._names:
            known = ", ".join(self._names) or "none"
            raise _refusal(f"{self._label}.{name}: expected one of the {self._kind} ({known}), got {name}")
        return self._get(name)

    def __setattr__(self, name, _):
        raise _refusal(f"{self._label}.{name}: expected operators, which make something new, got an assignment")

    def __call__(self, *_):
        raise _refusal(f"{self._label}: expected {self._label}.NAME, got a call")

    __array_ufunc__ = None
    __getitem__ = __iter__ = __contains__ = __call__


# --- the step ----------------------------------------------------------------------------------------------------


def trace(step, gates, states, vectors):
    """Call a step once; return its nodes, the nodes of its new states, and the gates whose u and whose w it names.

    An `EquationError` if it cannot be a cell.
    """
    parameters = _parameters(step, ("u", "w", "v", *states))
    graph, used, multiplied = Graph(), {"u": set(), "w": set()}, {}

    def input_of(gate):
        used["u"].add(gate)
        return Value(graph, graph.add("u", of=gates.index(gate)))

    def weights_of(gate):
        def multiply(*args):
            expected = f"w.{gate}: expected a state, or what is computed, (B, H)"
            if len(args) != 1 or not isinstance(args[0], Value):
                raise _refusal(f"{expected}, got {', '.join(map(_brief, args)) or 'nothing'}")
            index = args[0].index_of(args[0])
            if index not in following(graph.nodes, BATCHED):
                raise _refusal(f"{expected}, got {_shape(graph, index)}, the same for all inputs")
            if multiplied.setdefault(gate, index) != index:
                raise _refusal(f"w.{gate}: expected one thing to multiply, got a second: declare another gate for it")
            used["w"].add(gate)
            product = graph.add("w", index, of=gates.index(gate))
            stage = max(p.stage for p in products(graph.nodes))
            if stage > MOST_STAGES:
                raise _refusal(f"w.{gate}: expected at most {MOST_STAGES} products one after the other, got {stage}")
            return Value(graph, product)

        return multiply

    given = {
        "u": _Given("u", "gates", gates, input_of),
        "w": _Given("w", "gates", gates, weights_of),
        "v": _Given("v", "vectors", vectors, lambda name: Value(graph, graph.add("vector", of=vectors.index(name)))),
    } | {state: Value(graph, graph.add("state", of=k)) for k, state in enumerate(states)}
    positional = [given[name] for name, kind in parameters.items() if kind != Parameter.KEYWORD_ONLY]
    named = {name: given[name] for name, kind in parameters.items() if kind == Parameter.KEYWORD_ONLY}
    try:
        result = step(*positional, **named)
    except EquationError:
        raise
    except Exception as error:
        raise _foreign(step, error) from None
    outputs = _outputs(step, graph, states, result)
    return *_without_dead(graph.nodes, outputs, gates, used), *(tuple(g for g in gates if g in used[k]) for k in "uw")


def _parameters(step, known):
    """Return the names of the step's parameters and their kinds."""
    parameters = {name: p.kind for name, p in signature(step).parameters.items()}
    for name, kind in parameters.items():
        if kind in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD):
            raise at(step, f"{name}: expected arguments by name, among {', '.join(known)}, got any number of them")
        if name not in known:
            raise at(step, f"{name}: expected arguments among {', '.join(known)}, got {name}")
    return parameters


def _outputs(step, graph, states, result):
    """Return the nodes of what the step has returned, once it can be its new states."""
    result = result if isinstance(result, tuple) else (result,)
    expected = f"expected the new {', '.join(states)}"
    if len(result) != len(states):
        raise at(step, f"return: {expected}, {len(states)} in all, got {len(result)}")
    for state, value in zip(states, result, strict=True):
        if not isinstance(value, Value):
            raise at(step, f"return: {expected}, got {_brief(value)} for {state}")
        if value.graph is not graph:
            raise at(step, f"return: {expected}, got a value of another step for {state}")
        if value.node.op in CONDITIONS:
            raise at(step, f"return: {expected}, got a comparison for {state}")
    outputs = tuple(value.index for value in result)
    batched = following(graph.nodes, BATCHED)
    for k, (state, output) in enumerate(zip(states, outputs, strict=True)):
        if output not in batched:
            shape = _shape(graph, output)
            raise at(step, f"return: {expected}, each (B, H), got {shape} for {state}, the same for all inputs")
        if output in outputs[:k]:
            first = states[outputs.index(output)]
            raise at(step, f"return: {expected}, got the same for {first} and {state}: a state is returned once")
    return outputs


def _shape(graph, index):
    """Return the shape of what does not differ between sequences."""
    return "(H,)" if index in following(graph.nodes, ("vector",)) else "a number"


def _without_dead(nodes, outputs, gates, used):
    """Return the nodes that the outputs follow from, and the outputs among them; only blocks that are used count."""
    blocks = {op: {gates.index(g): n for n, g in enumerate(g for g in gates if g in used[op])} for op in "uw"}
    place: dict[int, int] = {}
    kept = []
    for i in needed(nodes, outputs):
        node = nodes[i]
        of = blocks[node.op][node.of] if node.op in blocks else node.of
        place[i] = len(kept)
        kept.append(node._replace(args=tuple(place[k] for k in node.args), of=of))
    return tuple(kept), tuple(place[o] for o in outputs)


# --- refusals ----------------------------------------------------------------------------------------------------


def at(step, text):
    """Return the error of a step as a whole, with the line where it is defined."""
    code = step.__code__
    return EquationError(f"{code.co_filename}:{code.co_firstlineno}: {step.__name__}: {text}")


def _refusal(text):
    """Return the error of what is done just now, with the line of whoever does it."""
    frame = sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename == _refusal.__code__.co_filename:
        frame = frame.f_back
    return EquationError(f"{frame.f_code.co_filename}:{frame.f_lineno}: {text}")


def _foreign(step, error):
    """Return the error for somebody else's, with the last line of the step's own file that led to it."""
    line, tb = step.__code__.co_firstlineno, error.__traceback__
    while tb is not None:
        if tb.tb_frame.f_code.co_filename == step.__code__.co_filename:
            line = tb.tb_lineno
        tb = tb.tb_next
    told = (str(error).splitlines() or [""])[0][:ONE_LINE] or "something else"
    return EquationError(
        f"{step.__code__.co_filename}:{line}: expected operators and functions of reference.equations, got: {told}"
    )


def _brief(a):
    """Return what somebody gave, in a word or two."""
    if isinstance(a, Value):
        return "numbers" if a.node.op not in CONDITIONS else "a comparison"
    return f"the number {a}" if _is_number(a) else "nothing" if a is None else f"{type(a).__name__}"
