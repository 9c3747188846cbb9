"""What arrives signed: messages and views go to the attempt that they belong to, and what is wrong begins a dispute."""

from __future__ import annotations

from btard.node.protocol.api import CancelTimer
from btard.node.protocol.attempt import deadlines
from btard.node.protocol.attempt.handshake import Greeting
from btard.node.protocol.disputes.dispute import Dispute
from btard.node.protocol.disputes.previous_attempt import PreviousAttempt
from btard.node.protocol.peer_state import PeerState
from btard.node.protocol.wire.admission import Admission, Place
from btard.node.protocol.wire.messages import Body, Endorsed, Hello, Outcome, Signed, View


class DisputeRouter:
    """Signed messages, and the disputes that they begin.

    Args:
        shared: what the peer holds.
        greeting: the HELLOs that it has heard.
    """

    def __init__(self, shared: PeerState, greeting: Greeting) -> None:
        self._shared, self._greeting = shared, greeting
        self.admission = Admission(shared.settings, shared.tools, shared.state.roster.keys)
        self.previous = PreviousAttempt(shared)
        """The attempt before the one under way; its owner is the lifecycle, which puts a new one here."""

    @property
    def step(self) -> int:
        """The step that we are in, or about to be let into."""
        shared = self._shared
        return shared.client.step if shared.client is not None and shared.round is None else shared.state.step

    def message(self, via: int | None, signed: Signed) -> str | None:
        """A signed message; returns why it is refused without any effect, None if it has one."""
        shared, previous = self._shared, self.previous
        step = shared.state.summary.step if shared.client is None else self.step
        admitted = self.admission.admit(signed, shared.round, previous.round, step)
        if isinstance(admitted, str):
            if admitted == "duplicate":
                previous.told_again(via, signed)
            return admitted
        place, body = admitted
        if isinstance(body, Hello):
            return self._hello(via, body, signed)
        if place is Place.AHEAD:
            return self.admission.keep(body, signed)
        if isinstance(body, View):
            return self.view(via, Endorsed(signed, ()))
        if isinstance(body, Outcome):
            dispute = self._disputed() if place is Place.CURRENT else previous.disputed()
            return dispute.take_outcome(body, signed)
        return self._take(body, signed) if place is Place.CURRENT else previous.take(body, signed)

    def view(self, via: int | None, endorsed: Endorsed) -> str | None:
        """A view; before our own start of the dispute its contents are news like any other, and may be the start.
        Returns why it is refused without any effect, None if it has one."""
        shared, previous = self._shared, self.previous
        if any(known is not None and known.knows(endorsed.view) for known in (shared.dispute, previous.dispute)):
            return "duplicate"
        admitted = self.admission.admit(endorsed.view, shared.round, previous.round, self.step)
        if isinstance(admitted, str):
            return admitted
        place, body = admitted
        if not isinstance(body, View):
            return "unexpected_view"
        if place is Place.AHEAD:
            return self.admission.keep(body, endorsed.view)
        if place is Place.PREVIOUS:
            return previous.take_view(via, body, endorsed)
        dispute, news = self._disputed(), False
        if not dispute.begun and dispute.hears(body.slot.sender):
            news = self._look_into(via, body)
        refused = dispute.take_view(endorsed)
        previous.close_if_all_have_left()
        if refused is not None and news:
            shared.drop(via, refused)  # but what it brought counts
            return None
        return refused

    def check_trigger(self) -> None:
        """Whatever proves a dispute freezes the attempt at once; its rounds begin when the one before is closed."""
        shared = self._shared
        round_ = shared.round
        if round_ is None or round_.trigger is None or round_.frozen:
            return
        # Whoever has not begun this attempt could not follow its dispute.
        self.previous.pass_on()
        self._disputed().freeze(round_.trigger)
        shared.out += [CancelTimer(name) for name in deadlines.OF_AN_ATTEMPT]
        self.previous.let_rounds_begin()

    def take_up_what_waited(self) -> None:
        """An attempt has begun: messages of it that came early count now, views of the one before let us join."""
        for signed in self.admission.release():
            refused = self.message(None, signed)
            if refused is not None:
                self._shared.drop(None, refused)
        self.previous.join_for_early_views()

    def _take(self, body: Body, signed: Signed) -> str | None:
        """A message of the attempt under way."""
        assert self._shared.round is not None
        refused = self._shared.round.take(body, signed)
        if self._shared.round.trigger is not None:
            self.check_trigger()
        if not self.previous.closed:
            self.previous.close_if_all_have_left()
        return refused

    def _hello(self, via: int | None, body: Hello, signed: Signed) -> str | None:
        """A greeting. One that another peer passes on says that the run has begun there: with the same greetings it
        begins here."""
        passed_on, previous = via is not None and via != body.slot.sender, self.previous
        if self._shared.round is None:
            refused = self._greeting.take(body, signed)
            if passed_on and refused in (None, "duplicate"):
                self._greeting.overdue()
                return None
            return refused
        if passed_on and previous.round is None and not previous.passed_on:
            previous.pass_on()
        return "late"

    def _disputed(self) -> Dispute:
        """The dispute of the attempt under way, made on first use."""
        shared = self._shared
        assert shared.round is not None
        shared.dispute = shared.dispute or shared.new_dispute(shared.round)
        return shared.dispute

    def _look_into(self, via: int | None, view: View) -> bool:
        """Hear the messages of a view until our rounds begin, or until one that no honest view holds: what follows it
        is a liar's, and each would cost us the check of a signature. True if any of them was news."""
        shared, previous = self._shared, self.previous
        assert shared.round is not None
        news = False
        for signed in view.messages:
            admitted = self.admission.admit(signed, shared.round, previous.round, self.step)
            if admitted == "duplicate":
                continue
            if isinstance(admitted, str):
                shared.drop(via, admitted)
                return news
            where, body = admitted
            if where is not Place.CURRENT or isinstance(body, (View, Outcome)):
                shared.drop(via, "nested")
                return news
            refused = self._take(body, signed)
            if refused is not None:
                shared.drop(via, refused)
            news = news or refused is None
            if shared.round.sealed:
                return news
        return news
