"""What a peer needs of its past to go on where it was: the agreed state, the step before, and what ended it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from torch import Tensor

from btard.node.protocol.attempt.attempt import Attempt
from btard.node.protocol.attempt.mprng import projection, share
from btard.node.protocol.settings import Settings, Tools
from btard.node.protocol.state.state import State
from btard.node.protocol.wire.encoding import decode_body
from btard.node.protocol.wire.messages import Phase, Signed


@dataclass(frozen=True, slots=True)
class Past:
    """The committed attempt of the step before, as this peer holds it.

    Args:
        state: that it started from.
        number: of the attempt.
        messages: every signed message of it.
        finished: its phases, in order.
        aggregates: by aggregator, float32 `[P]`.
        own_D: this peer's gradient, None if it computed none.
        r: the randomness that it fixed.
        iterations: of its own aggregation.
        publications: the parts that were published in it, by step, attempt, owner and part.
    """

    state: State
    number: int
    messages: tuple[Signed, ...]
    finished: tuple[Phase, ...]
    aggregates: dict[int, Tensor]
    own_D: Tensor | None
    r: bytes
    iterations: int
    publications: dict[tuple[int, int, int, int], Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, attempt: Attempt) -> Past:
        """What there is to remember of an attempt."""
        transcript = attempt.transcript
        return cls(
            attempt.state, attempt.number, tuple(transcript.everything()), transcript.finished, attempt.aggregates,
            attempt.own_D, attempt.r, attempt.iterations, attempt.publications,
        )  # fmt: skip

    def attempt(self, settings: Settings, tools: Tools, me: int, secret_seed: bytes) -> Attempt:
        """The attempt again."""
        own_share = share(secret_seed, self.state.step, self.number)
        # A peer that has been let back since was in no place of it: it sees it as any other would.
        active = self.state.roster.active
        attempt = Attempt(settings, tools, self.state, self.number, me if me in active else active[0], own_share)
        add(attempt, self.messages)
        for phase in self.finished:
            attempt.transcript.finish(phase)
        attempt.aggregates, attempt.publications = dict(self.aggregates), dict(self.publications)
        attempt.own_D, attempt.r, attempt.iterations = self.own_D, self.r, self.iterations
        if self.r:
            attempt.z = projection(self.r, attempt.split.largest)
        return attempt


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
    past: Past | None
    certificate: tuple[Signed, ...]
    proofs: tuple[bytes, ...]
    before: Past | None = None


def add(attempt: Attempt, messages: Iterable[Signed]) -> None:
    """Put signed messages, checked before they were kept, into an attempt's transcript."""
    for signed in messages:
        attempt.transcript.add(decode_body(signed.body), signed)
