"""Which files of a node's memory are still needed: the newest, what they name, and the window of undo."""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from btard.node.storage.checkpoint import checkpoint_path, tensors_path
from btard.node.storage.disk import Disk

_KEPT = 3
"""Checkpoints and ledgers kept: the newest, one that serves if it is damaged, and the step before that."""

Name = tuple[int, int]
"""Step and attempt."""


class Retention:
    """The files by name, known without looking: nobody else writes here.

    Args:
        directory: where they lie; looked through once.
        disk: that they are on.
    """

    def __init__(self, directory: Path, disk: Disk) -> None:
        self._disk = disk
        self._checkpoints = _Files(directory, "checkpoint", checkpoint_path, disk)
        self._tensors = _Files(directory, "tensors", tensors_path, disk)
        self._ledgers = _Files(directory, "ledger", _ledger_path, disk)
        # Checkpoints from before we were started again may name any step that is here.
        self._layers: deque[frozenset[int]] = deque([frozenset(step for step, _ in self._checkpoints.names)], _KEPT)
        """Steps whose checkpoints the newest ones need for their windows of undo."""

    def wal(self, step: int) -> str:
        """The ledger of a step; those that nobody needs are removed."""
        path = self._ledgers.add((step, 0))
        over = self._ledgers.clear({of_step for of_step, _ in self._ledgers.names[-_KEPT:]})
        if over is not None:
            self._disk.remove(over)
        return path

    def checkpoint(self, step: int, number: int, window: Iterable[int]) -> tuple[str, str | None] | None:
        """Where a new checkpoint goes, and one to write it over; None if it is there already. Others that nobody needs
        are removed.

        Args:
            step, number: its attempt.
            window: steps of the window of undo that it names.
        """
        if (step, number) in self._checkpoints.names:
            return None
        path = self._checkpoints.add((step, number))
        # A layer is in the checkpoint of the step after it, but for its model: that is in its own step's.
        layers = tuple(window)
        self._layers.append(frozenset(layers).union(step + 1 for step in layers))
        recent = self._recent()
        needed = recent.union({step - 1 for step in recent}, *self._layers)
        return path, self._checkpoints.clear(needed)

    def tensors(self, step: int, number: int) -> tuple[str, str | None]:
        """Where the tensors of an attempt go, and a file to write them over; others that nobody needs are removed."""
        path = self._tensors.add((step, number))
        first = min(self._recent(), default=step) - 1
        last, _ = self._tensors.names[-1]
        return path, self._tensors.clear({*range(first, last + 1)}.union(*self._layers))

    def _recent(self) -> set[int]:
        return {step for step, _ in self._checkpoints.names[-_KEPT:]}


class _Files:
    """Files of one kind, ascending."""

    def __init__(self, directory: Path, suffix: str, path: Callable[[Path, int, int], str], disk: Disk) -> None:
        self._directory, self._path, self._disk = directory, path, disk
        self.names = sorted(name_of(found) for found in directory.glob(f"*.{suffix}"))

    def add(self, name: Name) -> str:
        if name not in self.names:
            insort(self.names, name)
        return self._path(self._directory, *name)

    def clear(self, needed: Collection[int]) -> str | None:
        """Forget the files of steps that are not needed, and remove them but for one, which is returned."""
        old = [name for name in self.names if name[0] not in needed]
        if not old:
            return None
        self.names = [name for name in self.names if name[0] in needed]
        over, *others = (self._path(self._directory, *name) for name in old)
        for path in others:
            self._disk.remove(path)
        return over


def _ledger_path(directory: Path, step: int, _number: int) -> str:
    return f"{directory}/{step:08d}.ledger"


def name_of(path: Path) -> Name:
    """What a file is named after; a ledger is of attempt 0."""
    step, _, number = path.stem.partition("-")
    return int(step), int(number or 0)
