"""Weights, states and inputs on the way to a worker of Dask: a real scheduler, and a process on the other end."""

import numpy as np
import pytest

from kernels import gru, lstm, stack

distributed = pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def client():
    options = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        yield client


def infer(weights, x, state=None):
    from kernels import lstm

    return np.copy(lstm.infer(weights, np.require(x, requirements="A"), state).hs)


def infer_network(network, x):
    from kernels import gru, stack

    return np.copy(stack.infer(gru, network, np.require(x, requirements="A")).hs)


def gradient(params, x):
    from kernels import lstm

    trace = lstm.forward(params, np.require(x, requirements="A"))
    return np.copy(lstm.bptt(params, trace, trace.hs).params.W)


@pytest.mark.slow
@pytest.mark.parametrize("hidden", [5, 64])
def test_the_worker_computes_the_same(client, hidden):
    rng = np.random.default_rng(0)
    params, x = lstm.init_params(3, hidden, rng), rng.standard_normal((6, 2, 3), dtype=np.float32)
    state = lstm.infer(params, x).state
    ref = lstm.infer(params, x, state).hs
    for weights in (params, lstm.prepare(params), lstm.prepare(params, "bfloat16")):
        want = lstm.infer(weights, x, state).hs
        scattered = client.scatter(weights)
        for sent in (weights, scattered):
            for _ in range(3):  # where a buffer begins is another each time
                np.testing.assert_array_equal(client.submit(infer, sent, x, state, pure=False).result(), want)
    assert type(client.scatter(lstm.prepare(params))) is distributed.Future
    np.testing.assert_array_equal(client.submit(infer, client.scatter([params])[0], x, state).result(), ref)
    trace = lstm.forward(params, x)
    np.testing.assert_array_equal(
        client.submit(gradient, params, x).result(), lstm.bptt(params, trace, trace.hs).params.W
    )


@pytest.mark.slow
def test_a_network_is_sent_and_scattered(client):
    rng = np.random.default_rng(0)
    network = stack.init_params(gru, 3, 7, layers=2, bidirectional=True, rng=rng)
    x = rng.standard_normal((6, 2, 3), dtype=np.float32)
    want = stack.infer(gru, network, x).hs
    for weights in (network, stack.prepare(gru, network)):
        for sent in (weights, client.scatter(weights), client.scatter([weights])[0]):
            np.testing.assert_array_equal(client.submit(infer_network, sent, x, pure=False).result(), want)
