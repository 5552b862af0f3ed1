"""The same loop on many machines, on Dask: `far.py` is what a machine does, `fleet.py` who gives it its work."""

from importlib.util import find_spec

from bench.grid.cases import ChoiceError


def expect_distributed() -> None:
    """Raise a ChoiceError where Dask's distributed is not installed."""
    if find_spec("distributed") is None:
        raise ChoiceError("--scheduler: expected Dask's distributed, which the extra `fleet` installs, got none")
