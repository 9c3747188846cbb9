"""The phases of an attempt, a row for each: everything that depends on which phase it is.

    COMMIT -> AGG -> [RESEND -> HELD -> AGG2] -> REVEAL -> CHECKSUMS -> REPORT -> [PUBLISH -> HAVE] -> [JUDGE] -> CLOSE

Which phase follows is a pure function of the transcript, the same for a peer and for a judge. What voids an attempt
goes straight to CLOSE: bytes that fewer than f + 1 peers hold, or that nobody can compute with.

How large a message may be is known before it is read, so node/protocol/wire/messages.py has that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from btard.node.protocol.adjudication.charges import Publication
from btard.node.protocol.adjudication.judging import Case, Counts, Judgement
from btard.node.protocol.attempt import compose
from btard.node.protocol.attempt.attempt import Attempt
from btard.node.protocol.attempt.compose import Knowledge
from btard.node.protocol.attempt.deadlines import Work
from btard.node.protocol.attempt.transfers import owed_aggregates, owed_parts, scarce, unusable_parts, withheld
from btard.node.protocol.wire import validation
from btard.node.protocol.wire.messages import (
    Agg,
    Agg2,
    Body,
    BulkKey,
    BulkKind,
    Checksums,
    Close,
    Commit,
    Have,
    Held,
    Judge,
    Message,
    Phase,
    Publish,
    Report,
    Resend,
    Reveal,
    Suspect,
)

Next = tuple[Phase, Judgement | None]
"""The phase that follows, and the judgement if the attempt is void already."""


class Acts(Protocol):
    """What a round can do when a phase is complete (node/protocol/attempt/round.py)."""

    def send_parts(self) -> None:
        """Our parts, each to its aggregator."""

    def send_aggregate(self) -> None:
        """The aggregate that our AGG or AGG2 is of, to all."""

    def fix_randomness(self) -> None:
        """r, from all reveals."""

    def open_case(self) -> None:
        """What the transcript up to REPORT accuses whom of."""


@dataclass(frozen=True, slots=True)
class Items:
    """The items that a message has one HAVE bit for each; what fewer than f + 1 peers hold is withheld.

    Args:
        kind: how they are asked for by those that lack them.
        of: the items, in the order of the bits.
    """

    kind: BulkKind
    of: Callable[[Attempt, Case | None], tuple[Publication, ...]]


_NONE = Work()
_JUDGED = Work(judged=True, published=True)


@dataclass(frozen=True, slots=True)
class Row:
    """A phase.

    Args:
        message: the type of what everyone says in it.
        fits: what is wrong with a message, None if it fits its attempt.
        compose: our message, None while something that it needs is not here. Only a round knows what CLOSE needs.
        after: what follows once everyone's message is here.
        work: what the message may wait for.
        bytes: tensors that go to everyone with our message.
        items: what the message has bits for: they are pulled by those that lack them.
        act: what a round does once everyone's message is here.
    """

    message: type[Message]
    fits: Callable[[Any, Attempt, Counts], str | None]
    compose: Callable[[Knowledge], Body | None]
    after: Callable[[Attempt, Case | None], Next]
    work: Work = _NONE
    bytes: Callable[[Attempt, Case | None], Iterator[tuple[BulkKey, Tensor]]] | None = None
    items: Items | None = None
    act: Callable[[Acts], None] | None = None


def _always(phase: Phase) -> Callable[[Attempt, Case | None], Next]:
    return lambda attempt, case: (phase, None)


def _after_agg(attempt: Attempt, case: Case | None) -> Next:
    return (Phase.RESEND if attempt.complaints() else Phase.REVEAL), None


def _after_held(attempt: Attempt, case: Case | None) -> Next:
    guilts = withheld(attempt, scarce(attempt, Phase.HELD, owed_parts(attempt)), "part") or unusable_parts(attempt)
    return (Phase.CLOSE, Judgement(guilts, void=True)) if guilts else (Phase.AGG2, None)


def _after_reveal(attempt: Attempt, case: Case | None) -> Next:
    guilts = withheld(attempt, scarce(attempt, Phase.REVEAL, owed_aggregates(attempt)), "aggregate")
    return (Phase.CLOSE, Judgement(guilts, void=True)) if guilts else (Phase.CHECKSUMS, None)


def _judging(phase: Phase) -> Callable[[Attempt, Case | None], Next]:
    def after(attempt: Attempt, case: Case | None) -> Next:
        assert case is not None
        return case.phase_after(phase), None

    return after


def _our_parts(attempt: Attempt, case: Case | None) -> Iterator[tuple[BulkKey, Tensor]]:
    own_D = attempt.own_D
    if own_D is not None:
        for item in owed_parts(attempt):
            if item.owner == attempt.me:
                yield attempt.key(BulkKind.PUBLICATION, attempt.me, item.part), attempt.slice(own_D, item.part)


def _our_publications(attempt: Attempt, case: Case | None) -> Iterator[tuple[BulkKey, Tensor]]:
    return iter(case.ours() if case is not None else ())


def _nothing(known: Knowledge) -> None:
    return None


PHASES: Mapping[Phase, Row] = {
    Phase.COMMIT: Row(
        Commit,
        validation.commit,
        compose.commit,
        after=_always(Phase.AGG),
        work=Work(computes=1, first=True),
        act=lambda round_: round_.send_parts(),
    ),
    Phase.AGG: Row(
        Agg,
        validation.agg,
        compose.agg,
        after=_after_agg,
        work=Work(tensors=1, computes=1, beside=True),
        act=lambda round_: round_.send_aggregate(),
    ),
    Phase.RESEND: Row(Resend, validation.bare, compose.resend, after=_always(Phase.HELD), bytes=_our_parts),
    Phase.HELD: Row(
        Held,
        validation.held,
        compose.held,
        after=_after_held,
        work=Work(tensors=1),
        items=Items(BulkKind.PUBLICATION, lambda attempt, case: owed_parts(attempt)),
    ),
    Phase.AGG2: Row(
        Agg2,
        validation.agg2,
        compose.agg2,
        after=_always(Phase.REVEAL),
        work=Work(tensors=1),
        act=lambda round_: round_.send_aggregate(),
    ),
    Phase.REVEAL: Row(
        Reveal,
        validation.reveal,
        compose.reveal,
        after=_after_reveal,
        work=Work(tensors=1),
        items=Items(BulkKind.AGGREGATE, lambda attempt, case: owed_aggregates(attempt)),
        act=lambda round_: round_.fix_randomness(),
    ),
    Phase.CHECKSUMS: Row(
        Checksums,
        validation.checksums,
        compose.checksums,
        after=_always(Phase.REPORT),
        work=Work(tensors=1),
    ),
    Phase.REPORT: Row(
        Report,
        validation.report,
        compose.report,
        after=_judging(Phase.REPORT),
        work=Work(computes=1, rechecks=True),
        act=lambda round_: round_.open_case(),
    ),
    Phase.PUBLISH: Row(
        Publish,
        validation.bare,
        compose.publish,
        after=_judging(Phase.PUBLISH),
        work=Work(judged=True),
        bytes=_our_publications,
    ),
    Phase.HAVE: Row(
        Have,
        validation.have,
        compose.have,
        after=_judging(Phase.HAVE),
        work=_JUDGED,
        items=Items(BulkKind.PUBLICATION, lambda attempt, case: case.publications if case is not None else ()),
    ),
    Phase.JUDGE: Row(Judge, validation.judge, compose.judge, after=_judging(Phase.JUDGE), work=_JUDGED),
    Phase.CLOSE: Row(Close, validation.close, _nothing, after=_always(Phase.CLOSE), work=_JUDGED),
}
"""In order. A phase that needs something new gets a column here."""


def message(phase: Phase, known: Knowledge) -> Body | None:
    """This peer's message of a phase, None while something it needs is not here; CLOSE is the round's."""
    before = compose.standing(phase, known.attempt) if known.again else None
    return before if before is not None else PHASES[phase].compose(known)


def misfit(body: Message, attempt: Attempt, counts: Counts) -> str | None:
    """What is wrong with a message of this attempt, None if it fits."""
    if isinstance(body, Suspect):
        return validation.suspect(body, attempt)
    row = PHASES.get(body.slot.phase)
    if row is None or not isinstance(body, row.message):
        return validation.OUTSIDE[type(body)]
    return row.fits(body, attempt, counts)


def following(attempt: Attempt, phase: Phase, case: Case | None) -> Next:
    """The phase after a finished one, and the judgement if the attempt is void already.

    Raises:
        LackingError: that depends on published bytes which are not here yet.
    """
    return PHASES[phase].after(attempt, case)
