"""`--monitor`: an observer that serves the truth of the run it follows, on behalf of another that people see, and one
that has a Prometheus of its own, tells it whom to scrape, and ends it with the run."""

from __future__ import annotations

import select
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from btard.launcher.monitor.ground_truth import GroundTruth
from btard.launcher.monitor.prometheus import Prometheus
from btard.launcher.monitor.state import Record, RunState
from btard.launcher.run.observer import Observer
from btard.launcher.run.observer import Observer
from btard.launcher.run.plan import Plan
from btard.launcher.run.run_directory import read_record
from btard.launcher.run.summary import Summary
from btard.node.errors import BackendError
from btard.node.metrics.http import MetricsEndpoint
from btard.node.metrics.monitoring import LINGER_S

FOLDER = "monitoring"
LAUNCHER = "launcher"
"""The label `node` of the truth."""
_LAST_SCRAPES = 2
"""How often the score must have been scraped: one sample alone falls between the points at which a graph asks."""


class Exporter:
    """Serves the truth from the run's beginning until its score was scraped, 15 s at most.

    Args:
        inner: told of everything, first.
        address: HOST:PORT to serve on; port 0 lets the system choose.
    """

    def __init__(self, inner: Observer, address: str) -> None:
        self.inner = inner
        self.truth: GroundTruth | None = None
        self.exposition: MetricsEndpoint | None = None
        self._address = address

    def note(self, line: str) -> None:
        """Pass the line on."""
        self.inner.note(line)

    def began(self, plan: Plan, run_dir: Path, state: RunState) -> None:
        """Begin to serve.

        Raises:
            ConfigError: the address is not HOST:PORT.
            BackendError: it cannot be bound.
        """
        self.inner.began(plan, run_dir, state)
        self.truth = GroundTruth(plan.roles, state, plan.dimension)
        self.exposition = self.truth.serve(self._address)

    def saw(self, records: Sequence[Record]) -> None:
        """Bring the metrics up to date."""
        self.inner.saw(records)
        if self.truth is not None:
            self.truth.saw(records)

    def ended(self) -> None:
        """Pass it on: the truth stays open until it knows the score."""
        self.inner.ended()

    def scored(self, summary: Summary) -> None:
        """Serve the score until it was scraped."""
        self.inner.scored(summary)
        if self.truth is not None and self.exposition is not None:
            self.truth.scored(summary.final_test_accuracy)
            self.exposition.end(_LAST_SCRAPES)
            if self.exposition.scraped_ever:
                select.select([self.exposition.last_scrape], [], [], LINGER_S)
        self.close()

    def close(self) -> None:
        """Serve no longer; a second call does nothing."""
        if self.exposition is not None:
            self.exposition.close()


class PrometheusSession(Exporter):
    """An exporter with a Prometheus of its own."""

    def __init__(self, inner: Observer) -> None:
        super().__init__(inner, "127.0.0.1:0")
        self._prometheus: Prometheus | None = None
        self._targets: dict[str, str] = {}

    def began(self, plan: Plan, run_dir: Path, state: RunState) -> None:
        """Start Prometheus; without it the run goes on, and says so once.

        Raises:
            BackendError: the disk is full.
        """
        super().began(plan, run_dir, state)
        assert self.exposition is not None
        self._prometheus = Prometheus(run_dir / FOLDER, read_record(run_dir).run_id)
        self._aim({LAUNCHER: self.exposition.address})
        self._start(self._prometheus)

    def saw(self, records: Sequence[Record]) -> None:
        """Scrape the nodes that have begun to serve."""
        super().saw(records)
        new = {str(each["node"]): str(each["address"]) for each in records if each["event"] == "metrics"}
        if new:
            self._aim(new)
        if self._prometheus is not None and self._prometheus.taken:
            self._start(self._prometheus)
        if self._prometheus is not None and (problem := self._prometheus.problem) is not None:
            self.note(f"warning: {problem}; the run goes on without it")

    def scored(self, summary: Summary) -> None:
        """Let the score be scraped, then end Prometheus."""
        collected = self._prometheus is not None and self._prometheus.running
        super().scored(summary)
        if self._prometheus is not None and collected:
            self.note(f"metrics: show them again with `{self._prometheus.again}`")

    def close(self) -> None:
        """End everything; a second call does nothing."""
        super().close()
        if self._prometheus is not None:
            self._prometheus.stop()

    def _start(self, prometheus: Prometheus) -> None:
        try:
            self.note(f"metrics: {prometheus.start()}")
        except BackendError as error:
            self.note(f"warning: {error}")

    def _aim(self, new: dict[str, str]) -> None:
        self._targets |= new
        if self._prometheus is not None:
            self._prometheus.aim(self._targets)


@contextmanager
def around(observer: Observer) -> Iterator[PrometheusSession]:
    """A station around the observer of a run; all is ended on leaving."""
    station = PrometheusSession(observer)
    try:
        yield station
    finally:
        station.close()
