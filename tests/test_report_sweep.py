"""Figures and tables of a sweep's page, on hand-made rows: detections, matrices, curves, what the page says."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from random import Random
from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest

from btard.launcher.detection import Setting
from btard.launcher.figures.chart import Axis, Chart
from btard.launcher.figures.svg import Figure
from btard.launcher.report import detection, sweep_figures, sweep_page
from btard.launcher.report.sweep_data import SweepData
from btard.launcher.report.sweep_figures import detections, matrices
from btard.launcher.run.experiment import Experiment
from btard.launcher.sweep.plans import ATTACKS, PLANS
from btard.launcher.sweep.rows import Curves, Row
from tests.sweeping import curves, plan, row, swept
from tests.unit.launcher.detection.test_variants import reformed

ATTACKED = Experiment(byzantine=2, attack="noise", steps=300)


def _run(options: Mapping[str, Any] | None = None, labels: Mapping[str, str] | None = None, **given: Any) -> Row:
    return row(msgspec.structs.replace(ATTACKED, **(options or {})), labels, **given)


def _text(sweep: SweepData) -> str:
    """The words of a page."""
    body = re.sub("<(style|script)>.*?</\\1>", " ", sweep_page.render(sweep), flags=re.DOTALL)
    return re.sub(r"\s+", " ", html.unescape(re.sub("<[^>]+>", " ", body)))


def _key(figures: list[Figure], key: str) -> Figure:
    (found,) = (figure for figure in figures if figure.key == key)
    return found


# --- detections -------------------------------------------------------------------------------------------------


def test_what_varies_besides_the_law_makes_one_figure() -> None:
    rows = [_run({"seed": seed, "attack": attack}, gradient_steps=[2, 6], detection_steps=[2, 6])
            for seed in range(2) for attack in ("noise", "zero")]  # fmt: skip
    (figure,) = detections(swept(rows))
    assert figure.key == "detection-2-1-remove"
    assert figure.title == "Detection: 2 attackers, every 1 step, remove"
    assert "Mean seen 4.00, by the law " in figure.caption
    assert "Not in the histogram" not in figure.caption
    assert "seen (8)" in figure.html


def test_an_attack_on_the_aggregation_gives_no_figure() -> None:
    rows = [
        _run({"attack": "shift_aggregate", "seed": seed}, gradient_steps=[], detection_steps=[1, 1])
        for seed in range(2)
    ]
    assert detections(swept(rows)) == []
    known = [msgspec.structs.replace(made, gradient_steps=[1, 1]) for made in rows]
    assert len(detections(swept(known))) == 1


def test_rows_of_earlier_versions_count_every_ban() -> None:
    (figure,) = detections(swept([_run(gradient_steps=None, detection_steps=[5, 7])]))
    assert "Mean seen 6.00" in figure.caption


@pytest.mark.parametrize(
    ("name", "values", "keys", "words"),
    [
        ("validators", (0, 1, 2), ("validators1", "validators2"), "2 validating"),
        ("validate_every", (1, 3), ("validate-every1", "validate-every3"), "a draw in 3 steps"),
        ("peers", (6, 9), ("peers6", "peers9"), "9 peers"),
        ("attack_start", (10, 100), ("attack-start10", "attack-start100"), "from step 100 on"),
    ],
)
def test_what_the_law_depends_on_makes_figures_of_its_own(
    name: str, values: tuple[int, ...], keys: tuple[str, ...], words: str
) -> None:
    found = detections(swept([_run({name: value}) for value in values]))
    assert [figure.key for figure in found] == [f"detection-2-1-remove-{key}" for key in keys]
    assert found[-1].title.endswith(f", remove, {words}")
    for figure, value in zip(found, values[-2:], strict=True):
        law, _ = detection.law_of(*detection.setting_of(_run({name: value}).options))
        assert f"by the law {detection.mean_of(law):.2f}" in figure.caption


def test_attackers_that_were_never_caught_are_told() -> None:
    rows = [_run({"seed": 0}, gradient_steps=[8], detection_steps=[8], undetected=1),
            _run({"seed": 1}, gradient_steps=[4], detection_steps=[4, 1])]  # fmt: skip
    (figure,) = detections(swept(rows))
    assert "Not in the histogram, of 4 attackers: 1 never caught, 1 banned or removed for something else." in (
        figure.caption
    )
    assert "Mean seen 6.00" in figure.caption
    assert "seen (2)" in figure.html


@pytest.mark.parametrize(
    "options",
    [
        {"role": ("5=noise",), "byzantine": 0, "attack": None},
        {"attack_probability": 0.5},
        {"attack_when": "together"},
        {"attack_last": 10},
        {"validators": 0},
        {"byzantine": 0, "attack": None},
    ],
    ids=["roles", "probability", "chosen steps", "the last steps", "nobody validates", "nobody attacks"],
)
def test_what_the_law_does_not_speak_of_has_no_figure(options: dict[str, Any]) -> None:
    assert detections(swept([_run(options)])) == []


# --- matrices ---------------------------------------------------------------------------------------------------


def test_each_matrix_has_a_caption_of_its_own() -> None:
    rows = [_run({"rule": rule, "attack": attack}) for rule in ("mean", "median") for attack in ("noise", "zero")]
    found = {figure.key: figure.caption for figure in matrices(swept(rows))}
    assert list(found) == [f"matrix-attack-{kind}" for kind in ("final", "best", "latency", "bytes")]
    assert found["matrix-attack-final"] == found["matrix-attack-best"]
    assert "worst run" in found["matrix-attack-final"]
    for kind in ("latency", "bytes"):
        assert found[f"matrix-attack-{kind}"].startswith("Mean over")
    assert "never caught" in found["matrix-attack-latency"]


def test_a_mean_of_those_caught_says_that_others_were_not() -> None:
    some = _run({"rule": "median"}, undetected=1, detection_steps=[7])
    none = _run({"rule": "krum", "allow_weak": True}, undetected=2, detection_steps=[])
    rows = [_run({"rule": "mean"}, detection_steps=[3, 6]), some, none, _run({"rule": "mean", "attack": "zero"})]
    drawn = _key(matrices(swept(rows)), "matrix-attack-latency").html
    assert ">4.5 " in drawn
    assert ">7.0+ \u25c2<" in drawn
    assert ">free<" in drawn
    assert "1 of 2 attackers caught" in drawn
    assert drawn.count("caught") == 1, "where all were, there is nothing to add"


def test_controls_are_in_no_matrix() -> None:
    assert matrices(swept(plan("paper", False))) == [], "only a control has another rule"
    rows = [_run({"rule": rule, "attack": attack}, {"control": "c" if rule == "krum" else ""})
            for rule in ("mean", "median", "krum") for attack in ("noise", "zero")]  # fmt: skip
    for figure in matrices(swept(rows)):
        assert ">median<" in figure.html
        assert ">krum<" not in figure.html


def test_matrices_of_runs_without_accuracies_and_of_many_attackers() -> None:
    rows = [_run({"rule": rule, "byzantine": count, "peers": 24}, final_test_accuracy=None, best_test_accuracy=None)
            for rule in ("mean", "median") for count in (10, 2)]  # fmt: skip
    found = matrices(swept(rows))
    latency = _key(found, "matrix-attackers-latency").html
    assert latency.index(">2<") < latency.index(">10<"), "by number"
    assert latency.count(">4.0<") == 4
    assert ">0." not in _key(found, "matrix-attackers-final").html


def test_a_line_is_the_median_draw_and_its_band_reaches_from_the_least_to_the_greatest() -> None:
    """Each draw counts once, as the mean of its runs, however many they are."""
    given = {("a", 1): 0.5, ("b", 1): 0.7, ("c", 2): 0.9, ("d", 3): 0.1}
    rows = [_run({"seed": place, "protocol_seed": draw, "attack_start": 40}) for place, (_, draw) in enumerate(given)]
    drawn = {made.cell: curves(made, value) for made, value in zip(rows, given.values(), strict=True)}
    accuracy, loss = sweep_figures.curves(swept(rows, drawn))
    assert isinstance(accuracy.drawing, Chart)
    (line,) = accuracy.drawing.series
    assert [value for step, value in line.points if step == 50] == [pytest.approx(0.6)]
    assert (50.0, 0.1, 0.9) in line.spread
    assert [(found[0][0], found[-1][0]) for found in line.ribbons] == [(0, 0), (50, 300)], (
        "nor does the band lead there"
    )
    assert [step for step, value in line.points if value != value] == [39.5], "a gap where the attack begins"
    assert "4 runs, 3 draws of validators. Lines: median over draws; bands: from the least to" in accuracy.caption
    assert (loss.key, loss.title) == ("losses", "Training loss by group")
    alone = sweep_figures.curves(swept([rows[0]]))[0]
    assert isinstance(alone.drawing, Chart) and not alone.drawing.series[0].spread, "one draw has no band"
    assert alone.caption == "1 run, 1 draw of validators."


def test_a_smoothed_loss_leaves_out_steps_without_one() -> None:
    losses = ([4.0, None, 2.0, None, 1.0, 1.0, 1.0], [6.0, 5.0, 4.0, None, 3.0, 3.0, 3.0])
    rows = [_run({"seed": seed, "protocol_seed": 1, "steps": 7, "attack_start": 0}) for seed in range(2)]
    drawn = {made.cell: Curves(list(loss), [], []) for made, loss in zip(rows, losses, strict=True)}
    (figure,) = sweep_figures.curves(swept(rows, drawn))
    assert isinstance(figure.drawing, Chart)
    means = [5, 5, 3, 2, 2, 2]  # of steps 0, 1, 2, 4, 5 and 6
    assert figure.drawing.series[0].points == [(0, 5), (6, pytest.approx(sum(means) / len(means)))]


def _figure4(rows: list[Row], drawn: Mapping[str, Curves]) -> Axis:
    found = _key(sweep_figures.report_figures(swept(rows, drawn)), "figure4").drawing
    assert isinstance(found, Chart)
    return found.y


def test_the_axes_of_the_reports_figures_are_the_datas() -> None:
    """Figure 4 from 0 to 1 had its curves on one line; a dead network is on it all the same."""
    rows = plan("paper", True)
    drawn = {made.cell: curves(made, 0.98 + place / 1000) for place, made in enumerate(rows)}
    axis = _figure4(rows, drawn)
    assert axis.low >= 0.97 and axis.high <= 1.0
    assert _figure4(rows, {**drawn, rows[1].cell: curves(rows[1], 0.11)}).low <= 0.11


def test_close_evaluations_do_not_count_as_more_of_them() -> None:
    """`--eval-every auto` looks at an attack more often; how long a run is behind is counted every 50 steps."""
    row_ = _run({"eval_every": None, "attack_start": 100})
    clean = _run({"eval_every": None, "attack_start": 100, "byzantine": 0, "attack": None})
    close = [(step, 0.5) for step in range(95, 161, 5)]
    attacked = Curves([], [(0, 0.1), (50, 0.9), *close, (200, 0.9)], [])
    every = Curves([], [(step, 0.9) for step in range(0, 201, 5)], [])
    sweep = swept([row_, clean], {row_.cell: attacked, clean.cell: every})
    assert (sweep.compared(row_), sweep.behind(row_)) == (3, 2)


def _spread_out(finals: Mapping[tuple[str | None, int, str], float]) -> list[Row]:
    return [
        _run({"attack": attack, "byzantine": count, "split": split}, final_test_accuracy=value)
        for (attack, count, split), value in finals.items()
    ]


def test_attackers_by_split_are_a_heatmap_for_each_attack_on_one_scale() -> None:
    finals = {(None, 0, "iid"): 0.98, (None, 0, "classes:k=2"): 0.9}
    finals |= {("noise", 2, "iid"): 0.97, ("noise", 2, "classes:k=2"): 0.7}
    finals |= {("zero", 2, "iid"): 0.96, ("zero", 2, "classes:k=2"): 0.5}
    noise, zero = sweep_figures.heatmaps(swept(_spread_out(finals)))
    assert (noise.key, zero.title) == ("heatmap-noise", "Attackers by split: zero, final test accuracy")
    for figure, words in (
        (
            noise,
            [("9", "0.980", ""), ("8", "0.900", "\u25c2"), ("9", "0.970", "\u25be"), ("4", "0.700", "\u25c2\u25be")],
        ),
        (
            zero,
            [("9", "0.980", ""), ("8", "0.900", "\u25c2"), ("9", "0.960", "\u25be"), ("0", "0.500", "\u25c2\u25be")],
        ),
    ):
        found = re.findall(r"<td class=h(\d)>([01]\.\d{3}) ?([\u25c2\u25be]*)", figure.html)
        assert found == words, "one scale: the lightest is the worst of the sweep"


def test_a_heatmap_wants_splits_and_numbers_of_attackers_and_one_rule() -> None:
    one = {(None, 0, "iid"): 0.98, ("noise", 2, "iid"): 0.97}
    assert sweep_figures.heatmaps(swept(_spread_out(one))) == []
    two = {("noise", 2, "iid"): 0.98, ("noise", 2, "classes:k=2"): 0.97}
    assert sweep_figures.heatmaps(swept(_spread_out(two))) == []
    both = [
        _run({"split": split, "byzantine": count, "rule": rule, "attack": "noise" if count else None})
        for split in ("iid", "classes:k=2")
        for count in (0, 2)
        for rule in ("mean", "median")
    ]
    assert sweep_figures.heatmaps(swept(both)) == [] != matrices(swept(both))
    blank = [
        _run({"split": split, "byzantine": count, "attack": "noise" if count else None}, final_test_accuracy=None)
        for split in ("iid", "classes:k=2")
        for count in (0, 2)
    ]
    assert sweep_figures.heatmaps(swept(blank)) == []


def test_the_plan_of_unlike_data_has_a_cell_for_every_place_of_its_heatmaps() -> None:
    full, quick = plan("heterogeneity", False), plan("heterogeneity", True)
    assert (len(full), len(quick)) == (60, 10)
    assert {made.options["backend"] for made in full} == {"simulated"}
    for figure in sweep_figures.heatmaps(swept(full)):
        assert len(re.findall(r">0\.985", figure.html)) == 12


# --- plans ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PLANS)
def test_every_plan_has_figures(name: str) -> None:
    sweep = swept(plan(name, False))
    page = sweep_page.render(sweep)
    drawn = re.findall("<svg.*?</svg>", page, flags=re.DOTALL)
    tables = page.count('<table class="heat')
    assert len(drawn) + tables == page.count("<figure ")
    assert drawn
    for figure in drawn:
        assert len(list(ElementTree.fromstring(figure).iter())) > 5


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("starts", [f"curves-{attack}" for attack in ATTACKS]),
        ("mixed", [f"curves-{attack}-with" for attack in ATTACKS[:-1]]),
        ("aggregation", ["curves-1-attacker", "curves-2-attackers"]),
        ("sixteen", ["curves"]),
    ],
)
def test_future_work_is_drawn_beside_a_clean_run(name: str, keys: list[str]) -> None:
    sweep = swept(plan(name, False))
    found = sweep_figures.curves(sweep)
    assert [figure.key for figure in found] == [*keys, *(key.replace("curves", "losses") for key in keys)]
    assert all("clean" in figure.html for figure in found)
    drawn = sum(len(figure.drawing.series) - 1 for figure in found if isinstance(figure.drawing, Chart))
    assert drawn == 2 * len({made.labels["label"] for made in sweep.rows} - {"clean"}), "every kind of run, once"


def test_topologies_stand_beside_no_figure_that_nobody_could_read() -> None:
    text = _text(swept(plan("topologies", True)))
    assert (
        "Beside published accuracies # None stands here." in text and "Here 6 peers train mnist_cnn, each peer" in text
    )
    assert "Beside published" not in _text(swept(plan("validators", True)))


# --- the page ---------------------------------------------------------------------------------------------------


def test_controls_are_shown_without_the_reports_own_runs() -> None:
    only = [made for made in plan("paper", False) if made.labels.get("control") == "tau 1"]
    text = _text(swept(only))
    assert "Control: tau 1" in text
    assert "Figure 4: test accuracy, aggressive, tau 1" in text
    assert "The report's claims" not in text
    assert "Finals beside the report's" not in text
    clean = [made for made in plan("paper", True) if made.labels["scheme"] == "clean"]
    assert "Control: tau 1" in _text(swept([*clean, *only]))


def test_attackers_that_were_not_caught_stand_beside_the_mean() -> None:
    rows = [_run({"seed": seed}, undetected=int(seed == 1), detection_steps=[4, 9][: 2 - seed]) for seed in range(2)]
    assert "5.7 (max 9) (3 of 4 caught)" in _text(swept(rows))
    assert "caught)" not in _text(swept(rows[:1]))
    assert " never " in _text(swept([_run(undetected=2, detection_steps=[], gradient_steps=[])]))


def test_the_page_says_how_many_draws_there_are_and_what_they_decide() -> None:
    text = _text(swept(plan("paper", False)))
    assert (
        "3 seeds and 3 draws of validators. A verdict follows from differences between runs of the same seeds" in text
    )
    assert "with fewer than 6 draws there is none, and nothing is decided" in text
    assert "Undecided. 3 draws; no interval can exclude anything with fewer than 7. Final accuracy less that" in text
    assert "none: 3 of 6 draws" in text
    assert "\u00b1" not in text, "no interval treats runs as independent"
    assert "1 seed and 1 draw of validators. A verdict" in _text(swept(plan("paper", True)))


def test_every_draw_stands_beside_the_law_of_its_own_setting() -> None:
    """`reformed` of tests/unit/launcher/detection/test_variants.py counts the same by shuffling peers."""
    text = _text(swept(plan("paper", False)))
    assert "2 1 reform protocol seed 101 45 5 20% " in text
    assert "2 1 remove protocol seed 101 15 5 22% " in text
    assert "1 5 reform protocol seed 102 15 5 59% " in text, "four attacked steps, each seen with one chance in five"
    by_chance = [reformed(Setting(6, 2, 1, start=1), Random(run))[0] for run in range(4000)]
    share = sum(steps <= 5 for steps in by_chance) / len(by_chance)
    place = detection.place_of(_run({"on_ban": "reform", "undo": 0}, last_ban=104, attacked_from=100))
    assert place == pytest.approx(share, abs=4 * (0.2 * 0.8 / 4000) ** 0.5)


@pytest.mark.parametrize(
    ("options", "given", "steps", "place"),
    [
        ({"undo": 0}, {"first_ban": 101, "last_ban": 104}, 5, True),
        ({}, {"first_ban": 101, "last_ban": 104}, 4, True),
        ({}, {"first_ban": 104, "last_ban": 104}, 5, True),
        ({"byzantine": 3, "peers": 8}, {"first_ban": 101, "last_ban": 104}, None, False),
        ({"undo": 0}, {"last_ban": 104, "undetected": 1}, None, False),
        ({"undo": 0}, {"last_ban": 104, "gradient_steps": [4]}, 5, False),
        ({"undo": 0, "attack_probability": 0.5}, {"last_ban": 104}, 5, False),
        ({"undo": 0, "byzantine": 0, "attack": None}, {}, None, False),
    ],
    ids=[
        "no undo",
        "a step that undoes",
        "one step of two bans",
        "bans unknown",
        "left",
        "otherwise",
        "rarely",
        "clean",
    ],
)
def test_a_draw_that_the_law_does_not_speak_of_has_no_place(
    options: dict[str, Any], given: dict[str, Any], steps: int | None, place: bool
) -> None:
    made = _run(options, attacked_from=None if options.get("byzantine") == 0 else 100, **given)
    assert detection.lasted(made) == steps
    assert (detection.place_of(made) is not None) == place


@pytest.mark.parametrize(("backend", "draws"), [("simulated", "1 draw of"), ("local", "11 draws of")])
def test_real_processes_without_a_protocol_seed_share_no_draw(backend: str, draws: str) -> None:
    rows = plan("paper", True, protocol_seed="auto", backend=backend)
    assert len(rows) == 11
    assert f"1 seed and {draws} validators" in _text(swept(rows))


def test_the_header_of_the_lowest_accuracy_holds_for_any_start() -> None:
    text = _text(swept(plan("paper", True, attack_start="40", steps="300")))
    assert "lowest since the attack" in text
    assert "after 100" not in text


def test_groups_have_the_laws_length_and_cpu_time_beside_each_other() -> None:
    """And a clean run, which has nothing to undo, stands beside every window of the attacked ones."""
    planned = [*plan("validators", True), *plan("windows", True)]
    finals = [0.9 if each.byzantine_peers else 0.95 for each in planned]
    made = [
        msgspec.structs.replace(each, final_test_accuracy=final, cpu_seconds=7.4)
        for each, final in zip(planned, finals, strict=True)
    ]
    sweep = swept(made)
    assert {f"{sweep.difference(each):.2f}" for each in made if each.byzantine_peers} == {"-0.05"}
    header, lines, _ = sweep_page._groups(sweep)
    told = [dict(zip(header, line, strict=True)) for line in lines]
    law = detection.last_ban_of(*detection.setting_of(made[-1].options))
    assert law is not None
    assert {line["CPU s"] for line in told} == {"7"}
    assert {line["T by the law"] for line in told if line["peers"] == "16"} == {"", f"{law[0]:.1f}"}
    assert len({line["T by the law"] for line in told if line["peers"] == "6"}) == 7, "of six settings, and clean"
