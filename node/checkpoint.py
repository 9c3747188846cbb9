"""Checkpoints: a peer at the beginning of an attempt, in one file that is there as a whole or not at all.

A file is a header and the vectors it names, as they lie in memory: a step has six of them, so nothing of them is copied
on the way to the kernel. Checkpoints outlast the process, not a loss of power: nothing waits for the disk. A file that
is damaged all the same is told by its digest, and the one before it serves. With `--undo` the steps of the window have
files of their own, written once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
from blake3 import blake3
from torch import Tensor

from node.errors import BackendError, CheckpointError, WireError
from node.protocol.checksums import NormWindow
from node.protocol.digest import tensor_bytes
from node.protocol.evidence import tensor_of
from node.protocol.messages import Phase, Signed
from node.protocol.resumption import Past, Resumption
from node.protocol.roster import Roster
from node.protocol.state import Ban, State, Summary
from node.protocol.validators import Draw
from node.protocol.window import Contribution, Layer, Window

FORMAT = 3
_MAGIC = b"BTARD checkpoint "
_DIGEST_BYTES = 32


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


class _Window(msgspec.Struct, frozen=True, array_like=True):
    """A `Window`, its layers by step and digest: each is a file of its own."""

    layers: tuple[tuple[int, bytes], ...]
    forgotten: bool
    examined: int
    due: tuple[Contribution, ...]
    checkers: int


class _State(msgspec.Struct, frozen=True, array_like=True):
    """A `State`, its roster by ids alone, its vectors by their places."""

    step: int
    parameters: int
    optimiser: int
    r: bytes
    active: tuple[int, ...]
    bans: tuple[Ban, ...]
    norms: tuple[tuple[float, ...], ...]
    validators: tuple[int, ...]
    validator_count: int
    fingerprints: bytes
    complaints: tuple[tuple[int, int, int], ...]
    window: _Window
    summary: Summary | None
    certificate: tuple[Signed, ...]


class _Past(msgspec.Struct, frozen=True, array_like=True):
    """A `Past`."""

    state: _State
    number: int
    messages: tuple[Signed, ...]
    finished: tuple[Phase, ...]
    aggregates: dict[int, int]
    own: int | None
    r: bytes
    iterations: int


class _Header(msgspec.Struct, frozen=True, array_like=True):
    """What stands before the vectors; `sizes`: theirs, in bytes."""

    run: bytes
    node: int
    fingerprint: bytes
    state: _State
    number: int
    past: _Past | None
    certificate: tuple[Signed, ...]
    proofs: tuple[bytes, ...]
    sizes: tuple[int, ...]


class _LayerHeader(msgspec.Struct, frozen=True, array_like=True):
    """What stands before the vectors of a layer."""

    run: bytes
    node: int
    past: _Past
    contributors: tuple[int, ...]
    digest: bytes
    sizes: tuple[int, ...]


def save(path: Path, checkpoint: Checkpoint, over: Path | None = None) -> None:
    """Write a file in one piece; layers are not part of it.

    Args:
        path: its name, under which it is whole.
        checkpoint: what it holds.
        over: a file that is no longer wanted: memory that the kernel holds for it already serves again.

    Raises:
        BackendError: the disk is full, or the directory cannot be written.
    """
    shelf, at = _Shelf(), checkpoint.at
    state = shelf.state(at.state)
    past = shelf.past(at.past) if at.past is not None else None
    header = _Header(checkpoint.run, checkpoint.node, checkpoint.fingerprint, state, at.number, past, at.certificate,
                     at.proofs, shelf.sizes)  # fmt: skip
    _write(path, msgspec.msgpack.encode(header), shelf.vectors, over)


def save_layer(path: Path, run: bytes, node: int, layer: Layer) -> None:
    """Write a layer of the window of undo in one piece.

    Args:
        path: its name.
        run, node: whose it is.
        layer: what it holds.

    Raises:
        BackendError: the disk is full, or the directory cannot be written.
    """
    shelf = _Shelf()
    past = shelf.past(layer.past)
    header = _LayerHeader(run, node, past, layer.contributors, layer.digest, shelf.sizes)
    _write(path, msgspec.msgpack.encode(header), shelf.vectors, None)


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
        vectors = list(_cut(content, header.sizes))
        kept = header.state.window.layers
        layers = tuple(_load_layer(layer_path(path.parent, step), run, node, roster, named) for step, named in kept)
        state = _restored(header.state, vectors, roster, layers)
        past = _restored_past(header.past, vectors, roster) if header.past is not None else None
        at = Resumption(state, header.number, past, header.certificate, header.proofs)
        return Checkpoint(run, node, header.fingerprint, at)
    except (msgspec.MsgspecError, UnicodeDecodeError, WireError, IndexError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error


def layer_path(directory: Path, step: int) -> Path:
    """Where the layer of a step lies."""
    return directory / f"{step:08d}.layer"


def _load_layer(path: Path, run: bytes, node: int, roster: Roster, named: bytes) -> Layer:
    head, content = _read(path)
    header = msgspec.msgpack.decode(head, type=_LayerHeader)
    _check_owner(path, header, run, node)
    if header.digest != named:
        raise CheckpointError(f"{path} is not the layer that the checkpoint names; use the run directory as it was")
    past = _restored_past(header.past, list(_cut(content, header.sizes)), roster)
    return Layer(past, header.contributors, header.digest)


def _check_owner(path: Path, header: _Header | _LayerHeader, run: bytes, node: int) -> None:
    if header.run != run or header.node != node:
        raise CheckpointError(f"{path} belongs to another run or node; use the run directory as it was")


def _write(path: Path, header: bytes, vectors: list[memoryview], over: Path | None) -> None:
    content: tuple[bytes | memoryview, ...] = (len(header).to_bytes(8, "little"), header, *vectors)
    hasher = blake3()
    for piece in content:
        hasher.update(piece)
    temporary = path.with_suffix(".tmp")
    try:
        if over is not None:
            over.replace(temporary)
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644), "wb") as file:
            for piece in (_MAGIC, bytes((FORMAT,)), hasher.digest(), *content):
                file.write(piece)
            file.truncate()
        temporary.replace(path)
    except OSError as error:
        raise BackendError(f"cannot write {path}: {error.strerror}; free the disk and resume") from error


def _read(path: Path) -> tuple[memoryview, memoryview]:
    """Header and vectors of a file that is whole."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"cannot read the checkpoint {path}: {error.strerror}; check the directory") from error
    head, content = data[: len(_MAGIC) + 1], memoryview(data)[len(_MAGIC) + 1 + _DIGEST_BYTES :]
    if not head.startswith(_MAGIC):
        raise CheckpointError(f"{path} is damaged: it does not begin as a checkpoint does")
    if head[-1] != FORMAT:
        raise CheckpointError(
            f"{path} is a checkpoint of format {head[-1]}, this program reads {FORMAT}; use the release that wrote it"
        )
    if blake3(content).digest() != data[len(head) : len(head) + _DIGEST_BYTES]:
        raise CheckpointError(f"{path} is damaged: its content does not match its digest")
    size = int.from_bytes(content[:8], "little")
    return content[8 : 8 + size], content[8 + size :]


