"""How a checkpoint holds states and attempts: small fields in its header, vectors by their places behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from torch import Tensor

from btard.node.errors import WireError
from btard.node.protocol.api import BulkKey, BulkKind
from btard.node.protocol.attempt.verification import NormWindow
from btard.node.protocol.evidence.format import tensor_of
from btard.node.protocol.roster import Roster
from btard.node.protocol.state.state import AttemptRecord, Ban, Layer, State, Summary, Window
from btard.node.protocol.wire.encoding import tensor_bytes, tensor_digest
from btard.node.protocol.wire.messages import Phase, Signed

_ELSEWHERE = -1
"""The place of a vector that another file has."""

MISMATCH = "its content does not match its digest"


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
    certificate: tuple[Signed, ...]


class SavedRecord(msgspec.Struct, frozen=True, array_like=True):
    """An `AttemptRecord`, its vectors by their places."""

    state: SavedState
    number: int
    phases: dict[Phase, tuple[Signed, ...]]
    others: tuple[Signed, ...]
    aggregates: dict[int, int]
    own: int | None
    publications: dict[tuple[int, int, int, int], int]
    apart: bool
    """Its tensors from others are in a file of their own."""
    before: int | None
    """Of the checkpoint of its step that has its model, the attempt; None: the model is here."""


class Vector(msgspec.Struct, frozen=True, array_like=True):
    """One vector after the header: its bytes, and its digest under a domain (as in `State.summarise`)."""

    size: int
    domain: str
    digest: bytes


class StateCodec:
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

    def state(self, state: State, *, elsewhere: bool = False) -> SavedState:
        """A state with its vectors on the shelf.

        Args:
            state: the state.
            elsewhere: its vectors are not wanted here.
        """
        parameters, optimiser = self._model(state) if not elsewhere else (_ELSEWHERE, _ELSEWHERE)
        return SavedState(state.summary, parameters, optimiser, state.roster.active, state.bans, state.norms.steps,
                          state.window.forgotten, state.window.examined, state.certificate)  # fmt: skip

    def _model(self, state: State) -> tuple[int, int]:
        """Places of its parameters and its optimiser state, with the digests that CLOSE has signed."""
        signed = state.summary  # genesis has none
        parameters = self.place(state.parameters_D, "parameters", signed.parameters or None)
        return parameters, self.place(state.optimiser_D, "optimiser", signed.optimiser or None)

    def record(self, record: AttemptRecord, apart: bool = False, before: int | None = None) -> SavedRecord:
        """An attempt with its vectors on the shelf.

        Args:
            record: the attempt.
            apart: its tensors from others lie elsewhere.
            before: of the checkpoint in which its parameters and its optimiser state lie, the attempt.
        """
        held, published = ({}, {}) if apart else (record.aggregates, record.publications)
        aggregates = {owner: self.place(values_P) for owner, values_P in held.items()}
        publications = {index: self.place(values_P) for index, values_P in published.items()}
        own = self.place(record.own_D) if record.own_D is not None else None
        state = self.state(record.state, elsewhere=before is not None)
        return SavedRecord(state, record.number, record.phases, record.others, aggregates, own, publications, apart,
                           before)  # fmt: skip


Model = tuple[Tensor, Tensor]
"""Parameters `[D]` and optimiser state `[D]`."""


def restored(
    saved: SavedState, vectors: Sequence[Tensor], roster: Roster, layers: tuple[Layer, ...] = (),
    model: Model | None = None,
) -> State:  # fmt: skip
    """The state again.

    Args:
        saved: what the header says.
        vectors: those behind it.
        roster: of the genesis.
        layers: of the window of undo; what is over needs none.
        model: parameters and optimiser state, if they lie elsewhere.
    """
    parameters_D, optimiser_D = model if model is not None else (vectors[saved.parameters], vectors[saved.optimiser])
    window = Window(layers, saved.forgotten, saved.examined)
    return State(saved.summary, parameters_D, optimiser_D, Roster(roster.keys, saved.active), saved.bans,
                 NormWindow(saved.norms), window, saved.certificate)  # fmt: skip


def restored_record(
    saved: SavedRecord, vectors: Sequence[Tensor], roster: Roster, apart: Mapping[BulkKey, Tensor], model: Model | None
) -> AttemptRecord:
    """The attempt again.

    Args:
        saved: what the header says.
        vectors: those behind it.
        roster: of the genesis.
        apart: its tensors from others, if they lie elsewhere.
        model: its parameters and its optimiser state, if they lie elsewhere.
    """
    aggregates = {owner: vectors[place] for owner, place in saved.aggregates.items()}
    publications = {index: vectors[place] for index, place in saved.publications.items()}
    for key, values_P in apart.items():
        if key.kind is BulkKind.AGGREGATE:
            aggregates[key.owner] = values_P
        else:
            publications[(key.step, key.attempt, key.owner, key.part)] = values_P
    own_D = vectors[saved.own] if saved.own is not None else None
    state = restored(saved.state, vectors, roster, model=model)
    return AttemptRecord(state, saved.number, saved.phases, saved.others, aggregates, own_D, publications)


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
