"""Which timers a phase sets and cancels, and when others get more patience."""

from __future__ import annotations

import pytest

from btard.node.protocol.api import CancelTimer, Output, SetTimer
from btard.node.protocol.attempt.deadlines import laggards_s, outcome_s
from btard.node.protocol.attempt.phases import PHASES
from btard.node.protocol.attempt.timers import BULK, LAGGARDS, MESSAGES, STALL, Timers
from btard.node.protocol.wire.messages import Phase
from tests.unit.node.protocol.attempt.test_deadlines import SETTINGS


def entered(
    phase: Phase, publications: int = 0, recomputed: int = 0, patience_s: float = 0.0
) -> tuple[Timers, dict[str, float]]:
    """The timers of a phase that six have just entered, and how long each of them runs."""
    out: list[Output] = []
    clock = Timers(SETTINGS, 6, out, patience_s)
    clock.enter(PHASES[phase].work, publications, recomputed)
    return clock, running(out)


def running(out: list[Output]) -> dict[str, float]:
    """What a driver would have running, from timers that all run before."""
    timers = {BULK: -1.0, STALL: -1.0, MESSAGES: -1.0}
    for output in out:
        if isinstance(output, CancelTimer):
            timers.pop(output.name, None)
        if isinstance(output, SetTimer):
            timers[output.name] = output.after_s
    return timers


SET = {
    "the first phase has no laggards: nothing ended the one before": (Phase.COMMIT, 0, 0, {MESSAGES: 25.0}),
    "bulk": (Phase.AGG, 0, 0, {LAGGARDS: 2.0, BULK: 16.0, MESSAGES: 41.0}),
    "no bulk ends the wait of the phase before": (Phase.RESEND, 0, 0, {LAGGARDS: 2.0, MESSAGES: 15.0}),
    "published parts go where judging needs them": (Phase.HAVE, 2, 0, {LAGGARDS: 2.0, BULK: 17.0, MESSAGES: 32.0}),
    "and nowhere else": (Phase.REPORT, 2, 0, {LAGGARDS: 2.0, MESSAGES: 25.0}),
    "gradients to judge": (Phase.JUDGE, 0, 3, {LAGGARDS: 2.0, MESSAGES: 65.0}),
}


@pytest.mark.parametrize("name", SET)
def test_what_a_phase_sets(name: str) -> None:
    phase, publications, recomputed, timers = SET[name]
    assert entered(phase, publications, recomputed)[1] == timers


def test_the_waits_begin_again_from_the_start() -> None:
    """After a dispute of the step before: all of them, and the end of patience is put off."""
    out: list[Output] = []
    clock = Timers(SETTINGS, 6, out)
    clock.enter(PHASES[Phase.AGG].work, 0, 0)
    first = list(out)
    clock.stall()
    out.clear()
    clock.restart()
    assert out == first
    assert CancelTimer(STALL) in out


def test_patience_ends_a_dispute_after_the_phases_own_wait() -> None:
    out: list[Output] = []
    clock = Timers(SETTINGS, 6, out)
    clock.enter(PHASES[Phase.JUDGE].work, 0, 3)
    out.clear()
    clock.stall()
    assert out == [SetTimer(STALL, 65.0 + outcome_s(SETTINGS))]


def test_only_the_first_phase_waits_longer_for_those_that_come_late() -> None:
    clock, timers = entered(Phase.COMMIT, patience_s=100.0)
    assert timers == {MESSAGES: 125.0}
    assert clock.budget.message_s == 114.0
    out: list[Output] = []
    clock = Timers(SETTINGS, 6, out, 100.0)
    clock.enter(PHASES[Phase.COMMIT].work, 0, 0)
    clock.stall()
    assert running(out)[STALL] == 125.0 + outcome_s(SETTINGS)
    out.clear()
    clock.enter(PHASES[Phase.REVEAL].work, 0, 0)
    assert running(out) == {LAGGARDS: 2.0, BULK: 16.0, MESSAGES: 31.0}
    assert (clock.budget.bulk_s, clock.budget.message_s) == (5.0, 9.0)


def test_before_any_phase_nothing_runs() -> None:
    out: list[Output] = []
    clock = Timers(SETTINGS, 6, out, 100.0)
    assert out == []
    assert clock.budget.message_s == 2 * laggards_s(SETTINGS)
