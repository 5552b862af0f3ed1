"""Recurrences that are no RNN, GRU or LSTM node: they are named, since which cell they are cannot be told.

Three are known. Steps written out one after the other: products by the same weights, each of which depends on the one
before and takes in something new, as a network of layers that share their weights does not. A loop whose state passes
through a product by constant weights, and an LSTM's step as its multiplications.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from bench.grid.models import clean
from bench.grid.models.onnx.graph import graphs

FEWEST_STEPS = 3
MOST_WEIGHTS = 64  # that are looked at
PRODUCTS = ("MatMul", "Gemm")
BENDS = ("Tanh", "Sigmoid", "Relu", "HardSigmoid", "Softsign", "Elu", "LeakyRelu")
PICKS = ("Slice", "Gather", "Split", "Squeeze", "SequenceAt", "Reshape", "Identity", "Unsqueeze")
# Behind which a value is no state of numbers any more, but a choice, a size, or a weight of attention.
ENDS = (
    "ArgMax",
    "ArgMin",
    "TopK",
    "Shape",
    "Size",
    "Softmax",
    "LogSoftmax",
    "Equal",
    "Greater",
    "Less",
    "Not",
    "Where",
)


class _Product(NamedTuple):
    node: Any
    weights: str  # the name of the constant they are
    other: str  # what they are multiplied by


def recurrences(model: Any) -> dict[str, str]:
    """Return why a model's recurrences that are no recurrent nodes are left out, by the names of where they begin."""
    found: dict[str, str] = {}
    constants: set[str] = set()
    for graph, within in graphs(model):
        constants = constants | {tensor.name for tensor in graph.initializer} | _made_constant(graph)
        products = list(_products(graph, constants))
        chains = _chains(graph, products, constants)
        loop = next((one for one in reversed(within) if one.kind in ("Loop", "Scan")), None)
        for product, steps in chains:
            found[_name(product.node)] = (
                f"a recurrence unrolled into {steps} of {product.node.op_type} by the same weights, one after the other"
            )
        if loop is not None and within[-1] == loop and _carries(graph, loop.kind, products, model, within):
            found[loop.node] = f"a recurrence in the body of a {loop.kind}, which is no RNN, GRU or LSTM node"
        elif not chains and (step := _lstm_step(graph)) is not None:
            found[_name(step)] = "a step of an LSTM written as Sigmoid, Tanh and Mul, which is no LSTM node"
    return {clean(name): why for name, why in found.items()}


def _name(node: Any) -> str:
    return node.name or next(filter(None, node.output), node.op_type)


def _made_constant(graph: Any) -> set[str]:
    """Return the names of what a graph's nodes make of nothing, or of its initializers by moving them."""
    known = {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" or (
            node.op_type in ("Transpose", "Identity", "Cast", "DequantizeLinear", "Unsqueeze", "Squeeze", "Reshape")
            and all(name in known for name in node.input if name)
        ):
            known |= set(node.output)
    return known


def _products(graph: Any, constants: set[str]) -> Iterator[_Product]:
    """Yield the products by constant weights."""
    moved: dict[str, str] = {}  # the weights that a constant is made of
    for node in graph.node:
        if node.op_type in ("Transpose", "Identity", "Cast", "DequantizeLinear") and node.input[:1]:
            moved[node.output[0]] = moved.get(node.input[0], node.input[0])
        if node.op_type in PRODUCTS and len(node.input) > 1:
            one, other = node.input[:2]
            if one in constants or other in constants:  # both in the first step, from a state of zeros
                weights, other = (other, one) if other in constants else (one, other)
                yield _Product(node, moved.get(weights, weights), other)


def _chains(graph: Any, products: list[_Product], constants: set[str]) -> list[tuple[_Product, int]]:
    """Return the first product of each recurrence that is written out, and its number of steps."""
    groups: dict[str, list[_Product]] = {}
    for product in products:
        groups.setdefault(product.weights, []).append(product)
    often = sorted((one for one in groups.values() if len(one) >= FEWEST_STEPS), key=len, reverse=True)
    found: list[tuple[_Product, int, set[str]]] = []
    for group in often[:MOST_WEIGHTS]:
        steps, new = _steps(graph, group, constants)
        # Gates of one cell whose weights stand apart take in what is new at the same places.
        if steps >= FEWEST_STEPS and not any(new & others for _, _, others in found):
            found.append((group[0], steps, new))
    return [(product, steps) for product, steps, _ in found]


