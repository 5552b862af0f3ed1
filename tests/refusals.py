"""A refusal is one line in our own words: `tests/conftest.py` has every one that a test provokes looked at.

Those are the messages of our own exceptions, of whatever else our source raises into `pytest.raises`, and what a
command prints that a test has started.
"""

import builtins
import re
import subprocess
from pathlib import Path

import pytest

from bench.grid.cases import ChoiceError
from bench.grid.models import ModelError
from bench.implementations import UnsupportedError
from bench.results.form import ResultsError
from bench.timing.worker import WorkerError

ROOT = Path(__file__).parents[1]
OURS = [ROOT / room for room in ("bench", "kernels", "reference")]
KINDS = [ChoiceError, ModelError, ResultsError, UnsupportedError]
BUILT_IN = "|".join(name for name in dir(builtins) if re.search("Error|Exception|Warning$", name))
FOREIGN = re.compile(
    r"[\x00-\x1f\x7f-\x9f]"  # line breaks, and what a terminal obeys
    r"|\?\[\d+(;\d+)*m"  # what is left of that
    r"|<class |<function |<[\w.]+ object| at 0x[0-9a-f]{6}|Traceback|Issues with|Errno|File \"|site-packages"
    r"|\bdtype\(|\bnp\.\w+\(|\barray\("  # NumPy's way to write a value
    rf"|\b({BUILT_IN})\b"
    r"|weights_only|[Uu]npickl|GLOBAL |ONNXRuntimeError|onnx_cpp2py|RUNTIME_EXCEPTION|INVALID_GRAPH|protobuf"
    r"|[Uu]nable to (synchronously )?open|codec can't|Expecting (value|property)|tokenizing|C error|For further info"
)
told: list[str] = []  # what the test that runs has provoked


def foreign(message: str) -> str | None:
    """Return what in a message is not ours, or None."""
    found = FOREIGN.search(message)
    return found and found.group()


def faults() -> list[str]:
    """Return what was told since the last time and is foreign, with what makes it so."""
    found = [f"{text!r}: {what!r}" for text in told if (what := foreign(text))]
    told.clear()
    return found


def watch(patch: pytest.MonkeyPatch) -> None:
    """Have all refusals kept in `told`."""
    for kind in KINDS:
        patch.setattr(kind, "__init__", _telling(kind.__init__))  # type: ignore[misc]
    context = type(pytest.raises(ChoiceError))
    patch.setattr(context, "__exit__", _catching(context.__exit__))
    patch.setattr(subprocess.Popen, "communicate", _reading(subprocess.Popen.communicate))


def _telling(init):
    def made(self, *args):
        init(self, *args)
        told.append(str(self))

    return made


def _catching(leave):
    def left(self, kind, error, trace):
        caught = leave(self, kind, error, trace)
        failed = isinstance(error, (OSError, WorkerError))  # the system's words or a peer's, told as theirs
        if caught and not failed and any(_raiser(trace).is_relative_to(room) for room in OURS):
            told.append(str(error))
        return caught

    return left


def _raiser(trace):
    while trace.tb_next is not None:
        trace = trace.tb_next
    return Path(trace.tb_frame.f_code.co_filename)


def _reading(communicate):
    def read(self, *args, **kwargs):
        written = communicate(self, *args, **kwargs)
        for output in written:
            text = output.decode(errors="replace") if isinstance(output, bytes) else output or ""
            told.extend(error.rstrip("\n") for error in re.findall("^error: .*", text, re.MULTILINE | re.DOTALL))
        return written

    return read
