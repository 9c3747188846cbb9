"""A node that loses power at each write of a short history, over and over, on a disk that keeps of what was not synced
what it likes; that meets full disks and flipped bits; and that must never contradict what has left it.

    python -m tests.storage_faults --crashes 10000

The node, its driver, its memory and its signatures are the real ones. Made up are the disk's contents after a crash,
the clock, and the network: what the others say is played back from simulated runs, in each life from another one, so
that a node that has forgotten what it said says something else. What has left is judged by code of this file alone.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, cast

import msgspec
import nacl.signing

from btard.node.build import Node, build_node, optimiser_of, task_of
from btard.node.config import NodeConfig, Plugin, Role, RunConfig, Schedule
from btard.node.crypto.keys import generate
from btard.node.crypto.signing import verify
from btard.node.drivers.computing import Computing
from btard.node.drivers.realtime import Driver
from btard.node.drivers.simulator import Simulation, remembering, remembering_gradients
from btard.node.errors import BackendError, CheckpointError
from btard.node.genesis.genesis import genesis_digest, genesis_roster
from btard.node.netem.links import LinkModel
from btard.node.netem.network import Network
from btard.node.protocol.api import BulkArrived, Input, MessageArrived, Output, Say, ViewArrived
from btard.node.storage.checkpointer import Checkpointer
from btard.node.storage.disk import Disk
from btard.node.training.environment import fingerprint, pin
from btard.node.transport.arrivals import Arrival, BulkArrival, ControlArrival
from btard.node.transport.envelope import seal
from btard.node.transport.transport import Transport
from tests.ledgers import parts

RUN = RunConfig(peers=4, task=Plugin("quadratic"), steps=3, batch_size=4)
ME, OTHER = 0, 3
RUN_ID = "power"
HISTORIES = (None, "sign_flip", "equivocate", "lie_checksum", "withhold_part", "stall")
"""What the last peer does in the run that is played back; in the first, nothing."""
SECTOR = 512
_IDLE_POLLS = 4
_LONGEST_S = 600.0
_CHECK = remembering(verify)


class PowerLoss(BaseException):
    """The machine stops here."""


# --- the disk -----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Content:
    """A file, whatever its names: what the disk has of it, and what a reader sees."""

    durable: bytes = b""
    live: bytearray = field(default_factory=bytearray)


class FaultyDisk(Disk):
    """Files in a directory, as the node sees them, and what would be left of them if the power went now.

    Args:
        directory: where they are; what lies there is durable.
        chance: draws what a crash leaves.
        crash_at: the call during which the power goes; -1: never.
        full_at: the call from which on the disk is full; -1: never.
        ignores: what a lying disk does not do: "sync", "directory".
    """

    def __init__(
        self, directory: Path, chance: random.Random, crash_at: int = -1, full_at: int = -1, ignores: str = ""
    ) -> None:
        super().__init__()
        self.calls = 0
        self._chance, self._crash_at, self._full_at, self._ignores = chance, crash_at, full_at, ignores
        self._directory = directory
        self._names: dict[str, _Content] = {}
        for path in directory.iterdir() if directory.exists() else ():
            if path.name != "lock":
                data = path.read_bytes()
                self._names[path.name] = _Content(data, bytearray(data))
        self._durable_names = dict(self._names)
        self._renames: list[Callable[[dict[str, _Content]], None]] = []
        self._open: dict[int, _Content] = {}

    def open(self, path: str, mode: int = 0o600) -> int:
        self._call()
        name = Path(path).name
        if name not in self._names:
            content = _Content()
            self._name(lambda names: names.__setitem__(name, content))
        file = super().open(path, mode)
        self._open[file] = self._names[name]
        return file

    def write(self, file: int, *pieces: bytes | memoryview) -> None:
        content, data = self._open[file].live, b"".join(map(bytes, pieces))
        place = os.lseek(file, 0, os.SEEK_CUR)
        try:
            self._call()
        except (PowerLoss, OSError):
            data = data[: self._chance.randint(0, len(data))]  # the kernel had got so far
            content[place : place + len(data)] = data
            super().write(file, data)
            raise
        content[place : place + len(data)] = data
        super().write(file, data)

    def truncate(self, file: int, size: int) -> None:
        self._call()
        content = self._open[file].live
        del content[size:]
        content.extend(bytes(size - len(content)))
        super().truncate(file, size)

    def sync(self, file: int) -> None:
        self._call()
        if self._ignores != "sync":
            content = self._open[file]
            content.durable = bytes(content.live)
        self._call()

    def replace(self, old: str, new: str) -> None:
        self._call()
        before, after = Path(old).name, Path(new).name
        content = self._names[before]

        def renamed(names: dict[str, _Content]) -> None:
            names.pop(before, None)
            names[after] = content

        self._name(renamed)
        super().replace(old, new)

    def remove(self, path: str) -> None:
        with contextlib.suppress(OSError):
            self._call()
        name = Path(path).name
        self._name(lambda names: names.pop(name, None))
        super().remove(path)

    def sync_directory(self, path: Path) -> None:
        if path != self._directory:  # those above it are made by whoever sets up the run
            return
        self._call()
        if self._ignores not in ("sync", "directory"):
            self._durable_names, self._renames = dict(self._names), []
        self._call()

    def close(self, file: int) -> None:
        self._open.pop(file, None)
        super().close(file)

    def left(self) -> dict[str, bytes]:
        """What the disk has after the crash: of names and sectors that were not synced, some."""
        names = dict(self._durable_names)
        if self._chance.random() < 0.5:  # in order, as a journal has them
            done = self._renames[: self._chance.randint(0, len(self._renames))]
        else:
            done = [change for change in self._renames if self._chance.random() < 0.5]
        for change in done:
            change(names)
        kept: dict[int, bytes] = {}
        for content in names.values():
            if id(content) not in kept:
                kept[id(content)] = self._torn(content)
        return {name: kept[id(content)] for name, content in names.items()}

    def _torn(self, content: _Content) -> bytes:
        old, new = content.durable, bytes(content.live)
        if old == new or self._chance.random() < 0.3:
            return old
        lengths = [len(old), len(new), *range(min(len(old), len(new)), max(len(old), len(new)), SECTOR)]
        length = self._chance.choice(lengths)
        share = self._chance.choice((0.0, 0.1, 0.5, 0.9, 1.0))
        sectors = []
        for start in range(0, length, SECTOR):
            source = new if self._chance.random() < share else old
            sectors.append(source[start : start + SECTOR].ljust(SECTOR, b"\0"))
        return b"".join(sectors)[:length]

    def _name(self, change: Callable[[dict[str, _Content]], object]) -> None:
        change(self._names)
        self._renames.append(cast(Callable[[dict[str, _Content]], None], change))

    def _call(self) -> None:
        self.calls += 1
        if self.calls == self._crash_at:
            raise PowerLoss
        if 0 <= self._full_at <= self.calls:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# --- what the others say ------------------------------------------------------------------------------------------

Progress = tuple[int, int, int]
"""Step, attempt and phase of the last message that the node has said."""


@dataclass(frozen=True, slots=True)
class Told:
    """An input of the node under test, and how far it had come when it arrived."""

    after: Progress
    event: Input


class _Listening:
    """A machine whose inputs from others are taken down."""

    def __init__(self, inner: Any) -> None:
        self._inner, self.told = inner, list[Told]()
        self._said: Progress = (-1, -1, -1)

    def handle(self, event: Input, /) -> list[Output]:
        if isinstance(event, MessageArrived | ViewArrived | BulkArrived) and event.via not in (None, ME):
            self.told.append(Told(self._said, event))
        outputs = cast(list[Output], self._inner.handle(event))
        for output in outputs:
            if isinstance(output, Say):
                slot = output.body.slot
                self._said = max(self._said, (slot.step, slot.attempt, slot.phase.value))
        return outputs


@cache
def history(attack: str | None) -> tuple[Told, ...]:
    """What the node under test is told in a simulated run in which the last peer attacks."""
    members, secrets = generate(0, RUN.peers)
    task, print_ = task_of(RUN, Path("unused")), fingerprint("cpu")
    role = Role((Plugin(attack),), Schedule(start=0), (OTHER,), attack_seed=1) if attack is not None else None
    nodes = {}
    for me in range(RUN.peers):
        config = NodeConfig(RUN_ID, me, RUN, members, "", "", "", role=role if me == OTHER else None)
        nodes[me] = build_node(config, secrets[me], task, print_, _CHECK)
    listening = _Listening(nodes[ME].machine)
    nodes[ME] = replace(nodes[ME], machine=listening)
    for _ in Simulation(nodes, Network(LinkModel()), remembering_gradients(task)).run():
        pass
    return tuple(listening.told)


# --- what has left ------------------------------------------------------------------------------------------------


class Oracle:
    """Everything that ever left the node, and whether it contradicts itself. It shares no code with the node."""

    def __init__(self, public: bytes) -> None:
        self._key = nacl.signing.VerifyKey(public)
        self._bodies: dict[tuple[Any, ...], bytes] = {}
        self.contradictions: list[tuple[Any, ...]] = []
        self.far: Progress = (-1, -1, -1)
        self.messages = 0

    def left(self, frame: bytes) -> None:
        """Take note of a control message on its way to the network."""
        if frame[:1] != b"\x00":
            return
        body, signature = msgspec.msgpack.decode(frame[1:])
        tag, slot, *fields = msgspec.msgpack.decode(body)
        if slot[5] != ME:
            return
        place = (*slot, *(fields[1:3] if tag == "suspect" else ()))
        known = self._bodies.setdefault(place, body)
        self.messages += 1
        if known != body:
            self.contradictions.append(place)
        self.far = max(self.far, (slot[2], slot[3], slot[4]))
        if not signature:
            raise AssertionError("it left unsigned")

    def can_come_back(self, event: Input) -> bool:
        """False for a message of this node's that others cannot have: it is of another run, and never left here."""
        if not isinstance(event, MessageArrived):
            return True
        return msgspec.msgpack.decode(event.signed.body)[1][5] != ME or event.signed.body in self._bodies.values()