def _steps(graph: Any, group: list[_Product], constants: set[str]) -> tuple[int, set[str]]:
    """Return how many products of a group follow each other as steps of a recurrence do, and what new they take in."""
    outputs = {product.node.output[0] for product in group}
    makers = {name: node for node in graph.node for name in node.output}
    depth: dict[str, int] = {}  # how many products of the group a value depends on
    bent: set[str] = set()  # values that passed an activation since
    new: set[str] = set()
    for node in graph.node:
        given = [name for name in node.input if name]
        deep = max((depth.get(name, 0) for name in given), default=0)
        if node.op_type in ENDS:
            deep = 0
        is_bent = node.op_type in BENDS or any(name in bent for name in given if depth.get(name, 0) == deep)
        if node.output[:1] and node.output[0] in outputs:
            deep, is_bent = (deep + 1 if is_bent or deep == 0 else deep), False
        if deep:
            depth |= dict.fromkeys(node.output, deep)
            bent |= set(node.output) if is_bent else set()
            if node.op_type in ("Add", "Sum", "Concat") or node.op_type in PRODUCTS:
                fresh = [name for name in given if name not in depth and name not in constants]
                new |= {name for name in fresh if _is_picked(name, makers)}
    steps = max((depth.get(name, 0) for name in outputs), default=0)
    return (steps if len(new) >= steps - 1 else 0), new


def _is_picked(name: str, makers: dict[str, Any]) -> bool:
    """Return whether a value is a part of another, picked by a Slice or the like, maybe multiplied."""
    for _ in range(12):
        node = makers.get(name)
        if node is None:
            return False
        if node.op_type in ("Slice", "Gather", "Split", "SequenceAt"):
            return True
        if node.op_type not in (*PICKS, *PRODUCTS, "Add", "Cast", "Transpose") or not node.input:
            return False
        name = next((one for one in node.input if one in makers), "")
    return False


def _carries(graph: Any, kind: str, products: list[_Product], model: Any, within: tuple) -> bool:
    """Return whether a state of a loop becomes the next one by a product with constant weights and an activation."""
    if any(node.op_type in ("RNN", "GRU", "LSTM") for node in graph.node):
        return False
    if kind == "Loop":  # the number, the condition, states; the condition, states, what is gathered
        states = zip(graph.input[2:], graph.output[1:], strict=False)
    else:
        scans = _scans(model, within)
        states = zip(graph.input[: len(graph.input) - scans], graph.output, strict=False)
    by_product = {product.node.output[0] for product in products}
    for before, after in states:
        reached = {before.name: (False, False)}  # whether it passed a product, and an activation
        for node in graph.node:
            ways = [reached[name] for name in node.input if name in reached]
            if node.op_type == "Gather" and len(node.input) > 1 and node.input[0] not in reached:
                ways = []  # a token's number, not a state
            if ways and node.op_type not in ENDS:
                product = any(one for one, _ in ways) or bool(node.output[:1] and node.output[0] in by_product)
                bend = any(one for _, one in ways) or node.op_type in BENDS
                reached |= dict.fromkeys(node.output, (product, bend))
        if reached.get(after.name) == (True, True) and after.name != before.name:
            return True
    return False


def _scans(model: Any, within: tuple) -> int:
    """Return how many inputs of a Scan's body are slices."""
    for graph, around in graphs(model):
        if around == within[:-1]:
            for node in graph.node:
                if node.name == within[-1].node:
                    return next((one.i for one in node.attribute if one.name == "num_scan_inputs"), 1)
    return 1


def _lstm_step(graph: Any) -> Any:
    """Return the last node of an LSTM's step, h = o tanh(f c + i g), that is written out; None if there is none."""
    makers = {name: node for node in graph.node for name in node.output}

    def made(name: str, kind: str) -> Any:
        node = makers.get(name)
        return node if node is not None and node.op_type == kind else None

    def gated(node: Any, kind: str = "") -> bool:
        """Return whether a Mul is of a Sigmoid and of something made by `kind`."""
        for one, other in (node.input, reversed(node.input)) if node is not None and len(node.input) == 2 else ():
            if made(one, "Sigmoid") is not None and (not kind or made(other, kind) is not None):
                return True
        return False

    for node in graph.node:
        if node.op_type != "Mul" or not gated(node, "Tanh"):
            continue
        for name in node.input:
            tanh = made(name, "Tanh")
            total = made(tanh.input[0], "Add") if tanh is not None else None
            if total is not None:
                parts = [made(one, "Mul") for one in total.input]
                if all(gated(part) for part in parts) and any(gated(part, "Tanh") for part in parts):
                    return node
    return None
