"""Tensors on their way: which are wanted, when a digest proves them, who says that it has which, who gets them again.

HELD, REVEAL and HAVE carry a bit for each item; what too few say they hold is withheld.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from torch import Tensor

from btard.node.protocol.adjudication.charges import Guilt, Publication, Unusable, Withheld
from btard.node.protocol.adjudication.judging import Case
from btard.node.protocol.api import RequestBulk
from btard.node.protocol.attempt.attempt import Attempt, usable
from btard.node.protocol.wire.messages import BulkKey, BulkKind, Have, Held, Message, Phase, Removal, Reveal


class Transfers:
    """Holds one tensor per key until the digest its owner signed is known.

    A tensor that matches no digest is forgotten. From anybody but its owner that changes nothing (a spoofer must not be
    able to make an honest peer look faulty); over its owner's own line it ends the wait for the owner.

    Args:
        attempt: the current attempt; parts, aggregates and publications go into it.
        past: the committed attempt before it, whose parts may be published.
    """

    def __init__(self, attempt: Attempt, past: Attempt | None) -> None:
        self._attempt = attempt
        self._past = past
        self._waiting: dict[tuple[BulkKey, int | None], Tensor] = {}
        self._pulled: dict[BulkKey, frozenset[int]] = {}
        self._served: set[tuple[int, BulkKey]] = set()

    # --- in ---------------------------------------------------------------------------------------------------

    def expects(self, via: int | None, key: BulkKey, entries: int) -> bool:
        """True if a tensor of this key and size, from this neighbour, would be kept: from its owner's own line, or
        from a peer that we asked for it."""
        known_line = via is None or via == key.owner or via in self._pulled.get(key, ())
        return known_line and (key, via) not in self._waiting and self._wanted(key) and entries == self._size(key)

    def take(self, via: int | None, key: BulkKey, values_P: Tensor) -> None:
        """Keep an expected tensor."""
        self._waiting[(key, via)] = values_P

    def settle(self, trial: Case | None) -> list[tuple[int | None, BulkKey]]:
        """Move tensors whose digest is known into the attempt; returns those that do not match it, by their sender."""
        refused = []
        for (key, via), values_P in list(self._waiting.items()):
            verdict = self._verdict(key, values_P, trial)
            if verdict is not None:
                del self._waiting[(key, via)]
            if verdict is False:
                refused.append((via, key))
        return refused

    def pull(self, kind: BulkKind, item: Publication, holders: tuple[int, ...]) -> list[RequestBulk]:
        """Ask everyone who says it holds an item, at once; one of f + 1 is honest."""
        key = BulkKey(item.step, item.attempt, kind, item.owner, item.part)
        if key in self._pulled:
            return []
        self._pulled[key] = frozenset(holders)
        return [RequestBulk(peer, key) for peer in holders if peer != self._attempt.me]

    def _verdict(self, key: BulkKey, values_P: Tensor, trial: Case | None) -> bool | None:
        """True: kept; False: not what was committed to; None: not decidable yet."""
        attempt = self._attempt
        match key.kind:
            case BulkKind.PART:
                if attempt.committed_part(key.owner, key.part) is None:
                    return None
                if not attempt.part_matches(key.owner, key.part, values_P):
                    return False
                attempt.parts.setdefault(key.owner, values_P)
                return True
            case BulkKind.AGGREGATE:
                if attempt.committed_aggregate(key.owner) is None:
                    return None
                if not attempt.aggregate_matches(key.owner, values_P):
                    return False
                attempt.aggregates.setdefault(key.owner, values_P)
                return True
            case BulkKind.PUBLICATION:
                return self._publication(key, values_P, trial)
            case BulkKind.STATE:
                return False

    def _publication(self, key: BulkKey, values_P: Tensor, trial: Case | None) -> bool | None:
        attempt = self._attempt
        if attempt.owes(key.owner, key.part) and (key.step, key.attempt) == (attempt.step, attempt.number):
            if not attempt.part_matches(key.owner, key.part, values_P):
                return False
            attempt.publications.setdefault((key.step, key.attempt, key.owner, key.part), values_P)
            return True
        return trial.accept(key, values_P) if trial is not None else None

    def _wanted(self, key: BulkKey) -> bool:
        attempt, past = self._attempt, self._past
        current = (key.step, key.attempt) == (attempt.step, attempt.number)
        active = key.owner in attempt.roster.active
        match key.kind:
            case BulkKind.PART:
                wanted = current and key.owner in attempt.contributors and key.part == attempt.place
                return wanted and key.owner not in attempt.parts
            case BulkKind.AGGREGATE:
                wanted = current and active and bool(attempt.contributors)
                return wanted and key.part == attempt.roster.place(key.owner) and key.owner not in attempt.aggregates
            case BulkKind.PUBLICATION:
                if (key.step, key.attempt, key.owner, key.part) in attempt.publications:
                    return False
                earlier = past is not None and (key.step, key.attempt) == (past.step, past.number)
                return active and (current or (earlier and attempt.settings.recompute_tolerance > 0))
            case BulkKind.STATE:
                return False

    def _size(self, key: BulkKey) -> int | None:
        attempt = self._named(key)
        return attempt.split.size(key.part) if attempt is not None and 0 <= key.part < attempt.split.count else None

    # --- out --------------------------------------------------------------------------------------------------

    def find(self, key: BulkKey) -> Tensor | None:
        """A tensor that others may ask for, if we hold it."""
        attempt = self._named(key)
        match key.kind:
            case BulkKind.PUBLICATION:
                index = (key.step, key.attempt, key.owner, key.part)
                held = (known.publications.get(index) for known in (self._attempt, self._past) if known is not None)
                return next((values_P for values_P in held if values_P is not None), None)
            case BulkKind.AGGREGATE if attempt is not None:
                return attempt.aggregates.get(key.owner)
            case BulkKind.PART if attempt is not None and attempt.own_D is not None and key.owner == attempt.me:
                # Its aggregator may have been started again and have lost it.
                return attempt.slice(attempt.own_D, key.part) if 0 <= key.part < attempt.split.count else None
            case _:
                return None

    def lost(self, kind: BulkKind, owners: Iterable[int]) -> list[RequestBulk]:
        """After a new start in the midst of the attempt: ask owners for the tensors they sent before."""
        attempt = self._attempt
        held = attempt.parts if kind is BulkKind.PART else attempt.aggregates
        place = attempt.roster.place
        return [
            RequestBulk(owner, attempt.key(kind, owner, attempt.place if kind is BulkKind.PART else place(owner)))
            for owner in owners
            if owner != attempt.me and owner not in held
        ]

    def held(self) -> tuple[dict[BulkKey, Tensor], dict[BulkKey, bytes]]:
        """Tensors from others that the end of this attempt depends on, and the signed digests of the aggregates among
        them: once its CLOSEs are said, nobody owes them."""
        attempt = self._attempt
        kept, signed = dict[BulkKey, Tensor](), dict[BulkKey, bytes]()
        for owner, values_P in attempt.aggregates.items():
            key = attempt.key(BulkKind.AGGREGATE, owner, attempt.roster.place(owner))
            kept[key], digest = values_P, attempt.committed_aggregate(owner)
            if digest is not None:
                signed[key] = digest
        for (step, number, owner, part), values_P in attempt.publications.items():
            kept[BulkKey(step, number, BulkKind.PUBLICATION, owner, part)] = values_P
        return kept, signed

    def _named(self, key: BulkKey) -> Attempt | None:
        for attempt in (self._attempt, self._past):
            if attempt is not None and (key.step, key.attempt) == (attempt.step, attempt.number):
                return attempt
        return None

    def serve(self, via: int, key: BulkKey) -> Tensor | None:
        """What an active neighbour asks for, if we hold it; each may ask once for each, until it is started again."""
        if via not in self._attempt.roster.active or (via, key) in self._served:
            return None
        values_P = self.find(key)
        if values_P is not None:
            self._served.add((via, key))
        return values_P

    def serve_again(self, via: int) -> None:
        """A neighbour was started again: it has lost what it asked for before."""
        self._served = {(peer, key) for peer, key in self._served if peer != via}


# --- who holds which bytes ------------------------------------------------------------------------------------


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
    """The owners of scarce items; nobody where they are more than f, who cannot all be faulty: the network was cut."""
    guilts: dict[int, Guilt] = {}
    for item in items:
        charge = Withheld(item.owner, stage, item.step, item.part)
        guilts.setdefault(item.owner, Guilt(item.owner, "withheld", None, charge))
    if len(guilts) > attempt.roster.faults:
        return ()
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
