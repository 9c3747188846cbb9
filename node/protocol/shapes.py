"""Does a decoded message fit its attempt: the right number of digests, bits and verdicts, each of the right size."""

from __future__ import annotations

from typing import assert_never

from node.protocol.attempt import Attempt
from node.protocol.digest import DIGEST_BYTES
from node.protocol.messages import (
    Agg,
    Body,
    Checksums,
    Close,
    Commit,
    Have,
    Hello,
    Judge,
    Missing,
    Publish,
    Report,
    Reveal,
    Void,
)

MAX_ACCUSATIONS = 8


def misfit(body: Body, attempt: Attempt, publications: int | None, gradient_charges: int | None) -> str | None:
    """What is wrong with a message of this attempt, None if it fits.

    Args:
        publications, gradient_charges: how many the judging has; None while that is not known yet (the message
            is from a peer ahead of us and is checked again when we get there).
    """
    sender = body.slot.sender
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
                owners = set(body.aggregate.owners)
                fits = bool(owners) and body.aggregate.owners == tuple(sorted(owners & set(attempt.contributors)))
                return None if fits else "a complaint must name contributors, each once, in order"
            fits = _digests(body.aggregate) if attempt.contributors else body.aggregate == b""
            return None if fits else "AGG must carry one digest"
        case Reveal():
            aggregates = len(attempt.roster.active) if attempt.contributors else 0
            fits = _digests(body.x, body.salt) and len(body.have) == aggregates
            return None if fits else f"REVEAL must carry {aggregates} HAVE bits"
        case Checksums():
            fits = len(body.s) == len(body.norms) == parts
            return None if fits else f"CHECKSUMS must carry {parts} pairs"
        case Report():
            return _report_misfit(body, attempt)
        case Publish():
            return None
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


def _digests(*values: bytes) -> bool:
    return all(len(value) == DIGEST_BYTES for value in values)


def _report_misfit(body: Report, attempt: Attempt) -> str | None:
    sender = body.slot.sender
    if len(body.checks) != len(attempt.contributors):
        return f"REPORT must carry {len(attempt.contributors)} V1 bits"
    due = tuple(target for validator, target in attempt.pairs if validator == sender)
    if tuple(verdict.target for verdict in body.verdicts) != due:
        return f"REPORT must carry the verdicts on {list(due)}"
    if len(body.accusations) > MAX_ACCUSATIONS:
        return f"REPORT carries {len(body.accusations)} accusations, more than {MAX_ACCUSATIONS}"
    return None
