"""A team of threads that walk through time together, each with its part of the work.

The kernels have one `prange` over the members around the whole sequence, since to start one costs as much as many
steps. Where the members share a state they meet at a barrier after each step; it spins,
as a step takes less time than to wake a thread.

A barrier needs every member to run at once, which `prange` does not promise: a threading layer may give the team
fewer threads, one after the other. So the team calls the roll first. If it is not complete in a second nobody
starts, and the door computes on one thread.
"""

import threading

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from kernels.cache import compiled
from kernels.simd import pointer

ROLL, ARRIVED = 0, 8  # the counters that members share, each in a cache line of its own
BROKEN = 1 << 40  # added to the roll by a member that gave up waiting

_one_team = threading.Lock()


@intrinsic
def atomic_add(typingctx, p, i, value):
    """Add to p[i] and return what it held, all earlier writes made visible to who sees the sum."""

    def codegen(context, builder, signature, args):
        return builder.atomic_rmw("add", builder.gep(args[0], [args[1]]), args[2], "acq_rel")

    return types.int64(p, types.intp, types.int64), codegen


@intrinsic
def atomic_load(typingctx, p, i):
    """Return p[i] and see all that was written before it."""

    def codegen(context, builder, signature, args):
        return builder.load_atomic(builder.gep(args[0], [args[1]]), "acquire", 8)

    return types.int64(p, types.intp), codegen


@intrinsic
def pause(typingctx):
    """Tell the core that this is a spin loop."""

    def codegen(context, builder, signature, args):
        triple = builder.module.triple
        if triple.startswith("x86_64"):
            function = ir.FunctionType(ir.VoidType(), [])
            builder.call(cgutils.get_or_insert_function(builder.module, function, "llvm.x86.sse2.pause"), [])
        elif triple.startswith(("aarch64", "arm64")):
            function = ir.FunctionType(ir.VoidType(), [ir.IntType(32)])
            hint = cgutils.get_or_insert_function(builder.module, function, "llvm.aarch64.hint")
            builder.call(hint, [ir.Constant(ir.IntType(32), 1)])
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def _exchange(typingctx, p, i, seen, value):
    """Write `value` to p[i] if it still holds `seen`."""

    def codegen(context, builder, signature, args):
        p, i, seen, value = args
        builder.cmpxchg(builder.gep(p, [i]), seen, value, "acq_rel", "acquire")
        return context.get_dummy_value()

    return types.void(p, types.intp, types.int64, types.int64), codegen


@intrinsic
def _yield(typingctx):
    """Let another thread have the core, should there be more threads than cores."""

    def codegen(context, builder, signature, args):
        name = "SwitchToThread" if "windows" in builder.module.triple else "sched_yield"
        function = ir.FunctionType(ir.IntType(32), [])
        builder.call(cgutils.get_or_insert_function(builder.module, function, name), [])
        return context.get_dummy_value()

    return types.void(), codegen


@compiled
def _wait(spins):
    pause()
    if spins % 256 == 255:
        _yield()


@compiled
def new_sync():
    """Return what the members of a team share."""
    return np.zeros(16, np.int64)


@compiled
def call_roll(sync, members):
    """Return whether all members are running now; they agree on the answer."""
    roll = pointer(sync)
    atomic_add(roll, ROLL, 1)
    spins = 0
    while True:
        present = atomic_load(roll, ROLL)
        if present >= BROKEN:
            return False
        if present == members:
            return True
        _wait(spins)
        spins += 1
        if spins > 5_000_000:
            _exchange(roll, ROLL, present, BROKEN)


@compiled
def meet(sync, members):
    """Wait until every member of the team has come here as often as this one, and see what they wrote."""
    if members == 1:
        return
    arrivals = pointer(sync)
    meeting = (atomic_add(arrivals, ARRIVED, 1) // members + 1) * members
    spins = 0
    while atomic_load(arrivals, ARRIVED) < meeting:
        _wait(spins)
        spins += 1


@compiled
def part(n, member, members):
    """Return where a member's part of n things starts and ends."""
    return n * member // members, n * (member + 1) // members


def on_a_team(run, wanted):
    """Call run(members), which returns whether the team came together, on `wanted` threads, or else on one.

    Numba's threads serve one caller at a time, so a call that finds them taken computes on its own.
    """
    if wanted > 1 and _one_team.acquire(blocking=False):
        try:
            if run(wanted):
                return
        finally:
            _one_team.release()
    run(1)
