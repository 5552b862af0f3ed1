"""The near end: it asks the machines of a Dask cluster for cases, one at a time each, and writes their rows.

The unit of work is a case with all its implementations on one machine, so that the ratios are of turns whatever machine
has it. By default each machine measures the whole grid, into a run of its own. Shared, machines that are alike have one
run, and whoever is free takes the next case. Futures, addresses, and who came and who left, are Dask's.

A machine that leaves loses the case in work, which comes first again, for another alike or for when it is back. If we
end, however, the runs go on where they stopped by the same command: nobody but us writes them.
"""

import asyncio
import queue
import re
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

from distributed import Client, Security, rpc

from bench.fleet import far
from bench.fleet.far import Wish
from bench.grid.cases import Case, ChoiceError
from bench.results.runs import Run, key
from bench.timing.loop import new_row
from bench.timing.plan import Plan, command_line, expected_seconds, opened, source

ANSWERS_S = 5  # within which a scheduler is to answer
LOOK_S = 1.0  # how often we look who came and who left
TRIES = 3  # of a case whose machines all left in the midst of it
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
        why = " ".join(str(error).split()) or f"no answer within {ANSWERS_S} s"
        raise ChoiceError(f"--scheduler: expected a Dask scheduler that answers, got {address} ({why[:200]})") from None


class Machine:
    """A machine of the cluster: Dask's workers on it, and the kind that it is of."""

    def __init__(self, name: str, identity: str) -> None:
        self.name, self.identity = name, identity
        self.addresses: set[str] = set()
        self.kind: Kind | None = None
        self.work: Work | None = None


class Kind:
    """One machine, or several that are alike and share: the run that they measure, and what is left of it."""

    def __init__(self, run: Run, plan: Plan, wanted: dict, description: dict, resumed: bool) -> None:
        self.run, self.plan, self.wanted, self.description, self.resumed = run, plan, wanted, description, resumed
        have = {key(row) for row in run.rows}
        self.left = deque(case for case in plan.cases if not self._keys(case) <= have)
        self.cases, self.done = len(plan.cases), len(plan.cases) - len(self.left)
        self.tries: dict[Case, int] = {}
        self.run.rows.clear()  # they are on the disk, and more may come than memory should hold

    def _keys(self, case: Case) -> set[tuple]:
        return {key(asdict(case) | {"implementation": name}) for name in self.plan.taking_part(case)}

    @property
    def name(self) -> str:
        return self.run.info["host"] or self.run.info["name"]

    def seconds_left(self) -> float:
        return sum(expected_seconds(case, self.plan) for case in self.left)


class Work(NamedTuple):
    """What a machine has been asked for."""

    future: Any
    machine: Machine
    case: Case | None  # None: to describe itself


