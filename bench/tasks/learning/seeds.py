"""Races on many machines: the unit of work is a seed, learned by all implementations of a race on one machine.

Machines must be alike, since seconds of several seeds are put together; whoever is free takes the next one.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from bench.fleet.fleet import LeftOutError, differences
from bench.tasks.learning.training import Race, alone
from bench.timing.worker import WorkerError


class Seed(NamedTuple):
    race: int
    seed: int
    name: str

    def __str__(self) -> str:
        return f"{self.name}, seed {self.seed + 1}"


class Seeds:
    """The job, and the one kind of machines that does it; `keep` is called when a race has got on."""

    share = True
    name = "seeds"

    def __init__(self, races: Sequence[Race], keep: Callable[[], None]) -> None:
        self.races, self._keep = races, keep
        self.left = deque(
            Seed(n, seed, f"{race.course.name}, {race.course.model.cell}")
            for n, race in enumerate(races)
            if not race.over
            for seed in range(race.seeds_done, race.until)
        )
        self.pieces, self.done = len(self.left), 0
        self.description: dict = {}
        self._answers: dict[Seed, Any] = {}

    def describe(self, machine: str) -> tuple:
        return ("machine",)

    def kind(self, machine: str, answer: dict, kinds: list["Seeds"], say: Callable[[str], None]) -> "Seeds":
        if not self.description:
            self.description = answer
            for race in self.races:
                race.machine = answer
        elif apart := differences(self.description, answer):
            raise LeftOutError(f"not like the others, in {', '.join(apart)}")
        for warning in answer["warnings"]:
            say(f"{machine}: {warning}")
        return self

    def request(self, piece: Seed) -> tuple:
        race = self.races[piece.race]
        return "do", alone, race.course, race.implementations, piece.seed

    def keep(self, piece: Seed, machine: str, answer: Any) -> None:
        """Give a race its seeds, in their order."""
        self._answers[piece] = answer
        self.done += 1
        race = self.races[piece.race]
        while not race.over and (found := self._answers.pop(piece._replace(seed=race.seeds_done), None)):
            race.gather(*found)
            self._keep()
        if race.over:  # it may have diverged before all of its seeds
            dropped = [one for one in self.left if one.race == piece.race]
            self.left = deque(one for one in self.left if one.race != piece.race)
            self.pieces -= len(dropped)

    def fail(self, piece: Seed, machine: str, why: str) -> None:
        raise WorkerError(f"{piece} on {machine}: {why}")

    def seconds_left(self) -> float:
        return float(self.pieces - self.done)

    def close(self) -> None:
        """Nothing is held: what is kept is whole."""
