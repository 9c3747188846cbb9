"""What goes into a Peer, and what it asks of its driver; with node/protocol/api/notices.py the whole surface between
the protocol and the world."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

import msgspec
from torch import Tensor

from btard.node.protocol.api.notices import Ending, Notice
from btard.node.protocol.state_sync.messages import Snapshot
from btard.node.protocol.wire.bulk import BulkKey as BulkKey
from btard.node.protocol.wire.bulk import BulkKind as BulkKind
from btard.node.protocol.wire.messages import Body, Endorsed, Signed


class Purpose(Enum):
    """Why a gradient is computed; only OWN ones leave the node as its contribution."""

    OWN = "own"
    VALIDATE = "validate"
    JUDGE = "judge"
    UNDO = "undo"

    # See Phase: what has been asked for is looked up by it.
    __hash__ = object.__hash__


# --- inputs ---------------------------------------------------------------------------------------------------


class Start(msgspec.Struct, frozen=True):
    """The transport is up: begin with HELLO."""


class TimePassed(msgspec.Struct, frozen=True):
    """The driver's clock, before the input that follows: seconds from any origin, never less than before."""

    now_s: float


class MessageArrived(msgspec.Struct, frozen=True):
    """A signed message; `via` is the authenticated neighbour that delivered it (None: ourselves)."""

    via: int | None
    signed: Signed


@dataclass(frozen=True, slots=True)
class BulkArrived:
    """A tensor (1-D float32); `via` is the authenticated neighbour that delivered it (None: ourselves)."""

    via: int | None
    key: BulkKey
    values_P: Tensor


class ViewArrived(msgspec.Struct, frozen=True):
    """In a dispute: a view with the endorsements it collected; `via` is the neighbour that relayed it."""

    via: int | None
    endorsed: Endorsed


class BulkRequested(msgspec.Struct, frozen=True):
    """A neighbour lacks a tensor that we said we hold."""

    via: int
    key: BulkKey


@dataclass(frozen=True, slots=True)
class GradientReady:
    """The answer to a ComputeGradient: the flat gradient and the mini-batch loss."""

    purpose: Purpose
    step: int
    peer: int
    gradient_D: Tensor
    loss: float


class DeadlinePassed(msgspec.Struct, frozen=True):
    """The timer `name` ran out."""

    name: str


class TranscriptRequested(msgspec.Struct, frozen=True):
    """A neighbour that was started again lacks what was said in an attempt."""

    via: int
    step: int
    attempt: int


@dataclass(frozen=True, slots=True)
class SnapshotArrived:
    """A neighbour tells us the agreed state, since we asked for it; `via` is the neighbour."""

    via: int
    snapshot: Snapshot


Input: TypeAlias = (
    Start
    | TimePassed
    | MessageArrived
    | BulkArrived
    | ViewArrived
    | BulkRequested
    | TranscriptRequested
    | SnapshotArrived
    | GradientReady
    | DeadlinePassed
)

# --- outputs --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Say:
    """Sign `body` and send it to every peer of `to`; it comes back to us as an input, like everyone's.

    The Peer holds nothing of its own that it did not receive: what a filter changes on the way out is what all,
    the sender included, have heard.
    """

    to: tuple[int, ...]
    body: Body


@dataclass(frozen=True, slots=True)
class SendBulk:
    """Send a tensor to one peer (possibly ourselves). It is never changed afterwards."""

    to: int
    key: BulkKey
    values_P: Tensor


@dataclass(frozen=True, slots=True)
class Forward:
    """Pass on signed messages as they are, whoever signed them."""

    to: tuple[int, ...]
    messages: tuple[Signed, ...]


@dataclass(frozen=True, slots=True)
class Endorse:
    """Add our signature to a relayed view and pass it on."""

    to: tuple[int, ...]
    endorsed: Endorsed


@dataclass(frozen=True, slots=True)
class RequestBulk:
    """Ask one peer for a tensor that it says it holds."""

    to: int
    key: BulkKey


@dataclass(frozen=True, slots=True)
class RequestTranscript:
    """Ask peers for everything that was said in an attempt: we were started again in the midst of it. If they have
    removed us since, they answer with a snapshot as soon as there is a newer state than the one before that attempt."""

    to: tuple[int, ...]
    step: int
    attempt: int


@dataclass(frozen=True, slots=True)
class SendSnapshot:
    """Tell peers that were removed as gone the agreed state."""

    to: tuple[int, ...]
    snapshot: Snapshot


@dataclass(frozen=True, slots=True)
class ComputeGradient:
    """Compute a gradient: a pure function of `parameters_D` and `seed` (xi)."""

    purpose: Purpose
    step: int
    peer: int
    parameters_D: Tensor
    seed: bytes


class SetTimer(msgspec.Struct, frozen=True):
    """Ask for DeadlinePassed(name) after `after_s` seconds; a timer of the same name is replaced."""

    name: str
    after_s: float


class CancelTimer(msgspec.Struct, frozen=True):
    """Forget the timer `name`."""

    name: str


class Dropped(msgspec.Struct, frozen=True):
    """An input was refused without any effect; `reason` is a short constant for counting."""

    via: int | None
    reason: str


Effect: TypeAlias = (
    Say
    | Forward
    | Endorse
    | SendBulk
    | RequestBulk
    | RequestTranscript
    | SendSnapshot
    | ComputeGradient
    | SetTimer
    | CancelTimer
    | Dropped
)
"""What a driver does for the peer."""

Output: TypeAlias = Effect | Notice | Ending
