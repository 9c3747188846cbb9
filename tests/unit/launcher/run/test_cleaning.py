"""`btard-launch clean`: what runs take of the disk, and removing old ones."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from btard import Experiment, run
from btard.launcher.cli.main import cli
from btard.launcher.run import control
from btard.node.errors import ConfigError


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A real run, two that look like it (one of three days ago), and folders that are no runs."""
    monkeypatch.chdir(tmp_path)
    where = tmp_path / "runs"
    made = run(
        Experiment(peers=3, task="quadratic", batch_size=4, steps=3, backend="simulated", run_dir=str(where / "new")),
        quiet=True,
    )
    for name in ("old", "busy"):
        (where / name / "nodes" / "0" / "state").mkdir(parents=True)
        (where / name / "run.json").write_bytes((made.run_dir / "run.json").read_bytes())
        (where / name / "nodes" / "0" / "state" / "1.checkpoint").write_bytes(b"x" * 3_000_000)
    for path in [where / "old", *(where / "old").rglob("*")]:
        os.utime(path, times=(time.time() - 3 * 86400,) * 2)
    (where / "mine").mkdir()
    (where / "mine" / "notes").write_text("not a run")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "run.json").write_text("{}")
    (where / "link").symlink_to(tmp_path / "elsewhere")
    return where


def clean(*words: str) -> Result:
    return CliRunner().invoke(cli, ["clean", *words])


def test_runs_are_listed_with_their_age_and_their_parts(runs: Path) -> None:
    lines = clean().stdout.splitlines()
    assert lines[0].split()[2:] == ["3", "days", "runs/old"] and lines[0].split()[:2] == ["3.0", "MB"]
    assert lines[1].strip().startswith("checkpoints 3.0 MB, rest ")
    assert lines[-2].split()[2:] == ["in", "3", "runs"]
    assert lines[-1].startswith("nothing is removed")
    assert sorted(path.name for path in runs.iterdir()) == ["busy", "link", "mine", "new", "old"], "only a look"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "left"),
    [
        (("--older-than", "2h"), ["busy", "link", "mine", "new"]),
        (("--larger-than", "2MB"), ["busy", "link", "mine", "new"]),
        (("--older-than", "0s"), ["busy", "link", "mine"]),
        (("--older-than", "2h", "--larger-than", "4MB"), ["busy", "link", "mine", "new", "old"]),
    ],
    ids=str,
)
def test_old_or_large_runs_are_removed_and_running_ones_are_not(
    words: tuple[str, ...], left: list[str], runs: Path
) -> None:
    with control.marked(runs / "busy"):
        done = clean(*words, "--delete")
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in runs.iterdir()) == left
    assert (runs.parent / "elsewhere" / "run.json").exists(), "what a link names is not ours"


def test_nothing_is_removed_without_a_limit_and_no_place_is_named_plainly(runs: Path) -> None:
    assert "--delete needs --older-than or --larger-than" in clean("--delete").output
    assert isinstance(clean("nowhere").exception, ConfigError)
    assert isinstance(clean("--older-than", "5").exception, ConfigError), "5 what?"
    assert len(list(runs.iterdir())) == 5
