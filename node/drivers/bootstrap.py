"""The start of a worker's conversation: lines to all peers, and a greeting from each, or from all but f."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from btard.node.config import Endpoint, NodeConfig
from btard.node.errors import TransportError
from btard.node.genesis.genesis import genesis_roster
from btard.node.storage import own_address
from btard.node.storage.disk import Disk
from btard.node.storage.recovery import Recovery
from btard.node.transport.arrivals import Arrival
from btard.node.transport.transport import Transport

GRACE_S = 15.0
"""Wait for the last f peers where a launcher has seen all of them bind: what is left is loading data and greeting."""

SAY_S = 10.0
"""How often a worker without a launcher says for whom it waits."""

_EARLY_PER_PEER = 8
"""Messages kept from a peer whose mesh is complete before ours is: an honest one sends a single HELLO."""

_ENDED = (
    "check that they run; if the run has ended without this peer, {quorum} of those that finished have to stay for it "
    "(`btard-node run --stay`), and `btard-launch collect` fetches what they serve"
)

_AGAIN = 64
"""The same for a node that was started again: the others are in the midst of a step."""


class Stopping(Protocol):
    """What may end the wait, and brings the addresses."""

    addresses: dict[int, Endpoint] | None

    def __call__(self) -> bool:
        """True once the worker should end."""


@dataclass(slots=True)
class _Patience:
    """Until when greetings are awaited; all times in seconds of one clock.

    Nothing that honest peers sign depends on a greeting, so a silent member must not hold up the start. Two things have
    to hold besides: a peer that only comes up slowly should find the others still there, so those that have enough
    greetings wait a grace; and nobody may wait while others are under way, since their deadlines run. A member that
    greets some of us and not the rest would bring that about: the first message of a peer that has gone on therefore
    ends the grace after D. With one D for that message to arrive and one for our answer, our HELLO is there 3 D after
    the first one was said, and its deadline is 6 D + 2 T_g. D is also what the last greetings of honest peers take.

    Args:
        deadline_s: when the wait ends in any case.
        grace_s: the longest wait for the last f, from the moment in which all others have greeted.
        delivery_bound_s: D.
    """

    deadline_s: float
    grace_s: float
    delivery_bound_s: float
    enough_s: float = math.inf
    spoken_s: float = math.inf

    def until_s(self) -> float:
        """When to go on, with enough greetings or with an error."""
        if not self.enough:
            return self.deadline_s
        hurry_s = max(self.enough_s, self.spoken_s + self.delivery_bound_s)
        return min(self.deadline_s, self.enough_s + self.grace_s, hurry_s)

    @property
    def enough(self) -> bool:
        """No more than f peers are missing."""
        return self.enough_s < math.inf


def mesh(
    config: NodeConfig, transport: Transport, stop: Stopping, early: list[Arrival], mesh_s: float,
    recovery: Recovery | None = None, *, grace_s: float = GRACE_S, clock: Callable[[], float] = time.monotonic,
    say: Callable[[str], None] | None = None,
) -> bool:  # fmt: skip
    """Connect to all peers and wait until each has greeted us, for the last f of them only a while; and for all
    approvals, where members have to approve the genesis.

    Args:
        early: receives what peers whose mesh is already complete sent us meanwhile.
        mesh_s: how long to wait.
        recovery: of a node that was started again: it waits for the roster it knows, not for who was removed before.
        grace_s: how long to wait for the last f, which may be silent for ever.
        clock: seconds, monotonic.
        say: gets a line every `SAY_S` seconds: for whom we wait.

    Returns:
        False if the worker was told to stop meanwhile.

    Raises:
        TransportError: more than f peers did not greet in time, or approvals are missing; the message names them and
            why, as far as it is known.
        CheckpointError, BackendError: how often we have moved cannot be read or written.
    """
    addresses: Mapping[int, Endpoint] | None = {int(peer): where for peer, where in config.addresses.items()} or None
    again = recovery is not None and recovery.at is not None
    roster = recovery.at.state.roster if recovery and recovery.at else genesis_roster(config.members)
    # A newcomer is heard by nobody before it is introduced: it waits for that in the protocol, and for nobody here.
    others = frozenset(roster.active) - {config.node} if config.node in roster.active else frozenset[int]()
    # Started again, we are waited for, and nobody's machine is still being set up.
    patience = _Patience(clock() + mesh_s, min(grace_s, GRACE_S) if again else grace_s, config.run.delivery_bound_s)
    keep = _Keep(early, transport.counters.dropped, _EARLY_PER_PEER * (_AGAIN if again else 1))
    connected, say_s = False, clock() + SAY_S if say is not None else math.inf
    while True:
        missing = others - transport.greeted
        lacking = _unapproved(transport) if others else frozenset[int]()
        if connected and not missing and not lacking:
            return True
        if stop():
            return False
        addresses = addresses or stop.addresses
        if addresses is not None and not connected:
            transport.connect(addresses, _moves(config, addresses))
            connected = True
        now_s = clock()
        if say is not None and now_s >= say_s:
            say(_progress(transport, missing, lacking, len(config.members)))
            say_s = now_s + SAY_S
        if connected and not lacking and len(missing) <= roster.faults:
            patience.enough_s = min(patience.enough_s, now_s)
        left_s = patience.until_s() - now_s
        if left_s <= 0 and patience.enough:
            return True  # the protocol deals with whoever is silent, as with any peer
        if left_s <= 0:
            quorum = roster.faults + 1 if again and say is not None else None
            raise TransportError(_overdue(transport, missing, lacking, mesh_s, quorum))
        if arrivals := transport.poll(min(left_s, say_s - now_s)):
            patience.spoken_s = min(patience.spoken_s, clock())
            keep(arrivals)


def _moves(config: NodeConfig, addresses: Mapping[int, Endpoint]) -> int:
    """How often this node has started at another address than before."""
    own = addresses.get(config.node)
    disk = Disk(waits=config.durability == "grouped")
    return 0 if own is None else own_address.counter(Path(config.directory), own, disk)


class _Keep:
    """What came before our mesh was complete, up to a number of messages a peer.

    Args:
        early: where it is kept.
        dropped: where the rest is counted.
        most: messages of one peer.
    """

    def __init__(self, early: list[Arrival], dropped: Counter[str], most: int) -> None:
        self._early, self._dropped, self._most = early, dropped, most
        self._kept: Counter[int] = Counter()

    def __call__(self, arrivals: Sequence[Arrival]) -> None:
        for arrival in arrivals:
            self._kept[arrival.via] += 1
            if self._kept[arrival.via] <= self._most:
                self._early.append(arrival)
            else:
                self._dropped["early"] += 1


def _overdue(
    transport: Transport, missing: AbstractSet[int], lacking: AbstractSet[int], mesh_s: float, quorum: int | None
) -> str:
    """Who has not greeted us, or not approved, and what to do about it.

    Args:
        quorum: how many of those that finished without us have to stay, if the run may have ended; None: it has not.
    """
    if not missing:
        problem, advice = f"no approval of {_named(lacking)}", "ask their owners for `btard-node approve`"
    elif quorum is not None:
        problem, advice = _no_greeting(transport, missing), _ENDED.format(quorum=quorum)
    else:
        problem, advice = _no_greeting(transport, missing), "check that they run, their addresses and their keys"
    return f"{problem} within {mesh_s:.0f} s; {advice}"


def ungreeted(config: NodeConfig, transport: Transport) -> str | None:
    """Which members have not greeted us, and why, if they said; None if all have."""
    if config.node >= config.run.peers:
        return None
    missing = {member.id for member in config.members} - {config.node} - transport.greeted
    return _no_greeting(transport, missing) if missing else None


def _unapproved(transport: Transport) -> AbstractSet[int]:
    """Members whose approval this run needs and we have not seen."""
    return transport.approvals.missing if transport.approvals is not None else frozenset()


def _progress(transport: Transport, missing: AbstractSet[int], lacking: AbstractSet[int], members: int) -> str:
    """For whom we wait, in one line."""
    if not missing:
        return f"waiting for the approvals of {len(lacking)} of {members}: {_named(lacking)}"
    refused = [f"peer {peer}: {why}" for peer, why in sorted(transport.refusals.items()) if peer in missing]
    last = "; ".join(refused) or "never"
    return f"waiting for {len(missing)} of {members}: {_named(missing)}; last heard: {last}"


def _named(peers: AbstractSet[int]) -> str:
    return ", ".join(f"peer {peer}" for peer in sorted(peers))


def _no_greeting(transport: Transport, absent: AbstractSet[int]) -> str:
    missing = sorted(absent)
    said = "; ".join(f"peer {peer}: {why}" for peer in missing if (why := transport.silence(peer)) is not None)
    who = f"peer{'s' if len(missing) > 1 else ''} {', '.join(map(str, missing))}"
    return f"no greeting from {who}" + (f" ({said})" if said else "")
