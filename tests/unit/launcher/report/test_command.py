"""launcher/report/command.py: figures for print of runs, of several together, and of a sweep."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from btard import Experiment, run
from btard.launcher.report import command
from btard.node.errors import ConfigError

BASE = Experiment(
    backend="simulated",
    task="quadratic",
    device="cpu",
    steps=30,
    eval_every=5,
    attack="noise",
    byzantine=2,
    attack_start=4,
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three runs of an attack that differ in their seeds alone."""
    where = tmp_path_factory.mktemp("runs")
    made = []
    for seed in range(3):
        fields = {name: getattr(BASE, name) for name in BASE.__struct_fields__}
        made.append(run(Experiment(**fields | {"seed": seed, "run_dir": str(where / str(seed))})).run_dir)
    return made


@pytest.mark.slow
def test_the_figures_of_a_run_say_how_it_was_made(runs: list[Path], tmp_path: Path) -> None:
    made = command.figures(runs[:1], None)
    keys = ("accuracy", "loss", "timeline", "detection", "sent", "traffic", "phases")
    assert [path.name for path in made] == [f"{key}.{kind}" for key in keys for kind in ("svg", "pdf")] + [
        "captions.md"
    ]
    assert {path.parent for path in made} == {runs[0] / "figures"}
    repeat = (
        "btard-launch --backend simulated --device cpu --attack noise --byzantine 2 --attack-start 4 --task quadratic"
    )
    captions = made[-1].read_text()
    assert repeat in captions and re.findall("^## (.*)$", captions, re.MULTILINE) == list(keys)
    assert all(repeat in path.read_text().replace("\n", " ") for path in made if path.suffix == ".svg")
    again = command.figures(runs[:1], tmp_path / "again")
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in made]


@pytest.mark.slow
def test_runs_that_differ_in_their_seeds_are_one_curve_with_a_band(runs: list[Path], tmp_path: Path) -> None:
    made = command.figures(runs, tmp_path)
    assert [path.stem for path in made if path.suffix == ".svg"] == ["curves", "losses", "detection-2-1-remove"]
    captions = made[-1].read_text()
    assert "3 runs, 3 draws of validators. Lines: median over draws; bands: from the least to the greatest" in captions
    assert captions.count("btard-launch --backend simulated") == 3 and "--seed 2" in captions
    assert "FillBetweenPolyCollection" in made[0].read_text(), "the band"


def test_what_has_no_figures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is neither a run nor a sweep"):
        command.figures([tmp_path], None)
    (tmp_path / "sweep.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"is no launcher's run; name several of those, or one sweep or peer alone"):
        command.figures([tmp_path, tmp_path], None)
