"""One process of a benchmark: an honest node over real sockets that waits between its steps for the baselines.

These are gloo's all-reduce, alone and with the update that follows it in training, and a mean butterfly over the same
kind of sockets. The node keeps what a worker keeps, a journal, checkpoints, a ledger and metrics, unless the step is to
be a bare one.
"""

from __future__ import annotations

import gc
import os
import resource
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import msgspec
import torch
import torch.distributed as dist
import zmq
from torch import Tensor

from btard.launcher.bench.kinds import Kinds
from btard.launcher.bench.vectors import POOL, Vectors
from btard.node.build import build_node, optimiser_of
from btard.node.config import Endpoint, NodeConfig, Secrets
from btard.node.drivers.realtime import Driver
from btard.node.metrics import monitoring
from btard.node.metrics.monitoring import Monitoring
from btard.node.protocol.api import Committed, Output, PhaseEntered
from btard.node.protocol.attempt.attempt import Split
from btard.node.protocol.settings import Optimiser
from btard.node.protocol.wire.precision import PRECISIONS
from btard.node.storage.checkpointer import Checkpointer
from btard.node.storage.journal import Journal
from btard.node.storage.recorder import Recorder
from btard.node.storage.recovery import recover
from btard.node.training.environment import fingerprint, pin
from btard.node.transport.arrivals import Arrival
from btard.node.transport.flow_control import Credits
from btard.node.transport.framing import Limits, bulk_payload
from btard.node.transport.transport import Transport

PATIENCE_S = 120.0


class Sample(msgspec.Struct, frozen=True):
    """One operation in one process: CPU seconds of all its threads, and when it began and ended (monotonic)."""

    cpu_s: float
    began_s: float
    ended_s: float


class Stopwatch:
    """Times operations between two barriers; waiting at them is not counted, what threads still do meanwhile is."""

    def __init__(self, barrier: Barrier) -> None:
        self._barrier = barrier
        self._cpu_s = self._began_s = 0.0

    def start(self) -> None:
        """All begin together."""
        self._barrier.wait(PATIENCE_S)
        self._cpu_s, self._began_s = time.process_time(), time.monotonic()

    def stop(self) -> Sample:
        """This process is done; returns when all are."""
        ended_s, thread_s = time.monotonic(), time.thread_time()
        self._barrier.wait(PATIENCE_S)
        waiting_s = time.thread_time() - thread_s
        return Sample(time.process_time() - self._cpu_s - waiting_s, self._began_s, ended_s)

    def time(self, operation: Callable[[], None]) -> Sample:
        """Start, run, stop."""
        self.start()
        operation()
        return self.stop()


PROTOCOL, GLOO, UPDATED, MEAN = "protocol", "gloo", "gloo and update", "mean"
BASELINES = (GLOO, UPDATED, MEAN)
WARM_UP = 6
"""Steps before the first measured one: the first has no validators, and allocators and connections settle."""
_LOOPBACK = "lo" if sys.platform == "linux" else "lo0"
_BUFFER_BYTES = 4 << 20
_PART, _MEAN = 0, 1


class Phases(msgspec.Struct):
    """CPU and wall seconds of this process by phase, over all measured steps."""

    cpu_s: dict[str, float]
    wall_s: dict[str, float]


class Found(msgspec.Struct):
    """What one process measured.

    Args:
        samples: by operation, one per pair.
        phases: over the measured steps.
        kinds: CPU seconds by kind of work over the measured steps.
        sent: bytes and messages by kind over the measured steps.
        contributors: of each measured step.
        iterations: CenteredClip's, of each measured step.
        faults: page faults of the whole process in the measured steps.
        writes: how often a ledger and a journal were written to in the measured steps, and all bytes written to files.
        syncs: its waits for a disk in the measured steps.
    """

    samples: dict[str, list[Sample]]
    phases: Phases
    kinds: dict[str, float]
    sent_bytes: dict[str, int]
    sent_messages: dict[str, int]
    contributors: list[tuple[int, ...]]
    iterations: list[int]
    faults: int = 0
    writes: tuple[int, int] = (0, 0)
    syncs: int = 0


