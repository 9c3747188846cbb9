"""An honest Peer on its way back, alone with a lying teacher: the other peers are what they were recorded to tell it,
and the tensors that they have."""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor

from btard.node.build import Node, build_node, fingerprint_of
from btard.node.config import NodeConfig, Plugin, RunConfig
from btard.node.crypto.signing import Signer
from btard.node.errors import WireError
from btard.node.netem.conditions import Conditions, Event, Window
from btard.node.protocol.api import (
    Banned,
    BulkArrived,
    BulkKey,
    BulkKind,
    BulkRequested,
    Committed,
    ComputeGradient,
    Expelled,
    Halted,
    Input,
    MessageArrived,
    Output,
    RequestBulk,
    SnapshotArrived,
    Start,
    TranscriptRequested,
    ViewArrived,
)
from btard.node.protocol.state.state import Resumption
from btard.node.protocol.state_sync.messages import Snapshot, decode_snapshot
from btard.node.protocol.wire.encoding import decode_body, encode, signing_bytes
from btard.node.protocol.wire.messages import Endorsed, Slot, View
from btard.node.transport.envelope import seal, unseal
from tests.fuzz.mutations import Source, flipped, key_of, mutate
from tests.simulation.lies import LIES, signed
from tests.simulation.restarting import Cluster

LIAR, AWAY = 0, 4
RUN = RunConfig(peers=5, task=Plugin("quadratic", {"dimension": 16}), steps=8, batch_size=1, probation=2,
                delivery_bound_s=0.5, gradient_bound_s=1.0)  # fmt: skip


class _Listening:
    """A machine that writes down what it is told."""

    def __init__(self, inner: Any, heard: list[Input]) -> None:
        self._inner, self._heard = inner, heard

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def handle(self, event: Input) -> list[Output]:
        self._heard.append(event)
        outputs: list[Output] = self._inner.handle(event)
        return outputs


class _Recorded(Cluster):
    """A cluster that writes down what the peer is told that starts again."""

    heard: list[Input]
    at: Resumption
    again: tuple[Input, ...]

    def make(self, me: int) -> tuple[Node, list[Input]]:
        node, again = super().make(me)
        if self.played:
            assert node.peer.resumption is not None
            self.heard, self.at, self.again = [], node.peer.resumption, tuple(again)
            node = replace(node, machine=_Listening(node.machine, self.heard))
        return node, again


@dataclass(frozen=True, slots=True)
class Tape:
    """A whole way back.

    Args:
        at: where the peer starts again.
        again: what it had heard before.
        told: what the others tell it, in order, as long as it is out.
        tensors: what they would send.
        cluster: with everybody's keys.
    """

    at: Resumption
    again: tuple[Input, ...]
    told: tuple[Input, ...]
    tensors: dict[BulkKey, Tensor]
    cluster: Cluster


@cache
def recorded() -> Tape:
    """One peer dies, is gone, starts again, serves its probation and is back."""
    events = (
        Event(Window("step", 1), "kill", (AWAY,), "kill"),
        Event(Window("step", 2), "restart", (AWAY,), "restart"),
    )
    with tempfile.TemporaryDirectory() as where:
        cluster = _Recorded(Path(where), Conditions(events=events), {}, 0, RUN)
        tensors: dict[BulkKey, Tensor] = {}
        for seen in cluster.watched.simulation.run():
            if isinstance(seen.output, Committed) and seen.node == LIAR:
                state = cluster.watched.simulation.nodes[LIAR].peer.state
                for part, values_D in enumerate((state.parameters_D, state.optimiser_D)):
                    tensors[BulkKey(state.step, 0, BulkKind.STATE, 0, part)] = values_D
        for checkpointer in cluster.keepers.values():
            checkpointer.close()
    told = [event for event in cluster.heard if getattr(event, "via", None) not in (None, AWAY)]
    tensors.update((event.key, event.values_P) for event in told if isinstance(event, BulkArrived))
    last = max(place for place, event in enumerate(told) if isinstance(event, SnapshotArrived))
    kept = (event for event in told[: last + 1] if not isinstance(event, BulkArrived))
    return Tape(cluster.at, cluster.again, tuple(kept), tensors, cluster)


