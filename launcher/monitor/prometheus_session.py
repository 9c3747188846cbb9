"""`--monitor`: exports the truth, tells Prometheus whom to scrape, and ends it with the run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from btard.launcher.monitor.exporter import Exporter, Listener
from btard.launcher.monitor.prometheus import Prometheus
from btard.launcher.monitor.state import Record, RunState
from btard.launcher.run.observer import Observer
from btard.launcher.run.plan import Plan
from btard.launcher.run.run_directory import read_record
from btard.launcher.run.summary import Summary
from btard.node.errors import BackendError

FOLDER = "monitoring"
LAUNCHER = "launcher"
"""The label `node` of the truth."""


class PrometheusSession(Exporter):
    """An exporter with a Prometheus of its own."""

    last_scrapes = 2

    def __init__(self, inner: Observer, listeners: Sequence[Listener] = ()) -> None:
        super().__init__(inner, "127.0.0.1:0", listeners)
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
        try:
            self.note(f"metrics: {self._prometheus.start()}")
        except BackendError as error:
            self.note(f"warning: {error}")

    def saw(self, records: Sequence[Record]) -> None:
        """Scrape the nodes that have begun to serve."""
        super().saw(records)
        new = {str(each["node"]): str(each["address"]) for each in records if each["event"] == "metrics"}
        if new:
            self._aim(new)
        problem = self._prometheus.problem if self._prometheus is not None else None
        if problem is not None:
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
