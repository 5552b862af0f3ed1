"""A step as data: a list of operations, each of which names the earlier ones that it takes, and their derivatives.

| operation | takes | is |
|---|---|---|
| `number` | | `of` |
| `u` | | block `of` of U x_t + b, (B, H) |
| `state` | | state `of` before the step, (B, H) |
| `vector` | | vector `of`, (H,) |
| `w` | a | W_of a: block `of` of W, (H, H), times a |
| `mean` | a | the mean of a over the units, for all of them |
| `add sub mul div power` | a, b | a + b, a - b, a b, a / b, a^b |
| `maximum minimum` | a, b | as NumPy's: NaN if either is |
| `neg abs sign sigmoid tanh relu exp log sqrt softplus` | a | |
| `less less_equal equal not_equal` | a, b | true or false, for `where` alone |
| `where` | c, a, b | a where c is true, else b |
| `seed` | | on the way back alone: a gradient that comes from outside |

All but `w` and `mean` are element by element. Units are those of one layer, and nothing here knows a gate's name.
"""

import hashlib
from typing import NamedTuple

import numpy as np

from reference.parts import sigmoid

LEAVES = ("number", "u", "state", "vector", "seed")
CONDITIONS = ("less", "less_equal", "equal", "not_equal")

# What an operation of elements, or `mean`, is in NumPy.
NUMPY = {
    "mean": lambda a: np.mean(a, axis=-1, keepdims=True),
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "power": np.power,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "neg": np.negative,
    "abs": np.abs,
    "sign": np.sign,
    "sigmoid": sigmoid,
    "tanh": np.tanh,
    "relu": lambda a: np.maximum(a, a.dtype.type(0)),
    "exp": np.exp,
    "log": np.log,
    "sqrt": np.sqrt,
    "softplus": lambda a: np.logaddexp(a, a.dtype.type(0)),
    "less": np.less,
    "less_equal": np.less_equal,
    "equal": np.equal,
    "not_equal": np.not_equal,
    "where": np.where,
}


class Node(NamedTuple):
    op: str
    args: tuple[int, ...] = ()  # earlier nodes
    of: float | int | None = None  # of a leaf and of `w`: which block, state or vector, or the number


class Product(NamedTuple):
    """Neighbouring blocks of W that are multiplied with the same thing."""

    arg: int  # the node
    first: int  # block of W
    stop: int
    stage: int  # 1 where no product comes before it, else one more than the last that does


class Graph:
    """Nodes in the order in which they were added, so that each follows from those before it, and none is there twice.

    Adding one returns its index.
    """

    def __init__(self, nodes=()):
        self.nodes = list(nodes)
        self._known = {_key(node): i for i, node in enumerate(self.nodes)}

    def add(self, op, *args, of=None):
        node = Node(op, args, of)
        key = _key(node)
        if key not in self._known:
            self._known[key] = len(self.nodes)
            self.nodes.append(node)
        return self._known[key]

    def number(self, value):
        return self.add("number", of=float(value))


def _key(node):
    return node._replace(of=repr(node.of))  # -0.0 is not 0.0, and NaN is NaN


def needed(nodes, wanted, given=()):
    """Return, in order, the nodes that the wanted ones follow from, themselves among them, but for those given."""
    found, todo = set(), list(wanted)
    while todo:
        i = todo.pop()
        if i not in found and i not in given:
            found.add(i)
            todo += nodes[i].args
    return sorted(found)


def following(nodes, ops):
    """Return the nodes that are one of the operations, or follow from one."""
    found: set[int] = set()
    for i, node in enumerate(nodes):
        if node.op in ops or not found.isdisjoint(node.args):
            found.add(i)
    return found


def products(nodes):
    """Return the products of a step, in the order of their stages: a `Product` for each run of neighbouring blocks."""
    stages, args = [], {}
    for node in nodes:
        before = max((stages[k] for k in node.args), default=0)
        stages.append(before + 1 if node.op == "w" else before)
        if node.op == "w":
            args[node.of] = (node.args[0], stages[-1])
    found: list[Product] = []
    for block in sorted(args):
        arg, stage = args[block]
        if found and found[-1].stop == block and found[-1].arg == arg:
            found[-1] = found[-1]._replace(stop=block + 1)
        else:
            found.append(Product(arg, block, block + 1, stage))
    return tuple(sorted(found, key=lambda product: (product.stage, product.first)))


def degrees(nodes):
    """Return of each node how it depends on the states: 0 not at all, 1 affinely, 2 otherwise.

    Where the states that come back are all of degree 1, steps can be put together before the state is known.
    """
    found: list[int] = []
    for op, args, _ in nodes:
        of = [found[k] for k in args]
        if op in LEAVES:
            degree = int(op == "state")
        elif op in ("w", "mean", "neg"):
            degree = of[0]
        elif op in ("add", "sub"):
            degree = max(of)
        elif op == "mul":
            degree = min(sum(of), 2)
        elif op == "div":
            degree = 2 if of[1] else of[0]
        elif op == "where":
            degree = 2 if of[0] else max(of[1:])
        else:
            degree = 2 if any(of) else 0
        found.append(degree)
    return tuple(found)


