"""Does a decoded message fit its attempt: the right number of digests, bits and verdicts, each of the right size.

Each function says what is wrong with a message, None if it fits; `phases.misfit` chooses among them.
"""

from __future__ import annotations

from itertools import pairwise

from btard.node.protocol.adjudication.judging import Counts
from btard.node.protocol.attempt.attempt import Attempt
from btard.node.protocol.attempt.deadlines import measures_fit
from btard.node.protocol.attempt.mprng import Share, opens
from btard.node.protocol.state_sync.probation import joins_fit
from btard.node.protocol.wire.encoding import DIGEST_BYTES
from btard.node.protocol.wire.messages import (
    MAX_PROOFS,
    Agg,
    Agg2,
    Checksums,
    Close,
    Commit,
    Have,
    Held,
    Hello,
    Join,
    Judge,
    Message,
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

MAX_ACCUSATIONS = 8


def commit(body: Commit, attempt: Attempt, counts: Counts) -> str | None:
    """A digest for each part of a contributor's gradient."""
    parts = _parts(body, attempt)
    fits = len(body.parts) == parts and _digests(*body.parts, body.randomness)
    return None if fits else f"COMMIT must carry {parts} part digests"


def agg(body: Agg, attempt: Attempt, counts: Counts) -> str | None:
    """The digest of an aggregate, or a complaint."""
    if isinstance(body.aggregate, Missing):
        return _complaint(body.aggregate, attempt)
    fits = _digests(body.aggregate) if attempt.contributors else body.aggregate == b""
    return None if fits else "AGG must carry one digest"


def bare(body: Resend | Publish, attempt: Attempt, counts: Counts) -> None:
    """RESEND and PUBLISH carry nothing: bytes follow."""


def held(body: Held, attempt: Attempt, counts: Counts) -> str | None:
    """A bit for each part that a complaint asks for."""
    owed = len(attempt.complaints())
    known = not attempt.transcript.missing(Phase.AGG)
    return None if not known or len(body.have) == owed else f"HELD must carry {owed} bits"


def agg2(body: Agg2, attempt: Attempt, counts: Counts) -> str | None:
    """The digest of an aggregate exactly from those that had complained."""
    complained = {aggregator for aggregator, _ in attempt.complaints()}
    known = not attempt.transcript.missing(Phase.AGG)
    fits = not known or (_digests(body.aggregate) if body.slot.sender in complained else body.aggregate == b"")
    return None if fits else "AGG2 must carry a digest exactly after a complaint"


def reveal(body: Reveal, attempt: Attempt, counts: Counts) -> str | None:
    """The value committed to, and a bit for each aggregate."""
    aggregates = len(attempt.roster.active) if attempt.contributors else 0
    if not _digests(body.x, body.salt) or len(body.have) != aggregates:
        return f"REVEAL must carry {aggregates} HAVE bits"
    return _opening(body, attempt)


def checksums(body: Checksums, attempt: Attempt, counts: Counts) -> str | None:
    """A pair for each part of a contributor's gradient."""
    parts = _parts(body, attempt)
    return None if len(body.s) == len(body.norms) == parts else f"CHECKSUMS must carry {parts} pairs"


def have(body: Have, attempt: Attempt, counts: Counts) -> str | None:
    """A bit for each publication."""
    fits = counts.publications in (None, len(body.have))
    return None if fits else f"HAVE must carry {counts.publications} bits"


def judge(body: Judge, attempt: Attempt, counts: Counts) -> str | None:
    """A bit for each accused gradient."""
    return None if counts.charges in (None, len(body.guilty)) else f"JUDGE must carry {counts.charges} bits"


def close(body: Close, attempt: Attempt, counts: Counts) -> str | None:
    """The digest of a state, or a removal."""
    fits = isinstance(body.value, Void) or _digests(body.value)
    return None if fits else "CLOSE must carry a digest"


OUTSIDE: dict[type[Message], str] = {
    Hello: "a HELLO inside an attempt",
    View: "a message of a dispute inside an attempt",
    Outcome: "a message of a dispute inside an attempt",
    Join: "a JOIN of an active peer",
}
"""What is wrong with messages that belong to no phase of an attempt."""


def _parts(body: Message, attempt: Attempt) -> int:
    return attempt.split.count if body.slot.sender in attempt.contributors else 0


def suspect(body: Suspect, attempt: Attempt) -> str | None:
    """It names a phase of the step and another active peer."""
    another = body.peer in attempt.roster.active and body.peer != body.slot.sender
    in_step = Phase.COMMIT.value <= body.named.value <= Phase.CLOSE.value
    fits = another and in_step and not body.prefix
    return None if fits else "a SUSPECT names a phase of the step and another active peer, and carries no prefix"


def _complaint(missing: Missing, attempt: Attempt) -> str | None:
    """A complaint names contributors in roster order, each once (its sender too: a filter may have spoilt its part)."""
    owners = missing.owners
    possible = tuple(peer for peer in attempt.contributors if peer in owners)
    return None if owners and owners == possible else "a complaint must name contributors in roster order"


def _opening(body: Reveal, attempt: Attempt) -> str | None:
    """A revealed value opens its sender's commitment (once that is here)."""
    sender = body.slot.sender
    commit = attempt.transcript.body(Phase.COMMIT, sender)
    if not isinstance(commit, Commit):
        return None
    opened, run = Share(body.x, body.salt), attempt.settings.run
    fits = opens(commit.randomness, run, attempt.step, attempt.number, sender, opened)
    return None if fits else "REVEAL opens another value than the one committed to"


def _digests(*values: bytes) -> bool:
    return set(map(len, values)) <= {DIGEST_BYTES}


def _waits_fit(body: Report, attempt: Attempt) -> bool:
    """True if each wait is named once, in order, and for another active peer."""
    if not body.late:
        return True
    places = [(wait.phase.value, wait.bulk) for wait in body.late]
    known = all(wait.peer in attempt.roster.active and wait.peer != body.slot.sender for wait in body.late)
    within = all(Phase.COMMIT.value <= place <= Phase.CLOSE.value for place, _ in places)
    return known and within and all(one < other for one, other in pairwise(places))


def report(body: Report, attempt: Attempt, counts: Counts) -> str | None:
    """A bit for each contributor, a verdict for each of our targets, and no more of anything than there can be."""
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
