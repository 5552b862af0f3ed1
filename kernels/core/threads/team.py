"""A team of threads that walk through time together, each with its part of the work.

`on_a_team` calls compiled code with a team, and `share_out` there calls a job once for each member, on threads of its
own, for the whole sequence. A thread that sleeps takes as long to wake as many steps do, so one that has finished
spins for its next job for a while, in compiled code, which needs no interpreter: a job is an address that is written
to the thread's mailbox. Where the members share a state they `meet` after each step: they spin too, and after a while
they offer their core to others, so that more threads than cores are slow and not stuck. Where others keep all cores
busy, such as another library's threads that spin, one member or the other has no core most of the time; calls are
alone then, but for a try now and then.

Each thread is kept off the caller's CPU and away from the others. Left alone, a scheduler may wake it where the caller
runs, above all in a virtual machine, whose idle CPUs look as if they were taken; then the two spin in turns.

Numba's own `prange` would do the same if its threading layer runs all members at once, which no layer promises.
"""

import atexit
import contextlib
import ctypes
import os
import threading
from queue import SimpleQueue
from time import monotonic, sleep

import numpy as np
from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic, overload
from numba.np.ufunc import parallel

from kernels.core.code.cache import INLINE, compiled
from kernels.core.threads.cpus import usable_cpus, waited
from kernels.core.vectors.simd import at, pointer

# A team is an array of a row for each member: the caller's notes, and the mailboxes of the others. A row is two cache
# lines, since they come in pairs.
_ROW = 16
_MEETINGS, _STEPS, _PATIENCE = 0, 1, 2
_STATE, _FUNCTION, _ARGUMENTS, _FAILED = 0, 1, 2, 3
_IDLE, _ASKED, _READY, _GO = range(4)  # states of a mailbox: the helper makes asked ready, and go idle

FOREVER = 2**62  # spins

_SPARE = 12_000  # spins until a thread without a job goes to sleep: about half a millisecond
_WAKING = 1200  # spins: who would not wait as long does not wait for a thread that sleeps
_SOON = 0.0002  # s: a call within that finds a thread awake still
_LOOK = 0.02  # s of work as a team, until somebody looks for how long its members had no CPU
_CROWDED = 0.3  # of that time: a team of two that had none for so long is no faster than one thread
_ALONE = 10  # times as long calls are alone then

_INT64 = ir.IntType(64)

alone = np.zeros((1, _ROW), np.int64)

_at_work: dict[str, object] = {}  # whose call has the team
_cpus = os.cpu_count() or 1
_board = np.zeros((max(config.NUMBA_NUM_THREADS, _cpus), _ROW), np.int64)  # type: ignore[attr-defined]
_helpers: list["_Helper"] = []
_current_cpu = getattr(ctypes.CDLL(None), "sched_getcpu", None) if hasattr(os, "sched_setaffinity") else None
_place = None  # the CPU of the caller, that the helpers are kept off, and those that it may run on
_wanted = 0  # members of the team at work: who of them has fallen asleep looks here before it waits to be woken
_last_small = 0.0  # s: when a call ended that did not wait for a sleeper
_worked = 0.0  # s of work as a team since somebody looked
_alone_until = 0.0  # s: by `monotonic`, as they all are


class _Helper(threading.Thread):
    """A thread that does the jobs of one member of every team."""

    def __init__(self, member):
        super().__init__(name="unrolled", daemon=True)
        self.mailbox = _board[member]
        self.member = member
        self.awake = True
        self.leaving = False
        self.waited = 0.0  # s that it has waited for a CPU, when somebody looked
        self._bell: SimpleQueue = SimpleQueue()
        self.start()

    def run(self):
        while not self.leaving:
            _serve(self.mailbox, self.member, _SPARE)
            self.awake = False
            if not (self.member < _wanted or self.leaving):
                self._bell.get()
            self.awake = True

    def wake(self):
        if not self.awake and self._bell.empty():
            self._bell.put(None)

    def dismiss(self):
        self.leaving = True
        self._bell.put(None)


def most_threads():
    """Return how many threads Numba's mask allows, and no more than there are CPUs, or their time, to run them.

    As `numba.get_num_threads`, but for its locks: where another thread forks a process meanwhile, a lock that is held
    stays locked in the child.
    """
    allowed = parallel._get_num_threads() if parallel._is_initialized else config.NUMBA_NUM_THREADS
    return min(allowed, usable_cpus())


