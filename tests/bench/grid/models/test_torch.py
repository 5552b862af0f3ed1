"""PyTorch's files: of every kind and every layer in them, numbers equal to PyTorch's own, or left out by name."""

import io
import json
import pickle
import re
import tarfile
import warnings
import zipfile
from collections import OrderedDict
from types import MethodType, SimpleNamespace

import numpy as np
import pytest

from bench.grid import models
from bench.grid.cases import ChoiceError
from bench.grid.models import read
from tests.bench.grid.layers import KINDS, TOLERANCE, B, H, I, T, inputs, net, refused, run, save

torch = pytest.importorskip("torch")
nn, utils = torch.nn, torch.nn.utils

ALIKE = "the equations are taken to be PyTorch's, by the names and sizes of the weights"


def hs_of(module, x):
    """Return what PyTorch computes, a module of layers or a cell, step by step from the zero state."""
    x, module = torch.from_numpy(x), module.eval()
    with torch.no_grad():
        if not isinstance(module, nn.RNNCellBase):
            return module(x)[0].numpy()
        state, hs = None, []
        for x_t in x:
            state = module(x_t, state)
            hs.append((state[0] if isinstance(state, tuple) else state).numpy())
        return np.stack(hs)


def expect_equal(path, modules, **options):
    """Expect the layers in a file to be these modules by name, in all their numbers; return the Model."""
    model = read(str(path), T, B, **options)
    assert model.layers.keys() == modules.keys()
    for name, module in modules.items():
        layer = model.layers[name]
        x = inputs(layer.network[0][0].U.shape[1])
        np.testing.assert_allclose(run(layer, x), hs_of(module, x), atol=TOLERANCE, err_msg=name)
    return model


@pytest.mark.parametrize("end", [".pt", ".ckpt", ".bin", ".safetensors"])
@pytest.mark.parametrize(("layers", "directions"), [(1, 1), (2, 1), (1, 2), (3, 2)])
@pytest.mark.parametrize("kind", KINDS.values())
def test_a_state_dict(tmp_path, kind, layers, directions, end):
    whole = net(torch, kind, layers, directions, bias=layers != 3)
    path = save(torch, whole.state_dict(), tmp_path / f"net{end}")
    model = expect_equal(path, {"encoder.rnn": whole["encoder"]["rnn"]})
    (layer,) = model.layers.values()
    assert (KINDS[layer.cell], layer.seq_len, layer.batch_size) == (kind, T, B)
    (case,) = layer.grid().cases()
    assert (case.layers, case.directions, case.hidden_size, case.input_size) == (layers, directions, H, I)
    assert model.inputs is None
    told = " ".join(model.told)
    assert ALIKE in told
    assert ("no biases are in the file" in told) == (layers == 3)
    assert ("taken to be tanh" in told) == (kind == "RNN")
    assert f"T = {T} by --seq-len and B = {B} by --batch" in told


@pytest.mark.parametrize("kind", ["RNN", "RNNCell"])
def test_an_activation_that_the_file_does_not_say(tmp_path, kind):
    module = getattr(nn, kind)(I, H, nonlinearity="relu")
    path = save(torch, {f"rnn.{name}": a for name, a in module.state_dict().items()}, tmp_path / "net.pt")
    model = expect_equal(path, {"rnn": module}, activation="relu")
    assert any("its activation is relu by --activation, which the file does not say" in one for one in model.told)
    (case,) = model.layers["rnn"].grid().cases()
    assert case.activation == "relu"
    assert read(str(path), T, B).layers["rnn"].activation == "tanh"


def module_of(*parts, **named):
    """Return a module of these modules by their names."""
    whole = nn.Module()
    for name, part in {**dict(parts), **named}.items():
        whole.add_module(name, part)
    return whole


