"""Whole clusters of real worker processes on loopback, several at a time, and the promises that each must keep."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from secrets import randbits
from typing import Any

import msgspec

from btard.node.config import WIRE_VERSION, Endpoint, Plugin, Role, RunConfig, Schedule
from btard.node.crypto import keys
from btard.node.genesis.genesis import Genesis
from btard.node.netem.conditions import Conditions
from btard.node.storage.journal import Record
from btard.node.storage.recovery import MEMORY
from btard.node.verify.audit import Finding, check_run
from tests.ledgers import attempts
from tests.workers import Worker, changed, configs, workers

RUN = RunConfig(
    peers=6, task=Plugin("quadratic", {"dimension": 24}), steps=4, batch_size=2, eval_every=1000,
    delivery_bound_s=1.0, gradient_bound_s=1.0,
)  # fmt: skip
"""Bounds that a loaded machine keeps: waiting costs no CPU."""

_BESIDE = ("certificate", "summary", "quorum", "not checked")
"""Findings that are about no removal."""

PATIENCE_S = 480.0
"""Ends a cluster that hangs; no test depends on how long anything takes."""

Relay = Callable[[ExitStack, Mapping[int, Endpoint]], Mapping[int, Mapping[int, Endpoint]]]
"""From where the workers listen: where each of them is told that the others do."""


@dataclass(frozen=True, slots=True)
class Attacker:
    """One attacker: what it does, from step `start` to `stop` (exclusive; None: to the end), and whether it does so
    `alone`, without a word to the others."""

    attacks: tuple[Plugin, ...]
    start: int = 1
    stop: int | None = None
    alone: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """A cluster to run.

    Args:
        attackers: by genesis id.
        run: what all peers agree on.
        relay: puts something between the peers.
        kill: genesis id of a peer whose process is killed once it takes part in a dispute.
        restart: a peer, and a step: once it has committed that and noted it, its process is killed, and at once started
            again.
        random_keys: of the peers, new each time.
        imports: files with attacks or tasks, which every process loads.
        one_port: genesis ids of the peers that listen at one port.
        conditions: of the links that the peers themselves emulate.
    """

    attackers: Mapping[int, Attacker] = field(default_factory=dict)
    run: RunConfig = RUN
    relay: Relay | None = None
    kill: int | None = None
    restart: tuple[int, int] | None = None
    random_keys: bool = False
    imports: tuple[Path, ...] = ()
    one_port: frozenset[int] = frozenset()
    conditions: Conditions | None = None


@dataclass(slots=True)
class Aftermath:
    """What the journals of an ended cluster say."""

    plan: Plan
    codes: dict[int, int | None]
    records: dict[int, list[Record]]
    findings: list[Finding]

    @property
    def honest(self) -> tuple[int, ...]:
        """Peers that neither attack nor were killed."""
        return tuple(peer for peer in self.codes if peer not in self.plan.attackers and peer != self.plan.kill)

    @property
    def witness(self) -> int:
        """The first honest peer that finished."""
        return next(peer for peer in self.honest if self.said(peer, "finished"))

    def said(self, peer: int, event: str) -> list[Record]:
        """One peer's records of a kind."""
        return [record for record in self.records[peer] if record["event"] == event]

    @property
    def removed(self) -> list[tuple[int, int, str]]:
        """(step, peer, reason) of every removal, as an honest peer that finished saw it, in order."""
        return sorted((ban["step"], ban["peer"], ban["reason"]) for ban in self.said(self.witness, "banned"))

    @property
    def dropped(self) -> dict[str, int]:
        """What honest peers refused."""
        total: dict[str, int] = {}
        for peer in self.honest:
            for record in self.said(peer, "dropped"):
                total[record["reason"]] = total.get(record["reason"], 0) + record["count"]
        return total

    def steps(self, event: str) -> set[int]:
        """The steps of an event at honest peers."""
        return {record["step"] for peer in self.honest for record in self.said(peer, event)}

    def struck(self, peer: int) -> list[int]:
        """The steps at which an attacker did something."""
        return [step for record in self.said(peer, "attacked") for step in record["steps"]]

    @property
    def log(self) -> str:
        """For a failing test."""
        kept = ("suspected", "disputed", "voided", "resolved", "banned", "halted", "failed", "expelled", "dropped")
        lines = [str(record) for records in self.records.values() for record in records if record["event"] in kept]
        return f"exit codes {self.codes}\n" + "\n".join(lines)


