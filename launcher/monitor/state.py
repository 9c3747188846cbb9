"""What the launcher knows of a running cluster: the nodes' journals, folded record by record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import msgspec

Record: TypeAlias = Mapping[str, Any]
"""One journal line: time, node, event and the event's own fields."""


UNFINISHED = ("starting", "bound", "ready", "training")
"""What a node that was stopped says of itself last."""

_MOST_BYTES = 1 << 53
"""What a node says of itself may be any number; sums of these fit into JSON."""


@dataclass(frozen=True, slots=True)
class Commit:
    """One node's view of one committed step."""

    contributors: tuple[int, ...]
    active: tuple[int, ...]
    seconds: float
    loss: float | None
    parameter_digest: str
    state_digest: str


class Ban(msgspec.Struct, frozen=True):
    """A certified verdict as an honest node recorded it; `evidence` is the file, relative to the run directory.

    `standing` says what it makes of the peer: banned (proven guilt), gone (silent) or eliminated (one of a pair that
    cannot both be honest).
    """

    step: int
    peer: int
    reason: str
    accuser: int | None
    removed: bool
    standing: str
    evidence: str = msgspec.field(name="path")
    evidence_digest: str = msgspec.field(name="evidence")
    attempt: int = 0


class Undoing(msgspec.Struct, frozen=True):
    """One undo step: whose contributions were recomputed, which (step, peer) were false, before which step's parameters
    stand again (None: nothing was undone), how many steps with gradients that costs, and whether the first lie may be
    older than the window."""

    step: int
    suspects: tuple[int, ...]
    lies: tuple[tuple[int, int], ...]
    to_step: int | None
    lost: int
    older: bool


@dataclass(slots=True)
class Bytes:
    """What one node has sent since it started."""

    bulk: int = 0
    control: int = 0
    publication: int = 0

    def plus(self, other: Bytes) -> Bytes:
        """Both together."""
        kinds = (self.bulk + other.bulk, self.control + other.control, self.publication + other.publication)
        return Bytes(*(min(count, _MOST_BYTES) for count in kinds))

    @property
    def total(self) -> int:
        """All of it."""
        return self.bulk + self.control + self.publication


class Return(msgspec.Struct, frozen=True):
    """A peer that was gone is back after `step`, after its probation; `evidence` is the certificate's file."""

    step: int
    peer: int
    evidence: str


@dataclass(slots=True)
class NodeState:
    """One row of the live view; `out` is the standing of a node outside the roster, whatever its process still does."""

    node: int
    state: str = "starting"
    out: str | None = None
    step: int = -1
    loss: float | None = None
    accuracy: float | None = None
    sent: Bytes = field(default_factory=Bytes)
    sent_before: Bytes = field(default_factory=Bytes)
    problem: str | None = None
    finished: bool = False
    parameter_digest: str | None = None
    exit_code: int | None = None


