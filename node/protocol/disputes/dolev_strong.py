"""Dolev-Strong broadcast of every peer's view of an attempt, so that all honest peers judge the same union.

A view counts if it came, before local time `start + 2 k D`, with a chain of k distinct active signatures, the owner's
first; who accepts it adds its signature and passes it on while k <= f. After f + 1 rounds every view that one honest
peer accepted has been accepted by all. An owner with two accepted views equivocates: its views count for nothing.

Source: Dolev and Strong 1983; PROTOCOL section 4.
"""

from __future__ import annotations

from collections.abc import Iterator

from btard.node.protocol.api import Endorse, Output, Say, SetTimer
from btard.node.protocol.attempt.deadlines import dispute_round_s
from btard.node.protocol.roster import Roster
from btard.node.protocol.settings import Settings, Tools
from btard.node.protocol.wire.certificate import Certificate, open_signed
from btard.node.protocol.wire.encoding import decode_body, endorsement_bytes
from btard.node.protocol.wire.messages import Body, Close, Endorsed, Signed, Slot, View

MAX_VIEWS = 2


def round_timer(step: int, attempt: int) -> str:
    """Name of the timer that ends a round of the dispute of an attempt."""
    return f"dispute {step}.{attempt}"


class DolevStrong:
    """One peer's side of the agreement on views.

    Args:
        settings, tools: see there.
        roster: of the disputed attempt.
        slot: this peer's VIEW slot in it.
        out: where outputs are appended.
    """

    def __init__(self, settings: Settings, tools: Tools, roster: Roster, slot: Slot, out: list[Output]) -> None:
        self.slot = slot
        self.finished = False
        self._settings, self._tools, self._roster, self._out = settings, tools, roster, out
        self._round = 1
        self._views: dict[int, list[Signed]] = {}

    def start(self, messages: tuple[Signed, ...]) -> None:
        """Broadcast our view: every signed message of the attempt that we hold."""
        self._out.append(Say(self._roster.active, View(self.slot, (), messages)))
        self._set_timer()

    def take(self, endorsed: Endorsed) -> str | None:
        """A view with its endorsements; returns why it is refused, None if it is accepted."""
        if self.finished:
            return "unexpected_view"

        def refused(body: Body) -> str | None:
            known = self._views.get(body.slot.sender, ())
            if body.prefix:
                return "wrong_slot"
            if any(view.body == endorsed.view.body for view in known):
                return "duplicate"
            if len(known) >= MAX_VIEWS:
                return "too_many_views"
            return "late_view" if 1 + len(endorsed.endorsements) < self._round else None

        body = open_signed(
            endorsed.view, self._roster.keys, self._tools.verify, run=self.slot.run, kind=View,
            where=self.slot.where, senders=self._roster.active, rule=refused,
        )  # fmt: skip
        if isinstance(body, str):
            return body
        owner = body.slot.sender
        if not self.chain(endorsed, owner):
            return "bad_signature"
        self._views.setdefault(owner, []).append(endorsed.view)
        if len(endorsed.endorsements) < self._roster.faults and owner != self.slot.sender:
            others = tuple(peer for peer in self._roster.active if peer != self.slot.sender)
            self._out.append(Endorse(others, endorsed))
        return None

    def knows(self, view: Signed) -> bool:
        """True if exactly this view has been accepted."""
        return any(known.body == view.body for views in self._views.values() for known in views)

    def round_over(self) -> None:
        """2 D have passed since the round began."""
        self._round += 1
        if self._round > self._roster.faults + 1:
            self.finished = True
        else:
            self._set_timer()

    @property
    def heard(self) -> tuple[int, ...]:
        """Owners of the views that count."""
        return tuple(peer for peer in self._roster.active if len(self._views.get(peer, ())) == 1)

    @property
    def doubles(self) -> tuple[int, ...]:
        """Owners with two accepted views."""
        return tuple(peer for peer in self._roster.active if len(self._views.get(peer, ())) >= MAX_VIEWS)

    def double_of(self, owner: int) -> tuple[Signed, Signed]:
        """The two views of an equivocating owner."""
        first, second = self._views[owner]
        return first, second

    def union(self) -> Iterator[tuple[Signed, ...]]:
        """The messages of each view that counts, by owner; the same at every honest peer."""
        for owner in self._roster.active:
            views = self._views.get(owner, [])
            if len(views) == 1:
                body = decode_body(views[0].body)
                if isinstance(body, View):
                    yield body.messages

    def shown(self) -> Certificate | None:
        """The certificate in the view that we have signed: after a new start it is not what we would sign now."""
        bodies = [decode_body(view.body) for view in self._views.get(self.slot.sender, ())]
        held = [(decode_body(each.body), each) for body in bodies if isinstance(body, View) for each in body.messages]
        closes = [(body, signed) for body, signed in held if isinstance(body, Close)]
        return Certificate.among(closes, self._roster.active)

    def _set_timer(self) -> None:
        name = round_timer(self.slot.step, self.slot.attempt)
        self._out.append(SetTimer(name, dispute_round_s(self._settings)))

    @property
    def accepted(self) -> tuple[Signed, ...]:
        """Every accepted view."""
        return tuple(view for views in self._views.values() for view in views)

    def chain(self, endorsed: Endorsed, owner: int) -> int:
        """How many distinct active peers have signed a view, its owner first (`open_signed` has seen to that) and each
        those before it; 0 if one of the endorsements is not what it should be."""
        peers = [peer for peer, _ in endorsed.endorsements]
        active = self._roster.active
        if len({owner, *peers}) != 1 + len(peers) or any(peer not in active for peer in peers):
            return 0
        keys, data, verify = self._roster.keys, endorsed.view.body, self._tools.verify
        valid = all(
            verify(keys[peer], endorsement_bytes(data, owner, tuple(peers[:place])), signature)
            for place, (peer, signature) in enumerate(endorsed.endorsements)
        )
        return 1 + len(peers) if valid else 0
