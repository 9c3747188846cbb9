"""Checkpoints: a peer at the beginning of an attempt, in one file that is there as a whole or not at all.

A file is a header and the vectors it names, as they lie in memory: a step has four of them, so nothing is copied on the
way to the kernel, and what the state's CLOSEs have digested already is not digested again. A file is synced before it
gets its name, and its name before anything that rests on it leaves (`Checkpointer.secure`). One that is damaged all the
same is told by its digests, and the one before it serves. What an attempt holds of others when its end is about to be
said has a file of its own, and a checkpoint names the files that hold what it needs already: that one, and the
checkpoint of the step before for the model of that time. The window of undo is in the checkpoints of its steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
from blake3 import blake3
from torch import Tensor

from btard.node.errors import BackendError, CheckpointError, WireError
from btard.node.protocol.api import BulkKey
from btard.node.protocol.roster import Roster
from btard.node.protocol.state.state import AttemptRecord, Layer, Resumption, Window, layer_digest
from btard.node.protocol.wire.encoding import tensor_bytes
from btard.node.protocol.wire.messages import Signed
from btard.node.storage.disk import Disk
from btard.node.storage.state_codec import (
    MISMATCH,
    SavedRecord,
    SavedState,
    StateCodec,
    Vector,
    cut,
    restored,
    restored_record,
)

FORMAT = 8
_READ_BY = {7: "btard 0.1.0"}
"""The last release that reads an earlier format."""
_MAGIC = b"BTARD checkpoint "
_DIGEST_BYTES, _SIZE_BYTES = 32, 8


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One file's content.

    Args:
        run: digest of the run's genesis.
        node: whose it is.
        fingerprint: of the environment that its gradients are computed in.
        at: what a peer goes on from.
    """

    run: bytes
    node: int
    fingerprint: bytes
    at: Resumption


class _Header(msgspec.Struct, frozen=True, array_like=True):
    """What stands before the vectors."""

    run: bytes
    node: int
    fingerprint: bytes
    state: SavedState
    layers: tuple[tuple[int, bytes], ...]
    """Of its window of undo, by step and digest: the checkpoints of the steps after them hold them."""
    number: int
    past: SavedRecord | None
    certificate: tuple[Signed, ...]
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


def save(
    path: str, checkpoint: Checkpoint, disk: Disk, over: str | None = None, *, apart: bool = False,
    before: int | None = None,
) -> None:  # fmt: skip
    """Write a file in one piece.

    Args:
        path: its name, under which it is whole.
        checkpoint: what it holds; of the window of undo no more than the step before.
        disk: that it is on; the name is durable once its directory has been synced.
        over: a file that is no longer wanted: memory that the kernel holds for it already serves again.
        apart: what the step before held of others has been saved by `save_tensors`.
        before: a checkpoint of the step before, by its attempt, that has the model of that time.

    Raises:
        BackendError: the disk is full, or the directory cannot be written.
    """
    codec, at = StateCodec(), checkpoint.at
    state = codec.state(at.state)
    past = codec.record(at.past, apart, before) if at.past is not None else None
    attempt_before = codec.record(at.before, before=at.number) if at.before is not None else None
    layers = tuple((layer.step, layer.digest) for layer in at.state.window.layers)
    header = _Header(checkpoint.run, checkpoint.node, checkpoint.fingerprint, state, layers, at.number, past,
                     at.certificate, at.proofs, attempt_before, codec.table)  # fmt: skip
    _write(path, msgspec.msgpack.encode(header), codec, disk, over)


def save_tensors(
    path: str, run: bytes, node: int, tensors: Mapping[BulkKey, Tensor], disk: Disk, over: str | None
) -> None:
    """Write what an attempt holds of others in one piece.

    Args:
        path: its name.
        run, node: whose it is.
        tensors: aggregates and publications.
        disk: that it is on, as for `save`.
        over: a file of this kind that is no longer wanted, as for `save`.

    Raises:
        BackendError: the disk is full, or the directory cannot be written.
    """
    codec = StateCodec()
    for values_P in tensors.values():
        codec.place(values_P)
    _write(path, msgspec.msgpack.encode(_TensorsHeader(run, node, tuple(tensors), codec.table)), codec, disk, over)