class Gloo:
    """A process group over TCP on the loopback interface.

    Args:
        rank, count: this process's place and how many there are.
        store: a file that all share, not there yet.
    """

    def __init__(self, rank: int, count: int, store: Path) -> None:
        self.count = count
        os.environ["GLOO_SOCKET_IFNAME"] = _LOOPBACK
        dist.init_process_group(
            "gloo", f"file://{store}", timeout=timedelta(seconds=PATIENCE_S), world_size=count, rank=rank
        )

    def reduce(self, values_D: Tensor) -> None:
        """Sum over all processes, in place."""
        dist.all_reduce(values_D)

    def close(self) -> None:
        """Leave the group."""
        dist.destroy_process_group()


class Board:
    """Where processes tell each other their addresses: files in one directory, read once all have written.

    Args:
        directory: empty, shared by all.
        rank, count: this process's place and how many there are.
        barrier: of all processes.
    """

    def __init__(self, directory: Path, rank: int, count: int, barrier: Barrier) -> None:
        self._directory, self._rank, self._count, self._barrier = directory, rank, count, barrier

    def exchange(self, name: str, mine: str) -> list[str]:
        """What every process gave under `name`, by rank."""
        (self._directory / f"{name}-{self._rank}").write_text(mine, encoding="utf-8")
        self._barrier.wait(PATIENCE_S)
        return [(self._directory / f"{name}-{rank}").read_text(encoding="utf-8") for rank in range(self._count)]


class MeanButterfly:
    """Each process averages one part and hands it to all: the protocol's pattern without any protocol.

    Args:
        board: carries the addresses.
        rank, count: this process's place and how many there are.
        dimension: D.
    """

    def __init__(self, board: Board, rank: int, count: int, dimension: int) -> None:
        self._rank, self._count = rank, count
        self._split = Split(dimension, count)
        self._context = zmq.Context()
        self._in: Any = self._socket(zmq.PULL)
        self._in.bind("tcp://127.0.0.1:*")
        address = self._in.getsockopt(zmq.LAST_ENDPOINT).rstrip(b"\0").decode()
        self._lines: dict[int, Any] = {}
        for peer, endpoint in enumerate(board.exchange("mean", address)):
            if peer != rank:
                self._lines[peer] = self._socket(zmq.PUSH)
                self._lines[peer].connect(endpoint)

    def reduce(self, values_D: Tensor, result_D: Tensor) -> None:
        """Mean over all processes into `result_D`."""
        bounds = self._split.bounds
        for peer, line in self._lines.items():
            self._send(line, _PART, values_D[slice(*bounds[peer])])
        own = slice(*bounds[self._rank])
        total_P = values_D[own].clone()
        parts = means = 1
        while parts < self._count or means < self._count:
            head, payload = self._in.recv_multipart(copy=False)
            kind, peer = head.buffer[0], head.buffer[1]
            received_P = torch.frombuffer(payload.buffer, dtype=torch.float32)
            if kind == _MEAN:
                result_D[slice(*bounds[peer])] = received_P
                means += 1
                continue
            total_P += received_P
            parts += 1
            if parts == self._count:
                total_P /= self._count
                result_D[own] = total_P
                for line in self._lines.values():
                    self._send(line, _MEAN, total_P)

    def close(self) -> None:
        """Close all sockets."""
        self._context.destroy(linger=0)

    def _send(self, line: Any, kind: int, values_P: Tensor) -> None:
        line.send(bytes((kind, self._rank)), zmq.SNDMORE)
        line.send(bulk_payload(values_P), copy=False, track=False)

    def _socket(self, kind: int) -> Any:
        socket = self._context.socket(kind)
        socket.sndbuf = socket.rcvbuf = _BUFFER_BYTES
        return socket


