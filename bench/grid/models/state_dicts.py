"""Recurrent layers among named arrays, as PyTorch's modules call theirs: encoder.lstm.weight_hh_l0 and its neighbours.

What lies in one module is a group. Its equations are known where its class is PyTorch's own, or where no class is named
and there is nothing in the group but what PyTorch's own have; that is told. A weight that is computed from others is
computed as PyTorch does it in `eval()`, and told: weight_norm, spectral_norm, pruning, and the raw weights of a weight
drop. Whatever else stands beside the weights makes it another layer, which is left out by name.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from math import prod
from typing import Any, NamedTuple

import numpy as np

from bench.grid.models import Found, Layer, ModelError, activated, expect_numbers, layer_of
from reference.layouts import from_torch

PART = r"(?:weight|bias)_(?:ih|hh|hr)(?:_l\d{1,5}(?:_reverse)?)?"
MADE = r"_raw|_orig|_mask|_[guv]"  # what a weight is computed from
NAME = re.compile(
    rf"(?:(?P<module>.*)\.)?(?:(?P<part>{PART})(?P<end>{MADE})?"
    rf"|parametrizations\.(?P<whole>{PART})\.(?P<original>original[01]?|0\._[uv]))",
    re.DOTALL,
)
OWN = re.compile(r"torch\.nn\.modules\.rnn\.(RNN|GRU|LSTM)(?:Cell)?")
QUANTIZED = re.compile(r"(?:(.*)\.)?_(?:all_weight_values|packed_weight_(?:ih|hh))(?:\..*)?", re.DOTALL)
ALIKE = (
    "the equations are taken to be PyTorch's, by the names and sizes of the weights, since the file holds no classes"
)

# Which parts of names say that arrays are no weights, or the average of others.
OPTIMIZER = re.compile(r"(?:^|\.)(?:optim\w*|\w*exp_avg\w*|\w*momentum\w*|grads?)(?=\.|$)", re.IGNORECASE)
AVERAGED = re.compile(r"(?:^|[._])(?:ema|swa|shadow|averaged)(?=[._]|$)", re.IGNORECASE)

# Recurrent layers of other libraries, by what their arrays are called.
OTHERS = {
    r"rnn_lst\.\d+\.weight_c": "an SRU, which no cell here is",
    r"to_hidden_and_gate\.weight": "a minGRU or minLSTM, which no cell here is",
    r"recurrent_kernel": "named as by haste or a cell of one's own, whose equations are not known",
}


class About(NamedTuple):
    """What a file says of a module beside its arrays."""

    kind: str  # its class, module.name
    activation: str | None = None
    hooks: tuple[str, ...] = ()  # their classes


def grouped(
    shapes: Mapping[str, tuple[int, ...]],
    get: Callable[[str], np.ndarray],
    alone: str,
    seq_len: int,
    batch_size: int,
    activation: str | None = None,
    classes: Mapping[str, About] | None = None,
    same: Callable[[str], Any] = lambda name: name,
    objects: Iterable[str] = (),
) -> Found:
    """Return what is found in arrays whose names and shapes are known and which `get` reads.

    A layer whose arrays have no more of a name is called `alone`. `classes` are the modules that the file tells, by
    their names; `same` gives what is equal for arrays that are one and the same; `objects` are the names of what is no
    array.
    """
    groups = _groups(shapes)
    expect_numbers(sum(prod(shapes[full]) for group in groups.values() for full in group.values()))
    found: list[Layer] = []
    left_out: dict[str, str] = {}
    taken: dict[tuple, str] = {}
    for module, group in groups.items():
        name = module or alone
        try:
            about = (classes or {}).get(module)
            _expect_own(module, group, shapes, about)
            _expect_first(module, group, shapes, groups)
            arrays, told = _computed(group, get)
            once = tuple(sorted((part, same(full)) for part, full in group.items()))
            if taken.setdefault(once, name) != name:
                raise ModelError(f"the same weights as {taken[once]}")
            layer = layer_of(name, from_torch, arrays, seq_len=seq_len, batch_size=batch_size)
            if about is None:
                told.append(ALIKE)
            elif (kind := OWN.fullmatch(about.kind)) and kind[1].lower() != layer.cell:
                raise ModelError(f"weights of the sizes of {layer.cell.upper()} in a class called {about.kind}")
            if not any(part.startswith("bias") for part in arrays):
                told.append("no biases are in the file, so that they are zero")
            layer = layer._replace(told=tuple(told))
            found.append(activated(layer, about.activation if about else None, activation))
        except ModelError as error:
            left_out[name] = str(error)
    return Found(found, left_out | _foreign([*shapes, *objects], groups, alone))


def _groups(names: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Return the full names of each module's arrays that belong to recurrent weights, by the names within it."""
    found: dict[str, dict[str, str]] = {}
    for full in names:
        if match := NAME.fullmatch(full):
            part = match["part"] or match["whole"]
            end = match["end"] or (match["original"] and f".{match['original']}") or ""
            found.setdefault(match["module"] or "", {})[part + end] = full
    for module in list(found):  # what fastai's WeightDropout keeps beside the module that it wraps
        inner = f"{module}.module" if module else "module"
        if inner in found and all(part.endswith("_raw") for part in found[module]):
            found[inner] = {**found[inner], **found.pop(module)}
    return found


