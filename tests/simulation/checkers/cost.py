"""Cost: `n-1` small messages a phase and `2 d (n-1)/n` floats a step and peer; publications only where judging asks."""

from __future__ import annotations

from copy import copy

from node.protocol.deadlines import laggards_s
from node.protocol.events import Accused, Committed, PhaseEntered, Voided
from node.protocol.parts import Split
from node.simulator import Observed, Traffic
from tests.simulation.stage import Stage

_BYTES_PER_PEER = 400
"""A message's size grows with n, never with d: bound per message, for each peer of the roster."""


class Cost:
    """Adds up what each honest peer sent between two commits and compares it with the formula."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._dimension = stage.task.dimension
        self._before = {node: Traffic() for node in stage.honest}
        self._phases = dict.fromkeys(stage.honest, 0)
        self._slow = dict.fromkeys(stage.honest, 0)
        self._expelled = dict.fromkeys(stage.honest, 0)
        self._entered = dict.fromkeys(stage.honest, 0.0)
        self._charges = dict.fromkeys(stage.honest, 0)
        self._active = dict.fromkeys(stage.honest, stage.run.peers)

    def see(self, seen: Observed) -> None:
        node = seen.node
        if node not in self._before:
            return
        if isinstance(seen.output, PhaseEntered | Voided | Committed):
            self._slow[node] += seen.time_s - self._entered[node] >= laggards_s(self._stage.ground().settings)
            self._entered[node] = seen.time_s
        match seen.output:
            case PhaseEntered():
                self._phases[node] += 1
            case Accused():
                self._charges[node] += 1
            case Voided() as void:
                peers = self._active[node]
                # All that this attempt can have sent: it had at most everyone as contributors.
                self._check(node, Split(self._dimension, peers), None)
                self._active[node] = peers - len(void.removals)
                self._expelled[node] = len(void.removals)
            case Committed() as done:
                place = done.active.index(node)
                split = Split(self._dimension, len(done.active))
                own = self._dimension - split.size(place) if node in done.contributors else 0
                aggregate = split.size(place) * (len(done.active) - 1) if done.contributors else 0
                self._check(node, split, 4 * (own + aggregate))
                banned = self._stage.simulation.nodes[node].peer.state.roster.active
                self._active[node] = len(banned)
                self._expelled[node] = len(done.active) - len(banned)

    def end(self) -> None:
        pass

    def _check(self, node: int, split: Split, bulk_bytes: int | None) -> None:
        traffic, before = self._stage.simulation.traffic[node], self._before[node]
        others = split.count - 1
        messages = traffic.messages - before.messages
        # What ended the phase before goes once more to peers that say nothing for 2 D, and what ended the attempt
        # before to those it removed: n messages to each.
        forwarded = messages - self._phases[node] * others
        most = (self._slow[node] * others + self._expelled[node]) * self._stage.run.peers
        assert 0 <= forwarded <= most, f"{messages} messages in {self._phases[node]} phases, {self._slow[node]} slow"
        control = traffic.control_bytes - before.control_bytes
        assert control <= messages * _BYTES_PER_PEER * self._stage.run.peers, f"{control} bytes in {messages} messages"
        bulk = traffic.bulk_bytes - before.bulk_bytes
        if bulk_bytes is not None:
            assert bulk == bulk_bytes, f"peer {node} sent {bulk} bytes of parts and aggregates instead of {bulk_bytes}"
        assert bulk <= 8 * (self._dimension + split.count) * others / split.count + 8 * others
        published = traffic.publication_bytes - before.publication_bytes
        assert published <= 4 * 2 * self._dimension * others, f"peer {node} published {published} bytes"
        assert not published or self._charges[node], f"peer {node} published {published} bytes and nobody was accused"
        self._before[node] = copy(traffic)
        self._phases[node] = self._charges[node] = self._slow[node] = 0
