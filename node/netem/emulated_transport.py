"""The transport of a node whose links are made worse: what is sent waits here, as long as the model says.

It needs no privileges: messages are held between the driver and ZeroMQ. A thread of its own lets them go, since the
driver's is busy while it handles others. One lock covers whatever sends and whatever opens or closes a line: a
ZeroMQ socket may be used by one thread at a time. If that thread fails, the driver is told, and the worker ends.
"""

from __future__ import annotations

import heapq
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from btard.node.config import Endpoint, Member, Secrets
from btard.node.errors import TransportError
from btard.node.netem.links import Passage
from btard.node.netem.network import Network
from btard.node.transport.arrivals import Arrival
from btard.node.transport.flow_control import Credits
from btard.node.transport.framing import Greeting, Limits
from btard.node.transport.transport import Transport


@dataclass(order=True, slots=True)
class _Waiting:
    """A message on its way: when it is due, and how to send it."""

    due_s: float
    number: int
    to: int = field(compare=False)
    size_bytes: int = field(compare=False)
    passage: Passage = field(compare=False)
    send: Callable[[], None] = field(compare=False)


@dataclass(frozen=True, slots=True)
class _Held:
    """A message that waits for its link to be whole again."""

    to: int
    size_bytes: int
    send: Callable[[], None]


