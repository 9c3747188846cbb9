"""A peer on its way back: whom it believes, whom it asks for what, when it is let in and when it gives up."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
import torch

from btard.node.protocol.api import (
    BulkKey,
    BulkKind,
    CancelTimer,
    ComputeGradient,
    Dropped,
    GradientReady,
    Output,
    PhaseEntered,
    Purpose,
    RequestBulk,
    RequestTranscript,
    SetTimer,
)
from btard.node.protocol.attempt.attempt import Attempt
from btard.node.protocol.roster import Roster
from btard.node.protocol.state.state import Ban, Contribution, State
from btard.node.protocol.state_sync.client import ASK, PULL, StateSyncClient
from btard.node.protocol.state_sync.messages import Certified, Past, Snapshot, snapshot_of
from btard.node.protocol.wire.messages import Close, Phase, Slot
from tests.protocol_attempts import PEERS, complete
from tests.unit.node.protocol.test_peer import signed_by

ME = 5
put = msgspec.structs.replace
KEYS = tuple(BulkKey(2, 0, BulkKind.STATE, 0, part) for part in (0, 1))
GONE = Ban(1, 0, ME, "silent", None, True)
OTHERS = (0, 1, 2, 3, 4)


class Case:
    """Peer 5, which knows the genesis state, while the others are at step 2 of three."""

    def __init__(self, probation: int = 2) -> None:
        round_ = complete()
        assert round_.past is not None
        self.truth, self.past, self.out = round_.attempt.state, round_.past, list[Output]()
        self.settings = replace(round_.attempt.settings, probation=probation)
        genesis = Roster.genesis(self.truth.roster.keys)
        known = State.genesis(genesis, 0, torch.zeros(19), torch.zeros(19))
        self.client = StateSyncClient(self.settings, round_.attempt.tools, ME, b"secret", known, self.out)

    def lesson(self, past: bool = False, **changes: object) -> Snapshot:
        """The true state with changes, signed by all: by default it holds no place for peer 5."""
        changes = {"bans": (GONE,), "active": OTHERS, **changes}
        summary = put(self.truth.summary, **changes)
        where = (self.settings.run, Roster.genesis(self.truth.roster.keys).digest, summary.step - 1, 0)
        closes = (Close(Slot(*where, Phase.CLOSE, by), (), summary.digest) for by in range(PEERS))
        now = Certified(summary, tuple(signed_by(body.slot.sender, body) for body in closes))
        return Snapshot(now, snapshot_of(self.truth, self.past.record()).past if past else None)

    def welcome(self) -> Snapshot:
        """The state that lets peer 5 back, with the step before."""
        return self.lesson(past=True, active=tuple(range(PEERS)), returned=((ME, 2),))

    def learn(self, snapshot: Snapshot, *by: int) -> None:
        for via in by:
            self.client.learn(via, snapshot)

    def asked(self) -> list[tuple[int, BulkKey]]:
        return [(each.to, each.key) for each in self.out if isinstance(each, RequestBulk)]

    def fetch(self) -> None:
        """Both vectors of the state, from the peer that is asked."""
        for via, key in self.asked():
            self.client.take(via, key, (self.truth.parameters_D, self.truth.optimiser_D)[key.part])


@pytest.fixture
def case() -> Case:
    return Case()


# --- whom it believes -------------------------------------------------------------------------------------------------


def test_it_asks_all_others_and_again_after_a_while(case: Case) -> None:
    case.client.ask()
    asked, timer = case.out
    assert asked == RequestTranscript(OTHERS, 0, 0)
    assert isinstance(timer, SetTimer) and timer.name == ASK and timer.after_s > 0


@pytest.mark.parametrize("via", [ME, PEERS, -1], ids=["oneself", "a stranger", "a negative peer"])
def test_who_is_not_heard(case: Case, via: int) -> None:
    case.learn(case.lesson(), via, 0, 1)
    assert case.out == [Dropped(via, "old_lesson")] and not case.client.convinced


def test_a_state_that_is_no_news_is_old(case: Case) -> None:
    case.learn(case.lesson(step=0), 0)
    assert case.out == [Dropped(0, "old_lesson")]


def test_a_peer_has_one_word_at_a_time(case: Case) -> None:
    true, other = case.lesson(), case.lesson(r=bytes(32))
    case.learn(true, 0)
    case.learn(other, 0)
    case.learn(true, 1, 2)
    assert not case.client.convinced, "f + 1 have said it, but one has said otherwise since"
    case.learn(true, 3)
    assert case.client.convinced


def test_a_liars_copy_of_a_true_word_holds_nobody_up(case: Case) -> None:
    """Its certificate is cut, the states are told alike."""
    true = case.lesson()
    broken = put(true, now=put(true.now, certificate=true.now.certificate[:1]))
    case.learn(broken, 0, 1)
    case.learn(true, 2)
    assert case.client.convinced and case.asked() == [(0, KEYS[0]), (0, KEYS[1])]


def test_a_quorum_without_a_certificate_is_not_believed(case: Case) -> None:
    true = case.lesson()
    broken = put(true, now=put(true.now, certificate=true.now.certificate[:1]))
    case.learn(broken, 0, 1, 2)
    assert not case.client.convinced and case.out == [Dropped(2, "uncertified_lesson")]


def test_more_than_belongs_to_a_peer_on_probation_is_a_lie(case: Case) -> None:
    case.learn(case.lesson(past=True), 0, 1, 2)
    assert not case.client.convinced and case.out == [Dropped(2, "uncertified_lesson")]


# --- where it ends ----------------------------------------------------------------------------------------------------

LIED = Ban(1, 0, ME, "gradient", 0, True)
LATE = (put(GONE, step=3),)
ENDS: list[tuple[str, dict[str, object], int, bool, str | None]] = [
    ("gone", {}, 2, True, None),
    ("gone, without probation", {}, 0, True, "silent"),
    ("banned", {"bans": (LIED,)}, 2, True, "gradient"),
    ("gone, and banned since", {"bans": (GONE, LIED)}, 2, True, "gradient"),
    ("gone a second time", {"bans": (GONE, put(GONE, reason="edges")), "returned": ((ME, 1),)}, 2, True, "edges"),
    ("after the last step", {"step": 4, "bans": LATE}, 2, True, None),
    ("after the last step, without probation", {"step": 4, "bans": LATE}, 0, True, None),
    (
        "after the last step, where more is undone",
        {"step": 4, "bans": LATE, "undo": (Contribution(1, 0, 2),)},
        0,
        True,
        "silent",
    ),
    ("banned, after the last step", {"step": 4, "bans": (put(LIED, step=3),)}, 2, True, "gradient"),
    ("at the last step", {"step": 3, "bans": (put(GONE, step=2),)}, 2, True, None),
    ("in, and only late", {"bans": (), "active": tuple(range(PEERS))}, 2, False, None),
]


@pytest.mark.parametrize(
    ("changes", "probation", "convinced", "ended"), [row[1:] for row in ENDS], ids=[row[0] for row in ENDS]
)
def test_what_a_state_means_for_it(
    changes: dict[str, object], probation: int, convinced: bool, ended: str | None
) -> None:
    case = Case(probation)
    case.learn(case.lesson(**changes), 0, 1, 2)
    assert (case.client.convinced, case.client.ended) == (convinced, ended)
    assert bool(case.asked()) is (convinced and ended is None)


@pytest.mark.parametrize("probation", [0, 2])
def test_the_final_state_is_fetched_and_ends_the_run(probation: int) -> None:
    case = Case(probation)
    final = case.lesson(step=4, bans=LATE)
    case.learn(final, 0, 1, 2)
    assert not case.client.finished
    case.fetch()
    state = case.client.state
    assert case.client.finished and state.certified == final.now
    assert torch.equal(state.parameters_D, case.truth.parameters_D)
    assert not [each for each in case.out if isinstance(each, ComputeGradient | PhaseEntered)], "there is no next step"


def test_after_five_silences_it_gives_up(case: Case) -> None:
    answers = [case.client.overdue(ASK) for _ in range(5)]
    assert answers[:4] == [None] * 4 and answers[4] is not None
    assert len([each for each in case.out if isinstance(each, RequestTranscript)]) == 4


def test_who_may_not_come_back_ends_as_it_knows_it_must() -> None:
    case = Case(0)
    case.client.barred = "silent"
    assert [case.client.overdue(ASK) for _ in range(5)] == [None] * 5
    assert case.client.ended == "silent"


def test_a_new_state_is_worth_new_patience(case: Case) -> None:
    for _ in range(4):
        case.client.overdue(ASK)
    case.learn(case.lesson(), 0, 1, 2)
    assert [case.client.overdue(PULL) for _ in range(4)] == [None] * 4
    assert case.client.overdue(PULL) is not None


# --- whom it asks -----------------------------------------------------------------------------------------------------


def test_sources_are_asked_in_turn_round_and_round(case: Case) -> None:
    true = case.lesson()
    case.learn(true, 0, 1, 2)
    case.learn(true, 4, 4)
    for _ in range(4):
        case.client.overdue(PULL)
    assert [via for via, key in case.asked() if key == KEYS[0]] == [0, 1, 2, 4, 0]


def test_what_is_here_is_not_asked_for_again(case: Case) -> None:
    case.learn(case.lesson(), 0, 1, 2)
    case.client.take(0, KEYS[0], case.truth.parameters_D)
    assert not case.client.expects(0, KEYS[0], 19)
    case.client.overdue(PULL)
    assert case.asked()[2:] == [(1, KEYS[1])]


def test_a_tensor_counts_if_it_was_asked_for_and_is_the_one(case: Case) -> None:
    case.learn(case.lesson(), 0, 1, 2)
    case.out.clear()
    for via, key, values_D in (
        (1, KEYS[0], case.truth.parameters_D),
        (0, KEYS[0], torch.zeros(18)),
        (0, BulkKey(3, 0, BulkKind.STATE, 0, 0), torch.zeros(19)),
    ):
        case.client.take(via, key, values_D)
        assert case.out.pop() == Dropped(via, "unexpected_bulk")
    case.client.take(0, KEYS[0], case.truth.parameters_D + 1.0)
    assert case.out == [Dropped(0, "bulk_digest"), RequestBulk(1, KEYS[0])]
    assert case.client.state.step == 0


def test_a_newer_state_takes_the_place_of_one_that_is_on_its_way(case: Case) -> None:
    case.learn(case.lesson(), 0, 1, 2)
    newer = case.lesson(step=3, bans=(put(GONE, step=2),))
    case.learn(newer, 1, 2)
    assert case.client.step == 2
    case.learn(newer, 3)
    assert case.client.step == 3
    assert case.asked()[-1] == (1, BulkKey(3, 0, BulkKind.STATE, 0, 1))
    assert not case.client.expects(0, KEYS[0], 19)


def test_with_everything_here_it_computes_its_gradient(case: Case) -> None:
    case.learn(case.lesson(), 0, 1, 2)
    case.fetch()
    state = case.client.state
    assert (state.step, state.roster.active, state.bans) == (2, OTHERS, (GONE,))
    assert torch.equal(state.parameters_D, case.truth.parameters_D)
    assert {each.name for each in case.out if isinstance(each, CancelTimer)} == {PULL, ASK}
    entered = case.out.index(PhaseEntered(2, 0, "JOIN"))
    wanted, *asked = case.out[entered + 1 :]
    assert isinstance(wanted, ComputeGradient)
    assert (wanted.purpose, wanted.step, wanted.peer) == (Purpose.OWN, 2, ME)
    assert asked[0] == RequestTranscript(OTHERS, 2, 0), "for the next state"
    for purpose, step in ((Purpose.VALIDATE, 2), (Purpose.OWN, 1)):
        case.client.computed(GradientReady(purpose, step, ME, torch.zeros(19), 0.0))
        assert case.out.pop() == Dropped(None, "unwanted_gradient")


def test_before_the_last_state_there_is_nothing_left_to_compute(case: Case) -> None:
    case.learn(case.lesson(step=3, bans=(put(GONE, step=2),)), 0, 1, 2)
    case.fetch()
    assert case.client.state.step == 3 and not [each for each in case.out if isinstance(each, ComputeGradient)]


# --- let in -----------------------------------------------------------------------------------------------------------


def test_whom_a_state_lets_in_goes_on_with_what_it_would_know_if_it_had_been_there(case: Case) -> None:
    case.learn(case.welcome(), 0, 1, 2)
    past = case.past
    held = dict(zip(KEYS, (case.truth.parameters_D, case.truth.optimiser_D), strict=True))
    for part, values in enumerate((past.state.parameters_D, past.state.optimiser_D)):
        held[BulkKey(1, 0, BulkKind.STATE, 0, part)] = values
    for part, owner in enumerate(past.aggregators):
        held[past.key(BulkKind.AGGREGATE, owner, part)] = past.aggregates[owner]
    asked = case.asked()
    assert {key for _, key in asked} == set(held)
    assert all({via for via, key in asked if key == each} == {0, 1, 2} for each in held), "from all: there is no time"
    for key, values in held.items():
        assert case.client.resumption is None
        case.client.take(0, key, values)
    found = case.client.resumption
    assert found is not None and found.past is not None
    assert (found.state.step, found.number, found.state.roster.active) == (2, 0, tuple(range(PEERS)))
    again = Attempt.of(found.past, past.settings, past.tools, ME, b"secret")
    assert found.state.norms == case.truth.norms and again.r == past.r
    assert found.past.aggregates == {owner: past.aggregates[owner] for owner in past.aggregators}
    assert torch.equal(found.past.state.parameters_D, past.state.parameters_D)


@pytest.mark.parametrize(("entries", "expected"), [(19, False), (39, True), (40, False)])
def test_an_optimisers_state_is_as_long_as_ones_own(case: Case, entries: int, expected: bool) -> None:
    case.client.state = replace(case.client.state, optimiser_D=torch.zeros(39))
    case.learn(case.lesson(), 0, 1, 2)
    (via, _), (_, optimiser) = case.asked()
    assert case.client.expects(via, optimiser, entries) == expected


def past_with(**fields: object) -> object:
    return lambda told: put(told, past=put(told.past, **fields))


LIES = [
    ("no step before", lambda told: put(told, past=None)),
    ("other norms", past_with(norms=((1.0,),))),
    ("no state before it", past_with(before=None)),
    ("another attempt", past_with(number=1)),
    ("no messages", past_with(messages=())),
    ("messages of fewer phases", lambda told: put(told, past=put(told.past, messages=told.past.messages[:PEERS]))),
    (
        "another state before it",
        lambda told: put(
            told, past=put(told.past, before=put(told.past.before, summary=put(told.past.before.summary, r=bytes(32))))
        ),
    ),
    ("the present state before it", lambda told: put(told, past=put(told.past, before=told.now))),
]


@pytest.mark.parametrize("change", [row[1] for row in LIES], ids=[row[0] for row in LIES])
def test_what_it_is_told_of_the_step_before_has_to_be_true(case: Case, change) -> None:  # type: ignore[no-untyped-def]
    false = change(case.welcome())
    assert false.past is None or isinstance(false.past, Past)
    case.learn(false, 0, 1, 2)
    assert not case.client.convinced and case.out == [Dropped(2, "uncertified_lesson")]
