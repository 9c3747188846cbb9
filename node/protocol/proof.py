"""Judges evidence again, offline: from the genesis keys, the run's public numbers and recomputation alone.

The transcript in the evidence is replayed through the same functions that the peers judged with; nothing that a
peer asserted is believed unless its signature, a certificate or a recomputation supports it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
import torch
from torch import Tensor

from node.errors import LocalProtocolError, WireError
from node.protocol.attempt import Attempt, usable
from node.protocol.charges import (
    Broken,
    Equivocation,
    FalseGradient,
    Ruled,
    Unusable,
    Withheld,
    encode_equivocation,
    equivocation,
    judged_peers,
)
from node.protocol.digest import digest
from node.protocol.evidence import Evidence, Record, decode, tensor_of
from node.protocol.messages import (
    Body,
    Close,
    Judge,
    Outcome,
    Phase,
    Removal,
    Signed,
    Void,
    decode_body,
    decode_signed,
    signing_bytes,
)
from node.protocol.randomness import Share
from node.protocol.roster import Roster
from node.protocol.sequence import LackingError, owed_aggregates, owed_parts, scarce, withheld
from node.protocol.settings import Settings, Tools
from node.protocol.shapes import misfit
from node.protocol.state import Ban, State, Summary, genesis_randomness, parameters_digest
from node.protocol.tribunal import Bench, judge
from node.protocol.validators import Draw

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
        initial_D: genesis parameters.
        recompute: gradients on this machine.
    """

    settings: Settings
    tools: Tools
    keys: tuple[bytes, ...]
    initial_D: Tensor
    recompute: Recompute


@dataclass(frozen=True, slots=True)
class Proof:
    """What an evidence file proves: the ban, and by what (`recomputation`, `transcript` or `majority`)."""

    ban: Ban
    kind: str
    explanation: str


