"""Who is told how a run goes: the live view, what writes metrics and annotations around it, or nobody."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from btard.launcher.monitor.state import Record, RunState
from btard.launcher.run.plan import Plan
from btard.launcher.run.summary import Summary


class Observer(Protocol):
    """Who is told of a run's progress: the live view, or nobody. What inherits it does nothing."""

    def note(self, line: str) -> None:
        """One line for people."""
        return

    def began(self, plan: Plan, run_dir: Path, state: RunState) -> None:
        """The workers are being started; `state` is updated in place from now on."""
        return

    def saw(self, records: Sequence[Record]) -> None:
        """New journal records, already folded into the state; called several times a second, also without any."""
        return

    def ended(self) -> None:
        """No worker is left."""
        return

    def scored(self, summary: Summary) -> None:
        """The summary is written."""
        return


class Silent(Observer):
    """An observer that tells nobody."""
