"""Weights in and out: the layouts of PyTorch, Keras and ONNX, as arrays alone. The libraries need not be installed.

`from_*` returns the `Params` of the reference's rnn, gru or lstm, which the kernels take as well: the shapes tell which
cell it is. Where there are several layers or two directions it returns a network, as `reference.stack` takes it: a
tuple of layers, each a tuple of one or two `Params`. `to_*` takes either. Both return C-contiguous arrays of their own,
in the dtype they found.

Every array is checked by its name: all are of one dtype, float32 or float64, else a TypeError is raised, and of shapes
that fit together, else a ValueError. What no array tells is for the caller to know, such as an activation.

PyTorch, ONNX and the GRU of Keras have one bias beside U x and one beside W h. All but n of the GRU add the two, so
`from_*` adds them as well, and `to_*` gives the sum as the first, and zeros as the second. n of the GRU has both.
"""

from reprlib import repr as brief

import numpy as np

from reference import gru, lstm, rnn

# By the number of gates: the cell, and which of its gates (r, z, n or i, f, g, o) stands at each place in a library.
_CELLS = {1: rnn, 3: gru, 4: lstm}
_TORCH = {1: (0,), 3: (0, 1, 2), 4: (0, 1, 2, 3)}
_KERAS = {1: (0,), 3: (1, 0, 2), 4: (0, 1, 2, 3)}  # z, r, h and i, f, c, o
_ONNX = {1: (0,), 3: (1, 0, 2), 4: (0, 3, 1, 2)}  # z, r, h and i, o, f, c


def from_torch(layer):
    """Return the Params of a torch.nn.RNN, GRU, LSTM or one of their Cells, or of its `state_dict()`, in any order.

    Of several layers or two directions it is a network. A layer with `proj_size` raises a ValueError. Missing biases
    are zero. So does an RNN of relu, since Params hold no activation: give its `state_dict()`, and "relu" to whatever
    runs it.
    """
    activation = getattr(layer, "nonlinearity", "tanh")
    if activation != "tanh":
        raise ValueError(
            f"layer: expected an RNN of tanh, got one of {activation} "
            f'(give its state_dict(), and activation="{activation}" to the functions of rnn)'
        )
    is_layer = hasattr(layer, "state_dict") and not isinstance(layer, type)
    state = layer.state_dict() if is_layer else layer
    if not hasattr(state, "keys"):
        raise TypeError(f"layer: expected a torch.nn.RNN, GRU or LSTM, or its state_dict(), got {type(layer).__name__}")
    other = f"layer: expected the weights of a layer, or of layers upon each other, got {_listed(state)}"
    deepest = max((number for name in state if (number := _number(name)) is not None), default=0)
    if deepest >= max(1, len(state)):
        raise ValueError(other)
    ends = [[""]] if "weight_hh" in state else [[f"_l{k}", f"_l{k}_reverse"] for k in range(deepest + 1)]
    directions = 2 if "weight_hh_l0_reverse" in state else 1
    parts = _PARTS if f"bias_hh{ends[0][0]}" in state else _PARTS[:2]
    wanted = [[[part + end for part in parts] for end in layer[:directions]] for layer in ends]
    if set(state) != {name for layer in wanted for names in layer for name in names}:
        raise ValueError(other)

    known: dict = {}
    network = tuple(tuple(_from_torch(state, names, known) for names in layer) for layer in wanted)
    for k, layer in enumerate(network[1:], 1):
        for one, (name, *_) in zip(layer, wanted[k], strict=True):
            if one.U.shape[1] != directions * known["H"]:
                expected = f"the {directions * known['H']} outputs of the layer below"
                raise ValueError(f"{name}: expected {expected} as inputs, got {one.U.shape[1]}")
    return network[0][0] if len(network) == directions == 1 else network


_PARTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def _number(name):
    """Return the layer of a name in a state_dict, None if it has none."""
    _, _, end = str(name).removesuffix("_reverse").rpartition("_l")
    return int(end) if end.isascii() and end.isdigit() and len(end) < 6 else None


def _listed(state):
    return ", ".join([*map(str, state)][:8]) + ", ..." * (len(state) > 8) or "none"


def _from_torch(state, names, known):
    """Return the Params of one layer and direction; `known` holds what all of them have in common."""
    ih, hh, *biases = names
    weight_hh, found = _recurrent(hh, state[hh], ("GH", "H"), known=known)
    known |= found
    layer = dict(known)
    weight_ih = _read(ih, state[ih], ("GH", "I"), layer)
    return _from(_TORCH, weight_ih, weight_hh, *(_read(name, state[name], ("GH",), layer) for name in biases))


