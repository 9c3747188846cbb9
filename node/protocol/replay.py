"""Rebuilds attempts from the signed messages that evidence holds: what every honest peer saw, or nothing.

Every signature, slot, prefix, reveal and certificate is checked on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from node.protocol.attempt import Attempt
from node.protocol.encoding import decode_body, signing_bytes
from node.protocol.evidence import Record, tensor_of
from node.protocol.messages import Body, Close, Outcome, Phase, Signed
from node.protocol.randomness import Share
from node.protocol.roster import Roster
from node.protocol.settings import Settings, Tools
from node.protocol.shapes import misfit
from node.protocol.state import Ban, State, Summary, genesis_randomness
from node.protocol.transcript import Added
from node.protocol.validators import Draw
from node.protocol.window import Window

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

    def closed(self, certificate: Sequence[Signed], roster: Roster, step: int, attempt: int) -> Close | Outcome:
        """What ended an attempt: one of n CLOSEs that are equal in value and prefix, or one of the equal OUTCOMEs that
        more than half of the roster signed."""
        bodies = [self.open(signed, roster, step, attempt) for signed in certificate]
        outcomes = {body.slot.sender: body for body in bodies if isinstance(body, Outcome)}
        if outcomes:
            words = {(body.value, body.removals) for body in outcomes.values()}
            require(len(outcomes) == len(bodies) and len(words) == 1, f"the OUTCOMEs of step {step} differ")
            require(2 * len(outcomes) > len(roster.active), f"the OUTCOMEs of step {step} are no majority")
            return next(iter(outcomes.values()))
        closes = {body.slot.sender: body for body in bodies if isinstance(body, Close)}
        require(set(closes) == set(roster.active), f"CLOSEs of step {step} are missing")
        said = {(body.value, body.prefix) for body in closes.values()}
        require(len(said) == 1, f"the CLOSEs of step {step} differ")
        return closes[roster.active[0]]

    def open(self, signed: Signed, roster: Roster, step: int, attempt: int) -> Body:
        """A message of an attempt, its signature and its slot checked."""
        body = decode_body(signed.body)
        slot = body.slot
        expected = (self.ground.settings.run, roster.digest, step, attempt)
        require(slot.where == expected, "a message is of another slot")
        require(slot.sender in roster.active, f"peer {slot.sender} was not active then")
        valid = self.ground.tools.verify(roster.keys[slot.sender], signing_bytes(body, signed.body), signed.signature)
        require(valid, f"a signature of peer {slot.sender} is not valid")
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
        for signed in record.messages:
            body = self.open(signed, roster, record.step, record.attempt)
            problem = misfit(body, attempt, None, None)
            require(problem is None, f"a message of peer {body.slot.sender} fits no rule: {problem}")
            require(attempt.transcript.add(body, signed) is Added.NEW, "a slot has two messages")
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
            return State(0, empty, empty, genesis_randomness(self.ground.settings.data_seed), roster)
        before: Summary = record.before
        require(before.step == record.step, "the certified state is of another step")
        self.check_certificate(before, record.certificate)
        draw = Draw(before.validators, before.validator_count)
        window = Window(due=before.undo, checkers=before.undo_checkers)
        return State(record.step, empty, empty, before.r, roster, before.bans, draw=draw, probation=before.probation,
                     returned=before.returned, window=window, bounds=before.bounds, summary=before)  # fmt: skip

    def check_certificate(self, summary: Summary, certificate: Sequence[Signed]) -> Close | Outcome:
        """n equal CLOSEs (or a majority's OUTCOMEs) over a state, and one of them; the attempt they ended is the one
        their slots name."""
        require(bool(certificate), "a certificate is missing")
        attempt = decode_body(certificate[0].body).slot.attempt
        roster = self.roster_at(summary.step - 1, attempt)
        close = self.closed(certificate, roster, summary.step - 1, attempt)
        require(close.value == summary.digest, "the certificate covers another state")
        return close


def require(condition: bool, problem: str) -> None:
    """Raise UnprovenError(problem) unless the condition holds."""
    if not condition:
        raise UnprovenError(problem)
