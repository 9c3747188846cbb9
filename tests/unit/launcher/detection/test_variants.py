"""The laws of attackers that buy draws, come back or are reformed, against explicit peers that are shuffled."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from random import Random

import pytest

from btard.launcher.detection import Buying, Detection, Setting, bought_draws, detection_distribution
from btard.node.errors import ConfigError
from tests.unit.launcher.detection.test_law import LEVEL, REPORT, chi_square_p


def pairs_of(order: list[int], count: int, roster: set[int]) -> list[tuple[int, int]]:
    """The first `count` validate the next `count`; who left is replaced by the next of the rest that has not."""
    spare = [peer for peer in order[2 * count :] if peer in roster]
    found = []
    for validator, target in zip(order[:count], order[count : 2 * count], strict=True):
        if validator not in roster:
            if not spare:
                continue
            validator = spare.pop(0)
        found.append((validator, target))
    return found


def allowed(setting: Setting, roster: int, lost: int) -> int:
    """PROTOCOL section 3: n_contributors > 2 (f_0 - removed), 3 m <= n_active, never below 1."""
    left = max(0, (setting.peers - 1) // 2 - lost)
    most = setting.validators if contribute(setting) else roster - 2 * left - 1
    return max(1, min(setting.validators, roster // 3, most)) if setting.validators else 0


def contribute(setting: Setting) -> bool:
    """PROTOCOL section 10, rule 8."""
    return setting.contribute == "on" or (setting.contribute == "auto" and setting.peers % 2 == 1)


@dataclass
class Cluster:
    """One run, peer by peer; attackers have the highest ids and attack whenever they contribute."""

    setting: Setting
    buying: Buying
    dice: Random
    roster: set[int] = field(default_factory=set)
    absent: dict[int, int] = field(default_factory=dict)
    was_away: set[int] = field(default_factory=set)
    order: list[int] = field(default_factory=list)
    count: int = 0

    def attacker(self, peer: int) -> bool:
        return peer >= self.setting.peers - self.setting.byzantine

    def run(self) -> tuple[int, int]:
        """Steps since the first attacked one until no attacker is left or comes back; those with one in the roster."""
        self.roster = set(range(self.setting.peers))
        if not self.buying.away:
            self.was_away = {peer for peer in self.roster if self.attacker(peer)}
        step = present = 0
        doomed: set[int] = set()
        while any(map(self.attacker, self.roster)) or self.absent:
            present += step >= self.setting.start and any(map(self.attacker, self.roster))
            doomed = self.one_step(step, doomed)
            step += 1
        return step - self.setting.start, present

    def one_step(self, step: int, doomed: set[int]) -> set[int]:
        """Attempts until one is not voided; returns whom the next step's verdicts convict."""
        validators = {validator for validator, _ in pairs_of(self.order, self.count, self.roster)}
        while True:
            idle = set() if contribute(self.setting) else validators
            contributors = [peer for peer in sorted(self.roster) if peer not in idle]
            back = {peer for peer, when in self.absent.items() if when == step + 1}
            after = self.roster - doomed | back
            lost = self.setting.peers - len(after)
            count = min(allowed(self.setting, len(after), lost), len(contributors) // 2)
            if self.dice.random() >= 1 / self.setting.validate_every:
                count = 0
            order = self.dice.sample(contributors, len(contributors))
            drawn = pairs_of(order, count, after)
            hit = {target for validator, target in drawn
                   if step >= self.setting.start and self.attacker(target) and target not in doomed
                   and not self.attacker(validator)}  # fmt: skip
            payer = self.payer(hit, doomed & self.roster, validators)
            if payer is None:
                break
            self.roster.remove(payer)
            doomed = doomed - {payer}
            if payer not in self.was_away:
                self.was_away.add(payer)
                self.absent[payer] = step + self.buying.away
        self.order, self.count = order, count
        self.was_away |= hit
        self.roster = self.roster - doomed | back
        self.absent = {peer: when for peer, when in self.absent.items() if peer not in back}
        return hit

    def payer(self, hit: set[int], doomed: set[int], validators: set[int]) -> int | None:
        if hit and doomed:
            return min(doomed)
        new = hit - self.was_away
        if not new:
            return None
        idle = {peer for peer in self.roster & self.was_away if self.attacker(peer) and peer not in validators}
        return min(idle) if self.buying.sacrifice and idle else min(new - validators, default=None)


BOUGHT = [
    ("the report's", REPORT, Buying(4), 4000),
    ("everyone for itself", REPORT, Buying(4, sacrifice=False), 3000),
    ("back at once", Setting(5, 2, 1, contribute="off"), Buying(1), 3000),
    ("everyone contributes", Setting(5, 2, 1), Buying(4), 3000),
    (
        "everyone contributes, of six, nobody pays for others",
        Setting(6, 2, 2, contribute="on"),
        Buying(2, sacrifice=False),
        3000,
    ),
    ("everyone contributes, nobody returns", Setting(7, 3, 2), Buying(0), 2000),
    ("nobody returns", Setting(6, 2, 1), Buying(0), 3000),
    ("two pairs, every second step", Setting(9, 3, 2, validate_every=2), Buying(3), 1500),
    ("three pairs", Setting(11, 4, 3), Buying(5), 1000),
    ("attacked later", Setting(6, 2, 1, start=5), Buying(4), 3000),
    ("attacked later, of five, two pairs wanted", Setting(5, 2, 2, start=2), Buying(1), 2000),
]


@pytest.mark.slow
@pytest.mark.parametrize(("setting", "buying", "runs"), [row[1:] for row in BOUGHT], ids=[row[0] for row in BOUGHT])
def test_bought_draws_follow_the_law(setting: Setting, buying: Buying, runs: int) -> None:
    """Chi-square of both waiting times at level 1e-3, fixed seeds."""
    law = bought_draws(setting, buying, 400)
    lasted = [Cluster(setting, buying, Random(run)).run() for run in range(runs)]
    assert chi_square_p([steps for steps, _ in lasted], law.steps) > LEVEL
    assert chi_square_p([present for _, present in lasted], law.present) > LEVEL


def test_the_test_tells_one_adversary_from_another() -> None:
    lasted = [Cluster(REPORT, Buying(4), Random(run)).run()[0] for run in range(2000)]
    assert chi_square_p(lasted, bought_draws(REPORT, Buying(1), 400).steps) < LEVEL
    assert chi_square_p(lasted, detection_distribution(REPORT, 400).last_steps) < LEVEL


def reforming(setting: Setting) -> Detection:
    return detection_distribution(replace(setting, on_ban="reform"), 600)


def reformed(setting: Setting, dice: Random) -> tuple[int, int, int]:
    """Attacked steps until every attacker has been convicted once, nobody leaves; of the first attacker those in which
    it attacked or served, and those in which it contributed."""
    everybody = set(range(setting.peers))
    first = setting.peers - setting.byzantine
    attackers = set(range(first, setting.peers))
    pairs: list[tuple[int, int]] = []
    lied: set[int] = set()
    step = free = contributed = 0
    while attackers:
        serving = set() if contribute(setting) else {validator for validator, _ in pairs}
        contributors = sorted(everybody - serving)
        if step >= setting.start:
            free += first in attackers
            contributed += first in attackers and first in contributors
        caught = {target for validator, target in pairs if target in lied & attackers and validator not in attackers}
        lied = attackers & set(contributors) if step >= setting.start else set()
        attackers = attackers - caught
        count = min(allowed(setting, setting.peers, 0), len(contributors) // 2)
        if dice.random() >= 1 / setting.validate_every:
            count = 0
        order = dice.sample(contributors, len(contributors))
        pairs = list(zip(order[:count], order[count : 2 * count], strict=True))
        step += 1
    return step - setting.start, free, contributed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "runs"),
    [
        (REPORT, 6000),
        (Setting(6, 2, 1, start=4), 4000),
        (Setting(7, 3, 2, validate_every=2), 3000),
        (Setting(13, 4, 3), 2000),
        (Setting(3, 1), 3000),
        (Setting(7, 3, 2, contribute="off"), 3000),
        (Setting(16, 7, 1, start=1), 3000),
    ],
    ids=["six", "attacked later", "every second step", "three pairs", "three peers", "idle of seven", "sixteen"],
)
def test_reform_follows_its_law(setting: Setting, runs: int) -> None:
    """Chi-square of three waiting times at level 1e-3, fixed seeds."""
    law = reforming(setting)
    last, free, contributed = zip(*(reformed(setting, Random(run)) for run in range(runs)), strict=True)
    assert chi_square_p(last, law.last_steps) > LEVEL
    assert chi_square_p(free, law.tagged_steps) > LEVEL
    assert chi_square_p(contributed, law.tagged_contributed) > LEVEL


