"""What is kept of a finished cell: its row as CSV and Parquet, and its curves, step by step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from btard import Experiment, run
from btard.launcher.sweep import rows
from btard.launcher.sweep.grid import Cell
from btard.launcher.sweep.rows import Row

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


def test_parquet_holds_the_table(tmp_path: Path) -> None:
    """Columns that are missing, whole in one row and broken in another, lists, and empty in all rows."""
    from pyarrow import parquet

    clean = row(options={"tau": 5, "role": [], "attack": None, "bandwidth": None})
    attacked = row(
        cell="b", labels={"scheme": "mild"}, final_test_accuracy=0.5, first_ban=7, detection_steps=[3, 4],
        options={"tau": 0.5, "role": ["4=noise", "5=drop"], "attack": "noise", "bandwidth": None, "seed": 2**62},
    )  # fmt: skip
    path = tmp_path / "results.parquet"
    assert rows.write_parquet([clean, attacked], path)
    assert list(tmp_path.iterdir()) == [path], "nothing temporary is left"
    read = parquet.read_table(path)
    header, body = rows.table([clean, attacked])
    assert read.column_names == header
    assert [list(line.values()) for line in read.to_pylist()] == body
    first, second = read.to_pylist()
    assert (first["tau"], first["role"], first["seed"], first["first_ban"]) == (5.0, "", None, None)
    assert (second["tau"], second["role"], second["seed"]) == (0.5, "4=noise;5=drop", 2**62)
    assert (first["label_scheme"], second["label_scheme"], second["detection_steps"]) == ("", "mild", "3;4")


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
