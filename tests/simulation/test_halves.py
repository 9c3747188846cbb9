"""A network cut into halves at any instant of a step: all halt; started again in a whole one, they end as if nothing
had happened."""

from __future__ import annotations

from pathlib import Path

import pytest

from btard.node.drivers.simulator import Observed
from btard.node.netem.conditions import Change, Conditions, Event, Window
from btard.node.protocol.api import Banned, Committed, Finished, Halted, PhaseEntered
from tests.simulation.restarting import RUN, Cluster, Halves, digests

SIDES = (0, 1, 2), (3, 4, 5)
CUT = tuple(pair for a in SIDES[0] for b in SIDES[1] for pair in ((a, b), (b, a)))
STEP, INSTANTS, LAST_INSTANTS, PHASES = 5, 40, 12, ("COMMIT", "AGG", "REVEAL", "CHECKSUMS", "REPORT", "CLOSE")
LASTING_S = 3600.0


def parameters(seen: list[Observed]) -> dict[int, set[bytes]]:
    """Digests of the parameters after each step, over all nodes and lives."""
    found: dict[int, set[bytes]] = {}
    for each in seen:
        if isinstance(each.output, Committed):
            found.setdefault(each.output.step, set()).add(each.output.parameter_digest)
    return found


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> list[Observed]:
    """The run in a whole network."""
    return Cluster(tmp_path_factory.mktemp("calm"), Conditions(), {}, 1).play()


def cut_at(cut_s: float, where: Path) -> list[Observed]:
    """A run that is cut then until all have halted, and is started again in a whole network."""
    whole_s = cut_s + LASTING_S
    conditions = Conditions(
        changes=(Change(Window("s", cut_s, whole_s), {}, CUT, cut=True),),
        events=(Event(Window("s", whole_s + 1.0), "restart", tuple(range(6)), "restart"),),
    )
    seen = Halves(where, conditions, {}, 1).play(())
    assert {each.node for each in seen if isinstance(each.output, Halted)} == set(range(6))
    assert not [each for each in seen if isinstance(each.output, Banned)]
    assert {each.node for each in seen if isinstance(each.output, Finished)} == set(range(6))
    assert all(len(each) == 1 for each in digests(seen).values())
    return seen


@pytest.mark.slow
@pytest.mark.parametrize("late", [0.0, 0.5])
@pytest.mark.parametrize("phase", PHASES)
def test_halves_end_as_if_they_had_never_been_cut(
    phase: str, late: float, calm: list[Observed], tmp_path: Path
) -> None:
    """Cut when the first peer enters a phase, or half-way to when the last one does."""
    entered = sorted(each.time_s for each in calm if each.output == PhaseEntered(STEP, 0, phase))
    seen = cut_at(entered[0] + late * (entered[-1] - entered[0]), tmp_path / "cut")
    found, expected = digests(seen), digests(calm)
    assert parameters(seen) == parameters(calm)
    # What was said of tensors that were late stands in the transcript of the step. REVEALs that lack some charge their
    # pairs, which every later state holds; anything else changes nothing after the step.
    charged = {step for step in found if step > STEP} if phase == "REVEAL" and late else set()
    assert {step for step in found if found[step] != expected[step]} <= {STEP, *charged}


@pytest.mark.slow
@pytest.mark.parametrize("instant", range(INSTANTS))
def test_a_cut_as_the_parts_arrive_costs_nobody_its_place(instant: int, calm: list[Observed], tmp_path: Path) -> None:
    """Parts of some of one half are in, of others not: three complain of one or two, as of attackers, and it stands."""
    begins_s, ends_s = entered_s(calm, STEP, "COMMIT"), entered_s(calm, STEP, "REVEAL")
    cut_at(begins_s + (ends_s - begins_s) * instant / INSTANTS, tmp_path / "cut")


@pytest.mark.slow
@pytest.mark.parametrize("instant", range(LAST_INSTANTS))
def test_a_cut_in_the_last_step_leaves_no_old_view_behind(instant: int, calm: list[Observed], tmp_path: Path) -> None:
    """Whoever has finished leaves a view for those who have not: one of the cut's dispute would begin it once more."""
    begins_s, ends_s = entered_s(calm, RUN.steps, "COMMIT"), entered_s(calm, RUN.steps, "CLOSE")
    cut_at(begins_s + (ends_s - begins_s) * instant / LAST_INSTANTS, tmp_path / "cut")


def entered_s(seen: list[Observed], step: int, phase: str) -> float:
    """When the first peer enters a phase."""
    return min(each.time_s for each in seen if each.output == PhaseEntered(step, 0, phase))
