"""Checkpoints: a peer at the beginning of an attempt, in one file that is there as a whole or not at all.

They outlast the process, not a loss of power: nothing waits for the disk. A file that is damaged all the same is told
by its digest, and the one before it serves.
"""

from __future__ import annotations

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

FORMAT = 1
_MAGIC = b"BTARD checkpoint "
_DIGEST_BYTES = 32


class _State(msgspec.Struct, frozen=True, array_like=True):
    """A `State`, its roster by ids alone."""

    step: int
    parameters: bytes
    optimiser: bytes
    r: bytes
    active: tuple[int, ...]
    bans: tuple[Ban, ...]
    norms: tuple[tuple[float, ...], ...]
    validators: tuple[int, ...]
    validator_count: int
    fingerprints: bytes
    complaints: tuple[tuple[int, int, int], ...]
    summary: Summary | None
    certificate: tuple[Signed, ...]


class _Past(msgspec.Struct, frozen=True, array_like=True):
    """A `Past`."""

    state: _State
    number: int
    messages: tuple[Signed, ...]
    finished: tuple[Phase, ...]
    aggregates: dict[int, bytes]
    own: bytes | None
    r: bytes
    iterations: int


class Checkpoint(msgspec.Struct, frozen=True, array_like=True):
    """One file's content.

    Args:
        run: digest of the run's genesis.
        node: whose it is.
        fingerprint: of the environment that its gradients are computed in.
    """

    run: bytes
    node: int
    fingerprint: bytes
    state: _State
    number: int
    past: _Past | None
    certificate: tuple[Signed, ...]
    proofs: tuple[bytes, ...]

    @classmethod
    def of(cls, run: bytes, node: int, fingerprint: bytes, at: Resumption) -> Checkpoint:
        """What there is to save."""
        past = None
        if at.past is not None:
            before = at.past
            own = bytes(tensor_bytes(before.own_D)) if before.own_D is not None else None
            held = {owner: bytes(tensor_bytes(values_P)) for owner, values_P in before.aggregates.items()}
            past = _Past(_saved(before.state), before.number, before.messages, before.finished, held, own, before.r,
                         before.iterations)  # fmt: skip
        return cls(run, node, fingerprint, _saved(at.state), at.number, past, at.certificate, at.proofs)

    def resumption(self, roster: Roster) -> Resumption:
        """What a peer goes on from; `roster`: of the genesis."""
        past = None
        if self.past is not None:
            before = self.past
            held = {owner: tensor_of(values) for owner, values in before.aggregates.items()}
            own_D = tensor_of(before.own) if before.own is not None else None
            past = Past(_restored(before.state, roster), before.number, before.messages, before.finished, held, own_D,
                        before.r, before.iterations)  # fmt: skip
        return Resumption(_restored(self.state, roster), self.number, past, self.certificate, self.proofs)


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write a file in one piece.

    Raises:
        BackendError: the disk is full, or the directory cannot be written.
    """
    content = msgspec.msgpack.encode(checkpoint)
    temporary = path.with_suffix(".tmp")
    try:
        with temporary.open("wb", buffering=0) as file:
            for piece in (_MAGIC, bytes((FORMAT,)), blake3(content).digest(), content):
                file.write(piece)
        temporary.replace(path)
    except OSError as error:
        raise BackendError(f"cannot write {path}: {error.strerror}; free the disk and resume") from error


def load(path: Path, run: bytes, node: int) -> Checkpoint:
    """Read a file.

    Args:
        path: of the file.
        run: digest of the run's genesis, which it must be of.
        node: whose it must be.

    Raises:
        CheckpointError: it cannot be read, is damaged, of another version, another run or another node.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"cannot read the checkpoint {path}: {error.strerror}; check the directory") from error
    head, content = data[: len(_MAGIC) + 1], data[len(_MAGIC) + 1 + _DIGEST_BYTES :]
    if not head.startswith(_MAGIC):
        raise CheckpointError(f"{path} is damaged: it does not begin as a checkpoint does")
    if head[-1] != FORMAT:
        raise CheckpointError(
            f"{path} is a checkpoint of format {head[-1]}, this program reads {FORMAT}; use the release that wrote it"
        )
    if blake3(content).digest() != data[len(head) : len(head) + _DIGEST_BYTES]:
        raise CheckpointError(f"{path} is damaged: its content does not match its digest")
    try:
        found = msgspec.msgpack.decode(content, type=Checkpoint)
    except (msgspec.MsgspecError, UnicodeDecodeError, WireError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
    if found.run != run or found.node != node:
        raise CheckpointError(f"{path} belongs to another run or node; use the run directory as it was")
    return found


def _saved(state: State) -> _State:
    return _State(
        state.step, bytes(tensor_bytes(state.parameters_D)), bytes(tensor_bytes(state.optimiser_D)), state.r,
        state.roster.active, state.bans, state.norms.steps, state.draw.order, state.draw.count, state.fingerprints,
        state.complaints, state.summary, state.certificate,
    )  # fmt: skip


def _restored(saved: _State, roster: Roster) -> State:
    return State(
        saved.step, _vector(saved.parameters), _vector(saved.optimiser), saved.r, Roster(roster.keys, saved.active),
        saved.bans, NormWindow(saved.norms), Draw(saved.validators, saved.validator_count), saved.fingerprints,
        saved.complaints, saved.summary, saved.certificate,
    )  # fmt: skip


def _vector(values: bytes) -> Tensor:
    return tensor_of(values)
