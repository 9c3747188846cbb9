"""The light network: honest peers and puppets under one virtual clock, which stops wherever a puppet might act.

A puppet is an honest `Peer` whose outputs are intercepted: what it says is the right message, and the adversary decides
who gets it, when, and what else. Everything that honest peers say is known to all puppets at once.
"""

from __future__ import annotations

import heapq
import signal
import traceback
from collections.abc import Iterable
from dataclasses import dataclass

from msgspec.structs import replace

from btard.node.protocol.api import (
    BulkArrived,
    BulkRequested,
    CancelTimer,
    ComputeGradient,
    DeadlinePassed,
    Disputed,
    Dropped,
    Endorse,
    Forward,
    GradientReady,
    Input,
    MessageArrived,
    Output,
    PhaseEntered,
    RequestBulk,
    RequestTranscript,
    Resolved,
    Say,
    SendBulk,
    SendSnapshot,
    SetTimer,
    SnapshotArrived,
    Start,
    TranscriptRequested,
    ViewArrived,
)
from btard.node.protocol.peer import Peer
from btard.node.protocol.wire.encoding import encode
from btard.node.protocol.wire.messages import Body, Outcome, Phase, Signed
from tests.adversary.cluster import D, Size, endorse, gradient, sign
from tests.adversary.disk import Disk

NEAR = 1_000
"""A link that takes a millisecond."""
EPSILON = 100
"""How long before a deadline `just before` is: less than any honest message takes."""
LIMIT = 400 * D
MOST_EVENTS = 15_000

Where = tuple[bytes, bytes, int, int]


@dataclass(frozen=True, slots=True)
class Style:
    """How a run's links and puppets are, all along.

    Args:
        links: `near`, `far` (all take D), `slow0` (all links of peer 0 do), `camp2` (those between the first two
            honest peers and the others do), `odd` (those from lower to higher ids do).
        outcomes: `c`: puppets sign any OUTCOME that an honest peer signs, for it and for all who say the same;
            `r`: their own right ones; `n`: none.
        computing: this honest peer computes for `busy` ticks; None: computations take no time.
        deaf: it handles nothing meanwhile, as the driver once did.
    """

    links: str = "near"
    outcomes: str = "c"
    computing: int | None = None
    busy: int = 0
    deaf: bool = False

    def delay(self, sender: int, receiver: int) -> int:
        """Ticks from signing to handling between two honest peers."""
        late = {
            "near": False,
            "far": True,
            "slow0": 0 in (sender, receiver),
            "camp2": (sender < 2) != (receiver < 2),
            "odd": sender < receiver,
        }[self.links]
        return D - NEAR if late else NEAR


@dataclass(slots=True)
class Utterance:
    """What a puppet's peer has said, and who has not got it yet."""

    sender: int
    body: Body
    signed: Signed
    waiting: tuple[int, ...]
    fresh: bool = True


class EndlessError(Exception):
    """A peer does not come back from one input."""


PATIENCE_S = 20.0
"""Of processor time, for all that happens at one instant."""


def _endless(*_: object) -> None:
    raise EndlessError(f"{PATIENCE_S:.0f} s of processor time and no end")


