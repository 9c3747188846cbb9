"""One worker process: configuration, sockets, mesh, protocol, journal; ends on its own, on a signal, or with its
launcher."""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType

from btard.node.build import (
    Node,
    build_node,
    environment_of,
    largest_tensor,
    newcomers_of,
    optimiser_of,
    task_of,
)
from btard.node.config import Endpoint, NodeConfig, Secrets
from btard.node.crypto import keys
from btard.node.drivers.bootstrap import GRACE_S, mesh, ungreeted
from btard.node.drivers.realtime import Driver
from btard.node.errors import BackendError, BtardError
from btard.node.genesis import ceremony
from btard.node.genesis.application import REFUSALS, Waiting
from btard.node.genesis.approval import Approvals
from btard.node.genesis.genesis import genesis_digest
from btard.node.metrics import monitoring
from btard.node.metrics.monitoring import Monitoring
from btard.node.netem import network
from btard.node.netem.emulated_transport import EmulatedTransport
from btard.node.netem.link_observer import LinkWatch, shaped_links
from btard.node.plugins import extensions
from btard.node.protocol.api import Applied, Committed, Expelled, Finished, Halted, Input, Output
from btard.node.protocol.state_sync.admission import refused
from btard.node.protocol.wire.precision import PRECISIONS
from btard.node.storage.disk import Disk
from btard.node.storage.journal import Journal
from btard.node.storage.recorder import Recorder
from btard.node.storage.recovery import elapsed_s, recover
from btard.node.training.environment import encoded, named_problems, pin
from btard.node.transport import descriptors
from btard.node.transport.arrivals import Arrival
from btard.node.transport.flow_control import Credits
from btard.node.transport.framing import Limits
from btard.node.transport.transport import Transport

MESH_S = 60.0
"""Longest wait for greetings: six processes may still be importing torch."""


class _Stop:
    """What ends a worker from outside: SIGTERM, SIGINT, a stop on the launcher's pipe, or the pipe's end.

    Each of them makes a descriptor readable that the transport watches, so a sleeping worker wakes at once. Beside a
    program's main thread, as a session's node, it leaves signals to the program.
    """

    def __init__(self, pipe: Connection | None) -> None:
        self.signal: int | None = None
        self.wanted = False
        self.addresses: dict[int, Endpoint] | None = None
        self._pipe = pipe
        self._transport: Transport | None = None
        self._woken, wake = os.pipe()
        for end in (self._woken, wake):
            os.set_blocking(end, False)
        if threading.current_thread() is threading.main_thread():
            signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self._on_signal)
        self._ready = select.poll()
        for descriptor in self._descriptors():
            self._ready.register(descriptor, select.POLLIN)

    def attend(self, transport: Transport) -> None:
        """From now on whatever concerns us ends the transport's waiting."""
        self._transport = transport
        for descriptor in self._descriptors():
            transport.watch(descriptor)

    def __call__(self) -> bool:
        """True once this worker should end; reads what the launcher sent meanwhile."""
        for descriptor, _ in self._ready.poll(0):
            if descriptor == self._woken:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._woken, 64)
            else:
                self._listen()
        return self.wanted

    def pause(self, timeout_s: float) -> bool:
        """Wait until this worker should end, or time is up; true if it should."""
        self._ready.poll(1000 * timeout_s)
        return self()

    def wait(self, descriptor: int, timeout_s: float) -> None:
        """Wait until `descriptor` can be read, this worker should end, or time is up."""
        ready = select.poll()
        for each in (descriptor, *self._descriptors()):
            ready.register(each, select.POLLIN)
        end = time.monotonic() + timeout_s
        while not self() and (left_s := end - time.monotonic()) > 0:
            if any(each == descriptor for each, _ in ready.poll(1000 * left_s)):
                return

    @property
    def exit_code(self) -> int:
        """128 + signal, as a shell reports it."""
        return 128 + (self.signal or signal.SIGTERM)

    def _descriptors(self) -> tuple[int, ...]:
        return (self._woken,) if self._pipe is None else (self._woken, self._pipe.fileno())

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.signal, self.wanted = number, True

    def _listen(self) -> None:
        pipe = self._pipe
        try:
            while pipe is not None and pipe.poll(0):
                message = pipe.recv()
                if message[0] == "addresses":
                    self.addresses = dict(message[1])
                elif message[0] == "stop":
                    self.wanted = True
        except (EOFError, OSError):
            self.wanted = True  # the launcher is gone
            self._hang_up()

    def _hang_up(self) -> None:
        """Watch the pipe no longer: at its end it is readable for ever, and waiting would become spinning."""
        if self._pipe is not None:
            self._ready.unregister(self._pipe.fileno())
            if self._transport is not None:
                self._transport.unwatch(self._pipe.fileno())
            self._pipe = None


