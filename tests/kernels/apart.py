"""Run a module in a process of its own, for what may end the process, or never end."""

import os
import subprocess
import sys
from pathlib import Path


def run_apart(module, *arguments, timeout=900, **environment):
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=Path(__file__).parents[2],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
