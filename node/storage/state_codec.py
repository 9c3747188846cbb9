"""How a checkpoint holds states and attempts: small fields in its header, vectors by their places behind it,
messages by the names under which the ledger has them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

import msgspec
from blake3 import blake3
from torch import Tensor

from btard.node.protocol.api import BulkKey, BulkKind
from btard.node.protocol.attempt.verification import NormWindow
from btard.node.protocol.roster import Roster
from btard.node.protocol.state.state import AttemptRecord, Ban, Layer, State, Summary, Window
from btard.node.protocol.wire.encoding import tensor_bytes, tensor_digest
from btard.node.protocol.wire.messages import Phase, Signed

ELSEWHERE = -1
"""The place of a vector that follows from what is in the ledger before."""

Said: TypeAlias = Signed | bytes
"""A message, or the name of one that the ledger has."""


def message_name(signed: Signed) -> bytes:
    """The name of a message in this node's files."""
    return blake3(signed.body + signed.signature).digest(length=16)


class SavedState(msgspec.Struct, frozen=True, array_like=True):
    """A `State`: its roster by ids alone, its vectors by their places; the layers of its window are not in it."""

    summary: Summary
    parameters: int
    optimiser: int
    active: tuple[int, ...]
    bans: tuple[Ban, ...]
    norms: tuple[tuple[float, ...], ...]
    forgotten: bool
    examined: int
    certificate: tuple[Said, ...]


class SavedRecord(msgspec.Struct, frozen=True, array_like=True):
    """An `AttemptRecord`, its vectors by their places."""

    step: int
    number: int
    state: SavedState | None
    """None: the one that its own checkpoint has."""
    phases: dict[Phase, tuple[Said, ...]]
    others: tuple[Said, ...]
    aggregates: dict[int, int]
    own: int | None
    publications: dict[tuple[int, int, int, int], int]
    apart: bool
    """Its tensors from others are in a record of their own."""


class Vector(msgspec.Struct, frozen=True, array_like=True):
    """One vector behind the header: its bytes, and its digest under a domain (as in `State.summarise` and in AGG)."""

    size: int
    domain: str
    digest: bytes


class StateCodec:
    """Takes vectors; what refers to one does so by its place.

    Args:
        noted: names of messages that the ledger has.
        own: gradients of this peer are wanted, too.
    """

    def __init__(self, noted: Mapping[Signed, bytes] | None = None, own: bool = False) -> None:
        self.vectors: list[Tensor] = []
        self._table: list[Vector] = []
        self._noted, self._own = noted or {}, own

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

    def said(self, messages: Iterable[Signed]) -> tuple[Said, ...]:
        """Messages, by their names where they have some."""
        return tuple([self._noted.get(signed, signed) for signed in messages])

    def state(self, state: State, model: bool) -> SavedState:
        """A state.

        Args:
            state: the state.
            model: with its vectors on the shelf.
        """
        parameters = optimiser = ELSEWHERE
        if model:
            signed = state.summary  # its digests are those that CLOSE has signed; genesis has none
            parameters = self.place(state.parameters_D, "parameters", signed.parameters or None)
            optimiser = self.place(state.optimiser_D, "optimiser", signed.optimiser or None)
        return SavedState(state.summary, parameters, optimiser, state.roster.active, state.bans, state.norms.steps,
                          state.window.forgotten, state.window.examined, self.said(state.certificate))  # fmt: skip

    def record(
        self, record: AttemptRecord, model: bool = False, apart: bool = False, state: bool = True
    ) -> SavedRecord:
        """An attempt with its vectors on the shelf.

        Args:
            record: the attempt.
            model: its parameters and its optimiser state, too.
            apart: its tensors from others lie elsewhere.
            state: its state, too; with the model in any case.
        """
        held, published = ({}, {}) if apart else (record.aggregates, record.publications)
        aggregates = {owner: self.place(values_P) for owner, values_P in held.items()}
        publications = {index: self.place(values_P) for index, values_P in published.items()}
        own = self.place(record.own_D) if self._own and record.own_D is not None else None
        saved = self.state(record.state, model) if state or model else None
        phases = {phase: self.said(messages) for phase, messages in record.phases.items()}
        return SavedRecord(record.step, record.number, saved, phases, self.said(record.others), aggregates, own,
                           publications, apart)  # fmt: skip


Model = tuple[Tensor, Tensor]
"""Parameters `[D]` and optimiser state."""


Tell = Callable[[Iterable[Said]], tuple[Signed, ...]]
"""Messages by their names."""


def restored(saved: SavedState, roster: Roster, model: Model, tell: Tell, layers: tuple[Layer, ...] = ()) -> State:
    """The state again.

    Args:
        saved: what the header says.
        roster: of the genesis.
        model: parameters and optimiser state.
        tell: messages by their names.
        layers: of the window of undo; what is over needs none.
    """
    window = Window(layers, saved.forgotten, saved.examined)
    return State(saved.summary, *model, saved.summary.roster(roster, saved.active), saved.bans, NormWindow(saved.norms),
                 window, tell(saved.certificate))  # fmt: skip


def restored_record(
    saved: SavedRecord, state: State, vector: Callable[[int], Tensor], tell: Tell, apart: Mapping[BulkKey, Tensor]
) -> AttemptRecord:
    """The attempt again.

    Args:
        saved: what the header says.
        state: that it started from.
        vector: those behind it, by their places.
        tell: messages by their names.
        apart: its tensors from others, if they lie elsewhere.
    """
    aggregates = {owner: vector(place) for owner, place in saved.aggregates.items()}
    publications = {index: vector(place) for index, place in saved.publications.items()}
    for key, values_P in apart.items():
        if key.kind is BulkKind.AGGREGATE:
            aggregates[key.owner] = values_P
        else:
            publications[(key.step, key.attempt, key.owner, key.part)] = values_P
    own_D = vector(saved.own) if saved.own is not None else None
    phases = {phase: tell(messages) for phase, messages in saved.phases.items()}
    return AttemptRecord(state, saved.number, phases, tell(saved.others), aggregates, own_D, publications)
