from reference.equations import cell, sigmoid, tanh


@cell(gates="f n", states="h", biases={"f": 1})
def janet(u, w, h):
    """The LSTM with nothing but a forget gate (van der Westhuizen and Lasenby 2018), beta = 1: h is the memory."""
    f = u.f + w.f(h)
    n = tanh(u.n + w.n(h))
    return sigmoid(f) * h + (1 - sigmoid(f - 1)) * n
