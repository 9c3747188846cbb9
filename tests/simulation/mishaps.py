"""What befalls honest peers in a composed run: kills and restarts at any instant, disks that lose, tear, flip and run
full, and strangers at the door."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch

from btard.node.build import Node, build_node, fingerprint_of, optimiser_of
from btard.node.config import NodeConfig
from btard.node.crypto.keys import generate
from btard.node.crypto.signing import Signer, verify
from btard.node.drivers.scheduler import Scheduler
from btard.node.drivers.simulator import SimulationControl as Outside
from btard.node.drivers.simulator import remembering
from btard.node.errors import BackendError, CheckpointError
from btard.node.genesis.genesis import genesis_digest, genesis_roster
from btard.node.netem.conditions import Conditions
from btard.node.protocol.api import (
    BulkArrived,
    BulkKey,
    BulkKind,
    BulkRequested,
    Input,
    MessageArrived,
    SnapshotArrived,
    TranscriptRequested,
    ViewArrived,
)
from btard.node.protocol.state.state import Resumption
from btard.node.protocol.state_sync.messages import snapshot_of
from btard.node.protocol.wire.encoding import encode_body, signing_bytes
from btard.node.protocol.wire.messages import Body, Commit, Endorsed, Hello, Join, Phase, Signed, Slot, View
from btard.node.storage.checkpointer import Checkpointer
from btard.node.storage.disk import Disk
from tests.simulation.hooked import Hooked
from tests.simulation.lies import LIES
from tests.simulation.stage import RUN_ID, Stage
from tests.storage_faults import FaultyDisk, PowerLoss, flip

FATES = ("kill", "power", "power in a write", "full", "flip")
"""How an honest peer goes: its process is killed; the machine loses power, and what was not synced is lost or torn; it
does so within a write; its disk is full; a bit flips while it is away."""

_CALLS = 25
"""Within how many calls of the disk power is lost or the disk full."""


@dataclass(frozen=True, slots=True)
class Blow:
    """One end of one honest peer.

    Args:
        at_s: virtual time.
        fate: one of FATES.
        away_s: until it starts again.
    """

    at_s: float
    fate: str
    away_s: float


class _Keeper(Checkpointer):
    """A keeper that notes when each checkpoint was written, by the virtual clock."""

    def __init__(self, directory: Path, stage: Stage, me: int, disk: Disk, saved: dict[tuple[int, int], float]) -> None:
        members, _ = generate(stage.protocol_seed, stage.run.peers)
        super().__init__(
            directory, genesis_digest(RUN_ID, stage.run, members), me, fingerprint_of(stage.run, stage.task), disk
        )
        self._stage, self._instants = stage, saved

    def save(self, at: Resumption, own: bool = False) -> None:
        super().save(at, own)
        self._instants[at.state.step, at.number] = self._stage.simulation.now_s


class Restarts:
    """Honest peers with a memory on a disk of their own, that are killed and start again from it.

    Args:
        stage: of the run, whose simulation is a Hooked one.
        seed: of what a crash leaves.
        blows: by peer.
    """

    def __init__(self, stage: Stage, seed: int, blows: dict[int, tuple[Blow, ...]]) -> None:
        assert isinstance(stage.simulation, Hooked)
        self._stage, self._simulation, self._blows = stage, stage.simulation, blows
        self._chance = random.Random(seed)
        self._check = remembering(verify)
        self._where = Path()
        self._lives = dict.fromkeys(blows, 0)
        self._saved: dict[int, dict[tuple[int, int], float]] = {peer: {} for peer in blows}
        self._keepers: dict[int, Checkpointer] = {}
        self._disks: dict[int, FaultyDisk] = {}
        self._reach: dict[int, int] = {}
        """The step that a peer's memory brought it back to."""
        self._falling: dict[int, Blow] = {}
        """Blows that wait for a call of the disk."""
        self._simulation.setting_out.append(self._begin)
        self._simulation.failures = (PowerLoss, BackendError)
        self._simulation.on_failure = self._failed

    def _begin(self) -> Callable[[], None]:
        folder = tempfile.TemporaryDirectory(prefix="btard-composed-")
        self._where = Path(folder.name)
        for peer, blows in self._blows.items():
            self._folder(peer).mkdir(parents=True)
            self._simulation.nodes[peer], _ = self._make(peer)
            for blow in blows:
                self._simulation.at(blow.at_s, lambda peer=peer, blow=blow: self._strike(peer, blow))  # type: ignore[misc]

        def end() -> None:
            for checkpointer in self._keepers.values():
                checkpointer.close()
            folder.cleanup()

        return end

    def _folder(self, peer: int) -> Path:
        return self._where / f"{peer}-{self._lives[peer]}"

    # --- ends -----------------------------------------------------------------------------------------------------

    def _strike(self, peer: int, blow: Blow) -> None:
        if not self._simulation.running(peer) or peer in self._falling or self._simulation.nodes[peer].peer.stopped:
            return
        disk = self._disks[peer]
        if blow.fate in ("power in a write", "full"):
            self._falling[peer] = blow
            call = disk.calls + self._chance.randint(1, _CALLS)
            disk._crash_at, disk._full_at = (call, -1) if blow.fate == "power in a write" else (-1, call)
            return
        self._fall(peer, blow)

    def _failed(self, peer: int, failure: BaseException) -> None:
        blow = self._falling.pop(peer, None)
        if blow is None:
            raise failure
        self._fall(peer, blow)

    def _fall(self, peer: int, blow: Blow) -> None:
        """The peer is gone; what its disk has of it becomes its next life's."""
        self._simulation.stop(peer)
        self._simulation.moves[f"restart: {blow.fate}"] += 1
        before, disk = self._folder(peer), self._disks[peer]
        self._keepers.pop(peer).close()
        if "power" in blow.fate:
            left = disk.left()
        else:
            left = {path.name: path.read_bytes() for path in before.iterdir() if path.name != "lock"}
        self._lives[peer] += 1
        after = self._folder(peer)
        after.mkdir()
        for name, data in left.items():
            (after / name).write_bytes(data)
        spoilt = flip(after, self._chance) if blow.fate == "flip" else None
        self._simulation.at(blow.away_s, lambda: self._rise(peer, spoilt))

    # --- starts ---------------------------------------------------------------------------------------------------

    def _rise(self, peer: int, spoilt: tuple[Path, bytes] | None) -> None:
        def revive(_: int) -> tuple[Node, list[Input]]:
            try:
                made = self._make(peer)
            except CheckpointError:
                if spoilt is None:
                    raise  # a loss of power alone must not keep a node off
            else:
                if self._reach[peer] >= max(self._saved[peer], default=(0, 0))[0] - 1:
                    return made
                # It goes back behind what others still tell it: cut off, and no honest peer's fate any more.
                assert spoilt is not None, "a loss of power alone must not throw a node back"
                self._keepers.pop(peer).close()
            self._simulation.moves["restart: damage refused, the file put back"] += 1
            spoilt[0].write_bytes(spoilt[1])
            return self._make(peer)

        self._simulation.again.add(peer)
        self._simulation._revive(Outside(Scheduler(Conditions()), lambda now_s, cue: None, revive), peer)

    def _make(self, peer: int) -> tuple[Node, list[Input]]:
        """A node, from where its memory says that it was."""
        stage = self._stage
        members, secrets = generate(stage.protocol_seed, stage.run.peers)
        disk = FaultyDisk(self._folder(peer), self._chance)
        checkpointer = _Keeper(self._folder(peer), stage, peer, disk, self._saved[peer])
        update = optimiser_of(stage.run, stage.task.dimension, stage.task.layout)
        try:
            at = checkpointer.newest(genesis_roster(members), update)
            heard = checkpointer.recall(*((at.state.step, at.number) if at is not None else (0, 0)))
        except CheckpointError:
            checkpointer.close()
            raise
        self._disks[peer], self._keepers[peer] = disk, checkpointer
        self._reach[peer] = at.state.step if at is not None else 0
        print_ = fingerprint_of(stage.run, stage.task)
        config = NodeConfig(RUN_ID, peer, stage.run, members, "", "", "")
        compute = self._simulation._compute
        node = build_node(config, secrets[peer], stage.task, print_, self._check, compute, checkpointer)
        if at is not None:
            saved_s = self._saved[peer].get((at.state.step, at.number), 0.0)
            node.restore(at, self._simulation.now_s - saved_s)
        return node, heard


