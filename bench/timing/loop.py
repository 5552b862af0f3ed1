"""The loop: for each case, build and verify every implementation, then time them turn by turn.

The rounds of a case end when each ratio to the baseline, and ours to the fastest other, is known to within the
effort's precision: half of its 95 % interval, by the sign test, is no more. They also end at the case's time limit.
Either way there are no fewer than the effort's fewest rounds, but for cases with calls so long that five must do.
What matters is how wide an interval is, never where it lies, and it is looked at only now and then: whoever stops at
the first sign of a difference finds one sooner or later where there is none.
"""

import math
import tempfile
import time
from dataclasses import asdict
from functools import reduce
from pathlib import Path
from statistics import median

from bench import implementations
from bench.grid import inputs
from bench.grid.cases import STEPS, STREAM
from bench.machine import peaks
from bench.machine.hardware import cpus_for
from bench.machine.roofline import NOISE, bound_s
from bench.results.latencies import merged
from bench.results.runs import key
from bench.results.statistics import quick_width
from bench.timing.plan import FEWEST_LONG, LONG_S, SEED
from bench.timing.worker import TIME_LIMIT_S, Worker, WorkerError

LOOKS_AGAIN = 3  # at the machine, where a row is faster than it could be
SLOWEST = 2e9  # operations a second: those of a case take no longer to be built and verified, beside the time limit


