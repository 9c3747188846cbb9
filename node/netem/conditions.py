"""What a network is asked to be like, and when: the request as plain data, the same for every driver."""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from btard.node.errors import ConfigError


class Window(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A span of time since the first step, or of steps; `stop` is not part of it, None: for ever.

    Raises:
        ConfigError: it ends before it begins.
    """

    unit: Literal["s", "step"] = "s"
    start: float = 0.0
    stop: float | None = None

    def __post_init__(self) -> None:
        if self.stop is not None and not self.stop > self.start:
            raise ConfigError(f"a window from {self.start:g} to {self.stop:g} is empty; end it after it begins")

    def holds(self, now_s: float, step: int) -> bool:
        """True inside the window, seen by a peer at `step`, `now_s` seconds after the first one began."""
        place = now_s if self.unit == "s" else step
        return self.start <= place and (self.stop is None or place < self.stop)

    def next_edge_s(self, now_s: float) -> float:
        """The next time at which it opens or closes, infinite if none is known."""
        edges = (self.start, self.stop) if self.unit == "s" else ()
        return min((edge for edge in edges if edge is not None and edge > now_s), default=math.inf)


class Change(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Links that differ while a window holds.

    Args:
        window: when.
        values: the fields of `Link` that change, by name; the others stay as they are.
        pairs: the directions (sender, receiver) that change; None: all.
        cut: nothing crosses: messages wait for the end of it, as under TCP.
        text: the line of the scenario that asks for it, empty for an option.
    """

    window: Window = Window()
    values: dict[str, float] = {}
    pairs: tuple[tuple[int, int], ...] | None = None
    cut: bool = False
    text: str = ""


class Event(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Something done to peers at one moment, from outside: the peers themselves know nothing of it.

    Args:
        window: when it is due; only its beginning counts.
        action: `kill` ends a process at once, `restart` starts it again where it was, `pause` stops it where it is,
            `continue` lets it go on.
        peers: to whom.
        text: the line of the scenario that asks for it.
    """

    window: Window
    action: Literal["kill", "restart", "pause", "continue"]
    peers: tuple[int, ...]
    text: str = ""


class Churn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """At each step of a window a peer is killed with a probability, and started again soon after.

    Args:
        window: of steps.
        share: the probability.
        peers: how many peers there are to draw from.
        text: the line of the scenario that asks for it.
        down_s: how long a peer stays away.
    """

    window: Window
    share: float
    peers: int
    text: str = ""
    down_s: float = 0.5


class Conditions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All changes of a run, later ones over earlier ones.

    Args:
        changes: of the links, in order.
        events: in the order of the scenario's lines.
        churn: peers that come and go.
        seed: of every draw (jitter, loss, duplication).
    """

    changes: tuple[Change, ...] = ()
    events: tuple[Event, ...] = ()
    seed: int = 0
    churn: tuple[Churn, ...] = ()

    @property
    def restarts(self) -> bool:
        """True if peers are started again: they need checkpoints."""
        return bool(self.churn) or any(event.action == "restart" for event in self.events)
