"""Real workers under attack from a hand-written peer, with a member's key and without one."""

from __future__ import annotations

import json
import socket as tcp
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec
import psutil
import pytest
import zmq

from btard.node.config import Endpoint, NodeConfig, Plugin, RunConfig
from btard.node.crypto import keys
from btard.node.storage import journal
from tests.integration.raw_peer import RawPeer, endless, more_frame
from tests.ports import held_ports

pytestmark = pytest.mark.sockets
WATCHDOG_S = 120.0  # ends a test that hangs; no test depends on how long anything takes
GROWTH_BYTES = 128 << 20
RUN = RunConfig(
    peers=4, task=Plugin("quadratic", {"dimension": 1024}), steps=40, batch_size=2, eval_every=1000,
    delivery_bound_s=0.5, gradient_bound_s=2.0,
)  # fmt: skip


PORTS = pytest.mark.parametrize("ports", [2, 1], ids=["two ports", "one port"])


class Cluster:
    """Worker processes started by hand at fixed addresses, one port each or two, and how much memory they take."""

    def __init__(self, where: Path, run: RunConfig, honest: int, ports_each: int) -> None:
        self.members, self.secrets = keys.generate(0, run.peers)
        self._held = ExitStack()
        ports = [f"tcp://127.0.0.1:{port}" for port in self._held.enter_context(held_ports(ports_each * run.peers))]
        self.addresses = {peer: Endpoint(*ports[peer :: run.peers]) for peer in range(run.peers)}
        self.directories = [where / "nodes" / str(peer) for peer in range(honest)]
        self.processes = [self._start(peer, run) for peer in range(honest)]
        self.watched = [psutil.Process(process.pid) for process in self.processes]
        self.first: list[int] = []
        self.most = [0] * honest

    def _start(self, peer: int, run: RunConfig) -> subprocess.Popen[str]:
        directory = self.directories[peer]
        directory.mkdir(parents=True)
        keys.write(directory / "secrets.json", self.secrets[peer])
        config = NodeConfig(
            "run", peer, run, self.members, str(directory / "secrets.json"), str(directory), "unused",
            self.addresses[peer], {str(other): where for other, where in self.addresses.items()},
        )  # fmt: skip
        path = directory / "config.json"
        path.write_bytes(msgspec.json.encode(config))
        return subprocess.Popen([sys.executable, "-m", "btard.node", str(path)], stderr=subprocess.PIPE, text=True)

    def said(self, peer: int, event: str) -> list[dict[str, Any]]:
        path = self.directories[peer] / "journal.jsonl"
        return [dict(record) for record in journal.read(path)[0] if record["event"] == event] if path.exists() else []

    def running(self) -> bool:
        """Measure, and tell whether any worker still works."""
        sizes = []
        for peer, process in enumerate(self.watched):
            try:
                size = process.memory_info().rss
            except psutil.NoSuchProcess:
                size = 0
            # What a worker needs to end (torch loads more when its interpreter is torn down) is not the attack's doing.
            sizes.append(0 if self.said(peer, "finished") else size)
        if not self.first and all(sizes) and all(self.said(peer, "greeted") for peer in range(len(self.processes))):
            self.first = sizes
        if not self.first:
            return True
        self.most = [max(pair) for pair in zip(self.most, sizes, strict=True)]
        return any(process.poll() is None for process in self.processes)

    @property
    def growth(self) -> int:
        """Largest growth of any worker since the mesh stood."""
        return max(most - first for most, first in zip(self.most, self.first, strict=True))

    def drops(self) -> dict[str, int]:
        total: dict[str, int] = {}
        for peer in range(len(self.processes)):
            for record in self.said(peer, "dropped"):
                total[record["reason"]] = total.get(record["reason"], 0) + record["count"]
        return total

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.terminate()
        for process in self.processes:
            process.communicate(timeout=WATCHDOG_S)
        self._held.close()


def unhurt(cluster: Cluster, honest: int, removable: set[int]) -> None:
    """All honest workers finished with the same parameters and removed nobody but the attacker."""
    assert [process.returncode for process in cluster.processes] == [0] * honest, [
        process.communicate()[1] for process in cluster.processes
    ]
    finished = [cluster.said(peer, "finished") for peer in range(honest)]
    assert all(finished)
    assert len({records[0]["parameter_digest"] for records in finished}) == 1
    for peer in range(honest):
        assert {record["peer"] for record in cluster.said(peer, "banned")} <= removable
    print(json.dumps({"growth_MB": cluster.growth >> 20, "drops": cluster.drops()}))
    assert cluster.growth < GROWTH_BYTES, f"{cluster.growth >> 20} MB, {cluster.drops()}"


def push_all(socket: zmq.Socket[bytes], messages: Iterator[list[bytes]], most: int) -> None:
    """Send until the queue is full."""
    for frames in islice(messages, most):
        try:
            socket.send_multipart(frames, zmq.NOBLOCK)
        except zmq.Again:
            return


