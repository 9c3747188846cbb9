"""Peers whose gradients do not repeat bit for bit: `--recompute-tolerance` and the JUDGE phase."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

import msgspec
import pytest
import torch
from torch import Tensor

from btard.node.config import Plugin, Role, RunConfig, Schedule
from btard.node.protocol.adjudication.judging import far_from
from btard.node.protocol.api import Banned, BulkKind, Finished, Halted, Output, PhaseEntered, Say, SendBulk
from btard.node.protocol.wire.messages import Checksums, Commit, Report
from btard.node.training.tasks.quadratic import Quadratic
from tests.simulation.checkers import PROMISES, EvidenceHolds
from tests.simulation.hostile import Rewrite, interpose, let_drift
from tests.simulation.stage import Stage, play, set_up

TOLERANCE = 1e-4
PAIRWISE = TOLERANCE / 2.5
"""Drift of one platform, so that two of them differ by less than the tolerance."""


def mixed_run(**more: object) -> RunConfig:
    return RunConfig(peers=6, task=Plugin("quadratic"), steps=12, batch_size=2, recompute_tolerance=TOLERANCE,
                     **more)  # type: ignore[arg-type]  # fmt: skip


def bans_at(stage: Stage, seen: Iterable) -> list[Banned]:  # type: ignore[type-arg]
    return [found.output for found in seen if found.node == stage.witness and isinstance(found.output, Banned)]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_honest_platforms_that_differ_within_the_tolerance_never_accuse_each_other(seed: int) -> None:
    stage = set_up(mixed_run(validators=2), protocol_seed=seed)
    let_drift(stage, PAIRWISE)
    seen = play(stage, PROMISES)
    assert not any(isinstance(found.output, PhaseEntered) and found.output.phase == "JUDGE" for found in seen)


class Lopsided(Quadratic):
    """Nearly all of the gradient lies in the first coordinates: other parts consist of drift alone."""

    def initial(self, seed: int) -> Tensor:
        start_D = self.target_D.clone()
        start_D[:4] += 1000.0
        return start_D


def test_a_part_without_any_norm_of_its_own_is_judged_by_the_norm_of_the_whole() -> None:
    stage = set_up(mixed_run(tau=1e4), task=Lopsided(64, 1e-6, 2))
    let_drift(stage, PAIRWISE)
    assert bans_at(stage, play(stage, PROMISES)) == []


@pytest.mark.slow
@pytest.mark.parametrize("on_ban", ["remove", "reform"])
@pytest.mark.parametrize("attack", [Plugin("sign_flip"), Plugin("noise", {"variant": "small"})], ids=lambda a: a.name)
def test_a_false_gradient_is_banned_by_the_judges(attack: Plugin, on_ban: str) -> None:
    role = Role((attack,), Schedule(start=0), (4, 5))
    stage = set_up(mixed_run(on_ban=on_ban), {4: role, 5: role}, protocol_seed=3)
    let_drift(stage, PAIRWISE)
    bans = bans_at(stage, play(stage, PROMISES))
    assert bans
    assert {ban.reason for ban in bans} == {"gradient"}


def test_a_validator_that_accuses_falsely_is_banned_by_the_judges() -> None:
    role = Role((Plugin("false_accuse"),), Schedule(start=0), (4, 5))
    stage = set_up(mixed_run(), {4: role, 5: role}, protocol_seed=1)
    let_drift(stage, PAIRWISE)
    bans = bans_at(stage, play(stage, PROMISES))
    assert bans
    assert {ban.reason for ban in bans} == {"false_accusation"}


# --- checksums that lie in league with their aggregator ------------------------------------------------------------

LIARS = {4: 0.25, 5: -0.25}
"""Peers 4 and 5 add these to their s for part 4; the sum stays, so V2 sees nothing, and peer 4, whose part it is,
passes both: only a validator can find out."""


def in_league(me: int, together: dict[int, set[int]]) -> Rewrite:
    """Args: together: which liars contribute, by step; alone they tell the truth."""

    def rewrite(output: Output) -> Iterable[Output]:
        if not isinstance(output, Say):
            return [output]
        body = output.body
        if isinstance(body, Commit) and body.parts:
            together.setdefault(body.slot.step, set()).add(me)
        if isinstance(body, Checksums) and together.get(body.slot.step) == LIARS.keys():
            s = tuple(value + LIARS[me] * (part == 4) for part, value in enumerate(body.s))
            return [Say(output.to, msgspec.structs.replace(body, s=s))]
        if isinstance(body, Report):
            spared = tuple(msgspec.structs.replace(verdict, correct=verdict.correct or verdict.target in LIARS)
                           for verdict in body.verdicts)  # fmt: skip
            checks = (True,) * len(body.checks)
            return [Say(output.to, msgspec.structs.replace(body, checks=checks, verdicts=spared))]
        return [output]

    return rewrite


@pytest.mark.parametrize(("tolerance", "reasons"), [(0.0, {"checksum", "false_report"}), (TOLERANCE, {"gradient"})],
                         ids=["one platform", "mixed"])  # fmt: skip
def test_lies_that_cancel_fall_to_a_validator_and_never_on_it(tolerance: float, reasons: set[str]) -> None:
    run = RunConfig(peers=6, task=Plugin("quadratic"), steps=25, batch_size=2, recompute_tolerance=tolerance,
                    delta_max=1e9)  # fmt: skip
    stage = set_up(run, protocol_seed=1)
    if tolerance:
        let_drift(stage, PAIRWISE)
    together: dict[int, set[int]] = {}
    for liar in LIARS:
        interpose(stage, liar, in_league(liar, together))
    honest = {0, 1, 2, 3}
    seen = play(stage, (EvidenceHolds,))
    bans = {(found.node, found.output.peer, found.output.reason) for found in seen
            if isinstance(found.output, Banned) and found.node in honest}  # fmt: skip
    assert not any(isinstance(found.output, Halted) and found.node in honest for found in seen)
    assert bans, "nobody was caught"
    assert {peer for _, peer, _ in bans} <= LIARS.keys(), bans
    assert {reason for _, _, reason in bans} <= reasons


FALSE_PUBLICATIONS: dict[str, Callable[[SendBulk], list[Output]]] = {
    "other bytes": lambda sent: [dataclasses.replace(sent, values_P=sent.values_P + 1.0)],
    "all but one part": lambda sent: [sent] if sent.key.part else [],
}


@pytest.mark.parametrize("published", [None, *FALSE_PUBLICATIONS])
def test_who_withholds_the_gradient_that_it_is_judged_by_is_gone_and_stops_nobody(published: str | None) -> None:
    """Its judges have nothing to compare, and once waited for it in JUDGE until all of them halted."""
    silent = (Plugin("withhold_part", {"to": "nobody", "again": True}),) if published is None else ()
    role = Role((Plugin("sign_flip"), *silent), Schedule(start=1), (4, 5))
    stage = set_up(mixed_run(), {4: role, 5: role}, protocol_seed=3)

    def rewrite(output: Output) -> Iterable[Output]:
        if published is not None and isinstance(output, SendBulk) and output.key.kind is BulkKind.PUBLICATION:
            return FALSE_PUBLICATIONS[published](output)
        return [output]

    for liar in (4, 5):
        interpose(stage, liar, rewrite)
    seen = play(stage, PROMISES)
    assert {(ban.peer, ban.reason) for ban in bans_at(stage, seen)} == {(4, "withheld"), (5, "withheld")}
    assert {each.node for each in seen if isinstance(each.output, Finished)} >= {0, 1, 2, 3}


def test_what_is_not_a_number_is_far_from_every_gradient() -> None:
    assert far_from(torch.tensor([float("nan"), 1.0]), torch.tensor([1.0, 1.0]), 0.5)
    assert not far_from(torch.tensor([1.0, 1.0]), torch.tensor([1.0, 1.0]), 0.5)
