"""The kernels compiled for other machines, wherever this runs: what their products are made of there."""

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from numba import types

from kernels.core.vectors.dots import PAIRS, QUADS


class Machine(NamedTuple):
    triple: str
    cpu: str
    features: str
    products: dict  # the instructions of a product by the type of its units

    def __str__(self):
        return self.cpu


ARM, X86 = "aarch64-unknown-linux-gnu", "x86_64-unknown-linux-gnu"
MACHINES = [
    Machine(ARM, "neoverse-n1", "+neon,+dotprod", {types.float32: ["fmla v.4s"], QUADS: ["sdot v.4s"]}),
    Machine(X86, "haswell", "+avx2,+fma", {types.float32: ["vfmadd ymm"], QUADS: ["vpmaddwd ymm"]}),
    Machine(X86, "alderlake", "+avx2,+fma,+avxvnni", {QUADS: ["vpdpbusd ymm"]}),
    Machine(X86, "cooperlake", "+avx512f,+avx512bw,+avx512dq,+avx512vl,+avx512vnni,+avx512bf16,+fma,+avx2",
            {types.float32: ["vfmadd zmm"], QUADS: ["vpdpbusd zmm"], PAIRS: ["vdpbf16ps zmm"]}),
]  # fmt: skip


def signature(unit):
    """Return the types of the arguments of an LSTM's inference, its weights in these units."""
    two, three = (types.Array(types.float32, n, "C") for n in (2, 3))
    team, weights = types.Array(types.int64, 2, "C"), types.Array(unit, 1, "C")
    return (team, weights, types.int64, three, two, three, two, three, three)


@pytest.mark.parametrize(
    "machine", [MACHINES[0], *(pytest.param(m, marks=pytest.mark.slow) for m in MACHINES[1:])], ids=str
)
def test_products_are_of_the_machines_own_vectors(machine, tmp_path, monkeypatch):
    """A tile of a product is a hundred of them or more."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    words = [sys.executable, "-m", "tests.kernels.cross", machine.triple, machine.cpu, machine.features]
    asked = pickle.dumps([("kernels.lstm", "_infer", signature(unit)) for unit in machine.products])
    done = subprocess.run(words, cwd=Path(__file__).parents[2], input=asked, capture_output=True, timeout=1800)
    assert done.returncode == 0, done.stderr.decode()
    for found, expected in zip(json.loads(done.stdout), machine.products.values(), strict=True):
        for instruction in expected:
            assert found.get(instruction, 0) > 100, f"{instruction}: {found}"
