"""Where a worker's CPU time goes by kind of work, from a profile of its protocol thread."""

from __future__ import annotations

import cProfile
import pstats
import time
from collections.abc import Callable
from types import FunctionType
from typing import Any

from node import signing
from node.protocol import update
from node.protocol.attempt import Attempt
from node.protocol.cargo import Cargo
from node.protocol.state import State
from node.protocol.tribunal import suspicious
from node.transport import Transport

KINDS: tuple[tuple[str, Callable[..., Any]], ...] = (
    ("digests of own parts", Attempt.commit),
    ("digests of what arrives", Cargo.settle),
    ("aggregation", Attempt.agg),
    ("direction z", Attempt.fix_randomness),
    ("own checksums", Attempt.checksums),
    ("others' checksums (V1)", Attempt.checks),
    ("validation", suspicious),
    ("update", update.next_state),
    ("digests of the new state", State.summarise),
    ("signing", signing.Signer.sign),
    ("verifying signatures", signing.verify),
    ("receiving", Transport.poll),
    ("sending tensors", Transport.send_bulk),
    ("sending messages", Transport.send_control),
)
"""Kinds of work and the function that does each; none of them calls another."""

THREADS, REST = "ZeroMQ's threads", "the rest of the protocol"


class Profile:
    """Profiles the thread that drives the protocol, in CPU time."""

    def __init__(self) -> None:
        self._profile = cProfile.Profile(time.thread_time)
        self._thread_s = self._total_s = 0.0

    def resume(self) -> None:
        """Begin, or go on."""
        self._thread_s -= time.thread_time()
        self._total_s -= time.process_time()
        self._profile.enable()

    def pause(self) -> None:
        """Stop counting."""
        self._profile.disable()
        self._thread_s += time.thread_time()
        self._total_s += time.process_time()

    def seconds(self) -> dict[str, float]:
        """CPU seconds by kind; with the rest they add up to the process's."""
        rows: dict[tuple[str, int, str], Any] = pstats.Stats(self._profile).stats  # type: ignore[attr-defined]
        result = {}
        for kind, function in KINDS:
            assert isinstance(function, FunctionType)
            code = function.__code__
            row = rows.get((code.co_filename, code.co_firstlineno, code.co_name))
            result[kind] = row[3] if row is not None else 0.0
        result[REST] = self._thread_s - sum(result.values())
        result[THREADS] = self._total_s - self._thread_s
        return result