def _spread():
    """Give each helper a CPU of its own among the caller's, but for the one that the caller is on."""
    global _place
    if not _current_cpu:
        return
    cpu, cpus = place = _current_cpu(), os.sched_getaffinity(0)
    if place == _place:
        return
    others = sorted(cpus - {cpu})
    for n, helper in enumerate(_helpers):
        if others:
            with contextlib.suppress(OSError):  # it is as right elsewhere
                os.sched_setaffinity(helper.native_id, {others[n % len(others)]})
    _place = place


def _forget_threads():
    """Start anew in a forked process, which inherits the list of threads, but no thread."""
    global _place, _board, _wanted
    _place, _board, _wanted = None, np.zeros_like(_board), 0
    _helpers.clear()
    _at_work.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)


@atexit.register
def _dismiss():
    """Let no thread spin in compiled code while the interpreter takes it down; whoever calls after this is alone."""
    deadline = monotonic() + 1
    while _at_work.setdefault("caller", _dismiss) is not _dismiss and monotonic() < deadline:
        sleep(0.001)
    for helper in _helpers:
        helper.dismiss()
    for helper in _helpers:
        helper.join(timeout=1)


def on_a_team(work, size, arguments):
    """Call work(team, *arguments) with a team of some size.

    `size` is how many members there may be, and for how many spins to wait for them. If that is too few for a thread
    that sleeps, if a team is at work already, or if members had to wait for a CPU of late, it is a team of one; but
    where calls too small for a sleeper follow each other soon, the sleepers are woken for the next.
    """
    global _last_small, _wanted
    members, patience = size
    if members == 1 or _at_work or monotonic() < _alone_until:
        work(alone, *arguments)
        return
    me = object()
    # An interrupt may come after any call: in Python 3.14 even between a lock's `__enter__` and the block of its
    # `with`. So the call that takes the team writes down whose it is, and none is needed to give it back.
    try:
        first = _at_work.setdefault("caller", me) is me
        if first and _as_a_team(work, members, patience, arguments):
            return
    finally:
        try:
            if _at_work["caller"] is me:
                _wanted = 0
                del _at_work["caller"]
        except KeyError:
            pass
    work(alone, *arguments)
    if first:
        _last_small = monotonic()


def _as_a_team(work, members, patience, arguments):
    """Call work with a team, unless those who sleep are not worth waiting for; tell whether it was called."""
    global _wanted
    _wanted = members
    try:
        helpers = _gather(members)
        asleep = [helper for helper in helpers if not helper.awake]
        worth_waiting = not asleep or patience >= _WAKING
        if worth_waiting or monotonic() - _last_small < _SOON:
            for helper in asleep:
                helper.wake()
        if worth_waiting:
            _board[0, _PATIENCE] = patience
            begin = monotonic()
            work(_board[: len(helpers) + 1], *arguments)
            _look(helpers, monotonic() - begin)
        return worth_waiting
    except BaseException:
        _board[1:members, _STATE] = _IDLE  # let none stay ready for a job that does not come
        raise


def _look(helpers, worked):
    """After some time of work, see whether others want the helpers' CPUs; if so, leave them to them for a while."""
    global _worked, _alone_until
    _worked += worked
    if _worked < _LOOK:
        return
    longest = 0.0
    for helper in helpers:
        before, helper.waited = helper.waited, waited(helper.native_id)
        longest = max(longest, helper.waited - before)
    if longest > _CROWDED * _worked:
        _alone_until = monotonic() + _ALONE * _worked
    _worked = 0.0


def _gather(members):
    """Return the helpers of a team, each on a CPU of its own; fewer where the system gives no more threads."""
    global _place
    if len(_helpers) < members - 1:
        _place = None
        with contextlib.suppress(RuntimeError):
            _helpers.extend(_Helper(member) for member in range(len(_helpers) + 1, members))
    _spread()
    return _helpers[: members - 1]


