"""What the hardware is: the CPU's name, caches and vectors, its clock, and the CPUs that this process may use.

A system may tell anything, wrongly or not at all, and what it keeps back must not stop a run: so each of its sources is
asked through `told`.
"""

import math
import os
import platform
import subprocess
from pathlib import Path

from kernels.core.threads.cpus import allowed

CPUS = Path("/sys/devices/system/cpu")
ALIKE = 0.9  # a core as fast as this beside the fastest of a kind is one of them


def told(ask, *arguments, **options):
    """Return what a source answers, or None if it fails, in whichever way."""
    try:
        return ask(*arguments, **options)
    except Exception:
        return None


def cpu():
    """Return the name of the CPU."""
    if platform.system() == "Darwin":
        return _output("sysctl", "-n", "machdep.cpu.brand_string")
    sources = (
        lambda: _entry(_read("/proc/cpuinfo"), "model name", "Model"),
        lambda: _entry(_output("lscpu"), "Model name"),  # on Arm, lscpu knows the parts' names
        platform.processor,
        platform.machine,
    )
    return next(filter(None, map(told, sources)), None)


def caches():
    """Return the bytes of each cache that a core sees, by its name."""
    if platform.system() == "Darwin":
        names = {"L1d": "hw.perflevel0.l1dcachesize", "L2": "hw.perflevel0.l2cachesize", "L3": "hw.l3cachesize"}
        sizes = {
            name: _output("sysctl", "-n", setting) or _output("sysctl", "-n", setting.replace("perflevel0.", ""))
            for name, setting in names.items()
        }
    else:
        sizes = {}
        for index in told(lambda: sorted(Path(CPUS, "cpu0/cache").glob("index*"))) or ():
            level, kind, size = (_read(index / name) for name in ("level", "type", "size"))
            if level and kind != "Instruction":
                sizes[f"L{level}{'d' if kind == 'Data' else ''}"] = size
    found = {name: told(_bytes, size) for name, size in sizes.items()}
    return {name: number for name, number in found.items() if number and number > 0}


def _bytes(text):
    """Return the number of bytes in a text such as 32768, 32K or 1M."""
    unit = text[-1].upper()
    return int(text[:-1]) * _UNITS[unit] if unit in _UNITS else int(text)


_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}


def simd():
    """Return the widest vectors that Numba's compiler may use here."""
    from llvmlite import binding

    features = told(binding.get_host_cpu_features) or {}
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
    return _read(CPUS / "cpu0/cpufreq/scaling_governor")


def frequency():
    """Return the clock of the first core in MHz, now and at most, as far as the system tells."""
    import psutil

    found = told(lambda: psutil.cpu_freq())
    rates = {"now": getattr(found, "current", None), "at most": getattr(found, "max", None)}
    return {name: number for name, number in rates.items() if number} or None


def cpus_for(threads):
    """Return the CPUs for the workers of this thread count: so many, or none where a process cannot be pinned.

    Each is a core of its own as far as there are enough. The fastest kind of core is taken first, and of a kind the
    cores of one package.
    """
    if not hasattr(os, "sched_setaffinity"):
        return ()
    ranked = []
    for order, kind in enumerate(kinds()):
        cores = {}
        for cpu in kind:
            cores.setdefault(_core(cpu), []).append(cpu)
        ranked += [(rank, order, core, cpu) for core, cpus in cores.items() for rank, cpu in enumerate(cpus)]
    return tuple(cpu for *_, cpu in sorted(ranked)[:threads])


def kinds():
    """Return the CPUs that this process may run on by the kind of their cores, the fastest kind first.

    All are of one kind where the system tells no difference.
    """
    speeds = {cpu: _speed(cpu) for cpu in allowed()}
    found, fastest = [], math.inf
    for cpu in sorted(speeds, key=lambda cpu: (-speeds[cpu], cpu)):
        if not found or speeds[cpu] < ALIKE * fastest:
            found.append([])
            fastest = speeds[cpu]
        found[-1].append(cpu)
    return [sorted(kind) for kind in found]


def _speed(cpu):
    """Return how fast a CPU is beside the others, in a unit of its system's; 0 where nothing is told."""
    folder = CPUS / f"cpu{cpu}"
    texts = (_read(folder / name) for name in ("cpu_capacity", "cpufreq/cpuinfo_max_freq"))
    return next(filter(None, (told(int, text) for text in texts)), 0)


def _core(cpu):
    """Return the package and the core that a CPU belongs to; each CPU is a core where nothing is told."""
    topology = CPUS / f"cpu{cpu}" / "topology"
    package, core = (told(int, _read(topology / name)) for name in ("physical_package_id", "core_id"))
    return (0, cpu) if package is None or core is None else (package, core)


def size(number):
    """Return a number of bytes in the unit that suits it."""
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if number >= scale:
            return f"{number / scale:.3g} {unit}"
    return f"{number:.0f} B"


def _entry(text, *names):
    """Return the first value in lines of names and values, such as "model name : Xeon", that has one of the names."""
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in names and value.strip():
            return value.strip()
    return None


def _read(path):
    """Return the text of a file of the system's, or None where there is none, or nothing in it."""
    return told(lambda: Path(path).read_text(encoding="utf-8").strip()) or None


def _output(*words):
    """Return what a command prints, or None."""
    return told(lambda: subprocess.run(words, capture_output=True, text=True, timeout=5).stdout.strip()) or None
