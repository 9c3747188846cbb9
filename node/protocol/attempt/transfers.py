"""Tensors on their way in and out: which are wanted, when their digest proves them, and who may have them again."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from btard.node.protocol.adjudication.case import Case
from btard.node.protocol.adjudication.charges import Publication
from btard.node.protocol.api import RequestBulk
from btard.node.protocol.attempt.attempt import Attempt
from btard.node.protocol.wire.messages import BulkKey, BulkKind


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

    def held(self) -> dict[BulkKey, Tensor]:
        """Tensors from others that the end of this attempt depends on: once its CLOSEs are said, nobody owes them."""
        attempt = self._attempt
        kept = {
            attempt.key(BulkKind.AGGREGATE, owner, attempt.roster.place(owner)): values_P
            for owner, values_P in attempt.aggregates.items()
        }
        for (step, number, owner, part), values_P in attempt.publications.items():
            kept[BulkKey(step, number, BulkKind.PUBLICATION, owner, part)] = values_P
        return kept

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
