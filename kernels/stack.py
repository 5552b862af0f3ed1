"""Networks made of cells: layers upon each other, in one direction or two, over sequences of one length or of many.

The names, shapes and results of `reference.stack`, which says what they mean. Every function takes the cell's module
first, `kernels.lstm`, and by name the options of that cell (`activation`). There is no dropout between layers.

T steps, B sequences in a batch, I inputs, H hidden units, L layers, D directions. Params, states and gradients are
tuples of L layers, each a tuple of D of the cell's own, the forward direction first; layer 0 has I inputs, the others
D H. `lengths` (B,) are integers from 1 to T in any order, or None if all are T. All arrays are checked as those of the
cells are; what is refused is a ValueError or a TypeError that names the argument.

A call is one call of compiled code (`kernels.core.walks.network`): threads share sequences where these are many, else
the directions have a thread each, or layers, each of which follows the one below, if their weights are few enough to
stay in a core's cache; otherwise threads share the units of one layer after the other.
"""

from functools import lru_cache, partial
from importlib import import_module
from typing import NamedTuple

import numpy as np

from kernels.core.code.cache import compiled
from kernels.core.code.compiler import take_read_only
from kernels.core.doors.calls import Gradients, Output, Prepared, check_full, nothing, sendable
from kernels.core.doors.checks import (
    check_array,
    check_fields,
    check_input,
    check_params,
    check_size,
    check_states,
    check_tree,
)
from kernels.core.doors.streams import Stream
from kernels.core.threads.team import most_threads, on_a_team
from kernels.core.vectors.simd import vector_lanes
from kernels.core.walks import network
from kernels.core.walks.recurrence import network_size
from kernels.core.walks.walk import place_by_length

__all__ = ["Gradients", "Output", "Stream", "Trace"]


@sendable
class Trace(NamedTuple):
    hs: np.ndarray  # (T, B, D H)  the last layer's states after every step
    state: tuple  # the states after the last step of each layer and direction
    x: np.ndarray  # (T, B, I) or (T, B)  the input
    initial: tuple  # the states before the first step
    lengths: np.ndarray | None  # (B,)
    below: tuple  # of each layer but the last, hs (T, B, D H)
    kept: tuple  # of each layer and direction, what the cell's own Trace keeps beside x and hs


def init_params(cell, input_size, hidden_size, layers=2, bidirectional=False, *, rng, dtype=np.float32):
    """Draw the params of every layer and direction as the cell does."""
    _described(cell)
    check_size("layers", layers)
    check_size("hidden_size", hidden_size)
    D = 2 if bidirectional else 1
    sizes = [input_size] + [D * hidden_size] * (layers - 1)
    return tuple(tuple(cell.init_params(size, hidden_size, rng, dtype) for _ in range(D)) for size in sizes)


def init_state(cell, params, batch_size):
    """Return the zero state of every layer and direction."""
    _described(cell)
    D = check_tree("params", params)
    return _tree([cell.init_state(one, batch_size) for layer in params for one in layer], D)


def prepare(cell, params, dtype=None):
    """Lay the weights of every layer and direction out for the kernels once, below float32 if `dtype` says so."""
    described = _described(cell)
    D = _check_params(described, params, aligned=False)[-1]
    return _tree([described.prepare(one, dtype) for layer in params for one in layer], D)


def forward_step(cell, params, x_t, state, **options):
    """Return the states after one more step, from x_t (B, I); two directions are a ValueError."""
    weights, (_, _, L, D) = _weights(_described(cell, options), params)
    if D > 1:
        raise ValueError(_ONE_DIRECTION)
    check_tree("state", state, L, D)
    after = []
    for q, one in enumerate(weights):
        after.append((_at(f"state[{q}][0]", "state", cell.forward_step, one, x_t, state[q][0], **options),))
        x_t = after[-1][0].h
    return tuple(after)


