"""Judges evidence again, offline: from the genesis keys, the run's public numbers and recomputation alone.

The attempt in the evidence is rebuilt from its signed messages: what every honest peer saw, or nothing. Every
signature, slot, prefix, reveal and certificate is checked on the way, and the transcript is replayed through the same
functions that the peers judged with; nothing that a peer asserted is believed unless its signature, a certificate or a
recomputation supports it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import msgspec
import torch
from torch import Tensor

from btard.node.errors import WireError
from btard.node.protocol.adjudication.charges import (
    Broken,
    Charge,
    Equivocation,
    FalseGradient,
    FalseHistory,
    FalseProbation,
    Ruled,
    Unusable,
    Withheld,
    encode_equivocation,
    equivocation,
)
from btard.node.protocol.adjudication.judging import (
    CaseFile,
    Counts,
    gradient_fault,
    judge,
    judged_peers,
    publications,
    raised,
)
from btard.node.protocol.attempt.attempt import Added, Attempt
from btard.node.protocol.attempt.mprng import Share
from btard.node.protocol.attempt.phases import misfit
from btard.node.protocol.attempt.transfers import LackingError, bytes_guilt
from btard.node.protocol.evidence.explanation import testimony
from btard.node.protocol.evidence.format import (
    Evidence,
    Held,
    Record,
    aggregates_needed,
    contradiction,
    decode,
    tensor_of,
)
from btard.node.protocol.roster import Roster
from btard.node.protocol.settings import Settings, Tools
from btard.node.protocol.state.state import Ban, Contribution, State, Summary, parameters_digest
from btard.node.protocol.state_sync.probation import matches, requests
from btard.node.protocol.wire.certificate import Certificate, open_signed, sentence
from btard.node.protocol.wire.encoding import decode_body, digest
from btard.node.protocol.wire.messages import Body, Have, Judge, Phase, Removal, Signed, Void

# --- the attempt again ----------------------------------------------------------------------------------------


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
        returned: (peer, first step) of the peers let back, and of the newcomers admitted, so far; likewise.
        known: the newest state that admitted a newcomer: it names the key of each. None: none has been.
    """

    def __init__(
        self, ground: Ground, proven: list[Ban], returned: list[tuple[int, int]], known: Summary | None = None
    ) -> None:
        self.ground = ground
        self.proven = proven
        self.returned = returned
        self.known = known

    @property
    def roster(self) -> Roster:
        """The founders, with the keys of the newcomers that are known."""
        founding = Roster.genesis(self.ground.keys, self.ground.settings.members)
        return self.known.roster(founding) if self.known is not None else founding

    def roster_at(self, step: int, attempt: int) -> Roster:
        """The active roster of an attempt, by the bans and returns proven so far."""
        return self.roster.at(self.proven, self.returned, step, attempt)

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
            values_P = settings.precision.unpacked(held.values)
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
        return State(before, empty, empty, before.roster(roster, roster.active), before.bans)

    def check_certificate(self, summary: Summary, messages: tuple[Signed, ...]) -> Certificate:
        """The certificate of a state; the attempt that it ended is the one that its slots name."""
        attempt = Certificate.of(messages).end.slot.attempt
        return self.closed(messages, summary.step - 1, attempt, summary.digest)


def require(condition: bool, problem: str) -> None:
    """Raise UnprovenError(problem) unless the condition holds."""
    if not condition:
        raise UnprovenError(problem)


# --- its judging ----------------------------------------------------------------------------------------------


__all__ = ["Ground", "Proof", "Recompute", "UnprovenError", "Verifier"]

_DAMAGE = (WireError, LackingError)
"""What replaying a damaged file may run into. What a file names that is not there is asked for before it is used: any
other exception is a fault of our own, and no reason to call somebody's evidence damaged."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What an evidence file proves: the ban, and by what: `recomputation`, `transcript`, `equivocation`, `majority`.

    `undecided`: a recomputation would prove it, and cannot be done here.
    """

    ban: Ban
    kind: str
    explanation: str = ""
    undecided: bool = False


@dataclass(frozen=True, slots=True)
class Final:
    """A certified state, and what ended the attempt that reached it.

    Args:
        summary: the state.
        step, attempt: of the attempt.
        roster: who was active in it.
        bans: the ban list, with what an OUTCOME added to the state's.
        by_outcome: a majority's OUTCOMEs ended it, which outrank CLOSEs.
    """

    summary: Summary
    step: int
    attempt: int
    roster: tuple[int, ...]
    bans: tuple[Ban, ...]
    by_outcome: bool


