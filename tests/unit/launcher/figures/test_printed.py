"""launcher/figures/printed.py: figures for print hold what the pages' hold, and have the same bytes each time."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from btard.launcher.figures import printed, timeline
from btard.launcher.figures.bars import AgainstLaw, Durations
from btard.launcher.figures.chart import Axis, Band, Chart, Dot, Mark, Series
from btard.launcher.figures.matrix import Matrix
from btard.launcher.figures.svg import RED, Figure
from btard.node.errors import ConfigError

CURVE = [(0.0, 0.1), (50.0, 0.9), (99.5, float("nan")), (100.0, 0.8), (200.0, 0.95)]
FIGURES = (
    Figure("chart", "Curves", Chart(
        "curves", Axis("step", 0, 200), Axis("test accuracy", 0.8, 1.0),
        [Series("noise", CURVE, "#4477aa", marked=True, spread=[(0.0, 0.05, 0.2), (200.0, 0.9, 0.96)]),
         Series("clean", [(0.0, 0.1), (200.0, 0.97)], "#7f7f7f", "6 3")],
        [Band(100, 110, "attack")], [Mark(110, "peer 5 banned")], [Dot(200, 0.9831, "report", RED)], "report's final",
    ), "Two curves."),
    Figure("log", "Loss", Chart("loss", Axis("step", 0, 200), Axis("training loss", 0.1, 5, log=True),
                                [Series("honest", [(0.0, 2.3), (200.0, 0.15)], "#4477aa")])),
    Figure("law", "Detection", AgainstLaw("law", {1: 0.5, 2: 0.3, 3: 0.2}, [1, 1, 3], "attacked contributions")),
    Figure("matrix", "Rules", Matrix(
        "rules", ["noise", "zero"], ["mean", "median"],
        [[(0.1, "0.100", ""), (0.9, "0.900", "")], [(None, "free", ""), (0.8, "0.800", "")]], 0, 1, "attack",
        "rule", min,
    )),
    Figure("lanes", "Peers", timeline.Timeline("peers", 9, [timeline.Lane("peer 0", range(9), [3], [4], {6: "lie"})])),
    Figure("phases", "Phases", Durations("phases", [("COMMIT", 51.0, 60.0), ("CLOSE", 1.0, 2.0)])),
)  # fmt: skip
WORDS = {
    "chart": {"noise", "clean", "attack", "peer 5 banned", "report's final", "test accuracy", "step", "0.8", "1"},
    "log": {"honest", "0.1", "0.2", "0.5", "1", "2", "5"},
    "law": {"the law", "seen (3)", "attacked contributions", "probability"},
    "matrix": {"noise", "zero", "mean", "median", "0.900", "free", "attack", "rule"},
    "lanes": {"peer 0", "active", "validates", "attacks", "ban", "out"},
    "phases": {"COMMIT", "CLOSE", "51.0 / 60.0", "milliseconds: median / 95th percentile"},
}


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.key)
def test_each_kind_is_printed_with_its_words_and_the_same_bytes_again(figure: Figure, tmp_path: Path) -> None:
    first, again = tmp_path / "first", tmp_path / "again"
    for where in (first, again):
        where.mkdir()
        made = printed.write(figure, where, "Made by: btard-launch --seed 3")
        assert [path.name for path in made] == [f"{figure.key}.svg", f"{figure.key}.pdf"]
    for path in first.iterdir():
        assert path.read_bytes() == (again / path.name).read_bytes()
    drawn = (first / f"{figure.key}.svg").read_text()
    words = {
        "".join(each.itertext()).strip() for each in ElementTree.fromstring(drawn).iter() if each.tag.endswith("}text")
    }
    assert words >= WORDS[figure.key]
    assert "Made by: btard-launch --seed 3" in drawn and f"<dc:title>{figure.title}<" in drawn
    assert "dc:date" not in drawn
    page = (first / f"{figure.key}.pdf").read_bytes()
    assert page.startswith(b"%PDF") and b"Made by: btard-launch --seed 3" in page and b"CreationDate" not in page


def test_a_curve_has_a_gap_where_the_page_has_one(tmp_path: Path) -> None:
    """The path of the first curve begins anew after the value that is not a number, at the right places."""
    printed.write(FIGURES[0], tmp_path, "")
    drawn = (tmp_path / "chart.svg").read_text()
    paths = [path for path in re.findall(r'<path d="(M [^"]*)"[^>]*stroke: #4477aa', drawn) if path.count("L") > 1]
    (curve,) = (path for path in paths if path.count("M") == 2)
    before, after = (
        [[float(x) for x in point.split()] for point in re.split("[ML]", part) if point.strip()]
        for part in re.split(r"(?=M)", curve)[1:]
    )
    (_, _), (x50, _), (x100, y100), (x200, y200) = *before, *after
    assert (x100 - x50) / (x200 - x50) == pytest.approx(1 / 3, abs=0.01)
    assert y200 < y100, "0.95 is higher up than 0.8"


def test_without_matplotlib_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "matplotlib.figure", raising=False)
    with pytest.raises(ConfigError, match=r"figures for print need matplotlib .*; pip install '\.\[print\]'") as told:
        printed.write(FIGURES[0], tmp_path, "")
    assert "\n" not in str(told.value)
    assert list(tmp_path.iterdir()) == []


def test_a_key_that_a_user_wrote_stays_within_the_directory(tmp_path: Path) -> None:
    made = printed.write(Figure("curves-../a b", "x", FIGURES[2].drawing), tmp_path, "")
    assert [path.parent for path in made] == [tmp_path] * 2 and made[0].name == "curves-..-a-b.svg"


def test_what_nobody_can_print_is_a_mistake_of_ours(tmp_path: Path) -> None:
    class Strange:
        html = "<p>"

    with pytest.raises(TypeError, match="Strange cannot be printed"):
        printed.write(Figure("x", "x", Strange()), tmp_path, "")
