from reference.equations import cell, sigmoid, tanh


@cell(gates="f n", states="h")
def mgu(u, w, h):
    """Minimal gated unit (Zhou et al. 2016): one gate resets and updates."""
    f = sigmoid(u.f + w.f(h))
    n = tanh(u.n + w.n(f * h))
    return h + f * (n - h)
