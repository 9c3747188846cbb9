"""How the attempt before the one under way stands: closed unless it is said otherwise, joined while it is open. Six
peers, so f = 2."""

from __future__ import annotations

import pytest

from btard.node.protocol.api import (
    CancelTimer,
    Disputed,
    Dropped,
    Endorse,
    Forward,
    MessageArrived,
    SetTimer,
    ViewArrived,
)
from btard.node.protocol.attempt import deadlines
from btard.node.protocol.attempt.attempt import Trigger
from btard.node.protocol.attempt.deadlines import dispute_round_s
from btard.node.protocol.disputes.dispute import Dispute, outcome_timer
from btard.node.protocol.disputes.dolev_strong import round_timer
from btard.node.protocol.disputes.previous_attempt import PreviousAttempt
from btard.node.protocol.peer_state import PeerState
from btard.node.protocol.wire.certificate import Certificate
from btard.node.protocol.wire.encoding import decode_body
from btard.node.protocol.wire.messages import Endorsed, Outcome, Phase, Removal
from tests.protocol_attempts import complete, stopped
from tests.unit.node.protocol.test_peer import fresh
from tests.unit.node.protocol.test_router import BAD, at, endorsed, found, second, suspicion, view

REMOVED = (Removal(5, "silent", None),)


def in_step_1(phase: str = "AGG") -> PeerState:
    """What peer 0 holds when it has just entered a phase."""
    stage, _ = stopped(1, phase)
    return stage.simulation.nodes[0].peer.shared


def test_a_peer_that_knows_no_attempt_before_has_nothing_to_dispute() -> None:
    previous = PreviousAttempt(fresh().shared)
    assert previous.closed and not previous.delays and not previous.joined and not previous.passed_on
    assert (previous.round, previous.dispute, previous.windows, previous.proof) == (None, None, 0, ())


@pytest.mark.parametrize(
    ("disputed", "begun", "closed", "joined"),
    [
        (False, False, False, False),
        (True, False, False, False),
        (True, True, False, True),
        (True, True, True, False),
    ],
    ids=["no sign of a dispute", "signs of one", "its rounds run here", "its rounds run, too late"],
)
def test_when_this_peer_takes_part_in_its_dispute(disputed: bool, begun: bool, closed: bool, joined: bool) -> None:
    round_ = complete()
    dispute = Dispute(round_, []) if disputed else None
    if dispute is not None and begun:
        dispute.freeze(Trigger("a reason", ()))
        dispute.begin()
    previous = PreviousAttempt(fresh().shared, round_, 3, closed=closed, dispute=dispute)
    assert previous.joined is joined


ENDS: dict[str, tuple[bytes | None, tuple[Removal, ...]]] = {
    "it starts again": (None, REMOVED),
    "the value stands": (bytes(32), ()),
    "the value stands and somebody is removed": (bytes(32), REMOVED),
}


@pytest.mark.parametrize("name", ENDS)
def test_after_an_outcome_and_a_restart_who_lacks_bytes_of_the_value_is_waited_for_too(name: str) -> None:
    shared = in_step_1()
    assert shared.round is not None
    value, removals = ENDS[name]
    outcome = Outcome(shared.round.attempt.slot(Phase.OUTCOME), (), value, removals)
    previous = PreviousAttempt.ended(shared, Certificate(outcome, ()))
    waits = name == "the value stands and somebody is removed"
    assert (previous.closed, previous.delays, previous.windows) == (not waits, waits, 0)
    assert previous.round is shared.round


@pytest.mark.parametrize("followed", [False, True])
@pytest.mark.parametrize("name", ENDS)
def test_after_an_outcome_of_a_dispute_of_ours_who_lacks_bytes_of_the_value_is_waited_for(
    name: str, followed: bool
) -> None:
    shared = in_step_1()
    assert shared.round is not None
    shared.dispute = Dispute(shared.round, [])
    shared.dispute.followed = followed
    value, removals = ENDS[name]
    outcome = Outcome(shared.round.attempt.slot(Phase.OUTCOME), (), value, removals)
    previous = PreviousAttempt.ended(shared, Certificate(outcome, ()))
    waits = name == "the value stands and somebody is removed" and not followed
    assert (previous.closed, previous.delays, previous.windows) == (not waits, waits, 0)
    assert previous.dispute is shared.dispute


def test_after_closes_a_dispute_may_still_begin_for_f_and_one_windows() -> None:
    shared = in_step_1()
    previous = PreviousAttempt.ended(shared, Certificate.of(shared.certificate))
    assert (previous.closed, previous.delays, previous.windows) == (False, False, 3)
    assert previous.round is shared.round


