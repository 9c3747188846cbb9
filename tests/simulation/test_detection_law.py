"""Detection times of whole simulated clusters fit the exact law of node/protocol/law.py.

tests/test_law.py holds the law against the draw alone, tests/test_attacks_in_simulation.py against the report's six
peers; here against other sizes, with validation at random steps, with several pairs, and with attackers anywhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch

from node.config import Plugin, Role, RunConfig, Schedule
from node.protocol.events import Banned, Committed, Halted
from node.protocol.law import Detection, Setting, detection_distribution
from tests.simulation.stage import set_up
from tests.test_law import LEVEL, chi_square_p

HORIZON = 300


@dataclass(frozen=True, slots=True)
class Lasted:
    """How long the attackers of one run lasted, as `Detection` counts it."""

    steps: int
    attacked: int
    tagged_contributed: int
    examined: tuple[tuple[int, int, tuple[int, ...]], ...]
    """(validator, target, contributors of the step before) of every draw that was carried out as drawn."""


def attackers_of(setting: Setting, seed: int) -> tuple[int, ...]:
    """Different ones in each run: the law knows no ids."""
    return tuple(sorted((seed + 2 * place) % setting.peers for place in range(setting.byzantine)))


def observe(setting: Setting, seed: int) -> Lasted:
    """One run until the last attacker is banned."""
    run = RunConfig(peers=setting.peers, task=Plugin("quadratic", {"dimension": setting.peers}), steps=HORIZON,
                    batch_size=1, validators=setting.validators, validate_every=setting.validate_every, delta_max=1e9,
                    data_seed=seed)  # fmt: skip
    attackers = attackers_of(setting, seed)
    assert len(attackers) == setting.byzantine
    role = Role((Plugin("sign_flip", {"scale": 1.0}),), Schedule(start=setting.start), attackers, seed)
    stage = set_up(run, dict.fromkeys(attackers, role), seed)
    examined = []
    banned: set[int] = set()
    last = 0
    before: tuple[int, ...] = ()
    for seen in stage.simulation.run():
        assert not isinstance(seen.output, Halted), seen.output.problem
        if seen.node != stage.witness:
            continue
        if isinstance(seen.output, Banned):
            assert seen.output.reason == "gradient"
            banned.add(seen.output.peer)
            last = seen.output.step
        if isinstance(seen.output, Committed):
            if set(before) <= set(seen.output.active):  # else the draw was amended by a removal
                examined += [(validator, target, before) for validator, target in seen.output.validators.items()]
            before = seen.output.contributors
            if len(banned) == len(attackers):
                break
    struck = [stage.adversary(peer).attacked for peer in attackers]
    attacked = len({step for steps in struck for step in steps})
    return Lasted(last - setting.start + 1, attacked, len(struck[0]), tuple(examined))


SETTINGS = [
    pytest.param((Setting(5, 2, 1), 200), id="five peers, two attackers"),
    pytest.param((Setting(4, 1, 1, validate_every=2, start=1), 200), id="four peers, every second step"),
    pytest.param((Setting(7, 3, 2), 60), id="seven peers, two pairs"),
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


def test_validators_and_targets_are_drawn_evenly_among_the_contributors_before(
    sample: tuple[Setting, list[Lasted]],
) -> None:
    """Places of validator and target among the contributors of the step before: all ordered pairs alike, at 1e-3."""
    setting, runs = sample
    places: Counter[tuple[int, int, int]] = Counter()
    for run in runs:
        for validator, target, contributors in run.examined:
            places[(len(contributors), contributors.index(validator), contributors.index(target))] += 1
    counted = 0
    for count in range(3, setting.peers + 1):
        pairs = [places[count, v, t] for v in range(count) for t in range(count) if v != t]
        if sum(pairs) < 10 * len(pairs):
            continue
        expected = sum(pairs) / len(pairs)
        statistic = sum((found - expected) ** 2 / expected for found in pairs)
        freedom = torch.tensor((len(pairs) - 1) / 2, dtype=torch.float64)
        assert float(torch.special.gammaincc(freedom, torch.tensor(statistic / 2, dtype=torch.float64))) > LEVEL
        counted += 1
    assert counted
