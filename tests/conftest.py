"""What all tests share."""

import os

import pytest


@pytest.fixture(scope="session", autouse=True)
def a_machine_of_its_own(tmp_path_factory):
    """Let tests that run side by side measure at the same time: what they measure means nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(os.environ, "UNROLLED_LOCK", str(tmp_path_factory.mktemp("machine") / "lock"))
        yield
