from reference.equations import cell, relu, sigmoid


@cell(gates="z n", states="h")
def light_gru(u, w, h):
    """The GRU without reset and with relu (Ravanelli et al. 2018, "Light gated recurrent units for speech ...").

    Its batch normalization of U x is, once learned, a part of U and b.
    """
    z = sigmoid(u.z + w.z(h))
    n = relu(u.n + w.n(h))
    return z * h + (1 - z) * n
