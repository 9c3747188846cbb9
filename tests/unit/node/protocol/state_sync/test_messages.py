"""What a peer that comes back is told: a whole step or none, alike from all honest peers, with what a dispute added."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import msgspec
import pytest

from btard.node.errors import WireError
from btard.node.protocol.attempt.attempt import Attempt
from btard.node.protocol.state.state import State
from btard.node.protocol.state_sync.messages import (
    Past,
    Snapshot,
    after_dispute,
    by_phase,
    complete,
    decode_snapshot,
    snapshot_of,
)
from btard.node.protocol.wire.encoding import encode
from btard.node.protocol.wire.messages import Close, Commit, Held, Outcome, Phase, Removal, Signed, Suspect
from tests.protocol_attempts import PEERS, said
from tests.protocol_attempts import complete as complete_round
from tests.unit.node.protocol.test_peer import signed_by

BAD = 5
put = msgspec.structs.replace


def told() -> tuple[State, Attempt, Snapshot]:
    """The state before step 2, the attempt that led to it, and what a newcomer of step 2 is told."""
    round_ = complete_round()
    assert round_.past is not None
    return round_.attempt.state, round_.past, snapshot_of(round_.attempt.state, round_.past.record())


def test_a_newcomer_is_told_the_step_before_and_others_are_not() -> None:
    state, past, snapshot = told()
    assert snapshot_of(state, None) == Snapshot(snapshot.now)
    assert (snapshot.now.summary, snapshot.now.certificate) == (state.summary, state.certificate)
    assert snapshot.past is not None and snapshot.past.before is not None
    assert snapshot.past.before.summary == past.state.summary and snapshot.past.norms == state.norms.steps
    assert len(snapshot.past.messages) == PEERS * len(past.transcript.finished)


def test_before_step_1_there_is_no_certified_state() -> None:
    round_ = complete_round(step=1)
    assert round_.past is not None
    past = snapshot_of(round_.attempt.state, round_.past.record()).past
    assert past is not None and past.before is None


def test_all_honest_peers_say_the_same_word_of_one_state() -> None:
    """Each may hold other signatures, and other copies of a liar's messages."""
    _, _, snapshot = told()
    now, past = snapshot.now, snapshot.past
    assert past is not None
    alike = [
        put(snapshot, now=put(now, certificate=now.certificate[::-1])),
        put(snapshot, past=put(past, messages=past.messages[1:])),
        put(snapshot, past=put(past, norms=())),
    ]
    assert {each.word for each in alike} == {snapshot.word}
    others = [
        Snapshot(now),
        put(snapshot, past=put(past, number=1)),
        put(snapshot, past=put(past, before=None)),
        put(snapshot, now=put(now, summary=put(now.summary, r=bytes(32)))),
    ]
    assert len({each.word for each in (snapshot, *others)}) == 1 + len(others)


# --- a whole step -----------------------------------------------------------------------------------------------------


def extra(message: Callable[[Attempt], Signed]) -> Callable[[Past, Attempt], Past]:
    return lambda past, attempt: put(past, messages=(*past.messages, message(attempt)))


def of_phase(past: Past, phase: Phase, attempt: Attempt) -> set[Signed]:
    return set(attempt.transcript.signed(phase).values())


def without_phase(phase: Phase) -> Callable[[Past, Attempt], Past]:
    def change(past: Past, attempt: Attempt) -> Past:
        out = of_phase(past, phase, attempt)
        return put(past, messages=tuple(each for each in past.messages if each not in out))

    return change


