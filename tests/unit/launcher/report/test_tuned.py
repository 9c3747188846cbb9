"""launcher/report/tuned.py: the strengths that a plan in two phases chose, and what the second phase came to."""

from __future__ import annotations

import re

from btard.launcher.report import sweep_figures, sweep_page, tuned
from btard.launcher.run.experiment import Experiment
from btard.launcher.sweep import spec
from btard.launcher.sweep.rows import Row
from tests.sweeping import row, swept

HELD_OUT = {
    ("centered_clip", "alie:z=1.5"): 0.91,
    ("centered_clip", "alie:z=3"): 0.87,
    ("nnm+trimmed_mean:f=2", "alie:z=1.5"): 0.83,
    ("nnm+trimmed_mean:f=2", "alie:z=3"): 0.95,
}
FINALS = {
    ("centered_clip", 1): 0.80,
    ("centered_clip", 2): 0.90,
    ("nnm+trimmed_mean:f=2", 1): 0.70,
    ("nnm+trimmed_mean:f=2", 2): 0.72,
}
NOT_CAUGHT = {"undetected": 2, "bans": 0, "detection_steps": [], "gradient_steps": [], "last_ban": None}


def _rows() -> list[Row]:
    """The quick plan: each rule under two strengths, then under the one that hurt more, with two seeds."""
    sweep = spec.make("tuned", True, Experiment(), {})
    assert sweep.after is not None
    held_out = [HELD_OUT[cell.experiment.rule, str(cell.experiment.attack)] for cell in sweep.cells]
    first = [
        row(cell.experiment, cell.labels, final_test_accuracy=final, **NOT_CAUGHT)
        for cell, final in zip(sweep.cells, held_out, strict=True)
    ]
    after = [
        row(cell.experiment, cell.labels)
        if cell.experiment.attack is None
        else row(
            cell.experiment,
            cell.labels,
            **NOT_CAUGHT,
            final_test_accuracy=FINALS[cell.experiment.rule, cell.experiment.seed],
        )
        for cell in sweep.after(held_out)
    ]
    return first + after


def test_the_table_has_the_choice_and_what_it_came_to() -> None:
    lines = [dict(zip(tuned.HEADER, line, strict=True)) for line in tuned.table(swept(_rows()))]
    told = {(line["rule"], line["attack as chosen"]): line for line in lines}
    assert list(told) == [
        ("centered_clip", "none"),
        ("nnm+trimmed_mean:f=2", "none"),
        ("centered_clip", "alie:z=3"),
        ("nnm+trimmed_mean:f=2", "alie:z=1.5"),
    ]
    assert told["centered_clip", "alie:z=3"] == {
        "rule": "centered_clip",
        "bans": "off",
        "split": "iid",
        "attack as chosen": "alie:z=3",
        "strengths tried": 2,
        "held out, at it": "0.8700",
        "at the others": "0.9100",
        "final, mean": "0.8500",
        "least": "0.8000",
        "greatest": "0.9000",
        "to clean, mean": "-0.1350",
        "95 % interval": "none: 2 of 6 draws",
        "runs": 2,
        "draws": 2,
    }
    clean = told["centered_clip", "none"]
    assert [clean[name] for name in ("strengths tried", "held out, at it", "to clean, mean")] == ["", "", ""]


def test_the_page_shows_one_matrix_of_the_second_phase_alone() -> None:
    sweep = swept(_rows())
    (figure,) = tuned.figures(sweep)
    assert figure.title == "Tuned attacks by rule: bans off, iid"
    shown = re.findall(r"<td class=h\d[^>]*>([01]\.\d{3})", figure.html)
    assert sorted(shown) == ["0.710", "0.850", "0.985", "0.985"], "0.83 to 0.95 were seen on held-out images"
    assert sweep_figures.matrices(sweep) == [] == sweep_figures.curves(sweep)
    page = sweep_page.render(sweep)
    assert "Rules under tuned attacks" in page and figure in sweep_page.figures(sweep)


def test_the_first_phase_alone_concludes_nothing() -> None:
    only = swept([made for made in _rows() if made.labels["phase"] == "tuning"])
    assert tuned.table(only) == [] == tuned.figures(only)
    assert "Rules under tuned attacks" not in sweep_page.render(only)
