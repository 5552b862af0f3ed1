"""What to measure when little is said: a preset is a set of grids and the effort spent on each case.

A preset of your own is a TOML file, `--preset path/to/grid.toml`, with the fields of `Grid` and `Effort`:

    description = "My speech model"  # optional, shown in the report
    implementations = ["numpy", "numba-simd", "torch"]  # optional

    [effort]  # optional, as is each line of it
    case_s = 4.0

    [[grids]]  # one or more; hidden and batch must be there
    cell = ["gru", "lstm"]
    hidden = [320, 640]
    batch = [1]
    seq_len = [100]

The sizes of `deepbench` are those of the recurrent layers in Baidu's DeepBench (github.com/baidu-research/DeepBench,
code/kernels/rnn_problems.h, training_set, inference_server_set and inference_device_set). The rules differ:

- DeepBench leaves out the product with the inputs, and the gradient of the inputs. Ours are always there, so these
  cases have I = 1, where both cost next to nothing.
- DeepBench's vanilla RNN and the GRU's candidate have a ReLU; ours have tanh, as everybody's default (the
  RNN's may be chosen: `--activation relu`).
- DeepBench includes the time for converting weights to a library's own format. Ours does in training, where weights
  change with every call; inference starts from prepared weights.
- DeepBench trusts vendors' libraries, and takes the mean of many calls of one; ours are verified and take turns.

Left out, for the time and the memory that they take on a CPU: the LSTM of H = 4096, and sequences of 375 to 1500 steps
of the GRU, whose sizes are all there with 187 steps but for H = 1024.
"""

import tomllib
from math import prod
from reprlib import repr as brief
from typing import NamedTuple

from bench.grid.cases import (
    ACTIVATIONS,
    CALLS,
    DTYPES,
    LOW_OPERATIONS,
    OPERATIONS,
    STREAM,
    ChoiceError,
    Grid,
    check,
    either,
    parse,
)
from bench.grid.deployed import DEPLOYED


class Effort(NamedTuple):
    """How long to look at one case."""

    round_s: float = 0.02  # the length of one round of one implementation; several calls if they are short
    fewest: int = 11  # rounds, whatever they cost
    case_s: float = 2.0  # the time limit for all rounds of all implementations beyond the fewest
    precision: float = 0.03  # the share to which the rounds are to tell each ratio: half of `rounds_ratio`'s interval
    period_s: float = 0.001  # of a stream: from one call to the next, where they come at a fixed pace
    lives: int = 1  # how often each case is measured by new processes, whose luck the intervals allow for


class Preset(NamedTuple):
    description: str  # one line
    grids: tuple[Grid, ...]
    effort: Effort
    implementations: tuple | None = None  # None: all that need not be asked for (`bench.implementations.IF_ASKED`)
    sources: tuple[tuple[str, str], ...] = ()  # where the sizes of each model are written, in a line


PRESET = "quick"  # where none is named
MOST_BYTES = 2**14  # of a file: of more the parser can make minutes
MOST_CASES = 100_000  # in a run

CELLS = ("rnn", "gru", "lstm")
INFERENCE, TRAINING = ("forward",), ("train",)
BELOW = ("bfloat16", "int8")
NETWORKS: dict = {"input": (64,), "layers": (1, 2), "directions": (1, 2), "lengths": ("full", "ragged")}

