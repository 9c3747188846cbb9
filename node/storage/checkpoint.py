"""Checkpoints: a peer at the beginning of an attempt, as records of the ledger.

A checkpoint is a header and the vectors it names. Parameters and optimiser state are among them only at the beginning
of a file, or where they follow from nothing before; elsewhere they are those of the step before after its update, whose
aggregates the ledger has, since no attempt ends before they are kept. So `History` finds a model by going back to the
last one that was written and taking each step's update again. Digests that all peers have signed tell whether it is the
one that was. A record that is damaged is told by its digests; a damaged model is taken from an older one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol, TypeVar

import msgspec
from blake3 import blake3
from torch import Tensor

from btard.node.errors import CheckpointError, WireError
from btard.node.protocol.api import BulkKey, MessageArrived
from btard.node.protocol.evidence.format import tensor_of
from btard.node.protocol.roster import Roster
from btard.node.protocol.state.state import AttemptRecord, Layer, Resumption, Window, layer_digest, parameters_digest
from btard.node.protocol.wire.encoding import decode_signed, number, tensor_bytes, tensor_digest
from btard.node.protocol.wire.messages import Signed
from btard.node.storage.state_codec import (
    ELSEWHERE,
    Model,
    Said,
    SavedRecord,
    SavedState,
    StateCodec,
    Vector,
    message_name,
    restored,
    restored_record,
)
from btard.node.storage.wal import ATTEMPT, HEARD, SIGNED, TENSORS, Attachment, Record
from btard.node.transport.envelope import unseal

T = TypeVar("T")

Name = tuple[int, int]
"""Step and number of an attempt."""


class Update(Protocol):
    """What makes a step's model of the one before it."""

    def apply(
        self, parameters_D: Tensor, state_D: Tensor, gradient: Sequence[Tensor], step: int, /
    ) -> tuple[Tensor, Tensor]:
        """(parameters, state) after a step with the aggregate, given in parts."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One record's content.

    Args:
        run: digest of the run's genesis.
        node: whose it is.
        fingerprint: of the environment that its gradients are computed in.
        saved_s: when it was written, seconds since the epoch.
        at: what a peer goes on from.
    """

    run: bytes
    node: int
    fingerprint: bytes
    saved_s: float
    at: Resumption


class _Label(msgspec.Struct, frozen=True, array_like=True):
    """The content of a record: which attempt's it is, and the header that it goes with."""

    step: int
    number: int
    size: int
    digest: bytes


class _Header(msgspec.Struct, frozen=True, array_like=True):
    """What stands before a checkpoint's vectors."""

    run: bytes
    node: int
    fingerprint: bytes
    saved_s: float
    state: SavedState
    layers: tuple[tuple[int, bytes], ...]
    """Of its window of undo, by step and digest: the checkpoints of the steps after them hold them."""
    number: int
    past: SavedRecord | None
    certificate: tuple[Said, ...]
    proofs: tuple[bytes, ...]
    attempt_before: SavedRecord | None
    """At the same step, void; its state has this one's model."""
    vectors: tuple[Vector, ...]


class _TensorsHeader(msgspec.Struct, frozen=True, array_like=True):
    """What stands before the tensors of an attempt."""

    run: bytes
    node: int
    keys: tuple[BulkKey, ...]
    vectors: tuple[Vector, ...]


Attached = tuple[bytes, list[bytes | memoryview]]
"""A record's content and what goes with it."""


def encoded(
    saved: Checkpoint, noted: Mapping[Signed, bytes], *, model: bool, before: bool, known: bool, apart: bool, own: bool
) -> Attached:
    """A checkpoint's record.

    Args:
        saved: what it holds; of the window of undo no more than names.
        noted: names of messages that the ledger has.
        model: with the model of its step.
        before: with the model of the step before.
        known: the ledger has the state of the step before.
        apart: what the step before held of others has been saved (`encoded_tensors`).
        own: with this peer's own gradients.
    """
    codec, at = StateCodec(noted, own), saved.at
    state = codec.state(at.state, model)
    past = codec.record(at.past, before, apart, not known) if at.past is not None else None
    attempt_before = codec.record(at.before) if at.before is not None else None
    layers = tuple((layer.step, layer.digest) for layer in at.state.window.layers)
    header = _Header(saved.run, saved.node, saved.fingerprint, saved.saved_s, state, layers, at.number, past,
                     codec.said(at.certificate), at.proofs, attempt_before, codec.table)  # fmt: skip
    return _attached(at.state.step, at.number, header, codec)