class Net(nn.Module):  # type: ignore[name-defined]
    """Every cell, in layers and alone."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.relu = nn.RNN(I, H, nonlinearity="relu")
        self.lstm = nn.LSTM(H, H, 2, bidirectional=True, dropout=0.5)
        self.cell = nn.GRUCell(2 * H, H)
        self.head = nn.Linear(H, 2)

    def forward(self, x):
        return self.head(self.cell(self.lstm(self.relu(x)[0])[0][0]))

    def layers(self):
        return {name: getattr(self, name) for name in ("relu", "lstm", "cell")}


def as_saved(whole, path):
    torch.save(whole, path)


def as_script(whole, path):
    torch.jit.save(torch.jit.script(whole), path)


def as_trace(whole, path):
    torch.jit.save(torch.jit.trace(whole, torch.zeros(2, 3, I)), path)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("write", [as_saved, as_script, as_trace])
def test_files_that_tell_their_classes(tmp_path, write):
    whole, path = Net().eval(), tmp_path / "net.pt"
    write(whole, path)
    model = expect_equal(path, whole.layers())
    assert model.left_out == {}
    assert [one for one in model.told if "taken" in one] == []  # everything is known, the relu too
    with pytest.raises(ChoiceError, match=r"^--activation: expected relu, which the file says of relu, got sigmoid$"):
        read(str(path), T, B, "sigmoid")


class Mine(nn.Module):  # type: ignore[name-defined]
    """A cell of one's own, with the names and sizes of PyTorch's LSTMCell."""

    def __init__(self):
        super().__init__()
        for name, a in nn.LSTMCell(I, H).state_dict().items():
            self.register_parameter(name, nn.Parameter(a))

    def forward(self, x):
        return x @ self.weight_ih.t()


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("write", [as_saved, as_script, as_trace])
def test_a_class_of_ones_own_is_left_out(tmp_path, write):
    whole = nn.Sequential(Mine()).eval()
    write(whole, tmp_path / "net.pt")
    refused(tmp_path / "net.pt", r"expected a recurrent .*, got 0: its class is \S*Mine, whose equations are not known")


def test_a_hook_may_change_what_is_computed(tmp_path):
    module = nn.LSTM(I, H)
    module.register_forward_hook(Hook())
    torch.save(nn.Sequential(module), tmp_path / "net.pt")
    refused(tmp_path / "net.pt", r".*got 0: a hook of its own, \S*Hook, which may change what it computes")


class Hook:
    def __call__(self, *_):
        return None


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_frozen_torchscript(tmp_path):
    torch.jit.save(torch.jit.freeze(torch.jit.script(Net().eval())), tmp_path / "net.pt")
    refused(tmp_path / "net.pt", "expected weights with names, got a frozen TorchScript, where they are constants")


def twice(module, convert, names=("weight_hh_l0", "weight_ih_l0")):
    for name in names:
        convert(module, name)
    return module


def raw(module, name):
    """Do as AWD-LSTM's WeightDrop: the weight is a dropped-out copy of a raw one."""
    weight = getattr(module, name)
    module.register_parameter(f"{name}_raw", nn.Parameter(weight.detach().clone()))
    with torch.no_grad():
        weight[0] = 0


def prune(module, name):
    from torch.nn.utils.prune import random_unstructured

    random_unstructured(module, name, 0.4)