def text(nodes, outputs):
    """Return a step, a line for each node: what equal cells have in common, whatever their names are."""
    lines = []
    for i, (op, args, of) in enumerate(nodes):
        lines.append(" ".join([f"{i} = {op}", *(map(str, args)), *([] if of is None else [f"of {of!r}"])]))
    return "\n".join([*lines, "return " + " ".join(map(str, outputs))])


def digest(*texts):
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]


# --- the way back ------------------------------------------------------------------------------------------------


class Backward(NamedTuple):
    """A step's derivatives: the nodes of the step, then more, among them what is asked for.

    None where nothing comes back, as through a comparison. All is linear in the seeds: in what the loss is by each new
    state, and in what comes back through W from each of the products, by their argument.
    """

    nodes: tuple[Node, ...]
    grads: tuple[int, ...]  # seeds, dL/d(new state), of each state
    through: tuple[int, ...]  # seeds, dL/d(argument) by way of W, of each product
    u: tuple[int | None, ...]  # dL/d(U x + b), of each block of U
    w: tuple[int | None, ...]  # dL/d(W a), of each block of W
    vectors: tuple[int | None, ...]  # dL/d(vector), of each sequence by itself
    states: tuple[int | None, ...]  # dL/d(state before the step)


def differentiate(nodes, outputs, blocks_u, blocks_w, vectors):
    """Return the derivatives of a step, by reverse mode: each node hands on what has come to it."""
    graph, given = Graph(nodes), products(nodes)
    grads = tuple(graph.add("seed", of=k) for k in range(len(outputs)))
    through = tuple(graph.add("seed", of=len(outputs) + k) for k in range(len(given)))
    adjoint: dict[int, int] = {}

    def give(to, grad):
        if nodes[to].op != "number":
            adjoint[to] = graph.add("add", adjoint[to], grad) if to in adjoint else grad

    for output, seed in zip(outputs, grads, strict=True):
        give(output, seed)
    for product, seed in zip(given, through, strict=True):
        give(product.arg, seed)
    for y in reversed(range(len(nodes))):
        op, args, _ = nodes[y]
        if y in adjoint and op in DERIVATIVES:
            for to, grad in zip(args, DERIVATIVES[op](_Builder(graph), adjoint[y], y, *args), strict=True):
                if grad is not None:
                    give(to, grad)

    def of(op, count):
        at = {node.of: i for i, node in enumerate(nodes) if node.op == op}
        return tuple(adjoint.get(at.get(k, -1)) for k in range(count))

    return Backward(
        tuple(graph.nodes),
        grads,
        through,
        of("u", blocks_u),
        of("w", blocks_w),
        of("vector", vectors),
        of("state", len(outputs)),
    )


class _Builder:
    """`build.mul(a, b)` adds that node and returns its index; Python's numbers become nodes."""

    def __init__(self, graph):
        self.graph = graph

    def __getattr__(self, op):
        def add(*args):
            return self.graph.add(op, *(self.graph.number(a) if isinstance(a, float) else a for a in args))

        return add


# What each operation y = op(a, ...) hands on to its arguments of d = dL/dy; None is nothing. At ties: half to
# each of maximum and minimum, nothing for relu and abs (JAX has the same, but 1 for abs).
DERIVATIVES = {
    "add": lambda n, d, y, a, b: (d, d),
    "sub": lambda n, d, y, a, b: (d, n.neg(d)),
    "mul": lambda n, d, y, a, b: (n.mul(d, b), n.mul(d, a)),
    "div": lambda n, d, y, a, b: (n.div(d, b), n.neg(n.div(n.mul(d, y), b))),
    "power": lambda n, d, y, a, b: (
        n.mul(d, n.where(n.equal(b, 0.0), 0.0, n.mul(b, n.power(a, n.sub(b, 1.0))))),
        n.mul(d, n.mul(y, n.log(n.where(n.equal(a, 0.0), 1.0, a)))),
    ),
    "maximum": lambda n, d, y, a, b: (_share(n, d, n.less(b, a), a, b), _share(n, d, n.less(a, b), a, b)),
    "minimum": lambda n, d, y, a, b: (_share(n, d, n.less(a, b), a, b), _share(n, d, n.less(b, a), a, b)),
    "neg": lambda n, d, y, a: (n.neg(d),),
    "abs": lambda n, d, y, a: (n.mul(d, n.sign(a)),),
    "sigmoid": lambda n, d, y, a: (n.mul(d, n.mul(y, n.sub(1.0, y))),),
    "tanh": lambda n, d, y, a: (n.mul(d, n.sub(1.0, n.mul(y, y))),),
    "relu": lambda n, d, y, a: (n.where(n.less(0.0, y), d, 0.0),),
    "exp": lambda n, d, y, a: (n.mul(d, y),),
    "log": lambda n, d, y, a: (n.div(d, a),),
    "sqrt": lambda n, d, y, a: (n.mul(d, n.div(0.5, y)),),
    "softplus": lambda n, d, y, a: (n.mul(d, n.sigmoid(a)),),
    "where": lambda n, d, y, c, a, b: (None, n.where(c, d, 0.0), n.where(c, 0.0, d)),
    "mean": lambda n, d, y, a: (n.mean(d),),  # a mean of what each unit sends back, since each has the mean
}


def _share(n, d, more, a, b):
    return n.where(more, d, n.where(n.equal(a, b), n.mul(0.5, d), 0.0))
