"""The real driver: one blocking loop per process that performs a node's outputs and feeds it inputs.

It drains the sockets before it fires deadlines, so that a message that is already here is never called missing.
Gradients are computed in a thread of their own (node/drivers/computing.py). What a turn of the loop has to send leaves
at the end of the turn, once the node's memory has on disk what it rests on: one wait for the disk for all of it.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar, assert_never

from btard.node.build import Node, newcomers_of
from btard.node.drivers.computing import Computing
from btard.node.errors import WireError
from btard.node.protocol.api import (
    BulkArrived,
    CancelTimer,
    ComputeGradient,
    DeadlinePassed,
    Dropped,
    Effect,
    Ending,
    Endorse,
    Expelled,
    Finished,
    Forward,
    GradientReady,
    Halted,
    Input,
    MessageArrived,
    Notice,
    Output,
    PhaseEntered,
    Purpose,
    RequestBulk,
    RequestTranscript,
    Say,
    SendBulk,
    SendSnapshot,
    SetTimer,
    Start,
    TimePassed,
)
from btard.node.transport.arrivals import Arrival, BulkArrival
from btard.node.transport.envelope import seal, unseal
from btard.node.transport.transport import Transport

T = TypeVar("T")

Observe = Callable[[Output], None]
"""Told of every notice before an effect is performed (the journal, the metrics), and of how it ends."""

_POLL_S = 60.0
"""Longest wait; what should end it sooner makes a descriptor readable that the transport watches."""

_LAST_LOOK_S = 0.05
"""How long to look for messages that are already here before something is called missing: after a long turn, or after
the machine slept, ZeroMQ's threads may still be reading what the kernel holds."""

_STOPPED_S = 1.0
"""A process that did nothing for longer, and longer than D, was stopped. No wait is longer, so that it is seen."""

_LOOKS = 64
"""Most polls of a last look, so that a flood cannot put off a deadline for ever."""


