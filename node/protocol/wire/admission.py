"""Admits messages: `open_signed`, with the attempts that this peer knows in the place of one."""

from __future__ import annotations

from collections import Counter
from enum import Enum

from btard.node.protocol.attempt.round import Round
from btard.node.protocol.settings import Settings, Tools
from btard.node.protocol.wire.certificate import open_signed
from btard.node.protocol.wire.encoding import decode_body
from btard.node.protocol.wire.messages import Body, Hello, Phase, Signed

_PER_SLOT = 2
"""Messages kept for one slot ahead of us: two prove an equivocation."""


class Place(Enum):
    """Where an admitted message belongs."""

    HELLO = "hello"
    CURRENT = "current"
    PREVIOUS = "previous"
    AHEAD = "ahead"


class Admission:
    """Sorts what arrives by attempt; what is ahead of us waits, bounded per sender and phase.

    Args:
        settings, tools: see there.
        keys: Ed25519 keys of the genesis roster.
    """

    def __init__(self, settings: Settings, tools: Tools, keys: tuple[bytes, ...]) -> None:
        self._settings, self._tools, self._keys = settings, tools, keys
        self._ahead: dict[tuple[int, int], dict[bytes, Signed]] = {}
        self._counts: Counter[tuple[int, Phase]] = Counter()

    def admit(
        self, signed: Signed, current: Round | None, previous: Round | None, step: int
    ) -> tuple[Place, Body] | str:
        """The place and body of a message that counts, or the reason why it is dropped."""
        place: Place | str = ""

        def refused(body: Body) -> str | None:
            nonlocal place
            place = self._place(body, current, previous, step)
            if isinstance(place, str):
                return place
            round_ = current if place is Place.CURRENT else previous if place is Place.PREVIOUS else None
            slot = body.slot
            held = round_ is not None and round_.attempt.transcript.knows(slot.phase, slot.sender, signed.body)
            return "duplicate" if held else None

        tools, run = self._tools, self._settings.run
        body = open_signed(signed, self._keys, tools.verify, run=run, rule=refused, decode=tools.decode)
        if isinstance(body, str):
            return body
        assert isinstance(place, Place)
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
                return place if slot.roster == round_.attempt.where[1] else "wrong_slot"
        here = (step, current.attempt.number if current is not None else -1)
        if there in ((here[0], here[1] + 1), (here[0] + 1, 0)):
            return Place.AHEAD
        return "late" if there < here else "too_early"

    def keep(self, body: Body, signed: Signed) -> str | None:
        """Hold a message of an attempt we have not reached; returns why it is not held, None if it is."""
        slot = body.slot
        held = self._ahead.setdefault((slot.step, slot.attempt), {})
        if signed.body in held:
            return "duplicate"
        # Two attempts can be ahead of us; of the SUSPECTs of one peer an honest one needs at most one per peer.
        most = 2 * (len(self._keys) if slot.phase is Phase.SUSPECT else _PER_SLOT)
        if self._counts[slot.sender, slot.phase] >= most:
            return "too_many_ahead"
        self._counts[slot.sender, slot.phase] += 1
        held[signed.body] = signed
        return None

    def speakers(self, step: int, attempt: int, roster: bytes) -> frozenset[int]:
        """Senders of the messages that wait for an attempt, in the roster with this digest."""
        slots = (decode_body(body).slot for body in self._ahead.get((step, attempt), ()))
        return frozenset(slot.sender for slot in slots if slot.roster == roster)

    def forget(self, step: int) -> None:
        """Nothing of the steps before this one counts any more (a peer that comes back has not been there)."""
        self._ahead = {place: held for place, held in self._ahead.items() if place[0] >= step}
        slots = [decode_body(signed.body).slot for held in self._ahead.values() for signed in held.values()]
        self._counts = Counter((slot.sender, slot.phase) for slot in slots)

    def release(self) -> tuple[Signed, ...]:
        """All that waits: to be admitted again, now that an attempt has begun."""
        held = tuple(signed for attempt in self._ahead.values() for signed in attempt.values())
        self._ahead, self._counts = {}, Counter()
        return held
