"""`btard-launch clean`: what the run directories below a folder take of the disk, and removing those that may go."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from btard.launcher.files import disk_error
from btard.launcher.network.traffic import human
from btard.launcher.run import control
from btard.node.errors import ConfigError
from btard.node.storage.recovery import MEMORY

_PARTS = ("checkpoints", "evidence", "journals", "rest")


@dataclass(frozen=True, slots=True)
class Kept:
    """A run directory on the disk.

    Args:
        path: the directory.
        age_s: seconds since anything in it was written.
        sizes: bytes of each part, in the order of `_PARTS`.
        running: a launcher works on it.
    """

    path: Path
    age_s: float
    sizes: tuple[int, ...]
    running: bool

    @property
    def total(self) -> int:
        """Bytes of all parts."""
        return sum(self.sizes)


def find(where: Path) -> list[Kept]:
    """The run directories directly below a folder, the oldest first.

    Raises:
        ConfigError: there is no such folder.
    """
    if not where.is_dir():
        raise ConfigError(f"{where} is no directory; name the one that holds the runs")
    # A link may lead to somebody else's run: what it names is not ours to remove.
    made = [path.parent for path in where.glob("*/run.json") if not path.parent.is_symlink()]
    return sorted((_measured(path) for path in made), key=lambda kept: -kept.age_s)


def chosen(runs: list[Kept], older_than_s: float, larger_than: float) -> list[Kept]:
    """Those that are old and large enough."""
    return [kept for kept in runs if kept.age_s >= older_than_s and kept.total >= larger_than]


def lines(runs: list[Kept]) -> Iterator[str]:
    """One line for each run, and their sum."""
    for kept in runs:
        parts = ", ".join(f"{name} {human(size)}" for name, size in zip(_PARTS, kept.sizes, strict=True) if size)
        state = "  running" if kept.running else ""
        yield f"{human(kept.total):>9}  {_age(kept.age_s):>7}  {kept.path}{state}"
        yield f"{'':20}{parts}"
    yield f"{human(sum(kept.total for kept in runs)):>9}  in {len(runs)} run{'' if len(runs) == 1 else 's'}"


def remove(runs: list[Kept]) -> None:
    """Delete run directories.

    Raises:
        BackendError: one cannot be deleted.
    """
    for kept in runs:
        # A run may have been resumed since it was listed.
        if control.worker(kept.path) is not None:
            continue
        try:
            shutil.rmtree(kept.path)
        except OSError as error:
            raise disk_error(error, kept.path) from error


def _measured(path: Path) -> Kept:
    sizes = dict.fromkeys(_PARTS, 0)
    newest = path.stat().st_mtime
    for folder, _, files in os.walk(path):
        inside = Path(folder).relative_to(path).parts
        for name in files:
            found = (Path(folder) / name).lstat()
            newest = max(newest, found.st_mtime)
            sizes[_part(inside, name)] += found.st_blocks * 512
    age_s = max(0.0, time.time() - newest)
    return Kept(path, age_s, tuple(sizes.values()), control.worker(path) is not None)


def _part(inside: tuple[str, ...], name: str) -> str:
    if MEMORY in inside:
        return "checkpoints"
    if "evidence" in inside:
        return "evidence"
    return "journals" if name.endswith(".jsonl") else "rest"


def _age(seconds: float) -> str:
    for unit, length_s in (("days", 86400), ("hours", 3600), ("min", 60)):
        if seconds >= 2 * length_s:
            return f"{seconds / length_s:.0f} {unit}"
    return f"{seconds:.0f} s"
