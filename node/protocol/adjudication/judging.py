"""Judging an attempt: what its transcript accuses whom of, what deciding that waits for, and who is guilty of what.

Pure functions of the transcript, the published bytes and recomputation; a `Case` is the judging of one attempt by one
peer. Guilt that leaves the aggregates valid acts at the step's boundary; a false aggregate voids the attempt. A false
accusation is evidence of malice: the accuser is banned.
Source: Gorbunov et al. 2021, section 3.2 and Algorithm 4 (CheckAveraging, ACCUSE); PROTOCOL section 6.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from btard.node.protocol.adjudication.charges import (
    Averaging,
    Charge,
    Equivocation,
    FalseChecksum,
    FalseGradient,
    FalseHistory,
    Guilt,
    OutOfBounds,
    Publication,
    Silent,
    equivocation,
    silence,
)
from btard.node.protocol.adjudication.offences import OFFENCES, gravity
from btard.node.protocol.attempt.attempt import Attempt, usable
from btard.node.protocol.attempt.mprng import happens
from btard.node.protocol.attempt.verification import V0_FACTOR, plausible, sums_to_zero, too_many_far
from btard.node.protocol.state.state import Contribution
from btard.node.protocol.state_sync import probation
from btard.node.protocol.wire.messages import (
    MAX_PROOFS,
    AccusationKind,
    BulkKey,
    BulkKind,
    Have,
    Judge,
    Phase,
    Publish,
    Removal,
    Report,
)

# --- accusations ----------------------------------------------------------------------------------------------


Kind = TypeVar("Kind", Equivocation, Silent)


def charges(attempt: Attempt) -> tuple[Charge, ...]:
    """All charges of an attempt after REPORT, in an order that does not depend on arrival."""
    bounds = tuple(_out_of_bounds(attempt))
    averaging = tuple(_averaging(attempt, {charge.part for charge in bounds}))
    covered = {charge.part for charge in averaging}
    checksums = tuple(
        charge for charge in _false_checksums(attempt) if charge.part not in covered or not _is_bit(charge, attempt)
    )
    proofs, silences = tuple(_evidence(attempt, Equivocation)), tuple(_evidence(attempt, Silent))
    histories = (FalseHistory(item.owner, item.step, item.attempt) for item in disowned(attempt))
    return (*proofs, *silences, *bounds, *averaging, *dict.fromkeys(checksums), *_false_gradients(attempt), *histories)


def raised(charge: Charge, attempt: Attempt) -> bool:
    """True if the transcript raises this charge, for a third party that holds only the aggregates the charge needs.

    V3 is believed where its limit is not in the configuration: the norm window is no part of the evidence.
    """
    match charge:
        case OutOfBounds():
            return charge in _out_of_bounds(attempt)
        case FalseChecksum():
            return charge in _false_checksums(attempt)
        case FalseGradient():
            return charge in _false_gradients(attempt)
        case FalseHistory(accused=accused, step=step, attempt=number):
            return Contribution(step, number, accused) in disowned(attempt)
        case Silent():
            return charge in _evidence(attempt, Silent)
        case Averaging(part=part, cause="accusation", accuser=int(accuser)):
            return (accuser, attempt.roster.active[part]) in _aggregate_accusations(attempt)
        case Averaging(part=part, cause=cause, accuser=None):
            implausible = any(found.part == part for found in _out_of_bounds(attempt))
            found = "V0" if implausible else _failed_check(attempt, part, _columns(attempt)[part], None)
            windowed = attempt.settings.delta_max is None and not attempt.tools.rule.audited
            return cause == found or (cause == "V3" and found is None and windowed)
        case _:
            return False


def _out_of_bounds(attempt: Attempt) -> Iterator[OutOfBounds]:
    if not attempt.contributors:
        return
    wrong_NP = np.logical_not(plausible(*attempt.claims(), attempt.clip_radii))
    for row, part in np.argwhere(wrong_NP).tolist():
        yield OutOfBounds(attempt.contributors[row], part)


def _averaging(attempt: Attempt, implausible: set[int]) -> Iterator[Averaging]:
    """V2 and V3 have no accuser. A part with an impossible claim is recomputed as well: the claim could have
    been sacrificed to hide an accomplice's false aggregate from V2."""
    if not attempt.contributors:
        return
    accusations = tuple(_aggregate_accusations(attempt))
    scale, columns = attempt.state.norms.scale(), _columns(attempt)
    for part, column in enumerate(columns):
        cause = "V0" if part in implausible else _failed_check(attempt, part, column, scale)
        if cause is not None:
            yield Averaging(part, cause)
        if accusations:  # every accuser answers for itself, also where the part is recomputed anyway
            aggregator = attempt.roster.active[part]
            for accuser in dict.fromkeys(peer for peer, accused in accusations if accused == aggregator):
                yield Averaging(part, "accusation", accuser)


