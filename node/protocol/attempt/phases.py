"""The order of an attempt's phases: a pure function of its transcript, the same for a peer and for a judge.

    COMMIT -> AGG -> [RESEND -> HELD -> AGG2] -> REVEAL -> CHECKSUMS -> REPORT -> [PUBLISH -> HAVE] -> [JUDGE] -> CLOSE

What voids an attempt goes straight to CLOSE: bytes that fewer than f + 1 peers hold, or that nobody can compute with.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from btard.node.protocol.adjudication.case import Case
from btard.node.protocol.adjudication.charges import Publication, Unusable, Withheld
from btard.node.protocol.adjudication.verdict import Guilt, Judgement
from btard.node.protocol.attempt.attempt import Attempt, usable
from btard.node.protocol.wire.messages import Have, Held, Phase, Removal, Reveal

_PLAIN = {
    Phase.COMMIT: Phase.AGG,
    Phase.RESEND: Phase.HELD,
    Phase.AGG2: Phase.REVEAL,
    Phase.CHECKSUMS: Phase.REPORT,
}


class LackingError(Exception):
    """What follows depends on bytes that are not here yet: they have to be pulled."""


def owed_parts(attempt: Attempt) -> tuple[Publication, ...]:
    """The parts that a complaint asks for, in the order of the bits of HELD."""
    return tuple(
        Publication(attempt.step, attempt.number, owner, attempt.roster.place(aggregator))
        for aggregator, owner in attempt.complaints()
    )


def owed_aggregates(attempt: Attempt) -> tuple[Publication, ...]:
    """All aggregates, in the order of the bits of REVEAL."""
    return tuple(
        Publication(attempt.step, attempt.number, owner, attempt.roster.place(owner)) for owner in attempt.aggregators
    )


def claimers(attempt: Attempt, phase: Phase, place: int) -> tuple[int, ...]:
    """Who says in HELD, REVEAL or HAVE that it holds the item at `place`."""
    bodies = ((peer, attempt.transcript.body(phase, peer)) for peer in attempt.roster.active)
    return tuple(peer for peer, body in bodies if isinstance(body, (Held, Reveal, Have)) and body.have[place])


def denials(attempt: Attempt, phase: Phase, owed: Sequence[Publication]) -> Iterator[tuple[int, Publication]]:
    """(who says in HELD, REVEAL or HAVE that it lacks an item, the item)."""
    for peer in attempt.roster.active:
        body = attempt.transcript.body(phase, peer)
        if isinstance(body, (Held, Reveal, Have)) and not all(body.have):
            yield from ((peer, item) for item, held in zip(owed, body.have, strict=True) if not held)


def scarce(attempt: Attempt, phase: Phase, owed: tuple[Publication, ...]) -> tuple[Publication, ...]:
    """Items that fewer than f + 1 peers say they hold in HELD, REVEAL or HAVE: perhaps no honest one does."""
    quorum = attempt.roster.faults + 1
    return tuple(item for place, item in enumerate(owed) if len(claimers(attempt, phase, place)) < quorum)


def withheld(attempt: Attempt, items: tuple[Publication, ...], stage: str) -> tuple[Guilt, ...]:
    """The owners of scarce items."""
    guilts: dict[int, Guilt] = {}
    for item in items:
        charge = Withheld(item.owner, stage, item.step, item.part)
        guilts.setdefault(item.owner, Guilt(item.owner, "withheld", None, charge))
    return tuple(guilts[peer] for peer in attempt.roster.active if peer in guilts)


def unusable_parts(attempt: Attempt) -> tuple[Guilt, ...]:
    """Contributors that committed to non-finite or enormous entries: the published bytes prove it.

    Raises:
        LackingError: a published part has not been pulled yet.
    """
    guilts: dict[int, Guilt] = {}
    for item in owed_parts(attempt):
        values_P = attempt.publications.get((item.step, item.attempt, item.owner, item.part))
        if values_P is None:
            raise LackingError
        if not usable(values_P):
            guilts.setdefault(item.owner, Guilt(item.owner, "unusable", None, Unusable(item.owner, item.part)))
    return tuple(guilts[peer] for peer in attempt.roster.active if peer in guilts)


def following(attempt: Attempt, phase: Phase, trial: Case | None) -> tuple[Phase, Judgement | None]:
    """The phase after a finished one, and the judgement if the attempt is void already.

    Raises:
        LackingError: that depends on published bytes which are not here yet.
    """
    match phase:
        case Phase.AGG:
            return (Phase.RESEND if attempt.complaints() else Phase.REVEAL), None
        case Phase.HELD:
            lacking = scarce(attempt, phase, owed_parts(attempt))
            guilts = withheld(attempt, lacking, "part") or unusable_parts(attempt)
            return (Phase.CLOSE, Judgement(guilts, void=True)) if guilts else (Phase.AGG2, None)
        case Phase.REVEAL:
            guilts = withheld(attempt, scarce(attempt, phase, owed_aggregates(attempt)), "aggregate")
            return (Phase.CLOSE, Judgement(guilts, void=True)) if guilts else (Phase.CHECKSUMS, None)
        case Phase.REPORT | Phase.PUBLISH | Phase.HAVE | Phase.JUDGE if trial is not None:
            return trial.phase_after(phase), None
        case _:
            return _PLAIN[phase], None


def bytes_guilt(charge: Withheld | Unusable, trial: Attempt) -> tuple[Removal, ...]:
    """For a third party: guilt of bytes that too few held, or that nobody can compute with."""
    if isinstance(charge, Unusable):
        index = (trial.step, trial.number, charge.accused, charge.part)
        owed, found = trial.owes(charge.accused, charge.part), trial.publications.get(index)
        guilty = owed and found is not None and not usable(found)
        return (Removal(charge.accused, "unusable", None),) if guilty else ()
    match charge.stage:
        case "part":
            items = scarce(trial, Phase.HELD, owed_parts(trial))
        case "aggregate":
            items = scarce(trial, Phase.REVEAL, owed_aggregates(trial))
        case _:
            # Which bit is whose follows from all charges, and those from norms that are no part of the evidence.
            quorum, bits = trial.roster.faults + 1, trial.transcript.of(Have, Phase.HAVE).values()
            columns = zip(*(body.have for body in bits), strict=True)
            some = any(sum(column) < quorum for column in columns)
            return (Removal(charge.accused, "withheld", None),) if some else ()
    return tuple(guilt.removal for guilt in withheld(trial, items, charge.stage))
