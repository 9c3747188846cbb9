"""A real process is killed, removed as gone, started again by the scenario, and back after its probation."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import pytest

from btard.node.storage.journal import read
from tests.launching import PATIENCE_S, launched

pytestmark = pytest.mark.sockets

SCENARIO = """at step 3 kill 4
at step 5 restart 4
"""


def output(where: Path, *arguments: str) -> tuple[int, str]:
    """Exit code and words of a command."""
    with launched(where, *arguments) as process:
        said, _ = process.communicate(timeout=PATIENCE_S)
        return process.returncode, said


def test_a_killed_process_is_gone_and_back_after_its_probation(tmp_path: Path) -> None:
    """Five workers over sockets, 15 ms apart: the run ends with all five in agreement, and proves the return."""
    (tmp_path / "crash.scn").write_text(SCENARIO)
    code, said = output(
        tmp_path, "run", "--peers", "5", "--task", "quadratic:dimension=40", "--steps", "90", "--batch-size", "2",
        "--delivery-bound", "400ms", "--gradient-bound", "500ms", "--delay", "15ms", "--probation", "2",
        "--scenario", "crash.scn", "--run-dir", "run", "--timeout", "100s",
    )  # fmt: skip
    assert code == 0, said
    assert "peer 4 has served its probation and is back" in said
    summary = msgspec.json.decode((tmp_path / "run" / "summary.json").read_bytes())
    assert summary["agreement"] and summary["honest_banned"] == 0, said
    assert [row["peer"] for row in summary["gone"]] == [4] and [row["peer"] for row in summary["returned"]] == [4]
    back = summary["returned"][0]["step"]
    journals = [read(tmp_path / "run" / "nodes" / str(node) / "journal.jsonl")[0] for node in range(5)]
    assert all(any(record["event"] == "finished" for record in journal) for journal in journals), said
    mine = [record for record in journals[4] if record["event"] == "committed" and record["step"] > back]
    theirs = {record["step"]: record["state_digest"] for record in journals[0] if record["event"] == "committed"}
    assert [record["step"] for record in mine] == list(range(back + 1, 91))
    assert all(theirs[record["step"]] == record["state_digest"] for record in mine)
    code, said = output(tmp_path, "verify", "run", "--explain")
    assert code == 0, said
    assert f"return of peer 4 after step {back}" in said and "0 wrong" in said
    assert "on probation" in said and "final parameters of node 4" in said
    # Peer 4's files have the certificate of its return. They may have no evidence of its removal: the signatures of all
    # on the state that let it in say so.
    own = tmp_path / "own"
    shutil.copytree(tmp_path / "run" / "nodes" / "4", own / "nodes" / "4")
    for name in ("genesis.json", "approvals.json"):
        shutil.copy(tmp_path / "run" / name, own)
    code, said = output(tmp_path, "verify", "own", "--explain")
    assert code == 0 and "0 wrong" in said, said
    assert f"ok    return of peer 4 after step {back}: certificate:" in said, said
