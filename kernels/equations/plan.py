"""What a cell's step becomes: blocks of sums, what is made of them one after the other, and what BPTT is to have.

The sums of a step lie in blocks (`kernels.core.recurrence.Form`). Where the step adds u.g and w.g(h), and needs neither
by itself, both go to one block. What else W is multiplied with, a *middle* each, is made of the sums that are there by
then, and its products come after.

What forward keeps: of the values that the derivatives need, those that follow neither from the states nor from what is
kept already, by a few operations. For the LSTM that is i, f, g, o and c, while tanh(c) is computed again.
"""

import hashlib
from typing import NamedTuple

from reference.equations.graph import CONDITIONS, Graph, Node, needed

ROOM = 24  # what it may cost to compute a value again; to keep it costs a write and a read of memory
COSTS = {"tanh": 12, "sigmoid": 12, "exp": 10, "log": 14, "softplus": 24, "power": 24, "div": 4, "sqrt": 4}


class Block(NamedTuple):
    u: int | None  # block of U that goes there,
    w: int | None  # of W,
    bias: int | None  # and the vector that it begins with, where that is not the bias of U


class Plan(NamedTuple):
    """A step as straight code: nodes as in `reference.equations.graph`, with the sums of blocks for leaves."""

    nodes: tuple[Node, ...]
    blocks: tuple[Block, ...]
    first: int  # how many gates of W are multiplied with h
    middles: tuple[tuple[int, int], ...]  # what is multiplied then: the node, and how many gates of W
    vectors: tuple[int, ...]  # those that are no bias
    outputs: tuple[int, ...]  # the new states
    grads: tuple[int, ...]  # seeds: dL/d(new state)
    grad_middles: tuple[int, ...]  # seeds: dL/d(middle)
    deltas: tuple[int | None, ...]  # dL/d(block), None for zero
    grad_vectors: tuple[int | None, ...]
    carries: tuple[int | None, ...]  # dL/d(state before), but for what comes through W from h
    kept: tuple[int, ...]  # the middles first

    @property
    def digest(self):
        return hashlib.sha256(repr(tuple(self)).encode()).hexdigest()[:16]


class _Copy:
    """Nodes copied to a graph of their own, where those that are known there have another meaning."""

    def __init__(self, nodes):
        self.old, self.graph, self.new = nodes, Graph(), {}
        self.zero = self.graph.number(0.0)

    def __call__(self, wanted):
        for i in needed(self.old, [wanted], self.new):
            op, args, of = self.old[i]
            args = [self.new[k] for k in args]
            if op == "add" and self.zero in args:
                self.new[i] = args[0] if args[1] == self.zero else args[1]
            else:
                self.new[i] = self.graph.add(op, *args, of=of)
        return self.new[wanted]


def plan(eq):
    """Return the Plan of a cell from its equations (`reference.equations.Cell`)."""
    back = eq.backward
    if any(node.op == "mean" for node in eq.nodes):
        raise NotImplementedError(f"{eq.__name__}: layer_norm has no kernel yet: use the reference")
    leaves, blocks, first, args = _blocks(eq)
    copy = _Copy(back.nodes)
    for i, n in leaves.items():
        copy.new[i] = copy.graph.add("sum", of=n)
    biases = {block.bias for block in blocks}
    vectors = tuple(n for n in range(len(eq.vectors)) if n not in biases)
    for i, node in enumerate(eq.nodes):
        if node.op == "vector" and node.of in vectors:
            copy.new[i] = copy.graph.add("vector", of=vectors.index(node.of))
    outputs = tuple(map(copy, eq.outputs))
    middles = tuple((copy(arg), len(some)) for arg, some in args)
    forward = len(copy.graph.nodes)

    seeds: dict[int, int] = {}  # of each middle, the first of those through its products
    h = next((i for i, node in enumerate(eq.nodes) if node.op == "state" and node.of == 0), None)
    for product, seed in zip(eq.products, back.through, strict=True):
        if product.arg == h or product.arg in seeds:
            copy.new[seed] = copy.zero
        else:
            seeds[product.arg] = copy.new[seed] = copy.graph.add("seed", of=seed)
    grads = tuple(map(copy, back.grads))

    def of(nodes):
        found = (None if i is None else copy(i) for i in nodes)
        return tuple(None if i == copy.zero else i for i in found)

    deltas = of([back.w[block.w] if block.u is None else back.u[block.u] for block in blocks])
    carries = of(back.states)
    grad_vectors = of([back.vectors[n] for n in vectors])
    nodes = tuple(copy.graph.nodes)
    wanted = [i for i in (*deltas, *grad_vectors, *carries) if i is not None]
    kept = _kept(nodes, forward, outputs, [node for node, _ in middles], wanted)
    grad_middles = tuple(seeds[arg] for arg, _ in args)
    return Plan(
        nodes, blocks, first, middles, vectors, outputs, grads, grad_middles, deltas, grad_vectors, carries, kept
    )