def _columns(attempt: Attempt) -> list[tuple[list[float], list[float]]]:
    """For each part, what the contributors claimed: s and norms."""
    s_NP, norms_NP = attempt.claims()
    return list(zip(s_NP.T.tolist(), norms_NP.T.tolist(), strict=True))


def _failed_check(
    attempt: Attempt, part: int, column: tuple[list[float], list[float]], scale: float | None
) -> str | None:
    s_N, norms_N = column
    aggregate_P = attempt.aggregates[attempt.roster.active[part]]
    aggregate_norm = math.sqrt(attempt.tools.arithmetic.squares(aggregate_P))
    if not math.isfinite(aggregate_norm):
        return "V0"
    rule, settings = attempt.tools.rule, attempt.settings
    if rule.audited:
        return "audit" if happens(attempt.r, "audit", part, settings.audit_share) else None
    radius, entries = attempt.clip_radii[part], attempt.split.size(part) if settings.precision.narrow else 0
    if not sums_to_zero(s_N, norms_N, aggregate_norm, rule, radius, settings.precision, entries):
        return "V2"
    limit = settings.delta_max
    if limit is None and scale is not None:
        limit = scale * math.sqrt(attempt.split.size(part))
    return "V3" if too_many_far(norms_N, limit) else None


def _reports(attempt: Attempt) -> dict[int, Report]:
    return attempt.transcript.of(Report, Phase.REPORT)


def _aggregate_accusations(attempt: Attempt) -> Iterator[tuple[int, int]]:
    """(accuser, accused aggregator) of this attempt; accusations of other steps are dropped without penalty."""
    for peer, report in _reports(attempt).items():
        for accusation in report.accusations:
            current = (accusation.step, accusation.attempt) == (attempt.step, attempt.number)
            known = accusation.accused in attempt.roster.active
            if accusation.kind is AccusationKind.AGGREGATE and current and known:
                yield peer, accusation.accused


def _false_checksums(attempt: Attempt) -> Iterator[FalseChecksum]:
    for peer, report in _reports(attempt).items():
        for contributor, holds in zip(attempt.contributors, report.checks, strict=True):
            if not holds:
                yield FalseChecksum(contributor, attempt.roster.place(peer), peer)
        for accusation in report.accusations:
            current = (accusation.step, accusation.attempt) == (attempt.step, attempt.number)
            in_range = accusation.accused in attempt.contributors and 0 <= accusation.part < attempt.split.count
            if accusation.kind is AccusationKind.CHECKSUM and current and in_range:
                yield FalseChecksum(accusation.accused, accusation.part, peer)


def _is_bit(charge: FalseChecksum, attempt: Attempt) -> bool:
    """True for an aggregator's own V1 bit: where the part is recomputed anyway, that judges the bit too. Everyone
    else that accuses answers for itself."""
    return charge.accuser == attempt.roster.active[charge.part] and not attempt.check_of(charge.accuser, charge.accused)


def _false_gradients(attempt: Attempt) -> Iterator[FalseGradient]:
    """Only the drawn validator may accuse a gradient: its verdict is the accusation."""
    for peer, report in _reports(attempt).items():
        for verdict in report.verdicts:
            if not verdict.correct:
                yield FalseGradient(verdict.target, peer)


