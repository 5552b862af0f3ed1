"""Networks made of cells: layers upon each other, in one direction or two, over sequences of one length or of many.

    layer k:    x^k_t = h^{k-1}_t, and x^0_t = x_t
    forward:    h_t from x_t and h_{t-1}, t = 0, 1, ..., length - 1
    backward:   h_t from x_t and h_{t+1}, t = length - 1, ..., 1, 0

The directions of a layer share its input and nothing else, and their states lie side by side in its output
(bidirectional: Schuster and Paliwal 1997), as in PyTorch's modules and ONNX's operators. There is no dropout between
layers.

Sizes as in the cells, and D directions, 1 or 2; L layers. Params, states and gradients are tuples of L layers, each a
tuple of D of the cell's own, the forward direction first; layer 0 has I inputs, the others D H. Every function takes
the cell's module first, `reference.lstm` or `kernels.jit.lstm`, and by name the options of that cell (`activation`).

`lengths` (B,) are integers from 1 to T in any order: behind a sequence's end hs is 0 and x is not looked at, its last
state is that of its last step, the backward direction begins there, and no gradient comes from behind it.
"""

from reprlib import repr as brief
from typing import NamedTuple

import numpy as np


class Output(NamedTuple):
    hs: np.ndarray  # (T, B, D H)  the last layer's states after every step
    state: tuple  # the states after the last step of each layer and direction


class Trace(NamedTuple):
    hs: np.ndarray  # (T, B, D H)  the last layer's states after every step
    state: tuple  # the states after the last step of each layer and direction
    x: np.ndarray  # (T, B, I) or (T, B)  the input
    initial: tuple  # the states before the first step
    lengths: np.ndarray | None  # (B,)
    kept: tuple  # of each layer and direction, the cell's own traces: see `_spans`


class Gradients(NamedTuple):
    params: tuple  # dL/d(each of params)
    x: np.ndarray | None  # (T, B, I)  dL/dx, None for indices
    state: tuple  # dL/d(initial state)


def init_params(cell, input_size, hidden_size, layers=2, bidirectional=False, *, rng, dtype=np.float32):
    """Draw the params of every layer and direction as the cell does."""
    D = 2 if bidirectional else 1
    sizes = [input_size] + [D * hidden_size] * (layers - 1)
    return tuple(tuple(cell.init_params(size, hidden_size, rng, dtype) for _ in range(D)) for size in sizes)


def init_state(cell, params, batch_size):
    """Return the zero state of every layer and direction."""
    return _each(lambda one: cell.init_state(one, batch_size), params)


def prepare(cell, params, dtype=None):
    """Return the weights as `infer`, `forward` and `forward_step` like them best, of every layer and direction."""
    return _each(lambda one: cell.prepare(one, dtype), params)


def forward_step(cell, params, x_t, state, **options):
    """Return the states after one more step, from x_t (B, I) or (B,); two directions are a ValueError."""
    if len(params[0]) > 1:
        raise ValueError("params: expected one direction, since the backward one begins at the end, got two")
    after = []
    for (weights,), (before,) in zip(params, state, strict=True):
        after.append((cell.forward_step(weights, x_t, before, **options),))
        x_t = after[-1][0].h
    return tuple(after)


def infer(cell, params, x, state=None, lengths=None, **options):
    """Run over x (T, B, I) or (T, B) from `state` (zero if None) and keep only what the user sees."""
    hs, last, *_ = _run(cell, cell.infer, params, x, state, lengths, options)
    return Output(hs, last)


def forward(cell, params, x, state=None, lengths=None, **options):
    """Run over x (T, B, I) or (T, B) from `state` (zero if None) and return the trace that `bptt` needs."""
    hs, last, initial, kept = _run(cell, cell.forward, params, x, state, lengths, options)
    return Trace(hs, last, x, initial, lengths, kept)


def bptt(cell, params, trace, grad_hs, grad_state=None, **options):
    """Return the gradients of a loss L by full BPTT, given how it depends on the states.

    grad_hs (T, B, D H) is dL/dhs, and grad_state, where given, dL/d(last state), which is added to it.
    """
    D = len(params[0])
    grad_last = (
        _each(lambda one: type(one)(*map(np.zeros_like, one)), trace.state) if grad_state is None else grad_state
    )
    grads_params, grads_state = [], []
    for layer in reversed(range(len(params))):
        grad_x, of_params, of_state = None, [], []
        for d in range(D):
            turn = _turned(grad_hs, trace.lengths) if d else None
            grad = _directed(np.split(grad_hs, D, axis=2)[d].copy(), turn)
            parts, one = trace.kept[layer][d], params[layer][d]
            back = _back(cell, one, parts, grad, grad_last[layer][d], trace.lengths, options)
            of_params.append(back.params)
            of_state.append(back.state)
            if back.x is not None:
                grad_x = _directed(back.x, turn) + (0 if grad_x is None else grad_x)
        grads_params.insert(0, tuple(of_params))
        grads_state.insert(0, tuple(of_state))
        grad_hs = grad_x
    return Gradients(tuple(grads_params), grad_hs, tuple(grads_state))


