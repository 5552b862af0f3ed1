from reference.equations import cell, sigmoid


@cell(gates="z n", states="h")
def mingru(u, h):
    """minGRU (Feng et al. 2024, "Were RNNs all we needed?"): the gate depends on the input alone."""
    z = sigmoid(u.z)
    return (1 - z) * h + z * u.n