class Fleet:
    """Measures a wish on all machines of a cluster.

    `tell(text)` is told, once each, what a user should know, `watch(fleet)` is called now and then.
    """

    def __init__(
        self,
        client: Any,
        wish: Wish,
        reports: Path,
        share: bool = False,
        fresh: bool = False,
        tell: Callable[[str], None] = print,
        watch: Callable[["Fleet"], None] = lambda fleet: None,
    ) -> None:
        self.client, self.wish, self.reports = client, wish, Path(reports)
        self.share, self.fresh, self.tell, self.watch = share, fresh, tell, watch
        self.machines: list[Machine] = []
        self.kinds: list[Kind] = []
        self._known: dict[str, Machine | None] = {}  # by address; None: left out
        self._answered: queue.Queue[Work] = queue.Queue()
        self._left_out: dict[str, str] = {}
        self._told: set[str] = set()

    def measure(self) -> list[Run]:
        """Return the runs, finished, once there is nothing left to measure."""
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
                    return [kind.run for kind in self.kinds]
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
            kind.run.unlock()

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
        for address, said in self.client.run(far.introduce, workers=list(new), on_error="return").items():
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
        """Give a machine that has nothing to do its next case, if there is one."""
        if machine.work or not machine.addresses:
            return
        kind = machine.kind
        if kind is None:
            self._ask(machine, None, "describe", self.wish, None if self.share else machine.name)
        elif kind.left and (not self.share or self._in_common()):
            case = kind.left.popleft()
            info = {name: kind.run.info[name] for name in ("baseline", "implementations")}
            self._ask(machine, case, "measure", self.wish, case, info)

    def _in_common(self) -> bool:
        """Tell whether all machines are described; if some are to share, and none are alike, raise a ChoiceError."""
        there = [machine for machine in self.machines if machine.addresses]
        if not all(machine.kind for machine in there):
            return False
        if 1 < len(there) == len(self.kinds) == len({machine.kind for machine in there}):
            one, other = self.kinds[:2]
            apart = differences(one.description, other.description) or ["implementations"]
            raise ChoiceError(f"--share: expected machines that are alike, got none: they differ in {', '.join(apart)}")
        return True

    def _ask(self, machine: Machine, case: Case | None, *request: Any) -> None:
        name = f"unrolled-{uuid4()}"
        future = self.client.submit(
            far.ask,
            name,
            *request,
            key=name,
            workers=list(machine.addresses),
            allow_other_workers=False,
            pure=False,
            retries=0,
        )
        work = machine.work = Work(future, machine, case)
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
            if work.case is None:
                self._describe(machine, *answer)
            else:
                assert machine.kind is not None
                self._keep(machine.kind, machine, answer)
            return
        if future.status == "cancelled" or _is_lost(error := future.exception()):
            machine.work = work
            self._lose(machine)
        elif work.case is None:
            machine.addresses.clear()
            self.machines.remove(machine)
            self._leave_out(machine.name, _line(error))
        else:
            self._fail(machine, work.case, _line(error))

    def _lose(self, machine: Machine) -> None:
        """Put back what a machine had in work when it left."""
        work, machine.work = machine.work, None
        if work is None or work.case is None:
            return
        work.future.cancel(force=True)
        kind = machine.kind
        assert kind is not None
        kind.tries[work.case] = kind.tries.get(work.case, 0) + 1
        if kind.tries[work.case] == TRIES:
            self._fail(machine, work.case, f"the machine was lost {TRIES} times while it was measured")
        else:
            self.tell(f"{machine.name} was lost in the midst of {work.case.id}, which is measured again.")
            kind.left.appendleft(work.case)

    def _fail(self, machine: Machine, case: Case, why: str) -> None:
        """Keep that a case has no time, and why."""
        kind = machine.kind
        assert kind is not None
        about = kind.run.info["implementations"]
        rows = [new_row(case, name, about[name]) for name in kind.plan.taking_part(case)]
        for row in rows:
            if row["status"] == "ok":
                row |= {"status": "error", "message": why}
        self._keep(kind, machine, rows)

    def _keep(self, kind: Kind, machine: Machine, rows: list[dict]) -> None:
        """Write the rows of a case."""
        for row in rows:
            row["host"] = machine.name
        kind.run.append(*rows)
        kind.run.rows.clear()
        kind.done += 1
        if kind.done == kind.cases:
            kind.run.finish()

    def _describe(self, machine: Machine, plan: Plan, wanted: dict, description: dict) -> None:
        """Find the kind that a machine is of, or begin one."""
        if self.share:
            wanted |= {"host": "alike"}
        for kind in self.kinds:
            if kind.wanted == wanted and (not self.share or differences(kind.description, description) == []):
                machine.kind = kind
                return
        run, resumed = opened(
            wanted,
            lambda: {"command": command_line(plan), "machine": description},
            plan,
            self.reports,
            self.fresh,
            lambda info: not self.share or differences(info["machine"], description) == [],
        )
        machine.kind = Kind(run, plan, wanted, description, resumed)
        self.kinds.append(machine.kind)
        for warning in description["warnings"]:
            self._say(f"{machine.name}: {warning}")
        for name, about in wanted["implementations"].items():
            if about["status"] != "ok":
                self._say(f"{machine.name}: {name} is {about['status']}, {about['message']}.")
        if resumed:
            self._say(f"{machine.name}: going on with {run.folder}, {machine.kind.done} cases.")


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
