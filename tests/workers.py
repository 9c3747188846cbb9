"""Real worker processes under the control of a test, which is their launcher or one of their peers."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import msgspec
import zmq

from btard.launcher.backends.local import context, server_environment
from btard.launcher.containers import places
from btard.node import worker
from btard.node.config import Endpoint, Member, NodeConfig, Plugin, RunConfig, Secrets, load
from btard.node.crypto import keys
from btard.node.drivers.bootstrap import GRACE_S
from btard.node.metrics import monitoring
from btard.node.metrics.monitoring import LINGER_S
from btard.node.storage import journal
from tests.ports import held_ports

ROOT = Path(__file__).parent.parent
FOR_EVER_S = 1e6  # what waits as long as this fails its test by `WATCHDOG_S`
WATCHDOG_S = 60.0  # ends a test that hangs; no test depends on how long anything takes
QUADRATIC = RunConfig(peers=3, task=Plugin("quadratic"), steps=3, batch_size=4, eval_every=2)
ENDLESS = msgspec.structs.replace(QUADRATIC, steps=1_000_000, eval_every=1_000_000)


@dataclass(frozen=True, slots=True)
class Worker:
    """One process and the launcher's end of its pipe."""

    config: NodeConfig
    process: BaseProcess
    pipe: Connection

    @property
    def run_dir(self) -> Path:
        """The run directory."""
        return Path(self.config.directory).parent.parent

    @property
    def log(self) -> str:
        """What it printed."""
        return (self.run_dir / "logs" / f"node-{self.config.node}.log").read_text()

    @property
    def records(self) -> list[journal.Record]:
        """Its journal."""
        return journal.read(Path(self.config.directory) / "journal.jsonl")[0]

    def said(self, event: str) -> list[journal.Record]:
        """The records of one kind."""
        return [record for record in self.records if record["event"] == event]

    @property
    def drops(self) -> dict[str, int]:
        """The totals of what it refused, as journalled at its end."""
        return {record["reason"]: record["count"] for record in self.said("dropped")}

    def bound(self) -> Endpoint:
        """Wait until it has bound its sockets."""
        assert self.pipe.poll(WATCHDOG_S), self.log
        kind, endpoint = self.pipe.recv()
        assert kind == "bound"
        assert isinstance(endpoint, Endpoint)
        return endpoint

    def exit_code(self) -> int | None:
        """Wait for its end."""
        self.process.join(WATCHDOG_S)
        return self.process.exitcode


def configs(
    where: Path, run: RunConfig, members: Sequence[Member], secrets: Sequence[Secrets]
) -> tuple[NodeConfig, ...]:
    """The configurations of a run's nodes, their key files written."""
    made = []
    for member, secret in zip(members, secrets, strict=True):
        directory = where / "nodes" / str(member.id)
        directory.mkdir(parents=True)
        keys.write(directory / "secrets.json", secret)
        own, data = str(directory), str(where / "data")
        made.append(NodeConfig("run", member.id, run, tuple(members), f"{own}/secrets.json", own, data))
    return tuple(made)


def roster(where: Path, run: RunConfig = QUADRATIC) -> tuple[NodeConfig, ...]:
    """The configurations of a fresh run of `run.peers` nodes."""
    return configs(where, run, *keys.generate(0, run.peers))


@contextmanager
def workers(
    chosen: Sequence[NodeConfig], mesh_s: float = WATCHDOG_S, file_bytes: int | None = None, grace_s: float = GRACE_S,
    descriptors: tuple[int, int] | None = None, linger_s: float = LINGER_S,
) -> Iterator[list[Worker]]:  # fmt: skip
    """One process per configuration; none is left afterwards.

    Args:
        mesh_s: how long they wait for greetings.
        file_bytes: the largest file they can write: beyond it a write fails as on a full disk.
        grace_s: how long of `mesh_s` for the last f.
        descriptors: how many they may open: the soft limit and the hard one.
        linger_s: how long they keep their metrics open for a last scrape.
    """
    with ExitStack() as stack:
        started = []
        for config in chosen:
            ours, theirs = context().Pipe()
            process = context().Process(
                target=_work, args=(config, theirs, mesh_s, file_bytes, grace_s, descriptors, linger_s), daemon=True
            )
            with server_environment():
                process.start()
            theirs.close()
            stack.callback(_end, process)
            stack.callback(ours.close)
            started.append(Worker(config, process, ours))
        yield started


def introduce(started: Sequence[Worker], others: Mapping[int, Endpoint] | None = None) -> dict[int, Endpoint]:
    """Tell each worker where all the workers, and `others`, listen."""
    addresses = {each.config.node: each.bound() for each in started} | dict(others or {})
    for each in started:
        each.pipe.send(("addresses", addresses))
    return addresses


def push(stack: ExitStack, endpoint: str, member: Member | None = None, key: str | None = None) -> zmq.Socket[bytes]:
    """A hand-written peer: a PUSH socket to `endpoint`; with `member` it speaks CURVE to it, under the secret `key`."""
    zmq_context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    stack.callback(zmq_context.destroy, linger=0)
    socket = zmq_context.socket(zmq.PUSH)
    stack.callback(socket.close, 0)
    if member is not None and key is not None:
        socket.curve_secretkey = key.encode()
        socket.curve_publickey = zmq.curve_public(key.encode())
        socket.curve_serverkey = member.transport_key.encode()
    socket.connect(endpoint)
    return socket


def changed(config: NodeConfig, **fields: Any) -> NodeConfig:
    """A copy of a configuration with other values."""
    return msgspec.structs.replace(config, **fields)


def _work(
    config: NodeConfig, pipe: Any, mesh_s: float, file_bytes: int | None, grace_s: float,
    descriptors: tuple[int, int] | None, linger_s: float,
) -> None:  # fmt: skip
    if descriptors is not None:
        resource.setrlimit(resource.RLIMIT_NOFILE, descriptors)
    if file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    monitoring.LINGER_S = linger_s
    sys.exit(worker.main(config, pipe, mesh_s, grace_s))


def _end(process: BaseProcess) -> None:
    if process.exitcode is None:
        process.kill()
    process.join(WATCHDOG_S)


@contextmanager
def on_this_machine(root: Path, nodes: Sequence[int], peers: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """What containers run, as processes: the workers of a run that `roles` has laid out, by `python -m btard.node`.

    Args:
        root: where the volumes lie; each node's keys are in `secrets` of the one that it writes to.
        nodes: which of them to start; the others' configurations are ready too.
        peers: of the run.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with held_ports(2 * peers) as ports, ExitStack() as stack:
        workers = []
        for node in range(peers):
            path, urls = places.config_of(root, node), [f"localhost:{port}" for port in ports[2 * node : 2 * node + 2]]
            config: NodeConfig = msgspec.structs.replace(
                load(path), secrets_file=str(places.volume_of(root, node) / "secrets"), metrics=None, grace_s=5.0,
                directory=str(places.written_by(root, node)), ceremony=str(places.ceremony(root)),
                addresses={str(node): Endpoint(*(f"tcp://{url}" for url in urls))},
                listen=Endpoint(*(f"tcp://{url.replace('localhost', '127.0.0.1')}" for url in urls)),
            )  # fmt: skip
            path.write_bytes(msgspec.json.encode(config))
            if node in nodes:
                command = [sys.executable, "-m", "btard.node", str(path)]
                workers.append(subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL))
                stack.callback(workers[-1].wait)
                stack.callback(workers[-1].kill)
        yield workers