def test_the_published_figures() -> None:
    """docs/detection.md."""
    reform, bought = reforming(REPORT).last_steps, bought_draws(REPORT, Buying(4), 600)
    assert (round(reform.mean, 2), reform.quantile(0.99)) == (10.85, 33)
    sixteen = reforming(Setting(16, 7, 1, start=100))
    assert (round(sixteen.tagged_contributed.mean - 1, 1), round(sixteen.last_steps.mean, 1)) == (19.3, 48.9)
    assert (round(bought.steps.mean, 1), bought.steps.quantile(0.99)) == (20.8, 46)
    assert (round(bought.present.mean, 1), bought.present.quantile(0.99)) == (18.7, 43)
    nobody = bought_draws(REPORT, Buying(0), 600).steps
    assert (round(nobody.mean, 1), nobody.quantile(0.99)) == (10.9, 30)


def test_one_attacker_alone_lasts_two_lives_and_its_absence() -> None:
    """It voids the first draw that would convict it, and nobody pays for the second."""
    alone = Setting(6, 1, 1)
    assert bought_draws(alone, Buying(0), 600).steps.mean == pytest.approx(
        detection_distribution(alone, 600).last_steps.mean
    )
    near, far = (bought_draws(alone, Buying(away), 900).steps.mean for away in (2, 7))
    assert far - near == pytest.approx(5.0)


def test_what_has_no_law_is_refused() -> None:
    with pytest.raises(ConfigError, match="use on_ban=remove"):
        bought_draws(Setting(6, 2, 1, on_ban="reform"), Buying(), 50)
    with pytest.raises(ConfigError, match="use 0"):
        Buying(-1)
