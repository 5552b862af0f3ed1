"""The arrows between the rooms, as pyproject.toml has them: one way, and no circles."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LINT = "from importlinter.cli import lint_imports_command; lint_imports_command(['--no-cache'])"


def lint(folder):
    return subprocess.run([sys.executable, "-c", LINT], cwd=folder, capture_output=True, text=True)


def test_arrows_run_one_way():
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout


def test_reference_imports_numpy_alone():
    known = {"numpy", "reference", *sys.stdlib_module_names}
    for path in (ROOT / "reference").rglob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        imported = [a.name for node in nodes if isinstance(node, ast.Import) for a in node.names]
        imported += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
        assert {name.partition(".")[0] for name in imported} <= known, path


@pytest.mark.parametrize(
    ("file", "imported"),
    [
        ("bench/grid/cases.py", "bench.timing.loop"),
        ("bench/tasks/sine/data.py", "bench.tasks.text.data"),
        ("bench/tasks/learning/optimizers.py", "bench.tasks.learning.fused"),
        ("kernels/core/products/tiles.py", "kernels.lstm"),
        ("kernels/core/products/tiles.py", "kernels.core.threads.team"),
        ("kernels/core/code/cache.py", "kernels.core.vectors.simd"),
        ("kernels/rnn.py", "reference.rnn"),
        ("reference/rnn.py", "bench.grid.cases"),
        ("reference/equations/graph.py", "reference.equations.tracing"),
        ("reference/equations/running.py", "reference.cells.grus.mgu"),
    ],
)
def test_an_arrow_the_wrong_way_is_named(tmp_path, file, imported):
    """Upwards, to another task, in a circle, and between rooms that do not know each other."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for name in ("bench", "kernels", "reference"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    path = tmp_path / file
    path.write_text(path.read_text(encoding="utf-8") + f"\nimport {imported}\n", encoding="utf-8")
    done = lint(tmp_path)
    assert done.returncode == 1
    importer = file.removesuffix(".py").replace("/", ".")
    short = f".{importer.rpartition('.')[2]} -> .{imported.rpartition('.')[2]}"  # as a circle of neighbours is told
    assert f"{importer} -> {imported}" in done.stdout or short in done.stdout
