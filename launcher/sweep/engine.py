"""Runs the cells of a sweep, several at once within a budget of cores, each in a thread that follows its cluster."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import BinaryIO, Protocol

import msgspec

from btard.launcher.files import write_atomically
from btard.launcher.monitor.state import RunState
from btard.launcher.run import cluster, plan
from btard.launcher.run.experiment import IMPORTS
from btard.launcher.run.interrupts import Interrupts
from btard.launcher.run.observer import Silent
from btard.launcher.run.plan import Device, Plan
from btard.launcher.run.summary import FINISHED, INTERRUPTED
from btard.launcher.sweep import rows
from btard.launcher.sweep.grid import Cell
from btard.launcher.sweep.rows import Row
from btard.launcher.sweep.store import PROBLEM, Store
from btard.node.errors import BtardError

DONE, WRONG, STOPPED = "done", "failed", "interrupted"
TICK_S = 0.25


@dataclass(frozen=True, slots=True)
class Wish:
    """How a sweep is to be run.

    Args:
        cores: how many may be kept busy; a simulated cluster takes one, another one per peer; on a GPU see `cost`.
        limit: stop after this many cells; None: none.
        retry_failed: run cells again whose last attempt failed.
        slim: keep only what tables and figures need.
        check: verify the evidence of every cell.
    """

    cores: int
    limit: int | None = None
    retry_failed: bool = False
    slim: bool = False
    check: bool = True


@dataclass(slots=True)
class Running:
    """A cell under way; `state` is there once its workers are being started."""

    cell: Cell
    claim: BinaryIO
    cost: int
    began: float = field(default_factory=time.monotonic)
    state: RunState | None = None

    @property
    def share(self) -> float:
        """How much of its steps is done, 0 to 1."""
        return max(0, self.state.step) / self.cell.experiment.steps if self.state is not None else 0.0


@dataclass(frozen=True, slots=True)
class Ended:
    """How an attempt at a cell ended; `where` is its directory, None if nothing was left."""

    cell: Cell
    outcome: str
    row: Row | None = None
    problem: str | None = None
    where: Path | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a sweep came to, cell by cell."""

    done: tuple[Cell, ...] = ()
    skipped: tuple[Cell, ...] = ()
    failed: tuple[Ended, ...] = ()
    elsewhere: tuple[Cell, ...] = ()
    left: tuple[Cell, ...] = ()
    signum: int | None = None


class Watcher(Protocol):
    """Who is told of a sweep's progress."""

    def tick(self, running: Sequence[Running], waiting: Sequence[Cell]) -> None:
        """Called a few times a second."""

    def ended(self, ended: Ended) -> None:
        """An attempt is over."""


