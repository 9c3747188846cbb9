"""One worker process: configuration, sockets, mesh, protocol, journal; ends on its own, on a signal, or with its
launcher."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType

from node import keys
from node.build import build_node, task_of
from node.config import Endpoint, NodeConfig
from node.driver import Driver
from node.errors import BtardError, TransportError
from node.journal import Journal
from node.protocol.events import Halted, Output
from node.quota import Credits
from node.recorder import Recorder
from node.training.environment import fingerprint, pin
from node.transport import Arrival, Transport
from node.wire import Limits

_MESH_S = 60.0
"""Longest wait for all peers' greetings: six processes may still be importing torch."""


class _Stop:
    """Set by SIGTERM, SIGINT, a stop on the launcher's pipe, or the pipe's end (the launcher is gone)."""

    def __init__(self, pipe: Connection | None) -> None:
        self.signal: int | None = None
        self.wanted = False
        self._pipe = pipe
        self.addresses: dict[int, Endpoint] | None = None
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.signal, self.wanted = number, True

    def __call__(self) -> bool:
        """True once this worker should end; reads what the launcher sent meanwhile."""
        pipe = self._pipe
        try:
            while pipe is not None and not pipe.closed and pipe.poll(0):
                message = pipe.recv()
                if message[0] == "addresses":
                    self.addresses = dict(message[1])
                elif message[0] == "stop":
                    self.wanted = True
        except (EOFError, OSError):
            self.wanted = True
        return self.wanted

    @property
    def exit_code(self) -> int:
        """128 + signal, as a shell reports it."""
        return 128 + (self.signal or signal.SIGTERM)


def main(config: NodeConfig, pipe: Connection | None = None) -> int:
    """Run one worker to its end.

    Args:
        config: everything it needs.
        pipe: to the launcher: ("bound", Endpoint) goes out; ("addresses", {id: Endpoint}) and ("stop",) come in.

    Returns:
        The exit status: 0 finished or expelled, 1 halted or failed, 128 + n ended by a signal.
    """
    stop = _Stop(pipe)
    directory = Path(config.directory)
    if pipe is not None:
        _redirect(directory.parent.parent / "logs" / f"node-{config.node}.log")
    try:
        with Journal(directory / "journal.jsonl", config.node) as journal:
            try:
                return _run(config, journal, pipe, stop)
            except BtardError as error:
                print(f"error: {error}", file=sys.stderr, flush=True)  # noqa: T201
                journal.append("failed", error=str(error))
            except Exception as error:
                traceback.print_exc()
                journal.append("failed", error=f"{type(error).__name__}: {error}")
    except BtardError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)  # noqa: T201
    return 1


def _run(config: NodeConfig, journal: Journal, pipe: Connection | None, stop: _Stop) -> int:
    run = config.run
    secrets = keys.load(Path(config.secrets_file))
    pin(run.device, config.cuda_memory_fraction)
    task = task_of(run, Path(config.data_directory))
    limits = Limits.for_run(run.peers, task.dimension)
    credits = Credits.for_run(run.peers, task.dimension, run.delivery_bound_s, run.minimum_rate)
    transport = Transport(
        config.node, secrets, config.members, config.listen, run.encrypt_bulk, limits, credits, run_id=config.run_id
    )
    try:
        journal.append("bound", control=transport.bound.control, bulk=transport.bound.bulk)
        if pipe is not None:
            pipe.send(("bound", transport.bound))
        node = build_node(config, secrets, task, fingerprint(run.device))
        transport.accept_bulk = node.expects
        early: list[Arrival] = []
        if not _mesh(config, transport, pipe, stop, early):
            return stop.exit_code
        journal.append("greeted", peers=sorted(transport.greeted))
        recorder = Recorder(config, journal, task, transport)
        driver = Driver(node, transport, recorder.observe)
        recorder.attach(driver)
        driver.receive(early)
        ending = driver.run(stop)
        if node.adversary is not None:
            journal.append("attacked", steps=node.adversary.attacked)
        recorder.end()
        return _exit_code(ending, stop)
    finally:
        transport.close()


def _mesh(config: NodeConfig, transport: Transport, pipe: Connection | None, stop: _Stop, early: list[Arrival]) -> bool:
    """Connect to all peers and wait until each has greeted us.

    Args:
        early: receives what peers whose mesh is already complete sent us meanwhile.

    Raises:
        TransportError: a peer did not greet in time; the message names it and why, if it said.
    """
    addresses: Mapping[int, Endpoint] | None = {int(peer): where for peer, where in config.addresses.items()} or None
    if pipe is not None:
        transport.watch(pipe.fileno())
    others = {member.id for member in config.members} - {config.node}
    deadline = time.monotonic() + _MESH_S
    connected = False
    while transport.greeted < others or not connected:
        if stop():
            return False
        addresses = addresses or stop.addresses
        if addresses is not None and not connected:
            transport.connect(addresses)
            connected = True
        left = deadline - time.monotonic()
        if left <= 0:
            missing = sorted(others - transport.greeted)
            why = "; ".join(f"{peer}: {transport.refusals[peer]}" for peer in missing if peer in transport.refusals)
            raise TransportError(f"no greeting from peers {missing} within {_MESH_S:.0f} s {why}".rstrip())
        early += transport.poll(min(left, 0.5))
    return True


def _exit_code(ending: Output | None, stop: _Stop) -> int:
    if ending is None:
        return stop.exit_code
    return 1 if isinstance(ending, Halted) else 0


def _redirect(path: Path) -> None:
    """Send this process's output, C libraries' included, to its log file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
