from reference.equations import cell, sigmoid


@cell(gates="f i n", states="h")
def minlstm(u, h):
    """minLSTM (Feng et al. 2024, "Were RNNs all we needed?"), its gates normalized to a sum of 1."""
    f, i = sigmoid(u.f), sigmoid(u.i)
    return (f * h + i * u.n) / (f + i)
