"""A run directory as typed objects: what nodes say is read as the launcher reads it, models are certified ones."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch

import btard
from btard import Experiment, LoadedRun, Result, load_run, run
from btard.launcher.run import control
from btard.launcher.run.loaded import TABLES
from btard.node.errors import BackendError, ConfigError

ASKED = Experiment(
    task="quadratic",
    device="cpu",
    steps=40,
    eval_every=20,
    attack="noise",
    byzantine=2,
    attack_start=3,
    protocol_seed=2,
    backend="simulated",
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A finished run in which two attackers were banned."""
    import msgspec

    where = tmp_path_factory.mktemp("loaded") / "run"
    return run(msgspec.structs.replace(ASKED, run_dir=str(where)), quiet=True)


@pytest.fixture
def copied(made: Result, tmp_path: Path) -> Path:
    """A copy of its directory that a test may change."""
    return Path(shutil.copytree(made.run_dir, tmp_path / "copy"))


def append(run_dir: Path, node: int, **record: object) -> None:
    """Write one more record into a node's journal."""
    with (run_dir / "nodes" / str(node) / "journal.jsonl").open("a") as journal:
        journal.write(json.dumps({"time": 1e9, "node": node, **record}) + "\n")


def test_a_finished_run_has_its_curves_bans_roles_and_configuration(made: Result) -> None:
    found = load_run(str(made.run_dir))
    assert found.outcome == "finished" and found.summary == made.summary and found.problems == ()
    assert found.record is not None and found.record.experiment.attack == "noise" and found.config.steps == 40
    assert found.roles is not None and sorted(found.roles) == made.summary.byzantine
    assert [(ban.peer, ban.step, ban.reason, ban.evidence) for ban in found.bans] == [
        (row.peer, row.step, row.reason, row.evidence) for row in made.summary.bans
    ]
    assert all((found.path / ban.evidence).is_file() for ban in found.bans) and found.removals == ()
    assert [row.step for row in found.curves] == list(range(41))
    assert [(row.step, row.accuracy) for row in found.curves if row.accuracy is not None] == made.summary.accuracy
    losses = [row.loss for row in found.curves if row.loss is not None]
    assert losses[-1] < losses[0] and losses[-1] == pytest.approx(made.summary.final_train_loss)
    assert all(row.seconds > 0 and 4 <= row.active <= 6 for row in found.curves)


def test_the_final_parameters_are_those_of_the_saved_model(made: Result) -> None:
    found, saved = load_run(made.run_dir).state_dict(), torch.load(made.run_dir / "model.pt", weights_only=True)
    assert list(found) == list(saved) and all(torch.equal(found[name], saved[name]) for name in saved)
    with pytest.raises(ConfigError, match=r"task 'quadratic' is no nn\.Module; `state_dict\(\)` has its tensors"):
        load_run(made.run_dir).model()


def test_parameters_that_most_nodes_cannot_certify_are_none(copied: Path) -> None:
    for node in range(6):
        (copied / "nodes" / str(node) / "certificate").write_bytes(b"")
    with pytest.raises(ConfigError, match="certified final parameters that agree are needed of 3 of the 6 nodes"):
        load_run(copied).state_dict()


@pytest.mark.parametrize("table", TABLES)
def test_each_table_is_a_data_frame(table: str, made: Result) -> None:
    pytest.importorskip("pandas")
    found = load_run(made.run_dir)
    frame = found.frame(table)
    assert len(frame) == len(getattr(found, table)) and "step" in frame.columns
    if table == "bans":
        assert frame.peer.tolist() == [ban.peer for ban in found.bans]


def test_without_pandas_a_data_frame_is_refused_in_one_line(made: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)  # type: ignore[arg-type]
    with pytest.raises(BackendError, match=r"not installed: `pip install pandas`, or use run\.bans"):
        load_run(made.run_dir).frame("bans")
    with pytest.raises(ConfigError, match="no table 'ban'; it has curves, bans"):
        load_run(made.run_dir).frame("ban")


def test_what_a_hostile_node_writes_is_refused_and_named(made: Result, copied: Path) -> None:
    known = load_run(made.run_dir)
    (liar, *_), honest = made.summary.byzantine, next(n for n in range(6) if n not in made.summary.byzantine)
    ban = {
        "step": 1,
        "attempt": 0,
        "peer": honest,
        "reason": "gradient",
        "accuser": None,
        "removed": True,
        "standing": "banned",
        "evidence": "0" * 64,
    }
    append(copied, liar, event="banned", path="../../../etc/passwd", **ban)
    append(copied, liar, event="finished", step="soon")
    append(copied, liar, event="banned", path=f"nodes/{liar}/evidence/ban-1-0-{honest}.evidence", **ban)
    found = load_run(copied)
    assert (found.bans, found.curves) == (known.bans, known.curves)
    assert len(found.problems) == 3 and all(f"nodes/{liar}/journal.jsonl" in line for line in found.problems)


def test_a_run_that_goes_on_or_was_stopped_has_no_summary(copied: Path) -> None:
    (copied / "summary.json").unlink()
    for node in range(6):
        journal = copied / "nodes" / str(node) / "journal.jsonl"
        journal.write_text("".join(journal.read_text().splitlines(keepends=True)[:20]))
    with control.marked(copied):
        assert load_run(copied).outcome == "running"
    found = load_run(copied)
    assert (found.outcome, found.summary) == ("stopped", None) and 0 < len(found.curves) < 41
    with pytest.raises(ConfigError, match="has no final parameters: no node has finished"):
        found.state_dict()


def test_without_run_json_nobody_is_known_to_attack(copied: Path) -> None:
    (copied / "run.json").unlink()
    found = load_run(copied)
    assert found.record is None and found.roles is None and {ban.peer for ban in found.bans} >= {4, 5}


@pytest.mark.parametrize("content", [None, "{}", "[" * 5000], ids=["none", "other", "deep"])
def test_another_directory_is_refused_in_one_line(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "genesis.json").write_text(content)
    with pytest.raises(ConfigError, match=r"is not a run directory.*name one below runs/|is damaged") as refused:
        load_run(tmp_path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["run.json", "summary.json"])
@pytest.mark.parametrize("content", ["[]", "[" * 5000, None], ids=["other", "deep", "link"])
def test_a_damaged_file_of_the_launchers_is_refused_in_one_line(name: str, content: str | None, copied: Path) -> None:
    (copied / name).unlink()
    if content is None:
        (copied / name).symlink_to("genesis.json")
    else:
        (copied / name).write_text(content)
    with pytest.raises(ConfigError, match=name.replace(".", r"\.")) as refused:
        load_run(copied)
    assert "\n" not in str(refused.value)


def test_it_is_public(made: Result) -> None:
    assert isinstance(btard.load_run(made.run_dir), LoadedRun)
