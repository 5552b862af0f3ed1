from math import inf

from reference.equations import cell, exp, maximum, sigmoid, softplus, tanh


@cell(gates="i f z o", states={"h": 0, "c": 0, "n": 0, "m": -inf})
def slstm(u, w, h, c, n, m):
    """The LSTM with exponential gates of the xLSTM (Beck et al. 2024), one head: c / n is a weighted mean of z.

    m is the largest logarithm of a weight so far: taken out of both, it keeps the exponentials from overflowing.
    """
    log_i = u.i + w.i(h)
    log_f = m - softplus(-(u.f + w.f(h)))  # of m's weight: log sigmoid
    m = maximum(log_f, log_i)
    f, i = exp(log_f - m), exp(log_i - m)
    c = f * c + i * tanh(u.z + w.z(h))
    n = f * n + i
    return sigmoid(u.o + w.o(h)) * c / n, c, n, m
