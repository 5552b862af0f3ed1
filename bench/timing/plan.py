"""What is planned: the cases and implementations of a run, the run that takes them up, and how long it will take."""

import hashlib
import json
import re
import shlex
from datetime import datetime
from importlib import import_module
from inspect import getdoc
from pathlib import Path
from typing import NamedTuple

from bench import implementations
from bench.grid import models
from bench.grid.cases import STREAM, Case, ChoiceError, parse
from bench.grid.models import Model
from bench.grid.presets import PRESET, Effort, Grid, choose, duration, find_preset, share
from bench.implementations import base
from bench.machine import hardware
from bench.machine.describe import describe
from bench.results.files import expect_folder
from bench.results.form import NAME, check
from bench.results.runs import REPORTS, Run, key, unfinished
from bench.timing.elsewhere import elsewhere
from bench.timing.worker import ROOT
from kernels.core.threads.cpus import usable_cpus

SEED = 0
LONG_S = 0.3  # a round of this length is a long one,
FEWEST_LONG = 5  # of which these are enough


class Plan(NamedTuple):
    """What a run is to measure."""

    preset: str
    grid: dict  # the choices as given
    cases: list
    implementations: dict  # the module of each by its name
    effort: Effort
    description: str = ""
    grids: tuple[Grid, ...] = ()  # the preset's own
    elsewhere: dict = {}  # noqa: RUF012 - where those of another version are, by their names
    model: Model | None = None  # the file whose layers are the cases
    sources: dict = {}  # noqa: RUF012 - where the sizes of models are written, by their names

    def taking_part(self, case):
        """Return the names of the implementations that take part in a case."""
        return [name for name in self.implementations if case.low or base(name) not in implementations.BESIDE]


def plan(preset=None, implementations=None, precision=None, period=None, model=None, chosen=None, **choices):
    """Return the Plan for a preset and choices (texts, as `choose` takes them), or raise a ChoiceError.

    The preset is `chosen`, where it was found elsewhere. With the file of a `model` its layers are the cases.
    """
    texts = {"model": model, **choices, "implementations": implementations, "precision": precision, "period": period}
    grid = {name: text for name, text in texts.items() if text is not None}
    read = None
    if model is not None:
        read, choices = _read_model(model, preset, choices)
        preset, chosen = read.path.name, read.preset()
    preset = preset or PRESET
    chosen = chosen or find_preset(preset)
    effort = chosen.effort
    if precision is not None:
        effort = effort._replace(precision=share(precision, "--precision"))
    if period is not None:
        effort = effort._replace(period_s=duration(period, "--period"))
    cases = choose(chosen, usable_cpus(), **choices)
    below = any(case.low for case in cases)
    modules, others = _find_implementations(implementations, chosen.implementations, preset, below)
    return Plan(
        preset, grid, cases, modules, effort, chosen.description, chosen.grids, others, read, dict(chosen.sources)
    )


def _read_model(path, preset, choices):
    """Return the Model in a file and the choices that are left to be made, or raise a ChoiceError."""
    given = {name: text for name, text in choices.items() if text is not None}
    for name in ("cell", "hidden", "input", "layers", "directions", "lengths"):
        if name in given:
            raise ChoiceError(f"--{name}: expected none beside --model, whose file says what it is, got {given[name]}")
    if preset is not None:
        raise ChoiceError(f"--preset: expected none beside --model, got {preset}")
    told = {}
    for name in ("seq_len", "batch", "activation"):
        option = "--" + name.replace("_", "-")
        told[name], *more = parse(name, given.pop(name), option) if name in given else [None]
        if more:
            raise ChoiceError(f"{option}: expected one value beside --model, got {choices[name]}")
    return models.read(path, *told.values()), given


def open_run(plan, reports=REPORTS, fresh=False, command=None):
    """Return (run, resumed): the newest unfinished run of the same plan on the same code and machine, or a new one."""
    expect_folder("--reports", Path(reports))
    about = {"command": command or command_line(plan)}
    return opened(wanted(plan), lambda: about | {"machine": describe(measure=True)}, plan, reports, fresh)


def opened(wanted, about, plan, reports, fresh=False, fits=lambda info: True):
    """Return (run, resumed): the newest unfinished run that is `wanted` and fits, or a new one with what `about` tells.

    A run that is continued goes on behind the last case of which all rows are there.
    """
    run = None if fresh else unfinished(reports, wanted, fits)
    if run is not None:
        _drop_torn_case(run, plan)
        return run, True
    stem = re.sub(r"[^\w.-]+", "-", Path(plan.preset).stem)[:60]
    name = f"{datetime.now():%Y%m%d-%H%M%S}-{stem}"
    names = wanted["implementations"]
    baseline = "numpy" if "numpy" in names else next(iter(names))
    return Run.create(Path(reports, name), {**about(), "baseline": baseline, **wanted}), False


