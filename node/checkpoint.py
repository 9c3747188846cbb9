"""Checkpoints: a peer at the beginning of an attempt, in one file that is there as a whole or not at all.

A file is a header and the vectors it names, as they lie in memory: a step has six of them, so nothing of them is copied
on the way to the kernel, and what the state's CLOSEs have digested already is not digested again. Checkpoints outlast
the process, not a loss of power: nothing waits for the disk. A file that is damaged all the same is told by its
digests, and the one before it serves.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
from blake3 import blake3
from torch import Tensor

from node.errors import BackendError, CheckpointError, WireError
from node.protocol.checksums import NormWindow
from node.protocol.digest import tensor_bytes, tensor_digest
from node.protocol.evidence import tensor_of
from node.protocol.messages import Phase, Signed
from node.protocol.resumption import Past, Resumption
from node.protocol.roster import Roster
from node.protocol.state import Ban, State, Summary
from node.protocol.validators import Draw

FORMAT = 3
_MAGIC = b"BTARD checkpoint "
_DIGEST_BYTES, _SIZE_BYTES = 32, 8
_MISMATCH = "its content does not match its digest"


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


class _Vector(msgspec.Struct, frozen=True, array_like=True):
    """One vector after the header: its bytes, and its digest under a domain (as in `State.summarise`)."""

    size: int
    domain: str
    digest: bytes


class _Header(msgspec.Struct, frozen=True, array_like=True):
    """What stands before the vectors."""

    run: bytes
    node: int
    fingerprint: bytes
    state: _State
    number: int
    past: _Past | None
    certificate: tuple[Signed, ...]
    proofs: tuple[bytes, ...]
    vectors: tuple[_Vector, ...]


def save(path: Path, checkpoint: Checkpoint, over: Path | None = None) -> None:
    """Write a file in one piece.

    Args:
        path: its name, under which it is whole.
        checkpoint: what it holds.
        over: a file that is no longer wanted: memory that the kernel holds for it already serves again.

    Raises:
        BackendError: the disk is full, or the directory cannot be written.
    """
    vectors: list[Tensor] = []
    header = msgspec.msgpack.encode(_header(checkpoint, vectors))
    size, digest = len(header).to_bytes(_SIZE_BYTES, "little"), blake3(header).digest()
    temporary = path.with_suffix(".tmp")
    try:
        if over is not None:
            over.replace(temporary)
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644), "wb") as file:
            file.write(b"".join((_MAGIC, bytes((FORMAT,)), digest, size, header)))
            for values_P in vectors:
                file.write(tensor_bytes(values_P))
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
        raise CheckpointError(f"{path} is damaged: {_MISMATCH}")
    try:
        header = msgspec.msgpack.decode(rest[start:end], type=_Header)
        if header.run != run or header.node != node:
            raise CheckpointError(f"{path} belongs to another run or node; use the run directory as it was")
        return Checkpoint(run, node, header.fingerprint, _resumption(header, _cut(header, rest[end:]), roster))
    except (msgspec.MsgspecError, UnicodeDecodeError, WireError, IndexError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error


# --- vectors by their places ------------------------------------------------------------------------------------


def _header(checkpoint: Checkpoint, vectors: list[Tensor]) -> _Header:
    """What stands before the vectors, which are put into the list."""
    table: list[_Vector] = []

    def place(values_P: Tensor, domain: str = "checkpoint", known: bytes | None = None) -> int:
        digest = tensor_digest(domain, (), values_P) if known is None else known
        table.append(_Vector(len(tensor_bytes(values_P)), domain, digest))
        vectors.append(values_P)
        return len(vectors) - 1

    def saved(state: State) -> _State:
        signed = state.summary
        parameters = place(state.parameters_D, "parameters", signed.parameters if signed is not None else None)
        optimiser = place(state.optimiser_D, "optimiser", signed.optimiser if signed is not None else None)
        return _State(
            state.step, parameters, optimiser, state.r, state.roster.active, state.bans,
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
    return _Header(checkpoint.run, checkpoint.node, checkpoint.fingerprint, state, at.number, past, at.certificate,
                   at.proofs, tuple(table))  # fmt: skip


def _resumption(header: _Header, vectors: Sequence[Tensor], roster: Roster) -> Resumption:
    """The other way round."""

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


def _cut(header: _Header, content: memoryview) -> list[Tensor]:
    """The vectors, each in memory of its own.

    Raises:
        WireError: one is not what its digest says.
    """
    if sum(vector.size for vector in header.vectors) != len(content):
        raise WireError(_MISMATCH)
    found, start = [], 0
    for vector in header.vectors:
        values_P = tensor_of(content[start : start + vector.size])
        if tensor_digest(vector.domain, (), values_P) != vector.digest:
            raise WireError(_MISMATCH)
        found.append(values_P)
        start += vector.size
    return found
