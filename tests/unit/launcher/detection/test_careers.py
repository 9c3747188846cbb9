"""Draws followed without training, against the runs that they foretell and the law that they are chosen by."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

from btard import Experiment, run
from btard.launcher.detection import Setting, time_to_last
from btard.launcher.detection.careers import LEVELS, at_quantiles, career
from btard.launcher.sweep.plans import CAREERS, COVERING, COVERING_CONTRIBUTING

SIX = Setting(peers=6, byzantine=2, validators=1, start=100)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("peers", "undo", "more"),
    [
        (6, None, {}),
        (6, 0, {}),
        (5, None, {}),
        (7, None, {"validators": 2, "validate_every": 2}),
        (6, 0, {"on_ban": "reform"}),
        (7, 0, {"on_ban": "reform", "validators": 2}),
    ],
    ids=["undo", "no undo", "validators contribute", "two pairs, sometimes", "reform", "reform, two pairs"],
)
def test_the_bans_of_a_run_are_foretold(peers: int, undo: int | None, more: dict[str, int], tmp_path: Path) -> None:
    done = run(
        Experiment(task="quadratic", batch_size=1, steps=40, peers=peers, attack="sign_flip", byzantine=2, undo=undo,
                   attack_start=3, protocol_seed=7, backend="simulated", run_dir=str(tmp_path / "run"), **more),
        quiet=True,
    )  # fmt: skip
    steps, bans = career(7, Setting(peers, 2, start=3, **{"validators": 1, **more}), undo=undo is None)
    assert tuple((ban.step, ban.peer) for ban in done.summary.bans) == bans and len(bans) == 2
    undone = sum(1 for each in done.summary.undone if each.step <= bans[-1][0])
    assert steps == bans[-1][0] - 3 + 1 - undone


def test_the_seeds_of_the_sweep_are_those_quantiles() -> None:
    law = time_to_last(SIX, 400)
    assert [career(seed, SIX, undo=True)[0] for seed in CAREERS] == [law.quantile(level) for level in LEVELS]
    assert at_quantiles(SIX, (LEVELS[0], LEVELS[3])) == (CAREERS[0], CAREERS[3])
    assert len(set(CAREERS)) == 9


@pytest.mark.parametrize(("contribute", "seeds"), [("auto", COVERING), ("on", COVERING_CONTRIBUTING)])
def test_the_seeds_of_the_plans_that_cover_the_law_are_its_quantiles(
    contribute: Literal["auto", "on"], seeds: tuple[int, ...]
) -> None:
    """Nine strata of equal chance, each by its middle; together they have about the law's mean."""
    reform = Setting(peers=6, byzantine=2, validators=1, start=100, contribute=contribute, on_ban="reform")
    law, levels = time_to_last(reform, 400), [(2 * place + 1) / 18 for place in range(9)]
    lasting = [career(seed, reform, undo=False)[0] for seed in seeds]
    assert lasting == [law.quantile(level) for level in levels]
    assert at_quantiles(reform, levels, undo=False) == seeds
    assert sum(lasting) / 9 == pytest.approx(law.mean, abs=0.5)


def test_careers_follow_the_law() -> None:
    """The mean of 400 of them lies within four of its standard errors."""
    law = time_to_last(SIX, 400)
    found = [career(seed, Setting(6, 2, 1), undo=False)[0] for seed in range(400)]
    variance = sum((2 * time + 1) * more for time, more in enumerate(law.survival)) - law.mean**2
    assert abs(sum(found) / len(found) - law.mean) < 4 * (variance / len(found)) ** 0.5