def encoded_tensors(
    run: bytes, node: int, attempt: Name, tensors: Mapping[BulkKey, Tensor], signed: Mapping[BulkKey, bytes]
) -> Attached:
    """The record of what an attempt holds of others.

    Args:
        run, node: whose it is.
        attempt: which.
        tensors: aggregates and publications.
        signed: digests of aggregates, as their owners signed them.
    """
    codec = StateCodec()
    for key, values_P in tensors.items():
        codec.place(values_P, *(("aggregate", signed[key]) if key in signed else ()))
    return _attached(*attempt, _TensorsHeader(run, node, tuple(tensors), codec.table), codec)


def _attached(step: int, number: int, header: _Header | _TensorsHeader, codec: StateCodec) -> Attached:
    data = msgspec.msgpack.encode(header)
    label = _Label(step, number, len(data), blake3(data).digest())
    return msgspec.msgpack.encode(label), [data, *map(tensor_bytes, codec.vectors)]


class _Saved:
    """One record and its header.

    Args:
        record: of kind ATTEMPT or TENSORS.
    """

    def __init__(self, record: Record) -> None:
        self._label = msgspec.msgpack.decode(record.content, type=_Label)
        self.name: Name = (self._label.step, self._label.number)
        what = "checkpoint" if record.kind == ATTEMPT else "tensors"
        self.where = f"{record.attached.path}, {what} of step {self.name[0]} attempt {self.name[1]}"
        self._attached: Attachment = record.attached
        self.table: tuple[Vector, ...] = ()

    def header(self) -> bytes:
        """Its header.

        Raises:
            CheckpointError: it is damaged.
        """
        data = self._attached.read(0, self._label.size)
        if blake3(data).digest() != self._label.digest:
            raise self.damaged()
        return data

    def vector(self, place: int, key: BulkKey | None = None, run: bytes = b"") -> Tensor:
        """A vector by its place, in memory of its own.

        Args:
            place: in the table.
            key, run: whose it is, where its owner has signed its digest.

        Raises:
            CheckpointError: it is damaged.
        """
        wanted = self.table[place]
        start = self._label.size + sum(vector.size for vector in self.table[:place])
        data = self._attached.read(start, wanted.size)
        if len(data) < wanted.size:
            raise self.damaged()
        values_P = tensor_of(data)
        whose = (key.step, key.attempt, key.owner, key.part) if key is not None else ()
        fields = (run, *map(number, whose)) if wanted.domain == "aggregate" else ()
        if tensor_digest(wanted.domain, fields, values_P) != wanted.digest:
            raise self.damaged()
        return values_P

    def damaged(self, why: object = "its content does not match its digest") -> CheckpointError:
        """What to say of it."""
        return CheckpointError(f"{self.where} is damaged: {why}")


class _SavedAttempt(_Saved):
    """A checkpoint."""

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self._header: _Header | None = None

    @property
    def opened(self) -> _Header:
        """Its header, read once.

        Raises:
            CheckpointError: it is damaged.
        """
        if self._header is None:
            try:
                self._header = msgspec.msgpack.decode(self.header(), type=_Header)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                raise self.damaged(error) from error
            self.table = self._header.vectors
        return self._header


def names(records: Iterable[Record], kind: int = ATTEMPT) -> Iterator[Name]:
    """The attempts that checkpoints, or tensors, among records are of, in order."""
    return (_Saved(record).name for record in _of_kind(records, kind))