class Verifier:
    """Checks a run's bans in order, keeping the roster that follows from those already proven."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self.proven: list[Ban] = []

    def check(self, data: bytes) -> Proof:
        """Verify one evidence file; bans are given in the order in which they happened.

        Raises:
            UnprovenError: the file does not prove its ban.
        """
        try:
            evidence = decode(data)
            proof = self._check(evidence)
        except (WireError, LocalProtocolError, LackingError, KeyError, IndexError, ValueError) as error:
            raise UnprovenError(f"the evidence is damaged: {error}") from error
        return proof

    def settle(self, bans: Sequence[Ban]) -> None:
        """Count bans as proven: all that became effective together are checked against the roster before them."""
        self.proven += bans

    def roster_at(self, step: int, attempt: int) -> Roster:
        """The active roster of an attempt, by the bans proven so far."""
        out = {
            ban.peer
            for ban in self.proven
            if ban.removed and (ban.step < step or (ban.step == step and ban.attempt < attempt))
        }
        return Roster.genesis(self.ground.keys).without(out)

    # --- the parts of a proof ---------------------------------------------------------------------------------

    def _check(self, evidence: Evidence) -> Proof:
        settings, ban = self.ground.settings, evidence.ban
        _require(evidence.run == settings.run, "it belongs to another run")
        _require((ban.step, ban.attempt) == (evidence.trial.step, evidence.trial.attempt), "ban and trial differ")
        self._check_effect(evidence)
        match evidence.charge:
            case Ruled() | Broken():
                return self._proof(ban, "majority")
            case Equivocation(accused=accused, first=first, second=second):
                return self._check_pair(ban, accused, first, second)
        trial = self._replay(evidence.trial)
        past = self._replay(evidence.past) if evidence.past is not None else None
        for held in evidence.publications:
            source = trial if held.step == trial.step else past
            values_P = tensor_of(held.values)
            fits = source is not None and source.part_matches(held.owner, held.part, values_P)
            _require(fits, f"the published part {held.part} of peer {held.owner} is not what it committed to")
            trial.publications[(held.step, held.attempt, held.owner, held.part)] = values_P
        if isinstance(evidence.charge, FalseGradient):
            return self._check_gradient(evidence, trial, past)
        if isinstance(evidence.charge, Withheld | Unusable):
            return self._compare(evidence, self._bytes_guilt(evidence.charge, trial, past), "transcript")
        found = judge((evidence.charge,), Bench(trial, past, {}))
        return self._compare(evidence, found.removals, "transcript")

    def _check_pair(self, ban: Ban, accused: int, first: bytes, second: bytes) -> Proof:
        """Two different messages for one slot, both validly signed by the accused."""
        pair = encode_equivocation(decode_signed(first), decode_signed(second))
        found = equivocation(pair, self.ground.settings.run, self.ground.keys, self.ground.tools.verify)
        _require(found is not None and found.accused == accused == ban.peer, "the pair of messages proves nothing")
        return self._proof(ban, "equivocation")

    def _compare(self, evidence: Evidence, removals: Sequence[Removal], kind: str) -> Proof:
        ban = evidence.ban
        guilty = any((removal.peer, removal.reason) == (ban.peer, ban.reason) for removal in removals)
        _require(guilty, f"judged again, peer {ban.peer} is not guilty of {ban.reason!r}")
        return self._proof(ban, kind)

    @staticmethod
    def _proof(ban: Ban, kind: str) -> Proof:
        return Proof(ban, kind, _SENTENCES[kind].format(peer=ban.peer, reason=ban.reason))

    @staticmethod
    def _bytes_guilt(charge: Withheld | Unusable, trial: Attempt, past: Attempt | None) -> tuple[Removal, ...]:
        """Guilt of bytes that too few held, or that nobody can compute with."""
        if isinstance(charge, Unusable):
            index = (trial.step, trial.number, charge.accused, charge.part)
            owed, found = trial.owes(charge.accused, charge.part), trial.publications.get(index)
            guilty = owed and found is not None and not usable(found)
            return (Removal(charge.accused, "unusable", None),) if guilty else ()
        if charge.stage == "part":
            items = scarce(trial, Phase.HELD, owed_parts(trial))
        elif charge.stage == "aggregate":
            items = scarce(trial, Phase.REVEAL, owed_aggregates(trial))
        else:
            return (Removal(charge.accused, "withheld", None),)
        return tuple(guilt.removal for guilt in withheld(trial, items, charge.stage))

    def _check_gradient(self, evidence: Evidence, trial: Attempt, past: Attempt | None) -> Proof:
        charge = evidence.charge
        assert isinstance(charge, FalseGradient)
        if past is None:
            raise UnprovenError("a gradient charge without the step it concerns")
        parameters_D = tensor_of(evidence.parameters)
        self._check_parameters(evidence, parameters_D)
        if self.ground.settings.recompute_tolerance > 0:
            return self._check_majority(evidence, trial, past)
        if not self._same_environment(evidence):
            text = "recomputation cannot decide here: this machine's environment differs from the run's"
            return Proof(evidence.ban, "majority", f"signed by the whole roster; {text}")
        recomputed_D = self.ground.recompute(parameters_D, past.seed(charge.accused))
        found = judge((charge,), Bench(trial, past, {charge.accused: recomputed_D}))
        return self._compare(evidence, found.removals, "recomputation")

    def _same_environment(self, evidence: Evidence) -> bool:
        summary = evidence.summary or evidence.trial.before
        prints = [self.ground.settings.fingerprint] * len(self.ground.keys)
        return summary is not None and summary.fingerprints == digest("fingerprints", *prints)

    def _check_majority(self, evidence: Evidence, trial: Attempt, past: Attempt) -> Proof:
        """With mixed environments most of the roster's signed JUDGE bits decide."""
        charge = evidence.charge
        assert isinstance(charge, FalseGradient)
        roster = trial.roster
        bodies = (self._open(signed, roster, trial.step, trial.number) for signed in evidence.judges)
        judges = {body.slot.sender: body for body in bodies if isinstance(body, Judge)}
        _require(set(judges) == set(roster.active), "JUDGE messages are missing")
        place = judged_peers(trial).index(charge.accused)
        guilty = 2 * sum(body.guilty[place] for body in judges.values()) > len(roster.active)
        _require(guilty == (evidence.ban.reason == "gradient"), "the JUDGE messages do not carry the ban")
        return self._proof(evidence.ban, "majority")

    def _check_parameters(self, evidence: Evidence, parameters_D: Tensor) -> None:
        past = evidence.past
        assert past is not None
        found = parameters_digest(parameters_D)
        if past.before is None:
            _require(past.step == 0, "a step without a certified state before it")
            _require(found == parameters_digest(self.ground.initial_D), "the parameters are not the genesis ones")
        else:
            _require(found == past.before.parameters, "the parameters are not those that the certificate covers")

    def _check_effect(self, evidence: Evidence) -> None:
        """The CLOSEs that made the ban effective: all of the roster's, equal, and covering this ban."""
        ban = evidence.ban
        roster = self.roster_at(ban.step, ban.attempt)
        value = self._closed(evidence.certificate, roster, ban.step, ban.attempt)
        if isinstance(value, Outcome):
            if _names(value.removals, ban):
                return
            # A dispute that let the CLOSEs' value stand: the ban may be one of those that the value itself holds.
            if value.value is None:
                raise UnprovenError("the OUTCOMEs do not name this ban")
            value = value.value
        if isinstance(value, Void):
            _require(evidence.summary is None, "a void attempt has no state")
            _require(_names(value.removals, ban), "the CLOSEs do not name this ban")
            return
        summary = evidence.summary
        if summary is None:
            raise UnprovenError("the state that the CLOSEs cover is missing")
        _require(summary.digest == value, "the CLOSEs cover another state")
        _require(ban in summary.bans, "the certified ban list does not hold this ban")

    def _closed(self, certificate: Sequence[Signed], roster: Roster, step: int, attempt: int) -> bytes | Void | Outcome:
        """What ended an attempt: the value of n equal CLOSEs, or the OUTCOME that most of the roster signed."""
        bodies = [self._open(signed, roster, step, attempt) for signed in certificate]
        outcomes = {body.slot.sender: body for body in bodies if isinstance(body, Outcome)}
        if outcomes:
            words = {(body.value, body.removals) for body in outcomes.values()}
            _require(len(words) == 1, f"the OUTCOMEs of step {step} differ")
            _require(2 * len(outcomes) > len(roster.active), f"OUTCOMEs of step {step} are no majority")
            return next(iter(outcomes.values()))
        closes = {body.slot.sender: body for body in bodies if isinstance(body, Close)}
        _require(set(closes) == set(roster.active), f"CLOSEs of step {step} are missing")
        values = {body.value for body in closes.values()}
        prefixes = {body.prefix for body in closes.values()}
        _require(len(values) == len(prefixes) == 1, f"the CLOSEs of step {step} differ")
        return values.pop()

    def _open(self, signed: Signed, roster: Roster, step: int, attempt: int) -> Body:
        """A message of an attempt, its signature and its slot checked."""
        body = decode_body(signed.body)
        slot = body.slot
        expected = (self.ground.settings.run, roster.digest, step, attempt)
        _require((slot.run, slot.roster, slot.step, slot.attempt) == expected, "a message is of another slot")
        _require(slot.sender in roster.active, f"peer {slot.sender} was not active then")
        valid = self.ground.tools.verify(roster.keys[slot.sender], signing_bytes(signed.body), signed.signature)
        _require(valid, f"a signature of peer {slot.sender} is not valid")
        return body

    # --- replaying a transcript -------------------------------------------------------------------------------

    def _replay(self, record: Record) -> Attempt:
        """The attempt as every honest peer saw it: complete phases with equal prefixes, r and the aggregates."""
        roster = self.roster_at(record.step, record.attempt)
        _require(roster.active == record.active, "the roster is not the one that follows from the bans before")
        state = self._state_before(record, roster)
        settings, tools = self.ground.settings, self.ground.tools
        attempt = Attempt(settings, tools, state, record.attempt, roster.active[0], Share(b"", b""))
        for signed in record.messages:
            body = self._open(signed, roster, record.step, record.attempt)
            problem = misfit(body, attempt, None, None)
            _require(problem is None, f"a message of peer {body.slot.sender} fits no rule: {problem}")
            attempt.transcript.add(body, signed)
        for phase in Phase:
            if attempt.transcript.signed(phase):
                _require(not attempt.transcript.missing(phase), f"messages of {phase.name} are missing")
                attempt.transcript.finish(phase)
        _require(attempt.transcript.split is None, "prefixes differ")
        if Phase.REVEAL in attempt.transcript.finished:
            attempt.fix_randomness()
        for held in record.aggregates:
            values_P = tensor_of(held.values)
            _require(attempt.aggregate_matches(held.owner, values_P), f"aggregate {held.part} is not the committed one")
            attempt.aggregates[held.owner] = values_P
        return attempt

    def _state_before(self, record: Record, roster: Roster) -> State:
        """What the attempt started from: r and the drawn validators, certified by the CLOSEs of the step before."""
        empty = torch.empty(0)
        if record.before is None:
            _require(record.step == 0, f"the state before step {record.step} is not certified")
            return State(0, empty, empty, genesis_randomness(self.ground.settings.data_seed), roster)
        before: Summary = record.before
        _require(before.step == record.step, "the certified state is of another step")
        self._check_certificate(before, record.certificate)
        draw = Draw(before.validators, before.validator_count)
        return State(record.step, empty, empty, before.r, roster, draw=draw)

    def _check_certificate(self, summary: Summary, certificate: Sequence[Signed]) -> None:
        """n equal CLOSEs over a state; the attempt they closed is the one their slots name."""
        _require(bool(certificate), "a certificate is missing")
        attempt = decode_body(certificate[0].body).slot.attempt
        roster = self.roster_at(summary.step - 1, attempt)
        value = self._closed(certificate, roster, summary.step - 1, attempt)
        if isinstance(value, Outcome):
            _require(value.value == summary.digest, "the OUTCOMEs cover another state")
            return
        _require(value == summary.digest, "the certificate covers another state")

    def check_final(self, data: bytes, parameters_D: Tensor) -> None:
        """The certificate of the last step covers these parameters.

        Raises:
            UnprovenError: it does not.
        """
        try:
            summary, certificate = msgspec.msgpack.decode(data, type=tuple[Summary, tuple[Signed, ...]])
            self._check_certificate(summary, certificate)
        except (msgspec.MsgspecError, UnicodeDecodeError, WireError, LocalProtocolError) as error:
            raise UnprovenError(f"the final certificate is damaged: {error}") from error
        _require(parameters_digest(parameters_D) == summary.parameters, "the final parameters are not certified")
        _require(list(summary.bans) == self.proven, "the certified ban list differs from the bans proven here")


_SENTENCES = {
    "transcript": "replaying the signed transcript finds peer {peer} guilty of {reason}",
    "recomputation": "recomputing from the public seed finds peer {peer} guilty of {reason}",
    "equivocation": "two messages that peer {peer} signed for one slot prove {reason}",
    "majority": "most of the roster signed that peer {peer} is guilty of {reason}",
}


def _names(removals: Sequence[Removal], ban: Ban) -> bool:
    return any((removal.peer, removal.reason) == (ban.peer, ban.reason) for removal in removals)


def _require(condition: bool, problem: str) -> None:
    if not condition:
        raise UnprovenError(problem)
