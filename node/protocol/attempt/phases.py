"""The phases of an attempt, a row for each: what is said in it, what fits, what follows, all that depends on the phase.

    COMMIT -> AGG -> [RESEND -> HELD -> AGG2] -> REVEAL -> CHECKSUMS -> REPORT -> [PUBLISH -> HAVE] -> [JUDGE] -> CLOSE

Which phase follows is a pure function of the transcript, the same for a peer and for a judge. What voids an attempt
goes straight to CLOSE: bytes that fewer than f + 1 peers hold, or that nobody can compute with.

How large a message may be is known before it is read, so node/protocol/wire/messages.py has that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

from torch import Tensor

from btard.node.protocol.adjudication.charges import Publication
from btard.node.protocol.adjudication.judging import Case, Counts, Judgement, suspicious
from btard.node.protocol.attempt.attempt import Attempt
from btard.node.protocol.attempt.deadlines import Work, measured, measures_fit, waited
from btard.node.protocol.attempt.gradient_requests import Gradients
from btard.node.protocol.attempt.mprng import Share, opens
from btard.node.protocol.attempt.transfers import owed_aggregates, owed_parts, scarce, unusable_parts, withheld
from btard.node.protocol.state_sync.probation import joins_fit
from btard.node.protocol.wire.encoding import DIGEST_BYTES
from btard.node.protocol.wire.messages import (
    MAX_ACCUSATIONS,
    MAX_PROOFS,
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
    Hello,
    Join,
    Judge,
    Message,
    Missing,
    Outcome,
    Phase,
    Publish,
    Report,
    Resend,
    Reveal,
    Suspect,
    Verdict,
    View,
    Void,
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


# --- what a peer says -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What a message is made of.

    Args:
        attempt: the attempt under way.
        past: the committed attempt of the step before, None in step 0.
        trial: the judging, from REPORT on.
        gradients: of this step and, recomputed, of the step before, as far as they are there.
        proofs: encoded equivocations of earlier attempts, for our REPORT.
        overdue: the wait for bulk is over.
        joins: encoded JOINs of the step before, for our REPORT.
        again: we were started again in the midst of this attempt.
    """

    attempt: Attempt
    past: Attempt | None
    trial: Case | None
    gradients: Gradients
    proofs: tuple[bytes, ...]
    overdue: bool
    joins: tuple[bytes, ...] = ()
    again: bool = False


def standing(phase: Phase, attempt: Attempt) -> Body | None:
    """After a new start: what we said in a phase, where that needs parts of others and they are not needed any more.

    Whoever sent them may have been banned in this very attempt by somebody who has left it, and owes nobody anything.
    What was said of who holds which bytes stands: those that are lost are asked for from all who hold them.
    An aggregate that nobody has kept is made again, from parts that are asked for again.
    """
    body = attempt.transcript.body(phase, attempt.me)
    match body:
        case Agg(aggregate=Missing()) | Held() | Reveal() | Have() | Report():
            return body
        case Agg() | Agg2() if attempt.me in attempt.aggregates:
            return body
        case _:
            return None


def _say_held(known: Knowledge) -> Held | None:
    """HELD, once every part that a complaint asks for is here, or with the bits of those that did not come in time."""
    attempt = known.attempt
    keys = [(item.step, item.attempt, item.owner, item.part) for item in owed_parts(attempt)]
    have = tuple(key in attempt.publications for key in keys)
    waits = (attempt.awaits_publication(key) for key in keys)
    if not known.overdue and any(waits):
        return None
    return Held(attempt.slot(Phase.HELD), attempt.transcript.prefix, have)


def _say_checksums(known: Knowledge) -> Checksums | None:
    """CHECKSUMS, once every aggregate is here."""
    attempt = known.attempt
    return attempt.checksums() if len(attempt.aggregates) >= len(attempt.aggregators) else None


def _say_judge(known: Knowledge) -> Judge | None:
    """JUDGE, once the accused gradients are recomputed and the publications that enough peers hold are here."""
    if known.trial is None:
        return None
    few = scarce(known.attempt, Phase.HAVE, known.trial.publications)
    return known.trial.judge(known.gradients.recomputed, few)