def main(config: NodeConfig, pipe: Connection | None = None, mesh_s: float = MESH_S, grace_s: float = GRACE_S) -> int:
    """Run one worker to its end.

    Args:
        config: everything it needs.
        pipe: to the launcher: ("bound", Endpoint) goes out; ("addresses", {id: Endpoint}) and ("stop",) come in.
        mesh_s: seconds to wait for the peers' greetings.
        grace_s: seconds of them to wait for the last f, which may be silent for ever.

    Returns:
        The exit status: 0 finished or expelled, 1 halted or failed, 70 a plug-in failed, 128 + n ended by a signal.
    """
    descriptors.raise_limit()
    stop = _Stop(pipe)
    code = 1
    directory = Path(config.directory)
    try:
        if pipe is not None:
            _redirect(directory.parent.parent / "logs" / f"node-{config.node}.log")
        with Journal(directory / "journal.jsonl", config.node) as journal:
            try:
                with named_problems(config.run.device):
                    return _run(config, journal, pipe, stop, (mesh_s, grace_s))
            except Exception as error:
                if extensions.failed(error):
                    code = extensions.FAILED
                    _complain(traceback.format_exc())
                _record_failure(journal, error)
                raise
    except BtardError as error:
        _complain(f"error: {error}")
    except Exception:
        if code != extensions.FAILED:
            _complain(traceback.format_exc())
    return code


def _run(
    config: NodeConfig, journal: Journal, pipe: Connection | None, stop: _Stop, waits_s: tuple[float, float]
) -> int:
    with contextlib.ExitStack() as held:
        if config.ceremony is None:
            return _take_part(config, journal, pipe, stop, waits_s, held)
        attended = ceremony.attend(config, held, stop.pause, waits_s[0], _complain if pipe is None else None)
        return stop.exit_code if attended is None else _take_part(attended, journal, pipe, stop, waits_s, held)


def _take_part(
    config: NodeConfig, journal: Journal, pipe: Connection | None, stop: _Stop, waits_s: tuple[float, float],
    held: contextlib.ExitStack,
) -> int:  # fmt: skip
    """Run a worker whose peers are known; `held` is let go once its sockets are bound."""
    run = config.run
    secrets = keys.load(Path(config.secrets_file))
    pin(run.device, config.cuda_memory_fraction)
    # Before binding: the task says how large a tensor may be, and costs 0.1 s (torch is loaded already).
    extensions.load([Path(path) for path in config.imports])
    task = task_of(run, Path(config.data_directory))
    largest = largest_tensor(run, task)
    limits = Limits.for_run(run.capacity, largest)
    credits = Credits.for_run(run.capacity, largest, run.delivery_bound_s, run.minimum_rate)
    transport = _transport(config, secrets, limits, credits)
    held.close()
    monitored, recovery = Monitoring(), None
    recorder = Recorder(config, journal, task, transport)
    try:
        monitored = monitoring.start(config, transport, journal)
        recorder.evaluated = monitored.evaluated
        journal.append("bound", control=transport.bound.control, bulk=transport.bound.bulk)
        stop.attend(transport)
        if config.approvals is not None:
            transport.approvals = Approvals(config.run_id, config.run, config.members, Path(config.approvals))
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):  # `stop` notices that the launcher is gone
                pipe.send(("bound", transport.bound))
        facts = environment_of(run, task)
        journal.append("environment", facts=facts)
        with descriptors.reserve:
            recovery = recover(config, encoded(facts), journal, optimiser_of(run, task.dimension, task.layout))
        node = build_node(
            config, secrets, task, encoded(facts), checkpointer=recovery.checkpointer if recovery else None
        )
        node.peer.stays = config.stay
        transport.accept_bulk = node.expects
        links = LinkWatch(transport, journal, shaped_links(config))
        if recovery is not None and recovery.at is not None:
            node.restore(recovery.at, recovery.away_s)
            transport.follow(newcomers_of(recovery.at.state.summary))
            links.begin(elapsed_s(config, time.time()))
        gc.freeze()  # what is here now stays: the collector need not visit it again and again
        early: list[Arrival] = []
        say = _complain if pipe is None else None
        if not mesh(config, transport, stop, early, waits_s[0], recovery, grace_s=waits_s[1], say=say):
            recorder.end()
            return stop.exit_code
        if problem := ungreeted(config, transport):
            journal.append("ungreeted", problem=problem)
        journal.append("greeted", peers=sorted(transport.greeted))
        heard = recovery.heard if recovery is not None else ()
        return _drive(config, node, transport, recorder, links, monitored, heard, early, stop)
    except BtardError:
        with contextlib.suppress(BackendError):  # the first error is the one to report
            recorder.end()
        raise
    finally:
        transport.close()
        monitored.end(stop.wait)
        if recovery is not None:
            recovery.checkpointer.close()


