"""A scenario in containers: the file that hits local processes and the simulator, carried out on the engine."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.containers.cluster import PATIENCE_S
from tests.containers.test_backend import left_of
from tests.launching import LAUNCH, environment

pytestmark = [pytest.mark.containers, pytest.mark.usefixtures("image")]

SCENARIO = """\
at 100ms pause 3 for 1s
at step 30 kill 5
at step 30 restart 5
from step 40 to step 60 delay 0->4 20ms
"""


def test_a_pause_a_kill_a_restart_and_a_slow_link_on_the_engine(tmp_path: Path) -> None:
    (tmp_path / "flaky.scn").write_text(SCENARIO)
    done = subprocess.run(
        [*LAUNCH, "--backend", "compose", "--task", "quadratic", "--steps", "80", "--eval-every", "10",
         "--delivery-bound", "10s", "--scenario", "flaky.scn", "--run-dir", "run", "--json",
         "--expect", "honest_banned==0", "--expect", "honest_gone==0", "--expect", "agreement==true"],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=20 * PATIENCE_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["steps"] == 80
    assert {event["action"] for event in summary["scenario"]} == {
        "pause", "continue", "kill", "restart", "begins", "ends",
    }  # fmt: skip
    records = [json.loads(line) for line in (tmp_path / "run/nodes/5/journal.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records if record["event"] == "resumed"], "it went on where it was killed"
    slow = next(row for row in summary["links"] if (row["sender"], row["receiver"]) == (0, 4))
    assert slow["requested_delay_s"] > 0 and slow["measured_delay_s"] > 0
    assert left_of(tmp_path / "run") == []
