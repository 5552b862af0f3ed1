"""The far end: what a machine of a cluster does when it is asked, in a process of its own beside Dask's worker.

A Dask task cannot be stopped, but a process can: `ask`, the task, hands its request to the process and ends it when the
task is no longer wanted, since it was cancelled or its client is gone. The process ends with Dask's worker as well, and
when nobody has asked for a while. It holds the machine's lock while it measures, so that there is one case at a time on
a machine, whoever asks.
"""

import atexit
import os
import pickle
import queue
import select
import subprocess
import tempfile
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from bench.grid.presets import Preset
from bench.machine import lock
from bench.timing import worker

IDLE_S = 10  # after which the process ends if nobody asks
LOOK_S = 0.2  # how often a task looks whether it is still wanted


class Wish(NamedTuple):
    """What a run is to measure, before a machine has said which of it there is."""

    preset: str  # its name
    chosen: Preset
    choices: dict  # texts by name, as `bench.timing.plan.plan` takes them


class FarError(Exception):
    """The process ended or raised: one line that says which."""


def introduce() -> dict:
    """Return who this machine is; quick, and run in Dask's own process."""
    from bench.timing.plan import source

    name, identity = lock.place()
    return {"name": name, "identity": identity, "source": source()}


def ask(key: str, request: str, *arguments: Any) -> Any:
    """Return the answer of this machine's process to a request; `key` is the Dask task's, to see if it is wanted.

    Raises a FarError if there is no answer.
    """
    from distributed import get_worker

    tasks = get_worker().state.tasks

    def wanted() -> bool:
        task = tasks.get(key)
        return task is not None and task.state != "cancelled"

    return _process.ask((request, arguments), wanted)


class Process:
    """The near end of the process: started when it is needed, and asked by one thread at a time."""

    def __init__(self, main: str = "bench.fleet.far") -> None:
        self._main = main
        self._lock = threading.Lock()
        self._process: subprocess.Popen | None = None

    def ask(self, message: Any, wanted: Callable[[], bool]) -> Any:
        """Return the answer to a message, or raise a FarError; what is no longer `wanted` ends the process."""
        while not self._lock.acquire(timeout=LOOK_S):
            if not wanted():
                raise FarError("no longer wanted")
        try:
            for last in (False, True):
                try:
                    if self._process is None or self._process.poll() is not None:
                        self._start()
                    return self._ask(message, wanted)
                except BrokenPipeError:  # it had waited long enough, just now
                    self.close()
                    if last:
                        raise FarError("its process ends at once") from None
        finally:
            self._lock.release()

    def close(self) -> None:
        """End the process, if there is one; whatever it started ends with it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe:
                    pipe.close()
            self._process = None

    def _start(self) -> None:
        self.close()
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            worker.python(self._main), stdin=pipe, stdout=pipe, stderr=self._stderr, start_new_session=True
        )

    def _ask(self, message: Any, wanted: Callable[[], bool]) -> Any:
        import cloudpickle

        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(cloudpickle.dumps(message))  # as Dask did: with modules, and what they hold
        process.stdin.flush()
        while not select.select([process.stdout], [], [], LOOK_S)[0]:
            if not wanted():
                self.close()
                raise FarError("no longer wanted")
        try:
            kind, answer = pickle.load(process.stdout)
        except EOFError:
            process.wait()
            self._stderr.seek(0)
            lines = self._stderr.read().decode(errors="replace").strip().splitlines()
            self.close()
            code = process.returncode
            if code == 0:
                raise BrokenPipeError from None
            how = f"killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            raise FarError(f"its process was {how}" + (f": {lines[-1].strip()}" if lines else "")) from None
        if kind == "error":
            raise FarError(answer)
        return answer


_process = Process()
atexit.register(_process.close)


def main() -> None:
    """Answer the requests on stdin, one by one, until it ends or nothing more comes."""
    requests = os.fdopen(os.dup(0), "rb")
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    asked: queue.Queue = queue.Queue()

    def read() -> None:
        while True:
            try:
                asked.put(pickle.load(requests))
            except EOFError:
                os._exit(1)  # in the midst of a measurement, whose workers end with their parent

    threading.Thread(target=read, daemon=True).start()
    desk = Desk()
    while True:
        try:
            request, arguments = asked.get(timeout=IDLE_S)
        except queue.Empty:
            os._exit(0)
        try:
            reply = "ok", getattr(desk, request)(*arguments)
        except Exception as error:
            text = " ".join(str(error).split())
            reply = "error", text or type(error).__name__
        pickle.dump(reply, replies)
        replies.flush()


class Desk:
    """The process's end: one method for each request."""

    def __init__(self) -> None:
        self._plans: dict[str, Any] = {}
        self._bench: Any = None

    def describe(self, wish: Wish, host: str) -> tuple:
        """Return the plan that follows from a wish here, what its run.json must hold, and the machine's description."""
        from bench.machine.describe import describe
        from bench.timing.plan import wanted

        plan = self._plan(wish)
        with lock.the_machine():
            return plan, wanted(plan, host), describe(measure=True)

    def measure(self, wish: Wish, case: Any, info: dict) -> list[dict]:
        """Return the rows of a case; `info` is the run's: `baseline`, `implementations` and `machine`."""
        from bench.timing.loop import Bench

        plan = self._plan(wish)
        if self._bench is None or self._bench.plan is not plan:
            if self._bench is not None:
                self._bench.close()
            self._bench = Bench(Rows(info), plan)
        bench = self._bench
        with lock.the_machine():
            bench.measure(case)
        rows, bench.run.rows = bench.run.rows, []
        return rows

    def machine(self) -> dict:
        """Return this machine's description."""
        from bench.machine.describe import describe

        with lock.the_machine():
            return describe(measure=True)

    def do(self, work: Callable, *arguments: Any) -> Any:
        """Return what a function gives that has the machine to itself."""
        with lock.the_machine():
            return work(*arguments)

    def _plan(self, wish: Wish) -> Any:
        from bench.timing.plan import plan

        name = repr(wish)
        if name not in self._plans:
            self._plans = {name: plan(wish.preset, chosen=wish.chosen, **wish.choices)}
        return self._plans[name]


class Rows:
    """A run that is nowhere on the disk: its rows go to whoever asked."""

    def __init__(self, info: dict) -> None:
        self.info, self.rows = info, []  # type: ignore[var-annotated]

    def append(self, *rows: dict) -> None:
        self.rows += rows
