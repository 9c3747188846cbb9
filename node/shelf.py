"""How a checkpoint holds agreed states: small fields in its header, vectors by their places on one shelf behind it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from torch import Tensor

from node.errors import WireError
from node.protocol.checksums import NormWindow
from node.protocol.digest import tensor_bytes, tensor_digest
from node.protocol.evidence import tensor_of
from node.protocol.messages import Phase, Signed
from node.protocol.resumption import Past
from node.protocol.roster import Roster
from node.protocol.state import Ban, State, Summary
from node.protocol.validators import Draw
from node.protocol.window import Contribution, Layer, Window

MISMATCH = "its content does not match its digest"


class SavedWindow(msgspec.Struct, frozen=True, array_like=True):
    """A `Window`, its layers by step and digest: each is a file of its own."""

    layers: tuple[tuple[int, bytes], ...]
    forgotten: bool
    examined: int
    due: tuple[Contribution, ...]
    checkers: int


class SavedState(msgspec.Struct, frozen=True, array_like=True):
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
    window: SavedWindow
    summary: Summary | None
    certificate: tuple[Signed, ...]


class SavedPast(msgspec.Struct, frozen=True, array_like=True):
    """A `Past`."""

    state: SavedState
    number: int
    messages: tuple[Signed, ...]
    finished: tuple[Phase, ...]
    aggregates: dict[int, int]
    own: int | None
    r: bytes
    iterations: int


class Vector(msgspec.Struct, frozen=True, array_like=True):
    """One vector after the header: its bytes, and its digest under a domain (as in `State.summarise`)."""

    size: int
    domain: str
    digest: bytes


class Shelf:
    """Takes vectors; what refers to one does so by its place."""

    def __init__(self) -> None:
        self.vectors: list[Tensor] = []
        self._table: list[Vector] = []

    @property
    def table(self) -> tuple[Vector, ...]:
        """What is on it, in order."""
        return tuple(self._table)

    def place(self, values_P: Tensor, domain: str = "checkpoint", known: bytes | None = None) -> int:
        """Put a vector on the shelf.

        Args:
            values_P: the vector.
            domain, known: of its digest, where that is known already.
        """
        digest = tensor_digest(domain, (), values_P) if known is None else known
        self._table.append(Vector(len(tensor_bytes(values_P)), domain, digest))
        self.vectors.append(values_P)
        return len(self.vectors) - 1

    def state(self, state: State) -> SavedState:
        """A state with its vectors on the shelf."""
        signed, window = state.summary, state.window
        parameters = self.place(state.parameters_D, "parameters", signed.parameters if signed is not None else None)
        optimiser = self.place(state.optimiser_D, "optimiser", signed.optimiser if signed is not None else None)
        layers = tuple((layer.step, layer.digest) for layer in window.layers)
        saved = SavedWindow(layers, window.forgotten, window.examined, window.due, window.checkers)
        return SavedState(
            state.step, parameters, optimiser, state.r, state.roster.active, state.bans, state.norms.steps,
            state.draw.order, state.draw.count, state.fingerprints, state.complaints, state.probation, state.returned,
            saved, state.summary, state.certificate,
        )  # fmt: skip

    def past(self, past: Past) -> SavedPast:
        """A committed attempt with its vectors on the shelf."""
        held = {owner: self.place(values_P) for owner, values_P in past.aggregates.items()}
        own = self.place(past.own_D) if past.own_D is not None else None
        return SavedPast(self.state(past.state), past.number, past.messages, past.finished, held, own, past.r,
                         past.iterations)  # fmt: skip


def restored(saved: SavedState, vectors: Sequence[Tensor], roster: Roster, layers: tuple[Layer, ...] = ()) -> State:
    """The state again.

    Args:
        saved: what the header says.
        vectors: those behind it.
        roster: of the genesis.
        layers: those that the window names; what is over needs none.
    """
    kept = saved.window
    return State(
        saved.step, vectors[saved.parameters], vectors[saved.optimiser], saved.r, Roster(roster.keys, saved.active),
        saved.bans, NormWindow(saved.norms), Draw(saved.validators, saved.validator_count), saved.fingerprints,
        saved.complaints, saved.probation, saved.returned,
        Window(layers, kept.forgotten, kept.examined, kept.due, kept.checkers), saved.summary, saved.certificate,
    )  # fmt: skip


def restored_past(saved: SavedPast, vectors: Sequence[Tensor], roster: Roster) -> Past:
    """The committed attempt again."""
    held = {owner: vectors[place] for owner, place in saved.aggregates.items()}
    own_D = vectors[saved.own] if saved.own is not None else None
    return Past(restored(saved.state, vectors, roster), saved.number, saved.messages, saved.finished, held, own_D,
                saved.r, saved.iterations)  # fmt: skip


def cut(table: Sequence[Vector], content: memoryview) -> list[Tensor]:
    """The vectors, each in memory of its own.

    Raises:
        WireError: one is not what its digest says.
    """
    if sum(vector.size for vector in table) != len(content):
        raise WireError(MISMATCH)
    found, start = [], 0
    for vector in table:
        values_P = tensor_of(content[start : start + vector.size])
        if tensor_digest(vector.domain, (), values_P) != vector.digest:
            raise WireError(MISMATCH)
        found.append(values_P)
        start += vector.size
    return found
