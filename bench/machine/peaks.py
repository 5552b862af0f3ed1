"""What this machine can do at most, measured by our own vector code: operations a second, and bytes a second by level.

The FMA peak is that of the register tile of a matrix product, whose operands stay in the registers. The bandwidths are
those of reading an array again and again, each vector into a sum of its own. The array lies in one level of memory:
half of L1, then the geometric mean of a level's size and that of the level before it, and four times the last
cache for the memory itself. Threads read arrays of their own, all at once; the last cache is taken to be shared by
all threads, the others to be each core's own. The best of many repeats counts, which are spread over some passes: on a
shared machine a neighbour can slow one rate down for as long as it is looked at.

The chain of a cell is the time of a step of a single vector of units: a product with one number of the last state, then
what the cell makes of it, in the order in which they wait for each other. That of the way back is a product alone.

Below float32 the peak is that of the same tile with numbers packed in units, as our kernels multiply them, or that of
the matrix registers where the host has them and they do more; the bandwidths are float32's, since bytes are bytes, and
so are the chains.

What was measured is kept on disk for this machine, beside the kernels' compiled code, until it is measured anew.
"""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from functools import cache, partial, reduce
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import numba
import numpy as np
from numba.core.registry import cpu_target

from bench.grid.cases import GATES
from bench.machine import hardware
from bench.machine.roofline import BACK, MEMORY, ceilings
from kernels.core.code.cache import base_folder, compiled
from kernels.core.code.host import REGISTERS
from kernels.core.products import matrices, registers
from kernels.core.products.matrices import SIDE, begin_rows, end_matrices, multiply_matrices
from kernels.core.products.registers import add_tile, rank1, store_tile, zero_tile
from kernels.core.products.tiles import ZERO
from kernels.core.threads import team
from kernels.core.threads.cpus import usable_cpus
from kernels.core.vectors import dots, simd
from kernels.core.vectors.simd import ALIGNMENT, align, at, lanes, load, pointer, store
from kernels.core.walks.forward import advance
from kernels.core.walks.network import forward_cell


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
    threads, the `gflops` of all threads together, in int8 Gop/s, their `bytes_per_s` by level, and the seconds of
    `chains` by cell. A level too small to be told from the one before it is left out.
    """
    levels = _levels()
    counts = _thread_counts(usable_cpus())
    kinds = [(dtype, threads) for dtype in KINDS for threads in counts]
    passes = [[_rates(*kind, levels, each_s) for kind in kinds] for _ in range(PASSES)]
    rates = [reduce(better, found) for found in zip(*passes, strict=True)]
    full = {rate["threads"]: rate for rate in rates if rate["dtype"] == "float32"}
    for rate in rates:
        for name in ("bytes_per_s", "chains"):
            rate[name] = rate[name] or full[rate["threads"]][name]
    found = {"measured": datetime.now().astimezone().isoformat(timespec="seconds"), "levels": levels, "rates": rates}
    with suppress(OSError):  # no place to keep it: then it is measured again the next time
        _path().write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return found


LOOK_S, KEEP_S = 10, 120  # seconds between two looks, and for which one counts


def look(dtype: str, threads: int, memory: bool = False) -> dict:
    """Return the rates of a moment, in about a third of a second: those of `measure`, the `memory`'s if asked for."""
    own = dtype if KINDS[dtype].numbers == 1 else "float32"
    loops = _cached_loops(own, threads)
    if memory:
        loops += tuple(_readings(own, threads, {MEMORY: _array_bytes(_levels(), threads)[MEMORY]}))
    return _rates_of(_loops(dtype, threads), 0) | _rates_of(loops, 0)


@cache
def _loops(dtype: str, threads: int) -> tuple:
    return tuple(_multiplications(dtype, threads))


@cache
def _cached_loops(dtype: str, threads: int) -> tuple:
    """Return the loops over what lies in caches, whose arrays are kept, and over chains."""
    sizes = _array_bytes(_levels(), threads)
    return (*_readings(dtype, threads, {name: sizes[name] for name in sizes if name != MEMORY}), *_chains(dtype))


def better(one: dict, other: dict) -> dict:
    """Return of two looks each highest rate and each shortest chain."""
    found = one | {"gflops": max(one["gflops"], other["gflops"])}
    for name, best in (("bytes_per_s", max), ("chains", min)):
        either = one[name] | other[name]
        found[name] = {
            key: best(one[name].get(key, value), other[name].get(key, value)) for key, value in either.items()
        }
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


