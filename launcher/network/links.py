"""How a user writes links and what they are to be like, in options and in scenarios."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from itertools import product

from btard.launcher.options import syntax
from btard.node.errors import ConfigError

ARROW = re.compile(r"\s*(\*|\d+)\s*(->|<->)\s*(\*|\d+)\s*")

FIELDS: Mapping[str, tuple[str, Callable[[str], float]]] = {
    "delay": ("delay_s", syntax.latency),
    "jitter": ("jitter_s", syntax.latency),
    "loss": ("loss", syntax.share),
    "retransmit": ("retransmit_s", syntax.latency),
    "duplicate": ("duplicate", syntax.share),
    "bandwidth": ("bandwidth_bytes_per_s", syntax.rate),
}
"""What a user may say of a link: the field of `Link` and how its value is read."""


def pairs(sender: str, arrow: str, receiver: str, peers: int) -> tuple[tuple[int, int], ...]:
    """The directions that `0->4`, `0<->4`, `*->4` mean.

    Raises:
        ConfigError: a peer that does not exist, or one on both sides.
    """
    ends = []
    for word in (sender, receiver):
        if word != "*" and int(word) >= peers:
            raise ConfigError(f"there is no peer {word}; the peers are 0 to {peers - 1}")
        ends.append(range(peers) if word == "*" else (int(word),))
    found = {(one, other) for one, other in product(*ends) if one != other}
    if not found:
        raise ConfigError(f"peer {sender} has no link to itself; name two peers")
    return tuple(sorted(found | {(b, a) for a, b in found} if arrow == "<->" else found))
