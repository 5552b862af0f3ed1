"""What a terminal shows while machines measure: a bar for each run, with the time left, and what there is to say."""

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column

from bench.fleet.fleet import Fleet, Kind

MOST = 20  # bars; of more runs the last one counts them all


class Bars:
    """The bars, as a context manager."""

    def __init__(self) -> None:
        text = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis"))
        columns = (
            BarColumn(16),
            TimeElapsedColumn(),
            TextColumn("gone,"),
            TimeRemainingColumn(),
            TextColumn("left"),
            text,
        )
        self._progress = Progress(*columns, console=Console(stderr=True))
        self._bars: dict[str, TaskID] = {}

    def __enter__(self) -> "Bars":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def tell(self, text: str) -> None:
        self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def watch(self, fleet: Fleet) -> None:
        """Show where the runs of a fleet are."""
        for kind in fleet.kinds[:MOST]:
            working = [machine for machine in fleet.machines if machine.kind is kind and machine.work]
            pieces = ", ".join(str(machine.work.piece) for machine in working if machine.work)
            self._show(kind.name, [kind], f"{kind.name}, {kind.done}/{kind.pieces} {pieces}")
        if len(fleet.kinds) > MOST:
            done, all_cases = sum(kind.done for kind in fleet.kinds), sum(kind.pieces for kind in fleet.kinds)
            self._show("", fleet.kinds, f"all {len(fleet.kinds)}: {done}/{all_cases}")

    def _show(self, name: str, kinds: list[Kind], text: str) -> None:
        left = sum(kind.seconds_left() for kind in kinds)
        if name not in self._bars:
            self._bars[name] = self._progress.add_task("", total=max(left, 1e-9))
        bar = self._bars[name]
        total = self._progress.tasks[self._progress.task_ids.index(bar)].total or 0.0
        total = max(total, left)
        self._progress.update(bar, total=total, completed=total - left, description=text)
