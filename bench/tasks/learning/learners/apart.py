"""A learner in a process of its own: no library's idle threads, nor its crash, reach another's training.

`Apart` is the near end, `main` the process's own. They exchange pickles, a request and its reply, over the process's
stdin and stdout; what a library prints goes to stderr instead, and its last line is quoted if the process dies.
"""

import contextlib
import gc
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from importlib import import_module
from typing import Any

import numpy as np

from bench.tasks.learning.learners import check, make
from bench.tasks.learning.model import Batch, Model
from bench.tasks.learning.optimizers import Optimizer
from bench.tasks.learning.weights import Weights
from bench.timing.worker import WorkerError, environment, python

TICK = time.get_clock_info("perf_counter").resolution  # seconds; nothing that was timed took less


class Apart:
    """A `Learner` whose clock runs where it learns, with so many threads; to be closed at the end."""

    def __init__(self, implementation: str, threads: int = 1):
        check(implementation)
        self.implementation = implementation
        self.threads = threads
        self.seconds = 0.0  # that the last call of `learn` took
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115
        self._process: Any = subprocess.Popen(
            python("bench.tasks.learning.learners.apart", implementation, str(threads)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=environment(threads),
            start_new_session=True,  # Ctrl-C is the caller's to handle
        )

    def begin(self, model: Model, optimizer: Optimizer, weights: Weights) -> None:
        """Begin with a copy of these weights; the process keeps what it compiled for an earlier beginning."""
        self._ask("begin", model, optimizer, weights)

    def learn(self, batches: Iterable[Batch]) -> list[float]:
        losses, self.seconds = self._ask("learn", list(batches))
        return losses

    def weights(self) -> Weights:
        return self._ask("weights")

    def arrays(self) -> dict[str, np.ndarray]:
        return self._ask("arrays")

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        self._ask("restore", arrays)

    def close(self) -> None:
        """End the process at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()

    def _ask(self, request: str, *arguments: Any) -> Any:
        try:
            pickle.dump((request, arguments), self._process.stdin, pickle.HIGHEST_PROTOCOL)
            self._process.stdin.flush()
            reply = pickle.load(self._process.stdout)
        except (BrokenPipeError, EOFError):
            self._process.wait()
            raise WorkerError(f"{self.implementation}: {self._death()}") from None
        if isinstance(reply, Exception):
            raise reply
        return reply

    def _death(self) -> str:
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        how = f"its process ended with code {self._process.returncode}"
        return f"{how}: {lines[-1].strip()}" if lines else how


class _Desk:
    """The process's end: one method for each request."""

    def __init__(self, implementation: str):
        self.implementation = implementation

    def begin(self, model, optimizer, weights):
        self.learner = None
        gc.collect()
        gc.freeze()  # what the libraries hold by now need not be looked through again before every `learn`
        self.learner = make(self.implementation, model, optimizer, weights)

    def learn(self, batches):
        gc.collect()
        gc.disable()
        start = time.perf_counter()
        try:
            losses = self.learner.learn(batches)
            return losses, max(time.perf_counter() - start, TICK)
        finally:
            gc.enable()

    def weights(self):
        return self.learner.weights()

    def arrays(self):
        return self.learner.arrays()

    def restore(self, arrays):
        self.learner.restore(arrays)


def main() -> None:
    """Answer the requests on stdin, one by one, until it ends: with the process at the other end."""
    implementation, threads = sys.argv[1:]
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    library = import_module(implementation.partition("-")[0])  # now, while the other learners import theirs
    if implementation == "torch":  # the others take their threads from the environment
        library.set_num_threads(int(threads))

    desk = _Desk(implementation)
    while True:
        try:
            request, arguments = pickle.load(requests)
        except EOFError:
            return
        try:
            reply = getattr(desk, request)(*arguments)
        except Exception as error:
            reply = error
        pickle.dump(reply, replies, pickle.HIGHEST_PROTOCOL)
        replies.flush()
