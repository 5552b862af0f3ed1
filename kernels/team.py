"""A team of threads that walk through time together, each with its part of the work.

`on_a_team` calls compiled code once for each member, on threads of its own, for the whole sequence: to wake a thread
costs as much as many steps. The code lets go of the interpreter's lock, so the members run at once. Where they share a
state they `meet` after each step: they spin, since a step is over before a sleeping thread would be awake, and after a
while they offer their core to others, so that more threads than cores are slow and not stuck.

Each thread is kept off the caller's CPU and away from the others. Left alone, a scheduler may wake it where the caller
runs, above all in a virtual machine, whose idle CPUs look as if they were taken; then the two spin in turns.

Numba's own `prange` would do the same if its threading layer runs all members at once, which no layer promises.
"""

import ctypes
import os
import threading
from queue import SimpleQueue

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from kernels.cache import compiled
from kernels.simd import pointer

_one_team = threading.Lock()
_helpers: list["_Helper"] = []
_current_cpu = getattr(ctypes.CDLL(None), "sched_getcpu", None) if hasattr(os, "sched_setaffinity") else None
_callers_cpu = None  # that the helpers are kept off


class _Helper(threading.Thread):
    """A thread that does the jobs of one member of every team."""

    def __init__(self):
        super().__init__(name="unrolled", daemon=True)
        self.jobs: SimpleQueue = SimpleQueue()
        self.start()

    def run(self):
        while True:
            work, member, members, arguments, done = self.jobs.get()
            try:
                work(member, members, *arguments)
                done.put(None)
            except BaseException as error:
                done.put(error)


def _spread():
    """Give each helper a CPU of its own among the caller's, but for the one that the caller is on."""
    global _callers_cpu
    cpu = _current_cpu() if _current_cpu else None
    if cpu == _callers_cpu:
        return
    others = sorted(os.sched_getaffinity(0) - {cpu})
    for n, helper in enumerate(_helpers):
        if others:
            os.sched_setaffinity(helper.native_id, {others[n % len(others)]})
    _callers_cpu = cpu


def _forget_threads():
    """Start anew in a forked process, which inherits the list of threads, but no thread."""
    global _one_team, _callers_cpu
    _one_team, _callers_cpu = threading.Lock(), None
    _helpers.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)


def on_a_team(work, members, arguments):
    """Call work(member, members, *arguments) for every member and wait for all; as a team of one if one is at work."""
    global _callers_cpu
    if members == 1 or not _one_team.acquire(blocking=False):
        work(0, 1, *arguments)
        return
    try:
        if len(_helpers) < members - 1:
            _helpers.extend(_Helper() for _ in range(members - 1 - len(_helpers)))
            _callers_cpu = None
        _spread()
        done = SimpleQueue()
        for member in range(1, members):
            _helpers[member - 1].jobs.put((work, member, members, arguments, done))
        work(0, members, *arguments)
        errors = [done.get() for _ in range(1, members)]
    finally:
        _one_team.release()
    for error in filter(None, errors):
        raise error


@intrinsic
def _atomic_add(typingctx, p, value):
    """Add to p[0] and return what it held; who sees the sum sees all that was written before."""

    def codegen(context, builder, signature, args):
        return builder.atomic_rmw("add", args[0], args[1], "acq_rel")

    return types.int64(p, types.int64), codegen


@intrinsic
def _atomic_load(typingctx, p):
    """Return p[0] and see all that was written before it."""

    def codegen(context, builder, signature, args):
        return builder.load_atomic(args[0], "acquire", 8)

    return types.int64(p), codegen


@intrinsic
def _pause(typingctx):
    """Tell the core that this is a spin loop."""

    def codegen(context, builder, signature, args):
        module, void = builder.module, ir.VoidType()
        if module.triple.startswith("x86_64"):
            hint = cgutils.get_or_insert_function(module, ir.FunctionType(void, []), "llvm.x86.sse2.pause")
            builder.call(hint, [])
        elif module.triple.startswith(("aarch64", "arm64")):
            int32 = ir.IntType(32)
            hint = cgutils.get_or_insert_function(module, ir.FunctionType(void, [int32]), "llvm.aarch64.hint")
            builder.call(hint, [int32(1)])
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def _give_way(typingctx):
    """Let another thread have the core."""

    def codegen(context, builder, signature, args):
        name = "SwitchToThread" if "windows" in builder.module.triple else "sched_yield"
        function = ir.FunctionType(ir.IntType(32), [])
        builder.call(cgutils.get_or_insert_function(builder.module, function, name), [])
        return context.get_dummy_value()

    return types.void(), codegen


nobody_to_meet = np.zeros(1, np.int64)


def new_meetings(members):
    """Return the counter by which the members of one team meet."""
    return np.zeros(1, np.int64) if members > 1 else nobody_to_meet


@compiled
def meet(meetings, members):
    """Wait until every member has come here as often as this one, and see what they wrote."""
    if members == 1:
        return
    arrivals = pointer(meetings)
    complete = (_atomic_add(arrivals, 1) // members + 1) * members
    spins = 0
    while _atomic_load(arrivals) < complete:
        _pause()
        spins += 1
        if spins % 1000 == 0:
            _give_way()


@compiled
def part(n, member, members):
    """Return where a member's part of n things starts and ends."""
    return n * member // members, n * (member + 1) // members
