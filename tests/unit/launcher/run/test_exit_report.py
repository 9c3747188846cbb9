"""How a run's nodes ended, in words."""

from __future__ import annotations

from btard.launcher.monitor.state import RunState
from btard.launcher.run import exit_report

COMMITTED = {
    "event": "committed",
    "contributors": [0, 2],
    "active": [0, 1, 2],
    "seconds": 0.1,
    "parameter_digest": "",
    "state_digest": "",
    "bulk_bytes": 0,
    "control_bytes": 0,
    "publication_bytes": 0,
}


def committed(state: RunState, node: int, step: int, loss: float | None) -> None:
    state.apply({**COMMITTED, "node": node, "step": step, "loss": loss})


def test_losses_that_are_no_numbers_are_told_and_nobody_elses() -> None:
    state = RunState(3, frozenset({2}))
    for node, loss in ((0, 0.5), (1, None), (2, None)):
        committed(state, node, 0, loss)
        committed(state, node, 1, loss)
    assert exit_report.numberless(state) is None, "1 did not contribute, and 2 attacks"
    committed(state, 0, 2, None)
    committed(state, 0, 3, None)
    told = exit_report.numberless(state)
    assert told is not None and told.startswith(
        "the loss of 2 honest gradients was no number, first peer 0's in step 2; such entries"
    )


def test_who_goes_on_after_a_start_may_not_know_the_loss() -> None:
    state = RunState(3)
    committed(state, 0, 0, 0.5)
    state.apply({"event": "resumed", "node": 0})
    committed(state, 0, 1, None)
    assert exit_report.numberless(state) is None