def words(attempt: Attempt) -> dict[Contribution, dict[int, bool]]:
    """In an undo step: what each checker says of each contribution in question, true if it holds."""
    said: dict[Contribution, dict[int, bool]] = {item: {} for item in attempt.state.summary.undo}
    for peer, report in _reports(attempt).items():
        for item, holds in zip(attempt.shares.get(peer, ()), report.holds, strict=True):
            said[item][peer] = holds
    return said


def disowned(attempt: Attempt) -> tuple[Contribution, ...]:
    """Contributions that at least one checker calls false."""
    return tuple(item for item, by in words(attempt).items() if not all(by.values()))


def recomputed(attempt: Attempt | None) -> int:
    """How many gradients everyone recomputes to judge an attempt: a function of its REPORTs, 0 until they are here."""
    if attempt is None or Phase.REPORT not in attempt.transcript.finished:
        return 0
    accused = {charge.accused for charge in _false_gradients(attempt)}
    return len(accused) + len(disowned(attempt)) + len(probation.wanted(attempt))


def evidence_in(data: bytes, attempt: Attempt, gone: Sequence[int] = ()) -> Equivocation | Silent | None:
    """The charge that a piece of evidence supports in an attempt: a contradiction anywhere in the run, which never
    expires, or silence in an attempt before this one that ended without a removal. None if it proves nothing.

    Args:
        gone: who may come back and answers for its contradictions then.
    """
    charge = equivocation(data, attempt.settings.run, attempt.roster.keys, attempt.tools.verify)
    if charge is None:
        return silence(data, attempt)
    return charge if charge.accused in (*attempt.roster.active, *gone) else None


def _evidence(attempt: Attempt, kind: type[Kind]) -> Iterator[Kind]:
    """The charges of one kind that REPORTs bring evidence for, one against each peer; what proves nothing is
    ignored."""
    accused: set[int] = set()
    for report in _reports(attempt).values():
        for data in report.evidence[:MAX_PROOFS]:
            charge = evidence_in(data, attempt)
            if isinstance(charge, kind) and charge.accused not in accused:
                accused.add(charge.accused)
                yield charge


def judged_peers(attempt: Attempt) -> tuple[int, ...]:
    """Active peers whose gradient is accused, in the order of the bits of JUDGE."""
    accused = dict.fromkeys(charge.accused for charge in _false_gradients(attempt))
    return tuple(peer for peer in accused if peer in attempt.roster.active)


def publications(found: tuple[Charge, ...], attempt: Attempt, past: Attempt | None) -> tuple[Publication, ...]:
    """What must be published to judge `found`, in the order of the HAVE bits.

    A gradient is only published where environments differ; on one platform its digests decide.
    """
    wanted: set[tuple[int, int, int, int]] = set()
    for charge in found:
        match charge:
            case Averaging(part=part):
                wanted |= {(attempt.step, attempt.number, owner, part) for owner in attempt.contributors}
            case FalseChecksum(accused=accused, part=part):
                wanted.add((attempt.step, attempt.number, accused, part))
            case FalseGradient(accused=accused) if attempt.settings.recompute_tolerance > 0 and past is not None:
                if accused in attempt.roster.active:
                    parts = range(past.split.count)
                    wanted |= {(past.step, past.number, accused, part) for part in parts}
            case _:
                pass
    return tuple(Publication(*item) for item in sorted(wanted))


# --- verdicts -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Judgement:
    """The outcome of an attempt: at most one guilt per peer, in roster order, and whether the attempt is void."""

    guilts: tuple[Guilt, ...] = ()
    void: bool = False

    @property
    def removals(self) -> tuple[Removal, ...]:
        """What CLOSE carries or covers."""
        return tuple(guilt.removal for guilt in self.guilts)

    def joined(self, more: Sequence[Guilt], void: bool, active: Sequence[int]) -> Judgement:
        """This judgement with more guilt, still one per peer and in roster order."""
        known = {guilt.peer: guilt for guilt in (*more, *self.guilts)}
        ordered = tuple(known[peer] for peer in active if peer in known)
        return Judgement(ordered, self.void or void)


