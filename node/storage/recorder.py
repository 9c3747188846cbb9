"""Writes what a node does to its directory: the journal, the evidence of bans, the final parameters."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Protocol, TypeVar

from blake3 import blake3

from btard.node.config import CLOSE_STEPS, NodeConfig
from btard.node.errors import BackendError
from btard.node.protocol.adjudication.offences import standing
from btard.node.protocol.api import (
    Accused,
    Banned,
    Committed,
    Disputed,
    Entered,
    Expelled,
    Finished,
    Halted,
    Lapsed,
    Output,
    PhaseEntered,
    Probed,
    Resolved,
    Returned,
    Suspected,
    Undone,
    Voided,
)
from btard.node.protocol.state.state import parameters_digest
from btard.node.protocol.wire.encoding import tensor_bytes
from btard.node.protocol.wire.messages import Phase
from btard.node.storage.journal import Journal
from btard.node.training.task import Task, pieces
from btard.node.transport import descriptors
from btard.node.transport.counters import Counters

T = TypeVar("T")

_WAITING_BYTES = 1 << 29
"""What the parameters of evaluations that wait for a free moment may take; no fewer than one waits."""

_BULK_KINDS = ("part", "aggregate")
_RARE_KINDS = ("publication", "state")


class Sender(Protocol):
    """What counts a node's traffic: its transport."""

    @property
    def counters(self) -> Counters:
        """Totals so far."""


class Worker(Protocol):
    """What computes a node's gradients and refuses inputs: its driver."""

    @property
    def dropped(self) -> Counter[str]:
        """Refused inputs by reason."""

    @property
    def gradient_s(self) -> float:
        """Seconds spent on gradients so far."""

    @property
    def gradient_cpu_s(self) -> float:
        """CPU seconds spent on gradients so far."""

    @property
    def loss(self) -> float:
        """Of the last own gradient."""

    def beside(self, work: Callable[[], T], done: Callable[[T], None]) -> None:
        """Have something computed that nobody waits for."""


class NodeTotals:
    """What a recorder is told of a node in a process of many: the place of its transport and of its driver."""

    def __init__(self, counters: Counters | None = None) -> None:
        self.counters = counters if counters is not None else Counters()
        self.dropped: Counter[str] = Counter()
        self.gradient_s = self.gradient_cpu_s = 0.0
        self.loss = float("nan")

    def beside(self, work: Callable[[], T], done: Callable[[T], None]) -> None:
        """It has one thread for all: at once."""
        done(work())


