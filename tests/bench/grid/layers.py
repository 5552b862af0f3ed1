"""What the tests of every format of model files share."""

import re
from importlib import import_module

import numpy as np
import pytest

from bench.grid.cases import ChoiceError
from bench.grid.models import read
from reference import stack

T, B, I, H = 12, 3, 5, 7
KINDS = {"rnn": "RNN", "gru": "GRU", "lstm": "LSTM"}
TOLERANCE = 1e-6  # float32's rounding unit is 6e-8; each step rounds sums of I + H products of about 1 a few times


def run(layer, x):
    """Return hs of a layer that was read, by the reference."""
    cell, options = import_module(f"reference.{layer.cell}"), {}
    if layer.cell == "rnn":
        options = {"activation": layer.activation}
    return stack.infer(cell, layer.network, x, **options).hs


def inputs(size=I, dtype=np.float32):
    return np.random.default_rng(0).standard_normal((T, B, size)).astype(dtype)


def refused(path, text, seq_len=T, **options):
    with pytest.raises(ChoiceError) as caught:
        read(str(path), seq_len, B, **options)
    assert re.fullmatch(rf"--model: {re.escape(str(path))}: {text}", str(caught.value)), str(caught.value)
    for foreign in ("\x1b", "<class", "Traceback", "Issues with", "Errno", "weights_only"):
        assert foreign not in str(caught.value)


def net(torch, kind, layers=2, directions=2, bias=True):
    torch.manual_seed(0)
    module = getattr(torch.nn, kind)(I, H, layers, bias=bias, bidirectional=directions == 2)
    return torch.nn.ModuleDict({"encoder": torch.nn.ModuleDict({"rnn": module}), "head": torch.nn.Linear(H, 2)})


def save(torch, state, path):
    if path.suffix == ".safetensors":
        pytest.importorskip("safetensors.torch").save_file(state, path)
    else:
        torch.save(state, path)
    return path


exported = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


def export(torch, path, kind="LSTM", **shapes):
    """Write a convolution, two layers of two directions and a linear layer as PyTorch exports them."""

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv1d(4, I, 3, stride=2, padding=1)
            self.rnn = getattr(torch.nn, kind)(I, H, 2, bidirectional=True, batch_first=True)
            self.head = torch.nn.Linear(2 * H, 3)

        def forward(self, x):
            return self.head(self.rnn(self.conv(x.transpose(1, 2)).transpose(1, 2))[0])

    torch.manual_seed(0)
    whole = Net().eval()
    x = torch.randn(1, 2 * T, 4)
    names = {"input_names": ["x"], "output_names": ["y"]}
    axes = {"dynamic_axes": {"x": {0: "batch", 1: "time"}, "y": {0: "batch"}}}
    torch.onnx.export(whole, (x,), path, dynamo=False, **names, **axes, **shapes)
    return whole
