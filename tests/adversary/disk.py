"""What an honest peer has on disk, written and read back by the real keeper, at the instant of a restart only.

Until then it is a list of what would have been written: a run that restarts nobody pays nothing for it.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from btard.node.protocol.api import BulkArrived, Disputed, Input, MessageArrived, Output, PhaseEntered, ViewArrived
from btard.node.protocol.peer import Peer
from btard.node.protocol.roster import Roster
from btard.node.protocol.wire.encoding import encode_body
from btard.node.protocol.wire.messages import Body, Phase, Signed
from btard.node.storage.checkpointer import Checkpointer, Key, _key
from tests.adversary.cluster import FINGERPRINT, Size, key_of, sign


class Disk:
    """One honest peer's: the log of what `DurableMachine` and `Checkpointer` would have done."""

    def __init__(self, me: int) -> None:
        self._me = me
        self._log: list[tuple[str, object]] = []
        self._spoken: dict[Key, Signed] = {}

    def heard(self, event: Input) -> None:
        """As Keeping.handle, before the peer has it."""
        if isinstance(event, MessageArrived | ViewArrived):
            self._log.append(("heard", event))

    def keep(self, peer: Peer, outputs: list[Output]) -> None:
        """As Keeping.handle and keep, after it."""
        near = any(
            isinstance(output, Disputed) or (isinstance(output, PhaseEntered) and output.phase == Phase.CLOSE.name)
            for output in outputs
        )
        held = peer.holdings() if near else None
        if held is not None:
            self._log.append(("hold", (*held[:2], *map(dict, held[2:]))))
        begun = any(isinstance(output, PhaseEntered) and output.phase == Phase.COMMIT.name for output in outputs)
        if begun and peer.resumable:
            self._log.append(("save", peer.snapshot()))

    def sign(self, body: Body) -> Signed:
        """As Keeper.sign."""
        data = encode_body(body)
        key = _key(data) if self._spoken else None
        if key is not None and key in self._spoken:
            return self._spoken[key]
        signed = sign(self._me, body)
        self._log.append(("sign", signed))
        return signed

    def revive(self, size: Size) -> tuple[Peer, list[Input]]:
        """A peer from what is on disk, and what it hears again."""
        peer = size.peer(self._me)
        run, roster = size.settings.run, Roster.genesis(key_of(peer) for peer in range(size.peers))
        with tempfile.TemporaryDirectory() as folder:
            checkpointer = Checkpointer(Path(folder), run, self._me, FINGERPRINT)
            for what, content in self._log:
                match what:
                    case "heard":
                        checkpointer.heard(content)  # type: ignore[arg-type]
                    case "hold":
                        checkpointer.hold(*content)  # type: ignore[misc]
                    case "save":
                        checkpointer.save(content, own=True)  # type: ignore[arg-type]
                    case _:
                        checkpointer.sign(content.body, lambda _, content=content: content)  # type: ignore[attr-defined, misc]
            checkpointer.secure()  # what it said has left, and before that the driver makes it durable
            checkpointer.close()
            checkpointer = Checkpointer(Path(folder), run, self._me, FINGERPRINT)
            at = checkpointer.newest(roster, peer.shared.tools.optimiser)
            heard = checkpointer.recall(*((at.state.step, at.number) if at is not None else (0, 0)))
            heard = [event if not isinstance(event, BulkArrived) else
                     BulkArrived(event.via, event.key, event.values_P.clone()) for event in heard]  # fmt: skip
            self._spoken = dict(checkpointer._spoken)
            checkpointer.close()
        if at is not None:
            peer.restore(at)
        return peer, heard
