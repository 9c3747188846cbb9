"""Carries a scenario out on the workers of a run, by the launcher's clock and the run's steps."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Protocol, runtime_checkable

from btard.launcher.monitor.state import RunState
from btard.launcher.monitor.watch import Watch
from btard.node.drivers.scheduler import Scheduler
from btard.node.netem.conditions import Conditions

LOOK_SECONDS = 0.05
"""How often to look for what is due."""

_OF_LINKS = ("begins", "ends")


@runtime_checkable
class Hands(Protocol):
    """A backend that can do to a worker what a scenario asks for."""

    def act(self, action: str, node: int) -> None:
        """`kill`, `pause` or `continue` a worker, unless it has ended; `restart` one that has."""


class Player:
    """One run's scenario.

    Args:
        conditions: of the run.
        hands: the backend.
        state: the run's; time counts from when all nodes are ready. What happened in an earlier life of the run does
            not happen again.
        watch: journals what happens.
        clock: seconds, monotonic.
    """

    def __init__(
        self, conditions: Conditions, hands: Hands, state: RunState, watch: Watch,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        done = Counter(event["text"] for event in state.happened if event["action"] not in _OF_LINKS)
        said = {what: {event["text"] for event in state.happened if event["action"] == what} for what in _OF_LINKS}
        begun = said["begins"] - said["ends"]
        self._director = Scheduler(conditions, done, begun)
        self._elapsed_s = max((float(event["at_s"]) for event in state.happened), default=0.0)
        self._hands, self._state, self._watch, self._clock = hands, state, watch, clock
        self._origin_s: float | None = None

    def look(self) -> list[int]:
        """Do what is due; returns the workers that were started again.

        Raises:
            BackendError: the disk is full.
        """
        if self._origin_s is None:
            if any(node.state in ("starting", "bound") for node in self._state.nodes.values()):
                return []
            self._origin_s = self._clock() - self._elapsed_s
        at_s, step = self._clock() - self._origin_s, self._state.step + 1
        again: list[int] = []
        for cue in self._director.due(at_s, step):
            for peer in cue.peers:
                self._hands.act(cue.action, peer)
            again += cue.peers if cue.action == "restart" else ()
            self._watch.note(
                "scenario", action=cue.action, peers=list(cue.peers), text=cue.text, at_s=round(at_s, 3), step=step
            )
        return again


def play_of(conditions: Conditions | None, backend: object, state: RunState, watch: Watch) -> Player | None:
    """The scenario of a run; None if it has none, or a backend that plays it by itself."""
    return Player(conditions, backend, state, watch) if conditions is not None and isinstance(backend, Hands) else None
