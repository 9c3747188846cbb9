"""The other driver: all peers in one process, a virtual clock, seeded links. The same seed repeats bit for bit.

Signatures, gradients, rules and messages are the real ones; only the network and the clock are made up.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from torch import Tensor

from btard.node.build import Compute, Node, build_node, fingerprint_of
from btard.node.config import Endpoint, Member, NodeConfig, Role, RunConfig, Secrets
from btard.node.crypto.keys import generate
from btard.node.crypto.signing import verify
from btard.node.drivers.scheduler import ScheduledEvent, Scheduler
from btard.node.errors import LocalProtocolError
from btard.node.genesis.application import apply, vouched
from btard.node.genesis.genesis import genesis_digest
from btard.node.netem.conditions import Conditions
from btard.node.netem.links import LinkModel
from btard.node.netem.network import Network
from btard.node.protocol.api import (
    Applied,
    BulkArrived,
    BulkRequested,
    CancelTimer,
    ComputeGradient,
    DeadlinePassed,
    Dropped,
    Endorse,
    Expelled,
    Finished,
    Forward,
    Halted,
    Input,
    MessageArrived,
    Notice,
    Output,
    PhaseEntered,
    Purpose,
    RequestBulk,
    RequestTranscript,
    Say,
    SendBulk,
    SendSnapshot,
    SetTimer,
    SnapshotArrived,
    Start,
    TimePassed,
    TranscriptRequested,
    ViewArrived,
)
from btard.node.protocol.settings import Decode, Verify
from btard.node.protocol.state.state import parameters_digest
from btard.node.protocol.wire.encoding import decode_body
from btard.node.protocol.wire.messages import Application
from btard.node.training.task import BatchTransform, Task
from btard.node.transport.counters import Counters
from btard.node.transport.envelope import seal

# --- what it counts, shows and takes --------------------------------------------------------------------------


@dataclass(slots=True)
class Traffic:
    """Bytes that left a node for others, by kind."""

    control_bytes: int = 0
    bulk_bytes: int = 0
    publication_bytes: int = 0
    messages: int = 0

    @classmethod
    def of(cls, counters: Counters) -> Traffic:
        """The sums over all receivers."""
        return cls(
            control_bytes=counters.sent_bytes_of("control"),
            bulk_bytes=counters.sent_bytes_of("part") + counters.sent_bytes_of("aggregate"),
            publication_bytes=counters.sent_bytes_of("publication"),
            messages=sum(count for (_, kind), count in counters.sent_messages.copy().items() if kind == "control"),
        )


@dataclass(slots=True)
class Gradients:
    """What a node has computed so far: virtual seconds of all its gradients, the CPU seconds they really took (next to
    none where one was remembered), and the loss of its last own one."""

    seconds: float = 0.0
    cpu_s: float = 0.0
    loss: float = float("nan")


@dataclass(frozen=True, slots=True)
class Observed:
    """An output that the simulator does not perform itself, with the virtual time and the node it came from."""

    time_s: float
    node: int
    output: Output


@dataclass(frozen=True, slots=True)
class Arrival:
    """A newcomer's beginning.

    Args:
        step: in which it begins, once any node has come to it.
        application: what it signed.
        to: members that are handed it.
    """

    step: int
    application: Application
    to: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SimulationControl:
    """What is done to the nodes from outside.

    Args:
        director: knows when.
        played: told of each event, with the virtual time.
        revive: makes a killed node anew, with what it had heard before.
    """

    director: Scheduler
    played: Callable[[float, ScheduledEvent], None]
    revive: Callable[[int], tuple[Node, Sequence[Input]]] | None = None


# --- the simulation -------------------------------------------------------------------------------------------


_AFTERWARDS_S = 1e-9
_HEALED = "links"
"""Name of the simulator's own timer, at which a window of the network's conditions opens or closes."""


_Event = tuple[float, int, int, Input]
"""When, a number of its own (so that inputs are never compared), node and input: tuples are compared at once."""


class Simulation:
    """Runs nodes to their end over a modelled network.

    Args:
        nodes: by id.
        network: when copies of a message arrive, and how that changes.
        compute: gradients; shared by all nodes so that a recomputation of the same gradient can be remembered.
        gradient_s: virtual time that a gradient takes.
        stage: what is done to nodes from outside, if anything is.
        arrivals: newcomers, which begin and apply later.
    """

    def __init__(
        self, nodes: Mapping[int, Node], network: Network, compute: Compute, gradient_s: float = 0.05,
        stage: SimulationControl | None = None, arrivals: Sequence[Arrival] = (),
    ) -> None:  # fmt: skip
        self.nodes = dict(nodes)
        self.now_s = 0.0
        self.counters = {node: Counters() for node in nodes}
        """What each node sent to others, as a transport counts it but for frame headers."""
        self.gradients = {node: Gradients() for node in nodes}
        self.network = network
        self._compute = compute
        self._gradient_s = gradient_s
        self._queue: list[_Event] = []
        self._sequence = 0
        self._steps = dict.fromkeys(nodes, 0)
        self._held: dict[int, list[tuple[int, Input, int]]] = {node: [] for node in nodes}
        self._timers: dict[tuple[int, str], int] = {}
        self._stopped: set[int] = set()
        self._stage = stage
        self._parked: dict[int, list[_Event]] = {}
        self._arrivals = sorted(arrivals, key=lambda each: each.step)

    @property
    def traffic(self) -> dict[int, Traffic]:
        """What each node has sent so far."""
        return {node: Traffic.of(counters) for node, counters in self.counters.items()}

    def stop(self, node: int) -> None:
        """Switch a node off: nothing reaches it any more."""
        self._stopped.add(node)

    def running(self, node: int) -> bool:
        """True until the node is switched off."""
        return node not in self._stopped

    def _play_until(self, stage: SimulationControl, time_s: float) -> None:
        """Play what the clock alone makes due before `time_s`."""
        while self.now_s < (due_s := stage.director.next_s(self.now_s)) < time_s:
            self.now_s = due_s
            self._play(stage)

    def _play(self, stage: SimulationControl) -> None:
        for cue in stage.director.due(self.now_s, max(self._steps[node] for node in self.nodes)):
            for peer in cue.peers:
                match cue.action:
                    case "kill":
                        self.stop(peer)
                    case "restart":
                        self._revive(stage, peer)
                    case "pause":
                        self._parked.setdefault(peer, [])
                    case _:
                        self._unpark(peer)
            stage.played(self.now_s, cue)

    def _revive(self, stage: SimulationControl, node: int) -> None:
        """A killed node begins anew: nothing that was under way to its old self counts, and no timer of it."""
        if stage.revive is None:
            raise LocalProtocolError(f"node {node} is to start again, and nothing was kept of it")
        self.nodes[node], heard = stage.revive(node)
        self._queue = [event for event in self._queue if event[2] != node]
        heapq.heapify(self._queue)
        self._timers = {timer: number for timer, number in self._timers.items() if timer[0] != node}
        self._held[node] = []
        self._stopped.discard(node)
        for event in (Start(), *heard):
            self._push(0.0, node, event)

    def _unpark(self, node: int) -> None:
        """A paused node goes on: what came meanwhile is heard before any deadline, as by a real driver."""
        for _, sequence, _, event in self._parked.pop(node, ()):
            after_s = _AFTERWARDS_S if isinstance(event, DeadlinePassed) else 0.0
            heapq.heappush(self._queue, (self.now_s + after_s, sequence, node, event))

    def step(self, node: int) -> int:
        """The step that a node has entered last."""
        return self._steps[node]

    def run(self, until_s: float = float("inf"), max_events: int = 50_000_000) -> Iterator[Observed]:
        """Yield what the nodes report, in the order of virtual time, until nothing is left to happen.

        Raises:
            LocalProtocolError: more than `max_events` inputs: the nodes keep each other busy for ever.
        """
        later = {arrival.application.peer for arrival in self._arrivals}
        for node in self.nodes:
            if node not in later:
                self._push(0.0, node, Start())
        for _ in range(max_events):
            if self._stage is not None:
                self._play_until(self._stage, self._queue[0][0] if self._queue else until_s)
            if not self._queue or self._queue[0][0] > until_s:
                return
            self.now_s, sequence, node, event = heapq.heappop(self._queue)
            if self._stage is not None:
                self._play(self._stage)
            if node in self._parked:
                self._parked[node].append((self.now_s, sequence, node, event))
                continue
            if node in self._stopped:
                continue
            if isinstance(event, DeadlinePassed):
                if self._timers.get((node, event.name)) != sequence:
                    continue
                del self._timers[(node, event.name)]
                if event.name == _HEALED:
                    self._release(node)
                    continue
            yield from self._feed(node, event)
        raise LocalProtocolError(f"the simulation did not end within {max_events} events")

    def _push(self, after_s: float, node: int, event: Input) -> int:
        self._sequence += 1
        if node not in self._stopped:  # n^3 messages pass the last certificate on, to peers most of which have it
            heapq.heappush(self._queue, (self.now_s + after_s, self._sequence, node, event))
        return self._sequence

    def _feed(self, node: int, event: Input) -> Iterator[Observed]:
        """As a real driver does: what is told, what is kept, and then what is done, of which a disk that fails may keep
        the node."""
        machine = self.nodes[node].machine
        machine.handle(TimePassed(self.now_s))
        outputs = machine.handle(event)
        for output in outputs:
            if isinstance(output, Notice):
                if isinstance(output, PhaseEntered) and output.step != self._steps[node]:
                    self._steps[node] = output.step
                    self._release(node)
                    self._arrive(output.step)
                yield Observed(self.now_s, node, output)
        self.nodes[node].keep()
        for output in outputs:
            if isinstance(output, (Finished, Expelled, Halted, Dropped)):
                yield Observed(self.now_s, node, output)
            elif not isinstance(output, Notice):
                self._perform(node, output)

    def _perform(self, node: int, output: Output) -> None:
        match output:
            case Say():
                self._say(node, output)
            case SendBulk(to=to, key=key, values_P=values_P):
                precision = self.nodes[node].peer.shared.settings.precision.of(key.kind)
                if precision.narrow and to != node:
                    values_P = precision.unpacked(
                        precision.packed(values_P)
                    )  # else an attacker could send what no frame holds
                size_bytes = precision.item_bytes * values_P.numel()
                self._send(node, to, BulkArrived(node, key, values_P), size_bytes)
                if to != node:
                    self.counters[node].sent(to, key.kind.value, size_bytes)
            case Forward(to=to, messages=messages):
                self.nodes[node].secure()
                for signed in messages:
                    self._control(node, to, MessageArrived(node, signed), seal(signed))
            case Endorse(to=to, endorsed=endorsed):
                more = self.nodes[node].endorse(endorsed)
                self.nodes[node].secure()
                self._control(node, to, ViewArrived(node, more), seal(more))
            case RequestBulk(to=peer, key=key):
                self._control(node, (peer,), BulkRequested(node, key), seal(key))
            case RequestTranscript(to=to, step=step, attempt=attempt):
                self._control(node, to, TranscriptRequested(node, step, attempt), seal(output))
            case SendSnapshot(to=to, snapshot=snapshot):
                self.nodes[node].secure()
                self._control(node, to, SnapshotArrived(node, snapshot), seal(snapshot))
            case ComputeGradient():
                self._gradient(node, output)
            case SetTimer(name=name, after_s=after_s):
                self._timers[(node, name)] = self._push(after_s, node, DeadlinePassed(name))
            case CancelTimer(name=name):
                self._timers.pop((node, name), None)

    def _arrive(self, step: int) -> None:
        """Whose step has come begins, and its application is handed to members."""
        while self._arrivals and self._arrivals[0].step <= step:
            arrival = self._arrivals.pop(0)
            self._push(0.0, arrival.application.peer, Start())
            for member in arrival.to:
                self._push(0.0, member, Applied(arrival.application))

    def _gradient(self, node: int, wanted: ComputeGradient) -> None:
        done, cpu_s = self.gradients[node], time.thread_time()
        ready = self.nodes[node].compute(wanted, self._compute)
        done.cpu_s += time.thread_time() - cpu_s
        done.seconds += self._gradient_s
        if wanted.purpose is Purpose.OWN:
            done.loss = ready.loss
        self._push(self._gradient_s, node, ready)

    def _say(self, node: int, say: Say) -> None:
        signed = self.nodes[node].sign(say.body)
        self.nodes[node].secure()
        self._control(node, say.to, MessageArrived(node, signed), seal(signed))

    def _control(self, node: int, to: tuple[int, ...], event: Input, frame: bytes) -> None:
        for peer in to:
            self._send(node, peer, event, len(frame))
            if peer != node:
                self.counters[node].sent(peer, "control", len(frame))

    def _send(self, node: int, to: int, event: Input, size_bytes: int) -> None:
        if to == node:
            self._push(0.0, to, event)
            return
        crossing = self.network.send(node, to, size_bytes, self.now_s, self._steps[node])
        if crossing is None:
            self._hold(node, to, event, size_bytes)
            return
        tally = self.network.tally((node, to))
        for passage in crossing:
            tally.arrived(passage, size_bytes, 0.0)
            self._push(passage.total_s, to, event)

    def _hold(self, node: int, to: int, event: Input, size_bytes: int) -> None:
        """Keep a message until its link is whole again: looked at when a window of time ends, or the sender's step."""
        self.network.tally((node, to)).held += 1
        self._held[node].append((to, event, size_bytes))
        edge_s = self.network.next_edge_s(self.now_s)
        if edge_s < float("inf") and (node, _HEALED) not in self._timers:
            self._timers[(node, _HEALED)] = self._push(edge_s - self.now_s, node, DeadlinePassed(_HEALED))

    def _release(self, node: int) -> None:
        held, self._held[node] = self._held[node], []
        for to, event, size_bytes in held:
            self._send(node, to, event, size_bytes)