# How a weight may be made of others, and what is told of it.
COMPUTED = {
    "weight_norm": (lambda m, name: utils.weight_norm(m, name), "weight_norm, g v / |v|"),
    "weight_norm, dim 1": (lambda m, name: utils.weight_norm(m, name, dim=1), "weight_norm, g v / |v|"),
    "weight_norm of all": (lambda m, name: utils.weight_norm(m, name, dim=None), "weight_norm, g v / |v|"),
    "new weight_norm": (lambda m, name: utils.parametrizations.weight_norm(m, name), "weight_norm, g v / |v|"),
    "spectral_norm": (lambda m, name: utils.spectral_norm(m, name), "spectral_norm as eval() does, W / (u' W v)"),
    "new spectral_norm": (lambda m, name: utils.parametrizations.spectral_norm(m, name), "spectral_norm as eval()"),
    "pruned": (prune, "taken times their masks"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("end", [".pt", ".safetensors"])
@pytest.mark.parametrize(("convert", "words"), COMPUTED.values(), ids=COMPUTED)
def test_weights_that_are_computed_from_others(tmp_path, convert, words, end):
    torch.manual_seed(0)
    module = twice(nn.LSTM(I, H).eval(), convert)
    with torch.no_grad():
        for name, a in module.named_parameters():
            if name.endswith(("_g", "original0")):
                a *= 1.5  # else it is the norm that it was made from
    state = {f"rnn.{name}": a.contiguous() for name, a in module.state_dict().items()}
    model = expect_equal(save(torch, state, tmp_path / f"net{end}"), {"rnn": module})
    assert any(words in one for one in model.told)


@pytest.mark.filterwarnings("ignore")
def test_an_old_weight_norm_in_a_module_that_was_saved_whole(tmp_path):
    module = twice(nn.GRU(I, H), COMPUTED["weight_norm"][0])
    torch.save(nn.Sequential(module), tmp_path / "net.pt")
    expect_equal(tmp_path / "net.pt", {"0": module})


@pytest.mark.parametrize("kept", [True, False], ids=["beside its copy", "without it"])
@pytest.mark.parametrize("start", ["", "module."], ids=["AWD-LSTM", "fastai"])
def test_raw_weights_of_a_weight_drop(tmp_path, kept, start):
    torch.manual_seed(0)
    module = nn.LSTM(I, H)
    plain = {name: a.clone() for name, a in module.state_dict().items()}
    raw(module, "weight_hh_l0")
    state = {f"0.{start}{name}": a for name, a in module.state_dict().items() if kept or name != "weight_hh_l0"}
    if start:
        state["0.weight_hh_l0_raw"] = state.pop("0.module.weight_hh_l0_raw")
    ref = nn.LSTM(I, H)
    ref.load_state_dict(plain)
    model = expect_equal(save(torch, state, tmp_path / "net.pt"), {"0.module" if start else "0": ref})
    assert any("the raw weights of a weight drop are taken" in one for one in model.told)


def state_of(kind, start="rnn.", **options):
    torch.manual_seed(0)
    return {f"{start}{name}": a.clone() for name, a in getattr(nn, kind)(I, H, **options).state_dict().items()}


def without(*names):
    return lambda state: [state.pop(name) for name in names]


def beside(name, *shape):
    return lambda state: state.update({name: torch.ones(*shape)})


# What of a state_dict is no plain layer: what is made of it, its change, and why it is left out.
LEFT_OUT = {
    "projection": ("LSTM", {"proj_size": 2}, lambda state: None, r"a projection of its states \(proj_size\).*"),
    "layer norm": ("LSTMCell", {}, beside("rnn.ln_ih.weight", 28), r"ln_ih\.weight beside its weights.*"),
    "peepholes": ("LSTMCell", {}, beside("rnn.weight_ci", H), "weight_ci beside its weights.*"),
    "made of what": ("LSTM", {}, beside("rnn.weight_hh_l0_g", 28, 1), "weight_hh_l0_g beside its weights.*"),
    "a mask alone": ("LSTM", {}, beside("rnn.weight_hh_l0_mask", 28, H), "weight_hh_l0_mask beside its weights.*"),
    "a gap": ("GRU", {"num_layers": 3}, without(*(f"rnn.{a}_{b}_l1" for a in ("weight", "bias") for b in ("ih", "hh"))),
              "layer: expected the weights of a layer, or of layers upon each other.*"),
    "a bias of two": ("GRU", {}, without("rnn.bias_hh_l0"), "layer: expected the weights of a layer.*"),
    "biases of one layer": ("GRU", {"num_layers": 2}, without("rnn.bias_ih_l1", "rnn.bias_hh_l1"), "layer: expected.*"),
    "biases of one direction": ("RNN", {"bidirectional": True}, without("rnn.bias_ih_l0_reverse",
                                "rnn.bias_hh_l0_reverse"), "layer: expected.*"),
    "whole numbers": ("GRU", {}, lambda state: state.update({"rnn.weight_hh_l0": torch.zeros(21, 7, dtype=torch.int8)}),
                      r"rnn\.weight_hh_l0: expected .*"),
}  # fmt: skip


@pytest.mark.parametrize("end", [".pt", ".safetensors"])
@pytest.mark.parametrize(("kind", "options", "change", "why"), LEFT_OUT.values(), ids=LEFT_OUT)
def test_what_has_other_equations_is_left_out_by_name(tmp_path, kind, options, change, why, end):
    state = state_of(kind, **options)
    change(state)
    refused(save(torch, state, tmp_path / f"net{end}"), rf"expected a recurrent layer .*, got rnn: {why}")
    state |= state_of("LSTM", "plain.")
    model = read(str(save(torch, state, tmp_path / f"both{end}")), T, B)
    assert list(model.layers) == ["plain"]
    assert list(model.left_out) == ["rnn"]
    assert re.fullmatch(why, model.left_out["rnn"])


@pytest.mark.parametrize(
    ("name", "words"),
    [("rnn_lst.0.weight_c", "0?"), ("cell.to_hidden_and_gate.weight", "minGRU"), ("cell.recurrent_kernel", "haste")],
)
def test_layers_of_other_libraries_are_named(tmp_path, name, words):
    path = save(torch, {name: torch.ones(3, 3), **state_of("GRU")}, tmp_path / "net.pt")
    (why,) = read(str(path), T, B).left_out.values()
    assert re.search(words, why)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "LSTMCell"])
