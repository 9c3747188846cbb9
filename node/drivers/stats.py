"""What a simulated node has sent and computed so far."""

from __future__ import annotations

from dataclasses import dataclass

from btard.node.transport.counters import Counters


@dataclass(slots=True)
class Traffic:
    """Bytes that left a node for others, by kind."""

    control_bytes: int = 0
    bulk_bytes: int = 0
    publication_bytes: int = 0
    messages: int = 0

    @classmethod
    def of(cls, counters: Counters) -> Traffic:
        """The sums over all receivers."""
        return cls(
            control_bytes=counters.sent_bytes_of("control"),
            bulk_bytes=counters.sent_bytes_of("part") + counters.sent_bytes_of("aggregate"),
            publication_bytes=counters.sent_bytes_of("publication"),
            messages=sum(count for (_, kind), count in counters.sent_messages.copy().items() if kind == "control"),
        )


@dataclass(slots=True)
class Gradients:
    """What a node has computed so far: virtual seconds of all its gradients, the CPU seconds they really took (next to
    none where one was remembered), and the loss of its last own one."""

    seconds: float = 0.0
    cpu_s: float = 0.0
    loss: float = float("nan")