class Cluster:
    """One plan's processes, from their start to the end of the last honest one."""

    def __init__(self, where: Path, plan: Plan) -> None:
        self._where, self._plan, self._stack = where, plan, ExitStack()
        self._end = time.monotonic() + PATIENCE_S
        self._told: Mapping[int, Mapping[int, Endpoint]] = {}
        self._restarted = plan.restart is None
        try:
            self._workers = self._start()
        except BaseException:
            self._stack.close()
            raise

    def _start(self) -> list[Worker]:
        plan, accomplices = self._plan, tuple(sorted(self._plan.attackers))
        members, secrets = keys.generate(randbits(63) if plan.random_keys else 0, plan.run.peers)
        made = []
        for config in configs(self._where, plan.run, members, secrets):
            attacker, role = plan.attackers.get(config.node), None
            if attacker is not None:
                known = (config.node,) if attacker.alone else accomplices
                role = Role(attacker.attacks, Schedule(start=attacker.start, stop=attacker.stop), known)
            listen = Endpoint(*config.listen.urls[: 1 if config.node in plan.one_port else 2])
            made.append(changed(config, role=role, imports=tuple(map(str, plan.imports)), listen=listen,
                                checkpoints=plan.restart is not None, conditions=plan.conditions))  # fmt: skip
        genesis = Genesis(1, WIRE_VERSION, made[0].run_id, plan.run, members)
        (self._where / "genesis.json").write_bytes(msgspec.json.encode(genesis))
        started = self._stack.enter_context(workers(made))
        bound = {each.config.node: each.bound() for each in started}
        self._told = plan.relay(self._stack, bound) if plan.relay is not None else dict.fromkeys(bound, bound)
        for each in started:
            each.pipe.send(("addresses", dict(self._told[each.config.node])))
        return started

    def _restart(self, peer: int, step: int) -> bool:
        """Kill a process that has committed a step, and start it again; false if it has not yet."""
        killed = self._workers[peer]
        if (step + 1, 0) not in attempts(Path(killed.config.directory) / MEMORY):
            return False
        killed.process.kill()
        killed.process.join()
        listen = self._told[peer][peer]
        (again,) = self._stack.enter_context(workers([changed(killed.config, listen=listen)]))
        again.pipe.send(("addresses", dict(self._told[peer])))
        self._workers[peer] = again
        return True

    @property
    def sentinels(self) -> list[int]:
        """Ready when a process has ended."""
        return [each.process.sentinel for each in self._workers if each.process.exitcode is None]

    def over(self) -> bool:
        """True once no honest peer works any more."""
        kill, restart = self._plan.kill, self._plan.restart
        if restart is not None and not self._restarted:
            self._restarted = self._restart(*restart)
        if kill is not None and self._workers[kill].process.exitcode is None and self._workers[kill].said("disputed"):
            self._workers[kill].process.kill()
        working = [each for each in self._workers if each.process.exitcode is None]
        if working and time.monotonic() > self._end:
            raise AssertionError(f"{self._where.name} hangs: {self._gather({}).log}")
        return not any(each.config.node not in (*self._plan.attackers, kill) for each in working)

    @property
    def look_s(self) -> float:
        """How soon to look again: a kill must not come long after what it waits for."""
        return 0.5 if self._restarted else 0.01

    def aftermath(self) -> Aftermath:
        """Stop the attackers that are left, and read what everyone wrote."""
        for each in self._workers:
            if each.process.exitcode is None:
                each.process.terminate()
        codes = {each.config.node: each.exit_code() for each in self._workers}
        return self._gather(codes)

    def close(self) -> None:
        """Leave no process behind."""
        self._stack.close()

    def _gather(self, codes: dict[int, int | None]) -> Aftermath:
        records = {each.config.node: each.records for each in self._workers}
        return Aftermath(
            self._plan, codes, records, check_run(self._where, imports=self._plan.imports) if codes else []
        )


def run_all(where: Path, plans: Mapping[str, Plan], at_once: int) -> dict[str, Aftermath]:
    """Run every plan, `at_once` clusters at a time."""
    waiting, under_way, done = list(plans.items()), dict[str, Cluster](), dict[str, Aftermath]()
    try:
        while waiting or under_way:
            while waiting and len(under_way) < at_once:
                name, plan = waiting.pop(0)
                under_way[name] = Cluster(where / name, plan)
            look_s = min(cluster.look_s for cluster in under_way.values())
            wait([sentinel for cluster in under_way.values() for sentinel in cluster.sentinels], timeout=look_s)
            for name in [name for name, cluster in under_way.items() if cluster.over()]:
                done[name] = under_way[name].aftermath()
                under_way.pop(name).close()
    finally:
        for cluster in under_way.values():
            cluster.close()
    return done


def keeps_the_promises(end: Aftermath, lost: int = 0) -> None:
    """Agreement, accuracy, liveness and accountability of a cluster that had at most f faulty peers.

    Args:
        lost: honest peers that mutual eliminations cost.
    """
    finished = [peer for peer in end.honest if end.said(peer, "finished")]
    expelled = [peer for peer in end.honest if end.said(peer, "expelled")]
    assert (len(finished), len(expelled)) == (len(end.honest) - lost, lost), end.log
    assert all(end.codes[peer] == 0 for peer in end.honest), end.log
    bans = [_bans(end, peer) for peer in finished]
    assert bans == [bans[0]] * len(bans), end.log
    accidents = {(peer, reason) for _, peer, reason in end.removed if peer in end.honest and reason != "eliminated"}
    assert not accidents, end.log
    assert agree_step_by_step(end, finished) == set(range(end.plan.run.steps + 1)), end.log
    wrong = [finding for finding in end.findings if not finding.ok]
    assert not wrong, wrong
    proven = [finding for finding in end.findings if finding.kind not in _BESIDE]
    assert len(proven) == len(bans[0]), end.findings


def agree_step_by_step(end: Aftermath, peers: Sequence[int]) -> set[int]:
    """Whoever commits a step commits the same state; returns the steps that somebody committed."""
    digests: dict[int, set[str]] = {}
    for peer in peers:
        for record in end.said(peer, "committed"):
            digests.setdefault(record["step"], set()).add(record["state_digest"])
    assert all(len(found) == 1 for found in digests.values()), f"{digests}\n{end.log}"
    return set(digests)


def _bans(end: Aftermath, peer: int) -> list[tuple[Any, ...]]:
    fields = ("step", "attempt", "peer", "reason", "accuser", "removed")
    return sorted(tuple(ban[name] for name in fields) for ban in end.said(peer, "banned"))
