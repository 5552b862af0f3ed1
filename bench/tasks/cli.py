"""`python -m bench train`: the COMMANDS of every task, found in the `cli.py` of its folder."""

from importlib import import_module
from pathlib import Path

import typer

app = typer.Typer(help="Learn a task from start to end and report how soon each implementation gets there.")
for _file in sorted(Path(__file__).parent.glob("*/cli.py")):
    for _command in import_module(f"bench.tasks.{_file.parent.name}.cli").COMMANDS:
        app.command()(_command)
