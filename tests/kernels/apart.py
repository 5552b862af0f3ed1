"""Run a module in a process of its own, for what may end the process, or never end."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

UNABLE = 77  # an exit code: what is tested cannot be had here, and stdout says why


def run_apart(module, *arguments, timeout=900, **environment):
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=Path(__file__).parents[2],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    if done.returncode == UNABLE:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
