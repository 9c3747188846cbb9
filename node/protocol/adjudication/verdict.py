"""Judging: who is guilty of what, as a pure function of the transcript, the published bytes and recomputation.

Guilt that leaves the aggregates valid acts at the step's boundary; a false aggregate voids the attempt. A false
accusation is evidence of malice: the accuser is banned.
Source: Gorbunov et al. 2021, section 3.2 and Algorithm 4 (CheckAveraging, ACCUSE); PROTOCOL section 6.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from btard.node.protocol.adjudication.accusations import words
from btard.node.protocol.adjudication.charges import (
    Averaging,
    Charge,
    Equivocation,
    FalseChecksum,
    FalseGradient,
    FalseHistory,
    Guilt,
    OutOfBounds,
)
from btard.node.protocol.adjudication.offences import OFFENCES, gravity
from btard.node.protocol.adjudication.omission import Silent
from btard.node.protocol.attempt.attempt import Attempt, usable
from btard.node.protocol.attempt.verification import V0_FACTOR
from btard.node.protocol.state.undo_window import Contribution
from btard.node.protocol.wire.messages import Removal


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
    wrong = not attempt.tools.rule.accepts(inputs_NP, attempt.aggregates[aggregator], attempt.radii[part])
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
