"""What a complete transcript accuses whom of, and which bytes judging it needs: pure functions of the transcript."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TypeVar

import numpy as np

from btard.node.protocol.adjudication.charges import (
    Averaging,
    Charge,
    Equivocation,
    FalseChecksum,
    FalseGradient,
    FalseHistory,
    OutOfBounds,
    Publication,
    equivocation,
)
from btard.node.protocol.adjudication.omission import Silent, silence
from btard.node.protocol.attempt.attempt import Attempt
from btard.node.protocol.attempt.mprng import happens
from btard.node.protocol.attempt.verification import plausible, sums_to_zero, too_many_far
from btard.node.protocol.state.undo_window import Contribution
from btard.node.protocol.wire.messages import MAX_PROOFS, AccusationKind, Phase, Report

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
    if not sums_to_zero(s_N, norms_N, aggregate_norm, rule, attempt.clip_radii[part]):
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


def evidence_in(data: bytes, attempt: Attempt) -> Equivocation | Silent | None:
    """The charge that a piece of evidence supports in an attempt: a contradiction anywhere in the run, which never
    expires, or silence in an attempt before this one that ended without a removal. None if it proves nothing."""
    charge = equivocation(data, attempt.settings.run, attempt.roster.keys, attempt.tools.verify)
    if charge is None:
        return silence(data, attempt)
    return charge if charge.accused in attempt.roster.active else None


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
