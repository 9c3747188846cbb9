"""Detection times of whole simulated clusters fit the exact law of launcher/detection/law.py.

tests/test_law.py holds the law against the draw alone, tests/test_attacks_in_simulation.py against the report's six
peers; here against other sizes, with validation at random steps, with several pairs, and with attackers anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from launcher.detection import Detection, Setting, detection_distribution
from node.config import Plugin, Role, RunConfig, Schedule
from node.protocol.notices import Banned, Halted
from tests.simulation.stage import set_up
from tests.test_law import LEVEL, chi_square_p

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
    pytest.param((Setting(5, 2, 1), 200), id="five peers, two attackers"),
    pytest.param((Setting(5, 2, 1, contribute="off"), 100), id="five peers, two attackers, idle validators"),
    pytest.param((Setting(7, 3, 2, validate_every=2, start=1), 60), id="seven peers, two pairs, every second step"),
]


@pytest.fixture(scope="module", params=SETTINGS)
def sample(request: pytest.FixtureRequest) -> Iterator[tuple[Setting, list[Lasted]]]:
    setting, runs = request.param
    yield setting, [observe(setting, seed) for seed in range(runs)]


def test_times_fit_the_law(sample: tuple[Setting, list[Lasted]]) -> None:
    """Chi-square of each figure at level 1e-3, seeds 0, 1, 2, ..."""
    setting, runs = sample
    law: Detection = detection_distribution(setting, HORIZON)
    assert chi_square_p([run.steps for run in runs], law.last_steps) > LEVEL
    assert chi_square_p([run.attacked for run in runs], law.last_attacked) > LEVEL
    assert chi_square_p([run.tagged_contributed for run in runs], law.tagged_contributed) > LEVEL
