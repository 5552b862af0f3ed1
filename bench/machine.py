"""Who computes: the CPU, its caches and vectors, the memory, the BLAS, the versions, and whether it is busy."""

import contextlib
import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

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

    from bench import peaks

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
        "cpu": cpu(),
        "cores": psutil.cpu_count(logical=False),
        "logical_cpus": psutil.cpu_count(),
        "caches": caches(),
        "memory_bytes": psutil.virtual_memory().total,
        "os": platform.platform(),
        "python": platform.python_version(),
        "governor": _governor(),
        "frequency_mhz": _frequency(),
        "simd": simd(),
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
        "Caches": ", ".join(f"{name} {size(number)}" for name, number in (description.get("caches") or {}).items()),
        "Memory": size(description["memory_bytes"]) if description.get("memory_bytes") else None,
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


def size(number):
    """Return a number of bytes in the unit that suits it."""
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if number >= scale:
            return f"{number / scale:.3g} {unit}"
    return f"{number:.0f} B"


def versions():
    """Return the version of each installed package that bears on the results."""
    found = {}
    for package in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def cpu():
    """Return the name of the CPU."""
    if platform.system() == "Darwin":
        return _sysctl("machdep.cpu.brand_string")
    for line in (_read("/proc/cpuinfo") or "").splitlines():
        if line.startswith(("model name", "Model")):
            return line.partition(":")[2].strip()
    with contextlib.suppress(OSError, subprocess.SubprocessError):  # on Arm, lscpu knows the parts' names
        for line in subprocess.run(["lscpu"], capture_output=True, text=True, timeout=5).stdout.splitlines():
            if line.startswith("Model name:"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def caches():
    """Return the bytes of each cache that a core sees, by its name."""
    if platform.system() == "Darwin":
        names = {"L1d": "hw.perflevel0.l1dcachesize", "L2": "hw.perflevel0.l2cachesize", "L3": "hw.l3cachesize"}
        sizes = {
            name: _sysctl(setting) or _sysctl(setting.replace("perflevel0.", "")) for name, setting in names.items()
        }
        return {name: int(size) for name, size in sizes.items() if size}
    found = {}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size = (_read(index / name) for name in ("level", "type", "size"))
        if level and size and kind != "Instruction":
            found[f"L{level}{'d' if kind == 'Data' else ''}"] = int(size.rstrip("KMG")) * _UNITS[size[-1]]
    return found


_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}


def _governor():
    return _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


def _frequency():
    """Return the clock of the first core in MHz, now and at most, as far as the system tells."""
    import psutil

    with contextlib.suppress(OSError, AttributeError, NotImplementedError):
        if found := psutil.cpu_freq():
            return {name: number for name, number in (("now", found.current), ("at most", found.max)) if number}
    return None


def simd():
    """Return the widest vectors that Numba's compiler may use here."""
    from llvmlite import binding

    features = binding.get_host_cpu_features()
    for feature, name, bits in (
        ("avx512f", "AVX-512", 512),
        ("avx2", "AVX2", 256),
        ("avx", "AVX", 256),
        ("sse2", "SSE2", 128),
        ("neon", "NEON", 128),
    ):
        if features.get(feature):
            return {"name": name, "bits": bits}
    return None


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
    governor = _governor()
    if governor not in (None, "performance"):
        warnings.append(f"The CPU's frequency governor is {governor!r}: the clock may change under the measurement.")
    return warnings


def _read(path):
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return None


def _sysctl(name):
    try:
        return subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, timeout=5).stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        return None
