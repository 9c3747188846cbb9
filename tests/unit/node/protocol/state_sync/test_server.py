"""What an active peer tells, sends and keeps for peers that come back, and to whom it does not listen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import msgspec
import pytest
import torch

from btard.node.protocol.api import (
    BulkKey,
    BulkKind,
    BulkRequested,
    Dropped,
    Input,
    MessageArrived,
    Output,
    SendBulk,
    SendSnapshot,
    TranscriptRequested,
)
from btard.node.protocol.attempt.attempt import Attempt
from btard.node.protocol.state.state import State
from btard.node.protocol.state_sync.messages import snapshot_of
from btard.node.protocol.state_sync.probation import join_slot
from btard.node.protocol.state_sync.server import StateSyncServer
from btard.node.protocol.wire.encoding import encode_signed
from btard.node.protocol.wire.messages import Commit, Hello, Join, Phase, Removal, Signed
from tests.protocol_attempts import complete, said
from tests.unit.node.protocol.test_peer import signed_by

GONE, BANNED, ACTIVE = 5, 4, 0
PROBATION = 2


class Case:
    """An active peer before step 2, after peer 5 was silent and peer 4 lied in step 1."""

    def __init__(self) -> None:
        round_ = complete()
        assert round_.past is not None
        self.attempt, self.past, self.out = round_.attempt, round_.past, list[Output]()
        self.settings = replace(self.attempt.settings, probation=PROBATION)
        self.keys = self.attempt.roster.keys
        removals = (Removal(BANNED, "gradient", 1), Removal(GONE, "silent", None))
        state = self.attempt.state.punished(1, 0, removals, reform=False)
        self.state = replace(state, summary=state.summarise(self.past.transcript.digest))
        self.server = StateSyncServer(self.settings, self.attempt.tools, self.out)

    def hears(self, event: Input, state: State | None = None) -> bool:
        return self.server.hears(event, state or self.state, self.past)

    def took(self) -> list[Output]:
        taken = list(self.out)
        self.out.clear()
        return taken

    @property
    def welcome(self) -> State:
        """The same state, if it lets peer 5 back."""
        roster = replace(self.state.roster, active=(0, 1, 2, 3, GONE))
        return replace(self.state, roster=roster).with_facts(returned=((GONE, 2),))

    def later(self, step: int) -> State:
        state = self.state.with_facts(step=step)
        return replace(state, summary=state.summarise(b"t"))

    def join(self, step: int, gradient: bytes = bytes(32)) -> Signed:
        return signed_by(GONE, Join(join_slot(self.settings, self.attempt.roster, step, GONE), (), gradient))

    def hello(self, sender: int) -> Signed:
        slot = msgspec.structs.replace(self.join_slot_of(sender), phase=Phase.HELLO, step=0)
        return Signed(msgspec.msgpack.encode(Hello(slot, (), self.settings.run, b"")), b"")

    def join_slot_of(self, sender: int):  # type: ignore[no-untyped-def]
        return join_slot(self.settings, self.attempt.roster, 2, sender)


@pytest.fixture
def case() -> Case:
    return Case()


STATE_KEY = BulkKey(2, 0, BulkKind.STATE, 0, 0)
HEARD: list[tuple[str, Callable[[Case], Input], bool]] = [
    ("a question of one that is gone", lambda c: TranscriptRequested(GONE, 1, 0), True),
    ("a question of a banned one", lambda c: TranscriptRequested(BANNED, 1, 0), False),
    ("a question of an active one", lambda c: TranscriptRequested(ACTIVE, 1, 0), False),
    ("a JOIN", lambda c: MessageArrived(GONE, c.join(2)), True),
    ("a JOIN over another's line", lambda c: MessageArrived(ACTIVE, c.join(2)), False),
    ("a JOIN over a banned one's line", lambda c: MessageArrived(BANNED, c.join(2)), False),
    ("a JOIN of our own", lambda c: MessageArrived(None, c.join(2)), False),
    ("a greeting", lambda c: MessageArrived(GONE, c.hello(GONE)), True),
    ("another's greeting", lambda c: MessageArrived(GONE, c.hello(ACTIVE)), False),
    ("a COMMIT", lambda c: MessageArrived(GONE, signed_by(GONE, said(c.attempt, Commit, GONE))), False),
    ("no message", lambda c: MessageArrived(GONE, Signed(b"\xc1", b"")), False),
    ("an endless message", lambda c: MessageArrived(GONE, Signed(bytes(1 << 20), b"")), False),
    ("a request for the state", lambda c: BulkRequested(GONE, STATE_KEY), True),
    ("a request for a part", lambda c: BulkRequested(GONE, BulkKey(2, 0, BulkKind.PART, 0, 0)), False),
]


@pytest.mark.parametrize(("event", "heard"), [row[1:] for row in HEARD], ids=[row[0] for row in HEARD])
def test_whose_business_it_is(case: Case, event: Callable[[Case], Input], heard: bool) -> None:
    assert case.hears(event(case)) is heard
    assert heard or not case.out


def test_without_probation_who_is_gone_is_told_the_state_and_sent_the_final_one_alone() -> None:
    case = Case()
    out: list[Output] = []
    settings = replace(case.settings, probation=0)
    server = StateSyncServer(settings, case.attempt.tools, out)
    assert server.hears(TranscriptRequested(GONE, 0, 0), case.state, case.past)
    assert not server.hears(MessageArrived(GONE, case.join(2)), case.state, case.past)
    server.hears(BulkRequested(GONE, STATE_KEY), case.state, case.past)
    assert out == [SendSnapshot((GONE,), snapshot_of(case.state, None)), Dropped(GONE, "unserved_request")]

    out.clear()
    final = case.later(settings.steps + 1)
    key = msgspec.structs.replace(STATE_KEY, step=final.step)
    for _ in range(2):  # it may be killed before it has kept what it was sent
        assert server.hears(TranscriptRequested(GONE, 0, 0), final, case.past)
        server.hears(BulkRequested(GONE, key), final, case.past)
        server.hears(BulkRequested(GONE, key), final, case.past)
    told = SendSnapshot((GONE,), snapshot_of(final, None))
    sent = SendBulk(GONE, key, final.parameters_D)
    assert out == 2 * [told, sent, Dropped(GONE, "unserved_request")]
    assert not server.hears(TranscriptRequested(BANNED, 0, 0), final, case.past)


def test_who_knows_the_newest_state_waits_for_the_next(case: Case) -> None:
    assert case.hears(TranscriptRequested(GONE, 2, 0)) and case.took() == []
    case.server.teach(case.later(3), case.past)
    assert case.took() == [SendSnapshot((GONE,), snapshot_of(case.later(3), None))]
    case.server.teach(case.later(4), case.past)
    assert case.took() == [], "it has to ask again"


def test_before_the_first_certified_state_there_is_nothing_to_tell(case: Case) -> None:
    assert case.hears(TranscriptRequested(GONE, -1, 0), case.state.with_facts(step=0))
    assert case.took() == []


def test_a_process_that_knows_nothing_any_more_is_told(case: Case) -> None:
    case.hears(MessageArrived(GONE, case.hello(GONE)))
    assert case.took() == [SendSnapshot((GONE,), snapshot_of(case.state, None))]


def test_whom_a_state_lets_back_is_told_the_step_before(case: Case) -> None:
    whole = SendSnapshot((GONE,), snapshot_of(case.welcome, case.past.record()))
    case.hears(TranscriptRequested(GONE, 2, 0))
    case.took()
    case.server.teach(case.welcome, case.past)
    assert case.took() == [whole], "once, although it waits too"
    assert case.hears(TranscriptRequested(GONE, 2, 0), case.welcome)
    assert case.took() == [whole]


def test_lessons_are_counted_whoever_begins(case: Case) -> None:
    most = 8 * (PROBATION + 1)
    for _ in range(most - 1):
        case.hears(TranscriptRequested(GONE, 1, 0))
    case.hears(TranscriptRequested(GONE, 2, 0))
    case.took()
    case.server.teach(case.later(3), case.past)
    assert len(case.took()) == 1
    case.hears(TranscriptRequested(GONE, 1, 0))
    case.hears(TranscriptRequested(GONE, 2, 0))
    assert case.took() == [Dropped(GONE, "asked_too_often")] * 2


SERVED: list[tuple[str, BulkKey, Callable[[Case], torch.Tensor] | None]] = [
    ("parameters", STATE_KEY, lambda c: c.state.parameters_D),
    ("the optimiser", BulkKey(2, 0, BulkKind.STATE, 0, 1), lambda c: c.state.optimiser_D),
    ("parameters before", BulkKey(1, 0, BulkKind.STATE, 0, 0), lambda c: c.past.state.parameters_D),
    ("parameters long before", BulkKey(0, 0, BulkKind.STATE, 0, 0), None),
    ("those to come", BulkKey(3, 0, BulkKind.STATE, 0, 0), None),
    ("a third vector", BulkKey(2, 0, BulkKind.STATE, 0, 2), None),
    ("the last of a list", BulkKey(2, 0, BulkKind.STATE, 0, -1), None),
    ("of another attempt", BulkKey(2, 1, BulkKind.STATE, 0, 0), None),
    ("of an owner", BulkKey(2, 0, BulkKind.STATE, 1, 0), None),
]


@pytest.mark.parametrize(("key", "values"), [row[1:] for row in SERVED], ids=[row[0] for row in SERVED])
def test_vectors_are_sent_once_to_each(case: Case, key: BulkKey, values: Callable[[Case], torch.Tensor] | None) -> None:
    assert case.hears(BulkRequested(GONE, key))
    (first,) = case.took()
    if values is None:
        assert first == Dropped(GONE, "unserved_request")
        return
    assert isinstance(first, SendBulk) and (first.to, first.key) == (GONE, key)
    assert first.values_P is values(case)
    case.hears(BulkRequested(GONE, key))
    case.hears(BulkRequested(BANNED, key))
    assert case.took() == [Dropped(GONE, "unserved_request"), Dropped(BANNED, "unserved_request")]


def test_an_optimiser_without_a_state_has_nothing_to_send(case: Case) -> None:
    state = replace(case.state, optimiser_D=torch.empty(0))
    case.hears(BulkRequested(GONE, BulkKey(2, 0, BulkKind.STATE, 0, 1)), state)
    assert case.took() == [Dropped(GONE, "unserved_request")]


def test_an_optimisers_state_may_be_longer_than_the_parameters(case: Case) -> None:
    state = replace(case.state, optimiser_D=torch.zeros(39))
    case.hears(BulkRequested(GONE, BulkKey(2, 0, BulkKind.STATE, 0, 1)), state)
    (sent,) = case.took()
    assert isinstance(sent, SendBulk) and sent.values_P is state.optimiser_D


def eligible(case: Case) -> Attempt:
    """The attempt at step 2, in which peer 5's JOINs count."""
    attempt = case.attempt
    attempt.settings, attempt.state = case.settings, case.state
    return attempt


