"""Figures: scales, ticks, histograms, matrices, and the numbers behind a report's tables."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import replace
from math import isnan, nan

import pytest

from btard.launcher.detection import Setting, detection_distribution
from btard.launcher.figures import bars, chart, matrix, svg, timeline
from btard.launcher.figures.chart import Axis, Band, Chart, Dot, Mark, Series
from btard.launcher.figures.matrix import COLUMN, ROW, Matrix
from btard.launcher.figures.svg import Scale
from btard.launcher.report import detection
from btard.launcher.report.statistics import sample
from btard.node.config import Plugin, Role, RunConfig, Schedule


@pytest.mark.parametrize(
    ("scale", "value", "pixel"),
    [
        (Scale(0, 10, 100, 200), 5, 150),
        (Scale(0, 10, 200, 100), 2.5, 175),
        (Scale(0, 10, 0, 100), 12, 100),
        (Scale(1, 100, 0, 100, log=True), 10, 50),
        (Scale(1, 100, 0, 100, log=True), 0, 0),
        (Scale(3, 3, 0, 100), 3, 50),
    ],
)
def test_a_scale(scale: Scale, value: float, pixel: float) -> None:
    assert scale(value) == pytest.approx(pixel)


@pytest.mark.parametrize(
    ("low", "high", "log", "ticks"),
    [
        (0, 900, False, [0, 200, 400, 600, 800]),
        (0.94, 0.99, False, [0.94, 0.95, 0.96, 0.97, 0.98, 0.99]),
        (0.01, 100, True, [0.01, 0.1, 1, 10, 100]),
        (0.1, 5, True, [0.1, 0.2, 0.5, 1, 2, 5]),
        (2, 2, False, [2]),
    ],
)
def test_ticks_are_round(low: float, high: float, log: bool, ticks: list[float]) -> None:
    assert Scale(low, high, 0, 1, log).ticks() == pytest.approx(ticks)


def test_figures_are_well_formed_and_escape_what_users_wrote() -> None:
    name = '<noise & "more">'
    curve = Series(name, [(0, 0), (1, 1)], "#000", spread=[(0, 0, 0.5), (1, 0.5, 1)])
    drawn = (
        Chart(
            name,
            Axis("step", 0, 1),
            Axis("y", 0, 1),
            [curve],
            [Band(0, 1, name)],
            [Mark(0.5, name)],
            [Dot(1, 1, name, "#000")],
            name,
        ),
        bars.Durations(name, [(name, 1.0, 2.0)]),
        bars.AgainstLaw(name, {1: 0.5, 2: 0.5}, [1, 1, 2], name),
        timeline.Timeline(name, 3, [timeline.Lane(name, [0, 1, 2], [1], [2], {2: name})]),
    )
    for each in drawn:
        assert ET.fromstring(each.html).tag == "{http://www.w3.org/2000/svg}svg"
    table = Matrix(name, [name], [name], [[(1.0, name, name)]], 0, 1, name, name).html
    assert "<noise" not in table and table.count("&lt;noise &amp; &#34;more&#34;&gt;") == 7


def test_stretches_and_averages() -> None:
    assert list(timeline.runs([0, 1, 2, 5, 7, 8])) == [(0, 2), (5, 5), (7, 8)]
    assert list(timeline.runs([])) == []
    lane = timeline.Lane("peer 0", range(2000), range(0, 2000, 2))
    assert len(timeline.Timeline("long", 2000, [lane]).html) < 40_000, "many stretches are one element"
    assert chart.smooth([0, 3, 6, 9], 3) == [0, 1.5, 3, 6], "nothing of what comes later"


def test_words_stand_out_on_every_colour() -> None:
    for level in range(matrix.LEVELS):
        fill = matrix.colour(level)
        one, other = sorted((_luminance(fill), _luminance(matrix.readable(fill))))
        assert (other + 0.05) / (one + 0.05) >= 4.5, fill
    assert [matrix.readable(matrix.colour(level)) for level in (0, 9)] == ["#000000", "#ffffff"]
    shades = [_luminance(matrix.colour(level)) for level in range(matrix.LEVELS)]
    assert shades == sorted(shades, reverse=True), "one hue, the more the darker"
    assert svg.number(0.05) == "0.05"
    assert svg.number(1200000.0) == "1e6"


def _luminance(colour: str) -> float:
    """Relative luminance by WCAG 2.2."""
    red, green, blue = bytes.fromhex(colour.removeprefix("#"))

    def linear(value: int) -> float:
        return value / 255 / 12.92 if value <= 10 else ((value / 255 + 0.055) / 1.055) ** 2.4

    return 0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue)


def _cells(*lines: Sequence[float | None]) -> list[list[matrix.Cell]]:
    return [[(value, f"{value}", "") for value in line] for line in lines]


def test_the_worst_of_each_row_and_column_is_marked() -> None:
    drawn = Matrix("", ["a", "b", "c"], ["x", "y", "z"], _cells((3, 2, 9), (1, 5, 4), (7, 8, None)), 0, 9, worst=min)
    marks = [[drawn.mark(row, column) for column in range(3)] for row in range(3)]
    assert marks == [["", ROW + COLUMN, ""], [ROW + COLUMN, "", COLUMN], [ROW, "", ""]]
    largest = replace(drawn, worst=max)
    assert [largest.mark(0, 2), largest.mark(2, 1), largest.mark(2, 2)] == [ROW + COLUMN, ROW + COLUMN, ""]
    same = Matrix("", ["a", "b"], ["x", "y"], _cells((1, 1), (1, 1)), 0, 1, worst=min)
    assert not any(same.mark(row, column) for row in (0, 1) for column in (0, 1)), "nothing stands out"
    assert Matrix("", ["a"], ["x", "y"], _cells((1, 2)), 0, 2).mark(0, 0) == "", "nothing is called worse"


def test_the_worst_rows_come_first_and_the_worst_columns_last() -> None:
    drawn = Matrix("", ["a", "b", "c"], ["x", "y", "z"], _cells((3, 2, 9), (1, 5, 4), (7, 8, None)), 0, 9, worst=min)
    low, high = drawn.arranged, replace(drawn, worst=max).arranged
    assert (low.rows, low.columns) == (["b", "a", "c"], ["z", "y", "x"])
    assert [[value for value, *_ in line] for line in low.cells] == [[4, 5, 1], [9, 2, 3], [None, 8, 7]]
    assert (high.rows, high.columns) == (["c", "a", "b"], ["x", "y", "z"])


def test_a_curve_ends_where_it_leaves_its_axis_and_at_a_gap() -> None:
    axis = Axis("y", 1.0, 2.0)
    points = [(0, 0.0), (1, 2.0), (2, 1.5), (3, 3.0), (4, 1.0), (5, nan), (6, 1.5), (7, 0.0), (8, 3.0)]
    found = list(chart.pieces(points, axis))
    assert found[0] == [(0.5, 1.0), (1, 2.0), (2, 1.5), (pytest.approx(2 + 1 / 3), 2.0)]
    assert found[1:] == [
        [(3.5, 2.0), (4, 1.0)],
        [(6, 1.5), (pytest.approx(6 + 1 / 3), 1.0)],
        [(pytest.approx(7 + 1 / 3), 1.0), (pytest.approx(7 + 2 / 3), 2.0)],
    ]
    assert list(chart.pieces([], axis)) == []


def test_no_line_leads_from_before_an_attack_to_its_effect() -> None:
    points = [(0.0, 1.0), (50.0, 2.0), (100.0, 0.5), (150.0, 1.5)]
    for start in (60.0, 100.0):
        (gap,) = [x for x, y in chart.gapped(points, [start]) if isnan(y)]
        assert 50 < gap < 100
    assert chart.gapped([(95.0, 1.0), (100.0, 0.5)], [96.0, 101.0, 94.0]) == [(95.0, 1.0), (100.0, 0.5)], (
        "none is needed"
    )


def test_an_axis_shows_what_matters() -> None:
    climb = [(0.0, 0.1), (50.0, 0.94), (100.0, 0.97), (150.0, 0.96)]
    axis = chart.around("accuracy", [climb], 90.0)
    assert (axis.low, axis.high, axis.log) == (pytest.approx(0.96), pytest.approx(0.97), False)
    assert chart.around("accuracy", [climb], 1000.0).low < 0.1, "nothing is later: all of it"
    drawn = Chart("", Axis("step", 0, 150), axis, [Series("", climb, "#000")])
    assert drawn.cut == "The axis begins at 0.96: earlier steps, up to 50, lie below."
    loss = chart.around("loss", [[(0.0, 2.3), (1.0, 0.13)]], log=True)
    assert (loss.low, loss.high, loss.log) == (0.1, 5.0, True)
    assert not chart.around("loss", [[(0.0, 2.3), (1.0, 0.5)]], log=True).log
    assert not chart.around("loss", [[(0.0, 2.3), (1.0, 0.0)]], log=True).log


def test_names_of_curves_keep_apart() -> None:
    assert chart.apart([100, 50], 0, 200) == [100, 50]
    assert chart.apart([100, 100, 100], 0, 200) == [100, 115, 130]
    assert chart.apart([198, 199, 5], 10, 200) == [185, 200, 10]
    assert chart.apart([], 0, 1) == []


def test_an_axis_holds_its_data_between_round_values() -> None:
    assert [Axis.around("y", [0.1216, 0.84]).low, Axis.around("y", [0.1216, 0.84]).high] == pytest.approx([0.0, 1.0])
    assert [Axis.around("y", [0.984, 0.989]).low, Axis.around("y", [0.984, 0.989]).high] == pytest.approx(
        [0.984, 0.989]
    )
    same = Axis.around("y", [3.0, 3.0])
    assert same.low <= 3 < same.high
    assert (Axis.around("y", [0.0]).low, Axis.around("y", [0.0]).high) == (0, 1)


def test_intervals() -> None:
    """A worked example: 1, 2, 3, 4 has s = 1.2910 and t(3) = 3.182."""
    values = sample([1.0, None, 2.0, 3.0, 4.0])
    assert values is not None
    assert (values.mean, values.median) == (2.5, 2.5)
    assert sample([None]) is None


def test_the_law_of_a_page_counts_as_the_score_does() -> None:
    """The score leaves out the contribution that an attacker still makes on its way out."""
    role = Role((), Schedule(start=100))
    law, note = detection.law_of(RunConfig(), {4: role, 5: role})
    exact = detection_distribution(Setting(6, 2, 1, 1, 100), detection.HORIZON).tagged_contributed
    assert note == "exact chain, a convicted peer is removed"
    assert detection.mean_of(law) == pytest.approx(exact.mean - 1, abs=1e-3)
    staying, note = detection.law_of(RunConfig(on_ban="reform"), {4: role, 5: role})
    exact = detection_distribution(Setting(6, 2, 1, 1, 100, on_ban="reform"), detection.HORIZON).tagged_contributed
    assert note == "exact chain, a convicted peer is reformed"
    assert detection.mean_of(staying) == pytest.approx(exact.mean - 1, abs=1e-3)
    biased = Role((Plugin("sign_flip"), Plugin("withhold_reveal", {"biased": True})), Schedule(start=100))
    _, note = detection.law_of(RunConfig(validators_contribute="off"), {4: biased, 5: biased})
    assert note.endswith("by withheld REVEALs and returns attackers can stay for 18.7 steps on average")
    _, note = detection.law_of(RunConfig(validators_contribute="off", probation=0), {4: biased, 5: biased})
    assert note.endswith("by withheld REVEALs and returns attackers can stay for 10.9 steps on average")
    rare, _ = detection.law_of(RunConfig(), {5: Role((), Schedule(every=5))})
    assert detection.mean_of(rare) == pytest.approx(5.0, abs=1e-6), "one of five contributors is examined"
    assert detection.law_of(RunConfig(validators=0), {5: role}) == ({}, "")
    assert detection.quantile_of({1: 0.5, 2: 0.3, 3: 0.2}, 0.8) == 2
