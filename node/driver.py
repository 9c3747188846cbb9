"""The real driver: one blocking loop per process that performs a node's outputs and feeds it inputs.

It drains the sockets before it fires deadlines, so that a message that is already here is never called missing.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import assert_never

from node.arrivals import Arrival, BulkArrival
from node.build import Node
from node.envelope import seal, unseal
from node.errors import WireError
from node.protocol.events import (
    BulkArrived,
    CancelTimer,
    ComputeGradient,
    DeadlinePassed,
    Dropped,
    Effect,
    Endorse,
    Forward,
    GradientReady,
    Input,
    MessageArrived,
    Output,
    Purpose,
    RequestBulk,
    RequestTranscript,
    Say,
    SendBulk,
    SetTimer,
    Start,
    Teach,
    TimePassed,
)
from node.protocol.notices import Ending, Expelled, Finished, Halted, Notice, PhaseEntered
from node.transport import Transport

Observe = Callable[[Output], None]
"""Told of every notice before an effect is performed (the journal, the metrics), and of how it ends."""

_POLL_S = 60.0
"""Longest wait; what should end it sooner makes a descriptor readable that the transport watches."""

_LAST_LOOK_S = 0.05
"""How long to look for messages that are already here before something is called missing: after a long gradient, or
after the machine slept, ZeroMQ's threads may still be reading what the kernel holds."""

_LOOKS = 64
"""Most polls of a last look, so that a flood cannot put off a deadline for ever."""


class Driver:
    """Runs one node over one transport until it finishes, is expelled, halts or is told to stop.

    Args:
        node: the machine and its task.
        transport: connected to all peers.
        observe: see `Observe`.
        meter: told of every output, before it is performed; None without monitoring.
    """

    def __init__(self, node: Node, transport: Transport, observe: Observe, meter: Observe | None = None) -> None:
        self.node = node
        self.transport = transport
        self.ending: Ending | None = None
        self.dropped: Counter[str] = Counter()
        self.gradient_s = self.gradient_cpu_s = 0.0
        self.loss = float("nan")
        self.publication_bytes = 0
        self._observe = observe
        self._meter = meter
        self._inputs: deque[Input] = deque()
        self._gradients: deque[ComputeGradient] = deque()
        self._timers: dict[str, float] = {}

    def run(self, stopping: Callable[[], bool]) -> Ending | None:
        """Drive to the end.

        Args:
            stopping: asked before each wait; true ends the loop early.

        Returns:
            Finished, Expelled or Halted; None if it was told to stop.
        """
        self._feed(Start())
        while self.ending is None and not stopping():
            self.receive(self.transport.poll(self._wait_s()))
            self._feed_all()
            if self.ending is not None:
                break
            if self._gradients:
                # A gradient blocks the loop; what arrives meanwhile waits in ZeroMQ's queues.
                self._inputs.append(self._gradient(self._gradients.popleft()))
                self._feed_all()
            elif self._overdue():
                self._last_look()
                self._expire()
                self._feed_all()
        return self.ending

    def _wait_s(self) -> float:
        if self._inputs or self._gradients:
            return 0.0
        due = min(self._timers.values(), default=float("inf")) - time.monotonic()
        return min(max(due, 0.0), _POLL_S)

    def receive(self, arrivals: Iterable[Arrival]) -> None:
        """Queue what the transport delivered."""
        for arrival in arrivals:
            if isinstance(arrival, BulkArrival):
                self._inputs.append(BulkArrived(arrival.via, arrival.key, arrival.tensor))
                continue
            try:
                self._inputs.append(unseal(arrival.via, arrival.data))
            except WireError:
                self.dropped["malformed"] += 1

    def hear(self, inputs: Iterable[Input]) -> None:
        """Queue inputs from an earlier life."""
        self._inputs.extend(inputs)

    def _feed_all(self) -> None:
        while self._inputs and self.ending is None:
            self._feed(self._inputs.popleft())

    def _last_look(self) -> None:
        """Take in what is already here; it may cancel the timers that are due."""
        end = time.monotonic() + _LAST_LOOK_S
        for _ in range(_LOOKS):
            arrivals = self.transport.poll(max(0.0, end - time.monotonic()))
            self.receive(arrivals)
            self._feed_all()
            if self.ending is not None or (not arrivals and time.monotonic() >= end):
                return

    def _overdue(self) -> list[str]:
        now = time.monotonic()
        return [name for name, due in self._timers.items() if due <= now]

    def _expire(self) -> None:
        for name in self._overdue():
            del self._timers[name]
            self._inputs.append(DeadlinePassed(name))

    def _gradient(self, wanted: ComputeGradient) -> GradientReady:
        begun, cpu = time.perf_counter(), time.thread_time()
        ready = self.node.compute(wanted, self.node.task.gradient)
        self.gradient_s += time.perf_counter() - begun
        self.gradient_cpu_s += time.thread_time() - cpu
        if wanted.purpose is Purpose.OWN:
            self.loss = ready.loss
        return ready

    def _feed(self, event: Input) -> None:
        self.node.machine.handle(TimePassed(time.monotonic()))
        outputs = self.node.machine.handle(event)
        for output in outputs:
            if self._meter is not None:
                self._meter(output)
            if isinstance(output, Notice):
                self._note(output)
        self.node.keep()
        for output in outputs:
            if not isinstance(output, Notice):
                self._perform(output)

    def _note(self, output: Notice) -> None:
        if isinstance(output, PhaseEntered):
            self.transport.progress()
        self._observe(output)

    def _perform(self, output: Effect | Ending) -> None:
        match output:
            case Say():
                self._say(output)
            case SendBulk():
                self._send(output)
            case Forward(to=to, messages=messages):
                for signed in messages:
                    self._control(to, seal(signed))
            case Endorse(to=to, endorsed=endorsed):
                self._control(to, seal(self.node.endorse(endorsed)))
            case RequestBulk(to=peer, key=key):
                self._control((peer,), seal(key))
            case RequestTranscript(to=to):
                self._control(to, seal(output))
            case Teach(to=to, lesson=lesson):
                self._control(to, seal(lesson))
            case ComputeGradient():
                self._gradients.append(output)
            case SetTimer(name=name, after_s=after_s):
                self._timers[name] = time.monotonic() + after_s
            case CancelTimer(name=name):
                self._timers.pop(name, None)
            case Dropped(reason=reason):
                self.dropped[reason] += 1
            case Finished() | Expelled() | Halted():
                self._observe(output)
                self.ending = output
            case _:
                assert_never(output)

    def _say(self, say: Say) -> None:
        signed = self.node.sign(say.body)
        if self.node.id in say.to:
            self._inputs.append(MessageArrived(None, signed))
        self._control(say.to, seal(signed))

    def _control(self, to: tuple[int, ...], frame: bytes) -> None:
        for peer in to:
            if peer != self.node.id:
                self.transport.send_control(peer, frame)

    def _send(self, send: SendBulk) -> None:
        if send.to == self.node.id:
            self._inputs.append(BulkArrived(None, send.key, send.values_P))
        else:
            self.transport.send_bulk(send.to, send.key, send.values_P)