class _Played:
    """The transport of the node under test: what it hears is played back, what it sends goes to the oracle."""

    def __init__(self, told: Sequence[Told], oracle: Oracle, chance: random.Random) -> None:
        self._waiting, self._oracle, self._chance = list(told), oracle, chance
        self.now_s = 0.0
        self._idle = 0

    @property
    def over(self) -> bool:
        return self._idle >= _IDLE_POLLS or self.now_s > _LONGEST_S

    def poll(self, timeout_s: float) -> list[Arrival]:
        ready = [told for told in self._waiting if told.after <= self._oracle.far]
        if ready:
            now = ready[: self._chance.randint(1, 6)]
            self._waiting = [told for told in self._waiting if all(told is not each for each in now)]
            self._idle = 0
            return [_arrival(told.event) for told in now if self._oracle.can_come_back(told.event)]
        self.now_s += timeout_s
        self._idle += timeout_s >= 60.0
        return []

    def send_control(self, to: int, frame: bytes) -> None:
        self._idle = 0
        self._oracle.left(frame)

    def send_bulk(self, to: int, key: object, values_P: object) -> None:
        self._idle = 0

    def progress(self) -> None:
        """Nothing is counted here."""

    def watch(self, descriptor: int) -> None:
        """Nothing is waited for here."""

    def unwatch(self, descriptor: int) -> None:
        """Nothing is waited for here."""


