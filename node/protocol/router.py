"""What arrives signed: which of it counts, which attempt it belongs to, and the dispute that it may begin.

Admission is `open_signed` (node/protocol/wire/certificate.py), with the attempts that this peer knows in the place of
one; what is ahead of it waits.
"""

from __future__ import annotations

from collections import Counter
from enum import Enum

from btard.node.protocol.api import CancelTimer, Forward
from btard.node.protocol.attempt import deadlines
from btard.node.protocol.attempt.handshake import Greeting
from btard.node.protocol.attempt.round import Round
from btard.node.protocol.disputes.dispute import Dispute
from btard.node.protocol.disputes.previous_attempt import PreviousAttempt, by_another
from btard.node.protocol.peer_state import PeerState
from btard.node.protocol.wire.certificate import open_signed
from btard.node.protocol.wire.encoding import decode_body
from btard.node.protocol.wire.messages import Body, Close, Endorsed, Hello, Outcome, Phase, Signed, View

# --- admission ------------------------------------------------------------------------------------------------


_RECALLS = 3
"""How often one peer may ask for one attempt during one of ours: it can be started again more than once within a
deadline."""

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
        shared: what the peer holds: the keys of all that may say anything, newcomers among them.
    """

    def __init__(self, shared: PeerState) -> None:
        self._shared, self._settings, self._tools = shared, shared.settings, shared.tools
        self._ahead: dict[tuple[int, int], dict[bytes, Signed]] = {}
        self._counts: Counter[tuple[tuple[int, int], int, Phase]] = Counter()

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
        body = open_signed(
            signed, self._shared.state.roster.keys, tools.verify, run=run, rule=refused, decode=tools.decode
        )
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
        # Of each attempt by itself: what fills one must not crowd out the other. Of SUSPECTs an honest peer needs
        # one per peer and phase at most.
        most = 2 * len(self._shared.state.roster.keys) if slot.phase is Phase.SUSPECT else _PER_SLOT
        key = (slot.step, slot.attempt), slot.sender, slot.phase
        if self._counts[key] >= most:
            return "too_many_ahead"
        self._counts[key] += 1
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
        self._counts = Counter(((slot.step, slot.attempt), slot.sender, slot.phase) for slot in slots)

    def release(self) -> tuple[Signed, ...]:
        """All that waits: to be admitted again, now that an attempt has begun."""
        held = tuple(signed for attempt in self._ahead.values() for signed in attempt.values())
        self._ahead, self._counts = {}, Counter()
        return held


# --- the router -----------------------------------------------------------------------------------------------


class DisputeRouter:
    """Signed messages, and the disputes that they begin.

    Args:
        shared: what the peer holds.
        greeting: the HELLOs that it has heard.
    """

    def __init__(self, shared: PeerState, greeting: Greeting) -> None:
        self._shared, self._greeting = shared, greeting
        self.admission = Admission(shared)
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
                if shared.round is not None and by_another(via, signed, shared.round):
                    shared.round.told = True
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
            return dispute.take_outcome(body, signed, via)
        if place is Place.PREVIOUS:
            return previous.take(body, signed)
        if isinstance(body, Close) and shared.round is not None and by_another(via, signed, shared.round):
            shared.round.told = True
        return self._take(body, signed)

    def view(self, via: int | None, endorsed: Endorsed) -> str | None:
        """A view; before our own start of the dispute its contents are news like any other, and may be the start.
        Returns why it is refused without any effect, None if it has one."""
        shared, previous = self._shared, self.previous
        if previous.knows(endorsed) or (shared.dispute is not None and shared.dispute.knows(endorsed.view)):
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

    def recall(self, via: int, step: int, number: int) -> None:
        """A neighbour was started again: tell it what was said in its attempt, and what ended the one before ours."""
        shared, place = self._shared, (step, number)
        rounds = tuple(round_ for round_ in (shared.round, self.previous.round) if round_ is not None)
        held = (*(round_.attempt for round_ in rounds), shared.past)
        asked = next((each for each in held if each is not None and (each.step, each.number) == place), None)
        if shared.asked(via, place if asked is not None else None) > _RECALLS:
            return shared.drop(via, "recalled_too_often")
        for round_ in rounds:
            round_.transfers.serve_again(via)
        if asked is not None:
            shared.out.append(Forward((via,), tuple(asked.transcript.everything())))
        elsewhere = shared.round is None or asked is not shared.round.attempt
        if shared.certificate and (elsewhere or place == (0, 0)):
            shared.out.append(Forward((via,), shared.certificate))
        for dispute in (shared.dispute, self.previous.dispute):
            if dispute is not None and dispute.begun:  # it may be back in time to show what it holds
                shared.out.append(Forward((via,), dispute.views))
        return None

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
                self._greeting.told = True
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
