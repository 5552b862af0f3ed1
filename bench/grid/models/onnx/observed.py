"""A model run by ONNX Runtime, in a process of its own, to see which recurrent nodes run, how often, and on what.

Its profiler tells the shapes of what each node was given, also in branches and loops, and of a run that failed behind
it. The process has a time limit and a share of the memory, so that a file that asks for too much ends it alone.
"""

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

TIME_LIMIT_S = 60  # for all runs of a model
ROOT = Path(__file__).resolve().parents[4]  # where the packages lie


class Seen(NamedTuple):
    """What a run has shown."""

    works: bool
    nodes: dict[str, tuple[int, tuple[int, int]]]  # by name: how often it ran, and the first axes of its x


class Runner:
    """Runs a model; `is_there` tells whether there is an ONNX Runtime to run it."""

    def __init__(self, model: Any, folder: Path) -> None:
        self._place = tempfile.TemporaryDirectory()
        self._child: subprocess.Popen | None = None
        self._left_s = float(TIME_LIMIT_S)
        self._about = {"model": str(Path(self._place.name, "model.onnx")), "folder": str(folder.absolute())}
        self.is_there = find_spec("onnxruntime") is not None
        try:
            Path(self._about["model"]).write_bytes(model.SerializeToString())
        except Exception:  # too large for a protocol buffer
            self.is_there = False

    def __enter__(self) -> "Runner":
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        self._place.cleanup()

    def run(self, inputs: dict[str, tuple], forced: dict[str, bool] | None = None) -> Seen:
        """Return what a run shows on inputs as `bench.grid.inputs.of_model` takes them; an If may be `forced`."""
        nothing = Seen(False, {})
        if not self.is_there or self._left_s <= 0:
            return nothing
        begin = time.monotonic()
        try:
            child = self._child or self._start()
            assert child.stdin is not None
            assert child.stdout is not None
            child.stdin.write(json.dumps({"inputs": inputs, "forced": forced or {}}) + "\n")
            child.stdin.flush()
            line = ""
            if select.select([child.stdout], [], [], self._left_s)[0]:
                line = child.stdout.readline()
            works, nodes = json.loads(line)
        except (OSError, ValueError):  # it has died, or takes too long
            self._end()
            return nothing
        finally:
            self._left_s -= time.monotonic() - begin
        return Seen(works, {name: (count, (axes[0], axes[1])) for name, (count, axes) in nodes.items()})

    def _start(self) -> subprocess.Popen:
        code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from {__name__} import main; main()"
        self._child = subprocess.Popen(
            [sys.executable, "-P", "-c", code, json.dumps(self._about)], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        return self._child

    def _end(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None


def main() -> None:
    """Run a model for each line of standard input, and print a line of JSON of what was seen."""
    about = json.loads(sys.argv[1])
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints
    _bound_memory()
    for line in sys.stdin:
        print(json.dumps(_run(about, json.loads(line))), file=replies, flush=True)


def _bound_memory() -> None:
    if sys.platform == "linux":
        import resource

        most = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 3 // 4
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _run(about: dict, asked: dict) -> tuple[bool, dict[str, tuple[int, list[int]]]]:
    import onnxruntime

    from bench.grid.inputs import of_model
    from bench.grid.models.onnx.graph import NODES

    onnxruntime.set_default_logger_severity(4)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", about["folder"])
    options.enable_profiling, options.profile_file_prefix = True, str(Path(about["model"]).parent / "profile")
    options.log_severity_level = 4
    session, works = None, False
    try:
        data = Path(about["model"]).read_bytes()
        if asked["forced"]:
            data = _forced(data, asked["forced"])
        arrays = of_model(asked["inputs"], 0)
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        session.run(None, arrays)
        works = True
    except Exception:  # whatever the model cannot do: what it did before is told
        if session is None:
            return False, {}
    found: dict[str, tuple[int, list[int]]] = {}
    profile = Path(session.end_profiling())
    events = json.loads(profile.read_text())
    profile.unlink()
    for event in events:
        kind, given = event.get("args", {}).get("op_name", ""), event.get("args", {}).get("input_type_shape") or []
        if event["name"].endswith("_kernel_time") and kind in NODES and given:
            name, (shape,) = event["name"].removesuffix("_kernel_time"), given[0].values()
            if len(shape) == 3:  # a node that refused what it was given has run in name only
                found[name] = found.get(name, (0, []))[0] + 1, shape[:2]
    return works, found


def _forced(data: bytes, conditions: dict[str, bool]) -> bytes:
    """Return a model in which each If of these names takes the branch that its condition tells."""
    import onnx

    model = onnx.load_from_string(data)
    stack = [model.graph]
    while stack:
        graph = stack.pop()
        for node in graph.node:
            stack += [attribute.g for attribute in node.attribute if attribute.HasField("g")]
            if node.op_type == "If" and node.name in conditions:
                node.input[0] = f"forced {conditions[node.name]}"
    for value in (True, False):
        tensor = onnx.helper.make_tensor(f"forced {value}", onnx.TensorProto.BOOL, [], [value])
        model.graph.initializer.append(tensor)
    return model.SerializeToString()
