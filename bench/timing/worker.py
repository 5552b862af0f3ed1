"""One process for one implementation and one thread count, which builds, verifies and times.

`Worker` is the harness's end, `main` the process's own. They exchange lines of JSON, a request and its reply, over
the process's stdin and stdout; what a library prints goes to stderr instead, and its last line is quoted if the
process dies. No worker outlives the harness: it ends at the end of its stdin, and at the death of its parent.
"""

import contextlib
import gc
import json
import math
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from importlib import import_module
from pathlib import Path

from bench.grid.cases import Case

ROOT = Path(__file__).resolve().parents[2]  # where the packages lie: a checkout, or site-packages
TIME_LIMIT_S = 180  # for one request
_DIES_WITH_PARENT = sys.platform == "linux"


class WorkerError(Exception):
    """The worker died, hung or raised: one line that says which."""


def environment(threads):
    """Return the environment of a worker: every library that reads its thread count there gets the same."""
    names = ("OMP", "OPENBLAS", "MKL", "NUMBA", "VECLIB")
    variables = {f"{name}_{'MAXIMUM' if name == 'VECLIB' else 'NUM'}_THREADS": str(threads) for name in names}
    eigen = str(threads > 1).lower()
    xla = f"--xla_cpu_multi_thread_eigen={eigen} intra_op_parallelism_threads={threads}"
    return os.environ | variables | {"XLA_FLAGS": xla, "NPROC": str(threads), "JAX_PLATFORMS": "cpu"}


def python(module, *arguments, elsewhere=None):
    """Return the command for `main` of one of our modules in a process of its own, from whichever folder.

    The interpreter and the source are ours, or those of an `Elsewhere`.
    """
    home = str(elsewhere.source if elsewhere else ROOT)
    there = "False" if elsewhere else f"{home!r} in sys.path"
    code = f"import sys; {there} or sys.path.insert(0, {home!r}); from {module} import main; main()"
    interpreter = elsewhere.python if elsewhere else sys.executable
    return [interpreter, "-P", "-c", code, *arguments]  # -P: not what happens to lie in the current folder


class Worker:
    """The harness's end of a worker for the implementation in `module`, on these CPUs or wherever it likes.

    Its version is this one's, or that which is `elsewhere`.
    """

    def __init__(self, module, threads, time_limit_s=TIME_LIMIT_S, cpus=(), elsewhere=None):
        self.time_limit_s = time_limit_s
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            python("bench.timing.worker", module, str(threads), *map(str, cpus), elsewhere=elsewhere),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=environment(threads),
            start_new_session=True,  # Ctrl-C is the harness's to handle
        )
        self._threads = threads

    def ask(self, request, more_s=0, **arguments):
        """Send a request and return its reply (a dict), or raise a WorkerError; the worker is then closed.

        The reply may take `more_s` seconds beyond the time limit.
        """
        limit_s = self.time_limit_s + more_s
        self._signal(signal.SIGCONT)
        try:
            self._process.stdin.write(json.dumps({"request": request, **arguments}).encode() + b"\n")
            self._process.stdin.flush()
            ready, _, _ = select.select([self._process.stdout], [], [], limit_s)
            line = self._process.stdout.readline() if ready else None
        except BrokenPipeError:
            line = b""
        if line is None:
            self.close()
            raise WorkerError(f"{request}: no answer within {limit_s:.3g} s")
        if not line.endswith(b"\n"):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
            self.close()
            raise WorkerError(f"{request}: {self._death()}")
        reply = json.loads(line)
        if "error" in reply:
            self.close()  # whatever it left behind is not to be trusted
            raise WorkerError(f"{request}: {reply['error']}")
        return reply

    def rest(self):
        """Stop the worker until it is asked again: a pool of threads that spins for its next job costs others nothing.

        Where a stopped process would outlive the harness, wait a little instead.
        """
        if _DIES_WITH_PARENT:
            self._signal(signal.SIGSTOP)
        elif self._threads > 1:
            time.sleep(0.02)

    def close(self):
        """End the process, and whatever it started, at once."""
        self._signal(signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()

    def _signal(self, number):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _death(self):
        code = self._process.returncode
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        return f"{how}: {lines[-1].strip()}" if lines else how


def main():
    """Answer the requests on stdin, one by one."""
    module, threads, *cpus = sys.argv[1:]
    _die_with_parent()
    if cpus:
        os.sched_setaffinity(0, map(int, cpus))  # before any library looks how many there are
    requests = os.fdopen(os.dup(0), encoding="utf-8")
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)

    desk = Desk(import_module(module), int(threads))
    for line in requests:
        message = json.loads(line)
        try:
            reply = getattr(desk, message.pop("request"))(**message)
        except Exception as error:
            text = " ".join(str(error).split())
            reply = {"error": f"{type(error).__name__}: {text}" if text else type(error).__name__}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