@dataclass(frozen=True, slots=True)
class CaseFile:
    """What judging needs beside the transcript.

    Args:
        attempt: the attempt whose charges are judged; its `publications` hold the published bytes.
        past: the committed attempt of the step before.
        recomputed: gradients of the step before by peer, recomputed from their public seeds.
        majority: with mixed environments, the accused peers whom most JUDGE messages find guilty; else None.
        faults: in an undo step, what recomputation found of contributions (None: they hold).
    """

    attempt: Attempt
    past: Attempt | None
    recomputed: Mapping[int, Tensor]
    majority: frozenset[int] | None = None
    faults: Mapping[Contribution, Fault | None] = field(default_factory=dict)


def judge(found: tuple[Charge, ...], case_file: CaseFile) -> Judgement:
    """Decide all charges of an attempt."""
    guilts = [guilt for charge in found for guilt in _decide(charge, case_file)]
    guilts.sort(key=lambda guilt: gravity(guilt.reason))
    first: dict[int, Guilt] = {}
    for guilt in guilts:
        if guilt.peer in case_file.attempt.roster.active and not _already_punished(guilt, case_file):
            first.setdefault(guilt.peer, guilt)
    ordered = tuple(first[peer] for peer in case_file.attempt.roster.active if peer in first)
    return Judgement(ordered, any(OFFENCES[guilt.reason].voids for guilt in guilts))


def _already_punished(guilt: Guilt, case_file: CaseFile) -> bool:
    """A reformed peer is not punished again for what it did before its ban took effect."""
    if case_file.past is None or not isinstance(guilt.charge, FalseGradient) or guilt.reason == "false_accusation":
        return False
    return any(ban.peer == guilt.peer and ban.step >= case_file.past.step for ban in case_file.attempt.state.bans)


def _decide(charge: Charge, case_file: CaseFile) -> Iterator[Guilt]:
    match charge:
        case OutOfBounds(accused=accused):
            yield Guilt(accused, "bounds", None, charge)
        case Averaging():
            yield from _check_averaging(charge, case_file)
        case FalseChecksum():
            yield _check_claim(charge, case_file.attempt)
        case FalseGradient():
            yield from _check_gradient(charge, case_file)
        case FalseHistory():
            yield from _check_history(charge, case_file)
        case Equivocation(accused=accused):
            yield Guilt(accused, "equivocation", None, charge)
        case Silent(accused=accused):
            yield Guilt(accused, "silent", None, charge)
        case _:
            pass


def _published(attempt: Attempt, owner: int, part: int) -> Tensor:
    return attempt.publications[(attempt.step, attempt.number, owner, part)]


def _check_averaging(charge: Averaging, case_file: CaseFile) -> Iterator[Guilt]:
    """Everyone recomputes one part: the aggregate, every claim about it, and the aggregator's word on each."""
    attempt, part = case_file.attempt, charge.part
    aggregator = attempt.roster.active[part]
    inputs = [_published(attempt, owner, part) for owner in attempt.contributors]
    unusable = [owner for owner, values_P in zip(attempt.contributors, inputs, strict=True) if not usable(values_P)]
    if unusable:
        # Nothing can be computed from them, and an honest aggregator would not have aggregated.
        yield from (Guilt(owner, "unusable", None, charge) for owner in unusable)
        yield Guilt(aggregator, "aggregate", charge.accuser, charge)
        return
    inputs_NP = torch.stack(inputs)
    value_P, nearest = attempt.aggregates[aggregator], attempt.settings.precision.nearest
    wrong = not attempt.tools.rule.accepts(inputs_NP, value_P, attempt.radii[part], nearest)
    if wrong:
        yield Guilt(aggregator, "aggregate", charge.accuser, charge)
    guilty_aggregator = wrong
    for row, owner in enumerate(attempt.contributors):
        true_claim = attempt.claim_holds(owner, part, inputs_NP[row])
        passed = attempt.check_of(aggregator, owner)
        if not true_claim:
            yield Guilt(owner, "checksum", None if passed else aggregator, charge)
        if passed != true_claim:
            guilty_aggregator = True
            yield Guilt(aggregator, "false_report" if passed else "false_accusation", None, charge)
    if charge.accuser is not None and not guilty_aggregator:
        yield Guilt(charge.accuser, "false_accusation", None, charge)


