"""What a removal leaves, in containers: an attacker's lies are taken back; a container that was gone comes back."""

from __future__ import annotations

import json
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from tests.containers.cluster import PATIENCE_S
from tests.containers.test_backend import left_of
from tests.launching import LAUNCH, environment

pytestmark = [pytest.mark.containers, pytest.mark.usefixtures("image")]

AGREED = ("--expect", "agreement==true", "--expect", "honest_banned==0")


def summary(where: Path, *arguments: str) -> dict[str, Any]:
    """The summary of a run in containers, which has to end well and to leave none of them."""
    done = subprocess.run(
        [*LAUNCH, "--backend", "compose", "--task", "quadratic", "--eval-every", "10", "--run-dir", "run", "--json",
         *AGREED, *arguments],
        cwd=where, env=environment(), capture_output=True, text=True, timeout=20 * PATIENCE_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert left_of(where / "run") == []
    made: dict[str, Any] = json.loads(done.stdout)
    return made


def events(where: Path, node: int) -> list[dict[str, Any]]:
    lines = (where / f"run/nodes/{node}/journal.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def digests(where: Path, nodes: range) -> dict[int, set[str]]:
    """State digests of each step, over these nodes."""
    found: dict[int, set[str]] = defaultdict(set)
    for node in nodes:
        for record in events(where, node):
            if record["event"] == "committed":
                found[record["step"]].add(record["state_digest"])
    return found


def test_the_lies_of_a_banned_container_are_taken_back(tmp_path: Path) -> None:
    score = summary(
        tmp_path, "--undo", "40", "--attack", "sign_flip", "--byzantine", "1", "--attack-start", "5", "--steps", "30",
        "--protocol-seed", "1",
        "--delivery-bound", "10s", "--expect", "undetected==0", "--expect", "honest_gone==0",
    )  # fmt: skip
    (ban,) = score["bans"]
    (undone,) = score["undone"]
    assert ban["peer"] == 5 and undone["suspects"] == [5] and undone["step"] > ban["step"]
    assert {peer for _, peer in undone["lies"]} == {5} and not undone["older"]
    assert undone["to_step"] == min(step for step, _ in undone["lies"]) >= 5, "the step of the first lie"
    assert undone["lost"] == undone["step"] - undone["to_step"]
    found = digests(tmp_path, range(5))
    assert max(found) >= 30 and all(len(each) == 1 for each in found.values())


def test_a_killed_container_is_gone_and_back_after_its_probation(tmp_path: Path) -> None:
    (tmp_path / "crash.scn").write_text("at 500ms kill 5\nat 9s restart 5\n")
    score = summary(
        tmp_path, "--scenario", "crash.scn", "--steps", "90", "--delay", "25ms", "--probation", "2",
        "--delivery-bound", "400ms", "--gradient-bound", "600ms",
    )  # fmt: skip
    assert [row["peer"] for row in score["gone"]] == [row["peer"] for row in score["returned"]] == [5]
    back = score["returned"][0]["step"]
    mine = {record["step"]: record["state_digest"] for record in events(tmp_path, 5)
            if record["event"] == "committed" and record["step"] > back}  # fmt: skip
    assert list(mine) == list(range(back + 1, 91)), "it commits every step after its return, as the others do"
    assert all(each == {mine[step]} for step, each in digests(tmp_path, range(5)).items() if step in mine)