def _expect_own(module: str, group: dict[str, str], names: Mapping[str, Any], about: About | None) -> None:
    """Raise a ModelError for a group that is no plain layer of PyTorch."""
    if OPTIMIZER.search(module):
        raise ModelError("an optimizer's, not the weights of a layer")
    if any(part.startswith("weight_hr") for part in group):
        raise ModelError("a projection of its states (proj_size), which no cell here has")
    if about is not None:
        if not OWN.fullmatch(about.kind):
            raise ModelError(f"its class is {about.kind}, whose equations are not known")
        if strange := [hook for hook in about.hooks if not hook.startswith("torch.nn.utils.")]:
            raise ModelError(f"a hook of its own, {strange[0]}, which may change what it computes")
        return
    start = f"{module}." if module else ""
    mine = set(group.values())
    beside = [
        full.removeprefix(start)
        for full in names
        if full.startswith(start) and full not in mine and not full.startswith(f"{start}_flat_weights.")
    ]
    if beside:
        few = ", ".join(beside[:2]) + ", ..." * (len(beside) > 2)
        raise ModelError(f"{few} beside its weights, so that it is no plain layer of PyTorch")


def _expect_first(
    module: str, group: dict[str, str], shapes: Mapping[str, tuple], groups: Mapping[str, dict[str, str]]
) -> None:
    """Raise a ModelError for an averaged copy of a group that is there as well."""
    if not AVERAGED.search(module):
        return
    mine = {part: shapes[full] for part, full in group.items()}
    for other, its in groups.items():
        if not AVERAGED.search(other) and {part: shapes[full] for part, full in its.items()} == mine:
            raise ModelError(f"an averaged copy of {other or 'the layer'}")


def _computed(group: dict[str, str], get: Callable[[str], np.ndarray]) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return the weights of a group by PyTorch's names, computed where they are made of others, and what is told."""
    ends: dict[str, dict[str, str]] = {}
    for part, full in group.items():
        match = re.fullmatch(rf"({PART})(.*)", part)
        assert match is not None
        ends.setdefault(match[1], {})[match[2]] = full
    arrays, told = {}, []
    for part, made in ends.items():
        array, words = _weight(part, {end: get(full) for end, full in made.items()})
        arrays[part] = array
        if words and words not in told:
            told.append(words)
    return arrays, told


def _weight(part: str, made: dict[str, np.ndarray]) -> tuple[np.ndarray, str]:
    """Return a weight of what it is made of, and what is told of it."""
    last = set(made) - {""}  # beside it may stand what was computed last, which training has gone past
    with np.errstate(all="ignore"):
        if not last:
            return made[""], ""
        if last == {"_raw"}:
            return made["_raw"], "the raw weights of a weight drop are taken, as eval() does"
        if last == {"_orig", "_mask"} and made["_orig"].shape == made["_mask"].shape:
            return made["_orig"] * made["_mask"], "pruned weights are taken times their masks"
        for g, v in (("_g", "_v"), (".original0", ".original1")):
            if last == {g, v}:
                return _normed(made[g], made[v]), "the weights are computed from those of weight_norm, g v / |v|"
        for w, u, v in (("_orig", "_u", "_v"), (".original", ".0._u", ".0._v")):
            if last == {w, u, v} and made[w].shape == (*made[u].shape, *made[v].shape):
                words = "the weights are computed from those of spectral_norm as eval() does, W / (u' W v)"
                return made[w] / (made[u] @ made[w] @ made[v]), words
    beside = ", ".join(f"{part}{end}" for end in sorted(last))
    raise ModelError(f"{beside} beside its weights, so that it is no plain layer of PyTorch")


def _normed(g: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Return g v / |v|, the norm over all axes but that of g, or over all if g is one number."""
    if g.size == 1:
        axes = None if g.ndim == 0 or len(v) > 1 else tuple(range(1, v.ndim))
    elif g.ndim == v.ndim and all(n in (1, size) for n, size in zip(g.shape, v.shape, strict=True)):
        axes = tuple(axis for axis, n in enumerate(g.shape) if n == 1)
    else:
        raise ModelError(f"expected the g of weight_norm to fit its v, got shapes {g.shape} and {v.shape}")
    return v * (g / np.sqrt(np.sum(v * v, axis=axes, keepdims=True)))


def _foreign(names: Iterable[str], groups: Mapping[str, Any], alone: str) -> dict[str, str]:
    """Return the layers that other libraries and quantization make, by name, each with why it is left out."""
    found: dict[str, str] = {}
    for full in names:
        if match := QUANTIZED.fullmatch(full):
            found.setdefault(match[1] or alone, "quantized by PyTorch: its packed weights of int8 are not read")
        for pattern, words in OTHERS.items():
            if match := re.fullmatch(rf"(?:(.*)\.)?{pattern}", full, re.DOTALL):
                found.setdefault(match[1] or alone, words)
    return {name: words for name, words in found.items() if name not in groups}
