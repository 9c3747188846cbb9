"""launcher/report/strategies.py: the damage of each strategy, and which of them no other one beats."""

from __future__ import annotations

import msgspec
import pytest

from btard.launcher.report import strategies, sweep_page
from btard.launcher.report.sweep_data import SweepData
from btard.launcher.sweep.rows import Row
from tests.sweeping import CLEAN_ACCURACY, plan, swept

DAMAGE = {
    ("sign_flip", "always", None, None): (8, 0.0),
    ("sign_flip", "together", None, None): (6, 0.001),
    ("sign_flip", "beyond_undo", None, None): (9, 0.01),
    ("below_tau", "beyond_undo", None, None): (9, 0.02),
    ("constant_direction", "always", 10, None): (10, 0.02),
    ("sign_flip", "always", None, 0): (8, 0.5),
    ("below_tau", "always", None, 0): (9, 0.4),
    ("sign_flip", "always", 30, 0): (20, 0.9),
}
"""Attack, when, last and undo to attacked steps and accuracy lost; others: 12 steps, nothing lost."""


def _made(row: Row) -> Row:
    given = row.options
    key = (given["attack"], given["attack_when"], given["attack_last"], given["undo"])
    attacked, lost = DAMAGE.get(key, (12, 0.0))
    return msgspec.structs.replace(
        row, attacked_steps=attacked if row.byzantine_peers else 0, final_test_accuracy=CLEAN_ACCURACY - lost
    )


@pytest.fixture(scope="module")
def sweep() -> SweepData:
    return swept([_made(row) for row in plan("timing", False)])


def test_the_frontier_is_what_no_other_strategy_beats(sweep: SweepData) -> None:
    """By hand from the table above: against each defence more damage only for more attacked steps."""
    found = strategies.strategies(sweep)
    assert len(found) == 37
    edge = {(each.defence, each.attack, each.schedule) for each in found if each.frontier}
    assert edge == {
        ("undo auto", "sign_flip", "when together"),
        ("undo auto", "below_tau", "when beyond undo"),
        ("undo 0", "sign_flip", "always"),
        ("undo 0", "sign_flip", "last 30"),
    }
    assert [each.effect.mean for each in found] == sorted(each.effect.mean for each in found)
    assert found[0].attack == "sign_flip" and found[0].attacked == 20


def test_harm_is_told_from_none_by_an_interval_that_covers_all_strategies(sweep: SweepData) -> None:
    """Eleven draws that agree suffice for 37 strategies at once, and ten would not."""
    by_verdict: dict[str, set[float]] = {}
    for each in strategies.strategies(sweep):
        by_verdict.setdefault(each.comparison.verdict, set()).add(round(-each.effect.mean, 6))
    harmful = {lost for _, lost in DAMAGE.values()} - {0.0}
    assert by_verdict == {"supported": harmful, "undecided": {0.0}}
    fewer = swept([row for row in sweep.rows if row.options["protocol_seed"] != 11])
    assert {each.comparison.verdict for each in strategies.strategies(fewer)} == {"undecided"}


def test_the_page_has_them_and_one_of_another_sweep_does_not(sweep: SweepData) -> None:
    page = sweep_page.render(sweep)
    assert "What attackers get out of choosing when" in page
    line = dict(zip(strategies.HEADER, strategies.table(strategies.strategies(sweep))[0], strict=True))
    assert (line["runs"], line["attacked steps"], line["to clean, mean"]) == (11, "20.0", "-0.9000")
    assert "What attackers get out of choosing when" not in sweep_page.render(swept(plan("careers", True)))


def test_runs_that_do_not_say_how_often_they_were_attacked_are_left_out() -> None:
    assert strategies.strategies(swept(plan("timing", True))) == []
    assert strategies.figures([]) == []