@dataclass(slots=True)
class RunState:
    """The whole run so far.

    Args:
        peers: number of nodes that the run starts with.
        byzantine: the launcher's knowledge of who attacks; only honest nodes' words on bans count.
        capacity: ids are below it: newcomers have those from `peers` on. One is a node where its own journal is: a
            launcher's run has none, since their owners start them.

    `attacked` holds the steps at which attackers say they acted: they score themselves, they decide nothing.
    `happened` lists the events of the scenario, `killed` and `paused` who is away because of it; `links` holds each
    direction's last figures where the network is modelled.
    `returned` holds the peers that were gone and have been let back, with the last step before that.
    `undone` holds undo steps by their number.
    `numberless` holds (step, node) of honest contributions whose loss is no number.
    `bans` are keyed by (step, peer): under `--on-ban reform` a peer that stays may be banned again.
    """

    peers: int
    byzantine: frozenset[int] = frozenset()
    capacity: int = 0
    nodes: dict[int, NodeState] = field(init=False)
    commits: dict[int, dict[int, Commit]] = field(default_factory=dict)
    slices: dict[int, dict[int, tuple[int, int]]] = field(default_factory=dict)
    bans: dict[tuple[int, int], Ban] = field(default_factory=dict)
    attacked: dict[int, frozenset[int]] = field(default_factory=dict)
    returned: dict[int, Return] = field(default_factory=dict)
    voided: int = 0
    undone: dict[int, Undoing] = field(default_factory=dict)
    links: dict[tuple[int, int], Record] = field(default_factory=dict)
    happened: list[Record] = field(default_factory=list)
    killed: set[int] = field(default_factory=set)
    paused: set[int] = field(default_factory=set)
    numberless: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.nodes = {node: NodeState(node) for node in range(self.peers)}

    @property
    def step(self) -> int:
        """The last step that some honest node committed; -1 before the first."""
        return max((self.nodes[node].step for node in self.nodes if node not in self.byzantine), default=-1)

    @property
    def honest(self) -> tuple[int, ...]:
        """Ids of the honest nodes."""
        return tuple(node for node in self.nodes if node not in self.byzantine)

    def apply(self, record: Record) -> None:
        """Fold one journal record in; records of unknown events or nodes change nothing."""
        if record["event"] == "scenario":
            self._played(record)
            return
        node = self._node(record["node"])
        if node is None:
            return
        match record["event"]:
            case "bound":
                node.state = "bound"
            case "greeted":
                node.state = "ready"
            case "resumed":
                node.state, node.problem, node.exit_code = "ready", None, None
                node.sent_before = node.sent
            case "committed":
                self._commit(node, record)
            case "evaluated":
                node.accuracy = record["correct"] / max(record["count"], 1)
                self.slices.setdefault(record["step"], {})[node.node] = (record["correct"], record["count"])
            case "banned":
                self._ban(node, record)
            case "probation" if node.node not in self.byzantine:
                self._probation(record)
            case "returned" if node.node not in self.byzantine:
                self._return(record)
            case "entered" if node.node not in self.byzantine:
                self._enter(int(record["peer"]))
            case "rejoining":
                node.state, node.step = "on probation", int(record["step"]) - 1
            case "links":
                self.links[node.node, int(record["peer"])] = record
            case "attacked":
                self.attacked[node.node] = frozenset(record["steps"])
            case "expelled":
                node.state = "expelled"
            case "voided":
                self.voided += node.node == self.honest[0] if self.honest else 0
            case "undone" if node.node not in self.byzantine:
                self.undone.setdefault(int(record["step"]), msgspec.convert(record, Undoing))
            case "halted":
                node.state, node.problem = "halted", str(record["problem"])
            case "failed":
                node.state, node.problem = "failed", str(record["error"])
            case "finished":
                self._finish(node, record)

    def accuracy(self) -> list[tuple[int, float]]:
        """(step, test accuracy) of each evaluation whose slices cover the whole test set."""
        slices = {step: self._plausible(each) for step, each in sorted(self.slices.items())}
        totals = {step: (sum(c for c, _ in each), sum(n for _, n in each)) for step, each in slices.items() if each}
        whole = max((count for _, count in totals.values()), default=0)
        return [(step, correct / count) for step, (correct, count) in totals.items() if count == whole and count > 0]

    def _plausible(self, slices: Mapping[int, tuple[int, int]]) -> list[tuple[int, int]]:
        """An evaluation's slices. They differ by one at most, so an attacker's counts only where an honest node's is
        as large; how many answers in it are correct is its own word."""
        most = max((count for node, (_, count) in slices.items() if node not in self.byzantine), default=0) + 1
        trusted = set(self.honest) or set(slices)
        return [each for node, each in slices.items() if node in trusted or each[1] <= most]

    def commit(self, step: int) -> Commit | None:
        """What the first honest node that committed `step` recorded; any node's where all attack."""
        views = self.commits.get(step, {})
        known = [node for node in self.honest if node in views] or ([] if self.honest else sorted(views))
        return views[known[0]] if known else None

    @property
    def first_bans(self) -> dict[int, Ban]:
        """The first ban of each banned peer."""
        return {peer: self.bans[step, peer] for step, peer in sorted(self.bans, reverse=True)}

    def _node(self, node: object) -> NodeState | None:
        """Whose record it is, a newcomer's too; None: nobody's, as the launcher's own are."""
        if not isinstance(node, int):
            return None
        if self.peers <= node < self.capacity:
            self.nodes.setdefault(node, NodeState(node, out="newcomer"))
        return self.nodes.get(node)

    def _enter(self, peer: int) -> None:
        """An honest node's word that a newcomer's probation has begun."""
        node = self.nodes.get(peer)
        if node is not None and peer not in self.returned:
            node.out = "on probation"

    def _played(self, record: Record) -> None:
        """Something happened from outside."""
        self.happened.append(record)
        match record["action"]:
            case "kill":
                self.killed.update(record["peers"])
            case "restart":
                self.killed.difference_update(record["peers"])
            case "pause":
                self.paused.update(record["peers"])
            case "continue":
                self.paused.difference_update(record["peers"])
            case _:
                return
        for peer in record["peers"]:
            self.nodes[peer].state = {"kill": "killed", "pause": "paused", "restart": "starting"}.get(
                record["action"], "training"
            )

    def _commit(self, node: NodeState, record: Record) -> None:
        step = int(record["step"])
        # In its first step after a start a node may not know the loss: another process computed it.
        known = node.state == "training" and node.node not in self.byzantine
        if known and record["loss"] is None and node.node in record["contributors"]:
            self.numberless.append((step, node.node))
        node.state = "training"
        node.step, node.loss = step, record["loss"] if record["loss"] is not None else node.loss
        self._count(node, record)
        self.commits.setdefault(step, {})[node.node] = msgspec.convert(record, Commit)

    def _ban(self, witness: NodeState, record: Record) -> None:
        peer = int(record["peer"])
        step = int(record["step"])
        if witness.node in self.byzantine or (step, peer) in self.bans:
            return
        self.bans[step, peer] = msgspec.convert(record, Ban)
        if peer in self.nodes and record["removed"]:
            self.nodes[peer].out = record["standing"]

    def _probation(self, record: Record) -> None:
        """An honest node's word that a gradient of a peer that was gone is the right one."""
        node = self.nodes.get(int(record["peer"]))
        if node is not None and node.out == "gone":
            node.out = "on probation"

    def _return(self, record: Record) -> None:
        peer = int(record["peer"])
        node = self.nodes.get(peer)
        if node is not None and peer not in self.returned:
            self.returned[peer] = Return(int(record["step"]), peer, record["path"])
            node.out = None

    def _finish(self, node: NodeState, record: Record) -> None:
        node.finished = True
        node.state = "finished"
        node.parameter_digest = record["parameter_digest"]
        self._count(node, record)

    @staticmethod
    def _count(node: NodeState, record: Record) -> None:
        own = Bytes(record["bulk_bytes"], record["control_bytes"], record["publication_bytes"])
        node.sent = own.plus(node.sent_before)


def undo_line(undone: Undoing) -> str:
    """An undo step in words."""
    peers = ", ".join(str(peer) for peer in undone.suspects)
    text = f"what peer{'' if len(undone.suspects) == 1 else 's'} {peers} had contributed was recomputed: "
    if undone.to_step is None:
        return text + "nothing was false, and nothing is undone"
    lost = f"{undone.lost} step{'' if undone.lost == 1 else 's'} lost"
    text += f"{len(undone.lies)} false; the parameters before step {undone.to_step} stand again, {lost}"
    return text + ("; the first lie may be older than the window" if undone.older else "")
