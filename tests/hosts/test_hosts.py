"""Six owners, six peers on three hosts, by the commands of the guide: a move, a cut, a late start, NAT, IPv6, the
end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from time import monotonic

import pytest
from click.testing import CliRunner

from btard.launcher.cli import node
from btard.launcher.verify.verification import verify
from btard.node.genesis.genesis import decode_genesis
from btard.node.genesis.identity import Identity
from btard.node.storage import journal
from tests.hosts.lab import DOMAIN, Lab

pytestmark = pytest.mark.hosts
PEERS = 6
HOSTS = ("alpha", "alpha", "beta", "beta", "gamma", "gamma")
PATIENCE_S = 150.0
"""Ends what hangs; no test depends on how long anything takes."""
TOML = """
peers = 6
task = "quadratic"
steps = {steps}
batch-size = 4
device = "cpu"
eval-every = {steps}
probation = 2
undo = "off"
delivery-bound = "1s"
gradient-bound = "1s"
"""


def command(*arguments: object) -> str:
    """What a command that succeeds prints to stdout; it runs in this process, whose keys need no network."""
    done = CliRunner().invoke(node.cli, [str(argument) for argument in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


@dataclass
class Owner:
    """One of the six: its directory, and its worker where one was started."""

    lab: Lab
    number: int
    directory: Path
    id: int = -1
    process: BaseProcess | None = field(default=None, repr=False)

    @property
    def log(self) -> str:
        """What its workers said."""
        return self._log.read_text()

    @property
    def _log(self) -> Path:
        return self.directory.with_suffix(".log")

    def start(self, host: str | None = None, *more: str) -> None:
        """Its worker begins, or begins again, on a host."""
        genesis = self.directory.parent / "genesis.json"
        words = ["run", str(self.directory), "--genesis", str(genesis), *more]
        self.process = self.lab.start(host or HOSTS[self.number], self._log, words)

    def end(self, code: int) -> None:
        """Its worker ends by itself."""
        assert self.process is not None
        self.process.join(PATIENCE_S)
        assert self.process.exitcode == code, self.log

    def records(self, event: str) -> list[journal.Record]:
        """What its journal has of one kind."""
        path = self.directory / f"nodes/{self.id}/journal.jsonl"
        return [record for record in journal.read(path)[0] if record["event"] == event]

    @property
    def step(self) -> int:
        """The last one that it committed."""
        return max((int(record["step"]) for record in self.records("committed")), default=-1)

    def named(self, event: str) -> set[int]:
        """Ids that its records of one kind are about."""
        return {record["peer"] for record in self.records(event)}


def ceremony(lab: Lab, where: Path, addresses: Sequence[str], steps: int) -> list[Owner]:
    """Six owners who have approved one genesis; owner i listens at `addresses[i]`, on two ports of its own, the last on
    one."""
    owners = [Owner(lab, number, where / f"peer{number}") for number in range(PEERS)]
    for owner, address in zip(owners, addresses, strict=True):
        command("init", owner.directory)
        ports = [7400 + 2 * owner.number + each for each in (0, 1)][: PEERS - owner.number]
        urls = ",".join(f"tcp://{address}:{port}" for port in ports)
        proposal = command("propose", owner.directory, "--address", urls)
        (where / f"{owner.number}.proposal").write_text(proposal)
    (where / "run.toml").write_text(TOML.format(steps=steps))
    genesis = where / "genesis.json"
    genesis.write_text(command("assemble", where / "run.toml", *sorted(where.glob("*.proposal"))))
    for owner in owners:
        command("approve", owner.directory, genesis, "--yes")
        made = decode_genesis(genesis.read_bytes(), "genesis.json")
        owner.id = Identity.load(owner.directory).place(made, "genesis.json")
    return owners


def intruder(lab: Lab, where: Path) -> Owner:
    """A stranger with a genesis of its own, forged.json: five members' proposals and, for the sixth's, its own."""
    stranger = Owner(lab, PEERS, where / "stranger")
    command("init", stranger.directory)
    own = where / "stranger.proposal"
    own.write_text(command("propose", stranger.directory, "--address", f"tcp://{lab.ipv4['beta']}:7500"))
    members = [where / f"{number}.proposal" for number in range(PEERS - 1)]
    (where / "forged.json").write_text(command("assemble", where / "run.toml", *members, own))
    command("approve", stranger.directory, where / "forged.json", "--yes")
    return stranger


def names(lab: Lab) -> list[str]:
    """Six names, each with the address of its host."""
    made = [f"peer{number}.{DOMAIN}" for number in range(PEERS)]
    lab.name({name: lab.ipv4[host] for name, host in zip(made, HOSTS, strict=True)})
    return made


def until(alive: Iterable[Owner], done: Callable[[], bool]) -> None:
    """Until `done`, while all of these live."""
    end, alive = monotonic() + PATIENCE_S, list(alive)
    while not done():
        assert monotonic() < end, [owner.log for owner in alive]
        for owner in alive:
            assert owner.process is not None
            owner.process.join(0.05)
            assert owner.process.exitcode is None, owner.log


def stop(owners: Sequence[Owner]) -> None:
    """All of them, by a signal; they agreed on every step."""
    for owner in owners:
        assert owner.process is not None
        owner.process.terminate()
    for owner in owners:
        owner.end(143)
    digests: dict[int, set[str]] = {}
    for owner in owners:
        for record in owner.records("committed"):
            digests.setdefault(record["step"], set()).add(record["state_digest"])
    assert digests and all(len(found) == 1 for found in digests.values())


def test_a_peer_that_moves_to_another_host_under_load_comes_back(lab: Lab, tmp_path: Path) -> None:
    """Its name stays and its address changes; no other peer is told, or started again."""
    owners = ceremony(lab, tmp_path, names(lab), 1_000_000)
    *others, moved = owners
    for owner in owners:
        owner.start()
    until(owners, lambda: min(owner.step for owner in owners) > 2)
    assert moved.process is not None
    moved.process.kill()
    until(others, lambda: all(owner.named("banned") == {moved.id} for owner in others))
    began = monotonic()
    lab.name({f"peer{moved.number}.{DOMAIN}": lab.ipv4["alpha"]})
    moved.start("alpha")
    until(owners, lambda: all(owner.named("returned") == {moved.id} for owner in others))
    print(f"back {monotonic() - began:.1f} s after it was started on another host, its probation included")
    back = max(owner.step for owner in others)
    until(owners, lambda: min(owner.step for owner in owners) > back + 3)
    stop(owners)
    assert {record["standing"] for owner in owners for record in owner.records("banned")} == {"gone"}


def test_a_late_start_holds_up_the_others_and_a_host_that_is_cut_off_does_not(lab: Lab, tmp_path: Path) -> None:
    """Nobody is removed for being late within the waits, nor a stranger let in for who is; who was cut off ends, is
    started again, and comes back. The late one is behind a router that forwards its only port."""
    owners = ceremony(lab, tmp_path, names(lab), 1_000_000)
    *early, late = owners
    lab.behind("gamma", "home", 7400 + 2 * late.number)
    for owner in early:
        owner.start(None, "--wait", "10m", "--grace", "5m")
    stranger = intruder(lab, tmp_path)
    stranger.start("beta", "--genesis", str(tmp_path / "forged.json"), "--wait", "5s")
    stranger.end(1)
    assert "no greeting from peers " in stranger.log and not stranger.records("committed")
    until(early, lambda: all(f"waiting for 1 of 6: peer {late.id}; last heard: never" in owner.log for owner in early))
    late.start("home")
    until(owners, lambda: min(owner.step for owner in owners) > 2)
    assert not any(owner.records("banned") for owner in owners)

    lost, staying = owners[4:], owners[:4]
    lab.link("gamma", "down")
    gone = {owner.id for owner in lost}
    until(staying, lambda: all(owner.named("banned") == gone for owner in staying))
    for owner in lost:
        owner.end(1)
        assert owner.records("halted"), owner.log
    lab.link("gamma", "up")
    for owner, host in zip(lost, ("gamma", "home"), strict=True):
        owner.start(host)
    until(owners, lambda: all(owner.named("returned") == gone for owner in staying))
    back = max(owner.step for owner in staying)
    until(owners, lambda: min(owner.step for owner in owners) > back + 3)
    stop(owners)
    assert all("stranger" in {record["reason"] for record in owner.records("dropped")} for owner in staying)


def test_a_run_over_ipv6_ends_and_who_is_started_again_after_the_end_exits_0(lab: Lab, tmp_path: Path) -> None:
    """Three by their addresses, three by names that have no other."""
    addresses = [f"[{lab.ipv6[host]}]" for host in HOSTS[:3]] + [f"peer{number}.{DOMAIN}" for number in (3, 4, 5)]
    lab.name({name: lab.ipv6[host] for name, host in zip(addresses[3:], HOSTS[3:], strict=True)})
    owners = ceremony(lab, tmp_path, addresses, 8)
    for owner in owners:
        owner.start()
    for owner in owners:
        owner.end(0)
    ends = {record["parameter_digest"] for owner in owners for record in owner.records("finished")}
    assert len(ends) == 1 and not any(owner.records("banned") for owner in owners)
    owners[0].start()
    owners[0].end(0)
    assert "has finished already\n" in owners[0].log
    report = verify(owners[0].directory)
    assert not report.wrong, report.findings
