"""What the RNN has alone: the choice of its activation."""

import numpy as np
import pytest

from reference import rnn


def test_unknown_activation():
    params = rnn.init_params(3, 5, np.random.default_rng(0))
    x = np.zeros((7, 2, 3), np.float32)
    trace = rnn.forward(params, x)
    for call in (
        lambda: rnn.forward(params, x, None, "gelu"),
        lambda: rnn.infer(params, x, None, "gelu"),
        lambda: rnn.forward_step(params, x[0], trace.state, "gelu"),
        lambda: rnn.bptt(params, trace, np.zeros_like(trace.hs), activation="gelu"),
    ):
        with pytest.raises(ValueError, match=r"^activation: expected 'tanh', 'relu' or 'sigmoid'"):
            call()