def test_joins_of_the_step_before_go_into_the_report_and_are_forgotten_after(case: Case) -> None:
    before, now = case.join(1), case.join(2)
    for signed in (before, now):
        assert case.hears(MessageArrived(GONE, signed)) and case.took() == []
    assert case.server.holds(before) and not case.server.holds(Signed(before.body, before.signature))
    assert case.server.joins(eligible(case)) == (encode_signed(before),)
    case.server.teach(case.later(3), case.past)
    assert not case.server.holds(before) and case.server.holds(now)


def test_a_join_that_no_report_may_carry_stays_out_of_it(case: Case) -> None:
    case.hears(MessageArrived(GONE, case.join(1, b"short")))
    assert case.took() == [] and case.server.joins(eligible(case)) == ()


JOINS: list[tuple[str, Callable[[Case], Signed], str]] = [
    ("two steps before", lambda c: c.join(0), "wrong_slot"),
    ("of a step to come", lambda c: c.join(3), "wrong_slot"),
    ("in another's name", lambda c: signed_by(GONE, Join(c.join_slot_of(BANNED), (), bytes(32))), "wrong_slot"),
    ("with a prefix", lambda c: signed_by(GONE, Join(c.join_slot_of(GONE), (b"x",), bytes(32))), "wrong_slot"),
    ("by another's key", lambda c: signed_by(BANNED, Join(c.join_slot_of(GONE), (), bytes(32))), "bad_signature"),
]


@pytest.mark.parametrize(("made", "reason"), [row[1:] for row in JOINS], ids=[row[0] for row in JOINS])
def test_joins_that_are_none(case: Case, made: Callable[[Case], Signed], reason: str) -> None:
    signed = made(case)
    assert case.hears(MessageArrived(GONE, signed))
    assert case.took() == [Dropped(GONE, reason)] and not case.server.holds(signed)
    assert case.hears(MessageArrived(GONE, case.join(2))) and case.took() == [], "it costs its sender no place"