def _blocks(eq):
    """Return which nodes are the sums of which block, the blocks, how many gates of W are h's, and who has the others.

    The latter are the nodes that W is multiplied with but h, in the order in which they can be, with their blocks.
    """
    uses = dict.fromkeys(range(len(eq.nodes)), 0) | dict.fromkeys(eq.outputs, 1)
    for node in eq.nodes:
        for k in node.args:
            uses[k] += 1
    arg = {node.of: node.args[0] for node in eq.nodes if node.op == "w"}
    of_h = {block for block, a in arg.items() if eq.nodes[a].op == "state" and eq.nodes[a].of == 0}

    joined, biased = {}, {}
    for i, (op, args, _) in enumerate(eq.nodes):
        for w, other in (args, args[::-1]) if op == "add" else ():
            if eq.nodes[w].op != "w" or uses[w] != 1 or uses[other] != 1:
                continue
            if eq.nodes[other].op == "u" and eq.nodes[w].of in of_h:
                joined[i] = w, other
            elif eq.nodes[other].op == "vector":
                biased[i] = w, other
    inside = {k for pair in (*joined.values(), *biased.values()) for k in pair}
    of = [node.of for node in eq.nodes]
    alone = {op: [i for i, n in enumerate(eq.nodes) if n.op == op and i not in inside] for op in ("u", "w")}
    found = [(i, Block(of[i], None, None)) for i in alone["u"]]
    found += [(i, Block(of[u], of[w], None)) for i, (w, u) in joined.items()]
    rest = [(i, Block(None, of[i], None)) for i in alone["w"]]
    rest += [(i, Block(None, of[w], of[v])) for i, (w, v) in biased.items()]
    rest.sort(key=lambda item: item[1].w)
    found += [item for item in rest if item[1].w in of_h]
    stages = {product.arg: product.stage for product in eq.products}
    groups = []
    for a in sorted({a for block, a in arg.items() if block not in of_h}, key=lambda a: (stages[a], a)):
        some = [item for item in rest if arg[item[1].w] == a]
        found += some
        groups.append((a, some))
    return {i: n for n, (i, _) in enumerate(found)}, tuple(block for _, block in found), len(of_h), groups


def _kept(nodes, forward, outputs, middles, wanted):
    """Return the forward nodes to keep, the middles first: see above."""
    direct, todo = set(), [k for i in needed(nodes, wanted) if i >= forward for k in nodes[i].args if k < forward]
    todo += [i for i in wanted if i < forward]
    while todo:
        i = todo.pop()
        if nodes[i].op in CONDITIONS:  # no numbers
            todo += nodes[i].args
        else:
            direct.add(i)
    kept, known = list(dict.fromkeys(middles)), {*outputs, *middles}
    known |= {i for i in range(forward) if nodes[i].op in ("number", "vector", "state")}
    for i in sorted(direct):
        if i not in known and not _again(nodes, i, known):
            kept.append(i)
            known.add(i)
    return tuple(kept)


def _again(nodes, i, known):
    """Tell whether a node follows from those that are known, at little cost."""
    order = needed(nodes, [i], known)
    return all(nodes[k].op != "sum" for k in order) and sum(COSTS.get(nodes[k].op, 1) for k in order) <= ROOM