def wanted(plan, host=None):
    """Return what the run.json of a plan's run on this machine must hold; `host` names it where others measure too."""
    about = {name: _about(module, plan.elsewhere.get(name)) for name, module in plan.implementations.items()}
    found = {
        "preset": plan.preset,
        "description": plan.description,
        "grids": [grid._asdict() for grid in plan.grids],
        "effort": plan.effort._asdict(),
        "grid": plan.grid,
        "seed": SEED,
        "implementations": about,
        "source": source(),
        "cpu": hardware.cpu(),
        "cpus": {threads: hardware.cpus_for(threads) for threads in sorted({case.threads for case in plan.cases})},
        "host": host,
    }
    if plan.sources:
        found["sources"] = plan.sources
    if plan.model is not None:
        inputs = plan.model.inputs and {name: one._asdict() for name, one in plan.model.inputs.items()}
        found["model"] = {
            "file": models.clean(plan.model.path.name),
            "digest": plan.model.digest,
            "left_out": plan.model.left_out,
            "told": plan.model.told,
            "calls": {name: layer.calls for name, layer in plan.model.layers.items()},
            "inputs": inputs,
        }
    return json.loads(json.dumps(found))  # as it will be read again


def expected_seconds(case, plan):
    """Guess how long a case takes, for the estimate of the time left.

    A call is taken to cost 10 us a step and its operations at 80 GFLOP/s, or its bytes at 30 GB/s, a thread; building
    and verifying 0.3 s and four calls for each implementation, and the reference and its bound their operations at 10
    GFLOP/s.
    """
    effort = plan.effort
    flops = case.flops * case.calls
    call = 1e-5 * case.seq_len + max(flops / 8e10, case.calls * case.bytes / 3e10) / case.threads**0.8
    names = len(plan.taking_part(case))
    turn = names * max(call, effort.round_s)
    fewest = min(effort.fewest, FEWEST_LONG) if call > LONG_S else effort.fewest
    paced = max(names * case.calls * effort.period_s, effort.case_s) if case.operation == STREAM else 0
    return paced + 0.3 * names + flops / 1e10 + 4 * names * call + max(turn * fewest, effort.case_s)


def _find_implementations(text, names, preset, below):
    """Return the modules of those in `text`, else of the preset's `names`, else of all that need not be asked for.

    Some take part only `below` float32; where a case is, they come with ours unless `text` names others. NAME@WHERE
    takes part beside NAME, and where it is comes second.
    """
    known = implementations.find()
    where = f"{preset}: implementations" if text is None else "--implementations"
    if text is not None:
        names = [name.strip() for name in text.split(",")]
    apart = (*implementations.IF_ASKED, *implementations.BESIDE)
    asked = list(names or (name for name in known if name not in apart))
    chosen, others = list(dict.fromkeys(map(base, asked))), {}
    for name in chosen:
        if name not in known:
            raise ChoiceError(f"{where}: expected some of {', '.join(known)}, got {name!r}")
        if name in implementations.BESIDE and not below:
            raise ChoiceError(f"{where}: expected --dtype bfloat16 or int8 for {name}, got none of them")
    if below and text is None and implementations.OURS in chosen:
        chosen += implementations.BESIDE
    for full in asked:
        if (name := base(full)) != full:
            check(full, NAME, where)
            others[full] = elsewhere(name, full.removeprefix(f"{name}@"), known[name], where)
    names = sorted({*chosen, *others}, key=lambda full: ([*known].index(base(full)), full))
    return {full: known[base(full)] for full in names}, others


def _about(module, elsewhere=None):
    """Return an implementation's entry in run.json."""
    module = import_module(module)
    version = elsewhere.version if elsewhere else module.version()
    absent = {"status": "absent", "message": "not installed"}
    return {
        "version": version,
        **({"status": "ok", "message": None} if version else absent),
        "contains": getdoc(module),
    }


def source():
    """Return a digest of the code under measurement: a run is not continued with other code."""
    digest, rooms = hashlib.sha256(), ("kernels", "reference", "bench/implementations")
    for path in sorted(path for room in rooms for path in (ROOT / room).rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def command_line(plan):
    """Return the command that measures a plan."""
    words = ["python", "-m", "bench", "run"]
    if plan.model is None:
        words += ["--preset", plan.preset]
    for name, text in plan.grid.items():
        words += ["--" + name.replace("_", "-"), text]
    return shlex.join(words)


def _drop_torn_case(run, plan):
    """Drop the last case if a crash left some of its rows unwritten: its implementations are timed together."""
    if not run.rows:
        return
    last = run.rows[-1]
    case = Case(**{name: last[name] for name in Case.__dataclass_fields__})
    rows = [row for row in run.rows if key(row)[:-1] == key(last)[:-1]]
    if len(rows) < len(plan.taking_part(case)):
        run.drop_last(len(rows))
