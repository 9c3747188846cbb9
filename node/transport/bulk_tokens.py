"""Who may send us tensors under which token, and ours to others: known to two peers only, made anew by each process."""

from __future__ import annotations

import secrets as system_random
from collections.abc import Iterable
from enum import Enum

from btard.node.transport import framing


class News(Enum):
    """What a token says of the peer that greets with it."""

    KNOWN = "known"
    FIRST = "first"
    CHANGED = "changed"
    """It is another process than the one that greeted before."""
    FOREIGN = "foreign"
    """Another peer uses it."""


class BulkTokens:
    """The tokens of one node.

    Args:
        peers: all others.
    """

    def __init__(self, peers: Iterable[int]) -> None:
        self._to = {peer: system_random.token_bytes(framing.TOKEN_BYTES) for peer in peers}
        self._of: dict[int, bytes] = {}
        self._senders: dict[bytes, int] = {}

    def add(self, peer: int) -> None:
        """A newcomer, with a token of its own."""
        self._to[peer] = system_random.token_bytes(framing.TOKEN_BYTES)

    def forget(self, peer: int) -> None:
        """A peer that is none any more: what is marked with its token is nobody's."""
        self._to.pop(peer, None)
        self._senders.pop(self._of.pop(peer, b""), None)

    @property
    def known(self) -> frozenset[int]:
        """Peers whose token we have."""
        return frozenset(self._of)

    def to(self, peer: int) -> bytes:
        """The token with which our tensors to a peer are marked (empty for ourselves)."""
        return self._to.get(peer, b"")

    def sender(self, token: bytes) -> int | None:
        """Whose token this is, None if nobody's."""
        return self._senders.get(token)

    def learn(self, peer: int, token: bytes) -> News:
        """A peer says which token it uses; a foreign one is not taken."""
        if self._senders.get(token, peer) != peer:
            return News.FOREIGN
        known = self._of.get(peer)
        if known == token:
            return News.KNOWN
        if known is not None:
            del self._senders[known]
        self._of[peer] = token
        self._senders[token] = peer
        return News.FIRST if known is None else News.CHANGED
