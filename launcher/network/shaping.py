"""The network that a user asks for as the kernel's own rules: `--shaping kernel`, what it can do and what it refuses.

Pure: text for `tc -batch` and `iptables-restore`, and the delays of a queue. launcher/containers/shaper.py applies it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from btard.launcher.network import conditions as network
from btard.launcher.run.experiment import Experiment
from btard.node.errors import ConfigError
from btard.node.netem.conditions import Conditions
from btard.node.netem.links import Link
from btard.node.netem.network import of

CHAIN = "BTARD"
_INSTEAD = "leave it out, or use --shaping process"
_UNLIMITED_BITS_PER_S = 100_000_000_000
_QUANTUM_BYTES = 60_000
_NETEM_PACKETS = 100_000
_PROCESS_ONLY = {"duplicate": "--duplicate", "retransmit_s": "retransmit= in --link"}


@dataclass(frozen=True, slots=True)
class Way:
    """One direction between a node and a peer: the peer's genesis id and IPv4 address, and what the link is like."""

    peer: int
    address: str
    link: Link

    @property
    def delayed(self) -> bool:
        """True if its packets wait."""
        return self.link.delay_s > 0 or self.link.jitter_s > 0

    @property
    def limited(self) -> bool:
        """True if it has a rate."""
        return math.isfinite(self.link.bandwidth_bytes_per_s)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the links of a run ask of the kernel."""

    rate: bool
    delay: bool
    loss: bool


def check(experiment: Experiment) -> None:
    """Refuse what the kernel cannot do, before anything starts.

    Raises:
        ConfigError: another backend than compose, nothing to shape, or what only the model in the process can do.
    """
    if experiment.shaping != "kernel":
        return
    if experiment.backend != "compose":
        raise ConfigError(
            f"--shaping kernel: --backend {experiment.backend} shares this machine's own interfaces, which are never "
            "shaped; add --backend compose, or use --shaping process"
        )
    asked = network.of(experiment)
    if asked is None or not asked.changes:
        raise ConfigError("--shaping kernel has nothing to shape; add --delay, --jitter, --loss, --bandwidth or --link")
    for change in asked.changes:
        if change.text:
            raise ConfigError(f"--shaping kernel holds for the whole run, not for {change.text!r}; {_INSTEAD}")
        for field, words in _PROCESS_ONLY.items():
            if field in change.values:
                raise ConfigError(f"--shaping kernel cannot do {words}: TCP undoes or decides it; {_INSTEAD}")
    if asked.restarts:
        raise ConfigError(f"--shaping kernel: a restarted container has a new network without it; {_INSTEAD}")


def ways(asked: Conditions, node: int, addresses: Sequence[str], inward: bool) -> tuple[Way, ...]:
    """What holds between a node and each peer, towards the node or away from it.

    Args:
        asked: changes that hold from the start for ever.
        addresses: IPv4, by genesis id.
    """
    model = of(asked)
    found = []
    for peer, address in enumerate(addresses):
        link = model.link(peer, node, 0.0, 0) if inward else model.link(node, peer, 0.0, 0)
        if peer != node and link is not None:
            found.append(Way(peer, address, link))
    return tuple(found)


def wanted(asked: Conditions, peers: int) -> Wanted:
    """What the kernel must be able to do for these links."""
    every = [way for node in range(peers) for way in ways(asked, node, [""] * peers, inward=True)]
    return Wanted(any(way.limited for way in every), any(way.delayed for way in every),
                  any(way.link.loss > 0 for way in every))  # fmt: skip


def outgoing(device: str, away: Sequence[Way], netem: bool) -> str:
    """For `tc -batch`: a class for each peer with its rate, and with its delay where netem is to do that.

    What goes elsewhere (Prometheus, names) passes unshaped. Source: tc-htb(8), tc-u32(8), tc-netem(8).
    """
    shaped = [way for way in away if way.limited or (netem and way.delayed)]
    if not shaped:
        return ""
    lines = [f"qdisc add dev {device} root handle 1: htb"]
    for way in shaped:
        number = f"{way.peer + 1:x}"
        bits = round(8 * way.link.bandwidth_bytes_per_s) if way.limited else _UNLIMITED_BITS_PER_S
        lines.append(f"class add dev {device} parent 1: classid 1:{number} htb rate {bits}bit quantum {_QUANTUM_BYTES}")
        if netem and way.delayed:
            # netem draws around the middle, a link from its delay upwards.
            middle_us, half_us = round(way.link.mean_delay_s * 1e6), round(way.link.jitter_s / 2 * 1e6)
            jitter = f" {half_us}us" if half_us else ""
            lines.append(f"qdisc add dev {device} parent 1:{number} handle 1{way.peer + 1:03x}: netem "
                         f"limit {_NETEM_PACKETS} delay {middle_us}us{jitter}")  # fmt: skip
        lines.append(
            f"filter add dev {device} parent 1: protocol ip prio 1 u32 match ip dst {way.address}/32 flowid 1:{number}"
        )
    return "\n".join(lines) + "\n"


def incoming(towards: Sequence[Way], netem: bool) -> str:
    """For `iptables-restore`: what arrives from each peer is dropped by chance, then handed to the peer's queue.

    Where packets arrive and not where they leave: a sender's TCP must not see them wait in its own host.
    Source: iptables-extensions(8), `statistic` and `NFQUEUE`.
    """
    rules = []
    for way in towards:
        if way.link.loss > 0:
            chance = f"-m statistic --mode random --probability {way.link.loss:.9f} " if way.link.loss < 1 else ""
            rules.append(f"-A {CHAIN} -s {way.address}/32 {chance}-j DROP")
        if way.delayed and not netem:
            rules.append(f"-A {CHAIN} -s {way.address}/32 -j NFQUEUE --queue-num {way.peer}")
    if not rules:
        return ""
    return "\n".join(["*filter", f":{CHAIN} - [0:0]", f"-A INPUT -j {CHAIN}", *rules, "COMMIT"]) + "\n"


def queues(towards: Sequence[Way]) -> list[str]:
    """The arguments of launcher/containers/netqueue.py: one queue for each peer whose packets wait."""
    return [f"{way.peer}:{way.link.delay_s:.9f}:{way.link.jitter_s:.9f}" for way in towards if way.delayed]
