"""The signed messages of one attempt and the prefix hashes over its finished phases."""

from __future__ import annotations

from enum import Enum
from typing import TypeVar

from node.protocol.digest import digest
from node.protocol.messages import Body, Message, Phase, Signed, body_digest

M = TypeVar("M", bound=Message)


class Added(Enum):
    """What became of a message."""

    NEW = "new"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"


class Transcript:
    """Messages by phase and sender; one per slot, a second different one is kept as proof of equivocation."""

    def __init__(self, active: tuple[int, ...]) -> None:
        self.active = active
        self.prefix: tuple[bytes, ...] = ()
        self.finished: tuple[Phase, ...] = ()
        self.conflicts: dict[tuple[Phase, int], tuple[Signed, Signed]] = {}
        self._bodies: dict[Phase, dict[int, Body]] = {}
        self._signed: dict[Phase, dict[int, Signed]] = {}

    def add(self, body: Body, signed: Signed) -> Added:
        """Keep a message whose signature is valid and whose sender is active."""
        phase, sender = body.slot.phase, body.slot.sender
        held = self._signed.setdefault(phase, {})
        if sender not in held:
            held[sender] = signed
            self._bodies.setdefault(phase, {})[sender] = body
            return Added.NEW
        if held[sender].body == signed.body:
            return Added.DUPLICATE
        self.conflicts.setdefault((phase, sender), (held[sender], signed))
        return Added.CONFLICT

    def of(self, kind: type[M], phase: Phase) -> dict[int, M]:
        """Bodies of a phase by sender, in roster order."""
        held = self._bodies.get(phase, {})
        found = ((peer, held[peer]) for peer in self.active if peer in held)
        return {peer: body for peer, body in found if isinstance(body, kind)}

    def signed(self, phase: Phase) -> dict[int, Signed]:
        """Signed messages of a phase by sender, in roster order."""
        held = self._signed.get(phase, {})
        return {peer: held[peer] for peer in self.active if peer in held}

    def after(self, phase: Phase) -> list[Body]:
        """Messages of later phases that are here already, by phase and sender."""
        later = [
            body for held in self._bodies.values() for body in held.values() if body.slot.phase.value > phase.value
        ]
        return sorted(later, key=lambda body: (body.slot.phase.value, body.slot.sender))

    def missing(self, phase: Phase) -> tuple[int, ...]:
        """Active peers whose message of the phase is not here."""
        held = self._signed.get(phase, {})
        return tuple(peer for peer in self.active if peer not in held)

    def odd_prefixes(self, phase: Phase) -> tuple[int, ...]:
        """Senders of a phase whose prefix differs from ours."""
        held = self._bodies.get(phase, {})
        return tuple(peer for peer in self.active if peer in held and held[peer].prefix != self.prefix)

    def finish(self, phase: Phase) -> None:
        """Append the phase's hash to the prefix; the phase must be complete."""
        bodies = (body_digest(signed.body) for signed in self.signed(phase).values())
        self.prefix = (*self.prefix, digest("phase", phase.name.encode(), *bodies))
        self.finished = (*self.finished, phase)

    @property
    def digest(self) -> bytes:
        """Digest of all finished phases."""
        return digest("transcript", *self.prefix)
