"""The dispute of one attempt as one peer sees it: what it shows, which views wait, when it signs an OUTCOME and when a
majority's stands. Six peers, so f = 2."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import pytest

from btard.node.protocol.adjudication.charges import Equivocation, Ruled
from btard.node.protocol.api import CancelTimer, Disputed, Forward, Output, RequestBulk, Resolved, Say, SetTimer
from btard.node.protocol.attempt.attempt import Trigger
from btard.node.protocol.disputes.dispute import MAX_OUTCOMES, Dispute, outcome_timer
from btard.node.protocol.disputes.dolev_strong import round_timer
from btard.node.protocol.wire.encoding import decode_body
from btard.node.protocol.wire.messages import Close, Commit, Endorsed, Outcome, Phase, Removal, Signed, Suspect, View
from tests.protocol_attempts import PEERS, complete, said
from tests.unit.node.protocol.test_peer import signed_by
from tests.unit.node.protocol.test_router import endorsed

ME, BAD = 0, 5
OTHERS = (1, 2, 3, 4, 5)
STATE = b"s" * 32
OUT = (Removal(BAD, "equivocation", None),)


class Case:
    """Peer 0 in step 2, in which peer 5 has signed two COMMITs."""

    def __init__(self, abstains: bool = False) -> None:
        self.round = complete()
        self.attempt, self.out = self.round.attempt, list[Output]()
        self.dispute = Dispute(self.round, self.out, lambda: abstains)
        first = self.attempt.transcript.signed(Phase.COMMIT)[BAD]
        second = signed_by(BAD, msgspec.structs.replace(said(self.attempt, Commit, BAD), randomness=b"2" * 32))
        self.trigger = Trigger("peer 5 equivocates in COMMIT", (first, second))

    def view(self, owner: int, number: int = 0) -> Endorsed:
        """What a peer shows: the pair, or in its second view the half of it."""
        messages = self.trigger.messages[: 2 - number]
        return Endorsed(signed_by(owner, View(self.attempt.slot(Phase.VIEW, owner), (), messages)), ())

    def outcome(self, by: int, value: bytes | None = None, removals: tuple[Removal, ...] = OUT) -> str | None:
        body = Outcome(self.attempt.slot(Phase.OUTCOME, by), (), value, removals)
        return self.dispute.take_outcome(body, signed_by(by, body))

    def through(self, owners: Iterable[int]) -> Case:
        """All rounds, with the views of these peers; our own is what we said."""
        self.dispute.freeze(self.trigger)
        self.dispute.begin()
        (ours,) = (each.body for each in self.out if isinstance(each, Say) and isinstance(each.body, View))
        for owner in owners:
            view = Endorsed(signed_by(ME, ours), ()) if owner == ME else self.view(owner)
            assert self.dispute.take_view(view) is None
        for _ in range(self.attempt.roster.faults + 1):
            self.dispute.round_over()
        return self

    @property
    def said(self) -> list[Outcome]:
        return [each.body for each in self.out if isinstance(each, Say) and isinstance(each.body, Outcome)]


def test_a_freeze_shows_everyone_why_and_begins_no_rounds() -> None:
    case = Case()
    case.dispute.freeze(case.trigger)
    assert case.out == [Disputed(2, 0, case.trigger.cause), Forward(OTHERS, case.trigger.messages)]
    assert case.dispute.frozen and case.round.frozen and case.attempt.disputed
    assert not case.dispute.begun and not case.round.sealed
    assert not (case.dispute.settled or case.dispute.follow_s or case.dispute.followed)


def test_our_view_holds_everything_that_we_hold_once() -> None:
    case = Case()
    case.dispute.freeze(case.trigger)
    case.dispute.begin()
    view, timer = case.out[-2:]
    assert isinstance(view, Say) and isinstance(view.body, View) and isinstance(timer, SetTimer)
    assert view.to == (ME, *OTHERS) and timer.name == round_timer(2, 0)
    messages = view.body.messages
    assert len(set(messages)) == len(messages)
    assert {*case.attempt.transcript.everything(), *case.trigger.messages} == set(messages)
    assert case.round.sealed


def test_views_wait_for_our_beginning_two_of_each_peer() -> None:
    case = Case()
    first, second = case.view(4), case.view(4, 1)
    assert [case.dispute.take_view(each) for each in (first, second, case.view(4))] == [None, None, "too_many_views"]
    assert case.dispute.take_view(case.view(3)) is None
    assert not case.dispute.hears(4) and case.dispute.hears(3)
    assert case.dispute.early == (first.view, second.view, case.view(3).view)
    assert case.dispute.knows(second.view) and not case.dispute.knows(case.view(2).view)
    case.dispute.freeze(case.trigger)
    case.dispute.begin()
    assert set(case.dispute.views) == {first.view, second.view, case.view(3).view} and case.dispute.early == ()
    assert case.dispute.knows(first.view) and set(case.dispute.spoke) == {3, 4}


def test_an_outcome_is_signed_once_when_all_rounds_are_over() -> None:
    case = Case().through((ME, 1, 2, 3, 4))
    assert case.said == [Outcome(case.attempt.slot(Phase.OUTCOME), (), None, OUT)]
    case.dispute.decide()
    case.dispute.decide()
    assert len(case.said) == 1
    assert [each.name for each in case.out if isinstance(each, SetTimer)].count(outcome_timer(2, 0)) == 1


@pytest.mark.parametrize(("owners", "says"), [((0, 1, 2), False), ((0, 1, 2, 3), True)], ids=["half", "most"])
def test_the_views_of_half_decide_nothing(owners: tuple[int, ...], says: bool) -> None:
    case = Case().through(owners)
    assert bool(case.said) is says
    assert case.dispute.unheard == ((3, 4, 5) if not says else (0, 1, 2, 3, 4, 5)), (
        "whose view, whose OUTCOME is missing"
    )


@pytest.mark.parametrize(
    ("owners", "late", "ends"),
    [((ME, 1, 2), False, True), ((ME, 1, 2), True, False), ((ME, 1, 2, 3, 4), False, False)],
    ids=["through with it", "a CLOSE came after our view", "a majority disputes it"],
)
def test_what_our_view_has_shown_to_a_roster_that_is_through_with_it_stands(
    owners: tuple[int, ...], late: bool, ends: bool
) -> None:
    case = Case()
    attempt = case.attempt
    closes = [Close(attempt.slot(Phase.CLOSE, peer), attempt.transcript.prefix, STATE) for peer in (ME, *OTHERS)]
    signed = [signed_by(close.slot.sender, close) for close in closes]
    before = PEERS - 1 if late else PEERS
    for close, each in zip(closes[:before], signed[:before], strict=True):
        attempt.transcript.add(close, each)
    case.through(owners)
    for close, each in zip(closes[before:], signed[before:], strict=True):
        attempt.transcript.add(close, each)
    assert attempt.certificate() is not None
    stands = case.dispute.undisputed
    assert (stands is not None) is ends
    assert stands is None or set(stands.messages) == set(signed)


@pytest.mark.parametrize("shown", [True, False], ids=["in the view that we signed", "since"])
def test_after_a_new_start_what_we_had_shown_counts_and_not_what_we_would_show_now(shown: bool) -> None:
    """In a slot in which we have spoken we say the same again."""
    case = Case()
    attempt = case.attempt
    closes = [Close(attempt.slot(Phase.CLOSE, peer), attempt.transcript.prefix, STATE) for peer in (ME, *OTHERS)]
    signed = [signed_by(close.slot.sender, close) for close in closes]
    for close, each in zip(closes, signed, strict=True):
        attempt.transcript.add(close, each)
    earlier = (*case.trigger.messages, *signed[: PEERS if shown else PEERS - 1])
    case.dispute.freeze(case.trigger)
    case.dispute.begin()
    ours = signed_by(ME, View(attempt.slot(Phase.VIEW), (), earlier))
    assert case.dispute.take_view(Endorsed(ours, ())) is None
    for _ in range(attempt.roster.faults + 1):
        case.dispute.round_over()
    assert (case.dispute.undisputed is not None) is shown


def test_before_the_last_round_nothing_is_decided() -> None:
    case = Case()
    case.dispute.freeze(case.trigger)
    case.dispute.begin()
    for owner in range(PEERS):
        case.dispute.take_view(case.view(owner))
    for _ in range(case.attempt.roster.faults):
        case.dispute.round_over()
    case.dispute.decide()
    assert not case.said
    case.dispute.round_over()
    assert case.said


def test_who_may_have_missed_a_part_signs_nothing_but_follows() -> None:
    case = Case(abstains=True).through((ME, 1, 2, 3, 4))
    assert not case.said
    for peer in (1, 2, 3, 4):
        assert case.outcome(peer) is None
    assert case.dispute.resolved is not None and not case.said


def test_more_than_half_of_the_roster_resolve_it() -> None:
    case = Case()
    for peer in (1, 2, 3):
        assert case.outcome(peer) is None
    assert case.outcome(3) == "duplicate"
    assert case.outcome(5, removals=()) is None and case.outcome(4, value=STATE) is None
    assert case.dispute.resolved is None, "half of them, and others that say otherwise"
    assert case.outcome(4) is None
    resolved = case.dispute.resolved
    assert resolved is not None and (resolved.value, resolved.removals) == (None, OUT)
    assert len(resolved.messages) == 4
    assert case.out == [
        Forward(OTHERS, resolved.messages),
        Say((ME, *OTHERS), Outcome(case.attempt.slot(Phase.OUTCOME), (), None, OUT)),
        CancelTimer(outcome_timer(2, 0)),
        Resolved(2, 0, "retry", (BAD,)),
    ]


def test_what_stands_is_not_resolved_again() -> None:
    case = Case()
    for peer in (1, 2, 3, 4):
        case.outcome(peer, STATE, ())
    assert case.out[-1] == Resolved(2, 0, "commit", ())
    before, resolved = len(case.out), case.dispute.resolved
    for peer in (0, 1, 2, 3, 4, 5):
        case.outcome(peer)
    assert len(case.out) == before and case.dispute.resolved is resolved


def test_a_liar_may_sign_several_outcomes_and_any_of_them_counts() -> None:
    case = Case()
    for number in range(MAX_OUTCOMES - 1):
        assert case.outcome(BAD, bytes([number]) * 32) is None
    for peer in (1, 2, 3):
        case.outcome(peer)
    assert case.outcome(BAD) is None and case.dispute.resolved is not None
    assert case.outcome(BAD, STATE) == "too_many_outcomes"


def test_whom_it_removes_is_convicted_by_our_proof_where_we_have_one() -> None:
    silent = Removal(4, "silent", None)
    case = Case().through((ME, 1, 2, 3, 4))
    assert case.dispute.guilts() == ()
    for peer in (1, 2, 3, 4):
        case.outcome(peer, removals=(*OUT, silent))
    ours, theirs = case.dispute.guilts()
    assert isinstance(ours.charge, Equivocation) and ours.removal == OUT[0]
    assert isinstance(theirs.charge, Ruled) and theirs.removal == silent


def test_bytes_that_a_decision_needs_are_asked_for_until_they_are_here() -> None:
    """The union is complete and proves nothing: what its CLOSEs should say follows from tensors."""
    case = Case()
    aggregates = dict(case.attempt.aggregates)
    case.attempt.aggregates.clear()
    suspicion = signed_by(3, Suspect(case.attempt.slot(Phase.SUSPECT, 3), (), Phase.AGG, 4))
    every = (*case.attempt.transcript.everything(), suspicion)
    case.trigger = Trigger("nothing", every[:1])
    case.dispute.freeze(case.trigger)
    case.dispute.begin()
    for owner in range(PEERS):
        view = View(case.attempt.slot(Phase.VIEW, owner), (), every)
        case.dispute.take_view(Endorsed(signed_by(owner, view), ()))
    for _ in range(case.attempt.roster.faults + 1):
        case.dispute.round_over()
    assert suspicion in case.attempt.transcript.everything(), "what the others hold is ours now"
    asked = [each for each in case.out if isinstance(each, RequestBulk)]
    assert {each.key.owner for each in asked} == set(range(PEERS))
    case.dispute.decide()
    assert [each for each in case.out if isinstance(each, RequestBulk)] == asked, "nothing has come: not tried again"
    assert list(case.dispute.messages()) == [(decode_body(each.body), each) for each in every]
    case.attempt.aggregates.update(aggregates)
    case.dispute.decide()
    assert not case.said, "no rule matches: whoever lacks a CLOSE halts in the end"


def test_what_the_record_proves_goes_into_the_next_report() -> None:
    case = Case()
    assert case.dispute.proofs() == []
    for signed in case.trigger.messages:
        case.attempt.transcript.add(decode_body(signed.body), signed)
    assert len(case.dispute.proofs()) == 1


def test_whoever_joins_shows_the_certificate_and_passes_the_view_on() -> None:
    case = Case()
    case.dispute.join(case.trigger, case.view(4))
    assert case.dispute.begun and case.round.frozen and case.attempt.disputed
    assert case.dispute.views == (case.view(4).view,)
    (ours,) = (each.body for each in case.out if isinstance(each, Say))
    assert isinstance(ours, View) and set(case.trigger.messages) <= set(ours.messages)
    assert len(set(_bodies(ours.messages))) == len(ours.messages)
    assert len(case.dispute.proofs()) == 1, "what the view proves is part of our record now"


def _bodies(messages: Iterable[Signed]) -> list[bytes]:
    return [each.body for each in messages]


def test_four_outcomes_of_one_peer_are_kept_and_no_fifth() -> None:
    """PROTOCOL section 4: what a liar signs takes no more room than that, and a majority may hold any of the four."""
    case = Case()
    refused = [case.outcome(BAD, bytes([number]) * 32) for number in range(5)]
    assert refused == [None, None, None, None, "too_many_outcomes"]


def test_a_liar_that_fills_its_own_line_keeps_no_certificate_out() -> None:
    """What an honest peer acts on it passes on, the liar's OUTCOME among it."""
    case = Case()
    for number in range(MAX_OUTCOMES + 1):
        body = Outcome(case.attempt.slot(Phase.OUTCOME, BAD), (), bytes([number]) * 32, ())
        refused = case.dispute.take_outcome(body, signed_by(BAD, body), BAD)
        assert refused == (None if number < MAX_OUTCOMES else "too_many_outcomes")
    for by in (1, 2, 3, BAD):
        body = Outcome(case.attempt.slot(Phase.OUTCOME, by), (), None, ())
        assert case.dispute.take_outcome(body, signed_by(by, body), 1) is None
    assert case.dispute.resolved is not None


def test_the_timers_of_two_attempts_are_two() -> None:
    assert len({outcome_timer(*place) for place in ((1, 0), (1, 1), (2, 0))} - {round_timer(1, 0)}) == 3


def test_whoever_joins_says_so() -> None:
    case = Case()
    case.dispute.join(case.trigger, case.view(4))
    assert case.out[0] == Disputed(2, 0, case.trigger.cause)


@pytest.mark.parametrize(("by", "length"), [((), 1), ((3,), 2), ((3, 4), 0)], ids=["its owner", "two", "one twice"])
def test_how_many_have_signed_a_view_before_the_rounds_begin(by: tuple[int, ...], length: int) -> None:
    case = Case()
    assert case.dispute.proven_chain(endorsed(case.view(4).view, *by), 4) == length