def load_tensors(path: Path, run: bytes, node: int) -> dict[BulkKey, Tensor]:
    """Read what an attempt held of others.

    Args:
        path: of the file.
        run, node: whose it must be.

    Raises:
        CheckpointError: it cannot be read, is damaged, of another version, another run or another node.
    """
    head, content = _read(path)
    try:
        header = msgspec.msgpack.decode(head, type=_TensorsHeader)
        _check_owner(path, header, run, node)
        return dict(zip(header.keys, cut(header.vectors, content), strict=True))
    except (msgspec.MsgspecError, UnicodeDecodeError, WireError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error


def checkpoint_path(directory: Path, step: int, number: int) -> str:
    """Where the checkpoint of an attempt lies. No Path: those intern every name, and here are new ones in each step."""
    return f"{directory}/{step:08d}-{number:03d}.checkpoint"


def tensors_path(directory: Path, step: int, number: int) -> str:
    """Where what an attempt holds of others lies; as `checkpoint_path`."""
    return f"{directory}/{step:08d}-{number:03d}.tensors"


def load(path: Path, run: bytes, node: int, roster: Roster) -> Checkpoint:
    """Read a file, and what it needs of those beside it.

    Args:
        path: of the file.
        run: digest of the run's genesis, which it must be of.
        node: whose it must be.
        roster: of the genesis.

    Raises:
        CheckpointError: it cannot be read, is damaged, of another version, another run or another node.
    """
    header, vectors = _open(path, run, node)
    try:
        layers = tuple(_load_layer(path, step, digest, run, node, roster) for step, digest in header.layers)
        state = restored(header.state, vectors, roster, layers)
        past, before = _past(path, header, vectors, roster), header.attempt_before
        model = state.parameters_D, state.optimiser_D
        voided = restored_record(before, vectors, roster, {}, model) if before is not None else None
        at = Resumption(state, header.number, past, header.certificate, header.proofs, voided)
    except (WireError, IndexError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
    return Checkpoint(run, node, header.fingerprint, at)


def _open(path: Path, run: bytes, node: int) -> tuple[_Header, list[Tensor]]:
    """A checkpoint's header and vectors, all of them whole."""
    head, content = _read(path)
    try:
        header = msgspec.msgpack.decode(head, type=_Header)
        _check_owner(path, header, run, node)
        return header, cut(header.vectors, content)
    except (msgspec.MsgspecError, UnicodeDecodeError, WireError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error


def _past(path: Path, header: _Header, vectors: list[Tensor], roster: Roster) -> AttemptRecord | None:
    """The step before, with what other files have of it."""
    saved = header.past
    if saved is None:
        return None
    step = saved.state.summary.step
    beside = Path(tensors_path(path.parent, step, saved.number))
    apart = load_tensors(beside, header.run, header.node) if saved.apart else {}
    model = None
    if saved.before is not None:
        before = Path(checkpoint_path(path.parent, step, saved.before))
        earlier, held = _open(before, header.run, header.node)
        model = held[earlier.state.parameters], held[earlier.state.optimiser]
    return restored_record(saved, vectors, roster, apart, model)


def _load_layer(beside: Path, step: int, named: bytes, run: bytes, node: int, roster: Roster) -> Layer:
    """A layer of the window that a checkpoint names, from any checkpoint of the step after it."""
    problem = CheckpointError(f"{beside} needs a checkpoint of step {step + 1}; use the run directory as it was")
    for path in sorted(beside.parent.glob(f"{step + 1:08d}-*.checkpoint")):
        try:
            header, vectors = _open(path, run, node)
            past = _past(path, header, vectors, roster)
        except CheckpointError as error:
            problem = error
            continue
        if past is not None and layer_digest(past, header.state.summary.transcript) == named:
            past = replace(past, state=replace(past.state, window=Window()), own_D=None, publications={})
            return Layer(past, named)
        problem = CheckpointError(f"{path} is not of the steps that {beside} names; use the run directory as it was")
    raise problem


def _check_owner(path: Path, header: _Header | _TensorsHeader, run: bytes, node: int) -> None:
    if header.run != run or header.node != node:
        raise CheckpointError(f"{path} belongs to another run or node; use the run directory as it was")


def _write(path: str, header: bytes, codec: StateCodec, disk: Disk, over: str | None) -> None:
    size, digest = len(header).to_bytes(_SIZE_BYTES, "little"), blake3(header).digest()
    temporary = f"{path}.tmp"
    try:
        if over is not None:
            disk.replace(over, temporary)
        file = disk.open(temporary, 0o644)
        try:
            head = b"".join((_MAGIC, bytes((FORMAT,)), digest, size, header))
            disk.write(file, head)
            length = len(head)
            for values_P in codec.vectors:
                content = tensor_bytes(values_P)
                disk.write(file, content)
                length += len(content)
            disk.truncate(file, length)  # what is left of the file that it is written over
            disk.sync(file)
        finally:
            disk.close(file)
        disk.replace(temporary, path)
    except OSError as error:
        raise BackendError(f"cannot write {path}: {error.strerror}; free the disk and resume") from error


def _read(path: Path) -> tuple[memoryview, memoryview]:
    """A file's header, which is whole, and the vectors behind it."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"cannot read the checkpoint {path}: {error.strerror}; check the directory") from error
    head, rest = data[: len(_MAGIC) + 1], memoryview(data)[len(_MAGIC) + 1 :]
    if not head.startswith(_MAGIC):
        raise CheckpointError(f"{path} is damaged: it does not begin as a checkpoint does")
    if head[-1] != FORMAT:
        release = _READ_BY.get(head[-1], "the release that wrote it")
        raise CheckpointError(
            f"{path} is a checkpoint of format {head[-1]}, this program reads {FORMAT}; use {release}"
        )
    start = _DIGEST_BYTES + _SIZE_BYTES
    end = start + int.from_bytes(rest[_DIGEST_BYTES:start], "little")
    if blake3(rest[start:end]).digest() != rest[:_DIGEST_BYTES]:
        raise CheckpointError(f"{path} is damaged: {MISMATCH}")
    return rest[start:end], rest[end:]
