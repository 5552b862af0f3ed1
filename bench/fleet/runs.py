"""A grid on many machines: cases, and the runs that their rows are written into, by us alone.

The unit of work is a case with all its implementations on one machine, so that the ratios are of turns whatever machine
has it. By default each machine measures the whole grid, into a run of its own. Shared, machines that are alike have one
run, and whoever is free takes the next case. However we end, the runs go on where they stopped by the same command.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from bench.fleet.far import Wish
from bench.fleet.fleet import differences
from bench.grid.cases import Case
from bench.results.runs import ALIKE, Run, key
from bench.timing.loop import new_row
from bench.timing.plan import Plan, command_line, expected_seconds, opened


class Grid:
    """The job: what a wish comes to on each machine."""

    def __init__(self, wish: Wish, reports: Path, share: bool = False, fresh: bool = False) -> None:
        self.wish, self.reports, self.share, self.fresh = wish, Path(reports), share, fresh

    def describe(self, machine: str) -> tuple:
        return "describe", self.wish, ALIKE if self.share else machine

    def kind(self, machine: str, answer: tuple, kinds: list["Cases"], say: Callable[[str], None]) -> "Cases":
        plan, wanted, description = answer

        def alike(other: dict) -> bool:
            return not self.share or differences(other, description) == []

        for kind in kinds:
            if kind.wanted == wanted and alike(kind.description):
                return kind
        about = {"command": command_line(plan), "machine": description}
        run, resumed = opened(
            wanted, lambda: about, plan, self.reports, self.fresh, lambda info: alike(info["machine"])
        )
        found = Cases(self.wish, run, plan, wanted, description)
        for warning in description["warnings"]:
            say(f"{machine}: {warning}")
        for name, entry in wanted["implementations"].items():
            if entry["status"] != "ok":
                say(f"{machine}: {name} is {entry['status']}, {entry['message']}.")
        if resumed:
            say(f"{machine}: going on with {run.folder}, {found.done} cases.")
        return found


class Cases:
    """The kind of machine, or of machines: the cases that are left of its run."""

    def __init__(self, wish: Wish, run: Run, plan: Plan, wanted: dict, description: dict) -> None:
        self.wish, self.run, self.plan, self.wanted, self.description = wish, run, plan, wanted, description
        self.name = run.info["name"] if run.info["host"] == ALIKE else run.info["host"]
        have = {key(row) for row in run.rows}
        self.left = deque(case for case in plan.cases if not self._keys(case) <= have)
        self.pieces, self.done = len(plan.cases), len(plan.cases) - len(self.left)
        self._seconds_left = sum(expected_seconds(case, plan) for case in self.left)
        self.run.rows.clear()  # they are on the disk, and more may come than memory should hold
        self._finish()

    def _keys(self, case: Case) -> set[tuple]:
        return {key(asdict(case) | {"implementation": name}) for name in self.plan.taking_part(case)}

    def request(self, piece: Case) -> tuple:
        info = {name: self.run.info[name] for name in ("baseline", "implementations", "machine")}
        return "measure", self.wish, piece, info

    def keep(self, piece: Case, machine: str, answer: list[dict]) -> None:
        """Write the rows of a case."""
        for row in answer:
            row["host"] = machine
        self.run.append(*answer)
        self.run.rows.clear()
        self.done += 1
        self._seconds_left -= expected_seconds(piece, self.plan)
        self._finish()

    def fail(self, piece: Case, machine: str, why: str) -> None:
        """Write that a case has no time, and why."""
        about = self.run.info["implementations"]
        rows = [new_row(piece, name, about[name]) for name in self.plan.taking_part(piece)]
        for row in rows:
            if row["status"] == "ok":
                row |= {"status": "error", "message": why}
        self.keep(piece, machine, rows)

    def seconds_left(self) -> float:
        return self._seconds_left if self.done < self.pieces else 0.0

    def close(self) -> None:
        self.run.unlock()

    def _finish(self) -> None:
        if self.done == self.pieces:
            self.run.finish()
