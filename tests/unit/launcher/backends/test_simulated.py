"""The simulated backend: the same run directory, score and bits as real processes, in one process."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from rich.console import Console

from btard import Experiment, Result, run
from btard.launcher.verify.verification import show
from btard.node.storage import journal
from tests.launching import PATIENCE_S, await_end, launched, read_until, session

ATTACKED = Experiment(
    task="quadratic", device="cpu", steps=40, eval_every=20, attack="noise", byzantine=2, attack_start=3,
    protocol_seed=2, timeout=100,
)  # fmt: skip


def _run(where: Path, backend: str, **changed: object) -> Result:
    import msgspec

    return run(msgspec.structs.replace(ATTACKED, run_dir=str(where), backend=backend, **changed))


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """One finished run with two attackers."""
    return _run(tmp_path_factory.mktemp("simulated") / "run", "simulated")


@pytest.mark.sockets
def test_bits_bans_and_scores_are_those_of_real_processes(simulated: Result, tmp_path: Path) -> None:
    real = _run(tmp_path / "real", "local").summary
    made = simulated.summary
    assert made.outcome == "finished"
    assert made.bans
    for field in ("accuracy", "final_test_accuracy", "final_train_loss", "parameter_digest", "detection_steps",
                  "steps", "agreement", "undetected", "honest_banned", "bytes_expected"):  # fmt: skip
        assert getattr(made, field) == getattr(real, field), field
    assert [(b.step, b.peer, b.reason, b.accuser) for b in made.bans] == [
        (b.step, b.peer, b.reason, b.accuser) for b in real.bans
    ]
    assert made.bytes_sent.bulk == made.bytes_expected, "a modelled network has no frame headers"


@pytest.mark.slow
def test_a_third_party_can_check_it(simulated: Result) -> None:
    with Console(quiet=True) as console:
        assert show(console, simulated.run_dir) == 0


def test_every_node_has_its_journal_and_log(simulated: Result) -> None:
    for node in range(6):
        records, _ = journal.read(simulated.run_dir / "nodes" / str(node) / "journal.jsonl")
        events = [record["event"] for record in records]
        assert events[:3] == ["bound", "environment", "greeted"]
        assert events.count("finished") + events.count("expelled") == 1
        assert ("attacked" in events) == (node in (4, 5))
        assert (simulated.run_dir / "logs" / f"node-{node}.log").is_file()
        (traffic,) = [record for record in records if record["event"] == "traffic"]
        others = {str(peer) for peer in range(6)} - {str(node)}
        assert set(traffic["sent"]) == others
        last = [record for record in records if "bulk_bytes" in record][-1]
        bulk = sum(of["part"] + of["aggregate"] for of in traffic["sent"].values())
        assert bulk == last["bulk_bytes"]


def test_time_is_virtual(simulated: Result) -> None:
    records, _ = journal.read(simulated.run_dir / "nodes" / "0" / "journal.jsonl")
    steps = [record for record in records if record["event"] == "committed" and record["step"] > 0]
    assert {round(record["phases"]["AGG"], 6) for record in steps} <= {0.001, 0.002}
    assert all(record["seconds"] >= 0.05 for record in steps[:-1] if record["contributors"])


def test_halted_honest_peers_fail_the_run(tmp_path: Path) -> None:
    """Four of six silent: no quorum is left, and the exit codes and the summary say so."""
    made = _run(tmp_path / "run", "simulated", attack="crash", byzantine=4, allow_majority=True).summary
    assert made.outcome == "failed"
    assert made.problem is not None
    assert "node 0" in made.problem


@pytest.mark.slow
def test_a_signal_stops_it_in_order(tmp_path: Path) -> None:
    arguments = ("--backend", "simulated", "--task", "quadratic", "--device", "cpu", "--steps", "1000000",
                 "--eval-every", "100000", "--run-dir", "run")  # fmt: skip
    with launched(tmp_path, *arguments) as process:
        read_until(process, "workers ready")
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(PATIENCE_S) == 130
        await_end(session(process.pid))
    assert '"interrupted"' in (tmp_path / "run" / "summary.json").read_text()