class World:
    """One run.

    Args:
        size: of the cluster.
        style: of the run.
        restarts: honest peers keep on disk what they need to start again.
    """

    def __init__(self, size: Size, style: Style, restarts: bool = False) -> None:
        self.size, self.style = size, style
        self.honest = tuple(range(size.peers - size.attackers))
        self.puppets = tuple(range(size.peers - size.attackers, size.peers))
        self.now = self.events = self.sequence = 0
        self.peers: dict[int, Peer] = {me: size.peer(me) for me in range(size.peers)}
        self.heap: list[tuple[int, int, int, int, Input]] = []
        self.timers: dict[tuple[int, str], tuple[int, int]] = {}
        self.pool: list[Utterance] = []
        self.known: dict[Where, dict[Signed, None]] = {}
        self.outcomes: dict[tuple[Where, bytes], set[int]] = {}
        self.attempts: dict[int, list[Where]] = {me: [] for me in range(size.peers)}
        self.place: dict[int, tuple[int, int, Phase]] = dict.fromkeys(range(size.peers), (0, 0, Phase.HELLO))
        self.disputes: dict[int, dict[tuple[int, int], str]] = {me: {} for me in range(size.peers)}
        self.notices: list[tuple[int, int, Output | str]] = []
        """Of honest peers: time, peer, notice; what they say in disputes; the adversary's moves (peer -1)."""
        self.treated: dict[int, tuple[str, ...]] = dict.fromkeys(range(size.peers), ())
        """What the adversary did to each honest peer: those treated alike are alike."""
        self.deviated: set[tuple[int, int]] = set()
        """Attempts of honest peers in which a puppet, or a restart, deviated."""
        self.disks: dict[int, Disk] = {me: Disk(me) for me in self.honest} if restarts else {}
        for me in self.disks:
            self.peers[me].stays = True
        self.busy: dict[int, int] = {}
        self.away: dict[int, int] = {}
        self.marks: dict[int, int] = dict.fromkeys(range(size.peers), 0)
        self.named: dict[int, tuple[int, int]] = {}
        """Names of peers' states (see `names`), by how much they had heard."""
        self.restarted: set[int] = set()
        self.killed: set[int] = set()
        """Those of them that were away for longer than the bound on delivery allows for: they count as faulty."""
        self.crash = ""
        self._over = False
        signal.signal(signal.SIGVTALRM, _endless)
        for me in range(size.peers):
            self.push(0, me, Start())

    # --- the clock --------------------------------------------------------------------------------------------

    def push(self, after: int, node: int, event: Input) -> int:
        """Something happens to a node, `after` ticks from now."""
        self.sequence += 1
        entry = (self.now + after, isinstance(event, DeadlinePassed), self.sequence, node, event)
        heapq.heappush(self.heap, entry)
        return self.sequence

    def _prune(self) -> None:
        """Drop timers that were cancelled, and what comes to peers that have ended."""
        heap = self.heap
        while heap:
            _, late, sequence, node, event = heap[0]
            stale = late and self.timers.get((node, event.name), (0, 0))[1] != sequence  # type: ignore[union-attr]
            if not stale and not self._gone(node):
                return
            heapq.heappop(heap)

    def _gone(self, node: int) -> bool:
        """Ended. Where peers start again the others stay after the end, for one that is away just then."""
        return self.peers[node].stopped and not (self.disks and node in self.honest)

    @property
    def over(self) -> bool:
        """Nothing is left to happen to an honest peer, or too much has."""
        if self._over or self.crash or self.now > LIMIT or self.events > MOST_EVENTS:
            return True
        self._prune()
        done = all(self.peers[me].stopped for me in self.honest)
        self._over = not self.away and (done or not self.heap)
        return self._over

    def next_time(self) -> int:
        """When the next thing happens."""
        self._prune()
        times = [self.heap[0][0]] if self.heap else []
        return min((*times, *self.away.values()), default=self.now)

    @property
    def quiet(self) -> bool:
        """Only timers are left."""
        return bool(self.heap) and all(entry[1] for entry in self.heap)

    def go(self) -> None:
        """To the next instant at which a puppet may act: after all that happens at one time, or just before a timer."""
        self._speak()
        if self.over:
            return
        then = self.next_time()
        timed = self.heap and self.heap[0][1] and self.heap[0][0] == then
        if timed and then - self.now > EPSILON:
            self.now = then - EPSILON
            return
        self.now = then
        self._come_back()
        signal.setitimer(signal.ITIMER_VIRTUAL, PATIENCE_S, PATIENCE_S)
        try:
            self.settle()
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0.0)

    def settle(self) -> None:
        """All that happens now."""
        heap = self.heap
        while heap and not self.crash and self.events <= MOST_EVENTS:
            if heap[0][0] > self.now:
                return
            _, late, sequence, node, event = heapq.heappop(heap)
            if late and self.timers.get((node, event.name), (0, 0))[1] != sequence:  # type: ignore[union-attr]
                continue
            if self._gone(node):
                continue
            if self.busy and (busy := self.busy.get(node, 0)) > self.now:
                heapq.heappush(heap, (busy, late, sequence, node, event))
                if late:
                    self.timers[node, event.name] = (busy, sequence)  # type: ignore[union-attr]
                continue
            if node in self.away:
                continue
            if late:
                del self.timers[node, event.name]  # type: ignore[union-attr]
            self.feed(node, event)

    # --- peers ------------------------------------------------------------------------------------------------

    def feed(self, node: int, event: Input) -> None:
        """One input to one peer, and what follows."""
        self.events += 1
        self.marks[node] = self.sequence = self.sequence + 1
        peer, disk = self.peers[node], self.disks.get(node)
        if disk is not None:
            disk.heard(event)
        try:
            outputs = peer.handle(event)
        except Exception as error:
            if node in self.honest:
                last = traceback.extract_tb(error.__traceback__)[-1]
                self.crash = f"peer {node} raised {type(error).__name__} at {last.name}:{last.lineno}: {error}"
            else:
                peer.shared.stopped = True
            return
        if disk is not None:
            disk.keep(peer, outputs)
        for output in outputs:
            self._perform(node, output)

    def _perform(self, node: int, output: Output) -> None:
        match output:
            case SetTimer(name=name, after_s=after_s):
                after = round(after_s * 1_000_000)
                self.timers[node, name] = (self.now + after, self.push(after, node, DeadlinePassed(name)))
            case CancelTimer(name=name):
                self.timers.pop((node, name), None)
            case Say(to=to, body=body):
                self._say(node, to, body)
            case Forward(to=to, messages=messages):
                for signed in messages:
                    self._carry(node, to, MessageArrived(node, signed))
            case Endorse(to=to, endorsed=endorsed):
                self._carry(node, to, ViewArrived(node, endorse(node, endorsed)))
            case SendBulk(to=to, key=key, values_P=values_P):
                self._deliver(node, to, BulkArrived(node, key, values_P))
            case RequestBulk(to=to, key=key):
                self._deliver(node, to, BulkRequested(node, key))
            case RequestTranscript(to=to, step=step, attempt=attempt):
                for peer in to:
                    self._deliver(node, peer, TranscriptRequested(node, step, attempt))
            case SendSnapshot(to=to, snapshot=snapshot):
                for peer in to:
                    self._deliver(node, peer, SnapshotArrived(node, snapshot))
            case ComputeGradient():
                ready = GradientReady(output.purpose, output.step, output.peer,
                                      gradient(output.seed, self.size.peers), 0.0)  # fmt: skip
                if node != self.style.computing:
                    self.push(0, node, ready)
                elif self.style.deaf:
                    self.busy[node] = max(self.now, self.busy.get(node, 0)) + self.style.busy
                    self.push(self.busy[node] - self.now, node, ready)
                    # Before what waits: the real driver feeds the answer first.
                else:
                    self.push(self.style.busy, node, ready)
            case _:
                self._note(node, output)

    def _note(self, node: int, output: Output) -> None:
        match output:
            case PhaseEntered(step=step, attempt=number, phase=name):
                self.place[node] = step, number, Phase[name]
                attempt = self.peers[node].attempt
                if attempt is not None and name == "COMMIT":
                    where = attempt.slot(Phase.COMMIT).where
                    if where not in self.attempts[node]:
                        self.attempts[node].append(where)
            case Disputed(step=step, attempt=number):
                self.disputes[node][step, number] = "open"
            case Resolved(step=step, attempt=number):
                self.disputes[node][step, number] = "resolved"
            case _:
                pass
        if node in self.honest and not isinstance(output, Dropped):
            self.notices.append((self.now, node, output))

    def _deliver(self, sender: int, to: int, event: Input) -> None:
        if sender == to:
            self.push(0, to, event)
        elif sender in self.puppets or to in self.puppets:
            self.push(NEAR, to, event)
        else:
            self.push(self.style.delay(sender, to), to, event)

    def _carry(self, node: int, to: Iterable[int], event: Input) -> None:
        """A puppet passes nothing on of itself: what it forwards is the adversary's choice."""
        for peer in to:
            if node in self.honest or peer in self.puppets:
                self._deliver(node, peer, event)

    def _say(self, node: int, to: tuple[int, ...], body: Body) -> None:
        disk = self.disks.get(node)
        signed = sign(node, body) if disk is None else disk.sign(body)
        event = MessageArrived(node, signed)
        if node in self.honest:
            self.learn(body.slot.where, signed)
            if body.slot.phase in (Phase.SUSPECT, Phase.VIEW, Phase.OUTCOME):
                self.notices.append((self.now, node, f"says {body.slot.phase.name}"))
            for peer in to:
                self._deliver(node, peer, event)
            if isinstance(body, Outcome) and self.style.outcomes == "c":
                self._complete(node, body)
            return
        for peer in to:
            if peer in self.puppets:
                self._deliver(node, peer, event)
        if not isinstance(body, Outcome) or self.style.outcomes == "r":
            self.pool.append(Utterance(node, body, signed, tuple(peer for peer in to if peer in self.honest)))

    def _complete(self, node: int, body: Outcome) -> None:
        """Puppets sign what an honest peer signed, for it and for all who say the same."""
        same = self.outcomes.setdefault((body.slot.where, encode((body.value, body.removals))), set())
        same.add(node)
        for puppet in self.puppets:
            theirs = sign(puppet, replace(body, slot=replace(body.slot, sender=puppet)))
            for peer in same:
                self.push(1, peer, MessageArrived(puppet, theirs))

    def _speak(self) -> None:
        """What puppets have said and nobody changed goes out as an honest peer's would."""
        for said in self.pool:
            if said.fresh:
                said.fresh = False
                self.learn(said.body.slot.where, said.signed)
                for peer in said.waiting:
                    self.push(NEAR, peer, MessageArrived(said.sender, said.signed))
                said.waiting = ()
        self.pool = [said for said in self.pool if said.waiting]

    # --- what a puppet does -----------------------------------------------------------------------------------

    def hold(self, said: Utterance, targets: Iterable[int]) -> None:
        """Some do not get a fresh message now; everybody else does."""
        late = tuple(peer for peer in said.waiting if peer in set(targets))
        if late != said.waiting:
            self.learn(said.body.slot.where, said.signed)
        for peer in said.waiting:
            if peer not in late:
                self.push(NEAR, peer, MessageArrived(said.sender, said.signed))
        said.waiting, said.fresh = late, False

    def learn(self, where: Where, signed: Signed) -> None:
        """A message that somebody honest has sent or been given, for views."""
        self.known.setdefault(where, {})[signed] = None

    def tell(self, puppet: int, targets: Iterable[int], signed: Signed, after: int = 1) -> None:
        """A message to some, at once."""
        for peer in targets:
            self.push(after, peer, MessageArrived(puppet, signed))

    def restart(self, node: int, after: int) -> None:
        """Kill an honest peer; it starts again from its disk."""
        self.heap = [entry for entry in self.heap if entry[3] != node]
        heapq.heapify(self.heap)
        self.timers = {timer: due for timer, due in self.timers.items() if timer[0] != node}
        self.busy.pop(node, None)
        self.away[node] = self.now + after
        self.restarted.add(node)
        # What it lost is asked for and sent again: from signing to handling that is its absence and three deliveries.
        slowest = max(self.style.delay(*link) for peer in self.honest for link in ((peer, node), (node, peer)))
        if after + 3 * slowest > D or self.style.computing == node:
            self.killed.add(node)

    def _come_back(self) -> None:
        for node, when in tuple(self.away.items()):
            if when <= self.now:
                del self.away[node]
                self.peers[node], heard = self.disks[node].revive(self.size)
                self.peers[node].stays = True
                self.named.pop(node, None)
                for event in (Start(), *heard):
                    self.push(0, node, event)