class Bench:
    """Measures cases into a run, with one worker for each implementation and thread count.

    `watch(text, share)` is told what is done at the moment and which share of the case is behind us. Use it as a
    context manager, or call `close`: it ends the workers.
    """

    def __init__(self, run, plan, watch=lambda text, share: None, time_limit_s=TIME_LIMIT_S):
        self.run, self.plan, self.watch, self.time_limit_s = run, plan, watch, time_limit_s
        self._workers = {}
        self._looks = {}  # when the machine was looked at, and what it could do, by dtype and threads
        self._blind = False  # nothing can be measured of the machine
        self._unable = {}  # why a worker could not even start: it would not for the next case either
        self._references = tempfile.TemporaryDirectory()  # what one worker computed need not be computed by the next

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def restart(self):
        """End all workers; the next case starts new ones."""
        while self._workers:
            self._workers.popitem()[1].close()

    def close(self):
        """End all workers for good."""
        self.restart()
        self._references.cleanup()

    def missing(self, case, names=None):
        """Return those of the implementations whose row for this case the run does not have yet."""
        have = {key(row) for row in self.run.rows}
        names = self.plan.taking_part(case) if names is None else names
        return [name for name in names if key(asdict(case) | {"implementation": name}) not in have]

    def measure(self, case, names=None):
        """Measure one case by all implementations (or these), together, and save their rows."""
        names = self.missing(case, names)
        if not names:
            return
        about = self.run.info["implementations"]
        rows = {name: new_row(case, name, about[name]) for name in names}
        reference = Path(self._references.name, f"{case.id}.npz")
        lives = self.plan.effort.lives
        for life in range(lives):
            if life:
                self.restart()
            self._build(case, rows, reference, life / lives)
            self._look(case)
            self._time({name: row for name, row in rows.items() if row["status"] == "ok"}, life)
            self._check(rows)
        limits = self._look(case)
        for _ in range(LOOKS_AGAIN):
            if not self._is_beyond(rows.values(), limits):
                break
            limits = self._look(case, again=True)
        for row in rows.values():
            row["limits"] = limits
        if case.operation in STEPS:
            self._look_inside(rows)
        if case.operation == STREAM:
            self._pace(case, rows)
            self._check(rows)
        reference.unlink(missing_ok=True)
        self.run.append(*rows.values())

    def _build(self, case, rows, reference, behind):
        """Have every implementation build the case and verify it; what another version expects is today's reference."""
        for n, (name, row) in enumerate(rows.items()):
            if row["status"] != "ok":
                continue
            other = self.plan.elsewhere.get(name)
            self._tell(f"build and verify {name}", behind, 0.5 * n / len(rows))
            weights = self._weights(case)
            if other and (lacking := other.lacks(case, weights is not None)):
                row |= {"status": "unsupported", "message": f"this version knows no {lacking}"}
            elif other and other.revision and not reference.exists():
                row |= {"status": "error", "message": "expected a result of today's reference, got none beside it"}
            else:
                asked = {"case": other.told(case) if other else asdict(case), "seed": SEED, "reference": str(reference)}
                asked |= {"weights": weights} if weights else {}
                reply = self._ask(row, "build", more_s=case.calls * case.flops / SLOWEST, **asked)
                first = row["compile_s"]  # a later life finds the code on the disk
                row |= reply | ({"compile_s": first} if first is not None else {})
                row["times"] = row["times"] if row["status"] == "ok" else []

    def _weights(self, case):
        """Return the file of a case's own weights, or None."""
        if self.plan.model is None:
            return None
        path = Path(self._references.name, f"weights {list(self.plan.model.layers).index(case.model)}.npz")
        if not path.exists():
            inputs.keep(path, self.plan.model.layers[case.model].network)
        return str(path)

    def _time(self, rows, life=0):
        """Take the rounds of a life: all in turn, so that the machine's drift hits all alike.

        The first one finds out how many are needed; those after it have as many.
        """
        effort = self.plan.effort
        for name, row in rows.items():
            self._tell(f"warm up {name}", life / effort.lives, 0.5)
            row |= self._ask(row, "calibrate", round_s=effort.round_s)
        before = max((len(row["times"]) for row in rows.values()), default=0)
        done, look, begin = 0, 0, time.perf_counter()
        while working := {name: row for name, row in rows.items() if row["status"] == "ok"}:
            for name in turn(list(working), done):
                row = rows[name]
                reply = self._ask(row, "round", calls=row["calls"])
                if reply:
                    row["times"].append(reply["seconds"])
                if "latencies" in reply:
                    row["latencies"]["steady"] = merged(row["latencies"].get("steady"), reply["latencies"])
            done += 1
            if life:
                for row in working.values():
                    row["lives"] = life + 1
                self._tell("time", life / effort.lives, 0.5 + 0.5 * done * life / before)
                if done * life >= before:
                    return
                continue
            long = any(median(row["times"]) * row["calls"] > LONG_S for row in working.values() if row["times"])
            fewest = min(effort.fewest, FEWEST_LONG) if long else effort.fewest
            over = time.perf_counter() - begin >= effort.case_s
            if done >= fewest and (over or done >= look):
                look = math.ceil(1.15 * done)
                precise = self._precise(working)
                for name, row in working.items():
                    row["stopped"] = "precision" if name in precise else "time"
                if over or len(precise) == len(working):
                    return
            share = min(1, max(done / fewest, (time.perf_counter() - begin) / effort.case_s))
            self._tell("time", 0, 0.5 + 0.5 * share)

    def _check(self, rows):
        """Verify once more what was timed; a revision's own worker may not know how."""
        for name, row in rows.items():
            other = self.plan.elsewhere.get(name)
            if row["status"] == "ok" and not (other and other.revision):
                reply = self._ask(row, "check")
                if reply.get("message"):
                    reply["message"] = f"right at first, and wrong when it had been timed: {reply['message']}"
                    row |= reply | {"status": "wrong", "times": []}

    def _is_beyond(self, rows, limits):
        """Tell whether a row is faster than these limits of the machine allow, by more than their noise."""
        known = self.run.info["machine"].get("roofline")
        if not known or limits is None:
            return False
        timed = [row | {"limits": limits} for row in rows if row["status"] == "ok" and row["times"]]
        return any(bound_s(row, known) > (1 + NOISE) * median(row["times"]) for row in timed)

    def _look(self, case, again=False):
        """Return what the machine could do in these minutes: the best of all looks, to which one is added now and then.

        A single look may be one at a neighbour. None where nothing can be measured, of which a run's machine says why.
        """
        now, looks = time.monotonic(), self._looks.setdefault((case.dtype, case.threads), [])
        if not self._blind and (again or not looks or now - looks[-1][0] > peaks.LOOK_S):
            try:
                looks.append((now, peaks.look(case.dtype, case.threads, memory=again)))
            except Exception:  # a team that cannot start, code that cannot be compiled
                self._blind = True
        looks[:] = [look for look in looks if now - look[0] < peaks.KEEP_S]
        return reduce(peaks.better, (rates for _, rates in looks)) if looks else None

    def _look_inside(self, rows):
        """Find out what a step takes without a call around it, but for those of another version."""
        for name, row in rows.items():
            if row["status"] == "ok" and name not in self.plan.elsewhere:
                self._tell(f"look inside {name}", 1 - 1 / self.plan.effort.lives, 1)
                row |= self._ask(row, "inside")

    def _pace(self, case, rows):
        """Take the calls of a stream at a fixed pace, a session in turn, until the case's time is up again."""
        period_s, begin, done = self.plan.effort.period_s, time.perf_counter(), 0
        while working := {name: row for name, row in rows.items() if row["status"] == "ok"}:
            for name in turn(list(working), done):
                row = rows[name]
                self._tell("time at a fixed pace", 1 - 1 / self.plan.effort.lives, 1)
                more_s = 2 * case.calls * max(period_s, row["times"][-1])
                reply = self._ask(row, "pace", more_s=more_s, period_s=period_s)
                if reply:
                    found = row["latencies"]
                    found["paced"] = merged(found.get("paced"), reply["latencies"])
                    found["missed"] = found.get("missed", 0) + reply["missed"]
                    found |= {"period_s": period_s} | self._ask(row, "clock")
            done += 1
            if time.perf_counter() - begin >= self.plan.effort.case_s:
                return

    def _tell(self, text, behind, share):
        """Tell who watches what is done: a share of the life after what is behind us of the case."""
        self.watch(text, behind + share / self.plan.effort.lives)

    def _precise(self, rows):
        """Return the names of those whose ratios are known well enough."""
        baseline, ours = self.run.info["baseline"], implementations.OURS
        times = {name: row["times"] for name, row in rows.items() if row["status"] == "ok"}
        pairs = [(baseline, name) for name in times if name != baseline and baseline in times]
        pairs += [(base, name) for name in times if (base := implementations.base(name)) != name and base in times]
        others = [name for name in times if not implementations.is_ours(name)]
        if ours in times and others:
            pairs.append((min(others, key=lambda name: median(times[name])), ours))
        vague = {name for base, name in pairs if quick_width(times[base], times[name]) > self.plan.effort.precision}
        return times.keys() - vague - ({baseline} if vague else set())

    def _ask(self, row, request, **arguments):
        """Return the reply of the row's worker; a worker that fails is closed and the row says why."""
        name, threads = row["implementation"], row["threads"]
        try:
            worker = self._worker(name, threads)
            reply = worker.ask(request, **arguments)
            worker.rest()
            return reply
        except WorkerError as error:
            self._workers.pop((name, threads), None)
            row.update(status="error", message=str(error), times=[])
            return {}

    def _worker(self, name, threads):
        if (name, threads) in self._unable:
            raise WorkerError(self._unable[name, threads])
        for other in [pair for pair in self._workers if pair[1] != threads]:
            self._workers.pop(other).close()
        if (name, threads) not in self._workers:
            module = self.plan.implementations[name]
            worker = Worker(module, threads, self.time_limit_s, cpus_for(threads), self.plan.elsewhere.get(name))
            self._workers[name, threads] = worker
            try:
                worker.ask("start")
            except WorkerError as error:
                self._unable[name, threads] = str(error)
                raise
        return self._workers[name, threads]


def new_row(case, name, about):
    """Return the row of a case and an implementation before anything is measured; `about` is its entry in run.json."""
    return {
        **asdict(case),
        "implementation": name,
        "version": about["version"],
        "status": about["status"],
        "message": about["message"],
        "max_error": None,
        "loss": None,
        "errors": {},
        "compile_s": None,
        "calls": None,
        "times": [],
        "lives": 1,
        "stopped": None,
        "peak_memory_bytes": None,
        "flops": case.flops,
        "bytes": case.bytes,
        "host": None,
        "limits": None,
        "latencies": {} if case.operation == STREAM else None,
        "inside_s": None,
    }


def turn(names, n):
    """Return the order of the n-th round: each leads in its turn, and every other time around the order is reversed.

    So each is as often before any other as behind it, and nobody always finds the caches as the same one left them.
    """
    times_around, lead = divmod(n, len(names))
    order = names[lead:] + names[:lead]
    return order[::-1] if times_around % 2 else order
