"""What a peer says in each phase (node/protocol/attempt/phases.py) of an attempt, from what it holds."""

from __future__ import annotations

from dataclasses import dataclass

from btard.node.protocol.adjudication.judging import Case, suspicious
from btard.node.protocol.attempt.attempt import Attempt
from btard.node.protocol.attempt.deadlines import measured, waited
from btard.node.protocol.attempt.gradient_requests import Gradients
from btard.node.protocol.attempt.transfers import owed_parts
from btard.node.protocol.wire.messages import (
    Agg,
    Agg2,
    Body,
    Checksums,
    Commit,
    Have,
    Held,
    Judge,
    Missing,
    Phase,
    Publish,
    Report,
    Resend,
    Reveal,
    Verdict,
)


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What a message is made of.

    Args:
        attempt: the attempt under way.
        past: the committed attempt of the step before, None in step 0.
        trial: the judging, from REPORT on.
        gradients: of this step and, recomputed, of the step before, as far as they are there.
        proofs: encoded equivocations of earlier attempts, for our REPORT.
        overdue: the wait for bulk is over.
        joins: encoded JOINs of the step before, for our REPORT.
        again: we were started again in the midst of this attempt.
    """

    attempt: Attempt
    past: Attempt | None
    trial: Case | None
    gradients: Gradients
    proofs: tuple[bytes, ...]
    overdue: bool
    joins: tuple[bytes, ...] = ()
    again: bool = False


def standing(phase: Phase, attempt: Attempt) -> Body | None:
    """After a new start: what we said in a phase, where that needs parts of others and they are not needed any more.

    Whoever sent them may have been banned in this very attempt by somebody who has left it, and owes nobody anything.
    An aggregate that nobody has kept is made again, from parts that are asked for again.
    """
    body = attempt.transcript.body(phase, attempt.me)
    match body:
        case Agg(aggregate=Missing()) | Report():
            return body
        case Agg() | Agg2() if attempt.me in attempt.aggregates:
            return body
        case _:
            return None


def commit(known: Knowledge) -> Commit | None:
    """COMMIT, once our gradient is there."""
    return known.attempt.commit()


def agg(known: Knowledge) -> Agg | None:
    """AGG, once every contributor's part is here; a complaint once the wait for them is over."""
    return known.attempt.agg(known.overdue)


def resend(known: Knowledge) -> Resend:
    """RESEND: the parts that complaints ask of us follow."""
    return Resend(known.attempt.slot(Phase.RESEND), known.attempt.transcript.prefix)


def held(known: Knowledge) -> Held | None:
    """HELD, once every part that a complaint asks for is here, or with the bits of those that did not come in time."""
    attempt = known.attempt
    keys = [(item.step, item.attempt, item.owner, item.part) for item in owed_parts(attempt)]
    have = tuple(key in attempt.publications for key in keys)
    waits = (attempt.awaits_publication(key) for key in keys)
    if not known.overdue and any(waits):
        return None
    return Held(attempt.slot(Phase.HELD), attempt.transcript.prefix, have)


def agg2(known: Knowledge) -> Agg2 | None:
    """AGG2, once the published parts are here."""
    return known.attempt.agg2()


def reveal(known: Knowledge) -> Reveal | None:
    """REVEAL, once every aggregate is here, or with the bits of those that did not come in time."""
    return known.attempt.reveal(known.overdue)


def checksums(known: Knowledge) -> Checksums | None:
    """CHECKSUMS, once every aggregate is here."""
    attempt = known.attempt
    return attempt.checksums() if len(attempt.aggregates) >= len(attempt.aggregators) else None


def report(known: Knowledge) -> Report | None:
    """REPORT, once our targets' gradients are recomputed: our word on every claim about our part, and verdicts."""
    attempt, past, recomputed = known.attempt, known.past, known.gradients.recomputed
    share, faults = attempt.shares.get(attempt.me, ()), known.gradients.rechecks.faults
    if any(target not in recomputed for target in attempt.targets) or any(item not in faults for item in share):
        return None
    if not attempt.parts.keys() >= set(attempt.contributors):
        return None  # we have been started again, from so far back that nobody has them for us any more
    verdicts = tuple(
        Verdict(target, not suspicious(past, target, recomputed[target]))
        for target in attempt.targets
        if past is not None
    )
    slot, prefix = attempt.slot(Phase.REPORT), attempt.transcript.prefix
    holds = tuple(faults[item] is None for item in share)
    late = waited(past, attempt) if past is not None else ()
    return Report(slot, prefix, attempt.checks(), verdicts, (), known.proofs, known.joins, holds, late,
                  measured(attempt))  # fmt: skip


def publish(known: Knowledge) -> Publish | None:
    """PUBLISH: the bytes that judging asks of us follow."""
    return known.trial.publish() if known.trial is not None else None


def have(known: Knowledge) -> Have | None:
    """HAVE, once every publication is here, or with the bits of those that did not come in time."""
    return known.trial.have(known.overdue) if known.trial is not None else None


def judge(known: Knowledge) -> Judge | None:
    """JUDGE, once the accused gradients are recomputed."""
    return known.trial.judge(known.gradients.recomputed) if known.trial is not None else None
