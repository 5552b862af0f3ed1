"""`python -m tests.random_cells`: the cells it draws are right, and a wrong derivative is found and told."""

import secrets
from unittest import mock

import pytest
import typer
from typer.testing import CliRunner

from reference.equations.graph import DERIVATIVES
from tests import random_cells

pytest.importorskip("jax")
app = typer.Typer()
app.command()(random_cells.main)


def test_ten_cells_of_another_seed_each_time_are_right():
    seed = secrets.randbits(32)
    try:
        assert random_cells.run(seed, 10) > 0
    except AssertionError as error:
        pytest.fail(f"--seed {seed}: {error}")


def test_a_wrong_derivative_is_found_and_told(monkeypatch):
    """Of a step with tanh: that of a drawn one may come to nothing, and making it small takes long."""
    source = "@cell(gates='f')\ndef drawn(u, w, h):\n    return tanh(u.f + w.f(h))"
    wrong = {"tanh": lambda n, d, y, a: (n.mul(d, n.sub(1.0, y)),)}
    with mock.patch.dict(DERIVATIVES, wrong):
        one = random_cells.Drawn(source, random_cells.define(source), random_cells.SIZES[0])
    with pytest.raises(AssertionError, match=r"gradients\.params\.U: error"):
        random_cells.check(one)

    def run(seed, cells):
        if seed == 8:
            raise AssertionError(source)
        return cells

    monkeypatch.setattr(random_cells, "run", run)
    output = CliRunner().invoke(app, ["--cells", "100", "--seed", "7"]).output
    assert "seed 7: 25 cells right, 25 checked" in output
    assert f"wrong: --seed 8: {source}" in output