def _say_report(known: Knowledge) -> Report | None:
    """REPORT, once our targets' gradients are recomputed: our word on every claim about our part, and verdicts."""
    attempt, past, recomputed = known.attempt, known.past, known.gradients.recomputed
    share, faults = attempt.shares.get(attempt.me, ()), known.gradients.rechecks.faults
    if any(target not in recomputed for target in attempt.targets) or any(item not in faults for item in share):
        return None
    if not attempt.parts.keys() >= set(attempt.contributors):
        return None  # we have been started again, from so far back that nobody has them for us any more
    verdicts = tuple(
        Verdict(target, not suspicious(past, target, recomputed[target]))
        for target in attempt.targets
        if past is not None
    )
    slot, prefix = attempt.slot(Phase.REPORT), attempt.transcript.prefix
    holds = tuple(faults[item] is None for item in share)
    late = waited(past, attempt) if past is not None else ()
    return Report(slot, prefix, attempt.checks(), verdicts, (), known.proofs, known.joins, holds, late,
                  measured(attempt))  # fmt: skip


# --- what fits an attempt: what is wrong with a message, None if it fits --------------------------------------


def _commit_misfit(body: Commit, attempt: Attempt, counts: Counts) -> str | None:
    """A digest for each part of a contributor's gradient."""
    parts = _parts(body, attempt)
    fits = len(body.parts) == parts and _digests(*body.parts, body.randomness)
    return None if fits else f"COMMIT must carry {parts} part digests"


def _agg_misfit(body: Agg, attempt: Attempt, counts: Counts) -> str | None:
    """The digest of an aggregate, or a complaint."""
    if isinstance(body.aggregate, Missing):
        return _complaint(body.aggregate, attempt)
    fits = _digests(body.aggregate) if attempt.contributors else body.aggregate == b""
    return None if fits else "AGG must carry one digest"


def _bare(body: Resend | Publish, attempt: Attempt, counts: Counts) -> None:
    """RESEND and PUBLISH carry nothing: bytes follow."""


def _held_misfit(body: Held, attempt: Attempt, counts: Counts) -> str | None:
    """A bit for each part that a complaint asks for."""
    owed = len(attempt.complaints())
    known = not attempt.transcript.missing(Phase.AGG)
    return None if not known or len(body.have) == owed else f"HELD must carry {owed} bits"


def _agg2_misfit(body: Agg2, attempt: Attempt, counts: Counts) -> str | None:
    """The digest of an aggregate exactly from those that had complained."""
    complained = {aggregator for aggregator, _ in attempt.complaints()}
    known = not attempt.transcript.missing(Phase.AGG)
    fits = not known or (_digests(body.aggregate) if body.slot.sender in complained else body.aggregate == b"")
    return None if fits else "AGG2 must carry a digest exactly after a complaint"


def _reveal_misfit(body: Reveal, attempt: Attempt, counts: Counts) -> str | None:
    """The value committed to, and a bit for each aggregate."""
    aggregates = len(attempt.roster.active) if attempt.contributors else 0
    if not _digests(body.x, body.salt) or len(body.have) != aggregates:
        return f"REVEAL must carry {aggregates} HAVE bits"
    return _opening(body, attempt)


def _checksums_misfit(body: Checksums, attempt: Attempt, counts: Counts) -> str | None:
    """A pair for each part of a contributor's gradient."""
    parts = _parts(body, attempt)
    return None if len(body.s) == len(body.norms) == parts else f"CHECKSUMS must carry {parts} pairs"


def _have_misfit(body: Have, attempt: Attempt, counts: Counts) -> str | None:
    """A bit for each publication."""
    fits = counts.publications in (None, len(body.have))
    return None if fits else f"HAVE must carry {counts.publications} bits"


def _judge_misfit(body: Judge, attempt: Attempt, counts: Counts) -> str | None:
    """A bit for each accused gradient."""
    return None if counts.charges in (None, len(body.guilty)) else f"JUDGE must carry {counts.charges} bits"


def _close_misfit(body: Close, attempt: Attempt, counts: Counts) -> str | None:
    """The digest of a state, or a removal."""
    fits = isinstance(body.value, Void) or _digests(body.value)
    return None if fits else "CLOSE must carry a digest"


OUTSIDE: dict[type[Message], str] = {
    Hello: "a HELLO inside an attempt",
    View: "a message of a dispute inside an attempt",
    Outcome: "a message of a dispute inside an attempt",
    Join: "a JOIN of an active peer",
}
"""What is wrong with messages that belong to no phase of an attempt."""


