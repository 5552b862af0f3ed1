"""`python -m tests.soak`: it watches, and tells what grows."""

import pytest

from tests import soak
from tests.soak import Gauge, Watch


@pytest.mark.slow
def test_a_little_of_it(tmp_path):
    assert soak.call(0.1) == []
    assert soak.run(8, tmp_path) == []


@pytest.mark.parametrize(
    ("name", "step"), [("memory", 2**21), ("files", 1), ("threads", 1), ("processes", 1), ("temporary", 1)]
)
def test_what_grows_is_told(name, step):
    watch, flat = Watch("calls", 60), Gauge(2**30, 10, 4, 0, 3)
    watch.begin -= 6000
    watch.readings = [flat] * 100
    assert watch.grown() == []
    watch.readings = [flat._replace(**{name: getattr(flat, name) + n * step}) for n in range(100)]
    assert watch.grown() == [name]
