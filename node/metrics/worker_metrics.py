"""Feeds a worker's metrics: from the outputs of its protocol machine as they happen, from the transport's counters
when somebody asks. Only a worker with monitoring on imports this module."""

from __future__ import annotations

import importlib.metadata
import platform
import time
from collections import Counter
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, ProcessCollector

from btard.node.config import NodeConfig
from btard.node.drivers.realtime import Driver
from btard.node.metrics import declarations
from btard.node.metrics.collectors import Collectors
from btard.node.metrics.declarations import Group
from btard.node.metrics.registry import MetricRegistry
from btard.node.protocol.adjudication.charges import KINDS
from btard.node.protocol.adjudication.offences import OFFENCES, standing
from btard.node.protocol.api import (
    Accused,
    Banned,
    Committed,
    ComputeGradient,
    Dropped,
    Output,
    PhaseEntered,
    Purpose,
    Resolved,
    Returned,
    Say,
    Undone,
    Voided,
)
from btard.node.protocol.wire.messages import Phase, Report
from btard.node.training.schedules import learning_rate
from btard.node.transport.transport import Transport

JOINING, ACTIVE, ACCUSED, BANNED, GONE = range(5)
_LATE = {"late": "control", "late_view": "view"}
_DUPLICATE = {"duplicate": "control"}


