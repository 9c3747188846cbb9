"""Where workers run: one module per backend, all alike to the launcher."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from btard.node.config import NodeConfig
from btard.node.errors import ConfigError
from btard.node.nearest import suggestion

if TYPE_CHECKING:
    from btard.launcher.run.plan import Plan

Note = Callable[[str], None]
"""One line for people."""

NAMES = ("local", "simulated", "compose")


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
        """Wait up to `timeout_s` seconds for something to happen; returns the workers that ended meanwhile.

        Once all workers have bound their sockets, this hands each the addresses of all.
        """

    @property
    def bound(self) -> frozenset[int]:
        """Workers that have bound their sockets."""

    def stop(self) -> None:
        """End every worker, first kindly, and wait until none is left. May be called at any time, repeatedly."""


def check(name: str) -> None:
    """Refuse an unknown backend.

    Raises:
        ConfigError: no such backend.
    """
    if name not in NAMES:
        raise ConfigError(f"unknown backend {name!r}; {suggestion(name, NAMES)}")


def build(name: str, note: Note) -> Backend:
    """The backend called `name`.

    Args:
        note: told what takes time.

    Raises:
        ConfigError: no such backend.
    """
    check(name)
    match name:
        case "local":
            from btard.launcher.backends.local import LocalBackend

            return LocalBackend()
        case "simulated":
            from btard.launcher.backends.simulated import SimulatedBackend

            return SimulatedBackend()
        case _:
            from btard.launcher.backends.compose import ComposeBackend

            return ComposeBackend(note)
