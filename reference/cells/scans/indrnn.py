from reference.equations import cell, relu


@cell(gates="n", states="h", vectors="p")
def indrnn(u, v, h):
    """Independently recurrent network (Li et al. 2018): each unit sees itself alone."""
    return relu(u.n + v.p * h)
