"""docs/reports/soak.csv: what was searched for a broken promise, when, on which commit. It grows, and nothing in it is
changed afterwards."""

from __future__ import annotations

import csv
import datetime
import subprocess
from dataclasses import astuple, dataclass, fields
from pathlib import Path

FILE = Path(__file__).parents[2] / "docs" / "reports" / "soak.csv"


@dataclass(frozen=True, slots=True)
class Entry:
    """One line: a search that has ended.

    Args:
        date: of its end, UTC.
        commit: of the code, with `+` behind it where the tree had changes.
        kind: `soak`, `explore n=4`, `guided n=6`, ...
        seeds: that repeat it.
        runs: played to their end.
        states: distinct joint states, 0 where they are not counted.
        hostile_steps: attempts in which somebody deviated.
        violations: broken promises.
        cpu_s: of all processes.
    """

    date: str
    commit: str
    kind: str
    seeds: str
    runs: int
    states: int
    hostile_steps: int
    violations: int
    cpu_s: int


def commit() -> str:
    """The commit of the working tree."""

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ("git", *arguments), cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", ":!docs/reports/soak.csv")
    return git("rev-parse", "--short=10", "HEAD") + ("+" if changed else "")


def today() -> str:
    """The date of an entry that is made now."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def append(entry: Entry, file: Path = FILE) -> None:
    """Add a line, after the names of the columns where there is no file yet.

    Raises:
        ValueError: the file has other columns.
    """
    names = [field.name for field in fields(Entry)]
    begun = file.exists()
    if begun:
        with file.open(encoding="utf-8", newline="") as held:
            header = next(csv.reader(held), None)
        if header != names:
            raise ValueError(f"{file} has the columns {header}, not {names}: write to another file")
    with file.open("a", encoding="utf-8", newline="") as held:
        writer = csv.writer(held, lineterminator="\n")
        if not begun:
            writer.writerow(names)
        writer.writerow(astuple(entry))
