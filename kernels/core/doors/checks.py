"""The guards at the doors of the kernels, which read raw memory behind them.

One rule for all: an array is a C-contiguous, aligned `numpy.ndarray` of the dtype and shape that the rest of the
call fixes, or it is refused. Nothing is copied or converted behind the caller's back: in a benchmark's timing a
hidden copy is a lie. Errors read "argument: expected this, got that".
"""

import numpy as np

DTYPES = (np.dtype(np.float32), np.dtype(np.float64))
INDICES = (np.dtype(np.int32), np.dtype(np.int64))


def check_float(name, a):
    """Raise a TypeError unless `a` is an array of float32 or float64 in the machine's byte order."""
    if not isinstance(a, np.ndarray) or isinstance(a, np.ma.MaskedArray):
        raise TypeError(f"{name}: expected a numpy.ndarray, got {type(a).__name__}")
    if a.dtype not in DTYPES:
        raise TypeError(f"{name}: expected dtype float32 or float64, got {a.dtype}")


def fits(a, shape, dtype):
    """Tell whether `a` is as `check_array` wants it, sooner than it could: what is not may be right all the same.

    A step of a small network takes no longer than all its checks.
    """
    return type(a) is np.ndarray and a.shape == shape and a.dtype is dtype and a.flags.carray


def check_array(name, a, shape, dtype, aligned=True):
    """Raise unless `a` is C-contiguous and aligned, of this dtype (else a TypeError) and shape (else a ValueError).

    A size in `shape` is a number, or a letter for any size of one or more. What is copied need not be `aligned`.
    """
    if fits(a, shape, dtype) and a.size:
        return
    if not isinstance(a, np.ndarray) or isinstance(a, np.ma.MaskedArray):
        raise TypeError(f"{name}: expected a numpy.ndarray, got {type(a).__name__}")
    if a.dtype != dtype:
        raise TypeError(f"{name}: expected dtype {dtype}, got {a.dtype}")
    if a.ndim != len(shape) or any(
        got < 1 or (got != want and not isinstance(want, str)) for want, got in zip(shape, a.shape, strict=True)
    ):
        sizes = ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "")
        empty = " (no size may be 0)" if 0 in a.shape else ""
        raise ValueError(f"{name}: expected shape ({sizes}), got {a.shape}{empty}")
    if not a.flags.c_contiguous:
        raise ValueError(
            f"{name}: expected a C-contiguous array (see numpy.ascontiguousarray), got strides {a.strides}"
        )
    if aligned and not a.flags.aligned:
        raise ValueError(f"{name}: expected an aligned array (see numpy.require), got address {a.ctypes.data:#x}")


def check_fields(name, value, kind):
    """Raise a TypeError unless `value` has the fields of the NamedTuple `kind`; `reference`'s own will do."""
    if getattr(value, "_fields", None) != kind._fields:
        expected, got = kind, type(value)
        if expected.__name__ == got.__name__:  # those of another cell
            expected, got = (f"{one.__module__}.{one.__name__}" for one in (expected, got))
        else:
            expected, got = expected.__name__, got.__name__
        raise TypeError(f"{name}: expected {expected}, got {got}")


def check_size(name, n):
    """Raise unless `n` is an integer (else a TypeError) of 1 or more (else a ValueError)."""
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)):
        raise TypeError(f"{name}: expected an integer >= 1, got {n!r}")
    if n < 1:
        raise ValueError(f"{name}: expected an integer >= 1, got {n}")


def check_truncate(truncate):
    """Raise unless `truncate` is None or an integer (else a TypeError) of 0 or more (else a ValueError)."""
    if truncate is None:
        return
    if isinstance(truncate, bool) or not isinstance(truncate, (int, np.integer)):
        raise TypeError(f"truncate: expected None or an integer >= 0, got {truncate!r}")
    if truncate < 0:
        raise ValueError(f"truncate: expected None or an integer >= 0, got {truncate}")


def check_dtype(name, dtype):
    """Raise a TypeError unless `dtype` is float32 or float64."""
    try:
        known = dtype is not None and np.dtype(dtype) in DTYPES  # of None NumPy makes float64
    except TypeError:
        known = False
    if not known:
        raise TypeError(f"{name}: expected float32 or float64, got {getattr(dtype, '__name__', repr(dtype))}")


