from reference.equations import cell, exp, sigmoid, softplus, sqrt


@cell(gates="r i n", states="h", vectors={"decay": -5})
def rg_lru(u, v, h):
    """Real-gated linear recurrent unit of Griffin (De et al. 2024), its gates dense.

    n stands for the block's input. The factor sqrt(1 - a^2) is there in every step: the authors' code leaves it out
    in the first step of a sequence. A decay of -5 is a = 0.95 where r is 1, in the midst of where the authors begin.
    """
    a = exp(-8 * softplus(v.decay) * sigmoid(u.r))
    return a * h + sqrt(1 - a * a) * (sigmoid(u.i) * u.n)
