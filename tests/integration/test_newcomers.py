"""A seventh peer joins six owners' run over real sockets, and what becomes of it if it attacks."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import msgspec
import pytest

from btard.launcher.verify.verification import verify
from btard.node.config import Endpoint, NodeConfig, Plugin, Role, RunConfig, Schedule
from btard.node.genesis import identity
from btard.node.genesis.files import write
from btard.node.genesis.genesis import Genesis, assemble
from btard.node.genesis.identity import Identity
from btard.node.storage import journal
from tests.ceremony import NODE
from tests.launching import environment
from tests.ports import held_ports

pytestmark = [pytest.mark.sockets, pytest.mark.usefixtures("scratch")]
FOUNDERS, NEW, PATIENCE_S = 6, 6, 300.0
RUN = RunConfig(
    peers=FOUNDERS,
    task=Plugin("quadratic"),
    steps=40,
    batch_size=4,
    eval_every=20,
    roster="sponsored",
    members=7,
    admit_every=2,
    probation=2,
    gradient_bound_s=10.0,
    delivery_bound_s=5.0,
)


SLOW = Path(__file__).parents[1] / "slow_quadratic.py"
"""A task whose gradient takes its time, so that a probation of ten steps outlasts what is done to it."""
LONG = msgspec.structs.replace(RUN, task=Plugin("slow_quadratic", {"seconds": 0.1}), probation=10)


@dataclass(frozen=True, slots=True)
class Owners:
    """Six founders with an approved genesis, and a seventh that has applied.

    Args:
        where: their directories.
        founders: by id.
        newcomer: the seventh.
        genesis: of the run.
        listens: what each binds, by id.
    """

    where: Path
    founders: dict[int, Identity]
    newcomer: Identity
    genesis: Genesis
    listens: dict[int, Endpoint]


def owners(where: Path, ports: Sequence[int], run: RunConfig = RUN) -> Owners:
    """What their commands would have made; the founder with id 2 vouches, and every founder introduces. They know each
    other by name, and every other one of them, the newcomer among them, has one port."""
    made, bound = [], []
    for number in range(FOUNDERS + 1):
        identity.create(where / f"owner{number}")
        mine = ports[2 * number : 2 * number + 1 + number % 2]
        named, listen = (Endpoint(*(f"tcp://{host}:{port}" for port in mine)) for host in ("localhost", "127.0.0.1"))
        made.append((Identity.load(where / f"owner{number}"), named))
        bound.append(listen)
    *six, (newcomer, address) = made
    genesis = assemble(run, {str(number): owner.propose(at) for number, (owner, at) in enumerate(six)})
    founders = {owner.place(genesis, "genesis"): owner for owner, _ in six}
    listens = {owner.place(genesis, "genesis"): at for (owner, _), at in zip(six, bound, strict=False)}
    listens[NEW] = bound[NEW]
    approvals = []
    for peer, owner in founders.items():
        write(where / f"{peer}.approval", owner.approve(genesis, "genesis"))
        approvals.append(where / f"{peer}.approval")
    for owner in founders.values():
        assert not owner.gather(genesis, tuple(approvals))
    application = founders[2].sponsor(newcomer.apply(genesis, "genesis", address, None, again=False), "application")
    for owner in founders.values():
        owner.sponsor(application, "application")
    return Owners(where, founders, newcomer, genesis, listens)


def configured(all_: Owners, role: Role | None = None) -> dict[int, NodeConfig]:
    """Everybody's, by id; the newcomer has the role."""
    found = {}
    for peer, owner in (*all_.founders.items(), (NEW, all_.newcomer)):
        config = owner.config(all_.genesis, peer, all_.listens[peer], all_.where)
        watched = "127.0.0.1:0" if peer in (0, NEW) else None
        mine = role if peer == NEW else None
        found[peer] = msgspec.structs.replace(config, role=mine, metrics=watched, imports=(str(SLOW),))
    return found


@contextmanager
def running(all_: Owners, role: Role | None = None) -> Iterator[dict[int, subprocess.Popen[bytes]]]:
    """All seven, a process each, ended with the test."""
    processes = {}
    try:
        for peer, config in configured(all_, role).items():
            path = Path(config.directory)
            path.mkdir(parents=True, exist_ok=True)
            file = path / "config.json"
            file.write_bytes(msgspec.json.encode(config))
            processes[peer] = started(all_.where, peer, file)
        yield processes
    finally:
        for process in processes.values():
            process.kill()
            process.wait()


def started(where: Path, peer: int, file: Path) -> subprocess.Popen[bytes]:
    """A worker, as `btard-node run` starts it, with a configuration of its own."""
    words = [NODE[0], "-m", "btard.node", str(file)]
    with (where / f"{peer}.log").open("a") as log:
        return subprocess.Popen(words, cwd=where, env=environment(), stdout=log, stderr=log)


def records(all_: Owners, peer: int) -> list[journal.Record]:
    owner = all_.newcomer if peer == NEW else all_.founders[peer]
    path = owner.directory / "nodes" / str(peer) / "journal.jsonl"
    return journal.read(path)[0] if path.exists() else []


def told(all_: Owners, peer: int, event: str) -> list[journal.Record]:
    return [record for record in records(all_, peer) if record["event"] == event]