def check_params(params, kind, gates, recurrent=None, aligned=True):
    """Check the fields U (gates H, I), W (recurrent H, H), b (gates H,), and vectors (H,) behind; return H and I.

    `recurrent` is `gates` if None. Of no gates an array has no rows, and is the only one that may be empty. Params of
    another cell with the same fields, rnn and lstm, differ by their shapes.
    """
    check_fields("params", params, kind)
    recurrent = gates if recurrent is None else recurrent
    U, W, b, *vectors = params
    check_float("params.W", W)
    H = W.shape[1] if W.ndim == 2 and W.shape[1] and (W.size or not recurrent) else "H"
    _check_rows("params.W", W, recurrent, H, H, W.dtype, aligned)
    I = U.shape[1] if isinstance(U, np.ndarray) and U.ndim == 2 and U.shape[1] and (U.size or not gates) else "I"
    _check_rows("params.U", U, gates, H, I, W.dtype, aligned)
    if gates:
        check_array("params.b", b, (gates * H,), W.dtype, aligned)
    else:
        _check_empty("params.b", b, (0,), W.dtype)
    for name, a in zip(kind._fields[3:], vectors, strict=True):
        check_array(f"params.{name}", a, (H,), W.dtype, aligned)
    return H, I


def _check_rows(name, a, gates, H, columns, dtype, aligned):
    """Check an array of so many gates, (gates H, columns)."""
    if gates:
        check_array(name, a, (f"{gates}H" if gates > 1 and H == "H" else gates * H, columns), dtype, aligned)
    else:
        _check_empty(name, a, (0, columns), dtype)


def _check_empty(name, a, shape, dtype):
    """Raise unless `a` is an array of this dtype and shape, which has no rows."""
    if not isinstance(a, np.ndarray) or isinstance(a, np.ma.MaskedArray):
        raise TypeError(f"{name}: expected a numpy.ndarray, got {type(a).__name__}")
    if a.dtype != dtype:
        raise TypeError(f"{name}: expected dtype {dtype}, got {a.dtype}")
    if a.shape != shape:
        raise ValueError(f"{name}: expected shape ({', '.join(map(str, shape))}), got {a.shape}")


def check_state(name, state, kind, shape, dtype):
    """Check the fields of a state, each of this shape (B, H)."""
    if type(state) is kind:
        for a in state:
            if not fits(a, shape, dtype):
                break
        else:
            return
    check_fields(name, state, kind)
    for field, a in zip(kind._fields, state, strict=True):
        check_array(f"{name}.{field}", a, shape, dtype)


def check_tree(name, tree, layers=None, directions=None):
    """Raise unless `tree` is a tuple of so many layers, each a tuple of so many directions; return these."""
    if not isinstance(tree, tuple) or hasattr(tree, "_fields"):
        raise TypeError(f"{name}: expected a tuple of layers, got {type(tree).__name__}")
    if len(tree) != (layers or max(1, len(tree))):
        raise ValueError(f"{name}: expected {layers or 'one or more'} layers, got {len(tree)}")
    for l, layer in enumerate(tree):
        if not isinstance(layer, tuple) or hasattr(layer, "_fields"):
            raise TypeError(f"{name}[{l}]: expected a tuple of directions, got {type(layer).__name__}")
        directions = directions or len(layer)
        if len(layer) != directions or directions not in (1, 2):
            raise ValueError(f"{name}[{l}]: expected {_few(directions)}, got {len(layer)}")
    return directions


def _few(directions):
    return {1: "1 direction", 2: "2 directions"}.get(directions, "1 or 2 directions")


def check_states(name, states, kind, L, D, shape, dtype):
    check_tree(name, states, L, D)
    for l, layer in enumerate(states):
        for d, one in enumerate(layer):
            check_state(f"{name}[{l}][{d}]", one, kind, shape, dtype)


def check_input(name, x, sizes, I, dtype):
    """Check `x` (*sizes, I) of floats, or (*sizes) of the indices 0 to I - 1 of one-hot inputs; return its sizes."""
    if type(x) is np.ndarray and x.ndim == len(sizes) + 1 and x.size:
        shape = x.shape[:-1]
        if fits(x, (*shape, I), dtype):
            return shape
    one_hot = isinstance(x, np.ndarray) and x.dtype in INDICES
    shape = sizes if one_hot else (*sizes, I)
    if isinstance(x, np.ndarray) and x.ndim == len(shape) and x.size:
        shape = tuple(n if isinstance(want, str) else want for want, n in zip(shape, x.shape, strict=True))
    check_array(name, x, shape, x.dtype if one_hot else dtype)
    if one_hot and not (x.min() >= 0 and x.max() < I):
        raise ValueError(f"{name}: expected indices from 0 to {I - 1}, got {x.min()} to {x.max()}")
    return shape[: len(sizes)]