PRESETS = {
    "quick": Preset(
        "a first look in about two minutes: mostly the RNN, a little GRU and LSTM, one thread",
        grids=(
            Grid(hidden=(16, 64, 256), batch=(1, 32)),
            Grid(hidden=(64,), batch=(1, 32), cell=("gru", "lstm"), operation=("forward", "train")),
        ),
        effort=Effort(round_s=0.01, fewest=7, case_s=0.8),
        implementations=("numpy", "numba-simd", "torch"),  # numba-jit compiles for as long as all of this takes
    ),
    "standard": Preset(
        "the RNN over many sizes with one and two threads, the GRU and the LSTM in a few: a coffee break",
        grids=(
            Grid(hidden=(16, 64, 128, 256, 512), batch=(1, 32), seq_len=(10, 50, 200), threads=(1, 2)),
            Grid(hidden=(64, 256), batch=(1, 32), dtype=("float64",)),
            Grid(hidden=(64, 256), batch=(1, 32), cell=("gru", "lstm"), threads=(1, 2)),
        ),
        effort=Effort(),
    ),
    "full": Preset(
        "every cell, operation and implementation, H from 16 to 1024, T from 1 to 1000, one and two threads",
        grids=(
            Grid(hidden=(16, 64, 128, 256, 512, 1024), batch=(1,), cell=CELLS, threads=(1, 2)),
            Grid(hidden=(16, 64, 128, 256, 512), batch=(32,), cell=CELLS, threads=(1, 2)),
            Grid(hidden=(1024,), batch=(32,), seq_len=(10,), cell=CELLS, threads=(1, 2)),
            Grid(hidden=(64,), batch=(1,), seq_len=(10, 200, 1000), cell=CELLS, operation=("forward", "train")),
            Grid(hidden=(64, 256), batch=(1, 32), cell=CELLS, operation=("forward", "train"), dtype=("float64",)),
        ),
        effort=Effort(round_s=0.015, fewest=9, case_s=1.5),
    ),
    "limits": Preset(
        "the sizes for which goals are set: every cell and peer, one and two threads, up to H = 1024 and B = 64",
        grids=(
            Grid(hidden=(16, 100, 128, 256, 512, 1024), batch=(1,), cell=CELLS, threads=(1, 2)),
            Grid(hidden=(256,), batch=(1,), seq_len=(100,), cell=CELLS, threads=(1, 2)),
            Grid(hidden=(128, 512), batch=(32,), cell=CELLS, threads=(1, 2)),
            Grid(hidden=(1024,), batch=(64,), cell=CELLS, threads=(1, 2)),
            Grid(hidden=(64,), batch=(1,), seq_len=(1000,), cell=CELLS, operation=("forward", "train")),
            Grid(hidden=(64, 512), batch=(1, 32), cell=CELLS, operation=("forward", "train"), dtype=("float64",)),
        ),
        effort=Effort(case_s=4.0),
    ),
    "low": Preset(
        "weights of int8 and bfloat16, inference alone, H from 64 to 1024: what they buy and what they cost",
        grids=(
            Grid((64, 128, 256, 512), (1, 32), (50,), INFERENCE, (1, 2), BELOW, cell=CELLS),
            Grid((256,), (4, 64), (50,), INFERENCE, (1, 2), BELOW, cell=CELLS),
            Grid((1024,), (1, 4), (20,), INFERENCE, (1, 2), BELOW, cell=CELLS),
            Grid((1024,), (32, 64), (10,), INFERENCE, (1, 2), BELOW, cell=CELLS),
        ),
        effort=Effort(round_s=0.01, fewest=9, case_s=1.5),
        implementations=("numpy", "numba-simd", "torch", "jax", "onnxruntime", "openvino"),
    ),
    "networks": Preset(
        "one and two layers, one and two directions, full and ragged lengths, with one and two threads",
        grids=(
            Grid((64, 256), (1, 32), (50,), INFERENCE + TRAINING, (1, 2), **NETWORKS, cell=("lstm",)),
            Grid((128,), (1, 32), (50,), INFERENCE + TRAINING, (1, 2), **NETWORKS, cell=("rnn", "gru")),
        ),
        effort=Effort(round_s=0.015, fewest=7, case_s=1.0),
        implementations=("numpy", "numba-simd", "torch", "jax", "onnxruntime", "openvino"),
    ),
    "versions": Preset(
        "our kernels against another version of them, by four processes each: every cell, inference and training",
        grids=(
            Grid((64,), (1,), (50,), INFERENCE + TRAINING, cell=CELLS),
            Grid((128,), (32,), (50,), INFERENCE + TRAINING, cell=CELLS),
        ),
        effort=Effort(round_s=0.01, case_s=0.5, precision=0.02, lives=4),
        implementations=("numba-simd",),
    ),
    "stream": Preset(
        "a step a call, B = 1, each call timed: back to back, and at a fixed pace with its misses and its tail",
        grids=(Grid((16, 64, 128, 256), (1,), (1000,), (STREAM,), cell=CELLS),),
        effort=Effort(),
        implementations=("numpy", "numba-simd", "torch", "jax", "onnxruntime", "openvino"),
    ),
    "models": Preset(
        "the recurrent layers of networks that people run, from voice activity to language models, with sources",
        grids=tuple(one.grid for one in DEPLOYED),
        effort=Effort(case_s=1.5),
        implementations=("numpy", "numba-simd", "torch", "jax", "onnxruntime", "openvino"),
        sources=tuple((one.name, one.source) for one in DEPLOYED),
    ),
    "deepbench": Preset(
        "the recurrent layers of Baidu's DeepBench, training and inference, with I = 1 (see bench/grid/presets.py)",
        grids=(
            Grid((1760, 2048, 2560), (16, 32, 64, 128), (50,), TRAINING, cell=("rnn",), input=(1,)),
            Grid((512, 1024, 2048), (16, 32, 64, 128), (25,), TRAINING, cell=("lstm",), input=(1,)),
            Grid((1536,), (8, 16, 32), (50,), TRAINING, cell=("lstm",), input=(1,)),
            Grid((256,), (16, 32, 64), (150,), TRAINING, cell=("lstm",), input=(1,)),
            Grid((1536, 2048, 2560, 2816), (32,), (187,), TRAINING, cell=("gru",), input=(1,)),
            Grid((512,), (32,), (1,), TRAINING, cell=("gru",), input=(1,)),
            Grid((512, 1024, 2048), (1, 2, 4), (25,), INFERENCE, cell=("lstm",), input=(1,)),
            Grid((1536,), (1, 2, 4), (50,), INFERENCE, cell=("lstm",), input=(1,)),
            Grid((256,), (1, 2, 4), (150,), INFERENCE, cell=("lstm",), input=(1,)),
            Grid((1536, 2048, 2560, 2816), (1, 2, 4), (187,), INFERENCE, cell=("gru",), input=(1,)),
            Grid((512,), (1, 2, 4), (1,), INFERENCE, cell=("gru",), input=(1,)),
            Grid((32,), (1,), (672,), INFERENCE, cell=("rnn",), input=(1,)),
            Grid((64,), (1,), (96,), INFERENCE, cell=("rnn",), input=(1,)),
        ),
        effort=Effort(round_s=0.05, case_s=5.0),
    ),
}

