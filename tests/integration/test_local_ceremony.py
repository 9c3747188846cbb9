"""Workers that the launcher starts: each makes its own keys, all approve, and nothing secret leaves a directory."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from btard import Experiment, Result, run
from btard.launcher.backends.local import LocalBackend
from btard.launcher.run import cluster
from btard.launcher.run.cluster import run as carried
from btard.launcher.verify.verification import verify
from btard.node.config import Endpoint, NodeConfig
from btard.node.crypto import keys
from btard.node.genesis.approval import approvals_of
from btard.node.genesis.files import write
from btard.node.genesis.genesis import read_genesis
from btard.node.genesis.identity import SECRETS, Identity
from btard.node.genesis.proposal import propose
from btard.node.storage import journal

pytestmark = pytest.mark.sockets
PEERS = 4
OPTIONS = Experiment(task="quadratic", device="cpu", peers=PEERS, steps=6, eval_every=3, timeout=100.0)
SPY = """
import os
from btard.node.transport.sockets import Dialler

_send = Dialler.send

def send(self, to, head, payload=None):
    with open(os.path.join({folder!r}, str(os.getpid())), "ab") as file:
        file.write(bytes(head) + bytes(payload if payload is not None else b""))
    return _send(self, to, head, payload)

Dialler.send = send
"""


def options(**more: object) -> Experiment:
    return msgspec.structs.replace(OPTIONS, **more)


def secrets(run_dir: Path) -> dict[int, tuple[bytes, ...]]:
    """What each node has to keep, in every form that it has."""
    found = {}
    for node in range(PEERS):
        made = json.loads((run_dir / f"nodes/{node}" / SECRETS).read_bytes())
        seeds = (made["signing_seed"], made["randomness_seed"])
        found[node] = (*(value.encode() for value in made.values()), *map(bytes.fromhex, seeds))
    return found


@pytest.fixture(scope="module")
def spied(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    """A run, and a folder with all that its workers sent, before it was encrypted."""
    where = tmp_path_factory.mktemp("spied")
    frames = where / "frames"
    frames.mkdir()
    (where / "spy.py").write_text(SPY.format(folder=str(frames)))
    made = run(options(imports=(str(where / "spy.py"),), encrypt_bulk=True, run_dir=str(where / "run")), quiet=True)
    assert (made.summary.outcome, made.summary.problem, made.summary.keys) == ("finished", None, "system")
    return made, frames


def test_no_secret_is_outside_its_owners_file(spied: tuple[Result, Path]) -> None:
    made, frames = spied
    own = secrets(made.run_dir)
    assert len({value for values in own.values() for value in values}) == 5 * PEERS
    files = [path for path in made.run_dir.rglob("*") if path.is_file()]
    sent = list(frames.iterdir())
    assert len(sent) == PEERS and all(path.stat().st_size > 10_000 for path in sent)
    for path in (*files, *sent):
        data = path.read_bytes()
        found = {node for node, values in own.items() for value in values if value in data}
        owner = {int(path.parent.name)} if path.name == SECRETS else set()
        assert found == owner, path


def test_all_have_approved_in_every_directory(spied: tuple[Result, Path]) -> None:
    made, _ = spied
    genesis = read_genesis(made.run_dir)
    assert not approvals_of(genesis, made.run_dir).missing
    for node in range(PEERS):
        own = made.run_dir / f"nodes/{node}"
        assert Identity.load(own).approved == genesis and not approvals_of(genesis, own).missing
        events = [record["event"] for record in journal.read(own / "journal.jsonl")[0]]
        assert events[0] == "bound" and "committed" in events


class Tampering(LocalBackend):
    """Starts the last peer first, and replaces its proposal before the others come."""

    def start(self, configs: Sequence[NodeConfig]) -> None:
        """As a local backend."""
        *others, last = configs
        super().start([last])
        assert last.ceremony is not None
        path = Path(last.ceremony) / f"{last.node}.proposal"
        while not path.exists():
            assert not self.poll(0.01)
        write(path, propose(keys.fresh(), Endpoint("tcp://127.0.0.1:1", "tcp://127.0.0.1:2")))
        super().start(others)


def test_a_worker_whose_proposal_was_replaced_refuses_and_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "build", lambda *given: Tampering())
    made = carried(options(run_dir=str(tmp_path / "run")))
    assert made.summary.outcome == "failed" and made.summary.problem is not None
    assert made.summary.problem.startswith("node 3 ended with exit code 1: nothing was signed: peer 3 has not proposed")
    assert "\n" not in made.summary.problem
    assert made.summary.steps == 0 and not (made.run_dir / "approvals.json").exists()
    assert not (made.run_dir / "nodes/3/approval.json").exists()


def test_a_seed_gives_the_keys_again_and_verify_says_so(tmp_path: Path) -> None:
    first, second = (
        run(options(protocol_seed=7, run_dir=str(tmp_path / name)), quiet=True).run_dir for name in ("a", "b")
    )
    assert [read_genesis(each).members for each in (first, second)] == [keys.generate(7, PEERS)[0]] * 2
    report = verify(first)
    assert not report.wrong and report.warnings == ("keys derive from a known seed (7): anyone can forge this run",)
    assert not list(first.rglob("given.json"))


def test_one_nodes_directory_verifies_alone(tmp_path: Path) -> None:
    made = run(
        options(attack="noise", byzantine=1, attack_start=1, steps=30, run_dir=str(tmp_path / "run")), quiet=True
    )
    assert [ban.peer for ban in made.summary.bans] == [3]
    alone = tmp_path / "alone"
    (made.run_dir / "nodes/1").rename(alone)
    (alone / SECRETS).unlink()
    report = verify(alone)
    assert not report.wrong and not report.warnings, report.findings
    found = {finding.subject: finding.explanation for finding in report.findings}
    assert found["approvals"] == "all 4 members signed this genesis"
    assert any(subject.startswith("ban of peer 3 at step") for subject in found)
    assert "final parameters of node 1" in found
    damaged = json.loads((alone / "approvals.json").read_bytes())[1:]
    (alone / "approvals.json").write_bytes(json.dumps(damaged).encode())
    assert [finding.explanation for finding in verify(alone).findings if not finding.ok] == [
        "there is no approval of peers 0"
    ]
