"""launcher/report/front.py: which groups of a small archive of the plan `validators` are dominated, and by what."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

from btard.launcher.detection import Setting, time_to_last
from btard.launcher.figures.chart import Chart
from btard.launcher.report import front, sweep_data, sweep_page
from btard.launcher.sweep import rows
from btard.launcher.sweep.rows import Archive, Row
from tests.sweeping import curves, plan, swept

pytest.importorskip("pyarrow")
Made = Mapping[tuple[int, int], tuple[float, float, int]]
"""(m, k) to accuracy lost, CPU seconds and bytes."""
MADE: Made = {
    (1, 1): (0.010, 9.0, 800),
    (1, 2): (0.030, 7.0, 700),
    (1, 4): (0.050, 5.0, 500),
    (2, 1): (0.004, 12.0, 900),
    (2, 2): (0.012, 9.5, 790),
    (2, 4): (0.030, 8.0, 600),
}


def _rows(made: Made) -> list[Row]:
    """Runs of plan `validators` with six peers, as far as they are given: sign flip loses what is given in the mean of
    its draws, constant direction half of it."""
    found = []
    for each in plan("validators", False):
        given = made.get((each.options["validators"], each.options["validate_every"]))
        if each.options["peers"] != 6 or given is None:
            continue
        lost, cpu_s, sent = given
        fields: dict[str, float] = {"cpu_seconds": cpu_s, "bytes_sent": sent}
        if each.byzantine_peers:
            share = {101: 0.0, 102: 1.0, 103: 2.0}[each.options["protocol_seed"]]
            lost *= share if each.options["attack"] == "sign_flip" else share / 2
            fields = {"final_test_accuracy": 0.985 - lost, "cpu_seconds": 1.0, "bytes_sent": 1}
        found.append(msgspec.structs.replace(each, **fields))
    return found


def _archived(made: list[Row], path: Path) -> sweep_data.SweepData:
    archive = Archive(
        rows.FORMAT,
        "validators",
        ["btard-launch", "sweep", "validators"],
        135,
        made,
        {each.cell: curves(each) for each in made},
    )
    assert rows.write_parquet(archive, path)
    return sweep_data.load(path)


def test_the_front_of_an_archive(tmp_path: Path) -> None:
    """By hand: m=1, k=2 and m=2, k=4 lose alike, and the first costs less CPU and more bytes; m=2, k=2 costs more CPU
    than m=1, k=1 and loses more."""
    lines = front.table(_archived(_rows(MADE), tmp_path / "results.parquet"))
    told = {(line[2], line[3]): dict(zip(front.HEADER, line, strict=True)) for line in lines}
    assert {key: line["lost by CPU"] for key, line in told.items()} == {
        (1, 1): "front",
        (1, 2): "front",
        (1, 4): "front",
        (2, 1): "front",
        (2, 2): "dominated by m=1, k=1",
        (2, 4): "dominated by m=1, k=2",
    }
    assert {key: line["lost by bytes"] for key, line in told.items()} == {
        (1, 1): "front",
        (1, 2): "dominated by m=2, k=4",
        (1, 4): "front",
        (2, 1): "front",
        (2, 2): "front",
        (2, 4): "front",
    }
    assert (told[1, 1]["accuracy lost"], told[1, 1]["under"]) == ("+0.0100", "sign_flip")
    assert [told[2, 1][name] for name in ("peers", "attackers", "runs", "draws", "CPU s")] == [6, 2, 6, 3, "12.0"]
    laws = {(m, k): time_to_last(Setting(6, 2, m, k, 100, "on", "reform"), 2000).mean for m, k in MADE}
    for key, line in told.items():
        worse = [MADE[key][1] >= MADE[other][1] and laws[key] >= laws[other] for other in MADE if other != key]
        assert (line["T by the law"], line["T by CPU"] != "front") == (f"{laws[key]:.1f}", any(worse))


def test_the_page_draws_each_group_once_and_no_other(tmp_path: Path) -> None:
    sweep = _archived(_rows(MADE), tmp_path / "results.parquet")
    by_cpu, by_bytes = front.figures(sweep)
    assert isinstance(by_cpu.drawing, Chart) and isinstance(by_bytes.drawing, Chart)
    points = {line.name: [(x, round(y, 6)) for x, y in line.points] for line in by_cpu.drawing.series}
    assert points == {
        f"m={m}, k={k}{' dominated' if (m, k) in ((2, 2), (2, 4)) else ''}": [(cpu_s, lost)]
        for (m, k), (lost, cpu_s, _) in MADE.items()
    }
    assert {x for line in by_bytes.drawing.series for x, _ in line.points} == {sent / 1e6 for *_, sent in MADE.values()}
    page = sweep_page.render(sweep)
    assert "What validators cost and spare" in page and by_cpu.title in page
    assert by_cpu in sweep_page.figures(sweep)


def test_a_group_without_clean_runs_has_no_point() -> None:
    """It is in no table, and dominates nothing."""
    known = [each for each in _rows(MADE) if each.byzantine_peers or each.options["validate_every"] != 4]
    assert {(line[2], line[3]) for line in front.table(swept(known))} == {key for key in MADE if key[1] != 4}
    assert front.table(swept([each for each in _rows(MADE) if each.byzantine_peers])) == []


def test_clusters_of_other_sizes_do_not_dominate() -> None:
    made = plan("validators", False)
    cheap = [msgspec.structs.replace(each, cpu_seconds=float(each.options["peers"])) for each in made]
    for line in front.table(swept(cheap)):
        told = dict(zip(front.HEADER, line, strict=True))
        assert told["lost by CPU"] == "front", "all of one size cost and lose alike"


def test_a_sweep_that_varies_more_than_validators_has_no_front() -> None:
    made = [
        msgspec.structs.replace(each, options=each.options | {"tau": float(place % 2)})
        for place, each in enumerate(_rows(MADE))
    ]
    assert front.table(swept(made)) == [] == front.figures(swept(made))
    assert front.table(swept(plan("harm", True))) == []


def test_nobody_validates_for_ever() -> None:
    """Without validators the law has no end: such a group is cheapest, and the worst in T."""
    made = [*_rows(MADE)]
    none = [
        msgspec.structs.replace(each, cell=f"{each.cell}-0", options=each.options | {"validators": 0})
        for each in made
        if (each.options["validators"], each.options["validate_every"]) == (1, 4)
    ]
    lines = [dict(zip(front.HEADER, line, strict=True)) for line in front.table(swept([*made, *none]))]
    (nobody,) = (line for line in lines if line["m"] == 0)
    assert (nobody["T by the law"], nobody["T by CPU"]) == ("never", "dominated by m=1, k=4")
