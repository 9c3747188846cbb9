"""Does a decoded message fit its attempt: the right number of digests, bits and verdicts, each of the right size."""

from __future__ import annotations

from itertools import pairwise
from typing import assert_never

from btard.node.protocol.attempt.attempt import Attempt
from btard.node.protocol.attempt.measured_bounds import measures_fit
from btard.node.protocol.attempt.mprng import Share, opens
from btard.node.protocol.state_sync.probation import joins_fit
from btard.node.protocol.wire.digest import DIGEST_BYTES
from btard.node.protocol.wire.messages import (
    Agg,
    Agg2,
    Body,
    Checksums,
    Close,
    Commit,
    Have,
    Held,
    Hello,
    Join,
    Judge,
    Missing,
    Outcome,
    Phase,
    Publish,
    Report,
    Resend,
    Reveal,
    Suspect,
    View,
    Void,
)
from btard.node.protocol.wire.size_limits import MAX_PROOFS

MAX_ACCUSATIONS = 8


def misfit(body: Body, attempt: Attempt, publications: int | None, gradient_charges: int | None) -> str | None:
    """What is wrong with a message of this attempt, None if it fits.

    Args:
        publications, gradient_charges: how many the judging has; None while that is not known yet (the message
            is from a peer ahead of us and is checked again when we get there).
    """
    sender = body.slot.sender
    if isinstance(body, Suspect):
        return _suspect_misfit(body, attempt)
    contributes = sender in attempt.contributors
    parts = attempt.split.count if contributes else 0
    match body:
        case Hello():
            return "a HELLO inside an attempt"
        case Commit():
            fits = len(body.parts) == parts and _digests(*body.parts, body.randomness)
            return None if fits else f"COMMIT must carry {parts} part digests"
        case Agg():
            if isinstance(body.aggregate, Missing):
                return _complaint_misfit(body.aggregate, attempt)
            fits = _digests(body.aggregate) if attempt.contributors else body.aggregate == b""
            return None if fits else "AGG must carry one digest"
        case Resend() | Publish():
            return None
        case Held():
            owed = len(attempt.complaints())
            known = not attempt.transcript.missing(Phase.AGG)
            return None if not known or len(body.have) == owed else f"HELD must carry {owed} bits"
        case Agg2():
            complained = {aggregator for aggregator, _ in attempt.complaints()}
            known = not attempt.transcript.missing(Phase.AGG)
            fits = not known or (_digests(body.aggregate) if sender in complained else body.aggregate == b"")
            return None if fits else "AGG2 must carry a digest exactly after a complaint"
        case View() | Outcome():
            return "a message of a dispute inside an attempt"
        case Join():
            return "a JOIN of an active peer"
        case Reveal():
            aggregates = len(attempt.roster.active) if attempt.contributors else 0
            if not _digests(body.x, body.salt) or len(body.have) != aggregates:
                return f"REVEAL must carry {aggregates} HAVE bits"
            return _reveal_misfit(body, attempt)
        case Checksums():
            fits = len(body.s) == len(body.norms) == parts
            return None if fits else f"CHECKSUMS must carry {parts} pairs"
        case Report():
            return _report_misfit(body, attempt)
        case Have():
            return None if publications in (None, len(body.have)) else f"HAVE must carry {publications} bits"
        case Judge():
            fits = gradient_charges in (None, len(body.guilty))
            return None if fits else f"JUDGE must carry {gradient_charges} bits"
        case Close():
            fits = isinstance(body.value, Void) or _digests(body.value)
            return None if fits else "CLOSE must carry a digest"
        case _:
            assert_never(body)


def _suspect_misfit(body: Suspect, attempt: Attempt) -> str | None:
    another = body.peer in attempt.roster.active and body.peer != body.slot.sender
    in_step = Phase.COMMIT.value <= body.named.value <= Phase.CLOSE.value
    fits = another and in_step and not body.prefix
    return None if fits else "a SUSPECT names a phase of the step and another active peer, and carries no prefix"


def _complaint_misfit(missing: Missing, attempt: Attempt) -> str | None:
    """A complaint names contributors in roster order, each once (its sender too: a filter may have spoilt its part)."""
    owners = missing.owners
    possible = tuple(peer for peer in attempt.contributors if peer in owners)
    return None if owners and owners == possible else "a complaint must name contributors in roster order"


def _reveal_misfit(body: Reveal, attempt: Attempt) -> str | None:
    """A revealed value opens its sender's commitment (once that is here)."""
    sender = body.slot.sender
    commit = attempt.transcript.body(Phase.COMMIT, sender)
    if not isinstance(commit, Commit):
        return None
    opened, run = Share(body.x, body.salt), attempt.settings.run
    fits = opens(commit.randomness, run, attempt.step, attempt.number, sender, opened)
    return None if fits else "REVEAL opens another value than the one committed to"


def _digests(*values: bytes) -> bool:
    return all(len(value) == DIGEST_BYTES for value in values)


def _waits_fit(body: Report, attempt: Attempt) -> bool:
    """True if each wait is named once, in order, and for another active peer."""
    places = [(wait.phase.value, wait.bulk) for wait in body.late]
    known = all(wait.peer in attempt.roster.active and wait.peer != body.slot.sender for wait in body.late)
    within = all(Phase.COMMIT.value <= place <= Phase.CLOSE.value for place, _ in places)
    return known and within and all(one < other for one, other in pairwise(places))


def _report_misfit(body: Report, attempt: Attempt) -> str | None:
    sender = body.slot.sender
    if len(body.checks) != len(attempt.contributors):
        return f"REPORT must carry {len(attempt.contributors)} V1 bits"
    due = tuple(target for validator, target in attempt.pairs if validator == sender)
    if tuple(verdict.target for verdict in body.verdicts) != due:
        return f"REPORT must carry the verdicts on {list(due)}"
    if len(body.evidence) > MAX_PROOFS:
        return f"REPORT carries more than {MAX_PROOFS} proofs"
    if not joins_fit(body.joins, attempt):
        return "REPORT carries a join request that nobody can have made, or too many"
    recomputed = len(attempt.shares.get(sender, ()))
    if len(body.holds) != recomputed:
        return f"REPORT must say of {recomputed} contributions whether they hold"
    if not measures_fit(body.measured, attempt):
        return "REPORT must carry two measurements exactly in step 0, and where bounds are measured"
    if not _waits_fit(body, attempt):
        return "REPORT names waits of no phase, or not one by one, or for peers that are not active"
    if len(body.accusations) > MAX_ACCUSATIONS:
        return f"REPORT carries {len(body.accusations)} accusations, more than {MAX_ACCUSATIONS}"
    return None
