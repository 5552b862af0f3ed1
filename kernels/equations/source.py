"""A Plan as the text of functions that `kernels.core` calls: straight code on vectors of units.

Each node is a line. A product that goes into one sum alone is rounded with it, once, as the hand-laid cells do.
"""

import math

from reference.equations.graph import needed

INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/"}
CONDITIONS = {"less": "where_less", "less_equal": "where_less_equal", "equal": "where_equal"}


def advance(plan):
    """Return the text of `advance`: the new h, the other states, and what is kept."""
    given = _sums(plan) | _states_before(plan)
    stores = [f"put(at(states, {k - 1} * cell.apart), c, {_name(plan, o)}, H)" for k, o in _others(plan)]
    kept = [f"put(at(kept, {k} * H), c, {_name(plan, i)}, H)" for k, i in enumerate(_slots(plan))]
    keep = ["if cell.keep:", f"    kept = at(cell.kept, row * ({len(kept)} * H))", *(f"    {line}" for line in kept)]
    head = ["H, n = cell.H, lanes(sums)", "states = at(cell.states, b * H)", "like = load(sums, 0)"]
    wanted = [*plan.outputs, *_slots(plan)]
    lines = [*head, *_lines(plan, wanted, given), *(keep if kept else []), *stores]
    return _function("advance(cell, vectors, sums, apart, previous, row, b, c)", lines, plan.outputs[0], plan)


def between(plan):
    """Return the text of `between`: each middle."""
    given = _sums(plan) | _states_before(plan)
    lines = ["H, n = cell.H, lanes(sums)", "states = at(cell.states, b * H)", "like = load(sums, 0)"]
    for k, (node, _) in enumerate(plan.middles):
        inside = [*_lines(plan, [node], given), f"return {_name(plan, node)}"]
        lines += [f"if which == {k}:", *(f"    {line}" for line in inside)]
    return _function("between(cell, which, vectors, sums, apart, previous, row, b, c)", [*lines, "return like"])


def retreat(plan):
    """Return the text of `retreat`: the deltas of all blocks but the middles', of the vectors, and the carries."""
    count = len(plan.blocks) - sum(gates for _, gates in plan.middles)
    deltas = dict(enumerate(plan.deltas[:count])) | dict(enumerate(plan.grad_vectors, len(plan.blocks)))
    wanted = [i for i in (*deltas.values(), *plan.carries) if i is not None]
    lines = [*_back_head(plan), *_lines(plan, wanted, _known(plan))]
    lines += [f"store(deltas, {k} * apart, {_name(plan, i)})" for k, i in deltas.items()]
    lines += [f"store(carry, {k} * carry_apart, {_name(plan, i)})" for k, i in enumerate(plan.carries)]
    return _function(f"retreat{_BACK}", lines)


def retreat_last(plan):
    """Return the text of `retreat_last`: the deltas of each middle's blocks."""
    lines = _back_head(plan)
    n = len(plan.blocks) - sum(gates for _, gates in plan.middles)
    for k, (_, gates) in enumerate(plan.middles):
        deltas = dict(enumerate(plan.deltas[n : n + gates], n))
        inside = _lines(plan, [i for i in deltas.values() if i is not None], _known(plan))
        inside += [f"store(deltas, {b} * apart, {_name(plan, i)})" for b, i in deltas.items()]
        lines += [f"if which == {k}:", *(f"    {line}" for line in inside)]
        n += gates
    return _function(f"retreat_last{_BACK.replace('(cell', '(cell, which')}", lines)


_BACK = "(cell, vectors, grad_h, middles, middle_apart, carry, carry_apart, deltas, apart, row, before, b, c)"


def _function(head, lines, result=None, plan=None):
    end = [] if result is None else [f"return {_name(plan, result)}"]
    return "\n    ".join([f"def {head}:", *lines, *end])


def _others(plan):
    """Return the states but h, with their new values, but for those that stay as they are."""
    return [(k, o) for k, o in enumerate(plan.outputs) if k and plan.nodes[o][::2] != ("state", k)]


def slots(plan):
    """Return the nodes that forward keeps, in their order: `kept`, then the other states that BPTT reads."""
    return _slots(plan)


def _slots(plan):
    return (*plan.kept, *(o for o in plan.outputs[1:] if o not in plan.kept))


def _sums(plan):
    return {i: f"load(sums, {of} * apart)" for i, (op, _, of) in enumerate(plan.nodes) if op == "sum"}


def _states_before(plan):
    found = {}
    for i, (op, _, of) in enumerate(plan.nodes):
        if op == "state":
            found[i] = "previous" if of == 0 else f"get(at(states, {of - 1} * cell.apart), c, H)"
        elif op == "vector":
            found[i] = f"load(vectors, {of} * (whole(H, n) * n) + c)"
    return found


