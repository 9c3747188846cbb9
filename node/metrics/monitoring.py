"""A worker's monitoring, where its configuration asks for it: meter and `/metrics` together.

Without it nothing is imported, allocated or asked for at each step.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from btard.node.config import NodeConfig
from btard.node.drivers.realtime import Driver, Observe
from btard.node.storage.journal import Journal
from btard.node.transport.transport import Transport

if TYPE_CHECKING:
    from btard.node.metrics.http import MetricsEndpoint
    from btard.node.metrics.worker_metrics import MetricsRecorder

LINGER_S = 15.0
"""Longest time that `/metrics` stays open after the end, so that the last values are scraped."""

Wait = Callable[[int, float], object]
"""(file descriptor, seconds): wait until it can be read, this worker is told to stop, or time is up."""


class Monitoring:
    """What a worker does for its monitoring; without a meter, nothing."""

    def __init__(self, meter: MetricsRecorder | None = None, exposition: MetricsEndpoint | None = None) -> None:
        self.meter, self._exposition = meter, exposition

    @property
    def observe(self) -> Observe | None:
        """What a driver tells of every output."""
        return self.meter.observe if self.meter is not None else None

    def attach(self, driver: Driver) -> None:
        """The driver that computes this node's gradients."""
        if self.meter is not None:
            self.meter.attach(driver)

    def evaluated(self, correct: int, count: int) -> None:
        """The node classified `correct` of its `count` test items."""
        if self.meter is not None:
            self.meter.evaluated(correct, count)

    def end(self, wait: Wait) -> None:
        """The values are final: keep `/metrics` open until it was scraped once more, `LINGER_S` at most."""
        if self._exposition is not None:
            self._exposition.end()
            wait(self._exposition.last_scrape, LINGER_S)
            self._exposition.close()


def start(config: NodeConfig, transport: Transport, journal: Journal) -> Monitoring:
    """Serve this node's metrics, if it is to, and journal where.

    Raises:
        BackendError: the address cannot be bound.
    """
    if config.metrics is None:
        return Monitoring()
    from btard.node.metrics.http import MetricsEndpoint
    from btard.node.metrics.worker_metrics import MetricsRecorder
    from btard.node.storage.public_files import PublicFiles

    meter = MetricsRecorder(config, transport)
    files = PublicFiles(Path(config.directory).parent.parent, config.node) if config.files else None
    # A launcher tells Prometheus whose values these are; where there is none, nobody else knows this node's number.
    labels = {} if config.approvals is None else {"run_id": config.run_id, "node": str(config.node)}
    exposition = MetricsEndpoint(config.metrics, meter.registry, files, labels)
    journal.append("metrics", address=exposition.address)
    return Monitoring(meter, exposition)
