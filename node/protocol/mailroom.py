"""Admits messages: by their slot before their signature costs anything, by their signature before anything else."""

from __future__ import annotations

from enum import Enum

from node.errors import WireError
from node.protocol.messages import Body, Hello, Outcome, Phase, Signed, View, decode_body, signing_bytes
from node.protocol.round import Round
from node.protocol.settings import Settings, Tools

_PHASES_AHEAD = 2 * len(Phase)


class Place(Enum):
    """Where an admitted message belongs."""

    HELLO = "hello"
    CURRENT = "current"
    PREVIOUS = "previous"
    AHEAD = "ahead"


class Mailroom:
    """Sorts what arrives by attempt; what is ahead of us waits, bounded per sender.

    Args:
        settings, tools: see there.
        keys: Ed25519 keys of the genesis roster.
    """

    def __init__(self, settings: Settings, tools: Tools, keys: tuple[bytes, ...]) -> None:
        self._settings, self._tools, self._keys = settings, tools, keys
        self._ahead: dict[tuple[int, int], dict[bytes, Signed]] = {}
        self._counts: dict[int, int] = {}

    def admit(
        self, signed: Signed, current: Round | None, previous: Round | None, step: int
    ) -> tuple[Place, Body] | str:
        """The place and body of a message that counts, or the reason why it is dropped."""
        try:
            body = decode_body(signed.body)
        except WireError:
            return "malformed"
        slot = body.slot
        if slot.run != self._settings.run:
            return "foreign_run"
        if not 0 <= slot.sender < len(self._keys):
            return "unknown_sender"
        place = self._place(body, current, previous, step)
        if isinstance(place, str):
            return place
        for round_ in (current, previous):
            same = round_ is not None and round_.attempt.slot(slot.phase, slot.sender) == slot
            if same and round_ is not None and round_.attempt.transcript.knows(slot.phase, slot.sender, signed.body):
                return "duplicate"
        if not self._tools.verify(self._keys[slot.sender], signing_bytes(signed.body), signed.signature):
            return "bad_signature"
        return place, body

    def _place(self, body: Body, current: Round | None, previous: Round | None, step: int) -> Place | str:
        slot = body.slot
        if isinstance(body, Hello):
            return Place.HELLO
        there = (slot.step, slot.attempt)
        for place, round_ in ((Place.CURRENT, current), (Place.PREVIOUS, previous)):
            if round_ is not None and there == (round_.attempt.step, round_.attempt.number):
                if slot.sender not in round_.attempt.roster.active:
                    return "not_active"
                return place if slot == round_.attempt.slot(slot.phase, slot.sender) else "wrong_slot"
        here = (step, current.attempt.number if current is not None else -1)
        if there in ((here[0], here[1] + 1), (here[0] + 1, 0)):
            return Place.AHEAD if not isinstance(body, (View, Outcome)) else "too_early"
        return "late" if there < here else "too_early"

    def keep(self, body: Body, signed: Signed) -> bool:
        """Hold a message of an attempt we have not reached; false if its sender has too many there."""
        sender = body.slot.sender
        held = self._ahead.setdefault((body.slot.step, body.slot.attempt), {})
        if signed.body in held:
            return True
        if self._counts.get(sender, 0) >= _PHASES_AHEAD + len(self._keys):
            return False
        self._counts[sender] = self._counts.get(sender, 0) + 1
        held[signed.body] = signed
        return True

    def release(self) -> tuple[Signed, ...]:
        """All that waits: to be admitted again, now that an attempt has begun."""
        held = tuple(signed for attempt in self._ahead.values() for signed in attempt.values())
        self._ahead, self._counts = {}, {}
        return held


def hello_agrees(body: Hello, run: bytes, roster: bytes) -> bool:
    """True if a HELLO is of our genesis."""
    return body.genesis == run and body.slot.roster == roster and not body.prefix
