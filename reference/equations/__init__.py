"""A cell from its equations: written as in a paper, run through time and differentiated in NumPy.

    from reference.equations import cell, sigmoid, tanh

    @cell(gates="f n", states="h")
    def mgu(u, w, h):
        f = sigmoid(u.f + w.f(h))
        n = tanh(u.n + w.n(f * h))
        return h + f * (n - h)

`mgu` then has the names of `reference.lstm`: `mgu.init_params`, `mgu.forward`, `mgu.bptt` and so on, and
`reference.stack` takes it. `cell` says what a step may be. In the order in which it passes through the files:
`declaring.py` reads the names, `tracing.py` calls the function once and refuses what cannot be a cell, `graph.py` is
what comes of it, with a derivative for each operation, and `running.py` takes it through time and back.
`reference/cells/` has examples.
"""

from reference.equations.running import Cell, Gradients, Output, Trace, cell
from reference.equations.tracing import (
    EquationError,
    abs,
    exp,
    layer_norm,
    log,
    maximum,
    minimum,
    register_arrays,
    relu,
    sigmoid,
    softplus,
    sqrt,
    tanh,
    where,
)

__all__ = [
    "Cell",
    "EquationError",
    "Gradients",
    "Output",
    "Trace",
    "abs",
    "cell",
    "exp",
    "layer_norm",
    "log",
    "maximum",
    "minimum",
    "register_arrays",
    "relu",
    "sigmoid",
    "softplus",
    "sqrt",
    "tanh",
    "where",
]
