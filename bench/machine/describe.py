"""Who computes: the CPU, its caches and vectors, the memory, the BLAS, the versions, and whether it is busy."""

import contextlib
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bench.machine import hardware, peaks

PACKAGES = (
    "numpy",
    "scipy",
    "numba",
    "llvmlite",
    "torch",
    "jax",
    "jaxlib",
    "onnx",
    "onnxruntime",
    "openvino",
    "pandas",
    "matplotlib",
    "pytest",
    "pytest-benchmark",
)


def describe(measure=False):
    """Return the machine as it is now: the entry "machine" of run.json. What cannot be read is None.

    The roofline is the one that was measured before, or None. With `measure` it is measured now if there is none, or
    one that is too low, and a look at the clock adds its warnings.
    """
    import psutil

    load = list(os.getloadavg())
    warnings = _warnings(load[0], psutil.cpu_count() or 1)
    limits = peaks.known()
    if measure:
        rates = peaks.clock()
        if limits is None or peaks.too_low(rates, limits):
            print("Measuring what this machine can do at most, once: about ten seconds.", file=sys.stderr)
            limits = peaks.measure()
        warnings += peaks.doubts(rates, limits)
    return {
        "cpu": hardware.cpu(),
        "cores": psutil.cpu_count(logical=False),
        "logical_cpus": psutil.cpu_count(),
        "caches": hardware.caches(),
        "memory_bytes": psutil.virtual_memory().total,
        "os": platform.platform(),
        "python": platform.python_version(),
        "governor": hardware.governor(),
        "frequency_mhz": hardware.frequency(),
        "simd": hardware.simd(),
        "load_average": load,
        "blas": _blas(),
        "versions": versions(),
        "roofline": limits,
        "warnings": warnings,
    }


def words(description):
    """Return what there is to say of a machine, as texts by name; `description` is that of `describe`."""
    simd = description.get("simd") or {}
    frequency = description.get("frequency_mhz") or {}
    blas = description.get("blas") or []
    about = {
        "CPU": description.get("cpu"),
        "Cores": f"{description['cores']} ({description['logical_cpus']} logical)"
        if description.get("cores")
        else None,
        "Vectors": f"{simd.get('name')}, {simd.get('bits')} bits" if simd else None,
        "Caches": ", ".join(
            f"{name} {hardware.size(number)}" for name, number in (description.get("caches") or {}).items()
        ),
        "Memory": hardware.size(description["memory_bytes"]) if description.get("memory_bytes") else None,
        "Frequency": ", ".join(f"{name} {number:.0f} MHz" for name, number in frequency.items()),
        "Frequency governor": description.get("governor"),
        "Load at the start": ", ".join(f"{load:.2f}" for load in description.get("load_average") or []),
        "System": description.get("os"),
        "BLAS": "; ".join(dict.fromkeys(" ".join(filter(None, map(pool.get, _BLAS))) for pool in blas)),
        "Python": description.get("python"),
        **(description.get("versions") or {}),
    }
    return {name: text or "unknown" for name, text in about.items()}


_BLAS = "used_by", "internal_api", "version", "architecture", "threading_layer"


def versions():
    """Return the version of each installed package that bears on the results."""
    found = {}
    for package in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _blas():
    """Return threadpoolctl's account of the BLAS libraries of NumPy and SciPy."""
    import numpy  # noqa: F401
    import scipy.linalg  # noqa: F401
    from threadpoolctl import threadpool_info

    wanted = ("internal_api", "version", "architecture", "threading_layer", "filepath")
    pools = [{name: pool.get(name) for name in wanted} for pool in threadpool_info() if pool["user_api"] == "blas"]
    for pool in pools:
        path = Path(pool["filepath"])
        pool |= {"filepath": path.name, "used_by": next((who for who in ("numpy", "scipy") if who in str(path)), None)}
    return pools


def _warnings(load, cpus):
    warnings = []
    if load > 0.5:
        warnings.append(f"The machine was busy when the run began: load average {load:.1f} on {cpus} CPUs.")
    governor = hardware.governor()
    if governor not in (None, "performance"):
        warnings.append(f"The CPU's frequency governor is {governor!r}: the clock may change under the measurement.")
    return warnings
