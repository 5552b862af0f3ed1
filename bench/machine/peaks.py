"""What this machine can do at most, measured by our own vector code: operations a second, and bytes a second by level.

The FMA peak is that of the register tile of a matrix product, whose operands stay in the registers. The bandwidths are
those of reading an array again and again, each vector into a sum of its own. The array lies in one level of memory:
half of L1, then the geometric mean of a level's size and that of the level before it, and four times the last
cache for the memory itself. Threads read arrays of their own, all at once; the last cache is taken to be shared by
all threads, the others to be each core's own. The best of many repeats counts, which are spread over some passes: on a
shared machine a neighbour can slow one rate down for as long as it is looked at.

Below float32 the peak is that of the same tile with numbers packed in units, as our kernels multiply them, or that of
the matrix registers where the host has them and they do more; the bandwidths are float32's, since bytes are bytes.

What was measured is kept on disk for this machine, beside the kernels' compiled code, until it is measured anew.
"""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numba
import numpy as np
from numba.core.registry import cpu_target

from bench.machine import hardware
from bench.machine.roofline import MEMORY, ceilings
from kernels.core import dots, matrices, registers, simd, team
from kernels.core.cache import base_folder
from kernels.core.cpus import usable_cpus
from kernels.core.host import REGISTERS
from kernels.core.matrices import SIDE, begin_rows, end_matrices, multiply_matrices
from kernels.core.registers import partial_sums, rank1, store_tile, zero_tile
from kernels.core.simd import ALIGNMENT, align, at, lanes, pointer


class Kind(NamedTuple):
    """What a dtype's products are made of."""

    unit: str  # what a lane of a vector holds
    numbers: int  # in a unit
    value: float  # of each unit: its numbers are 1/2, or 1 of int8
    sums: str


KINDS = {
    "float32": Kind("float32", 1, 0.5, "float32"),
    "float64": Kind("float64", 1, 0.5, "float64"),
    "int8": Kind("int32", 4, 0x01010101, "int32"),
    "bfloat16": Kind("uint32", 2, 0x3F003F00, "float32"),
}

ROWS, VECTORS = (4, 4) if REGISTERS == 32 else (4, 3)  # of a tile: sums enough to hide the latency of each
WIDE, DEEP = 3, 8  # vectors and blocks of a product on matrix registers: 32 KiB in all
BLOCK = 1000  # tiles of FMAs, to make one call worth its call
REPEAT_S = 0.01
PASSES = 4
EACH_S = 0.1  # for one peak or one bandwidth in a pass