TOLD: list[tuple[str, Callable[[Past, Attempt], Past], bool]] = [
    ("all of it", lambda p, a: p, True),
    ("in another order", lambda p, a: put(p, messages=p.messages[::-1]), True),
    ("nothing", lambda p, a: put(p, messages=()), False),
    ("one message too few", lambda p, a: put(p, messages=p.messages[1:]), False),
    ("one message twice", lambda p, a: put(p, messages=(*p.messages, p.messages[0])), False),
    ("one peer's in another's place", lambda p, a: put(p, messages=(p.messages[1], *p.messages[1:])), False),
    (
        "two messages for one slot",
        extra(lambda a: signed_by(BAD, put(said(a, Commit, BAD), randomness=bytes(32)))),
        False,
    ),
    ("a suspicion", extra(lambda a: signed_by(1, Suspect(a.slot(Phase.SUSPECT, 1), (), Phase.AGG, BAD))), False),
    ("a CLOSE", extra(lambda a: a.transcript.signed(Phase.CLOSE)[1]), False),
    (
        "a false signature",
        lambda p, a: put(p, messages=(put(p.messages[0], signature=bytes(64)), *p.messages[1:])),
        False,
    ),
    ("of another attempt", lambda p, a: put(p, number=1), False),
    ("more than there can be", lambda p, a: put(p, messages=p.messages * 3), False),
    ("a phase that it did not have", extra(lambda a: signed_by(1, Held(a.slot(Phase.HELD, 1), (), ()))), False),
    ("a whole phase too few", without_phase(Phase.REPORT), True),
]
"""A phase too few is found by the digest of the transcript, which the certified state names."""


@pytest.mark.parametrize(("change", "holds"), [row[1:] for row in TOLD], ids=[row[0] for row in TOLD])
def test_what_is_told_of_a_step_is_all_of_it(change: Callable[[Past, Attempt], Past], holds: bool) -> None:
    _, attempt, snapshot = told()
    assert snapshot.past is not None
    changed = change(snapshot.past, attempt)
    assert complete(changed, attempt.settings, attempt.roster, attempt.step, attempt.tools.verify) is holds
    assert not complete(changed, attempt.settings, attempt.roster, attempt.step + 1, attempt.tools.verify)
    assert not complete(changed, attempt.settings, attempt.roster.without((BAD,)), attempt.step, attempt.tools.verify)


def test_the_phases_of_messages_are_told_apart_whatever_their_order() -> None:
    _, attempt, snapshot = told()
    assert snapshot.past is not None
    found = by_phase(snapshot.past.messages[::-1])
    assert tuple(found) == attempt.transcript.finished
    assert all(set(said) == set(attempt.transcript.signed(phase).values()) for phase, said in found.items())
    assert by_phase(()) == {}


# --- what a dispute adds ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("removals", "active"),
    [((), (0, 1, 2, 3, 4, 5)), ((BAD,), (0, 1, 2, 3, 4)), ((BAD, 3), (0, 1, 2, 4))],
    ids=["nobody", "one", "two"],
)
def test_removals_of_the_outcomes_come_on_top_of_the_state(removals: tuple[int, ...], active: tuple[int, ...]) -> None:
    state, past, _ = told()
    end = tuple(Removal(peer, "silent", None) for peer in removals)
    outcomes = tuple(
        signed_by(by, Outcome(past.slot(Phase.OUTCOME, by), (), state.summary.digest, end)) for by in range(4)
    )
    after = after_dispute(replace(state, certificate=outcomes))
    assert after.roster.active == active
    assert [(ban.step, ban.attempt, ban.peer, ban.removed) for ban in after.bans] == [
        (past.step, past.number, peer, True) for peer in removals
    ]


def test_who_is_out_already_is_not_removed_again() -> None:
    state, past, _ = told()
    state = state.punished(past.step, past.number, (Removal(BAD, "gradient", 1),), reform=False)
    end = (Removal(BAD, "silent", None),)
    outcomes = (signed_by(0, Outcome(past.slot(Phase.OUTCOME, 0), (), b"s", end)),)
    state = replace(state, certificate=outcomes)
    assert after_dispute(state) is not state and after_dispute(state).bans == state.bans


def test_closes_add_nothing() -> None:
    state, past, _ = told()
    assert after_dispute(state) is state
    assert all(isinstance(said(past, Close, peer), Close) for peer in range(PEERS))


NO_SNAPSHOT: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda data: b"",
    "no encoding": lambda data: b"\xc1",
    "something else": lambda data: encode((1, 2, 3)),
    "a byte less": lambda data: data[:-1],
    "a byte more": lambda data: data + b"\x00",
}


@pytest.mark.parametrize("name", NO_SNAPSHOT)
def test_bytes_that_are_no_snapshot(name: str) -> None:
    _, _, snapshot = told()
    data = encode(snapshot)
    assert decode_snapshot(data) == snapshot
    with pytest.raises(WireError, match="snapshot"):
        decode_snapshot(NO_SNAPSHOT[name](data))