class Recorder:
    """Journals one node's outputs.

    Args:
        config: where to write, and what to evaluate.
        journal: the node's journal.
        task: evaluates this node's slice of the test items, or all of them.
        transport: whose byte counters are journalled.
        clock: seconds, for durations.

    `evaluated` is told of each evaluation: (correct, count).
    """

    def __init__(
        self,
        config: NodeConfig,
        journal: Journal,
        task: Task,
        transport: Sender,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._directory = Path(config.directory)
        self._journal = journal
        self._task = task
        self._transport = transport
        self._clock = clock
        self.evaluated: Callable[[int, int], None] = _unheard
        self._evaluating = 0
        self._driver: Worker | None = None
        self._step_began = self._clock()
        self._phase_began = self._clock()
        self._phase = ""
        self._phases: dict[str, float] = {}

    def attach(self, driver: Worker) -> None:
        """The driver whose totals go into each step's line."""
        self._driver = driver

    def observe(self, output: Output) -> None:
        """Record one output."""
        match output:
            case PhaseEntered():
                self._enter(output.phase)
                if output.phase == Phase.JOIN.name:
                    self._journal.append("rejoining", step=output.step)
            case Committed():
                self._committed(output)
            case Banned():
                self._banned(output)
            case Accused():
                self._journal.append_once(
                    "accused",
                    step=output.step,
                    attempt=output.attempt,
                    kind=output.kind,
                    accused=output.accused,
                    part=output.part,
                    accuser=output.accuser,
                )
            case Undone():
                self._journal.append_once("undone", **asdict(output))
            case Voided():
                self._journal.append_once("voided", **asdict(output))
            case Suspected() | Disputed() | Resolved():
                self._journal.append(type(output).__name__.lower(), **asdict(output))
            case Probed():
                self._journal.append_once("probation", **asdict(output))
            case Entered() | Lapsed():
                self._journal.append_once(type(output).__name__.lower(), **asdict(output))
            case Returned():
                self._returned(output)
            case Expelled():
                self._journal.append("expelled", step=output.step, reason=output.reason)
            case Halted():
                self._journal.append(
                    "halted", step=output.step, phase=output.phase, peer=output.peer, problem=output.problem
                )
            case Finished():
                self._finished(output)
            case _:
                pass

    def totals(self) -> dict[str, int]:
        """Bytes sent so far by kind."""
        kinds = {"bulk_bytes": 0, "publication_bytes": 0, "control_bytes": 0}
        for (_, kind), sent in self._transport.counters.sent_bytes.copy().items():
            if kind in _BULK_KINDS:
                kinds["bulk_bytes"] += sent
            elif kind in _RARE_KINDS:
                kinds["publication_bytes"] += sent
            else:
                kinds["control_bytes"] += sent
        return kinds

    def attacked(self, steps: Sequence[int]) -> None:
        """The steps that this node's own attack struck, for the score; no other node can know them."""
        self._journal.append("attacked", steps=list(steps))

    def waited(self, longest_turn_s: float, longest_gradient_s: float, syncs: int, sync_s: float) -> None:
        """What messages have waited for here: the longest turn of the loop and the longest gradient, the disk's syncs
        and their time in all."""
        self._journal.append(
            "waited",
            longest_turn=round(longest_turn_s, 6),
            longest_gradient=round(longest_gradient_s, 6),
            syncs=syncs,
            sync_seconds=round(sync_s, 6),
        )

    def end(self) -> None:
        """The totals of everything that was sent, by receiver, and of everything that was refused."""
        sent: dict[str, dict[str, int]] = {}
        for (peer, kind), count in sorted(self._transport.counters.sent_bytes.copy().items()):
            sent.setdefault(str(peer), {})[kind] = count
        self._journal.append("traffic", sent=sent)
        reasons = dict(self._driver.dropped) if self._driver is not None else {}
        for reason, count in self._transport.counters.dropped.copy().items():
            reasons[reason] = reasons.get(reason, 0) + count
        for reason, count in sorted(reasons.items()):
            self._journal.append("dropped", reason=reason, count=count)

    def _enter(self, phase: str) -> None:
        now = self._clock()
        if self._phase:
            self._phases[self._phase] = self._phases.get(self._phase, 0.0) + now - self._phase_began
        self._phase, self._phase_began = phase, now

    def _committed(self, done: Committed) -> None:
        self._enter("")
        now = self._clock()
        driver = self._driver
        self._journal.append_once(
            "committed",
            step=done.step,
            attempt=done.attempt,
            contributors=list(done.contributors),
            active=list(done.active),
            validators={str(validator): target for validator, target in done.validators.items()},
            seconds=round(now - self._step_began, 6),
            phases={name: round(seconds, 6) for name, seconds in self._phases.items()},
            loss=driver.loss if driver is not None and self._config.node in done.contributors else None,
            parameter_digest=done.parameter_digest.hex(),
            state_digest=done.state_digest.hex(),
            clip_iterations=done.clip_iterations,
            gradient_seconds=round(driver.gradient_s, 6) if driver is not None else 0.0,
            gradient_cpu_seconds=round(driver.gradient_cpu_s, 6) if driver is not None else 0.0,
            cpu_seconds=round(time.process_time(), 6),
            **self.totals(),
        )
        self._evaluate(done)
        self._phases = {}
        # The evaluation is not part of the protocol's step.
        self._step_began = self._phase_began = self._clock()

    def _due(self, step: int) -> bool:
        run = self._config.run
        closely = any(first <= step <= last for first, last in self._config.closely)
        return step % run.eval_every == 0 or step >= run.steps or (closely and step % CLOSE_STEPS == 0)

    def _evaluate(self, done: Committed) -> None:
        if not self._due(done.step):
            return
        most = max(_WAITING_BYTES // done.parameters_D.nbytes, 1)
        if self._evaluating >= most and done.step < self._config.run.steps:
            self._journal.append("unevaluated", step=done.step)
            return
        place, count = done.active.index(self._config.node), len(done.active)
        if self._config.evaluate == "whole":
            place, count = 0, 1
        size = self._task.test_size
        start, stop = place * size // count, (place + 1) * size // count
        works = pieces(self._task, done.parameters_D, start, stop)
        found: list[int] = []

        def counted(correct: int) -> None:
            found.append(correct)
            if len(found) >= len(works):
                self._evaluating -= 1
                self._journal.append_once("evaluated", step=done.step, correct=sum(found), count=stop - start)
                self.evaluated(sum(found), stop - start)

        self._evaluating += 1
        if not works:
            counted(0)
        for work in works:
            if self._driver is None:
                counted(work())
            else:
                self._driver.beside(work, counted)

    def _banned(self, ban: Banned) -> None:
        name = f"ban-{ban.step}-{ban.attempt}-{ban.peer}.evidence"
        path = self._directory / "evidence" / name
        write_atomically(path, ban.evidence)
        self._journal.append_once(
            "banned",
            step=ban.step,
            attempt=ban.attempt,
            peer=ban.peer,
            reason=ban.reason,
            accuser=ban.accuser,
            removed=ban.removed,
            standing=standing(ban.reason),
            evidence=blake3(ban.evidence).hexdigest(),
            path=self._relative(path),
        )

    def _returned(self, back: Returned) -> None:
        path = self._directory / "evidence" / f"return-{back.step}-{back.peer}.certificate"
        write_atomically(path, back.evidence)
        self._journal.append_once(
            "returned", step=back.step, attempt=back.attempt, peer=back.peer,
            evidence=blake3(back.evidence).hexdigest(), path=self._relative(path),
        )  # fmt: skip

    def _finished(self, done: Finished) -> None:
        path = self._directory / "parameters.f32"
        write_atomically(path, tensor_bytes(done.parameters_D))
        write_atomically(self._directory / "certificate", done.certificate)
        digest = parameters_digest(done.parameters_D).hex()
        self._journal.append(
            "finished", step=done.step, parameter_digest=digest, path=self._relative(path), **self.totals()
        )

    def _relative(self, path: Path) -> str:
        return path.relative_to(self._directory.parent.parent).as_posix()


def _unheard(correct: int, count: int) -> None:
    """Tell nobody."""


def write_atomically(path: Path, data: bytes | memoryview) -> None:
    """Write a file so that a reader finds the whole of it or nothing.

    Raises:
        BackendError: the disk is full or the directory cannot be written.
    """
    temporary = path.with_suffix(path.suffix + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with descriptors.spared(lambda: temporary.open("wb")) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise BackendError(f"cannot write {path}: {error.strerror}; free the disk and run again") from error