class MetricsRecorder:
    """One worker's metrics.

    Args:
        config: of the node.
        transport: whose counters are read at each scrape.
    """

    def __init__(self, config: NodeConfig, transport: Transport) -> None:
        run = config.run
        self.registry = CollectorRegistry()
        self.board = MetricRegistry(
            self.registry, declarations.of(Group.TRAINING, Group.PROTOCOL, Group.INFO), run.capacity
        )
        self._config = config
        self._rate = learning_rate(run)
        self._states = {member.id: JOINING for member in config.members}
        self._charges: list[Accused] = []
        self._phase: str | None = None
        self._phase_began = self._step_began = time.perf_counter()
        self._tossed = False
        self._driver: Driver | None = None
        self._start()
        ProcessCollector(registry=self.registry)
        self._refused: Counter[tuple[str, str]] = Counter()
        others = (peer for peer in range(run.capacity) if peer != config.node)
        self.registry.register(Collectors(transport, self._refused, others, run.device))

    def attach(self, driver: Driver) -> None:
        """The driver that computes our gradients."""
        self._driver = driver

    def observe(self, output: Output) -> None:
        """Count one output of the machine, before it is performed."""
        match output:
            case PhaseEntered():
                self._enter(output)
            case Say(body=Report() as report):
                self._reported(report)
            case ComputeGradient(purpose=Purpose.OWN):
                self.board.counter("samples_total").inc(self._config.run.batch_size)
            case Dropped():
                self._dropped(output)
            case Accused(kind="history"):
                pass  # of a peer that is out already; what came of it is an Undone
            case Accused(accused=accused):
                self._charges.append(output)
                if accused is not None and self._states.get(accused) == ACTIVE:
                    self._mark(accused, ACCUSED)
            case Banned():
                self._banned(output)
            case Resolved():
                self.board.counter("disputes_total", outcome=output.outcome).inc()
                self._removed(output.removals)
            case Voided():
                self._removed(output.removals)
                self._close_attempt()
            case Committed():
                self._committed(output)
            case Returned(peer=peer):
                self._mark(peer, JOINING)  # the next step's COMMIT makes it active
            case Undone(lost=lost):
                self.board.counter("steps_undone_total").inc(lost)
            case _:
                pass

    def evaluated(self, correct: int, count: int) -> None:
        """The node classified `correct` of its `count` test items."""
        self.board.gauge("eval_accuracy_ratio").set(correct / max(count, 1))

    def _start(self) -> None:
        """Series that exist before their first event: a rate over them must see the step from 0 to 1."""
        run, board = self._config.run, self.board
        for offence in OFFENCES.values():
            if offence.standing == "banned":
                board.counter("bans_total", reason=offence.reason)
        for kind in KINDS:
            for verdict in ("guilty", "cleared"):
                board.counter("accusations_total", kind=kind, verdict=verdict)
        for name, label, values in (
            ("verifications_total", "result", ("correct", "false")),
            ("mprng_rounds_total", "result", ("ok", "void")),
            ("disputes_total", "outcome", ("commit", "retry")),
            ("late_messages_total", "kind", tuple(_LATE.values())),
            ("duplicate_messages_total", "kind", tuple(_DUPLICATE.values())),
        ):
            for each in values:
                board.counter(name, **{label: each})
        board.counter("steps_undone_total")
        board.gauge("step").set(-1)
        board.gauge("active_peers").set(run.peers)
        for peer in self._states:
            self._mark(peer, JOINING)
        board.gauge("build_info", version=_version("btard"), python=platform.python_version(),
                    torch=_version("torch")).set(1)  # fmt: skip
        board.gauge("run_info", task=run.task.name, rule=run.rule.name, peers=str(run.peers), steps=str(run.steps),
                    on_ban=run.on_ban).set(1)  # fmt: skip

    def _enter(self, entered: PhaseEntered) -> None:
        now = time.perf_counter()
        self._leave(now)
        self._phase, self._phase_began = entered.phase, now
        if entered.phase == Phase.COMMIT.name:
            self._tossed = False
            if entered.attempt == 0:
                self._step_began = now
            for peer in [peer for peer, state in self._states.items() if state == JOINING]:
                self._mark(peer, ACTIVE)
        elif entered.phase == Phase.CHECKSUMS.name:
            self._tossed = True  # all have revealed: the randomness is fixed
            self.board.counter("mprng_rounds_total", result="ok").inc()

    def _leave(self, now: float) -> None:
        if self._phase is not None:
            self.board.histogram("phase_duration_seconds", phase=self._phase).observe(now - self._phase_began)
            self._phase = None

    def _reported(self, report: Report) -> None:
        for verdict in report.verdicts:
            result = "correct" if verdict.correct else "false"
            self.board.counter("verifications_total", result=result).inc()
        false = sum(not check for check in report.checks)
        if false:
            self.board.counter("checksum_mismatches_total").inc(false)

    def _dropped(self, refused: Dropped) -> None:
        reason = refused.reason
        if reason in _LATE:
            self.board.counter("late_messages_total", kind=_LATE[reason]).inc()
        elif reason in _DUPLICATE:
            self.board.counter("duplicate_messages_total", kind=_DUPLICATE[reason]).inc()
        else:
            self._refused[str(self._config.node if refused.via is None else refused.via), reason] += 1

    def _banned(self, ban: Banned) -> None:
        """A certified verdict: charges against the peer were true."""
        proven = standing(ban.reason) == "banned"
        if proven:
            self.board.counter("bans_total", reason=ban.reason).inc()
        self._mark(ban.peer, BANNED if proven else GONE)
        for charge in [charge for charge in self._charges if charge.accused == ban.peer]:
            self._charges.remove(charge)
            self.board.counter("accusations_total", kind=_kind(charge), verdict="guilty").inc()

    def _close_attempt(self) -> None:
        """The attempt is over: who was accused and not banned is cleared."""
        for charge in self._charges:
            self.board.counter("accusations_total", kind=_kind(charge), verdict="cleared").inc()
            if charge.accused is not None and self._states.get(charge.accused) == ACCUSED:
                self._mark(charge.accused, ACTIVE)
        self._charges.clear()
        if not self._tossed:
            self.board.counter("mprng_rounds_total", result="void").inc()

    def _committed(self, done: Committed) -> None:
        now = time.perf_counter()
        self._leave(now)
        self._close_attempt()
        board, me = self.board, self._config.node
        board.histogram("step_duration_seconds").observe(now - self._step_began)
        board.gauge("step").set(done.step)
        board.gauge("active_peers").set(len(done.active))
        board.gauge("learning_rate").set(self._rate(done.step))
        board.gauge("validator").set(me in done.validators)
        board.gauge("centered_clip_iterations").set(done.clip_iterations)
        if self._driver is not None and me in done.contributors:
            board.gauge("train_loss").set(self._driver.loss)

    def _removed(self, peers: Iterable[int]) -> None:
        for peer in peers:
            if self._states.get(peer) != BANNED:
                self._mark(peer, GONE)

    def _mark(self, peer: int, state: int) -> None:
        self._states[peer] = state
        if self._config.run.capacity <= declarations.PEER_LABEL_LIMIT:
            self.board.gauge("peer_state", peer=str(peer)).set(state)


def _kind(charge: Accused) -> str:
    """What a charge is about, without its details."""
    return charge.kind.partition(":")[0]


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "source"
