"""The signed messages of one attempt and the prefix hashes over its finished phases."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

from btard.node.protocol.wire.encoding import body_digest, digest
from btard.node.protocol.wire.messages import Body, Message, Phase, Signed, Suspect

M = TypeVar("M", bound=Message)


class Added(Enum):
    """What became of a message."""

    NEW = "new"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"


@dataclass(frozen=True, slots=True)
class Trigger:
    """Why a dispute starts: messages that prove it to everyone who receives them."""

    cause: str
    messages: tuple[Signed, ...]


class Transcript:
    """Messages by phase and sender; one per slot, a second different one is kept as proof of equivocation."""

    def __init__(self, active: tuple[int, ...]) -> None:
        self.active = active
        self.prefix: tuple[bytes, ...] = ()
        self.finished: tuple[Phase, ...] = ()
        self.conflicts: dict[tuple[Phase, int], tuple[Signed, Signed]] = {}
        self.split: tuple[Signed, Signed] | None = None
        """Two messages whose prefixes differ in a phase that both cover."""
        self.suspects: dict[tuple[Phase, int], dict[int, Signed]] = {}
        """Who suspects the sender of a phase's message, by (phase, sender)."""
        self.spoke: dict[int, Signed] = {}
        """The first message of each peer that has signed one of this attempt: it has ended the attempt before."""
        self._bodies: dict[Phase, dict[int, Body]] = {}
        self._signed: dict[Phase, dict[int, Signed]] = {}
        self._seen_prefix: list[tuple[bytes, Signed]] = []

    def add(self, body: Body, signed: Signed) -> Added:
        """Keep a message whose signature is valid and whose sender is active."""
        if isinstance(body, Suspect):
            return self._add_suspect(body, signed)
        phase, sender = body.slot.phase, body.slot.sender
        self.spoke.setdefault(sender, signed)
        held = self._signed.get(phase)
        if held is None:
            held, self._bodies[phase] = self._signed.setdefault(phase, {}), {}
        if sender not in held:
            held[sender] = signed
            self._bodies[phase][sender] = body
            self._compare_prefix(body, signed)
            return Added.NEW
        if held[sender].body == signed.body:
            return Added.DUPLICATE
        self.conflicts.setdefault((phase, sender), (held[sender], signed))
        return Added.CONFLICT

    def _add_suspect(self, body: Suspect, signed: Signed) -> Added:
        self.spoke.setdefault(body.slot.sender, signed)
        held = self.suspects.setdefault((body.named, body.peer), {})
        if body.slot.sender in held:
            return Added.DUPLICATE
        held[body.slot.sender] = signed
        return Added.NEW

    def _compare_prefix(self, body: Message, signed: Signed) -> None:
        for place, value in enumerate(body.prefix):
            if place == len(self._seen_prefix):
                self._seen_prefix.append((value, signed))
            elif self._seen_prefix[place][0] != value and self.split is None:
                self.split = (self._seen_prefix[place][1], signed)

    def certified(self) -> Transcript:
        """For an attempt that n CLOSEs ended: what their prefix fixes, and they; the same at every peer."""
        copy = Transcript(self.active)
        for phase in (*self.finished, Phase.CLOSE):
            for sender, signed in self.signed(phase).items():
                copy.add(self._bodies[phase][sender], signed)
        return copy

    def of(self, kind: type[M], phase: Phase) -> dict[int, M]:
        """Bodies of a phase by sender, in roster order."""
        held, found = self._bodies.get(phase, {}), dict[int, M]()
        for peer in self.active:
            body = held.get(peer)
            if isinstance(body, kind):
                found[peer] = body
        return found

    def body(self, phase: Phase, sender: int) -> Message | None:
        """One message's body, None if it is not here."""
        return self._bodies.get(phase, {}).get(sender)

    def knows(self, phase: Phase, sender: int, body: bytes) -> bool:
        """True if exactly this message is here: its signature has been checked."""
        held = self._signed.get(phase, {}).get(sender)
        return held is not None and held.body == body

    def signed(self, phase: Phase) -> dict[int, Signed]:
        """Signed messages of a phase by sender, in roster order."""
        held, found = self._signed.get(phase, {}), dict[int, Signed]()
        for peer in self.active:
            if peer in held:
                found[peer] = held[peer]
        return found

    def everything(self) -> Iterator[Signed]:
        """Every signed message held, in slot order, conflicting ones and SUSPECTs included."""
        for phase in sorted(self._signed, key=lambda phase: phase.value):
            for peer, signed in self.signed(phase).items():
                yield signed
                if (phase, peer) in self.conflicts:
                    yield self.conflicts[(phase, peer)][1]
        for named in sorted(self.suspects, key=lambda slot: (slot[0].value, slot[1])):
            yield from (self.suspects[named][peer] for peer in sorted(self.suspects[named]))

    def missing(self, phase: Phase) -> tuple[int, ...]:
        """Active peers whose message of the phase is not here."""
        held = self._signed.get(phase, {})
        return tuple([peer for peer in self.active if peer not in held]) if len(held) < len(self.active) else ()

    def complete(self, phase: Phase) -> bool:
        """True if nobody's message of the phase is missing."""
        return len(self._signed.get(phase, ())) >= len(self.active)

    def count(self, phase: Phase) -> int:
        """How many peers' messages of the phase are here."""
        return len(self._signed.get(phase, ()))

    def silent(self, quorum: int) -> tuple[tuple[Phase, int], ...]:
        """Slots that at least `quorum` peers suspect."""
        found = (slot for slot, by in self.suspects.items() if len(by) >= quorum)
        return tuple(sorted(found, key=lambda slot: (slot[0].value, slot[1])))

    def finish(self, phase: Phase) -> None:
        """Append the phase's hash to the prefix; the phase must be complete."""
        messages = self.signed(phase).values()
        value = digest("phase", phase.name.encode(), *[body_digest(signed.body) for signed in messages])
        self.prefix = (*self.prefix, value)
        self.finished = (*self.finished, phase)
        place = len(self.prefix) - 1
        if place < len(self._seen_prefix) and self._seen_prefix[place][0] != value and self.split is None:
            self.split = (self._seen_prefix[place][1], next(iter(messages)))

    @property
    def digest(self) -> bytes:
        """Digest of all finished phases."""
        return digest("transcript", *self.prefix)