class EmulatedTransport(Transport):
    """A transport whose messages cross a modelled network first.

    Args:
        network: the model and its conditions.
        clock: seconds, monotonic.

    The other arguments are `Transport`'s. Raises what it raises; `poll` and whatever sends raise TransportError once
    the links have failed.
    """

    def __init__(
        self,
        me: int,
        secrets: Secrets,
        members: Sequence[Member],
        listen: Endpoint,
        encrypt_bulk: bool = False,
        limits: Limits | None = None,
        credits: Credits | None = None,
        *,
        run_id: str,
        run: bytes = b"",
        places: int = 0,
        network: Network,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        named = (me, secrets, members, listen, encrypt_bulk, limits, credits)
        super().__init__(*named, run_id=run_id, run=run, places=places)
        self.network = network
        self._clock = clock
        self._origin_s: float | None = None
        self._step = -1
        self._number = 0
        self._waiting: list[_Waiting] = []
        self._held: list[_Held] = []
        self._counts: Counter[int] = Counter()
        self._changed = threading.Condition(threading.RLock())
        self._ends_s: float | None = None
        self._failure: Exception | None = None
        self._failed, self._fail = os.pipe()  # wakes a driver that waits in `poll`
        self.watch(self._failed)
        self._thread = threading.Thread(target=self._work, name="links", daemon=True)
        self._thread.start()

    # --- the run's time -----------------------------------------------------------------------------------------

    def begin(self, elapsed_s: float = 0.0) -> None:
        """The conditions' clock starts now, or started `elapsed_s` ago (a node that was started again)."""
        with self._changed:
            self._origin_s = self._clock() - elapsed_s
            self._changed.notify()

    def at_step(self, step: int) -> None:
        """The node enters a step: conditions may name it."""
        with self._changed:
            if step != self._step:
                self._step = step
                self._changed.notify()

    @property
    def now_s(self) -> float:
        """Seconds since the conditions' clock started; negative before: no window holds while peers still greet."""
        return -1.0 if self._origin_s is None else self._clock() - self._origin_s

    # --- Transport ----------------------------------------------------------------------------------------------

    def connect(self, addresses: Mapping[int, Endpoint], moves: int = 0) -> None:
        """As `Transport.connect`."""
        with self._changed:
            super().connect(addresses, moves)

    def follow(self, newcomers: Mapping[int, tuple[Member, Endpoint]]) -> None:
        """As `Transport.follow`; what is under way to one that is none any more is lost."""
        with self._changed:
            super().follow(newcomers)
            self._waiting = [each for each in self._waiting if self._control.has_line(each.to)]
            heapq.heapify(self._waiting)
            self._held = [each for each in self._held if self._control.has_line(each.to)]

    def close(self, linger_s: float | None = None) -> None:
        """As `Transport.close`; what is on its way may still leave within the same time."""
        if self._context.closed:
            return
        if self._thread.is_alive():
            with self._changed:
                self._ends_s = self._clock() + (self.limits.linger_s if linger_s is None else linger_s)
                self._changed.notify()
            self._thread.join()
        super().close(linger_s)
        os.close(self._failed)
        os.close(self._fail)

    def poll(self, timeout_s: float) -> list[Arrival]:
        """As `Transport.poll`.

        Raises:
            TransportError: the thread that lets messages go has failed.
        """
        arrivals = super().poll(timeout_s)
        self._check()
        return arrivals

    def _take_answers(self) -> None:
        with self._changed:
            super()._take_answers()

    def _take_greeting(self, via: int, greeting: Greeting) -> None:
        with self._changed:  # a new process behind a key: its lines are closed and opened anew
            super()._take_greeting(via, greeting)

    def _send_frame(self, to: int, kind: str, frame: bytes) -> None:
        self._post(to, len(frame), partial(super()._send_frame, to, kind, frame))

    def _send_tensor(self, to: int, kind: str, header: bytes, payload: memoryview) -> None:
        size = len(header) + len(payload)
        self._post(to, size, partial(super()._send_tensor, to, kind, header, payload))

    # --- the way ------------------------------------------------------------------------------------------------

    def _post(self, to: int, size_bytes: int, send: Callable[[], None]) -> None:
        with self._changed:
            self._check()
            if self._counts[to] >= self.limits.control_queue:
                self.counters.dropped["emulated_queue_full"] += 1
                return
            if self.network.link(self.me, to, self.now_s, self._step) is None:
                self.network.tally((self.me, to)).held += 1
            self._cross(_Held(to, size_bytes, send))

    def _cross(self, message: _Held) -> None:
        """Put a message on its way, or keep it while the link is cut; the lock is held."""
        passages = self.network.send(self.me, message.to, message.size_bytes, self.now_s, self._step)
        if passages is None:
            self._held.append(message)
            self._counts[message.to] += 1
            self._changed.notify()
            return
        now_s = self._clock()
        for passage in passages:
            if passage.total_s <= 0:
                self.network.tally((self.me, message.to)).arrived(passage, message.size_bytes, 0.0)
                message.send()
                continue
            self._number += 1
            due_s = now_s + passage.total_s
            waiting = _Waiting(due_s, self._number, message.to, message.size_bytes, passage, message.send)
            heapq.heappush(self._waiting, waiting)
            self._counts[message.to] += 1
            if self._waiting[0] is waiting:
                self._changed.notify()

    def _check(self) -> None:
        if self._failure is not None:
            raise TransportError(
                f"the emulated links failed ({type(self._failure).__name__}: {self._failure}) and let nothing go any "
                "more; resume the run, and report this if it happens again"
            ) from self._failure

    def _work(self) -> None:
        """The thread: without it the node would fall silent, so its failure is the driver's."""
        try:
            self._serve()
        except Exception as error:
            self._failure = error
            os.write(self._fail, b"!")

    def _serve(self) -> None:
        with self._changed:
            while True:
                self._release_due()
                now_s = self._clock()
                if self._ends_s is not None and (not self._waiting or now_s >= self._ends_s):
                    self.counters.dropped.update(
                        {"emulated_unsent": left} if (left := len(self._waiting) + len(self._held)) else {}
                    )
                    return
                self._changed.wait(self._wait_s(now_s))
                self._try_held()

    def _release_due(self) -> None:
        while self._waiting and self._waiting[0].due_s <= (now_s := self._clock()):
            message = heapq.heappop(self._waiting)
            self._counts[message.to] -= 1
            tally = self.network.tally((self.me, message.to))
            tally.arrived(message.passage, message.size_bytes, now_s - message.due_s)
            message.send()

    def _try_held(self) -> None:
        if not self._held:
            return
        held, self._held = self._held, []
        for message in held:
            self._counts[message.to] -= 1
            self._cross(message)

    def _wait_s(self, now_s: float) -> float | None:
        """Until something is due, a window opens or closes, or we must end; None: until somebody sends."""
        due_s = self._waiting[0].due_s if self._waiting else float("inf")
        if self._held and self._origin_s is not None:
            due_s = min(due_s, self._origin_s + self.network.next_edge_s(self.now_s))
        if self._ends_s is not None:
            due_s = min(due_s, self._ends_s)
        return max(0.0, due_s - now_s) if due_s < float("inf") else None