@pytest.mark.parametrize("phase", ["COMMIT", "AGG"])
def test_what_ended_it_goes_to_all_until_all_have_spoken(phase: str) -> None:
    shared = in_step_1(phase)
    PreviousAttempt(shared, shared.round).pass_on()
    certificate = shared.past.transcript.signed(Phase.CLOSE).values() if shared.past is not None else ()
    told = [output for output in shared.out if isinstance(output, Forward)]
    assert told == ([Forward((1, 2, 3, 4, 5), tuple(shared.certificate))] if phase == "COMMIT" else [])
    assert set(shared.certificate) == set(certificate) and len(shared.certificate) == 6


def all_but(me: int = 0) -> PeerState:
    """What a peer holds at its first COMMIT of step 1, when that of everybody else has come."""
    shared, everyone = in_step_1("COMMIT"), in_step_1("AGG")
    assert shared.round is not None and everyone.round is not None
    for peer, signed in everyone.round.attempt.transcript.signed(Phase.COMMIT).items():
        if peer != me:
            shared.round.attempt.transcript.add(decode_body(signed.body), signed)
    return shared


def test_who_alone_has_not_spoken_tells_nobody_what_they_know_and_closes_it() -> None:
    shared = all_but()
    assert shared.round is not None and shared.round.attempt.transcript.missing(Phase.COMMIT) == (0,)
    previous = PreviousAttempt(shared, shared.round, 3, closed=False)
    previous.pass_on()
    assert not [each for each in shared.out if isinstance(each, Forward)] and not previous.closed
    previous.close_if_all_have_left()
    assert previous.closed and len(previous.proof) == 5


def test_before_anything_has_ended_nothing_is_passed_on() -> None:
    shared = fresh().shared
    PreviousAttempt(shared).pass_on()
    assert shared.out == []


def test_what_is_wrong_with_an_attempt_that_stands_goes_into_a_report() -> None:
    peer, _ = at(1, "COMMIT")
    assert peer.past is not None
    outputs = peer.handle(MessageArrived(BAD, second(peer.past)))
    assert not found(outputs, Disputed) and not peer.router.previous.joined
    assert len(peer.shared.proofs) == 1
    peer.handle(MessageArrived(4, second(peer.past)))
    assert len(peer.shared.proofs) == 1


def test_a_view_lets_us_join_the_dispute_of_the_attempt_before() -> None:
    peer, _ = at(1, "COMMIT")
    assert peer.past is not None and not peer.router.previous.closed
    outputs = peer.handle(ViewArrived(4, Endorsed(view(peer.past, 4, second(peer.past)), ())))
    assert found(outputs, Disputed) == [Disputed(0, 0, "peer 5 equivocates in COMMIT")]
    assert peer.router.previous.joined and peer.router.previous.delays
    assert peer.admitted and not found(outputs, Dropped)
    assert {each.name for each in outputs if isinstance(each, CancelTimer)} >= {
        deadlines.BEFORE,
        *deadlines.OF_AN_ATTEMPT,
    }
    assert len(peer.shared.proofs) == 1, "the certificate will win: the pair is charged in a REPORT"


@pytest.mark.parametrize(
    ("by", "joins"), [((), False), ((3,), True), ((4,), False)], ids=["its owner", "two peers", "one peer twice"]
)
def test_in_the_second_window_two_must_have_signed(by: tuple[int, ...], joins: bool) -> None:
    peer, _ = at(1, "COMMIT")
    assert peer.past is not None
    peer.router.previous.window = 2
    peer.handle(ViewArrived(3, endorsed(view(peer.past, 4, second(peer.past)), *by)))
    assert peer.router.previous.joined is joins


@pytest.mark.parametrize("waiting", [1, 2], ids=["this very view waits", "two others of its owner wait"])
def test_a_chain_that_is_long_enough_counts_whatever_its_owner_has_shown_before(waiting: int) -> None:
    """Its owner gave us what no window of ours lets us join for; others may have joined for the longer chain."""
    peer, _ = at(1, "COMMIT")
    previous = peer.router.previous
    assert peer.past is not None
    previous.window = 2
    shown = [view(peer.past, 4, second(peer.past, 3 + 2 * number)) for number in range(waiting)]
    for each in shown:
        assert peer.handle(ViewArrived(4, endorsed(each))) == []
    assert peer.handle(ViewArrived(4, endorsed(shown[0]))) == [Dropped(4, "duplicate")]
    long = shown[0] if waiting == 1 else view(peer.past, 4, second(peer.past), second(peer.past, 3))
    outputs = peer.handle(ViewArrived(3, endorsed(long, 3)))
    assert previous.joined and found(outputs, Disputed)
    passed_on = [each.endorsed for each in outputs if isinstance(each, Endorse) and each.endorsed.view == long]
    assert [[by for by, _ in each.endorsements] for each in passed_on] == [[3]], "with our signature it is of three"
    assert peer.handle(ViewArrived(2, endorsed(long, 3))) == [Dropped(2, "duplicate")]


