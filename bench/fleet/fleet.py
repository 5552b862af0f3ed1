"""The near end: it gives the machines of a Dask cluster their work, a piece at a time each.

What the pieces are, and what becomes of the answers, is the job's (`runs.py`: cases of a grid). Futures, addresses, and
who came and who left, are Dask's. A machine that leaves loses the piece in work, which comes first again, for another
alike or for when it is back.
"""

import asyncio
import queue
import re
import ssl
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from uuid import uuid4

from distributed import Client, Security, rpc

from bench.fleet import far
from bench.grid.cases import ChoiceError
from bench.timing.plan import source

ANSWERS_S = 5  # within which a scheduler is to answer
LOOK_S = 1.0  # how often we look who came and who left
TRIES = 3  # of a piece of work whose machines all left in the midst of it
ALIKE = 0.1  # the share by which the measured limits of machines that are alike may differ


class TLS(NamedTuple):
    """Dask's files for an encrypted connection."""

    ca_file: str | None = None
    cert: str | None = None
    key: str | None = None


NO_TLS = TLS()


def connect(address: str, tls: TLS = NO_TLS) -> Client:
    """Return Dask's client of a scheduler, or raise a ChoiceError if it does not answer."""
    if not re.fullmatch(r"(\w+://)?[^\s/]+:\d+", address):  # of which Dask's client would not hear the end
        raise ChoiceError(f"--scheduler: expected an address such as tcp://host:8786, got {address!r}")
    security = Security()
    if any(tls):
        files = {"tls_ca_file": tls.ca_file, "tls_client_cert": tls.cert, "tls_client_key": tls.key}
        for name, file in files.items():
            if file is None or not Path(file).is_file():
                option = "--" + name.replace("_", "-").replace("client-", "")
                raise ChoiceError(f"{option}: expected a PEM file, got {file or 'none beside the others'}")
        security = Security(require_encryption=True, **files)

    async def ask() -> None:  # a client alone would wait for good for one that takes its call and says nothing
        async with (
            asyncio.timeout(ANSWERS_S),
            rpc(address, connection_args=security.get_connection_args("client")) as it,
        ):
            await it.identity()

    try:
        asyncio.run(ask())
        return Client(address, timeout=ANSWERS_S, set_as_default=False, direct_to_workers=False, security=security)
    except (OSError, ValueError, RuntimeError, TypeError) as error:  # TimeoutError is an OSError
        expected = f"--scheduler: expected a Dask scheduler that answers, got {address}"
        raise ChoiceError(f"{expected} ({_unanswered(error)})") from None


def _unanswered(error: BaseException | None) -> str:
    """Return why a scheduler does not answer: what the system said, which Dask and TLS wrap into words of their own."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, ssl.SSLError):
            return "no agreement on certificates"
        if isinstance(found, OSError) and found.strerror:
            return found.strerror
        found = found.__cause__ or found.__context__
    late = isinstance(error, TimeoutError)
    return f"no answer within {ANSWERS_S} s" if late else "what is there speaks otherwise, or it is no address"


class Machine:
    """A machine of the cluster: Dask's workers on it, and the kind that it is of."""

    def __init__(self, name: str, identity: str) -> None:
        self.name, self.identity = name, identity
        self.addresses: set[str] = set()
        self.kind: Kind | None = None
        self.work: Work | None = None


class Kind(Protocol):
    """One machine, or several that are alike and share: what is left for it, and what becomes of what it does."""

    name: str
    left: deque  # pieces of work: hashable, shown by `str`
    pieces: int  # all of them
    done: int

    def request(self, piece: Any) -> tuple:
        """Return what a machine is asked, a method of `bench.fleet.far.Desk` and its arguments, to do a piece."""

    def keep(self, piece: Any, machine: str, answer: Any) -> None:
        """Take what a machine has answered."""

    def fail(self, piece: Any, machine: str, why: str) -> None:
        """Take that there will be no answer."""

    def seconds_left(self) -> float:
        """Guess how long one machine would take for what is left."""

    def close(self) -> None:
        """Let another process go on with it."""


class Job(Protocol):
    """What a cluster is to do."""

    share: bool  # whether machines that are alike have one kind

    def describe(self, machine: str) -> tuple:
        """Return the request by which a machine describes itself."""

    def kind(self, machine: str, answer: Any, kinds: list, say: Callable[[str], None]) -> Any:
        """Return the `Kind` that a machine is of by what it said of itself, one of those that there are or a new one.

        Or raise a LeftOutError that says why it cannot take part.
        """


