"""An observer that serves the ground truth of the run it follows, on behalf of another observer that people see."""

from __future__ import annotations

import select
from collections.abc import Callable, Sequence
from pathlib import Path

from btard.launcher.monitor.ground_truth import Event, GroundTruth
from btard.launcher.monitor.state import Record, RunState
from btard.launcher.run.observer import Observer
from btard.launcher.run.plan import Plan
from btard.launcher.run.summary import Summary
from btard.node.metrics.http import MetricsEndpoint
from btard.node.metrics.monitoring import LINGER_S

Listener = Callable[[Sequence[Event]], None]
"""Told of what happened to the run as a whole."""


class Exporter:
    """Serves the truth from the run's beginning until its score was scraped, 15 s at most.

    Args:
        inner: told of everything, first.
        address: HOST:PORT to serve on; port 0 lets the system choose.
        listeners: told of the run's events.
    """

    last_scrapes = 1
    """How often the score must have been scraped."""

    def __init__(self, inner: Observer, address: str, listeners: Sequence[Listener] = ()) -> None:
        self.inner = inner
        self.truth: GroundTruth | None = None
        self.exposition: MetricsEndpoint | None = None
        self._address, self._listeners = address, listeners

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
        events = self.truth.saw(records) if self.truth is not None else []
        for listener in self._listeners if events else ():
            listener(events)

    def ended(self) -> None:
        """Pass it on: the truth stays open until it knows the score."""
        self.inner.ended()

    def scored(self, summary: Summary) -> None:
        """Serve the score until it was scraped."""
        self.inner.scored(summary)
        if self.truth is not None and self.exposition is not None:
            self.truth.scored(summary.final_test_accuracy)
            self.exposition.end(self.last_scrapes)
            if self.exposition.scraped_ever:
                select.select([self.exposition.last_scrape], [], [], LINGER_S)
        self.close()

    def close(self) -> None:
        """Serve no longer; a second call does nothing."""
        if self.exposition is not None:
            self.exposition.close()
