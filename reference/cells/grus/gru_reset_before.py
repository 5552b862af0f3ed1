from reference.equations import cell, sigmoid, tanh


@cell(gates="r z n", states="h")
def gru_reset_before(u, w, h):
    """The GRU that resets h before the product (Cho et al. 2014): ONNX's linear_before_reset = 0, Keras 2's default."""
    r = sigmoid(u.r + w.r(h))
    z = sigmoid(u.z + w.z(h))
    n = tanh(u.n + w.n(r * h))
    return (1 - z) * n + z * h
