from reference.equations import cell, sigmoid, tanh


@cell(gates="i f g o", states="h c", vectors="p_i p_f p_o")
def peephole_lstm(u, w, v, h, c):
    """The LSTM whose gates see the memory (Gers and Schmidhuber 2000, "Recurrent nets that time and count").

    i and f see c as it was, o as it becomes: ONNX's P, TensorFlow's use_peepholes.
    """
    i = sigmoid(u.i + w.i(h) + v.p_i * c)
    f = sigmoid(u.f + w.f(h) + v.p_f * c)
    g = tanh(u.g + w.g(h))
    c = f * c + i * g
    o = sigmoid(u.o + w.o(h) + v.p_o * c)
    return o * tanh(c), c