class Bench:
    """Interleaves the steps of one node with the baselines.

    Args:
        rank: this process's place.
        pairs: measured steps.
        task: its vectors.
        transport: whose traffic is counted.
        baselines: gloo and the mean butterfly.
        optimiser: of the node, for the update after gloo's sum.
        stopwatch: shared by all processes.
        recorder: journals what the node says; None: nothing does.
        kept: so far, the writes to ledger and journal and the waits for the disk.
    """

    def __init__(
        self, rank: int, pairs: int, task: Vectors, transport: Transport, baselines: tuple[Gloo, MeanButterfly],
        optimiser: Optimiser, stopwatch: Stopwatch, recorder: Recorder | None, kept: Callable[[], tuple[int, int]],
    ) -> None:  # fmt: skip
        self._kept = kept
        self._transport, self._stopwatch, self._recorder = transport, stopwatch, recorder
        self._gloo, self._mean, self._optimiser = *baselines, optimiser
        self._state = torch.zeros(task.dimension), optimiser.initial_state(task.dimension)
        self._vector_D = task.pool[rank % POOL]
        self._work_D, self._result_D = torch.empty(task.dimension), torch.empty(task.dimension)
        self._pairs, self._step, self._running = pairs, -WARM_UP, False
        self._done: Committed | None = None
        self._kinds = Kinds()
        self._phase, self._mark = "", (0.0, 0.0)
        samples: dict[str, list[Sample]] = {name: [] for name in (PROTOCOL, *BASELINES)}
        self.found = Found(samples, Phases({}, {}), {}, {}, {}, [], [])

    def observe(self, output: Output) -> None:
        """Take the time at phases, and note that a step has ended."""
        if self._recorder is not None:
            self._recorder.observe(output)
        if isinstance(output, PhaseEntered):
            self._enter(output.phase)
        elif isinstance(output, Committed):
            self._enter("")
            self._done = output

    def between(self) -> bool:
        """After a turn of the driver, when all that it says has left: end one measurement and begin the next. Inside a
        turn the others would wait for our CLOSE, and we for them.

        Returns:
            False: the run goes on.
        """
        done, self._done = self._done, None
        if done is not None:
            self._end(done)
            self._step += 1
            self._baselines()
            self._begin()
        return False

    @property
    def _measured(self) -> bool:
        return 0 <= self._step < self._pairs

    def _begin(self) -> None:
        if self._step >= self._pairs:
            return
        if self._measured:
            self._count(-1)
        self._stopwatch.start()
        self._running = True
        if self._measured:
            self._kinds.resume()
            self._asked(-1)
        self._phase, self._mark = "COMMIT", (time.process_time(), time.monotonic())

    def _end(self, done: Committed) -> None:
        if not self._running:
            return
        self._running = False
        if self._measured:
            self._kinds.pause()
            self._asked(1)
        sample = self._stopwatch.stop()
        if self._measured:
            self._count(1)
            self.found.kinds = self._kinds.seconds()
            self.found.samples[PROTOCOL].append(sample)
            self.found.contributors.append(done.contributors)
            self.found.iterations.append(done.clip_iterations)

    def _baselines(self) -> None:
        """All of them, in alternating order."""
        if not -1 <= self._step <= self._pairs - 1:
            return
        operations = [(GLOO, self._reduce), (UPDATED, self._train), (MEAN, self._average)]
        for name, operation in operations if self._step % 2 else reversed(operations):
            self._work_D.copy_(self._vector_D)
            sample = self._stopwatch.time(operation)
            if self._step >= 0:
                self.found.samples[name].append(sample)

    def _reduce(self) -> None:
        self._gloo.reduce(self._work_D)

    def _train(self) -> None:
        self._gloo.reduce(self._work_D)
        self._work_D.div_(self._gloo.count)
        self._state = self._optimiser.apply(*self._state, [self._work_D], self._step + WARM_UP)

    def _average(self) -> None:
        self._mean.reduce(self._work_D, self._result_D)

    def _enter(self, phase: str) -> None:
        now = (time.process_time(), time.monotonic())
        if self._phase and self._measured and self._running:
            for total, since, until in zip(
                (self.found.phases.cpu_s, self.found.phases.wall_s), self._mark, now, strict=True
            ):
                total[self._phase] = total.get(self._phase, 0.0) + until - since
        self._phase, self._mark = phase, now

    def _asked(self, sign: int) -> None:
        """Count what the kernel did for this process."""
        self.found.faults += sign * resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        (calls, written), (writes, syncs) = self.found.writes, self._kept()
        self.found.writes = calls + sign * writes, written + sign * _written()
        self.found.syncs += sign * syncs

    def _count(self, sign: int) -> None:
        counters = self._transport.counters
        for totals, sent in (
            (self.found.sent_bytes, counters.sent_bytes),
            (self.found.sent_messages, counters.sent_messages),
        ):
            for (_, kind), number in sent.items():
                totals[kind] = totals.get(kind, 0) + sign * number


