"""Tells a node's network where the run is, and the journal what the links did: asked for against measured."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType

from btard.node.config import NodeConfig
from btard.node.netem import network
from btard.node.netem.emulated_transport import EmulatedTransport
from btard.node.netem.links import Link
from btard.node.netem.network import QUIET, Tally
from btard.node.protocol.api import Committed, Output, PhaseEntered
from btard.node.storage.journal import Journal
from btard.node.transport.transport import Transport

PROBE_S = 1.0
"""Least time between two probes of all peers."""

REPORT_S = 5.0
"""Least time between two journal lines about the links."""


class LinkWatch:
    """Watches one node's links.

    Args:
        transport: the node's; an `EmulatedTransport` if links are modelled.
        journal: where `links` lines go: one per peer, totals since the start.
        shaped: what the kernel makes of the link to each peer, from outside; empty: nothing.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        transport: Transport,
        journal: Journal,
        shaped: Mapping[int, Link] = MappingProxyType({}),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._shaped = shaped
        self._transport, self._journal, self._clock = transport, journal, clock
        self._emulated = transport if isinstance(transport, EmulatedTransport) else None
        self._probed_s = self._reported_s = -math.inf
        self._step = -1

    def begin(self, elapsed_s: float = 0.0) -> None:
        """The first step is about to begin, or began `elapsed_s` ago; only the first call counts."""
        if self._emulated is not None and self._reported_s == -math.inf:
            self._emulated.begin(elapsed_s)
        self._reported_s = self._clock()

    def observe(self, output: Output) -> None:
        """Follow the run."""
        if isinstance(output, PhaseEntered):
            if self._emulated is not None and output.step != self._step:
                self._emulated.at_step(output.step)
            self._step = output.step
        elif isinstance(output, Committed):
            self._look()

    def end(self) -> None:
        """The last totals."""
        self._report()

    def _look(self) -> None:
        now_s = self._clock()
        if now_s - self._probed_s >= PROBE_S:
            self._probed_s = now_s
            self._transport.probe()
        if now_s - self._reported_s >= REPORT_S:
            self._report()
            self._reported_s = now_s

    def _report(self) -> None:
        """One line per peer on a modelled or shaped network; without one only probes tell."""
        transport = self._emulated
        if transport is None:
            self._report_shaped()
            return
        for (me, peer), tally in sorted(transport.network.tallies.items()):
            link = transport.network.link(me, peer, transport.now_s, self._step)
            report(self._journal, peer, link, tally, transport.round_trips.shortest_s(peer))

    def _report_shaped(self) -> None:
        """What the kernel was asked for, and the round trip: nothing here sees one packet lost or late by itself."""
        for peer, link in sorted(self._shaped.items()):
            now = describe(link, Tally())
            told = {**now, "requested_delay_s": now["delay_s_now"], "requested_loss": link.loss,
                    "requested_rate": now["rate_now"]}  # fmt: skip
            self._journal.append(
                "links", peer=peer, **told, rtt_s=_rounded(self._transport.round_trips.shortest_s(peer))
            )


def shaped_links(config: NodeConfig) -> dict[int, Link]:
    """What the kernel was asked to make of a node's links, by receiver; empty if it was asked for nothing."""
    if config.conditions is None or not config.shaped:
        return {}
    asked = network.of(config.conditions)
    others = (member.id for member in config.members if member.id != config.node)
    return {peer: asked.link(config.node, peer, 0.0, 0) or QUIET for peer in others}


def report(journal: Journal, peer: int, link: Link | None, tally: Tally, rtt_s: float | None) -> None:
    """Journal the totals of the link to a peer.

    Args:
        journal: the sender's.
        peer: the receiver.
        link: as it is now, None while it is cut.
        tally: since the start.
        rtt_s: shortest answer to a probe, None if there is none.
    """
    journal.append("links", peer=peer, **describe(link, tally), rtt_s=_rounded(rtt_s))


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)


def describe(link: Link | None, tally: Tally) -> dict[str, float | int | bool | None]:
    """What a link was asked for and what it did, ready for the journal.

    Args:
        link: as it is now, None while it is cut.
        tally: since the start.
    """
    now = link or QUIET
    crossed, transferred, tried = tally.crossed, tally.transferred_bytes, tally.transmissions
    rate = now.bandwidth_bytes_per_s
    return {
        "cut": link is None,
        "delay_s_now": round(now.mean_delay_s, 6),
        "loss_now": now.loss,
        "rate_now": rate if math.isfinite(rate) else None,
        "messages": tally.messages,
        "held": tally.held,
        "requested_delay_s": round(tally.requested_delay_s / crossed, 6) if crossed else None,
        "measured_delay_s": round(tally.measured_delay_s / crossed, 6) if crossed else None,
        "requested_loss": round(tally.expected_lost / tried, 6) if tried else None,
        "measured_loss": round(tally.lost / tried, 6) if tried else None,
        "requested_rate": round(transferred / tally.planned_s, 1) if transferred else None,
        "measured_rate": round(transferred / tally.transfer_s, 1) if transferred else None,
    }