def _array_bytes(levels: dict[str, int], threads: int) -> dict[str, list[int]]:
    """Return the sizes of the arrays that each thread reads, by the level of memory they are to lie in.

    Of the last cache, which may be far larger than the one before it, also little more than that one holds.
    """
    found: dict[str, list[int]] = {}
    inner = 0
    for name, size in levels.items():
        last = name == list(levels)[-1] and inner
        share = size // threads if last else size
        if not inner:
            found[name] = [share // 2]
        elif share >= 3 * inner:
            found[name] = [*([2 * inner] if last and share > 8 * inner else []), int((inner * share) ** 0.5)]
        inner = max(inner, share)
    last_size = max(levels.values(), default=0)
    found[MEMORY] = [min(max(4 * last_size, 2**26), 2**29) // threads]
    return found


def _levels() -> dict[str, int]:
    return {name.removesuffix("d"): size for name, size in hardware.caches().items()}


def _rates(dtype: str, threads: int, levels: dict[str, int], each_s: float) -> dict:
    """Return the rates of one kind; below float32 without bandwidths and chains."""
    loops = _multiplications(dtype, threads)
    if KINDS[dtype].numbers == 1:
        loops += [*_readings(dtype, threads, _array_bytes(levels, threads)), *_chains(dtype)]
    return {"dtype": dtype, "threads": threads, "bytes_per_s": {}, "chains": {}} | _rates_of(loops, each_s)


class Loop(NamedTuple):
    """Something to be measured: `amount` is done by each call of `run`."""

    kind: str  # "gflops", "bytes_per_s" or "chains"
    name: str
    amount: float
    run: Callable


def _rates_of(loops: Sequence[Loop], each_s: float) -> dict:
    """Return what loops find, by kind and name; of several ways to multiply the best."""
    found: dict = {}
    for loop in loops:
        seconds = min(_times(loop.run, each_s))
        if loop.kind == "gflops":
            found["gflops"] = max(found.get("gflops", 0.0), loop.amount / seconds / 1e9)
        elif loop.kind == "chains":
            found.setdefault("chains", {})[loop.name] = seconds / loop.amount
        else:
            rates = found.setdefault("bytes_per_s", {})
            rates[loop.name] = max(rates.get(loop.name, 0.0), loop.amount / seconds)
    return found


def _multiplications(dtype: str, threads: int) -> list[Loop]:
    ways = [_multiplying(dtype, threads)]
    if numba.typeof(np.dtype(KINDS[dtype].unit).type(0)) in matrices.KINDS:
        ways.append(_multiplying_matrices(dtype, threads))
    return [Loop("gflops", "", *way) for way in ways]


def _readings(dtype: str, threads: int, sizes: dict[str, list[int]]) -> list[Loop]:
    return [
        Loop("bytes_per_s", name, *_streaming(dtype, threads, size)) for name, some in sizes.items() for size in some
    ]


def _chains(dtype: str) -> list[Loop]:
    """Return the loops over a step of each cell, and over a product alone."""
    cells = {name: import_module(f"kernels.{name}").as_layers() for name in GATES}
    data = np.full(16 * simd.vector_lanes(np.dtype(dtype)) + ALIGNMENT, 0.1, dtype)
    found = []
    for name, cell in cells.items():
        steps, run = _repeat(_step_on, 1, cell.kind, cell.blocks, data.copy())
        found.append(Loop("chains", name, float(steps * BLOCK), run))
    steps, run = _repeat(_multiply_on, 1, np.full_like(data, 0.5))
    return [*found, Loop("chains", BACK, float(steps * BLOCK), run)]


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
    """Call work(team, *arguments) with so many threads."""
    team.on_a_team(work, (threads, team.FOREVER), arguments)


@compiled
def _multiply_part(member, n, data, sums):
    a = align(pointer(data))
    w = at(a, lanes(a))
    tile = zero_tile(a, ROWS, VECTORS)
    for _ in range(n * BLOCK):
        tile = rank1(tile, a, 1, w)
    row = VECTORS * lanes(a)
    store_tile(at(pointer(sums), member * ROWS * row), row, tile)


@compiled
def _multiply_matrices_part(member, n, data, sums):
    a, side = align(pointer(data)), SIDE
    w = at(a, side * side * DEEP)
    to = at(align(pointer(sums)), member * side * side * WIDE)
    begin_rows(side)
    for _ in range(n):
        multiply_matrices(to, side * WIDE, a, side * DEEP, w, DEEP, WIDE)
    end_matrices(a)


@compiled
def _stream_part(member, n, length, data, sums):
    a = align(pointer(data))
    w = at(a, member * length)
    row = VECTORS * lanes(a)
    tile = zero_tile(a, ROWS, VECTORS)
    for _ in range(n):
        for i in range(0, length, ROWS * row):
            tile = add_tile(tile, at(w, i))
    store_tile(at(pointer(sums), member * ROWS * row), row, tile)


@compiled
def _fill_part(member, length, data):
    """Touch a thread's part first by that thread: memory lies near the core that does."""
    data[member * length : (member + 1) * length + ALIGNMENT] = 0.5


@compiled
def _multiply(members, n, data, sums):
    team.share_out(_multiply_part, team.assembled(members), (n, data, sums))


@compiled
def _multiply_matrices(members, n, data, sums):
    team.share_out(_multiply_matrices_part, team.assembled(members), (n, data, sums))


@compiled
def _stream(members, n, length, data, sums):
    team.share_out(_stream_part, team.assembled(members), (n, length, data, sums))


@compiled
def _fill(members, length, data):
    team.share_out(_fill_part, team.assembled(members), (length, data))


@compiled
def _step_on(members, n, kind, blocks, data):
    """Take steps of one vector of units, each from a product with the first number of the state before it."""
    w = align(pointer(data))
    size = lanes(w)
    state, sums, memory = at(w, size), at(w, 2 * size), at(w, 8 * size)
    cell = forward_cell(kind, size, memory, memory, memory, False)
    for _ in range(n * BLOCK):
        for g in range(blocks):
            store_tile(at(sums, g * size), 0, rank1(zero_tile(w, 1, 1), state, 0, w))
        store(state, 0, advance(cell, sums, size, load(state, 0), ZERO, ZERO, ZERO))


@compiled
def _multiply_on(members, n, data):
    """Multiply by the first number of the product before it, again and again."""
    w = align(pointer(data))
    state = at(w, lanes(w))
    for _ in range(n * BLOCK):
        store_tile(state, 0, rank1(zero_tile(w, 1, 1), state, 0, w))


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
