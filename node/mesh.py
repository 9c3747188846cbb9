"""The start of a worker's conversation: lines to all peers, and a greeting from each."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Protocol

from node.arrivals import Arrival
from node.config import Endpoint, NodeConfig
from node.errors import TransportError
from node.recovery import Recovery
from node.transport import Transport

_EARLY_PER_PEER = 8
"""Messages kept from a peer whose mesh is complete before ours is: an honest one sends a single HELLO."""

_AGAIN = 64
"""The same for a node that was started again: the others are in the midst of a step."""


class Stopping(Protocol):
    """What may end the wait, and brings the addresses."""

    addresses: dict[int, Endpoint] | None

    def __call__(self) -> bool:
        """True once the worker should end."""


def mesh(
    config: NodeConfig, transport: Transport, stop: Stopping, early: list[Arrival], mesh_s: float,
    recovery: Recovery | None = None,
) -> bool:  # fmt: skip
    """Connect to all peers and wait until each has greeted us.

    Args:
        early: receives what peers whose mesh is already complete sent us meanwhile.
        mesh_s: how long to wait.
        recovery: of a node that was started again: it waits for the roster it knows, and goes on with most of it.

    Returns:
        False if the worker was told to stop meanwhile.

    Raises:
        TransportError: a peer did not greet in time; the message names it and why, if it said.
    """
    addresses: Mapping[int, Endpoint] | None = {int(peer): where for peer, where in config.addresses.items()} or None
    others: AbstractSet[int] = {member.id for member in config.members} - {config.node}
    again = recovery is not None and recovery.at is not None
    if recovery is not None and again:
        others = recovery.awaited(config)
    kept_most = _EARLY_PER_PEER * (_AGAIN if again else 1)
    deadline = time.monotonic() + mesh_s
    kept: Counter[int] = Counter()
    connected = False
    while transport.greeted < others or not connected:
        if stop():
            return False
        addresses = addresses or stop.addresses
        if addresses is not None and not connected:
            transport.connect(addresses)
            connected = True
        left_s = deadline - time.monotonic()
        if left_s <= 0 and again and 2 * len(others & transport.greeted) >= len(others):
            return True  # the others deal with whoever is silent, as with any peer
        if left_s <= 0:
            raise TransportError(_who_is_missing(transport, others, mesh_s))
        for arrival in transport.poll(left_s):
            kept[arrival.via] += 1
            if kept[arrival.via] <= kept_most:
                early.append(arrival)
            else:
                transport.counters.dropped["early"] += 1
    return True


def _who_is_missing(transport: Transport, others: AbstractSet[int], mesh_s: float) -> str:
    missing = sorted(others - transport.greeted)
    said = "".join(f"; peer {peer}: {transport.refusals[peer]}" for peer in missing if peer in transport.refusals)
    who = ", ".join(map(str, missing))
    advice = "check that they run, their addresses and their keys"
    return f"no greeting from peer{'s' if len(missing) > 1 else ''} {who} within {mesh_s:.0f} s{said}; {advice}"
