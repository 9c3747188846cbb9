"""A simulation that can be touched at any instant of virtual time: what the random composer's moves are made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import cast

from btard.node.build import Compute, Node
from btard.node.drivers.simulator import Observed, Simulation
from btard.node.netem.network import Network
from btard.node.protocol.api import (
    Banned,
    Committed,
    ComputeGradient,
    DeadlinePassed,
    Input,
    Returned,
    Say,
    Undone,
    Voided,
)
from btard.node.protocol.wire.messages import Body

OUTSIDE = -1
"""The node to which the actions belong."""

AFTERWARDS_S = 1e-9
"""What is handled just after an instant."""


@dataclass(frozen=True, slots=True)
class _Due:
    action: Callable[[], None]


class Hooked(Simulation):
    """A simulation with actions of its own between the nodes' inputs, which notes what was played.

    Args:
        nodes, network, compute, gradient_s: as a simulation's.
    """

    def __init__(self, nodes: Mapping[int, Node], network: Network, compute: Compute, gradient_s: float) -> None:
        super().__init__(nodes, network, compute, gradient_s)
        self.moves: Counter[str] = Counter()
        """How often each move was played, by name."""
        self.recalls: Counter[int] = Counter()
        """By node: how often an attacker asked it for an attempt."""
        self.plan: list[str] = []
        """What kinds of moves the run has, in words."""
        self.on_timer: Callable[[int, str, int, float], None] = lambda node, name, number, at_s: None
        """Told of each timer that a node sets: its name, its number and when it runs out."""
        self.on_say: Callable[[int, Body], None] = lambda node, body: None
        """Told of each message as its author sends it."""
        self.gradient_takes: Callable[[int], float] = lambda node: self._gradient_s
        """How long a node's next gradient takes."""
        self.deaf = False
        """Whoever is at a gradient handles nothing meanwhile."""
        self.on_failure: Callable[[int, BaseException], None] | None = None
        """Told when a node's memory fails it: it is switched off."""
        self.failures: tuple[type[BaseException], ...] = ()
        self.setting_out: list[Callable[[], Callable[[], None]]] = []
        """Called as the run begins; each returns what is to be called at its end."""
        self._said: dict[tuple[int, type, int, int, int], object] = {}
        self.again: set[int] = set()
        """Nodes that were started again: they may report once more what they reported before."""

    @property
    def restarts(self) -> bool:
        """True if nodes may start again."""
        return self.on_failure is not None

    def at(self, after_s: float, action: Callable[[], None]) -> None:
        """Do something so many seconds from now."""
        self._push(max(after_s, 0.0), OUTSIDE, cast(Input, _Due(action)))

    def hand(self, node: int, event: Input, after_s: float = 0.0) -> None:
        """An input for a node, past the network: whoever sends it knows when it will be there."""
        self._push(after_s, node, event)

    def pending(self, node: int, name: str, number: int) -> bool:
        """True while a timer has neither run out nor been cancelled."""
        return self._timers.get((node, name)) == number

    def run(self, until_s: float = float("inf"), max_events: int = 50_000_000) -> Iterator[Observed]:
        ends = [begin() for begin in self.setting_out]
        try:
            yield from super().run(until_s, max_events)
        finally:
            for end in ends:
                end()

    def _push(self, after_s: float, node: int, event: Input) -> int:
        number = super()._push(after_s, node, event)
        if isinstance(event, DeadlinePassed):
            self.on_timer(node, event.name, number, self.now_s + after_s)
        return number

    def _feed(self, node: int, event: Input) -> Iterator[Observed]:
        if isinstance(event, _Due):
            event.action()
            return
        try:
            for seen in super()._feed(node, event):
                if self._fresh(seen):
                    yield seen
        except self.failures as failure:
            assert self.on_failure is not None
            self.on_failure(node, failure)

    def _say(self, node: int, say: Say) -> None:
        super()._say(node, say)
        self.on_say(node, say.body)

    def _gradient(self, node: int, wanted: ComputeGradient) -> None:
        self._gradient_s = length_s = self.gradient_takes(node)
        if self.deaf and length_s > 0.0:
            self.moves["gradient: blocks the message loop"] += 1
            self._parked.setdefault(node, [])
        super()._gradient(node, wanted)
        if self.deaf and length_s > 0.0:
            self.at(length_s, lambda: self._unpark(node))

    def _fresh(self, seen: Observed) -> bool:
        """False for what a node says again since it forgot, with its memory, that it had said so; it says the same.

        Its journal has both (node/storage/durability.py): the end of a step is gone through again after a crash in
        between.
        """
        match seen.output:
            case Committed(step=step, attempt=attempt) | Voided(step=step, attempt=attempt):
                peer, what = -1, _without_evidence(seen.output)
            case Banned(step=step, attempt=attempt, peer=peer) | Returned(step=step, attempt=attempt, peer=peer):
                what = _without_evidence(seen.output)
            case Undone(step=step):
                attempt, peer, what = 0, -1, seen.output
            case _:
                return True
        key = (seen.node, type(seen.output), step, attempt, peer)
        if seen.node in self.again and key in self._said:
            assert self._said[key] == what, f"peer {seen.node}, started again, says {what} after {self._said[key]}"
            self.moves["restart: an end gone through again"] += 1
            return False
        self._said[key] = what
        return True


def _without_evidence(output: Committed | Voided | Banned | Returned) -> object:
    """What has to be the same each time: which signatures prove it may differ."""
    match output:
        case Committed():
            return output.step, output.attempt, output.state_digest, output.parameter_digest, output.active
        case Voided():
            return output.step, output.attempt, output.removals
        case _:
            return replace(output, evidence=b"")