class _Shelf:
    """The vectors of a file; what refers to one does so by its place."""

    def __init__(self) -> None:
        self.vectors: list[memoryview] = []

    @property
    def sizes(self) -> tuple[int, ...]:
        """In bytes."""
        return tuple(len(values) for values in self.vectors)

    def place(self, values_P: Tensor) -> int:
        """Put a vector on the shelf."""
        self.vectors.append(tensor_bytes(values_P))
        return len(self.vectors) - 1

    def state(self, state: State) -> _State:
        """A state with its vectors on the shelf."""
        window, layers = state.window, tuple((layer.step, layer.digest) for layer in state.window.layers)
        return _State(
            state.step, self.place(state.parameters_D), self.place(state.optimiser_D), state.r, state.roster.active,
            state.bans, state.norms.steps, state.draw.order, state.draw.count, state.fingerprints, state.complaints,
            _Window(layers, window.forgotten, window.examined, window.due, window.checkers), state.summary,
            state.certificate,
        )  # fmt: skip

    def past(self, past: Past) -> _Past:
        """A committed attempt with its vectors on the shelf."""
        held = {owner: self.place(values_P) for owner, values_P in past.aggregates.items()}
        own = self.place(past.own_D) if past.own_D is not None else None
        return _Past(self.state(past.state), past.number, past.messages, past.finished, held, own, past.r,
                     past.iterations)  # fmt: skip


def _restored(saved: _State, vectors: list[Tensor], roster: Roster, layers: tuple[Layer, ...]) -> State:
    """The other way round."""
    kept = saved.window
    return State(
        saved.step, vectors[saved.parameters], vectors[saved.optimiser], saved.r, Roster(roster.keys, saved.active),
        saved.bans, NormWindow(saved.norms), Draw(saved.validators, saved.validator_count), saved.fingerprints,
        saved.complaints, Window(layers, kept.forgotten, kept.examined, kept.due, kept.checkers), saved.summary,
        saved.certificate,
    )  # fmt: skip


def _restored_past(saved: _Past, vectors: list[Tensor], roster: Roster) -> Past:
    """The other way round; what is over needs no layers."""
    held = {owner: vectors[place] for owner, place in saved.aggregates.items()}
    own_D = vectors[saved.own] if saved.own is not None else None
    return Past(_restored(saved.state, vectors, roster, ()), saved.number, saved.messages, saved.finished, held, own_D,
                saved.r, saved.iterations)  # fmt: skip


def _cut(content: memoryview, sizes: tuple[int, ...]) -> Iterator[Tensor]:
    """Every vector, in memory of its own."""
    for size in sizes:
        yield tensor_of(content[:size])
        content = content[size:]