OPTIONS = {
    "preset": "The grid to start from: a TOML file of your own (bench/grid/presets.py shows one), or "
    + "; ".join(f"{name}: {preset.description}" for name, preset in PRESETS.items())
    + ".",
    "model": "In the place of a preset, the recurrent layers in a file, with their own weights: .onnx, PyTorch's .pt, "
    ".pth, .ckpt, .bin and .safetensors, or the index of several, .keras or .weights.h5.",
    "cell": "Cells, separated by commas: rnn, gru, lstm.",
    "operation": "Operations: forward_step, forward, bptt, train; or stream, T calls of a step, each of them timed.",
    "hidden": "Hidden sizes H.",
    "seq_len": "Sequence lengths T.",
    "batch": "Batch sizes B.",
    "input": "Input sizes I. By default 1 where B = 1, and H otherwise.",
    "dtype": "float32, float64; and below them, for inference: bfloat16, int8.",
    "layers": "Layers upon each other, each the input of the next.",
    "directions": "1, or 2 for a network that reads each sequence from its end as well.",
    "lengths": "full, all sequences of T steps, or ragged: lengths drawn from T/2 to T, the same for each T and B.",
    "activation": "Activations of the RNN: tanh, relu, sigmoid. Beside --model the one of an RNN whose file says none.",
    "threads": "Thread counts; each gets processes of its own.",
    "implementations": "Who takes part: numpy, numba-jit, numba-simd, torch...",
    "precision": "How well the rounds are to tell each ratio, half a 95% interval, before a case is done: 3%.",
    "period": "Of a stream: the time from one call to the next where they come at a fixed pace: 1ms.",
}