def _back_head(plan):
    return [
        "H, n = cell.H, lanes(deltas)",
        f"kept = at(cell.kept, row * ({len(_slots(plan))} * H))",
        "like = grad_h",
    ]


def _known(plan):
    """Return how to come by what the way back is given."""
    slots, known = _slots(plan), {}
    for k, i in enumerate(slots):
        known[i] = f"get(at(kept, {k} * H), c, H)"
    known.setdefault(plan.outputs[0], "get(at(cell.hs, row * cell.hs_row), c, H)")
    for i, (op, _, of) in enumerate(plan.nodes):
        if op == "vector":
            known[i] = f"get(at(vectors, {of} * H), c, H)"
        elif op == "state" and of == 0:
            known[i] = "get(at(cell.hs, before * cell.hs_row) if before >= 0 else at(cell.h0, b * H), c, H)"
        elif op == "state":
            slot = slots.index(plan.outputs[of])
            past = f"at(cell.kept, (before * {len(slots)} + {slot}) * H)"
            first = f"at(cell.initial, {of - 1} * cell.apart + b * H)"
            known[i] = f"get({past} if before >= 0 else {first}, c, H)"
    for k, i in enumerate(plan.grads):
        known[i] = "grad_h" if k == 0 else f"load(carry, {k} * carry_apart)"
    for k, i in enumerate(plan.grad_middles):
        known[i] = f"load(middles, {k} * middle_apart)"
    return known


def _is_number(plan, i):
    return plan.nodes[i].op == "number"


def _name(plan, i):
    """Return a node's name where it must be a vector."""
    if i is None:
        return "full(like, 0.0)"
    return f"full(like, {_number(plan.nodes[i].of)})" if _is_number(plan, i) else f"n{i}"


def _number(value):
    return repr(value) if math.isfinite(value) else ("nan" if math.isnan(value) else "inf" if value > 0 else "-inf")


def _lines(plan, wanted, given):
    """Return a line for each node that the wanted ones need."""
    nodes, order = plan.nodes, needed(plan.nodes, wanted)
    # What is given needs nothing: look only behind it.
    reach, todo = set(), list(wanted)
    while todo:
        i = todo.pop()
        if i not in reach:
            reach.add(i)
            todo += [] if i in given else nodes[i].args
    order = [i for i in order if i in reach]
    uses = dict.fromkeys(wanted, 2)
    for i in order:
        for k in () if i in given else nodes[i].args:
            uses[k] = uses.get(k, 0) + 1

    def either(i):  # a number beside a vector may stay one
        return _number(nodes[i].of) if _is_number(plan, i) else f"n{i}"

    def vector(i):
        return _name(plan, i)

    fused, lines = set(), {}
    for i in reversed(order):
        op, args, _ = nodes[i]
        if i in given:
            lines[i] = f"n{i} = {given[i]}"
        elif op == "number" or op in CONDITIONS or op == "not_equal" or i in fused:
            continue
        elif op in ("add", "sub") and (found := _fusible(plan, i, uses, given, fused)):
            text, inner = found
            fused.add(inner)
            lines[i] = f"n{i} = {text}"
        elif op in INFIX:
            both = all(_is_number(plan, k) for k in args)
            a, b = (vector(args[0]) if both else either(args[0])), either(args[1])
            lines[i] = f"n{i} = {a} {INFIX[op]} {b}"
        elif op == "neg":
            lines[i] = f"n{i} = -1.0 * {vector(args[0])}"
        elif op == "where":
            condition, x, y = nodes[args[0]].op, *nodes[args[0]].args
            a, b = args[1:]
            if condition == "not_equal":
                condition, a, b = "equal", b, a
            lines[i] = f"n{i} = {CONDITIONS[condition]}({', '.join(map(vector, (x, y, a, b)))})"
        else:
            lines[i] = f"n{i} = {op}({', '.join(map(vector, args))})"
    return [lines[i] for i in sorted(lines)]


def _fusible(plan, i, uses, given, fused):
    """Return the text of a sum with a product that nobody else needs, rounded once, and that product; or None."""
    nodes = plan.nodes
    op, (a, b), _ = nodes[i]

    def is_product(k):
        ours = nodes[k].op == "mul" and uses.get(k) == 1 and k not in given and k not in fused
        return ours and not all(_is_number(plan, j) for j in nodes[k].args)

    def times(k):
        return ", ".join(_name(plan, j) for j in nodes[k].args)

    if op == "add":
        for product, other in ((a, b), (b, a)):
            if is_product(product) and product != other:
                return f"multiply_add({times(product)}, {_name(plan, other)})", product
    elif is_product(a):
        return f"multiply_add({times(a)}, -1.0 * {_name(plan, b)})", a
    elif is_product(b):
        x, y = nodes[b].args
        return f"multiply_add(-1.0 * {_name(plan, x)}, {_name(plan, y)}, {_name(plan, a)})", b
    return None
