"""From one attempt to the next: how long its peers may be in coming to it, and which end of it a peer follows."""

from __future__ import annotations

import pytest

from btard.node.protocol.api import Committed, Halted, MessageArrived, Output
from btard.node.protocol.attempt.deadlines import Watch, outcome_s
from btard.node.protocol.attempt.handshake import Greeting
from btard.node.protocol.attempt.lifecycle import AttemptLifecycle
from btard.node.protocol.peer import Peer
from btard.node.protocol.wire.messages import Close, Outcome, Phase, Removal
from tests.protocol_attempts import replace_state, stopped
from tests.unit.node.protocol.test_peer import signed_by


def in_step_1() -> Peer:
    stage, _ = stopped(1, "AGG")
    return stage.simulation.nodes[0].peer


def test_the_first_attempt_is_patient_with_those_that_could_not_be_greeted() -> None:
    peer = stopped(0, "CLOSE")[0].simulation.nodes[0].peer
    attempt = peer.attempt
    assert attempt is not None
    assert peer.lifecycle.patience_s(attempt) == 0.0, "all have greeted"
    settings, nobody = peer.shared.settings, Greeting(peer.shared.settings, attempt.roster)
    lifecycle = AttemptLifecycle(peer.shared, peer.router, nobody, peer.sync_server, Watch())
    assert lifecycle.patience_s(attempt) == outcome_s(settings)
    attempt.number = 1
    assert lifecycle.patience_s(attempt) == 0.0


@pytest.mark.parametrize(("since", "waits"), [(0, False), (1, True), (2, False)])
def test_others_wait_where_somebody_is_let_back_with_this_very_step(since: int, waits: bool) -> None:
    peer = in_step_1()
    attempt = peer.attempt
    assert attempt is not None
    replace_state(attempt, returned=((4, 0), (3, since)))
    assert (peer.lifecycle.patience_s(attempt) > 0.0) is waits


@pytest.mark.parametrize("ours", [True, False], ids=["as we would", "otherwise"])
def test_an_end_that_a_majority_gives_to_another_state_is_not_ours(ours: bool) -> None:
    """Whoever comes to another state by what it holds has been cut off, and must not go on from it."""
    stage, round_ = stopped(1, "CLOSE")
    peer, attempt = stage.simulation.nodes[0].peer, round_.attempt
    for signed in [signed_by(0, round_._close())]:
        peer.handle(MessageArrived(None, signed))
    (close,) = attempt.transcript.of(Close, Phase.CLOSE).values()
    value = close.value if ours else b"o" * 32
    told: list[Output] = []
    for by in (1, 2, 3, 4):
        body = Outcome(attempt.slot(Phase.OUTCOME, by), (), value, (Removal(5, "silent", None),))
        told += peer.handle(MessageArrived(by, signed_by(by, body)))
    assert any(isinstance(each, Committed) for each in told) is ours
    halts = [each for each in told if isinstance(each, Halted)]
    assert bool(halts) is not ours and all("was cut off" in each.problem for each in halts)
