"""What is kept of a finished cell: its row, its curves step by step, and archives of whole sweeps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from btard import Experiment, run
from btard.launcher.run import run_directory
from btard.launcher.sweep import rows
from btard.launcher.sweep.grid import Cell
from btard.launcher.sweep.rows import Archive, Curves, Row
from btard.node.errors import ConfigError, DataError

BASE = Experiment(backend="simulated", task="quadratic", device="cpu", steps=6, eval_every=3)


def row(**changes: Any) -> Row:
    """The row of a cell without attackers."""
    plain = Row(
        cell="a", labels={}, options={}, outcome="finished", problem=None, final_test_accuracy=None,
        best_test_accuracy=None, lowest_after_attack=None, final_train_loss=None, byzantine_peers=0, bans=0,
        honest_banned=0, honest_gone=0, undetected=0, attacked_from=None, first_ban=None, last_ban=None,
        detection_steps=[], agreement=True, findings=None, findings_wrong=None,
        bytes_sent=0, bytes_bulk=0, bytes_control=0, bytes_published=0, wall_seconds=6.0, cpu_seconds=5.0,
    )  # fmt: skip
    return msgspec.structs.replace(plain, **changes)


def archive(*found: Row, **changes: Any) -> Archive:
    """A sweep of these rows, with curves and versions."""
    curves = {each.cell: Curves([2.25, None, 0.1], [(0, 0.0975), (3, 0.985)], [6, 6, 5]) for each in found}
    made = {each.cell: run_directory.versions() for each in found[1:]}
    whole = Archive(rows.FORMAT, "mine", ["btard-launch", "sweep"], 3, list(found), curves, made)
    return msgspec.structs.replace(whole, **changes)


CLEAN = row(options={"tau": 5, "role": [], "attack": None, "bandwidth": None})
ATTACKED = row(
    cell="b", labels={"scheme": "mild"}, final_test_accuracy=0.5, first_ban=7, detection_steps=[3, 4],
    options={"tau": 0.5, "role": ["4=noise", "5=drop"], "attack": "noise", "bandwidth": None, "seed": 2**62},
)  # fmt: skip


def test_an_archive_is_read_back_as_it_was(tmp_path: Path) -> None:
    """Columns that are missing, whole in one row and broken in another, lists, and empty in all rows."""
    from pyarrow import parquet

    path = tmp_path / "mine.parquet"
    assert rows.write_parquet(archive(CLEAN, ATTACKED), path)
    assert list(tmp_path.iterdir()) == [path], "nothing temporary is left"
    clean = msgspec.structs.replace(CLEAN, options=CLEAN.options | {"seed": None})
    assert rows.read_parquet(path) == archive(clean, ATTACKED)
    header, _ = rows.table([CLEAN, ATTACKED])
    read = parquet.read_table(path)
    assert read.column_names == [*header, "loss", "evaluated", "accuracy", "active", "versions"]
    assert read.to_pylist()[1]["role"] == ["4=noise", "5=drop"]
    versions = json.loads(read.to_pylist()[1]["versions"])
    assert versions["processors"] and versions["packages"]["torch"] and versions["platform"]


def test_what_is_no_archive_of_this_version_is_refused_in_one_line(tmp_path: Path) -> None:
    from pyarrow import parquet

    path = tmp_path / "mine.parquet"
    path.write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match=r"^\S*mine.parquet cannot be read as an archive: [^\n]+$"):
        rows.read_parquet(path)
    rows.write_parquet(archive(CLEAN, format=2), path)
    with pytest.raises(ConfigError, match=r"has format 2, and this version reads 1; use the version that wrote it$"):
        rows.read_parquet(path)
    rows.write_parquet(archive(CLEAN), path)
    read = parquet.read_table(path)
    parquet.write_table(read.drop_columns(["loss"]), path)
    with pytest.raises(ConfigError, match="is no archive of a sweep: it has no loss; `btard-launch report SWEEP`"):
        rows.read_parquet(path)
    parquet.write_table(read.replace_schema_metadata(None), path)
    with pytest.raises(ConfigError, match="is no archive of a sweep: it has no sweep's name"):
        rows.read_parquet(path)
    parquet.write_table(read.drop_columns(["cpu_seconds"]), path)
    with pytest.raises(DataError, match=r"is damaged: .*cpu_seconds"):
        rows.read_parquet(path)


def test_a_cell_of_another_version_or_without_curves_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / rows.ROW).write_bytes(msgspec.json.encode(msgspec.structs.replace(CLEAN, format=2)))
    with pytest.raises(ConfigError, match=r"cell.json has format 2, and this version reads 1"):
        rows.load(tmp_path)
    with pytest.raises(
        DataError, match=r"curves.json cannot be read \(No such file or directory\); delete its directory and"
    ):
        rows.load_curves(tmp_path)
    assert rows.load_versions(tmp_path) is None


def test_a_step_without_a_loss_keeps_its_place(tmp_path: Path) -> None:
    """JSON has no NaN: a loss that is none is null in metrics.jsonl, as it is for a peer that contributed nothing."""
    made = run(msgspec.structs.replace(BASE, run_dir=str(tmp_path)))
    whole = rows.score(Cell(BASE), tmp_path, made.summary, None)[1].loss
    metrics = tmp_path / "metrics.jsonl"
    records = [json.loads(line) for line in metrics.read_text().splitlines()]
    for record in records:
        if record.get("step") in (2, 5):
            record["loss"] = None
    metrics.write_text("".join(json.dumps(record) + "\n" for record in records))
    curves = rows.score(Cell(BASE), tmp_path, made.summary, None)[1]
    assert len(whole) == BASE.steps
    assert None not in whole
    assert curves.loss == [*whole[:2], None, *whole[3:5], None]
    (tmp_path / rows.CURVES).write_bytes(msgspec.json.encode(curves))
    assert rows.load_curves(tmp_path) == curves
