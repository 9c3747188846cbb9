"""Who holds which bytes: the items that HELD, REVEAL and HAVE speak of, and what their bits add up to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from btard.node.protocol.adjudication.charges import Guilt, Publication, Unusable, Withheld
from btard.node.protocol.attempt.attempt import Attempt, usable
from btard.node.protocol.wire.messages import BulkKind, Have, Held, Message, Phase, Removal, Reveal


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
        [Publication(attempt.step, attempt.number, owner, place) for place, owner in enumerate(attempt.aggregators)]
    )


def bits(attempt: Attempt, phase: Phase) -> list[tuple[int, tuple[bool, ...]]]:
    """(peer, what it says in HELD, REVEAL or HAVE of each item), in roster order."""
    found, active = [], attempt.roster.active
    for peer, body in attempt.transcript.of(Message, phase).items():
        if isinstance(body, (Held, Reveal, Have)) and peer in active:
            found.append((peer, body.have))
    return found


def claimers(attempt: Attempt, phase: Phase, place: int) -> tuple[int, ...]:
    """Who says that it holds the item at `place`."""
    return tuple([peer for peer, have in bits(attempt, phase) if have[place]])


def denials(attempt: Attempt, phase: Phase, owed: Sequence[Publication]) -> Iterator[tuple[int, Publication]]:
    """(who says that it lacks an item, the item)."""
    for peer, have in bits(attempt, phase):
        if not all(have):
            yield from ((peer, item) for item, held in zip(owed, have, strict=True) if not held)


def scarce(attempt: Attempt, phase: Phase, owed: tuple[Publication, ...]) -> tuple[Publication, ...]:
    """Items that fewer than f + 1 peers say they hold in HELD, REVEAL or HAVE: perhaps no honest one does."""
    held = [have for _, have in bits(attempt, phase)]
    quorum = attempt.roster.faults + 1
    if len(held) >= quorum and all(map(all, held)):  # as in almost every step
        return ()
    return tuple(item for place, item in enumerate(owed) if sum([have[place] for have in held]) < quorum)


def lacking(
    attempt: Attempt, phase: Phase, kind: BulkKind, owed: tuple[Publication, ...]
) -> Iterator[tuple[BulkKind, Publication, tuple[int, ...]]]:
    """(kind, item, who says it holds it) of what we lack and enough peers say they hold."""
    few = scarce(attempt, phase, owed)
    for place, item in enumerate(owed):
        index = (item.step, item.attempt, item.owner, item.part)
        held = item.owner in attempt.aggregates if kind is BulkKind.AGGREGATE else index in attempt.publications
        if not held and item not in few:
            yield kind, item, claimers(attempt, phase, place)


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