@pytest.mark.parametrize(("proven", "open_", "joins"), [(True, True, True), (False, True, False), (True, False, False)])
def test_views_that_were_early_let_us_join_as_well(proven: bool, open_: bool, joins: bool) -> None:
    peer, _ = at(1, "COMMIT")
    previous = peer.router.previous
    assert peer.past is not None
    messages = (second(peer.past),) if proven else tuple(peer.past.transcript.signed(Phase.COMMIT).values())
    assert previous.disputed().take_view(Endorsed(view(peer.past, 4, *messages), ())) is None
    previous.closed = not open_
    previous.join_for_early_views()
    assert previous.joined is joins and previous.delays is joins


@pytest.mark.parametrize("resolved", [False, True])
def test_a_dispute_that_was_joined_ends_with_the_certificate(resolved: bool) -> None:
    """Whoever still disputes is shown it, and what closed the attempt; after an OUTCOME there is nothing to show."""
    peer, attempt = at(1, "COMMIT")
    previous, shared = peer.router.previous, peer.shared
    assert peer.past is not None
    peer.handle(ViewArrived(4, Endorsed(view(peer.past, 4, second(peer.past)), ())))
    assert previous.joined and previous.dispute is not None
    outcome = Outcome(peer.past.slot(Phase.OUTCOME), (), None, ())
    previous.dispute.resolved = Certificate(outcome, ()) if resolved else None
    shared.out.clear()
    proof = tuple(attempt.transcript.signed(Phase.COMMIT).values())
    previous.close(proof)
    told = [each for each in shared.out if isinstance(each, Forward)]
    assert told == ([] if resolved else [Forward((1, 2, 3, 4, 5), (*shared.certificate, *proof))])
    ended = {each.name for each in shared.out if isinstance(each, CancelTimer)}
    assert ({round_timer(0, 0), outcome_timer(0, 0)} <= ended) is not resolved
    assert (previous.dispute is None) is not resolved
    assert previous.closed and not previous.joined and not previous.delays


@pytest.mark.parametrize("frozen", [False, True])
def test_the_deadlines_of_this_attempt_start_again_unless_it_is_disputed(frozen: bool) -> None:
    shared = in_step_1("COMMIT")
    assert shared.round is not None
    shared.round.frozen = frozen
    PreviousAttempt(shared, shared.round, closed=False, delays=True).overdue()
    assert any(isinstance(each, SetTimer) and each.name in deadlines.OF_AN_ATTEMPT for each in shared.out) is not frozen


def test_the_rounds_of_this_attempt_begin_when_nobody_is_left_in_the_one_before() -> None:
    peer, everyone = at(1, "COMMIT")[0], at(1, "AGG")[1]
    assert not peer.router.previous.closed
    for signed in (everyone.transcript.signed(Phase.COMMIT)[BAD], second(everyone)):
        peer.handle(MessageArrived(BAD, signed))
    dispute = peer.shared.dispute
    assert dispute is not None and dispute.frozen and not dispute.begun
    peer.router.previous.close()
    assert dispute.begun


@pytest.mark.parametrize(
    ("phase", "via", "passes_on"),
    [(Phase.CLOSE, 3, True), (Phase.CLOSE, 4, False), (Phase.CLOSE, None, False), (Phase.COMMIT, 3, False)],
    ids=["passed on", "from its sender", "our own store", "no CLOSE"],
)
def test_a_close_that_another_passes_on_is_passed_on_from_now(phase: Phase, via: int | None, passes_on: bool) -> None:
    peer, _ = at(1, "COMMIT")
    previous = peer.router.previous
    assert peer.past is not None and not previous.passed_on
    previous.told_again(via, peer.past.transcript.signed(phase)[4])
    assert previous.passed_on is passes_on


@pytest.mark.parametrize(("lengths", "window", "closed"), [(0.0, 1, False), (2.5, 3, False), (3.5, 4, True)])
def test_who_was_away_counts_the_windows_that_have_passed(lengths: float, window: int, closed: bool) -> None:
    peer, attempt = at(1, "COMMIT")
    previous, length_s = peer.router.previous, dispute_round_s(attempt.settings)
    previous.age_s = lengths * length_s
    previous.pass_on()
    assert (previous.window, previous.closed) == (window, closed)
    timer = [each for each in peer.shared.out if isinstance(each, SetTimer)]
    left_s = length_s * (1 - lengths % 1)
    assert timer == ([] if closed else [SetTimer(deadlines.BEFORE, pytest.approx(left_s))])


