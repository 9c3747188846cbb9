"""Accountability of lies that differ from peer to peer: who signs two messages for one slot, and has two honest peers
take one each, is out by the end of the next step, and again in the step in which it is back. A CLOSE that comes after a
peer has signed its view is no part of it: unless it completes a certificate it ends with the attempt, and nobody is
asked what it said. Where a dispute finds a certificate its value stands, and what differs is evidence for the next step
(PROTOCOL section 4, union rule 1): the last step has none."""

from __future__ import annotations

from collections import defaultdict
from itertools import combinations

from btard.node.drivers.simulator import Observed
from btard.node.protocol.api import Banned, Committed, Disputed, Resolved, Returned, Voided
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
        self._resolved: set[tuple[int, int, int]] = set()
        """(node, step, attempt) of disputes that have ended."""
        self._stood: set[int] = set()
        """Steps in which one ended with a value and without removals: it found a certificate."""
        self._ended: set[tuple[int, int, int]] = set()
        """The same of attempts."""
        self._out: defaultdict[int, set[int]] = defaultdict(set)
        """By peer: the steps with a verdict against it."""
        self._back: defaultdict[int, set[int]] = defaultdict(set)
        """By peer: the first steps in which it is back."""
        self._last = 0

    def see(self, seen: Observed) -> None:
        if seen.node not in self._stage.honest:
            return
        ended, node = seen.output, seen.node
        if isinstance(ended, Banned):
            self._out[ended.peer].add(ended.step)
        elif isinstance(ended, Returned):
            self._back[ended.peer].add(ended.step + 1)
        elif isinstance(ended, Resolved):
            self._resolved.add((node, ended.step, ended.attempt))
            if ended.outcome == "commit" and not ended.removals:
                self._stood.add(ended.step)
        elif isinstance(ended, Disputed) and (node, ended.step, ended.attempt) not in self._ended:
            self._compare(node, ended.step, ended.attempt)
        elif isinstance(ended, Voided | Committed):
            self._last = max(self._last, ended.step)
            self._ended.add((node, ended.step, ended.attempt))
            void = isinstance(ended, Voided) and (node, ended.step, ended.attempt) in self._resolved
            self._compare(node, ended.step, ended.attempt, late=CLOSE if void else None)

    def end(self) -> None:
        for peer, (step, phase) in self._split.items():
            if step == self._last and step in self._stood:
                continue
            due = step if phase != CLOSE else step + 1
            if due <= self._last:
                out = any(verdict <= due + 1 for verdict in self._out[peer])
                assert out, f"peer {peer} told two things in phase {phase} of step {step}"
                back = {since for since in self._back[peer] if step < since <= self._last}
                assert back <= self._out[peer], f"peer {peer} told two things in step {step}, and is back in {back}"

    def _compare(self, node: int, step: int, number: int, late: int | None = None) -> None:
        """What a node holds of an attempt against what others do, but for the phase that may have come too late."""
        peer = self._stage.simulation.nodes[node].peer
        rounds = (peer.router.previous.round, peer.shared.round)
        attempts = [peer.past, *(round_.attempt for round_ in rounds if round_ is not None)]
        for attempt in attempts:
            if attempt is not None and (attempt.step, attempt.number) == (step, number):
                said: dict[int, list[Told]] = {}
                for signed in attempt.transcript.everything():
                    each = told(signed.body)
                    if each.phase != late:
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
