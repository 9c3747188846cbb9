"""What is kept of an attempt, wherever it is kept: in memory across a restart, in the window of undo, in a checkpoint,
in evidence, and in what a peer that comes back is told.

`Attempt.record` makes one, `Attempt.of` makes the attempt of it again. What is written elsewhere is a function of it:
node/storage/state_codec.py (its vectors in files), node/protocol/evidence/format.py (the canonical bytes that convict)
and node/protocol/state_sync/messages.py (what digests bind, without vectors).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from btard.node.protocol.state.state import State
from btard.node.protocol.wire.encoding import decode_body
from btard.node.protocol.wire.messages import Commit, Phase, Signed


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """One attempt as one peer holds it; what follows from these is not kept (r, z, the split, who contributed).

    Args:
        state: that it started from.
        number: 0 for the first attempt at the step.
        phases: its finished phases in order, each with the message of every active peer in roster order.
        others: what was signed beside those: CLOSEs, messages of unfinished phases, contradictions, SUSPECTs.
        aggregates: by aggregator, float32 `[P]`.
        own_D: this peer's gradient, None if it computed none.
        publications: the parts that were published in it, by step, attempt, owner and part.
    """

    state: State
    number: int
    phases: dict[Phase, tuple[Signed, ...]]
    others: tuple[Signed, ...] = ()
    aggregates: dict[int, Tensor] = field(default_factory=dict)
    own_D: Tensor | None = None
    publications: dict[tuple[int, int, int, int], Tensor] = field(default_factory=dict)

    @property
    def step(self) -> int:
        """The step's number."""
        return self.state.step

    @property
    def contributors(self) -> tuple[int, ...]:
        """Who committed to a gradient in it."""
        bodies = (decode_body(signed.body) for signed in self.phases.get(Phase.COMMIT, ()))
        return tuple(body.slot.sender for body in bodies if isinstance(body, Commit) and body.parts)


@dataclass(frozen=True, slots=True)
class Resumption:
    """A peer at the beginning of an attempt.

    Args:
        state: the agreed state before the step, removals of earlier attempts applied.
        number: of the attempt at it.
        past: the committed attempt of the step before, None in step 0.
        certificate: what ended the attempt before, for laggards.
        proofs: encoded equivocations that are still to be reported.
        before: the attempt before, where it is not `past`: one at the same step, that was void.
    """

    state: State
    number: int
    past: AttemptRecord | None
    certificate: tuple[Signed, ...]
    proofs: tuple[bytes, ...]
    before: AttemptRecord | None = None