class Endless:
    """Lines that keep promising more frames; each is opened again when it is cut."""

    def __init__(self, addresses: list[str]) -> None:
        self._addresses, self._frame = addresses, more_frame(4096)
        self._lines: dict[str, tcp.socket] = {}

    def push(self, frames: int) -> None:
        for address in self._addresses:
            try:
                if address not in self._lines:
                    self._lines[address] = endless(address)
                    self._lines[address].settimeout(0.05)
                for _ in range(frames):
                    self._lines[address].sendall(self._frame)
            except OSError:
                line = self._lines.pop(address, None)
                if line is not None:
                    line.close()

    def close(self) -> None:
        for line in self._lines.values():
            line.close()


def attack(cluster: Cluster, act: Callable[[], None]) -> None:
    """Act for as long as the cluster runs."""
    end = monotonic() + WATCHDOG_S
    while cluster.running():
        assert monotonic() < end, cluster.drops()
        act()


@PORTS
def test_a_member_that_attacks_with_everything_is_all_that_is_removed(
    ports: int, stack: ExitStack, tmp_path: Path
) -> None:
    """Its connections claim another's routing id; what it says counts under its own key all the same."""
    cluster = Cluster(tmp_path, RUN, 3, ports)
    stack.callback(cluster.close)
    secrets = cluster.secrets[3]
    others = {member.id: member.transport_key.encode() for member in cluster.members[:3]}
    raw = RawPeer(3, "run", bytes.fromhex(secrets.signing_seed), secrets.transport_secret.encode(), others)
    stack.callback(raw.close)
    for socket, url in zip((raw.inbox, raw.tensors), cluster.addresses[3].urls, strict=False):
        socket.bind(url)
    raw.connect({peer: cluster.addresses[peer].urls for peer in others})
    end = monotonic() + WATCHDOG_S
    while not raw.run:
        assert monotonic() < end
        assert cluster.running(), [process.communicate()[1] for process in cluster.processes]
        raw.listen()
        raw.inbox.poll(50)
    for line in raw.lines.values():
        line.send(raw.hello())
        for frame in raw.suspicions():
            line.send(frame)
    control, oversized = {peer: raw.control_attacks() for peer in others}, raw.oversized()
    bulk = {peer: raw.bulk_attacks(4 * 1024) for peer in others}
    lines = Endless([cluster.addresses[peer].urls[-1] for peer in others])
    stack.callback(lines.close)

    def act() -> None:
        raw.listen()
        for peer in others:
            push_all(raw.lines[peer], control[peer], 200)
            push_all(raw.spare[peer], oversized, 1)
            push_all(raw.bulk[peer], bulk[peer], 50)
        lines.push(64)

    attack(cluster, act)
    unhurt(cluster, 3, {3})
    drops = cluster.drops()
    expected = ("control_malformed", "control_over_quota", "bulk_unknown_token", "bulk_malformed", "malformed")
    assert drops.get("bulk_unexpected", 0) + drops.get("bulk_over_quota", 0), drops  # its own token was known
    assert all(drops.get(reason) for reason in expected), drops
    assert {record["peer"] for record in cluster.said(0, "banned")} == {3}


@PORTS
def test_strangers_without_a_key_change_nothing(ports: int, stack: ExitStack, tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, msgspec.structs.replace(RUN, peers=3, steps=60), 3, ports)
    stack.callback(cluster.close)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    stack.callback(context.destroy, linger=0)
    public, secret = zmq.curve_keypair()
    sockets = []
    for peer, member in enumerate(cluster.members):
        for encrypted in (True, False):
            for endpoint in cluster.addresses[peer].urls:
                socket = context.socket(zmq.PUSH)
                socket.linger = 0
                if encrypted:
                    socket.curve_publickey, socket.curve_secretkey = public, secret
                    socket.curve_serverkey = member.transport_key.encode()
                socket.routing_id = b"0"
                socket.connect(endpoint)
                sockets.append(socket)
    raw = RawPeer(0, "run", bytes(32), secret, {})
    stack.callback(raw.close)
    floods = [raw.bulk_attacks(4096) if place % 2 else raw.control_attacks() for place in range(len(sockets))]
    lines = Endless([endpoint.urls[-1] for endpoint in cluster.addresses.values()])
    stack.callback(lines.close)
    idle: list[tcp.socket] = []

    def act() -> None:
        for socket, messages in zip(sockets, floods, strict=True):
            push_all(socket, messages, 50)
        lines.push(64)
        for endpoint in cluster.addresses.values():
            for address in endpoint.urls:
                host, port = address.removeprefix("tcp://").rsplit(":", 1)
                try:
                    idle.append(tcp.create_connection((host, int(port)), timeout=1))
                    idle[-1].setblocking(False)
                    idle[-1].send(b"GET / HTTP/1.1\r\n\r\n")
                except OSError:
                    continue
        while len(idle) > 400:
            idle.pop(0).close()

    attack(cluster, act)
    for line in idle:
        line.close()
    unhurt(cluster, 3, set())
    drops = cluster.drops()
    assert drops.get("stranger") and bool(drops.get("bulk_unknown_token")) == (ports == 2), drops