# --- what nodes of one process compute once: pure functions ---------------------------------------------------


def remembering(verify: Verify) -> Verify:
    """A signature check that remembers its last answers: all nodes of a simulation check the same messages."""
    return lru_cache(maxsize=4096)(verify)


def remembering_bodies() -> Decode:
    """`decode_body` that remembers its last results: what n nodes keep of one message is one object, not n."""
    return lru_cache(maxsize=4096)(decode_body)


def remembering_gradients(task: Task, keep: int = 64) -> Compute:
    """Task.gradient that remembers honest results: a validator recomputes what a contributor has computed, and the
    function is pure, so the bits are the same."""
    known: dict[tuple[bytes, bytes], tuple[Tensor, float]] = {}

    def compute(parameters_D: Tensor, seed: bytes, transform: BatchTransform | None) -> tuple[Tensor, float]:
        if transform is not None:
            return task.gradient(parameters_D, seed, transform)
        key = (parameters_digest(parameters_D), seed)
        if key not in known:
            while len(known) >= keep:
                known.pop(next(iter(known)))
            known[key] = task.gradient(parameters_D, seed)
        return known[key]

    return compute


# --- a cluster ------------------------------------------------------------------------------------------------


def cluster(
    run: RunConfig,
    task: Task,
    roles: Mapping[int, Role] | None = None,
    protocol_seed: int = 0,
    links: LinkModel | None = None,
    run_id: str = "simulated",
    conditions: Conditions | None = None,
    newcomers: Mapping[int, int] | None = None,
) -> Simulation:
    """A whole simulated cluster, wired as the real one is.

    Args:
        run: what all peers agree on.
        task: shared by all nodes.
        roles: of the Byzantine nodes, by id.
        protocol_seed: of keys and secrets; the same one as a real run's gives the same randomness.
        links: the network.
        conditions: what changes it, and when: what a real run's processes put on top of their sockets.
        newcomers: by id, the step in which each begins and applies to everybody; founder `id mod peers` vouches for it.
    """
    identities, secrets = generate(protocol_seed, run.capacity)
    members, arriving = identities[: run.peers], dict(newcomers or {})
    check, print_ = remembering(verify), fingerprint_of(run, task)
    compute, decode = remembering_gradients(task), remembering_bodies()
    nodes = {}
    for member, secret in zip(identities, secrets, strict=True):
        if member.id >= run.peers and member.id not in arriving:
            continue
        role = (roles or {}).get(member.id)
        config = NodeConfig(run_id, member.id, run, members, "", "", "", role=role)
        nodes[member.id] = build_node(config, secret, task, print_, check, compute, decode=decode)
    arrivals = [
        Arrival(step, application(run_id, run, members, secrets, peer), tuple(range(run.peers)))
        for peer, step in sorted(arriving.items())
    ]
    return Simulation(nodes, Network(links or LinkModel(), conditions), compute, arrivals=arrivals)


def application(
    run_id: str, run: RunConfig, members: Sequence[Member], secrets: Sequence[Secrets], peer: int
) -> Application:
    """A simulated newcomer's application; where the roster is sponsored, founder `peer mod peers` vouches for it."""
    genesis, founder = genesis_digest(run_id, run, members), peer % run.peers
    plain = apply(genesis, peer, secrets[peer], Endpoint("simulated", "simulated"))
    return vouched(genesis, founder, secrets[founder], plain) if run.roster == "sponsored" else plain