def _arrival(event: Input) -> Arrival:
    match event:
        case MessageArrived(via=int(via), signed=signed):
            return ControlArrival(via, seal(signed))
        case ViewArrived(via=int(via), endorsed=endorsed):
            return ControlArrival(via, seal(endorsed))
        case BulkArrived(via=int(via), key=key, values_P=values_P):
            return BulkArrival(via, key, values_P)
    raise AssertionError(event)


class Inline(Computing):
    """Computes where it is asked to, so that a history repeats."""

    def __init__(self) -> None:
        self.descriptor, self.spare = -1, 0
        self._done: list[tuple[Callable[[Any], None], Any]] = []

    def submit(self, work: Callable[[], Any], done: Callable[[Any], None], spare: bool = False) -> None:
        self._done.append((done, work()))

    def collect(self) -> None:
        finished, self._done = self._done, []
        for done, result in finished:
            done(result)

    def close(self) -> None:
        """Nothing was started."""


# --- lives --------------------------------------------------------------------------------------------------------


def flip(directory: Path, chance: random.Random) -> tuple[Path, bytes] | None:
    """Flip a bit of a node's memory, in some checkpoint, in some attempt's tensors or beside these in some step; in
    which file, and what that was before."""
    found = parts(directory)
    if not found:
        return None
    path, places = chance.choice(found)
    data = bytearray(before := path.read_bytes())
    data[chance.choice(places)] ^= 1 << chance.randrange(8)
    path.write_bytes(data)
    return path, before


