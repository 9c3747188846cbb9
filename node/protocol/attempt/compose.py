"""What a peer says in each phase of an attempt up to JUDGE, from what it holds."""

from __future__ import annotations

from dataclasses import dataclass

from btard.node.protocol.adjudication.case import Case
from btard.node.protocol.adjudication.verdict import suspicious
from btard.node.protocol.attempt.attempt import Attempt
from btard.node.protocol.attempt.gradient_requests import Gradients
from btard.node.protocol.attempt.lateness import waited
from btard.node.protocol.attempt.measured_bounds import measured
from btard.node.protocol.attempt.phases import owed_parts
from btard.node.protocol.wire.messages import Agg, Agg2, Body, Held, Missing, Phase, Report, Resend, Verdict


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


def message(phase: Phase, known: Knowledge) -> Body | None:
    """This peer's message of a phase, None while something it needs is not here.

    Args:
        phase: COMMIT to JUDGE; CLOSE carries the state, which only the round knows.
        known: what we hold.
    """
    attempt, trial = known.attempt, known.trial
    standing = _standing(phase, attempt) if known.again else None
    if standing is not None:
        return standing
    match phase:
        case Phase.COMMIT:
            return attempt.commit()
        case Phase.AGG:
            return attempt.agg(known.overdue)
        case Phase.RESEND:
            return Resend(attempt.slot(Phase.RESEND), attempt.transcript.prefix)
        case Phase.HELD:
            return _held(known)
        case Phase.AGG2:
            return attempt.agg2()
        case Phase.REVEAL:
            return attempt.reveal(known.overdue)
        case Phase.CHECKSUMS:
            return attempt.checksums() if len(attempt.aggregates) >= len(attempt.aggregators) else None
        case Phase.REPORT:
            return _report(known)
        case Phase.PUBLISH if trial is not None:
            return trial.publish()
        case Phase.HAVE if trial is not None:
            return trial.have(known.overdue)
        case Phase.JUDGE if trial is not None:
            return trial.judge(known.gradients.recomputed)
        case _:
            return None


def _standing(phase: Phase, attempt: Attempt) -> Body | None:
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


def _held(known: Knowledge) -> Held | None:
    attempt = known.attempt
    keys = [(item.step, item.attempt, item.owner, item.part) for item in owed_parts(attempt)]
    have = tuple(key in attempt.publications for key in keys)
    waits = (attempt.awaits_publication(key) for key in keys)
    if not known.overdue and any(waits):
        return None
    return Held(attempt.slot(Phase.HELD), attempt.transcript.prefix, have)


def _report(known: Knowledge) -> Report | None:
    """REPORT, once our targets' gradients are recomputed: our word on every claim about our part, and verdicts."""
    attempt, past, recomputed = known.attempt, known.past, known.gradients.recomputed
    share, faults = attempt.shares.get(attempt.me, ()), known.gradients.rechecks.faults
    if any(target not in recomputed for target in attempt.targets) or any(item not in faults for item in share):
        return None
    if any(owner not in attempt.parts for owner in attempt.contributors):
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