def test_a_seventh_peer_is_introduced_serves_probation_and_trains_with_the_six(tmp_path: Path) -> None:
    with held_ports(2 * (FOUNDERS + 1)) as ports:
        all_ = owners(tmp_path, ports)
        with running(all_) as processes:
            codes = {peer: process.wait(PATIENCE_S) for peer, process in processes.items()}
    logs = {peer: (tmp_path / f"{peer}.log").read_text() for peer in codes}
    assert set(codes.values()) == {0}, logs
    assert "to be introduced" in logs[0]
    (back,) = told(all_, 0, "returned")
    assert back["peer"] == NEW
    digests = {told(all_, peer, "finished")[0]["parameter_digest"] for peer in codes}
    assert len(digests) == 1
    last = [record for record in told(all_, NEW, "committed") if record["contributors"]][-1]
    assert last["contributors"] == list(range(FOUNDERS + 1))
    assert not told(all_, 0, "banned")
    for peer in (0, NEW):
        report = verify((all_.newcomer if peer == NEW else all_.founders[peer]).directory)
        assert not report.wrong, report.findings
        admitted = [each for each in report.findings if each.subject.startswith(f"admission of peer {NEW} after step")]
        assert [(each.checked, each.kind) for each in admitted] == [(True, "certificate")], report.findings


def test_a_seventh_peer_that_turns_hostile_is_banned_with_evidence(tmp_path: Path) -> None:
    role = Role((Plugin("rejoin", {"then": "later"}),), Schedule(start=0), (NEW,))
    with held_ports(2 * (FOUNDERS + 1)) as ports:
        all_ = owners(tmp_path, ports)
        with running(all_, role) as processes:
            codes = {peer: process.wait(PATIENCE_S) for peer, process in processes.items()}
    assert set(codes.values()) == {0}, {peer: (tmp_path / f"{peer}.log").read_text() for peer in codes}
    (ban,) = told(all_, 0, "banned")
    assert (ban["peer"], ban["reason"]) == (NEW, "gradient")
    assert [record["reason"] for record in told(all_, NEW, "expelled")] == ["gradient"]
    report = verify(all_.founders[0].directory)
    assert not report.wrong, report.findings


def until_told(all_: Owners, peer: int, event: str, process: subprocess.Popen[bytes]) -> None:
    """Until a peer has journalled an event, while a process lives."""
    end = monotonic() + PATIENCE_S
    while not told(all_, peer, event):
        assert monotonic() < end, (all_.where / f"{NEW}.log").read_text()
        with suppress(subprocess.TimeoutExpired):
            raise AssertionError(f"it ended with {process.wait(0.05)}")


@pytest.mark.parametrize("again", [True, False], ids=["it comes back in time", "it stays away"])
def test_a_newcomer_that_is_killed_on_probation(again: bool, tmp_path: Path) -> None:
    """It serves the rest of its probation; or its id is free again, and nobody was banned."""
    run = msgspec.structs.replace(LONG, steps=160 if again else 40, admit_every=130 if again else 10)
    with held_ports(2 * (FOUNDERS + 1)) as ports:
        all_ = owners(tmp_path, ports, run)
        with running(all_) as processes:
            until_told(all_, 0, "probation", processes[NEW])
            processes[NEW].kill()
            processes.pop(NEW).wait()
            assert not told(all_, 0, "returned")
            if again:
                file = all_.newcomer.directory / "nodes" / str(NEW) / "config.json"
                processes[NEW] = started(tmp_path, NEW, file)
            codes = {peer: process.wait(PATIENCE_S) for peer, process in processes.items()}
    assert set(codes.values()) == {0}, {peer: (tmp_path / f"{peer}.log").read_text() for peer in codes}
    assert not told(all_, 0, "banned")
    assert [each["reason"] for each in told(all_, 0, "lapsed")] == ([] if again else ["silent"])
    assert [each["peer"] for each in told(all_, 0, "returned")] == ([NEW] if again else [])
    assert len({told(all_, peer, "finished")[0]["parameter_digest"] for peer in codes}) == 1
    for peer in (0, NEW) if again else (0,):
        report = verify((all_.newcomer if peer == NEW else all_.founders[peer]).directory, imports=[SLOW])
        assert not report.wrong, report.findings


def test_a_newcomer_that_is_killed_as_a_member_goes_on_where_it_was(tmp_path: Path) -> None:
    with held_ports(2 * (FOUNDERS + 1)) as ports:
        all_ = owners(tmp_path, ports)
        with running(all_) as processes:
            until_told(all_, NEW, "committed", processes[NEW])
            processes[NEW].kill()
            processes[NEW].wait()
            file = all_.newcomer.directory / "nodes" / str(NEW) / "config.json"
            processes[NEW] = started(tmp_path, NEW, file)
            codes = {peer: process.wait(PATIENCE_S) for peer, process in processes.items()}
    assert set(codes.values()) == {0}, {peer: (tmp_path / f"{peer}.log").read_text() for peer in codes}
    assert told(all_, NEW, "resumed") and not told(all_, 0, "banned")
    assert len({told(all_, peer, "finished")[0]["parameter_digest"] for peer in codes}) == 1