def known() -> dict | None:
    """Return the roofline that was kept for this machine, or None."""
    try:
        return json.loads(_path().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def measure(each_s: float = EACH_S) -> dict:
    """Measure the roofline, `each_s` seconds for each of its rates in a pass, and keep it, with the machine to itself.

    Returns `measured` (when), `levels` (the bytes of each cache by name), and `rates`: for each dtype and number of
    threads, the `gflops` of all threads together, in int8 Gop/s, and their `bytes_per_s` by level. A level too small to
    be told from the one before it is left out.
    """
    levels = {name.removesuffix("d"): size for name, size in hardware.caches().items()}
    counts = _thread_counts(usable_cpus())
    kinds = [(dtype, threads) for dtype in KINDS for threads in counts]
    passes = [[_rates(*kind, levels, each_s) for kind in kinds] for _ in range(PASSES)]
    rates = [_best(found) for found in zip(*passes, strict=True)]
    full = {rate["threads"]: rate["bytes_per_s"] for rate in rates if rate["dtype"] == "float32"}
    rates = [rate | {"bytes_per_s": rate["bytes_per_s"] or full[rate["threads"]]} for rate in rates]
    found = {"measured": datetime.now().astimezone().isoformat(timespec="seconds"), "levels": levels, "rates": rates}
    with suppress(OSError):  # no place to keep it: then it is measured again the next time
        _path().write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return found


def clock(repeats: int = 20) -> list[float]:
    """Return the GFLOP/s of the FMA loop on one thread in float32, repeat by repeat: they vary as the clock does."""
    operations, run = _multiplying("float32", 1)
    return [operations / seconds / 1e9 for seconds in _times(run, 0, repeats)]


def too_low(rates: list[float], roofline: dict) -> bool:
    """Tell whether the rates of `clock` exceed the roofline: it was measured when the machine was slowed down."""
    return max(rates) > 1.1 * _single_peak(roofline)


def doubts(rates: list[float], roofline: dict) -> list[str]:
    """Return what the rates of `clock` say against measuring now, a sentence each."""
    best, usual, peak = max(rates), float(np.quantile(rates, 0.25)), _single_peak(roofline)
    found = []
    if usual < 0.9 * best:
        found.append(
            f"The clock jumps, or something else ran: one FMA loop did from {min(rates):.0f} to {best:.0f} GFLOP/s."
        )
    if best < 0.85 * peak:
        found.append(
            f"The CPU is slowed down, by its temperature or by others: its FMA loop does {best:.0f} GFLOP/s, and did "
            f"{peak:.0f} when the roofline was measured, {roofline['measured'][:10]}."
        )
    return found


def _single_peak(roofline: dict) -> float:
    """Return the GFLOP/s that `clock` should find."""
    return ceilings(roofline, "float32", 1, MEMORY)[0] / 1e9


def _thread_counts(cpus: int) -> list[int]:
    """Return 1, 2, 4, ... and the number of CPUs."""
    return [2**n for n in range(cpus.bit_length()) if 2**n < cpus] + [cpus]


def _array_bytes(levels: dict[str, int], threads: int) -> dict[str, int]:
    """Return the size of the array that each thread reads, by the level of memory it is to lie in."""
    found: dict[str, int] = {}
    inner = 0
    for name, size in levels.items():
        share = size // threads if name == list(levels)[-1] and inner else size
        if not inner:
            found[name] = share // 2
        elif share >= 3 * inner:
            found[name] = int((inner * share) ** 0.5)
        inner = max(inner, share)
    last = max(levels.values(), default=0)
    found[MEMORY] = min(max(4 * last, 2**26), 2**29) // threads
    return found


def _rates(dtype: str, threads: int, levels: dict[str, int], each_s: float) -> dict:
    """Return the rates of one kind; below float32 without bandwidths."""
    ways = [_multiplying(dtype, threads)]
    if numba.typeof(np.dtype(KINDS[dtype].unit).type(0)) in matrices.KINDS:
        ways.append(_multiplying_matrices(dtype, threads))
    gflops = max(operations / min(_times(run, each_s)) for operations, run in ways) / 1e9
    bandwidths = {}
    sizes = {} if KINDS[dtype].numbers > 1 else _array_bytes(levels, threads)
    for name, size in sizes.items():
        read, run = _streaming(dtype, threads, size)
        bandwidths[name] = read / min(_times(run, each_s))
    return {"dtype": dtype, "threads": threads, "gflops": gflops, "bytes_per_s": bandwidths}


def _best(found: Sequence[dict]) -> dict:
    """Return the rates of one kind, each the highest of any pass."""
    bandwidths = {level: max(rates["bytes_per_s"][level] for rates in found) for level in found[0]["bytes_per_s"]}
    return found[0] | {"gflops": max(rates["gflops"] for rates in found), "bytes_per_s": bandwidths}


def _multiplying(dtype: str, threads: int) -> tuple[float, Callable]:
    """Return how many operations all threads do in one repeat, and a function that does it."""
    kind = KINDS[dtype]
    units = _units_in_a_tile(kind.unit)
    data, sums = np.full(4 * units, kind.value, kind.unit), np.empty(threads * units, kind.sums)
    count, run = _repeat(_multiply, threads, data, sums)
    return 2.0 * kind.numbers * units * BLOCK * count * threads, run


def _multiplying_matrices(dtype: str, threads: int) -> tuple[float, Callable]:
    """Do the same for the matrix registers, whose operands come from the first-level cache."""
    kind, side = KINDS[dtype], matrices.SIDE
    data = np.full(side * side * DEEP * (1 + WIDE) + ALIGNMENT, kind.value, kind.unit)
    sums = np.empty((threads + 1) * side * side * WIDE, kind.sums)
    count, run = _repeat(_multiply_matrices, threads, data, sums)
    return 2.0 * kind.numbers * side**3 * DEEP * WIDE * count * threads, run


def _streaming(dtype: str, threads: int, size: int) -> tuple[float, Callable]:
    """Return how many bytes all threads read in one repeat, and a function that does it; each reads `size` bytes."""
    units, bytes_each = _units_in_a_tile(dtype), np.dtype(dtype).itemsize
    length = max(1, size // (units * bytes_each)) * units
    data = np.empty(threads * length + ALIGNMENT, dtype)
    _together(_fill, threads, length, data)
    passes, run = _repeat(_stream, threads, length, data, np.empty(threads * units, dtype))
    return float(length * bytes_each * passes * threads), run


def _units_in_a_tile(dtype: str) -> int:
    return ROWS * VECTORS * simd.vector_lanes(np.dtype(dtype))


def _repeat(work: Callable, threads: int, *arguments) -> tuple[int, Callable]:
    """Return n and a function that lets each thread of a team do n times the work, which takes about REPEAT_S."""

    def run(n: int) -> None:
        _together(work, threads, n, *arguments)

    run(1)  # which compiles it
    once = min(_times(partial(run, 1), 0))
    n = max(1, round(REPEAT_S / once))
    return n, partial(run, n)


def _times(run: Callable, each_s: float, repeats: int = 5) -> list[float]:
    """Return the seconds of each call, for at least `each_s` seconds and so many calls."""
    run()
    times: list[float] = []
    while len(times) < repeats or sum(times) < each_s:
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return times


def _together(work: Callable, threads: int, *arguments) -> None:
    """Call work(member, *arguments) on so many threads at once."""
    team.on_a_team(_compiled(work), (threads, team.FOREVER), arguments)


@cache
def _compiled(work: Callable) -> Callable:
    """Compile what lets a team do the work; the code is not kept, since what it measures is."""
    part = numba.njit(work, nogil=True)

    @numba.njit(nogil=True)
    def run(members, *arguments):
        team.share_out(part, team.assembled(members), arguments)

    return run


def _multiply(member, n, data, sums):
    a = align(pointer(data))
    w = at(a, lanes(a))
    tile = zero_tile(a, ROWS, VECTORS)
    for _ in range(n * BLOCK):
        tile = rank1(tile, a, 1, w)
    row = VECTORS * lanes(a)
    store_tile(at(pointer(sums), member * ROWS * row), row, tile)


def _multiply_matrices(member, n, data, sums):
    a, side = align(pointer(data)), SIDE
    w = at(a, side * side * DEEP)
    to = at(align(pointer(sums)), member * side * side * WIDE)
    begin_rows(side)
    for _ in range(n):
        multiply_matrices(to, side * WIDE, a, side * DEEP, w, DEEP, WIDE)
    end_matrices(a)


def _stream(member, n, length, data, sums):
    a = align(pointer(data))
    w = at(a, member * length)
    row = VECTORS * lanes(a)
    tile = zero_tile(a, ROWS, VECTORS)
    for _ in range(n):
        for i in range(0, length, ROWS * row):
            tile = partial_sums(tile, a, 0, at(w, i))
    store_tile(at(pointer(sums), member * ROWS * row), row, tile)


def _fill(member, length, data):
    """Touch a thread's part first by that thread: memory lies near the core that does."""
    data[member * length : (member + 1) * length + ALIGNMENT] = 0.5


def _path() -> Path:
    """Return where the roofline of this machine, measured by this code, is kept; an OSError if it cannot be."""
    digest = hashlib.sha256()
    for source in (__file__, dots.__file__, matrices.__file__, registers.__file__, simd.__file__, team.__file__):
        digest.update(Path(source).read_bytes())
    about = (
        *cpu_target.target_context.codegen().magic_tuple(),
        hardware.cpu(),
        hardware.caches(),
        usable_cpus(),
    )
    digest.update(repr((about, numba.__version__)).encode())
    return base_folder() / f"roofline-{digest.hexdigest()[:16]}.json"
