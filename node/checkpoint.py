"""Checkpoints: a peer at the beginning of an attempt, in one file that is there as a whole or not at all.

A file is a header and the vectors it names, as they lie in memory: a step has six of them, so nothing of them is copied
on the way to the kernel. Checkpoints outlast the process, not a loss of power: nothing waits for the disk. A file that
is damaged all the same is told by its digest, and the one before it serves.
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
    probation: tuple[tuple[int, int], ...]
    returned: tuple[tuple[int, int], ...]
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


def save(path: Path, checkpoint: Checkpoint, over: Path | None = None) -> None:
    """Write a file in one piece.

    Args:
        path: its name, under which it is whole.
        checkpoint: what it holds.
        over: a file that is no longer wanted: memory that the kernel holds for it already serves again.

    Raises:
        BackendError: the disk is full, or the directory cannot be written.
    """
    vectors: list[memoryview] = []
    header = msgspec.msgpack.encode(_header(checkpoint, vectors))
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


def load(path: Path, run: bytes, node: int, roster: Roster) -> Checkpoint:
    """Read a file.

    Args:
        path: of the file.
        run: digest of the run's genesis, which it must be of.
        node: whose it must be.
        roster: of the genesis.

    Raises:
        CheckpointError: it cannot be read, is damaged, of another version, another run or another node.
    """
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
    try:
        header = msgspec.msgpack.decode(content[8 : 8 + size], type=_Header)
        if header.run != run or header.node != node:
            raise CheckpointError(f"{path} belongs to another run or node; use the run directory as it was")
        return Checkpoint(run, node, header.fingerprint, _resumption(header, content[8 + size :], roster))
    except (msgspec.MsgspecError, UnicodeDecodeError, WireError, IndexError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error


# --- vectors by their places ------------------------------------------------------------------------------------


def _header(checkpoint: Checkpoint, vectors: list[memoryview]) -> _Header:
    """What stands before the vectors, which are put into the list."""

    def place(values_P: Tensor) -> int:
        vectors.append(tensor_bytes(values_P))
        return len(vectors) - 1

    def saved(state: State) -> _State:
        return _State(
            state.step, place(state.parameters_D), place(state.optimiser_D), state.r, state.roster.active, state.bans,
            state.norms.steps, state.draw.order, state.draw.count, state.fingerprints, state.complaints,
            state.probation, state.returned, state.summary, state.certificate,
        )  # fmt: skip

    at, past = checkpoint.at, None
    state = saved(at.state)
    if at.past is not None:
        before = at.past
        held = {owner: place(values_P) for owner, values_P in before.aggregates.items()}
        own = place(before.own_D) if before.own_D is not None else None
        past = _Past(saved(before.state), before.number, before.messages, before.finished, held, own, before.r,
                     before.iterations)  # fmt: skip
    sizes = tuple(len(values) for values in vectors)
    return _Header(checkpoint.run, checkpoint.node, checkpoint.fingerprint, state, at.number, past, at.certificate,
                   at.proofs, sizes)  # fmt: skip


def _resumption(header: _Header, content: memoryview, roster: Roster) -> Resumption:
    """The other way round; every vector gets memory of its own."""
    vectors = list(_cut(content, header.sizes))

    def restored(saved: _State) -> State:
        return State(
            saved.step, vectors[saved.parameters], vectors[saved.optimiser], saved.r, Roster(roster.keys, saved.active),
            saved.bans, NormWindow(saved.norms), Draw(saved.validators, saved.validator_count), saved.fingerprints,
            saved.complaints, saved.probation, saved.returned, saved.summary, saved.certificate,
        )  # fmt: skip

    past = None
    if header.past is not None:
        before = header.past
        held = {owner: vectors[place] for owner, place in before.aggregates.items()}
        own_D = vectors[before.own] if before.own is not None else None
        past = Past(restored(before.state), before.number, before.messages, before.finished, held, own_D, before.r,
                    before.iterations)  # fmt: skip
    return Resumption(restored(header.state), header.number, past, header.certificate, header.proofs)


def _cut(content: memoryview, sizes: tuple[int, ...]) -> Iterator[Tensor]:
    for size in sizes:
        yield tensor_of(content[:size])
        content = content[size:]
