from reference.equations import cell, layer_norm, sigmoid, tanh


@cell(
    gates="i f g o",
    states="h c",
    vectors={"gain_i": 1, "gain_f": 1, "gain_g": 1, "gain_o": 1, "gain_c": 1}
    | {"shift_i": 0, "shift_f": 1, "shift_g": 0, "shift_o": 0, "shift_c": 0},
)
def layer_norm_lstm(u, w, v, h, c):
    """The LSTM with layer normalization (Ba et al. 2016), of each gate by itself, as in TensorFlow's.

    The memory is normalized where it is given out, as in the paper; forgetting begins with a shift of 1.
    """
    i = sigmoid(v.gain_i * layer_norm(u.i + w.i(h)) + v.shift_i)
    f = sigmoid(v.gain_f * layer_norm(u.f + w.f(h)) + v.shift_f)
    g = tanh(v.gain_g * layer_norm(u.g + w.g(h)) + v.shift_g)
    o = sigmoid(v.gain_o * layer_norm(u.o + w.o(h)) + v.shift_o)
    c = f * c + i * g
    return o * tanh(v.gain_c * layer_norm(c) + v.shift_c), c
