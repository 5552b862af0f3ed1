"""Threads that share whatever can be shared."""

from math import inf

from kernels.core.threads import team
from kernels.core.walks import recurrence


def share_everything(setattr=setattr):
    """Let threads share whatever can be, however small, and wait for whoever is late or has no CPU."""
    for name, value in {"WORTH_SHARING": 1, "_PATIENCE": 10**9, "_WORTH_FOLLOWING": 1}.items():
        setattr(recurrence, name, value)
    for name, value in {"_CROWDED": inf, "_alone_until": 0.0}.items():
        setattr(team, name, value)