def to_torch(params):
    """Return the arrays of a torch.nn.RNN, GRU or LSTM by their names in its `state_dict()`."""
    found = {}
    for k, layer in enumerate(_layers(params)):
        for end, one in zip((f"_l{k}", f"_l{k}_reverse"), layer, strict=False):
            found |= zip([part + end for part in _PARTS], _to(_TORCH, one), strict=True)
    return found


def from_keras(weights):
    """Return the Params of a Keras SimpleRNN, GRU or LSTM, or the network that a Bidirectional one is.

    `weights` is its `get_weights()`. A GRU has `reset_after=True`, as by default; the bias of any other raises a
    ValueError. A missing bias is zero.
    """
    if not isinstance(weights, (list, tuple)):
        raise TypeError(f"weights: expected the list of a layer's get_weights(), got {type(weights).__name__}")
    if len(weights) not in (2, 3, 4, 6):
        raise ValueError(f"weights: expected 2 or 3 arrays of one layer, 4 or 6 of two directions, got {len(weights)}")
    if len(weights) < 4:
        return _from_keras(weights, {})
    known: dict = {}
    half = len(weights) // 2
    return ((_from_keras(weights[:half], known), _from_keras(weights[half:], known)),)


def _from_keras(weights, shared):
    """Return the Params of one direction; `shared` holds what both have in common."""
    kernel, recurrent_kernel, *bias = weights
    recurrent_kernel, known = _recurrent("recurrent_kernel", recurrent_kernel, ("H", "GH"), known=shared)
    kernel = _read("kernel", kernel, ("I", "GH"), known)
    shared |= known
    if known["GH"] == 3 * known["H"]:
        bias = [row for a in bias for row in _read("bias", a, (2, "GH"), known, " of a GRU with reset_after=True")]
    else:
        bias = [_read("bias", a, ("GH",), known) for a in bias]
    return _from(_KERAS, kernel.T, recurrent_kernel.T, *bias)


def to_keras(params):
    """Return the arrays for `set_weights` of a Keras SimpleRNN, GRU (with `reset_after=True`) or LSTM.

    Of a network it is a list of these, for each layer, which is a Bidirectional one if it has two directions.
    """
    layers = [[a for one in layer for a in _to_keras(one)] for layer in _layers(params)]
    return layers if _is_network(params) else layers[0]


def _to_keras(params):
    kernel, recurrent_kernel, *biases = _to(_KERAS, params)
    bias = np.stack(biases) if hasattr(params, "c") else biases[0]
    return [np.ascontiguousarray(kernel.T), np.ascontiguousarray(recurrent_kernel.T), bias]


def from_onnx(W, R, B=None):
    """Return the Params of an ONNX RNN, GRU or LSTM node, or the network that one of two directions is.

    Its inputs are W (D, GH, I), R (D, GH, H), B (D, 2GH), of D = 1 or 2 directions. A GRU has `linear_before_reset=1`,
    and an LSTM no peepholes. No B is zero.
    """
    R, known = _recurrent("R", R, ("D", "GH", "H"))
    if known["D"] > 2:
        raise ValueError(f"R: expected one direction or two, got {known['D']}")
    W = _read("W", W, ("D", "GH", "I"), known)
    biases = [()] * known["D"] if B is None else [np.split(b, 2) for b in _read("B", B, ("D", "2GH"), known)]
    layer = tuple(_from(_ONNX, *one, *both) for *one, both in zip(W, R, biases, strict=True))
    return layer[0] if len(layer) == 1 else (layer,)


def to_onnx(params):
    """Return the inputs W (D, GH, I), R (D, GH, H), B (D, 2GH) of an ONNX RNN, GRU or LSTM node.

    Of a network it is a list of these, for each layer.
    """
    layers = []
    for layer in _layers(params):
        each = [(W, R, np.concatenate(biases)) for W, R, *biases in (_to(_ONNX, one) for one in layer)]
        layers.append(tuple(np.stack(arrays) for arrays in zip(*each, strict=True)))
    return layers if _is_network(params) else layers[0]


def _is_network(params):
    return isinstance(params, tuple) and len(params) > 0 and not hasattr(params, "_fields")