def _run(cell, run, params, x, state, lengths, options):
    """Return hs, the last state, the initial one, and what `run` returned for each layer, direction and span."""
    _check_lengths(lengths, x)
    initial = init_state(cell, params, x.shape[1]) if state is None else state
    last, kept = [], []
    for weights, before in zip(params, initial, strict=True):
        outputs = []
        for d, (one, start) in enumerate(zip(weights, before, strict=True)):
            turn = _turned(x, lengths) if d else None
            hs, after, parts = _through(run, one, _directed(x, turn), start, lengths, options)
            outputs.append((_directed(hs, turn), after, parts))
        hs, after, parts = zip(*outputs, strict=True)
        last.append(after)
        kept.append(parts)
        x = np.concatenate(hs, axis=2) if len(hs) > 1 else hs[0]
    return x, tuple(last), initial, tuple(kept)


def _through(run, params, x, state, lengths, options):
    """Take one direction of one layer through time; return hs (T, B, H), the last state, and what `run` returned."""
    if lengths is None:
        part = run(params, x, state, **options)
        return part.hs, part.state, (part,)
    state, hs, parts = type(state)(*(a.copy() for a in state)), None, []
    for start, stop, rows in _spans(lengths):
        before = type(state)(*(a.take(rows, axis=0) for a in state))
        part = run(params, x[start:stop].take(rows, axis=1), before, **options)
        if hs is None:
            hs = np.zeros_like(part.hs, shape=(*x.shape[:2], part.hs.shape[2]))
        hs[start:stop, rows] = part.hs
        for a, after in zip(state, part.state, strict=True):
            a[rows] = after
        parts.append(part)
    return hs, state, tuple(parts)


def _back(cell, params, parts, grad_hs, grad_last, lengths, options):
    """Take one direction of one layer back through time: return its Gradients, the sum of its spans'."""
    if lengths is None:
        return cell.bptt(params, parts[0], grad_hs, grad_last, **options)
    grad, grad_x, total = type(grad_last)(*(a.copy() for a in grad_last)), None, None
    for (start, stop, rows), part in reversed(list(zip(_spans(lengths), parts, strict=True))):
        after = type(grad)(*(a.take(rows, axis=0) for a in grad))
        back = cell.bptt(params, part, grad_hs[start:stop].take(rows, axis=1), after, **options)
        for a, before in zip(grad, back.state, strict=True):
            a[rows] = before
        total = back.params if total is None else type(total)(*(a + b for a, b in zip(total, back.params, strict=True)))
        if back.x is not None:
            if grad_x is None:
                grad_x = np.zeros_like(back.x, shape=(*grad_hs.shape[:2], back.x.shape[2]))
            grad_x[start:stop, rows] = back.x
    return Gradients(total, grad_x, grad)


def _spans(lengths):
    """Return (start, stop, rows) of the stretches of time in which the same sequences, those of `rows`, go on."""
    stops = np.unique(lengths)
    starts = np.concatenate((np.zeros_like(stops[:1]), stops[:-1]))
    return [(start, stop, np.flatnonzero(lengths >= stop)) for start, stop in zip(starts, stops, strict=True)]


def _turned(x, lengths):
    """Return from which step of x (T, B, ...) the backward direction takes its steps, (T, B): its own inverse."""
    T, B = x.shape[:2]
    steps = np.arange(T)[:, None]
    ends = np.full(B, T) if lengths is None else lengths
    return np.where(steps < ends, ends - 1 - steps, steps)


def _directed(a, turn):
    """Return `a` (T, B, ...) with its steps in the order of `turn`, or as it is for None, the forward direction."""
    return a if turn is None else a[turn, np.arange(a.shape[1])]


def _each(change, tree):
    """Return a tuple of layers, each a tuple of directions, each of them passed through `change`."""
    return tuple(tuple(change(one) for one in layer) for layer in tree)


def _check_lengths(lengths, x):
    if lengths is None:
        return
    T, B = x.shape[:2]
    if lengths.shape != (B,) or lengths.dtype.kind != "i" or not (lengths.min() >= 1 and lengths.max() <= T):
        raise ValueError(f"lengths: expected {B} integers from 1 to {T}, got {brief(lengths.tolist())}")