def _written() -> int:
    """Bytes that this process has written so far, without those to sockets; 0 where nobody counts them."""
    try:
        lines = Path("/proc/self/io").read_text().splitlines()
    except OSError:
        return 0
    counted = {name: int(value) for name, _, value in (line.partition(": ") for line in lines)}
    return counted["wchar"]


def work(
    config: NodeConfig, secrets: Secrets, dimension: int, pairs: int, directory: Path, barrier: Barrier,
    pipe: Connection,
) -> None:  # fmt: skip
    """What runs in a worker process: everything is measured, then sent through `pipe`."""
    try:
        pipe.send_bytes(msgspec.msgpack.encode(_measure(config, secrets, dimension, pairs, directory, barrier)))
    except BaseException:
        barrier.abort()
        raise


def _measure(
    config: NodeConfig, secrets: Secrets, dimension: int, pairs: int, directory: Path, barrier: Barrier
) -> Found:
    run, me = config.run, config.node
    pin(run.device)
    task = Vectors(dimension, run.peers, run.tau)
    board = Board(directory, me, run.peers, barrier)
    gloo, mean = Gloo(me, run.peers, directory / "store"), MeanButterfly(board, me, run.peers, dimension)
    transport = Transport(
        me, secrets, config.members, config.listen, run.encrypt_bulk, Limits.for_run(run.peers, dimension),
        Credits.for_run(run.peers, dimension, run.delivery_bound_s, run.minimum_rate), run_id=config.run_id,
    )  # fmt: skip
    transport.precision = PRECISIONS[run.wire]
    kept, monitored = ExitStack(), Monitoring()
    recorder: Recorder | None = None
    checkpointer: Checkpointer | None = None
    journal: Journal | None = None

    def counts() -> tuple[int, int]:
        if checkpointer is None or journal is None:
            return 0, 0
        return checkpointer.disk.writes + journal.writes, checkpointer.disk.syncs

    try:
        early = _meet(board, transport, run.peers)
        facts = fingerprint(run.device)
        if config.checkpoints:
            journal = kept.enter_context(Journal(Path(config.directory) / "journal.jsonl", me))
            recorder = Recorder(config, journal, task, transport)
            monitored = monitoring.start(config, transport, journal)
            kept.callback(monitored.end, lambda *_: None)
            recovery = recover(config, facts, journal, optimiser_of(run, dimension, task.layout))
            assert recovery is not None
            checkpointer = recovery.checkpointer
            kept.callback(checkpointer.close)
        node = build_node(config, secrets, task, facts, checkpointer=checkpointer)
        transport.accept_bulk = node.expects
        gc.freeze()  # as a worker does
        optimiser = optimiser_of(run, dimension, task.layout)
        bench = Bench(me, pairs, task, transport, (gloo, mean), optimiser, Stopwatch(barrier), recorder, counts)
        driver = Driver(node, transport, bench.observe, monitored.observe)
        if recorder is not None:
            recorder.attach(driver)
        monitored.attach(driver)
        driver.receive(early)
        driver.run(bench.between)
        return bench.found
    finally:
        kept.close()
        transport.close()
        mean.close()
        gloo.close()


def _meet(board: Board, transport: Transport, count: int) -> list[Arrival]:
    """Connect everybody with everybody; returns what came early."""
    addresses = board.exchange("address", ",".join(transport.bound.urls))
    transport.connect({peer: Endpoint(*urls.split(",")) for peer, urls in enumerate(addresses)})
    early: list[Arrival] = []
    end = time.monotonic() + PATIENCE_S
    while len(transport.greeted) < count - 1 and time.monotonic() < end:
        early += transport.poll(1.0)
    return early
