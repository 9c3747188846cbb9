"""Checkpoints: a peer at the beginning of an attempt, in one file that is there as a whole or not at all.

A file is a header and the vectors it names, as they lie in memory: a step has six of them, so nothing of them is copied
on the way to the kernel, and what the state's CLOSEs have digested already is not digested again. Checkpoints outlast
the process, not a loss of power: nothing waits for the disk. A file that is damaged all the same is told by its
digests, and the one before it serves. With `--undo` each step of the window has a file of its own, written once.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import msgspec
from blake3 import blake3

from node.errors import BackendError, CheckpointError, WireError
from node.protocol.digest import tensor_bytes
from node.protocol.messages import Signed
from node.protocol.resumption import Resumption
from node.protocol.roster import Roster
from node.protocol.window import Layer
from node.shelf import MISMATCH, SavedPast, SavedState, Shelf, Vector, cut, restored, restored_past

FORMAT = 4
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
    number: int
    past: SavedPast | None
    certificate: tuple[Signed, ...]
    proofs: tuple[bytes, ...]
    vectors: tuple[Vector, ...]


class _LayerHeader(msgspec.Struct, frozen=True, array_like=True):
    """What stands before the vectors of a layer."""

    run: bytes
    node: int
    past: SavedPast
    contributors: tuple[int, ...]
    digest: bytes
    vectors: tuple[Vector, ...]


def save(path: Path, checkpoint: Checkpoint, over: Path | None = None) -> None:
    """Write a file in one piece; layers are not part of it.

    Args:
        path: its name, under which it is whole.
        checkpoint: what it holds.
        over: a file that is no longer wanted: memory that the kernel holds for it already serves again.

    Raises:
        BackendError: the disk is full, or the directory cannot be written.
    """
    shelf, at = Shelf(), checkpoint.at
    state = shelf.state(at.state)
    past = shelf.past(at.past) if at.past is not None else None
    header = _Header(checkpoint.run, checkpoint.node, checkpoint.fingerprint, state, at.number, past, at.certificate,
                     at.proofs, shelf.table)  # fmt: skip
    _write(path, msgspec.msgpack.encode(header), shelf, over)


def save_layer(path: Path, run: bytes, node: int, layer: Layer, over: Path | None = None) -> None:
    """Write a layer of the window of undo in one piece.

    Args:
        path: its name.
        run, node: whose it is.
        layer: what it holds.
        over: a layer that is no longer wanted, as for `save`.

    Raises:
        BackendError: the disk is full, or the directory cannot be written.
    """
    shelf = Shelf()
    past = shelf.past(layer.past)
    header = _LayerHeader(run, node, past, layer.contributors, layer.digest, shelf.table)
    _write(path, msgspec.msgpack.encode(header), shelf, over)


def load(path: Path, run: bytes, node: int, roster: Roster) -> Checkpoint:
    """Read a file, and the layers of the window of undo beside it.

    Args:
        path: of the file.
        run: digest of the run's genesis, which it must be of.
        node: whose it must be.
        roster: of the genesis.

    Raises:
        CheckpointError: it cannot be read, is damaged, of another version, another run or another node.
    """
    head, content = _read(path)
    try:
        header = msgspec.msgpack.decode(head, type=_Header)
        _check_owner(path, header, run, node)
        vectors, named = cut(header.vectors, content), header.state.window.layers
        layers = tuple(_load_layer(layer_path(path.parent, step), run, node, roster, digest) for step, digest in named)
        past = restored_past(header.past, vectors, roster) if header.past is not None else None
        state = restored(header.state, vectors, roster, layers)
        at = Resumption(state, header.number, past, header.certificate, header.proofs)
        return Checkpoint(run, node, header.fingerprint, at)
    except (msgspec.MsgspecError, UnicodeDecodeError, WireError, IndexError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error


def layer_path(directory: Path, step: int) -> Path:
    """Where the layer of a step lies."""
    return directory / f"{step:08d}.layer"


def _load_layer(path: Path, run: bytes, node: int, roster: Roster, named: bytes) -> Layer:
    head, content = _read(path)
    try:
        header = msgspec.msgpack.decode(head, type=_LayerHeader)
        _check_owner(path, header, run, node)
        if header.digest != named:
            raise CheckpointError(f"{path} is not the layer that the checkpoint names; use the run directory as it was")
        past = restored_past(header.past, cut(header.vectors, content), roster)
        return Layer(past, header.contributors, header.digest)
    except (msgspec.MsgspecError, UnicodeDecodeError, WireError, IndexError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error


def _check_owner(path: Path, header: _Header | _LayerHeader, run: bytes, node: int) -> None:
    if header.run != run or header.node != node:
        raise CheckpointError(f"{path} belongs to another run or node; use the run directory as it was")


def _write(path: Path, header: bytes, shelf: Shelf, over: Path | None) -> None:
    size, digest = len(header).to_bytes(_SIZE_BYTES, "little"), blake3(header).digest()
    temporary = path.with_suffix(".tmp")
    try:
        if over is not None:
            over.replace(temporary)
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644), "wb") as file:
            file.write(b"".join((_MAGIC, bytes((FORMAT,)), digest, size, header)))
            for values_P in shelf.vectors:
                file.write(tensor_bytes(values_P))
            file.truncate()
        temporary.replace(path)
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
        raise CheckpointError(
            f"{path} is a checkpoint of format {head[-1]}, this program reads {FORMAT}; use the release that wrote it"
        )
    start = _DIGEST_BYTES + _SIZE_BYTES
    end = start + int.from_bytes(rest[_DIGEST_BYTES:start], "little")
    if blake3(rest[start:end]).digest() != rest[:_DIGEST_BYTES]:
        raise CheckpointError(f"{path} is damaged: {MISMATCH}")
    return rest[start:end], rest[end:]
