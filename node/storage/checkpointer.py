"""Keeps what a node needs to go on after a crash: a checkpoint at each attempt, and a ledger of what was said since.

What is noted is on the disk once `secure` has returned: it is called before anything that was signed leaves.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path

import msgspec
from torch import Tensor

from btard.node.errors import BackendError, CheckpointError, WireError
from btard.node.protocol.api import BulkArrived, BulkKey, Input, MessageArrived, ViewArrived
from btard.node.protocol.roster import Roster
from btard.node.protocol.state.state import Resumption, State
from btard.node.protocol.wire.encoding import decode_body, decode_signed, encode_signed
from btard.node.protocol.wire.messages import Message, Phase, Signed, Slot, Suspect
from btard.node.storage import checkpoint
from btard.node.storage.checkpoint import Checkpoint, tensors_path
from btard.node.storage.disk import Disk
from btard.node.storage.retention import Retention, name_of
from btard.node.storage.wal import HEARD, SIGNED, WriteAheadLog, read
from btard.node.transport.envelope import seal, unseal

_PATIENCE_S, _LOOK_S = 8.0, 0.05
_ABOVE = 4
"""Directories above a node's memory that are made for a run: the node's, all nodes', the run's, all runs'."""

Key = tuple[Slot, Phase | None, int]


