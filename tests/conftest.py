"""What all tests share."""

import os

import pytest

from tests import refusals


@pytest.fixture(scope="session", autouse=True)
def a_machine_of_its_own(tmp_path_factory):
    """Let tests that run side by side measure at the same time: what they measure means nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(os.environ, "UNROLLED_LOCK", str(tmp_path_factory.mktemp("machine") / "lock"))
        yield


@pytest.fixture(scope="session", autouse=True)
def refusals_are_looked_at():
    with pytest.MonkeyPatch.context() as patch:
        refusals.watch(patch)
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call():
    """Fail a test that provoked a refusal with foreign words in it."""
    result = yield
    if foreign := refusals.faults():
        pytest.fail("refused in foreign words:\n" + "\n".join(foreign))
    return result
