import os

import pytest

from bench.machine import hardware


@pytest.mark.parametrize(
    ("number", "text"), [(48 * 2**30, "48 GiB"), (1.5 * 2**20, "1.5 MiB"), (2**15, "32 KiB"), (7, "7 B")]
)
def test_sizes(number, text):
    assert hardware.size(number) == text


def test_cpus_are_cores_of_their_own_first(tmp_path, monkeypatch):
    for cpu, (package, core) in enumerate([(0, 0), (0, 0), (0, 1), (0, 1), (1, 0), (1, 0)]):
        topology = tmp_path / f"cpu{cpu}" / "topology"
        topology.mkdir(parents=True)
        (topology / "physical_package_id").write_text(f"{package}\n")
        (topology / "core_id").write_text(f"{core}\n")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)), raising=False)
    core = hardware._core
    monkeypatch.setattr(hardware, "_core", lambda cpu: core(cpu, tmp_path))
    assert [hardware.cpus_for(n) for n in (1, 3, 5)] == [(0,), (0, 2, 4), (0, 2, 4, 1, 3)]
    assert core(7, tmp_path) == (0, 7)