class Verifier:
    """Checks a run's bans in order, keeping the roster that follows from those already proven."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self.proven: list[Ban] = []
        self.returned: list[tuple[int, int]] = []
        self.elsewhere: Summary | None = None
        """A certified state of a run that computed in another environment than this machine's."""
        self._replay = Replay(ground, self.proven, self.returned)

    def copy(self) -> Verifier:
        """Another one, which has been shown the same."""
        other = Verifier(self.ground)
        other.settle(self.proven)
        other.returned += self.returned
        other._replay.known = self._replay.known
        return other

    def check(self, data: bytes) -> Proof:
        """Verify one evidence file; bans are given in the order in which they happened.

        Raises:
            UnprovenError: the file does not prove its ban.
        """
        try:
            evidence = decode(data)
            proof = self._check(evidence)
        except _DAMAGE as error:
            raise UnprovenError(f"the evidence is damaged: {error}") from error
        return proof

    def settle(self, bans: Sequence[Ban]) -> None:
        """Count bans as proven: all that became effective together are checked against the roster before them."""
        self.proven += bans

    def readmit(self, data: bytes) -> tuple[tuple[int, int], ...]:
        """Count peers as let back by a certified state, once the bans before it are settled.

        Args:
            data: the state's summary and certificate.

        Returns:
            (peer, first step of which it is in the roster again), of those not known yet.

        Raises:
            UnprovenError: the certificate does not cover it.
        """
        summary, _, _ = _opened(data, lambda _: self._replay)
        known = tuple(self.returned)
        require(summary.returned[: len(known)] == known, "the certified state forgets a peer that was let back")
        fresh = summary.returned[len(known) :]
        require(all(since == summary.step for _, since in fresh), "peers were let back before, without a certificate")
        self.returned += fresh
        self._replay.known = summary
        return fresh

    # --- the parts of a proof ---------------------------------------------------------------------------------

    def _check(self, evidence: Evidence) -> Proof:
        require(evidence.run == self.ground.settings.run, "it belongs to another run")
        wrong = contradiction(evidence)
        require(wrong is None, f"it contradicts itself: {wrong}")
        trial = self._replay.attempt(evidence.trial)
        past = self._replay.attempt(evidence.past) if evidence.past is not None else None
        _check_names(evidence, trial, past)
        self._check_effect(evidence, trial)
        proof = self._judged(evidence, trial, past)
        if proof.explanation:
            return proof
        signers = [decode_body(signed.body).slot.sender for signed in evidence.certificate]
        return replace(proof, explanation=testimony(evidence.ban, evidence.charge, trial, signers))

    def _judged(self, evidence: Evidence, trial: Attempt, past: Attempt | None) -> Proof:
        match evidence.charge:
            case Ruled() | Broken():
                return Proof(evidence.ban, "majority")
            case Equivocation(accused=accused, first=first, second=second):
                return self._check_pair(evidence.ban, accused, encode_equivocation(first, second))
            case Withheld() | Unusable() | FalseProbation():
                pass
            case charge:
                require(raised(charge, trial), "nobody raised this charge, or not for this cause")
        for held in evidence.publications:
            source = _source(held, trial, past)
            values_P = trial.settings.precision.unpacked(held.values)
            fits = source is not None and source.part_matches(held.owner, held.part, values_P)
            require(fits, f"the published part {held.part} of peer {held.owner} is not what it committed to")
            trial.publications[(held.step, held.attempt, held.owner, held.part)] = values_P
        for item in publications((evidence.charge,), trial, past):
            held_here = (item.step, item.attempt, item.owner, item.part) in trial.publications
            require(held_here, f"the published part {item.part} of peer {item.owner} is missing")
        if isinstance(evidence.charge, FalseGradient | FalseHistory):
            return self._check_gradient(evidence, trial, past)
        if isinstance(evidence.charge, FalseProbation):
            return self._check_probation(evidence, trial, past)
        if isinstance(evidence.charge, Withheld | Unusable):
            return self._compare(evidence, bytes_guilt(evidence.charge, trial), "transcript")
        found = judge((evidence.charge,), CaseFile(trial, past, {}))
        return self._compare(evidence, found.removals, "transcript")

    def _check_pair(self, ban: Ban, accused: int, pair: bytes) -> Proof:
        """Two messages that contradict each other, both validly signed by the accused."""
        settings, tools = self.ground.settings, self.ground.tools
        found = equivocation(pair, settings.run, self._replay.roster.keys, tools.verify)
        require(found is not None and found.accused == accused == ban.peer, "the pair of messages proves nothing")
        return Proof(ban, "equivocation")

    def _compare(self, evidence: Evidence, removals: Sequence[Removal], kind: str) -> Proof:
        ban = evidence.ban
        guilty = any((removal.peer, removal.reason) == (ban.peer, ban.reason) for removal in removals)
        require(guilty, f"judged again, peer {ban.peer} is not guilty of {ban.reason!r}")
        return Proof(ban, kind)

    def _check_gradient(self, evidence: Evidence, trial: Attempt, past: Attempt | None) -> Proof:
        charge = evidence.charge
        assert isinstance(charge, FalseGradient | FalseHistory)
        if past is None:
            raise UnprovenError("a gradient charge without the step it concerns")
        parameters_D = tensor_of(evidence.parameters)
        self._check_parameters(evidence, parameters_D)
        require(charge.accused in past.contributors, f"peer {charge.accused} computed no gradient in that step")
        if self.ground.settings.recompute_tolerance > 0:
            return self._check_majority(evidence, trial, past)
        recompute = self.ground.recompute
        if recompute is None or not self._same_environment(evidence):
            return self._undecided(evidence)
        recomputed_D = past.settings.precision.rounded(recompute(parameters_D, past.seed(charge.accused)))
        parts = range(past.split.count)
        committed = all(past.part_matches(charge.accused, part, past.slice(recomputed_D, part)) for part in parts)
        if committed and evidence.ban.reason == "gradient":
            found_here = f"computed again here, the gradient is the one that peer {charge.accused} committed to"
            why = "its judges lied, or computed otherwise than this machine (code or data that change in use)"
            raise UnprovenError(f"{found_here}: {why}")
        # The gradient is the committed one: then its checksums are judged, which takes every aggregate.
        complete = set(past.aggregates) == set(past.roster.active)
        require(not committed or complete, "the aggregates of the step before are missing")
        item = Contribution(past.step, past.number, charge.accused)
        fault = gradient_fault(past, charge.accused, recomputed_D)
        found = judge((charge,), CaseFile(trial, past, {charge.accused: recomputed_D}, faults={item: fault}))
        return self._compare(evidence, found.removals, "recomputation")

    def _check_probation(self, evidence: Evidence, trial: Attempt, past: Attempt | None) -> Proof:
        charge = evidence.charge
        assert isinstance(charge, FalseProbation)
        if past is None:
            raise UnprovenError("a gradient charge without the step it concerns")
        joins = requests(trial).get(charge.accused, ())
        require(joins == (charge.join,), "the REPORTs do not carry this JOIN")
        require(evidence.ban.reason == "probation" and evidence.ban.peer == charge.accused, "it is another's ban")
        parameters_D = tensor_of(evidence.parameters)
        self._check_parameters(evidence, parameters_D)
        recompute = self.ground.recompute
        if recompute is None or not self._same_environment(evidence):
            return self._undecided(evidence)
        recomputed_D = past.settings.precision.rounded(recompute(parameters_D, past.seed(charge.accused)))
        wrong = not matches(charge.join, trial, past.step, recomputed_D)
        require(wrong, f"judged again, peer {charge.accused} is not guilty of 'probation'")
        return Proof(evidence.ban, "recomputation")

    def _undecided(self, evidence: Evidence) -> Proof:
        missing = self.ground.recompute is None
        why = "the public data is not here" if missing else "this machine's environment differs from the run's"
        text = f"signed by the whole roster; recomputation cannot decide here: {why}"
        return Proof(evidence.ban, "majority", text, undecided=True)

    def _same_environment(self, evidence: Evidence) -> bool:
        return self.same_environment(evidence.summary or evidence.trial.before)

    def same_environment(self, summary: Summary | None) -> bool:
        """True if every peer of the run computed in the environment of this machine, as a certified state says."""
        same = summary is not None and self.computed_in(summary, self.ground.settings.fingerprint)
        if not same and summary is not None and summary.fingerprints:
            self.elsewhere = summary
        return same

    def computed_in(self, summary: Summary, fingerprint: bytes) -> bool:
        """True if a certified state says that every peer of the run computed in this environment."""
        return summary.fingerprints == digest("fingerprints", *([fingerprint] * len(self.ground.keys)))

    def _check_majority(self, evidence: Evidence, trial: Attempt, past: Attempt) -> Proof:
        """With mixed environments most of the roster's signed JUDGE bits decide."""
        charge = evidence.charge
        if not isinstance(charge, FalseGradient):
            raise UnprovenError("with mixed environments nothing but a gradient is decided by JUDGE messages")
        roster = trial.roster
        bodies = [self._replay.open(signed, roster, trial.step, trial.number) for signed in evidence.judges]
        judges = {body.slot.sender: body for body in bodies if isinstance(body, Judge)}
        require(set(judges) == set(roster.active), "JUDGE messages are missing")
        seen = trial.transcript.prefix
        require(all(body.prefix[: len(seen)] == seen for body in bodies), "a JUDGE message judges another transcript")
        judged = judged_peers(trial)
        require(charge.accused in judged, f"nobody was to judge peer {charge.accused}")
        require(all(len(body.guilty) == len(judged) for body in judges.values()), "a JUDGE message judges others")
        place = judged.index(charge.accused)
        guilty = 2 * sum(body.guilty[place] for body in judges.values()) > len(roster.active)
        require(guilty == (evidence.ban.reason == "gradient"), "the JUDGE messages do not carry the ban")
        text = f"most of the roster's JUDGE messages find peer {evidence.ban.peer} guilty of {evidence.ban.reason}"
        return Proof(evidence.ban, "majority", text)

    def _check_parameters(self, evidence: Evidence, parameters_D: Tensor) -> None:
        past = evidence.past
        assert past is not None
        found = parameters_digest(parameters_D)
        if past.before is None:
            require(past.step == 0, "a step without a certified state before it")
            if (initial_D := self.ground.initial_D) is not None:
                require(found == parameters_digest(initial_D), "the parameters are not the genesis ones")
        else:
            require(found == past.before.parameters, "the parameters are not those that the certificate covers")

    def _check_effect(self, evidence: Evidence, trial: Attempt) -> None:
        """The CLOSEs that made the ban effective: all of the roster's, equal, after this transcript, and covering
        exactly this ban."""
        ban, settings = evidence.ban, self.ground.settings
        certificate = self._replay.closed(evidence.certificate, ban.step, ban.attempt)
        before, value = replace(trial.state, bans=tuple(self.proven)), certificate.value
        if certificate.by_outcome:
            ruled = before.punished(ban.step, ban.attempt, certificate.removals, reform=False)
            if ban in ruled.bans:
                return
        else:
            seen = trial.transcript.prefix
            require(certificate.end.prefix[: len(seen)] == seen, "the CLOSEs end another transcript")
        if not isinstance(value, bytes):
            require(evidence.summary is None and value is not None, "a void attempt has no state")
            removals = value.removals if isinstance(value, Void) else ()
            after = before.punished(ban.step, ban.attempt, removals, settings.reform)
            require(ban in after.bans, "the CLOSEs do not name this ban")
            return
        summary = evidence.summary
        if summary is None:
            raise UnprovenError("the state that the CLOSEs cover is missing")
        require(summary.digest == value, "the CLOSEs cover another state")
        require(ban in summary.bans, "the certified ban list does not hold this ban")

    def check_final(self, data: bytes, parameters_D: Tensor) -> Final:
        """A certificate covers these parameters, and exactly the bans and returns proven so far.

        Args:
            data: a state's summary and its certificate.
            parameters_D: float32 `[D]`.

        Returns:
            What it certifies; whether that is the end of the run, `check_last` says.

        Raises:
            UnprovenError: it does not.
        """
        summary, _, made = _opened(data, lambda _: self._replay, "final certificate")
        require(parameters_digest(parameters_D) == summary.parameters, "the final parameters are not certified")
        bans = (*summary.bans, *_added_by(made, summary))
        require(list(bans) == self.proven, "the certified ban list differs from the bans proven here")
        require(list(summary.returned) == self.returned, "the certified returns differ from those proven here")
        step, attempt = made.end.slot.step, made.end.slot.attempt
        roster = self._replay.roster_at(step, attempt).active
        return Final(summary, step, attempt, roster, bans, made.by_outcome)

    def take_word(self, data: bytes) -> tuple[tuple[Ban, ...], tuple[tuple[int, int], ...]]:
        """Count bans and returns as proven that a certified state names, and of which the files here have no evidence.

        More of the run's members have signed the state than may be faulty, so an honest one has: what the state says of
        the roster is so, as a light client of a chain has it. That each single ban is just stays unproven here.

        Args:
            data: a state's summary and its certificate.

        Returns:
            The bans and the returns that were not proven before; none, and nothing is counted, where all were.

        Raises:
            UnprovenError: the certificate does not cover the state, too few have signed it, or it lacks what is proven.
        """
        summary, certificate, made = _opened(
            data, lambda stated: Replay(self.ground, list(stated.bans), list(stated.returned), stated)
        )
        known = self._replay.roster
        members = {
            *range(known.founders),
            *(peer for peer, _ in self.returned),
        }  # a state may state newcomers of its own
        signers, faults = {decode_body(each.body).slot.sender for each in certificate} & members, known.genesis_faults
        require(len(signers) > faults, f"only {len(signers)} members signed it, and {faults} may be faulty")
        bans, returned = (*summary.bans, *_added_by(made, summary)), summary.returned
        for proven, stated in ((self.proven, bans), (self.returned, returned)):
            require(set(proven) <= set(stated), "the certified state lacks what is proven here")
        fresh = (
            tuple(ban for ban in bans if ban not in self.proven),
            tuple(back for back in returned if back not in self.returned),
        )
        self.proven[:], self.returned[:] = bans, returned
        self._replay.known = summary
        return fresh

    def check_last(self, final: Final) -> None:
        """The state is the one that the run ends with: every step is committed, and no undo step is due.

        Raises:
            UnprovenError: it is an earlier one.
        """
        steps, summary = self.ground.settings.steps, final.summary
        ended = summary.step > steps and not summary.undo
        require(ended, f"the certificate is of step {final.step}, and the run's last is step {steps}")


