"""What goes into a Peer and what comes out of it: the whole surface between the protocol and the world.

Inputs; effects, which a driver performs for the peer; notices, which it passes on to whoever keeps records; endings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

import msgspec
from torch import Tensor

from btard.node.protocol.state_sync.messages import Snapshot
from btard.node.protocol.wire.messages import Application, Body, Endorsed, Signed
from btard.node.protocol.wire.messages import BulkKey as BulkKey
from btard.node.protocol.wire.messages import BulkKind as BulkKind


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


class Applied(msgspec.Struct, frozen=True):
    """This peer's owner hands it an application, to be introduced in a REPORT."""

    application: Application


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
    | Applied
)

# --- effects --------------------------------------------------------------------------------------------------


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


# --- notices and endings ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PhaseEntered:
    """A phase of an attempt began."""

    step: int
    attempt: int
    phase: str


@dataclass(frozen=True, slots=True)
class Accused:
    """A charge is being judged; `accuser` None: a predicate of the transcript raised it."""

    step: int
    attempt: int
    kind: str
    accused: int | None
    part: int | None
    accuser: int | None


@dataclass(frozen=True, slots=True)
class Banned:
    """A peer was found guilty and the verdict is certified; `evidence` is a self-contained file."""

    step: int
    attempt: int
    peer: int
    reason: str
    accuser: int | None
    removed: bool
    evidence: bytes


@dataclass(frozen=True, slots=True)
class Voided:
    """An attempt ended without effect but for the removals; the step starts again."""

    step: int
    attempt: int
    removals: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Suspected:
    """This peer's deadline passed without a message of `peer` in `phase`."""

    step: int
    attempt: int
    phase: str
    peer: int


@dataclass(frozen=True, slots=True)
class Disputed:
    """A dispute of an attempt began at this peer, and why."""

    step: int
    attempt: int
    cause: str


@dataclass(frozen=True, slots=True)
class Resolved:
    """A dispute ended: `commit` or `retry`, and who was removed."""

    step: int
    attempt: int
    outcome: str
    removals: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Committed:
    """A step is final at every honest peer."""

    step: int
    attempt: int
    contributors: tuple[int, ...]
    active: tuple[int, ...]
    validators: Mapping[int, int]
    parameters_D: Tensor
    state_digest: bytes
    certificate: bytes
    clip_iterations: int
    parameter_digest: bytes


@dataclass(frozen=True, slots=True)
class Probed:
    """A committed step found a gradient of a peer on probation correct: `correct` of the `needed` so far."""

    step: int
    attempt: int
    peer: int
    correct: int
    needed: int


@dataclass(frozen=True, slots=True)
class Returned:
    """A peer is let back: it is in the roster from the step after this one on. `evidence`: the state that says so,
    with its certificate."""

    step: int
    attempt: int
    peer: int
    evidence: bytes


@dataclass(frozen=True, slots=True)
class Entered:
    """A newcomer's probation begins with the step after this one. `key`: Ed25519, in hex; `sponsor`: who vouched."""

    step: int
    attempt: int
    peer: int
    key: str
    sponsor: int | None


@dataclass(frozen=True, slots=True)
class Lapsed:
    """A newcomer's probation ended without a place: `probation` (wrong, its key is out for ever) or `silent`."""

    step: int
    attempt: int
    peer: int
    reason: str


@dataclass(frozen=True, slots=True)
class Undone:
    """A committed undo step: contributions of `suspects` were recomputed.

    Args:
        step, attempt: of the undo step.
        suspects: removed peers.
        lies: (step, peer) of the contributions that are false, ascending.
        to_step: the parameters before this step stand again; None: nothing was false.
        lost: steps with gradients that no longer count.
        older: the first lie may be older than the window.
    """

    step: int
    attempt: int
    suspects: tuple[int, ...]
    lies: tuple[tuple[int, int], ...]
    to_step: int | None
    lost: int
    older: bool


@dataclass(frozen=True, slots=True)
class Finished:
    """The last step is committed, by us or while we were away.

    Args:
        step: the last one.
        parameters_D: after it.
        certificate: of the state after it (summary and messages), canonical.
    """

    step: int
    parameters_D: Tensor
    certificate: bytes = b""


@dataclass(frozen=True, slots=True)
class Expelled:
    """This peer itself was banned and removed: it takes no further part."""

    step: int
    reason: str


@dataclass(frozen=True, slots=True)
class Halted:
    """This peer stops: `problem` names the peer and the phase in words."""

    step: int
    phase: str
    peer: int | None
    problem: str


Notice: TypeAlias = (
    PhaseEntered
    | Accused
    | Banned
    | Voided
    | Suspected
    | Disputed
    | Resolved
    | Committed
    | Probed
    | Returned
    | Entered
    | Lapsed
    | Undone
)
"""What a driver passes on to whoever keeps records."""

Ending: TypeAlias = Finished | Expelled | Halted
"""After it the peer takes nothing more."""


Output: TypeAlias = Effect | Notice | Ending
