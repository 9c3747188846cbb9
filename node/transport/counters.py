"""What a transport counts: traffic by peer and kind, drops by reason."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TypeAlias

Traffic: TypeAlias = "Counter[tuple[int, str]]"


@dataclass(frozen=True, slots=True)
class Counters:
    """Totals since the start, by (peer, kind): control, greeting, address, probe, part, aggregate or publication.

    Bytes are those handed to ZeroMQ or taken from it: our own frame headers included, CURVE's and TCP's not.
    `dropped` counts by reason: what was refused on arrival, and under `queue_full_*` what a queue did not take;
    `refused` counts the same by (peer, reason) where the peer is known. On emulated links a thread of their own counts
    too: who goes through a table goes through a copy.
    """

    sent_bytes: Traffic = field(default_factory=Counter)
    sent_messages: Traffic = field(default_factory=Counter)
    received_bytes: Traffic = field(default_factory=Counter)
    received_messages: Traffic = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    refused: Traffic = field(default_factory=Counter)

    def sent(self, peer: int, kind: str, size_bytes: int) -> None:
        """Count one message that a queue took."""
        self.sent_bytes[peer, kind] += size_bytes
        self.sent_messages[peer, kind] += 1

    def received(self, peer: int, kind: str, size_bytes: int) -> None:
        """Count one message that was accepted."""
        self.received_bytes[peer, kind] += size_bytes
        self.received_messages[peer, kind] += 1

    def drop(self, reason: str, peer: int | None = None) -> None:
        """Count one message that was refused; `peer` is whom it came from or was for, as far as that is proved."""
        self.dropped[reason] += 1
        if peer is not None:
            self.refused[peer, reason] += 1

    def sent_bytes_of(self, kind: str) -> int:
        """Bytes of one kind to all peers together."""
        return sum(size for (_, of_kind), size in self.sent_bytes.copy().items() if of_kind == kind)
