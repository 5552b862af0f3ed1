from reference.equations import cell, sigmoid, tanh


@cell(gates="z", states="h", vectors={"p": 0, "zeta": 1, "nu": -4})
def fastgrnn(u, w, v, h):
    """FastGRNN (Kusupati et al. 2018), for microcontrollers: gate and candidate share U and W.

    p is between their biases. The scalars zeta and nu have a number for each unit here.
    """
    a = u.z + w.z(h)
    z = sigmoid(a)
    n = tanh(a + v.p)
    return (sigmoid(v.zeta) * (1 - z) + sigmoid(v.nu)) * n + z * h
