"""Which messages count and in which order that is found out, how much is kept of what is early, and where each goes.

Signed messages and views of this attempt, and of none. Six, so f = 2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import msgspec
import pytest

from btard.node.crypto.keys import generate
from btard.node.crypto.signing import Signer
from btard.node.protocol.api import (
    CancelTimer,
    DeadlinePassed,
    Disputed,
    Dropped,
    Forward,
    MessageArrived,
    Output,
    PhaseEntered,
    RequestTranscript,
    Resolved,
    Say,
    SetTimer,
    Start,
    TranscriptRequested,
    ViewArrived,
)
from btard.node.protocol.attempt import deadlines
from btard.node.protocol.attempt.attempt import Attempt
from btard.node.protocol.disputes.previous_attempt import PreviousAttempt
from btard.node.protocol.peer import Peer
from btard.node.protocol.router import Admission, Place
from btard.node.protocol.wire.encoding import (
    decode_body,
    encode_body,
    encode_endorsed,
    encode_signed,
    endorsement_bytes,
)
from btard.node.protocol.wire.messages import (
    Body,
    Close,
    Commit,
    Endorsed,
    Hello,
    Outcome,
    Phase,
    Removal,
    Report,
    Signed,
    Slot,
    Suspect,
    View,
    Void,
    body_bytes,
    control_bytes,
    evidence_bytes,
    plain_bytes,
    view_bytes,
)
from tests.fuzz.arena import Arena
from tests.fuzz.scenes import ATTACKER, recorded
from tests.fuzz.scenes import PEERS as ARENA_PEERS
from tests.protocol_attempts import PEERS, said, stopped
from tests.unit.node.protocol.test_peer import fresh, signed_by

# --- admission ------------------------------------------------------------------------------------------------


DIGEST = bytes(32)


class Case:
    """An honest peer in the middle of a step, and what the attacker says there."""

    def __init__(self) -> None:
        self.arena = Arena(0, len(recorded(0)) // 2)
        peer = self.arena.node.peer
        assert peer.attempt is not None
        self.attempt, self.peer = peer.attempt, peer
        self.admission: Admission = peer.router.admission

    def slot(self, phase: Phase, **fields: object) -> Slot:
        return msgspec.structs.replace(self.attempt.slot(phase, ATTACKER), **fields)

    def signed(self, body: object) -> Signed:
        return self.arena.signed(body, ATTACKER)  # type: ignore[arg-type]

    def admit(self, signed: Signed) -> str | Place:
        found = self.admission.admit(
            signed, self.peer.shared.round, self.peer.router.previous.round, self.peer.state.step
        )
        return found if isinstance(found, str) else found[0]

    def tell(self, signed: Signed) -> list[Output]:
        return self.peer.handle(MessageArrived(ATTACKER, signed))


def commit(slot: Slot) -> Commit:
    return Commit(slot, (), (), DIGEST)


MESSAGES: dict[str, tuple[Callable[[Case], Signed], str | Place]] = {
    "current": (lambda case: case.signed(commit(case.slot(Phase.COMMIT))), Place.CURRENT),
    "next step": (
        lambda case: case.signed(commit(case.slot(Phase.COMMIT, step=case.attempt.step + 1))),
        Place.AHEAD,
    ),
    "next attempt": (lambda case: case.signed(commit(case.slot(Phase.COMMIT, attempt=1))), Place.AHEAD),
    "later still": (lambda case: case.signed(commit(case.slot(Phase.COMMIT, step=2**63))), "too_early"),
    "long ago": (lambda case: case.signed(commit(case.slot(Phase.COMMIT, step=-1))), "late"),
    "another run": (lambda case: case.signed(commit(case.slot(Phase.COMMIT, run=DIGEST))), "foreign_run"),
    "another roster": (lambda case: case.signed(commit(case.slot(Phase.COMMIT, roster=DIGEST))), "wrong_slot"),
    "nobody": (lambda case: case.signed(commit(case.slot(Phase.COMMIT, sender=ARENA_PEERS))), "unknown_sender"),
    "in another's name": (lambda case: case.signed(commit(case.slot(Phase.COMMIT, sender=1))), "bad_signature"),
    "unsigned": (lambda case: Signed(case.signed(commit(case.slot(Phase.COMMIT))).body, bytes(64)), "bad_signature"),
    "no body": (lambda case: Signed(b"\x93\x01\x02", bytes(64)), "malformed"),
    "type and phase": (lambda case: case.signed(commit(case.slot(Phase.CLOSE))), "malformed"),
    "large": (lambda case: case.signed(Close(case.slot(Phase.CLOSE), (), bytes(5000))), "oversized"),
    "huge": (lambda case: Signed(bytes(view_bytes(ARENA_PEERS) + 1), bytes(64)), "oversized"),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_admission(name: str) -> None:
    case = Case()
    make, place = MESSAGES[name]
    assert case.admit(make(case)) == place


def test_a_large_message_is_no_trigger_since_nobody_could_pass_it_on() -> None:
    """A VOID with a reason of a megabyte would make every honest view too large to send."""
    case = Case()
    reason = "x" * (1 << 20)
    outputs = case.tell(case.signed(Close(case.slot(Phase.CLOSE), (), Void((Removal(1, reason, None),)))))
    assert outputs == [Dropped(ATTACKER, "oversized")]


def test_what_is_ahead_is_kept_within_bounds() -> None:
    case = Case()
    for number in range(200):
        slot = case.slot(Phase.COMMIT, step=case.attempt.step + 1)
        case.tell(case.signed(Commit(slot, (), (), number.to_bytes(32, "big"))))
        view = View(case.slot(Phase.VIEW, attempt=1), (), (Signed(number.to_bytes(4, "big"), b""),))
        case.peer.handle(ViewArrived(ATTACKER, Endorsed(case.signed(view), ())))
        for named in (Phase.AGG, Phase.CLOSE):
            suspect = Suspect(case.slot(Phase.SUSPECT, attempt=1), (), named, number % 3)
            case.tell(case.signed(suspect))
    assert len(case.admission.release()) <= 2 * 2 + 2 * 2 + 2 * ARENA_PEERS


def test_what_fills_one_attempt_ahead_leaves_room_in_the_other() -> None:
    case = Case()

    def shown(number: int, **place: int) -> list[str]:
        view = View(case.slot(Phase.VIEW, **place), (), (Signed(number.to_bytes(4, "big"), b""),))
        outputs = case.peer.handle(ViewArrived(ATTACKER, Endorsed(case.signed(view), ())))
        return [output.reason for output in outputs if isinstance(output, Dropped)]

    told = [shown(number, step=case.attempt.step + 1) for number in range(3)]
    assert told == [[], [], ["too_many_ahead"]]
    assert [shown(number, attempt=1) for number in range(3)] == told


def test_views_that_prove_nothing_are_looked_into_twice_at_most() -> None:
    case = Case()
    reasons = []
    for number in range(20):
        content = (Signed(number.to_bytes(4, "big"), b""),)
        view = View(case.slot(Phase.VIEW), (), content)
        outputs = case.peer.handle(ViewArrived(ATTACKER, Endorsed(case.signed(view), ())))
        assert not any(isinstance(output, Disputed) for output in outputs)
        reasons += [output.reason for output in outputs if isinstance(output, Dropped)]
    assert reasons.count("malformed") == 2
    assert reasons.count("too_many_views") == 18


def test_one_peer_is_no_majority_however_often_it_signs() -> None:
    """OUTCOMEs that say the same under prefixes that differ: each is another message, all are one vote."""
    case = Case()
    said = [Outcome(case.slot(Phase.OUTCOME), (), None, (Removal(1, "silent in AGG", None),))]
    said += [msgspec.structs.replace(said[0], prefix=(bytes([number]),)) for number in range(3)]
    outputs = [output for body in said for output in case.tell(case.signed(body))]
    assert not any(isinstance(output, Resolved) for output in outputs)
    assert case.peer.state.roster.active == tuple(range(ARENA_PEERS))


def test_a_removed_peer_is_not_listened_to() -> None:
    case = Case()
    state = case.peer.state
    case.peer.shared.state = replace(state, roster=state.roster.without([ATTACKER]))
    case.peer.shared.round, case.peer.router.previous = None, PreviousAttempt(case.peer.shared)
    assert case.tell(case.signed(commit(case.slot(Phase.COMMIT)))) == [Dropped(ATTACKER, "removed_line")]


@pytest.mark.parametrize("peers", [2, 4, 16, 64, 256])
def test_whatever_honest_peers_pass_on_fits_into_what_they_can_send(peers: int) -> None:
    slot = Slot(DIGEST, DIGEST, 2**31, 2**15, Phase.REPORT, peers - 1)
    prefix = (DIGEST,) * 12
    plain = Signed(bytes(plain_bytes(peers)), bytes(64))
    pair = len(encode_signed(plain)) * 2 + 8
    assert 4 * pair <= evidence_bytes(peers)
    report = Report(slot, prefix, (True,) * peers, (), (), (bytes(evidence_bytes(peers)),))
    assert len(msgspec.msgpack.encode(report)) <= body_bytes(Phase.REPORT, peers)
    void = Void(tuple(Removal(peer, "false_accusation", peer) for peer in range(peers)))
    close = Close(msgspec.structs.replace(slot, phase=Phase.CLOSE), prefix, void)
    assert len(msgspec.msgpack.encode(close)) <= body_bytes(Phase.CLOSE, peers)
    view = Signed(bytes(view_bytes(peers)), bytes(64))
    endorsed = Endorsed(view, tuple((peer, bytes(64)) for peer in range(peers)))
    assert len(encode_endorsed(endorsed)) <= control_bytes(peers)


# --- the router -----------------------------------------------------------------------------------------------


ME, BAD = 0, 5
OTHER = b"o" * 32


def at(step: int, phase: str) -> tuple[Peer, Attempt]:
    """Peer 0 when it has just entered a phase, and the attempt that it is in."""
    stage, round_ = stopped(step, phase)
    return stage.simulation.nodes[ME].peer, round_.attempt


def view(attempt: Attempt, owner: int, *messages: Signed) -> Signed:
    return signed_by(owner, View(attempt.slot(Phase.VIEW, owner), (), messages))


def endorsed(view: Signed, *by: int) -> Endorsed:
    """A view with its chain; each signs by the same keys as its messages."""
    keys = [Signer(bytes.fromhex(secret.signing_seed)) for secret in generate(0, PEERS)[1]]
    owner = decode_body(view.body).slot.sender
    chain = ((peer, keys[peer].sign(endorsement_bytes(view.body, owner, by[:place]))) for place, peer in enumerate(by))
    return Endorsed(view, tuple(chain))


def second(attempt: Attempt, peer: int = BAD) -> Signed:
    """Another COMMIT of a peer."""
    return signed_by(peer, msgspec.structs.replace(said(attempt, Commit, peer), randomness=OTHER))


def suspicion(attempt: Attempt, by: int, peer: int = BAD) -> Signed:
    return signed_by(by, Suspect(attempt.slot(Phase.SUSPECT, by), (), Phase.AGG, peer))


def found(outputs: list[Output], kind: type) -> list[Output]:
    return [output for output in outputs if isinstance(output, kind)]


# --- the attempt under way --------------------------------------------------------------------------------------------


def test_two_messages_for_one_slot_freeze_the_attempt_and_begin_the_rounds() -> None:
    peer, attempt = at(1, "AGG")
    outputs = peer.handle(MessageArrived(BAD, second(attempt)))
    assert found(outputs, Disputed) == [Disputed(1, 0, "peer 5 equivocates in COMMIT")]
    assert {each.name for each in outputs if isinstance(each, CancelTimer)} >= set(deadlines.OF_AN_ATTEMPT)
    (ours,) = (each.body for each in outputs if isinstance(each, Say))
    assert isinstance(ours, View) and second(attempt) in ours.messages
    assert peer.admitted
    again = peer.handle(MessageArrived(BAD, signed_by(BAD, _third(attempt))))
    assert not found(again, Disputed) and not peer.admitted


def _third(attempt: Attempt) -> Body:
    return msgspec.structs.replace(said(attempt, Commit, BAD), randomness=b"3" * 32)


def test_f_suspicions_begin_nothing_and_one_more_does() -> None:
    peer, attempt = at(1, "AGG")
    for by in (1, 2, 2):
        assert not found(peer.handle(MessageArrived(by, suspicion(attempt, by))), Disputed)
    assert found(peer.handle(MessageArrived(3, suspicion(attempt, 3))), Disputed) == [
        Disputed(1, 0, "peer 5 is silent in AGG")
    ]


VIEWS: list[tuple[str, Callable[[Attempt], Signed], int, list[str]]] = [
    ("what all know", lambda a: view(a, 4, *a.transcript.signed(Phase.COMMIT).values()), 0, []),
    ("a proof", lambda a: view(a, 4, second(a)), 1, []),
    ("an unsigned proof", lambda a: view(a, 4, Signed(second(a).body, bytes(64))), 0, ["bad_signature"]),
    (
        "a proof after an unsigned one",
        lambda a: view(a, 4, Signed(second(a).body, bytes(64)), second(a)),
        0,
        ["bad_signature"],
    ),
    ("a proof inside a view", lambda a: view(a, 4, view(a, 3, second(a))), 0, ["nested"]),
    (
        "an OUTCOME and a proof",
        lambda a: view(a, 4, signed_by(3, Outcome(a.slot(Phase.OUTCOME, 3), (), None, ())), second(a)),
        0,
        ["nested"],
    ),
]


@pytest.mark.parametrize(("made", "disputes", "dropped"), [row[1:] for row in VIEWS], ids=[row[0] for row in VIEWS])
def test_the_contents_of_a_view_are_news_like_any_other(
    made: Callable[[Attempt], Signed], disputes: int, dropped: list[str]
) -> None:
    peer, attempt = at(1, "AGG")
    outputs = peer.handle(ViewArrived(3, Endorsed(made(attempt), ())))
    assert len(found(outputs, Disputed)) == disputes
    assert [each.reason for each in outputs if isinstance(each, Dropped)] == dropped
    assert all(each.via == 3 for each in outputs if isinstance(each, Dropped)), "whoever passes it on answers for it"


def test_a_view_counts_once_whichever_way_it_comes() -> None:
    peer, attempt = at(1, "AGG")
    made = view(attempt, 4, second(attempt))
    assert found(peer.handle(MessageArrived(4, made)), Disputed)
    for via in (3, 4):
        assert peer.handle(ViewArrived(via, Endorsed(made, ()))) == [Dropped(via, "duplicate")]


def test_news_in_a_view_counts_although_the_view_does_not() -> None:
    peer, attempt = at(1, "AGG")
    unproven = Endorsed(view(attempt, 4, second(attempt)), ((2, bytes(64)),))
    outputs = peer.handle(ViewArrived(3, unproven))
    assert found(outputs, Disputed) and found(outputs, Dropped) == [Dropped(3, "bad_signature")]
    assert peer.admitted and peer.shared.dispute is not None and peer.shared.dispute.views == ()


def test_once_the_rounds_run_a_view_is_no_news() -> None:
    peer, attempt = at(1, "AGG")
    for number in (0, 1):
        peer.handle(ViewArrived(4, Endorsed(view(attempt, 4, second(attempt), *[second(attempt, 3)] * number), ())))
    assert (Phase.COMMIT, BAD) in attempt.transcript.conflicts
    assert (Phase.COMMIT, 3) not in attempt.transcript.conflicts, "the union of views decides, not what we have seen"
    third = view(attempt, 4, second(attempt, 2))
    assert peer.handle(ViewArrived(4, Endorsed(third, ()))) == [Dropped(4, "too_many_views")]
    assert not peer.admitted and (Phase.COMMIT, 2) not in attempt.transcript.conflicts


def test_one_message_of_each_closes_the_attempt_before() -> None:
    peer, everyone = at(1, "COMMIT")[0], at(1, "AGG")[1]
    for sender, signed in everyone.transcript.signed(Phase.COMMIT).items():
        if sender != ME:
            assert not peer.router.previous.closed
            peer.handle(MessageArrived(sender, signed))
    assert peer.router.previous.closed


REFUSED: list[tuple[str, Callable[[Attempt], Signed], str]] = [
    ("no view", lambda a: signed_by(4, said(a, Commit, 4)), "duplicate"),
    ("another message", lambda a: second(a, 4), "unexpected_view"),
    (
        "of another run",
        lambda a: signed_by(4, View(msgspec.structs.replace(a.slot(Phase.VIEW, 4), run=OTHER), (), ())),
        "foreign_run",
    ),
    ("unsigned", lambda a: Signed(view(a, 4).body, bytes(64)), "bad_signature"),
    ("no message at all", lambda a: Signed(b"\xc1", bytes(64)), "malformed"),
]


@pytest.mark.parametrize(("made", "reason"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_what_comes_as_a_view_and_is_none(made: Callable[[Attempt], Signed], reason: str) -> None:
    peer, attempt = at(1, "AGG")
    assert peer.handle(ViewArrived(4, Endorsed(made(attempt), ()))) == [Dropped(4, reason)]


def test_a_view_from_ahead_waits() -> None:
    peer, attempt = at(1, "AGG")
    slot = msgspec.structs.replace(attempt.slot(Phase.VIEW, 4), step=2)
    ahead = signed_by(4, View(slot, (), ()))
    assert peer.handle(ViewArrived(4, Endorsed(ahead, ()))) == []
    assert peer.router.admission.release() == (ahead,)


def test_a_majority_of_outcomes_resolves_what_this_peer_saw_nothing_of() -> None:
    peer, attempt = at(1, "AGG")
    outputs: list[Output] = []
    for by in (1, 2, 3, 4):
        assert not found(outputs, Resolved)
        body = Outcome(attempt.slot(Phase.OUTCOME, by), (), None, (Removal(BAD, "silent", None),))
        outputs += peer.handle(MessageArrived(by, signed_by(by, body)))
    assert found(outputs, Resolved) == [Resolved(1, 0, "retry", (BAD,))]
    assert PhaseEntered(1, 1, "COMMIT") in outputs and peer.state.roster.active == (0, 1, 2, 3, 4)


def test_the_step_is_the_one_that_a_peer_on_its_way_back_fetches() -> None:
    peer, _ = at(2, "AGG")
    shared, router = peer.shared, peer.router
    assert router.step == 2
    now, shared.state = shared.state, shared.state.with_facts(step=7)
    shared.client, shared.state = shared.new_client(), now
    assert router.step == 2, "we are in an attempt"
    shared.round = None
    assert router.step == 7


FORWARDED: dict[str, tuple[int, str, bool]] = {
    "passed on by another": (3, "duplicate", True),
    "from its sender": (4, "duplicate", False),
    "passed on, but signed by nobody": (3, "bad_signature", False),
}


@pytest.mark.parametrize("name", FORWARDED)
def test_a_close_of_the_attempt_before_starts_its_windows_if_another_passes_it_on(name: str) -> None:
    """So all honest peers begin them within D of each other, and a liar cannot by what nobody signed."""
    via, reason, starts = FORWARDED[name]
    peer, attempt = at(1, "COMMIT")
    assert peer.past is not None
    close = peer.past.transcript.signed(Phase.CLOSE)[4]
    if reason == "bad_signature":
        body = msgspec.structs.replace(decode_body(close.body), value=OTHER)
        close = Signed(encode_body(body), close.signature)
    outputs = peer.handle(MessageArrived(via, close))
    assert outputs[-1] == Dropped(via, reason)
    begun = [each for each in outputs if isinstance(each, SetTimer)]
    assert begun == [SetTimer(deadlines.BEFORE, 2.0 * attempt.settings.delivery_bound_s)] * starts
    assert peer.router.previous.passed_on is starts


# --- greetings --------------------------------------------------------------------------------------------------------


def hello(peer: Peer, sender: int) -> Signed:
    ours = peer.greeting.hello(ME)
    return signed_by(sender, msgspec.structs.replace(ours, slot=msgspec.structs.replace(ours.slot, sender=sender)))


@pytest.mark.parametrize(
    ("via", "begins"), [(3, False), (1, True), (None, False)], ids=["from its sender", "passed on", "from ahead"]
)
def test_a_greeting_that_another_passes_on_says_that_the_run_has_begun(via: int | None, begins: bool) -> None:
    """Two of six have not greeted: as many as may be silent."""
    peer = fresh()
    for sender in range(3):
        peer.handle(MessageArrived(sender, hello(peer, sender)))
    outputs = peer.handle(MessageArrived(via, hello(peer, 3)))
    assert (PhaseEntered(0, 0, "COMMIT") in outputs) is begins
    assert peer.admitted and not found(outputs, Dropped)


def test_a_greeting_of_another_run_begins_nothing() -> None:
    peer = fresh()
    for sender in range(4):
        peer.handle(MessageArrived(sender, hello(peer, sender)))
    body = Hello(peer.greeting.hello(4).slot, (), OTHER, peer.shared.settings.fingerprint)
    assert peer.handle(MessageArrived(1, signed_by(4, body))) == [Dropped(1, "late")]
    assert peer.attempt is None


def _commits() -> dict[int, Signed]:
    """What all say in step 0."""
    return at(0, "AGG")[1].transcript.signed(Phase.COMMIT)


def test_who_passes_greetings_on_after_the_start_is_told_once_by_which_the_run_began() -> None:
    peer = fresh()
    hellos = [hello(peer, sender) for sender in range(PEERS)]
    for sender, signed in enumerate(hellos):
        peer.handle(MessageArrived(sender, signed))
    for via, told in ((4, []), (1, [Forward((1, 2, 3, 4, 5), tuple(hellos))]), (1, [])):
        outputs = peer.handle(MessageArrived(via, hellos[4]))
        assert found(outputs, Forward) == told and outputs[-1] == Dropped(via, "late")


def test_who_was_away_when_the_run_began_asks_and_is_told_by_what_and_what_was_said() -> None:
    """It was killed before its first attempt: what was sent to it meanwhile is lost, and nobody sends it again."""
    away, peer = fresh(), fresh()
    away.handle(Start())
    assert away.handle(DeadlinePassed(deadlines.UNBEGUN)) == [RequestTranscript((1, 2, 3, 4, 5), 0, 0)]
    hellos = [hello(peer, sender) for sender in range(PEERS)]
    assert peer.handle(TranscriptRequested(4, 0, 0)) == [], "it has not begun here either"
    for sender, signed in enumerate(hellos):
        peer.handle(MessageArrived(sender, signed))
    first = _commits()[1]
    peer.handle(MessageArrived(1, first))
    told = peer.handle(TranscriptRequested(4, 0, 0))
    assert told == [Forward((4,), (first,)), Forward((4,), tuple(hellos))]


def test_each_attempt_may_be_asked_for_three_times() -> None:
    """Thrown back and started again, a peer asks for two of them, and again: it must not run out of answers."""
    peer, attempt = at(1, "COMMIT")
    asked = [(1, 0), (0, 0), (1, 0), (0, 0), (1, 0), (0, 0), (1, 0), (0, 0), (7, 3), (8, 3), (9, 3), (9, 4)]
    answered = [bool(found(peer.handle(TranscriptRequested(3, *place)), Forward)) for place in asked]
    assert answered == [True] * 6 + [False] * 2 + [True] * 3 + [False], "all that it does not know of are one"
    assert attempt.number == 0