def _parts(body: Message, attempt: Attempt) -> int:
    return attempt.split.count if body.slot.sender in attempt.contributors else 0


def _suspect_misfit(body: Suspect, attempt: Attempt) -> str | None:
    """It names a phase of the step and another active peer."""
    another = body.peer in attempt.roster.active and body.peer != body.slot.sender
    in_step = Phase.COMMIT.value <= body.named.value <= Phase.CLOSE.value
    fits = another and in_step and not body.prefix
    return None if fits else "a SUSPECT names a phase of the step and another active peer, and carries no prefix"


def _complaint(missing: Missing, attempt: Attempt) -> str | None:
    """A complaint names contributors in roster order, each once (its sender too: a filter may have spoilt its part)."""
    owners = missing.owners
    possible = tuple(peer for peer in attempt.contributors if peer in owners)
    return None if owners and owners == possible else "a complaint must name contributors in roster order"


def _opening(body: Reveal, attempt: Attempt) -> str | None:
    """A revealed value opens its sender's commitment (once that is here)."""
    sender = body.slot.sender
    commit = attempt.transcript.body(Phase.COMMIT, sender)
    if not isinstance(commit, Commit):
        return None
    opened, run = Share(body.x, body.salt), attempt.settings.run
    fits = opens(commit.randomness, run, attempt.step, attempt.number, sender, opened)
    return None if fits else "REVEAL opens another value than the one committed to"


def _digests(*values: bytes) -> bool:
    return set(map(len, values)) <= {DIGEST_BYTES}


def _waits_fit(body: Report, attempt: Attempt) -> bool:
    """True if each wait is named once, in order, and for another active peer."""
    if not body.late:
        return True
    places = [(wait.phase.value, wait.bulk) for wait in body.late]
    known = all(wait.peer in attempt.roster.active and wait.peer != body.slot.sender for wait in body.late)
    within = all(Phase.COMMIT.value <= place <= Phase.CLOSE.value for place, _ in places)
    return known and within and all(one < other for one, other in pairwise(places))


def _report_misfit(body: Report, attempt: Attempt, counts: Counts) -> str | None:
    """A bit for each contributor, a verdict for each of our targets, and no more of anything than there can be."""
    sender = body.slot.sender
    if len(body.checks) != len(attempt.contributors):
        return f"REPORT must carry {len(attempt.contributors)} V1 bits"
    due = tuple(target for validator, target in attempt.pairs if validator == sender)
    if tuple(verdict.target for verdict in body.verdicts) != due:
        return f"REPORT must carry the verdicts on {list(due)}"
    if len(body.evidence) > MAX_PROOFS:
        return f"REPORT carries more than {MAX_PROOFS} proofs"
    if not joins_fit(body.joins, attempt, sender):
        return "REPORT carries a join request that nobody can have made, or too many"
    recomputed = len(attempt.shares.get(sender, ()))
    if len(body.holds) != recomputed:
        return f"REPORT must say of {recomputed} contributions whether they hold"
    if not measures_fit(body.measured, attempt):
        return "REPORT must carry two measurements exactly in step 0, and where bounds are measured"
    if not _waits_fit(body, attempt):
        return "REPORT names waits of no phase, or not one by one, or for peers that are not active"
    if len(body.accusations) > MAX_ACCUSATIONS:
        return f"REPORT carries {len(body.accusations)} accusations, more than {MAX_ACCUSATIONS}"
    return None


# --- what follows ---------------------------------------------------------------------------------------------


def _always(phase: Phase) -> Callable[[Attempt, Case | None], Next]:
    return lambda attempt, case: (phase, None)


def _after_agg(attempt: Attempt, case: Case | None) -> Next:
    return (Phase.RESEND if attempt.complaints() else Phase.REVEAL), None


def _after_held(attempt: Attempt, case: Case | None) -> Next:
    few = scarce(attempt, Phase.HELD, owed_parts(attempt))
    guilts = withheld(attempt, few, "part") if few else unusable_parts(attempt)
    return (Phase.CLOSE, Judgement(guilts, void=True)) if few or guilts else (Phase.AGG2, None)


