"""Where a worker's CPU time goes by kind of work: the functions that do it are timed in place, in its own process."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from types import ModuleType
from typing import ParamSpec, TypeVar

from btard.node.crypto.signing import Signer
from btard.node.protocol.adjudication import judging
from btard.node.protocol.attempt import phases
from btard.node.protocol.attempt import round as rounds
from btard.node.protocol.attempt.attempt import Attempt
from btard.node.protocol.attempt.transfers import Transfers
from btard.node.protocol.router import Admission
from btard.node.protocol.state import transition
from btard.node.protocol.state.state import State
from btard.node.transport.transport import Transport

P = ParamSpec("P")
T = TypeVar("T")

KINDS: tuple[tuple[str, type | ModuleType, Callable[..., object]], ...] = (
    ("digests of own parts", Attempt, Attempt.commit),
    ("digests of what arrives", Transfers, Transfers.settle),
    ("aggregation", Attempt, Attempt.agg),
    ("direction z", Attempt, Attempt.fix_randomness),
    ("own checksums", Attempt, Attempt.checksums),
    ("others' checksums (V1)", Attempt, Attempt.checks),
    ("validation", phases, judging.suspicious),
    ("update", rounds, transition.next_state),
    ("digests of the new state", State, State.summarise),
    ("signing", Signer, Signer.sign),
    ("reading and verifying messages", Admission, Admission.admit),
    ("receiving", Transport, Transport.poll),
    ("sending tensors", Transport, Transport.send_bulk),
    ("sending messages", Transport, Transport.send_control),
)
"""Kinds of work, the function that does each, and where its callers find it."""

THREADS, REST = "ZeroMQ's threads", "the rest of the protocol"


class Kinds:
    """Times the functions of `KINDS`, each without what it calls of the others; one per process, for the process's
    whole life."""

    def __init__(self) -> None:
        self._spent = {kind: 0.0 for kind, _, _ in KINDS}
        self._timers = dict(self._spent)
        self._thread_s = self._total_s = self._within_s = 0.0
        for kind, owner, function in KINDS:
            setattr(owner, function.__name__, self._timed(kind, function))

    def resume(self) -> None:
        """Begin, or go on."""
        self._count(-1.0)

    def pause(self) -> None:
        """Stop counting."""
        self._count(1.0)

    def seconds(self) -> dict[str, float]:
        """CPU seconds by kind; with the rest they add up to the process's."""
        counted = dict(self._spent)
        counted[REST] = self._thread_s - sum(counted.values())
        counted[THREADS] = self._total_s - self._thread_s
        return counted

    def _count(self, sign: float) -> None:
        self._thread_s += sign * time.thread_time()
        self._total_s += sign * time.process_time()
        for kind, spent in self._timers.items():
            self._spent[kind] += sign * spent

    def _timed(self, kind: str, function: Callable[P, T]) -> Callable[P, T]:
        @functools.wraps(function)
        def timed(*args: P.args, **kwargs: P.kwargs) -> T:
            began, before_s = time.thread_time(), self._within_s
            self._within_s = 0.0
            try:
                return function(*args, **kwargs)
            finally:
                took_s = time.thread_time() - began
                self._timers[kind] += took_s - self._within_s
                self._within_s = before_s + took_s

        return timed
