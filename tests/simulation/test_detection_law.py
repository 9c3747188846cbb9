"""Detection times of whole simulated clusters are those that their coins foretell, and these fit the exact law of
launcher/detection/law.py.

tests/unit/launcher/detection/test_law.py holds the law to the draw alone, tests/test_attacks_in_simulation.py looks at
the report's six peers; here are other sizes, validation at random steps, several pairs, and attackers anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from btard.launcher.detection import Detection, Setting, detection_distribution
from btard.launcher.detection.careers import career
from btard.node.config import Plugin, Role, RunConfig, Schedule
from btard.node.protocol.api import Banned, Halted
from tests.simulation.stage import set_up
from tests.unit.launcher.detection.test_law import LEVEL, chi_square_p

HORIZON = 300


@dataclass(frozen=True, slots=True)
class Lasted:
    """How long the attackers of one run lasted, as `Detection` counts it."""

    steps: int
    attacked: int
    tagged_contributed: int


def attackers_of(setting: Setting, seed: int) -> tuple[int, ...]:
    """Different ones in each run: the law knows no ids."""
    return tuple(sorted((seed + 2 * place) % setting.peers for place in range(setting.byzantine)))


def observe(setting: Setting, seed: int) -> Lasted:
    """One run until the last attacker is banned."""
    run = RunConfig(peers=setting.peers, task=Plugin("quadratic", {"dimension": setting.peers}), steps=HORIZON,
                    batch_size=1, validators=setting.validators, validate_every=setting.validate_every, delta_max=1e9,
                    validators_contribute=setting.contribute, data_seed=seed)  # fmt: skip
    attackers = attackers_of(setting, seed)
    assert len(attackers) == setting.byzantine
    role = Role((Plugin("sign_flip", {"scale": 1.0}),), Schedule(start=setting.start), attackers, seed)
    stage = set_up(run, dict.fromkeys(attackers, role), seed)
    banned: set[int] = set()
    last = 0
    for seen in stage.simulation.run():
        assert not isinstance(seen.output, Halted), seen.output.problem
        if seen.node != stage.witness:
            continue
        if isinstance(seen.output, Banned):
            assert seen.output.reason == "gradient"
            banned.add(seen.output.peer)
            last = seen.output.step
        if len(banned) == len(attackers):
            break
    struck = [stage.adversary(peer).attacked for peer in attackers]
    attacked = len({step for steps in struck for step in steps})
    return Lasted(last - setting.start + 1, attacked, len(struck[0]))


SETTINGS = [
    pytest.param((Setting(5, 2, 1), 20), id="five peers, two attackers"),
    pytest.param((Setting(5, 2, 1, contribute="off"), 12), id="five peers, two attackers, idle validators"),
    pytest.param((Setting(7, 3, 2, validate_every=2, start=1), 8), id="seven peers, two pairs, every second step"),
]
DRAWS = 2000


@pytest.mark.slow
@pytest.mark.parametrize("setting_and_runs", SETTINGS)
def test_the_bans_of_whole_peers_are_those_of_the_draws(setting_and_runs: tuple[Setting, int]) -> None:
    """Each run is foretold by its coins alone, and struck as often as it contributed until then."""
    setting, runs = setting_and_runs
    for seed in range(runs):
        steps, _ = career(seed, setting, undo=False, attackers=attackers_of(setting, seed))
        lasted = observe(setting, seed)
        assert lasted.steps == steps
        assert lasted.tagged_contributed <= lasted.attacked <= lasted.steps


@pytest.mark.slow
@pytest.mark.parametrize("setting_and_runs", SETTINGS)
def test_the_draws_fit_the_law(setting_and_runs: tuple[Setting, int]) -> None:
    """Chi-square at level 1e-3, seeds 0, 1, 2, ..."""
    setting, _ = setting_and_runs
    law: Detection = detection_distribution(setting, HORIZON)
    found = [career(seed, setting, undo=False, attackers=attackers_of(setting, seed))[0] for seed in range(DRAWS)]
    assert chi_square_p(found, law.last_steps) > LEVEL