def _check_claim(charge: FalseChecksum, attempt: Attempt) -> Guilt:
    values_P = _published(attempt, charge.accused, charge.part)
    if attempt.claim_holds(charge.accused, charge.part, values_P):
        return Guilt(charge.accuser, "false_accusation", None, charge)
    return Guilt(charge.accused, "checksum", charge.accuser, charge)


def _check_gradient(charge: FalseGradient, case_file: CaseFile) -> Iterator[Guilt]:
    past = case_file.past
    if past is None:
        return
    if case_file.majority is not None:
        guilty = charge.accused in case_file.majority
        if charge.accused in case_file.attempt.roster.active:
            yield (
                Guilt(charge.accused, "gradient", charge.accuser, charge)
                if guilty
                else Guilt(charge.accuser, "false_accusation", None, charge)
            )
        return
    fault = gradient_fault(past, charge.accused, case_file.recomputed[charge.accused])
    if fault is None:
        yield Guilt(charge.accuser, "false_accusation", None, charge)
        return
    yield Guilt(charge.accused, fault.reason, charge.accuser, charge)
    for part in fault.parts if fault.reason == "checksum" else ():
        aggregator = past.roster.active[part]
        if aggregator != charge.accused and past.check_of(aggregator, charge.accused):
            yield Guilt(aggregator, "false_report", charge.accuser, charge)


