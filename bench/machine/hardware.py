"""What the hardware is: the CPU's name, caches and vectors, its clock, and the CPUs that this process may use."""

import contextlib
import os
import platform
import subprocess
from pathlib import Path


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


def governor():
    return _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


def frequency():
    """Return the clock of the first core in MHz, now and at most, as far as the system tells."""
    import psutil

    with contextlib.suppress(OSError, AttributeError, NotImplementedError):
        if found := psutil.cpu_freq():
            return {name: number for name, number in (("now", found.current), ("at most", found.max)) if number}
    return None


def usable_cpus():
    """Return how many CPUs this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpus_for(threads):
    """Return the CPUs for the workers of this thread count: so many, or none where a process cannot be pinned.

    Each is a core of its own as far as there are enough, and the cores of one package are taken first.
    """
    if not hasattr(os, "sched_setaffinity"):
        return ()
    cores = {}
    for cpu in sorted(os.sched_getaffinity(0)):
        cores.setdefault(_core(cpu), []).append(cpu)
    ranked = sorted((rank, core, cpu) for core, cpus in cores.items() for rank, cpu in enumerate(cpus))
    return tuple(cpu for _, _, cpu in ranked[:threads])


def _core(cpu, cpus=Path("/sys/devices/system/cpu")):
    """Return the package and the core that a CPU belongs to; each CPU is a core where nothing is told."""
    topology = cpus / f"cpu{cpu}" / "topology"
    try:
        return tuple(int((topology / name).read_text()) for name in ("physical_package_id", "core_id"))
    except OSError:
        return 0, cpu


def size(number):
    """Return a number of bytes in the unit that suits it."""
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if number >= scale:
            return f"{number / scale:.3g} {unit}"
    return f"{number:.0f} B"


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
