"""What a peer holds before it has heard anybody, which evidence its REPORT carries on, and how it halts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from btard.node.protocol.api import Dropped, Halted
from btard.node.protocol.peer_state import PeerState
from btard.node.protocol.state.state import Ban, genesis_randomness
from btard.node.protocol.wire.messages import MAX_PROOFS
from tests.protocol_attempts import PEERS, six, stopped
from tests.unit.node.protocol.adjudication.test_judging import silent, two_words

ME = 0


def at(step: int, phase: str) -> PeerState:
    """What peer 0 holds when it has just entered a phase."""
    stage, _ = stopped(step, phase)
    return stage.simulation.nodes[ME].peer.shared


def fresh(node: int = ME) -> PeerState:
    return six().simulation.nodes[node].peer.shared


def test_all_peers_begin_with_the_same_state() -> None:
    mine, theirs = fresh(), fresh(4)
    assert mine.state.summarise(b"").digest == theirs.state.summarise(b"").digest
    assert (mine.state.step, mine.state.summary.r) == (0, genesis_randomness(mine.settings.data_seed))
    assert mine.state.roster.active == tuple(range(PEERS))
    assert (mine.past, mine.round, mine.stopped, mine.comes_back) == (None, None, False, False)
    assert (mine.out, mine.proofs, mine.certificate) == ([], [], ())


def test_a_signature_is_checked_once_by_each_peer_for_itself() -> None:
    calls = []

    def counting(public: bytes, message: bytes, signature: bytes) -> bool:
        calls.append(message)
        return True

    inner = fresh()
    tools = replace(inner.tools, verify=counting)
    made = [
        PeerState(inner.settings, tools, inner.state.roster, me, b"seed", inner.state.parameters_D) for me in (0, 1)
    ]
    for peer in (*made, *made):
        assert peer.tools.verify(bytes(32), b"message", bytes(64))
    assert calls == [b"message"] * 2


@pytest.mark.parametrize(
    ("peer", "problem"),
    [
        (3, "step 1, phase AGG: peer 3 does not answer"),
        (None, "step 1, phase AGG: does not answer"),
        (0, "step 1, phase AGG: peer 0 does not answer"),
    ],
    ids=["of one", "of nobody", "of peer 0"],
)
def test_a_halt_says_where_and_on_whose_account(peer: int | None, problem: str) -> None:
    machine = at(1, "AGG")
    machine.out.clear()
    machine.halt(peer, "does not answer")
    assert machine.out == [Halted(1, "AGG", peer, problem)] and machine.stopped


def test_a_halt_before_the_first_attempt_is_one_of_the_greeting() -> None:
    peer = fresh()
    peer.halt(2, "is silent")
    assert peer.out == [Halted(0, "HELLO", 2, "step 0, phase HELLO: peer 2 is silent")]


def test_what_is_dropped_is_counted_by_its_line() -> None:
    peer = fresh()
    peer.drop(4, "late")
    peer.drop(None, "late")
    assert peer.out == [Dropped(4, "late"), Dropped(None, "late")]


# --- evidence for a REPORT --------------------------------------------------------------------------------------------


def test_a_report_carries_one_piece_against_each_and_the_rest_waits() -> None:
    peer = at(1, "AGG")
    assert peer.round is not None
    attempt = peer.round.attempt
    pieces = [two_words(attempt, accused) for accused in (1, 2, 3, 4, 5)]
    again = two_words(attempt, 2, step=1)
    peer.proofs = [b"rubbish", pieces[0], pieces[1], again, *pieces[2:], pieces[0]]
    assert peer.take_proofs(attempt) == tuple(pieces[:MAX_PROOFS])
    assert peer.proofs == pieces[MAX_PROOFS:]
    assert peer.take_proofs(attempt) == tuple(pieces[MAX_PROOFS:])
    assert peer.take_proofs(attempt) == ()


def test_who_is_gone_answers_for_its_contradictions_when_it_is_back() -> None:
    peer = at(1, "AGG")
    assert peer.round is not None
    attempt = peer.round.attempt
    gone, here = two_words(attempt, 5), two_words(attempt, 4)
    peer.proofs = [gone, here, two_words(attempt, 5, step=1), silent(attempt, 5, step=0)]
    there, state = attempt.roster, attempt.state
    attempt.roster = there.without([5])
    attempt.state = replace(state, roster=attempt.roster, bans=(Ban(0, 0, 5, "silent", None, True),))
    assert peer.take_proofs(attempt) == (here,)
    assert peer.proofs == [gone]
    attempt.roster, attempt.state = there, state
    assert peer.take_proofs(attempt) == (gone,)
    assert peer.proofs == []


def test_what_convicts_nobody_any_more_is_forgotten() -> None:
    peer = at(1, "AGG")
    assert peer.round is not None
    attempt = peer.round.attempt
    last = silent(attempt, 4, step=0)
    peer.proofs = [two_words(attempt, 5), silent(attempt, 3, step=-1), last]
    attempt.roster = attempt.roster.without([5])
    assert peer.take_proofs(attempt) == (last,)
    assert peer.proofs == []