def _after_reveal(attempt: Attempt, case: Case | None) -> Next:
    few = scarce(attempt, Phase.REVEAL, owed_aggregates(attempt))
    return (Phase.CLOSE, Judgement(withheld(attempt, few, "aggregate"), void=True)) if few else (Phase.CHECKSUMS, None)


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


# --- the table ------------------------------------------------------------------------------------------------


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


PHASES: Mapping[Phase, Row] = {
    Phase.COMMIT: Row(
        Commit,
        _commit_misfit,
        lambda known: known.attempt.commit(),
        after=_always(Phase.AGG),
        work=Work(computes=1, first=True),
        act=lambda round_: round_.send_parts(),
    ),
    Phase.AGG: Row(
        Agg,
        _agg_misfit,
        lambda known: known.attempt.agg(known.overdue),
        after=_after_agg,
        work=Work(tensors=1, computes=1, beside=True),
        act=lambda round_: round_.send_aggregate(),
    ),
    Phase.RESEND: Row(
        Resend,
        _bare,
        lambda known: Resend(known.attempt.slot(Phase.RESEND), known.attempt.transcript.prefix),
        after=_always(Phase.HELD),
        bytes=_our_parts,
    ),
    Phase.HELD: Row(
        Held,
        _held_misfit,
        _say_held,
        after=_after_held,
        work=Work(tensors=1),
        items=Items(BulkKind.PUBLICATION, lambda attempt, case: owed_parts(attempt)),
    ),
    Phase.AGG2: Row(
        Agg2,
        _agg2_misfit,
        lambda known: known.attempt.agg2(),
        after=_always(Phase.REVEAL),
        work=Work(tensors=1),
        act=lambda round_: round_.send_aggregate(),
    ),
    Phase.REVEAL: Row(
        Reveal,
        _reveal_misfit,
        lambda known: known.attempt.reveal(known.overdue),
        after=_after_reveal,
        work=Work(tensors=1),
        items=Items(BulkKind.AGGREGATE, lambda attempt, case: owed_aggregates(attempt)),
        act=lambda round_: round_.fix_randomness(),
    ),
    Phase.CHECKSUMS: Row(
        Checksums,
        _checksums_misfit,
        _say_checksums,
        after=_always(Phase.REPORT),
        work=Work(tensors=1),
    ),
    Phase.REPORT: Row(
        Report,
        _report_misfit,
        _say_report,
        after=_judging(Phase.REPORT),
        work=Work(computes=1, rechecks=True),
        act=lambda round_: round_.open_case(),
    ),
    Phase.PUBLISH: Row(
        Publish,
        _bare,
        lambda known: known.trial.publish() if known.trial is not None else None,
        after=_judging(Phase.PUBLISH),
        work=Work(judged=True),
        bytes=_our_publications,
    ),
    Phase.HAVE: Row(
        Have,
        _have_misfit,
        lambda known: known.trial.have(known.overdue) if known.trial is not None else None,
        after=_judging(Phase.HAVE),
        work=_JUDGED,
        items=Items(BulkKind.PUBLICATION, lambda attempt, case: case.publications if case is not None else ()),
    ),
    Phase.JUDGE: Row(
        Judge,
        _judge_misfit,
        _say_judge,
        after=_judging(Phase.JUDGE),
        work=_JUDGED,
    ),
    Phase.CLOSE: Row(Close, _close_misfit, lambda known: None, after=_always(Phase.CLOSE), work=_JUDGED),
}
"""In order. A phase that needs something new gets a column here."""


def message(phase: Phase, known: Knowledge) -> Body | None:
    """This peer's message of a phase, None while something it needs is not here; CLOSE is the round's."""
    before = standing(phase, known.attempt) if known.again else None
    return before if before is not None else PHASES[phase].compose(known)


def misfit(body: Message, attempt: Attempt, counts: Counts) -> str | None:
    """What is wrong with a message of this attempt, None if it fits."""
    if isinstance(body, Suspect):
        return _suspect_misfit(body, attempt)
    row = PHASES.get(body.slot.phase)
    if row is None or not isinstance(body, row.message):
        return OUTSIDE[type(body)]
    return row.fits(body, attempt, counts)


def following(attempt: Attempt, phase: Phase, case: Case | None) -> Next:
    """The phase after a finished one, and the judgement if the attempt is void already.

    Raises:
        LackingError: that depends on published bytes which are not here yet.
    """
    return PHASES[phase].after(attempt, case)
