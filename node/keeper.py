"""Keeps what a node needs to go on after a crash: a checkpoint at each attempt, and a ledger of what was said since."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from node import checkpoint, ledger
from node.checkpoint import Checkpoint, layer_path
from node.envelope import seal, unseal
from node.errors import BackendError, CheckpointError, WireError
from node.ledger import HEARD, SIGNED, Ledger
from node.protocol.events import Input, MessageArrived, Output, PhaseEntered, ViewArrived
from node.protocol.messages import Message, Phase, Signed, Slot, Suspect, decode_body, decode_signed, encode_signed
from node.protocol.peer import Peer
from node.protocol.resumption import Resumption
from node.protocol.roster import Roster

_KEPT = 3
"""Checkpoints and ledgers kept: the newest, one that serves if it is damaged, and the step before that."""

_PATIENCE_S, _LOOK_S = 8.0, 0.05

Key = tuple[Slot, Phase | None, int]


class Machine(Protocol):
    """What inputs go to."""

    def handle(self, event: Input, /) -> list[Output]:
        """Outputs that answer an input."""


class Keeper:
    """One node's memory on disk; only one process at a time may own it.

    Args:
        directory: where it lies; made if it is not there.
        run: digest of the run's genesis.
        node: the node's id.
        fingerprint: of the environment its gradients are computed in.

    Raises:
        BackendError: the directory cannot be used, or another process uses it.
    """

    def __init__(self, directory: Path, run: bytes, node: int, fingerprint: bytes) -> None:
        self._directory, self._run, self._node, self._fingerprint = directory, run, node, fingerprint
        self.problems: list[str] = []
        """Checkpoints that could not be used, in words."""
        self._ledger: Ledger | None = None
        self._layers: deque[frozenset[int]] = deque(maxlen=_KEPT)
        self._spoken: dict[Key, Signed] = {}
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise BackendError(f"cannot use {directory}: {error.strerror}; check the run directory") from error

        if not self._locked():
            os.close(self._lock)
            raise BackendError(f"{directory} is in use: node {node} of this run is running; stop it first")

    def _locked(self) -> bool:
        """Take the lock; a worker whose launcher was killed needs a moment to notice."""
        end = time.monotonic() + _PATIENCE_S
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > end:
                    return False
                time.sleep(_LOOK_S)
            else:
                return True

    def close(self) -> None:
        """Let another process in."""
        if self._ledger is not None:
            self._ledger.close()
            self._ledger = None
        os.close(self._lock)

    # --- before the start ---------------------------------------------------------------------------------------

    def newest(self, roster: Roster) -> Resumption | None:
        """Where to go on: the newest checkpoint that is whole; None if there has been none.

        Raises:
            CheckpointError: there are checkpoints, and none can be used; or they are of another environment.
        """
        found = sorted(self._directory.glob("*.checkpoint"), reverse=True)
        for path in found:
            try:
                saved = checkpoint.load(path, self._run, self._node, roster)
            except CheckpointError as error:
                self.problems.append(str(error))
                continue
            self._set_aside(found[: len(self.problems)])
            if saved.fingerprint != self._fingerprint:
                raise CheckpointError(
                    f"{path} was written in another environment, in which gradients have other bits; "
                    "resume on the same hardware and versions"
                )
            return saved.at
        if found:
            raise CheckpointError(f"no checkpoint can be used: {self.problems[0]}; nothing was changed")
        return None

    def _set_aside(self, damaged: list[Path]) -> None:
        """Newer checkpoints are written again; the damaged ones stay for whoever wants to know."""
        for path in damaged:
            path.replace(path.with_suffix(".damaged"))

    def recall(self, step: int) -> list[Input]:
        """What was heard since the step before, to be heard again; what was said since then, `sign` says again."""
        heard: list[Input] = []
        for path in sorted(self._directory.glob("*.ledger")):
            if int(path.stem) < step - 1:
                continue
            for kind, via, content in ledger.read(path):
                if kind == SIGNED:
                    signed = decode_signed(content)
                    key = _key(signed.body)
                    if key is not None:
                        self._spoken.setdefault(key, signed)
                elif kind == HEARD:
                    with contextlib.suppress(WireError):  # it was as malformed when it came
                        heard.append(unseal(via, content))
        return heard

    # --- on the way ---------------------------------------------------------------------------------------------

    def sign(self, body: bytes, sign: Callable[[bytes], Signed]) -> Signed:
        """The signed message of a body: the one that was said in its slot in an earlier life, or a new one, which is in
        the ledger before it is returned."""
        if self._spoken:
            key = _key(body)
            if key in self._spoken:
                return self._spoken[key]
        signed = sign(body)
        if self._ledger is None:  # HELLO, before the first attempt
            self._open(0)
        assert self._ledger is not None
        self._ledger.append(SIGNED, self._node, encode_signed(signed))
        return signed

    def heard(self, event: Input) -> None:
        """Note a message from a neighbour."""
        if self._ledger is None or not isinstance(event, MessageArrived | ViewArrived):
            return
        if event.via is None or event.via == self._node:
            return  # `sign` has noted it
        content = event.signed if isinstance(event, MessageArrived) else event.endorsed
        self._ledger.append(HEARD, event.via, seal(content))

    def save(self, at: Resumption) -> None:
        """A new attempt begins."""
        path = self._directory / f"{at.state.step:08d}-{at.number:03d}.checkpoint"
        if not path.exists():
            self._save_layers(at)
            old = sorted(self._directory.glob("*.checkpoint"))[: 1 - _KEPT]
            over = old.pop() if old else None
            checkpoint.save(path, Checkpoint(self._run, self._node, self._fingerprint, at), over)
            _remove(old)
        self._open(at.state.step)
        _remove(sorted(self._directory.glob("*.ledger"))[:-_KEPT])

    def _save_layers(self, at: Resumption) -> None:
        """Steps that are new in the window of undo, and an end to those that no checkpoint names any more."""
        window = at.state.window
        if not (window.layers or self._layers):
            return
        if not self._layers:  # checkpoints from before we were started again may name any of these
            self._layers.append(frozenset(int(path.stem) for path in self._directory.glob("*.layer")))
        held = frozenset[int]().union(*self._layers)
        self._layers.append(frozenset(layer.step for layer in window.layers))
        old = [layer_path(self._directory, step) for step in sorted(held.difference(*self._layers))]
        for layer in window.layers:
            if layer.step not in held:
                over = old.pop() if old else None
                checkpoint.save_layer(layer_path(self._directory, layer.step), self._run, self._node, layer, over)
        _remove(old)

    def _open(self, step: int) -> None:
        if self._ledger is not None:
            self._ledger.close()
        self._ledger = Ledger(self._path(step))

    def _path(self, step: int) -> Path:
        return self._directory / f"{step:08d}.ledger"


class Keeping:
    """A machine whose messages are noted and whose attempts are saved, before anything of them leaves.

    Args:
        machine: takes the inputs.
        peer: the honest peer inside it.
        keeper: where to.
    """

    def __init__(self, machine: Machine, peer: Peer, keeper: Keeper) -> None:
        self._machine, self._peer, self._keeper = machine, peer, keeper

    def handle(self, event: Input) -> list[Output]:
        """As the machine's."""
        self._keeper.heard(event)
        outputs = self._machine.handle(event)
        begun = any(isinstance(output, PhaseEntered) and output.phase == Phase.COMMIT.name for output in outputs)
        if begun and self._peer.resumable:
            self._keeper.save(self._peer.snapshot())
        return outputs


def _remove(paths: Sequence[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _key(body: bytes) -> Key | None:
    """The slot of a body, a SUSPECT's with what it names; None for bytes that are no message (an attacker's)."""
    try:
        message: Message = decode_body(body)
    except (WireError, msgspec.MsgspecError):
        return None
    if isinstance(message, Suspect):
        return message.slot, message.named, message.peer
    return message.slot, None, -1