class LeftOutError(Exception):
    """Why a machine cannot take part."""


class Work(NamedTuple):
    """What a machine has been asked for."""

    future: Any
    machine: Machine
    piece: Any  # None: to describe itself


class Fleet:
    """Does a job on all machines of a cluster.

    `tell(text)` is told, once each, what a user should know, `watch(fleet)` is called now and then. `introduce` and
    `ask` are what a machine is asked to run.
    """

    def __init__(
        self,
        client: Any,
        job: Job,
        tell: Callable[[str], None] = print,
        watch: Callable[["Fleet"], None] = lambda fleet: None,
        introduce: Callable = far.introduce,
        ask: Callable = far.ask,
    ) -> None:
        self._introduce, self._far_ask = introduce, ask
        self.client, self.job, self.tell, self.watch = client, job, tell, watch
        self.machines: list[Machine] = []
        self.kinds: list[Any] = []
        self._known: dict[str, Machine | None] = {}  # by address; None: left out
        self._answered: queue.Queue[Work] = queue.Queue()
        self._left_out: dict[str, str] = {}
        self._told: set[str] = set()
        self._tries: dict[tuple, int] = {}

    def work(self) -> list:
        """Return the kinds, once there is nothing left to do."""
        looked = 0.0
        try:
            while True:
                if time.monotonic() - looked >= LOOK_S:
                    self._look()
                    looked = time.monotonic()
                    self.watch(self)
                for machine in self.machines:
                    self._employ(machine)
                if not any(machine.work for machine in self.machines) and self._over():
                    self.watch(self)
                    return self.kinds
                with suppress(queue.Empty):
                    self._take(self._answered.get(timeout=LOOK_S))
        finally:
            self.close()

    def close(self) -> None:
        """Stop what is in work, there as well, and let others go on with the runs."""
        working = [machine.work.future for machine in self.machines if machine.work]
        if working:
            with suppress(Exception):  # a scheduler that is gone has stopped it all
                self.client.cancel(working, force=True)
        for kind in self.kinds:
            kind.close()

    def _over(self) -> bool:
        """Tell whether all is done; without a machine that could do anything raise a ChoiceError."""
        described = [machine for machine in self.machines if machine.kind]
        if not described and not self.kinds:
            why = "; ".join(f"{name}: {why}" for name, why in self._left_out.items()) or "no worker"
            raise ChoiceError(f"--scheduler: expected machines that can take part, got {why}")
        left = [kind for kind in self.kinds if kind.left]
        if left:
            self._say(f"Waiting for a machine like {', '.join(kind.name for kind in left)}: it is gone.")
        return not left

    def _look(self) -> None:
        """See which machines there are now."""
        there = set(self.client.nthreads())
        for address in self._known.keys() - there:
            machine = self._known.pop(address)
            if machine:
                machine.addresses.discard(address)
                if not machine.addresses:
                    self._lose(machine)
        new = there - self._known.keys()
        if not new:
            return
        for address, said in self.client.run(self._introduce, workers=list(new), on_error="return").items():
            self._known[address] = None
            if isinstance(said, BaseException):
                self._leave_out(address, f"it has no such benchmark: {_line(said)}")
            elif said["source"] != source():
                self._leave_out(said["name"], f"other source, {said['source']} in place of {source()}")
            else:
                machine = next((one for one in self.machines if one.identity == said["identity"]), None)
                if machine is None:
                    taken = {one.name for one in self.machines if one.addresses}
                    names = (said["name"], *(f"{said['name']} ({n})" for n in range(2, len(taken) + 2)))
                    machine = Machine(next(name for name in names if name not in taken), said["identity"])
                    self.machines.append(machine)
                machine.addresses.add(address)
                self._known[address] = machine

    def _leave_out(self, name: str, why: str) -> None:
        self._left_out[name] = why
        self._say(f"Left out: {name}: {why}.")

    def _say(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self.tell(text)

    def _employ(self, machine: Machine) -> None:
        """Give a machine that has nothing to do its next piece of work, if there is one."""
        if machine.work or not machine.addresses:
            return
        kind = machine.kind
        if kind is None:
            self._ask(machine, None, *self.job.describe(machine.name))
        elif kind.left and (not self.job.share or self._in_common()):
            piece = kind.left.popleft()
            self._ask(machine, piece, *kind.request(piece))

    def _in_common(self) -> bool:
        """Tell whether all machines are described; if some are to share, and none are alike, raise a ChoiceError."""
        there = [machine for machine in self.machines if machine.addresses]
        if not all(machine.kind for machine in there):
            return False
        if 1 < len(there) == len(self.kinds) == len({id(machine.kind) for machine in there}):
            one, other = self.kinds[:2]
            apart = differences(one.description, other.description) or ["implementations"]
            raise ChoiceError(f"--share: expected machines that are alike, got none: they differ in {', '.join(apart)}")
        return True

    def _ask(self, machine: Machine, piece: Any, *request: Any) -> None:
        name = f"unrolled-{uuid4()}"
        future = self.client.submit(
            self._far_ask,
            name,
            *request,
            key=name,
            workers=list(machine.addresses),
            allow_other_workers=False,
            pure=False,
            retries=0,
        )
        work = machine.work = Work(future, machine, piece)
        future.add_done_callback(lambda _: self._answered.put(work))

    def _take(self, work: Work) -> None:
        """Take an answer, or what came in its place."""
        machine, future = work.machine, work.future
        if machine.work is not work:  # it had left before
            return
        machine.work = None
        if future.status == "finished":
            answer = future.result()
            future.release()
            if work.piece is None:
                self._describe(machine, answer)
            else:
                assert machine.kind is not None
                machine.kind.keep(work.piece, machine.name, answer)
            return
        if future.status == "cancelled" or _is_lost(error := future.exception()):
            machine.work = work
            self._lose(machine)
        elif work.piece is None:
            self._dismiss(machine, _line(error))
        else:
            assert machine.kind is not None
            machine.kind.fail(work.piece, machine.name, _line(error))

    def _lose(self, machine: Machine) -> None:
        """Put back what a machine had in work when it left."""
        work, machine.work = machine.work, None
        if work is None:
            return
        work.future.cancel(force=True)
        kind, piece = machine.kind, work.piece
        if kind is None:
            return
        tries = self._tries[id(kind), piece] = self._tries.get((id(kind), piece), 0) + 1
        if tries == TRIES:
            kind.fail(piece, machine.name, f"the machine was lost {TRIES} times in the midst of it")
        else:
            self.tell(f"{machine.name} was lost in the midst of {piece}, which is done again.")
            kind.left.appendleft(piece)

    def _dismiss(self, machine: Machine, why: str) -> None:
        machine.addresses.clear()
        self.machines.remove(machine)
        self._leave_out(machine.name, why)

    def _describe(self, machine: Machine, answer: Any) -> None:
        """Find the kind that a machine is of, or begin one."""
        try:
            kind = machine.kind = self.job.kind(machine.name, answer, self.kinds, self._say)
        except LeftOutError as why:
            self._dismiss(machine, str(why))
            return
        if kind not in self.kinds:
            self.kinds.append(kind)


def differences(one: dict, other: dict) -> list[str]:
    """Return in what the descriptions of two machines differ, as `bench.machine.describe` has them; alike: nothing."""
    names = ("cpu", "cores", "logical_cpus", "kinds", "cpu_quota", "caches", "simd", "python", "versions")
    found = [name for name in names if one.get(name) != other.get(name)]
    limits = [_limits(machine.get("roofline")) for machine in (one, other)]
    if limits[0].keys() != limits[1].keys():
        return [*found, "roofline"]
    apart = (max(a, b) > (1 + ALIKE) * min(a, b) for a, b in ((limits[0][name], limits[1][name]) for name in limits[0]))
    return [*found, "roofline"] if any(apart) else found


def _limits(roofline: dict | None) -> dict:
    """Return the measured limits by what they are of."""
    found = {}
    for rate in (roofline or {}).get("rates", ()):
        about = rate["dtype"], rate["threads"]
        found[*about, "gflops"] = rate["gflops"]
        found |= {(*about, level): bandwidth for level, bandwidth in rate["bytes_per_s"].items()}
    return found


def _is_lost(error: BaseException) -> bool:
    """Tell whether Dask lost the machine, or it lost interest, rather than that its task failed."""
    return type(error).__name__ in ("KilledWorker", "CancelledError", "FutureCancelledError")


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text[:300] or type(error).__name__
