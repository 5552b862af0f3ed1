"""Weights in and out: the layouts of PyTorch, Keras and ONNX, as arrays alone. The libraries need not be installed.

`from_*` returns the `Params` of the reference's rnn, gru or lstm, which the kernels take as well: the shapes tell which
cell it is. `to_*` takes the `Params` of either. Both return C-contiguous arrays of their own, in the dtype they found.

Every array is checked by its name: all are of one dtype, float32 or float64, else a TypeError is raised, and of shapes
that fit together, else a ValueError. What no array tells is for the caller to know, such as an activation.

PyTorch, ONNX and the GRU of Keras have one bias beside U x and one beside W h. All but n of the GRU add the two, so
`from_*` adds them as well, and `to_*` gives the sum as the first, and zeros as the second. n of the GRU has both.
"""

import numpy as np

from reference import gru, lstm, rnn

# By the number of gates: the cell, and which of its gates (r, z, n or i, f, g, o) stands at each place in a library.
_CELLS = {1: rnn, 3: gru, 4: lstm}
_TORCH = {1: (0,), 3: (0, 1, 2), 4: (0, 1, 2, 3)}
_KERAS = {1: (0,), 3: (1, 0, 2), 4: (0, 1, 2, 3)}  # z, r, h and i, f, c, o
_ONNX = {1: (0,), 3: (1, 0, 2), 4: (0, 3, 1, 2)}  # z, r, h and i, o, f, c


def from_torch(layer):
    """Return the Params of a torch.nn.RNN, GRU, LSTM or one of their Cells, or of its `state_dict()`, in any order.

    The layer is one, in one direction, without `proj_size`; any other raises a ValueError. Missing biases are zero.
    So does an RNN of relu, since Params hold no activation: give its `state_dict()`, and "relu" to whatever runs it.
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
    for suffix in ("_l0", ""):
        names = [name + suffix for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
        if set(state) in (set(names), set(names[:2])):
            weight_hh, known = _recurrent(names[1], state[names[1]], ("GH", "H"))
            weight_ih = _read(names[0], state[names[0]], ("GH", "I"), known)
            return _from(
                _TORCH, weight_ih, weight_hh, *(_read(n, state[n], ("GH",), known) for n in names[2:] if n in state)
            )
    given = ", ".join([*map(str, state)][:8]) + ", ..." * (len(state) > 8)
    raise ValueError(f"layer: expected the weights of one layer in one direction, got {given or 'none'}")


def to_torch(params):
    """Return the arrays of a torch.nn.RNN, GRU or LSTM by their names in its `state_dict()`."""
    return dict(zip(("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"), _to(_TORCH, params), strict=True))


def from_keras(weights):
    """Return the Params of a Keras SimpleRNN, GRU or LSTM, from its `get_weights()`.

    A GRU has `reset_after=True`, as by default; the bias of any other raises a ValueError. A missing bias is zero.
    """
    if not isinstance(weights, (list, tuple)):
        raise TypeError(f"weights: expected the list of a layer's get_weights(), got {type(weights).__name__}")
    if len(weights) not in (2, 3):
        raise ValueError(f"weights: expected the 2 or 3 arrays of one layer in one direction, got {len(weights)}")
    kernel, recurrent_kernel, *bias = weights
    recurrent_kernel, known = _recurrent("recurrent_kernel", recurrent_kernel, ("H", "GH"))
    kernel = _read("kernel", kernel, ("I", "GH"), known)
    if known["GH"] == 3 * known["H"]:
        bias = [row for a in bias for row in _read("bias", a, (2, "GH"), known, " of a GRU with reset_after=True")]
    else:
        bias = [_read("bias", a, ("GH",), known) for a in bias]
    return _from(_KERAS, kernel.T, recurrent_kernel.T, *bias)


def to_keras(params):
    """Return the arrays for `set_weights` of a Keras SimpleRNN, GRU (with `reset_after=True`) or LSTM."""
    kernel, recurrent_kernel, *biases = _to(_KERAS, params)
    bias = np.stack(biases) if hasattr(params, "c") else biases[0]
    return [np.ascontiguousarray(kernel.T), np.ascontiguousarray(recurrent_kernel.T), bias]


def from_onnx(W, R, B=None):
    """Return the Params of an ONNX RNN, GRU or LSTM node, from its inputs W (1, GH, I), R (1, GH, H), B (1, 2GH).

    A GRU has `linear_before_reset=1`, and an LSTM no peepholes. The node has one direction; two raise a ValueError. No
    B is zero.
    """
    one = " of one direction"
    R, known = _recurrent("R", R, (1, "GH", "H"), one)
    W = _read("W", W, (1, "GH", "I"), known, one)
    return _from(_ONNX, W[0], R[0], *(() if B is None else np.split(_read("B", B, (1, "2GH"), known, one)[0], 2)))


def to_onnx(params):
    """Return the inputs W (1, GH, I), R (1, GH, H), B (1, 2GH) of an ONNX RNN, GRU or LSTM node."""
    W, R, *biases = _to(_ONNX, params)
    return W[None], R[None], np.concatenate(biases)[None]


def _recurrent(name, value, shape, of=""):
    """Return the recurrent weights as an array of NumPy, and what they fix for the rest: sizes and the dtype."""
    known = {}
    a = _read(name, value, shape, known, of)
    if known["GH"] not in [gates * known["H"] for gates in _CELLS]:
        raise ValueError(f"{name}: expected shape {_text(shape)}{of}, G = 1, 3 or 4, got {a.shape}")
    return a, known | {"2GH": 2 * known["GH"], "of": name}


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