class Driver:
    """Runs one node over one transport until it finishes, is expelled, halts or is told to stop.

    Args:
        node: the machine and its task.
        transport: connected to all peers.
        observe: see `Observe`.
        meter: told of every output, before it is performed; None without monitoring.
        computing: starts what computes gradients.
        clock: seconds, monotonic.
    """

    def __init__(
        self, node: Node, transport: Transport, observe: Observe, meter: Observe | None = None, *,
        computing: Callable[[], Computing] = Computing, clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self.node = node
        self.transport = transport
        self.ending: Ending | None = None
        self.dropped: Counter[str] = Counter()
        self.gradient_s = self.gradient_cpu_s = 0.0
        self.loss = float("nan")
        self.longest_turn_s = 0.0
        """The longest time that what arrived has waited for the loop: part of D, like the network's delay."""
        self.longest_gradient_s = 0.0
        """The longest time that a gradient took, once those before it were there."""
        self._wished: deque[float] = deque()
        self._had_s = 0.0
        self._observe = observe
        self._meter = meter
        self._inputs: deque[Input] = deque()
        self._timers: dict[str, float] = {}
        self._leaving: list[Callable[[], None]] = []
        self._named: object = ()
        self._rests = False
        """Something that is to leave rests on what the node's memory has been told."""
        self._start_computing, self._clock = computing, clock
        self._pause_s = max(_STOPPED_S, node.peer.shared.settings.delivery_bound_s)
        self._looked_s, self._looked_cpu_s, self._stopped_s = clock(), 0.0, 0.0
        self._told_s = 0.0
        self._computing: Computing | None = None

    def run(self, stopping: Callable[[], bool]) -> Ending | None:
        """Drive to the end.

        Args:
            stopping: asked before each wait; true ends the loop early.

        Returns:
            Finished, Expelled or Halted; None if it was told to stop.
        """
        self._computing = computing = self._start_computing()
        self.transport.watch(computing.descriptor)
        self._notice_stop(float("inf"))
        try:
            self._inputs.appendleft(Start())
            self._turn()
            while self.ending is None and not stopping():
                waiting_s = self._wait_s()
                arrivals = self.transport.poll(waiting_s)
                self._notice_stop(waiting_s)
                self.receive(arrivals)
                computing.collect()
                self._turn()
                self._notice_stop(0.0)
                if self._overdue():
                    self._last_look()
                    self._expire()
                    self._turn()
            while isinstance(self.ending, Finished) and computing.spare and not stopping():
                self.transport.poll(_POLL_S)
                computing.collect()
        finally:
            self._computing = None
            self.transport.unwatch(computing.descriptor)
            computing.close()
        return self.ending

    def stay(self, stopping: Callable[[], bool]) -> None:
        """After the end, answer whoever missed it, until told to stop; a peer that `stays` answers."""
        while not stopping():
            self.receive(self.transport.poll(_POLL_S))
            self._turn(after_the_end=True)

    def beside(self, work: Callable[[], T], done: Callable[[T], None]) -> None:
        """Have something computed beside the loop that nobody waits for.

        Args:
            work: called in another thread.
            done: called with its result between two turns of the loop.
        """
        if self._computing is None:
            done(work())
        else:
            self._computing.submit(work, done, spare=True)

    def _wait_s(self) -> float:
        if self._inputs:
            return 0.0
        due = min(self._timers.values(), default=float("inf")) - self._awake_s()
        return min(max(due, 0.0), self._pause_s)

    def _awake_s(self) -> float:
        """The time by which deadlines go. While this process is stopped nobody keeps it waiting: the others may have
        been stopped as well (a laptop asleep, containers that are paused), and go on a moment later."""
        return self._clock() - self._stopped_s

    def _notice_stop(self, waiting_s: float) -> None:
        """Take out of the time what has passed since the last call, if it is long, but for a wait and what was done."""
        now_s, cpu_s = self._clock(), time.thread_time()
        lost_s = now_s - self._looked_s - (cpu_s - self._looked_cpu_s) - waiting_s
        if lost_s > self._pause_s:
            self._stopped_s += lost_s
        self._looked_s, self._looked_cpu_s = now_s, cpu_s

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

    def _turn(self, *, after_the_end: bool = False) -> None:
        """Handle all that is here, then send what that led to."""
        began_s = self._clock()
        while self._inputs and (after_the_end or self.ending is None):
            self._feed(self._inputs.popleft())
        self._follow()
        if self._rests:
            self.node.secure()
            self._rests = False
        leaving, self._leaving = self._leaving, []
        for send in leaving:
            send()
        self.longest_turn_s = max(self.longest_turn_s, self._clock() - began_s)

    def _follow(self) -> None:
        """Have lines to the newcomers that the agreed state names, before anything is sent to them."""
        named = self.node.peer.state.summary.admissions
        if named is not self._named:
            self._named = named
            self.transport.follow(newcomers_of(self.node.peer.state.summary))

    def _last_look(self) -> None:
        """Take in what is already here; it may cancel the timers that are due."""
        end = self._clock() + _LAST_LOOK_S
        for _ in range(_LOOKS):
            arrivals = self.transport.poll(max(0.0, end - self._clock()))
            self.receive(arrivals)
            self._turn()
            if self.ending is not None or (not arrivals and self._clock() >= end):
                return

    def _overdue(self) -> list[str]:
        if self.ending is not None:
            return []
        now = self._awake_s()
        return [name for name, due in self._timers.items() if due <= now]

    def _expire(self) -> None:
        for name in self._overdue():
            del self._timers[name]
            self._inputs.append(DeadlinePassed(name))

    def _compute(self, wanted: ComputeGradient) -> None:
        assert self._computing is not None
        self._wished.append(self._awake_s())
        self._computing.submit(partial(_timed, self.node.computation(wanted)), self._computed)

    def _computed(self, computed: _Computed) -> None:
        self._waited()
        self._wished.popleft()
        self._had_s = self._awake_s()
        self.gradient_s += computed.seconds
        self.gradient_cpu_s += computed.cpu_s
        if computed.ready.purpose is Purpose.OWN:
            self.loss = computed.ready.loss
        self._inputs.append(computed.ready)

    def _waited(self) -> None:
        """Note how long the gradient that comes next has taken by now."""
        since_s = max(self._wished[0], self._had_s)
        self.longest_gradient_s = max(self.longest_gradient_s, self._awake_s() - since_s)

    def _explained(self, halted: Halted) -> Halted:
        """With what this node knows and the protocol does not: that all may be late because gradients are."""
        bound_s = self.node.peer.shared.settings.gradient_bound_s
        if self._wished:
            self._waited()
        if self.longest_gradient_s <= bound_s:
            return halted
        cause = f"a gradient took {self.longest_gradient_s:.1f} s here, and --gradient-bound is {bound_s:g} s"
        return replace(halted, problem=f"{halted.problem}; {cause}: raise it, or compute less")

    def _feed(self, event: Input) -> None:
        self._told_s = max(self._told_s, self._awake_s())  # a stop in the midst of a turn is noticed at its end
        self.node.machine.handle(TimePassed(self._told_s))
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
                self._control((peer,), seal(key), rests=False)
            case RequestTranscript(to=to):
                self._control(to, seal(output), rests=False)
            case SendSnapshot(to=to, snapshot=snapshot):
                self._control(to, seal(snapshot))
            case ComputeGradient():
                self._compute(output)
            case SetTimer(name=name, after_s=after_s):
                self._timers[name] = self._awake_s() + after_s
            case CancelTimer(name=name):
                self._timers.pop(name, None)
            case Dropped(reason=reason):
                self.dropped[reason] += 1
            case Finished() | Expelled() | Halted():
                self.ending = self._explained(output) if isinstance(output, Halted) else output
                self._observe(self.ending)
            case _:
                assert_never(output)

    def _say(self, say: Say) -> None:
        signed = self.node.sign(say.body)
        if self.node.id in say.to:
            self._inputs.append(MessageArrived(None, signed))
        self._control(say.to, seal(signed))

    def _control(self, to: tuple[int, ...], frame: bytes, rests: bool = True) -> None:
        """Send at the end of the turn; questions and tensors rest on nothing but what has left before."""
        for peer in to:
            if peer != self.node.id:
                self._leaving.append(partial(self.transport.send_control, peer, frame))
                self._rests |= rests

    def _send(self, send: SendBulk) -> None:
        if send.to == self.node.id:
            self._inputs.append(BulkArrived(None, send.key, send.values_P))
        else:
            self._leaving.append(partial(self.transport.send_bulk, send.to, send.key, send.values_P))


@dataclass(frozen=True, slots=True)
class _Computed:
    """A gradient, and what it cost."""

    ready: GradientReady
    seconds: float
    cpu_s: float


def _timed(work: Callable[[], GradientReady]) -> _Computed:
    began, cpu = time.perf_counter(), time.thread_time()
    ready = work()
    return _Computed(ready, time.perf_counter() - began, time.thread_time() - cpu)