def _layers(params):
    """Return a network as it is, or Params as its only layer."""
    if not _is_network(params):
        return ((params,),)
    for k, layer in enumerate(params):
        if not _is_network(layer) or len(layer) > 2:
            raise TypeError(f"params[{k}]: expected a tuple of the Params of one direction or two, got {brief(layer)}")
    return params


def _recurrent(name, value, shape, known=()):
    """Return the recurrent weights as an array of NumPy, and what they fix for the rest: sizes and the dtype.

    What other layers or directions have fixed is `known`.
    """
    known = dict(known)
    a = _read(name, value, shape, known)
    if known["GH"] not in [gates * known["H"] for gates in _CELLS]:
        raise ValueError(f"{name}: expected shape {_text(shape)}, G = 1, 3 or 4, got {a.shape}")
    return a, known | {"2GH": 2 * known["GH"], "of": known.get("of", name)}


def _read(name, value, shape, known, of=""):
    """Return an array of NumPy, of this shape; what `known` does not hold yet of its sizes and dtype, it learns.

    A size in `shape` is a number, or a name that `known` may have a number for. `of` ends what the shape is said to be.
    """
    if isinstance(value, np.ma.MaskedArray) or not (hasattr(value, "__array__") and hasattr(value, "dtype")):
        raise TypeError(f"{name}: expected an array, got {type(value).__name__}")
    dtype = str(value.dtype).removeprefix("torch.")
    if dtype not in ("float32", "float64"):
        raise TypeError(f"{name}: expected dtype float32 or float64, got {dtype}")
    if dtype != known.setdefault("dtype", dtype):
        raise TypeError(f"{name}: expected dtype {known['dtype']}, that of {known['of']}, got {dtype}")
    try:
        a = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
    except (NotImplementedError, RuntimeError, TypeError, ValueError):
        where = f" on the device {value.device}" if hasattr(value, "device") else ""
        raise TypeError(f"{name}: expected an array that NumPy can read, got {type(value).__name__}{where}") from None
    wanted = [known.get(size, size) for size in shape]
    if a.ndim != len(wanted) or any(
        got < 1 or (got != want and not isinstance(want, str)) for want, got in zip(wanted, a.shape, strict=True)
    ):
        raise ValueError(f"{name}: expected shape {_text(wanted)}{of}, got {a.shape}")
    known.update(zip(shape, a.shape, strict=True))
    return a


def _text(shape):
    return f"({', '.join(map(str, shape))}{',' * (len(shape) == 1)})"


def _from(orders, weight_ih, weight_hh, bias_ih=None, bias_hh=None):
    """Return Params from arrays of G H rows each, their gates in the order of a library; biases may be missing."""
    gates, H = len(weight_hh) // weight_hh.shape[1], weight_hh.shape[1]
    zero = np.zeros(len(weight_hh), weight_hh.dtype)
    places = np.argsort(orders[gates])
    arrays = (weight_ih, weight_hh, zero if bias_ih is None else bias_ih, zero if bias_hh is None else bias_hh)
    U, W, b, inner = (_reordered(a, places) for a in arrays)
    if gates == 3:
        b[: 2 * H] += inner[: 2 * H]
        return gru.Params(U, W, b, inner[2 * H :].copy())
    return _CELLS[gates].Params(U, W, b + inner)


def _to(orders, params):
    """Return U, W and both biases, (G H, ...) each, with the gates in the order of a library."""
    fields = getattr(params, "_fields", None)
    if fields not in [cell.Params._fields for cell in _CELLS.values()]:
        raise TypeError(f"params: expected the Params of an rnn, gru or lstm, got {type(params).__name__}")
    W, known = _recurrent("params.W", params.W, ("GH", "H"))
    gates = known["GH"] // known["H"]
    if fields != _CELLS[gates].Params._fields:
        raise ValueError(
            f"params: expected {', '.join(_CELLS[gates].Params._fields)} for {gates} gates, got {', '.join(fields)}"
        )
    U = _read("params.U", params.U, ("GH", "I"), known)
    b = _read("params.b", params.b, ("GH",), known)
    inner = np.zeros_like(b)
    if gates == 3:
        inner[-known["H"] :] = _read("params.c", params.c, ("H",), known)
    return tuple(_reordered(a, orders[gates]) for a in (U, W, b, inner))


def _reordered(a, order):
    """Return a C-contiguous copy of `a` with its blocks of rows in another order."""
    blocks = np.split(a, len(order))
    return np.ascontiguousarray(np.concatenate([blocks[gate] for gate in order]))
