"""A team of threads that walk through time together, each with its part of the work.

`on_a_team` calls compiled code with a team, and `share_out` there calls a job once for each member, on threads of its
own, for the whole sequence. A thread that sleeps takes as long to wake as many steps do, so one that has finished
spins for its next job for a while, in compiled code, which needs no interpreter: a job is an address that is written
to the thread's mailbox. Where the members share a state they `meet` after each step: they spin too, and after a while
they offer their core to others, so that more threads than cores are slow and not stuck.

Each thread is kept off the caller's CPU and away from the others. Left alone, a scheduler may wake it where the caller
runs, above all in a virtual machine, whose idle CPUs look as if they were taken; then the two spin in turns.

Numba's own `prange` would do the same if its threading layer runs all members at once, which no layer promises.
"""

import atexit
import ctypes
import os
import threading
from queue import SimpleQueue
from time import monotonic

import numpy as np
from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic

from kernels.cache import compiled
from kernels.simd import at, pointer

# A team is an array of a row for each member. The caller's row counts meetings, another's is its mailbox. A row is two
# cache lines, since they come in pairs.
_ROW = 16
_MEETINGS = _POSTED = 0
_FUNCTION, _ARGUMENTS, _SERVED, _FAILED = 1, 2, 8, 9

_PATIENCE = 12_000  # spins until a thread without a job goes to sleep: about half a millisecond
_SOON = 0.0002  # s, as long

_INT64 = ir.IntType(64)

alone = np.zeros((1, _ROW), np.int64)

_one_team = threading.Lock()
_board = np.zeros((config.NUMBA_NUM_THREADS, _ROW), np.int64)
_helpers: list["_Helper"] = []
_current_cpu = getattr(ctypes.CDLL(None), "sched_getcpu", None) if hasattr(os, "sched_setaffinity") else None
_callers_cpu = None  # that the helpers are kept off
_last_small = 0.0  # s: when a call ended that did not wait for a sleeper


class _Helper(threading.Thread):
    """A thread that does the jobs of one member of every team."""

    def __init__(self, member):
        super().__init__(name="unrolled", daemon=True)
        self.member = member
        self.mailbox = _board[member]
        self.expected = 0  # jobs until now
        self.awake = True
        self.leaving = False
        self.bell: SimpleQueue = SimpleQueue()
        self.start()

    def run(self):
        while not self.leaving:
            served = _serve(self.mailbox, self.member, _PATIENCE)
            self.awake = False  # said before looking again, as `call` looks only after saying that a job will come
            if served == self.expected and not self.leaving:
                self.bell.get()
            self.awake = True

    def call(self):
        """Have the thread awake for one more job."""
        self.expected += 1
        if not self.awake:
            self.bell.put(None)

    def take_back(self):
        """Forget a call that no job has come of."""
        self.expected = int(self.mailbox[_POSTED])

    def dismiss(self):
        self.leaving = True
        self.bell.put(None)


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
    global _one_team, _callers_cpu, _board
    _one_team, _callers_cpu, _board = threading.Lock(), None, np.zeros_like(_board)
    _helpers.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)


@atexit.register
def _dismiss():
    """Let no thread spin in compiled code while the interpreter takes it down."""
    for helper in _helpers:
        helper.dismiss()
    for helper in _helpers:
        helper.join(timeout=1)


def on_a_team(work, size, arguments):
    """Call work(team, *arguments) with a team of some size.

    `size` is how many members there may be, and whether to wait for one that sleeps. If not, or if a team is at work
    already, it is a team of one; but where small calls follow each other, the sleepers are woken for the next.
    """
    global _last_small
    members, wait = size
    if members == 1 or not _one_team.acquire(blocking=False):
        work(alone, *arguments)
        return
    try:
        helpers = _gather(members)
        if wait or all(helper.awake for helper in helpers):
            _call_together(work, helpers, arguments)
            return
        if monotonic() - _last_small < _SOON:  # and the next one as soon again
            for helper in helpers:
                helper.bell.put(None)
    finally:
        _one_team.release()
    work(alone, *arguments)
    _last_small = monotonic()


