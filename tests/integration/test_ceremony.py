"""Four owners make a run by their commands alone, and train, each in a process of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic

import pytest
from zmq.utils import z85

from btard.launcher.verify.verification import verify
from btard.node.genesis.approval import APPROVALS
from btard.node.genesis.identity import APPROVAL, SECRETS
from btard.node.storage import journal
from tests.ceremony import NODE, PEERS, path_of
from tests.launching import LAUNCH, environment
from tests.ports import held_ports
from tests.scraping import scrape

pytestmark = pytest.mark.sockets
TOML = 'peers = 4\ntask = "quadratic"\nsteps = 6\nbatch-size = 4\ndevice = "cpu"\neval-every = 3\n'
PATIENCE_S = 120.0
RECORDING = """
from btard.node.transport import sockets
send, frames = sockets.Dialler.send, open("{number}.frames", "ab", buffering=0)
def recorded(self, to, head, payload=None):
    frames.write(bytes(head) + bytes(payload or b""))
    return send(self, to, head, payload)
sockets.Dialler.send = recorded
from btard.launcher.cli.node import main
main()
"""
"""`btard-node` that writes down all that it sends, as it is before it is encrypted."""


def command(where: Path, *arguments: str) -> str:
    """What a command that succeeds prints to stdout."""
    done = subprocess.run(
        [*NODE, *arguments], cwd=where, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def ceremony(where: Path, ports: Sequence[int], toml: str = TOML) -> None:
    """Four owners with an approved genesis."""
    for number in range(PEERS):
        command(where, "init", f"owner{number}")
        proposal = command(where, "propose", f"owner{number}", "--address", address(ports, number))
        (where / f"{number}.proposal").write_text(proposal)
    (where / "run.toml").write_text(toml)
    proposals = [f"{number}.proposal" for number in range(PEERS)]
    (where / "genesis.json").write_text(command(where, "assemble", "run.toml", *proposals))
    for number in range(PEERS):
        approval = command(where, "approve", f"owner{number}", "genesis.json", "--yes")
        (where / f"{number}.approval").write_text(approval)


def address(ports: Sequence[int], number: int) -> str:
    """Owner i listens on ports 2 i and 2 i + 1, the last one on one alone."""
    return ",".join(f"tcp://127.0.0.1:{port}" for port in ports[2 * number : 2 * number + 2][: PEERS - number])


def launch(where: Path, *arguments: str) -> str:
    """What a command of the launcher prints that succeeds."""
    done = subprocess.run(
        [*LAUNCH, *arguments], cwd=where, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def until(process: subprocess.Popen[bytes], done: Callable[[], bool]) -> None:
    """Wait for what a process does, while it lives."""
    end = monotonic() + PATIENCE_S
    while not done():
        assert monotonic() < end
        with suppress(subprocess.TimeoutExpired):
            raise AssertionError(f"it ended with {process.wait(0.05)}")


@contextmanager
def started(
    where: Path, ports: Sequence[int], numbers: Sequence[int], *more: str
) -> Iterator[dict[int, subprocess.Popen[bytes]]]:
    """Owners' workers by number, killed at the end if they are still there; each writes NUMBER.log."""
    processes = {}
    try:
        for number in numbers:
            # The ports are held by this test, so all addresses of this host cannot be bound.
            listen = address(ports, number)
            with (where / f"{number}.log").open("w") as log:
                words = ["run", f"owner{number}", "--genesis", "genesis.json", "--listen", listen, *more]
                processes[number] = subprocess.Popen(
                    [NODE[0], "-c", RECORDING.format(number=number), *words],
                    cwd=where,
                    env=environment(),
                    stdout=log,
                    stderr=log,
                )
        yield processes
    finally:
        for process in processes.values():
            process.kill()
            process.wait()


@contextmanager
def running(where: Path, ports: Sequence[int], numbers: Sequence[int], *more: str) -> Iterator[dict[int, Path]]:
    """Owners' workers, run to their ends; their output by number."""
    with started(where, ports, numbers, *more) as processes:
        logs = {number: where / f"{number}.log" for number in numbers}
        for number, process in processes.items():
            process.wait(PATIENCE_S)
            with logs[number].open("a") as file:
                file.write(f"exit code {process.returncode}\n")
        yield logs


def records(where: Path, number: int) -> list[journal.Record]:
    """An owner's journal."""
    return [record for path in path_of(where, number).glob("nodes/*/journal.jsonl") for record in journal.read(path)[0]]


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
        nothing_secret(tmp_path)
        for number in range(PEERS):
            assert (tmp_path / f"{number}.frames").stat().st_size > 10_000
            ceremony_bytes = [(tmp_path / f"{number}.{kind}").stat().st_size for kind in ("proposal", "approval")]
            assert sum(ceremony_bytes) <= 1000
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