def stream(cell, params, batch_size=1, **options):
    """Return a Stream of a network of one direction, as that of a cell: see `kernels.lstm.stream`."""
    described = _described(cell, options)
    weights, (*_, D) = _weights(described, params)
    if D > 1:
        raise ValueError(_ONE_DIRECTION)
    weights = _tree(weights, D)
    again = (_stream_again, cell.__name__, weights, batch_size, options)
    layers = [one for (one,) in weights]
    return Stream(described, layers, batch_size, partial(infer, cell, weights, **options), again, network=True)


def _stream_again(cell, weights, batch_size, options):
    return stream(import_module(cell), weights, batch_size, **options)


_ONE_DIRECTION = "params: expected one direction, since the backward one begins at the end, got two"


def infer(cell, params, x, state=None, lengths=None, **options):
    """Run over x (T, B, I) or (T, B) from `state` (zero if None) and keep only what the user sees."""
    hs, last, *_ = _forward(_described(cell, options), params, x, state, lengths, keep=False)
    return Output(hs[-1], last)


def forward(cell, params, x, state=None, lengths=None, **options):
    """Run over x (T, B, I) or (T, B) from `state` (zero if None) and return the trace that `bptt` needs."""
    hs, last, initial, kept = _forward(_described(cell, options), params, x, state, lengths, keep=True)
    return Trace(hs[-1], last, x, initial, lengths, tuple(hs[:-1]), kept)


def bptt(cell, params, trace, grad_hs, grad_state=None, **options):
    """Return the gradients of a loss L by full BPTT, given how it depends on the states.

    grad_hs (T, B, D H) is dL/dhs, and grad_state, where given, dL/d(last state), which is added to it.
    """
    cell = _described(cell, options)
    I, H, L, D = _check_params(cell, params)
    dtype = params[0][0].W.dtype
    T, B = _check_trace(cell, trace, I, H, L, D, dtype)
    steps, places = _places("trace.lengths", trace.lengths, T, B)
    check_array("grad_hs", grad_hs, (T, B, D * H), dtype)
    if grad_state is not None:
        check_states("grad_state", grad_state, cell.State, L, D, (B, H), dtype)

    one_hot, hs, begin = trace.x.ndim == 2, (*trace.below, trace.hs), np.empty if trace.lengths is None else np.zeros
    table, held = np.empty((L * D, network.ROW), np.int64), []
    for q in range(L * D):
        l, d = divmod(q, D)
        U, W, *_ = params[l][d]
        start, last = trace.initial[l][d], np.zeros((len(cell.State._fields), B, H), dtype)
        if grad_state is not None:
            last[:] = grad_state[l][d]
        biases = np.empty((cell.form.blocks + cell.form.vectors, H), dtype)
        gradients = (np.empty(U.shape, dtype), np.empty(W.shape, dtype), biases)
        vectors = cell.vectors(params[l][d]) if cell.vectors else nothing(dtype)
        grad_x = nothing(dtype) if l == 0 and one_hot else begin((T, B, U.shape[1]), dtype)
        kept = _two(trace.kept[l][d], dtype)
        first, others = np.empty_like(last), _others(start, dtype)
        held.append((U, W, vectors, start[0], hs[l], last, *gradients, grad_x, first, *kept, others))
        _note_backward(table, q, *held[-1])
    net = network.Net(L, D, I, H, cell.form, len(cell.State._fields))
    size = network_size(most_threads, L, D, T, B, I, H, cell.gates)
    scratch = np.empty(_back_memory(net, steps, B, one_hot, size[0], vector_lanes(dtype)), dtype)
    on_a_team(_back, size, (cell.kind, net, table, trace.x, grad_hs, places, steps, scratch))
    found = [cell.merge(*arrays[6:9]) for arrays in held]
    states = [cell.State(*(a.copy() for a in arrays[10])) for arrays in held]
    return Gradients(_tree(found, D), None if one_hot else held[0][9], _tree(states, D))


def _two(kept, dtype):
    """Return two arrays of what a cell keeps, empty ones where it keeps fewer."""
    return (*kept, nothing(dtype), nothing(dtype))[:2]