@pytest.mark.parametrize("whole", [True, False])
def test_quantized_layers_are_named(tmp_path, kind, whole):
    plain = module_of(rnn=getattr(nn, kind)(I, H), linear=nn.Linear(H, 2))
    quantized = torch.ao.quantization.quantize_dynamic(plain, {type(plain.rnn), nn.Linear})
    torch.save(quantized if whole else quantized.state_dict(), tmp_path / "q.pt")
    refused(tmp_path / "q.pt", "expected .*, got rnn: quantized by PyTorch: its packed weights of int8 are not read")


# --- containers ---------------------------------------------------------------------------------------------------


class Callback:
    """What Lightning's .ckpt holds beside tensors: an object of a class that nobody here has."""

    def __reduce__(self):
        return (print, ("run!",), {"best": torch.ones(2)})


CONTAINERS = {
    "list": (lambda sd: [sd, {"state": {0: {"exp_avg": torch.ones(3)}}}], "0.rnn"),
    "models": (lambda sd: {"models": [sd], "epoch": 3}, "models.0.rnn"),
    "tuple": (lambda sd: (1, ("x", sd)), "1.1.rnn"),
    "lightning": (
        lambda sd: {
            "state_dict": sd,
            "hyper_parameters": SimpleNamespace(size=3),
            "callbacks": {"checkpoint": Callback()},
            "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(3)}}}],
            "loops": OrderedDict(fit={"batches": 3}),
        },
        "state_dict.rnn",
    ),
    "optimizer by names": (lambda sd: {"model": sd, "optim": {"exp_avg": sd_of_ones(sd)}}, "model.rnn"),
    "ema": (lambda sd: {"model": sd, "model_ema": sd_of_ones(sd)}, "model.rnn"),
    "twice": (lambda sd: {"model": sd, "best": OrderedDict(sd)}, "model.rnn"),
    "an object": (lambda sd: {"learner": SimpleNamespace(model=sd)}, "learner.model.rnn"),
}


def sd_of_ones(state):
    return {name: torch.ones_like(a) for name, a in state.items()}


@pytest.mark.parametrize(("wrap", "name"), CONTAINERS.values(), ids=CONTAINERS)
def test_containers(tmp_path, capfd, wrap, name):
    torch.manual_seed(0)
    whole = module_of(rnn=nn.LSTM(I, H))
    path = save(torch, wrap(whole.state_dict()), tmp_path / "net.ckpt")
    model = expect_equal(path, {name: whole.rnn})
    reasons = {"optim.exp_avg.rnn": "an optimizer's", "model_ema.rnn": "an averaged copy of model.rnn",
               "best.rnn": "the same weights as model.rnn"}  # fmt: skip
    for left, why in model.left_out.items():
        assert why.startswith(reasons[left])
    assert "run!" not in capfd.readouterr().out


def test_an_average_alone_is_a_layer(tmp_path):
    torch.manual_seed(0)
    whole = module_of(rnn=nn.LSTM(I, H))
    expect_equal(save(torch, {"ema": whole.state_dict()}, tmp_path / "net.pt"), {"ema.rnn": whole.rnn})