def _opened(
    data: bytes, roster_by: Callable[[Summary], Replay], name: str = "certificate"
) -> tuple[Summary, tuple[Signed, ...], Certificate]:
    """A state's summary and its certificate, checked in the roster that `roster_by` follows.

    Raises:
        UnprovenError: they are damaged, or the certificate does not cover the state.
    """
    try:
        summary, certificate = msgspec.msgpack.decode(data, type=tuple[Summary, tuple[Signed, ...]])
        return summary, certificate, roster_by(summary).check_certificate(summary, certificate)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, *_DAMAGE) as error:
        raise UnprovenError(f"the {name} is damaged: {error}") from error


def _check_names(evidence: Evidence, trial: Attempt, past: Attempt | None) -> None:
    """Peers and parts that a file names are there, before anything is looked up by them."""
    require(_judged_after(evidence.charge) in (None, *trial.transcript.finished), "it lacks what the charge rests on")
    require(past is None or Phase.REPORT in past.transcript.finished, "the step before is not complete")
    part = getattr(evidence.charge, "part", 0)
    require(0 <= part < trial.split.count, f"there is no part {part}")
    for owner in (trial.roster.active[part] for part in aggregates_needed(evidence.charge)):
        require(owner in trial.aggregates, f"the aggregate of peer {owner} is missing")
    for held in evidence.publications:
        source = _source(held, trial, past)
        known = source is not None and held.owner in source.contributors and 0 <= held.part < source.split.count
        require(known, f"the published part {held.part} of peer {held.owner} is of no contribution")


def _judged_after(charge: Charge) -> Phase | None:
    """The last phase whose messages a charge is judged by; None: by signatures alone."""
    match charge:
        case Ruled() | Broken() | Equivocation():
            return None
        case Unusable() | Withheld(stage="part"):
            return Phase.HELD
        case Withheld(stage="aggregate"):
            return Phase.REVEAL
        case Withheld():
            return Phase.HAVE
        case _:
            return Phase.REPORT


def _source(held: Held, trial: Attempt, past: Attempt | None) -> Attempt | None:
    """The attempt whose commitments bind a published part."""
    return trial if held.step == trial.step else past


def _added_by(certificate: Certificate, summary: Summary) -> Iterator[Ban]:
    """Bans by a dispute that let a step's value stand: its OUTCOMEs carry them, the value does not."""
    out, slot = {ban.peer for ban in summary.bans if ban.removed}, certificate.end.slot
    for removal in certificate.removals:
        if removal.peer not in out:
            yield Ban(slot.step, slot.attempt, removal.peer, removal.reason, removal.accuser, removed=True)