class Trial:
    """One node's lives on one disk.

    Args:
        where: an empty directory.
        seed: of everything that is drawn.
        ignores: what the disk lies about.
        waits: False: the node does not wait for the disk, as with `--durability none`.
    """

    def __init__(self, where: Path, seed: int, ignores: str = "", waits: bool = True) -> None:
        self._where, self._ignores, self._waits = where, ignores, waits
        self._chance = random.Random(seed)
        members, secrets = generate(0, RUN.peers)
        self._config = NodeConfig(RUN_ID, ME, RUN, members, "", "", "")
        self._secrets = secrets[ME]
        self._members = members
        self._lives = 0
        self.oracle = Oracle(bytes.fromhex(members[ME].signing_key))
        self.counts: Counter[str] = Counter()
        (where / "0").mkdir()

    def live(self, crash_at: int) -> bool:
        """One life, from what the last one left; False if the node went to the end of its history."""
        directory = self._where / str(self._lives)
        fate = self._chance.choices(("power", "full", "flip"), (0.8, 0.1, 0.1))[0]
        spoilt = flip(directory, self._chance) if fate == "flip" else None
        if spoilt is not None:
            self.counts["bit flipped"] += 1
        at = {"crash_at": crash_at} if fate != "full" else {"full_at": crash_at}
        disk = FaultyDisk(directory, self._chance, ignores=self._ignores if self._waits else "sync", **at)
        try:
            ended = self._play(directory, disk)
        except PowerLoss:
            self.counts["power lost"] += 1
            ended = False
        except BackendError:
            self.counts["disk full"] += 1
            ended = False
        except CheckpointError:
            if spoilt is None and not self._ignores and self._waits:
                raise  # a loss of power alone must not keep a node off
            self.counts["damage refused"] += 1
            if spoilt is None:
                return False
            # Whoever runs the node puts the file back.
            spoilt[0].write_bytes(spoilt[1])
            return True
        if ended:
            return False
        self._lives += 1
        after = self._where / str(self._lives)
        after.mkdir()
        left = disk.left() if fate != "full" else {path.name: path.read_bytes() for path in directory.iterdir()}
        for name, data in left.items():
            (after / name).write_bytes(data)
        shutil.rmtree(directory)
        return True

    def _play(self, directory: Path, disk: Disk) -> bool:
        print_ = _print()
        genesis = genesis_digest(RUN_ID, RUN, self._members)
        checkpointer = Checkpointer(directory, genesis, ME, print_, disk)
        try:
            update = optimiser_of(RUN, _task().dimension, _task().layout)
            at = checkpointer.newest(genesis_roster(self._members), update)
            heard = checkpointer.recall(*((at.state.step, at.number) if at is not None else (0, 0)))
            node: Node = build_node(self._config, self._secrets, _task(), print_, _CHECK, checkpointer=checkpointer)
            if at is not None:
                node.restore(at)
            told = list(history(self._chance.choice(HISTORIES)))
            transport = _Played(told, self.oracle, self._chance)
            driver = Driver(node, cast(Transport, transport), lambda output: None, computing=Inline,
                            clock=lambda: transport.now_s)  # fmt: skip
            driver.hear(heard)
            driver.run(lambda: transport.over)
            return True
        finally:
            checkpointer.close()


@cache
def _print() -> bytes:
    return fingerprint("cpu")


@cache
def _task() -> Any:
    return task_of(RUN, Path("unused"))


CALLS = 140
"""As many as the longest undisturbed history has."""


def trials(crashes: int, where: Path, first: int = 0, **how: Any) -> Iterator[Trial]:
    """Lives until so many crashes have happened: a node's first at the next write in turn, others soon after."""
    done, seed = 0, first
    while done < crashes:
        directory = where / f"trial-{seed}"
        directory.mkdir()
        trial = Trial(directory, seed, **how)
        crash_at, lives = 1 + seed % CALLS, 0
        chance = random.Random(-seed - 1)
        while lives < 8 and trial.live(crash_at):
            lives += 1
            crash_at = chance.randint(1, 80)
        shutil.rmtree(directory)
        done += trial.counts["power lost"] + trial.counts["disk full"]
        seed += 1
        yield trial


def main(arguments: list[str]) -> int:
    """The command line; exit status 1 if a node contradicted itself."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--crashes", type=int, default=500)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--ignore", choices=("sync", "directory"), default="", help="what the disk lies about")
    given = parser.parse_args(arguments)
    pin("cpu")
    began_s, counts, broken, messages, nodes = time.monotonic(), Counter[str](), list[int](), 0, 0
    with tempfile.TemporaryDirectory() as where:
        for trial in trials(given.crashes, Path(where), given.first, ignores=given.ignore):
            counts += trial.counts
            messages += trial.oracle.messages
            if trial.oracle.contradictions:
                broken.append(given.first + nodes)
                print(f"seed {broken[-1]}: contradicts itself in {trial.oracle.contradictions[0]}", flush=True)
            nodes += 1
    told = ", ".join(f"{count} times {what}" for what, count in sorted(counts.items()))
    print(f"{nodes} nodes, {told}; {messages} messages left; {len(broken)} nodes contradicted themselves; "
          f"{time.monotonic() - began_s:.0f} s")  # fmt: skip
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