def test_shared_layers_are_measured_once(tmp_path):
    shared = nn.LSTM(I, I)
    torch.save(module_of(first=shared, second=shared), tmp_path / "net.pt")
    model = expect_equal(tmp_path / "net.pt", {"first": shared})
    assert model.left_out == {"second": "the same weights as first"}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
@pytest.mark.parametrize("end", [".pt", ".safetensors"])
def test_weights_of_other_dtypes(tmp_path, dtype, end):
    module = nn.LSTM(I, H).to(getattr(torch, dtype))
    (layer,) = read(str(save(torch, module.state_dict(), tmp_path / f"net{end}")), T, B).layers.values()
    assert layer.name == "net"
    W = layer.network[0][0].W
    assert W.dtype == ("float64" if dtype == "float64" else "float32")
    np.testing.assert_array_equal(W, module.weight_hh_l0.detach().to(torch.float64).numpy().astype(W.dtype))


def test_tensors_that_are_views(tmp_path):
    flat = torch.arange(2000.0)
    state = state_of("RNN") | {
        "rnn.weight_ih_l0": flat[100:].as_strided((H, I), (3, 50)), "rnn.weight_hh_l0": flat[:49].view(7, 7).T
    }  # fmt: skip
    (layer,) = read(str(save(torch, state, tmp_path / "net.pt")), T, B).layers.values()
    np.testing.assert_array_equal(layer.network[0][0].U, state["rnn.weight_ih_l0"])
    np.testing.assert_array_equal(layer.network[0][0].W, state["rnn.weight_hh_l0"])


# --- shards -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [".safetensors", ".bin"])
def test_shards(tmp_path, end):
    torch.manual_seed(0)
    whole = module_of(rnn=nn.LSTM(I, H, 2))
    state = whole.state_dict()
    names = list(state)
    files = {f"model-0000{n + 1}-of-00002{end}": names[n::2] for n in range(2)}
    for file, part in files.items():
        save(torch, {name: state[name] for name in part}, tmp_path / file)
    index = tmp_path / f"model{end}.index.json"
    listed = {name: file for file, part in files.items() for name in part}
    write_index(index, listed)
    expect_equal(index, {"rnn": whole.rnn})

    first, second = (tmp_path / file for file in files)
    lone = rf"expected a whole model, got a shard of several: give model\{end}\.index\.json, which names them all"
    refused(first, lone)
    first.rename(tmp_path / f"renamed{end}")
    write_index(index, {name: file.replace(first.name, f"renamed{end}") for name, file in listed.items()})
    refused(tmp_path / f"renamed{end}", lone)
    write_index(index, listed | {"rnn.more": second.name} | dict.fromkeys(files[first.name], f"renamed{end}"))
    refused(index, rf"expected rnn\.more in {second.name}, where its index has it, got none")
    index.unlink()
    refused(second, "expected a whole model, got a shard of several: .*")


def write_index(path, names):
    import json

    path.write_text(json.dumps({"metadata": {}, "weight_map": names}))


@pytest.mark.parametrize("end", [".safetensors.index.json", ".bin.index.json"])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "expected an index of shards, .*"),
        ('{"weight_map": {}}', "expected an index of shards, .*"),
        ("[" * 5000, "expected an index of shards, .*"),
        ('{"weight_map": {"a": 3}}', "expected an index of shards, .*"),
        ('{"weight_map": {"a": "../b"}}', "expected shards beside their index, got one of somewhere else"),
        ('{"weight_map": {"a": "b"}}', "expected b beside it, a shard that it names, got none"),
    ],
)
def test_a_broken_index(tmp_path, end, text, words):
    path = tmp_path / f"model{end}"
    path.write_text(text)
    refused(path, words)


# --- what is no model, or hostile ---------------------------------------------------------------------------------


class Bomb:
    def __reduce__(self):
        return (print, ("run!",))


def test_a_pickle_is_not_run(tmp_path, capfd):
    path = save(torch, {"a": Bomb(), **state_of("LSTM")}, tmp_path / "bomb.pt")
    assert list(read(str(path), T, B).layers) == ["rnn"]
    assert "run!" not in capfd.readouterr().out


