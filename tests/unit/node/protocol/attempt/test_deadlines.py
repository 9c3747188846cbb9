"""How long a peer waits in each phase, in numbers worked out by hand from PROTOCOL's formulas."""

from __future__ import annotations

from dataclasses import replace

import pytest

from btard.node.protocol.attempt.deadlines import (
    Deadline,
    Work,
    budget,
    deadline,
    dispute_round_s,
    fetching_s,
    laggards_s,
    outcome_s,
    settled_s,
)
from btard.node.protocol.attempt.phases import PHASES
from btard.node.protocol.settings import Settings
from btard.node.protocol.wire.messages import Phase

SETTINGS = Settings(
    run=bytes(32),
    fingerprint=b"",
    dimension=1000,
    steps=3,
    tau=1.0,
    validators=1,
    validate_every=1,
    delta_max=None,
    audit_share=0.1,
    reform=False,
    data_seed=0,
    delivery_bound_s=1.0,
    gradient_bound_s=10.0,
    minimum_rate=24_000.0,
    recompute_tolerance=0.0,
)
"""D = 1 s, T_g = 10 s; a vector from or to everyone among six takes 1 s."""

WAITS = {
    "COMMIT": (Phase.COMMIT, 0, 0, (0.0, 25.0), (0.0, 14.0)),
    "a gradient beside the loop": (Phase.AGG, 1, 0, (16.0, 41.0), (5.0, 9.0)),
    "nothing": (Phase.RESEND, 0, 0, (0.0, 15.0), (0.0, 4.0)),
    "a tensor": (Phase.REVEAL, 1, 0, (16.0, 31.0), (5.0, 9.0)),
    "REPORT": (Phase.REPORT, 0, 0, (0.0, 25.0), (0.0, 14.0)),
    "REPORT of an undo step": (Phase.REPORT, 0, 3, (0.0, 45.0), (0.0, 34.0)),
    "a phase beside the three of an undo step": (Phase.HELD, 1, 3, (16.0, 41.0), (5.0, 19.0)),
    "judging nothing": (Phase.CLOSE, 0, 0, (0.0, 15.0), (0.0, 4.0)),
    "judging one gradient": (Phase.CLOSE, 0, 1, (0.0, 25.0), (0.0, 14.0)),
    "judging three": (Phase.CLOSE, 0, 3, (0.0, 65.0), (0.0, 34.0)),
    "judging three and two vectors": (Phase.CLOSE, 2, 3, (37.0, 102.0), (6.0, 40.0)),
}


@pytest.mark.parametrize("name", WAITS)
def test_the_waits_of_a_phase(name: str) -> None:
    phase, tensors, recomputed, hard, patient = WAITS[name]
    work = PHASES[phase].work
    assert deadline(work, SETTINGS, 6, tensors, recomputed) == Deadline(*hard)
    assert budget(work, SETTINGS, 6, tensors, recomputed) == Deadline(*patient)


def test_tight_budgets_leave_the_deadlines_and_the_disputes_alone() -> None:
    tight = replace(SETTINGS, budget_delivery_s=0.25, budget_gradient_s=2.0)
    for phase in (Phase.COMMIT, Phase.REVEAL, Phase.CLOSE):
        work = PHASES[phase].work
        assert deadline(work, tight, 6, 1, 2) == deadline(work, SETTINGS, 6, 1, 2)
    assert budget(PHASES[Phase.COMMIT].work, tight, 6, 1, 0) == Deadline(2.0, 5.0)
    assert (laggards_s(SETTINGS), laggards_s(tight)) == (2.0, 0.5)
    for wait_s in (dispute_round_s, outcome_s):
        assert wait_s(tight) == wait_s(SETTINGS)


OTHER = {
    "a round of a dispute": (dispute_round_s(SETTINGS), 2.0),
    "a dispute that never starts": (outcome_s(SETTINGS), 26.0),
    "what an OUTCOME needs, seven vectors": (settled_s(SETTINGS, 6), 33.0),
    "a state, five vectors": (fetching_s(SETTINGS, 6), 7.0),
    "a state with Adam's moments, seven": (
        fetching_s(replace(SETTINGS, optimiser_entries=2 * SETTINGS.dimension), 6),
        9.0,
    ),
}


@pytest.mark.parametrize("name", OTHER)
def test_other_waits(name: str) -> None:
    found_s, expected_s = OTHER[name]
    assert found_s == pytest.approx(expected_s)


def test_an_honest_peer_that_enters_last_speaks_in_time() -> None:
    """It enters 2 D + T_g and a delivery after us, its bulk takes all its time, and so does its gradient."""
    for tensors in (0, 1, 5):
        for recomputed in (0, 1, 4):
            for computes in (0, 1):
                work = Work(tensors=tensors, computes=computes)
                waits = deadline(work, SETTINGS, 6, tensors, recomputed)
                entry_s, transfer_s = 2.0 + 10.0 + 1.0, float(tensors)
                assert not tensors or entry_s + 1.0 + transfer_s < waits.bulk_s, "sent at its entry, it arrives in time"
                latest_s = entry_s + (waits.bulk_s if tensors else 0.0) + 10.0 * max(computes, min(recomputed, 1)) + 1.0
                assert latest_s < waits.message_s
