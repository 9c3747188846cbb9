"""Real processes over real sockets end every step in the very bits in which the simulator ends it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from btard import Experiment, Result, run
from btard.launcher.run.run_directory import read_record
from btard.node.build import task_of
from btard.node.drivers.simulator import cluster
from btard.node.genesis.genesis import read_genesis
from btard.node.protocol.api import Banned, Committed, Finished, Voided
from btard.node.protocol.state.state import parameters_digest
from btard.node.storage.journal import read
from btard.node.verify.audit import check_run

pytestmark = pytest.mark.sockets
TIMEOUT_S = 120.0


@dataclass(slots=True)
class Story:
    """What one peer reported of a run, in order."""

    committed: list[dict[str, Any]] = field(default_factory=list)
    banned: list[dict[str, Any]] = field(default_factory=list)
    voided: list[tuple[int, int, list[int]]] = field(default_factory=list)
    final: str = ""


_COMMITTED = ("step", "attempt", "contributors", "active", "validators", "parameter_digest", "state_digest")
_BANNED = ("step", "attempt", "peer", "reason", "accuser", "removed", "evidence")


def told_by_sockets(run_dir: Path, peers: int) -> list[Story]:
    """From the journals of the processes."""
    stories = []
    for node in range(peers):
        story = Story()
        for record in read(run_dir / "nodes" / str(node) / "journal.jsonl")[0]:
            match record["event"]:
                case "committed":
                    story.committed.append({name: record[name] for name in _COMMITTED})
                case "banned":
                    story.banned.append({name: record[name] for name in _BANNED})
                case "voided":
                    story.voided.append((record["step"], record["attempt"], record["removals"]))
                case "finished":
                    story.final = record["parameter_digest"]
        stories.append(story)
    return stories


def told_by_simulator(run_dir: Path, data_directory: Path) -> list[Story]:
    """The same run, from its public half, its seed and the launcher's roles."""
    genesis, record = read_genesis(run_dir), read_record(run_dir)
    roles = {int(peer): role for peer, role in record.roles.items()}
    task = task_of(genesis.run, data_directory)
    stories = [Story() for _ in range(genesis.run.peers)]
    assert record.seeds.protocol is not None
    simulation = cluster(genesis.run, task, roles, record.seeds.protocol, run_id=genesis.run_id)
    for seen in simulation.run():
        story = stories[seen.node]
        match seen.output:
            case Committed() as done:
                story.committed.append({
                    "step": done.step, "attempt": done.attempt, "contributors": list(done.contributors),
                    "active": list(done.active),
                    "validators": {str(validator): target for validator, target in done.validators.items()},
                    "parameter_digest": parameters_digest(done.parameters_D).hex(),
                    "state_digest": done.state_digest.hex(),
                })  # fmt: skip
            case Banned() as ban:
                story.banned.append({
                    "step": ban.step, "attempt": ban.attempt, "peer": ban.peer, "reason": ban.reason,
                    "accuser": ban.accuser, "removed": ban.removed, "evidence": blake3(ban.evidence).hexdigest(),
                })  # fmt: skip
            case Voided() as void:
                story.voided.append((void.step, void.attempt, list(void.removals)))
            case Finished() as finished:
                story.final = parameters_digest(finished.parameters_D).hex()
    return stories


def assert_same_bits(result: Result, data_directory: Path, reasons: set[str]) -> None:
    """Every honest peer's story is the simulator's, and it is not an empty one."""
    summary = result.summary
    assert (summary.outcome, summary.problem, summary.honest_banned) == ("finished", None, 0)
    peers = read_genesis(result.run_dir).run.peers
    honest = [peer for peer in range(peers) if peer not in summary.byzantine]
    real, simulated = told_by_sockets(result.run_dir, peers), told_by_simulator(result.run_dir, data_directory)
    for peer in honest:
        assert real[peer].committed == simulated[peer].committed
        assert real[peer].banned == simulated[peer].banned, "the evidence files are equal too, byte for byte"
        assert real[peer].voided == simulated[peer].voided
        assert real[peer].final == simulated[peer].final != ""
    assert {ban["reason"] for ban in real[honest[0]].banned} >= reasons
    findings = check_run(result.run_dir, data_directory)
    assert all(finding.ok for finding in findings), [finding for finding in findings if not finding.ok]


def quadratic(where: Path, **options: Any) -> Result:
    return run(Experiment(task="quadratic:dimension=50", device="cpu", timeout=TIMEOUT_S, run_dir=str(where),
                          gradient_bound=60.0, protocol_seed=2, **options))  # fmt: skip


def roles() -> Iterator[Any]:
    """(options, reasons that must occur)."""
    yield pytest.param({"steps": 25, "attack": "noise", "byzantine": 2, "attack_start": 3, "seed": 3}, {"gradient"},
                       id="noise, removed")  # fmt: skip
    yield pytest.param(
        {"steps": 12, "role": ("1=lie_checksum:start=2", "5=shift_aggregate:start=4"), "on_ban": "reform"},
        {"checksum", "aggregate"}, id="checksums, a void attempt",
    )  # fmt: skip
    yield pytest.param(
        {"steps": 10, "peers": 5, "role": ("0=sign_flip:start=0", "3=false_accuse:how=bit,start=5"),
         "on_ban": "reform", "validators": 1, "rule": "median"},
        {"false_accusation"}, id="median, reformed",
    )  # fmt: skip


@pytest.mark.parametrize(("options", "reasons"), list(roles()))
def test_quadratic(options: dict[str, Any], reasons: set[str], tmp_path: Path) -> None:
    assert_same_bits(quadratic(tmp_path / "run", **options), tmp_path, reasons)


@pytest.mark.mnist
def test_mnist(mnist_directory: Path, tmp_path: Path) -> None:
    """Real gradients: the same convolutions in six processes and in one."""
    result = run(Experiment(
        task="mnist_cnn", batch_size=32, steps=6, eval_every=6, device="cpu", data_dir=str(mnist_directory),
        attack="sign_flip", byzantine=2, attack_start=0, seed=1, protocol_seed=2, timeout=TIMEOUT_S,
        run_dir=str(tmp_path / "run"),
    ))  # fmt: skip
    assert_same_bits(result, mnist_directory, {"gradient"})
