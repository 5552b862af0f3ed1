"""Who computes: the CPU, its caches and vectors, the memory, the BLAS, the versions, and whether it is busy."""

import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path

from bench.machine import hardware, peaks
from bench.machine.hardware import told
from kernels.core.threads.cpus import cpu_quota

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

    load = told(lambda: list(os.getloadavg()))
    cpus = told(psutil.cpu_count)
    warnings = _warnings(load, cpus)
    limits = told(peaks.known)
    if measure:
        try:
            limits, doubts = _limits(limits)
        except Exception as error:  # a team that cannot start, code that cannot be compiled
            doubts = [f"What this machine can do at most was not measured: {' '.join(str(error).split())}"]
        warnings += doubts
    return {
        "cpu": hardware.cpu(),
        "cores": told(psutil.cpu_count, logical=False),
        "logical_cpus": cpus,
        "kinds": hardware.kinds(),
        "cpu_quota": cpu_quota(),
        "caches": hardware.caches(),
        "memory_bytes": told(lambda: psutil.virtual_memory().total),
        "os": told(platform.platform),
        "python": platform.python_version(),
        "governor": hardware.governor(),
        "frequency_mhz": hardware.frequency(),
        "simd": hardware.simd(),
        "load_average": load,
        "blas": told(_blas),
        "versions": versions(),
        "roofline": limits,
        "warnings": warnings,
    }


def _limits(known):
    """Return the roofline, measured now unless the known one will do, and what speaks against measuring now."""
    rates = peaks.clock()
    if known is None or peaks.too_low(rates, known):
        print("Measuring what this machine can do at most, once: about twenty seconds.", file=sys.stderr)
        known = peaks.measure()
    return known, peaks.doubts(rates, known)


def words(description):
    """Return what there is to say of a machine, as texts by name; `description` is that of `describe`."""
    simd = description.get("simd") or {}
    frequency = description.get("frequency_mhz") or {}
    blas = description.get("blas") or []
    about = {
        "CPU": description.get("cpu"),
        "Cores": _cores(description.get("cores"), description.get("logical_cpus")),
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
    about = {name: text or "unknown" for name, text in about.items()}
    fastest, *slower = description.get("kinds") or [[]]
    if slower:
        others = [cpu for kind in slower for cpu in kind]
        about["Kinds of cores"] = f"the fastest, taken first: CPUs {_listed(fastest)}; slower: CPUs {_listed(others)}"
    if quota := description.get("cpu_quota"):
        about["CPU quota"] = f"the time of {quota:.3g} CPUs"
    return about


def _listed(cpus):
    return ", ".join(map(str, cpus))


def _cores(cores, cpus):
    logical = f"{cpus} logical" if cpus else None
    return f"{cores} ({logical})" if cores and logical else str(cores) if cores else logical


_BLAS = "used_by", "internal_api", "version", "architecture", "threading_layer"


def versions():
    """Return the version of each installed package that bears on the results."""
    return {package: found for package in PACKAGES if (found := told(version, package))}


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
    if load and load[0] > 0.5:
        on = f" on {cpus} CPUs" if cpus else ""
        warnings.append(f"The machine was busy when the run began: load average {load[0]:.1f}{on}.")
    governor = hardware.governor()
    if governor not in (None, "performance"):
        warnings.append(f"The CPU's frequency governor is {governor!r}: the clock may change under the measurement.")
    return warnings
