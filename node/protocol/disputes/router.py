"""What arrives signed: messages and views go to the attempt that they belong to, and what is wrong begins a dispute."""

from __future__ import annotations

from functools import partial

from btard.node.protocol.api.events import CancelTimer, Forward, SetTimer
from btard.node.protocol.attempt import timers
from btard.node.protocol.attempt.deadlines import dispute_round_s, fetching_s
from btard.node.protocol.attempt.ending import Trigger
from btard.node.protocol.attempt.round import Round
from btard.node.protocol.disputes.dispute import Dispute, outcome_timer
from btard.node.protocol.disputes.dolev_strong import round_timer
from btard.node.protocol.disputes.resolution import trigger_in
from btard.node.protocol.peer_state import PeerState
from btard.node.protocol.wire.admission import Place
from btard.node.protocol.wire.encoding import decode_body
from btard.node.protocol.wire.messages import Body, Endorsed, Hello, Outcome, Phase, Signed, View


class DisputeRouter(PeerState):
    """The second layer of a peer: signed messages, and the disputes that they begin."""

    # --- messages ---------------------------------------------------------------------------------------------

    def _message(self, via: int | None, signed: Signed) -> str | None:
        """A signed message; returns why it is refused without any effect, None if it has one."""
        admitted = self._admission.admit(signed, self._round, self._previous, self._step)
        if isinstance(admitted, str):
            if admitted == "duplicate":
                self._told_again(via, signed)
            return admitted
        place, body = admitted
        if isinstance(body, Hello):
            return self._hello(via, body, signed)
        if place is Place.AHEAD:
            return self._admission.keep(body, signed)
        if isinstance(body, View):
            return self._view(via, Endorsed(signed, ()))
        if isinstance(body, Outcome):
            return self._arbitrate(place is Place.CURRENT).take_outcome(body, signed)
        return self._hear(body, signed) if place is Place.CURRENT else self._hear_late(body, signed)

    def _hear(self, body: Body, signed: Signed) -> str | None:
        """A message of the attempt under way."""
        assert self._round is not None
        refused = self._round.take(body, signed)
        self._check_trigger()
        self._look_at_those_here()
        return refused

    def _hear_late(self, body: Body, signed: Signed) -> str | None:
        """A message of the attempt before: what is wrong with it is evidence. Its dispute is joined for a view only,
        which its owner's signature dates: all others can join it in time for the same view."""
        assert self._previous is not None
        refused = self._previous.take(body, signed)
        if self._previous.trigger is not None and not self._before.joined:
            self._previous.trigger = None
            self._charge(self._arbitrate(current=False))
        return refused

    def _charge(self, dispute: Dispute) -> None:
        """What is known of an attempt that stands goes into a REPORT."""
        self._proofs += [proof for proof in dispute.proofs() if proof not in self._proofs]

    def _hello(self, via: int | None, body: Hello, signed: Signed) -> str | None:
        """A greeting. One that another peer passes on says that the run has begun there: with the same greetings it
        begins here."""
        passed_on = via is not None and via != body.slot.sender
        if self._round is None:
            refused = self._greeting.take(body, signed)
            if passed_on and refused in (None, "duplicate"):
                self._greeting.overdue()
                return None
            return refused
        if passed_on and self._before.round is None and not self._before.passed_on:
            self._pass_on()
        return "late"

    def _told_again(self, via: int | None, signed: Signed) -> None:
        """A CLOSE that ended the attempt before, passed on by another than its sender: it counts as passed on from now,
        by us too, so that all honest peers do it within D of each other."""
        previous, before = self._previous, self._before
        if via is None or previous is None or before.passed_on or before.closed:
            return
        slot = decode_body(signed.body).slot
        if slot.phase is Phase.CLOSE and slot.sender != via and slot == previous.attempt.slot(slot.phase, slot.sender):
            self._pass_on()

    # --- the attempt under way --------------------------------------------------------------------------------

    def _check_trigger(self) -> None:
        """Whatever proves a dispute freezes the attempt at once; its rounds begin when the one before is closed."""
        round_ = self._round
        if round_ is None or round_.trigger is None or round_.frozen:
            return
        # Whoever has not begun this attempt could not follow its dispute.
        self._pass_on()
        self._arbitrate(current=True).freeze(round_.trigger)
        self._out += [CancelTimer(name) for name in timers.OF_AN_ATTEMPT]
        self._begin_rounds()

    def _begin_rounds(self) -> None:
        """The rounds of the dispute of this attempt, once nobody can be left in the one before."""
        dispute = self._dispute
        if dispute is not None and dispute.frozen and not dispute.begun and self._before.closed:
            dispute.begin()

    def _arbitrate(self, current: bool) -> Dispute:
        """The dispute of the current or the previous attempt, made on first use."""
        if current:
            assert self._round is not None
            self._dispute = self._dispute or self._new_dispute(self._round)
            return self._dispute
        assert self._previous is not None
        self._before.dispute = self._before.dispute or self._new_dispute(self._previous)
        return self._before.dispute

    def _view(self, via: int | None, endorsed: Endorsed) -> str | None:
        """A view; before our own start of the dispute its contents are news like any other, and may be the start.
        Returns why it is refused without any effect, None if it has one."""
        if any(known is not None and known.knows(endorsed.view) for known in (self._dispute, self._background)):
            return "duplicate"
        admitted = self._admission.admit(endorsed.view, self._round, self._previous, self._step)
        if isinstance(admitted, str):
            return admitted
        place, body = admitted
        if not isinstance(body, View):
            return "unexpected_view"
        if place is Place.AHEAD:
            return self._admission.keep(body, endorsed.view)
        if place is Place.PREVIOUS:
            return self._view_late(via, body, endorsed)
        dispute, news = self._arbitrate(current=True), False
        if not dispute.begun and dispute.hears(body.slot.sender):
            news = self._look_into(via, body)
        refused = dispute.take_view(endorsed)
        self._look_at_those_here()
        if refused is not None and news:
            self._drop(via, refused)  # but what it brought counts
            return None
        return refused

    def _look_into(self, via: int | None, view: View) -> bool:
        """Hear the messages of a view until our rounds begin, or until one that no honest view holds: what follows it
        is a liar's, and each would cost us the check of a signature. True if any of them was news."""
        assert self._round is not None
        news = False
        for signed in view.messages:
            admitted = self._admission.admit(signed, self._round, self._previous, self._step)
            if admitted == "duplicate":
                continue
            if isinstance(admitted, str):
                self._drop(via, admitted)
                return news
            where, body = admitted
            if where is not Place.CURRENT or isinstance(body, (View, Outcome)):
                self._drop(via, "nested")
                return news
            refused = self._hear(body, signed)
            if refused is not None:
                self._drop(via, refused)
            news = news or refused is None
            if self._round.sealed:
                return news
        return news

    # --- the attempt before -----------------------------------------------------------------------------------

    def _view_late(self, via: int | None, body: View, endorsed: Endorsed) -> str | None:
        """A view of the attempt before: it lets us join its dispute while it can be joined; after that its neighbour is
        told what closed it."""
        if self._before.closed:
            self._answer(via)
            return "late"
        dispute = self._arbitrate(current=False)
        if not dispute.begun and dispute.hears(body.slot.sender):
            trigger = self._reason_to_join(body, endorsed)
            if trigger is not None:
                self._join(trigger, endorsed)
                return None
        return dispute.take_view(endorsed)

    def _reason_to_join(self, body: View, endorsed: Endorsed) -> Trigger | None:
        """What a view proves, if enough peers have signed it for this window: all others can still join for it too."""
        assert self._previous is not None
        if self._arbitrate(current=False).proven_chain(endorsed, body.slot.sender) < self._before.window:
            return None
        return trigger_in(body.messages, self._previous.attempt)

    def _join(self, trigger: Trigger, endorsed: Endorsed) -> None:
        """Take part in the dispute of the attempt before, with our certificate. We go on speaking in this one, but its
        deadlines wait: who is still in the other cannot speak here."""
        dispute, before = self._arbitrate(current=False), self._before
        dispute.join(trigger, endorsed)
        # The certificate will win: whoever is to blame is charged in a REPORT, also where we do not see the end.
        self._charge(dispute)
        self._out += [CancelTimer(timers.BEFORE), *(CancelTimer(name) for name in timers.OF_AN_ATTEMPT)]
        before.held = True

    def _join_for_early_views(self) -> None:
        """We have ended an attempt of which views were here already."""
        before = self._before
        for view in before.dispute.early if before.dispute is not None and not before.closed else ():
            body, endorsed = decode_body(view.body), Endorsed(view, ())
            trigger = self._reason_to_join(body, endorsed) if isinstance(body, View) else None
            if trigger is not None:
                return self._join(trigger, endorsed)
        return None

    def _pass_on(self) -> None:
        """What ended the attempt before goes to all, unless all are here; from now the windows of its dispute run."""
        self._forward_certificate()
        before = self._before
        if self._round is None or before.passed_on:
            return None
        settings = self._round.attempt.settings
        before.passed_on = True
        if before.closed or before.held:
            return None
        if before.windows == 0:
            return self._close_before(())
        newcomers = any(since == self.state.step for _, since in self.state.summary.returned)
        more_s = fetching_s(settings, len(self.state.roster.active)) if newcomers else 0.0
        length_s = self._window_s()
        before.window += int(before.age_s / length_s)
        if before.window > before.windows:
            return self._close_before(())
        return self._out.append(SetTimer(timers.BEFORE, length_s - before.age_s % length_s + more_s))

    def _before_overdue(self) -> None:
        """A window is over, or the wait for those who follow an OUTCOME."""
        before = self._before
        before.window += 1
        if before.held or before.window > before.windows:
            return self._close_before(before.proof)
        self._out.append(SetTimer(timers.BEFORE, self._window_s()))
        return None

    def _window_s(self) -> float:
        """A round of the dispute of the attempt before."""
        assert self._previous is not None
        return dispute_round_s(self._previous.attempt.settings)

    def _look_at_those_here(self) -> None:
        """One message of this attempt from each of its peers: nobody honest is left in the one before."""
        round_, before = self._round, self._before
        if round_ is None or before.closed:
            return
        spoke = round_.attempt.transcript.spoke
        if self._dispute is not None:
            spoke = self._dispute.spoke | spoke
        active = round_.attempt.roster.active
        if len(spoke) >= len(active) - 1 and all(peer in spoke or peer == self.me for peer in active):
            self._close_before(tuple(spoke[peer] for peer in active if peer in spoke))

    def _close_before(self, proof: tuple[Signed, ...]) -> None:
        """Nothing about the attempt before counts from here on.

        Args:
            proof: what closed it, nothing if it was time.
        """
        before, previous = self._before, self._previous
        joined = before.joined
        before.closed, before.proof = True, proof
        self._out.append(CancelTimer(timers.BEFORE))
        if joined and previous is not None and before.dispute is not None:
            attempt = previous.attempt
            if before.dispute.resolved is None:
                others = tuple(peer for peer in attempt.roster.active if peer != self.me)
                self._out.append(Forward(others, (*self._certificate, *proof)))
                for timer in (round_timer, outcome_timer):
                    self._out.append(CancelTimer(timer(attempt.step, attempt.number)))
                before.dispute = None
        if before.held:
            before.held = False
            if self._round is not None and not self._round.frozen:
                self._round.resume()
        self._begin_rounds()

    def _answer(self, via: int | None) -> None:
        """A neighbour disputes an attempt that is closed: once it is told what ended it, and what closed it."""
        if via is not None and via not in self._before.answered:
            self._before.answered.add(via)
            self._out.append(Forward((via,), (*self._certificate, *self._before.proof)))

    def _new_dispute(self, round_: Round) -> Dispute:
        place = round_.attempt.step, round_.attempt.number
        return Dispute(round_, self._out, partial(self._abstains, place))

    def _abstains(self, place: tuple[int, int]) -> bool:
        """True in a dispute that we may have missed a part of, having been away: the others' OUTCOME counts. Not where
        all honest ones were away, and ask what we ask."""
        roster = self.state.roster
        return place in self._missed and len(self._recalled) < len(roster.active) - 1 - roster.faults
