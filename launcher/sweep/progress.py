"""What people see of a sweep: a bar with the time left on a terminal, one line per cell elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from btard.launcher.sweep.engine import DONE, STOPPED, Ended, Running, cost
from btard.launcher.sweep.grid import Cell, describe


class Bar:
    """Follows one sweep on a console.

    Args:
        console: where to.
        cells: all cells that are to be run now.
        cores: the budget, for the estimate of the time left.
        names: options that tell the sweep's cells apart, those that are not run now included.
    """

    def __init__(self, console: Console, cells: Sequence[Cell], cores: int, names: Sequence[str]) -> None:
        self._console, self._cores, self._names = console, cores, names
        self._total, self._over = len(cells), 0
        self._clock = Clock(cores)
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"), console=console, transient=True, disable=not console.is_terminal,
        )  # fmt: skip
        self._task = self._progress.add_task("sweep", total=float(max(1, len(cells))), left="")

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def tick(self, running: Sequence[Running], waiting: Sequence[Cell]) -> None:
        """Move the bar."""
        done = self._over + sum(each.share for each in running)
        self._progress.update(
            self._task, completed=done, left=self._clock.phrase(running, waiting),
            description=f"{self._over}/{self._total} runs, {len(running)} under way",
        )  # fmt: skip

    def ended(self, ended: Ended) -> None:
        """Say how a cell ended."""
        if ended.outcome == STOPPED:
            return
        self._over += 1
        self._clock.saw(ended)
        what = describe(ended.cell, self._names)
        line = Text(f"[{self._over}/{self._total}] {what}: ")
        if ended.outcome == DONE and ended.row is not None:
            row = ended.row
            accuracy = "" if row.final_test_accuracy is None else f"accuracy {row.final_test_accuracy:.4f}, "
            bans = f"{row.bans} banned" + (f", HONEST {row.honest_banned}" if row.honest_banned else "")
            line.append(f"{accuracy}{bans}, {row.wall_seconds:.0f} s")
        else:
            line.append(f"FAILED: {ended.problem}; see {ended.where}", style="red")
        self._progress.console.print(line, soft_wrap=True)


class Clock:
    """Estimates the time left from what finished cells took per step and peer."""

    def __init__(self, cores: int, now: float | None = None) -> None:
        self._cores = cores
        self._seconds = self._work = 0.0
        self._began = time.monotonic() if now is None else now

    def saw(self, ended: Ended) -> None:
        """Learn from a finished cell."""
        if ended.row is not None:
            self._seconds += ended.row.wall_seconds * cost(ended.cell, self._cores)
            self._work += _work(ended.cell)

    def left_s(self, running: Sequence[Running], waiting: Sequence[Cell], now: float | None = None) -> float | None:
        """Seconds until the sweep ends, None while nothing is known."""
        pace = self._pace(running, time.monotonic() if now is None else now)
        if pace is None:
            return None
        work = sum(_work(cell) for cell in waiting)
        rest = [(1 - each.share) * _work(each.cell) for each in running]
        return max([pace * (work + sum(rest)) / self._cores, *(pace * each for each in rest)])

    def phrase(self, running: Sequence[Running], waiting: Sequence[Cell]) -> str:
        """The time left, for people."""
        left = self.left_s(running, waiting)
        return "" if left is None else f"{duration(left)} left"

    def _pace(self, running: Sequence[Running], now: float) -> float | None:
        """Core seconds per unit of work."""
        if self._work:
            return self._seconds / self._work
        done = sum(each.share * _work(each.cell) for each in running)
        spent = sum((now - each.began) * each.cost for each in running)
        return spent / done if done else None


def duration(seconds: float) -> str:
    """Seconds as 45 s, 12 min, 3 h 20 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def _work(cell: Cell) -> float:
    """Gradients of a cell: what it costs, up to a factor."""
    return float(cell.experiment.steps * cell.experiment.peers * cell.experiment.batch_size)
