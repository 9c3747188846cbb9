"""Four owners make a run by their commands alone, and train, each in a process of its own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from btard.launcher.verify.verification import verify
from btard.node.genesis.identity import APPROVAL, APPROVALS, SECRETS
from btard.node.storage import journal
from tests.ceremony import NODE, PEERS, path_of
from tests.launching import environment
from tests.ports import held_ports

pytestmark = pytest.mark.sockets
TOML = 'peers = 4\ntask = "quadratic"\nsteps = 6\nbatch-size = 4\ndevice = "cpu"\neval-every = 3\n'
PATIENCE_S = 120.0


def command(where: Path, *arguments: str) -> str:
    """What a command that succeeds prints to stdout."""
    done = subprocess.run(
        [*NODE, *arguments], cwd=where, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def ceremony(where: Path, ports: Sequence[int]) -> None:
    """Four owners with an approved genesis; owner i listens on ports 2 i and 2 i + 1."""
    for number in range(PEERS):
        control, bulk = (f"tcp://127.0.0.1:{port}" for port in ports[2 * number : 2 * number + 2])
        command(where, "init", f"owner{number}")
        proposal = command(where, "propose", f"owner{number}", "--address", f"{control},{bulk}")
        (where / f"{number}.proposal").write_text(proposal)
    (where / "run.toml").write_text(TOML)
    proposals = [f"{number}.proposal" for number in range(PEERS)]
    (where / "genesis.json").write_text(command(where, "assemble", "run.toml", *proposals))
    for number in range(PEERS):
        approval = command(where, "approve", f"owner{number}", "genesis.json", "--yes")
        (where / f"{number}.approval").write_text(approval)


@contextmanager
def running(where: Path, ports: Sequence[int], numbers: Sequence[int], *more: str) -> Iterator[dict[int, Path]]:
    """Owners' workers, killed at the end if they are still there; their output by number."""
    logs, processes = {}, []
    try:
        for number in numbers:
            # The ports are held by this test, so all addresses of this host cannot be bound.
            listen = ",".join(f"tcp://127.0.0.1:{port}" for port in ports[2 * number : 2 * number + 2])
            logs[number] = where / f"{number}.log"
            with logs[number].open("w") as log:
                words = ["run", f"owner{number}", "--genesis", "genesis.json", "--listen", listen, *more]
                processes.append(
                    subprocess.Popen([*NODE, *words], cwd=where, env=environment(), stdout=log, stderr=log)
                )
        for process, log in zip(processes, logs.values(), strict=True):
            process.wait(PATIENCE_S)
            with log.open("a") as file:
                file.write(f"exit code {process.returncode}\n")
        yield logs
    finally:
        for process in processes:
            process.kill()
            process.wait()


def records(where: Path, number: int) -> list[journal.Record]:
    """An owner's journal."""
    (path,) = path_of(where, number).glob("nodes/*/journal.jsonl")
    return journal.read(path)[0]


def test_four_owners_train_and_each_has_the_proof(tmp_path: Path) -> None:
    with held_ports(2 * PEERS) as ports:
        ceremony(tmp_path, ports)
        with running(tmp_path, ports, range(PEERS)) as logs:
            for log in logs.values():
                assert log.read_text().endswith("exit code 0\n"), log.read_text()
        ends = [
            record for number in range(PEERS) for record in records(tmp_path, number) if record["event"] == "finished"
        ]
        assert len(ends) == PEERS and len({record["parameter_digest"] for record in ends}) == 1
        states = {
            number: [
                (record["step"], record["state_digest"])
                for record in records(tmp_path, number)
                if record["event"] == "committed"
            ]
            for number in range(PEERS)
        }
        assert [step for step, _ in states[0]] == list(range(len(states[0]))) and len(states[0]) >= 6
        assert all(each == states[0] for each in states.values())
        secret = [
            value
            for number in range(PEERS)
            for value in json.loads((path_of(tmp_path, number) / SECRETS).read_text()).values()
        ]
        for path in (path for path in tmp_path.rglob("*") if path.is_file() and path.name != SECRETS):
            data = path.read_bytes()
            for value in secret:
                assert value.encode() not in data, path
                assert value.isalnum() is False or bytes.fromhex(value) not in data, path

        for number in range(PEERS):
            report = verify(path_of(tmp_path, number))
            assert not report.wrong, report.findings
            assert "all 4 members signed this genesis" in {finding.explanation for finding in report.findings}

        with running(tmp_path, ports, range(PEERS)) as logs:
            for log in logs.values():
                assert "has finished already\nexit code 0\n" in log.read_text()

    approvals = path_of(tmp_path, 0) / APPROVALS
    approvals.write_bytes(json.dumps(json.loads(approvals.read_bytes())[1:]).encode())
    assert [finding.explanation for finding in verify(path_of(tmp_path, 0)).findings if not finding.ok] == [
        "there is no approval of peers 0"
    ]


def test_no_step_is_taken_without_an_approval(tmp_path: Path) -> None:
    """Three of four could do without the fourth, if its owner had signed."""
    with held_ports(2 * PEERS) as ports:
        ceremony(tmp_path, ports)
        (path_of(tmp_path, 3) / APPROVAL).unlink()
        with running(tmp_path, ports, range(PEERS), "--wait", "5s") as logs:
            *three, fourth = (log.read_text() for log in logs.values())
    assert "owner3 has not approved the genesis; `btard-node approve owner3 GENESIS` does" in fourth
    assert fourth.endswith("exit code 2\n")
    for number, text in enumerate(three):
        assert "approvals to come from 3 of 4: peer" in text
        assert "error: no greeting from peer" in text and text.endswith("exit code 1\n"), text
        assert not [record for record in records(tmp_path, number) if record["event"] == "committed"]