class Returning:
    """One honest node on its way back, told what the attacker wants it to be told (the interface of `Arena`).

    Args:
        start: how many of the recorded inputs it has had.
    """

    def __init__(self, start: int = 0) -> None:
        self.tape = tape = recorded()
        cluster = tape.cluster
        config = NodeConfig("simulated", AWAY, RUN, cluster.members, "", "", "")
        secret = cluster.secrets[AWAY]
        self.node = build_node(
            config, secret, cluster.task, fingerprint_of(RUN, cluster.task), cluster.check, cluster.compute
        )
        self.node.peer.restore(tape.at)
        self.signer = Signer(bytes.fromhex(cluster.secrets[LIAR].signing_seed))
        self.accused: set[int] = set()
        self.halted = ""
        self.position = 0
        self._queue: deque[Input] = deque()
        for event in (Start(), *tape.again):
            self.feed(event)
        self.go_on(min(start, len(tape.told) - 1))

    @property
    def back(self) -> bool:
        """It is in the roster again, in an attempt."""
        peer = self.node.peer
        return peer.attempt is not None and peer.state.summary.returned != () and peer.resumable

    @property
    def refused(self) -> str:
        """Why there is nothing more to learn."""
        return "it is back" if self.back else ""

    def feed(self, event: Input) -> None:
        """Tell the peer, and perform what it answers, until it is back."""
        self._queue.append(event)
        while self._queue and not self.back:
            for output in self.node.machine.handle(self._queue.popleft()):
                self._perform(output)

    def go_on(self, most: int, with_attacker: bool = True) -> None:
        """The next recorded inputs: of the honest peers, or of the attacker as well."""
        for event in self.tape.told[self.position : self.position + most]:
            self.position += 1
            if with_attacker or getattr(event, "via", None) != LIAR:
                self.feed(event)

    def _perform(self, output: Output) -> None:
        match output:
            case Banned(peer=peer, reason=reason) if reason != "silent":
                self.accused.add(peer)
            case Halted(problem=problem):
                self.halted = problem
            case Expelled(reason=reason):
                self.halted = f"expelled: {reason}"
            case ComputeGradient():
                self._queue.append(self.node.compute(output, self.node.task.gradient))
            case RequestBulk(to=peer, key=key) if key in self.tape.tensors:
                values_P = self.tape.tensors[key]
                # The liar sends another tensor: the next of those that tell the state is asked.
                self._queue.append(BulkArrived(peer, key, values_P + 1.0 if peer == LIAR else values_P))
            case _:
                pass

    # --- the attacker -----------------------------------------------------------------------------------------

    def strike(self, source: Source) -> None:
        """One thing that a lying teacher can do."""
        match source.pick(10):
            case 0:
                self.frame(source.take(64))
            case 1:
                self.frame(flipped(seal(self._snapshot(source)), source))
            case 2 | 3 | 4 | 5:
                with suppress(WireError):
                    self.feed(SnapshotArrived(LIAR, self._mutated(source)))
            case 6:
                lie = LIES[sorted(LIES)[source.pick(len(LIES))]]
                self.feed(SnapshotArrived(LIAR, lie(self._snapshot(source), self.signer, LIAR)))
            case 7:
                keys = (*self.tape.tensors, key_of(source))
                value, size = (1.0, float("nan"))[source.pick(2)], (16, 4, 0)[source.pick(3)]
                self.feed(BulkArrived(LIAR, keys[source.pick(len(keys))], torch.full((size,), value)))
            case 8:
                words = [event.signed for event in self.tape.told if isinstance(event, MessageArrived)]
                word = words[source.pick(len(words))]
                slot = msgspec.msgpack.decode(word.body)[1]
                view = signed(View(msgspec.convert([*slot[:4], 14, LIAR], type=Slot), (), (word,)), self.signer)
                self.feed((MessageArrived(LIAR, word), ViewArrived(LIAR, Endorsed(view, ())))[source.pick(2)])
            case _:
                asked = TranscriptRequested(LIAR, source.pick(8), source.pick(2))
                self.feed((asked, BulkRequested(LIAR, key_of(source)))[source.pick(2)])

    def frame(self, data: bytes) -> None:
        """The content of a control frame from the attacker."""
        with suppress(WireError):
            self.feed(unseal(LIAR, data))

    def _snapshot(self, source: Source) -> Snapshot:
        """One of the next that the honest peers tell: alike with theirs, and looked into before theirs."""
        ahead = [event.snapshot for event in self._snapshots() if event.via != LIAR]
        return ahead[source.pick(min(len(ahead), 8))]

    def _snapshots(self) -> Iterator[SnapshotArrived]:
        told = self.tape.told
        place = max(
            place for place, event in enumerate(told) if isinstance(event, SnapshotArrived) and event.via != LIAR
        )
        for event in told[min(self.position, place) :]:
            if isinstance(event, SnapshotArrived):
                yield event

    def _mutated(self, source: Source) -> Snapshot:
        """A recorded snapshot, changed where its teller alone answers for it, or anywhere; it may be signed."""
        raw = msgspec.msgpack.decode(encode(self._snapshot(source)))
        now, past = raw
        lists = [now[1]] if past is None else [now[1], past[2]]
        places = [raw, now, *lists, *([past, past[3], past[2]] if past is not None else [])]
        for _ in range(1 + source.pick(2)):
            place = places[source.pick(len(places))]
            if any(place is each for each in lists) and place and source.pick(2):
                self._forge(place, source)
            else:
                mutate(place, source)
        try:
            return decode_snapshot(msgspec.msgpack.encode(raw))
        except (OverflowError, ValueError, TypeError) as error:
            raise WireError(str(error)) from error

    def _forge(self, messages: list[Any], source: Source) -> None:
        """Put a changed message in a list of them, with the liar's signature of it."""
        known = messages[source.pick(len(messages))]
        try:
            body = msgspec.msgpack.decode(known[0])
            body[1][5] = LIAR
            mutate(body, source)
            data = msgspec.msgpack.encode(body)
            covered = signing_bytes(decode_body(data), data)
        except WireError:
            covered = data  # nobody looks at the signature of what is no message
        except (msgspec.MsgspecError, OverflowError, ValueError, TypeError, IndexError):
            return  # another change has left no message here
        place = source.pick(len(messages) + 1)
        messages[place : place + source.pick(2)] = [[data, self.signer.sign(covered)]]
