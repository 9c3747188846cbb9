"""Figures: scales, ticks, histograms, matrices, and the numbers behind a report's tables."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from btard.launcher.detection import Setting, detection_distribution
from btard.launcher.figures import bars, chart, matrix, svg, timeline
from btard.launcher.figures.chart import Axis, Series
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
        (2, 2, False, [2]),
    ],
)
def test_ticks_are_round(low: float, high: float, log: bool, ticks: list[float]) -> None:
    assert Scale(low, high, 0, 1, log).ticks() == pytest.approx(ticks)


def test_figures_are_well_formed_and_escape_what_users_wrote() -> None:
    name = '<noise & "more">'
    drawn = (
        chart.draw(name, Axis("step", 0, 1), Axis("y", 0, 1), [Series(name, [(0, 0), (1, 1)], "#000")]),
        bars.durations(name, [(name, 1.0, 2.0)]),
        bars.against_law(name, {1: 0.5, 2: 0.5}, [1, 1, 2], name),
        matrix.draw(name, ["a"], ["b"], [[(1.0, "1", name)]], matrix.shade(0, 1)),
        timeline.draw(name, 3, [timeline.Lane(name, [0, 1, 2], [1], [2], {2: name})]),
    )
    for each in drawn:
        assert ET.fromstring(each).tag == "{http://www.w3.org/2000/svg}svg"


def test_stretches_and_averages() -> None:
    assert list(timeline.runs([0, 1, 2, 5, 7, 8])) == [(0, 2), (5, 5), (7, 8)]
    assert list(timeline.runs([])) == []
    lane = timeline.Lane("peer 0", range(2000), range(0, 2000, 2))
    assert len(timeline.draw("long", 2000, [lane])) < 40_000, "many stretches are one element"
    assert chart.smooth([0, 3, 6, 9], 3) == [0, 1.5, 3, 6], "nothing of what comes later"


def test_words_stand_out_on_every_colour() -> None:
    for scale in (matrix.verdict(0, 1), matrix.shade(0, 1)):
        for value in range(101):
            fill = scale(value / 100)
            one, other = sorted((_luminance(fill), _luminance(matrix.readable(fill))))
            assert (other + 0.05) / (one + 0.05) >= 4.5, fill
    assert matrix.readable(matrix.verdict(0, 1)(0.5)) == "#000000"
    assert matrix.readable(matrix.shade(0, 1)(1.0)) == "#ffffff"
    assert svg.number(0.05) == "0.05"
    assert svg.number(1200000.0) == "1e6"


def _luminance(colour: str) -> float:
    """Relative luminance by WCAG 2.2."""
    red, green, blue = bytes.fromhex(colour.removeprefix("#"))

    def linear(value: int) -> float:
        return value / 255 / 12.92 if value <= 10 else ((value / 255 + 0.055) / 1.055) ** 2.4

    return 0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue)


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
