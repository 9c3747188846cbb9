"""What the page of a run is made of: its directory, read once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from btard.launcher.monitor.state import Record
from btard.launcher.run import run_directory, summary
from btard.launcher.run.run_directory import RunRecord
from btard.launcher.run.summary import Summary
from btard.node.config import Role
from btard.node.storage.journal import read


@dataclass(frozen=True, slots=True)
class RunData:
    """A finished run.

    Args:
        path: its directory.
        record: run.json.
        summary: summary.json.
        commits: by step, then node.
        events: everything but metrics, in order of time.
    """

    path: Path
    record: RunRecord
    summary: Summary
    commits: Mapping[int, Mapping[int, Record]]
    events: tuple[Record, ...]

    @property
    def roles(self) -> dict[int, Role]:
        """Who attacked, by genesis id."""
        return {int(peer): role for peer, role in self.record.roles.items()}

    @property
    def honest(self) -> tuple[int, ...]:
        """Who did not."""
        return tuple(peer for peer in range(self.record.run.peers) if peer not in self.roles)

    def view(self, step: int) -> Record:
        """The record of one node of a step: an honest one where there is one."""
        views = self.commits[step]
        return views[next((node for node in self.honest if node in views), min(views))]


def load(path: Path) -> RunData:
    """Read a run directory.

    Raises:
        ConfigError: it is none, or the run has not ended.
        DataError: a file is damaged.
    """
    record = run_directory.read_record(path)
    commits: dict[int, dict[int, Record]] = {}
    for line in read(path / "metrics.jsonl")[0]:
        if line["event"] == "committed":
            commits.setdefault(line["step"], {})[line["node"]] = line
    return RunData(
        path, record, summary.read(path), dict(sorted(commits.items())), tuple(read(path / "events.jsonl")[0])
    )
