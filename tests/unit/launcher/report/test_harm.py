"""launcher/report/harm.py: harm by how long attackers last, and its mean over the law of detection."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from btard.launcher.detection import Setting, time_to_last
from btard.launcher.figures.chart import Chart
from btard.launcher.report import harm, sweep_page
from btard.launcher.sweep.plans import COVERING
from btard.launcher.sweep.rows import Row
from tests.sweeping import plan, swept

LAW = time_to_last(Setting(peers=6, byzantine=2, validators=1, start=100, on_ban="reform"), 400)
LASTED = dict(zip(COVERING, (4, 5, 6, 8, 9, 11, 13, 16, 23), strict=True))


def _rows(finals: Mapping[int, float], attack: str = "sign_flip") -> list[Row]:
    """The clean runs of plan `harm` and one attack of it, seed 0: final accuracy by T."""
    found = []
    for made in plan("harm", False):
        options, scheme = made.options, made.labels["scheme"]
        wanted = scheme == "clean" or (scheme == "aggressive" and options["attack"] == attack)
        steps = LASTED[options["protocol_seed"]]
        if made.labels.get("control") or options["seed"] or not wanted or steps not in finals:
            continue
        fields = {name: getattr(made, name) for name in made.__struct_fields__}
        if scheme != "clean":
            fields |= {"final_test_accuracy": finals[steps], "last_ban": 99 + steps}
        found.append(Row(**fields))
    return found


def test_each_length_of_the_law_is_counted_with_the_nearest_run() -> None:
    found = harm.weights([23, 4, 8], LAW)
    assert list(found) == [4, 8, 23]
    assert sum(found.values()) == pytest.approx(1.0)
    at = [LAW.probability(steps) for steps in range(40)]
    assert found[4] == pytest.approx(sum(at[:6]) + at[6] / 2), "six steps are as near to 4 as to 8"
    assert found[23] == pytest.approx(LAW.survival[15])
    assert harm.weights([7], LAW) == {7: pytest.approx(1.0)}


def test_draws_that_cover_the_law_weigh_a_ninth_each() -> None:
    found = harm.weights(LASTED.values(), LAW)
    assert all(weight == pytest.approx(1 / 9, abs=0.05) for weight in found.values())


def test_the_chance_to_die_is_the_laws() -> None:
    """Dead from 13 steps on: the law has that many, or twelve and nearer to 13 than to 11, in a quarter of draws."""
    finals = {steps: 0.1135 if steps >= 13 else 0.975 for steps in LASTED.values()}
    (line,) = harm.table(swept(_rows(finals)))
    told = dict(zip(harm.HEADER, line, strict=True))
    chance = LAW.survival[12] + LAW.probability(12) / 2
    assert told == {
        "setting": "the report's",
        "attack": "sign_flip",
        "runs": 9,
        "draws": 9,
        "dead": 3,
        "dead at T": "13, 16, 23",
        "alive at T": "4, 5, 6, 8, 9, 11",
        "P(dead) by the law": f"{chance:.0%}",
        "to clean by the law": f"{-0.01 * (1 - chance) - 0.8715 * chance:+.4f}",
        "law, longer than any T here": f"{LAW.survival[23]:.0%}",
    }


def test_a_figure_has_a_point_for_each_length() -> None:
    rows = _rows({4: 0.98, 9: 0.975, 23: 0.5})
    (figure,) = harm.figures(swept(rows))
    assert isinstance(figure.drawing, Chart)
    (line,) = figure.drawing.series
    assert line.points == [(4, pytest.approx(-0.005)), (9, pytest.approx(-0.01)), (23, pytest.approx(-0.485))]
    assert figure.caption == "Each point: the mean of the runs of one T. 3 runs, 3 draws."
    assert "Harm against T" in sweep_page.render(swept(rows))


def test_runs_without_a_clean_one_or_of_one_length_say_nothing() -> None:
    attacked = [row for row in _rows({4: 0.98, 9: 0.97}) if row.byzantine_peers]
    assert harm.table(swept(attacked)) == harm.figures(swept(attacked)) == []
    alone = swept(_rows({9: 0.97}))
    assert harm.table(alone) == harm.figures(alone) == []
    assert "Harm against T" not in sweep_page.render(alone)
