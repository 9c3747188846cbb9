"""Whose turn it is: which events of a scenario are due, each once, by the clock and the step of whoever plays it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from random import Random

from btard.node.netem.conditions import Change, Conditions, Event, Window

_BEGINS, _ENDS = "begins", "ends"


@dataclass(frozen=True, slots=True)
class ScheduledEvent:
    """One thing that happens now.

    Args:
        action: `kill`, `restart`, `pause` or `continue`, for `peers`; `begins` or `ends` for a change of links, which
            the nodes carry out themselves.
        text: the line of the scenario.
    """

    action: str
    peers: tuple[int, ...]
    text: str


class Scheduler:
    """Plays the events of a run; changes of links are only announced.

    Args:
        conditions: the run's; those without a text (options) are not announced.
        done: how many events of each text have been played in an earlier life of the run.
        begun: texts of changes that began in an earlier life and had not ended.
    """

    def __init__(
        self, conditions: Conditions, done: Mapping[str, int] | None = None, begun: Collection[str] = ()
    ) -> None:
        left = Counter(done or {})
        self._events = []
        for event in conditions.events:
            left[event.text] -= 1
            if left[event.text] < 0:
                self._events.append(event)
        self._churn, self._seed = conditions.churn, conditions.seed
        self._step = -1
        self._down: set[int] = set()
        self._changes: list[tuple[Change, bool]] = [
            (change, change.text in begun) for change in conditions.changes if change.text
        ]

    def due(self, now_s: float, step: int) -> list[ScheduledEvent]:
        """What has become due since the last look.

        Args:
            now_s: seconds since the first step began.
            step: the step under way.
        """
        cues, waiting = [], []
        self._draw(now_s, step)
        for event in self._events:
            if _begun(event, now_s, step):
                cues.append(ScheduledEvent(event.action, event.peers, event.text))
                self._note(event)
            else:
                waiting.append(event)
        self._events = waiting
        said, lasting = set(), []
        for change, open_ in self._changes:
            holds, over = change.window.holds(now_s, step), _over(change, now_s, step)
            if (holds and not open_) or (over and open_):
                said.add((_BEGINS if holds else _ENDS, change.text))
            if not over:
                lasting.append((change, holds or open_))
        self._changes = lasting
        return cues + [ScheduledEvent(what, (), text) for what, text in sorted(said)]

    def _note(self, event: Event) -> None:
        if event.action == "kill":
            self._down.update(event.peers)
        elif event.action == "restart":
            self._down.difference_update(event.peers)

    def _draw(self, now_s: float, step: int) -> None:
        """Who is hit by churn at the steps that have begun since the last look: one peer at a time is away."""
        first, self._step = max(self._step + 1, 0), max(self._step, step)
        for each in range(first, self._step + 1):
            for churn in self._churn:
                dice = Random(f"{self._seed} churn {each} {churn.text}")
                hit, peer = dice.random() < churn.share, dice.randrange(churn.peers)
                if hit and not self._down and churn.window.holds(now_s, each):
                    back = Window("s", now_s + churn.down_s)
                    self._events.append(Event(Window("s", now_s), "kill", (peer,), churn.text))
                    self._events.append(Event(back, "restart", (peer,), churn.text))
                    self._down.add(peer)

    def next_s(self, now_s: float) -> float:
        """When something may be due next by the clock alone, infinite if nothing is."""
        times = [change.window.next_edge_s(now_s) for change, _ in self._changes]
        times += [event.window.start for event in self._events if event.window.unit == "s"]
        return min(times, default=math.inf)


def _begun(event: Event, now_s: float, step: int) -> bool:
    return event.window.start <= (now_s if event.window.unit == "s" else step)


def _over(change: Change, now_s: float, step: int) -> bool:
    window = change.window
    return window.stop is not None and (now_s if window.unit == "s" else step) >= window.stop
