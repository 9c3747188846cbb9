"""What a peer holds before it has heard anybody, whom it tells what ended the attempt before, and how it halts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from btard.node.protocol.api.events import Dropped, Forward
from btard.node.protocol.api.notices import Halted
from btard.node.protocol.peer import Peer
from btard.node.protocol.peer_state import PeerState
from btard.node.protocol.state.state import genesis_randomness
from btard.node.protocol.state_sync.client import StateSyncClient
from btard.node.protocol.wire.messages import Phase
from tests.protocol_attempts import PEERS, six, stopped

ME = 0
OTHERS = (1, 2, 3, 4, 5)


def at(step: int, phase: str) -> Peer:
    """Peer 0 when it has just entered a phase."""
    stage, _ = stopped(step, phase)
    return stage.simulation.nodes[ME].peer


def fresh(node: int = ME) -> PeerState:
    return six().simulation.nodes[node].peer


def test_all_peers_begin_with_the_same_state() -> None:
    mine, theirs = fresh(), fresh(4)
    assert mine.state.summarise(b"").digest == theirs.state.summarise(b"").digest
    assert (mine.state.step, mine.state.summary.r) == (0, genesis_randomness(mine.settings.data_seed))
    assert mine.state.roster.active == tuple(range(PEERS))
    assert (mine.past, mine.attempt, mine.stopped, mine.comes_back) == (None, None, False, False)
    assert mine._before.closed and not mine._silent()


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


def test_the_silent_ones_of_a_phase() -> None:
    peer = at(1, "AGG")
    assert peer._round is not None
    missing = peer._round.attempt.transcript.missing(Phase.AGG)
    assert peer._silent() == list(missing) != []


@pytest.mark.parametrize("phase", ["COMMIT", "AGG"])
def test_what_ended_the_attempt_before_goes_to_all_until_all_have_spoken(phase: str) -> None:
    peer = at(1, phase)
    peer._out.clear()
    peer._forward_certificate()
    certificate = peer.past.transcript.signed(Phase.CLOSE).values() if peer.past is not None else ()
    assert peer._out == ([Forward(OTHERS, tuple(peer._certificate))] if phase == "COMMIT" else [])
    assert set(peer._certificate) == set(certificate) and len(peer._certificate) == PEERS


def test_before_anything_has_ended_nothing_is_passed_on() -> None:
    peer = fresh()
    peer._forward_certificate()
    assert peer._out == []


def test_the_step_is_the_one_that_a_peer_on_its_way_back_fetches() -> None:
    peer = at(2, "AGG")
    assert peer._step == 2
    later = peer.state.with_facts(step=7)
    peer._candidate = StateSyncClient(peer.settings, peer.tools, ME, b"seed", later, [])
    assert peer._step == 2, "we are in an attempt"
    peer._round = None
    assert peer._step == 7


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
    machine._out.clear()
    machine._halt(peer, "does not answer")
    assert machine._out == [Halted(1, "AGG", peer, problem)] and machine.stopped


def test_a_halt_before_the_first_attempt_is_one_of_the_greeting() -> None:
    peer = fresh()
    peer._halt(2, "is silent")
    assert peer._out == [Halted(0, "HELLO", 2, "step 0, phase HELLO: peer 2 is silent")]


def test_what_is_dropped_is_counted_by_its_line() -> None:
    peer = fresh()
    peer._drop(4, "late")
    peer._drop(None, "late")
    assert peer._out == [Dropped(4, "late"), Dropped(None, "late")]