def test_a_view_that_proves_nothing_lets_nobody_join() -> None:
    peer, _ = at(1, "COMMIT")
    assert peer.past is not None
    made = view(peer.past, 4, *peer.past.transcript.signed(Phase.COMMIT).values())
    assert peer.handle(ViewArrived(4, Endorsed(made, ()))) == []
    assert not peer.router.previous.joined and peer.router.previous.dispute is not None
    assert peer.router.previous.dispute.early == (made,)
    for number, reason in ((0, []), (1, [Dropped(4, "too_many_views")])):
        more = view(peer.past, 4, *peer.past.transcript.signed(Phase.AGG).values(), *([made] * number))
        assert peer.handle(ViewArrived(4, Endorsed(more, ()))) == reason


def test_whoever_disputes_a_closed_attempt_is_told_once_what_ended_it() -> None:
    """All are in this attempt: nobody honest can be left in the other."""
    peer, _ = at(1, "AGG")
    assert peer.past is not None and peer.router.previous.closed
    made = [Endorsed(view(peer.past, 4, second(peer.past, each)), ()) for each in (5, 3)]
    answer, dropped = peer.handle(ViewArrived(3, made[0]))
    assert dropped == Dropped(3, "late")
    assert isinstance(answer, Forward) and answer.to == (3,)
    assert set(peer.past.transcript.signed(Phase.CLOSE).values()) <= set(answer.messages)
    assert len(answer.messages) > len(peer.past.roster.active), "and what closed it"
    assert peer.handle(ViewArrived(3, made[1])) == [Dropped(3, "late")]
    assert len(peer.handle(ViewArrived(2, made[1]))) == 2
    assert peer.router.previous.take_view(None, decode_body(made[1].view.body), made[1]) == "late"
    assert not [each for each in peer.shared.out if isinstance(each, Forward) and None in each.to], "nobody asked"


def test_the_windows_run_out_and_the_attempt_is_closed() -> None:
    peer, attempt = at(1, "COMMIT")
    previous = peer.router.previous
    assert previous.windows == attempt.roster.faults + 1 and not previous.passed_on
    previous.pass_on()
    assert previous.passed_on and previous.window == 1
    for window in (2, 3):
        peer.shared.out.clear()
        previous.overdue()
        assert previous.window == window and not previous.closed
        assert peer.shared.out == [SetTimer(deadlines.BEFORE, dispute_round_s(attempt.settings))]
    previous.overdue()
    assert previous.closed and previous.proof == ()


def test_as_many_as_all_others_close_nothing_while_one_may_be_left() -> None:
    """Our own message is among them, and peer 3's is not: it may still dispute the attempt before."""
    shared, everyone = in_step_1("COMMIT"), in_step_1("AGG")
    assert shared.round is not None and everyone.round is not None
    commits = everyone.round.attempt.transcript.signed(Phase.COMMIT)
    previous = PreviousAttempt(shared, shared.round, 3, closed=False)
    for peer in (0, 1, 2, 4, 5, 3):
        assert not previous.closed
        shared.round.attempt.transcript.add(decode_body(commits[peer].body), commits[peer])
        previous.close_if_all_have_left()
    assert previous.closed and len(previous.proof) == 6


def test_who_was_never_away_lets_the_first_window_run_once_and_whole() -> None:
    shared = in_step_1("COMMIT")
    assert shared.round is not None
    previous = PreviousAttempt(shared, shared.round, 3, closed=False)
    for _ in range(2):
        previous.pass_on()
    timers_set = [each for each in shared.out if isinstance(each, SetTimer)]
    assert timers_set == [SetTimer(deadlines.BEFORE, 2.0 * shared.settings.delivery_bound_s)]
    assert previous.window == 1


def test_a_late_message_without_a_fault_begins_nothing_and_one_too_many_is_refused() -> None:
    peer, _ = at(1, "COMMIT")
    assert peer.past is not None
    missed = peer.past.transcript.signed(Phase.AGG)[BAD]
    assert peer.handle(MessageArrived(1, suspicion(peer.past, 1))) == [Forward((1,), (missed,))]
    assert peer.router.previous.dispute is None
    peer.handle(MessageArrived(BAD, second(peer.past)))
    assert len(peer.shared.proofs) == 1
    peer.shared.proofs.clear()  # they have gone into a REPORT
    assert peer.handle(MessageArrived(4, second(peer.past))) == [Dropped(4, "duplicate")]
    assert peer.handle(MessageArrived(2, suspicion(peer.past, 2))) == [Forward((2,), (missed,))]
    assert peer.shared.proofs == []