STRANGERS = (
    "message",
    "forged message",
    "hello",
    "join",
    "lesson",
    "lying lesson",
    "bulk",
    "view",
    "request",
    "recall",
)
"""What comes from whom nobody knows."""


class Strangers:
    """Messages of unknown senders, over lines that nobody knows and over those of attackers.

    Args:
        stage: of the run, whose simulation is a Hooked one.
        dice: draws what comes when.
        instants_s: when.
    """

    def __init__(self, stage: Stage, dice: Random, instants_s: list[float]) -> None:
        assert isinstance(stage.simulation, Hooked)
        self._stage, self._dice, self._simulation = stage, dice, stage.simulation
        self._signer = Signer(dice.getrandbits(256).to_bytes(32, "little"))
        for instant_s in instants_s:
            self._simulation.setting_out.append(lambda instant_s=instant_s: self._schedule(instant_s))  # type: ignore[misc]

    def _schedule(self, instant_s: float) -> Callable[[], None]:
        self._simulation.at(instant_s, self._come)
        return lambda: None

    def _come(self) -> None:
        what, to = self._dice.choice(STRANGERS), self._dice.choice(self._stage.honest)
        peers = self._stage.run.peers
        via = self._dice.choice((peers + self._dice.randint(0, 3), *self._stage.roles))
        event = self._event(what, via, to)
        if event is None or not self._simulation.running(to):
            return
        self._simulation.moves[f"stranger: {what}"] += 1
        self._simulation.recalls[to] += what == "recall"
        for puppet in self._stage.roles:  # its line carries what it should not
            if via == puppet:
                attacked = self._stage.adversary(puppet).attacked
                attacked[:] = sorted({*attacked, self._simulation.step(puppet)})
        self._simulation.hand(to, event)

    def _signed(self, body: Body) -> Signed:
        data = encode_body(body)
        return Signed(data, self._signer.sign(signing_bytes(body, data)))

    def _event(self, what: str, via: int, to: int) -> Input | None:
        dice, peer, peers = self._dice, self._simulation.nodes[to].peer, self._stage.run.peers
        if peer.attempt is None:
            return None
        attempt, nobody, junk = peer.attempt, peers + dice.randint(0, 300), dice.randbytes(32)
        member = dice.choice(self._stage.honest)
        slot = attempt.slot(Phase.COMMIT)
        ahead = Slot(slot.run, slot.roster, slot.step + dice.randint(0, 2), slot.attempt, Phase.COMMIT, nobody)
        match what:
            case "message":
                return MessageArrived(via, self._signed(Commit(ahead, (), (), junk)))
            case "forged message":
                return MessageArrived(via, self._signed(Commit(attempt.slot(Phase.COMMIT, member), (), (), junk)))
            case "hello":
                hello = Slot(slot.run, slot.roster, 0, 0, Phase.HELLO, dice.choice((nobody, member)))
                return MessageArrived(via, self._signed(Hello(hello, (), junk, junk)))
            case "join":
                return MessageArrived(via, self._signed(Join(attempt.slot(Phase.JOIN, nobody), (), junk)))
            case "lesson" | "lying lesson":
                if attempt.state.certified is None:
                    return None
                snapshot = snapshot_of(attempt.state, peer.past.record() if peer.past is not None else None)
                if what == "lying lesson":
                    snapshot = LIES[dice.choice(sorted(LIES))](snapshot, self._signer, nobody)
                return SnapshotArrived(via, snapshot)
            case "bulk":
                key = BulkKey(slot.step, slot.attempt, dice.choice(list(BulkKind)), nobody, dice.randint(0, 2 * peers))
                return BulkArrived(via, key, torch.full((dice.randint(1, 64),), float("nan")))
            case "view":
                view = View(attempt.slot(Phase.VIEW, member), (), (self._signed(Commit(ahead, (), (), junk)),))
                signed = self._signed(view)
                return ViewArrived(via, Endorsed(signed, ((nobody, signed.signature), (member, signed.signature))))
            case "request":
                return BulkRequested(via, BulkKey(slot.step, 0, dice.choice(list(BulkKind)), nobody, -1))
            case _:
                return TranscriptRequested(via, slot.step + dice.randint(-2, 2), dice.randint(0, 3))