def _check_history(charge: FalseHistory, case_file: CaseFile) -> Iterator[Guilt]:
    """Its owner is out already: what is judged is the word of those who recomputed a contribution."""
    item = Contribution(charge.step, charge.attempt, charge.accused)
    holds = case_file.faults[item] is None
    for peer, said in words(case_file.attempt)[item].items():
        if said != holds:
            yield Guilt(peer, "false_accusation" if holds else "false_report", None, charge)


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a contribution: its gradient, or its checksums of the parts named."""

    reason: str
    parts: tuple[int, ...]


def gradient_fault(past: Attempt, owner: int, recomputed_D: Tensor) -> Fault | None:
    """Compare a contribution of a committed attempt with its recomputation, on one platform bit for bit.

    Args:
        past: the committed attempt.
        owner: the contributor.
        recomputed_D: its gradient from the public seed, float32.

    Returns:
        None if digests and checksums are right.
    """
    parts = range(past.split.count)
    bad = tuple(part for part in parts if not past.part_matches(owner, part, past.slice(recomputed_D, part)))
    if bad:
        return Fault("gradient", bad)
    bad = tuple(part for part in parts if not past.claim_holds(owner, part, past.slice(recomputed_D, part)))
    return Fault("checksum", bad) if bad else None


def suspicious(past: Attempt, owner: int, recomputed_D: Tensor) -> bool:
    """A validator's finding: on one platform any difference; across environments checksums beyond twice the
    stated tolerance (the validator has no bytes of its target, and the committed digests cannot be compared).

    The tolerance is relative to the whole gradient, as the judges' is: a part with hardly any of its norm may differ
    by more than its own size, and a validator that accused for it would be banned.
    """
    tolerance = 2.0 * past.settings.recompute_tolerance
    if tolerance == 0.0:
        return gradient_fault(past, owner, recomputed_D) is not None
    budget = tolerance * float(recomputed_D.double().norm())
    for part in range(past.split.count):
        values_P = past.slice(recomputed_D, part)
        truth, claim = past.true_checksum(values_P, part), past.claim(owner, part)
        radius = past.clip_radii[part]
        shrink = 1.0 if truth.norm <= radius else radius / truth.norm
        if abs(truth.norm - claim.norm) > budget or abs(truth.s - claim.s) > V0_FACTOR * budget * shrink:
            return True
    return False


def far_from(published_D: Tensor, recomputed_D: Tensor, tolerance: float) -> bool:
    """With mixed environments: a judge's own finding on a published gradient, at the stated relative L2 tolerance.

    What is not a number is not near.
    """
    reference = recomputed_D.double()
    return not float((published_D.double() - reference).norm()) <= tolerance * float(reference.norm())


# --- a case ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Counts:
    """How many publications and gradient charges judging has; None while that is not known yet.

    A message from a peer ahead of us is checked again when we get there.
    """

    publications: int | None = None
    charges: int | None = None


class Case:
    """What follows REPORT in an attempt.

    Args:
        attempt: the attempt, complete up to REPORT.
        past: the committed attempt of the step before, None in step 0.
    """

    def __init__(self, attempt: Attempt, past: Attempt | None) -> None:
        self.attempt = attempt
        self.past = past
        self.charges: tuple[Charge, ...] = charges(attempt)
        self.publications: tuple[Publication, ...] = publications(self.charges, attempt, past)
        gradient = [charge for charge in self.charges if isinstance(charge, FalseGradient)]
        self.accused: tuple[int, ...] = tuple(dict.fromkeys(charge.accused for charge in gradient))
        self.returning: tuple[int, ...] = probation.wanted(attempt)
        """Peers on probation whose gradients everyone computes again."""
        self.disowned: tuple[Contribution, ...] = tuple(
            Contribution(charge.step, charge.attempt, charge.accused)
            for charge in self.charges
            if isinstance(charge, FalseHistory)
        )
        self.mixed = attempt.settings.recompute_tolerance > 0
        self.judging: tuple[int, ...] = judged_peers(attempt) if self.mixed else ()
        self._counts = Counts(len(self.publications), len(self.judging))
        self._wanted = {self._index(publication): publication for publication in self.publications}

    @property
    def counts(self) -> Counts:
        """How many bits its HAVE and how many findings its JUDGE carry."""
        return self._counts

    @staticmethod
    def _index(publication: Publication) -> tuple[int, int, int, int]:
        return (publication.step, publication.attempt, publication.owner, publication.part)

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The phases of judging, without those this transcript does not need, and CLOSE."""
        publishing = (Phase.PUBLISH, Phase.HAVE) if self.publications else ()
        return (*publishing, *((Phase.JUDGE,) if self.judging else ()), Phase.CLOSE)

    def phase_after(self, phase: Phase) -> Phase:
        """The phase that follows REPORT or a phase of judging."""
        return next(candidate for candidate in self.phases if candidate.value > phase.value)

    # --- publications -----------------------------------------------------------------------------------------

    def source_of(self, publication: Publication) -> Attempt | None:
        """The attempt whose commitment binds a publication."""
        for attempt in (self.attempt, self.past):
            if attempt is not None and (publication.step, publication.attempt) == (attempt.step, attempt.number):
                return attempt
        return None

    def ours(self) -> tuple[tuple[BulkKey, Tensor], ...]:
        """What this peer has to publish, with the bytes it committed to."""
        result = []
        for item in self.publications:
            source = self.source_of(item)
            if item.owner == self.attempt.me and source is not None and source.own_D is not None:
                key = BulkKey(item.step, item.attempt, BulkKind.PUBLICATION, item.owner, item.part)
                result.append((key, source.slice(source.own_D, item.part)))
        return tuple(result)

    def accept(self, key: BulkKey, values_P: Tensor) -> bool:
        """Keep a published part if it is wanted and is what its owner committed to."""
        publication = self._wanted.get((key.step, key.attempt, key.owner, key.part))
        source = self.source_of(publication) if publication is not None else None
        if source is None or not source.part_matches(key.owner, key.part, values_P):
            return False
        self.attempt.publications[(key.step, key.attempt, key.owner, key.part)] = values_P
        return True

    def missing(self) -> tuple[Publication, ...]:
        """Publications that are not here."""
        return tuple(item for index, item in self._wanted.items() if index not in self.attempt.publications)

    # --- what this peer says ----------------------------------------------------------------------------------

    def publish(self) -> Publish:
        """PUBLISH: our publications follow."""
        return Publish(self.attempt.slot(Phase.PUBLISH), self.attempt.transcript.prefix)

    def have(self, overdue: bool) -> Have | None:
        """HAVE, once every publication is here, or with the bits of those that did not come in time."""
        if not overdue and any(map(self.attempt.awaits_publication, self._wanted)):
            return None
        bits = tuple(self._index(item) in self.attempt.publications for item in self.publications)
        return Have(self.attempt.slot(Phase.HAVE), self.attempt.transcript.prefix, bits)

    def judge(self, recomputed: Mapping[int, Tensor], scarce: tuple[Publication, ...]) -> Judge | None:
        """JUDGE, once the accused gradients are recomputed and what enough peers hold is here: our finding on each."""
        if any(peer not in recomputed for peer in self.judging):
            return None
        if any(item not in scarce for item in self.missing()):
            return None
        guilty = tuple(self._finds_guilty(peer, recomputed[peer]) for peer in self.judging)
        return Judge(self.attempt.slot(Phase.JUDGE), self.attempt.transcript.prefix, guilty)

    def _finds_guilty(self, owner: int, recomputed_D: Tensor) -> bool:
        """A false gradient, or false checksums of a true one: an aggregator in league may have passed them, and the
        validator that noticed has only this way to say so. Who withheld a part goes for that: this bit is not counted.
        """
        past, here = self.past, self.attempt.publications
        assert past is not None
        indices = [(past.step, past.number, owner, part) for part in range(past.split.count)]
        published = [here[index] for index in indices if index in here]
        if len(published) < len(indices):
            return False
        claims_hold = all(past.claim_holds(owner, part, held) for part, held in enumerate(published))
        tolerance = self.attempt.settings.recompute_tolerance
        return not claims_hold or far_from(torch.cat(published), recomputed_D, tolerance)

    def verdict(
        self,
        recomputed: Mapping[int, Tensor],
        scarce: tuple[Publication, ...],
        withheld: tuple[Guilt, ...],
        faults: Mapping[Contribution, Fault | None],
    ) -> Judgement | None:
        """The outcome, once everything it needs is here.

        Args:
            recomputed: gradients of the step before, by peer.
            scarce: publications that too few hold. What they would have decided stays undecided, and an aggregate
                that cannot be checked does not count.
            withheld: their owners' guilt.
            faults: what recomputation found of contributions to earlier steps.
        """
        if any(item not in faults for item in self.disowned):
            return None
        if not self.mixed and any(peer not in recomputed for peer in self.accused):
            return None
        if any(item not in scarce for item in self.missing()):
            return None
        decidable = tuple(charge for charge in self.charges if not self._needs(charge, scarce))
        majority = self._majority() if self.mixed else None
        judgement = judge(decidable, CaseFile(self.attempt, self.past, recomputed, majority, faults))
        unchecked = any(isinstance(charge, Averaging) for charge in self.charges if charge not in decidable)
        return judgement.joined(withheld, unchecked, self.attempt.roster.active)

    def lies(self, faults: Mapping[Contribution, Fault | None]) -> tuple[Contribution, ...]:
        """Contributions in question that are false: nobody judged what all its checkers, one of them honest, pass."""
        return tuple(item for item in self.disowned if faults[item] is not None)

    def _needs(self, charge: Charge, scarce: tuple[Publication, ...]) -> bool:
        """True if judging a charge needs one of the scarce publications."""
        return any(item in scarce for item in publications((charge,), self.attempt, self.past))

    def _majority(self) -> frozenset[int]:
        """The accused whom more than half of the active roster finds guilty."""
        judges = self.attempt.transcript.of(Judge, Phase.JUDGE).values()
        active = len(self.attempt.roster.active)
        return frozenset(
            peer for place, peer in enumerate(self.judging) if 2 * sum(body.guilty[place] for body in judges) > active
        )