def cost(cell: Cell, cores: int) -> int:
    """Cores that a cell keeps busy; a cluster larger than the budget has it all for itself.

    On a GPU the budget is its memory: workers may take nine tenths of it together, a simulated cluster as much as one
    worker (`gpu_share`).
    """
    device = cell.experiment.device
    if device == "cuda" or (device == "auto" and _auto_device() == "cuda"):
        return -(-cores // cell.experiment.peers) if cell.experiment.backend == "simulated" else cores
    return 1 if cell.experiment.backend == "simulated" else min(cell.experiment.peers, cores)


@cache
def _auto_device() -> Device:
    """What `--device auto` is on this machine; asked once, since the budget is counted all the time."""
    return plan.device("auto")


def due(store: Store, cells: Sequence[Cell], retry_failed: bool) -> list[Cell]:
    """The cells that are still to be run: neither finished nor, unless they are to be tried again, failed."""
    return [cell for cell in cells
            if not store.finished(cell.id) and (retry_failed or store.failed(cell.id) is None)]  # fmt: skip


def run(store: Store, cells: Sequence[Cell], wish: Wish, watcher: Watcher) -> Outcome:
    """Run every cell that is not finished, and keep results.csv up to date.

    Raises:
        BackendError: the sweep's directory cannot be written.
    """
    skipped = [cell for cell in cells if store.finished(cell.id)]
    before = [cell for cell in cells if store.failed(cell.id) is not None and not wish.retry_failed]
    floor = _Floor(store, wish, watcher, due(store, cells, wish.retry_failed))
    with Interrupts() as interrupts:
        interrupts.deferred = True
        floor.work(interrupts)
    store.publish()
    old = [Ended(cell, WRONG, problem=store.problem(cell.id), where=store.failed(cell.id)) for cell in before]
    return Outcome(
        tuple(floor.done), tuple(skipped), (*floor.failed, *old), tuple(floor.elsewhere),
        (*floor.waiting, *floor.stopped), interrupts.signum,
    )  # fmt: skip


class _Floor:
    """The cells of one sweep: waiting, running, done."""

    def __init__(self, store: Store, wish: Wish, watcher: Watcher, waiting: Sequence[Cell]) -> None:
        self.waiting = list(waiting)
        self.done: list[Cell] = []
        self.failed: list[Ended] = []
        self.elsewhere: list[Cell] = []
        self.stopped: list[Cell] = []
        self._store, self._wish, self._watcher = store, wish, watcher
        self._running: dict[str, Running] = {}
        self._started = 0
        self._ends: queue.Queue[Ended] = queue.Queue()

    def work(self, interrupts: Interrupts) -> None:
        """Until nothing is waiting or running, or a signal came and what was running has stopped."""
        while self._running or (self._more() and interrupts.signum is None):
            while interrupts.signum is None and self._start(interrupts):
                pass
            try:
                ended = self._ends.get(timeout=TICK_S)
            except queue.Empty:
                self._watcher.tick(list(self._running.values()), self.waiting)
                continue
            self._settle(ended)

    def _more(self) -> bool:
        """A cell is waiting, and the limit has room for it."""
        return bool(self.waiting) and (self._wish.limit is None or self._started < self._wish.limit)

    def _start(self, interrupts: Interrupts) -> bool:
        """Start the next cell if the budget has room for it."""
        if not self._more():
            return False
        used = sum(running.cost for running in self._running.values())
        wanted = cost(self.waiting[0], self._wish.cores)
        if used and used + wanted > self._wish.cores:
            return False
        cell = self.waiting.pop(0)
        claim = self._store.claim(cell.id)
        if claim is None or self._store.finished(cell.id):
            # Another sweep on this directory runs it, or has done so meanwhile.
            self.elsewhere.append(cell)
            return True
        self._started += 1
        running = self._running[cell.id] = Running(cell, claim, wanted)
        threading.Thread(target=self._attempt, args=(running, interrupts), name=f"cell {cell.id}", daemon=True).start()
        return True

    def _settle(self, ended: Ended) -> None:
        self._running.pop(ended.cell.id).claim.close()
        if ended.outcome == DONE:
            self.done.append(ended.cell)
            self._store.publish()
        elif ended.outcome == STOPPED:
            self.stopped.append(ended.cell)
        else:
            self.failed.append(ended)
        self._watcher.ended(ended)

    def _attempt(self, running: Running, interrupts: Interrupts) -> None:
        """Run, score and keep a cell, in a thread of its own; whatever happens, its end is told."""
        where = self._store.attempt(running.cell.id)
        try:
            self._ends.put(self._carry_out(running, where, interrupts))
        except Exception as error:
            problem = str(error) if isinstance(error, BtardError) else f"{type(error).__name__}: {error}"
            self._ends.put(self._rejected(running.cell, where, problem))

    def _carry_out(self, running: Running, where: Path, interrupts: Interrupts) -> Ended:
        cell = running.cell
        experiment = msgspec.structs.replace(cell.experiment, run_dir=str(where))
        made = cluster.run(experiment, _Follower(running), interrupts=interrupts).summary
        if made.outcome == INTERRUPTED:
            self._store.drop(where)
            return Ended(cell, STOPPED)
        if made.outcome != FINISHED:
            return self._rejected(cell, where, made.problem or made.outcome)
        findings = _checked(where, cell) if self._wish.check else None
        if findings is not None and findings[1]:
            return self._rejected(cell, where, f"verify found {findings[1]} of {findings[0]} things wrong")
        row, curves = rows.score(cell, where, made, findings)
        self._store.keep(where, row, curves, self._wish.slim)
        return Ended(cell, DONE, row, where=self._store.cell(cell.id))

    def _rejected(self, cell: Cell, where: Path, problem: str) -> Ended:
        where.mkdir(exist_ok=True)  # an attempt may fail before its directory is made
        write_atomically(where / PROBLEM, problem.encode() + b"\n")
        return Ended(cell, WRONG, problem=problem, where=self._store.reject(where, cell.id))


class _Follower(Silent):
    """Lends the state of a run to whoever shows the sweep."""

    def __init__(self, running: Running) -> None:
        self._running = running

    def began(self, plan: Plan, run_dir: Path, state: RunState) -> None:
        """From now on the cell has a state."""
        self._running.state = state


def _checked(run_dir: Path, cell: Cell) -> tuple[int, int] | None:
    """How many findings `verify` has, and how many are wrong; None for a comparison run, which has no evidence."""
    if cell.experiment.topology != "butterfly":
        return None
    from btard.launcher.backends.local import call_aside
    from btard.launcher.verify import verification

    # The copies are what the workers loaded; the user may have gone on with the files themselves.
    copies = [run_dir / IMPORTS / Path(name).name for name in cell.experiment.imports]
    report = call_aside(verification.verify, run_dir, None, copies)
    return report.checked, report.wrong