class Checkpointer:
    """One node's memory on disk; only one process at a time may own it.

    Args:
        directory: where it lies; made if it is not there.
        run: digest of the run's genesis.
        node: the node's id.
        fingerprint: of the environment its gradients are computed in.
        disk: that it writes to; one that waits unless told otherwise.

    Raises:
        BackendError: the directory cannot be used, or another process uses it.
    """

    def __init__(self, directory: Path, run: bytes, node: int, fingerprint: bytes, disk: Disk | None = None) -> None:
        self.disk = disk or Disk()
        self._directory, self._run, self._node, self._fingerprint = directory, run, node, fingerprint
        self.problems: list[str] = []
        """Checkpoints that could not be used, in words."""
        self._wal: WriteAheadLog | None = None
        self._ledger_step = -1
        self._models: dict[int, tuple[int, State]] = {}
        """By step, the last two: the attempt whose checkpoint has the state's vectors, and the state."""
        self._held: tuple[int, int, frozenset[BulkKey]] | None = None
        """The attempt whose tensors were saved last, and which they are."""
        self._spoken: dict[Key, Signed] = {}
        self.away_s = 0.0
        """How long ago the checkpoint that `newest` has found was written."""
        self._renamed = False
        """The directory has names that the disk may not have."""
        self._recalled: set[tuple[int, bytes]] = set()
        """What is in the ledgers already: heard again, it is not noted again."""
        try:
            directory.mkdir(parents=True, exist_ok=True)
            for above in list(directory.parents)[:_ABOVE]:
                with contextlib.suppress(OSError):  # some may be nobody's to sync: a container's mounts
                    self.disk.sync_directory(above)
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
        """Let another process in; what was not made durable led to nothing, and is forgotten."""
        if self._wal is not None:
            self._wal.close()
            self._wal = None
        os.close(self._lock)

    # --- before the start ---------------------------------------------------------------------------------------

    def newest(self, roster: Roster) -> Resumption | None:
        """Where to go on: the newest checkpoint that is whole; None if there has been none.

        Raises:
            CheckpointError: there are checkpoints, and none can be used; or they are of another environment.
        """
        # Where the ledgers do not reach, this node could sign a second message for a slot.
        oldest = min(map(name_of, self._directory.glob("*.ledger")), default=(0, 0))
        found = [path for path in sorted(self._directory.glob("*.checkpoint"), reverse=True) if name_of(path) >= oldest]
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
            with contextlib.suppress(OSError):
                self.away_s = max(0.0, time.time() - path.stat().st_mtime)
            return saved.at
        if found:
            raise CheckpointError(f"no checkpoint can be used: {self.problems[0]}; nothing was changed")
        return None

    def _set_aside(self, damaged: list[Path]) -> None:
        """Newer checkpoints are written again; the damaged ones stay for whoever wants to know."""
        for path in damaged:
            path.replace(path.with_suffix(".damaged"))

    def recall(self, step: int, number: int = 0) -> list[Input]:
        """What was heard since the step before, to be heard again; what was said since then, `sign` says again.

        Args:
            step, number: the attempt to go on with; tensors that were kept of it are among what was heard.

        Raises:
            CheckpointError: a ledger is damaged before its end, or of another format.
        """
        heard: list[Input] = []
        for path in sorted(self._directory.glob("*.ledger")):
            if name_of(path) < (step - 1, 0):
                continue
            for kind, via, content in read(path):
                if kind == SIGNED:
                    signed = decode_signed(content)
                    key = _key(signed.body)
                    if key is not None:
                        self._spoken.setdefault(key, signed)
                        # What we said may have ended it for the others; and of the attempts after it, where the newest
                        # checkpoint is damaged, it says that we have been there.
                        if _since(key[0], step, number):
                            heard.append(MessageArrived(None, signed))
                elif kind == HEARD:
                    self._recalled.add((via, content))
                    with contextlib.suppress(WireError):  # it was as malformed when it came
                        heard.append(unseal(via, content))
        return heard + self._recall_tensors(Path(tensors_path(self._directory, step, number)))

    def _recall_tensors(self, path: Path) -> list[Input]:
        if not path.exists():
            return []
        try:
            tensors = checkpoint.load_tensors(path, self._run, self._node)
        except CheckpointError as error:  # the others may have them still
            self.problems.append(str(error))
            return []
        return [BulkArrived(None, key, values_P) for key, values_P in tensors.items()]

    def has_said(self, phase: Phase, step: int, attempt: int) -> bool:
        """True if this node has signed a message of a phase of an attempt, as far as `recall` has looked."""
        return any((slot.step, slot.attempt, slot.phase) == (step, attempt, phase) for slot, _, _ in self._spoken)

    # --- on the way ---------------------------------------------------------------------------------------------

    def sign(self, body: bytes, sign: Callable[[bytes], Signed]) -> Signed:
        """The signed message of a body: the one that was said in its slot in an earlier life, or a new one, which may
        leave after `secure`."""
        if self._spoken:
            key = _key(body)
            if key in self._spoken:
                return self._spoken[key]
        signed = sign(body)
        if self._wal is None:  # HELLO, before the first attempt
            self._open(0)
        assert self._wal is not None
        self._wal.append(SIGNED, self._node, encode_signed(signed))
        return signed

    def heard(self, event: Input) -> None:
        """Note a message from a neighbour."""
        if self._wal is None or not isinstance(event, MessageArrived | ViewArrived):
            return
        if event.via is None or event.via == self._node:
            return  # `sign` has noted it
        content = seal(event.signed if isinstance(event, MessageArrived) else event.endorsed)
        if (event.via, content) not in self._recalled:
            self._wal.append(HEARD, event.via, content)

    def save(self, at: Resumption) -> None:
        """A new attempt begins."""
        step = at.state.step
        place = self._folder.checkpoint(step, at.number, (layer.step for layer in at.state.window.layers))
        if place is not None:
            path, over = place
            saved = Checkpoint(self._run, self._node, self._fingerprint, at)
            checkpoint.save(path, saved, self.disk, over, apart=self._is_apart(at), before=self._before(at))
            self._renamed = True
            self._models = {kept: self._models[kept] for kept in self._models if kept == step - 1}
            self._models[step] = at.number, at.state
        self._open(step)

    def hold(self, step: int, number: int, tensors: Mapping[BulkKey, Tensor]) -> None:
        """The end of an attempt is about to be said: keep what it depends on and nobody may owe us afterwards."""
        held = step, number, frozenset(tensors)
        if not tensors or held == self._held:
            return
        path, over = self._folder.tensors(step, number)
        checkpoint.save_tensors(path, self._run, self._node, tensors, self.disk, over)
        self._renamed = True
        self._held = held

    def write(self) -> None:
        """On return the kernel has all that was noted: a process that is killed has not forgotten it.

        Raises:
            BackendError: the disk is full.
        """
        if self._wal is not None:
            self._wal.write()

    def secure(self) -> None:
        """On return the disk has all that was noted: whatever rests on it may leave.

        Raises:
            BackendError: the disk is full, or fails.
        """
        if self._wal is not None:
            self._wal.sync()
        if self._renamed:
            try:
                self.disk.sync_directory(self._directory)
            except OSError as error:
                raise BackendError(f"cannot write {self._directory}: {error.strerror}; check the disk") from error
            self._renamed = False

    @cached_property
    def _folder(self) -> Retention:
        """What is in the directory once it is known where to go on."""
        return Retention(self._directory, self.disk)

    def _is_apart(self, at: Resumption) -> bool:
        """True if what the step before held of others has been saved, all of it."""
        if at.past is None or self._held is None:
            return False
        step, number, keys = self._held
        count = len(at.past.aggregates) + len(at.past.publications)
        return (step, number) == (at.past.step, at.past.number) and len(keys) == count

    def _before(self, at: Resumption) -> int | None:
        """The attempt of the step before whose checkpoint has the model of that time; None: none of this life has."""
        if at.past is None or at.past.step not in self._models:
            return None
        number, state = self._models[at.past.step]
        then = at.past.state
        same = state.parameters_D is then.parameters_D and state.optimiser_D is then.optimiser_D
        return number if same else None

    def _open(self, step: int) -> None:
        if self._wal is not None:
            if self._ledger_step == step:
                return
            if self._wal.said:
                self._wal.sync()
            else:
                self._wal.write()  # heard only: the checkpoint has what mattered of it
            self._wal.close()
        self._wal, self._ledger_step = WriteAheadLog(self._folder.wal(step), self.disk), step
        self._renamed = True


def _since(slot: Slot, step: int, number: int) -> bool:
    """True for what is said in the phases of an attempt, or of a later one; disputes begin again by themselves."""
    return (slot.step, slot.attempt) >= (step, number) and Phase.COMMIT.value <= slot.phase.value <= Phase.CLOSE.value


def _key(body: bytes) -> Key | None:
    """The slot of a body, a SUSPECT's with what it names; None for bytes that are no message (an attacker's)."""
    try:
        message: Message = decode_body(body)
    except (WireError, msgspec.MsgspecError):
        return None
    if isinstance(message, Suspect):
        return message.slot, message.named, message.peer
    return message.slot, None, -1