def load_tensors(records: Iterable[Record], run: bytes, node: int, name: Name) -> dict[BulkKey, Tensor]:
    """What an attempt held of others; nothing, if none of it was kept.

    Args:
        records: of the ledger.
        run, node: whose it must be.
        name: of the attempt.

    Raises:
        CheckpointError: it is damaged, or of another run or another node.
    """
    found = [saved for saved in map(_Saved, _of_kind(records, TENSORS)) if saved.name == name]
    return _tensors(found[-1] if found else None, run, node)


class History:
    """The checkpoints that a ledger holds.

    Args:
        records: of the ledger, in order; others than those of checkpoints and tensors do not matter.
        run: digest of the run's genesis, which they must be of.
        node: whose they must be.
        roster: of the genesis.
        update: the run's.
    """

    def __init__(self, records: Sequence[Record], run: bytes, node: int, roster: Roster, update: Update) -> None:
        self._records, self._run, self._node, self._roster, self._update = records, run, node, roster, update
        self._attempts: dict[int, list[_SavedAttempt]] = {}
        """By step; of an attempt that was saved twice, the last time counts."""
        self._tensors = {saved.name: saved for saved in map(_Saved, _of_kind(records, TENSORS))}
        for saved in {saved.name: saved for saved in map(_SavedAttempt, _of_kind(records, ATTEMPT))}.values():
            self._attempts.setdefault(saved.name[0], []).append(saved)
        self._models: dict[int, Model] = {}

    @property
    def names(self) -> list[Name]:
        """Of all checkpoints, the newest first."""
        return sorted((saved.name for step in self._attempts.values() for saved in step), reverse=True)

    def load(self, name: Name) -> Checkpoint:
        """A checkpoint, with all that it needs of those before it.

        Raises:
            CheckpointError: some of it is damaged, or of another run or another node.
        """
        saved = self._named(name)
        header = saved.opened
        _check_owner(saved, header, self._run, self._node)
        past, steps = header.past, {name[0], *(step for step, _ in header.layers)}
        if past is not None:
            steps.add(past.step)
        for step in sorted(steps):
            self._find_model(step, steps)
        model = self._models[name[0]]
        layers = tuple(self._layer(saved, step, digest) for step, digest in header.layers)
        state = restored(header.state, self._roster, model, self._tell, layers)
        before = self._record(saved, header.attempt_before) if header.attempt_before is not None else None
        certificate = self._tell(header.certificate)
        at = Resumption(state, header.number, self._past(saved), certificate, header.proofs, before)
        return Checkpoint(self._run, self._node, header.fingerprint, header.saved_s, at)

    def _past(self, saved: _SavedAttempt) -> AttemptRecord | None:
        """The step before a checkpoint's, once its model is known."""
        past = saved.opened.past
        return self._record(saved, past) if past is not None else None

    def _record(self, saved: _SavedAttempt, record: SavedRecord) -> AttemptRecord:
        name, state = (record.step, record.number), record.state
        if state is None:
            state = self._named(name).opened.state
        apart = _tensors(self._tensors.get(name), self._run, self._node) if record.apart else {}
        before = restored(state, self._roster, self._models[record.step], self._tell)
        return restored_record(record, before, saved.vector, self._tell, apart)

    def _named(self, name: Name) -> _SavedAttempt:
        for saved in self._attempts.get(name[0], ()):
            if saved.name == name:
                return saved
        raise _missing(f"a checkpoint of step {name[0]} attempt {name[1]}")

    def _tell(self, said: Iterable[Said]) -> tuple[Signed, ...]:
        try:
            return tuple([each if isinstance(each, Signed) else self._messages[each] for each in said])
        except KeyError as error:
            raise _missing("a message that a checkpoint names") from error

    @cached_property
    def _messages(self) -> dict[bytes, Signed]:
        """All messages in the ledger by their names."""
        said = [decode_signed(record.content) for record in _of_kind(self._records, SIGNED)]
        for record in _of_kind(self._records, HEARD):
            with suppress(WireError):
                event = unseal(record.via, record.content)
                said += [event.signed] if isinstance(event, MessageArrived) else []
        return {message_name(signed): signed for signed in said}

    def _find_model(self, step: int, wanted: Collection[int]) -> None:
        """Find the model of a step: the last one that was written before, and the updates since. Of those that are met
        on the way, the wanted ones are kept.

        Raises:
            CheckpointError: what it takes is damaged, or not there.
        """
        first = step
        while first not in self._models:
            written = self._written(first)
            if written is not None:
                self._models[first] = written
                break
            if first not in self._attempts:
                what = f"a checkpoint of step {first}" if first >= 0 else "a whole model"
                raise _missing(f"{what}, which leads to step {step}")
            first -= 1
        for later in range(first + 1, step + 1):
            self._models[later] = self._any(later, self._updated)
            if later - 1 not in wanted:
                del self._models[later - 1]

    def _written(self, step: int) -> Model | None:
        """The model of a step as some checkpoint has it; None: none has, or it is damaged there."""
        for saved in (*self._attempts.get(step, ()), *self._attempts.get(step + 1, ())):
            with suppress(CheckpointError):
                past = saved.opened.past
                for state in (saved.opened.state, past.state if past is not None else None):
                    if state is not None and state.summary.step == step and state.parameters != ELSEWHERE:
                        return saved.vector(state.parameters), saved.vector(state.optimiser)
        return None

    def _any(self, step: int, what: Callable[[_SavedAttempt], T]) -> T:
        """Something that every checkpoint of a step leads to, from the first that is whole."""
        problem = _missing(f"a checkpoint of step {step}")
        for saved in self._attempts.get(step, ()):
            try:
                return what(saved)
            except CheckpointError as error:
                problem = error
        raise problem

    def _updated(self, saved: _SavedAttempt) -> Model:
        """A checkpoint's model, from that of the step before."""
        signed, past = saved.opened.state.summary, self._past(saved)
        if past is None:
            raise saved.damaged("nothing says what its model is")
        model, active = (past.state.parameters_D, past.state.optimiser_D), past.state.roster.active
        if past.aggregates.keys() >= set(active):
            model = self._update.apply(*model, [past.aggregates[owner] for owner in active], past.step)
        parameters_D, optimiser_D = model
        found = parameters_digest(parameters_D), tensor_digest("optimiser", (), optimiser_D)
        if found != (signed.parameters, signed.optimiser):
            raise saved.damaged("its model is not the one that all have signed")
        return model

    def _layer(self, named_by: _SavedAttempt, step: int, named: bytes) -> Layer:
        """A layer of the window that a checkpoint names, from any checkpoint of the step after it."""

        def found(saved: _SavedAttempt) -> Layer:
            past = self._past(saved)
            if past is None or layer_digest(past, saved.opened.state.summary.transcript) != named:
                raise CheckpointError(f"{saved.where} is not of the steps that {named_by.where} names")
            past = replace(past, state=replace(past.state, window=Window()), own_D=None, publications={})
            return Layer(past, named)

        return self._any(step + 1, found)


def _tensors(saved: _Saved | None, run: bytes, node: int) -> dict[BulkKey, Tensor]:
    if saved is None:
        return {}
    try:
        header = msgspec.msgpack.decode(saved.header(), type=_TensorsHeader)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise saved.damaged(error) from error
    _check_owner(saved, header, run, node)
    saved.table = header.vectors
    return {key: saved.vector(place, key, run) for place, key in enumerate(header.keys)}


def _check_owner(saved: _Saved, header: _Header | _TensorsHeader, run: bytes, node: int) -> None:
    if header.run != run or header.node != node:
        raise CheckpointError(f"{saved.where} belongs to another run or node; use the run directory as it was")


def _missing(what: str) -> CheckpointError:
    return CheckpointError(f"the ledger lacks {what}; use the run directory as it was")


def _of_kind(records: Iterable[Record], kind: int) -> Iterator[Record]:
    return (record for record in records if record.kind == kind)
