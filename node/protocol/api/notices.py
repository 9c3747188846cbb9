"""What a Peer tells whoever keeps records, and how it ends: outputs that ask nothing of a driver."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor


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


Notice: TypeAlias = (
    PhaseEntered | Accused | Banned | Voided | Suspected | Disputed | Resolved | Committed | Probed | Returned | Undone
)
"""What a driver passes on to whoever keeps records."""

Ending: TypeAlias = Finished | Expelled | Halted
"""After it the peer takes nothing more."""