@intrinsic
def share_out(typingctx, work, team, arguments):
    """Call compiled code, work(member, *arguments), for every member of an `assembled` team, and wait for all of them.

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
def _atomic_store(typingctx, p, value):
    """Write to p[0]; who sees it sees all that was written before."""

    def codegen(context, builder, signature, args):
        builder.store_atomic(args[1], args[0], "release", 8)
        return context.get_dummy_value()

    return types.void(p, types.int64), codegen


@intrinsic
def _replace(typingctx, p, old, new):
    """Write `new` to p[0] if `old` is there still, and tell whether it was."""

    def codegen(context, builder, signature, args):
        return builder.extract_value(builder.cmpxchg(*args, "acq_rel", "acquire"), 1)

    return types.boolean(p, types.int64, types.int64), codegen


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
def take_up(flag):
    """Take what a flag stands for, unless it is taken; tell whether it was free."""
    return _replace(flag, 0, 1)


@compiled
def put_down(flag):
    _atomic_store(flag, 0)


@compiled
def _state(team, member):
    return at(pointer(team), member * _ROW + _STATE)


@compiled
def assembled(team):
    """Return the team if all are there before the caller's patience ends, else the caller alone.

    A thread that is awake may have lost its CPU to another, such as one that spins for another library, for longer
    than all of the work takes.
    """
    spins = 0
    for member in range(1, len(team)):
        _atomic_store(_state(team, member), _ASKED)
    for member in range(1, len(team)):
        while _atomic_load(_state(team, member)) != _READY:
            if spins == team[0, _PATIENCE]:
                for one in range(1, len(team)):
                    _atomic_store(_state(team, one), _IDLE)
                return team[:1]
            spins = _spin(spins)
    return team


@compiled
def _do(team, function, arguments):
    """Do a job as a team, and wait for all members."""
    members = len(team)
    team[0, _MEETINGS] = 0
    for member in range(1, members):
        team[member, _FUNCTION], team[member, _ARGUMENTS] = function, arguments
        _atomic_store(_state(team, member), _GO)
    failed = _call(function, 0, arguments)
    for member in range(1, members):
        spins = 0
        while _atomic_load(_state(team, member)) != _IDLE:
            spins = _spin(spins)
        failed += team[member, _FAILED]
    if failed:
        raise RuntimeError("a thread of the team has failed")


@compiled
def _serve(mailbox, member, spare):
    """Do the jobs that come, until none has come for so many spins."""
    state = at(pointer(mailbox), _STATE)
    spins = 0
    while spins < spare:
        spins = _spin(spins)
        if _atomic_load(state) == _ASKED and _replace(state, _ASKED, _READY):
            spins = 0
            while _atomic_load(state) == _READY:
                spins = _spin(spins)
            if _atomic_load(state) == _GO:
                mailbox[_FAILED] = _call(mailbox[_FUNCTION], member, mailbox[_ARGUMENTS])
                _atomic_store(state, _IDLE)
            spins = 0


@compiled
def meet(meetings, members):
    """Wait until every member has come here as often as this one, and see what they wrote."""
    if members == 1:
        return
    complete = (_atomic_add(meetings, 1) // members + 1) * members
    spins = 0
    while _atomic_load(meetings) < complete:
        spins = _spin(spins)


def available(leader, t, steps):
    """Return up to which step the work of the `leader` has come, at least one beyond t; all for None."""


@overload(available, jit_options=INLINE)
def _available(leader, t, steps):
    return (lambda leader, t, steps: steps) if leader == types.none else _wait_for


def _wait_for(leader, t, steps):
    spins = 0
    while _atomic_load(leader) <= t:
        spins = _spin(spins)
    return min(_atomic_load(leader), steps)


def is_heard(follower):
    """Tell whether somebody waits for this work's steps."""


@overload(is_heard, jit_options=INLINE)
def _is_heard(follower):
    answer = follower != types.none
    return lambda follower: answer


def post(follower, t, me):
    """Tell the follower that the work has come up to step t; the first of its members does."""


@overload(post, jit_options=INLINE)
def _post(follower, t, me):
    if follower == types.none:
        return lambda follower, t, me: None

    def post(follower, t, me):
        if me == 0:
            _atomic_store(follower, t)

    return post


@compiled
def _spin(spins):
    _pause()
    if spins % 1000 == 999:
        _give_way()
    return spins + 1


@compiled
def steps_before(team):
    """Return how many steps this team has taken in earlier calls, or nearly, since nothing but speed depends on it."""
    return team[0, _STEPS]


@compiled
def count_steps(team, steps):
    team[0, _STEPS] += steps


@compiled
def part(n, member, members):
    """Return where a member's part of n things starts and ends."""
    return n * member // members, n * (member + 1) // members
