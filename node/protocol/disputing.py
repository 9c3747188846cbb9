"""What arrives signed: messages and views go to the attempt that they belong to, and what is wrong begins a dispute."""

from __future__ import annotations

from node.protocol import waits
from node.protocol.arbitration import Arbitration
from node.protocol.events import (
    CancelTimer,
)
from node.protocol.mailroom import Place
from node.protocol.messages import Body, Endorsed, Hello, Outcome, Signed, View
from node.protocol.seat import Seat


class Disputing(Seat):
    """The second layer of a peer: signed messages, and the disputes that they begin."""

    def _message(self, via: int | None, signed: Signed) -> str | None:
        """A signed message; returns why it is refused without any effect, None if it has one."""
        admitted = self._mailroom.admit(signed, self._round, self._previous, self._step)
        if isinstance(admitted, str):
            return admitted
        place, body = admitted
        if isinstance(body, Hello):
            return self._hello(body, signed)
        if place is Place.AHEAD:
            return self._mailroom.keep(body, signed)
        if isinstance(body, View):
            return self._view(via, Endorsed(signed, ()))
        arbitration = self._arbitrate(place is Place.CURRENT)
        if isinstance(body, Outcome):
            return arbitration.take_outcome(body, signed)
        return self._hear(arbitration, body, signed)

    def _hear(self, arbitration: Arbitration, body: Body, signed: Signed) -> str | None:
        """A message of a step."""
        round_ = arbitration.round
        if round_.frozen:
            return "frozen"
        refused = round_.take(body, signed)
        self._check_trigger(arbitration)
        return refused

    def _hello(self, body: Hello, signed: Signed) -> str | None:
        return self._greeting.take(body, signed) if self._round is None else "late"

    def _check_trigger(self, arbitration: Arbitration) -> None:
        """A dispute begins. One about the attempt before suspends this one: its laggards cannot follow."""
        trigger = arbitration.round.trigger
        if trigger is None or arbitration.begun:
            return
        if arbitration is self._arbitration:
            # Whoever has not begun this attempt could not follow its dispute.
            self._forward_certificate()
        else:
            # The certificate will win: whoever is to blame is charged in a REPORT, also where we do not see the end.
            self._proofs += arbitration.proofs()
        arbitration.begin(trigger)
        self._out += [CancelTimer(name) for name in waits.OF_AN_ATTEMPT]

    def _arbitrate(self, current: bool) -> Arbitration:
        """The arbitration of the current or the previous attempt, made on first use."""
        if current:
            assert self._round is not None
            self._arbitration = self._arbitration or Arbitration(self._round, self._out)
            return self._arbitration
        assert self._previous is not None
        self._background = self._background or Arbitration(self._previous, self._out)
        return self._background

    def _view(self, via: int | None, endorsed: Endorsed) -> str | None:
        """A view; before our own start of the dispute its contents are news like any other, and may be the start.
        Returns why it is refused without any effect, None if it has one."""
        if any(known is not None and known.knows(endorsed.view) for known in (self._arbitration, self._background)):
            return "duplicate"
        admitted = self._mailroom.admit(endorsed.view, self._round, self._previous, self._step)
        if isinstance(admitted, str):
            return admitted
        place, body = admitted
        if not isinstance(body, View):
            return "unexpected_view"
        if place is Place.AHEAD:
            return self._mailroom.keep(body, endorsed.view)
        arbitration, news = self._arbitrate(place is Place.CURRENT), False
        if not arbitration.begun and arbitration.hears(body.slot.sender):
            news = self._look_into(via, body, place, arbitration)
        refused = arbitration.take_view(endorsed)
        if refused is not None and news:
            self._drop(via, refused)  # but what it brought counts
            return None
        return refused

    def _look_into(self, via: int | None, view: View, place: Place, arbitration: Arbitration) -> bool:
        """Hear the messages of a view until a dispute begins, or until one that no honest view holds: what follows it
        is a liar's, and each would cost us the check of a signature. True if any of them was news."""
        news = False
        for signed in view.messages:
            admitted = self._mailroom.admit(signed, self._round, self._previous, self._step)
            if admitted == "duplicate":
                continue
            if isinstance(admitted, str):
                self._drop(via, admitted)
                return news
            where, body = admitted
            if where is not place or isinstance(body, (View, Outcome)):
                self._drop(via, "nested")
                return news
            refused = self._hear(arbitration, body, signed)
            if refused is not None:
                self._drop(via, refused)
            news = news or refused is None
            if arbitration.begun:
                return news
        return news