def _others(state, dtype):
    """Return a copy of the arrays of a state but h, one upon the other."""
    return np.array(state[1:]) if len(state) > 1 else nothing(dtype)


def _forward(cell, params, x, state, lengths, keep):
    """Return hs of each layer, the last states, the initial ones, and what the cells keep."""
    weights, (I, H, L, D) = _weights(cell, params)
    dtype = weights[0].dtype
    if keep:
        check_full(weights[0])
    T, B = check_input("x", x, ("T", "B"), I, dtype)
    steps, places = _places("lengths", lengths, T, B)
    if state is not None:
        check_states("state", state, cell.State, L, D, (B, H), dtype)
    elif keep:
        state = _tree([cell.start((B, H), dtype) for _ in weights], D)

    hs = [np.empty((T, B, D * H), dtype) for _ in range(L - 1)]
    hs.append((np.empty if lengths is None else np.zeros)((T, B, D * H), dtype))
    table, held, kept = np.empty((L * D, network.ROW), np.int64), [], []
    begin = cell.start((B, H), dtype) if state is None else None
    for q, one in enumerate(weights):
        l, d = divmod(q, D)
        start = begin or state[l][d]
        kept.append(tuple(np.empty((T, B, n * H), dtype) for n in cell.keeps) if keep else ())
        own = _two(kept[-1], dtype)
        held.append((one.weights, start[0], hs[l], _others(start, dtype), *own, np.empty((B, H), dtype)))
        _note_forward(table, q, *held[-1])
    net = network.Net(L, D, I, H, cell.form, len(cell.State._fields))
    size = network_size(most_threads, L, D, T, B, I, H, cell.gates, weights[0].together)
    on_a_team(_ahead, size, (cell.kind, net, table, weights[0].weights, x, hs[-1], places, steps, keep))
    last = [cell.State(arrays[6], *(a.copy() for a in arrays[3][: len(cell.State._fields) - 1])) for arrays in held]
    return hs, _tree(last, D), state, _tree(kept, D)


_ALL = np.empty(0, np.int64)


def _places(name, lengths, T, B):
    """Return the steps of the longest sequence, and how they are placed if their lengths differ, else nothing."""
    if lengths is None:
        return T, _ALL
    if not isinstance(lengths, np.ndarray):
        raise TypeError(f"{name}: expected a numpy.ndarray or None, got {type(lengths).__name__}")
    if lengths.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected integers, got dtype {lengths.dtype}")
    if lengths.shape != (B,):
        raise ValueError(f"{name}: expected shape ({B},), got {lengths.shape}")
    least, most = int(lengths.min()), int(lengths.max())
    if least < 1 or most > T:
        raise ValueError(f"{name}: expected integers from 1 to {T}, got {least} to {most}")
    return most, _ALL if least == most else _place(lengths.astype(np.int64), most)


def _tree(chains, D):
    """Return a tuple of layers, each a tuple of D directions, of what the chains have in turn."""
    return tuple(tuple(chains[q : q + D]) for q in range(0, len(chains), D))


def _described(cell, options=None):
    """Return what a network needs to know of a cell, or raise a TypeError for what is none."""
    if not hasattr(cell, "as_layers"):
        got = getattr(cell, "__name__", type(cell).__name__)
        raise TypeError(f"cell: expected kernels.rnn, kernels.gru or kernels.lstm, got {got}")
    return cell.as_layers(**(options or {}))


def _at(place, name, check, *arguments, **options):
    """Call `check`, and have what it raises about `name` say `place`."""
    try:
        return check(*arguments, **options)
    except (TypeError, ValueError) as error:
        if not str(error).startswith(name):
            raise
        raise type(error)(str(error).replace(name, place, 1)) from None


