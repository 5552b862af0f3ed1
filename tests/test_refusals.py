"""The check of all refusals finds what is foreign, whichever way it was told."""

import subprocess
import sys

import numpy as np
import pytest

from bench.grid.cases import ChoiceError
from kernels.core.doors.checks import check_dtype
from tests import refusals


@pytest.mark.parametrize(
    "message",
    [
        "--file: got \x1b[1mbold",
        "--file: got ?[1mbold",
        "--file: two\nlines",
        "x: expected a number, got <class 'int'>",
        "Traceback (most recent call last)",
        "Multiple files found. Issues with 2 of them",
        "[Errno 28] No space left on device",
        "a: expected dtype float32, got dtype('<f8')",
        "a: expected 1, got np.float64(2.0)",
        "not JSON (JSONDecodeError: Expecting value: line 1 column 1)",
        "KeyError: 'layers'",
        "Error tokenizing data. C error: Expected 2 fields",
        "expected a state_dict that weights_only=True loads",
    ],
)
def test_what_is_foreign(message):
    assert refusals.foreign(message)


def test_what_is_ours():
    assert refusals.foreign("--hidden: expected whole numbers of 1 or more, separated by commas, got '0\\x1b'") is None


def refuse(message):
    raise ChoiceError(message)


def caught():
    try:
        refuse("expected a number, got <class 'str'>")
    except ChoiceError:
        return


def built_in():
    class Kind(np.dtype(np.int32).type):
        def __repr__(self):
            return "<class 'foreign'>"

    with pytest.raises(TypeError):
        check_dtype("dtype", Kind(1))


def printed():
    program = "import sys; sys.exit('error: one\\nmore')"
    subprocess.run([sys.executable, "-c", program], capture_output=True)


@pytest.mark.parametrize("provoke", [caught, built_in, printed])
def test_a_refusal_is_seen(provoke):
    assert refusals.faults() == []
    provoke()
    assert len(refusals.faults()) == 1
