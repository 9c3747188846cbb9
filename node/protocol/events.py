"""What goes into a Peer and what comes out: the whole surface between the protocol and the world."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, TypeAlias

import msgspec
from torch import Tensor

if TYPE_CHECKING:
    from node.protocol.messages import Body, Signed


class BulkKind(Enum):
    """Why a tensor travels: a contributor's part, an aggregate, or a publication that judging asked for."""

    PART = "part"
    AGGREGATE = "aggregate"
    PUBLICATION = "publication"


class BulkKey(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Names one tensor on the wire; unsigned, since a tensor is bound by the digest its owner signed.

    `owner` is the peer that committed to the bytes, `part` their place in the split of `step`.
    """

    step: int
    attempt: int
    kind: BulkKind
    owner: int
    part: int


class Purpose(Enum):
    """Why a gradient is computed; only OWN ones leave the node as its contribution."""

    OWN = "own"
    VALIDATE = "validate"
    JUDGE = "judge"


# --- inputs ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Start:
    """The transport is up: begin with HELLO."""


@dataclass(frozen=True, slots=True)
class MessageArrived:
    """A signed message; `via` is the authenticated neighbour that delivered it (None: ourselves)."""

    via: int | None
    signed: Signed


@dataclass(frozen=True, slots=True)
class BulkArrived:
    """A tensor (1-D float32); `via` is the authenticated neighbour that delivered it (None: ourselves)."""

    via: int | None
    key: BulkKey
    values_P: Tensor


@dataclass(frozen=True, slots=True)
class GradientReady:
    """The answer to a ComputeGradient: the flat gradient and the mini-batch loss."""

    purpose: Purpose
    step: int
    peer: int
    gradient_D: Tensor
    loss: float


@dataclass(frozen=True, slots=True)
class DeadlinePassed:
    """The timer `name` ran out."""

    name: str


Input: TypeAlias = Start | MessageArrived | BulkArrived | GradientReady | DeadlinePassed

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
class ComputeGradient:
    """Compute a gradient: a pure function of `parameters_D` and `seed` (xi)."""

    purpose: Purpose
    step: int
    peer: int
    parameters_D: Tensor
    seed: bytes


@dataclass(frozen=True, slots=True)
class SetTimer:
    """Ask for DeadlinePassed(name) after `after_s` seconds; a timer of the same name is replaced."""

    name: str
    after_s: float


@dataclass(frozen=True, slots=True)
class CancelTimer:
    """Forget the timer `name`."""

    name: str


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


@dataclass(frozen=True, slots=True)
class Dropped:
    """An input was refused without any effect; `reason` is a short constant for counting."""

    via: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The last step is committed."""

    step: int
    parameters_D: Tensor


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


Output: TypeAlias = (
    Say
    | SendBulk
    | ComputeGradient
    | SetTimer
    | CancelTimer
    | PhaseEntered
    | Accused
    | Banned
    | Voided
    | Committed
    | Dropped
    | Finished
    | Expelled
    | Halted
)
