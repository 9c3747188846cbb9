"""A network whose links change: who waits for whom, and what was asked for against what was measured.

Both drivers send every message through it, the simulator by its virtual clock and a process by its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

from btard.node.errors import ConfigError
from btard.node.netem.conditions import Conditions
from btard.node.netem.links import Link, LinkModel, Passage

QUIET = Link(delay_s=0.0)
"""A real network adds its own delay: nothing is asked for on top."""

_TELLING_S = 0.01
"""Rates are measured on messages that take at least this long: of shorter ones a clock tells little."""

_INTEGERS = frozenset({"transmissions"})


@dataclass(slots=True)
class Tally:
    """What one direction was asked for and what it did.

    Args:
        messages: sent, duplicates not counted.
        transmissions: including those that were lost and repeated.
        lost: transmissions that were lost.
        expected_lost: what their number should be, by the probabilities asked for.
        crossed: copies that arrived (or were handed on, in a process).
        requested_delay_s: sum of the delay and jitter that the model drew for them.
        measured_delay_s: sum of the delay that they took, retransmissions and transfer not counted.
        transferred_bytes, planned_s, transfer_s: of long messages on a link with a limited rate: the time that
            their bytes should take, and did.
        held: messages that waited for the end of a partition.
    """

    messages: int = 0
    transmissions: int = 0
    lost: int = 0
    expected_lost: float = 0.0
    crossed: int = 0
    requested_delay_s: float = 0.0
    measured_delay_s: float = 0.0
    transferred_bytes: int = 0
    planned_s: float = 0.0
    transfer_s: float = 0.0
    held: int = 0

    def arrived(self, passage: Passage, size_bytes: int, late_s: float) -> None:
        """One copy is through, `late_s` after the moment it was meant to be."""
        self.crossed += 1
        self.requested_delay_s += passage.propagation_s
        self.measured_delay_s += passage.propagation_s + late_s
        if passage.transfer_s >= _TELLING_S:
            self.transferred_bytes += size_bytes
            self.planned_s += passage.transfer_s
            self.transfer_s += passage.transfer_s + late_s


class Network:
    """All directions that one driver sends over.

    Args:
        model: the links while nothing changes them.
        conditions: what changes them, and when.

    Raises:
        ConfigError: a change names no field of a link, or a value out of range.
    """

    def __init__(self, model: LinkModel, conditions: Conditions | None = None) -> None:
        self.model = model
        self._changes = conditions.changes if conditions is not None else ()
        self._sequence: dict[tuple[int, int], int] = {}
        self._free_s: dict[tuple[int, int], float] = {}
        self._links: dict[tuple[tuple[int, int], tuple[int, ...]], Link] = {}
        self.tallies: dict[tuple[int, int], Tally] = {}
        for change in self._changes:
            changed(QUIET, change.values)

    def link(self, sender: int, receiver: int, now_s: float, step: int) -> Link | None:
        """The link as it is now, None while it is cut.

        Args:
            now_s: seconds since the first step.
            step: the sender's step.
        """
        pair = (sender, receiver)
        acting = [
            (place, change)
            for place, change in enumerate(self._changes)
            if (change.pairs is None or pair in change.pairs) and change.window.holds(now_s, step)
        ]
        if not acting:
            return self.model.between(sender, receiver)
        if any(change.cut for _, change in acting):
            return None
        key = (pair, tuple(place for place, _ in acting))
        if key not in self._links:
            link = self.model.between(sender, receiver)
            for _, change in acting:
                link = changed(link, change.values)
            self._links[key] = link
        return self._links[key]

    def send(self, sender: int, receiver: int, size_bytes: int, now_s: float, step: int) -> list[Passage] | None:
        """How the copies of a message cross, none if it is lost for good; None: the link is cut, ask again later."""
        link = self.link(sender, receiver, now_s, step)
        pair = (sender, receiver)
        if link is None:
            return None
        sequence = self._sequence[pair] = self._sequence.get(pair, 0) + 1
        crossing = self.model.cross(link, (sender, receiver, sequence), size_bytes)
        tally = self.tally(pair)
        tally.messages += 1
        tally.lost += crossing.lost
        transmissions = crossing.lost + len(crossing.passages)
        tally.transmissions += transmissions
        tally.expected_lost += transmissions * link.loss
        if not math.isfinite(link.bandwidth_bytes_per_s):
            return crossing.passages
        return [self._queue(pair, passage, now_s) for passage in crossing.passages]

    def tally(self, pair: tuple[int, int]) -> Tally:
        """What a direction has done so far."""
        return self.tallies.setdefault(pair, Tally())

    def next_edge_s(self, now_s: float) -> float:
        """When a window of time opens or closes next, infinite if none does."""
        return min((change.window.next_edge_s(now_s) for change in self._changes), default=math.inf)

    def _queue(self, pair: tuple[int, int], passage: Passage, now_s: float) -> Passage:
        """Bytes follow one another: a message begins when the one before it is through."""
        begins_s = max(now_s, self._free_s.get(pair, 0.0))
        self._free_s[pair] = begins_s + passage.transfer_s
        return replace(passage, queued_s=begins_s - now_s)


def changed(link: Link, values: dict[str, float]) -> Link:
    """A link with other values.

    Raises:
        ConfigError: no such field, or a value out of range.
    """
    if not values:
        return link
    known = {field.name for field in fields(Link)}
    unknown = sorted(values.keys() - known)
    if unknown:
        raise ConfigError(f"a link has no {unknown[0]!r}; it has {', '.join(sorted(known))}")
    typed = {name: int(value) if name in _INTEGERS else value for name, value in values.items()}
    own = {field.name: getattr(link, field.name) for field in fields(Link)}
    return Link(**{**own, **typed})


def of(conditions: Conditions) -> Network:
    """The network that a process puts on top of the real one."""
    return Network(LinkModel(delay_s=0.0, seed=conditions.seed), conditions)
