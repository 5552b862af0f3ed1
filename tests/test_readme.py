"""The README keeps its word: its examples run, its links lead somewhere, its commands exist."""

import doctest
import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from bench.__main__ import app

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)


def test_examples():
    """All of them in one session, as a reader would type them."""
    examples = blocks("pycon")
    assert examples
    test = doctest.DocTestParser().get_doctest("".join(examples), {}, "README.md", "README.md", 0)
    assert doctest.DocTestRunner().run(test).failed == 0


@pytest.mark.parametrize(
    "name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "kernels/README.md", "bench/README.md"]
)
def test_links(name):
    links = re.findall(r"\]\(([^)#]+)\)", (ROOT / name).read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if "://" not in link and not (ROOT / name).parent.joinpath(link).exists()] == []


def test_commands():
    """Every `python -m bench ...` is a command of that name with those options."""
    lines = re.findall(r"python -m bench[^`\n]*", README)
    assert len(lines) > 8
    for line in lines:
        words = shlex.split(line)[3:]
        command = get_command(app)
        while words and words[0] in getattr(command, "commands", ()):
            command = command.commands[words.pop(0)]
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known, line


def test_ci_runs_the_readmes_test_command():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    (pattern,) = re.findall(r"grep -x '(.+)' README\.md", script)
    (command,) = (line for line in README.splitlines() if re.fullmatch(pattern, line))
    assert command in "".join(blocks("sh"))
