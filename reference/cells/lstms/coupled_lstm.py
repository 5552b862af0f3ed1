from reference.equations import cell, sigmoid, tanh


@cell(gates="i g o", states="h c")
def coupled_lstm(u, w, h, c):
    """The LSTM that forgets as much as it takes in, CIFG (Greff et al. 2017, "LSTM: a search space odyssey").

    ONNX's input_forget = 1.
    """
    i = sigmoid(u.i + w.i(h))
    g = tanh(u.g + w.g(h))
    o = sigmoid(u.o + w.o(h))
    c = (1 - i) * c + i * g
    return o * tanh(c), c
