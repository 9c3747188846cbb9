"""Rebuilds attempts from the signed messages that evidence holds: what every honest peer saw, or nothing.

Every signature, slot, prefix, reveal and certificate is checked on the way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from btard.node.protocol.adjudication.case import Counts
from btard.node.protocol.attempt.attempt import Added, Attempt
from btard.node.protocol.attempt.mprng import Share
from btard.node.protocol.attempt.phases import misfit
from btard.node.protocol.evidence.format import Record, tensor_of
from btard.node.protocol.roster import Roster
from btard.node.protocol.settings import Settings, Tools
from btard.node.protocol.state.state import Ban, State, Summary
from btard.node.protocol.wire.certificate import Certificate, open_signed, sentence
from btard.node.protocol.wire.messages import Body, Have, Judge, Phase, Signed

Recompute = Callable[[Tensor, bytes], Tensor]
"""(parameters_D, xi) -> gradient_D on this machine."""


class UnprovenError(Exception):
    """The evidence does not support its ban; the message says where it breaks."""


@dataclass(frozen=True, slots=True)
class Ground:
    """What a verifier starts from.

    Args:
        settings, tools: of the run, rebuilt from its public configuration on this machine.
        keys: Ed25519 keys of the genesis roster.
        initial_D: genesis parameters; None: they cannot be made here.
        recompute: gradients on this machine; None: they cannot be computed here.
    """

    settings: Settings
    tools: Tools
    keys: tuple[bytes, ...]
    initial_D: Tensor | None
    recompute: Recompute | None


class Replay:
    """Opens signed messages and replays transcripts.

    Args:
        ground: what is known beforehand.
        proven: the bans proven so far, from which rosters follow; its owner appends to it.
        returned: (peer, first step) of the peers let back so far, likewise.
    """

    def __init__(self, ground: Ground, proven: list[Ban], returned: list[tuple[int, int]]) -> None:
        self.ground = ground
        self.proven = proven
        self.returned = returned

    def roster_at(self, step: int, attempt: int) -> Roster:
        """The active roster of an attempt, by the bans and returns proven so far."""
        return Roster.genesis(self.ground.keys).at(self.proven, self.returned, step, attempt)

    def closed(self, messages: tuple[Signed, ...], step: int, attempt: int, value: bytes | None = None) -> Certificate:
        """The certificate of an attempt in the roster that follows from what is proven so far.

        Args:
            messages: of it.
            step, attempt: that it has to have ended.
            value: that it has to cover; None: whatever it says.
        """
        certificate, roster = Certificate.of(messages), self.roster_at(step, attempt)
        check, run = self.ground.tools.verify, self.ground.settings.run
        problem = certificate.verify(check, roster, run=run, step=step, attempt=attempt, value=value)
        require(problem is None, problem or "")
        return certificate

    def open(self, signed: Signed, roster: Roster, step: int, attempt: int) -> Body:
        """A message of an attempt, its signature and its slot checked."""
        run = self.ground.settings.run
        where = (run, roster.digest, step, attempt)
        body = open_signed(signed, roster.keys, self.ground.tools.verify, run=run, where=where, senders=roster.active)
        if isinstance(body, str):
            raise UnprovenError(sentence(body, signed))
        return body

    def attempt(self, record: Record) -> Attempt:
        """The attempt as every honest peer saw it: complete phases with equal prefixes, r and the aggregates."""
        require(0 <= record.step < 1 << 63 and 0 <= record.attempt < 1 << 63, "there is no such attempt")
        roster = self.roster_at(record.step, record.attempt)
        require(bool(roster.active), "nobody is left in the roster")
        require(roster.active == record.active, "the roster is not the one that follows from the bans before")
        state = self._state_before(record, roster)
        settings, tools = self.ground.settings, self.ground.tools
        attempt = Attempt(settings, tools, state, record.attempt, roster.active[0], Share(b"", b""))
        bodies = [self.open(signed, roster, record.step, record.attempt) for signed in record.messages]
        for body, signed in zip(bodies, record.messages, strict=True):
            require(attempt.transcript.add(body, signed) is Added.NEW, "a slot has two messages")
        # The form of a message depends on others, so all are here first; one number of bits is the same for all.
        counts = Counts(
            next((len(body.have) for body in bodies if isinstance(body, Have)), None),
            next((len(body.guilty) for body in bodies if isinstance(body, Judge)), None),
        )
        for body in bodies:
            problem = misfit(body, attempt, counts)
            require(problem is None, f"a message of peer {body.slot.sender} fits no rule: {problem}")
        for phase in Phase:
            if attempt.transcript.signed(phase):
                require(not attempt.transcript.missing(phase), f"messages of {phase.name} are missing")
                attempt.transcript.finish(phase)
        require(attempt.transcript.split is None, "prefixes differ")
        if Phase.REVEAL in attempt.transcript.finished:
            attempt.fix_randomness()
        for held in record.aggregates:
            values_P = tensor_of(held.values)
            require(held.owner in roster.active, f"peer {held.owner} has no aggregate")
            require(attempt.aggregate_matches(held.owner, values_P), f"aggregate {held.part} is not the committed one")
            attempt.aggregates[held.owner] = values_P
        return attempt

    def _state_before(self, record: Record, roster: Roster) -> State:
        """What the attempt started from: r and the drawn validators, certified by the CLOSEs of the step before."""
        empty = torch.empty(0)
        if record.before is None:
            require(record.step == 0, f"the state before step {record.step} is not certified")
            return State.genesis(roster, self.ground.settings.data_seed, empty, empty)
        before = record.before
        require(before.step == record.step, "the certified state is of another step")
        self.check_certificate(before, record.certificate)
        return State(before, empty, empty, roster, before.bans)

    def check_certificate(self, summary: Summary, messages: tuple[Signed, ...]) -> Certificate:
        """The certificate of a state; the attempt that it ended is the one that its slots name."""
        attempt = Certificate.of(messages).end.slot.attempt
        return self.closed(messages, summary.step - 1, attempt, summary.digest)


def require(condition: bool, problem: str) -> None:
    """Raise UnprovenError(problem) unless the condition holds."""
    if not condition:
        raise UnprovenError(problem)