def _gather(members):
    """Return the helpers of a team, each on a CPU of its own."""
    global _callers_cpu
    if len(_helpers) < members - 1:
        _helpers.extend(_Helper(member) for member in range(len(_helpers) + 1, members))
        _callers_cpu = None
    _spread()
    return _helpers[: members - 1]


def _call_together(work, helpers, arguments):
    for helper in helpers:
        helper.call()
    try:
        work(_board[: len(helpers) + 1], *arguments)
    except BaseException:
        for helper in helpers:
            helper.take_back()
        raise


@intrinsic
def share_out(typingctx, work, team, arguments):
    """Call compiled code, work(member, *arguments), for every member of a team, and wait for all of them.

    No function that takes `work` and hands it on, since all that is linked into one is compiled once more.
    """
    if not isinstance(work, types.Dispatcher):
        raise TypingError(f"share_out: expected compiled code, got {work}")
    called = work.get_call_type(typingctx, (types.int64, *arguments), {})
    shared = types.Dispatcher(_do).get_call_type(typingctx, (team, types.int64, types.int64), {})

    def codegen(context, builder, signature, args):
        result, do = work.dispatcher.get_compile_result(called), _do.get_compile_result(shared)
        context.add_linking_libs([result.library, do.library])
        copy = cgutils.alloca_once_value(builder, args[2])  # the caller holds the references

        kind = ir.FunctionType(_INT64, [_INT64, copy.type])
        job = ir.Function(builder.module, kind, builder.module.get_unique_name("job"))
        job.linkage = "internal"
        inside = ir.IRBuilder(job.append_basic_block())
        values = cgutils.unpack_tuple(inside, inside.load(job.args[1]), len(arguments))
        status, _ = context.call_internal_no_propagate(inside, result.fndesc, called, [job.args[0], *values])
        inside.ret(inside.zext(status.is_error, _INT64))

        addresses = [builder.ptrtoint(p, _INT64) for p in (job, copy)]
        context.call_internal(builder, do.fndesc, shared, [args[1], *addresses])
        return context.get_dummy_value()

    return types.void(work, team, arguments), codegen


@intrinsic
def _call(typingctx, function, member, arguments):
    """Do a member's part of a job, and tell whether it failed."""

    def codegen(context, builder, signature, args):
        kind = ir.FunctionType(_INT64, [_INT64, _INT64])
        return builder.call(builder.inttoptr(args[0], kind.as_pointer()), args[1:])

    return types.int64(types.int64, types.int64, types.int64), codegen


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


@compiled
def _do(team, function, arguments):
    """Do a job as a team, and wait for all members."""
    members = len(team)
    team[0, _MEETINGS] = 0
    for member in range(1, members):
        team[member, _FUNCTION], team[member, _ARGUMENTS] = function, arguments
        _atomic_add(at(pointer(team), member * _ROW + _POSTED), 1)
    failed = _call(function, 0, arguments)
    for member in range(1, members):
        spins = 0
        while _atomic_load(at(pointer(team), member * _ROW + _SERVED)) < team[member, _POSTED]:
            spins = _spin(spins)
        failed += team[member, _FAILED]
    if failed:
        raise RuntimeError("a thread of the team has failed")


@compiled
def _serve(mailbox, member, patience):
    """Do the jobs that come, until none has come for so many spins; return how many there were up to now."""
    served = mailbox[_SERVED]
    spins = 0
    while spins < patience:
        if _atomic_load(at(pointer(mailbox), _POSTED)) > served:
            mailbox[_FAILED] = _call(mailbox[_FUNCTION], member, mailbox[_ARGUMENTS])
            _atomic_add(at(pointer(mailbox), _SERVED), 1)
            served += 1
            spins = 0
        spins = _spin(spins)
    return served


@compiled
def meet(meetings, members):
    """Wait until every member has come here as often as this one, and see what they wrote."""
    if members == 1:
        return
    complete = (_atomic_add(meetings, 1) // members + 1) * members
    spins = 0
    while _atomic_load(meetings) < complete:
        spins = _spin(spins)


@compiled
def _spin(spins):
    _pause()
    if spins % 1000 == 999:
        _give_way()
    return spins + 1


@compiled
def part(n, member, members):
    """Return where a member's part of n things starts and ends."""
    return n * member // members, n * (member + 1) // members
