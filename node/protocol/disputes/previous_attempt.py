"""The attempt before the one under way: whether it can still be disputed, as one peer sees it, and how it is closed.

A dispute needs all honest peers in it within D of each other, and decides for all of them, so it must not begin before
everybody can be there, nor while the one before it may still decide otherwise. Source: docs/adr/0045-disputes-start-
together.md, with the timing argument.
"""

from __future__ import annotations

from btard.node.protocol.api import CancelTimer, Forward, SetTimer
from btard.node.protocol.attempt import deadlines
from btard.node.protocol.attempt.attempt import Trigger
from btard.node.protocol.attempt.deadlines import dispute_round_s, fetching_s
from btard.node.protocol.attempt.round import Round
from btard.node.protocol.disputes.dispute import Dispute, outcome_timer
from btard.node.protocol.disputes.dolev_strong import round_timer
from btard.node.protocol.disputes.resolution import trigger_in
from btard.node.protocol.peer_state import PeerState
from btard.node.protocol.wire.certificate import Certificate
from btard.node.protocol.wire.encoding import decode_body
from btard.node.protocol.wire.messages import Body, Endorsed, Phase, Signed, View


def by_another(via: int | None, signed: Signed, round_: Round) -> bool:
    """True if a message is a CLOSE of an attempt, and comes from another than its sender."""
    slot, attempt = decode_body(signed.body).slot, round_.attempt
    close = slot.phase is Phase.CLOSE and slot == attempt.slot(slot.phase, slot.sender)
    return close and via is not None and via != slot.sender


