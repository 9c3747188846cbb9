"""prometheus_client's objects of declared metrics, made on first use."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.metrics import MetricWrapperBase

from btard.node.metrics.declarations import Kind
from btard.node.metrics.declarations import Metric as Declared


class MetricRegistry:
    """Gives out counters, gauges and histograms by name.

    Args:
        registry: where they are registered.
        chosen: the metrics.
        peers: of the run; decides whether its nodes tell their peers apart (0: whoever exports this does).
    """

    def __init__(self, registry: CollectorRegistry, chosen: Iterable[Declared], peers: int) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a series more for each counter and histogram, which nothing here reads
        self._made = {each.name: _make(each, registry, each.labels_for(peers)) for each in chosen}
        self._children: dict[tuple[str, tuple[str, ...]], MetricWrapperBase] = {}

    def counter(self, name: str, **labels: str) -> Counter:
        """The counter `name` with these labels; it exists, at 0, from the first call on."""
        found = self._child(name, labels)
        assert isinstance(found, Counter)
        return found

    def gauge(self, name: str, **labels: str) -> Gauge:
        """The gauge `name` with these labels."""
        found = self._child(name, labels)
        assert isinstance(found, Gauge)
        return found

    def histogram(self, name: str, **labels: str) -> Histogram:
        """The histogram `name` with these labels."""
        found = self._child(name, labels)
        assert isinstance(found, Histogram)
        return found

    def _child(self, name: str, labels: dict[str, str]) -> MetricWrapperBase:
        # prometheus_client sorts, checks and locks on every `labels()`; a step needs some twenty of them.
        key = (name, tuple(labels.values()))
        child = self._children.get(key)
        if child is None:
            made = self._made[name]
            child = self._children[key] = made.labels(**labels) if labels else made
        return child


def _make(declared: Declared, registry: CollectorRegistry, labels: tuple[str, ...]) -> MetricWrapperBase:
    match declared.kind:
        case Kind.COUNTER:
            return Counter(declared.full_name, declared.help, labels, registry=registry)
        case Kind.GAUGE:
            gauge = Gauge(declared.full_name, declared.help, labels, registry=registry)
            if not labels:
                gauge.set(float("nan"))  # it would be 0 before its first value
            return gauge
        case Kind.HISTOGRAM:
            return Histogram(declared.full_name, declared.help, labels, registry=registry, buckets=declared.buckets)
