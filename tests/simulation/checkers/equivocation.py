"""Accountability of lies that differ from peer to peer: who signs two messages for one slot, and has two honest peers
take one each, is out by the end of the next step."""

from __future__ import annotations

from itertools import combinations

from btard.node.drivers.simulator import Observed
from btard.node.protocol.api import Committed, Voided
from tests.simulation.checkers.testimony import Bans
from tests.simulation.oracle import CLOSE, SUSPECT, Told, contradictory, told
from tests.simulation.stage import Stage


class Equivocations:
    """Compares what honest peers hold of every attempt when it ends."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._held: dict[tuple[int, int, int, int], bytes] = {}
        self._split: dict[int, tuple[int, int]] = {}
        """By sender: the first slot in which honest peers hold different messages."""
        self._consistent: set[tuple[bytes, ...]] = set()
        """What one honest peer said in an attempt, and does not contradict itself in."""
        self._bans = Bans()
        self._last = 0

    def see(self, seen: Observed) -> None:
        if seen.node not in self._stage.honest:
            return
        self._bans.see(seen)
        ended = seen.output
        if isinstance(ended, Voided | Committed):
            self._last = max(self._last, ended.step)
            self._compare(seen.node, ended.step, ended.attempt)

    def end(self) -> None:
        for peer, (step, phase) in self._split.items():
            due = step if phase != CLOSE else step + 1
            if due <= self._last:
                assert self._bans.out(peer, due + 1), f"peer {peer} told two things in phase {phase} of step {step}"

    def _compare(self, node: int, step: int, number: int) -> None:
        peer = self._stage.simulation.nodes[node].peer
        rounds = (peer.router.previous.round, peer.shared.round)
        attempts = [peer.past, *(round_.attempt for round_ in rounds if round_ is not None)]
        for attempt in attempts:
            if attempt is not None and (attempt.step, attempt.number) == (step, number):
                said: dict[int, list[Told]] = {}
                for signed in attempt.transcript.everything():
                    each = told(signed.body)
                    self._note(step, number, each)
                    said.setdefault(each.sender, []).append(each)
                self._check_histories(said)
                return

    def _check_histories(self, said: dict[int, list[Told]]) -> None:
        """What proves equivocation is never signed by an honest peer."""
        for peer in said.keys() - self._stage.roles.keys():
            history = tuple(each.body for each in said[peer])
            if history in self._consistent:  # as its other peers hold it
                continue
            self._consistent.add(history)
            for first, second in combinations(said[peer], 2):
                assert not contradictory(first, second), f"honest peer {peer} contradicts itself: {first}, {second}"

    def _note(self, step: int, number: int, each: Told) -> None:
        key = (step, number, each.phase, each.sender)
        if each.phase != SUSPECT and self._held.setdefault(key, each.body) != each.body:
            assert each.sender in self._stage.roles, f"honest peer {each.sender} signed two messages in {each.phase}"
            self._split.setdefault(each.sender, (step, each.phase))