class PreviousAttempt:
    """How the attempt before the one under way stands.

    Args:
        shared: what the peer holds.
        round_: it; None: the greeting, or a step that this peer had no part in.
        windows: after this peer has passed on what ended it, for how many windows of 2 D a view of it lets it join its
            dispute, with a chain of that many signatures; 0: it has no dispute.
        closed: it cannot be disputed any more.
        delays: the deadlines of the attempt under way wait until it is closed.
        dispute: signs of its dispute, or one that this peer takes part in.
        proof: what closed it, for those who ask.
    """

    def __init__(
        self, shared: PeerState, round_: Round | None = None, windows: int = 0, closed: bool = True,
        delays: bool = False, dispute: Dispute | None = None, proof: tuple[Signed, ...] = (),
    ) -> None:  # fmt: skip
        self._shared = shared
        self.round, self.dispute = round_, dispute
        self.windows, self.closed, self.delays, self.proof = windows, closed, delays, proof
        self.age_s = 0.0
        """How long it can have been passed on already: this peer was away."""
        self.window = 1
        """The window that runs, once what ended the attempt has been passed on."""
        self.passed_on = False
        self.told = False
        """Others had begun to pass on what ended it before it ended here."""
        self._answered: set[int] = set()
        """Neighbours that have been told."""

    @classmethod
    def ended(cls, shared: PeerState, certificate: Certificate) -> PreviousAttempt:
        """The attempt under way, which has just ended by this certificate."""
        round_, dispute = shared.round, shared.dispute
        assert round_ is not None
        if not certificate.by_outcome:
            ended = cls(shared, round_, round_.attempt.roster.faults + 1, closed=False, dispute=dispute)
            ended.told = round_.told
            return ended
        # An OUTCOME that removes somebody and lets a value stand leaves some without the bytes of that value.
        at_once = certificate.value is None or not certificate.removals
        closed = at_once or (dispute is not None and dispute.followed)
        return cls(shared, round_, closed=closed, delays=not closed, dispute=dispute)

    @property
    def joined(self) -> bool:
        """This peer takes part in its dispute."""
        return self.dispute is not None and self.dispute.begun and not self.closed

    def disputed(self) -> Dispute:
        """Its dispute, made on first use."""
        assert self.round is not None
        self.dispute = self.dispute or self._shared.new_dispute(self.round)
        return self.dispute

    # --- messages ---------------------------------------------------------------------------------------------

    def take(self, body: Body, signed: Signed) -> str | None:
        """A late message: what is wrong with it is evidence. Its dispute is joined for a view only, which its owner's
        signature dates: all others can join it in time for the same view. Returns why it is refused."""
        assert self.round is not None
        refused = self.round.take(body, signed)
        if self.round.trigger is not None and not self.joined:
            self.round.trigger = None
            self._shared.charge(self.disputed())
        return refused

    def take_view(self, via: int | None, body: View, endorsed: Endorsed) -> str | None:
        """A view of it: it lets us join its dispute while it can be joined; after that its neighbour is told what
        closed it. Returns why it is refused."""
        if self.closed:
            self._answer(via)
            return "late"
        dispute = self.disputed()
        # Also a third view of its owner's, and one that waits here already: others may have joined for this very chain.
        trigger = self._reason_to_join(body, endorsed) if not dispute.begun else None
        if trigger is not None:
            self._join(trigger, endorsed)
            return None
        return dispute.take_view(endorsed)

    def knows(self, endorsed: Endorsed) -> bool:
        """True if a view is here already, and its chain does not let us join either."""
        dispute = self.dispute
        if dispute is None or not dispute.knows(endorsed.view):
            return False
        return dispute.begun or self.closed or 1 + len(endorsed.endorsements) < self.window

    def told_again(self, via: int | None, signed: Signed) -> None:
        """A CLOSE that ended it, passed on by another than its sender: it counts as passed on from now, by us too, so
        that all honest peers do it within D of each other."""
        if self.round is not None and not self.passed_on and not self.closed and by_another(via, signed, self.round):
            self.pass_on()

    def _answer(self, via: int | None) -> None:
        """A neighbour disputes an attempt that is closed: once it is told what ended it, and what closed it."""
        if via is not None and via not in self._answered:
            self._answered.add(via)
            self._shared.out.append(Forward((via,), (*self._shared.certificate, *self.proof)))

    # --- its dispute ------------------------------------------------------------------------------------------

    def join_for_early_views(self) -> None:
        """We have ended an attempt of which views were here already."""
        for view in self.dispute.early if self.dispute is not None and not self.closed else ():
            body, endorsed = decode_body(view.body), Endorsed(view, ())
            trigger = self._reason_to_join(body, endorsed) if isinstance(body, View) else None
            if trigger is not None:
                return self._join(trigger, endorsed)
        return None

    def _reason_to_join(self, body: View, endorsed: Endorsed) -> Trigger | None:
        """What a view proves, if enough peers have signed it for this window: all others can still join for it too."""
        assert self.round is not None
        if 1 + len(endorsed.endorsements) < self.window:
            return None
        if self.disputed().proven_chain(endorsed, body.slot.sender) < self.window:
            return None
        return trigger_in(body.messages, self.round.attempt)

    def _join(self, trigger: Trigger, endorsed: Endorsed) -> None:
        """Take part in its dispute, with our certificate. We go on speaking in the attempt under way, but its deadlines
        wait: who is still in this one cannot speak there."""
        dispute, shared = self.disputed(), self._shared
        dispute.join(trigger, endorsed)
        # The certificate will win: whoever is to blame is charged in a REPORT, also where we do not see the end.
        shared.charge(dispute)
        shared.out += [CancelTimer(deadlines.BEFORE), *(CancelTimer(name) for name in deadlines.OF_AN_ATTEMPT)]
        self.delays = True

    # --- its windows, and its end -----------------------------------------------------------------------------

    def pass_on(self) -> None:
        """What ended it goes to all, unless all are in the attempt under way; from now the windows of its dispute
        run."""
        shared = self._shared
        round_ = shared.round
        if round_ is not None and shared.certificate:
            attempt = round_.attempt
            if any(peer != shared.me for peer in attempt.transcript.missing(Phase.COMMIT)):
                others = tuple(peer for peer in attempt.roster.active if peer != shared.me)
                shared.out.append(Forward(others, shared.certificate))
        if round_ is None or self.passed_on:
            return None
        self.passed_on = True
        if self.closed or self.delays:
            return None
        if self.windows == 0:
            return self.close()
        newcomers = any(since == shared.state.step for _, since in shared.state.summary.returned)
        more_s = fetching_s(round_.attempt.settings, len(shared.state.roster.active)) if newcomers else 0.0
        length_s = self._window_s()
        self.window += int(self.age_s / length_s)
        if self.window > self.windows:
            return self.close()
        return shared.out.append(SetTimer(deadlines.BEFORE, length_s - self.age_s % length_s + more_s))

    def overdue(self) -> None:
        """A window is over, or the wait for those who follow an OUTCOME."""
        self.window += 1
        if self.delays or self.window > self.windows:
            return self.close(self.proof)
        return self._shared.out.append(SetTimer(deadlines.BEFORE, self._window_s()))

    def _window_s(self) -> float:
        """A round of its dispute."""
        assert self.round is not None
        return dispute_round_s(self.round.attempt.settings)

    def close_if_all_have_left(self) -> None:
        """One message of the attempt under way from each of its peers: nobody honest is left in this one."""
        shared = self._shared
        round_ = shared.round
        if round_ is None or self.closed:
            return
        spoke = round_.attempt.transcript.spoke
        if shared.dispute is not None:
            spoke = shared.dispute.spoke | spoke
        active = round_.attempt.roster.active
        if len(spoke) >= len(active) - 1 and spoke.keys() | {shared.me} >= set(active):
            proof = tuple([spoke[peer] for peer in active if peer in spoke])
            if shared.dispute is not None and shared.dispute.frozen and not shared.dispute.begun:
                # Our rounds begin now, and a view does not show all that closed this: others must be closed to it too.
                shared.out.append(Forward(tuple(peer for peer in active if peer != shared.me), proof))
            self.close(proof)

    def close(self, proof: tuple[Signed, ...] = ()) -> None:
        """Nothing about it counts from here on.

        Args:
            proof: what closed it, nothing if it was time.
        """
        joined, shared = self.joined, self._shared
        self.closed, self.proof = True, proof
        shared.out.append(CancelTimer(deadlines.BEFORE))
        if joined and self.round is not None and self.dispute is not None and self.dispute.resolved is None:
            attempt = self.round.attempt
            others = tuple(peer for peer in attempt.roster.active if peer != shared.me)
            shared.out.append(Forward(others, (*shared.certificate, *proof)))
            for timer in (round_timer, outcome_timer):
                shared.out.append(CancelTimer(timer(attempt.step, attempt.number)))
            self.dispute = None
        if self.delays:
            self.delays = False
            if shared.round is not None and not shared.round.frozen:
                shared.round.resume()
        self.let_rounds_begin()

    def let_rounds_begin(self) -> None:
        """The rounds of the dispute of the attempt under way begin once nobody can be left in this one."""
        dispute = self._shared.dispute
        if dispute is not None and dispute.frozen and not dispute.begun and self.closed:
            dispute.begin()
