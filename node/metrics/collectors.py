"""What others count, read when a scrape asks for it: the transport's counters, its lines, the GPU's memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from btard.node.metrics import declarations
from btard.node.metrics.declarations import UNKNOWN_PEER
from btard.node.netem.emulated_transport import EmulatedTransport
from btard.node.netem.network import Network
from btard.node.transport.transport import Transport

_DROPS = ("queue_full_control", "queue_full_bulk", "control_over_quota", "bulk_over_quota")
"""Reasons that an alert watches: their series exist before the first drop."""


class Collectors:
    """Collects the families of the network and of the GPU.

    Each copy of a counter is one step of the interpreter, so the worker may count on meanwhile.

    Args:
        transport: whose counters are read.
        refused: what the protocol machine refused, by (peer, reason).
        others: ids that this node's peers have, or may have.
        device: cpu or cuda.
    """

    def __init__(
        self, transport: Transport, refused: Mapping[tuple[str, str], int], others: Iterable[int], device: str
    ) -> None:
        self._transport, self._refused, self._others = transport, refused, tuple(others)
        self._lines, self._device = transport.lines(), device

    def collect(self) -> Iterator[Metric]:
        """One family for each metric that has data."""
        counters = self._transport.counters
        for name, counted in (
            ("sent_bytes_total", counters.sent_bytes),
            ("received_bytes_total", counters.received_bytes),
            ("messages_sent_total", counters.sent_messages),
            ("messages_received_total", counters.received_messages),
        ):
            yield self._counter(name, [((str(peer), kind), count) for (peer, kind), count in dict(counted).items()])
        yield self._counter("dropped_messages_total", self._drops())
        lines = self._lines
        lines.look()
        yield self._counter("reconnects_total", [((str(peer),), n) for peer, n in dict(lines.reconnects).items()])
        failures = dict(lines.handshake_failures).items()
        yield self._counter("handshake_failures_total", [((reason,), count) for reason, count in failures])
        queued = lines.queued_bytes().items()
        yield self._gauge("send_queue_bytes", [((str(peer),), size) for peer, size in queued])
        yield self._gauge("peer_rtt_seconds", [((str(peer),), rtt_s) for peer, rtt_s in lines.rtt_s().items()])
        trips = self._transport.round_trips.all_shortest_s().items()
        yield self._gauge("probe_rtt_seconds", [((str(peer),), rtt_s) for peer, rtt_s in trips])
        if isinstance(self._transport, EmulatedTransport):
            for name, values in modelled(self._transport.network).items():
                yield self._gauge(name, [((str(peer),), value) for peer, value in values.items()])
        if self._device == "cuda":
            yield self._gauge("gpu_memory_bytes", _gpu_memory())

    def _drops(self) -> Iterator[tuple[tuple[str, str], int]]:
        counters = self._transport.counters
        for peer in self._others:
            yield from (((str(peer), reason), 0) for reason in _DROPS)
        refused = dict(counters.refused)
        yield from (((str(peer), reason), count) for (peer, reason), count in refused.items())
        yield from dict(self._refused).items()
        for reason, count in dict(counters.dropped).items():
            named = sum(own for (_, of_reason), own in refused.items() if of_reason == reason)
            if count > named:
                yield (UNKNOWN_PEER, reason), count - named

    def _labels(self, name: str) -> tuple[str, ...]:
        return declarations.metric(name).labels_for(1 + len(self._others))

    def _counter(self, name: str, values: Iterable[tuple[tuple[str, ...], int]]) -> Metric:
        """A family whose values are summed over the labels that this run does without."""
        declared, labels = declarations.metric(name), self._labels(name)
        family = CounterMetricFamily(declared.full_name, declared.help, labels=labels)
        summed: Counter[tuple[str, ...]] = Counter()
        for own, count in values:
            summed[own[len(own) - len(labels) :]] += count
        for kept, count in summed.items():
            family.add_metric(kept, count)
        return family

    def _gauge(self, name: str, values: Iterable[tuple[tuple[str, ...], float]]) -> Metric:
        """A family of gauges; where peers are not told apart, the largest value stands for all."""
        declared, labels = declarations.metric(name), self._labels(name)
        family = GaugeMetricFamily(declared.full_name, declared.help, labels=labels)
        largest: dict[tuple[str, ...], float] = {}
        for own, value in values:
            kept = own[len(own) - len(labels) :]
            largest[kept] = max(value, largest.get(kept, value))
        for kept, value in largest.items():
            family.add_metric(kept, value)
        return family


def modelled(network: Network) -> dict[str, dict[int, float]]:
    """What a modelled network was asked for and did, by metric and receiver."""
    found: dict[str, dict[int, float]] = {}
    for (_, peer), tally in dict(network.tallies).items():
        if tally.crossed:
            found.setdefault("emulated_delay_seconds", {})[peer] = tally.requested_delay_s / tally.crossed
            found.setdefault("measured_delay_seconds", {})[peer] = tally.measured_delay_s / tally.crossed
        if tally.transmissions:
            found.setdefault("emulated_loss_ratio", {})[peer] = tally.expected_lost / tally.transmissions
            found.setdefault("measured_loss_ratio", {})[peer] = tally.lost / tally.transmissions
        if tally.planned_s > 0 and tally.transfer_s > 0:
            transferred = tally.transferred_bytes
            found.setdefault("emulated_rate_bytes_per_second", {})[peer] = transferred / tally.planned_s
            found.setdefault("measured_rate_bytes_per_second", {})[peer] = transferred / tally.transfer_s
    return found


def _gpu_memory() -> list[tuple[tuple[str, ...], float]]:
    """What this process holds of its card; only a worker on a GPU asks."""
    import torch

    return [(("allocated",), torch.cuda.memory_allocated()), (("reserved",), torch.cuda.memory_reserved())]
