"""`btard-launch resume`: a run whose processes were killed goes on; what cannot go on says why in one line."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
from pathlib import Path

import msgspec
import pytest

from btard import Experiment, run
from btard.launcher import exits
from btard.launcher.run import control, run_directory
from btard.launcher.run.resume import resume
from btard.launcher.run.summary import Summary
from btard.node.errors import ConfigError
from btard.node.storage.disk import SUFFIX
from btard.node.storage.recovery import MEMORY
from tests.launching import launched, read_until, session
from tests.unit.launcher.run.test_control import command

OPTIONS = ("--peers", "4", "--task", "quadratic", "--batch-size", "4", "--steps", "24", "--eval-every", "8",
           "--delivery-bound", "1s", "--gradient-bound", "1s")  # fmt: skip


@pytest.mark.sockets
def test_a_run_whose_processes_are_all_killed_is_resumed(tmp_path: Path) -> None:
    with launched(tmp_path, *OPTIONS, "--run-dir", "run", "--expect", "steps==1") as process:
        seen = read_until(process, "step 8/24")
        assert "error" not in seen
        for pid in session(process.pid):
            os.kill(pid, signal.SIGKILL)
        process.wait()
    where = tmp_path / "run"
    assert not (where / "summary.json").exists()
    ended = command(tmp_path, "resume", "run")
    assert ended.returncode == exits.EXPECTATION, ended.stderr
    assert "expectation not met: steps==1: it is 24" in ended.stderr
    assert "report: run/report.html" in ended.stdout.splitlines()
    assert (where / "report.html").is_file()
    assert not re.search(r"^step [08]/24", ended.stdout, re.MULTILINE), "told before it was killed"
    score = msgspec.json.decode((where / "summary.json").read_bytes(), type=Summary)
    assert (score.outcome, score.steps, score.agreement, score.bans, score.gone) == ("finished", 24, True, [], [])
    resumed = [json.loads(line) for line in (where / "events.jsonl").read_text().splitlines()]
    assert {record["node"] for record in resumed if record["event"] == "resumed"} == {0, 1, 2, 3}
    steps = [record["step"] for record in resumed if record["event"] == "resumed"]
    assert max(steps) - min(steps) <= 1
    assert min(steps) >= 8
    lines = [json.loads(line) for line in (where / "metrics.jsonl").read_text().splitlines()]
    told = [(record["node"], record["step"]) for record in lines if record["event"] == "committed"]
    assert len(told) == len(set(told)), "nothing is collected twice"
    with pytest.raises(ConfigError, match="is finished; there is nothing to resume"):
        resume(where)


@pytest.mark.parametrize("place", ["run", "a run"])
def test_of_two_that_resume_one_run_the_second_is_refused(place: str, tmp_path: Path) -> None:
    """Both would start its workers, and collect the same records twice."""
    chosen = Experiment(run_dir=str(tmp_path / place))
    made = run_directory.create(chosen, chosen.run_config("cpu"), {}, tmp_path)
    stop = f"btard-launch stop {shlex.quote(str(made.path))}"
    with control.alone(made.path), pytest.raises(ConfigError, match=f"is still running; end it by `{stop}` first$"):
        resume(made.path)
    with pytest.raises(ConfigError, match="holds no checkpoint to resume from"):
        resume(made.path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run directory without anything to resume from."""
    where = tmp_path_factory.mktemp("resume") / "run"
    run(Experiment(peers=3, task="quadratic", batch_size=4, steps=3, backend="simulated", run_dir=str(where)))
    return where


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, "only local runs are resumed, the others keep nothing after their end: start it again with"),
        ({"backend": "compose"}, "ran on the backend 'compose'; only local runs are resumed"),
        ({"wire_version": 99}, "was made by another version (format 1, wire 99"),
        ({"format": 0}, "was made by another version (format 0"),
        ({"backend": "local"}, "holds no checkpoint to resume from; start it again"),
    ],
    ids=str,
)
def test_what_cannot_be_resumed_is_refused_in_one_line(change: dict[str, object], words: str, finished: Path) -> None:
    record = json.loads((finished / "run.json").read_bytes())
    altered = {**record, **{key: value for key, value in change.items() if key != "backend"}}
    if "backend" in change:
        altered["experiment"] = {**record["experiment"], "backend": change["backend"]}
    (finished / "run.json").write_bytes(msgspec.json.encode(altered))
    with pytest.raises(ConfigError) as refused:
        resume(finished)
    (finished / "run.json").write_bytes(msgspec.json.encode(record))
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_run_whose_launcher_made_the_keys_names_the_version_that_goes_on_with_it(finished: Path) -> None:
    record = json.loads((finished / "run.json").read_bytes())
    local = {**record, "experiment": {**record["experiment"], "backend": "local"}}
    kept = finished / "nodes/0" / MEMORY / f"1{SUFFIX}"
    kept.parent.mkdir(exist_ok=True)
    kept.touch()
    (finished / "run.json").write_bytes(msgspec.json.encode(local))
    try:
        with pytest.raises(ConfigError, match=r"whose launcher made all keys; resume it with btard \d+\.\d+\.\d+"):
            resume(finished)
    finally:
        kept.unlink()
        (finished / "run.json").write_bytes(msgspec.json.encode(record))


def test_a_directory_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a run directory"):
        resume(tmp_path)
