"""Tensors on their way in: which are wanted, and when their digest proves them."""

from __future__ import annotations

from torch import Tensor

from node.protocol.attempt import Attempt
from node.protocol.events import BulkKey, BulkKind
from node.protocol.trial import Trial


class Cargo:
    """Holds one tensor per key until the digest its owner signed is known.

    A tensor that matches no digest is forgotten and the wait goes on: a spoofer must not be able to make an honest
    peer look faulty.

    Args:
        attempt: the current attempt; parts and aggregates go into it.
        past: the committed attempt before it, whose parts may be published.
    """

    def __init__(self, attempt: Attempt, past: Attempt | None) -> None:
        self._attempt = attempt
        self._past = past
        self._waiting: dict[BulkKey, Tensor] = {}

    def expects(self, via: int | None, key: BulkKey, entries: int) -> bool:
        """True if a tensor of this key and size, from this neighbour, would be kept."""
        own_line = via is None or via == key.owner
        return own_line and key not in self._waiting and self._wanted(key) and entries == self._size(key)

    def take(self, key: BulkKey, values_P: Tensor) -> None:
        """Keep an expected tensor."""
        self._waiting[key] = values_P

    def settle(self, trial: Trial | None) -> list[BulkKey]:
        """Move tensors whose digest is known into the attempt; returns the keys of those that do not match it."""
        refused = []
        for key, values_P in list(self._waiting.items()):
            verdict = self._verdict(key, values_P, trial)
            if verdict is not None:
                del self._waiting[key]
            if verdict is False:
                refused.append(key)
        return refused

    def _verdict(self, key: BulkKey, values_P: Tensor, trial: Trial | None) -> bool | None:
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
                return trial.accept(key, values_P) if trial is not None else None

    def _wanted(self, key: BulkKey) -> bool:
        attempt, past = self._attempt, self._past
        current = (key.step, key.attempt) == (attempt.step, attempt.number)
        active = key.owner in attempt.roster.active
        match key.kind:
            case BulkKind.PART:
                return current and key.owner in attempt.contributors and key.part == attempt.place
            case BulkKind.AGGREGATE:
                return current and active and bool(attempt.contributors) and key.part == attempt.roster.place(key.owner)
            case BulkKind.PUBLICATION:
                earlier = past is not None and (key.step, key.attempt) == (past.step, past.number)
                return active and (current or (earlier and attempt.settings.recompute_tolerance > 0))

    def _size(self, key: BulkKey) -> int | None:
        for attempt in (self._attempt, self._past):
            if attempt is not None and (key.step, key.attempt) == (attempt.step, attempt.number):
                return attempt.split.size(key.part) if 0 <= key.part < attempt.split.count else None
        return None
