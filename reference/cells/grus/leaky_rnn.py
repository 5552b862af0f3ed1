from reference.equations import cell, tanh


@cell(gates="n", states="h", vectors={"leak": 0.3})
def leaky_rnn(u, w, v, h):
    """Leaky integrators, as of echo state networks (Jaeger et al. 2007), and in neuroscience (leak = dt / tau)."""
    return (1 - v.leak) * h + v.leak * tanh(u.n + w.n(h))
