"""From one attempt to the next: how long its peers may be in coming to it."""

from __future__ import annotations

import pytest

from btard.node.protocol.attempt.deadlines import Watch, outcome_s
from btard.node.protocol.attempt.handshake import Greeting
from btard.node.protocol.attempt.lifecycle import AttemptLifecycle
from btard.node.protocol.peer import Peer
from tests.protocol_attempts import replace_state, stopped


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
