"""Results that are wrong as programs are wrong: a term left out, a weight gone stale, sums of a lower precision."""

from importlib import import_module

import numpy as np

from bench.grid.inputs import over
from bench.implementations import named, numpy


def second_call(case, arrays, implementation=numpy):
    """Return an implementation's outputs by name."""
    prepared = implementation.prepare(case, arrays)
    prepared.call()
    return prepared.outputs(prepared.call())


def planted(case, arrays):
    """Return the outputs of each fault that this case can have, by what is wrong with them."""
    first, second = arrays.params
    no_bias = [params._replace(b=np.zeros_like(params.b)) for params in arrays.params]
    stale = (first._replace(W=second.W), second._replace(W=first.W))
    found = {
        "without the bias": second_call(case, arrays._replace(params=tuple(no_bias))),
        "a stale W": second_call(case, arrays._replace(params=stale)),
        "sums of a lower precision": {
            name: array.view(np.ndarray) for name, array in second_call(case, over(arrays, _coarse)).items()
        },
    }
    if case.operation in ("bptt", "train"):
        grad_hs = arrays.grad_hs.copy()
        grad_hs[-1] = 0
        found["without the last step's gradient"] = second_call(case, arrays._replace(grad_hs=grad_hs))
        found["the first state left out of a sum"] = _without_first(case, arrays)
    if case.operation == "forward" and case.seq_len > 1:
        found["a state of one step ago"] = _one_step_ago(case, arrays)
    return found


def planted_network(case, arrays):
    """Return the outputs of each fault that a network can have, by what is wrong with them."""
    (first, *above), H, L = arrays.params[0], case.hidden_size, case.layers
    lengths, T = arrays.lengths, case.seq_len
    swapped = ((first[1], first[0]), *above)
    deaf = (first, *(tuple(one._replace(U=np.zeros_like(one.U)) for one in layer) for layer in above))
    found = {
        "directions exchanged": second_call(case, arrays._replace(params=(swapped,) * 2)),
        "a layer that does not hear the one below": second_call(case, arrays._replace(params=(deaf,) * 2)),
        "as if all sequences were of full length": second_call(case, arrays._replace(lengths=np.full_like(lengths, T))),
    }
    right = second_call(case, arrays)
    if case.operation == "forward":
        found["states behind a sequence's end"] = right | {"hs": np.where(right["hs"] == 0, 1e-3, right["hs"])}
        found["the last state of the last step"] = right | {f"state.l{L - 1}.d0.h": right["hs"][-1, :, :H]}
    else:
        name = f"params.l{L - 1}.d1.W"
        found["a layer's gradient left out"] = right | {name: np.zeros_like(right[name])}
        found["a gradient from behind a sequence's end"] = right | {"x": right["x"] + (right["x"] == 0) * 1e-2}
    return {what: {name: a.astype(case.number) for name, a in outputs.items()} for what, outputs in found.items()}


def planted_low(case, arrays):
    """Return the outputs of each fault that a case below float32 can have, by what is wrong with them."""
    cell = import_module(f"reference.{case.cell}")
    params, other = arrays.params
    weights = cell.prepare(params, case.low)

    def walk(weights, last=None):
        state, hs = arrays.state, []
        for t, x_t in enumerate(arrays.x):
            state = cell.forward_step(last if last and t == len(arrays.x) - 1 else weights, x_t, state)
            hs.append(state.h)
        found = named(cell.Output(np.stack(hs), state))
        return {name: a for name, a in found.items() if name != "hs"} if case.operation == "forward_step" else found

    def plain(name):
        return weights._replace(**{name: getattr(weights, name).values.astype(np.float32)})

    right = walk(weights)
    return {
        "no weight rounded": walk(params),
        "weights of another scale": walk(cell.prepare(params._replace(W=params.W * np.float32(128 / 127)), case.low)),
        "a stale W": walk(cell.prepare(params._replace(W=other.W), case.low)),
        "x not rounded": walk(plain("U")),
        "one step's h not rounded": walk(weights, plain("W")),
        "states of half precision": {name: a.astype(np.float16).astype(np.float32) for name, a in right.items()},
        "without the bias": walk(weights._replace(b=np.zeros_like(params.b))),
    }


def _without_first(case, arrays):
    cell = import_module(f"reference.{case.cell}")
    params = arrays.params[1 if case.operation == "train" else 0]
    trace = cell.forward(params, arrays.x, arrays.state)
    zero = over(arrays.state, np.zeros_like)
    return named(cell.bptt(params, trace._replace(initial=zero), arrays.grad_hs))


def _one_step_ago(case, arrays):
    cell = import_module(f"reference.{case.cell}")
    states = [arrays.state, arrays.state]
    for x_t in arrays.x:
        states.append(cell.forward_step(arrays.params[0], x_t, states[-2]))
    return named(cell.Output(np.stack([state.h for state in states[2:]]), states[-1]))


class _Coarse(np.ndarray):
    """An array whose matrix products take float32 rounded to bfloat16, and float64 rounded to float32."""

    __array_priority__ = 1

    def __array_ufunc__(self, ufunc, method, *operands, out=(), **options):
        operands = [a.view(np.ndarray) if isinstance(a, _Coarse) else a for a in operands]
        if ufunc is np.matmul:
            operands = [_rounded(a) for a in operands]
        result = np.asarray(getattr(ufunc, method)(*operands, **options))
        if out:
            out[0][...] = result
            return out[0]
        return result.view(_Coarse)


def _coarse(array):
    return array.view(_Coarse)


def _rounded(array):
    if array.dtype == np.float64:
        return array.astype(np.float32).astype(np.float64)
    return ((np.ascontiguousarray(array).view(np.uint32) + np.uint32(0x8000)) & np.uint32(0xFFFF0000)).view(np.float32)