def nothing_secret(where: Path) -> None:
    """Of the owners' secrets nothing is in any other file, in whichever form, all frames that were sent among them."""
    secret = [
        value
        for number in range(PEERS)
        for value in json.loads((path_of(where, number) / SECRETS).read_text()).values()
    ]
    for path in (path for path in where.rglob("*") if path.is_file() and path.name != SECRETS):
        data = path.read_bytes()
        for value in secret:
            assert value.encode() not in data, path
            assert (bytes.fromhex(value) if len(value) == 64 else z85.decode(value)) not in data, path


def served(where: Path, number: int, times: int) -> str:
    """Where an owner serves its files, in its so many'th life."""
    found = [record["address"] for record in records(where, number) if record["event"] == "metrics"]
    return str(found[times - 1]) if len(found) >= times else ""


def test_who_stays_serves_what_a_third_party_verifies_and_ends_well_at_a_signal(tmp_path: Path) -> None:
    """All of it by commands: collect, verify, status and report, while they stay and after a restart."""
    own = ("--http", "127.0.0.1:0", "--stay", "--evaluate", "whole")
    with held_ports(2 * PEERS) as ports:
        ceremony(tmp_path, ports)
        with started(tmp_path, ports, range(PEERS), *own) as processes:
            for number, process in processes.items():
                log = tmp_path / f"{number}.log"
                until(process, lambda log=log: "has finished, and stays" in log.read_text())
            addresses = [served(tmp_path, number, 1) for number in range(PEERS)]
            collected = launch(tmp_path, "collect", *addresses, "--into", "all")
            assert collected.count(": peer ") == PEERS and "check it with: btard-launch verify all" in collected
            assert scrape(addresses[0])["btard_step"]
            for process in processes.values():
                process.terminate()
            assert [process.wait(PATIENCE_S) for process in processes.values()] == [0] * PEERS

        with started(tmp_path, ports, [0], *own) as processes:
            log = tmp_path / "0.log"
            until(processes[0], lambda: "its files are at http://" in log.read_text())
            address = log.read_text().partition("http://")[2].partition("/")[0]
            assert "peer" in launch(tmp_path, "collect", address, "--into", "again")
            processes[0].terminate()
            assert processes[0].wait(PATIENCE_S) == 0

    report = verify(tmp_path / "all")
    assert not report.wrong, report.findings
    assert any(finding.kind == "majority" or "final" in finding.subject for finding in report.findings if finding.ok)
    nothing_secret(tmp_path)
    assert not list((tmp_path / "all").rglob(SECRETS))
    for directory in ("all", "owner0"):
        lines = launch(tmp_path, "status", directory).splitlines()
        assert lines[0].startswith("run ") and "of 4 owners" in lines[0]
        assert sum("finished" in line for line in lines) == (PEERS if directory == "all" else 1)
        launch(tmp_path, "report", directory)
        page = (tmp_path / directory / "report.html").read_text()
        assert "Test accuracy" in page and "IS HONEST" not in page and "btard-launch verify" in page
    for number in range(PEERS):
        evaluated = [record for record in records(tmp_path, number) if record["event"] == "evaluated"]
        assert evaluated and {record["count"] for record in evaluated} == {64}


def test_who_was_gone_at_the_end_finishes_by_those_that_stay(tmp_path: Path) -> None:
    """The run has undo, so nobody comes back into it. Where nobody stays, one line says what is missing."""
    with held_ports(2 * PEERS) as ports:
        ceremony(tmp_path, ports, TOML.replace("steps = 6", "steps = 100"))
        with started(tmp_path, ports, range(PEERS), "--stay") as processes:
            until(processes[3], lambda: sum(each["event"] == "committed" for each in records(tmp_path, 3)) > 3)
            processes[3].kill()
            processes[3].wait()
            shutil.copytree(path_of(tmp_path, 3), tmp_path / "saved")
            for number in range(3):
                log = tmp_path / f"{number}.log"
                until(processes[number], lambda log=log: "has finished, and stays" in log.read_text())
            with running(tmp_path, ports, [3]) as logs:
                assert logs[3].read_text().endswith("exit code 0\n"), logs[3].read_text()
        ends = [[each for each in records(tmp_path, number) if each["event"] == "finished"] for number in range(PEERS)]
        assert len({(end["step"], end["parameter_digest"]) for (end,) in ends}) == 1
        assert {each["step"] for each in records(tmp_path, 3) if each["event"] == "committed"} < set(range(101))
        report = verify(path_of(tmp_path, 3))
        assert not report.wrong, report.findings
        assert sum("finished" in line for line in launch(tmp_path, "status", "owner3").splitlines()) == 1
        launch(tmp_path, "report", "owner3")

        shutil.rmtree(path_of(tmp_path, 3))
        (tmp_path / "saved").rename(path_of(tmp_path, 3))
        with running(tmp_path, ports, [3], "--wait", "1s") as logs:
            *_, line, ended, code = logs[3].read_text().splitlines()
        assert line.startswith("error: no greeting from peers ") and " within 1 s; check that they run; if the" in line
        assert "2 of those that finished have to stay for it (`btard-node run --stay`)" in line
        assert (ended.split()[-1], code) == ("1", "exit code 1")


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