def _transport(config: NodeConfig, secrets: Secrets, limits: Limits, credits: Credits) -> Transport:
    """The sockets, with a modelled network in front of them where one is asked for."""
    newcomer = config.node >= config.run.peers
    members = (*config.members, keys.public_identity(config.node, secrets)) if newcomer else config.members
    shared = (config.node, secrets, members, config.listen, config.run.encrypt_bulk, limits, credits)
    run, places = genesis_digest(config.run_id, config.run, config.members), config.run.capacity - config.run.peers
    if config.conditions is None or config.shaped:
        transport = Transport(*shared, run_id=config.run_id, run=run, places=places)
    else:
        modelled = network.of(config.conditions)
        transport = EmulatedTransport(*shared, run_id=config.run_id, run=run, places=places, network=modelled)
    transport.complain, transport.applies = _complain, newcomer
    transport.precision = PRECISIONS[config.run.wire]
    return transport


def _drive(
    config: NodeConfig, node: Node, transport: Transport, recorder: Recorder, links: LinkWatch, monitored: Monitoring,
    heard: Sequence[Input], early: list[Arrival], stop: _Stop,
) -> int:  # fmt: skip
    """Run the protocol to its end and journal the totals."""

    waiting = None
    if config.applications is not None:
        genesis = genesis_digest(config.run_id, config.run, config.members)
        waiting = Waiting(Path(config.applications), genesis.hex())

    def observe(output: Output) -> None:
        links.observe(output)
        recorder.observe(output)
        if waiting is not None and isinstance(output, Committed):
            driver.hear(_applied(waiting, node))

    driver = Driver(node, transport, observe, monitored.observe)
    recorder.attach(driver)
    monitored.attach(driver)
    driver.hear(heard)
    driver.receive(early)
    links.begin()
    ending = driver.run(stop)
    node.secure()  # what was heard last led to nothing, and helps whoever resumes a run that halted or was stopped
    links.end()
    disk = node.checkpointer.disk if node.checkpointer is not None else Disk(waits=False)
    recorder.waited(driver.longest_turn_s, driver.longest_gradient_s, disk.syncs, disk.sync_s)
    if node.adversary is not None:
        recorder.attacked(node.adversary.attacked)
    recorder.end()
    if isinstance(ending, Expelled):
        _complain(f"node {config.node} is out of the run at step {ending.step}: {ending.reason}")
    if config.stay and isinstance(ending, Finished):
        _complain(f"node {config.node} has finished, and stays until it is told to stop")
        driver.stay(stop)
    return _exit_code(ending, stop)


def _applied(waiting: Waiting, node: Node) -> Iterator[Applied]:
    """The applications that this node's owner has left since the last step; of those that let nobody in, one line."""
    peer = node.peer
    for name, found in waiting.look():
        if isinstance(found, str):
            _complain(found)
            continue
        shared = peer.shared
        reason = refused(found, shared.settings, peer.state.roster, peer.state.summary, shared.tools.verify)
        _complain(f"{name}: {REFUSALS[reason]}" if reason is not None else f"{name}: to be introduced")
        if reason is None:
            yield Applied(found)


def _exit_code(ending: Output | None, stop: _Stop) -> int:
    if ending is None:
        return stop.exit_code
    return 1 if isinstance(ending, Halted) else 0


def _record_failure(journal: Journal, error: Exception) -> None:
    """Put an error into the journal, unless the journal is what failed."""
    text = extensions.told(error)
    with contextlib.suppress(BackendError):
        journal.append("failed", error=text)


def _complain(text: str) -> None:
    """Say something on stderr; on a full disk the log takes nothing either, and there is nobody left to tell."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)  # noqa: T201


def _redirect(path: Path) -> None:
    """Send this process's output, C libraries' included, to its log file.

    Raises:
        BackendError: the file cannot be opened.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError as error:
        raise BackendError(f"cannot write the log {path}: {error.strerror}; check the run directory") from error
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
