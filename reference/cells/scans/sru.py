from reference.equations import cell, sigmoid


@cell(gates="n f r k", states="h c", vectors="p_f p_r", biases={"n": 0, "k": 0})
def sru(u, v, c):
    """Simple recurrent unit (Lei et al. 2018): gates see the memory unit by unit, r mixes it with the input.

    k is the input, brought to H numbers, as the authors' code does where I is not H.
    """
    f = sigmoid(u.f + v.p_f * c)
    r = sigmoid(u.r + v.p_r * c)
    c = f * c + (1 - f) * u.n
    return r * c + (1 - r) * u.k, c
