from reference.equations import cell, sigmoid, tanh


@cell(gates="g n", states="h", biases={"g": 1})
def ugrnn(u, w, h):
    """Update gate RNN (Collins et al. 2017, "Capacity and trainability in recurrent neural networks")."""
    g = sigmoid(u.g + w.g(h))
    n = tanh(u.n + w.n(h))
    return g * h + (1 - g) * n