class Desk:
    """The process's end: one method for each request."""

    def __init__(self, implementation, threads):
        self.implementation = implementation
        self.threads = threads
        self.prepared = self.case = self.seed = self.judge = None
        self.calls = 0  # of what is prepared

    def start(self):
        """Import the library and fix its threads."""
        self.implementation.start(self.threads)
        gc.collect()
        gc.freeze()  # the library's own objects need not be looked through again
        return {}

    def build(self, case, seed, reference=None, weights=None):
        """Prepare a case and verify its second call; the reference is kept in a file for the next worker, if named.

        So are the `weights`, if the case has its own.
        """
        from bench.grid import inputs
        from bench.implementations import UnsupportedError
        from bench.timing import verify

        case = Case(**case)
        self.prepared = self.judge = None
        gc.collect()
        _reset_peak_memory()
        arrays = inputs.make(case, seed, weights)
        start = time.perf_counter()
        try:
            if case.low and case.activation == "relu":
                raise UnsupportedError(f"{case.low} has its budget for states within ±1, and relu's have no bound")
            prepared = self.implementation.prepare(case, arrays)
            with prepared.context():
                prepared.call()
                compile_s = time.perf_counter() - start
                result = prepared.call()
            peak = _peak_memory()

            def judge(result):
                return verify.judge(case, arrays, prepared.outputs(result), prepared.follows, reference)

            errors, message, loss = judge(result)
        except UnsupportedError as reason:
            return {"status": "unsupported", "message": str(reason)}
        self.prepared, self.case, self.seed, self.judge, self.calls = prepared, case, seed, judge, 2
        return {
            "status": "wrong" if message else "ok",
            "message": message,
            "errors": errors,
            "max_error": verify.largest(errors),
            "loss": loss,
            "compile_s": compile_s,
            "peak_memory_bytes": peak,
        }

    def check(self):
        """Verify one more call, behind all that were timed: what was right at first may have become wrong.

        It is an even one, as the one that was verified at first: `train` takes two sets of weights in turn.
        """
        from bench.timing import verify

        with self.prepared.context():
            for _ in range(2 - self.calls % 2):
                result = self.prepared.call()
                self.calls += 1
        errors, message, _ = self.judge(result)
        return {"message": message, "errors": errors, "max_error": verify.largest(errors)}

    def build_model(self, path, inputs, seed, results, plain=False):
        """Prepare the whole model of a file and write what its second call gives; see `bench.timing.whole`."""
        import numpy as np

        from bench.grid.inputs import of_model

        self.prepared = None
        arrays = of_model(inputs, seed)
        start = time.perf_counter()
        prepared = self.implementation.prepare_model(path, arrays, **({"plain": True} if plain else {}))
        prepared.call()
        compile_s = time.perf_counter() - start
        np.savez(results, **prepared.outputs(prepared.call()))
        self.prepared = prepared
        return {"compile_s": compile_s}

    def recurrent(self, path, inputs, seed, runs):
        """Return the seconds of each recurrent node in a run of a whole model."""
        from bench.grid.inputs import of_model

        return {"recurrent": self.implementation.recurrent(path, of_model(inputs, seed), runs)}

    def calibrate(self, round_s):
        """Return how many calls make a round of about `round_s`; the calls made to find out warm everything up.

        Of a stream these are whole sessions.
        """
        if self.prepared.session:
            from bench.timing import sessions

            return {"calls": sessions.calls_in(self.prepared, round_s)}
        calls = 1
        while (elapsed := self._time(calls)) < round_s / 2:
            calls = min(10 * calls, math.ceil(calls * round_s / elapsed))
        calls = max(1, round(calls * round_s / elapsed))
        return {"calls": calls}

    def round(self, calls):
        """Return the seconds of one call, from a round of `calls`; of a stream the median, and how long each took."""
        if self.prepared.session:
            from bench.timing import sessions

            taken = sessions.back_to_back(self.prepared, calls)
            return {"seconds": sessions.median_s(taken), "latencies": sessions.gather(taken)}
        return {"seconds": self._time(calls) / calls}

    def pace(self, period_s):
        """Return how long each call of a session took that came every `period_s`, and how many were late."""
        from bench.timing import sessions

        taken, missed = sessions.paced(self.prepared, period_s)
        return {"latencies": sessions.gather(taken), "missed": missed}

    def clock(self):
        """Return what it takes to read the clock around a call of a session."""
        from bench.timing import sessions

        return {"clock_s": sessions.clock_s(self.prepared)}

    def inside(self):
        """Return the seconds of a step within a long `forward`, None if it has none: see `bench.timing.sessions`."""
        from bench.timing import sessions

        return {"inside_s": sessions.inside_s(self.implementation, self.case, self.seed)}

    def _time(self, calls):
        call = self.prepared.call
        turns = range(calls)
        self.calls += calls
        gc.disable()
        try:
            with self.prepared.context():
                start = time.perf_counter()
                for _ in turns:
                    call()
                return time.perf_counter() - start
        finally:
            gc.enable()


def _die_with_parent():
    """See to it that this process ends with its parent, even in the midst of a computation."""
    parent = os.getppid()
    if _DIES_WITH_PARENT:
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(1)
        return

    def watch():
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _reset_peak_memory():
    """Let the kernel count this process's peak memory anew, where it can (Linux); else it stays the whole life's."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak_memory():
    """Return the peak of this process's resident memory in bytes."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
