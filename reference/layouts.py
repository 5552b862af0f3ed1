"""Weights in and out: the layouts of PyTorch, Keras and ONNX, as arrays alone. The libraries need not be installed.

`from_*` returns the `Params` of the reference's rnn, gru or lstm, which the kernels take as well: the shapes tell which
cell it is. `to_*` takes the `Params` of either. Both return C-contiguous arrays of their own, in the dtype they found.

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
    """Return the Params of a torch.nn.RNN, GRU, LSTM or one of their Cells, or of its `state_dict()`.

    The layer is one, in one direction, without `proj_size`; any other raises a ValueError. Missing biases are zero.
    """
    state = layer.state_dict() if hasattr(layer, "state_dict") else layer
    names = [name.removesuffix("_l0") for name in state]
    if names not in (["weight_ih", "weight_hh", "bias_ih", "bias_hh"], ["weight_ih", "weight_hh"]):
        raise ValueError(f"layer: expected the weights of one layer in one direction, got {', '.join(state)}")
    return _from(_TORCH, *(np.asarray(array) for array in state.values()))


def to_torch(params):
    """Return the arrays of a torch.nn.RNN, GRU or LSTM by their names in its `state_dict()`."""
    return dict(zip(("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"), _to(_TORCH, params), strict=True))


def from_keras(weights):
    """Return the Params of a Keras SimpleRNN, GRU or LSTM, from its `get_weights()`.

    A GRU has `reset_after=True`, as by default; any other raises a ValueError. A missing bias is zero.
    """
    kernel, recurrent_kernel, *bias = weights
    if bias and bias[0].ndim == 1 and kernel.shape[1] == 3 * len(recurrent_kernel):
        raise ValueError(f"weights: expected a GRU with reset_after=True, got a bias {bias[0].shape}")
    return _from(_KERAS, kernel.T, recurrent_kernel.T, *(row for a in bias for row in np.atleast_2d(a)))


def to_keras(params):
    """Return the arrays for `set_weights` of a Keras SimpleRNN, GRU (with `reset_after=True`) or LSTM."""
    kernel, recurrent_kernel, *biases = _to(_KERAS, params)
    bias = np.stack(biases) if hasattr(params, "c") else biases[0]
    return [np.ascontiguousarray(kernel.T), np.ascontiguousarray(recurrent_kernel.T), bias]


def from_onnx(W, R, B=None):
    """Return the Params of an ONNX RNN, GRU or LSTM node, from its inputs W (1, GH, I), R (1, GH, H), B (1, 2GH).

    A GRU has `linear_before_reset=1`. The node has one direction; another raises a ValueError. No B is zero.
    """
    if len(W) != 1:
        raise ValueError(f"W: expected one direction, got {len(W)}")
    return _from(_ONNX, W[0], R[0], *(() if B is None else np.split(B[0], 2)))


def to_onnx(params):
    """Return the inputs W (1, GH, I), R (1, GH, H), B (1, 2GH) of an ONNX RNN, GRU or LSTM node."""
    W, R, *biases = _to(_ONNX, params)
    return W[None], R[None], np.concatenate(biases)[None]


def _from(orders, weight_ih, weight_hh, bias_ih=None, bias_hh=None):
    """Return Params from arrays of G H rows each, their gates in the order of a library; biases may be missing."""
    gates, H = len(weight_hh) // weight_hh.shape[1], weight_hh.shape[1]
    if gates not in _CELLS or len(weight_hh) != gates * H or len(weight_ih) != gates * H:
        raise ValueError(f"weights: expected G H rows, G = 1, 3 or 4, got {weight_ih.shape} and {weight_hh.shape}")
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
    inner = np.zeros_like(params.b)
    if hasattr(params, "c"):
        inner[-len(params.c) :] = params.c
    order = orders[len(params.W) // params.W.shape[1]]
    return tuple(_reordered(a, order) for a in (params.U, params.W, params.b, inner))


def _reordered(a, order):
    """Return a C-contiguous copy of `a` with its blocks of rows in another order."""
    blocks = np.split(a, len(order))
    return np.ascontiguousarray(np.concatenate([blocks[gate] for gate in order]))