def find_preset(name):
    """Return the preset of this name or in this TOML file, or raise a ChoiceError."""
    if name in PRESETS:
        return PRESETS[name]
    if not name.endswith(".toml"):
        raise ChoiceError(f"--preset: expected {either(PRESETS)}, or a .toml file, got {name!r}")
    try:
        with open(name, "rb") as file:
            data = file.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise ValueError(f"expected at most {MOST_BYTES >> 10} KiB, got more")
        table = tomllib.loads(data.decode("utf-8-sig"))
    except OSError as error:
        raise ChoiceError(f"--preset: {name}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ChoiceError(f"{name}: not TOML: {error}") from None
    return _from_table(table, name)


def choose(preset, cpus, **choices):
    """Return the cases of a Preset for a machine of so many CPUs, with each given choice in the place of the preset's.

    Choices are the fields of `Grid`, as texts like "64,128"; None leaves the preset's. A preset's thread counts
    beyond the CPUs are left out; asked for by name they are a ChoiceError, as is any other bad choice.
    """
    given = {
        name: parse(name, text, "--" + name.replace("_", "-")) for name, text in choices.items() if text is not None
    }
    if max(given.get("threads", (0,))) > cpus:
        most = max(given["threads"])
        raise ChoiceError(f"--threads: expected at most {cpus}, the CPUs this process may use, got {most}")
    if (total := sum(prod(map(len, grid._replace(**given))) for grid in preset.grids)) > MOST_CASES:
        raise ChoiceError(f"--preset: expected a grid of at most {MOST_CASES} cases, got {total}")
    if given.keys() & {
        "cell",
        "hidden",
        "input",
        "layers",
        "directions",
        "activation",
    }:  # then it is no longer what a model has
        given["model"] = ("",)
    fitting = [grid._replace(threads=tuple(n for n in grid.threads if n <= cpus)) for grid in preset.grids]
    grids = [grid._replace(**given) for grid in fitting]
    cases = list(dict.fromkeys(case for grid in grids for case in grid.cases()))
    if not cases and any(grid.threads for grid in grids):
        operations = dict.fromkeys(name for grid in grids for name in grid.operation)
        if not any(set(grid.dtype) & set(BELOW) for grid in grids):
            got = "single steps alone, which know neither two directions nor lengths"
            raise ChoiceError(f"--operation: expected {either(CALLS[1:])}, got {got}")
        raise ChoiceError(f"--operation: expected {either(LOW_OPERATIONS)} below float32, got {', '.join(operations)}")
    if not cases:
        raise ChoiceError(f"--preset: all of its thread counts are beyond {cpus}, the CPUs this process may use")
    if "activation" in given and not any(case.cell == "rnn" for case in cases):
        got = ", ".join(dict.fromkeys(case.cell for case in cases))
        raise ChoiceError(
            f"--activation: expected an rnn in the grid, since the other cells have none to choose, got {got}"
        )
    if all(case.low and case.activation == "relu" for case in cases):
        raise ChoiceError(
            f"--dtype: expected {either(DTYPES)} beside relu, whose states have no bound, got {cases[0].dtype}"
        )
    order = {name: n for n, name in enumerate((*CELLS, *OPERATIONS))}
    return sorted(cases, key=lambda c: (c.threads, order[c.cell], c.dtype, *_sizes(c), order[c.operation]))


def share(text, where):
    """Return a share given as "5%" or "0.05", or raise a ChoiceError that begins with `where`."""
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise ChoiceError(f"{where}: expected a share such as 5% or 0.05, got {text!r}")
    return value


def duration(text, where):
    """Return the seconds of a text such as "1ms", "500us", "0.01s", or raise a ChoiceError that begins with `where`."""
    number = text.rstrip("smuµ")
    unit = {"s": 1, "ms": 1e-3, "us": 1e-6, "µs": 1e-6}.get(text[len(number) :])
    try:
        value = float(number) * unit
    except (TypeError, ValueError):
        value = -1.0
    if not 1e-6 <= value <= 60:
        raise ChoiceError(f"{where}: expected a time from 1us to 60s, such as 1ms, got {text!r}")
    return value


def _sizes(case):
    network = (case.layers, case.directions, case.lengths, ACTIVATIONS.index(case.activation))
    return *network, case.hidden_size, case.batch_size, case.input_size, case.seq_len


def _from_table(table, path):
    """Return the Preset in a parsed TOML file, or raise a ChoiceError."""
    _known(table, ("description", "implementations", "effort", "grids"), path)
    description = table.get("description", "")
    if not isinstance(description, str):
        raise ChoiceError(f"{path}: description: expected a text, got {brief(description)}")
    names = table.get("implementations")
    if names is not None and not (isinstance(names, list) and names and all(isinstance(name, str) for name in names)):
        raise ChoiceError(f"{path}: implementations: expected a list of names, got {brief(names)}")
    grids = table.get("grids")
    if not (isinstance(grids, list) and grids):
        raise ChoiceError(f"{path}: grids: expected one table [[grids]] or more, got {brief(grids)}")
    return Preset(
        description,
        tuple(_grid(grid, f"{path}: grids[{n}]") for n, grid in enumerate(grids)),
        _effort(table.get("effort", {}), f"{path}: effort"),
        None if names is None else tuple(names),
    )


def _grid(table, where):
    _known(table, Grid._fields, where)
    for name in ("hidden", "batch"):
        if name not in table:
            raise ChoiceError(f"{where}.{name}: expected a list of whole numbers, got nothing")
    return Grid(**{name: check(name, values, f"{where}.{name}") for name, values in table.items()})


def _effort(table, where):
    _known(table, Effort._fields, where)
    for name, value in table.items():
        whole = name in ("fewest", "lives")
        if type(value) not in ((int,) if whole else (int, float)) or not 0 < value < float("inf"):
            raise ChoiceError(
                f"{where}.{name}: expected a {'whole ' if whole else ''}number above 0, got {brief(value)}"
            )
    return Effort(**table)


def _known(table, names, where):
    if not isinstance(table, dict):
        raise ChoiceError(f"{where}: expected a table, got {brief(table)}")
    for name in table:
        if name not in names:
            raise ChoiceError(f"{where}: expected {either(names)}, got {brief(name)}")