def repickled(path, data):
    """Write a file as torch.save does, with another pickle in it."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x/data.pkl", data)
        file.writestr("x/data/0", bytes(400))
    return path


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value, value]
    return value


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02" + b"r\xff\xff\xff\x7f" * 20 + b".",
        b"\x80\x05\x96" + b"\xff" * 7 + b"\x0f.",
        b"\x80\x02]q\x00h\x00a.",
        pickle.dumps(nested(60)),
        b"(" * 100_000 + b"t" * 100_000 + b".",
        b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
        b"\x80\x02cbuiltins\neval\nX\x04\x00\x00\x001/0\n\x85R.",
        b"\x80\x02(X\x07\x00\x00\x00storageX\x01\x00\x00\x00aX\x01\x00\x00\x000tQ.",
    ],
    ids=["memo", "bytearray", "a list within itself", "laughs", "marks", "deep", "eval", "storage"],
)
def test_hostile_pickles(tmp_path, data):
    refused(repickled(tmp_path / "net.pt", data), "expected .*, got .*")


def rebuilt(offset, size, strides):
    """Return the pickle of a state_dict whose tensor lies so in a storage of 100 numbers."""

    class Storage:
        pass

    class Tensor:
        def __reduce__(self):
            return (torch._utils._rebuild_tensor_v2, (Storage(), offset, size, strides, False, OrderedDict()))

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            return ("storage", torch.FloatStorage, "0", "cpu", 100) if isinstance(value, Storage) else None

    Pickler(file := io.BytesIO(), 2).dump({"weight_hh": Tensor(), "weight_ih": Tensor()})
    return file.getvalue()


@pytest.mark.parametrize(
    ("offset", "size", "strides"),
    [(0, (11, 11), (11, 1)), (99, (2, 2), (1, 1)), (-1, (2, 2), (2, 1)), (0, (2, 2), (-1, 1)), (0, (2, 2), (2**61, 1))],
)
def test_a_tensor_beyond_its_storage(tmp_path, offset, size, strides):
    path = repickled(tmp_path / "net.pt", rebuilt(offset, size, strides))
    refused(path, "expected .*weight_.h: expected a tensor within its storage, got one beyond it")
    good = repickled(tmp_path / "good.pt", rebuilt(1, (3, 3), (3, 1)))
    assert read(str(good), T, B).layers["good"].cell == "rnn"


def test_a_tensor_that_is_larger_than_its_file(tmp_path):
    huge = torch.zeros(1).expand(4 * 20_000, 20_000)
    refused(
        save(torch, {"weight_ih_l0": huge, "weight_hh_l0": huge}, tmp_path / "huge.pt"),
        "expected recurrent layers of at most 536,870,912 numbers, got 3,200,000,000",
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("end", [".pt", ".safetensors"])
def test_infinity_is_no_weight(tmp_path, value, end):
    state = nn.LSTM(I, H).state_dict()
    state["bias_hh_l0"][3], state["bias_ih_l0"][3] = value, -value
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        refused(save(torch, state, tmp_path / f"nan{end}"), "nan: expected finite weights, got infinite ones or NaN")


def test_a_flipped_byte_is_found(tmp_path):
    path = save(torch, state_of("LSTM"), tmp_path / "net.pt")
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as file:
        (entry,) = (one for one in file.infolist() if one.filename.endswith("/data/1"))
    data[data.index(state_of("LSTM")["rnn.weight_hh_l0"].numpy().tobytes()) + 9] ^= 4
    path.write_bytes(data)
    refused(path, ".*rnn.weight_hh_l0: data/1: the zip file's checksum says that it was changed or cut.*")
    assert entry.file_size == 4 * H * H * 4


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path):
    plain = save(torch, state_of("LSTM"), tmp_path / "plain.pt")
    path = tmp_path / "packed.pt"
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as to:
        for name in source.namelist():
            to.writestr(name, source.read(name))
        ref = read(str(plain), T, B).layers["rnn"].network[0][0].W
    np.testing.assert_array_equal(read(str(path), T, B).layers["rnn"].network[0][0].W, ref)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as to, to.open("plain/data/9", "w") as file:
        for _ in range(33):
            file.write(bytes(2**20))
    refused(path, "expected what torch.save writes, got a zip file that is compressed")


def legacy(path):
    torch.save(state_of("LSTM"), path, _use_new_zipfile_serialization=False)


def tar(path):
    with tarfile.open(path, "w") as file:
        file.add(__file__, "storages")


def exported(path):
    program = torch.export.export(nn.Linear(2, 2), (torch.zeros(1, 2),))
    torch.export.save(program, path.with_suffix(".pt2"))
    path.with_suffix(".pt2").rename(path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("end", [".pt", ".ckpt", ".bin"])
@pytest.mark.parametrize(
    ("write", "words"),
    [
        (legacy, r"what torch\.save wrote before PyTorch 1\.6 \(load it and save it again\)"),
        (tar, r"a tar file, as PyTorch wrote before 0\.1\.10 \(load it and save it again\)"),
        (lambda path: path.write_bytes(pickle.dumps({"a": 1}, 2)), r"a pickle by itself \(save it with torch\.save\)"),
        (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n"), "an HDF5 file"),
        (lambda path: path.write_bytes(b"hello"), "something else"),
    ],
)
def test_files_of_other_kinds(tmp_path, write, words, end):
    path = tmp_path / f"net{end}"
    write(path)
    refused(path, f"expected what torch.save writes, a zip file, got {words}")


def test_a_program_of_torch_export(tmp_path):
    exported(tmp_path / "net.pt")
    refused(tmp_path / "net.pt", r"expected a zip file with data\.pkl, .*, got a program of torch\.export .*")


def test_pytorch_is_not_needed_to_read_its_files(tmp_path, monkeypatch):
    path = save(torch, state_of("LSTM"), tmp_path / "net.pt")
    monkeypatch.setattr(models, "library", lambda *_: pytest.fail("a library was asked for"))
    assert read(str(path), T, B).layers["rnn"].cell == "lstm"


def test_an_index_tells_which_shard_an_array_is_of(tmp_path):
    module = nn.LSTM(I, H)
    state = {f"lstm.{name}": a for name, a in module.state_dict().items()}
    stray = {name: a * 2 for name, a in state.items()} | {"lstm.beside": torch.ones(1)}
    torch.save(state, tmp_path / "n-1.bin")
    torch.save({"fc.weight": torch.ones(2, 2), **stray}, tmp_path / "n-2.bin")
    places = dict.fromkeys(state, "n-1.bin") | {"fc.weight": "n-2.bin"}
    path = tmp_path / "n.bin.index.json"
    path.write_text(json.dumps({"weight_map": places}))
    expect_equal(path, {"lstm": module})


def test_two_arrays_of_one_name(tmp_path):
    state = nn.LSTM(I, H).state_dict()
    name = "lstm.weight_ih_l0"
    torch.save({name: state["weight_ih_l0"] * 2, "lstm": state}, tmp_path / "net.pt")
    refused(tmp_path / "net.pt", f"expected arrays whose names are all different, got two of {name}")
    torch.save({name: state["weight_ih_l0"], "lstm": state}, tmp_path / "net.pt")  # one and the same
    assert read(str(tmp_path / "net.pt"), T, B).layers.keys() == {"lstm"}


def test_weights_that_are_no_tensors_are_not_missing(tmp_path):
    state = nn.LSTM(I, H).state_dict()
    torch.save({name: a.numpy() if "bias" in name else a for name, a in state.items()}, tmp_path / "net.pt")
    why = "bias_ih_l0: expected a dense tensor of numbers with a fraction, got an object of numpy"
    refused(tmp_path / "net.pt", f"expected a recurrent .*, got net: {why}")


def test_a_forward_of_the_objects_own(tmp_path):
    module = nn.LSTM(I, H)
    module.forward = MethodType(nn.LSTM.forward, module)
    torch.save(nn.Sequential(module), tmp_path / "net.pt")
    refused(tmp_path / "net.pt", r".*got 0: a hook of its own, forward, which may change what it computes")


def test_a_tensor_without_numbers(tmp_path):
    torch.save({"weight_ih_l0": torch.ones(4 * H, 0), "weight_hh_l0": torch.ones(4 * H, H)}, tmp_path / "net.pt")
    refused(tmp_path / "net.pt", r".*weight_ih_l0: expected a tensor with numbers in it, got shape \(28, 0\)")
