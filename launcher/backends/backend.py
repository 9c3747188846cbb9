"""What the launcher asks of a backend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from btard.launcher.run.plan import Plan
from btard.node.config import NodeConfig

Note = Callable[[str], None]
"""One line for people."""


@dataclass(frozen=True, slots=True)
class Exited:
    """A worker ended; a negative exit code is the signal that killed it."""

    node: int
    exit_code: int


class Backend(Protocol):
    """Starts, watches and stops the workers of one run."""

    def warm_up(self) -> None:
        """Begin whatever takes time, while the launcher still checks what the user asked for."""

    def prepare(self, plan: Plan) -> None:
        """Check the place, and make ready what a run needs there; called once everything else has been checked.

        Raises:
            BackendError: something is missing here.
        """

    def start(self, configs: Sequence[NodeConfig]) -> None:
        """Start one worker per configuration and return; `poll` carries the start-up on.

        Raises:
            BackendError: workers cannot be started here.
        """

    def poll(self, timeout_s: float) -> list[Exited]:
        """Wait up to `timeout_s` seconds for something to happen; returns the workers that ended meanwhile."""

    @property
    def bound(self) -> frozenset[int]:
        """Workers that have bound their sockets."""

    def stop(self) -> None:
        """End every worker, first kindly, and wait until none is left. May be called at any time, repeatedly."""
