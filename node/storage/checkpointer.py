"""Keeps what a node needs to go on after a crash: one ledger of what it signs and hears, of what it holds of others and
of each attempt that it begins.

What is noted is on the disk once `secure` has returned: it is called before anything that was signed leaves. The ledger
is cut into files, each of which begins with a whole model; between them a checkpoint is small, and a step writes hardly
more than what came of others in it (node/storage/checkpoint.py).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
from torch import Tensor

from btard.node.errors import BackendError, CheckpointError, WireError
from btard.node.protocol.api import BulkArrived, BulkKey, Input, MessageArrived, ViewArrived
from btard.node.protocol.roster import Roster
from btard.node.protocol.state.state import AttemptRecord, Resumption, State
from btard.node.protocol.wire.encoding import decode_body, decode_signed, encode_signed
from btard.node.protocol.wire.messages import Message, Phase, Signed, Slot, Suspect
from btard.node.storage.checkpoint import (
    Checkpoint,
    History,
    Name,
    Update,
    encoded,
    encoded_tensors,
    load_tensors,
    names,
)
from btard.node.storage.disk import SUFFIX, Disk, steps_of_a_file
from btard.node.storage.state_codec import message_name
from btard.node.storage.wal import ATTEMPT, HEARD, SIGNED, TENSORS, Contents, Record, WriteAheadLog, contents
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
        """What could not be used, in words."""
        self.away_s = 0.0
        """How long ago the checkpoint that `newest` has found was written."""
        self._found: _Found | None = None
        """What an earlier life has left; it is let go when this one begins."""
        self._wal: WriteAheadLog | None = None
        self._files: list[_File] = []
        self._models: dict[int, State] = {}
        """By step, the last two states whose models the ledger leads to."""
        self._anew = False
        """Something of the last file is damaged: the next attempt begins another."""
        self._saved: set[Name] = set()
        """Attempts of those steps that are in the ledger."""
        self._held: tuple[int, int, frozenset[BulkKey]] | None = None
        """The attempt whose tensors were saved last, and which they are."""
        self._noted: tuple[dict[Signed, bytes], dict[Signed, bytes]] = {}, {}
        """Names of messages in the ledger, since the step before began and since this one has."""
        self._spoken: dict[Key, Signed] = {}
        self._recalled: set[tuple[int, bytes]] = set()
        """What is in the ledger already: heard again, it is not noted again."""
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

    def newest(self, roster: Roster, update: Update) -> Resumption | None:
        """Where to go on: the newest checkpoint that is whole; None if there has been none, or none that is whole and
        none but of step 0. A node begins there by the genesis, and what it said in it is in the ledger.

        Args:
            roster: of the genesis.
            update: the run's, which leads from one model to the next.

        Raises:
            CheckpointError: there are checkpoints, and none can be used; or they are of another environment; or the
                ledger is of another format.
        """
        history = History(self._left.records, self._run, self._node, roster, update)
        for name in history.names:
            try:
                saved = history.load(name)
            except CheckpointError as error:
                self.problems.append(str(error))
                continue
            if saved.fingerprint != self._fingerprint:
                raise CheckpointError(
                    f"{self._directory} was written in another environment, in which gradients have other bits; "
                    "resume on the same hardware and versions"
                )
            self.away_s = max(0.0, time.time() - saved.saved_s)
            self._models = {state.step: state for state in _states(saved.at)}
            self._saved, self._anew = {name}, bool(self.problems)
            return saved.at
        if self.problems and any(step > 0 for step, _ in history.names):
            first = self._left.damage[0][1] if self._left.damage else self.problems[0]
            raise CheckpointError(f"no checkpoint can be used: {first}; nothing was changed")
        return None

    def recall(self, step: int, number: int = 0) -> list[Input]:
        """What was heard since the step before, to be heard again; what was said since then, `sign` says again.

        Args:
            step, number: the attempt to go on with; tensors that were kept of it or later are among what was heard.

        Raises:
            CheckpointError: the ledger is damaged since the step before, or of another format.
        """
        heard: list[Input] = []
        records, since = self._left.records, self._left.since(step - 1)
        for place, error in self._left.damage:
            if place > since or not since:
                raise error
            self.problems.append(str(error))
        for record in records[since:]:
            if record.kind == SIGNED:
                signed = decode_signed(record.content)
                self._note(signed)
                key = _key(signed.body)
                if key is not None:
                    self._spoken.setdefault(key, signed)
                    # What we said may have ended it for the others; and of the attempts after it, where the newest
                    # checkpoint is damaged, it says that we have been there.
                    if _since(key[0], step, number):
                        heard.append(MessageArrived(None, signed))
            elif record.kind == HEARD:
                self._recalled.add((record.via, record.content))
                with contextlib.suppress(WireError):  # it was as malformed when it came
                    event = unseal(record.via, record.content)
                    heard.append(event)
                    if isinstance(event, MessageArrived):
                        self._note(event.signed)
        for name in sorted(each for each in set(names(records, TENSORS)) if each >= (step, number)):
            try:
                tensors = load_tensors(records, self._run, self._node, name)
                heard += [BulkArrived(None, key, values_P) for key, values_P in tensors.items()]
            except CheckpointError as error:  # the others may have them still
                self.problems.append(str(error))
        self._anew |= bool(self.problems)
        return heard

    @property
    def _left(self) -> _Found:
        if self._found is None:
            self._found = _Found(self._directory)
        return self._found

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
        self._ledger.append(SIGNED, self._node, encode_signed(signed))
        self._note(signed)
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
            if isinstance(event, MessageArrived):
                self._note(event.signed)

    def save(self, at: Resumption, own: bool = False) -> None:
        """A new attempt begins.

        Args:
            at: the beginning.
            own: this peer's own gradients cannot be computed again, as an honest peer's can: keep them, too.
        """
        step, name, ledger = at.state.step, (at.state.step, at.number), self._ledger
        if name not in self._saved:
            led = at.past is not None and self._leads_to(at.past.state)
            begins = self._begins_file(at, led)
            if begins and self._file.begin is not None:
                ledger = self._begin_file()
            if self._file.begin is None:
                self._file.begin = step
                self._clear(at)
            model = at.past is None or not (led and _follows(at.state, at.past))
            saved = Checkpoint(self._run, self._node, self._fingerprint, time.time(), at)
            known = at.past is not None and self._has(at.past)
            record = encoded(
                saved, self._noted[0] | self._noted[1], model=model, before=begins, known=known,
                apart=self._is_apart(at), own=own,
            )  # fmt: skip
            ledger.append(ATTEMPT, self._node, *record)
            self._models = {state.step: state for state in _states(at)}
            if step not in {known for known, _ in self._saved}:
                self._noted = self._noted[1], {}
            self._saved = {known for known in self._saved if known[0] >= step - 1} | {name}
        ledger.write()

    def hold(self, step: int, number: int, tensors: Mapping[BulkKey, Tensor], signed: Mapping[BulkKey, bytes]) -> None:
        """The end of an attempt is about to be said: keep what it depends on and nobody may owe us afterwards.

        Args:
            step, number: the attempt.
            tensors: what it holds of others.
            signed: digests of aggregates, as their owners signed them.
        """
        held = step, number, frozenset(tensors)
        if not tensors or held == self._held:
            return
        record = encoded_tensors(self._run, self._node, (step, number), tensors, signed)
        self._ledger.append(TENSORS, self._node, *record)
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

    def _note(self, signed: Signed) -> None:
        """The ledger has a message: a checkpoint needs no more than its name."""
        self._noted[1][signed] = message_name(signed)

    def _is_apart(self, at: Resumption) -> bool:
        """True if what the step before held of others has been saved, all of it."""
        if at.past is None or self._held is None:
            return False
        step, number, keys = self._held
        count = len(at.past.aggregates) + len(at.past.publications)
        return (step, number) == (at.past.step, at.past.number) and len(keys) == count

    def _has(self, past: AttemptRecord) -> bool:
        """True if the ledger has the state that an attempt started from."""
        return (past.step, past.number) in self._saved and self._models.get(past.step) is past.state

    def _leads_to(self, state: State) -> bool:
        """True if the ledger leads to a state's model."""
        known = self._models.get(state.step)
        return known is not None and _same_model(known, state)

    # --- files --------------------------------------------------------------------------------------------------

    @property
    def _ledger(self) -> WriteAheadLog:
        """The last file, opened."""
        if self._wal is None:
            if not self._files:
                self._files, self._found = self._left.files, None
            if not self._files:
                return self._begin_file()
            self._wal = WriteAheadLog(self._file.path, self.disk)
        return self._wal

    @property
    def _file(self) -> _File:
        """The last one."""
        return self._files[-1]

    def _begins_file(self, at: Resumption, led: bool) -> bool:
        """True if an attempt is to be the first of a file, with a whole model."""
        begin, state = self._file.begin, at.state
        if begin is None or not led or self._anew:
            return True
        model, steps = 4 * (state.parameters_D.numel() + state.optimiser_D.numel()), state.step - begin
        return steps >= steps_of_a_file(model, self._ledger.size // max(steps, 1))

    def _begin_file(self) -> WriteAheadLog:
        if self._wal is not None:
            self._wal.sync()  # only the last file may lack what was written to it
            self._wal.close()
        number = self._file.number + 1 if self._files else 0
        self._files.append(_File(number, self._directory / f"{number:08d}{SUFFIX}"))
        self._wal, self._anew = WriteAheadLog(self._file.path, self.disk), False
        try:
            self.disk.sync_directory(self._directory)
        except OSError as error:
            raise BackendError(f"cannot write {self._directory}: {error.strerror}; check the disk") from error
        return self._wal

    def _clear(self, at: Resumption) -> None:
        """Remove files that nobody needs: older than the steps that an attempt or the one before it names (an undo step
        may have named more), and than the file before those, which serves where the first model of theirs is
        damaged."""
        layers = [layer.step for state in _states(at) for layer in state.window.layers]
        first = min(layers, default=at.state.step - 1)
        needed = [place for place, file in enumerate(self._files) if file.begin is not None and file.begin <= first]
        kept = max(needed[-1] - 1, 0) if needed else 0
        for file in self._files[:kept]:
            self.disk.remove(str(file.path))
        self._files = self._files[kept:]


@dataclass(slots=True)
class _File:
    """A file of the ledger.

    Args:
        number: its place among them.
        path: where it lies.
        begin: step of the first attempt in it, None while there is none.
    """

    number: int
    path: Path
    begin: int | None = None


class _Found:
    """What a directory holds of earlier lives.

    Args:
        directory: a node's memory.

    Raises:
        BackendError: it cannot be read.
        CheckpointError: a file is damaged at its beginning, or of another format.
    """

    def __init__(self, directory: Path) -> None:
        self.files: list[_File] = []
        self.records: list[Record] = []
        self.damage: list[tuple[int, CheckpointError]] = []
        """Before how many records something is missing."""
        for path in sorted(directory.glob(f"*{SUFFIX}")):
            read: Contents = contents(path)
            begin = next((step for step, _ in names(read.records)), None)
            self.files.append(_File(int(path.stem), path, begin))
            self.damage += [(len(self.records) + place, error) for place, error in read.damage]
            self.records += read.records

    def since(self, step: int) -> int:
        """The place of the record with which a step began; 0, the first, where that is not told of."""
        attempts = (place for place, record in enumerate(self.records) if record.kind == ATTEMPT)
        for place in attempts:
            found, _ = next(names(self.records[place : place + 1]))
            if found >= step:
                return place if found == step > 0 else 0
        return 0


def _states(at: Resumption) -> list[State]:
    """The states of which a checkpoint has the models."""
    return [at.state] if at.past is None else [at.past.state, at.state]


def _same_model(one: State, other: State) -> bool:
    return one.parameters_D is other.parameters_D and one.optimiser_D is other.optimiser_D


def _follows(state: State, past: AttemptRecord) -> bool:
    """True if a state's model is that of the step before, or the update of it with the aggregates there."""
    if past.aggregates.keys() >= set(past.state.roster.active):
        return True
    return not past.aggregates and _same_model(state, past.state)


def _since(slot: Slot, step: int, number: int) -> bool:
    """True for what is said in an attempt or a later one before its dispute, which begins again by itself; a SUSPECT of
    ours may be what froze it."""
    return (slot.step, slot.attempt) >= (step, number) and Phase.COMMIT.value <= slot.phase.value <= Phase.SUSPECT.value


def _key(body: bytes) -> Key | None:
    """The slot of a body, a SUSPECT's with what it names; None for bytes that are no message (an attacker's)."""
    try:
        message: Message = decode_body(body)
    except (WireError, msgspec.MsgspecError):
        return None
    if isinstance(message, Suspect):
        return message.slot, message.named, message.peer
    return message.slot, None, -1