def _check_params(cell, params, aligned=True):
    """Check Params of every layer and direction; return I, H, L, D."""
    D = check_tree("params", params)
    I = H = dtype = None
    for l, layer in enumerate(params):
        for d, one in enumerate(layer):
            place = f"params[{l}][{d}]"
            sizes = _at(place, "params", check_params, one, cell.Params, *cell.rows, aligned)
            if H is None:
                (H, I), dtype = sizes, one.W.dtype
            _check_fit(place, *sizes, one.W.dtype, H, D * H if l else I, dtype)
    return I, H, len(params), D


def _weights(cell, params):
    """Return the weights of each chain, prepared, and I, H, L, D."""
    D = check_tree("params", params)
    if not isinstance(params[0][0] if params[0] else None, Prepared):
        sizes = _check_params(cell, params, aligned=False)
        return [cell.prepare(one) for layer in params for one in layer], sizes
    first = params[0][0]
    I, H = first.input_size, first.hidden_size
    for l, layer in enumerate(params):
        for d, one in enumerate(layer):
            place = f"params[{l}][{d}]"
            if not isinstance(one, Prepared) or one.gates != cell.gates:
                got = f"weights prepared for {one.gates}" if isinstance(one, Prepared) else type(one).__name__
                raise TypeError(f"{place}: expected weights prepared for {cell.gates} gates, got {got}")
            _check_fit(
                place, one.hidden_size, one.input_size, one.weights.dtype, H, D * H if l else I, first.weights.dtype
            )
    return [one for layer in params for one in layer], (I, H, len(params), D)


def _check_fit(place, H, I, dtype, hidden_size, input_size, first_dtype):
    """Raise unless a chain's sizes and dtype are those that the others call for."""
    if (hidden_size, input_size) != (H, I):
        expected = f"{input_size} inputs and {hidden_size} hidden units"
        raise ValueError(f"{place}: expected {expected}, got {I} inputs and {H} hidden units")
    if dtype != first_dtype:
        raise TypeError(f"{place}: expected weights of {first_dtype}, as before it, got {dtype}")


def _counted(arrays):
    return f"{len(arrays)}" if isinstance(arrays, tuple) else type(arrays).__name__


def _check_trace(cell, trace, I, H, L, D, dtype):
    """Check a Trace, and return T and B."""
    check_fields("trace", trace, Trace)
    T, B = check_input("trace.x", trace.x, ("T", "B"), I, dtype)
    check_array("trace.hs", trace.hs, (T, B, D * H), dtype)
    if len(trace.below) != L - 1:
        raise ValueError(f"trace.below: expected {L - 1} arrays, got {len(trace.below)}")
    for l, hs in enumerate(trace.below):
        check_array(f"trace.below[{l}]", hs, (T, B, D * H), dtype)
    check_states("trace.initial", trace.initial, cell.State, L, D, (B, H), dtype)
    check_tree("trace.kept", trace.kept, L, D)
    for l, layer in enumerate(trace.kept):
        for d, arrays in enumerate(layer):
            place = f"trace.kept[{l}][{d}]"
            if not isinstance(arrays, tuple) or len(arrays) != len(cell.keeps):
                raise ValueError(f"{place}: expected {len(cell.keeps)} arrays, got {_counted(arrays)}")
            for i, (a, n) in enumerate(zip(arrays, cell.keeps, strict=True)):
                check_array(f"{place}[{i}]", a, (T, B, n * H), dtype)
    return T, B


# Compiled here, where what it calls comes from: a cell's own code as well.

_back_memory = lru_cache(maxsize=4096)(network.back_memory)
_place = take_read_only(place_by_length)
_note_forward = take_read_only(network.note_forward)
_note_backward = take_read_only(network.note_backward)


@take_read_only
@compiled
def _ahead(team, kind, net, table, weights, x, hs, places, steps, keep):
    network.ahead(team, kind, net, table, weights, x, hs, places, steps, keep)


@take_read_only
@compiled
def _back(team, kind, net, table, x, grad_hs, places, steps, scratch):
    network.back(team, kind, net, table, x, grad_hs, places, steps, scratch)
